//! Allowed origins, and origins that differ from them a little.

use anyhow::{Result, ensure};
use chatbox_tests::harness::Stack;

use super::check_refusal;

#[tokio::test]
async fn only_listed_origins_and_their_wildcards_may_connect() -> Result<()> {
    let allowed = vec!["https://app.example.com", "https://*.example.org", "http://localhost:3000"];
    let stack = Stack::builder()
        .gateway("security.allowed_origins", allowed)?
        .gateway("limits.handshake_burst", 1000)?
        .start()
        .await?;
    for origin in [
        "https://app.example.com",
        "https://APP.example.COM",
        "https://app.example.com:443",
        "https://one.example.org",
        "http://localhost:3000",
    ] {
        let connected = stack.user("ana")?.header("Origin", origin).connect().await;
        ensure!(connected.is_ok(), "{origin} was refused: {connected:?}");
    }
    for origin in [
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "https://xapp.example.com",
        "https://app.example.com.",
        "https://example.com",
        "https://example.org",
        "https://a.b.example.org",
        "https://evilexample.org",
        "https://.example.org",
        "http://one.example.org",
        "http://localhost",
        "http://localhost:30000",
        "http://127.0.0.1:3000",
        "https://app.example.com@evil.example",
        "https://user@app.example.com",
        "https://app.example.com/path",
        "null",
        "",
        "https://",
        "app.example.com",
        "*",
        "file://",
    ] {
        let answer = stack.user("ana")?.header("Origin", origin).response().await?;
        check_refusal(&format!("the origin {origin:?}"), &answer, 403, "origin_not_allowed")?;
    }
    let twice = stack.user("ana")?.add("Origin", "https://app.example.com").add("Origin", "https://app.example.com");
    check_refusal("two Origin headers", &twice.response().await?, 403, "origin_not_allowed")?;
    // A native client sends no Origin.
    stack.user("ana")?.connect().await?;
    Ok(())
}

#[tokio::test]
async fn an_empty_list_means_the_gateways_own_host() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let own = stack.gateway(0);
    stack.user("ana")?.header("Origin", format!("http://{own}")).connect().await?;
    for origin in [format!("http://127.0.0.1:{}", own.port() - 1), "http://127.0.0.1".to_owned(), "null".to_owned()] {
        let answer = stack.user("ana")?.header("Origin", &origin).response().await?;
        check_refusal(&format!("the origin {origin:?}"), &answer, 403, "origin_not_allowed")?;
    }
    Ok(())
}

#[tokio::test]
async fn an_origin_can_be_demanded() -> Result<()> {
    let stack = Stack::builder()
        .gateway("security.allowed_origins", vec!["https://app.example.com"])?
        .gateway("security.require_origin", true)?
        .start()
        .await?;
    check_refusal("no origin", &stack.user("ana")?.response().await?, 403, "origin_not_allowed")?;
    stack.user("ana")?.header("Origin", "https://app.example.com").connect().await?;
    Ok(())
}

#[tokio::test]
async fn any_origin_may_connect_only_where_that_is_said_twice() -> Result<()> {
    let stack = Stack::builder()
        .gateway("security.allowed_origins", vec!["*"])?
        .gateway("security.insecure_any_origin", true)?
        .start()
        .await?;
    stack.user("ana")?.header("Origin", "https://anything.example").connect().await?;
    let output = stack.output();
    ensure!(
        output.lines().any(|line| line.contains("\"WARN\"") && line.contains("insecure_any_origin")),
        "no warning about insecure_any_origin in the log"
    );
    Ok(())
}

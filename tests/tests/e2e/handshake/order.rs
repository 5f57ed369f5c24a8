//! Each check of the handshake, and that the first one that fails decides the response.

use std::time::Duration;

use anyhow::{Result, ensure};
use chatbox_tests::harness::waits::{eventually, within_time};
use chatbox_tests::harness::{Stack, raw_http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::check_refusal;

const STRANGER: &str = "https://elsewhere.example.net";

#[tokio::test]
async fn the_upgrade_is_checked_before_the_origin_and_the_origin_before_the_token() -> Result<()> {
    let stack = Stack::builder().gateway("security.allowed_origins", vec!["https://app.example.com"])?.start().await?;

    let plain =
        stack.handshake().without("Upgrade").without("Connection").header("Origin", STRANGER).response().await?;
    check_refusal("no upgrade", &plain, 426, "upgrade_required")?;
    ensure!(plain.header("upgrade") == Some("websocket"), "426 must name the protocol: {:?}", plain.headers);

    let old = stack.handshake().header("Sec-WebSocket-Version", "8").header("Origin", STRANGER).response().await?;
    check_refusal("version 8", &old, 426, "upgrade_required")?;
    ensure!(old.header("sec-websocket-version") == Some("13"), "426 must name the version: {:?}", old.headers);

    let post = stack.handshake().method("POST").header("Content-Length", "0").response().await?;
    ensure!(post.status == 405, "POST: {}", post.status);

    for key in ["", "c2hvcnQ=", "not base64 at all!!!!!!!"] {
        let answer = stack.user("ana")?.header("Sec-WebSocket-Key", key).response().await?;
        ensure!(answer.status == 400, "the key {key:?}: {} {}", answer.status, answer.text());
    }

    let stranger = stack.handshake().header("Origin", STRANGER).response().await?;
    check_refusal("a stranger without a token", &stranger, 403, "origin_not_allowed")?;

    let nobody = stack.handshake().header("Origin", "https://app.example.com").response().await?;
    check_refusal("no token", &nobody, 401, "unauthorized")?;
    Ok(())
}

#[tokio::test]
async fn too_many_handshakes_of_one_address_are_refused_before_anything_is_looked_at() -> Result<()> {
    let stack = Stack::builder()
        .gateway("limits.handshake_burst", 3)?
        .gateway("limits.handshakes_per_minute", 6)?
        .start()
        .await?;
    for _ in 0..3 {
        check_refusal("within the burst", &stack.handshake().response().await?, 401, "unauthorized")?;
    }
    let fourth = stack.handshake().without("Upgrade").response().await?;
    check_refusal("above the burst", &fourth, 429, "rate_limited")?;
    Ok(())
}

#[tokio::test]
async fn a_full_gateway_refuses_and_takes_again_when_someone_leaves() -> Result<()> {
    let stack = Stack::builder().gateway("limits.max_connections", 1)?.start().await?;
    let ana = stack.user("ana")?.connect().await?;
    check_refusal("a full gateway", &stack.user("ben")?.response().await?, 503, "unavailable")?;
    ana.leave().await?;
    eventually("a free place", || async { stack.user("ben")?.connect().await }).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_brain_the_token_is_still_checked_first() -> Result<()> {
    let mut stack = Stack::builder().start().await?;
    stack.kill_brain().await?;
    eventually("the gateway to notice", || async {
        check_refusal("no brain", &stack.user("ana")?.response().await?, 503, "unavailable")
    })
    .await?;
    check_refusal("no brain, no token", &stack.handshake().response().await?, 401, "unauthorized")?;
    let ready = raw_http::get(stack.gateway_ops(0), "/readyz").await?;
    ensure!(ready.status == 503 && ready.text().contains("brain"), "/readyz: {} {}", ready.status, ready.text());
    stack.start_brain().await?;
    eventually("the gateway to link again", || async { stack.user("ana")?.connect().await }).await?;
    Ok(())
}

#[tokio::test]
async fn a_draining_gateway_tells_its_clients_and_refuses_new_ones() -> Result<()> {
    let mut stack = Stack::builder().gateway("shutdown.drain_seconds", 2)?.start().await?;
    let mut ana = stack.user("ana")?.connect().await?;
    stack.gateway_process(0).terminate()?;
    let notice = ana.until("the drain notice", |frame| frame.is("notice")).await?;
    ensure!(notice.text("/code") == "server_draining", "{}", notice.raw);
    ensure!(notice.number("/reconnect_after_ms").is_some(), "{}", notice.raw);
    let answer = stack.user("ben")?.response().await?;
    check_refusal("a draining gateway", &answer, 503, "unavailable")?;
    let closed = ana.closed().await?;
    ensure!(closed.code == 1012, "{closed:?}");
    let status = stack.gateway_process(0).ended().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_head_that_is_too_large_or_too_slow_is_refused_and_others_are_served() -> Result<()> {
    let stack = Stack::builder().gateway("limits.header_timeout_ms", 700)?.start().await?;
    let large = stack.user("ana")?.header("X-Filler", "x".repeat(20_000)).response().await?;
    ensure!(large.status == 431, "a head of 20 kB: {} {}", large.status, large.text());
    let mut many = stack.user("ana")?;
    for index in 0..120 {
        many = many.add(&format!("X-Filler-{index}"), "x");
    }
    let answer = many.response().await?;
    ensure!(answer.status == 431, "125 headers: {} {}", answer.status, answer.text());

    let mut slow = TcpStream::connect(stack.gateway(0)).await?;
    slow.write_all(b"GET /chat/ws HTTP/1.1\r\nHost: x\r\n").await?;
    stack.user("ben")?.connect().await?;
    let mut rest = Vec::new();
    within_time(Duration::from_secs(5), "the end of a slow head", slow.read_to_end(&mut rest)).await??;
    ensure!(!rest.starts_with(b"HTTP/1.1 101"), "half a head was taken");
    Ok(())
}

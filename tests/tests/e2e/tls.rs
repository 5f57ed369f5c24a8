//! The link with TLS: both sides need a certificate of the right authority.

use anyhow::{Result, ensure};
use chatbox_tests::harness::certificates::{Authority, Side};
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::waits::eventually;
use chatbox_tests::harness::{Stack, raw_http};
use tempfile::TempDir;

#[tokio::test]
async fn services_that_know_each_other_talk() -> Result<()> {
    let (authority, folder) = (Authority::new()?, TempDir::new()?);
    let builder = authority.certify(Stack::builder(), Side::Brain, &authority, folder.path())?;
    let mut stack = authority.certify(builder, Side::Gateway, &authority, folder.path())?.start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "hello").await?;
    // Again after the link broke.
    stack.restart_brain().await?;
    ana.converse(&session, "again").await?;
    ana.log(&session)?.assert_gapless()
}

/// A gateway without a link is not ready and refuses clients; the brain is healthy.
async fn refused(stack: &mut Stack) -> Result<()> {
    // Wait for the first attempt to connect.
    let tried = |line: &serde_json::Value| line["message"].as_str()?.starts_with("cannot reach brain").then_some(());
    stack.gateway_process(0).logged("that the brain cannot be reached", tried).await?;
    let gateway = raw_http::get(stack.gateway_ops(0), "/readyz").await?;
    ensure!(gateway.status == 503, "{} {}", gateway.status, gateway.text());
    let handshake = stack.user("ana")?.response().await?;
    ensure!(handshake.status == 503, "{} {}", handshake.status, handshake.text());
    for path in ["/readyz", "/healthz"] {
        eventually(format!("{path} of the brain to say 200"), || async {
            let brain = raw_http::get(stack.brain_ops(), path).await?;
            ensure!(brain.status == 200, "{path}: {} {}", brain.status, brain.text());
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_of_another_authority_is_refused() -> Result<()> {
    let (authority, other, folder) = (Authority::new()?, Authority::new()?, TempDir::new()?);
    let builder = authority.certify(Stack::builder(), Side::Brain, &authority, folder.path())?;
    // The gateway trusts the brain; the brain does not trust the gateway.
    let mut stack = other.certify(builder, Side::Gateway, &authority, folder.path())?.launch().await?;
    refused(&mut stack).await
}

#[tokio::test]
async fn a_brain_of_another_authority_is_not_trusted() -> Result<()> {
    let (authority, other, folder) = (Authority::new()?, Authority::new()?, TempDir::new()?);
    let builder = other.certify(Stack::builder(), Side::Brain, &authority, folder.path())?;
    let mut stack = authority.certify(builder, Side::Gateway, &authority, folder.path())?.launch().await?;
    refused(&mut stack).await
}

#[tokio::test]
async fn a_gateway_without_a_certificate_is_refused() -> Result<()> {
    let (authority, folder) = (Authority::new()?, TempDir::new()?);
    let builder = authority.certify(Stack::builder(), Side::Brain, &authority, folder.path())?;
    // The gateway has no certificate and does not use TLS.
    let mut stack = builder.launch().await?;
    refused(&mut stack).await
}

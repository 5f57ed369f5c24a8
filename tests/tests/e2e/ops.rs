//! The operations port: alive, ready, and what there is to count.

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::{Stack, raw_http};

/// The value of a metric without labels, or the sum over its labels.
fn value(metrics: &str, name: &str) -> Result<f64> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let of_name = lines.filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values: Vec<f64> = of_name.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    ensure!(!values.is_empty(), "no metric {name} in\n{metrics}");
    Ok(values.iter().sum())
}

#[tokio::test]
async fn both_services_say_how_they_are_and_count_what_they_do() -> Result<()> {
    let stack = Stack::builder().start().await?;
    for (ops, dependency) in [(stack.gateway_ops(0), "brain"), (stack.brain_ops(), "store")] {
        let alive = raw_http::get(ops, "/healthz").await?;
        ensure!(alive.status == 200, "/healthz: {} {}", alive.status, alive.text());
        let ready = raw_http::get(ops, "/readyz").await?;
        ensure!(ready.status == 200 && ready.text().contains(dependency), "/readyz: {} {}", ready.status, ready.text());
        ensure!(raw_http::get(ops, "/nothing").await?.status == 404, "an unknown path is there");
    }
    // None of it stands on the public port.
    for path in ["/healthz", "/readyz", "/metrics", "/chat/metrics", "/"] {
        let answer = raw_http::get(stack.gateway(0), path).await?;
        ensure!(answer.status == 404, "{path} is public: {} {}", answer.status, answer.text());
    }

    let mut ana = stack.user("ana")?.connect().await?;
    let session = new_session();
    ana.open(&session).await?;
    ana.converse(&session, "hello").await?;
    ana.settle().await?;
    let gateway = raw_http::get(stack.gateway_ops(0), "/metrics").await?.text();
    ensure!(value(&gateway, "chatbox_gateway_connections")? >= 1.0, "no connection is counted");
    let brain = raw_http::get(stack.brain_ops(), "/metrics").await?.text();
    for line in gateway.lines().filter(|line| !line.starts_with('#')) {
        ensure!(line.starts_with("chatbox_gateway_"), "a metric of another name: {line}");
    }
    for line in brain.lines().filter(|line| !line.starts_with('#')) {
        ensure!(line.starts_with("chatbox_brain_"), "a metric of another name: {line}");
    }
    let counted = brain.lines().find(|line| line.contains("user_message")).context("user messages are not counted")?;
    ensure!(!counted.contains(&session) && !brain.contains("ana"), "a label holds an id: {counted}");
    Ok(())
}

//! The operations port: health, readiness, metrics; and that the pages name what the metrics name.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Dialect, Stack, StoreAt, raw_http};
use chatbox_tests::provider::FakeProvider;

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
    // The public port has none of these paths.
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

/// A page of `docs/`.
fn page(name: &str) -> Result<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[tokio::test]
async fn the_protocol_page_names_every_close_code_of_the_gateway_and_no_other() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let metrics = raw_http::get(stack.gateway_ops(0), "/metrics").await?.text();
    let labelled =
        metrics.lines().filter_map(|line| line.strip_prefix("chatbox_gateway_closes_total{code=\"")?.split('"').next());
    let counted: BTreeSet<&str> = labelled.filter(|code| *code != "other").collect();
    let page = page("protocol.md")?;
    let (_, section) = page.split_once("\n## 9. Close codes").context("no section of close codes")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let words = section.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 4);
    let documented: BTreeSet<&str> = words.collect();
    ensure!(documented == counted, "docs/protocol.md names {documented:?}, the gateway counts {counted:?}");
    Ok(())
}

/// The names of the metrics in an exposition: one `# TYPE` line each. Counters are exposed with the suffix `_total`.
fn names(exposition: &str) -> BTreeSet<String> {
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .collect()
}

#[tokio::test]
async fn the_metrics_page_lists_exactly_the_metrics_of_both_services() -> Result<()> {
    let (store, provider) = (StoreAt::mongodb().await?, FakeProvider::start().await?);
    let model = Model::at("bird", Dialect::OpenAi, &provider.url());
    let stack = Stack::builder().store(store).model(model).start().await?;
    // Series of requests, calls and endpoints exist once there was one.
    let mut ana = stack.user("ana")?.connect().await?;
    let session = new_session();
    ana.open(&session).await?;
    ana.converse(&session, "hello").await?;
    let mut exposed = BTreeSet::new();
    for ops in [stack.gateway_ops(0), stack.brain_ops()] {
        exposed.extend(names(&raw_http::get(ops, "/metrics").await?.text()));
    }
    let page = page("metrics.md")?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.filter(|name| name.starts_with("chatbox_")).map(str::to_owned).collect();
    let missing: Vec<_> = exposed.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&exposed).collect();
    ensure!(missing.is_empty() && unknown.is_empty(), "docs/metrics.md lacks {missing:?} and invents {unknown:?}");
    Ok(())
}

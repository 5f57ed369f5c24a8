//! The table in `docs/answers.md` says what a client sees of every fault of a provider. This test causes each fault, through
//! the whole stack, and compares the table; with `CHATBOX_WRITE_DOCS=1` it writes the table.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::{Dialect, Stack, ledger};
use chatbox_tests::provider::{FakeProvider, presets};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const BEGIN: &str =
    "<!-- the table: made by CHATBOX_WRITE_DOCS=1 cargo test -p chatbox-tests --test e2e answers_page -->\n";
const END: &str = "<!-- the end of the table -->";
const HEAD: &str =
    "\n| preset | what the provider does | calls | the client sees | with a fallback |\n|---|---|---|---|---|\n";

/// How long an answer as a whole may take. Longer than the longest script that ends by itself, and than all retries.
const TOTAL: Duration = Duration::from_secs(20);

/// Answers at the same time. With more of them a busy machine would be the cause of timeouts.
const AT_ONCE: usize = 48;

fn dialect_of(preset: &str) -> Dialect {
    match preset.split('_').next().unwrap_or_default() {
        "anthropic" => Dialect::Anthropic,
        "dify" => Dialect::Dify,
        _ => Dialect::OpenAi,
    }
}

async fn stack(provider: &FakeProvider) -> Result<Stack> {
    let mut builder = Stack::builder()
        .brain("provider.first_token_timeout_ms", 2500)?
        .brain("provider.idle_timeout_ms", 2000)?
        .brain("provider.total_timeout_ms", i64::try_from(TOTAL.as_millis())?)?
        .brain("provider.max_retries", 2)?
        .brain("provider.max_retry_after_ms", 5000)?
        .brain("provider.breaker_failures", 1_000_000)?
        .gateway("limits.handshakes_per_minute", 100_000)?
        .gateway("limits.handshake_burst", 1000)?
        .model(Model::demo("fallback"));
    for dialect in Dialect::ALL {
        let model = |kind: &str| Model::at(&format!("{kind}-{}", dialect.name()), dialect, &provider.url());
        builder = builder.model(model("alone")).model(model("backed").with("fallback", vec!["fallback"]));
    }
    builder.start().await
}

/// Sends a message that the provider answers with this preset. The task returns the finished entry and the session.
async fn answer(
    stack: &Stack,
    places: &Arc<Semaphore>,
    kind: &'static str,
    preset: &'static str,
) -> Result<JoinSet<Result<(Value, String)>>> {
    let mut connection = stack.user(&format!("{kind}-{preset}"))?.connect().await?;
    let session = new_session();
    let model = format!("{kind}-{}", dialect_of(preset).name());
    connection
        .open_with(json!({ "type": "session_open", "session_id": session, "create": true, "model_id": model }))
        .await?;
    let mut task = JoinSet::new();
    let place = Arc::clone(places).acquire_owned().await?;
    task.spawn(async move {
        let _place = place;
        connection.say(&session, &format!("!mock {preset}")).await?;
        connection.set_timeout(2 * TOTAL);
        let answer = connection.answer(&session, 1).await.with_context(|| format!("{kind} {preset}"))?;
        Ok((answer, session))
    });
    Ok(task)
}

/// The outcome as the table words it.
fn seen(answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    let kept = if text("content").is_empty() { "without text" } else { "the text so far stays" };
    match text("state").as_str() {
        "failed" => {
            let again = if answer["error"]["retryable"] == true { ", may be tried again" } else { "" };
            format!("failed, `{}`{again}; {kept}", answer["error"]["code"].as_str().unwrap_or_default())
        }
        _ if text("content").is_empty() => format!("`{}`, without text", text("finish_reason")),
        _ => format!("the answer, `{}`", text("finish_reason")),
    }
}

fn seen_with_fallback(answer: &Value) -> String {
    match (answer["model_id"].as_str(), answer["attempt"].as_u64()) {
        (Some("fallback"), Some(1)) => "the fallback answers".to_owned(),
        (Some("fallback"), Some(2)) => "what was shown is void, the fallback answers".to_owned(),
        _ => "the same".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answers_page_matches_the_behaviour() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let stack = stack(&provider).await?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = Vec::new();
    for (preset, what) in presets::ALL.iter() {
        running.push((
            *preset,
            *what,
            answer(&stack, &places, "alone", preset).await?,
            answer(&stack, &places, "backed", preset).await?,
        ));
    }
    let mut rows = Vec::new();
    for (preset, what, mut alone, mut backed) in running {
        let (alone, session) = alone.join_next().await.context("no task")???;
        let (backed, _) = backed.join_next().await.context("no task")???;
        rows.push((preset, what, alone, session, backed));
    }
    let records = ledger::settled(&stack).await?;
    let mut table = HEAD.to_owned();
    for (preset, what, alone, session, backed) in rows {
        let calls = records.values().filter(|record| record.session == session).count();
        if backed["model_id"] != "fallback" {
            ensure!(seen(&alone) == seen(&backed), "{preset}: {alone} and with a fallback {backed}");
        }
        let (seen, backed) = (seen(&alone), seen_with_fallback(&backed));
        writeln!(table, "| `{preset}` | {what} | {calls} | {seen} | {backed} |")?;
    }
    table.push('\n');

    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/answers.md");
    let page = std::fs::read_to_string(&path)?;
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for the table")?;
    let (written, after) = rest.split_once(END).context("the table has no end")?;
    if std::env::var_os("CHATBOX_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))?;
        return Ok(());
    }
    for (is, says) in table.lines().zip(written.lines()) {
        ensure!(is == says, "docs/answers.md says\n{says}\nand it is\n{is}");
    }
    ensure!(table == written, "docs/answers.md has another number of faults");
    Ok(())
}

//! The programs in `examples/`, run as a reader would run them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_shared::auth::{Options, TokenVerifier};
use chatbox_shared::clock::SystemClock;
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_tests::harness::Stack;
use chatbox_tests::harness::connection::new_session;
use chatbox_tests::harness::start::random_base64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::tools::{installed, search_path};

/// Stands in for the browser: a document with four elements, a form that is filled in from standard input, and the log
/// on standard output whenever it has changed.
const BROWSER: &str = include_str!("browser.mjs");
/// How long a program may take to print what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path)
}

/// A running example: standard input and output are pipes.
struct Example {
    child: Child,
    output: String,
}

impl Example {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        Ok(Self { child, output: String::new() })
    }

    async fn type_line(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("standard input is closed")?;
        Ok(input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// Reads until the output contains `text`.
    async fn printed(&mut self, text: &str) -> Result<()> {
        let output = self.child.stdout.as_mut().context("standard output is closed")?;
        let read = async {
            let mut bytes = [0; 4096];
            while !self.output.contains(text) {
                let length = output.read(&mut bytes).await?;
                ensure!(length > 0, "the output has ended");
                self.output.push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
            Ok(())
        };
        let read = tokio::time::timeout(PATIENCE, read).await.context("no more output").flatten();
        read.with_context(|| format!("waiting for {text:?} in {:?}", self.output))
    }

    /// Closes the input and waits for a successful end.
    async fn ends_well(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "{status}, after {:?}", self.output);
        Ok(())
    }
}

#[tokio::test]
async fn tokens_minted_in_three_languages_are_accepted() -> Result<()> {
    let secret = random_base64();
    let options = Options { hs256_secret: Some(secret.as_str().into()), ..Options::default() };
    let verifier = TokenVerifier::new(options, Arc::new(SystemClock), &Lifecycle::new())?;
    for (probe, script) in [
        ("python3 --version", "tokens/mint.py"),
        ("node --version", "tokens/mint.mjs"),
        ("openssl version", "tokens/mint.sh"),
    ] {
        if !installed(probe, &search_path()).await {
            continue;
        }
        let mut mint = Command::new(example(script));
        let output = mint.args(["ada", "Ada L", "admin"]).env("CHATBOX__AUTH__HS256_SECRET", &secret).output().await?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        let token = String::from_utf8(output.stdout)?;
        let verified = verifier.verify(token.trim()).await.with_context(|| script.to_owned())?;
        let principal = verified.principal;
        ensure!(principal.user.as_str() == "ada" && principal.is_admin(), "{script}: {principal:?}");
        ensure!(principal.name.as_deref() == Some("Ada L"), "{script}: {principal:?}");
    }
    Ok(())
}

/// The numbers from 1 on, as the model `demo` counts.
fn counted(to: u32) -> String {
    (1..=to).map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
}

/// An answer is on its way when the gateway is killed; what is typed while it is away arrives once it is back.
async fn survives_the_gateway(stack: &mut Stack, mut client: Example) -> Result<()> {
    client.type_line("count to 60").await?;
    client.printed("1 2 3").await?;
    stack.kill_gateway(0).await?;
    client.type_line("what is 6*7?").await?;
    stack.start_gateway(0).await?;
    client.printed(&counted(60)).await?;
    client.printed("6*7 = 42").await?;
    client.ends_well().await
}

#[tokio::test]
async fn the_python_client_resumes_and_sends_again() -> Result<()> {
    if !installed("python3 -c 'import websockets.asyncio.client'", &search_path()).await {
        return Ok(());
    }
    let mut stack = Stack::builder().start().await?;
    let mut command = Command::new(example("python/chat.py"));
    command.args(["--url", &format!("ws://{}/chat/ws", stack.gateway(0))]).env("CHATBOX_TOKEN", stack.token("ana")?);
    let client = Example::start(command.args(["--session", &new_session()]))?;
    survives_the_gateway(&mut stack, client).await
}

#[tokio::test]
async fn the_page_resumes_and_sends_again() -> Result<()> {
    if !installed("node --experimental-websocket --version", &search_path()).await {
        return Ok(());
    }
    let page = std::fs::read_to_string(example("browser/index.html"))?;
    let (_, script) = page.split_once("<script>").context("the page has no script")?;
    let (script, _) = script.split_once("</script>").context("the script has no end")?;
    let mut stack = Stack::builder().start().await?;
    let mut command = Command::new("node");
    command.args(["--experimental-websocket", "--no-warnings", "--input-type=module", "--eval"]);
    command.arg(format!("{BROWSER}\n{script}"));
    command.env("GATEWAY", format!("ws://{}/chat/ws", stack.gateway(0))).env("TOKEN", stack.token("ana")?);
    let client = Example::start(&mut command)?;
    survives_the_gateway(&mut stack, client).await
}

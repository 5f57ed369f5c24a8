//! The fake model provider by hand: OpenAI Chat Completions, Anthropic Messages and Dify on one port. See `docs/mock-llm.md`.

use anyhow::{Context as _, Result};
use chatbox_tests::provider::FakeProvider;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "A fake provider of OpenAI, Anthropic and Dify models, with faults on request")]
struct Arguments {
    /// The port on the loopback; 0 is any free one.
    #[arg(long, default_value_t = 8089)]
    port: u16,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the output tells how to use the program")]
async fn main() -> Result<()> {
    let Arguments { port } = Arguments::parse();
    let provider = FakeProvider::start_on(port).await.with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    println!("base url: {} (OpenAI, Anthropic, Dify; any key)", provider.url());
    println!(
        "scripts: curl http://{}/mock/scripts -d '{{\"preset\": \"cut_mid\"}}'; also PUT /mock/always, POST /mock/random, \
         GET /mock/presets, GET /mock/journal, DELETE /mock; in a chat: !mock cut_mid",
        provider.addr()
    );
    println!("stop with Ctrl-C");
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}

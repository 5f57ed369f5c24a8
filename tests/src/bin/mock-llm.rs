//! A model provider that does what it is told: OpenAI Chat Completions, Anthropic Messages and Dify on one port. See
//! `docs/mock-llm.md`.

use anyhow::{Context as _, Result};
use chatbox_tests::provider::ProviderDouble;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Serves OpenAI, Anthropic and Dify as badly as it is told to")]
struct Arguments {
    /// The port on the loopback; 0 is any free one.
    #[arg(long, default_value_t = 8089)]
    port: u16,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what this program prints tells how to use it")]
async fn main() -> Result<()> {
    let Arguments { port } = Arguments::parse();
    let double = ProviderDouble::start_on(port).await.with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    println!("base url: {} (OpenAI, Anthropic, Dify; any key)", double.url());
    println!(
        "scripts: curl http://{}/mock/scripts -d '{{\"preset\": \"cut_mid\"}}'; also PUT /mock/always, POST /mock/random, \
         GET /mock/presets, GET /mock/journal, DELETE /mock; in a chat: !mock cut_mid",
        double.addr()
    );
    println!("stop with Ctrl-C");
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}

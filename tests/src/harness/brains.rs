//! Several brains in one stack: which one serves a user, and how to stop and start each.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::process::{Launch, Process};
use super::proxy::Proxy;
use super::raw_http;
use super::stack::Stack;
use super::waits::eventually;

impl Stack {
    /// The operations address of one of the brains.
    pub fn brain_ops_at(&self, index: usize) -> SocketAddr {
        self.brains[index].ops
    }

    /// The proxy before one of the brains, in a stack that was built with proxies.
    pub fn proxy(&self, index: usize) -> &Proxy {
        &self.proxies[index]
    }

    /// How to run another command of the brain, such as `migrate`, with the settings of the first one.
    pub fn brain_command(&self, command: &str) -> Launch {
        let mut launch = self.brains[0].launch.clone();
        launch.args.insert(0, command.to_owned());
        launch
    }

    /// Kills one of the brains and waits for its end.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill_brain_at(&mut self, index: usize) -> Result<()> {
        self.brains[index].process.kill().await
    }

    /// Asks one of the brains to end, waits, and expects success.
    ///
    /// # Errors
    /// It did not end in time, or with a failure.
    pub async fn term_brain_at(&mut self, index: usize) -> Result<()> {
        self.brains[index].terminate().await
    }

    /// Waits for the orderly end of a brain that was asked to end.
    ///
    /// # Errors
    /// It does not end in time, or with a failure.
    pub async fn brain_ended_at(&mut self, index: usize) -> Result<()> {
        self.brains[index].ended().await
    }

    /// Starts one of the brains again after its end, at the same address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_brain_at(&mut self, index: usize) -> Result<()> {
        let profile = self.profile;
        self.brains[index].restart(profile).await
    }

    /// The process of one of the brains.
    pub fn brain_process_at(&self, index: usize) -> &Process {
        &self.brains[index].process
    }

    /// Waits until the first gateway has links to this many brains.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn linked(&self, brains: u64) -> Result<()> {
        eventually(format!("links to {brains} brains"), || async {
            let up = metric(self.gateway_ops(0), "chatbox_gateway_links_up").await?;
            ensure!(up == brains, "{up} links");
            Ok(())
        })
        .await
    }

    /// How many client connections each brain serves; `None` for one that does not run.
    ///
    /// # Errors
    /// No brain runs.
    pub async fn served(&self) -> Result<Vec<Option<u64>>> {
        let mut served = Vec::new();
        for brain in &self.brains {
            served.push(metric(brain.ops, "chatbox_brain_connections").await.ok());
        }
        ensure!(served.iter().any(Option::is_some), "no brain says whom it serves");
        Ok(served)
    }

    /// The one brain that generates an answer now.
    ///
    /// # Errors
    /// No brain does, or several do.
    pub async fn answering(&self) -> Result<usize> {
        let mut found = Vec::new();
        for (index, brain) in self.brains.iter().enumerate() {
            if metric(brain.ops, "chatbox_brain_answers_running").await.unwrap_or_default() > 0 {
                found.push(index);
            }
        }
        ensure!(found.len() == 1, "answering: {found:?}");
        Ok(found[0])
    }
}

/// The value of a metric without labels.
///
/// # Errors
/// There is no such metric.
pub async fn metric(ops: SocketAddr, name: &str) -> Result<u64> {
    let text = raw_http::get(ops, "/metrics").await?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no metric {name}"))?.parse().with_context(|| format!("{name} is no number"))
}

//! Reading the configuration again while the brain runs: on SIGHUP, and when the file or a file with a provider's key has
//! changed. What can be changed so is in [`crate::tunables`]; a file with faults changes nothing.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Clock;
use chatbox_shared::config::{self, ENV_FILE};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::BrainConfig;
use crate::llm::endpoint::Endpoints;
use crate::metrics::Metrics;
use crate::tunables::{Current, Tunables};

/// Reads the configuration again.
pub struct Reloader {
    /// The settings file as the command line names it.
    pub file: Option<PathBuf>,
    /// What is in force.
    pub current: Arc<Current>,
    /// What is known about endpoints, which outlives a reload.
    pub endpoints: Arc<Endpoints>,
    /// For the models.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The contents of all files that count, as they were last read.
type Contents = Vec<(PathBuf, Option<Vec<u8>>)>;

impl Reloader {
    /// Watches until the drain.
    ///
    /// # Errors
    /// Where the handler for the signal cannot be installed.
    pub fn run(
        self,
        config: &BrainConfig,
        drain: CancellationToken,
    ) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
        let mut hangup = signal(SignalKind::hangup())?;
        let every = Some(config.reload.watch_seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let fixed = fixed(config);
        let mut files = self.files(config);
        Ok(async move {
            let mut known = read(&files).await;
            loop {
                let asked = tokio::select! {
                    () = drain.cancelled() => return,
                    _ = hangup.recv() => true,
                    () = pause(every) => false,
                };
                // Read before it is loaded, so that what is written meanwhile is another change. Also a file with faults
                // is not loaded again before it changes again.
                let now = read(&files).await;
                if !asked && now == known {
                    continue;
                }
                known = now;
                if let Some(config) = self.reload(&fixed).await
                    && self.files(&config) != files
                {
                    files = self.files(&config);
                    known = read(&files).await;
                }
            }
        })
    }

    /// Reads the configuration and puts it in force; `None` where it has faults.
    async fn reload(&self, fixed: &[(&'static str, String)]) -> Option<BrainConfig> {
        let (file, clock, endpoints) = (self.file.clone(), Arc::clone(&self.clock), Arc::clone(&self.endpoints));
        // Reads files, and perhaps loads the table of an encoding.
        let loading = move || {
            let config = config::load::<BrainConfig>(file.as_deref()).map_err(|faults| faults.to_string())?;
            let tunables = Tunables::new(&config, &clock, &endpoints).map_err(|error| error.to_string())?;
            Ok((config, tunables))
        };
        let loaded = tokio::task::spawn_blocking(loading).await.unwrap_or_else(|error| Err(error.to_string()));
        let (config, tunables) = match loaded {
            Ok(loaded) => loaded,
            Err(why) => {
                self.metrics.reloaded(false);
                tracing::error!(
                    faults = why,
                    "the configuration was read again and has faults; what was in force stays"
                );
                return None;
            }
        };
        self.current.replace(tunables);
        self.metrics.reloaded(true);
        let now = self::fixed(&config);
        let waiting: Vec<_> = now.iter().filter(|section| !fixed.contains(section)).map(|(name, _)| *name).collect();
        if waiting.is_empty() {
            tracing::info!("the configuration was read again and is in force");
        } else {
            let sections = waiting.join(", ");
            tracing::warn!(
                sections,
                "the configuration was read again; these sections have changes that need a restart"
            );
        }
        Some(config)
    }

    /// The files whose contents count.
    fn files(&self, config: &BrainConfig) -> Vec<PathBuf> {
        let named = || std::env::var_os(ENV_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let keys = config.models.iter().map(|model| &model.api_key_file).filter(|path| !path.is_empty());
        self.file.clone().or_else(named).into_iter().chain(keys.map(PathBuf::from)).collect()
    }
}

/// The sections that cannot be changed, as text to compare. Secrets in them do not show, so a change of one alone does not.
fn fixed(config: &BrainConfig) -> Vec<(&'static str, String)> {
    let answers = &config.answers;
    vec![
        ("brain", format!("{:?}", config.brain)),
        ("ops", format!("{:?}", config.ops)),
        ("link", format!("{:?}", config.link)),
        ("store", format!("{:?}", config.store)),
        ("keys", format!("{:?}", config.keys)),
        (
            "answers",
            format!(
                "{:?}",
                (
                    answers.lease_ms,
                    answers.checkpoint_ms,
                    answers.checkpoint_bytes,
                    answers.sweep_interval_ms,
                    answers.max_attempts
                )
            ),
        ),
        ("reload", format!("{:?}", config.reload)),
        ("shutdown", format!("{:?}", config.shutdown)),
        ("log", format!("{:?}", config.log)),
    ]
}

async fn pause(every: Option<Duration>) {
    match every {
        Some(every) => tokio::time::sleep(every).await,
        None => std::future::pending().await,
    }
}

async fn read(files: &[PathBuf]) -> Contents {
    let mut contents = Vec::with_capacity(files.len());
    for file in files {
        contents.push((file.clone(), tokio::fs::read(file).await.ok()));
    }
    contents
}

//! Reloading the configuration while the brain runs: on SIGHUP, and when the settings file or the file of a provider's key has
//! changed. Only the settings in [`crate::tunables`] change. A configuration with errors changes nothing.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::Clock;
use chatbox_shared::config::{self, ENV_FILE};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::BrainConfig;
use crate::ledger::Allowance;
use crate::llm::catalog::{Catalog, CatalogError};
use crate::llm::endpoint::Endpoints;
use crate::metrics::Metrics;
use crate::tunables::{ChatLimits, LiveConfig, Tunables};

/// Billionths in one unit of the currency.
const BILLIONTHS: f64 = 1e9;

/// Reloads the configuration.
pub struct Reloader {
    /// The settings file that the command line names.
    pub file: Option<PathBuf>,
    /// The settings in force.
    pub live_config: Arc<LiveConfig>,
    /// The state of the endpoints, which a reload keeps.
    pub endpoints: Arc<Endpoints>,
    /// The clock of the models.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// The contents of the watched files, as they were last read.
type Contents = Vec<(PathBuf, Option<Vec<u8>>)>;

impl Reloader {
    /// Watches the files and the signal, until the drain.
    ///
    /// # Errors
    /// If the signal handler cannot be installed.
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
                // Read before loading: a change during the load is then seen as another change. A file with errors is not
                // loaded again until it changes again.
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

    /// Loads the configuration and puts it in force. `None`: it has errors.
    async fn reload(&self, fixed: &[(&'static str, String)]) -> Option<BrainConfig> {
        let (file, clock, endpoints) = (self.file.clone(), Arc::clone(&self.clock), Arc::clone(&self.endpoints));
        // Blocks: reads files, and may load the table of an encoding.
        let loading = move || {
            let config = config::load::<BrainConfig>(file.as_deref()).map_err(|errors| errors.to_string())?;
            let tunables = tunables(&config, &clock, &endpoints).map_err(|error| error.to_string())?;
            Ok((config, tunables))
        };
        let loaded = tokio::task::spawn_blocking(loading).await.unwrap_or_else(|error| Err(error.to_string()));
        let (config, tunables) = match loaded {
            Ok(loaded) => loaded,
            Err(why) => {
                self.metrics.reloaded(false);
                tracing::error!(
                    errors = why,
                    "the configuration was reloaded and has errors; the settings in force stay"
                );
                return None;
            }
        };
        self.live_config.replace(tunables);
        self.metrics.reloaded(true);
        let now = self::fixed(&config);
        let waiting: Vec<_> = now.iter().filter(|section| !fixed.contains(section)).map(|(name, _)| *name).collect();
        if waiting.is_empty() {
            tracing::info!("the configuration was reloaded and is in force");
        } else {
            let sections = waiting.join(", ");
            tracing::warn!(sections, "the configuration was reloaded; these sections have changes that need a restart");
        }
        Some(config)
    }

    /// The files to watch.
    fn files(&self, config: &BrainConfig) -> Vec<PathBuf> {
        let named = || std::env::var_os(ENV_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let keys = config.models.iter().map(|model| &model.api_key_file).filter(|path| !path.is_empty());
        self.file.clone().or_else(named).into_iter().chain(keys.map(PathBuf::from)).collect()
    }
}

/// The sections that need a restart, as text to compare. Secrets are hidden in the text, so a change of a secret alone is not
/// noticed.
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

/// The settings of this configuration that can be changed without a restart.
///
/// # Errors
/// If the models cannot be used.
pub fn tunables(config: &BrainConfig, clock: &Arc<dyn Clock>, endpoints: &Endpoints) -> Result<Tunables, CatalogError> {
    let (answers, limits) = (&config.answers, &config.limits);
    Ok(Tunables {
        catalog: Catalog::build(&config.models, &config.provider, &answers.default_model, clock, endpoints)?,
        limits: ChatLimits {
            max_content_chars: limits.max_content_chars as usize,
            max_name_chars: limits.max_name_chars as usize,
            max_reason_chars: limits.max_reason_chars as usize,
            replay_entries: u64::from(limits.replay_entries),
            open_sessions: limits.open_sessions_per_connection,
        },
        connections_per_user: limits.connections_per_user,
        allowance: allowance(config),
        naming_model: Some(answers.naming_model.clone()).filter(|id| !id.is_empty()),
    })
}

fn allowance(config: &BrainConfig) -> Allowance {
    let quotas = &config.quotas;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
    let cost = (quotas.cost_per_day * BILLIONTHS).round() as u64;
    Allowance {
        tokens: Some(quotas.tokens_per_day).filter(|tokens| *tokens > 0),
        cost: Some(cost).filter(|cost| *cost > 0),
    }
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

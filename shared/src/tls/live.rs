//! Certificates and keys that change while the process runs: the files are read again at an interval. New connections use
//! the new files; open connections keep theirs. Files that cannot be used are reported, and the previous ones stay in use.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::metrics::gauge::Gauge;

use super::pem::{self, Parsed, Pem};
use super::settings::TlsSettings;
use crate::config::ConfigErrors;
use crate::lifecycle::Lifecycle;

/// The time between two reads of the files.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(10);

/// The TLS configuration of one side, made from the files as they are now. Clones share it.
#[derive(Debug)]
pub struct LiveTls<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for LiveTls<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> LiveTls<T> {
    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }
}

/// Makes a configuration from the files.
pub(super) type Build<T> = fn(&TlsSettings, &Pem, Parsed) -> Result<T, ConfigErrors>;

/// The files as they were last used, and where their configuration is.
struct Files<T> {
    settings: TlsSettings,
    build: Build<T>,
    used: Pem,
    live: LiveTls<T>,
    /// The Unix time at which the certificate expires.
    expiry: Gauge,
    /// The last report of unusable files, so that it is not repeated at every read.
    reported: Option<String>,
}

/// Reads the files, and starts a critical task that reads them again. `expiry` shows when the certificate expires.
///
/// # Errors
/// Every file that cannot be read or used.
pub(super) fn start<T: Send + Sync + 'static>(
    settings: &TlsSettings,
    build: Build<T>,
    expiry: Gauge,
    lifecycle: &Lifecycle,
) -> Result<LiveTls<T>, ConfigErrors> {
    let (used, parsed) = pem::read(settings)?;
    expiry.set(parsed.expires_at().unwrap_or(0));
    let live = LiveTls(Arc::new(RwLock::new(Arc::new(build(settings, &used, parsed)?))));
    let files = Files { settings: settings.clone(), build, used, live: live.clone(), expiry, reported: None };
    let drain = lifecycle.draining().clone();
    lifecycle.critical("link certificates", async move {
        drain.run_until_cancelled(files.keep_fresh()).await;
    });
    Ok(live)
}

impl<T: Send + Sync + 'static> Files<T> {
    async fn keep_fresh(mut self) {
        loop {
            tokio::time::sleep(READ_INTERVAL).await;
            let settings = self.settings.clone();
            // A failed blocking task means that the process ends.
            let Ok(read) = tokio::task::spawn_blocking(move || pem::read(&settings)).await else { return };
            match read.and_then(|(pem, parsed)| self.use_if_new(pem, parsed)) {
                Ok(()) => self.reported = None,
                Err(errors) => self.report(errors.to_string()),
            }
        }
    }

    fn use_if_new(&mut self, pem: Pem, parsed: Parsed) -> Result<(), ConfigErrors> {
        if pem == self.used {
            return Ok(());
        }
        let expires_at = parsed.expires_at();
        let built = (self.build)(&self.settings, &pem, parsed)?;
        *self.live.0.write() = Arc::new(built);
        self.used = pem;
        self.expiry.set(expires_at.unwrap_or(0));
        tracing::info!(expires_at, "the files of link.tls have changed; new connections use them");
        Ok(())
    }

    fn report(&mut self, errors: String) {
        if self.reported.as_ref() != Some(&errors) {
            tracing::warn!(%errors, "the files of link.tls cannot be used; the previous ones stay in use");
        }
        self.reported = Some(errors);
    }
}

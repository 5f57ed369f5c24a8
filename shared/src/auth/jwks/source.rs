//! Reads a JWKS document from a file or a URL. The configuration names the source, never a token. Redirects are not followed,
//! and at most [`MAX_BYTES`] are read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use url::Url;

use super::error::JwksError;
use super::keys::KeySet;

/// A larger document is refused.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The source of a JWKS document.
#[derive(Debug, Clone)]
pub enum JwksSource {
    /// A local file.
    File(PathBuf),
    /// An `http` or `https` address.
    Url(Url),
}

/// Checks that a file contains a JWKS with a usable key.
///
/// # Errors
/// Why it does not.
pub fn check_jwks_file(path: &Path) -> Result<(), JwksError> {
    read_usable_file(path).map(drop)
}

/// Reads a file that must contain a usable key, because a service does not start without one.
pub(super) fn read_usable_file(path: &Path) -> Result<KeySet, JwksError> {
    let keys = read_file(path)?;
    if keys.is_empty() { Err(JwksError::NoUsableKey) } else { Ok(keys) }
}

fn read_file(path: &Path) -> Result<KeySet, JwksError> {
    let mut document = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut document)?;
    if document.len() > MAX_BYTES {
        return Err(JwksError::TooLarge);
    }
    KeySet::parse(&document)
}

/// Reads the document, any number of times.
pub(super) enum Reader {
    File(PathBuf),
    Url(reqwest::Client, Url),
}

impl Reader {
    pub(super) fn new(source: &JwksSource) -> Result<Self, JwksError> {
        Ok(match source {
            JwksSource::File(path) => Self::File(path.clone()),
            JwksSource::Url(url) => {
                let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
                Self::Url(client, url.clone())
            }
        })
    }

    /// Reads once. The caller sets the time limit.
    pub(super) async fn read(&self) -> Result<KeySet, JwksError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read_file(&path))
                    .await
                    .unwrap_or_else(|_| Err(JwksError::File(std::io::Error::other("the reading task failed"))))
            }
            Self::Url(client, url) => fetch(client, url).await,
        }
    }
}

async fn fetch(client: &reqwest::Client, url: &Url) -> Result<KeySet, JwksError> {
    let mut response = client.get(url.clone()).header(http::header::ACCEPT, "application/json").send().await?;
    if response.status() != http::StatusCode::OK {
        return Err(JwksError::Status(response.status().as_u16()));
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if document.len() + chunk.len() > MAX_BYTES {
            return Err(JwksError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    KeySet::parse(&document)
}

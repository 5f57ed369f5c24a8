//! Where a JWKS document is read from. The place comes from the configuration, never from a token; redirects are not
//! followed and no more than [`MAX_BYTES`] are read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use url::Url;

use super::keys::KeySet;

/// A larger document is refused.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The place of a JWKS document.
#[derive(Debug, Clone)]
pub enum JwksSource {
    /// A local file.
    File(PathBuf),
    /// An `http` or `https` address.
    Url(Url),
}

/// Why a JWKS document could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// No answer, or a broken one. The address is left out.
    #[error("the request failed: {0}")]
    Request(#[source] reqwest::Error),
    /// An answer other than 200.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// No complete answer in time.
    #[error("it took too long")]
    TimedOut,
    /// Over a mebibyte.
    #[error("the document is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// No JSON object with a list `keys`.
    #[error("the document is no JWKS")]
    Malformed,
    /// Nothing in it can verify RS256, ES256 or EdDSA.
    #[error("the document holds no usable RS256, ES256 or EdDSA key")]
    NoUsableKey,
}

impl From<reqwest::Error> for JwksError {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error.without_url())
    }
}

/// Checks that a file holds a JWKS with a usable key.
///
/// # Errors
/// Why not.
pub fn check_jwks_file(path: &Path) -> Result<(), JwksError> {
    read_file(path).map(drop)
}

pub(super) fn read_file(path: &Path) -> Result<KeySet, JwksError> {
    let mut document = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut document)?;
    if document.len() > MAX_BYTES {
        return Err(JwksError::TooLarge);
    }
    KeySet::parse(&document)
}

/// Reads the document again and again.
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

    /// One read. The caller sets the time limit.
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

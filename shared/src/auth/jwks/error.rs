//! Why a JWKS document cannot be used.

/// Why a JWKS document could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// No response, or an incomplete one. The URL is left out.
    #[error("the request failed: {0}")]
    Request(#[source] reqwest::Error),
    /// A status other than 200.
    #[error("the server responded with status {0}")]
    Status(u16),
    /// No complete response in time.
    #[error("the read timed out")]
    TimedOut,
    /// Over 1 MiB.
    #[error("the document is larger than 1 MiB")]
    TooLarge,
    /// Not a JSON object with a list `keys`.
    #[error("the document is not a JWKS")]
    Malformed,
    /// No key for RS256, ES256 or EdDSA.
    #[error("the document contains no usable RS256, ES256 or EdDSA key")]
    NoUsableKey,
}

impl From<reqwest::Error> for JwksError {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error.without_url())
    }
}

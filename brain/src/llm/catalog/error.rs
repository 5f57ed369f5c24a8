//! Why a catalog cannot be built.

use crate::llm::config::SettingError;

/// Why a catalog cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The configuration has errors.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<SettingError>),
    /// No HTTP client can be made, for example because the system has no trusted certificates.
    #[error("cannot create the HTTP client for model providers")]
    Client(#[from] reqwest::Error),
}

//! How operations of a store fail.

/// Why an operation failed. After `Unavailable` it is unknown whether a write took place.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is unreachable, has no majority, or did not answer in time. A retry with the same ids is safe.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A stored document cannot be read by this version.
    #[error("a stored document cannot be read: {0}")]
    Corrupt(String),
    /// The store refused, and a retry does not change that.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// The result of an operation.
pub type StoreResult<T> = Result<T, StoreError>;

//! Values that may be given at most once.

/// A value was given more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeated;

/// The only value. `Ok(None)` if there is none.
pub(super) fn single<T>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, Repeated> {
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Repeated),
    }
}

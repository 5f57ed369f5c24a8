//! Parameters of the query string.

use std::borrow::Cow;

use url::form_urlencoded;

use super::single::{Repeated, single};

/// The decoded value of a parameter. `Ok(None)` if it is not given.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Result<Option<Cow<'a, str>>, Repeated> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    Ok(single(pairs.filter(|(key, _)| key == name))?.map(|(_, value)| value))
}

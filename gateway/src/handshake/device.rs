//! The name that a client gives its device.

use super::query::parameter;

/// Longest device name, in characters.
const MAX_DEVICE_CHARS: usize = 64;

/// Why a device name is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("device must be given once, with 1 to {MAX_DEVICE_CHARS} characters of A-Z a-z 0-9 . _ -")]
pub(super) struct InvalidDevice;

/// The parameter `device` of the query string.
///
/// # Errors
/// If the parameter is given and is not a device name.
pub(super) fn device(query: Option<&str>) -> Result<Option<String>, InvalidDevice> {
    let Some(name) = parameter(query, "device").map_err(|_| InvalidDevice)? else { return Ok(None) };
    let is_valid = (1..=MAX_DEVICE_CHARS).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_valid { Ok(Some(name.into_owned())) } else { Err(InvalidDevice) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_device_is_a_short_plain_name() {
        assert_eq!(device(None), Ok(None));
        assert_eq!(device(Some("token=x")), Ok(None));
        assert_eq!(device(Some("device=My-Phone_2.0")), Ok(Some("My-Phone_2.0".to_owned())));
        assert_eq!(
            device(Some(&format!("device={}", "a".repeat(64)))).map(|name| name.map(|name| name.len())),
            Ok(Some(64))
        );
        let long = format!("device={}", "a".repeat(65));
        for query in [
            "device=",
            "device",
            "device=a%20b",
            "device=a+b",
            "device=%C3%BC",
            "device=a%0d%0ab",
            "device=a&device=a",
            "device=a%00",
            &long,
        ] {
            assert_eq!(device(Some(query)), Err(InvalidDevice), "{query}");
        }
    }

    proptest! {
        /// An accepted device name needs no quoting in any format.
        #[test]
        fn an_accepted_device_is_plain(query in "[ -~]{0,40}") {
            if let Ok(Some(name)) = device(Some(&format!("device={query}"))) {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
            }
        }
    }
}

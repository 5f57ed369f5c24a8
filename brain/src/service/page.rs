//! The size of a page.

use chatbox_shared::failure::Failure;

/// Rows of a page if the client names no limit.
const DEFAULT: u32 = 50;
/// Rows of a page at most.
const MAX: u32 = 100;

/// The rows of a page with this limit; 0: the client names none.
///
/// # Errors
/// `invalid_message` if the limit is above the maximum.
pub fn rows(limit: u32) -> Result<u32, Failure> {
    match limit {
        0 => Ok(DEFAULT),
        1..=MAX => Ok(limit),
        _ => Err(Failure::invalid("limit", format!("This field must be from 1 to {MAX}."))),
    }
}

#[cfg(test)]
mod tests {
    use chatbox_shared::failure::ErrorCode;

    use super::*;

    #[test]
    fn a_page_is_bounded() {
        assert_eq!(rows(0), Ok(50));
        assert_eq!(rows(100), Ok(100));
        assert_eq!(rows(1_000_000_000).unwrap_err().code, ErrorCode::InvalidMessage);
    }
}

//! Parses a MongoDB connection string without DNS and without a connection, and words its errors without the password.

use mongodb::error::ErrorKind;
use mongodb::options::ConnectionString;

/// Checks a connection string as the driver would.
///
/// # Errors
/// The driver's reason, such as an unknown option. Never contains a part of the user name or the password.
pub fn check_uri(uri: &str) -> Result<(), String> {
    parse(uri).map(drop)
}

/// Parses a connection string.
///
/// # Errors
/// As [`check_uri`].
pub(super) fn parse(uri: &str) -> Result<ConnectionString, String> {
    ConnectionString::parse(uri).map_err(|error| match error.kind.as_ref() {
        // A reserved character in the password ends it too early: the driver takes the rest for hosts or options, and
        // its text may quote them.
        _ if !is_encoded(user_info(uri)) => "user and password must be percent-encoded".to_owned(),
        ErrorKind::InvalidArgument { message, .. } => message.clone(),
        _ => "cannot be parsed".to_owned(),
    })
}

/// The text that stands for user and password: between the scheme and the last `@`.
fn user_info(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.rsplit_once('@').map_or("", |(user_info, _)| user_info)
}

fn is_encoded(user_info: &str) -> bool {
    !user_info.contains(['/', '?', '#', '[', ']', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_strings_pass_without_dns() {
        for uri in [
            "mongodb://127.0.0.1:27017/?replicaSet=rs0",
            "mongodb://user:p%40ss@a.example.com,b.example.com/admin?tls=true&appName=x@y",
            "mongodb+srv://user:pass@cluster.example.com/?retryWrites=true",
        ] {
            assert_eq!(check_uri(uri), Ok(()), "{uri}");
        }
    }

    #[test]
    fn errors_are_the_driver_s_and_name_the_option() {
        let reason = |uri: &str| check_uri(uri).unwrap_err();
        assert!(reason("mongo://127.0.0.1").contains("scheme"), "{}", reason("mongo://127.0.0.1"));
        assert!(reason("mongodb://127.0.0.1/?replicaSett=rs0").contains("replicaset"));
        assert!(reason("mongodb://127.0.0.1/?maxPoolSize=many").to_lowercase().contains("maxpoolsize"));
        assert!(reason("").contains("scheme"));
    }

    #[test]
    fn no_error_shows_a_part_of_the_password() {
        for uri in [
            "mongodb://user:canary/canary@127.0.0.1/db",
            "mongodb://user:can?canary=canary@127.0.0.1/db",
            "mongodb://user:1?canary@127.0.0.1/db",
            "mongodb://user:canary@canary@127.0.0.1:x/db",
            "mongodb://user:canary%zz@127.0.0.1/db",
            "mongodb://user:canary@127.0.0.1/?nosuch=1",
            "user:canary@127.0.0.1",
        ] {
            let reason = check_uri(uri).unwrap_err();
            assert!(!reason.contains("canary"), "{reason}");
        }
    }
}

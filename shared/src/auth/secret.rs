//! Refuses shared secrets that can be guessed. An error says why, and never contains the secret.

use std::collections::HashSet;

/// HS256 keys shorter than the hash weaken it (RFC 7518, 3.2).
pub(super) const MIN_BYTES: usize = 32;
/// A random secret of minimal length has more distinct bytes than this.
const MIN_DISTINCT_BYTES: usize = 10;
/// Words in sample secrets of documentation; long enough not to occur in random text by chance.
const SAMPLES: [&str; 14] = [
    "secret",
    "password",
    "changeme",
    "change-me",
    "change_me",
    "changethis",
    "example",
    "placeholder",
    "replaceme",
    "replace-me",
    "insecure",
    "0123456789",
    "1234567890",
    "abcdefghij",
];

/// Why a secret is refused. Never contains the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakSecret {
    /// Too short.
    #[error("has {0} bytes; at least {MIN_BYTES} are needed")]
    Short(usize),
    /// Few distinct characters.
    #[error("repeats a few characters; use random bytes, for example from `openssl rand -base64 48`")]
    Monotonous,
    /// Looks like a sample from documentation.
    #[error("looks like a sample; use random bytes, for example from `openssl rand -base64 48`")]
    Sample,
}

/// Checks that a shared secret is long enough and not a sample.
///
/// # Errors
/// What is wrong with it.
pub fn check_secret(secret: &str) -> Result<(), WeakSecret> {
    if secret.len() < MIN_BYTES {
        return Err(WeakSecret::Short(secret.len()));
    }
    if secret.bytes().collect::<HashSet<_>>().len() < MIN_DISTINCT_BYTES {
        return Err(WeakSecret::Monotonous);
    }
    let lower = secret.to_ascii_lowercase();
    if SAMPLES.iter().any(|sample| lower.contains(sample)) {
        return Err(WeakSecret::Sample);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_monotonous_and_sample_secrets_are_refused() {
        for (secret, expected) in [
            ("", WeakSecret::Short(0)),
            ("u7J!k2Lm9Qx4Rt6Yw8Zb1Nc3Vd5Fg0H", WeakSecret::Short(31)),
            ("abababababababababababababababababab", WeakSecret::Monotonous),
            ("your-256-bit-SECRET-your-256-bit-secret", WeakSecret::Sample),
            ("please-CHANGE-ME-before-going-live!", WeakSecret::Sample),
            ("0123456789abcdef0123456789abcdef", WeakSecret::Sample),
        ] {
            assert_eq!(check_secret(secret), Err(expected), "{secret}");
        }
    }

    #[test]
    fn random_text_of_the_least_length_is_accepted() {
        assert_eq!(check_secret("u7J!k2Lm9Qx4Rt6Yw8Zb1Nc3Vd5Fg0Hp"), Ok(()));
        assert_eq!(check_secret("f3a9c1d27be84560f1e2d3c4b5a69788"), Ok(()));
    }
}

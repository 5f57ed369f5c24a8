//! The keyring: the master keys that wrap the sessions' data keys. The active one wraps new data keys; the others
//! unwrap older ones. Owns parsing and checking; never shows key material, not even in errors.

use std::fmt;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a master key and of a data key (AES-256).
pub const KEY_BYTES: usize = 32;

/// The longest kid.
const MAX_KID_CHARS: usize = 64;

/// The fewest different bytes of a valid key. 32 random bytes have fewer once in 10^30.
const MIN_DISTINCT_BYTES: usize = 8;

/// An error of a keyring. Names lines and kids, never key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// No line holds a key.
    #[error("the keyring contains no key; expected at least one line kid:base64-of-32-bytes")]
    Empty,
    /// A line without a colon.
    #[error("keyring line {line}: expected kid:base64-of-32-bytes")]
    NoColon {
        /// The line, from 1.
        line: usize,
    },
    /// A kid with forbidden characters or length.
    #[error("keyring line {line}: a kid must have 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    BadKid {
        /// Counted from 1.
        line: usize,
    },
    /// A kid that occurs twice.
    #[error("keyring line {line}: the kid {kid:?} occurs twice")]
    DuplicateKid {
        /// Counted from 1.
        line: usize,
        /// The kid.
        kid: String,
    },
    /// The key is not base64.
    #[error("keyring line {line}: the key {kid:?} is not valid base64")]
    NotBase64 {
        /// Counted from 1.
        line: usize,
        /// Which one.
        kid: String,
    },
    /// The key has a wrong length.
    #[error("keyring line {line}: the key {kid:?} has {bytes} bytes instead of 32")]
    WrongLength {
        /// Counted from 1.
        line: usize,
        /// Which one.
        kid: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The key is a sample, a password or a pattern.
    #[error(
        "keyring line {line}: the key {kid:?} is not random (a sample, a text or a pattern); generate 32 random bytes"
    )]
    Weak {
        /// Counted from 1.
        line: usize,
        /// Which one.
        kid: String,
    },
    /// The configured active key is not in the keyring.
    #[error("the active key {kid:?} is not in the keyring")]
    UnknownActive {
        /// Which one.
        kid: String,
    },
    /// The system provides no randomness.
    #[error("the system provides no random bytes")]
    NoRandomness,
}

/// One master key. Wiped when dropped.
pub(super) struct MasterKey {
    pub(super) kid: String,
    pub(super) bytes: [u8; KEY_BYTES],
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// The master keys. Never empty.
pub struct Keyring {
    keys: Vec<MasterKey>,
    active: usize,
}

impl Keyring {
    /// Parses lines `kid:base64(32 bytes)`; blank lines and lines beginning with `#` are skipped. `active` is the kid
    /// that wraps new data keys; the first one where it is absent or empty.
    ///
    /// # Errors
    /// The first error, with its line.
    pub fn parse(text: &str, active: Option<&str>) -> Result<Self, KeyringError> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = parse_line(line, number)?;
            if keys.iter().any(|other| other.kid == key.kid) {
                return Err(KeyringError::DuplicateKid { line: number, kid: key.kid.clone() });
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        let active = match active.filter(|kid| !kid.is_empty()) {
            None => 0,
            Some(kid) => keys
                .iter()
                .position(|key| key.kid == kid)
                .ok_or_else(|| KeyringError::UnknownActive { kid: kid.to_owned() })?,
        };
        Ok(Self { keys, active })
    }

    /// A new random key as a line of a keyring, without a newline.
    ///
    /// # Errors
    /// An invalid kid, or a system without randomness.
    pub fn generate_line(kid: &str) -> Result<Zeroizing<String>, KeyringError> {
        if !is_kid(kid) {
            return Err(KeyringError::BadKid { line: 1 });
        }
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        rand::fill(bytes.as_mut()).map_err(|_| KeyringError::NoRandomness)?;
        let mut line = Zeroizing::new(String::with_capacity(kid.len() + 48));
        line.push_str(kid);
        line.push(':');
        STANDARD.encode_string(bytes.as_ref(), &mut line);
        Ok(line)
    }

    /// The kid of the key that wraps new data keys.
    pub fn active_kid(&self) -> &str {
        &self.active().kid
    }

    /// All kids, in the keyring's order.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.kid.as_str())
    }

    pub(super) fn active(&self) -> &MasterKey {
        &self.keys[self.active]
    }

    pub(super) fn key(&self, kid: &str) -> Option<&MasterKey> {
        self.keys.iter().find(|key| key.kid == kid)
    }
}

/// Shows the kids only.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("kids", &self.kids().collect::<Vec<_>>())
            .field("active", &self.active_kid())
            .finish_non_exhaustive()
    }
}

fn parse_line(line: &str, number: usize) -> Result<MasterKey, KeyringError> {
    let (kid, encoded) = line.split_once(':').ok_or(KeyringError::NoColon { line: number })?;
    let (kid, encoded) = (kid.trim(), encoded.trim());
    if !is_kid(kid) {
        return Err(KeyringError::BadKid { line: number });
    }
    // The full capacity at once: growing would leave a part of the key behind in the old buffer.
    let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len()));
    STANDARD
        .decode_vec(encoded, &mut decoded)
        .map_err(|_| KeyringError::NotBase64 { line: number, kid: kid.to_owned() })?;
    let mut key = MasterKey { kid: kid.to_owned(), bytes: [0; KEY_BYTES] };
    if decoded.len() != KEY_BYTES {
        return Err(KeyringError::WrongLength { line: number, kid: kid.to_owned(), bytes: decoded.len() });
    }
    key.bytes.copy_from_slice(&decoded);
    if is_weak(&key.bytes) {
        return Err(KeyringError::Weak { line: number, kid: kid.to_owned() });
    }
    Ok(key)
}

fn is_kid(kid: &str) -> bool {
    (1..=MAX_KID_CHARS).contains(&kid.len())
        && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether the key has few different bytes, grows in equal steps, or is text. No random key does.
fn is_weak(key: &[u8; KEY_BYTES]) -> bool {
    let mut seen = [false; 256];
    for byte in key {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    let step = key[1].wrapping_sub(key[0]);
    distinct < MIN_DISTINCT_BYTES
        || key.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step)
        || key.iter().all(|byte| (0x20..0x7f).contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(kid: &str) -> String {
        Keyring::generate_line(kid).unwrap().to_string()
    }

    #[test]
    fn a_generated_line_is_read_back() {
        let text = format!("# old keys below\n\n  {}\r\n{}\n", line("a"), line("2026-11.b_C"));
        let ring = Keyring::parse(&text, None).unwrap();
        assert_eq!(ring.kids().collect::<Vec<_>>(), ["a", "2026-11.b_C"]);
        assert_eq!(ring.active_kid(), "a");
        assert_ne!(ring.key("a").unwrap().bytes, ring.key("2026-11.b_C").unwrap().bytes);
    }

    #[test]
    fn the_active_key_is_chosen_by_its_kid() {
        let text = format!("{}\n{}", line("old"), line("new"));
        assert_eq!(Keyring::parse(&text, Some("new")).unwrap().active_kid(), "new");
        assert_eq!(Keyring::parse(&text, Some("")).unwrap().active_kid(), "old");
        let unknown = Keyring::parse(&text, Some("other")).unwrap_err();
        assert_eq!(unknown, KeyringError::UnknownActive { kid: "other".into() });
    }

    #[test]
    fn faults_name_the_line_and_the_kid() {
        let good = line("k");
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        let kid = || "x".to_owned();
        let cases = [
            (String::new(), KeyringError::Empty),
            ("# nothing\n\n".to_owned(), KeyringError::Empty),
            (format!("{good}\nnonsense"), KeyringError::NoColon { line: 2 }),
            (format!("\n\nbad kid:{}", encode(&[7; 32])), KeyringError::BadKid { line: 3 }),
            (format!(":{}", encode(&[7; 32])), KeyringError::BadKid { line: 1 }),
            (format!("{good}\n{good}"), KeyringError::DuplicateKid { line: 2, kid: "k".into() }),
            ("x:%%%".to_owned(), KeyringError::NotBase64 { line: 1, kid: kid() }),
            ("x:".to_owned(), KeyringError::WrongLength { line: 1, kid: kid(), bytes: 0 }),
            (format!("x:{}", encode(&[1; 16])), KeyringError::WrongLength { line: 1, kid: kid(), bytes: 16 }),
            (format!("x:{}", encode(&[1; 33])), KeyringError::WrongLength { line: 1, kid: kid(), bytes: 33 }),
        ];
        for (text, expected) in cases {
            assert_eq!(Keyring::parse(&text, None).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn keys_that_are_not_random_are_refused() {
        let ascending: Vec<u8> = (0..32).collect();
        let samples: [&[u8]; 6] = [
            &[0; 32],
            &[0xff; 32],
            &ascending,
            b"0123456789abcdef0123456789abcdef",
            b"change-me-change-me-change-me-32",
            &[1, 2, 3, 4].repeat(8),
        ];
        for sample in samples {
            let error = Keyring::parse(&format!("x:{}", STANDARD.encode(sample)), None).unwrap_err();
            assert_eq!(error, KeyringError::Weak { line: 1, kid: "x".into() });
        }
    }

    #[test]
    fn nothing_printed_holds_key_material() {
        let good = line("k");
        let secret = good.split_once(':').unwrap().1.to_owned();
        let ring = Keyring::parse(&good, None).unwrap();
        assert!(!format!("{ring:?}").contains(&secret));
        let error = Keyring::parse(&format!("{good}\n{good}"), None).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret));
        // One character too many: the error must not quote the text it could not read.
        let error = Keyring::parse(&format!("{good}!"), None).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..20]));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*(:\\PC*\n)*") {
            let _ = Keyring::parse(&text, None);
        }
    }
}

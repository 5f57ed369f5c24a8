//! Refuses shared secrets that can be guessed. An error says why, and never contains the secret.
//!
//! Three measures: the number of distinct bytes; an estimate of the entropy, in which a character that follows from the
//! text before it counts nothing (sequences, keyboard rows, repetitions); and how much the text resembles words.

use std::collections::HashSet;

/// HS256 keys shorter than the hash weaken it (RFC 7518, 3.2).
pub(super) const MIN_BYTES: usize = 32;
/// A random secret of minimal length has more distinct bytes than this.
const MIN_DISTINCT_BYTES: usize = 10;
/// Least entropy, in bits. 32 random hexadecimal digits are estimated at 64 to 128 bits, keyboard patterns below 50.
const MIN_BITS: f64 = 56.0;
/// A block of this many characters that occurred before counts as a repetition.
const BLOCK: usize = 3;
/// Placeholders; long enough not to occur in random text by chance.
const SAMPLES: [&str; 12] = [
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
    "development",
];
/// The rows and the columns of keyboards.
const KEYBOARD: [&str; 15] = [
    "`1234567890-=",
    "qwertyuiop[]",
    "asdfghjkl;'",
    "zxcvbnm,./",
    "qwertzuiop",
    "azertyuiop",
    "1qaz",
    "2wsx",
    "3edc",
    "4rfv",
    "5tgb",
    "6yhn",
    "7ujm",
    "8ik,",
    "9ol.",
];
/// The symbols above the digits 0 to 9.
const SHIFTED_DIGITS: &[u8] = b")!@#$%^&*(";
/// Frequent pairs of letters in English text, 142 of 676: about one in five of the pairs of random letters, and more than three
/// in four of the pairs of words.
const PAIRS: &str = "th he in er an re nd at on nt ha es st en ed to it ou ea hi is or ti as te et ng of al de se le sa \
                     si ar ve ra ld ur ro ri io ic ne me co ma li la el ce ta no di us om ec ot ll ss ke ey wo rd em pr \
                     so ch ho be ac tr ut un su po ee lo mo wi il ge ns ig gn am ow ck ab ad ay ai av bl bo by ca ci ct \
                     da do ef ex fo fr ga gh go gr id ie if im ir iv ks mi na ni oo op os ov pa pe pl pp qu rs rt ru ry \
                     sh sp tu up ul vi wa we wh yo";

/// Why a secret is refused. Never contains the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakSecret {
    /// Too short.
    #[error("has {0} bytes; at least {MIN_BYTES} are needed")]
    Short(usize),
    /// Few distinct characters, or most follow from those before them.
    #[error("follows a pattern; use random bytes, for example from `openssl rand -base64 48`")]
    Pattern,
    /// Contains a placeholder, or consists of words.
    #[error("looks like a sample; use random bytes, for example from `openssl rand -base64 48`")]
    Sample,
}

/// Checks that a shared secret is long enough and not easy to guess.
///
/// # Errors
/// What is wrong with it.
pub fn check_secret(secret: &str) -> Result<(), WeakSecret> {
    if secret.len() < MIN_BYTES {
        return Err(WeakSecret::Short(secret.len()));
    }
    let lower = secret.to_ascii_lowercase();
    if SAMPLES.iter().any(|sample| lower.contains(sample)) || resembles_words(&lower) {
        return Err(WeakSecret::Sample);
    }
    let distinct = secret.bytes().collect::<HashSet<_>>().len();
    if distinct < MIN_DISTINCT_BYTES || entropy_bits(secret) < MIN_BITS {
        return Err(WeakSecret::Pattern);
    }
    Ok(())
}

/// True if at least half of the text is letters beside letters, and three in four of those pairs are frequent in words.
fn resembles_words(lower: &str) -> bool {
    let is_letters = |pair: &&[u8]| pair.iter().all(u8::is_ascii_lowercase);
    let letters: Vec<_> = lower.as_bytes().windows(2).filter(is_letters).collect();
    let frequent =
        letters.iter().filter(|pair| PAIRS.as_bytes().chunks(3).any(|known| known.starts_with(pair))).count();
    letters.len() * 2 >= lower.len() && frequent * 4 >= letters.len() * 3
}

/// An estimate of the entropy: each character that does not follow from the text before it counts with the logarithm of the
/// size of its alphabet.
fn entropy_bits(secret: &str) -> f64 {
    let keys: Vec<u8> = secret.bytes().map(key).collect();
    let free = (0..keys.len()).filter(|&at| !is_predictable(&keys, at)).count();
    f64::from(u32::try_from(free).unwrap_or(u32::MAX)) * f64::from(alphabet(secret)).log2()
}

/// The character of a key without shift.
fn key(byte: u8) -> u8 {
    match SHIFTED_DIGITS.iter().zip(b'0'..).find(|(symbol, _)| **symbol == byte) {
        Some((_, digit)) => digit,
        None => byte.to_ascii_lowercase(),
    }
}

/// True if the byte continues a sequence, a keyboard row, or a block that occurred before.
fn is_predictable(bytes: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|before| bytes[before]) else { return false };
    let this = bytes[at];
    let is_neighbour =
        |row: &&str| row.as_bytes().windows(2).any(|pair| pair == [before, this] || pair == [this, before]);
    this.abs_diff(before) <= 1 || KEYBOARD.iter().any(is_neighbour) || repeats(bytes, at)
}

fn repeats(bytes: &[u8], at: usize) -> bool {
    let end = at + 1;
    end.checked_sub(BLOCK).is_some_and(|begin| bytes[..at].windows(BLOCK).any(|block| block == &bytes[begin..end]))
}

/// The number of characters that a random text of these kinds of characters draws from.
fn alphabet(secret: &str) -> u32 {
    if secret.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return 16;
    }
    let has = |kind: fn(&u8) -> bool| secret.bytes().any(|byte| kind(&byte));
    let kinds = [
        (has(u8::is_ascii_lowercase), 26),
        (has(u8::is_ascii_uppercase), 26),
        (has(u8::is_ascii_digit), 10),
        (has(u8::is_ascii_punctuation), 12),
    ];
    kinds.iter().filter(|(present, _)| *present).map(|(_, size)| size).sum::<u32>().max(16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_patterned_and_sample_secrets_are_refused() {
        for (secret, expected) in [
            ("", WeakSecret::Short(0)),
            ("u7J!k2Lm9Qx4Rt6Yw8Zb1Nc3Vd5Fg0H", WeakSecret::Short(31)),
            ("abababababababababababababababababab", WeakSecret::Pattern),
            ("your-256-bit-SECRET-your-256-bit-secret", WeakSecret::Sample),
            ("please-CHANGE-ME-before-going-live!", WeakSecret::Sample),
            ("0123456789abcdef0123456789abcdef", WeakSecret::Pattern),
        ] {
            assert_eq!(check_secret(secret), Err(expected), "{secret}");
        }
    }

    #[test]
    fn keyboard_rows_sequences_and_repetitions_are_refused() {
        for secret in [
            "qwertyuiopasdfghjklzxcvbnm123456",
            "QwErTyUiOpAsDfGhJkLzXcVbNm!@#$%^&*()",
            "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,",
            "1qaz!QAZ2wsx@WSX3edc#EDC4rfv$RFV",
            "qwertzuiopasdfghjklyxcvbnm1234567890",
            "zyxwvutsrqponmlkjihgfedcba9876543210",
            "x9Kq2!x9Kq2!x9Kq2!x9Kq2!x9Kq2!x9Kq2!",
            "aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffff",
        ] {
            assert_eq!(check_secret(secret), Err(WeakSecret::Pattern), "{secret}");
        }
    }

    #[test]
    fn words_are_refused_without_being_listed() {
        for secret in [
            "my super long jwt signing key for production use",
            "keyboard cat is the session token of the store",
            "correcthorsebatterystapletokenforourserver",
            "ThisIsTheKeyThatSignsTheTokensOfOurService",
            "super-signing-jwt-token-with-at-least-32-characters-long",
        ] {
            assert_eq!(check_secret(secret), Err(WeakSecret::Sample), "{secret}");
        }
    }

    #[test]
    fn random_text_of_the_least_length_is_accepted() {
        assert_eq!(check_secret("u7J!k2Lm9Qx4Rt6Yw8Zb1Nc3Vd5Fg0Hp"), Ok(()));
        assert_eq!(check_secret("f3a9c1d27be84560f1e2d3c4b5a69788"), Ok(()));
    }

    proptest! {
        /// Random bytes in the usual encodings are accepted: hexadecimal and base64.
        #[test]
        fn random_bytes_are_accepted(bytes in any::<[u8; 32]>()) {
            use base64::Engine as _;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            // Simplification would search for patterned bytes, which are rightly refused.
            prop_assume!(bytes.iter().collect::<HashSet<_>>().len() > 24);
            prop_assert_eq!(check_secret(&hex), Ok(()));
            prop_assert_eq!(check_secret(&base64::engine::general_purpose::STANDARD.encode(bytes)), Ok(()));
        }
    }
}

//! Secrets that stand in files. No error here ever holds a value, nor the path: a secret pasted where a path belongs
//! would otherwise end in the log.

use std::path::Path;

use secrecy::SecretString;
use toml::{Table, Value};

use super::faults::Faults;
use super::source::{env_name, get, set};

/// A secret's file is far smaller; anything larger is the wrong file.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// Why a secret could not be read from its file.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    /// No such file, or no right to read it.
    #[error("the file it names cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// Not text.
    #[error("the file it names is not UTF-8 text")]
    NotText,
    /// Nothing in it.
    #[error("the file it names is empty")]
    Empty,
    /// Larger than any secret.
    #[error("the file it names is larger than 1 MiB")]
    TooLarge,
}

/// Reads a secret from a mounted file. One line ending at its end, as editors and `echo` leave it, is not part of it.
///
/// # Errors
/// Where the file cannot be read, is empty, no text, or larger than 1 MiB.
pub fn read_secret_file(path: &Path) -> Result<SecretString, SecretFault> {
    read(path).map(SecretString::from)
}

fn read(path: &Path) -> Result<String, SecretFault> {
    let size = std::fs::metadata(path).map_err(|error| SecretFault::Unreadable(error.kind()))?.len();
    if size > MAX_SECRET_BYTES {
        return Err(SecretFault::TooLarge);
    }
    let bytes = std::fs::read(path).map_err(|error| SecretFault::Unreadable(error.kind()))?;
    let mut text = String::from_utf8(bytes).map_err(|_| SecretFault::NotText)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(SecretFault::Empty) } else { Ok(text) }
}

/// Puts the contents of every `key_file` at `key`. Both a value and a file: a fault, since nobody can tell which counts.
pub(super) fn resolve(tree: &mut Table, secrets: &[&str], faults: &mut Faults) {
    for key in secrets {
        let file_key = format!("{key}_file");
        let path = match get(tree, &file_key) {
            Some(Value::String(path)) if !path.is_empty() => path.clone(),
            _ => continue,
        };
        if get(tree, key).is_some() {
            faults.add(file_key, format!("given as well as {}; set only one of them", env_name(key)));
            continue;
        }
        match read(Path::new(&path)) {
            Ok(secret) => set(tree, key, Value::String(secret)),
            Err(fault) => faults.add(file_key, fault),
        }
    }
}

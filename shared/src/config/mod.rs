//! Settings in layers: the embedded default TOML, then one file, then environment variables `CHATBOX__SECTION__KEY`.
//!
//! The default TOML is also the schema: it names every key and, by its value, the type of the key. So each key of a file and
//! of the environment is checked by itself, and all errors are reported at once. Secrets never come from TOML: they come from
//! the environment, or from a file that the key `<secret>_file` names; [`load`] reads that file.

mod extract;
mod layer;
mod listen_address;
mod schema;
mod secret;
mod errors;
mod keys;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use errors::{ConfigError, ConfigErrors};
pub use keys::{ENV_FILE, ENV_PREFIX};
pub use listen_address::listen_address;
pub use secret::{SecretFileError, read_secret_file};

use layer::Layer;
use schema::Schema;

/// The settings of one service: sections of plain fields, deserialised from the merged layers.
///
/// A secret `section.key` listed in [`Settings::SECRETS`] needs a field `key: Option<SecretString>` with
/// `#[serde(default)]` in its section, and a key `key_file` in the default TOML.
pub trait Settings: serde::de::DeserializeOwned {
    /// The commented default TOML, embedded in the binary. It holds every key that is not a secret.
    const DEFAULTS: &'static str;
    /// Dotted keys that may come from the environment or a `_file` only.
    const SECRETS: &'static [&'static str];
    /// Dotted keys that the default TOML shows in a comment only, such as a list of tables that is empty by default.
    /// Only deserialising checks what is below them: use `#[serde(deny_unknown_fields)]` there.
    const UNLISTED: &'static [&'static str] = &[];

    /// Reports values of the right type that cannot be used.
    fn validate(&self, errors: &mut ConfigErrors);
}

/// Reads the settings from the defaults, from `file` (or else the file that `CHATBOX_CONFIG` names), and from the environment
/// of this process. Warnings are written to standard error: the log is not set up yet.
///
/// # Errors
/// Every error found, each with its dotted key.
#[expect(clippy::print_stderr, reason = "the settings decide how the log looks, so there is no log yet")]
pub fn load<S: Settings>(file: Option<&Path>) -> Result<S, ConfigErrors> {
    let (result, warnings) = read(file, std::env::vars_os().collect());
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    result
}

/// [`load`] with the environment as a parameter. Warnings are dropped.
///
/// # Errors
/// Every error found, each with its dotted key.
pub fn load_from<S: Settings>(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<S, ConfigErrors> {
    read(file, env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()).0
}

fn read<S: Settings>(file: Option<&Path>, env: Vec<(OsString, OsString)>) -> (Result<S, ConfigErrors>, Vec<String>) {
    let mut errors = ConfigErrors::default();
    let defaults: toml::Table = match toml::from_str(S::DEFAULTS) {
        Ok(table) => table,
        Err(error) => {
            errors.add("defaults", layer::syntax_error(S::DEFAULTS, &error));
            return (Err(errors), Vec::new());
        }
    };
    let schema = Schema { defaults: &defaults, secrets: S::SECRETS, unlisted: S::UNLISTED };
    let named_by_env = || env.iter().find(|(name, value)| name == ENV_FILE && !value.is_empty());
    let file = file.map(Path::to_path_buf).or_else(|| named_by_env().map(|(_, path)| PathBuf::from(path)));
    let mut layers = Vec::new();
    match file.map(|path| Layer::from_file(&path, &schema, &mut errors)) {
        Some(Ok(layer)) => layers.push(layer),
        Some(Err(errors)) => return (Err(errors), Vec::new()),
        None => {}
    }
    let (layer, warnings) = Layer::from_env(env, &schema, &mut errors);
    layers.push(layer);
    (typed(&defaults, &layers, errors), warnings)
}

/// Merges the layers and turns them into typed, valid settings.
fn typed<S: Settings>(defaults: &toml::Table, layers: &[Layer], mut errors: ConfigErrors) -> Result<S, ConfigErrors> {
    let mut merged = defaults.clone();
    for layer in layers {
        keys::merge(&mut merged, &layer.table);
    }
    secret::resolve(&mut merged, S::SECRETS, &mut errors);
    let settings: Option<S> = extract::extract(merged, defaults, layers, &mut errors);
    if let Some(settings) = &settings {
        settings.validate(&mut errors);
    }
    match settings {
        Some(settings) if errors.is_empty() => Ok(settings),
        _ => Err(errors),
    }
}

#[cfg(test)]
mod tests;

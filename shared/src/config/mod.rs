//! Settings in layers: the embedded default TOML, then one file, then environment variables `CHATBOX__SECTION__KEY`.
//!
//! The default TOML is also the schema: it names every key and, by its value, the type of each. So every key of a file
//! and of the environment can be checked by itself, and all faults are reported at once, not the first alone.
//! Secrets never come from TOML: they arrive by the environment or from a file named by the key's `_file` twin, and
//! [`load`] puts them in their place before the settings are read.

mod extract;
mod faults;
mod secret;
mod source;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use faults::{Fault, Faults};
pub use secret::{SecretFault, read_secret_file};
use source::Layer;

/// What every environment variable that is a setting begins with.
pub const ENV_PREFIX: &str = "CHATBOX__";
/// Names the settings file where no `--config` does.
pub const ENV_FILE: &str = "CHATBOX_CONFIG";

/// The settings of one service: sections of plain fields, deserialised from the merged layers.
///
/// A secret `section.key` listed in [`Settings::SECRETS`] wants a field `key: Option<SecretString>` with
/// `#[serde(default)]` in its section; the twin `key_file: String` stands in the default TOML.
pub trait Settings: serde::de::DeserializeOwned {
    /// The commented default TOML, embedded in the binary. It holds every key that is no secret.
    const DEFAULTS: &'static str;
    /// Dotted keys that may come from the environment or a `_file` only.
    const SECRETS: &'static [&'static str];
    /// Dotted keys that the default TOML shows in a comment only, such as a list of tables that is empty by default.
    /// What stands below them is checked by deserialising alone: use `#[serde(deny_unknown_fields)]` there.
    const UNLISTED: &'static [&'static str] = &[];

    /// Reports values that have the right type and still make no sense.
    fn validate(&self, faults: &mut Faults);
}

/// Reads the settings from the defaults, from `file` (or else the file that `CHATBOX_CONFIG` names), and from this
/// process's environment.
///
/// # Errors
/// Every fault found, each with its dotted key.
pub fn load<S: Settings>(file: Option<&Path>) -> Result<S, Faults> {
    load_from(file, std::env::vars_os())
}

/// [`load`] with the environment as a parameter.
///
/// # Errors
/// Every fault found, each with its dotted key.
pub fn load_from<S: Settings>(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<S, Faults> {
    let env: Vec<(OsString, OsString)> = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let named_by_env = || env.iter().find(|(name, value)| name == ENV_FILE && !value.is_empty());
    let file = file.map(Path::to_path_buf).or_else(|| named_by_env().map(|(_, path)| PathBuf::from(path)));

    let mut faults = Faults::default();
    let defaults: toml::Table = match toml::from_str(S::DEFAULTS) {
        Ok(table) => table,
        Err(error) => {
            faults.add("defaults", source::toml_fault(S::DEFAULTS, &error));
            return Err(faults);
        }
    };
    let schema = source::Schema { defaults: &defaults, secrets: S::SECRETS, unlisted: S::UNLISTED };
    let mut layers = Vec::new();
    if let Some(path) = file {
        layers.push(Layer::from_file(&path, &schema, &mut faults));
    }
    layers.push(Layer::from_env(env, &schema, &mut faults));

    let mut merged = defaults.clone();
    for layer in &layers {
        source::merge(&mut merged, &layer.table);
    }
    secret::resolve(&mut merged, S::SECRETS, &mut faults);
    let settings: Option<S> = extract::extract(merged, &defaults, &layers, &mut faults);
    if let Some(settings) = &settings {
        settings.validate(&mut faults);
    }
    match settings {
        Some(settings) if faults.is_empty() => Ok(settings),
        _ => Err(faults),
    }
}

#[cfg(test)]
mod tests;

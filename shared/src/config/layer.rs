//! One layer of settings, a file or the environment, as a tree of keys. Each key is checked against the schema; an invalid
//! one is left out of the tree, so that the others can still be checked.

use std::ffi::OsString;
use std::path::Path;

use toml::Table;

use super::errors::ConfigErrors;
use super::keys::{ENV_FILE, ENV_PREFIX, env_name, get, set};
use super::schema::Schema;

/// Variables of this project that are no settings; the tests and the tools read them.
const HELPERS: [&str; 12] = [
    ENV_FILE,
    "CHATBOX_BINARIES",
    "CHATBOX_CACHE",
    "CHATBOX_MONGOD",
    "CHATBOX_MONGODB_URI",
    "CHATBOX_REQUIRE_TOOLS",
    "CHATBOX_SABOTAGE",
    "CHATBOX_SABOTAGED_BINARIES",
    "CHATBOX_SEED",
    "CHATBOX_SOAK_ANSWERS",
    "CHATBOX_TOKEN",
    "CHATBOX_WRITE_DOCS",
];

/// Settings from one place.
pub(super) struct Layer {
    origin: Origin,
    pub(super) table: Table,
}

enum Origin {
    File(String),
    Environment,
}

impl Layer {
    /// Reads a settings file. `Err`: it cannot be read or is not TOML; every other error would only follow from that one.
    pub(super) fn from_file(path: &Path, schema: &Schema<'_>, errors: &mut ConfigErrors) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let fail = |key: &str, reason: String| {
            let mut errors = ConfigErrors::default();
            errors.add(key, reason);
            errors
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            fail("--config", format!("cannot read {name} (named by --config or {ENV_FILE}): {error}"))
        })?;
        let mut table = toml::from_str::<Table>(&text).map_err(|error| fail(&name, syntax_error(&text, &error)))?;
        schema.check_file(&mut table, &name, errors);
        Ok(Self { origin: Origin::File(name), table })
    }

    /// Reads the variables that are settings. Returns warnings too: variables that look like settings and are none.
    pub(super) fn from_env(
        env: Vec<(OsString, OsString)>,
        schema: &Schema<'_>,
        errors: &mut ConfigErrors,
    ) -> (Self, Vec<String>) {
        let (mut table, mut warnings) = (Table::new(), Vec::new());
        for (name, value) in env {
            let name = name.to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
                warnings.extend(misspelled(&name, schema, errors));
                continue;
            };
            let key = rest.to_ascii_lowercase().replace("__", ".");
            match value
                .into_string()
                .map_err(|_| "must be UTF-8 text".to_owned())
                .and_then(|text| schema.parse(&key, text))
            {
                Ok(Some(value)) => set(&mut table, &key, value),
                Ok(None) => {}
                Err(reason) => errors.add(key, format!("{reason} (environment variable {name})")),
            }
        }
        (Self { origin: Origin::Environment, table }, warnings)
    }

    /// Where this layer sets `key`, if it does, as the end of a sentence.
    pub(super) fn origin_of(&self, key: &str) -> Option<String> {
        get(&self.table, key)?;
        Some(match &self.origin {
            Origin::File(name) => format!("(in {name})"),
            Origin::Environment => format!("(environment variable {})", env_name(key)),
        })
    }
}

/// A variable such as `CHATBOX_LINK_INSECURE`, which a user meant as a setting: an error where the setting is clear, else a
/// warning.
fn misspelled(name: &str, schema: &Schema<'_>, errors: &mut ConfigErrors) -> Option<String> {
    if !name.starts_with("CHATBOX_") || HELPERS.contains(&name) {
        return None;
    }
    if let Some(meant) = schema.variable_like(name) {
        errors.add(name, format!("unknown environment variable; did you mean {meant}?"));
        return None;
    }
    Some(format!("the environment variable {name} is not a setting and is ignored; settings begin with {ENV_PREFIX}"))
}

/// A TOML syntax error with its place. The line itself is not quoted: it may hold a secret.
pub(super) fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let before = &text[..text.floor_char_boundary(error.span().map_or(0, |span| span.start))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("not valid TOML at line {line}, column {column}: {}", error.message().replace('\n', ", "))
}

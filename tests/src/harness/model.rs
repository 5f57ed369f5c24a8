//! The models of a test's brain.

use toml::{Table, Value};

/// Which wire protocol a model speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Chat completions.
    OpenAi,
    /// Messages.
    Anthropic,
    /// Chat applications with their own memory.
    Dify,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Anthropic, Self::Dify];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Dify => "dify",
        }
    }
}

/// One `[[models]]` table.
#[derive(Debug, Clone)]
pub struct Model {
    table: Table,
}

/// The provider's key. It may appear nowhere but in requests to the provider.
pub const API_KEY: &str = "sk-canary-c7d1b8e2f0a94a55";
/// The environment variable that holds it.
pub const API_KEY_VARIABLE: &str = "TEST_PROVIDER_KEY";

impl Model {
    /// The built-in model that needs no provider.
    pub fn demo(id: &str) -> Self {
        let mut model = Self { table: Table::new() };
        model.put("id", id);
        model.put("name", id.to_uppercase());
        model.put("provider", "demo");
        model
    }

    /// A model behind a provider whose API begins at `url`.
    pub fn at(id: &str, dialect: Dialect, url: &str) -> Self {
        let mut model = Self::demo(id);
        model.put("provider", dialect.name());
        model.put("base_url", url);
        model.put("api_key_env", API_KEY_VARIABLE);
        if dialect != Dialect::Dify {
            model.put("model", "wire-name-1");
        }
        model
    }

    /// With one more key.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.put(key, value);
        self
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.table.insert(key.to_owned(), value.into());
    }

    /// Its table.
    pub fn table(self) -> Table {
        self.table
    }
}

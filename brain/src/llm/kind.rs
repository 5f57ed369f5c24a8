//! The protocols a model can be called by.

/// A protocol, as `provider` names it in the configuration and in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// OpenAI Chat Completions, also of compatible servers.
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// Dify chat apps.
    Dify,
    /// The built-in model.
    Demo,
}

impl Kind {
    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::OpenAi, Self::Anthropic, Self::Dify, Self::Demo].into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name in the configuration and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Dify => "dify",
            Self::Demo => "demo",
        }
    }
}

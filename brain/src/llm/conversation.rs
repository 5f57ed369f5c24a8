//! A conversation, from which each model gets the prompt that fits its context window.

use std::collections::HashMap;
use std::sync::Arc;

use super::kind::Kind;
use super::model::Model;
use super::{Prompt, PromptTurn};

/// The conversation up to the message to answer.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// The messages, oldest first, ending with the one to answer.
    pub turns: Vec<PromptTurn>,
    /// A stable opaque hash of the user's id; no personal data.
    pub user: String,
    /// The providers' conversation ids by model id (Dify).
    pub conversations: HashMap<String, String>,
}

/// Bytes whose tokens are counted on the async thread: takes some milliseconds at most.
const COUNTED_AT_ONCE: usize = 64 << 10;

impl Conversation {
    /// The prompt within the model's budget, with its estimated tokens. Long conversations are counted on a blocking
    /// thread.
    pub async fn prepare(self: &Arc<Self>, model: &Arc<Model>) -> (Prompt, u64) {
        let (conversation, model) = (Arc::clone(self), Arc::clone(model));
        let bytes: usize = self.turns.iter().map(|turn| turn.text.len()).sum();
        let count = move || {
            let prompt = conversation.prompt(&model, model.prompt_budget());
            let tokens = model.counter.estimate_prompt(&prompt);
            (prompt, tokens)
        };
        if bytes <= COUNTED_AT_ONCE {
            return count();
        }
        match tokio::task::spawn_blocking(count.clone()).await {
            Ok(counted) => counted,
            // The runtime is shutting down.
            Err(_) => count(),
        }
    }

    /// The prompt for a model: as many of the newest messages as fit `budget` tokens. Whole messages only.
    pub fn prompt(&self, model: &Model, budget: u64) -> Prompt {
        Prompt {
            system: model.system_prompt.clone(),
            turns: model.counter.fit(model.system_prompt.as_deref(), &self.turns, budget).to_vec(),
            user: self.user.clone(),
            conversation: self.conversations.get(&model.id).cloned(),
            ..Prompt::default()
        }
    }

    /// The prompt with half as much history; `None` where nothing can be left out.
    pub fn shorter(&self, model: &Model, prompt: &Prompt) -> Option<Prompt> {
        if model.kind == Kind::Dify {
            // Dify keeps the history; no request carries it.
            return None;
        }
        let shorter = self.prompt(model, model.counter.estimate_prompt(prompt) / 2);
        (shorter.turns.len() < prompt.turns.len()).then(|| Prompt { turns: shorter.turns, ..prompt.clone() })
    }
}

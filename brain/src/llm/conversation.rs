//! A conversation as it stands, from which every model gets the prompt that fits it.

use std::collections::HashMap;

use super::catalog::Model;
use super::{Prompt, PromptTurn};

/// What may go into a prompt.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// The messages, oldest first, ending with the one to answer.
    pub turns: Vec<PromptTurn>,
    /// An opaque stable hash of the user's id; no personal data.
    pub user: String,
    /// The providers' own conversation ids, by the id of the model (Dify).
    pub conversations: HashMap<String, String>,
}

impl Conversation {
    /// The prompt for a model, of as many of the newest messages as fit the budget in tokens. Whole messages only.
    pub fn prompt(&self, model: &Model, budget: u64) -> Prompt {
        Prompt {
            system: model.system_prompt.clone(),
            turns: model.counter.fit(model.system_prompt.as_deref(), &self.turns, budget).to_vec(),
            user: self.user.clone(),
            conversation: self.conversations.get(&model.id).cloned(),
            ..Prompt::default()
        }
    }

    /// The same with half as much history, where the model found it too long; `None` where nothing can be left out.
    pub fn shorter(&self, model: &Model, prompt: &Prompt) -> Option<Prompt> {
        let shorter = self.prompt(model, model.counter.estimate_prompt(prompt) / 2);
        (shorter.turns.len() < prompt.turns.len()).then(|| Prompt { turns: shorter.turns, ..prompt.clone() })
    }
}

//! Counts the tokens of texts and prompts, for budgets and for usage that no provider reported. [`TokenCounter`] counts
//! exactly for OpenAI's encodings and estimates for other models, whose tables are not public. Estimates err on the
//! high side, so a prompt that should fit does. Counting makes no request and takes linear time.

mod encoding;

use tiktoken_rs::CoreBPE;

use self::encoding::Encoding;
use super::kind::Kind;
use super::{Prompt, PromptTurn};

/// Tokens of a message besides its text and images.
const PER_MESSAGE: u64 = 4;

/// How the tokens of one model are counted. Cheap to clone.
#[derive(Clone, Copy)]
pub enum TokenCounter {
    /// Exactly, with the table of the model's encoding. Images and message framing are estimates.
    Tiktoken(&'static CoreBPE),
    /// By a rule of thumb.
    Estimate(Family),
}

/// The rules of estimation. They weigh a character by its length in UTF-8, which goes with how rare it is in a model's
/// table: ASCII has one byte; accents, Greek, Cyrillic, Hebrew and Arabic two; most other scripts three; emoji four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// OpenAI's protocol, Dify and the demo model. Tokens per character: 1/4 for one byte, 1/2 for two, 1 for three, 2
    /// for four.
    #[default]
    Common,
    /// Anthropic, whose tokenizers produce a third more. Tokens per character: 1/3 for one byte, 2/3 for two, 4/3 for
    /// three, 8/3 for four.
    Anthropic,
}

/// An unknown tokenizer name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be \"o200k_base\", \"cl100k_base\" or \"estimate\", or empty to go by the model's name, not \"{0}\"")]
pub struct UnknownTokenizer(pub String);

impl TokenCounter {
    /// The counter of a model. `configured` is `o200k_base`, `cl100k_base` or `estimate`; if empty, the provider's name
    /// of the model decides, and an unknown name means an estimate. The first model of an encoding loads its table
    /// (cost: see `tokens/encoding.rs`), so call this at start and not during an answer.
    ///
    /// # Errors
    /// For any other name.
    pub fn for_model(kind: Kind, name: &str, configured: &str) -> Result<Self, UnknownTokenizer> {
        let encoding = match configured {
            "" if kind == Kind::OpenAi => Encoding::of_model(name),
            "" | "estimate" => None,
            "o200k_base" => Some(Encoding::O200kBase),
            "cl100k_base" => Some(Encoding::Cl100kBase),
            unknown => return Err(UnknownTokenizer(unknown.to_owned())),
        };
        let family = if kind == Kind::Anthropic { Family::Anthropic } else { Family::Common };
        Ok(encoding.map_or(Self::Estimate(family), |encoding| Self::Tiktoken(encoding.table())))
    }

    /// Checks a configured name without loading a table.
    ///
    /// # Errors
    /// For any other word.
    pub fn check(configured: &str) -> Result<(), UnknownTokenizer> {
        match configured {
            "" | "estimate" | "o200k_base" | "cl100k_base" => Ok(()),
            unknown => Err(UnknownTokenizer(unknown.to_owned())),
        }
    }

    /// The tokens of a text, rounded up.
    pub fn count(&self, text: &str) -> u64 {
        match self {
            Self::Tiktoken(table) => encoding::count(table, text),
            Self::Estimate(family) => family.estimate(text),
        }
    }

    /// The tokens of a whole prompt.
    pub fn estimate_prompt(&self, prompt: &Prompt) -> u64 {
        self.system_cost(prompt.system.as_deref()) + prompt.turns.iter().map(|turn| self.turn_cost(turn)).sum::<u64>()
    }

    /// The part of a conversation that goes to the model: as many of the newest turns as fit `budget` tokens beside the
    /// instructions, whole and without gaps. The last turn, which is to be answered, is always included, even if it
    /// exceeds the budget: the provider's rejection says more than a silent cut.
    ///
    /// The budget is the model's `context_tokens − max_output_tokens`.
    pub fn fit<'a>(&self, system: Option<&str>, turns: &'a [PromptTurn], budget: u64) -> &'a [PromptTurn] {
        let mut left = budget.saturating_sub(self.system_cost(system));
        let mut from = turns.len();
        for (index, turn) in turns.iter().enumerate().rev() {
            let cost = self.turn_cost(turn);
            if cost > left && from < turns.len() {
                break;
            }
            left = left.saturating_sub(cost);
            from = index;
        }
        turns.get(from..).unwrap_or_default()
    }

    fn system_cost(&self, system: Option<&str>) -> u64 {
        system.map_or(0, |text| PER_MESSAGE + self.count(text))
    }

    fn turn_cost(&self, turn: &PromptTurn) -> u64 {
        let images = u64::try_from(turn.images.len()).unwrap_or(u64::MAX);
        PER_MESSAGE + self.count(&turn.text) + images.saturating_mul(self.per_image())
    }

    /// Tokens of an image of any size. Providers scale images down before they count them, so there is a maximum:
    /// OpenAI's rule gives 1105 for the six tiles of a large image up to twice as long as wide, Anthropic's about 1600
    /// for 1.15 megapixels.
    fn per_image(&self) -> u64 {
        match self {
            Self::Tiktoken(_) | Self::Estimate(Family::Common) => 1105,
            Self::Estimate(Family::Anthropic) => 1600,
        }
    }
}

impl Default for TokenCounter {
    fn default() -> Self {
        Self::Estimate(Family::Common)
    }
}

impl std::fmt::Debug for TokenCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tiktoken(_) => f.write_str("Tiktoken"),
            Self::Estimate(family) => f.debug_tuple("Estimate").field(family).finish(),
        }
    }
}

impl Family {
    fn estimate(self, text: &str) -> u64 {
        let weight: u64 = text.chars().map(|c| 1 << (c.len_utf8() - 1)).sum();
        weight.div_ceil(match self {
            Self::Common => 4,
            Self::Anthropic => 3,
        })
    }
}

/// The tokens of a text by the common rule.
pub fn estimate(text: &str) -> u64 {
    TokenCounter::default().count(text)
}

/// The tokens of a whole prompt by the common rule.
pub fn estimate_prompt(prompt: &Prompt) -> u64 {
    TokenCounter::default().estimate_prompt(prompt)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::llm::Image;

    fn fit<'a>(system: Option<&str>, turns: &'a [PromptTurn], budget: u64) -> &'a [PromptTurn] {
        TokenCounter::default().fit(system, turns, budget)
    }

    const ANTHROPIC: TokenCounter = TokenCounter::Estimate(Family::Anthropic);

    #[test]
    fn the_rules_are_as_written() {
        for (text, common, anthropic) in [
            ("", 0, 0),
            ("a", 1, 1),
            ("abc", 1, 1),
            ("abcd", 1, 2),
            ("abcde", 2, 2),
            ("äöüß", 2, 3),
            ("日本語", 3, 4),
            ("😀", 2, 3),
        ] {
            assert_eq!((estimate(text), ANTHROPIC.count(text)), (common, anthropic), "{text}");
        }
        let prompt = Prompt { system: Some("abcd".into()), turns: vec![PromptTurn::user("abcd")], ..Prompt::default() };
        assert_eq!((estimate_prompt(&prompt), ANTHROPIC.estimate_prompt(&prompt)), (10, 12));
    }

    #[test]
    fn pictures_cost_a_flat_sum_and_push_out_old_turns() {
        let image = Image { media_type: "image/png".into(), data: Bytes::from_static(b"x") };
        let shown = PromptTurn { images: vec![image.clone(), image], ..PromptTurn::user("abcd") };
        let prompt = Prompt { turns: vec![shown.clone()], ..Prompt::default() };
        assert_eq!((estimate_prompt(&prompt), ANTHROPIC.estimate_prompt(&prompt)), (5 + 2210, 6 + 3200));
        let turns = [shown, PromptTurn::user("abcd")];
        assert_eq!((fit(None, &turns, 2219).len(), fit(None, &turns, 2220).len()), (1, 2));
    }

    #[test]
    fn the_name_of_a_model_tells_its_encoding_only_where_it_is_openai_s() {
        let exact = |kind, name: &str, configured: &str| {
            TokenCounter::for_model(kind, name, configured).map(|counter| matches!(counter, TokenCounter::Tiktoken(_)))
        };
        assert_eq!(exact(Kind::OpenAi, "my-deployment", ""), Ok(false));
        assert_eq!(exact(Kind::OpenAi, "gpt-4o", "estimate"), Ok(false));
        assert_eq!(exact(Kind::Anthropic, "gpt-4o", ""), Ok(false));
        assert_eq!(exact(Kind::Dify, "", ""), Ok(false));
        assert_eq!(exact(Kind::OpenAi, "gpt-4", ""), Ok(true));
        assert_eq!(exact(Kind::OpenAi, "my-deployment", "cl100k_base"), Ok(true));
        for word in ["p50k", "O200K_BASE", " "] {
            let unknown = UnknownTokenizer(word.to_owned());
            assert_eq!(exact(Kind::OpenAi, "gpt-4o", word), Err(unknown.clone()));
            assert_eq!(TokenCounter::check(word), Err(unknown));
        }
        let estimated = TokenCounter::for_model(Kind::Anthropic, "claude-x", "").unwrap();
        assert_eq!(format!("{estimated:?}"), "Estimate(Anthropic)");
    }

    #[test]
    fn the_newest_turns_fit_and_the_last_is_always_there() {
        let turns: Vec<_> = ["old old old", "a", "b"].map(PromptTurn::user).into();
        assert_eq!(fit(None, &turns, 10), &turns[1..]);
        assert_eq!(fit(None, &turns, 9), &turns[2..]);
        assert_eq!(fit(None, &turns, 0), &turns[2..]);
        assert_eq!(fit(None, &turns, 1000), &turns[..]);
        assert_eq!(fit(Some("abcd"), &turns, 15), &turns[1..]);
        assert_eq!(fit(Some("abcd"), &turns, 14), &turns[2..]);
        assert_eq!(fit(None, &[], 10), &[]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_fits_is_the_longest_end_within_the_budget(
            words in proptest::collection::vec(0usize..30, 1..20), budget in 0u64..300, exact in any::<bool>(),
        ) {
            let configured = if exact { "cl100k_base" } else { "estimate" };
            let counter = TokenCounter::for_model(Kind::OpenAi, "", configured).unwrap();
            let turns: Vec<_> = words.iter().map(|words| PromptTurn::user("word ".repeat(*words))).collect();
            let kept = counter.fit(None, &turns, budget);
            let cost = |count: usize| turns[turns.len() - count..].iter().map(|turn| counter.turn_cost(turn)).sum::<u64>();
            prop_assert_eq!(kept, &turns[turns.len() - kept.len()..], "whole messages, none left out in between");
            prop_assert!(!kept.is_empty());
            prop_assert!(kept.len() == 1 || cost(kept.len()) <= budget);
            prop_assert!(kept.len() == turns.len() || cost(kept.len() + 1) > budget);
        }
    }
}

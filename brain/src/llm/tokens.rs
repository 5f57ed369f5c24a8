//! Tokens of texts and prompts: for budgets, and for usage that no provider reported. [`TokenCounter`] counts exactly what
//! OpenAI's models read and estimates the rest, whose tables are not public; estimates err on the high side, so that a
//! prompt that should fit does. It never asks anybody and takes linear time whatever the text.

mod encoding;

use tiktoken_rs::CoreBPE;

use self::encoding::Encoding;
use super::kind::Kind;
use super::{Prompt, PromptTurn};

/// What a message adds besides its text and its pictures.
const PER_MESSAGE: u64 = 4;

/// How the tokens of one model are counted. Cheap to clone.
#[derive(Clone, Copy)]
pub enum TokenCounter {
    /// As the model itself does, with the table of its encoding. Pictures and frames of messages stay estimates.
    Tiktoken(&'static CoreBPE),
    /// By a rule.
    Estimate(Family),
}

/// Models whose tokens follow one rule. Characters are told apart by their length in UTF-8, which goes with how rare they
/// are in a model's table: ASCII is one, accents, Greek, Cyrillic, Hebrew and Arabic are two, most other scripts three,
/// emoji four bytes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// OpenAI's protocol, Dify and the demo model: four ASCII characters are one token; characters of two bytes half a
    /// token each, of three bytes one, of four two.
    #[default]
    Common,
    /// Anthropic, whose tokenizers take more: everything weighs a third more, so three ASCII characters are one token;
    /// characters of two bytes two thirds of a token each, of three bytes one and a third, of four two and two thirds.
    Anthropic,
}

/// A name that is no way of counting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be \"o200k_base\", \"cl100k_base\" or \"estimate\", or empty to go by the model's name, not \"{0}\"")]
pub struct UnknownTokenizer(pub String);

impl TokenCounter {
    /// The counter of this model. `configured` is `o200k_base`, `cl100k_base` or `estimate`; empty, the provider's name of
    /// the model decides, and what no name tells is estimated. The first model of an encoding loads its table, which takes
    /// the time and the memory that `tokens/encoding.rs` tells: call it at start, not in an answer.
    ///
    /// # Errors
    /// For any other word.
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

    /// Is `configured` a word that [`TokenCounter::for_model`] takes? Loads nothing.
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

    /// What of a conversation goes to the model: as many of the newest turns as fit `budget` tokens beside the
    /// instructions, whole turns only, none left out in between. The last one, which is to be answered, is always there,
    /// even where it alone is more than the budget: the provider's refusal says more than a silent cut would.
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

    /// What a picture costs, whatever its size. Providers scale pictures down before they count them, so that there is a
    /// most: OpenAI's rule gives 1105 for the six tiles of a large picture up to twice as long as wide, Anthropic's about
    /// 1600 for one of 1.15 megapixels.
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

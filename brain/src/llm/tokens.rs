//! An estimate of tokens, for budgets and for usage that no provider reported. Every model counts in its own way and none
//! of their tables is part of chatbox; the rule errs on the high side, so that a prompt that should fit does.
//!
//! The rule: four ASCII characters are one token; characters of two bytes in UTF-8 (accents, Greek, Cyrillic, Hebrew,
//! Arabic) half a token each; of three bytes (most other scripts) one; of four (emoji) two. A message adds four for its
//! frame.

use super::{Prompt, PromptTurn};

/// What a message adds besides its text.
const PER_MESSAGE: u64 = 4;

/// The tokens of a text, rounded up.
pub fn estimate(text: &str) -> u64 {
    let quarters: u64 = text
        .chars()
        .map(|c| match c.len_utf8() {
            1 => 1,
            2 => 2,
            3 => 4,
            _ => 8,
        })
        .sum();
    quarters.div_ceil(4)
}

/// The tokens of a whole prompt.
pub fn estimate_prompt(prompt: &Prompt) -> u64 {
    system_cost(prompt.system.as_deref()) + prompt.turns.iter().map(turn_cost).sum::<u64>()
}

/// What of a conversation goes to the model: as many of the newest turns as fit `budget` tokens beside the instructions,
/// whole turns only, none left out in between. The last one, which is to be answered, is always there, even where it
/// alone is more than the budget: the provider's refusal says more than a silent cut would.
///
/// The budget is the model's `context_tokens − max_output_tokens`.
pub fn fit<'a>(system: Option<&str>, turns: &'a [PromptTurn], budget: u64) -> &'a [PromptTurn] {
    let mut left = budget.saturating_sub(system_cost(system));
    let mut from = turns.len();
    for (index, turn) in turns.iter().enumerate().rev() {
        let cost = turn_cost(turn);
        if cost > left && from < turns.len() {
            break;
        }
        left = left.saturating_sub(cost);
        from = index;
    }
    turns.get(from..).unwrap_or_default()
}

fn system_cost(system: Option<&str>) -> u64 {
    system.map_or(0, |text| PER_MESSAGE + estimate(text))
}

fn turn_cost(turn: &PromptTurn) -> u64 {
    PER_MESSAGE + estimate(&turn.text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rule_is_as_written() {
        for (text, tokens) in [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("äöüß", 2), ("日本語", 3), ("😀", 2)]
        {
            assert_eq!(estimate(text), tokens, "{text}");
        }
        let prompt = Prompt { system: Some("abcd".into()), turns: vec![PromptTurn::user("abcd")], ..Prompt::default() };
        assert_eq!(estimate_prompt(&prompt), 10);
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
        #[test]
        fn what_fits_is_the_longest_end_within_the_budget(lengths in proptest::collection::vec(0usize..60, 1..20), budget in 0u64..200) {
            let turns: Vec<_> = lengths.iter().map(|length| PromptTurn::user("x".repeat(*length))).collect();
            let kept = fit(None, &turns, budget).len();
            let cost = |count: usize| turns[turns.len() - count..].iter().map(turn_cost).sum::<u64>();
            prop_assert!(kept >= 1);
            prop_assert!(kept == 1 || cost(kept) <= budget);
            prop_assert!(kept == turns.len() || cost(kept + 1) > budget);
        }
    }
}

//! What tokens cost.

use super::TokenUsage;

/// The price of a model: for a million tokens, in the currency the operator has chosen for all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of prompts.
    pub input: f64,
    /// Of prompts that the provider has in its cache.
    pub cached: f64,
    /// Of answers.
    pub output: f64,
}

impl Price {
    /// What this costs, in billionths of the currency, rounded to the nearest.
    ///
    /// A token costs a thousandth of the price in billionths, so sums of costs are exact to a billionth for each call.
    pub fn cost(&self, usage: &TokenUsage) -> u64 {
        let cached = usage.cached.min(usage.input);
        let cost = |tokens: u64, price: f64| exact(tokens) * price * 1000.0;
        let sum = cost(usage.input - cached, self.input) + cost(cached, self.cached) + cost(usage.output, self.output);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
        let whole = sum.round() as u64;
        whole
    }
}

/// Tokens of a call are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn exact(tokens: u64) -> f64 {
    tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_have_a_price_of_their_own() {
        let price = Price { input: 2.5, cached: 0.25, output: 10.0 };
        let usage = TokenUsage { input: 1000, cached: 400, output: 100, estimated: false };
        // 600 × 2500 + 400 × 250 + 100 × 10000 billionths
        assert_eq!(price.cost(&usage), 1_500_000 + 100_000 + 1_000_000);
        assert_eq!(price.cost(&TokenUsage { cached: 2000, ..usage }), 250_000 + 1_000_000, "never more than all");
        assert_eq!(Price { input: 0.0375, cached: 0.0, output: 0.0 }.cost(&TokenUsage { input: 3, ..usage }), 0);
        let one = TokenUsage { input: 1, ..TokenUsage::default() };
        assert_eq!(Price { input: 0.0375, cached: 0.0, output: 0.0 }.cost(&one), 38);
    }
}

//! What calls of language models use and cost, and why an answer ends. Plain values that the log, the ledger and the
//! providers share; imports nothing of the brain.

/// The tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Tokens of the prompt that came from the provider's cache; they usually cost less.
    pub cached: u64,
    /// Tokens of the answer, hidden reasoning included.
    pub output: u64,
    /// The provider reported no usage: these are chatbox's estimates.
    pub estimated: bool,
}

/// The price of a model: per million tokens, in the currency the operator uses for all models.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of prompt tokens.
    pub input: f64,
    /// Of prompt tokens that came from the provider's cache.
    pub cached: f64,
    /// Of answer tokens.
    pub output: f64,
}

impl Price {
    /// The cost of this usage in billionths of the currency, rounded to the nearest.
    ///
    /// In billionths, one token costs a thousandth of the price, so a sum of costs is exact to one billionth per call.
    pub fn cost(&self, usage: &TokenUsage) -> u64 {
        let cached = usage.cached.min(usage.input);
        let cost = |tokens: u64, price: f64| exact(tokens) * price * 1000.0;
        let sum = cost(usage.input - cached, self.input) + cost(cached, self.cached) + cost(usage.output, self.output);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
        let whole = sum.round() as u64;
        whole
    }
}

/// The tokens of one call are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn exact(tokens: u64) -> f64 {
    tokens as f64
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// A token limit cut it.
    Length,
    /// A participant stopped it.
    Stopped,
    /// Whoever generated it is gone and no model could go on.
    Interrupted,
    /// The provider's content rules cut it.
    ContentFilter,
}

impl FinishReason {
    /// The stable name on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::ContentFilter => "content_filter",
        }
    }

    /// The reason with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Stop, Self::Length, Self::Stopped, Self::Interrupted, Self::ContentFilter]
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
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

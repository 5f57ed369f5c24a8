//! Arithmetic in a sentence: finds the longest arithmetic expression and evaluates it.

/// The first sum in `text` with at least one operator: as it was read, and its value.
pub(super) fn solve(text: &str) -> Option<(String, f64)> {
    let text = text.replace(['×', '·'], "*").replace('÷', "/").replace('−', "-").replace(" x ", " * ");
    let is_part = |c: char| c.is_ascii_digit() || "+-*/().^% ".contains(c);
    text.split(|c| !is_part(c))
        .map(|part| part.trim().trim_end_matches('.').trim_end())
        .filter(|part| part.contains(|c: char| c.is_ascii_digit()))
        .find_map(|part| {
            let mut sum = Sum { rest: part, operators: 0, depth: 0 };
            let value = sum.terms()?;
            (sum.rest.is_empty() && sum.operators > 0 && value.is_finite()).then(|| (part.to_owned(), value))
        })
}

/// A number as people write it: no needless decimals.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A recursive descent over what is left to read.
struct Sum<'a> {
    rest: &'a str,
    operators: u32,
    depth: u32,
}

impl Sum<'_> {
    fn terms(&mut self) -> Option<f64> {
        let mut value = self.factors()?;
        while let Some(operator) = self.take(&['+', '-']) {
            let right = self.factors()?;
            value = if operator == '+' { value + right } else { value - right };
        }
        Some(value)
    }

    fn factors(&mut self) -> Option<f64> {
        let mut value = self.signed()?;
        while let Some(operator) = self.take(&['*', '/', '%']) {
            let right = self.signed()?;
            value = match operator {
                '*' => value * right,
                '/' => value / right,
                _ => value % right,
            };
        }
        Some(value)
    }

    fn signed(&mut self) -> Option<f64> {
        // Deeper than anybody nests by hand; bounds the stack.
        self.depth += 1;
        if self.depth > 100 {
            return None;
        }
        self.rest = self.rest.trim_start();
        let value = match self.rest.strip_prefix('-') {
            Some(rest) => {
                self.rest = rest;
                -self.signed()?
            }
            None => self.power()?,
        };
        self.depth -= 1;
        Some(value)
    }

    fn power(&mut self) -> Option<f64> {
        let base = self.atom()?;
        match self.take(&['^']) {
            Some(_) => Some(base.powf(self.signed()?)),
            None => Some(base),
        }
    }

    fn atom(&mut self) -> Option<f64> {
        self.rest = self.rest.trim_start();
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            let value = self.terms()?;
            self.rest = self.rest.trim_start().strip_prefix(')')?;
            return Some(value);
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        number.parse().ok()
    }

    fn take(&mut self, operators: &[char]) -> Option<char> {
        self.rest = self.rest.trim_start();
        let operator = self.rest.chars().next().filter(|c| operators.contains(c))?;
        self.rest = self.rest.get(operator.len_utf8()..)?;
        self.operators += 1;
        Some(operator)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_are_found_and_worked_out() {
        for (text, value) in [
            ("what is 17 * 3?", "51"),
            ("2 + 3 * 4", "14"),
            ("(2 + 3) * 4, please.", "20"),
            ("is it 7 / 2. Or not", "3.5"),
            ("2^3^2", "512"),
            ("-2 - -3", "1"),
            ("12 × 12", "144"),
            ("3 x 4", "12"),
            ("0.1 + 0.2", "0.3"),
            ("on 12 May, 1 + 1", "2"),
        ] {
            assert_eq!(solve(text).map(|(_, value)| number(value)).as_deref(), Some(value), "{text}");
        }
        for text in ["", "hello", "12", "1 / 0", "(1 + 2", "1 + ", "5.", "a - b", "..."] {
            assert_eq!(solve(text), None, "{text}");
        }
        assert_eq!(solve(&format!("{}1+1{}", "(".repeat(5000), ")".repeat(5000))), None);
    }

    proptest! {
        #[test]
        fn nothing_upsets_it(text in "[0-9+*/() .%^-]{0,60}") {
            solve(&text);
        }
    }
}

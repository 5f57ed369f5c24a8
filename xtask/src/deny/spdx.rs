//! Licence expressions: `MIT OR Apache-2.0`, `(A AND B) OR C`, `Apache-2.0 WITH LLVM-exception`, and the old `MIT/Apache-2.0`.

/// May the licence be chosen so that only allowed ids remain? `None`: no licence expression.
pub(super) fn satisfied(expression: &str, allowed: impl Fn(&str) -> bool) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { words: spaced.split_whitespace().peekable(), allowed: &allowed };
    let result = parser.any()?;
    parser.words.next().is_none().then_some(result)
}

struct Parser<'a, I: Iterator<Item = &'a str>> {
    words: std::iter::Peekable<I>,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a, I: Iterator<Item = &'a str>> Parser<'a, I> {
    /// `all (OR all)*`
    fn any(&mut self) -> Option<bool> {
        let mut result = self.all()?;
        while self.words.next_if_eq(&"OR").is_some() {
            result |= self.all()?;
        }
        Some(result)
    }

    /// `one (AND one)*`
    fn all(&mut self) -> Option<bool> {
        let mut result = self.one()?;
        while self.words.next_if_eq(&"AND").is_some() {
            result &= self.one()?;
        }
        Some(result)
    }

    /// `( any )`, `id` or `id WITH exception`
    fn one(&mut self) -> Option<bool> {
        match self.words.next()? {
            "(" => {
                let result = self.any()?;
                (self.words.next()? == ")").then_some(result)
            }
            ")" | "OR" | "AND" | "WITH" => None,
            id => match self.words.next_if_eq(&"WITH") {
                Some(_) => Some((self.allowed)(&format!("{id} WITH {}", self.words.next()?))),
                None => Some((self.allowed)(id)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str) -> Option<bool> {
        satisfied(expression, |id| matches!(id, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception"))
    }

    #[test]
    fn one_of_several_is_enough_and_all_of_several_are_needed() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "GPL-3.0 / MIT",
            "MIT AND ISC",
            "ISC AND (GPL-3.0 OR MIT)",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-3.0 OR MIT AND ISC",
        ] {
            assert_eq!(check(good), Some(true), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND GPL-3.0",
            "Apache-2.0",
            "MIT WITH LLVM-exception",
            "GPL-3.0 OR MIT AND BSD",
        ] {
            assert_eq!(check(bad), Some(false), "{bad}");
        }
    }

    #[test]
    fn what_is_no_expression_is_not_guessed_at() {
        for text in ["", "MIT OR", "(MIT", "MIT)", "OR MIT", "MIT ISC", "MIT WITH", "()"] {
            assert_eq!(check(text), None, "{text}");
        }
    }

    proptest::proptest! {
        /// Adding an alternative never forbids, adding a demand never allows.
        #[test]
        fn or_allows_and_and_demands(left in "(MIT|GPL|ISC)( (OR|AND) (MIT|GPL|ISC)){0,4}", right in "MIT|GPL") {
            let alone = check(&left).unwrap();
            assert_eq!(check(&format!("({left}) OR {right}")).unwrap(), alone || right == "MIT");
            assert_eq!(check(&format!("({left}) AND {right}")).unwrap(), alone && right == "MIT");
        }
    }
}

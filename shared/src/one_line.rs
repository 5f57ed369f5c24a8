//! Text from outside, made safe for one line of a log or a terminal.

use std::fmt::{self, Write as _};

/// Escapes every character that could begin a new line, move the cursor of a terminal or change the reading direction.
///
/// The escapes are those of JSON (`\u000a`), so a JSON line stays valid: these characters occur there in strings only.
pub fn one_line(text: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        text.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c)),
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(f, "\\u{:04x}", u32::from(c))
            }
            c => f.write_char(c),
        })
    })
}

//! OpenAI's encodings, counted in slices so that every text takes linear time.
//!
//! A table is part of the program and is loaded when the first model of its encoding is built. Measured on one core of
//! a virtual machine: `o200k_base` takes 0.27 s and 46 MiB of resident memory (0.8 s in a debug build), `cl100k_base`
//! 0.08 s and 23 MiB (0.5 s). Ordinary text is then counted at about 30 MB/s (2 MB/s).
//!
//! Without slices a megabyte of blanks makes the encoder panic: the regular expression of `o200k_base` overflows its
//! stack.

use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton};

/// The longest slice in bytes. The regular expressions may look back over the whole slice for each character. Only a
/// longer word or run of blanks is cut where the model would not cut, which costs a token or two.
const SLICE: usize = 2048;

/// The encodings of chat models. `o200k_harmony` (gpt-oss) differs from `o200k_base` only in special tokens, which no
/// text contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// GPT-4o and everything since.
    O200kBase,
    /// GPT-4 and GPT-3.5.
    Cl100kBase,
}

impl Encoding {
    /// The encoding by OpenAI's model name, also with a gateway's prefix (`openai/gpt-4o`), of fine-tuned models
    /// (`ft:gpt-4o:..`) and as Azure writes it (`gpt-35-turbo`); `None` for all other names.
    pub(super) fn of_model(name: &str) -> Option<Self> {
        const O200K: [&str; 9] = ["gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4", "chatgpt-4o", "gpt-oss"];
        const CL100K: [&str; 3] = ["gpt-4", "gpt-3.5", "gpt-35"];
        let name = name.strip_prefix("openai/").unwrap_or(name);
        let name = name.strip_prefix("ft:").unwrap_or(name);
        let begins = |prefix: &&str| name.starts_with(prefix);
        match () {
            () if O200K.iter().any(begins) => Some(Self::O200kBase),
            () if CL100K.iter().any(begins) => Some(Self::Cl100kBase),
            () => None,
        }
    }

    /// The table, loaded on the first call.
    pub(super) fn table(self) -> &'static CoreBPE {
        match self {
            Self::O200kBase => o200k_base_singleton(),
            Self::Cl100kBase => cl100k_base_singleton(),
        }
    }
}

/// The tokens of a text. Special tokens count as plain text.
pub(super) fn count(table: &CoreBPE, text: &str) -> u64 {
    let tokens: usize = slices(text).map(|slice| table.count_ordinary(slice)).sum();
    u64::try_from(tokens).unwrap_or(u64::MAX)
}

/// The text in slices of at most [`SLICE`] bytes, cut before a blank between two words where there is one, as every
/// encoding cuts there too; else between characters.
fn slices(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (slice, after) = rest.split_at(cut(rest));
        rest = after;
        Some(slice).filter(|slice| !slice.is_empty())
    })
}

fn cut(text: &str) -> usize {
    if text.len() <= SLICE {
        return text.len();
    }
    let bytes = text.as_bytes();
    let is_between_words = |at: usize| {
        let letter = |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80);
        bytes.get(at) == Some(&b' ') && letter(at - 1) && letter(at + 1)
    };
    let blank = (SLICE / 2..=SLICE).rev().find(|at| is_between_words(*at));
    // A character has four bytes at most.
    blank.or_else(|| (SLICE - 3..=SLICE).rev().find(|at| text.is_char_boundary(*at))).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::O200kBase, Encoding::Cl100kBase];

    #[test]
    fn models_are_known_by_their_names() {
        let known = |names: &[&str], encoding| {
            for name in names {
                assert_eq!(Encoding::of_model(name), encoding, "{name}");
            }
        };
        known(
            &[
                "gpt-4o",
                "gpt-4o-mini-2024-07-18",
                "gpt-4.1",
                "gpt-4.5-preview",
                "gpt-5",
                "gpt-5.2-chat",
                "o1",
                "o3-mini",
                "o4-mini",
                "chatgpt-4o-latest",
                "gpt-oss:20b",
                "openai/gpt-oss-120b",
                "ft:gpt-4o-mini:me::1",
            ],
            Some(Encoding::O200kBase),
        );
        known(&["gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "gpt-35-turbo", "openai/gpt-4"], Some(Encoding::Cl100kBase));
        known(&["", "llama3.1:8b", "my-gpt-4o", "mistral", "opus", "gpt-2"], None);
    }

    #[test]
    fn known_texts_have_the_counts_of_the_official_tokenizer() {
        for (text, o200k, cl100k) in [
            ("", 0, 0),
            ("hello world", 2, 2),
            ("tiktoken is great!", 6, 6),
            ("<|endoftext|>", 7, 7),
            ("antidisestablishmentarianism", 6, 6),
            ("お誕生日おめでとう", 8, 9),
        ] {
            let counts = BOTH.map(|encoding| count(encoding.table(), text));
            assert_eq!(counts, [o200k, cl100k], "{text}");
        }
    }

    #[test]
    fn ordinary_texts_are_cut_only_where_the_model_cuts() {
        let text =
            "The quick brown fox jumps over the lazy dog, doesn't it? Größe 12345 und\nmehr.\n\n日本語 のテキスト "
                .repeat(200);
        for encoding in BOTH {
            let table = encoding.table();
            assert_eq!(count(table, &text), u64::try_from(table.count_ordinary(&text)).unwrap(), "{encoding:?}");
        }
    }

    /// The processor time of this thread. It does not grow while other programs use the processor.
    fn processor_time() -> Timespec {
        clock_gettime(ClockId::ThreadCPUTime)
    }

    /// Counts texts that are hard for the regular expressions and for the merging. Each must take less than 10 s of
    /// processor time, which is generous even for a debug build.
    fn assert_is_never_slow(encoding: Encoding) {
        const ALONE: &str = "aA \n\r\t0!/'\0é日😀\u{301}\u{200d}\u{a0}ﷺ";
        const MIXED: [&str; 8] = ["a ", "aA", "a\u{301}", " \n", "'s", "日a", "  x", "👩\u{200d}💻"];
        let alone = ALONE.chars().map(|c| c.to_string().repeat(32_000));
        let mixed = MIXED.map(|part| part.repeat(8_000));
        let large = ["a", " "].map(|part| part.repeat(1 << 20));
        let table = encoding.table();
        for text in alone.chain(mixed).chain(large) {
            let begin = processor_time();
            let tokens = count(table, &text);
            let (took, start) = (processor_time() - begin, text.chars().take(8).collect::<String>());
            assert!(took.tv_sec < 10, "{start:?} … of {} bytes: {took:?}", text.len());
            assert!(tokens > 0 && tokens <= u64::try_from(text.len()).unwrap(), "{start:?}: {tokens}");
        }
    }

    #[test]
    fn no_text_is_slow_or_too_much_for_o200k() {
        assert_is_never_slow(Encoding::O200kBase);
    }

    #[test]
    fn no_text_is_slow_or_too_much_for_cl100k() {
        assert_is_never_slow(Encoding::Cl100kBase);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn slices_are_short_and_make_up_the_text(text in "([a-z ]{0,40}|\\PC{0,9}| {0,9}|日{0,9}){0,300}") {
            prop_assert_eq!(slices(&text).collect::<String>(), text.as_str());
            prop_assert!(slices(&text).all(|slice| slice.len() <= SLICE));
        }

        #[test]
        fn counts_of_parts_add_up_to_that_of_the_whole(
            a in "([a-zA-Z',.]{1,12} |\\PC{0,3}|\\s{0,9}|[0-9]{0,9}){0,400}", b in "([a-zA-Z',.]{1,12} |\\PC{0,3}|\\s{0,9}){0,400}",
        ) {
            for encoding in BOTH {
                let count = |text: &str| count(encoding.table(), text);
                let (parts, whole) = (count(&a) + count(&b), count(&format!("{a}{b}")));
                // A joint changes what stands around it, as may each cut between slices.
                let joints = 4 * (2 + u64::try_from((a.len() + b.len()) / (SLICE / 2)).unwrap());
                prop_assert!(whole.abs_diff(parts) <= joints, "{} and {}", whole, parts);
                prop_assert!(whole + joints >= count(&a).max(count(&b)), "more text, fewer tokens");
            }
        }
    }
}

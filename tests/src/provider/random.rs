//! Random scripts, for soaks. A script depends on a seed and a number alone, so that a run can be repeated.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

use super::fault::{Fault, Retry};
use super::format::{LineEnd, Space, SseFormat, Tail};
use super::script::Script;
use super::step::{Finish, Step, Usage};

/// Kinds of text that have caused errors in clients.
const WORDS: [&str; 20] = [
    "and ",
    "the ",
    "Grüße ",
    "naïve ",
    "Ωμέγα ",
    "日本語",
    "中文，",
    "한국어 ",
    "שלום ",
    "مرحبا ",
    "😀",
    "👩‍👩‍👧‍👦",
    "🇪🇺 ",
    "e\u{301}",
    "\u{2028}",
    "\n",
    "\r\n",
    "\"quoted\" ",
    "back\\slash ",
    "data: [DONE] ",
];

/// Weights of the behaviours, and a few limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// Well-formed answers.
    pub answer: u32,
    /// 429 that asks to try again within 50 ms, in some form.
    pub rate_limited: u32,
    /// 500, 503, 529.
    pub server_error: u32,
    /// Refusals for good: 400, 401, no money left.
    pub refused: u32,
    /// The connection is reset before the head.
    pub reset: u32,
    /// The connection breaks before any text.
    pub cut_early: u32,
    /// The connection breaks after some text, perhaps within an event.
    pub cut_mid: u32,
    /// The body ends cleanly after some text, without a terminator.
    pub clean_eof: u32,
    /// A fault in the stream before any text.
    pub fault_early: u32,
    /// A fault in the stream after some text.
    pub fault_mid: u32,
    /// Silence, before the head or after some text.
    pub stall: u32,
    /// A page of HTML with status 200.
    pub wrong_type: u32,
    /// The most pieces of text in one answer.
    pub max_pieces: u32,
    /// The longest pace, between two pieces.
    pub max_pace_ms: u64,
    /// How long a stall lasts before the connection breaks; `None` is until the client leaves.
    pub stall_ms: Option<u64>,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            answer: 70,
            rate_limited: 5,
            server_error: 5,
            refused: 2,
            reset: 3,
            cut_early: 2,
            cut_mid: 3,
            clean_eof: 3,
            fault_early: 2,
            fault_mid: 3,
            stall: 1,
            wrong_type: 1,
            max_pieces: 40,
            max_pace_ms: 5,
            stall_ms: None,
        }
    }
}

impl Mix {
    /// Only well-formed answers, in every format.
    pub fn answers() -> Self {
        Self {
            rate_limited: 0,
            server_error: 0,
            refused: 0,
            reset: 0,
            cut_early: 0,
            cut_mid: 0,
            clean_eof: 0,
            fault_early: 0,
            fault_mid: 0,
            stall: 0,
            wrong_type: 0,
            ..Self::default()
        }
    }

    fn weights(&self) -> [(&'static str, u32); 12] {
        [
            ("answer", self.answer),
            ("rate_limited", self.rate_limited),
            ("server_error", self.server_error),
            ("refused", self.refused),
            ("reset", self.reset),
            ("cut_early", self.cut_early),
            ("cut_mid", self.cut_mid),
            ("clean_eof", self.clean_eof),
            ("fault_early", self.fault_early),
            ("fault_mid", self.fault_mid),
            ("stall", self.stall),
            ("wrong_type", self.wrong_type),
        ]
    }

    /// Checks that a script can be chosen.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            _ if self.weights().iter().all(|(_, weight)| *weight == 0) => Err("all weights are 0".to_owned()),
            Self { max_pieces: 0 | 10_001.., .. } => Err("max_pieces: 1 to 10000".to_owned()),
            Self { max_pace_ms: 10_001.., .. } => Err("max_pace_ms: at most 10000".to_owned()),
            Self { stall_ms: Some(86_400_001..), .. } => Err("stall_ms: at most a day".to_owned()),
            _ => Ok(()),
        }
    }

    /// The script with this number under this seed. It is named `random/` and the weight it was chosen by.
    pub fn pick(&self, seed: u64, number: u64) -> Script {
        // Spreads neighbouring numbers and seeds.
        let mut rng = StdRng::seed_from_u64(seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = self.kind(&mut rng);
        self.script(kind, &mut rng).named(format!("random/{kind}"))
    }

    fn kind(&self, rng: &mut StdRng) -> &'static str {
        let weights = self.weights();
        let all: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = rng.random_range(0..all.max(1));
        for (kind, weight) in weights {
            match at.checked_sub(u64::from(weight)) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        "answer"
    }

    fn script(&self, kind: &str, rng: &mut StdRng) -> Script {
        match kind {
            "rate_limited" => Script::refuse(Fault::status(429)).retry(retry(rng)),
            "server_error" => Script::refuse(Fault::status(*choice(rng, &[500, 503, 529]))),
            "refused" => Script::refuse(match rng.random_range(0..3) {
                0 => Fault::status(400),
                1 => Fault::status(401),
                _ => Fault { quota: true, ..Fault::status(429) },
            }),
            "reset" => Script::reset(),
            "wrong_type" => Script::body(200, "text/html", "<html><body>Please log in</body></html>"),
            "stall" if rng.random_bool(0.5) => match self.stall_ms {
                Some(time) => Script::no_reply().head_after(Duration::from_millis(time)),
                None => Script::silent(),
            },
            _ => self.stream(kind, rng),
        }
    }

    fn stream(&self, kind: &str, rng: &mut StdRng) -> Script {
        let mut steps = vec![Step::Begin];
        let pieces =
            if matches!(kind, "cut_early" | "fault_early") { 0 } else { rng.random_range(1..=self.max_pieces) };
        let pace = Duration::from_millis(rng.random_range(0..=self.max_pace_ms));
        for _ in 0..pieces {
            steps.push(Step::Delta(text(rng)));
            if rng.random_bool(0.1) {
                steps.push(Step::KeepAlive);
            }
            if !pace.is_zero() {
                steps.push(Step::Wait(pace));
            }
        }
        steps.extend(match kind {
            "answer" => vec![finish(rng, u64::from(pieces))],
            "cut_early" | "cut_mid" => broken(rng),
            "fault_early" | "fault_mid" => vec![Step::Fault(Fault::default())],
            "stall" => match self.stall_ms {
                Some(time) => vec![Step::Wait(Duration::from_millis(time)), Step::Cut],
                None => vec![Step::Stall],
            },
            // The clean end without a terminator.
            _ => Vec::new(),
        });
        let script = Script::steps(steps).format(format(rng));
        if rng.random_bool(0.5) { script.split_every(rng.random_range(1..=40)) } else { script }
    }
}

fn choice<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

fn text(rng: &mut StdRng) -> String {
    (0..rng.random_range(1..=6)).map(|_| *choice(rng, &WORDS)).collect()
}

fn finish(rng: &mut StdRng, output: u64) -> Step {
    let input = rng.random_range(1..=2000);
    let cached = if rng.random_bool(0.3) { rng.random_range(0..=input) } else { 0 };
    let usage = Usage { input, cached, cache_written: 0, output };
    Step::FinishWith(Finish { usage: Some(usage), ..Finish::default() })
}

/// A break between two events, or within one.
fn broken(rng: &mut StdRng) -> Vec<Step> {
    let part = rng.random_bool(0.5).then(|| Step::Bytes("data: {\"lost".into()));
    let end = choice(rng, &[Step::Cut, Step::Reset]).clone();
    part.into_iter().chain([end]).collect()
}

/// All of them ask for 50 ms at most.
fn retry(rng: &mut StdRng) -> Retry {
    match rng.random_range(0..8) {
        0 => Retry::default(),
        1 => Retry::after("0"),
        2 => Retry::after("0.05"),
        3 => Retry::after_ms("50"),
        4 => Retry { after_ms: Some("12.5".to_owned()), ..Retry::after("0.02") },
        5 => Retry::date_in(-60),
        6 => Retry::after("soon"),
        _ => Retry::should(true),
    }
}

fn format(rng: &mut StdRng) -> SseFormat {
    if rng.random_bool(0.3) {
        return SseFormat::default();
    }
    SseFormat {
        line_end: *choice(rng, &[LineEnd::Lf, LineEnd::CrLf, LineEnd::Cr]),
        bom: rng.random_bool(0.2),
        comments: if rng.random_bool(0.3) { vec!["OPENROUTER PROCESSING".to_owned()] } else { Vec::new() },
        unknown_events: rng.random_bool(0.2),
        multi_line: rng.random_bool(0.2),
        space: *choice(rng, &[Space::One, Space::None, Space::Two]),
        escaped: rng.random_bool(0.2),
        tail: *choice(rng, &[Tail::Whole, Tail::Whole, Tail::NoBlankLine, Tail::NoLineEnd]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_seed_and_number_give_the_same_script() {
        let mix = Mix::default();
        let all = |seed| (0..200).map(|number| format!("{:?}", mix.pick(seed, number))).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
    }

    #[test]
    fn the_weights_are_kept() {
        let mut counts = BTreeMap::new();
        for number in 0..5000 {
            *counts.entry(Mix::default().pick(1, number).name).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 12, "{counts:?}");
        assert!((3200..3800).contains(&counts["random/answer"]), "{counts:?}");
        assert!((0..500).all(|number| Mix::answers().pick(2, number).name == "random/answer"));
    }

    #[test]
    fn a_mix_of_nothing_is_refused() {
        assert!(Mix { answer: 0, ..Mix::answers() }.check().is_err());
        assert!(Mix { max_pieces: 0, ..Mix::default() }.check().is_err());
        Mix::default().check().unwrap();
    }
}

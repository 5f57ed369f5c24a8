//! A client's copy of a session's log, by the one rule of docs/protocol.md: keep entries by `seq`, replace an entry on a
//! higher `rev`, append a delta that continues the text, ignore an older delta, and open the session again where something is
//! missing.

use std::collections::BTreeMap;

use crate::frame::{Delta, Entry, EntryState};

/// A client's copy of one session's log.
#[derive(Debug, Default)]
pub struct Log {
    epoch: Option<String>,
    /// The server did not send the entries up to this number.
    start: u64,
    entries: BTreeMap<u64, Entry>,
}

/// The effect of a frame on the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// No change: the copy already has it.
    Nothing,
    /// A new entry.
    Added,
    /// An entry was replaced.
    Replaced,
    /// Text was appended to a streaming entry.
    Grew,
    /// A part is missing: the session must be opened again.
    Gap,
}

impl Log {
    /// The `after_seq` of a resuming client: the highest number up to which all entries are known and final.
    pub fn after_seq(&self) -> u64 {
        let settled = self.entries.iter().take_while(|(_, entry)| entry.state != EntryState::Streaming);
        settled.last().map_or(self.start, |(seq, _)| *seq)
    }

    /// The epoch of the log, once the server has sent it.
    pub fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    /// The entry with this number.
    pub fn get(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(&seq)
    }

    /// The lowest known number.
    pub fn first(&self) -> Option<u64> {
        self.entries.keys().next().copied()
    }

    /// The finished answer to the message with this number.
    pub fn answer_to(&self, seq: u64) -> Option<&Entry> {
        self.entries
            .range(seq..)
            .map(|(_, entry)| entry)
            .find(|entry| entry.reply_to_seq == Some(seq) && entry.state != EntryState::Streaming)
    }

    /// True while an answer is generated.
    pub fn streaming(&self) -> bool {
        self.entries.values().any(|entry| entry.state == EntryState::Streaming)
    }

    fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(self.start)
    }

    /// The server has opened the session; a replay follows. True if the entries of this copy were void and are removed.
    pub fn opened(&mut self, epoch: Option<&str>, reset: bool, truncated_before: Option<u64>) -> bool {
        let other_log = epoch.zip(self.epoch.as_deref()).is_some_and(|(new, old)| new != old);
        let void = (reset || other_log) && !self.entries.is_empty();
        if reset || other_log {
            self.entries.clear();
            self.start = 0;
        }
        if let Some(epoch) = epoch {
            self.epoch = Some(epoch.to_owned());
        }
        // The replay begins with this number. If entries between the copy and the replay are missing, the copy is dropped.
        if let Some(first) = truncated_before.filter(|first| *first > self.last() + 1) {
            self.entries.clear();
            self.start = first - 1;
        }
        void
    }

    /// Applies an entry.
    pub fn entry(&mut self, entry: Entry) -> Change {
        if entry.seq <= self.start {
            return Change::Nothing;
        }
        let next = self.last() + 1;
        match self.entries.get_mut(&entry.seq) {
            None if entry.seq > next => Change::Gap,
            None => {
                self.entries.insert(entry.seq, entry);
                Change::Added
            }
            // A replay sends a streaming entry with its current text: the same rev, and more text.
            Some(old) if (entry.rev, entry.attempt, entry.next_index) > (old.rev, old.attempt, old.next_index) => {
                *old = entry;
                Change::Replaced
            }
            Some(_) => Change::Nothing,
        }
    }

    /// Applies a delta.
    pub fn delta(&mut self, delta: &Delta) -> Change {
        if delta.seq <= self.start {
            return Change::Nothing;
        }
        let Some(entry) = self.entries.get_mut(&delta.seq) else { return Change::Gap };
        let end = delta.index.saturating_add(delta.count);
        if entry.state != EntryState::Streaming || delta.attempt < entry.attempt {
            return Change::Nothing;
        }
        if delta.attempt == entry.attempt && delta.index == entry.next_index {
            entry.content.push_str(&delta.delta);
            entry.next_index = end;
            return Change::Grew;
        }
        if delta.attempt == entry.attempt && end <= entry.next_index { Change::Nothing } else { Change::Gap }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entry(seq: u64, rev: u64, state: &str, attempt: u64, next_index: u64, content: &str) -> Entry {
        serde_json::from_value(json!({
            "seq": seq, "rev": rev, "id": format!("m{seq}"), "state": state, "sender": { "role": "ai" },
            "content": content, "attempt": attempt, "next_index": next_index,
        }))
        .unwrap()
    }

    fn delta(seq: u64, attempt: u64, index: u64, count: u64, text: &str) -> Delta {
        Delta { seq, attempt, index, count, delta: text.to_owned() }
    }

    fn log(entries: impl IntoIterator<Item = Entry>) -> Log {
        let mut log = Log::default();
        for entry in entries {
            assert_eq!(log.entry(entry), Change::Added);
        }
        log
    }

    #[test]
    fn deltas_that_fit_are_appended_and_older_ones_ignored() {
        let mut log = log([entry(1, 1, "streaming", 1, 0, "")]);
        assert_eq!(log.delta(&delta(1, 1, 0, 1, "a")), Change::Grew);
        assert_eq!(log.delta(&delta(1, 1, 1, 3, "bcd")), Change::Grew);
        assert_eq!(log.delta(&delta(1, 1, 0, 1, "a")), Change::Nothing);
        assert_eq!(log.delta(&delta(1, 1, 1, 3, "bcd")), Change::Nothing);
        assert_eq!((log.get(1).unwrap().content.as_str(), log.get(1).unwrap().next_index), ("abcd", 4));
    }

    #[test]
    fn what_is_missing_is_a_gap() {
        let mut log = log([entry(1, 1, "streaming", 1, 0, "")]);
        assert_eq!(log.delta(&delta(1, 1, 1, 1, "b")), Change::Gap);
        assert_eq!(log.delta(&delta(1, 2, 0, 1, "b")), Change::Gap, "the entry of this attempt is missing");
        assert_eq!(log.delta(&delta(2, 1, 0, 1, "b")), Change::Gap);
        assert_eq!(log.entry(entry(3, 1, "final", 0, 0, "")), Change::Gap);
        assert_eq!(log.delta(&delta(1, 1, 0, 2, "ab")), Change::Grew);
        assert_eq!(log.delta(&delta(1, 1, 1, 2, "bc")), Change::Gap, "a part of it is known, a part is not");
    }

    #[test]
    fn a_higher_rev_replaces_and_ends_the_deltas() {
        let mut log = log([entry(1, 1, "streaming", 1, 2, "ab")]);
        assert_eq!(log.entry(entry(1, 2, "streaming", 2, 0, "")), Change::Replaced);
        assert_eq!(log.delta(&delta(1, 1, 2, 1, "late")), Change::Nothing);
        assert_eq!(log.entry(entry(1, 3, "final", 2, 0, "all")), Change::Replaced);
        assert_eq!(log.entry(entry(1, 2, "streaming", 2, 0, "")), Change::Nothing);
        assert_eq!(log.delta(&delta(1, 2, 0, 1, "x")), Change::Nothing);
        assert_eq!(log.get(1).unwrap().content, "all");
    }

    #[test]
    fn resuming_names_the_last_entry_before_one_that_still_changes() {
        let mut log =
            log([entry(1, 1, "final", 0, 0, ""), entry(2, 1, "streaming", 1, 0, ""), entry(3, 1, "final", 0, 0, "")]);
        assert_eq!(log.after_seq(), 1);
        log.entry(entry(2, 2, "failed", 1, 0, ""));
        assert_eq!(log.after_seq(), 3);
        assert_eq!(Log::default().after_seq(), 0);
    }

    #[test]
    fn a_truncated_replay_begins_with_the_entry_that_the_server_names() {
        let mut log = log([entry(1, 1, "final", 0, 0, "")]);
        assert!(!log.opened(Some("e"), false, Some(100)));
        assert_eq!((log.after_seq(), log.first()), (99, None));
        assert_eq!(log.entry(entry(50, 1, "final", 0, 0, "")), Change::Nothing, "it was left out");
        assert_eq!(log.entry(entry(100, 1, "final", 0, 0, "")), Change::Added);
        assert_eq!((log.after_seq(), log.first()), (100, Some(100)));
    }

    #[test]
    fn a_truncated_replay_that_continues_the_copy_keeps_it() {
        let mut log = log([entry(1, 1, "final", 0, 0, ""), entry(2, 1, "final", 0, 0, "")]);
        for first in [2, 3] {
            assert!(!log.opened(Some("e"), false, Some(first)));
            assert_eq!((log.after_seq(), log.first()), (2, Some(1)), "nothing is missing before {first}");
        }
        assert_eq!(log.entry(entry(3, 1, "final", 0, 0, "")), Change::Added);
    }

    #[test]
    fn another_log_makes_this_one_void() {
        let mut log = log([entry(1, 1, "final", 0, 0, "")]);
        assert!(!log.opened(Some("e"), false, None));
        assert!(log.opened(Some("f"), false, None));
        assert_eq!((log.after_seq(), log.epoch()), (0, Some("f")));
        log.entry(entry(1, 1, "final", 0, 0, ""));
        assert!(log.opened(Some("f"), true, None));
    }

    /// Everything a server says about one answer, in order: its entries and deltas over several attempts.
    fn story(attempts: &[Vec<String>]) -> Vec<Result<Entry, Delta>> {
        let mut story = Vec::new();
        for (number, texts) in attempts.iter().enumerate() {
            let (attempt, rev) = (number as u64 + 1, number as u64 + 1);
            story.push(Ok(entry(1, rev, "streaming", attempt, 0, "")));
            story.extend(texts.iter().enumerate().map(|(index, text)| Err(delta(1, attempt, index as u64, 1, text))));
        }
        let whole = attempts.last().unwrap().concat();
        story.push(Ok(entry(1, attempts.len() as u64 + 1, "final", attempts.len() as u64, 0, &whole)));
        story
    }

    proptest! {
        /// Messages may be lost, doubled and late: opening the session again at each gap, the client ends with the
        /// server's text, and its own text is at every time the beginning of some attempt.
        #[test]
        fn the_copy_never_shows_what_was_not_said_and_ends_complete(
            attempts in proptest::collection::vec(proptest::collection::vec("[a-c]{1,3}", 0..6), 1..4),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let story = story(&attempts);
            let mut log = Log::default();
            let apply = |log: &mut Log, message: &Result<Entry, Delta>| match message {
                Ok(entry) => log.entry(entry.clone()),
                Err(delta) => log.delta(delta),
            };
            for index in order {
                let at = index.index(story.len());
                if apply(&mut log, &story[at]) == Change::Gap {
                    // What a replay at this moment would show: the entry as far as it has come.
                    let mut server = Log::default();
                    for message in &story[..=at] {
                        apply(&mut server, message);
                    }
                    log.entry(server.get(1).unwrap().clone());
                }
                if let Some(entry) = log.get(1) {
                    let said = attempts[usize::try_from(entry.attempt).unwrap() - 1].concat();
                    prop_assert!(said.starts_with(&entry.content), "{:?} of {said:?}", entry.content);
                }
            }
            apply(&mut log, story.last().unwrap());
            prop_assert_eq!(&log.get(1).unwrap().content, &attempts.last().unwrap().concat());
        }
    }
}

//! A client's log of one session, kept by the rule of docs/protocol.md: entries by `seq`; a higher `rev` replaces; a delta is
//! appended when `attempt` and `index` match; an older one is ignored. A frame that the server must never send is an error, so
//! that every test checks every frame.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::frame::Frame;

/// The log of one session.
#[derive(Debug, Clone, Default)]
pub struct SessionLog {
    /// The log begins after this seq.
    after: u64,
    entries: BTreeMap<u64, Seen>,
    /// The last `session` frame.
    pub summary: Value,
    /// How often `session_ready` came.
    pub ready: u32,
    /// The last deltas of an answer may be lost with their brain. The final entry then has more text than the deltas, but
    /// never another text.
    pub may_miss_deltas: bool,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The entry as last sent.
    pub entry: Value,
    /// Its text, with the deltas since.
    pub content: String,
    /// The index the next delta must have.
    next_index: u64,
}

impl Seen {
    fn number(&self, field: &str) -> u64 {
        self.entry[field].as_u64().unwrap_or_default()
    }

    /// Whether the answer is still being generated.
    pub fn streaming(&self) -> bool {
        self.entry["state"] == "streaming"
    }
}

impl SessionLog {
    /// The client has requested everything after `after`.
    pub fn opened(&mut self, after: u64) {
        if self.entries.is_empty() {
            self.after = after;
        }
    }

    /// Takes one frame of this session.
    ///
    /// # Errors
    /// The frame breaks the protocol.
    pub fn apply(&mut self, frame: &Frame) -> Result<()> {
        match frame.kind() {
            "session" => self.apply_session(frame),
            "session_ready" => {
                self.ready += 1;
                ensure!(
                    frame.number("/seq") <= Some(self.last_seq()),
                    "session_ready names seq {}, but only {} were sent",
                    frame.at("/seq"),
                    self.last_seq()
                );
                Ok(())
            }
            "entry" => self.apply_entry(frame.at("/entry")),
            "ai_delta" => self.apply_delta(frame),
            _ => Ok(()),
        }
    }

    fn apply_session(&mut self, frame: &Frame) -> Result<()> {
        let session = frame.at("/session");
        ensure!(session.is_object(), "a session frame without session");
        if session["reset"] == true {
            self.entries.clear();
            self.after = 0;
        }
        if let Some(before) = session["truncated_before"].as_u64()
            && self.last_seq() + 1 < before
        {
            // The replay starts at `before`; earlier entries exist but are not sent.
            self.entries.clear();
            self.after = before - 1;
        }
        self.summary = session.clone();
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Value) -> Result<()> {
        let seq = entry["seq"].as_u64().context("an entry without seq")?;
        let rev = entry["rev"].as_u64().context("an entry without rev")?;
        let content = entry["content"].as_str().context("an entry without content")?.to_owned();
        let next_index = entry["next_index"].as_u64().unwrap_or_default();
        ensure!(seq > 0 && rev > 0, "an entry with seq {seq}, rev {rev}");
        let Some(known) = self.entries.get(&seq) else {
            if seq <= self.after {
                return Ok(()); // requested again, and not needed
            }
            ensure!(seq == self.last_seq() + 1, "entry {seq} came after {}: a gap", self.last_seq());
            self.entries.insert(seq, Seen { entry: entry.clone(), content, next_index });
            return Ok(());
        };
        let (known_rev, known_attempt) = (known.number("rev"), known.number("attempt"));
        if rev < known_rev {
            return Ok(());
        }
        ensure!(entry["id"] == known.entry["id"], "entry {seq} changed its id");
        if !known.streaming() {
            ensure!(rev > known_rev || *entry == known.entry, "entry {seq} rev {rev} came twice with other contents");
            return Ok(());
        }
        let attempt = entry["attempt"].as_u64().unwrap_or_default();
        ensure!(attempt >= known_attempt, "entry {seq} went back from attempt {known_attempt} to {attempt}");
        if attempt == known_attempt {
            let streaming = entry["state"] == "streaming";
            ensure!(streaming || rev > known_rev, "entry {seq} ended without a higher rev");
            if streaming {
                // Sent again after another session_open with the stored text, which may be shorter than the deltas so
                // far. The next deltas continue from it.
                ensure!(
                    known.content.starts_with(&content) || content.starts_with(&known.content),
                    "entry {seq} has two texts in one attempt: {content:?} and {:?}",
                    known.content
                );
            } else {
                // The promise is that deltas and final text are equal. Today an answer whose owners were all lost is ended
                // as `interrupted` with the text that was saved, which may be shorter than the deltas.
                let cut = entry["finish_reason"] == "interrupted" && known.content.starts_with(&content);
                let missed = self.may_miss_deltas && (content.starts_with(&known.content) || cut);
                ensure!(
                    content == known.content || missed,
                    "entry {seq} ended with a text that is not what its deltas were: {content:?}, shown {:?}",
                    known.content
                );
            }
        }
        self.entries.insert(seq, Seen { entry: entry.clone(), content, next_index });
        Ok(())
    }

    fn apply_delta(&mut self, frame: &Frame) -> Result<()> {
        let seq = frame.number("/seq").context("a delta without seq")?;
        let attempt = frame.number("/attempt").context("a delta without attempt")?;
        let index = frame.number("/index").context("a delta without index")?;
        let count = frame.number("/count").unwrap_or(1);
        let Some(known) = self.entries.get_mut(&seq) else { bail!("a delta for entry {seq}, which was never sent") };
        ensure!(count > 0, "a delta of nothing");
        let known_attempt = known.number("attempt");
        ensure!(attempt <= known_attempt, "a delta of attempt {attempt}, but entry {seq} was sent for {known_attempt}");
        if attempt < known_attempt {
            return Ok(());
        }
        ensure!(known.streaming(), "a delta for entry {seq} after its end");
        if index + count <= known.next_index {
            return Ok(());
        }
        ensure!(index == known.next_index, "entry {seq}: delta {index}+{count}, but {} is next", known.next_index);
        known.content.push_str(frame.at("/delta").as_str().context("a delta without text")?);
        known.next_index += count;
        Ok(())
    }

    /// The highest seq known.
    pub fn last_seq(&self) -> u64 {
        self.entries.last_key_value().map_or(self.after, |(seq, _)| *seq)
    }

    /// The entry at `seq`.
    pub fn entry(&self, seq: u64) -> Option<&Seen> {
        self.entries.get(&seq)
    }

    /// All entries in order.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &Seen)> {
        self.entries.iter().map(|(seq, seen)| (*seq, seen))
    }

    /// The latest answer to the message at `seq`, also while it is streaming.
    pub fn answer_to(&self, seq: u64) -> Option<(u64, &Seen)> {
        self.entries().filter(|(_, seen)| seen.entry["reply_to_seq"].as_u64() == Some(seq)).last()
    }

    /// Checks that the seqs are `after` + 1 … last without a gap, and that no answer is streaming.
    ///
    /// # Errors
    /// Names the first entry for which that is not true.
    pub fn assert_gapless(&self) -> Result<()> {
        for (expected, (seq, seen)) in (self.after + 1..).zip(self.entries()) {
            ensure!(seq == expected, "after {} comes {seq}", expected - 1);
            ensure!(!seen.streaming(), "entry {seq} is still streaming");
        }
        Ok(())
    }

    /// Checks that both logs hold the same entries with the same contents.
    ///
    /// # Errors
    /// Names the first entry that differs.
    pub fn assert_same(&self, other: &Self) -> Result<()> {
        for seq in self.after.max(other.after) + 1..=self.last_seq().max(other.last_seq()) {
            let (mine, theirs) = (self.entries.get(&seq), other.entries.get(&seq));
            let (Some(mine), Some(theirs)) = (mine, theirs) else {
                bail!("entry {seq} is missing in one log: {mine:?} / {theirs:?}");
            };
            ensure!(
                mine.entry == theirs.entry && mine.content == theirs.content,
                "entry {seq} differs:\n{}\n{}",
                mine.entry,
                theirs.entry
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(frames: &[&str]) -> Result<SessionLog> {
        let mut log = SessionLog::default();
        log.opened(0);
        for raw in frames {
            log.apply(&Frame::parse((*raw).to_owned())?)?;
        }
        Ok(log)
    }

    const USER: &str = r#"{"type":"entry","entry":{"seq":1,"rev":1,"id":"a","state":"final","content":"hi"}}"#;
    const BEGUN: &str = r#"{"type":"entry","entry":{"seq":2,"rev":1,"id":"b","state":"streaming","content":"","attempt":1,"next_index":0,"reply_to_seq":1}}"#;
    const A: &str = r#"{"type":"ai_delta","seq":2,"attempt":1,"index":0,"delta":"Hel"}"#;
    const B: &str = r#"{"type":"ai_delta","seq":2,"attempt":1,"index":1,"count":2,"delta":"lo"}"#;
    const DONE: &str = r#"{"type":"entry","entry":{"seq":2,"rev":2,"id":"b","state":"final","content":"Hello","attempt":1,"reply_to_seq":1}}"#;
    const AGAIN: &str = r#"{"type":"entry","entry":{"seq":2,"rev":2,"id":"b","state":"streaming","content":"","attempt":2,"next_index":0,"reply_to_seq":1}}"#;

    #[test]
    fn an_answer_grows_by_its_deltas_and_ends_with_their_sum() -> Result<()> {
        let log = log(&[USER, BEGUN, A, B, A, DONE, DONE])?;
        assert_eq!(log.answer_to(1).map(|(seq, seen)| (seq, seen.content.as_str())), Some((2, "Hello")));
        log.assert_gapless()
    }

    #[test]
    fn a_new_attempt_discards_what_was_shown() -> Result<()> {
        let log = log(&[USER, BEGUN, A, AGAIN, B, A])?;
        assert_eq!(log.entry(2).map(|seen| seen.content.as_str()), Some(""));
        assert!(log.assert_gapless().is_err(), "it is still streaming");
        Ok(())
    }

    #[test]
    fn what_a_server_may_never_do_is_an_error() {
        for frames in [
            &[BEGUN][..],
            &[USER, A],
            &[USER, BEGUN, B],
            &[USER, BEGUN, A, DONE],
            &[USER, BEGUN, A, B, DONE, A],
            &[USER, BEGUN, AGAIN, BEGUN, r#"{"type":"ai_delta","seq":2,"attempt":3,"index":0,"delta":"x"}"#],
            &[USER, r#"{"type":"entry","entry":{"seq":1,"rev":1,"id":"a","state":"final","content":"other"}}"#],
            &[USER, r#"{"type":"session_ready","seq":2}"#],
        ] {
            assert!(log(frames).is_err(), "{frames:?}");
        }
    }
}

//! The part of a session that changes: the fold of its log, the growing answer, and the subscribers. It is guarded by one lock
//! and publishes under it, so all subscribers see the same events in the same order. It does no I/O.

use std::sync::Arc;

use chatbox_shared::ids::{Seq, SessionId};

use super::audience::{Audience, Recipients, Subscriber};
use super::event::{AnswerDelta, Publication, SessionEvent};
use crate::ledger::UsageSum;
use crate::log::entry::{Body, Content, Entry, EntryMeta, EntryState, FinishReason};
use crate::log::state::{Responses, Summary};

/// What this brain knows of a session, and who follows it.
pub struct Live {
    id: SessionId,
    /// The fold of the log. `state.seq` is the last entry that was published.
    pub state: Summary,
    /// The name in plain text; empty without one.
    pub name: String,
    /// The seq up to which the owner has read.
    pub read_seq: Seq,
    /// The sum of the session's records in the ledger, as this brain knows it.
    pub usage: UsageSum,
    /// The number of calls in the sum that the session document has.
    pub(super) usage_saved: u64,
    /// How many answers have ended, and how long they took.
    pub responses: Responses,
    /// The growing answer as far as this brain has seen it. Boxed, because most sessions have none.
    pub streaming: Option<Box<Entry>>,
    /// Answers that must have ended on another brain, because a newer answer follows them, and whose end has not been read
    /// yet: the seq, and the revision that was published.
    pub(super) ended_unseen: Vec<(Seq, u32)>,
    audience: Audience,
    /// A save of the summary is scheduled; see [`super::summary`].
    pub(super) save_pending: bool,
    /// The read marker in the session document.
    pub(super) read_saved: Seq,
    /// The session was erased. Whoever still holds it must write nothing more.
    pub(super) erased: bool,
}

/// The result of giving an entry to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The entry is new and was published.
    Published,
    /// The entry is known already.
    Known,
    /// Entries between the last known one and this one are missing. Nothing was changed.
    Gap,
}

impl Live {
    /// A session as the store has it, without subscribers.
    pub fn new(
        id: SessionId,
        state: Summary,
        name: String,
        read_seq: Seq,
        usage: UsageSum,
        responses: Responses,
    ) -> Self {
        Self {
            id,
            state,
            name,
            read_seq,
            usage_saved: usage.calls,
            usage,
            responses,
            streaming: None,
            ended_unseen: Vec::new(),
            audience: Audience::default(),
            save_pending: false,
            read_saved: read_seq,
            erased: false,
        }
    }

    /// Takes an entry that is durable in the log. Folds it in and publishes it, if it is the next entry or a later revision of
    /// an answer that this brain has seen growing.
    pub(super) fn apply(&mut self, entry: &Entry) -> Applied {
        let meta = &entry.meta;
        if meta.seq > self.state.seq + 1 {
            return Applied::Gap;
        }
        if meta.seq == self.state.seq + 1 {
            self.state.apply(meta);
            if meta.answer().is_some() {
                // A log has one growing answer at most, so the one before has ended.
                let before = self.streaming.take();
                self.ended_unseen.extend(before.map(|before| (before.meta.seq, before.meta.rev)));
                self.set_streaming(entry);
            }
        } else if self.is_newer_revision(meta) {
            self.set_streaming(entry);
        } else if let Some(at) = self.ended_unseen.iter().position(|(seq, rev)| *seq == meta.seq && *rev < meta.rev)
            && meta.state != EntryState::Streaming
        {
            self.ended_unseen.swap_remove(at);
        } else {
            return Applied::Known;
        }
        self.publish(SessionEvent::Entry(entry), Recipients::Everyone);
        Applied::Published
    }

    fn set_streaming(&mut self, entry: &Entry) {
        self.streaming = (entry.meta.state == EntryState::Streaming).then(|| Box::new(entry.clone()));
    }

    /// Whether this is a newer revision of the growing answer.
    fn is_newer_revision(&self, meta: &EntryMeta) -> bool {
        self.streaming.as_ref().is_some_and(|known| known.meta.seq == meta.seq && known.meta.rev < meta.rev)
    }

    /// Why the log forbids the answer at `seq` to grow on: a human has joined since, or the session has ended. `None`: it may grow.
    pub(super) fn ended_by_log(&self, seq: Seq) -> Option<FinishReason> {
        if self.state.joined_seq > seq {
            return Some(FinishReason::Interrupted);
        }
        self.state.ended_at.map(|_| FinishReason::Stopped)
    }

    /// Appends text to the growing answer and publishes it. If the answer has another fence or attempt by now, or has ended, or if
    /// the log forbids it to grow on, the text is dropped. Returns whether the text was published.
    pub(super) fn delta(&mut self, seq: Seq, fence: u64, attempt: u32, text: &str) -> bool {
        if self.ended_by_log(seq).is_some() {
            return false;
        }
        let Some(entry) = self.streaming.as_mut().filter(|entry| entry.meta.seq == seq) else { return false };
        let Content::Text(content) = &mut entry.content else { return false };
        let Body::Answer(answer) = &mut entry.meta.body else { return false };
        if answer.fence != fence || answer.attempt != attempt {
            return false;
        }
        let index = answer.next_index;
        content.push_str(text);
        answer.next_index += 1;
        self.publish(SessionEvent::Delta(AnswerDelta { seq, attempt, index, count: 1, text }), Recipients::Everyone);
        true
    }

    /// Adds a subscriber that has got everything up to `state.seq`.
    pub(super) fn subscribe(&mut self, subscriber: Arc<dyn Subscriber>) {
        self.audience.remove(subscriber.as_ref());
        self.audience.add(subscriber);
    }

    /// Removes a subscriber.
    pub(super) fn unsubscribe(&mut self, subscriber: &dyn Subscriber) {
        self.audience.remove(subscriber);
    }

    /// Removes all subscribers and returns them.
    pub(super) fn take_subscribers(&mut self) -> Vec<Arc<dyn Subscriber>> {
        self.audience.take()
    }

    /// Whether the session has subscribers.
    pub fn is_followed(&self) -> bool {
        !self.audience.is_empty()
    }

    /// Publishes an event to these subscribers.
    pub(super) fn publish(&self, event: SessionEvent<'_>, to: Recipients<'_>) {
        if self.is_followed() {
            self.audience.publish(&Publication::new(self.id, event), to);
        }
    }
}

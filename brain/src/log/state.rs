//! The pure fold of a log: the state of a session after its entries, and who may append what next. It does no I/O and reads
//! no clock, so the same entries give the same state on every brain.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{Seq, UserId};

use super::entry::{Body, EntryMeta, LogEvent, Person};

/// What a writer wants to append, and for whom.
#[derive(Debug, Clone, Copy)]
pub enum Intent<'a> {
    /// A message of the owner.
    UserMessage,
    /// A message of this human, who must be assisting.
    AdminMessage(&'a UserId),
    /// An answer of the AI to the message at this seq.
    Answer(Seq),
    /// This human takes over from the AI.
    Join(&'a UserId),
    /// This human hands back to the AI.
    Leave(&'a UserId),
    /// The owner requests a human.
    Help,
    /// This model answers from now on.
    SelectModel(&'a str),
    /// The session ends: it accepts no more messages.
    End,
}

/// What to do with an intent that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Append it.
    Append,
    /// The log already says what the intent would add: append nothing.
    NothingToDo,
}

/// What the log says up to entry `seq`. The store keeps a copy that may be older; the log repairs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The last entry folded in.
    pub seq: Seq,
    /// When that entry was appended.
    pub last_at: Timestamp,
    /// When the session ended; `None` while it accepts messages.
    pub ended_at: Option<Timestamp>,
    /// How many entries are messages or answers.
    pub message_count: u64,
    /// The model that answers.
    pub model_id: String,
    /// Whether a human has ever assisted.
    pub admin_assisted: bool,
    /// The human who assists now, if any.
    pub admin: Option<Person>,
    /// The seq of the latest `admin_joined`; 0 without one. The AI answers no message at or before it.
    pub joined_seq: Seq,
    /// When the owner requested a human; `None` once one has joined.
    pub help_requested_at: Option<Timestamp>,
}

/// How many answers of a session have ended, and how long they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Responses {
    /// How many ended.
    pub count: u64,
    /// Sum of their total times, in milliseconds.
    pub ms_sum: u64,
    /// The longest of them, in milliseconds.
    pub ms_max: u64,
}

impl Responses {
    /// Counts one ended answer.
    pub fn add(&mut self, took_ms: u64) {
        self.count += 1;
        self.ms_sum += took_ms;
        self.ms_max = self.ms_max.max(took_ms);
    }
}

impl Summary {
    /// The state before the first entry.
    pub fn start(model_id: String, created_at: Timestamp) -> Self {
        Self {
            seq: 0,
            last_at: created_at,
            ended_at: None,
            message_count: 0,
            model_id,
            admin_assisted: false,
            admin: None,
            joined_seq: 0,
            help_requested_at: None,
        }
    }

    /// Folds in the next entry. Later revisions of an entry do not change the state.
    pub fn apply(&mut self, entry: &EntryMeta) {
        debug_assert_eq!(entry.seq, self.seq + 1, "the log is folded in order");
        self.seq = entry.seq;
        self.last_at = self.last_at.max(entry.created_at);
        match &entry.body {
            Body::Message { .. } | Body::Answer(_) => self.message_count += 1,
            Body::Event(event) => self.apply_event(entry, event),
        }
    }

    fn apply_event(&mut self, entry: &EntryMeta, event: &LogEvent) {
        match event {
            LogEvent::AdminJoined(admin) => {
                self.admin = Some(admin.clone());
                self.admin_assisted = true;
                self.joined_seq = entry.seq;
                self.help_requested_at = None;
            }
            LogEvent::AdminLeft(_) => self.admin = None,
            LogEvent::HelpRequested { .. } => self.help_requested_at = Some(entry.created_at),
            LogEvent::ModelChanged(model_id) => self.model_id.clone_from(model_id),
            LogEvent::SessionEnded => {
                self.ended_at = Some(entry.created_at);
                self.admin = None;
                self.help_requested_at = None;
            }
            LogEvent::Unknown => {}
        }
    }

    /// Whether a message appended now is answered by the AI.
    pub fn ai_answers(&self) -> bool {
        self.admin.is_none() && self.ended_at.is_none()
    }

    /// Whether this intent is allowed after the entries folded in so far.
    ///
    /// # Errors
    /// Why it is refused, in words the client may see.
    pub fn allows(&self, intent: Intent<'_>) -> Result<Allowed, Failure> {
        if self.ended_at.is_some() {
            return match intent {
                Intent::End => Ok(Allowed::NothingToDo),
                _ => Err(ErrorCode::SessionEnded.into()),
            };
        }
        match intent {
            Intent::UserMessage | Intent::End => Ok(Allowed::Append),
            Intent::AdminMessage(who) => self.must_assist(who).map(|()| Allowed::Append),
            // A repeated request: the human has already left.
            Intent::Leave(_) if self.admin.is_none() => Ok(Allowed::NothingToDo),
            Intent::Leave(who) => self.must_assist(who).map(|()| Allowed::Append),
            Intent::Answer(reply_to) if self.admin.is_none() && reply_to > self.joined_seq => Ok(Allowed::Append),
            Intent::Answer(_) => Err(Failure::with_message(ErrorCode::Conflict, "A human has taken over.")),
            Intent::Join(who) => match &self.admin {
                None => Ok(Allowed::Append),
                Some(admin) if admin.id == *who => Ok(Allowed::NothingToDo),
                Some(admin) => Err(already_assisted(admin)),
            },
            Intent::Help if self.help_requested_at.is_some() || self.admin.is_some() => Ok(Allowed::NothingToDo),
            Intent::Help => Ok(Allowed::Append),
            Intent::SelectModel(model_id) if self.model_id == model_id => Ok(Allowed::NothingToDo),
            Intent::SelectModel(_) => Ok(Allowed::Append),
        }
    }

    fn must_assist(&self, who: &UserId) -> Result<(), Failure> {
        match &self.admin {
            Some(admin) if admin.id == *who => Ok(()),
            _ => Err(ErrorCode::NotAssisting.into()),
        }
    }
}

fn already_assisted(admin: &Person) -> Failure {
    let name = admin.name.as_deref().unwrap_or("Somebody else");
    Failure::with_message(ErrorCode::AlreadyAssisted, format!("{name} is already assisting."))
}

#[cfg(test)]
mod tests {
    use chatbox_shared::ids::{ClientMessageId, MessageId, SessionId};
    use proptest::prelude::*;

    use super::*;
    use crate::log::entry::{EntryState, Sender};

    fn person(id: &str) -> Person {
        Person { id: UserId::new(id), name: Some(id.to_uppercase()) }
    }

    fn entry(seq: Seq, body: Body) -> EntryMeta {
        EntryMeta {
            id: MessageId::generate(),
            session: SessionId::generate(),
            seq,
            rev: 1,
            created_at: Timestamp(i64::try_from(seq).unwrap() * 1000),
            state: EntryState::Final,
            sender: Sender::System,
            body,
        }
    }

    fn message(seq: Seq) -> EntryMeta {
        entry(seq, Body::Message { client_msg_id: ClientMessageId::generate(), needs_answer: true })
    }

    fn fold(bodies: impl IntoIterator<Item = Body>) -> Summary {
        let mut state = Summary::start("m".into(), Timestamp(0));
        for (index, body) in bodies.into_iter().enumerate() {
            state.apply(&entry(index as Seq + 1, body));
        }
        state
    }

    fn refused(state: &Summary, intent: Intent<'_>) -> ErrorCode {
        state.allows(intent).unwrap_err().code
    }

    #[test]
    fn messages_before_a_takeover_get_no_ai_answer_even_after_the_human_left() {
        let mut state = Summary::start("m".into(), Timestamp(0));
        state.apply(&message(1));
        assert!(state.allows(Intent::Answer(1)).is_ok());
        state.apply(&entry(2, Body::Event(LogEvent::AdminJoined(person("ann")))));
        assert!(!state.ai_answers());
        assert_eq!(refused(&state, Intent::Answer(1)), ErrorCode::Conflict);
        state.apply(&entry(3, Body::Event(LogEvent::AdminLeft(person("ann")))));
        assert_eq!(refused(&state, Intent::Answer(1)), ErrorCode::Conflict);
        state.apply(&message(4));
        assert!(state.ai_answers());
        assert!(state.allows(Intent::Answer(4)).is_ok());
    }

    #[test]
    fn exactly_one_human_assists_and_the_loser_learns_the_name() {
        let state = fold([Body::Event(LogEvent::AdminJoined(person("ann")))]);
        assert_eq!(state.allows(Intent::Join(&UserId::new("ann"))), Ok(Allowed::NothingToDo));
        let failure = state.allows(Intent::Join(&UserId::new("bob"))).unwrap_err();
        assert_eq!(failure.code, ErrorCode::AlreadyAssisted);
        assert!(failure.message.contains("ANN"));
        assert_eq!(refused(&state, Intent::AdminMessage(&UserId::new("bob"))), ErrorCode::NotAssisting);
        assert_eq!(refused(&state, Intent::Leave(&UserId::new("bob"))), ErrorCode::NotAssisting);
    }

    #[test]
    fn an_ended_session_takes_nothing_more() {
        let state = fold([Body::Event(LogEvent::SessionEnded)]);
        assert_eq!(state.allows(Intent::End), Ok(Allowed::NothingToDo));
        let who = UserId::new("ann");
        for intent in
            [Intent::UserMessage, Intent::Answer(1), Intent::Join(&who), Intent::Help, Intent::SelectModel("x")]
        {
            assert_eq!(refused(&state, intent), ErrorCode::SessionEnded);
        }
    }

    #[test]
    fn a_help_request_is_pending_until_somebody_comes() {
        let help = || Body::Event(LogEvent::HelpRequested { has_reason: false });
        let state = fold([help()]);
        assert_eq!(state.allows(Intent::Help), Ok(Allowed::NothingToDo));
        let state = fold([help(), Body::Event(LogEvent::AdminJoined(person("ann")))]);
        assert_eq!(state.help_requested_at, None);
    }

    fn any_body() -> impl Strategy<Value = Body> {
        let who = prop_oneof![Just("ann"), Just("bob")];
        prop_oneof![
            3 => Just(()).prop_map(|()| Body::Message { client_msg_id: ClientMessageId::generate(), needs_answer: true }),
            1 => who.clone().prop_map(|id| Body::Event(LogEvent::AdminJoined(person(id)))),
            1 => who.prop_map(|id| Body::Event(LogEvent::AdminLeft(person(id)))),
            1 => any::<bool>().prop_map(|has_reason| Body::Event(LogEvent::HelpRequested { has_reason })),
            1 => "[a-c]".prop_map(|model| Body::Event(LogEvent::ModelChanged(model))),
        ]
    }

    proptest! {
        /// A state saved in the middle and folded on says the same as folding everything: the summary is a valid start.
        #[test]
        fn folding_may_start_from_any_saved_summary(bodies in prop::collection::vec(any_body(), 0..40), cut in 0usize..40) {
            let entries: Vec<_> = bodies.into_iter().enumerate().map(|(i, body)| entry(i as Seq + 1, body)).collect();
            let mut whole = Summary::start("m".into(), Timestamp(0));
            let mut saved = whole.clone();
            for (index, entry) in entries.iter().enumerate() {
                if index == cut.min(entries.len()) {
                    saved = whole.clone();
                }
                whole.apply(entry);
            }
            for entry in entries.iter().skip(usize::try_from(saved.seq).unwrap()) {
                saved.apply(entry);
            }
            prop_assert_eq!(whole, saved);
        }

        /// While a human assists, no AI answer is allowed, whatever happened before.
        #[test]
        fn no_ai_answer_while_a_human_assists(bodies in prop::collection::vec(any_body(), 0..40), reply_to in 1u64..60) {
            let state = fold(bodies);
            if state.admin.is_some() {
                prop_assert!(state.allows(Intent::Answer(reply_to)).is_err());
            }
        }
    }
}

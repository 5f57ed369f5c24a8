//! The fields of an entry in the collection `messages`. docs/indexes.md describes them.

use chatbox_shared::clock::Timestamp;
use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId};
use uuid::Uuid;

use super::{Field, Source, Value, person, required, small, timestamp, unsigned};
use crate::log::entry::{Answer, Body, EntryMeta, EntryState, FinishReason, LogEvent, Person, Sender, TokenUsage};
use crate::store::unreadable::UnreadableRows;
use crate::store::{Appended, EntryRow, LeaseCursor, StoreError, StoreResult};

/// Every field an entry may have.
pub(in crate::store) const FIELDS: &[&str] = &[
    "_id", "sid", "seq", "rev", "ts", "kind", "st", "snd", "uid", "sndNm", "ct", "cmid", "need", "re", "gen", "rgn",
    "modelId", "askId", "try", "idx", "own", "fen", "exp", "fin", "err", "rty", "tokIn", "tokCch", "tokOut", "est",
    "ftMs", "ms", "conv", "ev", "evUid", "evNm", "evRsn",
];

/// The mutable fields of an answer: those that change while it grows, changes owner and ends.
pub(in crate::store) const CHANGING: &[&str] = &[
    "rev", "st", "ct", "modelId", "askId", "try", "idx", "own", "fen", "exp", "fin", "err", "rty", "tokIn", "tokCch",
    "tokOut", "est", "ftMs", "ms", "conv",
];

/// The state of an answer under generation; partial indexes name it.
pub(in crate::store) const STREAMING: &str = "streaming";

/// The fields of an entry with their values, in no particular order. Absent ones may be missing.
pub(in crate::store) fn fields(row: &EntryRow) -> StoreResult<Vec<Field<'_>>> {
    let meta = &row.meta;
    let mut fields = Vec::with_capacity(FIELDS.len());
    fields.extend([
        ("_id", Value::Id(meta.id.0)),
        ("sid", Value::Id(meta.session.0)),
        ("seq", Value::unsigned(meta.seq)?),
        ("rev", Value::Int(meta.rev.into())),
        ("ts", Value::Time(meta.created_at.0)),
        ("st", Value::Text(state_name(meta.state))),
        ("ct", Value::sealed(&row.content)),
    ]);
    let (role, sender) = match &meta.sender {
        Sender::User(person) => ("user", Some(person)),
        Sender::Ai => ("ai", None),
        Sender::Admin(person) => ("admin", Some(person)),
        Sender::System => ("system", None),
    };
    fields.push(("snd", Value::Text(role)));
    push_person(&mut fields, ["uid", "sndNm"], sender);
    match &meta.body {
        Body::Message { client_msg_id, needs_answer } => fields.extend([
            ("kind", Value::Text("message")),
            ("cmid", Value::Id(client_msg_id.0)),
            ("need", Value::flag(*needs_answer)),
        ]),
        Body::Answer(answer) => {
            fields.push(("kind", Value::Text("answer")));
            push_answer(&mut fields, answer)?;
        }
        Body::Event(event) => {
            fields.push(("kind", Value::Text("event")));
            push_event(&mut fields, event);
        }
    }
    Ok(fields)
}

/// The entry in a document. An entry that cannot be read is replaced by a failed answer, so that its log has no gap. `None`:
/// not even its place in a log can be read.
///
/// # Errors
/// If the document cannot be obtained.
pub(in crate::store) fn read_or_replace(
    source: &impl Source,
    unreadable: &UnreadableRows,
) -> StoreResult<Option<EntryRow>> {
    let row = read_or_skip(source, unreadable)?;
    Ok(row.or_else(|| placeholder(source)))
}

/// The entry in a document. `None`: it cannot be read.
///
/// # Errors
/// If the document cannot be obtained.
pub(in crate::store) fn read_or_skip(
    source: &impl Source,
    unreadable: &UnreadableRows,
) -> StoreResult<Option<EntryRow>> {
    unreadable.skip("messages", source.id("_id").ok().flatten(), read(source))
}

/// The place of a streaming answer in the order of leases. `None`: it cannot be read.
pub(in crate::store) fn read_lease(source: &impl Source) -> Option<LeaseCursor> {
    let lease_until = Timestamp(source.time("exp").ok().flatten()?);
    Some(LeaseCursor { lease_until, id: MessageId(source.id("_id").ok().flatten()?) })
}

/// What stands in a log for an entry that cannot be read.
fn placeholder(source: &impl Source) -> Option<EntryRow> {
    let (session, seq) = (source.id("sid").ok().flatten()?, read_seq(source).ok()?);
    // Without its own id the entry gets one that is the same each time it is read.
    let id = source.id("_id").ok().flatten();
    let id = id.unwrap_or_else(|| Uuid::from_u128(session.as_u128() ^ u128::from(seq)));
    let number = |name| small(source, name).ok().flatten();
    let answer = Answer {
        reply_to: unsigned(source, "re").ok().flatten().unwrap_or_default(),
        generation: number("gen").unwrap_or_default(),
        regenerates: None,
        model_id: source.text("modelId").ok().flatten().unwrap_or_default(),
        asked_model: None,
        attempt: number("try").unwrap_or(1),
        next_index: 0,
        owner: String::new(),
        fence: 0,
        lease_until: Timestamp::default(),
        finish: None,
        error: Some(ErrorCode::Internal),
        retry_at: None,
        usage: None,
        first_token_ms: None,
        total_ms: None,
        conversation: None,
    };
    let meta = EntryMeta {
        id: MessageId(id),
        session: SessionId(session),
        seq,
        rev: number("rev").unwrap_or(1),
        created_at: timestamp(source, "ts").ok().flatten().unwrap_or_default(),
        state: EntryState::Failed,
        sender: Sender::Ai,
        body: Body::Answer(Box::new(answer)),
    };
    Some(EntryRow { meta, content: source.bytes("ct").ok().flatten().unwrap_or_default() })
}

/// The entry in a document. Kinds, events, senders and codes that this version does not know are those of a newer version: the
/// entry is read as an unknown event or as a failed answer.
fn read(source: &impl Source) -> StoreResult<EntryRow> {
    let kind = required("kind", source.text("kind"))?;
    let mut body = match kind.as_str() {
        "message" => Body::Message {
            client_msg_id: ClientMessageId(required("cmid", source.id("cmid"))?),
            needs_answer: source.bool("need")?.unwrap_or(false),
        },
        "answer" => Body::Answer(Box::new(read_answer(source)?)),
        "event" => Body::Event(read_event(source)?),
        _ => Body::Event(LogEvent::Unknown),
    };
    let state = read_state(source, &mut body)?;
    let meta = EntryMeta {
        id: MessageId(required("_id", source.id("_id"))?),
        session: SessionId(required("sid", source.id("sid"))?),
        seq: read_seq(source)?,
        rev: required("rev", small(source, "rev"))?,
        created_at: required("ts", timestamp(source, "ts"))?,
        state,
        sender: read_sender(source)?,
        body,
    };
    Ok(EntryRow { meta, content: source.bytes("ct")?.unwrap_or_default() })
}

/// The seq of an entry, from a document that may have no other field.
pub(in crate::store) fn read_seq(source: &impl Source) -> StoreResult<Seq> {
    required("seq", unsigned(source, "seq"))
}

/// The state of an entry. An answer that ended in a way this version does not know has failed.
fn read_state(source: &impl Source, body: &mut Body) -> StoreResult<EntryState> {
    let state = parse_state(&required("st", source.text("st"))?);
    let finish = source.text("fin")?;
    let Body::Answer(answer) = body else { return Ok(state.unwrap_or(EntryState::Final)) };
    let known_finish = finish.is_none_or(|text| FinishReason::parse(&text).is_some());
    if let Some(state) = state.filter(|_| known_finish) {
        return Ok(state);
    }
    answer.error.get_or_insert(ErrorCode::Internal);
    Ok(EntryState::Failed)
}

fn push_person<'a>(fields: &mut Vec<Field<'a>>, [id, name]: [&'static str; 2], person: Option<&'a Person>) {
    if let Some(person) = person {
        fields.push((id, Value::Text(person.id.as_str())));
        fields.push((name, Value::text_or_absent(person.name.as_deref())));
    }
}

fn push_answer<'a>(fields: &mut Vec<Field<'a>>, answer: &'a Answer) -> StoreResult<()> {
    let usage = answer.usage.as_ref();
    fields.extend([
        ("re", Value::unsigned(answer.reply_to)?),
        ("gen", Value::Int(answer.generation.into())),
        ("rgn", Value::unsigned_or_absent(answer.regenerates)?),
        ("modelId", Value::Text(&answer.model_id)),
        ("askId", Value::text_or_absent(answer.asked_model.as_deref())),
        ("try", Value::Int(answer.attempt.into())),
        ("idx", Value::unsigned(answer.next_index)?),
        ("own", Value::Text(&answer.owner)),
        ("fen", Value::unsigned(answer.fence)?),
        ("exp", Value::Time(answer.lease_until.0)),
        ("fin", Value::text_or_absent(answer.finish.map(FinishReason::as_str))),
        ("err", Value::text_or_absent(answer.error.map(ErrorCode::as_str))),
        ("rty", Value::time_or_absent(answer.retry_at)),
        ("tokIn", Value::unsigned_or_absent(usage.map(|usage| usage.input))?),
        ("tokCch", Value::unsigned_or_absent(usage.map(|usage| usage.cached))?),
        ("tokOut", Value::unsigned_or_absent(usage.map(|usage| usage.output))?),
        ("est", usage.map_or(Value::Absent, |usage| Value::Bool(usage.estimated))),
        ("ftMs", Value::unsigned_or_absent(answer.first_token_ms)?),
        ("ms", Value::unsigned_or_absent(answer.total_ms)?),
        ("conv", Value::text_or_absent(answer.conversation.as_deref())),
    ]);
    Ok(())
}

fn push_event<'a>(fields: &mut Vec<Field<'a>>, event: &'a LogEvent) {
    let name = match event {
        LogEvent::AdminJoined(person) => {
            push_person(fields, ["evUid", "evNm"], Some(person));
            "admin_joined"
        }
        LogEvent::AdminLeft(person) => {
            push_person(fields, ["evUid", "evNm"], Some(person));
            "admin_left"
        }
        LogEvent::HelpRequested { has_reason } => {
            fields.push(("evRsn", Value::flag(*has_reason)));
            "help_requested"
        }
        LogEvent::ModelChanged(model) => {
            fields.push(("modelId", Value::Text(model)));
            "model_changed"
        }
        LogEvent::SessionEnded => "session_ended",
        LogEvent::Unknown => "unknown",
    };
    fields.push(("ev", Value::Text(name)));
}

fn read_sender(source: &impl Source) -> StoreResult<Sender> {
    let role = required("snd", source.text("snd"))?;
    let sender = || required("uid", person(source, "uid", "sndNm"));
    match role.as_str() {
        "user" => Ok(Sender::User(sender()?)),
        "ai" => Ok(Sender::Ai),
        "admin" => Ok(Sender::Admin(sender()?)),
        // A sender that this version does not know is no human and no model to it.
        _ => Ok(Sender::System),
    }
}

fn read_answer(source: &impl Source) -> StoreResult<Answer> {
    let finish = source.text("fin")?.and_then(|text| FinishReason::parse(&text));
    let error = source.text("err")?.map(|text| parse_code(&text).unwrap_or(ErrorCode::Internal));
    let usage = match (unsigned(source, "tokIn")?, unsigned(source, "tokOut")?) {
        (None, None) => None,
        (input, output) => Some(TokenUsage {
            input: input.unwrap_or(0),
            cached: unsigned(source, "tokCch")?.unwrap_or(0),
            output: output.unwrap_or(0),
            estimated: source.bool("est")?.unwrap_or(false),
        }),
    };
    Ok(Answer {
        reply_to: required("re", unsigned(source, "re"))?,
        generation: required("gen", small(source, "gen"))?,
        regenerates: unsigned(source, "rgn")?,
        model_id: required("modelId", source.text("modelId"))?,
        asked_model: source.text("askId")?,
        attempt: required("try", small(source, "try"))?,
        next_index: required("idx", unsigned(source, "idx"))?,
        owner: required("own", source.text("own"))?,
        fence: required("fen", unsigned(source, "fen"))?,
        lease_until: required("exp", source.time("exp")).map(Timestamp)?,
        finish,
        error,
        retry_at: timestamp(source, "rty")?,
        usage,
        first_token_ms: unsigned(source, "ftMs")?,
        total_ms: unsigned(source, "ms")?,
        conversation: source.text("conv")?,
    })
}

fn read_event(source: &impl Source) -> StoreResult<LogEvent> {
    let name = required("ev", source.text("ev"))?;
    let who = || required("evUid", person(source, "evUid", "evNm"));
    match name.as_str() {
        "admin_joined" => Ok(LogEvent::AdminJoined(who()?)),
        "admin_left" => Ok(LogEvent::AdminLeft(who()?)),
        "help_requested" => Ok(LogEvent::HelpRequested { has_reason: source.bool("evRsn")?.unwrap_or(false) }),
        "model_changed" => Ok(LogEvent::ModelChanged(required("modelId", source.text("modelId"))?)),
        "session_ended" => Ok(LogEvent::SessionEnded),
        _ => Ok(LogEvent::Unknown),
    }
}

fn state_name(state: EntryState) -> &'static str {
    match state {
        EntryState::Final => "final",
        EntryState::Streaming => STREAMING,
        EntryState::Failed => "failed",
    }
}

fn parse_state(text: &str) -> Option<EntryState> {
    [EntryState::Final, EntryState::Streaming, EntryState::Failed].into_iter().find(|state| state_name(*state) == text)
}

fn parse_code(text: &str) -> Option<ErrorCode> {
    ErrorCode::ALL.iter().copied().find(|code| code.as_str() == text)
}

/// The outcome of an append whose entry id exists at another seq: the entry was appended there before.
pub(in crate::store) fn id_taken(row: &EntryRow) -> StoreResult<Appended> {
    match &row.meta.body {
        Body::Message { .. } => Ok(Appended::DuplicateMessage),
        Body::Answer(_) => Ok(Appended::AnswerExists),
        Body::Event(_) => {
            Err(StoreError::Refused(format!("the event {} exists in the log at another seq", row.meta.id)))
        }
    }
}

//! Every query of the store, so that a test can ask the server for the plan of each. Updates and deletions use these
//! queries too.

use bson::{Bson, Document, doc};
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{CallId, ClientMessageId, MessageId, Seq, SessionId, UserId};

use super::documents::{bytes_to_bson, id_to_bson, time_to_bson};
use crate::ledger::{Allowance, Day, Reservation};
use crate::store::record::entry::STREAMING;
use crate::store::record::session::{ACTIVE, ENDED};
use crate::store::record::{MAX_SEQ, signed};
use crate::store::{AnswerVersion, LeaseCursor, SessionCursor, StateFilter, StoreResult};

/// The collection of sessions.
pub(super) const SESSIONS: &str = "sessions";
/// The collection of log entries.
pub(super) const MESSAGES: &str = "messages";
/// The collection of ledger records.
pub(super) const USAGE: &str = "usage";
/// The collection of accounts: one per user and day, with the open reservations.
pub(super) const ACCOUNTS: &str = "accounts";

/// All collections.
pub(super) const COLLECTIONS: [&str; 4] = [SESSIONS, MESSAGES, USAGE, ACCOUNTS];

/// A query with its parameters.
#[derive(Debug, Clone, Copy)]
pub(super) enum Query<'a> {
    /// One session.
    Session(SessionId),
    /// The session that is not erased with the lowest key id above this one.
    KeyAfter(&'a str),
    /// One session that is not erased.
    Kept(SessionId),
    /// One session that is not erased, if it has this name.
    Named(SessionId, &'a [u8]),
    /// One session that is not erased, if its summary is older than this.
    SummaryBefore(SessionId, Seq),
    /// One session, if its read marker is before this seq.
    ReadBefore(SessionId, Seq),
    /// A page of a user's sessions that are not erased.
    List(&'a UserId, StateFilter, Option<SessionCursor>),
    /// The whole log, from its beginning.
    Log(SessionId),
    /// The log up to and including this entry.
    LogUpTo(SessionId, Seq),
    /// The log after this entry.
    LogAfter(SessionId, Seq),
    /// The log before this entry, latest first.
    LogBefore(SessionId, Seq),
    /// One entry by its seq.
    Entry(SessionId, Seq),
    /// One entry by its seq, if it has this id.
    EntryWithId(SessionId, Seq, MessageId),
    /// A sender's message by the client's id.
    ByClientId(SessionId, &'a UserId, ClientMessageId),
    /// The session's streaming answer.
    Streaming(SessionId),
    /// One streaming answer, if it has this version.
    Version(SessionId, Seq, AnswerVersion),
    /// The answers to a message, latest generation first.
    AnswersTo(SessionId, Seq),
    /// The session's messages that need an answer, oldest first.
    Unanswered(SessionId),
    /// A page of streaming answers whose lease ended before this time, oldest lease first.
    Expired(Timestamp, Option<LeaseCursor>),
    /// Messages of this time range that need an answer, oldest first.
    UnansweredBetween(Timestamp, Timestamp),
    /// One session, if its saved sum has no more calls than this.
    UsageUpTo(SessionId, u64),
    /// The record of a session's call.
    Record(SessionId, CallId),
    /// The records of a session, to be summed up.
    RecordsOf(SessionId),
    /// The account of a user and day.
    Account(&'a UserId, Day),
    /// The account of a reservation's user and day, if the reservation is not open there and the allowance has room for
    /// it.
    Room(&'a Reservation, &'a Allowance),
    /// The account of a user and day, if this call's reservation is open there.
    Open(&'a UserId, Day, CallId),
    /// A user's accounts from this day on, oldest first.
    AccountsFrom(&'a UserId, Day),
    /// A user's accounts with open reservations.
    OpenOf(&'a UserId),
    /// Accounts with reservations that expired before this time, oldest expiry first.
    OpenExpired(Timestamp),
}

impl Query<'_> {
    /// The collection of the query.
    pub(super) fn collection(&self) -> &'static str {
        match self {
            Self::Session(_)
            | Self::KeyAfter(_)
            | Self::Kept(_)
            | Self::Named(..)
            | Self::SummaryBefore(..)
            | Self::ReadBefore(..)
            | Self::UsageUpTo(..)
            | Self::List(..) => SESSIONS,
            Self::Record(..) | Self::RecordsOf(_) => USAGE,
            Self::Account(..)
            | Self::Room(..)
            | Self::Open(..)
            | Self::AccountsFrom(..)
            | Self::OpenOf(_)
            | Self::OpenExpired(_) => ACCOUNTS,
            Self::Log(_)
            | Self::LogUpTo(..)
            | Self::LogAfter(..)
            | Self::LogBefore(..)
            | Self::Entry(..)
            | Self::EntryWithId(..)
            | Self::ByClientId(..)
            | Self::Streaming(_)
            | Self::Version(..)
            | Self::AnswersTo(..)
            | Self::Unanswered(_)
            | Self::Expired(..)
            | Self::UnansweredBetween(..) => MESSAGES,
        }
    }

    /// The filter of the query.
    pub(super) fn filter(&self) -> StoreResult<Document> {
        let exists = || doc! { "$exists": true };
        Ok(match *self {
            Self::Session(session) => doc! { "_id": id_to_bson(session.0) },
            Self::KeyAfter(kid) => doc! { "dk": exists(), "dk.kid": { "$gt": kid } },
            Self::Kept(session) => doc! { "_id": id_to_bson(session.0), "dk": exists() },
            Self::Named(session, name) => {
                // A session without a name lacks the field.
                let name = if name.is_empty() { Bson::Null } else { bytes_to_bson(name) };
                doc! { "_id": id_to_bson(session.0), "dk": exists(), "nm": name }
            }
            Self::SummaryBefore(session, seq) => {
                doc! { "_id": id_to_bson(session.0), "dk": exists(), "seq": { "$lt": signed(seq)? } }
            }
            Self::ReadBefore(session, seq) => doc! { "_id": id_to_bson(session.0), "readSeq": { "$lt": signed(seq)? } },
            Self::List(user, filter, after) => list(user, filter, after),
            Self::Log(session) => doc! { "sid": id_to_bson(session.0) },
            Self::LogUpTo(session, seq) => doc! { "sid": id_to_bson(session.0), "seq": { "$lte": signed(seq)? } },
            Self::LogAfter(session, seq) => doc! { "sid": id_to_bson(session.0), "seq": { "$gt": signed(seq)? } },
            Self::LogBefore(session, seq) => doc! { "sid": id_to_bson(session.0), "seq": { "$lt": signed(seq)? } },
            Self::Entry(session, seq) => doc! { "sid": id_to_bson(session.0), "seq": signed(seq)? },
            Self::EntryWithId(session, seq, id) => {
                doc! { "sid": id_to_bson(session.0), "seq": signed(seq)?, "_id": id_to_bson(id.0) }
            }
            Self::ByClientId(session, sender, id) => {
                doc! { "sid": id_to_bson(session.0), "uid": sender.as_str(), "cmid": id_to_bson(id.0) }
            }
            Self::Streaming(session) => doc! { "sid": id_to_bson(session.0), "st": STREAMING },
            Self::Version(session, seq, AnswerVersion { fence, rev, lease_until }) => doc! {
                "sid": id_to_bson(session.0),
                "seq": signed(seq)?,
                "st": STREAMING,
                "fen": signed(fence)?,
                "rev": i64::from(rev),
                "exp": time_to_bson(lease_until.0),
            },
            Self::AnswersTo(session, reply_to) => doc! { "sid": id_to_bson(session.0), "re": signed(reply_to)? },
            Self::Unanswered(session) => doc! { "sid": id_to_bson(session.0), "need": true },
            Self::Expired(before, after) => expired(before, after),
            Self::UnansweredBetween(from, before) => {
                doc! { "need": true, "ts": { "$gte": time_to_bson(from.0), "$lt": time_to_bson(before.0) } }
            }
            // Sessions of an older chatbox lack the field.
            Self::UsageUpTo(session, calls) => {
                doc! { "_id": id_to_bson(session.0), "calls": { "$not": { "$gt": signed(calls)? } } }
            }
            // `sid` routes the query to one shard.
            Self::Record(session, call) => doc! { "_id": id_to_bson(call.0), "sid": id_to_bson(session.0) },
            Self::RecordsOf(session) => doc! { "sid": id_to_bson(session.0) },
            Self::Account(user, day) => account(user, day),
            Self::Room(reservation, allowance) => room(reservation, allowance)?,
            Self::Open(user, day, call) => {
                let mut query = account(user, day);
                query.insert("open.id", id_to_bson(call.0));
                query
            }
            Self::AccountsFrom(user, day) => doc! { "uid": user.as_str(), "day": { "$gte": day.to_string() } },
            Self::OpenOf(user) => doc! { "uid": user.as_str(), "exp": exists() },
            Self::OpenExpired(now) => doc! { "exp": { "$lt": time_to_bson(now.0) } },
        })
    }

    /// The order of the documents; `None` where there is one at most.
    pub(super) fn sort(&self) -> Option<Document> {
        match self {
            Self::List(..) => Some(doc! { "lastTs": -1, "_id": -1 }),
            Self::Log(_) | Self::LogUpTo(..) | Self::LogAfter(..) | Self::Unanswered(_) => Some(doc! { "seq": 1 }),
            Self::LogBefore(..) => Some(doc! { "seq": -1 }),
            Self::KeyAfter(_) => Some(doc! { "dk.kid": 1 }),
            Self::AnswersTo(..) => Some(doc! { "gen": -1 }),
            Self::Expired(..) => Some(doc! { "exp": 1, "_id": 1 }),
            Self::OpenOf(_) | Self::OpenExpired(_) => Some(doc! { "exp": 1 }),
            Self::AccountsFrom(..) => Some(doc! { "day": 1 }),
            Self::UnansweredBetween(..) => Some(doc! { "ts": 1 }),
            Self::Session(_)
            | Self::Kept(_)
            | Self::Named(..)
            | Self::SummaryBefore(..)
            | Self::ReadBefore(..)
            | Self::UsageUpTo(..)
            | Self::Record(..)
            | Self::RecordsOf(_)
            | Self::Account(..)
            | Self::Room(..)
            | Self::Open(..)
            | Self::Entry(..)
            | Self::EntryWithId(..)
            | Self::ByClientId(..)
            | Self::Streaming(_)
            | Self::Version(..) => None,
        }
    }
}

fn account(user: &UserId, day: Day) -> Document {
    doc! { "uid": user.as_str(), "day": day.to_string() }
}

/// [`Allowance::admits`] as a filter.
fn room(reservation: &Reservation, allowance: &Allowance) -> StoreResult<Document> {
    let call = &reservation.call;
    let mut query = account(&call.user, call.day());
    query.insert("open.id", doc! { "$ne": id_to_bson(call.id.0) });
    let limits = [
        (allowance.tokens, vec!["$tokIn", "$tokOut", "$resTok"], reservation.tokens),
        (allowance.cost, vec!["$cost", "$resCost"], reservation.cost),
    ];
    let mut rules = Vec::new();
    for (limit, fields, amount) in limits {
        let Some(limit) = limit else { continue };
        let mut sum: Vec<Bson> = fields.into_iter().map(Bson::from).collect();
        sum.push(signed(amount)?.into());
        // The largest number an account can hold.
        let limit = signed(limit.min(MAX_SEQ))?;
        rules.push(doc! { "$lte": [{ "$add": sum }, limit] });
    }
    if !rules.is_empty() {
        query.insert("$expr", doc! { "$and": rules });
    }
    Ok(query)
}

/// The lower bound on `exp` is outside of the `$or`, so that the index scan begins at the cursor.
fn expired(before: Timestamp, after: Option<LeaseCursor>) -> Document {
    let mut lease = doc! { "$lt": time_to_bson(before.0) };
    let Some(after) = after else { return doc! { "st": STREAMING, "exp": lease } };
    let last = time_to_bson(after.lease_until.0);
    lease.insert("$gte", last.clone());
    let later = vec![doc! { "exp": { "$gt": last } }, doc! { "_id": { "$gt": id_to_bson(after.id.0) } }];
    doc! { "st": STREAMING, "exp": lease, "$or": later }
}

/// The bound on `lastTs` is outside of the `$or`, so that the index scan begins at the cursor.
fn list(user: &UserId, filter: StateFilter, after: Option<SessionCursor>) -> Document {
    let mut query = doc! { "uid": user.as_str(), "dk": { "$exists": true } };
    match filter {
        StateFilter::Any => {}
        StateFilter::Active => drop(query.insert("st", ACTIVE)),
        StateFilter::Ended => drop(query.insert("st", ENDED)),
    }
    if let Some(after) = after {
        let last_at = time_to_bson(after.last_at.0);
        query.insert("lastTs", doc! { "$lte": last_at.clone() });
        let earlier = doc! { "lastTs": { "$lt": last_at } };
        query.insert("$or", vec![earlier, doc! { "_id": { "$lt": id_to_bson(after.id.0) } }]);
    }
    query
}

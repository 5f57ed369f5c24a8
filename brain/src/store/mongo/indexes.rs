//! Every index of the database, each with the query it serves. No other code creates indexes.

use bson::{Document, doc};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use super::queries::{ACCOUNTS, MESSAGES, SESSIONS, USAGE};
use crate::store::record::entry::STREAMING;

/// The index that every collection has.
pub(super) const ID: &str = "_id_";
/// One entry per seq of a log.
pub(super) const SID_SEQ: &str = "sid_seq";
/// Each client message is stored once.
pub(super) const SID_UID_CMID: &str = "sid_uid_cmid";
/// One answer per message and generation.
pub(super) const SID_RE_GEN: &str = "sid_re_gen";
/// One streaming answer per session.
pub(super) const SID_STREAMING: &str = "sid_streaming";

/// One account per user and day.
pub(super) const UID_DAY: &str = "uid_day";

/// A declared index.
pub(super) struct IndexSpec {
    /// The collection it belongs to.
    pub(super) collection: &'static str,
    /// Its name, which the server returns in a conflict.
    pub(super) name: &'static str,
    keys: Document,
    unique: bool,
    /// Only documents that match this filter are indexed.
    only: Option<Document>,
}

impl IndexSpec {
    /// The driver's form.
    pub(super) fn model(&self) -> IndexModel {
        let options = IndexOptions::builder()
            .name(self.name.to_owned())
            .unique(self.unique.then_some(true))
            .partial_filter_expression(self.only.clone())
            .build();
        IndexModel::builder().keys(self.keys.clone()).options(options).build()
    }
}

/// All declared indexes. Those of `messages` and `usage` begin with `sid`, those of `accounts` with `uid`, except for
/// sweeps over all sessions or users.
pub(super) fn declared() -> Vec<IndexSpec> {
    let unique = |name, keys, only| IndexSpec { collection: MESSAGES, name, keys, unique: true, only };
    let messages = |name, keys, only| IndexSpec { collection: MESSAGES, name, keys, unique: false, only: Some(only) };
    let sessions = |name, keys| IndexSpec {
        collection: SESSIONS,
        name,
        keys,
        unique: false,
        only: Some(doc! { "dk": { "$exists": true } }),
    };
    // Only accounts with open reservations have `exp`; they are few.
    let open = |name, keys| IndexSpec {
        collection: ACCOUNTS,
        name,
        keys,
        unique: false,
        only: Some(doc! { "exp": { "$exists": true } }),
    };
    vec![
        // The log in its order: replay, history, one entry, the compare-and-set on an answer.
        unique(SID_SEQ, doc! { "sid": 1, "seq": 1 }, None),
        // A sender's message by the client's id.
        unique(SID_UID_CMID, doc! { "sid": 1, "uid": 1, "cmid": 1 }, Some(doc! { "cmid": { "$exists": true } })),
        // The latest answer to a message.
        unique(SID_RE_GEN, doc! { "sid": 1, "re": 1, "gen": 1 }, Some(doc! { "re": { "$exists": true } })),
        // A session's streaming answer.
        unique(SID_STREAMING, doc! { "sid": 1, "st": 1 }, Some(doc! { "st": STREAMING })),
        // Sweep: streaming answers whose lease has ended.
        messages("exp_id_streaming", doc! { "exp": 1, "_id": 1 }, doc! { "st": STREAMING }),
        // A session's oldest message that needs an answer.
        messages("sid_need_seq", doc! { "sid": 1, "need": 1, "seq": 1 }, doc! { "need": true }),
        // Sweep: messages that need an answer.
        messages("ts_need", doc! { "ts": 1 }, doc! { "need": true }),
        // A user's sessions, latest activity first.
        sessions("uid_lastTs", doc! { "uid": 1, "lastTs": -1, "_id": -1 }),
        // The same, active or ended ones only.
        sessions("uid_st_lastTs", doc! { "uid": 1, "st": 1, "lastTs": -1, "_id": -1 }),
        // The master keys in use, each once.
        sessions("kid", doc! { "dk.kid": 1 }),
        // The sum of a session's records.
        IndexSpec { collection: USAGE, name: "sid", keys: doc! { "sid": 1 }, unique: false, only: None },
        // The account of a user and day; a user's accounts in their order.
        IndexSpec { collection: ACCOUNTS, name: UID_DAY, keys: doc! { "uid": 1, "day": 1 }, unique: true, only: None },
        // A user's open reservations.
        open("uid_exp", doc! { "uid": 1, "exp": 1 }),
        // Sweep: reservations that have expired.
        open("exp_open", doc! { "exp": 1 }),
    ]
}

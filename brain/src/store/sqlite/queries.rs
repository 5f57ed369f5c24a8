//! Every statement the embedded store runs, in one list, so that a test can ask SQLite how it would run each of them.

/// The columns of `messages`, in the order of `record::entry::FIELDS`.
macro_rules! entry {
    () => {
        "_id, sid, seq, rev, ts, kind, st, snd, uid, sndNm, ct, cmid, need, re, gen, rgn, modelId, try, idx, own, fen, exp, \
         fin, err, tokIn, tokOut, est, ftMs, ms, conv, ev, evUid, evNm, evRsn"
    };
}

/// The columns of `sessions`, in the order of `record::session::FIELDS`.
macro_rules! session {
    () => {
        "_id, uid, ep, nm, ts, \"dk.kid\", \"dk.w\", v, st, seq, lastTs, endTs, msgCnt, modelId, adminAssisted, adminId, \
         adminNm, joinSeq, helpReq, helpTs, readSeq, tokIn, tokOut, respCnt, respSum, respMax"
    };
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: &str = $sql;)*

        /// All of them, for the test of their plans.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

statements! {
    /// A new session; changes nothing where the id is taken.
    CREATE_SESSION = concat!(
        "INSERT INTO sessions (", session!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ",
        "?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26) ON CONFLICT (_id) DO NOTHING"
    );
    /// One session.
    SESSION = concat!("SELECT ", session!(), " FROM sessions WHERE _id = ?1");
    /// A page of a user's sessions.
    LIST_ALL = concat!(
        "SELECT ", session!(), " FROM sessions WHERE uid = ?1 AND \"dk.kid\" IS NOT NULL AND (lastTs, _id) < (?2, ?3) ",
        "ORDER BY lastTs DESC, _id DESC LIMIT ?4"
    );
    /// A page of a user's sessions in one state.
    LIST_STATE = concat!(
        "SELECT ", session!(), " FROM sessions WHERE uid = ?1 AND \"dk.kid\" IS NOT NULL AND (lastTs, _id) < (?2, ?3) ",
        "AND st = ?5 ORDER BY lastTs DESC, _id DESC LIMIT ?4"
    );
    /// A newer summary, its fields in the order of `record::session::SUMMARY`.
    SAVE_SUMMARY =
        "UPDATE sessions SET st = ?2, seq = ?3, lastTs = ?4, endTs = ?5, msgCnt = ?6, modelId = ?7, adminAssisted = ?8, \
         adminId = ?9, adminNm = ?10, joinSeq = ?11, helpReq = ?12, helpTs = ?13 \
         WHERE _id = ?1 AND seq < ?3 AND \"dk.kid\" IS NOT NULL";
    /// Another name.
    RENAME = "UPDATE sessions SET nm = ?2 WHERE _id = ?1 AND \"dk.kid\" IS NOT NULL";
    /// The read marker, forward only.
    MARK_READ = "UPDATE sessions SET readSeq = ?2 WHERE _id = ?1 AND readSeq < ?2";
    /// One more finished answer.
    ADD_TOTALS =
        "UPDATE sessions SET tokIn = tokIn + ?2, tokOut = tokOut + ?3, respCnt = respCnt + ?4, respSum = respSum + ?5, \
         respMax = max(respMax, ?6) WHERE _id = ?1";
    /// The key and the name are gone for good.
    ERASE_SESSION = "UPDATE sessions SET st = 'deleted', nm = NULL, \"dk.kid\" = NULL, \"dk.w\" = NULL WHERE _id = ?1";
    /// A part of a log, oldest first.
    DELETE_ENTRIES =
        "DELETE FROM messages WHERE _id IN (SELECT _id FROM messages WHERE sid = ?1 ORDER BY seq LIMIT ?2)";
    /// One more entry.
    APPEND = concat!(
        "INSERT INTO messages (", entry!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ",
        "?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34)"
    );
    /// Is this very entry there already, at this very place?
    IS_APPENDED = "SELECT 1 FROM messages WHERE _id = ?1 AND sid = ?2 AND seq = ?3";
    /// The log from a place on.
    ENTRIES_AFTER = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
    /// The log up to a place, latest first.
    ENTRIES_BEFORE = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3");
    /// One entry.
    ENTRY = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND seq = ?2");
    /// A sender's message by the client's id.
    ENTRY_BY_CLIENT_ID = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND uid = ?2 AND cmid = ?3");
    /// The session's streaming answer.
    STREAMING_ANSWER = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND st = 'streaming'");
    /// The newest answer to a message.
    LATEST_ANSWER = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND re = ?2 ORDER BY gen DESC LIMIT 1");
    /// A growing answer, its fields in the order of `record::entry::CHANGING`, under its fence.
    UPDATE_ANSWER =
        "UPDATE messages SET rev = ?4, st = ?5, ct = ?6, modelId = ?7, try = ?8, idx = ?9, own = ?10, fen = ?11, exp = ?12, \
         fin = ?13, err = ?14, tokIn = ?15, tokOut = ?16, est = ?17, ftMs = ?18, ms = ?19, conv = ?20 \
         WHERE sid = ?1 AND seq = ?2 AND st = 'streaming' AND fen = ?3";
    /// The session's oldest message that needs an answer.
    NEXT_UNANSWERED = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND need = 1 ORDER BY seq LIMIT 1");
    /// It needs none any more.
    CLEAR_NEED = "UPDATE messages SET need = NULL WHERE sid = ?1 AND seq = ?2 AND _id = ?3";
    /// Leases that have ended.
    EXPIRED_ANSWERS = concat!("SELECT ", entry!(), " FROM messages WHERE st = 'streaming' AND exp < ?1 ORDER BY exp LIMIT ?2");
    /// Messages that wait for an answer.
    UNANSWERED_BETWEEN = concat!("SELECT ", entry!(), " FROM messages WHERE need = 1 AND ts >= ?1 AND ts < ?2 ORDER BY ts LIMIT ?3");
}

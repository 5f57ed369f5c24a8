//! Every statement of the embedded store, so that a test can ask SQLite for the plan of each.

/// The columns of `messages`, in the order of `record::entry::FIELDS`.
macro_rules! entry {
    () => {
        "_id, sid, seq, rev, ts, kind, st, snd, uid, sndNm, ct, cmid, need, re, gen, rgn, modelId, askId, try, idx, own, fen, exp, \
         fin, err, rty, tokIn, tokCch, tokOut, est, ftMs, ms, conv, ev, evUid, evNm, evRsn"
    };
}

/// The columns of `sessions`, in the order of `record::session::FIELDS`.
macro_rules! session {
    () => {
        "_id, uid, ep, nm, ts, \"dk.kid\", \"dk.w\", v, st, seq, lastTs, endTs, msgCnt, modelId, adminAssisted, adminId, \
         adminNm, joinSeq, helpReq, helpTs, readSeq, calls, tokIn, tokCch, tokOut, cost, respCnt, respSum, respMax"
    };
}

/// The columns of `usage`, in the order of `record::usage::FIELDS`.
macro_rules! record {
    () => {
        "_id, uid, sid, day, ts, purp, seq, try, modelId, prov, tokIn, tokCch, tokOut, est, fin, err, ftMs, ms, cost"
    };
}

/// The columns of `accounts`, in the order of `record::usage::ACCOUNT`.
macro_rules! account {
    () => {
        "uid, day, calls, tokIn, tokCch, tokOut, cost, resTok, resCost"
    };
}

/// The columns of `reservations`: `uid`, `day`, and those of `record::usage::RESERVATION` in their order.
macro_rules! reservation {
    () => {
        "uid, day, id, sid, purp, seq, try, modelId, prov, ts, tok, cost, \"in\", exp"
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
        "?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29) ON CONFLICT (_id) DO NOTHING"
    );
    /// One session.
    SESSION = concat!("SELECT ", session!(), " FROM sessions WHERE _id = ?1");
    /// A session with the lowest key id above this one. An erased session has no key id.
    KEY_AFTER =
        "SELECT _id, \"dk.kid\", \"dk.w\" FROM sessions WHERE \"dk.kid\" > ?1 ORDER BY \"dk.kid\" LIMIT 1";
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
    /// Another name, in place of this one.
    REPLACE_NAME = "UPDATE sessions SET nm = ?3 WHERE _id = ?1 AND nm IS ?2 AND \"dk.kid\" IS NOT NULL";
    /// The read marker, forward only.
    MARK_READ = "UPDATE sessions SET readSeq = ?2 WHERE _id = ?1 AND readSeq < ?2";
    /// One more finished answer.
    ADD_RESPONSE =
        "UPDATE sessions SET respCnt = respCnt + 1, respSum = respSum + ?2, respMax = max(respMax, ?2) WHERE _id = ?1";
    /// What a session has used, if it is of as many calls as the stored sum at least.
    SAVE_USAGE =
        "UPDATE sessions SET calls = ?2, tokIn = ?3, tokCch = ?4, tokOut = ?5, cost = ?6 WHERE _id = ?1 AND calls <= ?2";
    /// The key and the name are gone for good.
    ERASE_SESSION = "UPDATE sessions SET st = 'deleted', nm = NULL, \"dk.kid\" = NULL, \"dk.w\" = NULL WHERE _id = ?1";
    /// A part of a log, oldest first.
    DELETE_ENTRIES =
        "DELETE FROM messages WHERE _id IN (SELECT _id FROM messages WHERE sid = ?1 ORDER BY seq LIMIT ?2)";
    /// One more entry.
    APPEND = concat!(
        "INSERT INTO messages (", entry!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ",
        "?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37)"
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
    /// A growing answer, its fields in the order of `record::entry::CHANGING`, in the version that was seen.
    UPDATE_ANSWER =
        "UPDATE messages SET rev = ?6, st = ?7, ct = ?8, modelId = ?9, askId = ?10, try = ?11, idx = ?12, own = ?13, fen = ?14, \
         exp = ?15, fin = ?16, err = ?17, rty = ?18, tokIn = ?19, tokCch = ?20, tokOut = ?21, est = ?22, ftMs = ?23, ms = ?24, conv = ?25 \
         WHERE sid = ?1 AND seq = ?2 AND st = 'streaming' AND fen = ?3 AND rev = ?4 AND exp = ?5";
    /// The session's oldest message that needs an answer.
    NEXT_UNANSWERED = concat!("SELECT ", entry!(), " FROM messages WHERE sid = ?1 AND need = 1 ORDER BY seq LIMIT 1");
    /// It needs none any more.
    CLEAR_NEED = "UPDATE messages SET need = NULL WHERE sid = ?1 AND seq = ?2 AND _id = ?3";
    /// A page of leases that have ended.
    EXPIRED_ANSWERS = concat!("SELECT ", entry!(), " FROM messages WHERE st = 'streaming' AND exp < ?1 AND (exp, _id) > (?2, ?3) ORDER BY exp, _id LIMIT ?4");
    /// Messages that wait for an answer.
    UNANSWERED_BETWEEN = concat!("SELECT ", entry!(), " FROM messages WHERE need = 1 AND ts >= ?1 AND ts < ?2 ORDER BY ts LIMIT ?3");
    /// One more record; changes nothing where the call has one.
    RECORD = concat!(
        "INSERT INTO usage (", record!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ",
        "?17, ?18, ?19) ON CONFLICT (_id) DO NOTHING"
    );
    /// The record of a call.
    RECORD_OF = concat!("SELECT ", record!(), " FROM usage WHERE _id = ?1");
    /// The sum of a session's records, in the order of `record::usage::SUM`.
    SUM_OF_SESSION =
        "SELECT count(*) AS calls, coalesce(sum(tokIn), 0) AS tokIn, coalesce(sum(tokCch), 0) AS tokCch, \
         coalesce(sum(tokOut), 0) AS tokOut, coalesce(sum(cost), 0) AS cost FROM usage WHERE sid = ?1";
    /// The account of a user and day.
    ACCOUNT = concat!("SELECT ", account!(), " FROM accounts WHERE uid = ?1 AND day = ?2");
    /// The accounts of a user, from a day on.
    ACCOUNTS_FROM = concat!("SELECT ", account!(), " FROM accounts WHERE uid = ?1 AND day >= ?2 ORDER BY day LIMIT ?3");
    /// More is reserved in an account, which is made where there is none.
    RESERVE =
        "INSERT INTO accounts (uid, day, calls, tokIn, tokCch, tokOut, cost, resTok, resCost) \
         VALUES (?1, ?2, 0, 0, 0, 0, 0, ?3, ?4) \
         ON CONFLICT (uid, day) DO UPDATE SET resTok = resTok + excluded.resTok, resCost = resCost + excluded.resCost";
    /// What was reserved is no more, and this was used.
    SETTLE =
        "UPDATE accounts SET resTok = resTok - ?3, resCost = resCost - ?4, calls = calls + ?5, tokIn = tokIn + ?6, \
         tokCch = tokCch + ?7, tokOut = tokOut + ?8, cost = cost + ?9 WHERE uid = ?1 AND day = ?2";
    /// One more reservation.
    OPEN_RESERVATION = concat!(
        "INSERT INTO reservations (", reservation!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
    );
    /// Is this call's reservation open?
    IS_OPEN = "SELECT 1 FROM reservations WHERE id = ?1";
    /// It is open no more; gives the account and what was reserved.
    CLOSE_RESERVATION = "DELETE FROM reservations WHERE id = ?1 RETURNING uid, day, tok, cost";
    /// A user's open reservations.
    OPEN_RESERVATIONS = concat!("SELECT ", reservation!(), " FROM reservations WHERE uid = ?1 ORDER BY exp");
    /// Reservations that have expired.
    EXPIRED_RESERVATIONS = concat!("SELECT ", reservation!(), " FROM reservations WHERE exp < ?1 ORDER BY exp LIMIT ?2");
}

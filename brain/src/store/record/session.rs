//! The fields of a session in the collection `sessions`. docs/indexes.md describes them.

use chatbox_shared::ids::{SessionId, UserId};

use super::usage::{read_sum, sum_fields};
use super::{Field, Source, Value, person, required, timestamp, unsigned};
use crate::store::unreadable::UnreadableRows;
use crate::store::{Responses, SessionCursor, SessionRow, StoreResult, Summary, WrappedKey};

/// The layout version of the document.
const VERSION: i64 = 1;

/// The session accepts messages.
pub(in crate::store) const ACTIVE: &str = "active";
/// The session has ended.
pub(in crate::store) const ENDED: &str = "ended";
/// The session is erased: it has no data key and no name and is in no list.
pub(in crate::store) const DELETED: &str = "deleted";

/// Every field a session may have.
pub(in crate::store) const FIELDS: &[&str] = &[
    "_id",
    "uid",
    "ep",
    "nm",
    "ts",
    "dk.kid",
    "dk.w",
    "v",
    "st",
    "seq",
    "lastTs",
    "endTs",
    "msgCnt",
    "modelId",
    "adminAssisted",
    "adminId",
    "adminNm",
    "joinSeq",
    "helpReq",
    "helpTs",
    "readSeq",
    "calls",
    "tokIn",
    "tokCch",
    "tokOut",
    "cost",
    "respCnt",
    "respSum",
    "respMax",
];

/// The fields that the summary of the log owns.
pub(in crate::store) const SUMMARY: &[&str] = &[
    "st",
    "seq",
    "lastTs",
    "endTs",
    "msgCnt",
    "modelId",
    "adminAssisted",
    "adminId",
    "adminNm",
    "joinSeq",
    "helpReq",
    "helpTs",
];

/// The fields of a session with their values, in no particular order. Absent ones may be missing.
pub(in crate::store) fn fields(row: &SessionRow) -> StoreResult<Vec<Field<'_>>> {
    let mut fields = summary_fields(&row.summary)?;
    fields.extend([
        ("_id", Value::Id(row.id.0)),
        ("uid", Value::Text(row.user.as_str())),
        ("ep", Value::Text(&row.epoch)),
        ("nm", Value::sealed(&row.name)),
        ("ts", Value::Time(row.started_at.0)),
        ("v", Value::Int(VERSION)),
        ("readSeq", Value::unsigned(row.read_seq)?),
    ]);
    match &row.data_key {
        Some(key) => fields.extend([("dk.kid", Value::Text(&key.kid)), ("dk.w", Value::Bytes(&key.wrapped))]),
        None => fields.push(("st", Value::Text(DELETED))),
    }
    fields.extend(sum_fields(&row.usage)?);
    fields.extend([
        ("respCnt", Value::unsigned(row.responses.count)?),
        ("respSum", Value::unsigned(row.responses.ms_sum)?),
        ("respMax", Value::unsigned(row.responses.ms_max)?),
    ]);
    Ok(fields)
}

/// All fields that the summary owns: an absent one is to be removed.
pub(in crate::store) fn summary_fields(summary: &Summary) -> StoreResult<Vec<Field<'_>>> {
    let admin = summary.admin.as_ref();
    let mut fields = Vec::with_capacity(FIELDS.len());
    fields.extend([
        ("st", Value::Text(if summary.ended_at.is_some() { ENDED } else { ACTIVE })),
        ("seq", Value::unsigned(summary.seq)?),
        ("lastTs", Value::Time(summary.last_at.0)),
        ("endTs", Value::time_or_absent(summary.ended_at)),
        ("msgCnt", Value::unsigned(summary.message_count)?),
        ("modelId", Value::Text(&summary.model_id)),
        ("adminAssisted", Value::Bool(summary.admin_assisted)),
        ("adminId", Value::text_or_absent(admin.map(|admin| admin.id.as_str()))),
        ("adminNm", Value::text_or_absent(admin.and_then(|admin| admin.name.as_deref()))),
        ("joinSeq", Value::unsigned(summary.joined_seq)?),
        ("helpReq", Value::Bool(summary.help_requested_at.is_some())),
        ("helpTs", Value::time_or_absent(summary.help_requested_at)),
    ]);
    Ok(fields)
}

/// The fields that [`read_wrapped_key`] needs.
pub(in crate::store) const WRAPPED_KEY: &[&str] = &["_id", "dk.kid", "dk.w"];

/// The id of a session that is not erased, and its wrapped data key.
pub(in crate::store) fn read_wrapped_key(source: &impl Source) -> StoreResult<(SessionId, WrappedKey)> {
    let (kid, wrapped) = (required("dk.kid", source.text("dk.kid"))?, required("dk.w", source.bytes("dk.w"))?);
    Ok((SessionId(required("_id", source.id("_id"))?), WrappedKey { kid, wrapped }))
}

/// The session in a document, and its place in a list. The session is `None` if it cannot be read.
///
/// # Errors
/// If the document cannot be obtained.
pub(in crate::store) fn read_listed(
    source: &impl Source,
    unreadable: &UnreadableRows,
) -> StoreResult<(Option<SessionCursor>, Option<SessionRow>)> {
    let (id, last_at) = (source.id("_id").ok().flatten(), timestamp(source, "lastTs").ok().flatten());
    let place = id.zip(last_at).map(|(id, last_at)| SessionCursor { last_at, id: SessionId(id) });
    Ok((place, unreadable.skip("sessions", id, read(source))?))
}

/// The session in a document.
pub(in crate::store) fn read(source: &impl Source) -> StoreResult<SessionRow> {
    let number = |name| required(name, unsigned(source, name));
    let data_key = match (source.text("dk.kid")?, source.bytes("dk.w")?) {
        (Some(kid), Some(wrapped)) => Some(WrappedKey { kid, wrapped }),
        _ => None,
    };
    Ok(SessionRow {
        id: SessionId(required("_id", source.id("_id"))?),
        user: UserId::new(required("uid", source.text("uid"))?),
        epoch: required("ep", source.text("ep"))?,
        name: source.bytes("nm")?.unwrap_or_default(),
        started_at: required("ts", timestamp(source, "ts"))?,
        data_key,
        summary: Summary {
            seq: number("seq")?,
            last_at: required("lastTs", timestamp(source, "lastTs"))?,
            ended_at: timestamp(source, "endTs")?,
            message_count: number("msgCnt")?,
            model_id: required("modelId", source.text("modelId"))?,
            admin_assisted: required("adminAssisted", source.bool("adminAssisted"))?,
            admin: person(source, "adminId", "adminNm")?,
            joined_seq: number("joinSeq")?,
            help_requested_at: timestamp(source, "helpTs")?,
        },
        read_seq: number("readSeq")?,
        usage: read_sum(source)?,
        responses: Responses { count: number("respCnt")?, ms_sum: number("respSum")?, ms_max: number("respMax")? },
    })
}

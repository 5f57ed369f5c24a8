//! The fields of the ledger: records in the collection `usage`, accounts in `accounts`, and their reservations.
//! docs/indexes.md describes them.

use chatbox_shared::ids::{CallId, SessionId, UserId};

use super::{Field, Source, Value, known, required, small, timestamp, unsigned};
use crate::ledger::{Call, CallFinish, Day, DayUsage, Purpose, Reservation, UsageRecord, UsageSum};
use crate::store::StoreResult;
use crate::usage::TokenUsage;

/// Every field a record has.
pub(in crate::store) const FIELDS: &[&str] = &[
    "_id", "uid", "sid", "day", "ts", "purp", "seq", "try", "modelId", "prov", "tokIn", "tokCch", "tokOut", "est",
    "fin", "err", "ftMs", "ms", "cost",
];

/// The fields of an account, except those that only MongoDB has: `_id`, `open` and `exp`.
pub(in crate::store) const ACCOUNT: &[&str] =
    &["uid", "day", "calls", "tokIn", "tokCch", "tokOut", "cost", "resTok", "resCost"];

/// The fields of a reservation.
pub(in crate::store) const RESERVATION: &[&str] =
    &["id", "sid", "purp", "seq", "try", "modelId", "prov", "ts", "tok", "cost", "in", "exp"];

/// The fields of a sum: in a session, in an account, over records.
pub(in crate::store) const SUM: &[&str] = &["calls", "tokIn", "tokCch", "tokOut", "cost"];

/// The fields of a record with their values. `day` is the text of the record's day.
pub(in crate::store) fn fields<'a>(record: &'a UsageRecord, day: &'a str) -> StoreResult<Vec<Field<'a>>> {
    let mut fields = Vec::with_capacity(FIELDS.len());
    fields.extend(call_fields("_id", &record.call)?);
    fields.extend([
        ("uid", Value::Text(record.call.user.as_str())),
        ("day", Value::Text(day)),
        ("tokIn", Value::unsigned(record.usage.input)?),
        ("tokCch", Value::unsigned(record.usage.cached)?),
        ("tokOut", Value::unsigned(record.usage.output)?),
        ("est", Value::Bool(record.usage.estimated)),
        ("fin", Value::Text(record.finish.as_str())),
        ("err", Value::text_or_absent(record.error.as_deref())),
        ("ftMs", Value::unsigned_or_absent(record.first_token_ms)?),
        ("ms", Value::unsigned(record.total_ms)?),
        ("cost", Value::unsigned_or_absent(record.cost)?),
    ]);
    Ok(fields)
}

/// The record in a document.
pub(in crate::store) fn read(source: &impl Source) -> StoreResult<UsageRecord> {
    let number = |name| required(name, unsigned(source, name));
    let finish = required("fin", source.text("fin"))?;
    Ok(UsageRecord {
        call: read_call("_id", source, read_user(source)?)?,
        usage: TokenUsage {
            input: number("tokIn")?,
            cached: number("tokCch")?,
            output: number("tokOut")?,
            estimated: required("est", source.bool("est"))?,
        },
        finish: known("fin", &finish, CallFinish::parse(&finish))?,
        error: source.text("err")?,
        first_token_ms: unsigned(source, "ftMs")?,
        total_ms: number("ms")?,
        cost: unsigned(source, "cost")?,
    })
}

/// The fields of a reservation with their values. Its user is in the account.
pub(in crate::store) fn reservation_fields(reservation: &Reservation) -> StoreResult<Vec<Field<'_>>> {
    let mut fields = Vec::with_capacity(RESERVATION.len() + 2);
    fields.extend(call_fields("id", &reservation.call)?);
    fields.extend([
        ("tok", Value::unsigned(reservation.tokens)?),
        ("cost", Value::unsigned(reservation.cost)?),
        ("in", Value::unsigned(reservation.input_estimate)?),
        ("exp", Value::Time(reservation.expires_at.0)),
    ]);
    Ok(fields)
}

/// The user's reservation in a document.
pub(in crate::store) fn read_reservation(source: &impl Source, user: UserId) -> StoreResult<Reservation> {
    let number = |name| required(name, unsigned(source, name));
    Ok(Reservation {
        call: read_call("id", source, user)?,
        tokens: number("tok")?,
        cost: number("cost")?,
        input_estimate: number("in")?,
        expires_at: required("exp", timestamp(source, "exp"))?,
    })
}

/// The user of a document.
pub(in crate::store) fn read_user(source: &impl Source) -> StoreResult<UserId> {
    required("uid", source.text("uid")).map(UserId::new)
}

/// The account in a document.
pub(in crate::store) fn read_account(source: &impl Source) -> StoreResult<DayUsage> {
    let day = required("day", source.text("day"))?;
    Ok(DayUsage {
        day: known("day", &day, Day::parse(&day))?,
        used: read_sum(source)?,
        reserved_tokens: required("resTok", unsigned(source, "resTok"))?,
        reserved_cost: required("resCost", unsigned(source, "resCost"))?,
    })
}

/// The fields of a sum with their values.
pub(in crate::store) fn sum_fields(sum: &UsageSum) -> StoreResult<[Field<'static>; 5]> {
    Ok([
        ("calls", Value::unsigned(sum.calls)?),
        ("tokIn", Value::unsigned(sum.input)?),
        ("tokCch", Value::unsigned(sum.cached)?),
        ("tokOut", Value::unsigned(sum.output)?),
        ("cost", Value::unsigned(sum.cost)?),
    ])
}

/// The sum in a document. Absent fields are 0: sessions of an older chatbox lack some.
pub(in crate::store) fn read_sum(source: &impl Source) -> StoreResult<UsageSum> {
    let number = |name| Ok(unsigned(source, name)?.unwrap_or(0));
    Ok(UsageSum {
        calls: number("calls")?,
        input: number("tokIn")?,
        cached: number("tokCch")?,
        output: number("tokOut")?,
        cost: number("cost")?,
    })
}

/// The fields of a call, in a record and in a reservation; the call id has the name `id`.
fn call_fields<'a>(id: &'static str, call: &'a Call) -> StoreResult<[Field<'a>; 8]> {
    Ok([
        (id, Value::Id(call.id.0)),
        ("sid", Value::Id(call.session.0)),
        ("purp", Value::Text(call.purpose.as_str())),
        ("seq", Value::unsigned(call.seq)?),
        ("try", Value::Int(call.attempt.into())),
        ("modelId", Value::Text(&call.model_id)),
        ("prov", Value::Text(&call.provider)),
        ("ts", Value::Time(call.started_at.0)),
    ])
}

fn read_call(id: &'static str, source: &impl Source, user: UserId) -> StoreResult<Call> {
    let purpose = required("purp", source.text("purp"))?;
    Ok(Call {
        id: CallId(required(id, source.id(id))?),
        user,
        session: SessionId(required("sid", source.id("sid"))?),
        purpose: known("purp", &purpose, Purpose::parse(&purpose))?,
        seq: required("seq", unsigned(source, "seq"))?,
        attempt: required("try", small(source, "try"))?,
        model_id: required("modelId", source.text("modelId"))?,
        provider: required("prov", source.text("prov"))?,
        started_at: required("ts", timestamp(source, "ts"))?,
    })
}

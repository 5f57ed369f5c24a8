//! The ledger in MongoDB. A record is one insertion. Every change of an account is one update of one document, which
//! contains used and reserved amounts and the open reservations: two brains cannot both take the last of an allowance.

use bson::{Document, doc};
use chatbox_shared::ids::{CallId, SessionId};
use futures_util::TryStreamExt;

use super::documents::{Stored, document, id_to_bson, time_to_bson};
use super::error::{self, from_mongo};
use super::queries::{ACCOUNTS, Query, USAGE};
use super::{MongoStore, indexes};
use crate::ledger::{Allowance, DayUsage, Reservation, UsageRecord, UsageSum};
use crate::store::record::{self, signed};
use crate::store::{StoreError, StoreResult};

/// Repetitions of a step that lost a race. Each time another call has made progress.
const TRIES: usize = 50;

impl MongoStore {
    /// Reserves, where the allowance has room.
    ///
    /// A call with a record in the ledger is not reserved again. The record is looked up before the reservation, not
    /// atomically with it. One race remains: a delayed write that the server executes after the call was repeated, made
    /// and settled. Such a reservation stays until it expires, and its settlement then counts the call twice.
    pub(super) async fn reserve(&self, reservation: &Reservation, allowance: &Allowance) -> StoreResult<bool> {
        let call = &reservation.call;
        if self.record_of(call.session, call.id).await?.is_some() {
            return Ok(true);
        }
        let room = Query::Room(reservation, allowance);
        for _ in 0..TRIES {
            if self.update(room, reserving(reservation)?).await? {
                return Ok(true);
            }
            // No account, an open reservation, or no room: the reply does not tell which.
            let Some(account) = self.find(Query::Account(&call.user, call.day()), 1).await?.pop() else {
                if !allowance.admits(&DayUsage::unused(call.day()), reservation) {
                    return Ok(false);
                }
                if self.open_account(reservation).await? {
                    return Ok(true);
                }
                continue;
            };
            if is_open(&account, call.id) {
                return Ok(true);
            }
            if !allowance.admits(&record::usage::read_account(&account)?, reservation) {
                return Ok(false);
            }
        }
        Err(StoreError::Unavailable("too many concurrent changes of the account".into()))
    }

    /// Creates the account with this reservation. `false`: the account exists.
    async fn open_account(&self, reservation: &Reservation) -> StoreResult<bool> {
        let call = &reservation.call;
        let mut account = doc! { "uid": call.user.as_str(), "day": call.day().to_string() };
        account.extend(document(&record::usage::sum_fields(&UsageSum::default())?));
        account.extend(doc! {
            "resTok": signed(reservation.tokens)?,
            "resCost": signed(reservation.cost)?,
            "open": [entry(reservation)?],
            "exp": time_to_bson(reservation.expires_at.0),
        });
        match self.collection(ACCOUNTS).insert_one(account).await {
            Ok(_) => Ok(true),
            Err(error) if error::duplicate(&error) == Some(indexes::UID_DAY) => Ok(false),
            Err(error) => Err(from_mongo(error)),
        }
    }

    /// Inserts the record, or returns the existing one.
    pub(super) async fn insert_record(&self, record: &UsageRecord) -> StoreResult<UsageRecord> {
        let (call, day) = (&record.call, record.call.day().to_string());
        let document = document(&record::usage::fields(record, &day)?);
        for _ in 0..TRIES {
            match self.collection(USAGE).insert_one(document.clone()).await {
                Ok(_) => return Ok(record.clone()),
                Err(error) if error::duplicate(&error) == Some(indexes::ID) => {}
                Err(error) => return Err(from_mongo(error)),
            }
            if let Some(first) = self.record_of(call.session, call.id).await? {
                return Ok(first);
            }
            // Another writer's record exists, and a majority does not have it yet, or never will.
        }
        Err(StoreError::Unavailable("the record of the call is not durable yet".into()))
    }

    /// Replaces the reservation of a record's call by the used amounts, if it is open. Both happen in one update, so
    /// the call is counted once, however often and by whichever brain this is repeated.
    pub(super) async fn settle(&self, record: &UsageRecord) -> StoreResult<()> {
        let call = &record.call;
        let query = Query::Open(&call.user, call.day(), call.id);
        let change = settling(record)?;
        self.collection(query.collection()).update_one(query.filter()?, change).await.map_err(from_mongo)?;
        Ok(())
    }

    async fn record_of(&self, session: SessionId, call: CallId) -> StoreResult<Option<UsageRecord>> {
        self.find(Query::Record(session, call), 1).await?.first().map(record::usage::read).transpose()
    }

    /// The open reservations of the first `limit` accounts that the query finds, sorted by expiry.
    pub(super) async fn reservations(&self, query: Query<'_>, limit: u32) -> StoreResult<Vec<Reservation>> {
        let mut found = Vec::new();
        for account in self.find(query, limit).await? {
            let reservations = record::usage::read_user(&account).map(|user| {
                let read = |entry: &Document| record::usage::read_reservation(&Stored(entry.clone()), user.clone());
                open(&account).map(|entry| self.unreadable.skip("accounts", None, read(entry))).collect::<Vec<_>>()
            });
            for reservation in self.unreadable.skip("accounts", None, reservations)?.unwrap_or_default() {
                found.extend(reservation?);
            }
        }
        found.sort_by_key(|reservation| reservation.expires_at);
        Ok(found)
    }

    /// The sum of the records that the query finds.
    pub(super) async fn sum(&self, query: Query<'_>) -> StoreResult<UsageSum> {
        let collection = self.collection(query.collection());
        let aggregate = collection.aggregate(summing(query)?).max_time(self.connection.limit);
        let sums: Vec<Document> = aggregate.await.map_err(from_mongo)?.try_collect().await.map_err(from_mongo)?;
        Ok(sums.into_iter().next().map(|sum| record::usage::read_sum(&Stored(sum))).transpose()?.unwrap_or_default())
    }
}

/// The aggregation stages for the sum of a query's records.
pub(super) fn summing(query: Query<'_>) -> StoreResult<Vec<Document>> {
    let sum = |field: &str| doc! { "$sum": field };
    let group = doc! {
        "_id": null,
        "calls": { "$sum": 1_i64 },
        "tokIn": sum("$tokIn"),
        "tokCch": sum("$tokCch"),
        "tokOut": sum("$tokOut"),
        "cost": sum("$cost"),
    };
    Ok(vec![doc! { "$match": query.filter()? }, doc! { "$group": group }])
}

/// The update of an account that has room.
fn reserving(reservation: &Reservation) -> StoreResult<Document> {
    Ok(doc! {
        "$push": { "open": entry(reservation)? },
        "$inc": { "resTok": signed(reservation.tokens)?, "resCost": signed(reservation.cost)? },
        "$min": { "exp": time_to_bson(reservation.expires_at.0) },
    })
}

/// The update of an account with the call's open reservation, in two stages: remove the reservation and add the used
/// amounts; then compute reserved amounts and earliest expiry from the remaining reservations.
fn settling(record: &UsageRecord) -> StoreResult<Vec<Document>> {
    let stays = doc! { "$ne": ["$$this.id", id_to_bson(record.call.id.0)] };
    let mut leave = doc! { "open": { "$filter": { "input": "$open", "cond": stays } } };
    for (name, used) in document(&record::usage::sum_fields(&UsageSum::of(record))?) {
        let before = format!("${name}");
        leave.insert(name, doc! { "$add": [before, used] });
    }
    let reserved = doc! {
        "resTok": { "$toLong": { "$sum": "$open.tok" } },
        "resCost": { "$toLong": { "$sum": "$open.cost" } },
        "exp": { "$ifNull": [{ "$min": "$open.exp" }, "$$REMOVE"] },
    };
    Ok(vec![doc! { "$set": leave }, doc! { "$set": reserved }])
}

/// A reservation as an element of its account.
fn entry(reservation: &Reservation) -> StoreResult<Document> {
    Ok(document(&record::usage::reservation_fields(reservation)?))
}

fn open(account: &Stored) -> impl Iterator<Item = &Document> {
    account.0.get_array("open").into_iter().flatten().filter_map(|entry| entry.as_document())
}

fn is_open(account: &Stored, call: CallId) -> bool {
    let id = id_to_bson(call.0);
    open(account).any(|entry| entry.get("id") == Some(&id))
}

#[cfg(test)]
mod tests {
    use chatbox_shared::clock::Timestamp;
    use chatbox_tests::mongod::Mongod;

    use super::*;
    use crate::ledger::{CallFinish, Day};
    use crate::store::Store;
    use crate::store::conformance::{call, mongo};

    /// A brain that dies after the insertion and before the change of the account.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_record_without_its_settlement_is_settled_by_whoever_records_the_call_again() {
        let server = Mongod::start().await.unwrap();
        let store = mongo(&server, "unsettled").await;
        let call = call("user", Timestamp(0));
        let reservation =
            Reservation { call: call.clone(), tokens: 9, cost: 8, input_estimate: 5, expires_at: Timestamp(100) };
        assert!(store.reserve_usage(&reservation, &Allowance::default()).await.unwrap());
        let first = reservation.lost(1, CallFinish::Lost, None, Timestamp(10));
        assert_eq!(store.insert_record(&first).await.unwrap(), first);
        let accounts = || async { store.user_usage(&call.user, call.day(), 10).await.unwrap() };
        let reserved = DayUsage { reserved_tokens: 9, reserved_cost: 8, ..DayUsage::unused(Day::of(Timestamp(0))) };
        assert_eq!(accounts().await, std::slice::from_ref(&reserved));
        assert!(store.reserve_usage(&reservation, &Allowance::default()).await.unwrap());

        let found = store.expired_reservations(Timestamp(101), 10).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&reservation));
        for output in [77, 88] {
            assert_eq!(
                store.record_usage(&found[0].lost(output, CallFinish::Lost, None, Timestamp(200))).await.unwrap(),
                first
            );
            let used = UsageSum::of(&first);
            assert_eq!(accounts().await, [DayUsage { used, ..DayUsage::unused(call.day()) }]);
        }
        assert_eq!(store.expired_reservations(Timestamp(101), 10).await.unwrap(), []);
    }
}

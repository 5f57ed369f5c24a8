//! The store on MongoDB. Every write changes one document and is acknowledged by the journals of a majority; every read
//! asks the primary for majority data. Unique indexes decide all races; there are no transactions.

use async_trait::async_trait;
use bson::{Document, doc};
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{ClientMessageId, MessageId, Seq, SessionId, UserId};
use futures_util::TryStreamExt;
use mongodb::Collection;

pub use connection::MongoOptions;
pub use uri::check_uri;

use super::pages::{ListedRow, full_page, lease_page};
use super::record::{self, MAX_SEQ, signed};
use super::unreadable::UnreadableRows;
use super::{
    AnswerVersion, Appended, EntryRow, LeaseCursor, LeasePage, SessionCursor, SessionRow, StateFilter, Store,
    StoreResult, Summary, WrappedKey,
};
use crate::ledger::{Allowance, Day, DayUsage, Reservation, UsageRecord, UsageSum};
use crate::log::entry::EntryState;
use crate::sabotage::{self, Sabotage};
use connection::Connection;
use documents::{Stored, document, replacement};
use error::from_mongo;
use queries::{COLLECTIONS, MESSAGES, Query, SESSIONS};

mod connection;
mod documents;
mod error;
mod indexes;
mod ledger;
#[cfg(test)]
mod plans;
mod queries;
mod uri;

/// Entries deleted per step, so that each step ends within the time limit and a repetition continues where the last one
/// ended.
const DELETE_BATCH: u32 = 1000;

/// Documents per batch of the server.
const MAX_BATCH: u32 = 10_000;

/// The server's error for a collection without any document.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// A store in a MongoDB database.
pub struct MongoStore {
    connection: Connection,
    unreadable: UnreadableRows,
}

impl MongoStore {
    /// Sets the driver up. The driver connects at first use, so this succeeds while the database is down.
    /// [`Store::now`], [`Store::migrate`] and [`Store::missing_indexes`] refuse a standalone server, so call one of
    /// them first.
    ///
    /// # Errors
    /// [`super::StoreError::Refused`] for an invalid connection string, [`super::StoreError::Unavailable`] where its
    /// DNS name cannot be resolved.
    pub async fn connect(options: MongoOptions) -> StoreResult<Self> {
        Ok(Self { connection: Connection::new(options).await?, unreadable: UnreadableRows::default() })
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.connection.database.collection(name)
    }

    async fn find(&self, query: Query<'_>, limit: u32) -> StoreResult<Vec<Stored>> {
        // The server takes 0 as no limit.
        if limit == 0 {
            return Ok(Vec::new());
        }
        let collection = self.collection(query.collection());
        let mut find = collection.find(query.filter()?).limit(limit.into()).max_time(self.connection.limit);
        // The batch holds the whole page: one round trip.
        find = find.batch_size(limit.min(MAX_BATCH).saturating_add(1));
        if let Some(sort) = query.sort() {
            find = find.sort(sort);
        }
        find.await.map_err(from_mongo)?.map_ok(Stored).try_collect().await.map_err(from_mongo)
    }

    async fn entries(&self, query: Query<'_>, limit: u32) -> StoreResult<Vec<EntryRow>> {
        let found = self.find(query, limit).await?;
        let rows = found.iter().map(|row| record::entry::read_or_replace(row, &self.unreadable));
        rows.filter_map(Result::transpose).collect()
    }

    /// The next `limit` sessions of a list, each with its place.
    async fn listed(
        &self,
        user: &UserId,
        filter: StateFilter,
        after: Option<SessionCursor>,
        limit: u32,
    ) -> StoreResult<Vec<ListedRow>> {
        let found = self.find(Query::List(user, filter, after), limit).await?;
        found.iter().map(|row| record::session::read_listed(row, &self.unreadable)).collect()
    }

    async fn one_entry(&self, query: Query<'_>) -> StoreResult<Option<EntryRow>> {
        Ok(self.entries(query, 1).await?.pop())
    }

    /// Updates the document that the query finds; returns whether there is one.
    async fn update(&self, query: Query<'_>, update: Document) -> StoreResult<bool> {
        let collection = self.collection(query.collection());
        let result = collection.update_one(query.filter()?, update).await.map_err(from_mongo)?;
        Ok(result.matched_count > 0)
    }

    /// Deletes the log in steps, oldest first.
    async fn delete_log(&self, session: SessionId) -> StoreResult<()> {
        loop {
            let batch = self.entry_seqs(session).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            let filter = Query::LogUpTo(session, *last).filter()?;
            self.collection(MESSAGES).delete_many(filter).await.map_err(from_mongo)?;
        }
    }

    /// The seqs of the oldest entries, one batch at most.
    async fn entry_seqs(&self, session: SessionId) -> StoreResult<Vec<Seq>> {
        let query = Query::Log(session);
        let collection = self.collection(query.collection());
        let find = collection.find(query.filter()?).projection(doc! { "_id": 0, "seq": 1 }).limit(DELETE_BATCH.into());
        let find = find.batch_size(DELETE_BATCH + 1).sort(query.sort().unwrap_or_default());
        let found: Vec<Document> = find.await.map_err(from_mongo)?.try_collect().await.map_err(from_mongo)?;
        found.into_iter().map(|document| record::entry::read_seq(&Stored(document))).collect()
    }
}

fn is_missing_collection(error: &mongodb::error::Error) -> bool {
    matches!(error.kind.as_ref(), mongodb::error::ErrorKind::Command(command) if command.code == NAMESPACE_NOT_FOUND)
}

#[async_trait]
impl Store for MongoStore {
    fn unreadable_rows(&self) -> UnreadableRows {
        self.unreadable.clone()
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        self.connection.hello().await
    }

    async fn migrate(&self) -> StoreResult<()> {
        self.connection.hello().await?;
        for collection in COLLECTIONS {
            let wanted = indexes::declared().into_iter().filter(|index| index.collection == collection);
            let models = wanted.map(|index| index.model()).collect::<Vec<_>>();
            self.collection(collection).create_indexes(models).await.map_err(from_mongo)?;
        }
        Ok(())
    }

    async fn missing_indexes(&self) -> StoreResult<Vec<String>> {
        self.connection.hello().await?;
        let mut missing = Vec::new();
        for collection in COLLECTIONS {
            let present = match self.collection(collection).list_index_names().await {
                Ok(names) => names,
                Err(error) if is_missing_collection(&error) => Vec::new(),
                Err(error) => return Err(from_mongo(error)),
            };
            let wanted = indexes::declared().into_iter().filter(|index| index.collection == collection);
            let absent = wanted.filter(|index| !present.iter().any(|name| name == index.name));
            missing.extend(absent.map(|index| format!("{collection}.{}", index.name)));
        }
        Ok(missing)
    }

    async fn create_session(&self, row: &SessionRow) -> StoreResult<bool> {
        let document = document(&record::session::fields(row)?);
        match self.collection(SESSIONS).insert_one(document).await {
            Ok(_) => Ok(true),
            Err(error) if error::duplicate(&error) == Some(indexes::ID) => Ok(false),
            Err(error) => Err(from_mongo(error)),
        }
    }

    async fn key_samples(&self, limit: u32) -> StoreResult<Vec<(SessionId, WrappedKey)>> {
        let mut samples: Vec<(SessionId, WrappedKey)> = Vec::new();
        while samples.len() < limit as usize {
            let after = samples.last().map_or("", |(_, key)| &key.kid);
            let Some(row) = self.find(Query::KeyAfter(after), 1).await?.pop() else { break };
            samples.push(record::session::read_wrapped_key(&row)?);
        }
        Ok(samples)
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<SessionRow>> {
        self.find(Query::Session(id), 1).await?.first().map(record::session::read).transpose()
    }

    async fn list_sessions(
        &self,
        user: &UserId,
        filter: StateFilter,
        after: Option<SessionCursor>,
        limit: u32,
    ) -> StoreResult<Vec<SessionRow>> {
        full_page(after, limit, |after, limit| self.listed(user, filter, after, limit)).await
    }

    async fn save_summary(&self, session: SessionId, summary: &Summary) -> StoreResult<()> {
        let update = replacement(record::session::SUMMARY, &record::session::summary_fields(summary)?);
        self.update(Query::SummaryBefore(session, summary.seq), update).await.map(drop)
    }

    async fn rename_session(&self, session: SessionId, name: &[u8]) -> StoreResult<bool> {
        let update = replacement(&["nm"], &[("nm", record::Value::sealed(name))]);
        self.update(Query::Kept(session), update).await
    }

    async fn replace_name(&self, session: SessionId, from: &[u8], to: &[u8]) -> StoreResult<bool> {
        let update = replacement(&["nm"], &[("nm", record::Value::sealed(to))]);
        self.update(Query::Named(session, from), update).await
    }

    async fn mark_read(&self, session: SessionId, seq: Seq) -> StoreResult<()> {
        let update = doc! { "$set": { "readSeq": signed(seq)? } };
        self.update(Query::ReadBefore(session, seq), update).await.map(drop)
    }

    async fn add_response(&self, session: SessionId, took_ms: u64) -> StoreResult<()> {
        let took_ms = signed(took_ms)?;
        let update = doc! { "$inc": { "respCnt": 1_i64, "respSum": took_ms }, "$max": { "respMax": took_ms } };
        self.update(Query::Session(session), update).await.map(drop)
    }

    async fn erase_session(&self, session: SessionId) -> StoreResult<()> {
        let update = doc! { "$set": { "st": record::session::DELETED }, "$unset": { "dk": "", "nm": "" } };
        self.update(Query::Session(session), update).await?;
        self.delete_log(session).await
    }

    async fn append(&self, row: &EntryRow) -> StoreResult<Appended> {
        let document = document(&record::entry::fields(row)?);
        let error = match self.collection(MESSAGES).insert_one(document).await {
            Ok(_) => return Ok(Appended::Done),
            Err(error) => error,
        };
        let Some(index) = error::duplicate(&error) else { return Err(from_mongo(error)) };
        let meta = &row.meta;
        // The same entry again, after a lost reply: it is durable if a majority has it.
        if index == indexes::ID && self.one_entry(Query::EntryWithId(meta.session, meta.seq, meta.id)).await?.is_some()
        {
            return Ok(Appended::Done);
        }
        error::conflict(index, row)
    }

    async fn entries_after(&self, session: SessionId, after: Seq, limit: u32) -> StoreResult<Vec<EntryRow>> {
        self.entries(Query::LogAfter(session, after), limit).await
    }

    async fn entries_before(&self, session: SessionId, before: Seq, limit: u32) -> StoreResult<Vec<EntryRow>> {
        let mut entries = self.entries(Query::LogBefore(session, before.min(MAX_SEQ)), limit).await?;
        entries.reverse();
        Ok(entries)
    }

    async fn entry(&self, session: SessionId, seq: Seq) -> StoreResult<Option<EntryRow>> {
        self.one_entry(Query::Entry(session, seq)).await
    }

    async fn entry_by_client_id(
        &self,
        session: SessionId,
        sender: &UserId,
        id: ClientMessageId,
    ) -> StoreResult<Option<EntryRow>> {
        self.one_entry(Query::ByClientId(session, sender, id)).await
    }

    async fn streaming_answer(&self, session: SessionId) -> StoreResult<Option<EntryRow>> {
        // A placeholder does not stream.
        let row = self.one_entry(Query::Streaming(session)).await?;
        Ok(row.filter(|row| row.meta.state == EntryState::Streaming))
    }

    async fn latest_answer(&self, session: SessionId, reply_to: Seq) -> StoreResult<Option<EntryRow>> {
        self.one_entry(Query::AnswersTo(session, reply_to)).await
    }

    async fn update_answer(&self, row: &EntryRow, seen: AnswerVersion) -> StoreResult<bool> {
        let update = replacement(record::entry::CHANGING, &record::entry::fields(row)?);
        let (session, seq) = (row.meta.session, row.meta.seq);
        if sabotage::is_on(Sabotage::NoFenceCheck) {
            return self.update(Query::Entry(session, seq), update).await;
        }
        self.update(Query::Version(session, seq, seen), update).await
    }

    async fn next_unanswered(&self, session: SessionId) -> StoreResult<Option<EntryRow>> {
        self.one_entry(Query::Unanswered(session)).await
    }

    async fn clear_need(&self, session: SessionId, id: MessageId, seq: Seq) -> StoreResult<()> {
        self.update(Query::EntryWithId(session, seq, id), doc! { "$unset": { "need": "" } }).await.map(drop)
    }

    async fn expired_answers(
        &self,
        before: Timestamp,
        after: Option<LeaseCursor>,
        limit: u32,
    ) -> StoreResult<LeasePage> {
        let found = self.find(Query::Expired(before, after), limit).await?;
        let rows = found
            .iter()
            .map(|row| Ok((record::entry::read_lease(row), record::entry::read_or_skip(row, &self.unreadable)?)));
        Ok(lease_page(rows.collect::<StoreResult<_>>()?, limit))
    }

    async fn unanswered_between(&self, from: Timestamp, before: Timestamp, limit: u32) -> StoreResult<Vec<EntryRow>> {
        self.entries(Query::UnansweredBetween(from, before), limit).await
    }

    async fn reserve_usage(&self, reservation: &Reservation, allowance: &Allowance) -> StoreResult<bool> {
        self.reserve(reservation, allowance).await
    }

    async fn record_usage(&self, record: &UsageRecord) -> StoreResult<UsageRecord> {
        let first = self.insert_record(record).await?;
        self.settle(&first).await?;
        Ok(first)
    }

    async fn open_reservations(&self, user: &UserId) -> StoreResult<Vec<Reservation>> {
        self.reservations(Query::OpenOf(user), u32::MAX).await
    }

    async fn expired_reservations(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<Reservation>> {
        let mut expired = self.reservations(Query::OpenExpired(now), limit).await?;
        expired.retain(|reservation| reservation.expires_at < now);
        expired.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(expired)
    }

    async fn session_usage(&self, session: SessionId) -> StoreResult<UsageSum> {
        self.sum(Query::RecordsOf(session)).await
    }

    async fn save_session_usage(&self, session: SessionId, usage: &UsageSum) -> StoreResult<()> {
        let update = doc! { "$set": document(&record::usage::sum_fields(usage)?) };
        self.update(Query::UsageUpTo(session, usage.calls), update).await.map(drop)
    }

    async fn user_usage(&self, user: &UserId, from: Day, limit: u32) -> StoreResult<Vec<DayUsage>> {
        let found = self.find(Query::AccountsFrom(user, from), limit).await?;
        let accounts = found.iter().map(|row| self.unreadable.skip("accounts", None, record::usage::read_account(row)));
        accounts.filter_map(Result::transpose).collect()
    }
}

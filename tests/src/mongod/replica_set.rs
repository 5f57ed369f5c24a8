//! A replica set of three members, of which a test can take a majority away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, doc};
use rustix::process::Signal;
use tokio::time::sleep;

use super::{Mongod, SET};
use crate::harness::process::signal;
use crate::harness::waits::eventually_within;

/// Three members; the first one is the primary.
#[derive(Debug)]
pub struct ReplicaSet {
    members: [Mongod; 3],
}

impl ReplicaSet {
    /// How long a primary that has lost its majority stays primary. Longer than a request may take: within this time a
    /// write that does not wait for a majority succeeds.
    pub const STAYS_PRIMARY: Duration = Duration::from_secs(15);

    /// Starts three members and waits until the first one takes writes and the others follow.
    ///
    /// # Errors
    /// They do not become ready.
    pub async fn start() -> Result<Self> {
        let set = Self { members: [Mongod::spawned(true)?, Mongod::spawned(true)?, Mongod::spawned(true)?] };
        let client = set.members[0].client().await?;
        let admin = client.database("admin");
        let config = set.config(1, Duration::from_secs(1))?;
        eventually_within(super::READY_WITHIN, "a replica set of three", || async {
            let status: Document = match admin.run_command(doc! { "replSetGetStatus": 1 }).await {
                Ok(status) => status,
                Err(_) => admin.run_command(doc! { "replSetInitiate": config.clone() }).await?,
            };
            let members = status.get_array("members").context("not initiated yet")?;
            let states: Vec<_> = members.iter().filter_map(|it| it.as_document()?.get_i32("state").ok()).collect();
            ensure!(states == [1, 2, 2], "member states {states:?}");
            Ok(())
        })
        .await?;
        let config = set.config(2, Self::STAYS_PRIMARY)?;
        eventually_within(super::READY_WITHIN, "the long election timeout", || async {
            // Refused until the new primary takes writes.
            Ok(admin.run_command(doc! { "replSetReconfig": config.clone() }).await?)
        })
        .await?;
        Ok(set)
    }

    /// The connection string.
    pub fn uri(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(Mongod::host).collect();
        format!("mongodb://{}/?replicaSet={SET}", hosts.join(","))
    }

    /// Pauses both secondaries: the primary still takes writes, and no majority confirms them.
    ///
    /// # Errors
    /// A signal could not be sent.
    pub async fn pause_secondaries(&self) -> Result<()> {
        self.signal_secondaries(Signal::STOP)?;
        // Let the replication of earlier writes end.
        sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    /// Continues both secondaries.
    ///
    /// # Errors
    /// A signal could not be sent.
    pub fn continue_secondaries(&self) -> Result<()> {
        self.signal_secondaries(Signal::CONT)
    }

    fn signal_secondaries(&self, which: Signal) -> Result<()> {
        self.members[1..].iter().try_for_each(|member| signal(member.pid().context("a member has ended")?, which))
    }

    /// The secondaries have priority 0: only the first member can become primary.
    fn config(&self, version: i32, election_timeout: Duration) -> Result<Document> {
        let members =
            self.members.iter().zip(0_i32..).map(|(member, id)| {
                Bson::from(doc! { "_id": id, "host": member.host(), "priority": i32::from(id == 0) })
            });
        let election_timeout = i32::try_from(election_timeout.as_millis())?;
        Ok(doc! {
            "_id": SET,
            "version": version,
            "members": members.collect::<Vec<_>>(),
            "settings": { "electionTimeoutMillis": election_timeout, "heartbeatIntervalMillis": 200 },
        })
    }
}

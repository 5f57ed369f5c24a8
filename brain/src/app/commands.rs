//! The commands of the program besides serving. Each one opens the store, does one thing and ends.

use chatbox_shared::ids::UserId;

use super::open_store::{Access, connect};
use crate::config::BrainConfig;
use crate::ledger::Day;

/// Days read in one query.
const USAGE_PAGE: u32 = 100;

/// Creates missing tables and indexes.
///
/// # Errors
/// If the store cannot be reached or refuses.
pub async fn migrate(config: BrainConfig) -> anyhow::Result<bool> {
    let store = connect(&config, Access::Exclusive).await?;
    store.migrate().await?;
    tracing::info!("the store is up to date");
    Ok(true)
}

/// Reports what a user has used on each day from `from` on, oldest first, as one line of JSON per day.
///
/// # Errors
/// If the store cannot be reached.
pub async fn usage(config: BrainConfig, user: String, from: Day, mut say: impl FnMut(&str)) -> anyhow::Result<bool> {
    let store = connect(&config, Access::Shared).await?;
    let user = UserId::new(user);
    let mut next = Some(from);
    while let Some(from) = next {
        let days = store.user_usage(&user, from, USAGE_PAGE).await?;
        for day in &days {
            say(&day.to_json().to_string());
        }
        let full = days.len() >= USAGE_PAGE as usize;
        next = days.last().filter(|_| full).and_then(|last| last.day.next());
    }
    Ok(true)
}

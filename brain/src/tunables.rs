//! What can be changed without a restart: the models with their prompts, prices and limits, the sizes clients must keep to,
//! what users may use. All of it is put in force at once; whoever needs it takes what is in force at that moment.

use std::sync::Arc;

use chatbox_shared::clock::Clock;
use tokio::sync::watch;

use crate::config::BrainConfig;
use crate::ledger::Allowance;
use crate::llm::catalog::{Catalog, CatalogError};
use crate::llm::endpoint::Endpoints;
use crate::session::requests::ChatLimits;

/// Billionths in one unit of the currency.
const BILLIONTHS: f64 = 1e9;

/// One state of everything that can be changed.
pub struct Tunables {
    /// The models.
    pub catalog: Catalog,
    /// Sizes a client must keep to.
    pub limits: ChatLimits,
    /// Connections one user may hold.
    pub connections_per_user: usize,
    /// What a user may use on one day.
    pub allowance: Allowance,
    /// The model that thinks of names; `None` leaves them as they are made from the first message.
    pub naming_model: Option<String>,
}

impl Tunables {
    /// What this configuration means.
    ///
    /// # Errors
    /// Where the models cannot be used.
    pub fn new(config: &BrainConfig, clock: &Arc<dyn Clock>, endpoints: &Endpoints) -> Result<Self, CatalogError> {
        let default_model = &config.answers.default_model;
        Ok(Self {
            catalog: Catalog::build(&config.models, &config.provider, default_model, clock, endpoints)?,
            limits: ChatLimits {
                max_content_chars: config.limits.max_content_chars as usize,
                max_name_chars: config.limits.max_name_chars as usize,
                replay_entries: u64::from(config.limits.replay_entries),
            },
            connections_per_user: config.limits.connections_per_user,
            allowance: allowance(config),
            naming_model: Some(config.answers.naming_model.clone()).filter(|id| !id.is_empty()),
        })
    }
}

fn allowance(config: &BrainConfig) -> Allowance {
    let quotas = &config.quotas;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
    let cost = (quotas.cost_per_day * BILLIONTHS).round() as u64;
    Allowance {
        tokens: Some(quotas.tokens_per_day).filter(|tokens| *tokens > 0),
        cost: Some(cost).filter(|cost| *cost > 0),
    }
}

/// What is in force.
pub struct Current(watch::Sender<Arc<Tunables>>);

impl Current {
    /// With this at first.
    pub fn new(tunables: Tunables) -> Self {
        Self(watch::Sender::new(Arc::new(tunables)))
    }

    /// What is in force now. Whoever holds on to it goes on with it.
    pub fn get(&self) -> Arc<Tunables> {
        Arc::clone(&self.0.borrow())
    }

    /// Puts other ones in force.
    pub fn replace(&self, tunables: Tunables) {
        self.0.send_replace(Arc::new(tunables));
    }

    /// Tells when others are in force.
    pub fn changes(&self) -> watch::Receiver<Arc<Tunables>> {
        self.0.subscribe()
    }
}

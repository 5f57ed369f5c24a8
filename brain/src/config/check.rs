//! The rules for settings that have the right type: ranges, and values that cannot work together.

use chatbox_shared::config::ConfigErrors;
use secrecy::ExposeSecret;

use super::{BrainConfig, StoreKind};
use crate::llm::config as llm;
use crate::store::mongo::check_uri;

/// Characters that MongoDB allows in no database name.
const NOT_IN_A_DATABASE: [char; 6] = ['/', '\\', '.', '"', '$', ' '];

impl BrainConfig {
    pub(super) fn validate_store(&self, faults: &mut ConfigErrors) {
        faults.ensure((100..=60_000).contains(&self.store.timeout_ms), "store.timeout_ms", "must be 100 to 60000");
        let mongodb = &self.store.mongodb;
        match self.store.kind {
            StoreKind::Sqlite => {
                self.validate_sqlite(faults);
            }
            StoreKind::Mongodb => {
                let missing = "missing: set CHATBOX__STORE__MONGODB__URI or store.mongodb.uri_file";
                match &mongodb.uri {
                    None => faults.add("store.mongodb.uri", missing),
                    Some(uri) => {
                        if let Err(reason) = check_uri(uri.expose_secret()) {
                            faults.add("store.mongodb.uri", reason);
                        }
                    }
                }
                let names = (1..=63).contains(&mongodb.database.len()) && !mongodb.database.contains(NOT_IN_A_DATABASE);
                let reason = "must have 1 to 63 bytes, none of them / \\ . \" $ or a blank";
                faults.ensure(names, "store.mongodb.database", reason);
                let pool = 1..=1000;
                faults.ensure(
                    pool.contains(&mongodb.max_pool_size),
                    "store.mongodb.max_pool_size",
                    "must be 1 to 1000",
                );
            }
        }
    }

    pub(super) fn validate_sqlite(&self, faults: &mut ConfigErrors) {
        let path = &self.store.sqlite.path;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        faults.ensure(path.file_name().is_some(), "store.sqlite.path", "must name a file");
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            faults.add("store.sqlite.path", format!("the folder {} does not exist", folder.display()));
        }
    }

    /// Both ports are bound by this process, so the second of two equal addresses could not be.
    pub(super) fn validate_addresses(&self, faults: &mut ConfigErrors) {
        let (link, ops) = (self.brain.listen, self.ops.listen);
        let overlap = link.ip() == ops.ip() || link.ip().is_unspecified() || ops.ip().is_unspecified();
        let same = link.port() == ops.port() && link.port() != 0 && overlap;
        faults.ensure(!same, "ops.listen", format!("has the same port as brain.listen ({link})"));
    }

    pub(super) fn validate_answers(&self, faults: &mut ConfigErrors) {
        let answers = &self.answers;
        faults.ensure((1000..=60_000).contains(&answers.lease_ms), "answers.lease_ms", "must be 1000 to 60000");
        let checkpoint = 100..=answers.lease_ms / 2;
        let reason =
            "must be at least 100 and at most half of answers.lease_ms, or the lease runs out between two saves";
        faults.ensure(checkpoint.contains(&answers.checkpoint_ms), "answers.checkpoint_ms", reason);
        faults.ensure(answers.checkpoint_bytes >= 1, "answers.checkpoint_bytes", "must be at least 1");
        let sweep = 100..=60_000;
        faults.ensure(sweep.contains(&answers.sweep_interval_ms), "answers.sweep_interval_ms", "must be 100 to 60000");
        faults.ensure((1..=100).contains(&answers.max_attempts), "answers.max_attempts", "must be 1 to 100");
        let naming = &answers.naming_model;
        let known = naming.is_empty() || self.models.iter().any(|model| model.id == *naming);
        faults.ensure(known, "answers.naming_model", format!("there is no model \"{naming}\" in [[models]]"));
        let cost = self.quotas.cost_per_day;
        let sound = (0.0..=1e9).contains(&cost);
        faults.ensure(sound, "quotas.cost_per_day", "must be 0 (no limit) to 1000000000");
        let priced = cost == 0.0 || self.models.iter().any(|model| model.input_price.is_some());
        faults.ensure(priced, "quotas.cost_per_day", "needs a model with prices");
        faults.ensure(self.reload.watch_seconds <= 86_400, "reload.watch_seconds", "must be 86400 (a day) or less");
        for error in llm::validate(&self.models, &self.provider, &answers.default_model) {
            faults.add(error.key, error.reason);
        }
    }
}

//! The rules for settings that have the right type: ranges, and values that cannot be used together.

use chatbox_shared::config::{ConfigErrors, process_name, same_address, within};
use secrecy::ExposeSecret;

use super::{BrainConfig, StoreKind};
use crate::llm::config as llm;
use crate::store::mongo::check_uri;

/// Characters that MongoDB does not allow in a database name.
const NOT_IN_A_DATABASE: [char; 6] = ['/', '\\', '.', '"', '$', ' '];

impl BrainConfig {
    pub(super) fn validate_brain(&self, errors: &mut ConfigErrors) {
        process_name(errors, "brain.id", &self.brain.id);
        let listen = self.brain.listen;
        let reason = format!("must not be the address of brain.listen ({listen})");
        errors.ensure(!same_address(listen, self.ops.listen), "ops.listen", reason);
    }

    pub(super) fn validate_store(&self, errors: &mut ConfigErrors) {
        within(errors, "store.timeout_ms", self.store.timeout_ms, 100, 60_000);
        match self.store.kind {
            StoreKind::Sqlite => self.validate_sqlite(errors),
            StoreKind::Mongodb => self.validate_mongodb(errors),
        }
    }

    fn validate_sqlite(&self, errors: &mut ConfigErrors) {
        let path = &self.store.sqlite.path;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        errors.ensure(path.file_name().is_some(), "store.sqlite.path", "must name a file");
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            errors.add("store.sqlite.path", format!("the folder {} does not exist", folder.display()));
        }
    }

    fn validate_mongodb(&self, errors: &mut ConfigErrors) {
        let mongodb = &self.store.mongodb;
        let missing = "missing: set CHATBOX__STORE__MONGODB__URI or store.mongodb.uri_file";
        match mongodb.uri.as_ref().map(|uri| check_uri(uri.expose_secret())) {
            None => errors.add("store.mongodb.uri", missing),
            Some(Err(reason)) => errors.add("store.mongodb.uri", reason),
            Some(Ok(())) => {}
        }
        let database = &mongodb.database;
        let valid = (1..=63).contains(&database.len()) && !database.contains(NOT_IN_A_DATABASE);
        let reason = "must have 1 to 63 bytes, none of them / \\ . \" $ or a blank";
        errors.ensure(valid, "store.mongodb.database", reason);
        within(errors, "store.mongodb.max_pool_size", mongodb.max_pool_size, 1, 1000);
    }

    pub(super) fn validate_answers(&self, errors: &mut ConfigErrors) {
        let answers = &self.answers;
        within(errors, "answers.lease_ms", answers.lease_ms, 1000, 60_000);
        let checkpoint = 100..=answers.lease_ms / 2;
        let reason =
            "must be at least 100 and at most half of answers.lease_ms, or the lease runs out between two saves";
        errors.ensure(checkpoint.contains(&answers.checkpoint_ms), "answers.checkpoint_ms", reason);
        errors.ensure(answers.checkpoint_bytes >= 1, "answers.checkpoint_bytes", "must be at least 1");
        within(errors, "answers.sweep_interval_ms", answers.sweep_interval_ms, 100, 60_000);
        within(errors, "answers.max_attempts", answers.max_attempts, 1, 100);
        let naming = &answers.naming_model;
        let known = naming.is_empty() || self.models.iter().any(|model| model.id == *naming);
        errors.ensure(known, "answers.naming_model", format!("there is no model \"{naming}\" in [[models]]"));
        let cost = self.quotas.cost_per_day;
        within(errors, "quotas.cost_per_day", cost, 0.0, 1e9);
        let priced = cost == 0.0 || self.models.iter().any(|model| model.input_price.is_some());
        errors.ensure(priced, "quotas.cost_per_day", "needs a model with prices");
        for error in llm::validate(&self.models, &self.provider, &answers.default_model) {
            errors.add(error.key, error.reason);
        }
    }

    pub(super) fn validate_limits(&self, errors: &mut ConfigErrors) {
        let limits = &self.limits;
        errors.ensure(limits.connections_per_user >= 1, "limits.connections_per_user", "must be at least 1");
        within(errors, "limits.max_content_chars", limits.max_content_chars, 1, 1_000_000);
        let open = limits.open_sessions_per_connection;
        within(errors, "limits.open_sessions_per_connection", open, 1, 1000);
        within(errors, "limits.replay_entries", limits.replay_entries, 1, 10_000);
        within(errors, "limits.max_name_chars", limits.max_name_chars, 1, 1000);
        within(errors, "limits.max_reason_chars", limits.max_reason_chars, 1, 10_000);
    }
}

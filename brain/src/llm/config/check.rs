//! The rules for one `[[models]]` table by itself.

use super::error::{SettingError, SettingErrors};
use super::model::ModelConfig;
use super::provider::VALID;
use crate::llm::anthropic;
use crate::llm::kind::Kind;
use crate::llm::tokens::TokenCounter;

impl ModelConfig {
    /// All errors of this model by itself; keys are relative to its table.
    pub fn validate(&self) -> Vec<SettingError> {
        let mut errors = SettingErrors(self.calls(&VALID).validate());
        let is_id = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
        if self.id.is_empty() {
            errors.add("id", "is missing");
        } else if self.id.len() > 64 || !self.id.chars().all(is_id) {
            errors.add("id", "must be at most 64 letters, digits or any of - _ . : / @");
        }
        let (context, output) = (self.context_tokens(), self.max_output_tokens());
        if output == 0 {
            errors.add("max_output_tokens", "must be at least 1");
        }
        if context <= output {
            errors.add("context_tokens", format!("must be more than max_output_tokens ({output})"));
        }
        for (key, price) in [
            ("input_price", self.input_price),
            ("cached_input_price", self.cached_input_price),
            ("output_price", self.output_price),
        ] {
            if price.is_some_and(|price| !(0.0..=1_000_000.0).contains(&price)) {
                errors.add(key, "must be between 0 and 1000000 for a million tokens");
            }
        }
        if self.input_price.is_some() != self.output_price.is_some() {
            errors.add("output_price", "and input_price must be set together");
        }
        if self.cached_input_price.is_some() && self.input_price.is_none() {
            errors.add("cached_input_price", "is set without input_price");
        }
        match Kind::parse(&self.provider) {
            Some(kind) => self.validate_kind(kind, &mut errors),
            None if self.provider.is_empty() => {
                errors.add("provider", "is missing; expected openai, anthropic, dify or demo")
            }
            None => {
                errors.add("provider", format!("must be openai, anthropic, dify or demo, not \"{}\"", self.provider))
            }
        }
        errors.0
    }

    fn validate_kind(&self, kind: Kind, errors: &mut SettingErrors) {
        let takes_instructions = matches!(kind, Kind::OpenAi | Kind::Anthropic);
        if takes_instructions && self.model.is_empty() {
            errors.add("model", "is missing; expected the provider's name of the model");
        }
        for (key, is_set, has_effect) in [
            ("model", !self.model.is_empty(), takes_instructions),
            ("system_prompt", !self.system_prompt.is_empty(), takes_instructions),
            ("temperature", self.temperature.is_some(), takes_instructions),
            ("base_url", !self.base_url.is_empty(), kind != Kind::Demo),
            ("api_key_env", !self.api_key_env.is_empty(), kind != Kind::Demo),
            ("api_key_file", !self.api_key_file.is_empty(), kind != Kind::Demo),
            ("max_tokens_field", !self.max_tokens_field.is_empty(), kind == Kind::OpenAi),
            ("auth_header", !self.auth_header.is_empty(), kind == Kind::OpenAi),
            ("api_version", !self.api_version.is_empty(), takes_instructions),
        ] {
            if is_set && !has_effect {
                errors.add(key, format!("is not supported by provider \"{}\"", self.provider));
            }
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            errors.add("temperature", "must be between 0 and 2");
        }
        if self.temperature.is_some() && kind == Kind::Anthropic && self.anthropic_version() == anthropic::VERSION {
            errors.add("temperature", format!("is not supported by api_version \"{}\"", anthropic::VERSION));
        }
        if let Err(error) = TokenCounter::check(&self.tokenizer) {
            errors.add("tokenizer", error.to_string());
        }
        if self.max_tokens_field().is_none() {
            errors.add("max_tokens_field", "must be \"max_completion_tokens\" or \"max_tokens\"");
        }
        if self.auth_header().is_none() {
            errors.add("auth_header", "must be \"authorization\" or \"api-key\"");
        }
        if kind != Kind::Demo {
            if let Err(reason) = self.base_url(kind) {
                errors.add("base_url", reason);
            }
            self.validate_key(kind, errors);
        }
    }

    fn validate_key(&self, kind: Kind, errors: &mut SettingErrors) {
        match self.api_key() {
            Err(error) => errors.0.push(error),
            Ok(Some(_)) => {}
            // Local servers of these protocols need no key; the providers themselves and every Dify do.
            Ok(None) if kind != Kind::Dify && !self.base_url.is_empty() => {}
            Ok(None) => errors.add("api_key_env", "is missing; this provider needs a key (or set api_key_file)"),
        }
    }
}

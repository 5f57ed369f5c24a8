//! `[auth]`: the keys and the rules that tokens are verified with.

use std::path::Path;
use std::time::Duration;

use chatbox_shared::auth::{self, AcceptedTypes, JwksOptions, JwksSource, MIN_JWKS_INTERVAL, Rules};
use chatbox_shared::config::{ConfigErrors, within};
use prometheus_client::metrics::gauge::Gauge;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

/// `[auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSection {
    /// The HS256 secret, from the environment or from its file.
    #[serde(default)]
    pub hs256_secret: Option<SecretString>,
    /// The file with the secret. It is read while the settings are loaded.
    pub hs256_secret_file: String,
    /// The path of a JWKS document.
    pub jwks_file: String,
    /// The URL of a JWKS document.
    pub jwks_url: String,
    /// Seconds between two downloads of the JWKS document.
    pub jwks_refresh_seconds: u64,
    /// Whether the URL may be `http://`.
    pub insecure_jwks_url: bool,
    /// Seconds for which downloads may fail until the last keys are no longer used.
    pub jwks_max_stale_seconds: u64,
    /// The accepted types of tokens.
    pub accepted_types: Vec<String>,
    /// The required `iss` claim. Empty: not checked.
    pub issuer: String,
    /// The required `aud` claim. Empty: not checked.
    pub audience: String,
    /// Whether the token may be the parameter `token` of the URL.
    pub allow_query_token: bool,
    /// The allowed difference of clocks, in seconds.
    pub leeway_seconds: u64,
}

impl AuthSection {
    pub(super) fn validate(&self, errors: &mut ConfigErrors) {
        if let Some(secret) = &self.hs256_secret
            && let Err(weak) = auth::check_secret(secret.expose_secret())
        {
            errors.add("auth.hs256_secret", format!("the secret {weak}"));
        }
        let (file, url) = (!self.jwks_file.is_empty(), !self.jwks_url.is_empty());
        // A secret file that cannot be read was already reported.
        let secret = self.hs256_secret.is_some() || !self.hs256_secret_file.is_empty();
        let keys = "there is no key to verify tokens: set CHATBOX__AUTH__HS256_SECRET (or auth.hs256_secret_file), \
                    auth.jwks_file or auth.jwks_url";
        errors.ensure(secret || file || url, "auth", keys);
        errors.ensure(!(file && url), "auth.jwks_url", "must not be set together with auth.jwks_file");
        if file && let Err(error) = auth::check_jwks_file(Path::new(&self.jwks_file)) {
            errors.add("auth.jwks_file", error);
        }
        if url {
            self.validate_url(errors);
        }
        within(errors, "auth.jwks_refresh_seconds", self.jwks_refresh_seconds, MIN_JWKS_INTERVAL.as_secs(), 86_400);
        within(errors, "auth.jwks_max_stale_seconds", self.jwks_max_stale_seconds, 60, 7 * 86_400);
        let named = !self.accepted_types.is_empty() && self.accepted_types.iter().all(|name| !name.is_empty());
        errors.ensure(named, "auth.accepted_types", "must have at least one type, and no empty one");
        within(errors, "auth.leeway_seconds", self.leeway_seconds, 0, 300);
    }

    fn validate_url(&self, errors: &mut ConfigErrors) {
        let scheme = Url::parse(&self.jwks_url).ok().filter(Url::has_host).map(|url| url.scheme().to_owned());
        match scheme.as_deref() {
            Some("https") => {}
            Some("http") => errors.ensure(
                self.insecure_jwks_url,
                "auth.jwks_url",
                "must be https://, because whoever changes an http:// response can sign tokens; for a network that nobody else \
                 can reach set auth.insecure_jwks_url = true",
            ),
            _ => errors.add("auth.jwks_url", "must be an https URL"),
        }
    }

    /// Whether the keys come over plain HTTP.
    pub(super) fn is_jwks_insecure(&self) -> bool {
        self.jwks_url.starts_with("http://")
    }

    /// The options of the token verifier. `jwks_stale` is the metric of failing downloads.
    pub fn options(&self, jwks_stale: Gauge) -> auth::Options {
        let source = if self.jwks_file.is_empty() {
            Url::parse(&self.jwks_url).ok().map(JwksSource::Url)
        } else {
            Some(JwksSource::File(self.jwks_file.clone().into()))
        };
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        auth::Options {
            hs256_secret: self.hs256_secret.clone(),
            jwks: source.map(|source| JwksOptions {
                source,
                refresh: Duration::from_secs(self.jwks_refresh_seconds),
                max_stale: Duration::from_secs(self.jwks_max_stale_seconds),
                stale_seconds: jwks_stale,
            }),
            rules: Rules {
                issuer: given(&self.issuer),
                audience: given(&self.audience),
                leeway: Duration::from_secs(self.leeway_seconds),
                types: AcceptedTypes::new(self.accepted_types.iter().cloned()),
            },
        }
    }
}

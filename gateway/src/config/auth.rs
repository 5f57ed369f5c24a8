//! `[auth]`: the keys and the rules that tokens are verified with.

use std::path::Path;
use std::time::Duration;

use chatbox_shared::auth::{self, JwksSource, MIN_JWKS_INTERVAL, Rules};
use chatbox_shared::config::{ConfigErrors, within};
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
        if url
            && !Url::parse(&self.jwks_url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
        {
            errors.add("auth.jwks_url", "must be an http or https URL");
        }
        within(errors, "auth.jwks_refresh_seconds", self.jwks_refresh_seconds, MIN_JWKS_INTERVAL.as_secs(), 86_400);
        within(errors, "auth.leeway_seconds", self.leeway_seconds, 0, 300);
    }

    /// The options of the token verifier.
    pub fn options(&self) -> auth::Options {
        let source = if self.jwks_file.is_empty() {
            Url::parse(&self.jwks_url).ok().map(JwksSource::Url)
        } else {
            Some(JwksSource::File(self.jwks_file.clone().into()))
        };
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        auth::Options {
            hs256_secret: self.hs256_secret.clone(),
            jwks: source.map(|source| (source, Duration::from_secs(self.jwks_refresh_seconds))),
            rules: Rules {
                issuer: given(&self.issuer),
                audience: given(&self.audience),
                leeway: Duration::from_secs(self.leeway_seconds),
            },
        }
    }
}

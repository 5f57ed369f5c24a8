//! The verifier of tokens: it picks the key for a token's algorithm, then checks the signature and the claims.
//!
//! The time is a parameter (a [`Clock`]).

use std::sync::Arc;

use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString};

use super::claims::{Rules, Verified};
use super::jwks::{Jwks, JwksError, JwksOptions};
use super::secret::{WeakSecret, check_secret};
use super::token::{Algorithm, Token, TokenError};
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;

/// The parameters of [`TokenVerifier::new`].
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The HS256 secret; see [`check_secret`].
    pub hs256_secret: Option<SecretString>,
    /// The public keys.
    pub jwks: Option<JwksOptions>,
    /// Requirements on the claims.
    pub rules: Rules,
}

/// Why no verifier can be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The HS256 secret is weak.
    #[error("the HS256 secret {0}")]
    Secret(#[from] WeakSecret),
    /// The JWKS cannot be used.
    #[error("the JWKS cannot be used: {0}")]
    Jwks(#[from] JwksError),
    /// Neither a secret nor a JWKS is configured.
    #[error("no key is configured, so tokens cannot be checked")]
    NoKey,
}

/// Checks tokens. Share it behind an [`Arc`].
pub struct TokenVerifier {
    hs256: Option<DecodingKey>,
    jwks: Option<Arc<Jwks>>,
    rules: Rules,
    clock: Arc<dyn Clock>,
}

impl TokenVerifier {
    /// A verifier for these keys. A task of `lifecycle` refreshes a JWKS until the drain begins. A URL that cannot be
    /// reached yet is not an error.
    ///
    /// # Errors
    /// Where the secret is weak, a JWKS file holds no usable key, or no key is configured.
    pub fn new(options: Options, clock: Arc<dyn Clock>, lifecycle: &Lifecycle) -> Result<Self, AuthError> {
        let hs256 = match &options.hs256_secret {
            Some(secret) => {
                check_secret(secret.expose_secret())?;
                Some(DecodingKey::from_secret(secret.expose_secret().as_bytes()))
            }
            None => None,
        };
        let jwks = match &options.jwks {
            Some(options) => Some(Jwks::start(options, lifecycle)?),
            None => None,
        };
        if hs256.is_none() && jwks.is_none() {
            return Err(AuthError::NoKey);
        }
        Ok(Self { hs256, jwks, rules: options.rules, clock })
    }

    /// Checks the signature and the claims of a token in compact form. Waits (at most a few seconds) only where the token
    /// names an unknown key.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        let token = Token::parse(token)?;
        if !self.rules.types.allows_header(token.typ.as_deref()) {
            return Err(TokenError::Type);
        }
        match token.algorithm {
            Algorithm::Hs256 => token.check_signature(self.hs256.as_ref().ok_or(TokenError::Algorithm)?)?,
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => {
                let jwks = self.jwks.as_ref().ok_or(TokenError::Algorithm)?;
                let key = jwks.key(token.algorithm, token.kid.as_deref()).await?;
                token.check_signature(&key)?;
            }
        }
        self.rules.check(token.payload, self.clock.now())
    }

    /// True if any token can be checked now. False only without a secret, while the JWKS was never read or could not be read
    /// for too long.
    pub fn has_keys(&self) -> bool {
        self.hs256.is_some() || self.jwks.as_ref().is_some_and(|jwks| jwks.is_usable())
    }
}

/// Keys are never shown.
impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("hs256", &self.hs256.is_some())
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

//! Who is calling: JSON Web Tokens checked against an allow-list of algorithms, each pinned to a key of its own kind.
//!
//! Nothing in a token chooses where keys come from: `jku`, `x5u` and `jwk` headers are never looked at. The time is a
//! parameter, so expiry can be tested without waiting.

mod claims;
mod jwks;
mod secret;
mod token;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString};

use crate::clock::{Clock, Timestamp};
use crate::ids::UserId;
use crate::lifecycle::Lifecycle;

pub use claims::Rules;
pub use jwks::{JwksError, JwksSource, MIN_INTERVAL as MIN_JWKS_INTERVAL, check_jwks_file};
pub use secret::{WeakSecret, check_secret};

use jwks::Jwks;
use token::{Algorithm, Token};

/// The role that opens the admin operations.
pub const ADMIN: &str = "admin";

/// The one who calls, as the token said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The `sub` claim.
    pub user: UserId,
    /// The `name` claim; never empty.
    pub name: Option<String>,
    /// The `roles` claim.
    pub roles: Vec<String>,
}

impl Principal {
    /// May this caller use the admin operations?
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == ADMIN)
    }
}

/// What a token that was accepted says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who it is.
    pub principal: Principal,
    /// From this moment on the token is refused: its `exp` plus the leeway, so it lies in the future.
    pub expires_at: Timestamp,
}

/// Why a token was refused. For the log only: a client is told no more than `unauthorized`. Never contains any part of
/// the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`token::MAX_BYTES`].
    #[error("the token is longer than {} bytes", token::MAX_BYTES)]
    TooLong,
    /// Not three parts of base64url around JSON objects.
    #[error("the token is not a signed JWT in compact form")]
    Malformed,
    /// `none`, a misspelling, or an algorithm nobody configured.
    #[error("the token's algorithm is not allowed here")]
    Algorithm,
    /// No key of this kind under this `kid`.
    #[error("no key fits the token")]
    UnknownKey,
    /// The signature does not fit the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Not from the configured issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// Not meant for the configured audience.
    #[error("the token is for another audience")]
    Audience,
    /// A claim is absent or of the wrong type or size.
    #[error("the token's claim {0} is absent or not as it must be")]
    Claim(&'static str),
}

impl TokenError {
    /// A short stable name for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim(_) => "claim",
        }
    }
}

/// What [`TokenVerifier::new`] is made from.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The HS256 secret; see [`check_secret`].
    pub hs256_secret: Option<SecretString>,
    /// Where the public keys are, and how often they are read again.
    pub jwks: Option<(JwksSource, Duration)>,
    /// What the claims must say.
    pub rules: Rules,
}

/// A configuration no verifier can be made from.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The HS256 secret can be guessed.
    #[error("the HS256 secret {0}")]
    Secret(#[from] WeakSecret),
    /// The JWKS cannot be used.
    #[error("the JWKS cannot be used: {0}")]
    Jwks(#[from] JwksError),
    /// Neither a secret nor a JWKS.
    #[error("no key is configured: tokens cannot be checked")]
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
    /// A verifier for these keys. A JWKS is kept fresh by a task of `lifecycle` until the drain begins; a URL that
    /// cannot be reached yet is no error.
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
            Some((source, refresh)) => Some(Jwks::start(source, *refresh, lifecycle)?),
            None => None,
        };
        if hs256.is_none() && jwks.is_none() {
            return Err(AuthError::NoKey);
        }
        Ok(Self { hs256, jwks, rules: options.rules, clock })
    }

    /// Checks the signature and the claims of a token in compact form. Waits at most a few seconds, and only when the
    /// token names a key that is not known yet.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        let token = Token::parse(token)?;
        match token.algorithm {
            Algorithm::Hs256 => token.check_signature(self.hs256.as_ref().ok_or(TokenError::Algorithm)?)?,
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => {
                let jwks = self.jwks.as_ref().ok_or(TokenError::Algorithm)?;
                let key = jwks.key(token.algorithm, token.kid.as_deref()).await.ok_or(TokenError::UnknownKey)?;
                token.check_signature(&key)?;
            }
        }
        self.rules.check(token.payload, self.clock.now())
    }

    /// Could any token be checked now? False only while a JWKS has never been read and there is no secret.
    pub fn has_keys(&self) -> bool {
        self.hs256.is_some() || self.jwks.as_ref().is_some_and(|jwks| jwks.is_loaded())
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

/// How far clocks may differ where nothing else is configured.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;

//! Who is calling: JSON Web Tokens checked against an allow-list of algorithms, each pinned to a key of its own kind.
//!
//! Nothing in a token chooses where keys come from: `jku`, `x5u` and `jwk` headers are never looked at. The time is a
//! parameter, so expiry can be tested without waiting.

mod claims;
mod secret;
mod token;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString};

use crate::clock::{Clock, Timestamp};
use crate::ids::UserId;

pub use claims::Rules;
pub use secret::{WeakSecret, check_secret};

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
    /// What the claims must say.
    pub rules: Rules,
}

/// A configuration no verifier can be made from.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The HS256 secret can be guessed.
    #[error("the HS256 secret {0}")]
    Secret(#[from] WeakSecret),
    /// Neither a secret nor a JWKS.
    #[error("no key is configured: tokens cannot be checked")]
    NoKey,
}

/// Checks tokens. Cheap to share behind an [`Arc`].
pub struct TokenVerifier {
    hs256: Option<DecodingKey>,
    rules: Rules,
    clock: Arc<dyn Clock>,
}

impl TokenVerifier {
    /// A verifier for these keys.
    ///
    /// # Errors
    /// Where the secret is weak or no key is configured.
    pub fn new(options: Options, clock: Arc<dyn Clock>) -> Result<Self, AuthError> {
        let hs256 = match &options.hs256_secret {
            Some(secret) => {
                check_secret(secret.expose_secret())?;
                Some(DecodingKey::from_secret(secret.expose_secret().as_bytes()))
            }
            None => None,
        };
        if hs256.is_none() {
            return Err(AuthError::NoKey);
        }
        Ok(Self { hs256, rules: options.rules, clock })
    }

    /// Checks the signature and the claims of a token in compact form.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        let token = Token::parse(token)?;
        match token.algorithm {
            Algorithm::Hs256 => token.check_signature(self.hs256.as_ref().ok_or(TokenError::Algorithm)?)?,
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => return Err(TokenError::Algorithm),
        }
        self.rules.check(token.payload, self.clock.now())
    }
}

/// Keys are never shown.
impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier").field("hs256", &self.hs256.is_some()).field("rules", &self.rules).finish()
    }
}

/// How far clocks may differ where nothing else is configured.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

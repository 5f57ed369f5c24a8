//! The claims of a token whose signature is valid: the rules they must meet, and the caller they name.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::token::{TokenError, decode_part};
use crate::clock::Timestamp;
use crate::ids::UserId;

/// Clock difference that is tolerated where none is configured.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
/// The role that opens the admin operations.
pub const ADMIN: &str = "admin";
/// Longest `sub`, in characters.
const MAX_SUBJECT_CHARS: usize = 128;
/// Longest `name`, in characters.
const MAX_NAME_CHARS: usize = 256;

/// The caller, as the token names it.
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
    /// True if this caller may use the admin operations.
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == ADMIN)
    }
}

/// The contents of an accepted token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The caller.
    pub principal: Principal,
    /// The token is refused from this time on: its `exp` plus the leeway.
    pub expires_at: Timestamp,
}

/// Requirements on the claims beyond their form.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The required `iss`; `None` accepts any.
    pub issuer: Option<String>,
    /// The required `aud`, or one of a list; `None` accepts any.
    pub audience: Option<String>,
    /// Tolerated difference between the clocks of issuer and service.
    pub leeway: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { issuer: None, audience: None, leeway: DEFAULT_LEEWAY }
    }
}

/// The claims that are read. They are kept as JSON, so that a wrong type differs from an absent claim.
#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    name: Option<Value>,
    roles: Option<Value>,
}

impl Rules {
    /// Checks the claims against these rules and the time.
    pub(super) fn check(&self, payload: &str, now: Timestamp) -> Result<Verified, TokenError> {
        let claims: Claims = decode_part(payload)?;
        let expires_at = numeric_date(claims.exp.as_ref(), "exp")?.ok_or(TokenError::Claim("exp"))?.plus(self.leeway);
        if now >= expires_at {
            return Err(TokenError::Expired);
        }
        if numeric_date(claims.nbf.as_ref(), "nbf")?.is_some_and(|begin| now.plus(self.leeway) < begin) {
            return Err(TokenError::NotYetValid);
        }
        if let Some(issuer) = &self.issuer
            && claims.iss.as_ref().and_then(Value::as_str) != Some(issuer)
        {
            return Err(TokenError::Issuer);
        }
        if let Some(audience) = &self.audience
            && !names_audience(claims.aud.as_ref(), audience)
        {
            return Err(TokenError::Audience);
        }
        let principal = Principal { user: subject(claims.sub)?, name: name(claims.name)?, roles: roles(claims.roles)? };
        Ok(Verified { principal, expires_at })
    }
}

/// A NumericDate: seconds since 1970, perhaps with a fraction. Absent is `None`.
fn numeric_date(value: Option<&Value>, claim: &'static str) -> Result<Option<Timestamp>, TokenError> {
    let Some(value) = value else { return Ok(None) };
    if let Some(seconds) = value.as_i64() {
        return Ok(Some(Timestamp(seconds.saturating_mul(1000))));
    }
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite()).ok_or(TokenError::Claim(claim))?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast of a float saturates, and fractions of a millisecond do not matter"
    )]
    Ok(Some(Timestamp((seconds * 1000.0) as i64)))
}

fn names_audience(claim: Option<&Value>, wanted: &str) -> bool {
    match claim {
        Some(Value::String(audience)) => audience == wanted,
        Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience.as_str() == Some(wanted)),
        _ => false,
    }
}

/// The user id. Control characters are refused, because ids appear in logs and metrics.
fn subject(claim: Option<Value>) -> Result<UserId, TokenError> {
    match claim {
        Some(Value::String(subject))
            if (1..=MAX_SUBJECT_CHARS).contains(&subject.chars().count()) && !subject.chars().any(char::is_control) =>
        {
            Ok(UserId::new(subject))
        }
        _ => Err(TokenError::Claim("sub")),
    }
}

fn name(claim: Option<Value>) -> Result<Option<String>, TokenError> {
    match claim {
        None => Ok(None),
        Some(Value::String(name)) if name.chars().count() <= MAX_NAME_CHARS => {
            Ok(Some(name).filter(|name| !name.is_empty()))
        }
        Some(_) => Err(TokenError::Claim("name")),
    }
}

fn roles(claim: Option<Value>) -> Result<Vec<String>, TokenError> {
    let Some(claim) = claim else { return Ok(Vec::new()) };
    let Value::Array(roles) = claim else { return Err(TokenError::Claim("roles")) };
    roles
        .into_iter()
        .map(|role| match role {
            Value::String(role) => Ok(role),
            _ => Err(TokenError::Claim("roles")),
        })
        .collect()
}

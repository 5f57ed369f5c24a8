//! The claims of a token whose signature is valid: the rules they must meet, and the caller they name.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::kind::AcceptedTypes;
use super::token::{TokenError, decode_part, present};
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
    /// The accepted kinds of token.
    pub types: AcceptedTypes,
}

impl Default for Rules {
    fn default() -> Self {
        Self { issuer: None, audience: None, leeway: DEFAULT_LEEWAY, types: AcceptedTypes::default() }
    }
}

/// The claims that are read. They are kept as JSON, so that a wrong type differs from an absent claim. The times keep
/// `null` apart from an absent claim, because an absent `nbf` restricts nothing.
#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    name: Option<Value>,
    roles: Option<Value>,
    typ: Option<Value>,
    token_use: Option<Value>,
    token_type: Option<Value>,
}

impl Rules {
    /// Checks the claims against these rules and the time.
    pub(super) fn check(&self, payload: &str, now: Timestamp) -> Result<Verified, TokenError> {
        let claims: Claims = decode_part(payload)?;
        if ![&claims.typ, &claims.token_use, &claims.token_type]
            .iter()
            .all(|kind| self.types.allows_claim(kind.as_ref()))
        {
            return Err(TokenError::Type);
        }
        let expires_at =
            numeric_date(claims.exp.as_ref(), "exp")?.ok_or(TokenError::Claim("exp", ABSENT))?.plus(self.leeway);
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

/// What is found where a claim is absent.
const ABSENT: &str = "absent";

/// What a claim is, in words.
fn found(claim: Option<&Value>) -> &'static str {
    match claim {
        None => ABSENT,
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a text",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}

/// A NumericDate: seconds since 1970, perhaps with a fraction. Absent is `None`.
fn numeric_date(value: Option<&Value>, claim: &'static str) -> Result<Option<Timestamp>, TokenError> {
    let Some(value) = value else { return Ok(None) };
    if let Some(seconds) = value.as_i64() {
        return Ok(Some(Timestamp(seconds.saturating_mul(1000))));
    }
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite());
    let seconds = seconds.ok_or(TokenError::Claim(claim, found(Some(value))))?;
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
    let refused = |found| Err(TokenError::Claim("sub", found));
    let Some(Value::String(subject)) = claim else { return refused(found(claim.as_ref())) };
    match subject.chars().count() {
        0 => refused("an empty text"),
        length if length > MAX_SUBJECT_CHARS => refused("a text of more than 128 characters"),
        _ if subject.chars().any(char::is_control) => refused("a text with control characters"),
        _ => Ok(UserId::new(subject)),
    }
}

/// The display name. `null` is no name.
fn name(claim: Option<Value>) -> Result<Option<String>, TokenError> {
    match claim {
        None => Ok(None),
        Some(Value::String(name)) if name.chars().count() <= MAX_NAME_CHARS => {
            Ok(Some(name).filter(|name| !name.is_empty()))
        }
        Some(Value::String(_)) => Err(TokenError::Claim("name", "a text of more than 256 characters")),
        other => Err(TokenError::Claim("name", found(other.as_ref()))),
    }
}

/// The roles. `null` is no role.
fn roles(claim: Option<Value>) -> Result<Vec<String>, TokenError> {
    let roles = match claim {
        None => return Ok(Vec::new()),
        Some(Value::Array(roles)) => roles,
        other => return Err(TokenError::Claim("roles", found(other.as_ref()))),
    };
    let text = |role| match role {
        Value::String(role) => Ok(role),
        _ => Err(TokenError::Claim("roles", "a list with an element that is not a text")),
    };
    roles.into_iter().map(text).collect()
}

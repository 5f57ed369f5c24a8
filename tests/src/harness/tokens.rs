//! Tokens of an identity service, and of an attacker.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chatbox_shared::clock::{Clock, SystemClock};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemClock.now().0 / 1000
}

/// The claims of an ordinary user, valid for an hour.
pub fn claims(user: &str) -> Value {
    json!({ "sub": user, "exp": now() + 3600 })
}

/// The claims of an administrator, valid for an hour.
pub fn admin_claims(user: &str) -> Value {
    json!({ "sub": user, "name": user, "roles": ["admin"], "exp": now() + 3600 })
}

/// A token signed with HS256.
///
/// # Errors
/// The claims cannot be signed.
pub fn hs256(secret: &str, claims: &Value) -> Result<String> {
    Ok(encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))?)
}

/// A token with any header, any claims and any signature.
pub fn by_hand(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", part(signature))
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

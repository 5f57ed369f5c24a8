//! Tokens for a development run, signed with the secret of the data folder.

use std::time::Duration;

use anyhow::Result;
use jsonwebtoken::{EncodingKey, Header, get_current_timestamp};
use serde::Serialize;

const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    name: &'a str,
    roles: &'a [&'a str],
    iat: u64,
    exp: u64,
}

/// A token without roles.
pub(super) fn user(secret: &str) -> Result<String> {
    sign(secret, "dev-user", "Dev User", &[])
}

/// A token with the role `admin`.
pub(super) fn admin(secret: &str) -> Result<String> {
    sign(secret, "dev-admin", "Dev Admin", &["admin"])
}

fn sign(secret: &str, sub: &str, name: &str, roles: &[&str]) -> Result<String> {
    let iat = get_current_timestamp();
    let claims = Claims { sub, name, roles, iat, exp: iat + LIFETIME.as_secs() };
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))?)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    use serde_json::Value;

    use super::*;

    fn read(token: &str, secret: &str) -> Option<Value> {
        let key = DecodingKey::from_secret(secret.as_bytes());
        decode::<Value>(token.as_bytes(), &key, &Validation::new(Algorithm::HS256)).ok().map(|data| data.claims)
    }

    #[test]
    fn tokens_are_signed_and_name_their_roles() {
        let claims = read(&admin("secret").unwrap(), "secret").unwrap();
        assert_eq!((&claims["sub"], &claims["roles"]), (&"dev-admin".into(), &serde_json::json!(["admin"])));
        assert_eq!(read(&user("secret").unwrap(), "secret").unwrap()["roles"], serde_json::json!([]));
        assert_eq!(read(&user("secret").unwrap(), "other"), None);
    }
}

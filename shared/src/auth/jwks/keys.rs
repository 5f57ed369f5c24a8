//! Parses a JWKS document. Entries that cannot verify a token are skipped: encryption keys, shared secrets, other algorithms
//! and curves, and RSA keys that are too short.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::error::JwksError;
use crate::auth::token::Algorithm;

/// Further keys are skipped.
const MAX_KEYS: usize = 256;
/// Accepted sizes of an RSA modulus: 2048 to 8192 bits.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The usable keys of a document.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a document. A document without a usable key is an empty set.
    pub(super) fn parse(document: &[u8]) -> Result<Self, JwksError> {
        let document: Document = serde_json::from_slice(document).map_err(|_| JwksError::Malformed)?;
        let total = document.keys.len();
        let keys: Vec<Key> = document.keys.into_iter().filter_map(Key::usable).take(MAX_KEYS).collect();
        tracing::debug!(total, usable = keys.len(), "JWKS read");
        Ok(Self(keys))
    }

    /// The key for this algorithm with this id; without an id, the only key for this algorithm.
    pub(super) fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<&DecodingKey> {
        let mut candidates = self.0.iter().filter(|key| key.algorithm == algorithm);
        match kid {
            Some(kid) => candidates.find(|key| key.kid.as_deref() == Some(kid)).map(|key| &key.key),
            None => match (candidates.next(), candidates.next()) {
                (Some(only), None) => Some(&only.key),
                _ => None,
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Key {
    fn usable(entry: Value) -> Option<Self> {
        let entry: Entry = serde_json::from_value(entry).ok()?;
        let for_signatures = entry.usage.as_deref().is_none_or(|usage| usage == "sig");
        let for_verifying = entry.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures || !for_verifying {
            return None;
        }
        let (algorithm, key) = match (entry.kty.as_str(), entry.crv.as_deref()) {
            ("RSA", _) => (Algorithm::Rs256, rsa(entry.n.as_deref()?, entry.e.as_deref()?)?),
            ("EC", Some("P-256")) => (Algorithm::Es256, p256(entry.x.as_deref()?, entry.y.as_deref()?)?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, ed25519(entry.x.as_deref()?)?),
            _ => return None,
        };
        if entry.alg.is_some_and(|alg| alg != algorithm.name()) {
            return None;
        }
        Some(Self { kid: entry.kid, algorithm, key })
    }
}

fn rsa(n: &str, e: &str) -> Option<DecodingKey> {
    let (modulus, exponent) = (URL_SAFE_NO_PAD.decode(n).ok()?, URL_SAFE_NO_PAD.decode(e).ok()?);
    // Some issuers write a leading zero byte.
    let modulus = &modulus[modulus.iter().position(|byte| *byte != 0)?..];
    (RSA_MODULUS_BYTES.contains(&modulus.len()) && !exponent.is_empty())
        .then(|| DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn p256(x: &str, y: &str) -> Option<DecodingKey> {
    (is_32_bytes(x) && is_32_bytes(y)).then(|| DecodingKey::from_ec_components(x, y).ok())?
}

fn ed25519(x: &str) -> Option<DecodingKey> {
    is_32_bytes(x).then(|| DecodingKey::from_ed_components(x).ok())?
}

fn is_32_bytes(coordinate: &str) -> bool {
    URL_SAFE_NO_PAD.decode(coordinate).is_ok_and(|bytes| bytes.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn coordinate() -> String {
        URL_SAFE_NO_PAD.encode([7; 32])
    }

    fn rsa_entry(bytes: usize) -> Value {
        json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(vec![0xab; bytes]), "e": "AQAB"})
    }

    #[test]
    fn keys_that_cannot_serve_are_passed_over() {
        let x = coordinate();
        let unusable = [
            json!({"kty": "oct", "kid": "r", "k": x}),
            json!({"kty": "EC", "crv": "P-384", "kid": "r", "x": x, "y": x}),
            json!({"kty": "EC", "crv": "P-256", "kid": "r", "x": x}),
            json!({"kty": "EC", "crv": "P-256", "kid": "r", "x": "AAAA", "y": x}),
            json!({"kty": "OKP", "crv": "X25519", "kid": "r", "x": x}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "r", "x": x, "use": "enc"}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "r", "x": x, "key_ops": ["encrypt"]}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "r", "x": x, "alg": "ES256"}),
            json!({"kty": 7}),
            json!("text"),
            rsa_entry(128),
            rsa_entry(2048),
        ];
        for entry in &unusable {
            let document = json!({ "keys": [entry] }).to_string();
            assert!(KeySet::parse(document.as_bytes()).expect("a document").is_empty(), "{entry}");
        }
        let mut all = unusable.to_vec();
        all.push(rsa_entry(256));
        let keys = KeySet::parse(json!({ "keys": all }).to_string().as_bytes()).expect("one is usable");
        assert!(keys.find(Algorithm::Rs256, Some("r")).is_some());
        assert!(keys.find(Algorithm::Es256, Some("r")).is_none());
        assert!(keys.find(Algorithm::Hs256, Some("r")).is_none());
    }

    #[test]
    fn documents_that_are_none_are_refused() {
        for document in ["", "[]", "{}", "{\"keys\":{}}", "<html>"] {
            assert!(matches!(KeySet::parse(document.as_bytes()), Err(JwksError::Malformed)), "{document}");
        }
        assert!(KeySet::parse(b"{\"keys\":[]}").expect("a document").is_empty());
    }

    #[test]
    fn without_a_kid_only_a_single_key_of_the_kind_fits() {
        let entry = |kid: &str| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": coordinate()});
        let parse = |keys: Value| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("keys");
        assert!(parse(json!([entry("a"), rsa_entry(256)])).find(Algorithm::EdDsa, None).is_some());
        assert!(parse(json!([entry("a"), entry("b")])).find(Algorithm::EdDsa, None).is_none());
    }
}

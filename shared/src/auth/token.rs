//! A token in compact form: its size, its three parts, its algorithm (from the allow-list) and its signature.
//! Of the header only `alg`, `typ`, `kid` and `crit` are read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Longer tokens are refused before anything is decoded.
pub(super) const MAX_BYTES: usize = 8 * 1024;
/// A longer `kid` matches no key.
const MAX_KID_BYTES: usize = 256;

/// Why a token was refused. For the log only: clients see `unauthorized`. Never contains a part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`MAX_BYTES`].
    #[error("the token is longer than {} bytes", MAX_BYTES)]
    TooLong,
    /// Not three parts of base64url around JSON objects.
    #[error("the token is not a signed JWT in compact form")]
    Malformed,
    /// `none`, an unknown name, or an algorithm without a configured key.
    #[error("the token's algorithm is not allowed here")]
    Algorithm,
    /// The keys were never read, or not for too long. The token may be valid.
    #[error("the keys that check the token are not available")]
    KeysUnavailable,
    /// An id token, a refresh token, or a type that is not accepted.
    #[error("the token is of another type than an access token")]
    Type,
    /// No key of this kind under this `kid`.
    #[error("no key fits the token")]
    UnknownKey,
    /// The key does not verify the signature.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Not from the configured issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// Not meant for the configured audience.
    #[error("the token is for another audience")]
    Audience,
    /// A claim is absent, or has the wrong type or size: its name, and what was found. Never its value.
    #[error("the token's claim {0} is {1}, which is not accepted")]
    Claim(&'static str, &'static str),
}

impl TokenError {
    /// A short, stable name for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Type => "type",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim(..) => "claim",
        }
    }
}

/// The supported algorithms. A key belongs to one of them, so a public key is never used as an HS256 secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The name in a header or a JWK.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    fn implementation(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// The header. A repeated member, or one of another type (`null` too), is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<Value>,
}

/// Reads a member that is present. Without this function serde reads `null` like an absent member.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A token whose signature has not been checked yet.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) typ: Option<String>,
    pub(super) kid: Option<String>,
    /// The claims, still encoded, because they are decoded only after the signature is checked.
    pub(super) payload: &'a str,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') || header.is_empty() || payload.is_empty() {
            return Err(TokenError::Malformed);
        }
        let header: Header = decode_part(header)?;
        // `crit` names extensions that must be understood; this code supports none.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let algorithm = Algorithm::named(&header.alg).ok_or(TokenError::Algorithm)?;
        if signature.is_empty() {
            return Err(TokenError::Signature);
        }
        if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(TokenError::UnknownKey);
        }
        Ok(Self { algorithm, typ: header.typ, kid: header.kid, payload, signed, signature })
    }

    pub(super) fn check_signature(&self, key: &DecodingKey) -> Result<(), TokenError> {
        let algorithm = self.algorithm.implementation();
        match jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }
}

/// Decodes base64url around a JSON object.
pub(super) fn decode_part<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    // A derived Deserialize would accept an array for a struct.
    if bytes.first() != Some(&b'{') {
        return Err(TokenError::Malformed);
    }
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

//! The kind of a token. An issuer signs access tokens, id tokens and refresh tokens with the same key; only an access
//! token opens a connection.

use serde_json::Value;

/// The accepted kinds where none are configured.
pub const DEFAULT_TYPES: [&str; 2] = ["JWT", "at+jwt"];
/// The optional prefix of a header `typ` (RFC 7515, 4.1.9).
const MEDIA_TYPE: &str = "application/";
/// What issuers write into the claims `typ`, `token_use` and `token_type` of a token that is no access token.
const OTHER_KINDS: [&str; 8] =
    ["id", "id_token", "refresh", "refresh_token", "offline", "offline_token", "logout", "logout_token"];

/// The accepted kinds. Names are compared without regard to case.
#[derive(Debug, Clone)]
pub struct AcceptedTypes(Vec<String>);

impl Default for AcceptedTypes {
    fn default() -> Self {
        Self::new(DEFAULT_TYPES)
    }
}

impl AcceptedTypes {
    /// Accepts these kinds.
    pub fn new<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Self(types.into_iter().map(Into::into).collect())
    }

    /// True if a token with this header `typ` is accepted. The header is optional (RFC 7519, 5.1).
    pub(super) fn allows_header(&self, typ: Option<&str>) -> bool {
        typ.is_none_or(|typ| self.contains(without_media_type(typ)))
    }

    /// True unless the claim names a kind that is neither an access token nor accepted. A claim of another type than text
    /// is a private claim of the issuer and says nothing.
    pub(super) fn allows_claim(&self, claim: Option<&Value>) -> bool {
        let Some(kind) = claim.and_then(Value::as_str) else { return true };
        self.contains(kind) || !OTHER_KINDS.iter().any(|other| other.eq_ignore_ascii_case(kind))
    }

    fn contains(&self, kind: &str) -> bool {
        self.0.iter().any(|accepted| accepted.eq_ignore_ascii_case(kind))
    }
}

fn without_media_type(typ: &str) -> &str {
    match typ.split_at_checked(MEDIA_TYPE.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(MEDIA_TYPE) => rest,
        _ => typ,
    }
}

//! Who is calling: JSON Web Tokens, checked against an allow-list of algorithms, each bound to a key of its own kind.
//!
//! A token never chooses where its key comes from: the headers `jku`, `x5u` and `jwk` are ignored.

mod verifier;
mod claims;
mod kind;
mod jwks;
mod secret;
mod token;

pub use claims::{ADMIN, DEFAULT_LEEWAY, Principal, Rules, Verified};
pub use jwks::{JwksError, JwksOptions, JwksSource, MIN_INTERVAL as MIN_JWKS_INTERVAL, check_jwks_file};
pub use kind::{AcceptedTypes, DEFAULT_TYPES};
pub use secret::{WeakSecret, check_secret};
pub use token::TokenError;
pub use verifier::{AuthError, Options, TokenVerifier};

#[cfg(test)]
mod tests;

//! Key pairs of an identity service for one test, and their JWKS document.

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::tokens;

/// A private key with its algorithm.
#[derive(Debug)]
pub enum SigningKey {
    /// RSA with 2048 bits.
    Rs256(Box<RsaKeyPair>),
    /// The curve P-256.
    Es256(Box<EcdsaKeyPair>),
    /// Ed25519.
    EdDsa(Box<Ed25519KeyPair>),
}

impl SigningKey {
    /// A new key for the algorithm `alg`, as JWS names it.
    ///
    /// # Errors
    /// There is no such algorithm here.
    pub fn generate(alg: &str) -> Result<Self> {
        Ok(match alg {
            "RS256" => {
                Self::Rs256(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no RSA key"))?))
            }
            "ES256" => Self::Es256(Box::new(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| anyhow!("no EC key"))?,
            )),
            "EdDSA" => Self::EdDsa(Box::new(Ed25519KeyPair::generate().map_err(|_| anyhow!("no Ed25519 key"))?)),
            other => bail!("no keys for {other}"),
        })
    }

    /// The algorithm as JWS names it.
    pub fn alg(&self) -> &'static str {
        match self {
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    /// The public half as a member of a JWKS.
    ///
    /// # Errors
    /// The key's encoding is not what it should be.
    pub fn jwk(&self, kid: &str) -> Result<Value> {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Ok(match self {
            Self::Rs256(key) => {
                let (n, e) = rsa_numbers(key.public_key().as_ref())?;
                json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": part(&n), "e": part(&e) })
            }
            Self::Es256(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (point.get(1..33).context("x")?, point.get(33..65).context("y")?);
                json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": part(x), "y": part(y) })
            }
            Self::EdDsa(key) => {
                let x = part(key.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x })
            }
        })
    }

    /// A token with these claims.
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        tokens::by_hand(&json!({ "typ": "JWT", "alg": self.alg(), "kid": kid }), claims, |bytes| self.sign(bytes))
    }

    /// Signs. Where the library refuses, the signature is empty, which no check accepts.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                match key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature) {
                    Ok(()) => signature,
                    Err(_) => Vec::new(),
                }
            }
            Self::Es256(key) => key.sign(&random, bytes).map(|it| it.as_ref().to_vec()).unwrap_or_default(),
            Self::EdDsa(key) => key.sign(bytes).as_ref().to_vec(),
        }
    }
}

/// A JWKS document.
pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The two numbers of a DER `RSAPublicKey`: SEQUENCE { modulus INTEGER, exponent INTEGER }, without leading zeros.
fn rsa_numbers(der: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let (sequence, _) = der_value(der, 0x30)?;
    let (modulus, rest) = der_value(sequence, 0x02)?;
    let (exponent, _) = der_value(rest, 0x02)?;
    let trim = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    Ok((trim(modulus), trim(exponent)))
}

fn der_value(der: &[u8], tag: u8) -> Result<(&[u8], &[u8])> {
    let [found, first, rest @ ..] = der else { bail!("DER ends early") };
    anyhow::ensure!(*found == tag, "DER tag {found:#x} instead of {tag:#x}");
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(*first & 0x7f)).context("DER length")?;
        (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length).context("DER value")
}

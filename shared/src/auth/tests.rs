//! Every hostile token, against real keys.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm as Jwa, EncodingKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::lifecycle::Lifecycle;

pub(super) const SECRET: &str = "kT7w!nB4xQz9vR2mL6pY8cJ3hF5dG1sA";
const NOW: i64 = 1_800_000_000;

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp(NOW * 1000)
    }
}

fn verifier_with(rules: Rules) -> TokenVerifier {
    let options = Options { hs256_secret: Some(SECRET.into()), rules, ..Options::default() };
    TokenVerifier::new(options, Arc::new(FixedClock), &Lifecycle::new()).expect("a good secret")
}

/// Signs any header and any claims, also those no library would write.
pub(super) fn sign(header: &Value, claims: &Value, algorithm: Jwa, key: &EncodingKey) -> String {
    sign_text(&header.to_string(), &claims.to_string(), algorithm, key)
}

fn sign_text(header: &str, claims: &str, algorithm: Jwa, key: &EncodingKey) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).expect("sign");
    format!("{signed}.{signature}")
}

fn hs256(header: &Value, claims: &Value) -> String {
    sign(header, claims, Jwa::HS256, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"sub": "user-1", "exp": NOW + 600})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[tokio::test]
async fn a_good_token_says_who_it_is() {
    let claims = json!({"sub": "user-1", "exp": NOW + 600, "nbf": NOW - 5, "name": "Ada", "roles": ["admin", "x"], "aud": "any", "iss": "any"});
    let verified = verifier_with(Rules::default()).verify(&hs256(&header(), &claims)).await.expect("accepted");
    assert_eq!(verified.principal.user.as_str(), "user-1");
    assert_eq!(verified.principal.name.as_deref(), Some("Ada"));
    assert!(verified.principal.is_admin());
    assert_eq!(verified.expires_at, Timestamp((NOW + 630) * 1000));
}

#[tokio::test]
async fn hostile_headers_are_refused() {
    let verifier = verifier_with(Rules::default());
    for (header, expected) in [
        (json!({"alg": "none"}), TokenError::Algorithm),
        (json!({"alg": "None"}), TokenError::Algorithm),
        (json!({"alg": "hs256"}), TokenError::Algorithm),
        (json!({"alg": "HS384"}), TokenError::Algorithm),
        (json!({"alg": ""}), TokenError::Algorithm),
        (json!({"alg": "RS256", "kid": "../../etc/passwd"}), TokenError::Algorithm),
        (json!({"alg": ["HS256"]}), TokenError::Malformed),
        (json!({"alg": null}), TokenError::Malformed),
        (json!({"typ": "JWT"}), TokenError::Malformed),
        (json!({"alg": "HS256", "crit": ["exp"], "exp": 1}), TokenError::Malformed),
        (json!({"alg": "HS256", "kid": {"$ne": null}}), TokenError::Malformed),
        (json!({"alg": "HS256", "kid": null}), TokenError::Malformed),
        (json!({"alg": "HS256", "crit": null}), TokenError::Malformed),
        (json!({"alg": "HS256", "typ": null}), TokenError::Malformed),
        (json!({"alg": "HS256", "typ": "refresh+jwt"}), TokenError::Type),
        (json!({"alg": "HS256", "typ": "secevent+jwt"}), TokenError::Type),
        (json!({"alg": "HS256", "typ": "application/logout+jwt"}), TokenError::Type),
        (json!({"alg": "HS256", "typ": ""}), TokenError::Type),
        (json!({"alg": "HS256", "kid": "k".repeat(257)}), TokenError::UnknownKey),
        (json!(["HS256"]), TokenError::Malformed),
    ] {
        assert_eq!(verifier.verify(&hs256(&header, &claims())).await, Err(expected), "{header}");
    }
    let twice = sign_text(
        r#"{"alg":"none","alg":"HS256"}"#,
        &claims().to_string(),
        Jwa::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    );
    assert_eq!(verifier.verify(&twice).await, Err(TokenError::Malformed));
}

#[tokio::test]
async fn hostile_shapes_are_refused() {
    let verifier = verifier_with(Rules::default());
    let good = hs256(&header(), &claims());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let payload = signed.split_once('.').expect("two parts").1;
    for (token, expected) in [
        (String::new(), TokenError::Malformed),
        ("a".to_owned(), TokenError::Malformed),
        ("..".to_owned(), TokenError::Malformed),
        (signed.to_owned(), TokenError::Malformed),
        (format!("{signed}."), TokenError::Signature),
        (format!("{none}.{payload}."), TokenError::Algorithm),
        (format!("{good}.extra"), TokenError::Malformed),
        (format!("{good}.a.b"), TokenError::Malformed),
        (format!("{good} "), TokenError::Signature),
        (format!("{signed}.{signature}="), TokenError::Signature),
        (format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 32])), TokenError::Signature),
        (format!("{signed}.{}", &signature[..20]), TokenError::Signature),
        (good.replace('.', "%2e"), TokenError::Malformed),
    ] {
        assert_eq!(verifier.verify(&token).await, Err(expected), "{token}");
    }
    let long = hs256(&header(), &with(claims(), "pad", json!("x".repeat(8 * 1024))));
    assert_eq!(verifier.verify(&long).await, Err(TokenError::TooLong));
    let other_key = sign(&header(), &claims(), Jwa::HS256, &EncodingKey::from_secret(b"another secret"));
    assert_eq!(verifier.verify(&other_key).await, Err(TokenError::Signature));
}

#[tokio::test]
async fn claims_must_be_there_and_of_their_type() {
    let verifier = verifier_with(Rules::default());
    for (claims, expected) in [
        (json!({"sub": "u"}), Some(TokenError::Claim("exp", "absent"))),
        (with(claims(), "exp", json!(null)), Some(TokenError::Claim("exp", "null"))),
        (with(claims(), "exp", json!("1900000000")), Some(TokenError::Claim("exp", "a text"))),
        (with(claims(), "exp", json!({"$gt": 0})), Some(TokenError::Claim("exp", "an object"))),
        (with(claims(), "exp", json!(NOW - 30)), Some(TokenError::Expired)),
        (with(claims(), "exp", json!(-1)), Some(TokenError::Expired)),
        (with(claims(), "exp", json!(i64::MIN)), Some(TokenError::Expired)),
        (with(claims(), "exp", json!(NOW - 29)), None),
        (with(claims(), "exp", json!(NOW as f64 + 0.5)), None),
        (with(claims(), "exp", json!(u64::MAX)), None),
        (with(claims(), "exp", json!(1e300)), None),
        (with(claims(), "nbf", json!(NOW + 31)), Some(TokenError::NotYetValid)),
        (with(claims(), "nbf", json!(NOW + 30)), None),
        (with(claims(), "nbf", json!("soon")), Some(TokenError::Claim("nbf", "a text"))),
        (with(claims(), "nbf", json!(null)), Some(TokenError::Claim("nbf", "null"))),
        (json!({"exp": NOW + 600}), Some(TokenError::Claim("sub", "absent"))),
        (with(claims(), "sub", json!("")), Some(TokenError::Claim("sub", "an empty text"))),
        (with(claims(), "sub", json!(7)), Some(TokenError::Claim("sub", "a number"))),
        (
            with(claims(), "sub", json!("ü".repeat(129))),
            Some(TokenError::Claim("sub", "a text of more than 128 characters")),
        ),
        (with(claims(), "sub", json!("ü".repeat(128))), None),
        (with(claims(), "sub", json!("a\r\nb")), Some(TokenError::Claim("sub", "a text with control characters"))),
        (with(claims(), "name", json!(["Ada"])), Some(TokenError::Claim("name", "a list"))),
        (with(claims(), "roles", json!("admin")), Some(TokenError::Claim("roles", "a text"))),
        (
            with(claims(), "roles", json!(["admin", 7])),
            Some(TokenError::Claim("roles", "a list with an element that is not a text")),
        ),
        (with(claims(), "roles", json!({"admin": true})), Some(TokenError::Claim("roles", "an object"))),
        (json!([1, 2]), Some(TokenError::Malformed)),
        (json!("text"), Some(TokenError::Malformed)),
    ] {
        assert_eq!(verifier.verify(&hs256(&header(), &claims)).await.err(), expected, "{claims}");
    }
}

#[tokio::test]
async fn only_access_tokens_are_accepted() {
    let verifier = verifier_with(Rules::default());
    for (name, kind, accepted) in [
        ("token_use", "access", true),
        ("token_use", "id", false),
        ("token_use", "refresh", false),
        ("typ", "Bearer", true),
        ("typ", "ID", false),
        ("typ", "Refresh", false),
        ("typ", "Offline", false),
        ("token_type", "access", true),
        ("token_type", "refresh", false),
    ] {
        let token = hs256(&header(), &with(claims(), name, json!(kind)));
        let expected = if accepted { None } else { Some(TokenError::Type) };
        assert_eq!(verifier.verify(&token).await.err(), expected, "{name}: {kind}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/AT+JWT"] {
        assert!(verifier.verify(&hs256(&json!({"alg": "HS256", "typ": typ}), &claims())).await.is_ok(), "{typ}");
    }
    let strict = verifier_with(Rules { types: AcceptedTypes::new(["at+jwt"]), ..Rules::default() });
    assert_eq!(strict.verify(&hs256(&header(), &claims())).await, Err(TokenError::Type));
    let with_ids = verifier_with(Rules { types: AcceptedTypes::new(["JWT", "ID"]), ..Rules::default() });
    assert!(with_ids.verify(&hs256(&header(), &with(claims(), "token_use", json!("id")))).await.is_ok());
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_configured() {
    let rules = Rules { issuer: Some("idp".into()), audience: Some("chat".into()), ..Rules::default() };
    let verifier = verifier_with(rules);
    let good = with(with(claims(), "iss", json!("idp")), "aud", json!(["other", "chat"]));
    for (claims, expected) in [
        (good.clone(), None),
        (with(good.clone(), "aud", json!("chat")), None),
        (with(good.clone(), "iss", json!("idp/")), Some(TokenError::Issuer)),
        (with(good.clone(), "iss", json!(["idp"])), Some(TokenError::Issuer)),
        (with(claims(), "aud", json!("chat")), Some(TokenError::Issuer)),
        (with(good.clone(), "aud", json!("chatter")), Some(TokenError::Audience)),
        (with(good.clone(), "aud", json!([])), Some(TokenError::Audience)),
        (with(good.clone(), "aud", json!({"chat": 1})), Some(TokenError::Audience)),
        (with(claims(), "iss", json!("idp")), Some(TokenError::Audience)),
    ] {
        assert_eq!(verifier.verify(&hs256(&header(), &claims)).await.err(), expected, "{claims}");
    }
}

#[tokio::test]
async fn a_weak_secret_or_no_key_makes_no_verifier() {
    let make = |options| TokenVerifier::new(options, Arc::new(FixedClock), &Lifecycle::new());
    assert!(matches!(make(Options::default()), Err(AuthError::NoKey)));
    let weak = Options { hs256_secret: Some("short".into()), ..Options::default() };
    let error = make(weak).expect_err("weak");
    assert!(!error.to_string().contains("short\""), "{error}");
}

#[test]
fn a_verifier_shows_no_key() {
    let shown = format!("{:?}", verifier_with(Rules::default()));
    assert!(!shown.contains(SECRET), "{shown}");
}

/// A member of a head: absent, one of these texts, or JSON of another type.
fn member(texts: &'static [&'static str]) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        prop::sample::select(texts).prop_map(|text| Some(json!(text))),
        prop::sample::select(vec![json!(null), json!(7), json!(true), json!([]), json!({}), json!(["HS256"])])
            .prop_map(Some),
    ]
}

proptest! {
    /// No text is accepted by accident, and none makes the check panic.
    #[test]
    fn arbitrary_text_is_refused(text in "\\PC{0,200}", dotted in "[a-zA-Z0-9_-]{0,40}\\.[a-zA-Z0-9_-]{0,40}\\.[a-zA-Z0-9_-]{0,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let verifier = verifier_with(Rules::default());
        prop_assert!(runtime.block_on(verifier.verify(&text)).is_err());
        prop_assert!(runtime.block_on(verifier.verify(&dotted)).is_err());
    }

    /// Heads with the members that are read, of any type: only the allowed ones are accepted, also under a good signature.
    #[test]
    fn any_head_under_a_good_signature_is_judged_by_its_members(
        alg in member(&["HS256", "none", "RS256", "hs256"]),
        typ in member(&["JWT", "at+jwt", "ID", "application/jwt"]),
        kid in member(&["k", ""]),
        crit in member(&["exp"]),
        other in "[a-z0-9]{5,8}",
    ) {
        let mut head = json!({});
        for (name, value) in [("alg", &alg), ("typ", &typ), ("kid", &kid), ("crit", &crit), (other.as_str(), &kid)] {
            if let Some(value) = value {
                head[name] = value.clone();
            }
        }
        let is = |member: &Option<Value>, texts: &[&str]| {
            member.as_ref().is_some_and(|value| value.as_str().is_some_and(|text| texts.contains(&text)))
        };
        let good = is(&alg, &["HS256"])
            && (typ.is_none() || is(&typ, &["JWT", "at+jwt", "application/jwt"]))
            && (kid.is_none() || is(&kid, &["k", ""]))
            && crit.is_none();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let verified = runtime.block_on(verifier_with(Rules::default()).verify(&hs256(&head, &claims())));
        prop_assert_eq!(verified.is_ok(), good, "{}: {:?}", head, verified);
    }

    /// Changing any one character of a good token makes it a bad one.
    #[test]
    fn a_changed_character_is_noticed(place in 0usize..1000, replacement in "[a-zA-Z0-9_.-]") {
        let good = hs256(&header(), &claims());
        let place = place % good.len();
        let mut changed = good.clone();
        changed.replace_range(place..=place, &replacement);
        prop_assume!(changed != good);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        prop_assert!(runtime.block_on(verifier_with(Rules::default()).verify(&changed)).is_err());
    }
}

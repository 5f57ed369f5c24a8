//! Tokens signed with a shared secret: the three ways to send one, and every kind of invalid token.

use anyhow::{Result, ensure};
use aws_lc_rs::hmac;
use chatbox_tests::harness::mask::Mask;
use chatbox_tests::harness::tokens::{by_hand, claims, hs256, now};
use chatbox_tests::harness::{Stack, start};
use serde_json::{Value, json};

use super::check_refusal;

fn mac(algorithm: hmac::Algorithm, secret: &str, bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), bytes).as_ref().to_vec()
}

#[tokio::test]
async fn a_token_comes_in_the_header_or_as_a_subprotocol_and_is_never_echoed() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let token = stack.token("ana")?;

    let by_header = stack.handshake().bearer(&token).connect().await?;
    ensure!(by_header.handshake.header("sec-websocket-protocol").is_none(), "{:?}", by_header.handshake.headers);
    ensure!(by_header.welcome["user"]["id"] == "ana", "{}", by_header.welcome);

    let protocols = format!("chatbox.v1, chatbox.jwt.{token}");
    let by_protocol = stack.handshake().header("Sec-WebSocket-Protocol", protocols).connect().await?;
    ensure!(
        by_protocol.handshake.header("sec-websocket-protocol") == Some("chatbox.v1"),
        "{:?}",
        by_protocol.handshake.headers
    );
    ensure!(by_protocol.welcome["user"]["id"] == "ana", "{}", by_protocol.welcome);

    let by_query = stack.handshake().query("token", &token).response().await?;
    check_refusal("a token in the query", &by_query, 401, "unauthorized")?;

    // The header decides, even where another token would do.
    let both = stack
        .handshake()
        .bearer("nonsense")
        .header("Sec-WebSocket-Protocol", format!("chatbox.v1, chatbox.jwt.{token}"));
    check_refusal("a bad header beside a good subprotocol", &both.response().await?, 401, "unauthorized")?;
    ensure!(!stack.output().contains(&token), "the token is in the log");
    Ok(())
}

#[tokio::test]
async fn a_token_in_the_query_is_taken_where_that_is_allowed_and_not_logged() -> Result<()> {
    let stack = Stack::builder().gateway("auth.allow_query_token", true)?.start().await?;
    let token = stack.token("ana")?;
    let connected = stack.handshake().query("token", &token).connect().await?;
    ensure!(connected.welcome["user"]["id"] == "ana", "{}", connected.welcome);
    check_refusal("nonsense", &stack.handshake().query("token", "a.b.c").response().await?, 401, "unauthorized")?;
    ensure!(!stack.output().contains(&token), "the token is in the log");
    Ok(())
}

#[tokio::test]
async fn every_bad_token_gets_the_same_answer() -> Result<()> {
    let stack = Stack::builder().gateway("limits.handshake_burst", 1000)?.start().await?;
    let secret = stack.secret().to_owned();
    let good = stack.token("ana")?;
    let header = json!({ "typ": "JWT", "alg": "HS256" });
    let signed =
        |header: Value, claims: Value| by_hand(&header, &claims, |bytes| mac(hmac::HMAC_SHA256, &secret, bytes));
    let with = |field: &str, value: Value| {
        let mut all = claims("ana");
        all[field] = value;
        signed(header.clone(), all)
    };
    let mut parts = good.rsplitn(2, '.');
    let (signature, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());

    let bad: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("no JWT", "nonsense".to_owned()),
        ("two parts", body.to_owned()),
        ("empty signature", format!("{body}.")),
        ("four parts", format!("{good}.x")),
        ("a changed signature", format!("{body}.{}", signature.chars().rev().collect::<String>())),
        ("another secret", hs256(&start::random_base64(), &claims("ana"))?),
        ("alg none", by_hand(&json!({ "alg": "none" }), &claims("ana"), |_| Vec::new())),
        ("alg None", by_hand(&json!({ "alg": "None" }), &claims("ana"), |_| Vec::new())),
        ("alg none, signed", signed(json!({ "alg": "none" }), claims("ana"))),
        ("HS512", by_hand(&json!({ "alg": "HS512" }), &claims("ana"), |it| mac(hmac::HMAC_SHA512, &secret, it))),
        ("RS256 signed with the secret", signed(json!({ "alg": "RS256" }), claims("ana"))),
        ("no alg", signed(json!({ "typ": "JWT" }), claims("ana"))),
        ("no exp", signed(header.clone(), json!({ "sub": "ana" }))),
        ("exp as text", with("exp", json!((now() + 3600).to_string()))),
        ("exp null", with("exp", Value::Null)),
        ("exp negative", with("exp", json!(-1))),
        ("expired beyond the leeway", with("exp", json!(now() - 35))),
        ("not yet valid", with("nbf", json!(now() + 60))),
        ("nbf as text", with("nbf", json!("tomorrow"))),
        ("no sub", signed(header.clone(), json!({ "exp": now() + 60 }))),
        ("sub empty", with("sub", json!(""))),
        ("sub a number", with("sub", json!(7))),
        ("sub null", with("sub", Value::Null)),
        ("sub of 129 characters", with("sub", json!("x".repeat(129)))),
        ("roles no array", with("roles", json!("admin"))),
        ("claims no object", signed(header.clone(), json!(["ana"]))),
        ("over 8 KiB", with("filler", json!("x".repeat(9000)))),
    ];
    let mut answers = Vec::new();
    for (what, token) in &bad {
        let answer = stack.handshake().bearer(token).response().await?;
        check_refusal(what, &answer, 401, "unauthorized")?;
        answers.push((what, Mask::default().apply(&answer.text())));
    }
    let missing = stack.handshake().response().await?;
    check_refusal("no token", &missing, 401, "unauthorized")?;
    let missing = Mask::default().apply(&missing.text());
    for (what, answer) in answers {
        ensure!(answer == missing, "{what} is told apart: {answer} / {missing}");
    }
    for scheme in ["Basic", "bearer"] {
        let answer = stack.handshake().header("Authorization", format!("{scheme} {good}")).response().await?;
        // Schemes are compared without case (RFC 9110); Basic is another scheme.
        ensure!(answer.status == if scheme == "Basic" { 401 } else { 101 }, "{scheme}: {}", answer.status);
    }
    Ok(())
}

#[tokio::test]
async fn odd_but_valid_tokens_are_taken() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let secret = stack.secret();
    let long = "x".repeat(128);
    let good = [
        ("ana", hs256(secret, &json!({ "sub": "ana", "exp": now() - 20 }))?), // within the leeway
        ("ana", hs256(secret, &json!({ "sub": "ana", "exp": now() + 60, "nbf": now() + 20 }))?),
        (long.as_str(), hs256(secret, &claims(&long))?),
        ("Żółć 🦊", hs256(secret, &claims("Żółć 🦊"))?),
        (
            "ana",
            hs256(secret, &json!({ "sub": "ana", "exp": now() + 60, "iss": "anyone", "aud": ["any"], "more": {} }))?,
        ),
    ];
    for (user, token) in good {
        let connected = stack.handshake().bearer(&token).connect().await?;
        ensure!(connected.welcome["user"]["id"] == user, "{}", connected.welcome);
    }
    let named = json!({ "sub": "ana", "name": "Ana Example", "roles": ["admin", "x"], "exp": now() + 60 });
    let connected = stack.handshake().bearer(&hs256(secret, &named)?).connect().await?;
    ensure!(connected.welcome["user"]["name"] == "Ana Example", "{}", connected.welcome);
    ensure!(connected.welcome["user"]["roles"] == json!(["admin", "x"]), "{}", connected.welcome);
    Ok(())
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_configured() -> Result<()> {
    let stack = Stack::builder()
        .gateway("auth.issuer", "https://id.example.com")?
        .gateway("auth.audience", "chatbox")?
        .start()
        .await?;
    let token = |iss: Value, aud: Value| {
        hs256(stack.secret(), &json!({ "sub": "ana", "exp": now() + 60, "iss": iss, "aud": aud }))
    };
    let issuer = json!("https://id.example.com");
    for (iss, aud) in [(issuer.clone(), json!("chatbox")), (issuer.clone(), json!(["other", "chatbox"]))] {
        stack.handshake().bearer(&token(iss, aud)?).connect().await?;
    }
    for (iss, aud) in [
        (json!("https://id.example.com.evil.example"), json!("chatbox")),
        (Value::Null, json!("chatbox")),
        (issuer.clone(), json!("other")),
        (issuer.clone(), json!([])),
        (issuer, Value::Null),
    ] {
        let answer = stack.handshake().bearer(&token(iss.clone(), aud.clone())?).response().await?;
        check_refusal(&format!("iss {iss}, aud {aud}"), &answer, 401, "unauthorized")?;
    }
    Ok(())
}

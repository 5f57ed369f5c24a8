//! Settings that are invalid, and the messages that report them.

use chatbox_shared::config::load_from;

use super::*;

const SECRET: (&str, &str) = ("CHATBOX__AUTH__HS256_SECRET", "kT7w!nB4xQz9vR2mL6pY8cJ3hF5dG1sA");
const INSECURE: (&str, &str) = ("CHATBOX__LINK__INSECURE", "true");

fn load(more: &[(&str, &str)]) -> Result<GatewaySettings, ConfigErrors> {
    load_from(None, [SECRET, INSECURE].iter().chain(more).copied())
}

#[test]
fn the_defaults_lack_only_a_key_and_the_protection_of_the_link() {
    let settings = load(&[]).expect("valid settings");
    assert_eq!(settings.gateway.path_prefix, "/chat");
    let errors = load_from::<GatewaySettings>(None, [("A", "b")]).expect_err("incomplete");
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["link", "auth"]);
}

#[test]
fn every_error_is_reported_at_once() {
    let errors = load(&[
        ("CHATBOX__GATEWAY__PATH_PREFIX", "chat/"),
        ("CHATBOX__GATEWAY__ID", "a b"),
        ("CHATBOX__BRAIN__ENDPOINTS", r#"["http://a:1", "https://b:1", "c", "http://d/x"]"#),
        ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["*", "https://a.example.com"]"#),
        ("CHATBOX__AUTH__HS256_SECRET", "too-short-canary"),
        ("CHATBOX__AUTH__JWKS_URL", "ftp://a"),
        ("CHATBOX__AUTH__JWKS_FILE", "/nonexistent/jwks.json"),
        ("CHATBOX__AUTH__JWKS_REFRESH_SECONDS", "29"),
        ("CHATBOX__AUTH__JWKS_MAX_STALE_SECONDS", "1"),
        ("CHATBOX__AUTH__ACCEPTED_TYPES", "[]"),
        ("CHATBOX__LIMITS__MAX_FRAME_BYTES", "1"),
        ("CHATBOX__LIMITS__MAX_HEADER_BYTES", "100"),
        ("CHATBOX__HEARTBEAT__INTERVAL_MS", "0"),
        ("CHATBOX__SHUTDOWN__DRAIN_SECONDS", "-1"),
        ("CHATBOX__LOG__FILTER", "info,=,,x=loud"),
    ])
    .expect_err("errors");
    for key in [
        "gateway.path_prefix",
        "gateway.id",
        "brain.endpoints.1",
        "brain.endpoints.2",
        "brain.endpoints.3",
        "security.allowed_origins",
        "auth.hs256_secret",
        "auth.jwks_url",
        "auth.jwks_file",
        "auth.jwks_refresh_seconds",
        "auth.jwks_max_stale_seconds",
        "auth.accepted_types",
        "limits.max_frame_bytes",
        "limits.max_header_bytes",
        "heartbeat.interval_ms",
        "shutdown.drain_seconds",
        "log.filter",
    ] {
        assert!(errors.has(key), "no error for {key} in:\n{errors}");
    }
    assert!(!errors.to_string().contains("canary"), "{errors}");
}

#[test]
fn an_invalid_origin_or_proxy_is_an_error() {
    let errors = load(&[
        ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["https://a.example.com/", "https://a.example.com"]"#),
        ("CHATBOX__SECURITY__TRUSTED_PROXIES", r#"["10.0.0.0/8", "10.0.0.0/99"]"#),
    ])
    .expect_err("errors");
    let text = errors.to_string();
    assert!(text.contains("security.allowed_origins") && text.contains("security.trusted_proxies"), "{text}");
}

#[test]
fn any_origin_requires_a_second_setting() {
    let any = ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["*"]"#);
    assert!(load(&[any]).expect_err("an error").has("security.allowed_origins"));
    assert!(load(&[any, ("CHATBOX__SECURITY__INSECURE_ANY_ORIGIN", "true")]).is_ok());
}

#[test]
fn a_plaintext_jwks_requires_a_second_setting() {
    let plain = ("CHATBOX__AUTH__JWKS_URL", "http://idp.example.com/jwks.json");
    assert!(load(&[plain]).expect_err("an error").has("auth.jwks_url"));
    assert!(load(&[plain, ("CHATBOX__AUTH__INSECURE_JWKS_URL", "true")]).is_ok());
    assert!(load(&[("CHATBOX__AUTH__JWKS_URL", "https://idp.example.com/jwks.json")]).is_ok());
}

#[test]
fn a_secret_is_not_shown() {
    assert!(!format!("{:?}", load(&[]).expect("valid settings")).contains(SECRET.1));
}

#[test]
fn both_ports_of_the_gateway_must_differ() {
    for (public, ops, conflict) in [
        ("127.0.0.1:9090", "127.0.0.1:9090", true),
        ("0.0.0.0:9090", "127.0.0.1:9090", true),
        ("127.0.0.2:9090", "127.0.0.1:9090", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        let loaded = load(&[("CHATBOX__GATEWAY__LISTEN", public), ("CHATBOX__OPS__LISTEN", ops)]);
        match loaded {
            Err(errors) => assert!(conflict && errors.has("ops.listen"), "{public} {ops}: {errors}"),
            Ok(_) => assert!(!conflict, "{public} {ops}"),
        }
    }
}

#[test]
fn messages_say_what_is_missing() {
    for (name, value, message) in [
        (
            "CHATBOX__GATEWAY__LISTEN",
            "localhost:8080",
            "gateway.listen: \"localhost:8080\" must be an IP address and a port",
        ),
        ("CHATBOX__OPS__LISTEN", "localhost:9090", "ops.listen: \"localhost:9090\" must be an IP address and a port"),
        (
            "CHATBOX__BRAIN__ENDPOINTS",
            r#"["localhost:50051"]"#,
            "brain.endpoints.0: \"localhost:50051\" has no scheme: write http://localhost:50051",
        ),
        ("CHATBOX__LIMITS__MAX_HEADERS", "1", "limits.max_headers: must be from 10 to 1000, but is 1"),
    ] {
        let text = load(&[(name, value)]).expect_err("an error").to_string();
        assert!(text.starts_with(message), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

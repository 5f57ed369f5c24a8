//! Rules and origins that look alike and must not be confused.

use super::*;
use proptest::prelude::*;

fn policy(rules: &[&str]) -> OriginPolicy {
    let allowed = rules.iter().map(|rule| OriginRule::try_from((*rule).to_owned()).expect("rule")).collect();
    OriginPolicy { allowed, required: false }
}

fn check(policy: &OriginPolicy, origin: &str) -> Result<(), OriginError> {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("chat.example.com"));
    headers.insert(ORIGIN, HeaderValue::from_bytes(origin.as_bytes()).expect("value"));
    policy.check(&headers)
}

#[test]
fn an_exact_rule_allows_that_origin_and_no_near_miss() {
    let policy = policy(&["https://app.example.com"]);
    for origin in ["https://app.example.com", "https://app.example.com:443", "HTTPS://App.Example.COM"] {
        assert_eq!(check(&policy, origin), Ok(()), "{origin}");
    }
    for origin in [
        "https://app.example.com.evil.org",
        "https://evilapp.example.com",
        "https://evil-app.example.com",
        "https://app.example.comevil.org",
        "http://app.example.com",
        "http://app.example.com:443",
        "https://app.example.com:8443",
        "https://app.example.com:80",
        "wss://app.example.com",
        "https://example.com",
        "https://x.app.example.com",
    ] {
        assert_eq!(check(&policy, origin), Err(OriginError::NotListed), "{origin}");
    }
    for origin in [
        "",
        "null",
        "*",
        "https://",
        "https:///app.example.com",
        "https:app.example.com",
        "app.example.com",
        "//app.example.com",
        "https://app.example.com.",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://app.example.com:",
        "https://app.example.com:0443",
        "https://app.example.com:443:443",
        "https://app.example.com:99999",
        "https://user@app.example.com",
        "https://app.example.com@evil.org",
        "https://evil.org\\@app.example.com",
        "https:\\\\app.example.com",
        "https://app.example.com https://evil.org",
        "https://app.example.com, https://evil.org",
        "https://app.example.com\thttps://evil.org",
        "https://app%2eexample.com",
        "https://app。example.com",
        "https://аpp.example.com",
        "javascript://app.example.com/%0aalert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
    ] {
        assert_eq!(check(&policy, origin), Err(OriginError::Unreadable), "{origin}");
    }
}

#[test]
fn a_wildcard_is_one_level_on_its_scheme_and_port() {
    let policy = policy(&["https://*.example.com", "http://*.example.org:8080"]);
    for origin in ["https://a.example.com", "https://a-b.EXAMPLE.com:443", "http://x.example.org:8080"] {
        assert_eq!(check(&policy, origin), Ok(()), "{origin}");
    }
    for origin in [
        "https://example.com",
        "https://a.b.example.com",
        "https://evilexample.com",
        "https://a.example.com.evil.org",
        "http://a.example.com",
        "https://a.example.com:8443",
        "http://x.example.org",
        "http://x.example.org:8081",
    ] {
        assert_eq!(check(&policy, origin), Err(OriginError::NotListed), "{origin}");
    }
    assert!(check(&policy, "https://.example.com").is_err());
    assert_eq!(check(&policy, "https://*.example.com"), Err(OriginError::Unreadable));
}

#[test]
fn an_empty_list_means_this_host() {
    let policy = policy(&[]);
    let with_host = |host: &str, origin: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).expect("host"));
        headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("origin"));
        policy.check(&headers)
    };
    for (host, origin) in [
        ("chat.example.com", "https://chat.example.com"),
        ("chat.example.com", "http://chat.example.com"),
        ("Chat.Example.com:443", "https://chat.example.com"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
    ] {
        assert_eq!(with_host(host, origin), Ok(()), "{host} {origin}");
    }
    for (host, origin) in [
        ("chat.example.com", "https://chat.example.com:8443"),
        ("chat.example.com:8080", "http://chat.example.com"),
        ("chat.example.com", "https://example.com"),
        ("chat.example.com.", "https://chat.example.com"),
        ("x@chat.example.com", "https://chat.example.com"),
        ("", "https://chat.example.com"),
    ] {
        assert_eq!(with_host(host, origin), Err(OriginError::NotThisHost), "{host} {origin}");
    }
    let mut no_host = HeaderMap::new();
    no_host.insert(ORIGIN, HeaderValue::from_static("https://chat.example.com"));
    assert_eq!(policy.check(&no_host), Err(OriginError::NotThisHost));
}

#[test]
fn no_origin_is_a_native_client_and_two_are_an_attack() {
    let mut policy = policy(&["https://app.example.com"]);
    let mut headers = HeaderMap::new();
    assert_eq!(policy.check(&headers), Ok(()));
    policy.required = true;
    assert_eq!(policy.check(&headers), Err(OriginError::Absent));
    headers.append(ORIGIN, HeaderValue::from_static("https://app.example.com"));
    assert_eq!(policy.check(&headers), Ok(()));
    headers.append(ORIGIN, HeaderValue::from_static("https://app.example.com"));
    assert_eq!(policy.check(&headers), Err(OriginError::Several));
}

#[test]
fn any_allows_every_origin_but_not_what_is_none() {
    let policy = policy(&["*"]);
    assert_eq!(check(&policy, "https://evil.org"), Ok(()));
    assert_eq!(check(&policy, "null"), Err(OriginError::Unreadable));
}

#[test]
fn rules_that_mean_something_else_are_refused() {
    for rule in [
        "",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/*",
        "https://*",
        "https://*.",
        "https://*.com",
        "https://*.*.example.com",
        "https://a.*.example.com",
        "https://a*.example.com",
        "https://*.10.0.0.1",
        "https://user@app.example.com",
        "*.example.com",
        "**",
    ] {
        assert!(OriginRule::try_from(rule.to_owned()).is_err(), "{rule}");
    }
    for rule in ["https://*.example.com:8443", "http://localhost:3000", "http://*.localhost", "capacitor://localhost"] {
        assert!(OriginRule::try_from(rule.to_owned()).is_ok(), "{rule}");
    }
}

proptest! {
    /// What is allowed by an exact rule is that origin, up to case and the default port.
    #[test]
    fn nothing_but_the_origin_itself_is_allowed(text in "(https?://)?[a-z.]{0,8}app\\.example\\.com[a-z.:/@0-9]{0,8}") {
        let allowed = check(&policy(&["https://app.example.com"]), &text).is_ok();
        prop_assert_eq!(allowed, text == "https://app.example.com" || text == "https://app.example.com:443");
    }

    /// A wildcard allows exactly one label more.
    #[test]
    fn a_wildcard_allows_one_label(labels in proptest::collection::vec("[a-z][a-z0-9]{0,5}", 0..4)) {
        let host: String = labels.iter().map(|label| format!("{label}.")).collect();
        let allowed = check(&policy(&["https://*.example.com"]), &format!("https://{host}example.com")).is_ok();
        prop_assert_eq!(allowed, labels.len() == 1);
    }

    /// No header value makes the check panic, and none passes a list that it is not on.
    #[test]
    fn arbitrary_headers_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, value);
            prop_assert!(policy(&["https://app.example.com"]).check(&headers).is_err());
        }
    }
}

//! Which web pages may connect. An origin is compared as a whole — scheme, host, port — after strict parsing; never by
//! prefix, suffix or substring.

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use serde::Deserialize;
use url::Url;

/// Scheme, host and port of a page, in lower case, the port always written out where the scheme has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// Reads an origin as a browser writes it: `scheme://host` or `scheme://host:port`, and nothing more. Everything a
    /// lenient URL parser would put right — user names, backslashes, percent signs, odd spellings of numbers — is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*') {
            return None;
        }
        let lower = text.to_ascii_lowercase();
        let url = Url::parse(&lower).ok()?;
        let (scheme, host) = (url.scheme(), url.host_str()?);
        let default = default_port(scheme);
        let port = url.port().or(default);
        let mut spellings = vec![];
        if let Some(port) = port {
            spellings.push(format!("{scheme}://{host}:{port}"));
        }
        if port == default {
            spellings.push(format!("{scheme}://{host}"));
        }
        let faithful = !host.is_empty() && !host.ends_with('.') && spellings.contains(&lower);
        faithful.then(|| Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// One entry of `security.allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Rule {
    /// `*`: every page. For development.
    Any,
    /// This origin.
    Exact(Origin),
    /// `https://*.example.com`: hosts one level below, not the host itself. Holds the origin without `*.`.
    OneBelow(Origin),
}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let shape = || format!("{text:?} is no origin: scheme://host or scheme://host:port, with no slash at the end");
        let Some((scheme, host)) = text.split_once("://*.") else {
            return Origin::parse(&text).map(Self::Exact).ok_or_else(shape);
        };
        let parent = Origin::parse(&format!("{scheme}://{host}")).ok_or_else(shape)?;
        let is_name =
            parent.host.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_alphabetic()));
        if !is_name {
            return Err(shape());
        }
        if !parent.host.contains('.') && parent.host != "localhost" {
            return Err(format!("{text:?} would allow every site below a top-level domain"));
        }
        Ok(Self::OneBelow(parent))
    }
}

impl Rule {
    fn allows(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(allowed) => allowed == origin,
            Self::OneBelow(parent) => {
                let label = origin.host.strip_suffix(&parent.host).and_then(|rest| rest.strip_suffix('.'));
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
                    && (&parent.scheme, parent.port) == (&origin.scheme, origin.port)
            }
        }
    }
}

/// Why an origin is refused; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
    /// No Origin header, and one is demanded.
    #[error("there is no Origin header")]
    Absent,
    /// More than one.
    #[error("there is more than one Origin header")]
    Several,
    /// `null`, or not an origin at all.
    #[error("the Origin header holds no origin")]
    Unreadable,
    /// An origin that no rule allows.
    #[error("the origin is not on the list")]
    NotListed,
    /// The list is empty and the page comes from another host.
    #[error("the origin is not this host")]
    NotThisHost,
}

impl OriginFault {
    /// A short stable name for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Absent => "origin_absent",
            Self::Several => "origin_several",
            Self::Unreadable => "origin_unreadable",
            Self::NotListed => "origin_not_listed",
            Self::NotThisHost => "origin_not_this_host",
        }
    }
}

/// The rules as a whole.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    /// Empty: pages of this host only.
    pub allowed: Vec<Rule>,
    /// Refuse requests without the header, which only browsers send.
    pub required: bool,
}

impl OriginPolicy {
    /// Checks the Origin header of a request.
    ///
    /// # Errors
    /// Why the page may not connect.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), OriginFault> {
        let origin = match single(headers, &ORIGIN) {
            Ok(Some(origin)) => origin,
            Ok(None) if self.required => return Err(OriginFault::Absent),
            Ok(None) => return Ok(()),
            Err(Several) => return Err(OriginFault::Several),
        };
        let origin = std::str::from_utf8(origin).ok().and_then(Origin::parse).ok_or(OriginFault::Unreadable)?;
        if self.allowed.is_empty() {
            return if is_this_host(&origin, headers) { Ok(()) } else { Err(OriginFault::NotThisHost) };
        }
        if self.allowed.iter().any(|rule| rule.allows(&origin)) { Ok(()) } else { Err(OriginFault::NotListed) }
    }
}

/// Is the page from the host this request was sent to? The scheme is taken from the origin: behind a proxy that ends TLS
/// the gateway cannot know it.
fn is_this_host(origin: &Origin, headers: &HeaderMap) -> bool {
    let Ok(Some(host)) = single(headers, &HOST) else { return false };
    let Ok(host) = std::str::from_utf8(host) else { return false };
    Origin::parse(&format!("{}://{host}", origin.scheme)).as_ref() == Some(origin)
}

struct Several;

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Several> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(http::HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Several),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn policy(rules: &[&str]) -> OriginPolicy {
        let allowed = rules.iter().map(|rule| Rule::try_from((*rule).to_owned()).expect("rule")).collect();
        OriginPolicy { allowed, required: false }
    }

    fn check(policy: &OriginPolicy, origin: &str) -> Result<(), OriginFault> {
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
            assert_eq!(check(&policy, origin), Err(OriginFault::NotListed), "{origin}");
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
            assert_eq!(check(&policy, origin), Err(OriginFault::Unreadable), "{origin}");
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
            assert_eq!(check(&policy, origin), Err(OriginFault::NotListed), "{origin}");
        }
        assert!(check(&policy, "https://.example.com").is_err());
        assert_eq!(check(&policy, "https://*.example.com"), Err(OriginFault::Unreadable));
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
            assert_eq!(with_host(host, origin), Err(OriginFault::NotThisHost), "{host} {origin}");
        }
        let mut no_host = HeaderMap::new();
        no_host.insert(ORIGIN, HeaderValue::from_static("https://chat.example.com"));
        assert_eq!(policy.check(&no_host), Err(OriginFault::NotThisHost));
    }

    #[test]
    fn no_origin_is_a_native_client_and_two_are_an_attack() {
        let mut policy = policy(&["https://app.example.com"]);
        let mut headers = HeaderMap::new();
        assert_eq!(policy.check(&headers), Ok(()));
        policy.required = true;
        assert_eq!(policy.check(&headers), Err(OriginFault::Absent));
        headers.append(ORIGIN, HeaderValue::from_static("https://app.example.com"));
        assert_eq!(policy.check(&headers), Ok(()));
        headers.append(ORIGIN, HeaderValue::from_static("https://app.example.com"));
        assert_eq!(policy.check(&headers), Err(OriginFault::Several));
    }

    #[test]
    fn any_allows_every_origin_but_not_what_is_none() {
        let policy = policy(&["*"]);
        assert_eq!(check(&policy, "https://evil.org"), Ok(()));
        assert_eq!(check(&policy, "null"), Err(OriginFault::Unreadable));
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
            assert!(Rule::try_from(rule.to_owned()).is_err(), "{rule}");
        }
        for rule in
            ["https://*.example.com:8443", "http://localhost:3000", "http://*.localhost", "capacitor://localhost"]
        {
            assert!(Rule::try_from(rule.to_owned()).is_ok(), "{rule}");
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
}

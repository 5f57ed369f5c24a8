//! Settings from files and from the environment: their order, their errors, and secrets.

use std::io::Write as _;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
struct Example {
    server: Server,
    auth: Auth,
    #[serde(default)]
    models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
struct Server {
    listen: std::net::SocketAddr,
    name: String,
    workers: u16,
    ratio: f64,
    strict: bool,
    origins: Vec<String>,
    tls: Tls,
}

#[derive(Debug, Deserialize)]
struct Tls {
    ca_file: String,
}

#[derive(Debug, Deserialize)]
struct Auth {
    #[serde(default)]
    secret: Option<SecretString>,
    secret_file: String,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Model {
    id: String,
    temperature: Option<f32>,
}

impl Settings for Example {
    const DEFAULTS: &'static str = r#"
        [server]
        listen = "127.0.0.1:0"
        name = ""
        workers = 4
        ratio = 0.5
        strict = false
        origins = []
        [server.tls]
        ca_file = ""
        [auth]
        secret_file = ""
    "#;
    const SECRETS: &'static [&'static str] = &["auth.secret"];
    const UNLISTED: &'static [&'static str] = &["models"];

    fn validate(&self, errors: &mut ConfigErrors) {
        errors.ensure(self.server.workers > 0, "server.workers", "must be at least 1");
    }
}

const NO_ENV: [(&str, &str); 0] = [];

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn keys(errors: &ConfigErrors) -> Vec<&str> {
    errors.iter().map(|error| error.key.as_str()).collect()
}

#[test]
fn the_defaults_alone_are_valid() {
    let settings: Example = load_from(None, NO_ENV).unwrap();
    assert_eq!((settings.server.workers, settings.server.name.as_str()), (4, ""));
    assert!(settings.auth.secret.is_none() && settings.auth.secret_file.is_empty() && settings.models.is_empty());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = file("[server]\nworkers = 8\nname = \"file\"\nratio = 1\n[server.tls]\nca_file = \"ca.pem\"");
    let env = [
        ("CHATBOX__SERVER__NAME", "env"),
        ("CHATBOX__SERVER__STRICT", "true"),
        ("CHATBOX_MONGOD", "/x"),
        ("HOME", "/y"),
    ];
    let settings: Example = load_from(Some(file.path()), env).unwrap();
    assert_eq!((settings.server.workers, settings.server.name.as_str()), (8, "env"));
    assert!(settings.server.strict);
    assert!((settings.server.ratio - 1.0).abs() < f64::EPSILON);
    assert_eq!(settings.server.tls.ca_file, "ca.pem");
}

#[test]
fn the_environment_names_the_file_unless_the_command_line_does() {
    let (by_env, by_flag) = (file("server.workers = 8"), file("server.workers = 9"));
    let env = || [("CHATBOX_CONFIG", by_env.path().to_str().unwrap())];
    assert_eq!(load_from::<Example>(None, env()).unwrap().server.workers, 8);
    assert_eq!(load_from::<Example>(Some(by_flag.path()), env()).unwrap().server.workers, 9);
}

#[test]
fn values_from_the_environment_take_the_type_of_their_setting() {
    let env = [
        ("CHATBOX__SERVER__NAME", "00123"),
        ("CHATBOX__SERVER__WORKERS", " 7 "),
        ("CHATBOX__SERVER__ORIGINS", r#"["https://a.example.com", "https://b.example.com"]"#),
        ("CHATBOX__SERVER__LISTEN", "127.0.0.1:81"),
        ("CHATBOX__AUTH__SECRET", "12345678901234567890123456789012"),
        ("CHATBOX__MODELS", r#"[{ id = "m", temperature = 0.5 }]"#),
    ];
    let settings: Example = load_from(None, env).unwrap();
    assert_eq!(settings.server.name, "00123");
    assert_eq!(settings.server.workers, 7);
    assert_eq!(settings.server.origins, ["https://a.example.com", "https://b.example.com"]);
    assert_eq!(settings.server.listen.port(), 81);
    assert_eq!(settings.auth.secret.unwrap().expose_secret(), "12345678901234567890123456789012");
    assert_eq!(settings.models, [Model { id: "m".into(), temperature: Some(0.5) }]);
}

#[test]
fn all_errors_are_reported_at_once_with_key_and_source() {
    let file = file(
        "surprise = 1\n[server]\nworkers = \"many\"\nlisten = \"nowhere\"\norigins = [1]\ntypo = 2\n[server.tls]\nca = 1\n\
         [[models]]\nid = 1\nextra = 2\n[[models]]\nid = \"ok\"\n[[models]]\ntemperature = \"hot\"\n",
    );
    let env = [
        ("CHATBOX__SERVER__STRICT", "perhaps"),
        ("CHATBOX__NO__SUCH", "1"),
        ("CHATBOX__SERVER", "1"),
        ("CHATBOX__SERVER__RATIO", ""),
    ];
    let errors = load_from::<Example>(Some(file.path()), env).unwrap_err();
    let mut found = keys(&errors);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "models[0].extra",
            "models[0].id",
            "models[2].id",
            "models[2].temperature",
            "no.such",
            "server",
            "server.listen",
            "server.origins[0]",
            "server.ratio",
            "server.strict",
            "server.tls.ca",
            "server.typo",
            "server.workers",
            "surprise",
        ]
    );
    let text = errors.to_string();
    assert_eq!(text.lines().count(), found.len());
    let name = file.path().display().to_string();
    assert!(text.contains(&format!("server.workers: must be a whole number, found a string (in {name})")), "{text}");
    assert!(
        text.contains("server.strict: must be true or false (environment variable CHATBOX__SERVER__STRICT)"),
        "{text}"
    );
    assert!(text.contains("models[2].id: missing"), "{text}");
}

#[test]
fn a_number_out_of_range_is_told_its_range() {
    for value in ["70000", "-5"] {
        let text = load_from::<Example>(None, [("CHATBOX__SERVER__WORKERS", value)]).unwrap_err().to_string();
        assert_eq!(
            text,
            format!(
                "server.workers: must be a whole number from 0 to 65535, found {value} \
                 (environment variable CHATBOX__SERVER__WORKERS)"
            )
        );
    }
}

#[test]
fn an_environment_variable_with_single_underscores_is_an_error_that_names_the_right_one() {
    let cases = [
        ("CHATBOX_SERVER_STRICT", "CHATBOX__SERVER__STRICT"),
        ("CHATBOX_SERVER_TLS_CA_FILE", "CHATBOX__SERVER__TLS__CA_FILE"),
        ("CHATBOX_AUTH_SECRET", "CHATBOX__AUTH__SECRET"),
        ("CHATBOX__SERVER_TLS__CA_FILE", "CHATBOX__SERVER__TLS__CA_FILE"),
    ];
    for (name, meant) in cases {
        let text = load_from::<Example>(None, [(name, "canary")]).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(&format!("did you mean {meant}?")), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn an_environment_variable_that_is_like_no_setting_is_a_warning() {
    let warnings = |name: &str| read::<Example>(None, vec![(name.into(), "x".into())]).1;
    let found = warnings("CHATBOX_NO_SUCH");
    assert!(found.len() == 1 && found[0].contains("CHATBOX_NO_SUCH"), "{found:?}");
    for known in ["CHATBOX_MONGOD", "HOME", "CHATBOXER"] {
        assert!(warnings(known).is_empty(), "{known}");
    }
}

#[test]
fn values_that_make_no_sense_are_errors_beside_the_others() {
    let errors =
        load_from::<Example>(None, [("CHATBOX__SERVER__WORKERS", "0"), ("CHATBOX__SERVER__LISTEN", "x")]).unwrap_err();
    assert_eq!(keys(&errors), ["server.listen", "server.workers"]);
}

#[test]
fn a_secret_in_a_file_is_a_fault_and_is_not_repeated() {
    let file = file("[auth]\nsecret = \"canary-of-a-secret\"");
    let text = load_from::<Example>(Some(file.path()), NO_ENV).unwrap_err().to_string();
    assert!(
        text.starts_with("auth.secret: ")
            && text.contains("CHATBOX__AUTH__SECRET")
            && text.contains("auth.secret_file"),
        "{text}"
    );
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_secret_comes_from_its_file_without_the_line_ending() {
    for (written, read) in
        [("secret\n", "secret"), ("secret\r\n", "secret"), ("secret", "secret"), (" secret \n\n", " secret \n")]
    {
        let secret = file(written);
        let settings: Example =
            load_from(None, [("CHATBOX__AUTH__SECRET_FILE", secret.path().to_str().unwrap())]).unwrap();
        assert_eq!(settings.auth.secret.unwrap().expose_secret(), read);
    }
}

#[test]
fn a_secret_that_cannot_be_had_is_a_fault_of_its_key() {
    let empty = file("\n");
    let whole = file("x");
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("CHATBOX__AUTH__SECRET_FILE", "/no/such/file")], "/no/such/file: cannot be read"),
        (&[("CHATBOX__AUTH__SECRET_FILE", "canary")], "its name is not shown"),
        (&[("CHATBOX__AUTH__SECRET_FILE", empty.path().to_str().unwrap())], "is empty"),
        (
            &[("CHATBOX__AUTH__SECRET_FILE", whole.path().to_str().unwrap()), ("CHATBOX__AUTH__SECRET", "canary")],
            "only one",
        ),
    ];
    for (env, reason) in cases {
        let errors = load_from::<Example>(None, env.iter().copied()).unwrap_err();
        assert_eq!(keys(&errors), ["auth.secret_file"]);
        assert!(errors.to_string().contains(reason) && !errors.to_string().contains("canary"), "{errors}");
    }
}

#[test]
fn an_empty_secret_in_the_environment_counts_as_none() {
    assert!(load_from::<Example>(None, [("CHATBOX__AUTH__SECRET", "")]).unwrap().auth.secret.is_none());
}

#[test]
fn broken_toml_is_the_only_error_and_does_not_quote_the_file() {
    let file = file("[auth]\nsecret = \"canary\n");
    let text = load_from::<Example>(Some(file.path()), [("CHATBOX__NO__SUCH", "1")]).unwrap_err().to_string();
    let name = file.path().display();
    assert!(text.starts_with(&format!("{name}: not valid TOML at line 2, column ")), "{text}");
    assert!(!text.contains("canary") && !text.contains('\n'), "{text}");
}

#[test]
fn a_missing_file_is_an_error() {
    let text = load_from::<Example>(Some(Path::new("/no/such.toml")), NO_ENV).unwrap_err().to_string();
    assert!(text.starts_with("--config: cannot read /no/such.toml"), "{text}");
}

#[test]
fn the_text_of_an_environment_variable_cannot_add_settings() {
    let errors = load_from::<Example>(None, [("CHATBOX__SERVER__WORKERS", "1\nstrict = true")]).unwrap_err();
    assert_eq!(keys(&errors), ["server.workers"]);
}

proptest::proptest! {
    /// Whatever the environment holds: a setting or errors, never a panic, and one line for each fault.
    #[test]
    fn any_environment_is_handled(key in "[A-Z_.0-9]{0,20}", value in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
        for name in [format!("CHATBOX__{key}"), format!("CHATBOX__SERVER__{key}"), "CHATBOX__MODELS".to_owned(), "CHATBOX__SERVER__ORIGINS".to_owned()] {
            if let Err(errors) = load_from::<Example>(None, [(name, value.clone())]) {
                assert_eq!(errors.to_string().lines().count(), errors.iter().count());
            }
        }
    }
}

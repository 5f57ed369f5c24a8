//! Settings that are typed right and cannot work. Each is reported under its key.

use chatbox_shared::config::load_from;

use super::*;

/// The errors of this file with these variables besides a valid keyring, as `key: reason` lines.
fn errors(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("brain.toml");
    std::fs::write(&path, format!("[link]\ninsecure = true\n{file}")).unwrap();
    let keyring = Keyring::generate_line("k1").unwrap().to_string();
    let keyring = [("CHATBOX__KEYS__KEYRING", keyring.as_str())];
    let loaded = load_from::<BrainConfig>(Some(&path), keyring.iter().chain(variables).copied());
    loaded.err().map(|errors| errors.to_string().lines().map(str::to_owned).collect()).unwrap_or_default()
}

fn mongodb(uri: &str) -> Vec<String> {
    errors("[store]\nkind = \"mongodb\"\n", &[("CHATBOX__STORE__MONGODB__URI", uri)])
}

#[test]
fn the_defaults_with_a_keyring_are_valid() {
    assert_eq!(errors("", &[]), Vec::<String>::new());
    assert_eq!(mongodb("mongodb://user:p%40ss@127.0.0.1:27017/?replicaSet=rs0"), Vec::<String>::new());
}

#[test]
fn a_connection_string_is_parsed_and_the_driver_s_reason_is_reported() {
    for (uri, reason) in [
        ("mongo://127.0.0.1", "unsupported connection string scheme: mongo"),
        ("mongodb://127.0.0.1/?replicaSett=rs0", "invalid option"),
        ("mongodb://user:can/ary@127.0.0.1/", "percent-encoded"),
    ] {
        let errors = mongodb(uri);
        assert!(errors.len() == 1 && errors[0].starts_with("store.mongodb.uri: "), "{errors:?}");
        assert!(errors[0].contains(reason) && !errors[0].contains("ary@"), "{errors:?}");
    }
    let errors = errors("[store]\nkind = \"mongodb\"\n[store.mongodb]\ndatabase = \"a.b\"\n", &[]);
    assert!(errors.iter().any(|error| error.starts_with("store.mongodb.database: ")), "{errors:?}");
}

#[test]
fn the_folder_of_the_database_file_must_exist() {
    let errors = errors("[store.sqlite]\npath = \"/no/such/folder/chatbox.db\"\n", &[]);
    assert_eq!(errors, ["store.sqlite.path: the folder /no/such/folder does not exist"]);
}

#[test]
fn both_ports_of_the_brain_must_differ() {
    let listen =
        |link: &str, ops: &str| errors(&format!("[brain]\nlisten = \"{link}\"\n[ops]\nlisten = \"{ops}\"\n"), &[]);
    let message = "ops.listen: must not be the address of brain.listen (0.0.0.0:9091)";
    assert_eq!(listen("0.0.0.0:9091", "127.0.0.1:9091"), [message]);
    for (link, ops) in [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:9091", "127.0.0.2:9091")] {
        assert_eq!(listen(link, ops), Vec::<String>::new());
    }
}

#[test]
fn a_host_name_is_not_an_address() {
    for section in ["brain", "ops"] {
        let errors = errors(&format!("[{section}]\nlisten = \"localhost:50051\"\n"), &[]);
        let message = format!("{section}.listen: \"localhost:50051\" must be an IP address and a port");
        assert!(errors.len() == 1 && errors[0].starts_with(&message), "{errors:?}");
    }
}

#[test]
fn a_name_of_a_brain_is_short_and_plain() {
    let id = |id: &str| errors(&format!("[brain]\nid = \"{id}\"\n"), &[]);
    for valid in ["", "brain-1.example_2", &"a".repeat(64)] {
        assert_eq!(id(valid), Vec::<String>::new());
    }
    for invalid in ["a b", "br\u{e4}in", &"a".repeat(65)] {
        assert_eq!(id(invalid), ["brain.id: must have at most 64 letters, digits and . _ -"]);
    }
}

#[test]
fn the_time_of_a_drain_is_bounded() {
    let drain = |seconds: u64| errors(&format!("[shutdown]\ndrain_seconds = {seconds}\n"), &[]);
    assert_eq!(drain(3600), Vec::<String>::new());
    assert_eq!(drain(3601), ["shutdown.drain_seconds: must be from 0 to 3600, but is 3601"]);
}

#[test]
fn the_reason_of_a_help_request_has_a_bound_of_its_own() {
    let limit = |chars: u32| errors(&format!("[limits]\nmax_reason_chars = {chars}\n"), &[]);
    assert_eq!(limit(1), Vec::<String>::new());
    for chars in [0, 10_001] {
        assert_eq!(limit(chars), [format!("limits.max_reason_chars: must be from 1 to 10000, but is {chars}")]);
    }
}

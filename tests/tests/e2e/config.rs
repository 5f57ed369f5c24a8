//! Settings: a service prints all errors at once and exits with code 2; a missing required setting is named.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Result, ensure};
use chatbox_tests::harness::binaries::{Profile, find};
use chatbox_tests::harness::process::{Launch, run};
use chatbox_tests::harness::start::random_base64;
use tempfile::TempDir;

struct Case {
    folder: TempDir,
    program: &'static str,
}

impl Case {
    fn new(program: &'static str) -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, program })
    }

    fn file(&self, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join("settings.toml");
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Runs the program (or its `check-config`) with this file and environment, to its end.
    async fn run(&self, check: bool, text: &str, env: &[(&str, &str)]) -> Result<(Output, String)> {
        let path = self.file(text)?.display().to_string();
        let mut launch =
            if check { Launch::args(["check-config", "--config", &path]) } else { Launch::args(["--config", &path]) };
        for (key, value) in env {
            launch = launch.env(*key, *value);
        }
        let output = run(&find(self.program, Profile::Same)?, &launch).await?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output, text))
    }
}

fn all_named(what: &str, output: &Output, text: &str, names: &[&str]) -> Result<()> {
    ensure!(output.status.code() == Some(2), "{what}: exit {:?}\n{text}", output.status.code());
    for name in names {
        ensure!(text.contains(name), "{what}: {name} is not named\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn the_brain_lists_every_fault_at_once() -> Result<()> {
    let case = Case::new("brain")?;
    let keyring = format!("k1:{}", random_base64());
    let bad = r#"
        [brain]
        listen = "nowhere"
        [link]
        insecure = true
        [store]
        kind = "paper"
        timeout_ms = 0
        [answers]
        lease_ms = -5
        default_model = "missing"
        [keys]
        active = "k9"
        [surprise]
        key = 1
    "#;
    let (output, text) = case.run(true, bad, &[("CHATBOX__KEYS__KEYRING", &keyring)]).await?;
    all_named("faults", &output, &text, &["brain.listen", "store.kind", "surprise"])?;
    let bad = r#"
        [link]
        insecure = true
        [store]
        timeout_ms = 0
        [limits]
        replay_entries = 0
        [answers]
        default_model = "missing"
        [keys]
        active = "k9"
    "#;
    let (output, text) = case.run(true, bad, &[("CHATBOX__KEYS__KEYRING", &keyring)]).await?;
    let names = ["store.timeout_ms", "limits.replay_entries", "answers.default_model", "k9"];
    all_named("faults of value", &output, &text, &names)?;
    ensure!(!text.contains(&keyring), "the keyring is shown");
    Ok(())
}

#[tokio::test]
async fn the_gateway_lists_every_fault_at_once() -> Result<()> {
    let case = Case::new("gateway")?;
    let secret = random_base64();
    let bad = r#"
        [link]
        insecure = true
        [brain]
        endpoints = []
        [security]
        allowed_origins = ["*", "https://app.example.com/path"]
        [limits]
        max_frame_bytes = 0
        [heartbeat]
        interval_ms = 0
    "#;
    let (output, text) = case.run(true, bad, &[("CHATBOX__AUTH__HS256_SECRET", &secret)]).await?;
    let names = ["brain.endpoints", "security.allowed_origins", "limits.max_frame_bytes", "heartbeat.interval_ms"];
    all_named("faults", &output, &text, &names)?;
    ensure!(!text.contains(&secret), "the secret is shown");
    Ok(())
}

#[tokio::test]
async fn good_settings_pass_and_the_environment_wins_over_the_file() -> Result<()> {
    let brain = Case::new("brain")?;
    let keyring = format!("k1:{}", random_base64());
    let good = "[link]\ninsecure = true\n[store]\nkind = \"paper\"\n";
    let env = [("CHATBOX__KEYS__KEYRING", keyring.as_str()), ("CHATBOX__STORE__KIND", "sqlite")];
    let (output, text) = brain.run(true, good, &env).await?;
    ensure!(output.status.success(), "{text}");

    let gateway = Case::new("gateway")?;
    let secret = random_base64();
    let env = [
        ("CHATBOX__AUTH__HS256_SECRET", secret.as_str()),
        ("CHATBOX__SECURITY__ALLOWED_ORIGINS", r#"["https://a.example.com", "https://b.example.com"]"#),
    ];
    let (output, text) = gateway.run(true, "[link]\ninsecure = true\n", &env).await?;
    ensure!(output.status.success(), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_brain_does_not_start_without_a_keyring_or_with_a_bad_one() -> Result<()> {
    let case = Case::new("brain")?;
    let settings = "[brain]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[link]\ninsecure = true\n";
    let (output, text) = case.run(false, settings, &[]).await?;
    all_named("no keyring", &output, &text, &["CHATBOX__KEYS__KEYRING"])?;
    for bad in ["k1:c2hvcnQ=", "no colon", "k1:!!!!", "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        let (output, text) = case.run(false, settings, &[("CHATBOX__KEYS__KEYRING", bad)]).await?;
        all_named(bad, &output, &text, &["keyring"])?;
        ensure!(!text.contains(bad), "the value is shown: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn the_gateway_does_not_start_without_a_way_to_check_tokens_or_with_a_weak_secret() -> Result<()> {
    let case = Case::new("gateway")?;
    let settings = "[gateway]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[link]\ninsecure = true\n";
    let (output, text) = case.run(false, settings, &[]).await?;
    all_named("no secret", &output, &text, &["CHATBOX__AUTH__HS256_SECRET"])?;
    for weak in ["short-secret-canary", "changemechangemechangemechangeme", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
    {
        let (output, text) = case.run(false, settings, &[("CHATBOX__AUTH__HS256_SECRET", weak)]).await?;
        all_named(weak, &output, &text, &["auth.hs256_secret"])?;
        ensure!(!text.contains(weak), "the value is shown: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn secrets_in_the_file_and_plaintext_links_unasked_for_are_refused() -> Result<()> {
    let gateway = Case::new("gateway")?;
    let secret = random_base64();
    let (output, text) =
        gateway.run(true, &format!("[link]\ninsecure = true\n[auth]\nhs256_secret = \"{secret}\"\n"), &[]).await?;
    all_named("a secret in TOML", &output, &text, &["auth.hs256_secret"])?;
    ensure!(!text.contains(&secret), "the secret is shown");
    let (output, text) = gateway.run(true, "", &[("CHATBOX__AUTH__HS256_SECRET", &secret)]).await?;
    all_named("no TLS and not insecure", &output, &text, &["link.insecure"])?;

    let brain = Case::new("brain")?;
    let keyring = format!("k1:{}", random_base64());
    for (what, text) in [
        ("keys.keyring", format!("[keys]\nkeyring = \"{keyring}\"\n")),
        ("store.mongodb.uri", "[store.mongodb]\nuri = \"mongodb://user:canary@127.0.0.1\"\n".to_owned()),
    ] {
        let text = format!("[link]\ninsecure = true\n{text}");
        let (output, said) = brain.run(true, &text, &[("CHATBOX__KEYS__KEYRING", &keyring)]).await?;
        all_named(what, &output, &said, &[what])?;
        ensure!(!said.contains("canary") && !said.contains(&keyring), "the secret is shown: {said}");
    }
    Ok(())
}

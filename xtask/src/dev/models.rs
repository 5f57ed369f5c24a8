//! The models of a development run: those whose keys are in the environment, else the built-in offline model. The
//! settings contain the names of the variables, never a key.

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::http;

/// The environment variables that hold keys.
pub(super) const KEYS: &[&str] = &["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DIFY_API_KEY"];

const OLLAMA_PORT: u16 = 11434;

/// One `[[models]]` of the brain's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Model {
    id: String,
    name: String,
    provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_env: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens_field: Option<&'static str>,
}

/// The models that the environment configures.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) models: Vec<Model>,
    /// Why a variable was not used, for people.
    pub(super) notes: Vec<String>,
}

impl Found {
    /// The names of the models, for people.
    pub(super) fn names(&self) -> String {
        if self.models.is_empty() {
            return "demo (built in, offline; set OPENAI_API_KEY, ANTHROPIC_API_KEY, DIFY_API_KEY and DIFY_BASE_URL, or \
                    OLLAMA_HOST for others)"
                .to_owned();
        }
        self.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Reads this process's environment.
pub(super) async fn from_environment() -> Found {
    let get =
        |name: &str| std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let mut found = hosted(get);
    if let Some(value) = get("OLLAMA_HOST") {
        match ollama(&value, get("OLLAMA_MODEL")).await {
            Ok(model) => found.models.push(model),
            Err(error) => found.notes.push(format!("OLLAMA_HOST is not used: {error:#}")),
        }
    }
    found
}

/// The models of hosted providers.
fn hosted(get: impl Fn(&str) -> Option<String>) -> Found {
    let mut found = Found::default();
    let named = |key: &'static str, provider: &'static str, default: &str, prefix: &str| -> Option<Model> {
        get(key)?;
        let model = get(&format!("{prefix}_MODEL")).unwrap_or_else(|| default.to_owned());
        Some(Model {
            id: provider.to_owned(),
            name: model.clone(),
            provider,
            base_url: get(&format!("{prefix}_BASE_URL")),
            model: Some(model),
            api_key_env: Some(key),
            max_tokens_field: None,
        })
    };
    found.models.extend(named("OPENAI_API_KEY", "openai", "gpt-5-mini", "OPENAI"));
    found.models.extend(named("ANTHROPIC_API_KEY", "anthropic", "claude-sonnet-4-5", "ANTHROPIC"));
    match (get("DIFY_API_KEY"), get("DIFY_BASE_URL")) {
        (Some(_), Some(url)) => found.models.push(Model {
            id: "dify".to_owned(),
            name: "Dify".to_owned(),
            provider: "dify",
            base_url: Some(url),
            model: None,
            api_key_env: Some("DIFY_API_KEY"),
            max_tokens_field: None,
        }),
        (Some(_), None) => found.notes.push("DIFY_API_KEY is not used: DIFY_BASE_URL is not set".to_owned()),
        (None, Some(_)) => found.notes.push("DIFY_BASE_URL is not used: DIFY_API_KEY is not set".to_owned()),
        (None, None) => {}
    }
    found
}

/// A model of an Ollama server: `wanted`, else the first in the server's list.
async fn ollama(value: &str, wanted: Option<String>) -> Result<Model> {
    let host = ollama_host(value)?;
    let model = match wanted {
        Some(model) => model,
        None => {
            let (status, body) = http::get(&host, "/api/tags").await?;
            ensure!(status == 200, "{host} replied with status {status}");
            let tags: serde_json::Value =
                serde_json::from_str(&body).context("the server's list of models is invalid")?;
            let first = tags["models"][0]["name"].as_str();
            first.context("the server has no models; fetch one with `ollama pull`")?.to_owned()
        }
    };
    Ok(Model {
        id: "ollama".to_owned(),
        name: model.clone(),
        provider: "openai",
        base_url: Some(format!("http://{host}/v1")),
        model: Some(model),
        api_key_env: None,
        max_tokens_field: Some("max_tokens"),
    })
}

/// The `host:port` of the server from `OLLAMA_HOST`, whose forms are `host`, `host:port`, `:port`, `http://host:port/`.
fn ollama_host(value: &str) -> Result<String> {
    ensure!(
        !value.starts_with("https://"),
        "only http:// is supported; configure the model in a settings file instead"
    );
    let value = value.strip_prefix("http://").unwrap_or(value);
    let value = value.trim_end_matches('/');
    ensure!(!value.is_empty() && !value.contains('/'), "the value must have the form host:port");
    // Several colons without a bracket are an IPv6 address without a port.
    let (host, port) = match value.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse::<u16>().context("the port is not a number")?)
        }
        Some(_) if !value.starts_with('[') => (&*format!("[{value}]"), OLLAMA_PORT),
        _ => (value, OLLAMA_PORT),
    };
    // A client cannot connect to the wildcard address on which a server listens.
    let host = match host {
        "" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(env: &[(&str, &str)]) -> Found {
        hosted(|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn without_keys_the_demo_model_is_used() {
        let found = found(&[]);
        assert_eq!(found, Found::default());
        assert!(found.names().starts_with("demo"));
    }

    #[test]
    fn every_key_adds_its_model_and_is_not_written_to_the_settings() {
        let found = found(&[
            ("OPENAI_API_KEY", "canary"),
            ("OPENAI_MODEL", "gpt-x"),
            ("ANTHROPIC_API_KEY", "canary"),
            ("DIFY_API_KEY", "canary"),
            ("DIFY_BASE_URL", "https://dify.example.com/v1"),
        ]);
        let text = toml::to_string(&serde_json::json!({ "models": found.models })).unwrap();
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        let providers: Vec<&str> =
            parsed["models"].as_array().unwrap().iter().map(|model| model["provider"].as_str().unwrap()).collect();
        assert_eq!(providers, ["openai", "anthropic", "dify"]);
        assert_eq!(parsed["models"][0]["model"].as_str(), Some("gpt-x"));
        assert_eq!(parsed["models"][2]["api_key_env"].as_str(), Some("DIFY_API_KEY"));
        assert!(!text.contains("canary") && found.notes.is_empty());
    }

    #[test]
    fn a_dify_variable_without_the_other_is_reported() {
        assert!(found(&[("DIFY_API_KEY", "x")]).notes[0].contains("DIFY_BASE_URL"));
        assert!(found(&[("DIFY_BASE_URL", "x")]).notes[0].contains("DIFY_API_KEY"));
    }

    #[test]
    fn every_form_of_ollama_host_is_read() {
        for (value, host) in [
            ("box", "box:11434"),
            ("box:1", "box:1"),
            (":1", "127.0.0.1:1"),
            ("0.0.0.0", "127.0.0.1:11434"),
            ("http://box:1/", "box:1"),
            ("::1", "[::1]:11434"),
            ("[::1]:1", "[::1]:1"),
            ("[::]:1", "[::1]:1"),
            ("[::1]", "[::1]:11434"),
        ] {
            assert_eq!(ollama_host(value).unwrap(), host, "{value}");
        }
        for value in ["https://box", "http://", "box:port", "box/path", "box:70000"] {
            assert!(ollama_host(value).is_err(), "{value}");
        }
    }

    #[tokio::test]
    async fn the_error_of_an_unreachable_ollama_names_it() {
        let error = format!("{:#}", ollama("127.0.0.1:1", None).await.unwrap_err());
        assert!(error.contains("127.0.0.1:1"), "{error}");
    }
}

//! Sound and broken settings of models.

use secrecy::ExposeSecret;
use serde_json::json;

use super::provider::VALID;
use super::*;

const CALLS: ProviderConfig = ProviderConfig { max_retries: 2, ..VALID };

fn models(json: serde_json::Value) -> Vec<ModelConfig> {
    serde_json::from_value(json).unwrap()
}

fn errors(json: serde_json::Value) -> Vec<String> {
    validate(&models(json), &CALLS, "").into_iter().map(|error| error.key).collect()
}

/// A variable every build has; its value serves as a key that is no secret.
const KEY_ENV: &str = "CARGO_PKG_NAME";

#[test]
fn sound_models_have_no_faults() {
    let sound = json!([
        {"id": "gpt", "name": "GPT", "provider": "openai", "model": "gpt-x", "api_key_env": KEY_ENV, "api_key_file": ""},
        {"id": "azure", "provider": "openai", "model": "d", "base_url": "https://example.com/openai/deployments/d",
         "api_key_env": KEY_ENV, "auth_header": "api-key", "api_version": "2024-10-21", "temperature": 0.7},
        {"id": "llama3.1:8b", "provider": "openai", "model": "llama3.1:8b", "base_url": "http://127.0.0.1:11434/v1",
         "max_tokens_field": "max_tokens", "context_tokens": 4096, "max_retries": 0},
        {"id": "claude", "provider": "anthropic", "model": "c", "api_key_env": KEY_ENV, "temperature": 0.5},
        {"id": "app", "provider": "dify", "api_key_env": KEY_ENV},
        {"id": "demo", "provider": "demo"},
    ]);
    assert_eq!(validate(&models(sound), &CALLS, "claude"), []);
    assert_eq!(validate(&[], &CALLS, "demo"), []);
}

#[test]
fn all_faults_are_listed_at_once() {
    let broken = json!([
        {"provider": "openai"},
        {"id": "a b", "provider": "opnai"},
        {"id": "x", "provider": "dify", "base_url": "ftp://example.com", "model": "m", "system_prompt": "s"},
        {"id": "x", "provider": "demo", "context_tokens": 10, "max_output_tokens": 10, "max_retries": 99},
        {"id": "y", "provider": "anthropic", "model": "m", "temperature": 3, "api_version": "2026-10-21",
         "api_key_env": "NO_SUCH_VARIABLE", "auth_header": "x"},
        {"id": "z", "provider": "openai", "model": "m", "base_url": "https://me:secret@example.com",
         "api_key_env": KEY_ENV, "api_key_file": "key", "max_tokens_field": "tokens", "idle_timeout_ms": 0},
    ]);
    let expected = [
        "models[0].id",
        "models[0].model",
        "models[0].api_key_env",
        "models[1].id",
        "models[1].provider",
        "models[2].model",
        "models[2].system_prompt",
        "models[2].base_url",
        "models[2].api_key_env",
        "models[3].max_retries",
        "models[3].context_tokens",
        "models[3].id",
        "models[4].auth_header",
        "models[4].temperature",
        "models[4].temperature",
        "models[4].auth_header",
        "models[4].api_key_env",
        "models[5].idle_timeout_ms",
        "models[5].max_tokens_field",
        "models[5].base_url",
        "models[5].api_key_file",
    ];
    assert_eq!(errors(broken), expected);
    let provider = ProviderConfig { total_timeout_ms: 0, ..CALLS };
    let keys: Vec<_> = validate(&[], &provider, "gpt").into_iter().map(|error| error.key).collect();
    assert_eq!(keys, ["provider.total_timeout_ms", "answers.default_model"]);
}

#[test]
fn fallbacks_prices_and_shared_endpoints_are_checked() {
    let at = |id: &str, more: serde_json::Value| {
        let mut model = json!({"id": id, "provider": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"});
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        model
    };
    let sound = json!([at("a", json!({"fallback": ["b", "c"], "input_price": 2.5, "output_price": 10})),
        at("b", json!({"fallback": ["a"], "max_retries": 0})), {"id": "c", "provider": "demo", "max_concurrent": 3}]);
    assert_eq!(validate(&models(sound), &CALLS, ""), []);
    let broken = json!([
        at("a", json!({"fallback": ["a", "x", "b", "b"]})),
        at("b", json!({"max_concurrent": 7, "input_price": 1, "cached_input_price": -1})),
        at("c", json!({"cached_input_price": 1, "breaker_failures": 0, "max_concurrent": 0})),
    ]);
    let expected = [
        "models[1].cached_input_price",
        "models[1].output_price",
        "models[2].max_concurrent",
        "models[2].breaker_failures",
        "models[2].cached_input_price",
        "models[0].fallback",
        "models[0].fallback",
        "models[0].fallback",
        "models[1]",
        "models[2]",
    ];
    assert_eq!(errors(broken), expected);
}

#[test]
fn unknown_keys_are_refused() {
    assert!(serde_json::from_value::<ModelConfig>(json!({"id": "x", "api_key": "secret"})).is_err());
    assert!(serde_json::from_value::<ProviderConfig>(json!({"retries": 1})).is_err());
}

#[test]
fn a_key_comes_from_its_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let model = ModelConfig { api_key_file: path.display().to_string(), ..ModelConfig::default() };
    std::fs::write(&path, "canary-key\n").unwrap();
    let key = model.api_key().unwrap().unwrap();
    assert_eq!(key.expose_secret(), "canary-key");
    assert!(!format!("{key:?}").contains("canary"));
    for wrong in ["", " \n", "canary key", "canary-schlüssel"] {
        std::fs::write(&path, wrong).unwrap();
        let error = model.api_key().unwrap_err();
        assert!(error.key == "api_key_file" && !error.reason.contains("canary"), "{error}");
    }
}

#[test]
fn a_model_s_own_settings_win() {
    let model = &models(json!([{"max_retries": 0, "idle_timeout_ms": 7}]))[0];
    assert_eq!(model.calls(&CALLS), ProviderConfig { max_retries: 0, idle_timeout_ms: 7, ..CALLS });
    assert_eq!((model.context_tokens(), model.max_output_tokens()), (128_000, 4096));
}

#[test]
fn a_base_url_with_the_path_of_a_request_is_refused() {
    for (kind, base_url, path) in [
        ("openai", "https://api.openai.com/v1/chat/completions", "/chat/completions"),
        ("openai", "http://127.0.0.1:11434/v1/chat/completions/", "/chat/completions"),
        ("anthropic", "https://api.anthropic.com/v1/messages", "/messages"),
        ("dify", "https://api.dify.ai/v1/chat-messages", "/chat-messages"),
    ] {
        let model = json!([{"id": "m", "provider": kind, "base_url": base_url, "api_key_env": KEY_ENV,
            "model": if kind == "dify" { "" } else { "x" }}]);
        let errors = validate(&models(model), &CALLS, "");
        assert_eq!(errors.len(), 1, "{base_url}: {errors:?}");
        assert_eq!(
            errors[0].to_string(),
            format!("models[0].base_url must end before \"{path}\", which chatbox appends")
        );
    }
}

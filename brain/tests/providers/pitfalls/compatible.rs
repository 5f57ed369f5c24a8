//! Servers with variants of OpenAI's protocol: Azure, Ollama, vLLM and gateways.

use chatbox_brain::llm::ErrorClass;
use chatbox_brain::usage::FinishReason;
use chatbox_brain::usage::TokenUsage;
use chatbox_tests::provider::dialect::openai::refusal;
use chatbox_tests::provider::{FakeProvider, Script, Step};
use serde_json::{Value, json};

use super::wire::{ask_once, assert_refusals, body, failed, said, stream, text};
use crate::support::{ask, model};

fn choice(choice: Value) -> Value {
    json!({"choices": [choice]})
}

fn usage(input: u64, output: u64) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": output})
}

fn used(input: u64, output: u64) -> Option<TokenUsage> {
    Some(TokenUsage { input, cached: 0, output, estimated: false })
}

#[tokio::test]
async fn compatible_azure_has_its_own_address_and_key_header() {
    let fake = FakeProvider::start().await.unwrap();
    let deployment = format!("http://{}/openai/deployments/d", fake.addr());
    let more = json!({"auth_header": "api-key", "api_version": "2024-10-21"});
    ask(&model("openai", &deployment, more)).await.1.unwrap();
    let newer = format!("http://{}/openai/v1", fake.addr());
    ask(&model("openai", &newer, json!({"auth_header": "api-key"}))).await.1.unwrap();
    let calls = fake.journal();
    let addresses: Vec<_> = calls.iter().map(|call| (call.path.as_str(), call.query.as_str())).collect();
    let expected =
        [("/openai/deployments/d/chat/completions", "api-version=2024-10-21"), ("/openai/v1/chat/completions", "")];
    assert_eq!(addresses, expected, "Azure: URL");
    for call in &calls {
        assert!(call.headers.contains_key("api-key") && !call.headers.contains_key("authorization"), "Azure: auth");
    }
}

#[tokio::test]
async fn compatible_azure_annotates_its_filter() {
    let fake = FakeProvider::start().await.unwrap();
    let events = |reason| {
        [
            json!({"id": "", "object": "", "created": 0, "model": "", "choices": [],
                "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}),
            text("openai", "hi"),
            choice(json!({"index": 0, "content_filter_results": {}, "content_filter_offsets": {"check_offset": 1},
                "finish_reason": null})),
            choice(json!({"index": 0, "delta": {}, "finish_reason": reason})),
        ]
    };
    assert_eq!(said(&fake, "openai", body(stream(&events("stop"))), "Azure: first chunk, no delta").await, "hi");
    let (read, end) = ask_once(&fake, "openai", body(stream(&events("content_filter")))).await;
    assert_eq!((read.text.as_str(), end.unwrap()), ("hi", FinishReason::ContentFilter), "Azure: blocked output");
    let rows = vec![
        ("Azure: prompt filter", refusal(400, "", "content_filter", "x"), ErrorClass::ContentFiltered, false),
        ("Azure: busy", refusal(429, "", "429", "x"), ErrorClass::RateLimited, true),
    ];
    assert_refusals("openai", rows).await;
}

#[tokio::test]
async fn compatible_ollama_begins_with_text_and_fails_without_a_word() {
    let fake = FakeProvider::start().await.unwrap();
    let first = choice(json!({"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": null}));
    let reasoning = choice(json!({"index": 0, "delta": {"role": "assistant", "content": "", "reasoning": "hm"}}));
    let last = |reason| choice(json!({"index": 0, "delta": {}, "finish_reason": reason}));
    let counted = json!({"choices": [], "usage": usage(3, 1)});
    let events = [reasoning, first.clone(), last("stop"), counted];
    let (read, end) = ask_once(&fake, "openai", body(stream(&events) + "data: [DONE]\n\n")).await;
    assert_eq!((read.text.as_str(), end.unwrap(), read.usage), ("a", FinishReason::Stop, used(3, 1)), "Ollama");
    let loaded = body(stream(&[first.clone(), last("load")]));
    assert_eq!(said(&fake, "openai", loaded, "Ollama: other reasons pass through").await, "a");
    let empty = choice(json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}));
    let class = failed(&fake, "openai", body(stream(&[first, empty])), "a", "Ollama: mid-stream error").await;
    assert_eq!(class, ErrorClass::Truncated, "Ollama: mid-stream error");
}

#[tokio::test]
async fn compatible_ollama_refuses_in_openai_s_form() {
    let fault = |status, kind: &str| {
        Script::json(status, &json!({"error": {"message": "x", "type": kind, "param": null, "code": null}}))
    };
    let rows = vec![
        ("Ollama: 400", fault(400, "invalid_request_error"), ErrorClass::Rejected, false),
        ("Ollama: 404", fault(404, "not_found_error"), ErrorClass::NotFound, false),
        ("Ollama: 500", fault(500, "api_error"), ErrorClass::Server, true),
        ("Ollama: busy", fault(503, "api_error"), ErrorClass::Overloaded, true),
    ];
    assert_refusals("openai", rows).await;
}

#[tokio::test]
async fn compatible_vllm_ends_with_text_and_counts_all_along() {
    let fake = FakeProvider::start().await.unwrap();
    for reasoning in ["reasoning", "reasoning_content"] {
        let events = [
            choice(json!({"index": 0, "delta": {"role": "assistant", "content": ""}})),
            json!({"choices": [{"index": 0, "delta": {reasoning: "hm"}}], "usage": usage(3, 1)}),
            json!({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage(3, 2)}),
            json!({"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "length", "stop_reason": 7}],
                "usage": usage(3, 3)}),
        ];
        let (read, end) = ask_once(&fake, "openai", body(stream(&events) + "data: [DONE]\n\n")).await;
        assert_eq!((read.text.as_str(), end.unwrap()), ("ab", FinishReason::Length), "vLLM: finish chunk, {reasoning}");
        assert_eq!(read.usage, used(3, 3), "vLLM: continuous usage");
    }
}

#[tokio::test]
async fn compatible_vllm_faults_are_nested_or_flat_with_a_number() {
    let fake = FakeProvider::start().await.unwrap();
    for (code, kind, class) in [
        (500, "InternalServerError", ErrorClass::Server),
        (400, "BadRequestError", ErrorClass::Rejected),
        (404, "NotFoundError", ErrorClass::NotFound),
        (503, "ServiceUnavailableError", ErrorClass::Overloaded),
    ] {
        let fault = json!({"error": {"message": "x", "type": kind, "param": null, "code": code}});
        let stream = stream(&[text("openai", "a"), fault]) + "data: [DONE]\n\n";
        assert_eq!(failed(&fake, "openai", body(stream), "a", "vLLM: mid-stream error").await, class, "vLLM: {code}");
    }
    let nested = |code: u16, kind: &str| json!({"error": {"message": "x", "type": kind, "param": null, "code": code}});
    let flat =
        |code: u16, kind: &str| json!({"object": "error", "message": "x", "type": kind, "param": null, "code": code});
    let rows = vec![
        ("vLLM: nested 400", Script::json(400, &nested(400, "BadRequestError")), ErrorClass::Rejected, false),
        ("vLLM: nested 404", Script::json(404, &nested(404, "NotFoundError")), ErrorClass::NotFound, false),
        ("vLLM: flat 400", Script::json(400, &flat(400, "BadRequestError")), ErrorClass::Rejected, false),
        ("vLLM: flat 500", Script::json(500, &flat(500, "InternalServerError")), ErrorClass::Server, true),
    ];
    assert_refusals("openai", rows).await;
}

#[tokio::test]
async fn compatible_gateways_comment_and_fail_in_many_ways() {
    let fake = FakeProvider::start().await.unwrap();
    let comment = Step::Bytes(": OPENROUTER PROCESSING\n\n".into());
    let event = |event: Value| Step::Bytes(stream(&[event]).into());
    let whole = [
        comment.clone(),
        event(json!({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage(3, 1)})),
        comment,
        event(json!({"choices": [{"delta": {}, "finish_reason": "end"}], "usage": usage(3, 2)})),
    ];
    let (read, end) = ask_once(&fake, "openai", Script::steps(whole.clone())).await;
    assert_eq!((read.text.as_str(), end.unwrap()), ("a", FinishReason::Stop), "gateways: comments");
    assert_eq!(read.usage, used(3, 2), "gateways: the last usage counts");
    let broken = Script::steps(whole[..3].to_vec());
    assert_eq!(failed(&fake, "openai", broken, "a", "gateways: just the end").await, ErrorClass::Truncated);
    let fault = event(
        json!({"error": {"message": "x", "code": 502}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
    );
    let script = Script::steps(whole[..3].to_vec()).then(fault);
    assert_eq!(failed(&fake, "openai", script, "a", "gateways: error object").await, ErrorClass::Server);
}

#[tokio::test]
async fn compatible_servers_know_only_the_old_name_of_the_limit() {
    let fake = FakeProvider::start().await.unwrap();
    for (setting, sent, left_out) in
        [("max_tokens", "max_tokens", "max_completion_tokens"), ("", "max_completion_tokens", "max_tokens")]
    {
        let more = json!({"max_tokens_field": setting, "max_output_tokens": 7, "api_key_env": ""});
        ask(&model("openai", &fake.url(), more)).await.1.unwrap();
        let call = fake.journal().pop().unwrap();
        assert_eq!((call.body.get(sent), call.body.get(left_out)), (Some(&json!(7)), None), "max tokens: {setting:?}");
        assert!(!call.headers.contains_key("authorization"), "auth: none");
        assert!(call.body.as_object().unwrap().values().all(|value| !value.is_null()), "unset fields are left out");
    }
}

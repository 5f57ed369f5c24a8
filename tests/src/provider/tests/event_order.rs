//! The order of events of OpenAI-compatible servers and of Dify's apps.

use super::*;

async fn preset(name: &str, path: &str) -> (String, Sent) {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(presets::preset(name).unwrap());
    let body = post(&provider, path).await.unwrap().text().await.unwrap();
    (body, ended(&provider).await.sent)
}

async fn dify_order(name: &str) -> (Vec<String>, Sent) {
    let (body, sent) = preset(name, DIFY).await;
    let names = events(&body).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    (names, sent)
}

#[tokio::test]
async fn dify_s_apps_keep_their_orders() {
    let chatflow = ["workflow_started", "node_started", "message", "message", "node_finished"];
    let flow = |last: &[&'static str]| [&chatflow[..], last].concat();
    let agent = ["agent_thought", "agent_message", "agent_thought", "message_file", "agent_message", "message_end"];
    let early = ["workflow_started", "message", "node_started", "message", "node_finished", "message_end"];
    for (name, order, finished) in [
        ("dify_chat", vec!["message", "message", "message_end"], true),
        ("dify_agent_chat", agent.to_vec(), true),
        ("dify_new_agent", vec!["agent_message", "agent_message", "message", "message_end"], true),
        ("dify_chatflow_end_first", flow(&["message_end", "workflow_finished"]), true),
        ("dify_chatflow_end_last", flow(&["workflow_finished", "message_end"]), true),
        ("dify_chatflow_only_end", flow(&["message_end"]), true),
        ("dify_chatflow_only_finished", flow(&["workflow_finished"]), true),
        ("dify_chatflow_failed", flow(&["workflow_finished", "error"]), false),
        ("dify_chatflow_paused", flow(&["human_input_required", "workflow_paused"]), false),
        ("dify_chatflow_text_first", [&early[..], &["workflow_finished"]].concat(), true),
    ] {
        let (names, sent) = dify_order(name).await;
        assert_eq!(names, order, "{name}");
        assert_eq!((sent.text.as_str(), sent.finished), ("Hello there", finished), "{name}");
    }
    let (_, sent) = dify_order("dify_message_replace").await;
    assert_eq!(sent.text, "[hidden]");
}

#[tokio::test]
async fn dify_pings_and_escapes_as_its_builds_do() {
    let (body, sent) = preset("dify_pings", DIFY).await;
    assert!(body.starts_with("event: ping\n\n") && body.contains("data: {\"event\":\"ping\"}\n\n"), "{body}");
    assert_eq!(sent.text, "Hello there");
    let (body, sent) = preset("dify_escaped", DIFY).await;
    assert!(body.is_ascii() && body.contains("\\u65e5\\u672c \\ud83d\\ude00"), "{body}");
    assert_eq!(sent.text, "Grüße 日本 😀");
}

#[tokio::test]
async fn a_connection_may_stay_open_after_the_end() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(presets::preset("dify_open_after_end").unwrap());
    let mut response = post(&provider, DIFY).await.unwrap();
    let mut body = String::new();
    while !body.contains("message_end") {
        body += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), response.chunk()).await.is_err());
}

#[tokio::test]
async fn openai_s_relatives_differ_as_they_do() {
    let (body, sent) = preset("azure_filter_chunks", OPENAI).await;
    let chunks = events(&body);
    assert_eq!((&chunks[0]["choices"], chunks[0]["prompt_filter_results"].is_array()), (&json!([]), true));
    assert!(chunks[3]["choices"][0].get("delta").is_none() && sent.finished);
    let (body, _) = preset("azure_content_filter", OPENAI).await;
    assert!(body.contains("\"finish_reason\":\"content_filter\""));
    let (body, sent) = preset("ollama_silent_truncation", OPENAI).await;
    assert_eq!(events(&body).last().unwrap()["choices"][0]["delta"]["content"], "");
    assert!(!body.contains("[DONE]") && !body.contains("\"stop\"") && !sent.finished);
    let (body, _) = preset("ollama_first_text", OPENAI).await;
    assert_eq!(events(&body)[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "First "}));
    let (body, sent) = preset("vllm_usage_everywhere", OPENAI).await;
    assert_eq!((&events(&body)[1]["usage"]["completion_tokens"], sent.usage), (&json!(1), Some(Usage::new(10, 2))));
    let (body, sent) = preset("vllm_finish_with_text", OPENAI).await;
    let choice = &events(&body)[2]["choices"][0];
    assert_eq!((&choice["delta"]["content"], &choice["finish_reason"]), (&json!(" and the rest"), &json!("stop")));
    assert_eq!(sent.text, "So far and the rest");
    let (body, sent) = preset("reasoning_content", OPENAI).await;
    assert_eq!(events(&body)[1]["choices"][0]["delta"], json!({"reasoning_content": "Thinking."}));
    assert_eq!(sent.text, "Done");
    assert!(!preset("openai_done_without_reason", OPENAI).await.1.finished);
    assert!(preset("openai_reason_without_done", OPENAI).await.1.finished);
}

#[tokio::test]
async fn anthropic_thinks_in_a_block_of_its_own() {
    let (body, sent) = preset("reasoning", ANTHROPIC).await;
    let told: Vec<_> = events(&body).iter().map(|event| (event["type"].clone(), event["index"].clone())).collect();
    let block = |kind: &str, index: u32| (json!(format!("content_block_{kind}")), json!(index));
    let blocks: Vec<_> = told.into_iter().filter(|(_, index)| index.is_u64()).collect();
    let thoughts = [block("start", 0), block("stop", 0), block("start", 1), block("delta", 1), block("delta", 1)];
    assert_eq!(blocks[..5], thoughts);
    assert_eq!(blocks[5..], [block("stop", 1), block("start", 2), block("delta", 2), block("stop", 2)]);
    assert_eq!((sent.text.as_str(), sent.finished), ("Done", true));
    let usage = Usage { input: 100, cached: 60, cache_written: 0, output: 7 };
    assert_eq!(preset("anthropic_input_at_start", ANTHROPIC).await.1.usage, Some(usage));
    assert!(!preset("anthropic_no_stop", ANTHROPIC).await.1.finished);
}

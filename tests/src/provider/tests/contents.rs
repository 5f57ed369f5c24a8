//! Contents of answers: errors within a stream, usage, finish reasons; and that the journal records what was sent.

use super::*;

async fn fault(fault: Fault, path: &str) -> String {
    played(Script::steps([Step::Fault(Fault { message: Some("m".into()), ..fault })]), path).await
}

#[tokio::test]
async fn faults_within_a_stream_have_every_form() {
    let plain = Fault::default;
    let nested = r#"{"error":{"code":null,"message":"m","param":null,"type":"server_error"}}"#;
    assert_eq!(fault(plain(), OPENAI).await, format!("data: {nested}\n\n"));
    let form = |form| Fault { form, ..plain() };
    assert_eq!(fault(form(Form::Text), OPENAI).await, "data: {\"error\":\"m\"}\n\n");
    let flat = r#"{"code":400,"message":"m","object":"error","param":null,"type":"invalid_request_error"}"#;
    let status = Fault { status: Some(400), ..form(Form::Flat) };
    assert_eq!(fault(status, OPENAI).await, format!("data: {flat}\n\n"));
    let number = r#"{"error":{"code":400,"message":"m","param":null,"type":"BadRequestError"}}"#;
    let vllm =
        Fault { status: Some(400), kind: Some("BadRequestError".into()), done: true, ..form(Form::NestedNumber) };
    assert_eq!(fault(vllm, OPENAI).await, format!("data: {number}\n\ndata: [DONE]\n\n"));
    let overloaded = r#"{"error":{"message":"m","type":"overloaded_error"},"request_id":"req_fake","type":"error"}"#;
    assert_eq!(fault(plain(), ANTHROPIC).await, format!("event: error\ndata: {overloaded}\n\n"));
    let dify = events(&fault(plain(), DIFY).await).remove(0);
    let said = [&dify["event"], &dify["status"], &dify["code"], &dify["conversation_id"]];
    assert_eq!(said, [&json!("error"), &json!(400), &json!("completion_request_error"), &json!("conversation-0")]);
    assert!(dify.get("task_id").is_none(), "errors have none");
}

#[tokio::test]
async fn a_fault_may_stand_anywhere() {
    for path in PATHS {
        let provider = FakeProvider::start().await.unwrap();
        let (fault, delta) = (Step::Fault(Fault::default()), Step::Delta("after".into()));
        provider.script(Script::begun(["before "]).then(fault).then(delta));
        post(&provider, path).await.unwrap().bytes().await.unwrap();
        let Sent { text, fault, finished, .. } = ended(&provider).await.sent;
        assert_eq!((text.as_str(), fault, finished), ("before after", true, false));
    }
}

#[tokio::test]
async fn usage_with_cached_tokens_is_told_in_each_protocol_s_names() {
    let usage = Usage { input: 100, cached: 60, cache_written: 30, output: 7 };
    let script = || {
        let finish = Finish { usage: Some(usage), reason: Some("other".into()), ..Finish::default() };
        Script::steps([Step::BeginWith(usage), Step::FinishWith(finish)])
    };
    let openai = events(&played(script(), OPENAI).await);
    assert_eq!(openai[1]["choices"][0]["finish_reason"], "other");
    assert_eq!((&openai[2]["usage"]["prompt_tokens"], &openai[2]["choices"]), (&json!(100), &json!([])));
    assert_eq!(openai[2]["usage"]["prompt_tokens_details"]["cached_tokens"], 60);
    let anthropic = events(&played(script(), ANTHROPIC).await);
    let tokens = json!({"input_tokens": 10, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30,
        "output_tokens": 7});
    assert_eq!(anthropic[0]["message"]["usage"], tokens);
    let end = anthropic.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!((&end["usage"], &end["delta"]["stop_reason"]), (&tokens, &json!("other")));
    for (path, expected) in [
        (OPENAI, Usage { cache_written: 0, ..usage }),
        (ANTHROPIC, usage),
        (DIFY, Usage { cached: 0, cache_written: 0, ..usage }),
    ] {
        let provider = FakeProvider::start().await.unwrap();
        provider.script(script());
        post(&provider, path).await.unwrap().bytes().await.unwrap();
        assert_eq!(ended(&provider).await.sent.usage, Some(expected), "{path}");
    }
}

#[tokio::test]
async fn usage_counts_only_where_it_went_out() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(Script::answer(["a"]));
    let unasked = json!({"model": "m"});
    client().post(provider.url() + OPENAI).json(&unasked).send().await.unwrap().bytes().await.unwrap();
    let call = ended(&provider).await;
    assert_eq!((call.sent.usage, call.sent.finished), (None, true));
    provider.reset();
    // The usage of the last chunk before `[DONE]`, one byte short of its blank line.
    let whole = played(Script::answer(["a"]), OPENAI).await;
    provider.script(Script::answer(["a"]).cut_at(whole.find("data: [DONE]").unwrap() - 1));
    assert!(post(&provider, OPENAI).await.unwrap().bytes().await.is_err());
    let call = ended(&provider).await;
    assert_eq!((call.sent.usage, call.sent.finished, call.sent.text.as_str()), (None, false, "a"));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_sequence_and_the_journal_tells_the_truth() {
    let mix = Mix { stall_ms: Some(5), max_pieces: 8, max_pace_ms: 1, cut_mid: 20, stall: 5, ..Mix::default() };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let provider = FakeProvider::start().await.unwrap();
        provider.random(42, mix.clone());
        let mut read = Vec::new();
        for number in 0..60 {
            let mut bytes = Vec::new();
            if let Ok(mut response) = post(&provider, PATHS[number % 3]).await {
                while let Ok(Some(piece)) = response.chunk().await {
                    bytes.extend_from_slice(&piece);
                }
            }
            read.push(bytes);
        }
        let calls = provider.wait_until(|calls| calls.iter().all(|call| call.end.is_some())).await.unwrap();
        for (number, (call, bytes)) in calls.iter().zip(&read).enumerate() {
            assert_eq!(call.random, Some(u64::try_from(number).unwrap()));
            // What was on its way when the connection broke may not have arrived.
            let broken = call.ended() == Some(End::Cut);
            let all = call.bytes_sent == bytes.len();
            assert!(
                all || (broken && bytes.len() < call.bytes_sent),
                "{}: {} of {}",
                call.script,
                bytes.len(),
                call.bytes_sent
            );
            assert_eq!(call.sent.finished, call.script == "random/answer", "{call:#?}");
            assert_eq!(call.sent.usage.is_some(), call.script == "random/answer");
            assert_eq!(call.sent.fault, call.script.starts_with("random/fault"));
        }
        runs.push(calls.into_iter().map(|call| (call.script, call.sent)).collect::<Vec<_>>());
    }
    assert_eq!(runs[0], runs[1]);
    let kinds: std::collections::BTreeSet<_> = runs[0].iter().map(|(script, _)| script).collect();
    assert!(kinds.len() > 5, "{kinds:?}");
}

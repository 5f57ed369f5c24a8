//! The admin endpoint.

use super::*;

async fn admin(provider: &FakeProvider, method: &str, path: &str, body: impl Into<String>) -> (u16, Value) {
    let url = format!("http://{}{path}", provider.addr());
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let response = client().request(method, url).body(body.into()).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn text(provider: &FakeProvider) -> String {
    let before = provider.journal().len();
    post(provider, OPENAI).await.unwrap().bytes().await.unwrap();
    let calls = provider.wait_until(|calls| calls.get(before).is_some_and(|call| call.end.is_some())).await.unwrap();
    calls[before].sent.text.clone()
}

#[tokio::test]
async fn scripts_are_queued_and_set_for_all_others() {
    let provider = FakeProvider::start().await.unwrap();
    let two = r#"[{"text": ["one"]}, {"steps": ["begin", {"delta": "two"}, "cut"], "name": "mine"}]"#;
    assert_eq!(admin(&provider, "POST", "/mock/scripts", two).await, (200, json!({"queued": 2})));
    assert_eq!(admin(&provider, "POST", "/mock/scripts", "\"no_usage\"").await.0, 200);
    assert_eq!(admin(&provider, "PUT", "/mock/always", r#"{"text": ["always"]}"#).await.0, 200);
    assert_eq!(text(&provider).await, "one");
    assert!(post(&provider, OPENAI).await.unwrap().bytes().await.is_err());
    for expected in ["So far so good", "always", "always"] {
        assert_eq!(text(&provider).await, expected);
    }
    let names: Vec<_> = provider.journal().into_iter().map(|call| call.script).collect();
    assert_eq!(names, ["script", "mine", "no_usage", "always", "always"]);
    let faults = r#"{"seed": 3, "faults": {"answer": 1, "max_pieces": 2}}"#;
    assert_eq!(admin(&provider, "POST", "/mock/random", faults).await.0, 200);
    drop(post(&provider, OPENAI).await);
    assert_eq!(provider.journal().last().unwrap().random, Some(0));
    assert_eq!(admin(&provider, "DELETE", "/mock", "").await.0, 200);
    assert!(provider.journal().is_empty());
    assert_eq!(text(&provider).await, "This is the fake provider.");
}

#[tokio::test]
async fn the_journal_tells_everything_but_keys() {
    let provider = FakeProvider::start().await.unwrap();
    let request = client().post(provider.url() + ANTHROPIC + "?a=b").json(&question());
    let request =
        request.header("x-api-key", "very").header("authorization", "Bearer secret").header("api-key", "words");
    request.header("x-client-request-id", "r-1").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(ended(&provider).await.request_id(), Some("r-1"));
    let (status, journal) = admin(&provider, "GET", "/mock/journal", "").await;
    let call = &journal[0];
    let usage = json!({"input": 10, "cached": 0, "cache_written": 0, "output": 2});
    let sent =
        json!({"status": 200, "text": "This is the fake provider.", "usage": usage, "finished": true, "fault": false});
    assert_eq!((status, &call["sent"]), (200, &sent));
    for (field, value) in [
        ("method", json!("POST")),
        ("path", json!("/v1/messages")),
        ("query", json!("a=b")),
        ("body", question()),
        ("script", json!("default")),
        ("end", json!("finished")),
        ("number", json!(0)),
    ] {
        assert_eq!(call[field], value, "{field}");
    }
    assert!(call["bytes_sent"].as_u64() > Some(500) && call["end_ms"].as_u64() >= call["at_ms"].as_u64());
    for name in ["x-api-key", "authorization", "api-key"] {
        assert_eq!(call["headers"][name], "[key]");
    }
    assert_eq!(call["headers"]["x-client-request-id"], "r-1");
    assert!(!journal.to_string().contains("secret"));
}

#[tokio::test]
async fn requests_bring_scripts_of_their_own() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(Script::answer(["queued"]));
    let ask = |script: &str, body: Value| {
        client().post(provider.url() + OPENAI).header("x-mock-script", script).json(&body).send()
    };
    assert_eq!(ask(r#"{"refuse": {"status": 418}}"#, json!({})).await.unwrap().status(), 418);
    assert_eq!(ask("overloaded", json!({})).await.unwrap().status(), 529);
    let said = json!({"messages": [{"role": "user", "content": "!mock unauthorized"}]});
    let response = client().post(provider.url() + OPENAI).json(&said).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(text(&provider).await, "queued", "the queue was left alone");
    let names: Vec<_> = provider.journal().into_iter().map(|call| call.script).collect();
    assert_eq!(names, ["header", "overloaded", "unauthorized", "script"]);
}

#[tokio::test]
async fn hostile_scripts_are_refused_with_the_field() {
    let provider = FakeProvider::start().await.unwrap();
    for (method, path, body, part) in [
        ("POST", "/mock/scripts", "{", "invalid JSON"),
        ("POST", "/mock/scripts", r#"[{"text": ["a"]}, {"steps": ["bgin"]}]"#, "[1]: steps[0]"),
        ("PUT", "/mock/always", r#"{"format": {"bom": "yes"}}"#, "format.bom"),
        ("POST", "/mock/random", r#"{"faults": {}}"#, "`seed` is missing"),
        ("POST", "/mock/random", r#"{"seed": 1, "faults": {"anser": 1}}"#, "unknown field `anser`"),
        ("POST", "/mock/random", r#"{"seed": 1, "faults": {"answer": -1}}"#, "faults.answer"),
        ("POST", "/mock/random", r#"{"seed": 1, "fault": {}}"#, "unknown field `fault`"),
        ("POST", "/mock/random", r#"{"seed": 1, "faults": {"max_pieces": 0}}"#, "max_pieces"),
        ("POST", "/mock/random", "[]", "an object"),
    ] {
        let (status, reply) = admin(&provider, method, path, body).await;
        let error = reply["error"].as_str().unwrap();
        assert!(status == 400 && error.contains(part), "{body}: {error}");
    }
    assert_eq!(admin(&provider, "GET", "/mock/nothing", "").await.0, 404);
    assert_eq!(text(&provider).await, "This is the fake provider.", "nothing was taken of what was refused");
    let of_header = client().post(provider.url() + DIFY).header("x-mock-script", "{\"a\": 1}").json(&question());
    let response = of_header.send().await.unwrap();
    assert_eq!(response.status(), 400);
    let body = response.text().await.unwrap();
    assert!(body.contains("x-mock-script: unknown field `a`"), "{body}");
    let calls = provider.journal();
    let refused = calls.iter().filter(|call| call.script == "refused").count();
    assert_eq!((refused, calls.len()), (11, 12), "each is in the journal");
}

#[tokio::test]
async fn every_preset_can_be_played_by_name() {
    let provider = FakeProvider::start().await.unwrap();
    let (_, list) = admin(&provider, "GET", "/mock/presets", "").await;
    assert_eq!(list.as_array().unwrap().len(), presets::ALL.len());
    let slow = [
        "stall",
        "forever",
        "endless",
        "flood",
        "late",
        "pause",
        "slow",
        "pings_then",
        "open_after",
        "ignores",
        "half",
    ];
    for (name, _) in presets::ALL.iter().filter(|(name, _)| !slow.iter().any(|part| name.contains(part))) {
        let mut refused = 0;
        for path in PATHS {
            provider.script(presets::preset(name).unwrap());
            if let Ok(response) = post(&provider, path).await {
                refused += u32::from(response.text().await.is_ok_and(|text| text.contains("and this request is of")));
            }
        }
        assert!(refused == 0 || refused == 2, "{name} is for all protocols or for one");
    }
    let calls = provider.wait_until(|calls| calls.iter().all(|call| call.end.is_some())).await.unwrap();
    assert!(calls.iter().all(|call| call.ended() != Some(End::ClientClosed)), "{calls:#?}");
}

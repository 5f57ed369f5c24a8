//! Dify's other calls: stop and upload.

use super::*;

async fn stop(provider: &FakeProvider, task: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}/chat-messages/{task}/stop", provider.url());
    let response = client().post(url).json(body).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

/// Stops the answer after its first text and returns the rest of it.
async fn stopped(script: Script) -> (Vec<String>, Call) {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(script);
    let mut response = post(&provider, DIFY).await.unwrap();
    let mut body = String::new();
    while !body.contains("\"answer\"") {
        body += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
    }
    let task = events(&body)[0]["task_id"].as_str().unwrap().to_owned();
    assert_eq!(stop(&provider, &task, &json!({"user": "u"})).await, (200, json!({"result": "success"})));
    while let Some(piece) = response.chunk().await.unwrap() {
        body += std::str::from_utf8(&piece).unwrap();
    }
    let calls = provider.wait_until(|calls| calls.iter().all(|call| call.end.is_some())).await.unwrap();
    assert_eq!(calls[1].path, format!("/v1/chat-messages/{task}/stop"));
    let names = events(&body).into_iter().map(|event| event["event"].as_str().unwrap().to_owned());
    (names.collect(), calls[0].clone())
}

#[tokio::test]
async fn a_stop_ends_the_stream_with_what_was_used() {
    for waiting in [
        Step::Wait(Duration::from_secs(60)),
        Step::Hold(Gate::new()),
        Step::KeepAlives { every: Duration::from_secs(60), count: None },
    ] {
        let (names, call) = stopped(Script::begun(["so far"]).then(waiting).then(Step::Delta("never".into()))).await;
        assert_eq!(names, ["message", "message_end"]);
        let Sent { text, usage, finished, .. } = call.sent;
        assert_eq!((text.as_str(), usage, finished), ("so far", Some(Usage::new(10, 1)), true));
        assert_eq!(call.end.map(|(_, end)| end), Some(End::Finished));
    }
    let (script, driver) = Script::live();
    driver.delta("so far");
    assert_eq!(stopped(script).await.0, ["message", "message_end"]);
}

#[tokio::test]
async fn a_stopped_workflow_says_that_it_was() {
    let dify = |event: &str, with: Value| Step::Dify { event: event.into(), with };
    let begin = [dify("workflow_started", json!({"data": {}})), dify("message", json!({"answer": "so far"}))];
    let (names, call) = stopped(Script::steps(begin).then(Step::Wait(Duration::from_secs(60)))).await;
    assert_eq!(names, ["workflow_started", "message", "workflow_finished", "message_end"]);
    assert!(call.sent.finished);
}

#[tokio::test]
async fn a_script_may_ignore_stops() {
    let rest =
        [Step::Wait(Duration::from_millis(100)), Step::Delta("more".into()), Step::Finish { input: 1, output: 2 }];
    let script = rest.into_iter().fold(Script::begun(["so far "]), Script::then).ignoring_stops();
    let (names, call) = stopped(script).await;
    assert_eq!((names.join(" "), call.sent.text.as_str()), ("message message message_end".into(), "so far more"));
}

#[tokio::test]
async fn an_answer_that_has_ended_is_not_ended_again() {
    let script = Script::answer(["all"]).then(Step::Wait(Duration::from_millis(100)));
    assert_eq!(stopped(script).await.0, ["message", "message_end"]);
}

#[tokio::test]
async fn a_stop_of_anything_else_does_nothing() {
    let provider = FakeProvider::start().await.unwrap();
    assert_eq!(stop(&provider, "no-such-task", &json!({"user": "u"})).await.0, 200);
    let (status, body) = stop(&provider, "no-such-task", &json!({})).await;
    assert_eq!((status, &body["code"]), (400, &json!("invalid_param")));
    let calls = provider.journal();
    let seen: Vec<_> = calls.iter().map(|call| (call.script.as_str(), call.sent.status, call.ended())).collect();
    assert_eq!(seen, [("stop", 200, Some(End::Finished)), ("stop", 400, Some(End::Finished))]);
}

#[tokio::test]
async fn a_file_is_taken_over_http() {
    let provider = FakeProvider::start().await.unwrap();
    let form = "--B\r\ncontent-disposition: form-data; name=\"user\"\r\n\r\nu\r\n--B\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\ncontent-type: text/plain\r\n\r\nhi\r\n--B--\r\n";
    let send = |body: &'static str| {
        let kind = "multipart/form-data; boundary=B";
        client().post(provider.url() + "/files/upload").header("content-type", kind).body(body).send()
    };
    let response = send(form).await.unwrap();
    assert_eq!(response.status(), 201);
    let reply: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!((&reply["size"], &reply["extension"]), (&json!(2), &json!("txt")));
    assert_eq!(send("--B--\r\n").await.unwrap().status(), 400);
    let calls = provider.journal();
    assert_eq!(calls[0].body["file"]["name"], "a.txt");
    assert_eq!((calls[0].sent.status, calls[1].sent.status, calls[0].is_chat()), (201, 400, false));
}

//! Streams of the three protocols as text, which the tests damage, and the checks of a rejected call.

use std::time::Duration;

use chatbox_brain::llm::{ErrorClass, ProviderError};
use chatbox_brain::usage::FinishReason;
use chatbox_tests::provider::{FakeProvider, Script, Step};
use serde_json::{Value, json};

use crate::support::{Read, ask, model};

/// The result of a call.
pub(crate) type Asked = (Read, Result<FinishReason, ProviderError>);

/// One event that contains the text.
pub(crate) fn text(kind: &str, text: &str) -> Value {
    match kind {
        "openai" => json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}),
        "anthropic" => {
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
        }
        _ => json!({"event": "message", "task_id": "t", "conversation_id": "c", "answer": text}),
    }
}

/// The event that completes the answer.
pub(crate) fn end(kind: &str) -> Value {
    match kind {
        "openai" => json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        "anthropic" => json!({"type": "message_stop"}),
        _ => json!({"event": "message_end", "task_id": "t", "conversation_id": "c", "metadata": {}}),
    }
}

/// The events with the line end LF.
pub(crate) fn stream(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

/// A well-formed stream of one text.
pub(crate) fn whole(kind: &str, said: &str) -> String {
    stream(&[text(kind, said), end(kind)])
}

/// A reply with these bytes as its body.
pub(crate) fn body(bytes: impl AsRef<[u8]>) -> Script {
    Script::body(200, "text/event-stream", bytes.as_ref().to_vec())
}

/// A reply whose body is sent in these pieces.
pub(crate) fn pieces<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> Script {
    let steps = pieces
        .into_iter()
        .flat_map(|piece| [Step::Bytes(piece.as_ref().to_vec().into()), Step::Wait(Duration::from_millis(5))]);
    Script::steps(steps)
}

/// Calls a model of this kind, which tries once. The provider follows the script.
pub(crate) async fn ask_once(fake: &FakeProvider, kind: &str, script: Script) -> Asked {
    fake.script(script);
    ask(&model(kind, &fake.url(), json!({"max_retries": 0}))).await
}

/// The text of an answer that must be complete.
pub(crate) async fn said(fake: &FakeProvider, kind: &str, script: Script, row: &str) -> String {
    let (read, end) = ask_once(fake, kind, script).await;
    assert_eq!(end.map_err(|error| error.to_string()), Ok(FinishReason::Stop), "{row}: {kind}");
    read.text
}

/// The error class of an answer that must fail after the text `so_far`.
pub(crate) async fn failed(fake: &FakeProvider, kind: &str, script: Script, so_far: &str, row: &str) -> ErrorClass {
    let (read, end) = ask_once(fake, kind, script).await;
    assert_eq!(read.text, so_far, "{row}: {kind}");
    assert!(end.is_err(), "{row}: {kind}: {end:?}");
    end.unwrap_err().class
}

/// A row of a table of rejections: its name, the rejection, its error class, and whether the call is retried.
pub(crate) type Refused = (&'static str, Script, ErrorClass, bool);

/// Asserts for each row its error class and whether the call was retried.
pub(crate) async fn assert_refusals(kind: &str, rows: Vec<Refused>) {
    let fake = FakeProvider::start().await.unwrap();
    let model = model(kind, &fake.url(), json!({"max_retries": 1}));
    for (row, script, class, again) in rows {
        let before = fake.journal().len();
        // With a hint of a millisecond the test needs no patience.
        fake.always(script.header("retry-after-ms", "1"));
        let error = ask(&model).await.1.unwrap_err();
        assert_eq!((error.class, error.retryable()), (class, again), "{kind}, {row}: {error}");
        assert!(error.remedy.is_none(), "{kind}, {row}: {error:?}");
        let calls = fake.journal().split_off(before);
        assert_eq!(calls.len(), 1 + usize::from(again), "{kind}, {row}: how often it is called");
        assert!(calls.iter().all(|call| call.body == calls[0].body), "{kind}, {row}: what is called again");
    }
}

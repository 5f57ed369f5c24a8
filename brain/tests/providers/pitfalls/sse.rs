//! The table "SSE parsing", row by row.

use std::time::Duration;

use chatbox_brain::llm::ErrorClass;
use chatbox_brain::usage::FinishReason;
use chatbox_tests::provider::dialect::{anthropic, dify, openai};
use chatbox_tests::provider::{FakeProvider, Script, Step};
use serde_json::{Value, json};

use super::wire::{ask_once, body, end, failed, pieces, said, stream, text, whole};
use crate::support::{KINDS, ask, model};

#[tokio::test]
async fn sse_01_a_piece_ends_inside_a_character() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let stream = whole(kind, "ß日😀");
        for character in ["ß", "日", "😀"] {
            let at = stream.find(character).unwrap();
            for inside in at + 1..at + character.len() {
                let (head, tail) = stream.as_bytes().split_at(inside);
                assert_eq!(said(&fake, kind, pieces([head, tail]), "row 1").await, "ß日😀", "{kind}");
            }
        }
    }
}

#[tokio::test]
async fn sse_02_a_line_end_of_two_bytes_is_split() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        // The data has two lines: a line too many between them would make two broken events of it.
        let event = text(kind, "hi").to_string();
        let (first, second) = event.split_at(event.find(',').unwrap_or_else(|| event.find(':').unwrap()) + 1);
        let rest = stream(&[end(kind)]).replace('\n', "\r\n");
        let cut = [format!("data: {first}\r"), format!("\ndata: {second}\r"), "\n\r".to_owned(), format!("\n{rest}")];
        assert_eq!(said(&fake, kind, pieces(cut), "row 2").await, "hi", "{kind}");
    }
}

#[tokio::test]
async fn sse_03_line_breaks_of_unicode_are_text() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let text = "a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f";
        // Raw in the JSON, as it allows but for the control characters.
        let stream = whole(kind, text);
        assert!(stream.contains('\u{2028}') && stream.contains('\u{85}'));
        assert_eq!(said(&fake, kind, body(stream), "row 3").await, text, "{kind}");
    }
}

#[tokio::test]
async fn sse_04_one_space_after_the_colon_is_optional() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        for colon in ["data:", "data: ", "data:  "] {
            let stream = whole(kind, " hi ").replace("data: ", colon);
            assert_eq!(said(&fake, kind, body(stream), "row 4").await, " hi ", "{kind} {colon:?}");
        }
    }
    for done in ["data:[DONE]", "data: [DONE]", "data:  [DONE]"] {
        let stream = format!("{}{done}\n\n", whole("openai", "hi"));
        assert_eq!(said(&fake, "openai", body(stream), "row 4").await, "hi", "{done}");
    }
}

#[tokio::test]
async fn sse_05_several_lines_of_data_are_one_event() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let lines = |event: &Value| {
            let pretty = serde_json::to_string_pretty(event).unwrap();
            pretty.lines().map(|line| format!("data: {line}\n")).chain(["\n".to_owned()]).collect::<String>()
        };
        let stream = lines(&text(kind, "hi")) + &lines(&end(kind));
        assert!(stream.lines().count() > 6);
        assert_eq!(said(&fake, kind, body(stream), "row 5").await, "hi", "{kind}");
        // Joined without the line break it would be the number 12.
        let torn = whole(kind, "hi").replacen("data: {", "data: {\"created\":1\ndata: 2,", 1);
        let class = failed(&fake, kind, body(torn), "", "row 5, the break is kept").await;
        assert_eq!(class, ErrorClass::Protocol, "{kind}");
    }
}

/// Sparse keep-alive comments, together longer than the model may be silent, keep the answer.
async fn assert_is_life(sign: &str, row: &str) {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let sign = || [Step::Wait(Duration::from_millis(120)), Step::Bytes(sign.to_owned().into())];
        let event = |event: Value| Step::Bytes(stream(&[event]).into());
        let steps = [event(text(kind, "a"))].into_iter().chain((0..5).flat_map(|_| sign()));
        fake.script(Script::steps(steps.chain([event(text(kind, "b")), event(end(kind))])));
        let (read, end) = ask(&model(kind, &fake.url(), json!({"idle_timeout_ms": 400, "max_retries": 0}))).await;
        assert_eq!((read.text.as_str(), end.unwrap()), ("ab", FinishReason::Stop), "{row}: {kind}");
    }
}

#[tokio::test]
async fn sse_06_an_event_without_data_is_none_but_shows_life() {
    assert_is_life("event: ping\n\n", "row 6").await;
}

#[tokio::test]
async fn sse_07_comments_are_read_over_but_show_life() {
    assert_is_life(": OPENROUTER PROCESSING\n\n", "row 7").await;
    assert_is_life(":\n", "row 7").await;
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        // Also between the lines of an event.
        let stream = whole(kind, "hi").replace("data: ", ": keep-alive\n:data: {\ndata: ");
        assert_eq!(said(&fake, kind, body(stream), "row 7").await, "hi", "{kind}");
    }
}

#[tokio::test]
async fn sse_08_a_byte_order_mark_is_read_over() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let stream = format!("\u{feff}{}", whole(kind, "hi"));
        assert_eq!(said(&fake, kind, body(&stream), "row 8").await, "hi", "{kind}");
        assert_eq!(said(&fake, kind, pieces([&stream.as_bytes()[..2], &stream.as_bytes()[2..]]), "row 8").await, "hi");
    }
}

#[tokio::test]
async fn sse_09_the_last_event_may_lack_its_end_but_not_its_data() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let stream = whole(kind, "hi");
        for missing in ["\n", "\n\n"] {
            let stream = stream.strip_suffix(missing).unwrap();
            assert_eq!(said(&fake, kind, body(stream), "row 9").await, "hi", "{kind} without {missing:?}");
        }
        let torn = &stream[..stream.len() - 4];
        let class = failed(&fake, kind, body(torn), "hi", "row 9, its data is torn").await;
        assert_eq!(class, ErrorClass::Truncated, "{kind}");
    }
}

#[tokio::test]
async fn sse_10_done_is_no_json() {
    let fake = FakeProvider::start().await.unwrap();
    let stream = whole("openai", "hi") + "data: [DONE]\n\n";
    assert_eq!(said(&fake, "openai", body(&stream), "row 10").await, "hi");
    assert_eq!(said(&fake, "openai", body(stream + "data: {no json\n\n"), "row 10, nothing follows").await, "hi");
    let early = self::stream(&[text("openai", "hi")]) + "data: [DONE]\n\n";
    let class = failed(&fake, "openai", body(early), "hi", "row 10, done without a reason").await;
    assert_eq!(class, ErrorClass::Truncated);
}

#[tokio::test]
async fn sse_11_an_error_may_come_with_status_200() {
    let fake = FakeProvider::start().await.unwrap();
    for (kind, fault) in [
        ("openai", openai::fault_event("server_error", "", "x")),
        ("openai", "data: {\"error\":{\"message\":\"x\"},\"choices\":[]}\n\n".into()),
        ("anthropic", anthropic::fault_event("api_error", "x")),
        ("dify", dify::fault_event(500, "internal_server_error", "x")),
    ] {
        let begun = stream(&[text(kind, "so far")]);
        let after = whole(kind, "never read");
        let script = pieces([begun.as_bytes(), &fault, after.as_bytes()]);
        assert_eq!(failed(&fake, kind, script, "so far", "row 11").await, ErrorClass::Server, "{kind}");
    }
    let script = Script::json(200, &json!({"error": {"message": "x", "type": "server_error"}}));
    assert_eq!(failed(&fake, "openai", script, "", "row 11, in a whole reply").await, ErrorClass::Server);
    let script = Script::json(200, &json!({"type": "error", "error": {"type": "api_error", "message": "x"}}));
    assert_eq!(failed(&fake, "anthropic", script, "", "row 11, in a whole reply").await, ErrorClass::Server);
    let script = Script::json(200, &json!({"event": "error", "status": 500, "code": "unknown", "message": "x"}));
    assert_eq!(failed(&fake, "dify", script, "", "row 11, in a whole reply").await, ErrorClass::Server);
}

#[tokio::test]
async fn sse_12_a_clean_end_without_a_terminator_is_a_failure() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let script = body(stream(&[text(kind, "so far")]));
        assert_eq!(failed(&fake, kind, script, "so far", "row 12").await, ErrorClass::Truncated, "{kind}");
        assert_eq!(failed(&fake, kind, body(""), "", "row 12, empty").await, ErrorClass::Truncated, "{kind}");
    }
}

#[tokio::test]
async fn sse_13_a_whole_reply_may_come_instead() {
    let fake = FakeProvider::start().await.unwrap();
    let whole: [fn(&str) -> Script; 3] = [openai::whole, anthropic::whole, dify::whole];
    for (kind, whole) in KINDS.into_iter().zip(whole) {
        for content_type in ["application/json", "application/json; charset=utf-8"] {
            let script = whole("hi").header("content-type", content_type);
            assert_eq!(said(&fake, kind, script, "row 13").await, "hi", "{kind} {content_type}");
        }
        let class = failed(&fake, kind, Script::json(200, &json!({"ok": true})), "", "row 13, no answer").await;
        assert_eq!(class, ErrorClass::Protocol, "{kind}");
    }
}

#[tokio::test]
async fn sse_14_bodies_of_errors_may_be_anything() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        for (status, content_type, said, prefix) in [
            (502, "text/html", "<html>\n<body>Bad Gateway</body>", "<html> <body>Bad Gateway</body>"),
            (503, "text/plain", "", "no message"),
            (500, "text/plain", "out of order", "out of order"),
            (500, "application/json", "{torn", "{torn"),
            (500, "application/json", "[1]", "[1]"),
            (500, "application/json", "null", "null"),
            (500, "", "\u{fffd}\u{0}x", "\u{fffd} x"),
        ] {
            let error = ask_once(&fake, kind, Script::body(status, content_type, said)).await.1.unwrap_err();
            assert_eq!((error.status, error.detail.as_str()), (Some(status), prefix), "row 14: {kind}");
            assert!(error.retryable(), "row 14: {kind} {status}");
        }
        let long = Script::body(500, "text/html", "y".repeat(1 << 20));
        let error = ask_once(&fake, kind, long).await.1.unwrap_err();
        assert!(error.detail.len() <= 300, "row 14: {kind}: only a prefix is kept");
    }
}

#[tokio::test]
async fn sse_15_huge_events_end_the_answer_cleanly() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        let large = "x".repeat(2 << 20);
        assert_eq!(said(&fake, kind, body(whole(kind, &large)), "row 15").await.len(), large.len(), "{kind}");
        let begun = stream(&[text(kind, "so far")]);
        let huge = begun + &whole(kind, &"x".repeat(5 << 20));
        let class = failed(&fake, kind, body(huge), "so far", "row 15").await;
        assert_eq!(class, ErrorClass::Protocol, "{kind}");
    }
}

#[tokio::test]
async fn sse_16_parameters_of_the_content_type_do_not_count() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        for content_type in ["text/event-stream; charset=utf-8", "Text/Event-Stream;charset=UTF-8", "text/event-stream"]
        {
            let script = Script::body(200, content_type, whole(kind, "hi"));
            assert_eq!(said(&fake, kind, script, "row 16").await, "hi", "{kind} {content_type}");
        }
    }
}

#[tokio::test]
async fn sse_17_streams_are_not_compressed() {
    let fake = FakeProvider::start().await.unwrap();
    for kind in KINDS {
        said(&fake, kind, body(whole(kind, "hi")), "row 17").await;
        let class = failed(&fake, kind, body(whole(kind, "hi")).header("content-encoding", "br"), "", "row 17").await;
        assert_eq!(class, ErrorClass::Protocol, "{kind}: what was not asked for is not guessed at");
        let script = body(whole(kind, "hi")).header("content-encoding", "identity");
        assert_eq!(said(&fake, kind, script, "row 17").await, "hi", "{kind}");
    }
    assert!(fake.journal().iter().all(|call| !call.headers.contains_key("accept-encoding")), "row 17");
}

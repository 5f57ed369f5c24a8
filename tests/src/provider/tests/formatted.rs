//! One stream in every SSE format.

use super::*;

fn answer() -> Script {
    Script::answer(["Grüße ", "😀"])
}

async fn formatted(format: SseFormat, path: &str) -> String {
    played(answer().format(format), path).await
}

#[tokio::test]
async fn line_ends_are_rewritten_and_nothing_else() {
    for path in PATHS {
        let plain = played(answer(), path).await;
        assert!(!plain.contains('\r') && plain.ends_with("\n\n"));
        let of = |line_end| formatted(SseFormat { line_end, ..SseFormat::default() }, path);
        assert_eq!(of(LineEnd::CrLf).await, plain.replace('\n', "\r\n"));
        assert_eq!(of(LineEnd::Cr).await, plain.replace('\n', "\r"));
        assert_eq!(formatted(SseFormat { bom: true, ..SseFormat::default() }, path).await, format!("\u{feff}{plain}"));
        let tail = |tail| formatted(SseFormat { tail, ..SseFormat::default() }, path);
        assert_eq!(tail(Tail::NoBlankLine).await + "\n", plain);
        assert_eq!(tail(Tail::NoLineEnd).await + "\n\n", plain);
        let space = |space| formatted(SseFormat { space, ..SseFormat::default() }, path);
        assert_eq!(space(Space::None).await, plain.replace("data: ", "data:"));
        assert_eq!(space(Space::Two).await, plain.replace("data: ", "data:  "));
        let escaped = formatted(SseFormat { escaped: true, ..SseFormat::default() }, path).await;
        assert!(escaped.is_ascii() && escaped.contains("Gr\\u00fc\\u00dfe"), "{escaped}");
        assert_eq!(events(&escaped), events(&plain));
    }
}

#[tokio::test]
async fn comments_and_unknown_events_stand_between_the_events() {
    for path in PATHS {
        let plain = played(answer(), path).await;
        let comments = vec!["OPENROUTER PROCESSING".to_owned()];
        let text = formatted(SseFormat { comments, ..SseFormat::default() }, path).await;
        assert_eq!(text.matches(": OPENROUTER PROCESSING\n\n").count(), plain.matches("\n\n").count());
        assert_eq!(text.replace(": OPENROUTER PROCESSING\n\n", ""), plain);
        let text = formatted(SseFormat { unknown_events: true, ..SseFormat::default() }, path).await;
        let (many, few) = (text.matches("\n\n").count(), plain.matches("\n\n").count());
        assert_eq!(many, 2 * few, "{text}");
    }
    let text = formatted(SseFormat { multi_line: true, ..SseFormat::default() }, OPENAI).await;
    assert!(text.starts_with("data: {\ndata:   \"choices\": [\n") && text.ends_with("data: }\n\ndata: [DONE]\n\n"));
}

#[tokio::test]
async fn pieces_are_as_small_as_asked_for() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(answer().split_every(3).close_delimited());
    let (bytes, end, _) = raw(&provider, OPENAI).await;
    assert!(bytes.starts_with(b"HTTP/1.0 200 OK\r\n"), "the body ends with the connection");
    assert_eq!(end.unwrap(), 0);
    provider.script(answer().split_every(3));
    let mut response = post(&provider, OPENAI).await.unwrap();
    let mut torn = false;
    while let Some(piece) = response.chunk().await.unwrap() {
        torn |= std::str::from_utf8(&piece).is_err();
    }
    assert!(torn, "no character was torn");
}

#[tokio::test]
async fn all_formats_say_the_same_to_a_client_that_reads_as_it_should() {
    let presets = ["crlf", "lone_cr", "bom", "comments", "unknown_events", "multi_line", "no_space", "two_spaces"];
    let more = ["escaped", "no_last_blank_line", "no_last_line_end", "split_bytes", "all_formats"];
    for path in PATHS {
        for name in presets.iter().chain(&more) {
            let provider = FakeProvider::start().await.unwrap();
            provider.script(presets::preset(name).unwrap());
            post(&provider, path).await.unwrap().bytes().await.unwrap();
            let call = ended(&provider).await;
            assert_eq!(call.script, *name);
            let usage = Some(Usage::new(10, 5));
            let sent = Sent { status: 200, usage, finished: true, begun: call.sent.begun, ..Sent::default() };
            assert_eq!(call.sent, Sent { text: "Grüße aus 日本 😀.".into(), ..sent }, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn bytes_are_sent_as_they_are_after_the_mark() {
    let format = SseFormat { bom: true, line_end: LineEnd::CrLf, ..SseFormat::default() };
    let script = Script::steps([Step::Bytes("data: x\n\n".into()), Step::KeepAlive]).format(format);
    assert_eq!(played(script, OPENAI).await, "\u{feff}data: x\n\n: keep-alive\r\n\r\n");
}

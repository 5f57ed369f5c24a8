//! One stream in every dress.

use super::*;

fn answer() -> Script {
    Script::answer(["Grüße ", "😀"])
}

async fn dressed(dress: Dress, path: &str) -> String {
    played(answer().dress(dress), path).await
}

#[tokio::test]
async fn line_ends_are_rewritten_and_nothing_else() {
    for path in PATHS {
        let plain = played(answer(), path).await;
        assert!(!plain.contains('\r') && plain.ends_with("\n\n"));
        let of = |line_end| dressed(Dress { line_end, ..Dress::default() }, path);
        assert_eq!(of(LineEnd::CrLf).await, plain.replace('\n', "\r\n"));
        assert_eq!(of(LineEnd::Cr).await, plain.replace('\n', "\r"));
        assert_eq!(dressed(Dress { bom: true, ..Dress::default() }, path).await, format!("\u{feff}{plain}"));
        let tail = |tail| dressed(Dress { tail, ..Dress::default() }, path);
        assert_eq!(tail(Tail::NoBlankLine).await + "\n", plain);
        assert_eq!(tail(Tail::NoLineEnd).await + "\n\n", plain);
        let space = |space| dressed(Dress { space, ..Dress::default() }, path);
        assert_eq!(space(Space::None).await, plain.replace("data: ", "data:"));
        assert_eq!(space(Space::Two).await, plain.replace("data: ", "data:  "));
        let escaped = dressed(Dress { escaped: true, ..Dress::default() }, path).await;
        assert!(escaped.is_ascii() && escaped.contains("Gr\\u00fc\\u00dfe"), "{escaped}");
        assert_eq!(events(&escaped), events(&plain));
    }
}

#[tokio::test]
async fn comments_and_unknown_events_stand_between_the_events() {
    for path in PATHS {
        let plain = played(answer(), path).await;
        let comments = vec!["OPENROUTER PROCESSING".to_owned()];
        let text = dressed(Dress { comments, ..Dress::default() }, path).await;
        assert_eq!(text.matches(": OPENROUTER PROCESSING\n\n").count(), plain.matches("\n\n").count());
        assert_eq!(text.replace(": OPENROUTER PROCESSING\n\n", ""), plain);
        let text = dressed(Dress { unknown_events: true, ..Dress::default() }, path).await;
        let (many, few) = (text.matches("\n\n").count(), plain.matches("\n\n").count());
        assert_eq!(many, 2 * few, "{text}");
    }
    let text = dressed(Dress { multi_line: true, ..Dress::default() }, OPENAI).await;
    assert!(text.starts_with("data: {\ndata:   \"choices\": [\n") && text.ends_with("data: }\n\ndata: [DONE]\n\n"));
}

#[tokio::test]
async fn pieces_are_as_small_as_asked_for() {
    let double = ProviderDouble::start().await.unwrap();
    double.script(answer().split_every(3).close_delimited());
    let (bytes, end, _) = raw(&double, OPENAI).await;
    assert!(bytes.starts_with(b"HTTP/1.0 200 OK\r\n"), "the body ends with the connection");
    assert_eq!(end.unwrap(), 0);
    double.script(answer().split_every(3));
    let mut response = post(&double, OPENAI).await.unwrap();
    let mut torn = false;
    while let Some(piece) = response.chunk().await.unwrap() {
        torn |= std::str::from_utf8(&piece).is_err();
    }
    assert!(torn, "no character was torn");
}

#[tokio::test]
async fn all_dresses_say_the_same_to_a_client_that_reads_as_it_should() {
    let presets = ["crlf", "lone_cr", "bom", "comments", "unknown_events", "multi_line", "no_space", "two_spaces"];
    let more = ["escaped", "no_last_blank_line", "no_last_line_end", "split_bytes", "all_dresses"];
    for path in PATHS {
        for name in presets.iter().chain(&more) {
            let double = ProviderDouble::start().await.unwrap();
            double.script(presets::preset(name).unwrap());
            post(&double, path).await.unwrap().bytes().await.unwrap();
            let call = ended(&double).await;
            assert_eq!(call.script, *name);
            let usage = Some(Usage::new(10, 5));
            let sent = Sent { status: 200, usage, finished: true, begun: call.sent.begun, ..Sent::default() };
            assert_eq!(call.sent, Sent { text: "Grüße aus 日本 😀.".into(), ..sent }, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn bytes_are_sent_as_they_are_after_the_mark() {
    let dress = Dress { bom: true, line_end: LineEnd::CrLf, ..Dress::default() };
    let script = Script::steps([Step::Bytes("data: x\n\n".into()), Step::KeepAlive]).dress(dress);
    assert_eq!(played(script, OPENAI).await, "\u{feff}data: x\n\n: keep-alive\r\n\r\n");
}

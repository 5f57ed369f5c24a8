//! Connections that break, and bodies that do not end.

use std::io::ErrorKind;

use super::*;

#[tokio::test]
async fn a_reset_is_a_reset_before_the_head_and_within_the_body() {
    let provider = FakeProvider::start().await.unwrap();
    for path in PATHS {
        provider.script(Script::reset());
        let (bytes, end, _) = raw(&provider, path).await;
        assert_eq!((bytes.len(), end.unwrap_err().kind()), (0, ErrorKind::ConnectionReset));
        provider.script(Script::begun(["so far"]).then(Step::Reset));
        let (bytes, end, _) = raw(&provider, path).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(String::from_utf8(bytes).unwrap().contains("so far"), "what came before is not lost");
    }
    provider.script(Script::begun(["so far"]).reset_at(20));
    assert_eq!(raw(&provider, OPENAI).await.1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let calls = provider.journal();
    assert!(calls.iter().all(|call| call.ended() == Some(End::Cut)), "{calls:#?}");
    assert_eq!((calls[0].sent.status, calls[1].sent.status, calls[1].sent.text.as_str()), (0, 200, "so far"));
    assert_eq!((calls[6].bytes_sent, calls[6].sent.text.as_str()), (20, ""));
}

#[tokio::test]
async fn a_cut_is_an_end_of_the_connection_at_the_byte() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(Script::no_reply());
    let (bytes, end, _) = raw(&provider, OPENAI).await;
    assert_eq!((bytes.len(), end.unwrap()), (0, 0));
    for at in [0, 1, 100, 250] {
        provider.script(Script::answer(["abc"]).cut_at(at).close_delimited());
        let (bytes, end, _) = raw(&provider, OPENAI).await;
        let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!((bytes.len() - body, end.unwrap()), (at, 0));
    }
    assert!(post(&provider, OPENAI).await.is_ok());
}

#[tokio::test]
async fn a_half_closed_connection_still_listens() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(presets::preset("half_close").unwrap());
    let (bytes, end, mut stream) = raw(&provider, OPENAI).await;
    assert!(String::from_utf8(bytes).unwrap().ends_with("\n\n\r\n"), "no last chunk");
    assert_eq!(end.unwrap(), 0);
    for _ in 0..2 {
        // A closed one would answer the first with a reset, and the second would fail.
        stream.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(provider.journal()[0].ended(), Some(End::Cut));
}

#[tokio::test]
async fn a_clean_end_without_terminator_is_clean() {
    for path in PATHS {
        let provider = FakeProvider::start().await.unwrap();
        provider.script(presets::preset("clean_eof").unwrap());
        post(&provider, path).await.unwrap().bytes().await.unwrap();
        let call = ended(&provider).await;
        assert_eq!((call.ended(), call.sent.text.as_str()), (Some(End::Finished), "So far so good"));
        assert!(!call.sent.finished && call.sent.usage.is_none());
    }
}

#[tokio::test]
async fn silence_and_signs_of_life() {
    for path in PATHS {
        let provider = FakeProvider::start().await.unwrap();
        let alive = Step::KeepAlives { every: Duration::from_millis(5), count: None };
        provider.script(Script::steps([alive]));
        let mut response = post(&provider, path).await.unwrap();
        let mut seen = String::new();
        while seen.matches("\n\n").count() < 5 {
            seen += std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap();
        }
        let ping = match path {
            OPENAI => ": keep-alive\n\n",
            ANTHROPIC => "event: ping\ndata: {\"type\": \"ping\"}\n\n",
            _ => "event: ping\n\n",
        };
        assert_eq!(seen.replace(ping, ""), "");
        drop(response);
        let call = ended(&provider).await;
        assert_eq!((call.ended(), call.sent.text.as_str()), (Some(End::ClientClosed), ""));
        let three = Step::KeepAlives { every: Duration::from_millis(1), count: Some(3) };
        assert_eq!(played(Script::steps([three]), path).await, ping.repeat(3));
    }
    let provider = FakeProvider::start().await.unwrap();
    provider.script(Script::silent());
    let timeout = Duration::from_millis(50);
    let waited = async {
        provider.wait_until(|calls| !calls.is_empty()).await.unwrap();
        tokio::time::sleep(timeout).await;
    };
    tokio::select! {
        reply = post(&provider, OPENAI) => panic!("{reply:?}"),
        () = waited => {}
    }
    let call = ended(&provider).await;
    assert_eq!((call.ended(), call.sent.status), (Some(End::ClientClosed), 0));
    provider.script(Script::answer(["late"]).head_after(timeout));
    let begin = std::time::Instant::now();
    post(&provider, OPENAI).await.unwrap();
    assert!(begin.elapsed() >= timeout);
}

#[tokio::test]
async fn a_huge_event_is_one_line() {
    for path in PATHS {
        let provider = FakeProvider::start().await.unwrap();
        let finish = Step::Finish { input: 1, output: 1 };
        provider.script(Script::steps([Step::Begin, Step::HugeLine { mib: 2 }, finish]));
        let body = post(&provider, path).await.unwrap().text().await.unwrap();
        let longest = body.lines().map(str::len).max().unwrap();
        assert!((2 << 20..(2 << 20) + 400).contains(&longest), "{longest}");
        let call = ended(&provider).await;
        assert!(call.sent.finished && call.sent.text.len() > (2 << 20) - 5);
    }
}

#[tokio::test]
async fn an_endless_stream_goes_on_as_fast_as_it_is_read() {
    let provider = FakeProvider::start().await.unwrap();
    provider.script(presets::preset("flood").unwrap());
    let mut response = post(&provider, OPENAI).await.unwrap();
    let mut read = 0;
    while read < 500_000 {
        read += response.chunk().await.unwrap().unwrap().len();
    }
    drop(response);
    let call = ended(&provider).await;
    assert_eq!(call.ended(), Some(End::ClientClosed));
    assert!(call.bytes_sent >= read && call.sent.text.starts_with("on and on on and on "));
}

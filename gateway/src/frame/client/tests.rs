//! Every request type as raw JSON text, every way to be refused, and the parser's properties.

use chatbox_shared::proto::{self, client_message::Message};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SESSION: &str = "0190f3c0-0000-7000-8000-000000000001";
const MESSAGE: &str = "7d444840-9dc0-41d1-b245-5ffdce74fad2";

fn accepted(text: &str) -> ClientFrame {
    parse(text, 32_000).unwrap_or_else(|refused| panic!("{text} was refused: {refused:?}"))
}

fn brain(text: &str) -> Message {
    match accepted(text).request {
        ClientRequest::Brain(message) => message,
        other => panic!("{text} is {other:?}"),
    }
}

/// The code, the field and the `reply_to` a frame is refused with.
fn refused(text: &str) -> (ErrorCode, Option<String>, Option<String>) {
    match parse(text, 20) {
        Ok(frame) => panic!("{text} was accepted: {frame:?}"),
        Err(refused) => (refused.failure.code, refused.failure.field, refused.id.map(String::from)),
    }
}

fn invalid(field: &str) -> (ErrorCode, Option<String>, Option<String>) {
    (ErrorCode::InvalidMessage, Some(field.to_owned()), None)
}

#[test]
fn every_type_is_read() {
    let session_id = SESSION.to_owned();
    assert_eq!(
        brain(
            r#"{"type":"session_open","id":"1","session_id":"0190f3c0-0000-7000-8000-000000000001","create":true,"after_seq":7,"epoch":"e","model_id":"gpt","name":"Täg"}"#
        ),
        Message::SessionOpen(proto::SessionOpen {
            session_id: session_id.clone(),
            create: true,
            after_seq: 7,
            epoch: "e".into(),
            model_id: "gpt".into(),
            name: "Täg".into(),
        })
    );
    assert_eq!(
        brain(r#"{"session_id":"0190F3C0-0000-7000-8000-000000000001","type":"session_open"}"#),
        Message::SessionOpen(proto::SessionOpen { session_id: session_id.clone(), ..Default::default() })
    );
    assert_eq!(
        brain(r#"{"type":"session_close","session_id":"0190f3c0-0000-7000-8000-000000000001"}"#),
        Message::SessionClose(proto::SessionClose { session_id: session_id.clone() })
    );
    assert_eq!(
        brain(r#"{"type":"session_list","cursor":"c","limit":100,"state":"ended"}"#),
        Message::SessionList(proto::SessionList {
            cursor: "c".into(),
            limit: 100,
            state: proto::SessionState::Ended.into()
        })
    );
    assert_eq!(brain(r#"{"type":"session_list"}"#), Message::SessionList(proto::SessionList::default()));
    assert_eq!(
        brain(r#"{"type":"session_rename","session_id":"0190f3c0-0000-7000-8000-000000000001","name":"a"}"#),
        Message::SessionRename(proto::SessionRename { session_id: session_id.clone(), name: "a".into() })
    );
    assert_eq!(
        brain(r#"{"type":"session_end","session_id":"0190f3c0-0000-7000-8000-000000000001"}"#),
        Message::SessionEnd(proto::SessionEnd { session_id: session_id.clone() })
    );
    assert_eq!(
        brain(r#"{"type":"session_delete","session_id":"0190f3c0-0000-7000-8000-000000000001"}"#),
        Message::SessionDelete(proto::SessionDelete { session_id: session_id.clone() })
    );
    assert_eq!(
        brain(
            r#"{"type":"history","session_id":"0190f3c0-0000-7000-8000-000000000001","before_seq":9007199254740992,"limit":1}"#
        ),
        Message::History(proto::History { session_id: session_id.clone(), before_seq: 1 << 53, limit: 1 })
    );
    assert_eq!(
        brain(
            r#"{"type":"user_message","id":"m","session_id":"0190f3c0-0000-7000-8000-000000000001","client_msg_id":"7d444840-9dc0-41d1-b245-5ffdce74fad2","content":"a\u0000\r\n\u202e\u00e9","attachments":["7d444840-9dc0-41d1-b245-5ffdce74fad2"]}"#
        ),
        Message::UserMessage(proto::UserMessage {
            session_id: session_id.clone(),
            client_msg_id: MESSAGE.into(),
            content: "a\0\r\n\u{202e}é".into(),
            attachments: vec![MESSAGE.into()],
        })
    );
    assert_eq!(
        brain(r#"{"type":"stop_generation","session_id":"0190f3c0-0000-7000-8000-000000000001"}"#),
        Message::StopGeneration(proto::StopGeneration { session_id: session_id.clone() })
    );
    assert_eq!(
        brain(r#"{"type":"regenerate","session_id":"0190f3c0-0000-7000-8000-000000000001","model_id":"gpt"}"#),
        Message::Regenerate(proto::Regenerate { session_id: session_id.clone(), model_id: "gpt".into() })
    );
    assert_eq!(
        brain(r#"{"type":"model_select","session_id":"0190f3c0-0000-7000-8000-000000000001","model_id":"gpt"}"#),
        Message::ModelSelect(proto::ModelSelect { session_id: session_id.clone(), model_id: "gpt".into() })
    );
    assert_eq!(
        brain(r#"{"type":"typing","session_id":"0190f3c0-0000-7000-8000-000000000001","active":false}"#),
        Message::Typing(proto::Typing { session_id: session_id.clone(), active: false })
    );
    assert_eq!(
        brain(r#"{"type":"read","session_id":"0190f3c0-0000-7000-8000-000000000001","seq":3}"#),
        Message::Read(proto::Read { session_id: session_id.clone(), seq: 3 })
    );
    assert_eq!(
        brain(r#"{"type":"help_request","session_id":"0190f3c0-0000-7000-8000-000000000001","reason":"r"}"#),
        Message::HelpRequest(proto::HelpRequest { session_id: session_id.clone(), reason: "r".into() })
    );
    assert_eq!(
        brain(r#"{"type":"admin_join","session_id":"0190f3c0-0000-7000-8000-000000000001"}"#),
        Message::AdminJoin(proto::AdminJoin { session_id: session_id.clone() })
    );
    assert_eq!(
        brain(
            r#"{"type":"admin_message","session_id":"0190f3c0-0000-7000-8000-000000000001","client_msg_id":"7d444840-9dc0-41d1-b245-5ffdce74fad2","content":"x"}"#
        ),
        Message::AdminMessage(proto::AdminMessage {
            session_id: session_id.clone(),
            client_msg_id: MESSAGE.into(),
            content: "x".into()
        })
    );
    assert_eq!(
        brain(r#"{"type":"admin_leave","session_id":"0190f3c0-0000-7000-8000-000000000001"}"#),
        Message::AdminLeave(proto::AdminLeave { session_id: session_id.clone() })
    );
    assert_eq!(
        brain(r#"{"type":"admin_watch","session_id":"0190f3c0-0000-7000-8000-000000000001","after_seq":5}"#),
        Message::AdminWatch(proto::AdminWatch { session_id, after_seq: 5 })
    );
    assert_eq!(
        accepted(r#" {"type":"ping","id":"p"} "#),
        ClientFrame { id: Some("p".into()), request: ClientRequest::Ping }
    );
    assert_eq!(
        accepted(r#"{"type":"token_refresh","token":"a.b.c"}"#),
        ClientFrame { id: None, request: ClientRequest::TokenRefresh("a.b.c".into()) }
    );
}

#[test]
fn what_is_no_object_is_refused_without_a_field() {
    for text in ["", " ", "null", "[]", "\"ping\"", "1", "{}x", "{} {}", "{", "ping", "{'type':'ping'}", "\u{feff}{}"] {
        let (code, field, id) = refused(text);
        assert_eq!((code, id), (ErrorCode::InvalidMessage, None), "{text}");
        assert!(field.is_none() || text == "{}", "{text}");
    }
}

#[test]
fn faults_name_their_field() {
    let session = format!(r#""session_id":"{SESSION}""#);
    for (text, field) in [
        ("{}".to_owned(), "type"),
        (r#"{"type":"pong"}"#.to_owned(), "type"),
        (r#"{"type":7}"#.to_owned(), "type"),
        (r#"{"type":null}"#.to_owned(), "type"),
        (r#"{"type":{"$ne":null}}"#.to_owned(), "type"),
        (r#"{"type":"ping","type":"ping"}"#.to_owned(), "type"),
        (r#"{"type":"ping","x":1}"#.to_owned(), "x"),
        (r#"{"type":"ping","x":[1,}"#.to_owned(), "x"),
        (r#"{"type":"ping","id":5}"#.to_owned(), "id"),
        (r#"{"type":"ping","id":""}"#.to_owned(), "id"),
        (format!(r#"{{"type":"ping","id":"{}"}}"#, "é".repeat(65)), "id"),
        (r#"{"type":"session_end"}"#.to_owned(), "session_id"),
        (r#"{"type":"session_end","session_id":{"$ne":null}}"#.to_owned(), "session_id"),
        (r#"{"type":"session_end","session_id":"0190f3c0000070008000000000000001"}"#.to_owned(), "session_id"),
        (r#"{"type":"session_end","session_id":"{0190f3c0-0000-7000-8000-000000000001}"}"#.to_owned(), "session_id"),
        (format!(r#"{{"type":"session_open",{session},"after_seq":-1}}"#), "after_seq"),
        (format!(r#"{{"type":"session_open",{session},"after_seq":1.0}}"#), "after_seq"),
        (format!(r#"{{"type":"session_open",{session},"after_seq":1e2}}"#), "after_seq"),
        (format!(r#"{{"type":"session_open",{session},"after_seq":"1"}}"#), "after_seq"),
        (format!(r#"{{"type":"session_open",{session},"after_seq":9007199254740993}}"#), "after_seq"),
        (format!(r#"{{"type":"session_open",{session},"after_seq":99999999999999999999999}}"#), "after_seq"),
        (format!(r#"{{"type":"session_open",{session},"create":1}}"#), "create"),
        (format!(r#"{{"type":"session_open",{session},"epoch":null}}"#), "epoch"),
        (format!(r#"{{"type":"session_rename",{session},"name":""}}"#), "name"),
        (format!(r#"{{"type":"typing",{session}}}"#), "active"),
        (format!(r#"{{"type":"history",{session}}}"#), "before_seq"),
        (format!(r#"{{"type":"history",{session},"before_seq":1,"limit":101}}"#), "limit"),
        (r#"{"type":"session_list","limit":0}"#.to_owned(), "limit"),
        (r#"{"type":"session_list","limit":1000000000}"#.to_owned(), "limit"),
        (r#"{"type":"session_list","state":"deleted"}"#.to_owned(), "state"),
        (format!(r#"{{"type":"user_message",{session},"client_msg_id":"{MESSAGE}"}}"#), "content"),
        (format!(r#"{{"type":"user_message",{session},"client_msg_id":"{MESSAGE}","content":""}}"#), "content"),
        (
            format!(r#"{{"type":"user_message",{session},"client_msg_id":"{MESSAGE}","content":{{"$gt":""}}}}"#),
            "content",
        ),
        (format!(r#"{{"type":"user_message",{session},"client_msg_id":"{MESSAGE}","content":"\ud800"}}"#), "content"),
        (format!(r#"{{"type":"user_message",{session},"client_msg_id":"x","content":"a"}}"#), "client_msg_id"),
        (
            format!(
                r#"{{"type":"user_message",{session},"client_msg_id":"{MESSAGE}","content":"a","attachments":["x"]}}"#
            ),
            "attachments",
        ),
        (
            format!(
                r#"{{"type":"user_message",{session},"client_msg_id":"{MESSAGE}","content":"a","attachments":"x"}}"#
            ),
            "attachments",
        ),
    ] {
        assert_eq!(refused(&text), invalid(field), "{text}");
    }
}

#[test]
fn what_only_the_server_may_say_is_refused() {
    for field in ["sender", "role", "seq", "user_id", "user", "rev", "created_at", "message_id", "sub", "conn"] {
        let text = format!(
            r#"{{"type":"user_message","session_id":"{SESSION}","client_msg_id":"{MESSAGE}","content":"a","{field}":"admin"}}"#
        );
        assert_eq!(refused(&text), invalid(field));
    }
}

/// The brain's settings for names and reasons go up to these limits, and the brain answers with `too_large` below them.
#[test]
fn names_and_reasons_are_forwarded_up_to_the_largest_setting_of_the_brain() {
    for (kind, field, limit) in [("session_rename", "name", 1_000), ("help_request", "reason", 10_000)] {
        let frame =
            |chars: usize| format!(r#"{{"type":"{kind}","session_id":"{SESSION}","{field}":"{}"}}"#, "é".repeat(chars));
        accepted(&frame(limit));
        assert_eq!(refused(&frame(limit + 1)), invalid(field));
    }
}

#[test]
fn a_long_message_is_told_the_limit_and_who_asked() {
    let text = |content: String| {
        format!(
            r#"{{"type":"user_message","id":"a","session_id":"{SESSION}","client_msg_id":"{MESSAGE}","content":"{content}"}}"#
        )
    };
    assert!(parse(&text("😀".repeat(20)), 20).is_ok(), "characters are counted, not bytes");
    let refused = parse(&text("x".repeat(21)), 20).expect_err("too long");
    assert_eq!(refused.id.as_deref(), Some("a"));
    assert_eq!(refused.failure.code, ErrorCode::TooLarge);
    assert_eq!(refused.failure.message, "The content may have at most 20 characters.");
    assert_eq!(refused.failure.field.as_deref(), Some("content"));
}

#[test]
fn nesting_is_bounded_and_a_field_name_is_not_repeated_at_length() {
    let nested = |depth: usize| format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(
        parse(&nested(31), 20).expect_err("unknown").failure.message,
        "This field does not belong to this type."
    );
    assert_eq!(parse(&nested(32), 20).expect_err("deep").failure.message, "This field is nested too deeply.");
    let objects = format!(r#"{{"type":"ping","x":{}1{}}}"#, r#"{"a":"#.repeat(32), "}".repeat(32));
    assert_eq!(parse(&objects, 20).expect_err("deep").failure.message, "This field is nested too deeply.");
    assert_eq!(refused(&nested(30_000)), invalid("x"));
    let (_, field, _) = refused(&format!(r#"{{"type":"ping","{}":1}}"#, "é".repeat(5000)));
    assert_eq!(field, Some("é".repeat(64)));
}

#[test]
fn a_valid_id_is_kept_for_the_error() {
    let refused = parse(r#"{"id":"q1","type":"nonsense"}"#, 20).expect_err("no such type");
    assert_eq!(refused.id.as_deref(), Some("q1"));
}

/// A frame as a client would write it: the fields of protobuf that are not empty.
fn written(frame: &ClientFrame) -> Value {
    let mut value = match &frame.request {
        ClientRequest::Ping => json!({"type": "ping"}),
        ClientRequest::TokenRefresh(token) => json!({"type": "token_refresh", "token": token}),
        ClientRequest::Brain(Message::SessionOpen(open)) => {
            let mut value = json!({"type": "session_open", "session_id": open.session_id});
            for (name, text) in [("epoch", &open.epoch), ("model_id", &open.model_id), ("name", &open.name)] {
                if !text.is_empty() {
                    value[name] = json!(text);
                }
            }
            if open.create {
                value["create"] = json!(true);
            }
            if open.after_seq > 0 {
                value["after_seq"] = json!(open.after_seq);
            }
            value
        }
        ClientRequest::Brain(Message::UserMessage(message)) => json!({
            "type": "user_message", "session_id": message.session_id, "client_msg_id": message.client_msg_id,
            "content": message.content, "attachments": message.attachments,
        }),
        ClientRequest::Brain(Message::History(history)) => json!({
            "type": "history", "session_id": history.session_id, "before_seq": history.before_seq, "limit": history.limit,
        }),
        other => panic!("not generated: {other:?}"),
    };
    if let Some(id) = &frame.id {
        value["id"] = json!(id);
    }
    value
}

fn uuid() -> impl Strategy<Value = String> {
    any::<u128>().prop_map(|bits| uuid::Uuid::from_u128(bits).to_string())
}

fn any_request() -> impl Strategy<Value = ClientRequest> {
    prop_oneof![
        Just(ClientRequest::Ping),
        "[a-zA-Z0-9._-]{1,200}".prop_map(ClientRequest::TokenRefresh),
        (uuid(), any::<bool>(), 0..=MAX, "\\PC{0,9}", "[a-z]{0,9}", ".{0,9}").prop_map(
            |(session_id, create, after_seq, epoch, model_id, name)| {
                ClientRequest::Brain(Message::SessionOpen(proto::SessionOpen {
                    session_id,
                    create,
                    after_seq,
                    epoch,
                    model_id,
                    name,
                }))
            }
        ),
        (uuid(), uuid(), any::<String>(), proptest::collection::vec(uuid(), 0..5)).prop_map(
            |(session_id, client_msg_id, content, attachments)| {
                let content = format!("{content}.");
                ClientRequest::Brain(Message::UserMessage(proto::UserMessage {
                    session_id,
                    client_msg_id,
                    content,
                    attachments,
                }))
            }
        ),
        (uuid(), 0..=MAX, 1..=100_u32).prop_map(|(session_id, before_seq, limit)| {
            ClientRequest::Brain(Message::History(proto::History { session_id, before_seq, limit }))
        }),
    ]
}

const MAX: u64 = crate::frame::MAX_NUMBER;

proptest! {
    /// Whatever a client sends, there is an answer and no panic.
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        drop(parse(&text, 20));
    }

    /// The same for texts that look like frames.
    #[test]
    fn anything_like_a_frame_is_answered(text in "(\\{|\\}|\\[|\\]|\"type\"|\"ping\"|\"id\"|:|,|\"\\\\u[dD]8|1|-|e|null|true| ){0,40}") {
        drop(parse(&text, 20));
    }

    /// Bytes cut or changed anywhere in a valid frame.
    #[test]
    fn a_damaged_frame_is_answered(request in any_request(), cut in any::<prop::sample::Index>(), with in any::<char>()) {
        let text = written(&ClientFrame { id: Some("x".into()), request }).to_string();
        let at = text.char_indices().map(|(at, _)| at).nth(cut.index(text.chars().count())).unwrap_or(0);
        drop(parse(&text[..at], 20));
        drop(parse(&format!("{}{with}{}", &text[..at], &text[at..]), 20));
    }

    /// What is accepted says what was written.
    #[test]
    fn valid_frames_round_trip(id in proptest::option::of("\\PC{1,64}"), request in any_request()) {
        let frame = ClientFrame { id: id.map(String::into_boxed_str), request };
        prop_assert_eq!(parse(&written(&frame).to_string(), u32::MAX), Ok(frame));
    }
}

/// The shortest time in which a text was parsed. The shortest of many is hardly disturbed by other processes.
fn parse_time(text: &str) -> std::time::Duration {
    let run = || {
        let begun = std::time::Instant::now();
        drop(std::hint::black_box(parse(std::hint::black_box(text), 100_000)));
        begun.elapsed()
    };
    (0..20).map(|_| run()).min().expect("20 runs")
}

#[test]
fn no_hostile_frame_costs_much_more_than_a_valid_frame_of_its_size() {
    const SIZE: usize = 60_000;
    let repeat = |text: &str| text.repeat(SIZE / text.len());
    let valid = parse_time(&format!(r#"{{"type":"ping"{}}}"#, " ".repeat(SIZE)));
    let fields = |key: &dyn Fn(usize) -> String| {
        let fields: String = (0..8_000).map(|n| format!(r#","{}":0"#, key(n))).collect();
        format!(r#"{{"type":"ping"{fields}}}"#)
    };
    for (shape, text) in [
        ("different keys", fields(&|n| n.to_string())),
        ("escaped keys", fields(&|n| format!("\\u0041{n}"))),
        ("equal keys", fields(&|_| "k".to_owned())),
        (
            "long keys",
            format!(
                r#"{{"type":"ping"{}}}"#,
                (0..15).map(|n| format!(r#","{}{n}":0"#, "k".repeat(4_000))).collect::<String>()
            ),
        ),
        ("a list", format!(r#"{{"type":"ping","x":[{}0]}}"#, repeat("0,"))),
        ("lists in a list", format!(r#"{{"type":"ping","x":[{}0]}}"#, repeat("[],"))),
        ("an object", format!(r#"{{"type":"ping","x":{{{}"a":0}}}}"#, repeat(r#""a":0,"#))),
        ("deep lists", format!(r#"{{"type":"ping","x":{}"#, repeat("["))),
        ("escapes", format!(r#"{{"type":"ping","x":"{}"}}"#, repeat("\\u0000"))),
        ("digits", format!(r#"{{"type":"ping","x":{}}}"#, repeat("9"))),
        ("a fraction", format!(r#"{{"type":"ping","x":0.{}}}"#, repeat("9"))),
    ] {
        let ratio = parse_time(&text).as_secs_f64() / valid.as_secs_f64();
        println!("{shape}: {ratio:.2} times a valid frame ({valid:?})");
        assert!(ratio <= 5.0, "{shape} costs {ratio:.1} times a valid frame");
    }
}

#[test]
fn fields_and_values_are_bounded() {
    let fields = |count: usize| {
        let more: String = (1..count).map(|n| format!(r#","x{n}":0"#)).collect();
        format!(r#"{{"type":"ping"{more}}}"#)
    };
    assert_eq!(refused(&fields(17)), invalid("x16"));
    let message = |text: &str| parse(text, 20).expect_err("refused").failure.message;
    assert_eq!(message(&fields(16)), "This field does not belong to this type.");
    assert_eq!(message(&fields(17)), "The frame has too many fields.");
    let list = format!(r#"{{"type":"ping","x":[{}0]}}"#, "0,".repeat(200));
    assert_eq!(message(&list), "This field has too many values.");
}

#[test]
fn the_id_of_a_frame_is_read_alone() {
    assert_eq!(request_id(r#"{"type":"nonsense","id":"a"}"#).as_deref(), Some("a"));
    for text in ["[]", r#"{"id":7}"#, r#"{"type":"ping"}"#] {
        assert_eq!(request_id(text), None, "{text}");
    }
}

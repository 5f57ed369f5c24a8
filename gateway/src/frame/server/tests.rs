//! Every server frame as raw JSON text: the contract, byte for byte.

use chatbox_shared::proto;
use chatbox_shared::proto::server_message::Message;

use super::encode;

const S: &str = "0190f3c0-0000-7000-8000-000000000001";

fn text(message: &Message, reply_to: Option<&str>) -> String {
    encode(message, reply_to).expect("a frame").as_str().to_owned()
}

fn person(id: &str, name: &str, role: proto::SenderRole) -> proto::Person {
    proto::Person { id: id.into(), name: name.into(), role: role.into() }
}

fn summary() -> proto::Session {
    proto::Session {
        id: S.into(),
        epoch: "e1".into(),
        name: "Trip".into(),
        state: proto::SessionState::Active.into(),
        model_id: "gpt".into(),
        seq: 4,
        created_at_ms: 1_795_378_457_123,
        last_activity_at_ms: 1_795_378_458_000,
        message_count: 3,
        unread: 1,
        input_tokens: 10,
        output_tokens: 20,
        ..Default::default()
    }
}

const SUMMARY: &str = r#""id":"0190f3c0-0000-7000-8000-000000000001","epoch":"e1","name":"Trip","state":"active","model_id":"gpt","seq":4,"created_at":"2026-11-22T20:14:17.123Z","last_activity_at":"2026-11-22T20:14:18.000Z","message_count":3,"unread":1,"admin_assisted":false,"help_requested":false,"tokens":{"input":10,"output":20}"#;

#[test]
fn sessions() {
    let info = proto::SessionInfo { session: Some(summary()), truncated_before: 0, reset: false };
    assert_eq!(text(&Message::Session(info.clone()), None), format!(r#"{{"type":"session","session":{{{SUMMARY}}}}}"#));
    let info = proto::SessionInfo { truncated_before: 9, reset: true, ..info };
    assert_eq!(
        text(&Message::Session(info), Some("q")),
        format!(r#"{{"type":"session","reply_to":"q","session":{{{SUMMARY},"truncated_before":9,"reset":true}}}}"#)
    );
    let ended = proto::Session {
        state: proto::SessionState::Ended.into(),
        ended_at_ms: 1_795_378_459_000,
        admin_assisted: true,
        assisting_admin: Some(person("a1", "Ann", proto::SenderRole::Admin)),
        help_requested: true,
        ..summary()
    };
    assert_eq!(
        text(&Message::Session(proto::SessionInfo { session: Some(ended), ..Default::default() }), None),
        r#"{"type":"session","session":{"id":"0190f3c0-0000-7000-8000-000000000001","epoch":"e1","name":"Trip","state":"ended","model_id":"gpt","seq":4,"created_at":"2026-11-22T20:14:17.123Z","last_activity_at":"2026-11-22T20:14:18.000Z","ended_at":"2026-11-22T20:14:19.000Z","message_count":3,"unread":1,"admin_assisted":true,"assisting_admin":{"id":"a1","name":"Ann"},"help_requested":true,"tokens":{"input":10,"output":20}}}"#
    );
}

#[test]
fn lists() {
    let page = proto::Sessions { sessions: vec![summary()], next_cursor: "c".into() };
    assert_eq!(
        text(&Message::Sessions(page), Some("q")),
        format!(r#"{{"type":"sessions","reply_to":"q","sessions":[{{{SUMMARY}}}],"next_cursor":"c"}}"#)
    );
    assert_eq!(text(&Message::Sessions(proto::Sessions::default()), None), r#"{"type":"sessions","sessions":[]}"#);
    let page = proto::Entries { session_id: S.into(), entries: vec![user_entry()] };
    assert_eq!(
        text(&Message::Entries(page), Some("q")),
        format!(r#"{{"type":"entries","reply_to":"q","session_id":"{S}","entries":[{USER_ENTRY}]}}"#)
    );
}

fn user_entry() -> proto::Entry {
    proto::Entry {
        seq: 1,
        rev: 1,
        id: "m1".into(),
        kind: proto::EntryKind::Message.into(),
        state: proto::EntryState::Final.into(),
        sender: Some(person("u1", "Uma", proto::SenderRole::User)),
        content: "Hi \"you\"\n".into(),
        created_at_ms: 0,
        client_msg_id: "c1".into(),
        ..Default::default()
    }
}

const USER_ENTRY: &str = r#"{"seq":1,"rev":1,"id":"m1","kind":"message","state":"final","sender":{"id":"u1","name":"Uma","role":"user"},"content":"Hi \"you\"\n","created_at":"1970-01-01T00:00:00.000Z","client_msg_id":"c1"}"#;

fn entry(entry: proto::Entry) -> String {
    let text = text(&Message::Entry(proto::EntryEvent { session_id: S.into(), entry: Some(entry) }), None);
    let start = format!(r#"{{"type":"entry","session_id":"{S}","entry":"#);
    text.strip_prefix(&start).and_then(|text| text.strip_suffix('}')).expect("an entry frame").to_owned()
}

fn answer() -> proto::Entry {
    proto::Entry {
        seq: 2,
        rev: 1,
        id: "m2".into(),
        kind: proto::EntryKind::Message.into(),
        state: proto::EntryState::Streaming.into(),
        sender: Some(person("", "", proto::SenderRole::Ai)),
        answer: Some(proto::Answer {
            reply_to_seq: 1,
            model_id: "gpt".into(),
            attempt: 1,
            next_index: 0,
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn entries_of_people() {
    assert_eq!(entry(user_entry()), USER_ENTRY);
    let admin = proto::Entry { sender: Some(person("a1", "", proto::SenderRole::Admin)), ..user_entry() };
    assert!(entry(admin).contains(r#""sender":{"id":"a1","role":"admin"}"#));
}

#[test]
fn entries_of_the_ai() {
    assert_eq!(
        entry(answer()),
        r#"{"seq":2,"rev":1,"id":"m2","kind":"message","state":"streaming","sender":{"role":"ai"},"content":"","created_at":"1970-01-01T00:00:00.000Z","reply_to_seq":1,"model_id":"gpt","attempt":1,"next_index":0}"#
    );
    let mut done = answer();
    done.rev = 2;
    done.state = proto::EntryState::Final.into();
    done.content = "Hello".into();
    done.answer = Some(proto::Answer {
        reply_to_seq: 1,
        regenerates: 7,
        model_id: "gpt".into(),
        attempt: 2,
        next_index: 9,
        finish_reason: "stop".into(),
        usage: Some(proto::Usage { input_tokens: 3, output_tokens: 4, estimated: true }),
        latency: Some(proto::Latency { first_token_ms: 5, total_ms: 6 }),
    });
    assert_eq!(
        entry(done.clone()),
        r#"{"seq":2,"rev":2,"id":"m2","kind":"message","state":"final","sender":{"role":"ai"},"content":"Hello","created_at":"1970-01-01T00:00:00.000Z","reply_to_seq":1,"regenerates":7,"model_id":"gpt","attempt":2,"finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":4,"estimated":true},"latency_ms":{"first_token":5,"total":6}}"#
    );
    done.state = proto::EntryState::Failed.into();
    done.answer = Some(proto::Answer { reply_to_seq: 1, model_id: "gpt".into(), attempt: 1, ..Default::default() });
    done.error = Some(proto::EntryError { code: "provider_timeout".into(), retryable: true, retry_at_ms: 1 });
    assert_eq!(
        entry(done),
        r#"{"seq":2,"rev":2,"id":"m2","kind":"message","state":"failed","sender":{"role":"ai"},"content":"Hello","created_at":"1970-01-01T00:00:00.000Z","reply_to_seq":1,"model_id":"gpt","attempt":1,"error":{"code":"provider_timeout","retryable":true,"retry_at":"1970-01-01T00:00:00.001Z"}}"#
    );
}

#[test]
fn entries_of_events() {
    let event = |event: proto::Event| {
        let text = entry(proto::Entry {
            seq: 3,
            rev: 1,
            id: "m3".into(),
            kind: proto::EntryKind::Event.into(),
            state: proto::EntryState::Final.into(),
            sender: Some(person("", "", proto::SenderRole::System)),
            event: Some(event),
            ..Default::default()
        });
        let start = r#"{"seq":3,"rev":1,"id":"m3","kind":"event","state":"final","sender":{"role":"system"},"content":"","created_at":"1970-01-01T00:00:00.000Z","#;
        text.strip_prefix(start).and_then(|text| text.strip_suffix('}')).expect("an event").to_owned()
    };
    let of = |kind: &str| proto::Event { r#type: kind.into(), ..Default::default() };
    let admin = Some(person("a1", "Ann", proto::SenderRole::Admin));
    assert_eq!(
        event(proto::Event { admin, ..of("admin_joined") }),
        r#""event":"admin_joined","admin":{"id":"a1","name":"Ann"}"#
    );
    assert_eq!(
        event(proto::Event { model_id: "gpt".into(), ..of("model_changed") }),
        r#""event":"model_changed","model_id":"gpt""#
    );
    assert_eq!(
        event(proto::Event { reason: "lost".into(), ..of("help_requested") }),
        r#""event":"help_requested","reason":"lost""#
    );
    assert_eq!(event(of("session_ended")), r#""event":"session_ended""#);
}

#[test]
fn acknowledgements() {
    let ack = proto::Ack {
        session_id: S.into(),
        client_msg_id: "c1".into(),
        message_id: "m1".into(),
        seq: 1,
        created_at_ms: 1_795_378_457_123,
        duplicate: false,
    };
    assert_eq!(
        text(&Message::Ack(ack.clone()), Some("q")),
        format!(
            r#"{{"type":"ack","reply_to":"q","session_id":"{S}","client_msg_id":"c1","message_id":"m1","seq":1,"created_at":"2026-11-22T20:14:17.123Z","duplicate":false}}"#
        )
    );
    assert!(text(&Message::Ack(proto::Ack { duplicate: true, ..ack }), None).ends_with(r#""duplicate":true}"#));
    assert_eq!(super::super::ack("q").expect("frame").as_str(), r#"{"type":"ack","reply_to":"q"}"#);
}

#[test]
fn deltas() {
    let delta =
        proto::AiDelta { session_id: S.into(), seq: 2, attempt: 1, index: 5, count: 1, delta: "é\u{1}".into() };
    let start = format!(r#"{{"type":"ai_delta","session_id":"{S}","seq":2,"attempt":1,"index":5"#);
    assert_eq!(text(&Message::AiDelta(delta.clone()), None), format!(r#"{start},"delta":"é\u0001"}}"#));
    assert_eq!(
        text(&Message::AiDelta(proto::AiDelta { count: 3, ..delta }), None),
        format!(r#"{start},"count":3,"delta":"é\u0001"}}"#)
    );
}

#[test]
fn what_others_do() {
    let user = Some(person("u1", "Uma", proto::SenderRole::User));
    let typing = proto::TypingEvent { session_id: S.into(), user: user.clone(), active: true };
    assert_eq!(
        text(&Message::Typing(typing), None),
        format!(
            r#"{{"type":"typing","session_id":"{S}","user":{{"id":"u1","name":"Uma","role":"user"}},"active":true}}"#
        )
    );
    let read = proto::ReadEvent { session_id: S.into(), user, seq: 4 };
    assert_eq!(
        text(&Message::Read(read), None),
        format!(r#"{{"type":"read","session_id":"{S}","user":{{"id":"u1","name":"Uma","role":"user"}},"seq":4}}"#)
    );
    let ready = proto::SessionReady { session_id: S.into(), seq: 4 };
    assert_eq!(
        text(&Message::SessionReady(ready), None),
        format!(r#"{{"type":"session_ready","session_id":"{S}","seq":4}}"#)
    );
}

#[test]
fn errors() {
    let error = proto::Error {
        code: "conflict".into(),
        message: "No.".into(),
        retryable: false,
        error_id: "x1".into(),
        ..Default::default()
    };
    assert_eq!(
        text(&Message::Error(error.clone()), None),
        r#"{"type":"error","code":"conflict","message":"No.","retryable":false,"error_id":"x1"}"#
    );
    let error = proto::Error { retryable: true, retry_after_ms: 250, field: "name".into(), ..error };
    assert_eq!(
        text(&Message::Error(error), Some("q")),
        r#"{"type":"error","reply_to":"q","code":"conflict","message":"No.","retryable":true,"retry_after_ms":250,"field":"name","error_id":"x1"}"#
    );
}

#[test]
fn the_gateways_own() {
    use std::time::Duration;

    use chatbox_shared::auth::Principal;
    use chatbox_shared::clock::Timestamp;
    use chatbox_shared::ids::UserId;

    use super::super::{Welcome, WelcomeLimits, notice, pong};

    let principal = Principal { user: UserId::new("u1"), name: Some("Uma".into()), roles: vec!["admin".into()] };
    let welcome = Welcome {
        connection: S.parse().expect("id"),
        principal: &principal,
        time: Timestamp(0),
        heartbeat: Duration::from_secs(25),
        models: &[proto::Model { id: "gpt".into(), name: "GPT".into() }],
        default_model: "gpt",
        limits: WelcomeLimits {
            max_frame_bytes: 65536,
            max_content_chars: 32000,
            replay_entries: 500,
            requests_per_second: 50,
            request_burst: 100,
            max_page: 100,
        },
    };
    assert_eq!(
        welcome.encode().expect("frame").as_str(),
        r#"{"type":"welcome","protocol":"chatbox.v1","connection_id":"0190f3c0-0000-7000-8000-000000000001","user":{"id":"u1","name":"Uma","roles":["admin"]},"server_time":"1970-01-01T00:00:00.000Z","heartbeat_interval_ms":25000,"models":[{"id":"gpt","name":"GPT"}],"default_model_id":"gpt","limits":{"max_frame_bytes":65536,"max_content_chars":32000,"replay_entries":500,"requests_per_second":50,"request_burst":100,"max_page":100}}"#
    );
    assert_eq!(
        notice("token_expiring", "Soon.", None).expect("frame").as_str(),
        r#"{"type":"notice","code":"token_expiring","message":"Soon."}"#
    );
    assert_eq!(
        notice("server_draining", "Bye.", Some(Duration::from_millis(1500))).expect("frame").as_str(),
        r#"{"type":"notice","code":"server_draining","message":"Bye.","reconnect_after_ms":1500}"#
    );
    assert_eq!(pong(Some("q")).expect("frame").as_str(), r#"{"type":"pong","reply_to":"q"}"#);
    assert_eq!(pong(None).expect("frame").as_str(), r#"{"type":"pong"}"#);
}

#[test]
fn a_message_without_its_subject_is_left_out() {
    assert!(encode(&Message::Entry(proto::EntryEvent::default()), None).is_none());
    assert!(encode(&Message::Session(proto::SessionInfo::default()), None).is_none());
}

//! The log of one session as frames arrive.

use super::*;

const SESSION: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);

fn say(conversation: &mut Conversation, message: Value) -> Reaction {
    conversation.message(serde_json::from_value(message).unwrap())
}

fn frames(reaction: &Reaction) -> Vec<Value> {
    reaction.frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect()
}

fn welcome() -> Value {
    json!({
        "type": "welcome", "protocol": "chatbox.v1", "connection_id": "c-1", "user": { "id": "me", "name": "Me", "roles": [] },
        "heartbeat_interval_ms": 25000, "models": [], "default_model_id": "demo", "limits": {},
    })
}

fn session(reply_to: Option<&Value>, more: Value) -> Value {
    let mut session = json!({ "id": SESSION.to_string(), "epoch": "e", "name": "n", "state": "active" });
    session.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut message = json!({ "type": "session", "session": session });
    if let Some(id) = reply_to {
        message["reply_to"] = id.clone();
    }
    message
}

fn ready() -> Value {
    json!({ "type": "session_ready", "session_id": SESSION.to_string(), "seq": 0 })
}

fn entry(seq: u64, more: Value) -> Value {
    let mut entry = json!({ "seq": seq, "rev": 1, "id": "m", "kind": "message", "state": "final", "sender": { "role": "user", "id": "me" }, "content": "x" });
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "type": "entry", "session_id": SESSION.to_string(), "entry": entry })
}

fn answer(seq: u64, rev: u64, state: &str, content: &str, reply_to: u64) -> Value {
    entry(
        seq,
        json!({ "rev": rev, "state": state, "sender": { "role": "ai" }, "content": content, "reply_to_seq": reply_to, "attempt": 1, "next_index": 0 }),
    )
}

/// Connects and opens the session; returns the request that opened it.
fn connect(conversation: &mut Conversation, more: Value) -> (Value, Reaction) {
    let opening = frames(&say(conversation, welcome())).remove(0);
    let reaction = say(conversation, session(Some(&opening["id"]), more));
    say(conversation, ready());
    (opening, reaction)
}

fn connected() -> Conversation {
    let mut conversation = Conversation::new(SESSION);
    connect(&mut conversation, json!({}));
    conversation.take_output();
    conversation
}

fn send(conversation: &mut Conversation, text: &str) -> Value {
    frames(&conversation.line(Line::Say(text.to_owned()))).remove(0)
}

fn ack(message: &Value, seq: u64) -> Value {
    json!({ "type": "ack", "reply_to": message["id"], "session_id": SESSION.to_string(), "client_msg_id": message["client_msg_id"], "message_id": "m", "seq": seq, "created_at": "t", "duplicate": false })
}

#[test]
fn a_message_is_sent_printed_and_answered() {
    let mut conversation = connected();
    assert!(conversation.idle());
    let message = send(&mut conversation, "hi");
    assert_eq!(
        (&message["type"], &message["content"], &message["session_id"]),
        (&"user_message".into(), &"hi".into(), &SESSION.to_string().into())
    );
    assert!(!conversation.idle());
    say(&mut conversation, ack(&message, 1));
    say(&mut conversation, entry(1, json!({ "content": "hi" })));
    say(&mut conversation, answer(2, 1, "streaming", "", 1));
    for (index, text) in ["Hel", "lo"].iter().enumerate() {
        say(
            &mut conversation,
            json!({ "type": "ai_delta", "session_id": SESSION.to_string(), "seq": 2, "attempt": 1, "index": index, "delta": text }),
        );
        assert!(!conversation.idle());
    }
    say(&mut conversation, answer(2, 2, "final", "Hello", 1));
    assert!(conversation.idle() && conversation.all_answered());
    assert_eq!(conversation.take_output(), "[1] you: hi\n[2] ai: Hello\n    ()\n");
}

#[test]
fn after_a_lost_connection_the_session_resumes_and_unacknowledged_messages_are_sent_again() {
    let mut conversation = connected();
    let first = send(&mut conversation, "one");
    say(&mut conversation, ack(&first, 1));
    say(&mut conversation, entry(1, json!({})));
    say(&mut conversation, answer(2, 1, "streaming", "He", 1));
    let second = send(&mut conversation, "two");
    conversation.disconnected();
    assert!(!conversation.idle());
    let third = conversation.line(Line::Say("three".to_owned()));
    assert_eq!(third, Reaction::default(), "nothing can be sent now");

    let (opening, reaction) = connect(&mut conversation, json!({}));
    assert_eq!((&opening["after_seq"], &opening["epoch"], &opening["create"]), (&1.into(), &"e".into(), &true.into()));
    let again = frames(&reaction);
    assert_eq!(again.len(), 2);
    assert_eq!(again[0], second, "the same id and the same text");
    assert_eq!(again[1]["content"], "three");
}

#[test]
fn a_gap_opens_the_session_again_once() {
    let mut conversation = connected();
    let reopening = frames(&say(&mut conversation, entry(2, json!({}))));
    assert_eq!((&reopening[0]["type"], &reopening[0]["after_seq"]), (&"session_open".into(), &0.into()));
    assert_eq!(say(&mut conversation, entry(3, json!({}))), Reaction::default(), "the replay is on its way");
    say(&mut conversation, session(Some(&reopening[0]["id"]), json!({})));
    for seq in 1..=3 {
        assert_eq!(say(&mut conversation, entry(seq, json!({}))), Reaction::default());
    }
    say(&mut conversation, ready());
    assert!(conversation.idle());
    assert_eq!(conversation.take_output(), "[1] you: x\n[2] you: x\n[3] you: x\n");
}

#[test]
fn too_many_gaps_end_the_program() {
    let mut conversation = connected();
    for _ in 0..MAX_GAPS {
        let reopening = frames(&say(&mut conversation, entry(9, json!({}))));
        say(&mut conversation, session(Some(&reopening[0]["id"]), json!({})));
        say(&mut conversation, ready());
    }
    assert!(say(&mut conversation, entry(9, json!({}))).fatal.is_some());
}

#[test]
fn a_retryable_error_is_retried_and_another_is_final() {
    let mut conversation = connected();
    let message = send(&mut conversation, "hi");
    let error = |retryable: bool| json!({ "type": "error", "reply_to": message["id"], "code": "some_code", "message": "Text.", "retryable": retryable, "retry_after_ms": 70, "error_id": "abc" });
    assert_eq!(say(&mut conversation, error(true)).retry_in, Some(Duration::from_millis(70)));
    assert_eq!(frames(&conversation.again()), std::slice::from_ref(&message));
    assert_eq!(say(&mut conversation, error(false)), Reaction::default());
    assert!(conversation.idle() && !conversation.all_answered());
    assert!(conversation.take_output().contains("some_code: Text. (error id abc)"));
}

#[test]
fn a_rejected_session_ends_the_program() {
    let mut conversation = Conversation::new(SESSION);
    let opening = frames(&say(&mut conversation, welcome())).remove(0);
    let refused = json!({ "type": "error", "reply_to": opening["id"], "code": "not_found", "message": "No.", "retryable": false });
    assert!(say(&mut conversation, refused).fatal.unwrap().contains("not_found"));
}

#[test]
fn a_failed_answer_is_a_failure() {
    let mut conversation = connected();
    let message = send(&mut conversation, "hi");
    say(&mut conversation, entry(1, json!({})));
    say(&mut conversation, answer(2, 1, "failed", "He", 1));
    say(&mut conversation, ack(&message, 1));
    assert!(conversation.idle() && !conversation.all_answered());
}

#[test]
fn no_answer_is_awaited_while_a_human_assists() {
    let mut conversation = connected();
    say(&mut conversation, session(None, json!({ "assisting_admin": { "id": "a", "name": "Ann" } })));
    let message = send(&mut conversation, "hi");
    say(&mut conversation, ack(&message, 1));
    assert!(conversation.idle());
}

#[test]
fn a_new_session_leaves_the_old_one() {
    let mut conversation = connected();
    say(&mut conversation, entry(1, json!({})));
    let reaction = frames(&conversation.line(Line::New));
    assert_eq!(
        (&reaction[0]["type"], &reaction[0]["session_id"]),
        (&"session_close".into(), &SESSION.to_string().into())
    );
    assert_eq!((&reaction[1]["type"], &reaction[1]["after_seq"]), (&"session_open".into(), &0.into()));
    assert_ne!(reaction[1]["session_id"], SESSION.to_string());
    assert_eq!(say(&mut conversation, entry(2, json!({}))), Reaction::default(), "of the old session");
}

#[test]
fn lists_and_older_entries_are_printed() {
    let mut conversation = connected();
    let list = frames(&conversation.line(Line::List)).remove(0);
    assert!(!conversation.idle());
    say(
        &mut conversation,
        json!({ "type": "sessions", "reply_to": list["id"], "sessions": [{ "id": SESSION.to_string(), "state": "active", "name": "n\n", "last_activity_at": "t" }] }),
    );
    assert!(conversation.idle());
    let history = frames(&conversation.line(Line::History)).remove(0);
    assert_eq!((&history["type"], &history["before_seq"]), (&"history".into(), &1.into()));
    let mut older = entry(1, json!({ "content": "old" }));
    older["type"] = "entries".into();
    older["entries"] = json!([older["entry"]]);
    older["reply_to"] = history["id"].clone();
    say(&mut conversation, older);
    assert!(conversation.idle());
    assert_eq!(
        conversation.take_output(),
        format!("* {SESSION}  active  t  n\n    \n-- 1 older entries\n[1] you: old\n")
    );
}

#[test]
fn an_answer_that_streams_can_be_stopped_by_a_script() {
    let mut conversation = connected();
    let message = send(&mut conversation, "hi");
    say(&mut conversation, entry(1, json!({})));
    say(&mut conversation, ack(&message, 1));
    assert!(!conversation.is_ready_for(&Line::Stop) && !conversation.is_ready_for(&Line::Empty));
    say(&mut conversation, answer(2, 1, "streaming", "", 1));
    assert!(conversation.is_ready_for(&Line::Stop) && !conversation.is_ready_for(&Line::Empty));
}

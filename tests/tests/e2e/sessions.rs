//! Requests about sessions: list, rename, end, delete, history, read markers, typing, model choice, token refresh.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session, user_message};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::tokens::{admin_claims, claims, hs256, now};
use chatbox_tests::harness::waits::TIMEOUT;
use chatbox_tests::harness::{Dialect, Frame, Stack};
use chatbox_tests::provider::FakeProvider;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

fn ids(list: &Frame) -> Vec<String> {
    let sessions = list.at("/sessions").as_array().cloned().unwrap_or_default();
    sessions.iter().filter_map(|session| session["id"].as_str().map(str::to_owned)).collect()
}

async fn list(connection: &mut Connection, request: Value) -> Result<Frame> {
    let reply = connection.ask_ok(request).await?;
    ensure!(reply.is("sessions"), "{}", reply.raw);
    Ok(reply)
}

#[tokio::test]
async fn the_list_is_in_order_of_activity_and_comes_in_pages() -> Result<()> {
    let provider = FakeProvider::start().await?;
    let stack = Stack::builder().model(Model::at("bird", Dialect::OpenAi, &provider.url())).start().await?;
    let mut ana = stack.user("ana")?.connect().await?;
    let mut made = Vec::new();
    for index in 0..7 {
        let session = new_session();
        ana.open(&session).await?;
        ana.converse(&session, &format!("message {index}")).await?;
        made.push(session);
    }
    // A new message makes the oldest session the latest one.
    ana.converse(&made[0], "again").await?;
    let mut expected: Vec<String> = made[1..].iter().rev().cloned().collect();
    expected.insert(0, made[0].clone());

    // The summaries of sessions are saved a moment after their messages.
    let deadline = Instant::now() + TIMEOUT;
    let whole = loop {
        let whole = list(&mut ana, json!({ "type": "session_list" })).await?;
        if ids(&whole) == expected {
            break whole;
        }
        ensure!(Instant::now() < deadline, "{:?} instead of {expected:?}", ids(&whole));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    ensure!(whole.at("/next_cursor").is_null(), "{}", whole.raw);

    let mut paged = Vec::new();
    let mut cursor = Value::Null;
    for _ in 0..4 {
        let mut request = json!({ "type": "session_list", "limit": 2 });
        if !cursor.is_null() {
            request["cursor"] = cursor.clone();
        }
        let page = list(&mut ana, request).await?;
        ensure!(ids(&page).len() <= 2, "{}", page.raw);
        paged.extend(ids(&page));
        cursor = page.at("/next_cursor").clone();
    }
    ensure!(cursor.is_null() && paged == expected, "{paged:?} instead of {expected:?}, then {cursor}");

    ana.ask_ok(json!({ "type": "session_end", "session_id": made[3] })).await?;
    let ended = list(&mut ana, json!({ "type": "session_list", "state": "ended" })).await?;
    ensure!(ids(&ended) == [made[3].clone()], "{}", ended.raw);
    let active = list(&mut ana, json!({ "type": "session_list", "state": "active" })).await?;
    ensure!(ids(&active).len() == 6 && !ids(&active).contains(&made[3]), "{}", active.raw);
    Ok(())
}

#[tokio::test]
async fn a_session_is_named_by_its_first_message_and_can_be_renamed() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let (session, named) = (new_session(), new_session());
    let mut ana = stack.user("ana")?.device("phone").connect().await?;
    let mut other = stack.user("ana")?.device("laptop").connect().await?;
    ana.open(&session).await?;
    other.open(&session).await?;
    ana.converse(&session, "Where do swifts sleep?").await?;
    let summary = other
        .seen("a session frame with a name", |frame| frame.is("session") && !frame.text("/session/name").is_empty())
        .await?;
    ensure!(summary.text("/session/name").starts_with("Where do swifts sleep"), "{}", summary.raw);

    ana.ask_ok(json!({ "type": "session_rename", "session_id": session, "name": "Swifts 🦅" })).await?;
    let renamed = other.seen("the new name", |frame| frame.text("/session/name") == "Swifts 🦅").await?;
    ensure!(renamed.is("session") && renamed.at("/reply_to").is_null(), "{}", renamed.raw);
    // A later message does not change the name.
    ana.converse(&session, "And eat?").await?;
    let list = list(&mut ana, json!({ "type": "session_list" })).await?;
    ensure!(list.at("/sessions/0/name") == "Swifts 🦅", "{}", list.raw);

    let opened =
        ana.open_with(json!({ "type": "session_open", "session_id": named, "create": true, "name": "Given" })).await?;
    ensure!(opened.at("/session/name") == "Given", "{}", opened.raw);
    Ok(())
}

#[tokio::test]
async fn an_ended_session_takes_no_messages_but_stays_readable() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.device("phone").connect().await?;
    let mut other = stack.user("ana")?.device("laptop").connect().await?;
    ana.open(&session).await?;
    other.open(&session).await?;
    let id = Uuid::new_v4().to_string();
    let first = ana.say_as(&session, &id, "hello").await?;
    ana.answer(&session, 1).await?;
    ana.ask_ok(json!({ "type": "session_end", "session_id": session })).await?;
    ana.ask_ok(json!({ "type": "session_end", "session_id": session })).await?; // ending twice is harmless
    let event = |frame: &Frame| frame.text("/entry/event") == "session_ended";
    let ended = other.seen("the event", event).await?;
    ensure!(ended.number("/entry/seq") == Some(3) && ended.at("/entry/kind") == "event", "{}", ended.raw);

    ana.ask_refused(user_message(&session, &Uuid::new_v4().to_string(), "more"), "session_ended").await?;
    // A message from before the end is still acknowledged as a duplicate.
    let again = ana.say_as(&session, &id, "hello").await?;
    ensure!(again.at("/duplicate") == true && again.number("/seq") == first.number("/seq"), "{}", again.raw);

    let mut later = stack.user("ana")?.connect().await?;
    let opened = later.open(&session).await?;
    ensure!(opened.at("/session/state") == "ended" && opened.at("/session/ended_at").is_string(), "{}", opened.raw);
    later.log(&session)?.assert_same(other.log(&session)?)?;
    later.log(&session)?.assert_gapless()?;
    ensure!(later.log(&session)?.last_seq() == 3, "the event is the end of the log");
    Ok(())
}

#[tokio::test]
async fn a_deleted_session_is_gone_everywhere_and_its_id_stays_taken() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "forget me").await?;
    ana.ask_ok(json!({ "type": "session_delete", "session_id": session })).await?;
    for request in [
        json!({ "type": "session_open", "session_id": session }),
        json!({ "type": "session_open", "session_id": session, "create": true }),
        json!({ "type": "history", "session_id": session, "before_seq": 10 }),
        user_message(&session, &Uuid::new_v4().to_string(), "hello?"),
    ] {
        let refused = ana.ask(request.clone()).await?;
        ensure!(refused.is("error") && refused.text("/code") == "not_found", "{request}: {}", refused.raw);
    }
    let list = list(&mut ana, json!({ "type": "session_list" })).await?;
    ensure!(ids(&list).is_empty(), "{}", list.raw);
    Ok(())
}

#[tokio::test]
async fn history_gives_older_entries_in_order() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    for index in 0..5 {
        ana.converse(&session, &format!("message {index}")).await?;
    }
    let mut seqs = Vec::new();
    for (before, limit, expected) in [(11, 4, vec![7, 8, 9, 10]), (7, 100, vec![1, 2, 3, 4, 5, 6]), (1, 10, vec![])] {
        let page = ana
            .ask_ok(json!({ "type": "history", "session_id": session, "before_seq": before, "limit": limit }))
            .await?;
        ensure!(page.is("entries") && page.text("/session_id") == session, "{}", page.raw);
        let entries = page.at("/entries").as_array().cloned().context("no entries")?;
        let found: Vec<u64> = entries.iter().filter_map(|entry| entry["seq"].as_u64()).collect();
        ensure!(found == expected, "before {before}: {found:?}");
        for entry in entries {
            let seq = entry["seq"].as_u64().unwrap_or_default();
            let known = ana.log(&session)?.entry(seq).context("unknown")?;
            ensure!(entry == known.entry, "history tells another story: {entry} / {}", known.entry);
            seqs.push(seq);
        }
    }
    Ok(())
}

#[tokio::test]
async fn read_markers_and_typing_reach_the_others() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut phone = stack.user("ana")?.device("phone").connect().await?;
    let mut laptop = stack.user("ana")?.device("laptop").connect().await?;
    let admin = hs256(stack.secret(), &admin_claims("ada"))?;
    let mut admin = stack.handshake().bearer(&admin).connect().await?;
    phone.open(&session).await?;
    laptop.open(&session).await?;
    admin.ask_ok(json!({ "type": "admin_watch", "session_id": session })).await?;
    admin.seen("session_ready", |frame| frame.is("session_ready")).await?;

    phone.ask_ok(json!({ "type": "typing", "session_id": session, "active": true })).await?;
    let typing = admin.until("typing", |frame| frame.is("typing")).await?;
    ensure!(typing.at("/active") == true && typing.text("/user/id") == "ana", "{}", typing.raw);
    ensure!(typing.text("/user/role") == "user", "{}", typing.raw);
    for _ in 0..20 {
        phone.ask_ok(json!({ "type": "typing", "session_id": session, "active": true })).await?;
    }

    phone.converse(&session, "hello").await?;
    let unread = list(&mut phone, json!({ "type": "session_list" })).await?;
    ensure!(unread.number("/sessions/0/unread") == Some(1), "the answer is unread: {}", unread.raw);
    phone.ask_ok(json!({ "type": "read", "session_id": session, "seq": 2 })).await?;
    for other in [&mut laptop, &mut admin] {
        let read = other.until("read", |frame| frame.is("read")).await?;
        ensure!(read.number("/seq") == Some(2) && read.text("/user/id") == "ana", "{}", read.raw);
    }
    // The marker never goes back, and never beyond the log.
    phone.ask_ok(json!({ "type": "read", "session_id": session, "seq": 1 })).await?;
    let unread = list(&mut laptop, json!({ "type": "session_list" })).await?;
    ensure!(unread.number("/sessions/0/unread") == Some(0), "{}", unread.raw);

    admin.settle().await?;
    let passed = admin.frames.iter().filter(|frame| frame.is("typing")).count();
    ensure!(passed <= 2, "{passed} typing frames passed on within a second");
    ensure!(!phone.frames.iter().any(|frame| frame.is("typing") || frame.is("read")), "echoed to their sender");
    Ok(())
}

#[tokio::test]
async fn the_selected_model_answers_from_the_next_message_on() -> Result<()> {
    let stack = Stack::builder().model(Model::demo("first")).model(Model::demo("second")).start().await?;
    let (session, other) = (new_session(), new_session());
    let mut ana = stack.user("ana")?.connect().await?;
    ensure!(
        ana.welcome["models"] == json!([{ "id": "first", "name": "FIRST" }, { "id": "second", "name": "SECOND" }]),
        "{}",
        ana.welcome
    );
    ensure!(ana.welcome["default_model_id"] == "first", "{}", ana.welcome);
    ana.open(&session).await?;
    ensure!(ana.converse(&session, "one").await?["model_id"] == "first", "the default answers");
    ana.ask_ok(json!({ "type": "model_select", "session_id": session, "model_id": "second" })).await?;
    let event = ana.seen("the event", |frame| frame.text("/entry/kind") == "event").await?;
    ensure!(event.number("/entry/seq") == Some(3) && event.raw.contains("model_changed"), "{}", event.raw);
    ensure!(ana.converse(&session, "two").await?["model_id"] == "second", "the selected one answers");
    ana.ask_refused(json!({ "type": "model_select", "session_id": session, "model_id": "third" }), "model_unavailable")
        .await?;
    let open = json!({ "type": "session_open", "session_id": other, "create": true, "model_id": "second" });
    ana.open_with(open).await?;
    ensure!(ana.converse(&other, "three").await?["model_id"] == "second", "chosen at the beginning");
    let unknown = json!({ "type": "session_open", "session_id": new_session(), "create": true, "model_id": "third" });
    ana.ask_refused(unknown, "model_unavailable").await?;
    Ok(())
}

#[tokio::test]
async fn a_closed_session_is_heard_no_more_on_that_connection_only() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut phone = stack.user("ana")?.device("phone").connect().await?;
    let mut laptop = stack.user("ana")?.device("laptop").connect().await?;
    phone.open(&session).await?;
    laptop.open(&session).await?;
    phone.ask_ok(json!({ "type": "session_close", "session_id": session })).await?;
    phone.settle().await?;
    let before = phone.frames.len();
    laptop.converse(&session, "hello").await?;
    let strays = phone.settle().await?;
    ensure!(strays == 0, "{:?}", phone.frames[before..].iter().map(|frame| &frame.raw).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_token_can_be_renewed_by_the_same_user_only_and_ends_the_connection_when_it_ends() -> Result<()> {
    let stack = Stack::builder().gateway("auth.leeway_seconds", 0)?.start().await?;
    let short = |user: &str, seconds: i64| hs256(stack.secret(), &json!({ "sub": user, "exp": now() + seconds }));

    let mut ana = stack.handshake().bearer(&short("ana", 3)?).connect().await?;
    let notice = ana.until("the notice", |frame| frame.is("notice")).await?;
    ensure!(notice.text("/code") == "token_expiring", "{}", notice.raw);
    ana.ask_ok(json!({ "type": "token_refresh", "token": hs256(stack.secret(), &claims("ana"))? })).await?;

    let mut ben = stack.handshake().bearer(&short("ben", 3)?).connect().await?;
    let closed = ben.closed().await?;
    ensure!(closed.code == 4001, "{closed:?}");
    // Ana's first token has ended before Ben's; she is still served.
    ana.settle().await?;

    let refresh = json!({ "type": "token_refresh", "token": hs256(stack.secret(), &claims("eve"))? });
    ana.send(&refresh).await?;
    let closed = ana.closed().await?;
    ensure!(closed.code == 4001, "another user's token: {closed:?}");
    Ok(())
}

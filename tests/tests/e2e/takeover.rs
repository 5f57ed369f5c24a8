//! Takeover by a human: rights, the end of the running answer, messages of the admin, and the return of the AI.

use std::time::Duration;

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::tokens::{claims, hs256};
use chatbox_tests::harness::{Conversation, Dialect, Frame, Stack};
use chatbox_tests::provider::{Script, Step};
use serde_json::{Value, json};
use uuid::Uuid;

/// A request of this type about the session.
fn session_request(session: &str, kind: &str) -> Value {
    json!({ "type": kind, "session_id": session })
}

fn admin_message(session: &str, text: &str) -> Value {
    json!({ "type": "admin_message", "session_id": session, "client_msg_id": Uuid::new_v4(), "content": text })
}

async fn event(connection: &mut Connection, name: &str) -> Result<Frame> {
    connection.seen(&format!("the event {name}"), |frame| frame.text("/entry/event") == name).await
}

#[tokio::test]
async fn an_admin_who_watches_sees_what_the_user_sees_and_nobody_sees_the_admin() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    chat.provider.script(Script::answer(["first"]));
    chat.ana.converse(&chat.session, "hello").await?;
    let (seq, driver) = chat.start_answer(&["One ", "two "]).await?;
    chat.ana.settle().await?;
    let mut ada = chat.stack.admin("ada")?.connect().await?;
    let opened = ada.open_with(session_request(&chat.session, "admin_watch")).await?;
    ensure!(opened.at("/session/admin_assisted") == false, "{}", opened.raw);
    ada.shown(&chat.session, seq, "One two ").await?;
    let strays = chat.ana.settle().await?;
    ensure!(strays == 0, "the user was told of {strays} things");
    driver.delta("three");
    driver.step(Step::Finish { input: 1, output: 3 });
    chat.ana.answer(&chat.session, seq).await?;
    ada.answer(&chat.session, seq).await?;
    ada.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)?;
    ensure!(ada.frames.iter().any(|frame| frame.is("ai_delta") && frame.text("/delta") == "three"), "no live delta");

    // Watching does not allow to write.
    ada.ask_refused(admin_message(&chat.session, "hi"), "not_assisting").await?;
    ada.ask_refused(session_request(&chat.session, "stop_generation"), "forbidden").await?;
    Ok(())
}

/// Waits for the audit line of an action on the session.
async fn audited(chat: &mut Conversation, action: &str, user: &str) -> Result<()> {
    let session = chat.session.clone();
    let fits = |line: &Value| {
        let is = |field: &str, value: &str| line[field] == value;
        (is("target", "audit") && is("action", action) && is("user", user) && is("session", &session)).then_some(())
    };
    chat.stack.brain_process().logged(&format!("the audit line {action} of {user}"), fits).await
}

#[tokio::test]
async fn reads_of_another_users_session_and_deletions_are_in_the_audit_log() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let mut ada = chat.stack.admin("ada")?.connect().await?;
    ada.open_with(session_request(&chat.session, "admin_watch")).await?;
    audited(&mut chat, "watch", "ada").await?;
    ada.ask_ok(json!({ "type": "history", "session_id": chat.session, "before_seq": 100 })).await?;
    audited(&mut chat, "history", "ada").await?;
    ada.open_with(session_request(&chat.session, "admin_join")).await?;
    audited(&mut chat, "join", "ada").await?;
    chat.ana.ask_ok(json!({ "type": "session_delete", "session_id": chat.session })).await?;
    audited(&mut chat, "delete", "ana").await
}

#[tokio::test]
async fn an_admin_who_joins_ends_the_answer_and_speaks_instead_of_the_ai() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let (seq, driver) = chat.start_answer(&["half ", "an answer"]).await?;
    let mut ada = chat.stack.admin("ada")?.connect().await?;
    ada.open_with(session_request(&chat.session, "admin_join")).await?;
    driver.delta(" too late");
    // The answer ended before the reply, so a read after the reply sees its end.
    let page = json!({ "type": "history", "session_id": chat.session, "before_seq": 100 });
    let history = ada.ask_ok(page).await?;
    let entries = history.at("/entries").as_array().cloned().unwrap_or_default();
    let states: Vec<_> = entries.iter().map(|entry| entry["state"].as_str().unwrap_or_default()).collect();
    ensure!(states == ["final"; 3], "{}", history.raw);
    let answer = chat.ana.answer(&chat.session, seq).await?;
    ensure!(answer["content"] == "half an answer" && answer["finish_reason"] == "interrupted", "{answer}");
    let joined = event(&mut chat.ana, "admin_joined").await?;
    ensure!(
        joined.text("/entry/sender/role") == "system" && joined.text("/entry/admin/name") == "ada",
        "{}",
        joined.raw
    );
    let told = |frame: &Frame| frame.is("session") && frame.text("/session/assisting_admin/name") == "ada";
    let summary = chat.ana.seen("the summary that names the admin", told).await?;
    ensure!(summary.at("/session/admin_assisted") == true, "{}", summary.raw);

    // User messages reach the human and get no AI answer.
    chat.ana.say(&chat.session, "are you there?").await?;
    ada.seen("the user's message", |frame| frame.text("/entry/content") == "are you there?").await?;
    let request = admin_message(&chat.session, "yes, I am");
    let ack = ada.ask_ok(request.clone()).await?;
    ensure!(ack.is("ack") && ack.at("/duplicate") == false, "{}", ack.raw);
    let again = ada.ask_ok(request).await?;
    ensure!(again.at("/duplicate") == true && again.at("/seq") == ack.at("/seq"), "{}", again.raw);
    let heard = chat.ana.seen("the admin's message", |frame| frame.text("/entry/content") == "yes, I am").await?;
    ensure!(heard.at("/entry/sender") == &json!({ "id": "ada", "name": "ada", "role": "admin" }), "{}", heard.raw);

    // A second admin is told who assists. The first one may join again.
    let mut bob = chat.stack.admin("bob")?.connect().await?;
    let refused = bob.ask_refused(session_request(&chat.session, "admin_join"), "already_assisted").await?;
    ensure!(refused.text("/message").contains("ada"), "{}", refused.raw);
    bob.ask_refused(session_request(&chat.session, "admin_leave"), "not_assisting").await?;
    bob.ask_refused(admin_message(&chat.session, "me too"), "not_assisting").await?;
    ada.open_with(session_request(&chat.session, "admin_join")).await?;

    // After the human has left, the AI answers new messages, and only these.
    ada.ask_ok(session_request(&chat.session, "admin_leave")).await?;
    event(&mut chat.ana, "admin_left").await?;
    let calls = chat.calls().len();
    ensure!(calls == 1, "the AI was asked {calls} times while a human assisted");
    chat.provider.script(Script::answer(["back again"]));
    let answer = chat.ana.converse(&chat.session, "thanks").await?;
    ensure!(answer["content"] == "back again", "{answer}");
    chat.ana.settle().await?;
    ensure!(chat.calls().len() == 2, "{} calls", chat.calls().len());
    let log = chat.ana.log(&chat.session)?;
    let answered: Vec<_> = log.entries().filter_map(|(_, seen)| seen.entry["reply_to_seq"].as_u64()).collect();
    ensure!(answered.len() == 2 && answered[0] == seq, "answered: {answered:?}");
    log.assert_gapless()?;
    ada.settle().await?;
    ada.log(&chat.session)?.assert_same(log)?;
    // Leaving again is no error.
    ada.ask_ok(session_request(&chat.session, "admin_leave")).await?;
    Ok(())
}

#[tokio::test]
async fn an_admin_who_watches_and_then_joins_is_ready_again() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    chat.provider.script(Script::answer(["hello"]));
    chat.ana.converse(&chat.session, "hello").await?;
    let mut ada = chat.stack.admin("ada")?.connect().await?;
    ada.open_with(session_request(&chat.session, "admin_watch")).await?;
    let opened = ada.open_with(session_request(&chat.session, "admin_join")).await?;
    ensure!(opened.text("/session/assisting_admin/id") == "ada", "{}", opened.raw);
    ensure!(ada.log(&chat.session)?.ready == 2, "session_ready came {} times", ada.log(&chat.session)?.ready);
    chat.ana.say(&chat.session, "a question").await?;
    let entries = |frame: &Frame| frame.text("/entry/content") == "a question";
    ada.seen("the question", entries).await?;
    ada.settle().await?;
    let count = ada.frames.iter().filter(|frame| entries(frame)).count();
    ensure!(count == 1, "one live event came {count} times");
    chat.ana.settle().await?;
    ada.log(&chat.session)?.assert_same(chat.ana.log(&chat.session)?)
}

#[tokio::test]
async fn of_many_admins_who_join_at_once_exactly_one_does() -> Result<()> {
    let chat = Conversation::start(Dialect::OpenAi).await?;
    let mut admins = Vec::new();
    for index in 0..6 {
        let mut admin = chat.stack.admin(&format!("admin-{index}"))?.connect().await?;
        let request = admin.post(session_request(&chat.session, "admin_join")).await?;
        admins.push((admin, request));
    }
    let mut winners = 0;
    for (admin, request) in &mut admins {
        let reply = admin.reply(request).await?;
        winners += usize::from(reply.is("session"));
        ensure!(reply.is("session") || reply.text("/code") == "already_assisted", "{}", reply.raw);
    }
    ensure!(winners == 1, "{winners} admins assist");
    Ok(())
}

#[tokio::test]
async fn a_user_cannot_do_what_an_admin_does() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let session = chat.session.clone();
    let mut eve = chat.stack.user("eve")?.connect().await?;
    for connection in [&mut chat.ana, &mut eve] {
        for kind in ["admin_watch", "admin_join", "admin_leave"] {
            connection.ask_refused(json!({ "type": kind, "session_id": session }), "forbidden").await?;
        }
        let say =
            json!({ "type": "admin_message", "session_id": session, "client_msg_id": Uuid::new_v4(), "content": "x" });
        connection.ask_refused(say, "forbidden").await?;
    }
    chat.ana.settle().await?;
    ensure!(chat.ana.log(&session)?.last_seq() == 0, "something was written");
    Ok(())
}

#[tokio::test]
async fn a_call_for_help_is_shown_once_until_somebody_comes() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let request = json!({ "type": "help_request", "session_id": chat.session, "reason": "I am stuck" });
    chat.ana.ask_ok(request.clone()).await?;
    chat.ana.ask_ok(request).await?;
    let told = |frame: &Frame| frame.is("session") && frame.at("/session/help_requested") == true;
    chat.ana.seen("the summary", told).await?;
    chat.ana.settle().await?;
    let calls = chat.ana.log(&chat.session)?.entries().filter(|(_, seen)| seen.entry["event"] == "help_requested");
    ensure!(calls.count() == 1, "not one call for help");
    let list = chat.ana.ask_ok(json!({ "type": "session_list" })).await?;
    ensure!(list.at("/sessions/0/help_requested") == true, "{}", list.raw);

    let mut ada = chat.stack.admin("ada")?.connect().await?;
    let opened = ada.open_with(session_request(&chat.session, "admin_join")).await?;
    ensure!(opened.at("/session/help_requested") == false, "somebody has come: {}", opened.raw);
    ada.ask_ok(session_request(&chat.session, "admin_leave")).await?;
    chat.ana.ask_ok(session_request(&chat.session, "help_request")).await?;
    chat.ana.settle().await?;
    let calls = chat.ana.log(&chat.session)?.entries().filter(|(_, seen)| seen.entry["event"] == "help_requested");
    ensure!(calls.count() == 2, "a later call is a new one");
    Ok(())
}

#[tokio::test]
async fn the_reason_of_a_help_request_is_bounded_by_its_own_setting() -> Result<()> {
    let stack = Stack::builder().brain("limits.max_reason_chars", 5)?.start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    let request = |reason: &str| json!({ "type": "help_request", "session_id": session, "reason": reason });
    ana.ask_refused(request("stucks"), "too_large").await?;
    ana.ask_ok(request("stück")).await?;
    Ok(())
}

#[tokio::test]
async fn an_admin_who_loses_the_role_hears_nothing_more() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    let mut ada = chat.stack.admin("ada")?.connect().await?;
    ada.open_with(session_request(&chat.session, "admin_watch")).await?;
    chat.provider.script(Script::answer(["seen"]));
    chat.ana.converse(&chat.session, "while she may").await?;
    ada.answer(&chat.session, 1).await?;
    // The last frame that this turn causes.
    let summed_up = |frame: &Frame| frame.is("session") && frame.number("/session/tokens/output") > Some(0);
    ada.seen("the usage of the turn", summed_up).await?;
    let token = hs256(chat.stack.secret(), &claims("ada"))?;
    ada.ask_ok(json!({ "type": "token_refresh", "token": token })).await?;
    ada.settle().await?;
    let before = ada.frames.len();
    let (seq, driver) = chat.start_answer(&["a secret"]).await?;
    driver.step(Step::Finish { input: 1, output: 1 });
    chat.ana.answer(&chat.session, seq).await?;
    ada.ask_refused(session_request(&chat.session, "admin_watch"), "forbidden").await?;
    ada.ask_refused(json!({ "type": "history", "session_id": chat.session, "before_seq": 100 }), "not_found").await?;
    let strays: Vec<_> = ada.frames[before..].iter().filter(|frame| !frame.is("error")).map(|it| &it.raw).collect();
    ensure!(strays.is_empty(), "{strays:?}");
    // The former admin's own sessions work as before.
    let own = new_session();
    ada.open(&own).await?;
    ada.converse(&own, "hello").await?;
    Ok(())
}

/// Each round joins at another moment of an answer. After the reply to the join, the AI adds nothing to the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_of_the_ai_comes_after_the_reply_to_admin_join() -> Result<()> {
    let mut chat = Conversation::start(Dialect::OpenAi).await?;
    chat.provider.always(Script::answer(["one ", "two ", "three ", "four"]).paced(Duration::from_millis(1)));
    let mut ada = chat.stack.admin("ada")?.connect().await?;
    for round in 0..60_u64 {
        let session = new_session();
        chat.ana.open(&session).await?;
        chat.ana.say(&session, "hello").await?;
        tokio::time::sleep(Duration::from_micros(round * 400)).await;
        ada.open_with(session_request(&session, "admin_join")).await?;
        let page = json!({ "type": "history", "session_id": session, "before_seq": 100 });
        let at_reply = ada.ask_ok(page.clone()).await?.at("/entries").clone();
        let streaming = at_reply.as_array().into_iter().flatten().find(|entry| entry["state"] == "streaming");
        ensure!(streaming.is_none(), "round {round}: an answer grows on after the reply: {at_reply}");
        chat.ana.say(&session, "is anybody there?").await?;
        chat.ana.settle().await?;
        let later = ada.ask_ok(page).await?.at("/entries").clone();
        let count = at_reply.as_array().map_or(0, Vec::len);
        let same = later.as_array().map(|entries| &entries[..count]) == at_reply.as_array().map(Vec::as_slice);
        ensure!(same, "round {round}: the log changed: {at_reply} then {later}");
        for request in ["admin_leave", "session_close"] {
            ada.ask_ok(session_request(&session, request)).await?;
        }
        chat.ana.ask_ok(session_request(&session, "session_close")).await?;
    }
    Ok(())
}

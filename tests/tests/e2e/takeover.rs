//! A human takes over: who may, what ends, who is heard, and how the AI comes back.

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::tokens::{admin_claims, claims, hs256};
use chatbox_tests::harness::{Dialect, Frame, Stack};
use chatbox_tests::provider::{Call, Driver, ProviderDouble, Script, Step};
use serde_json::{Value, json};
use uuid::Uuid;

struct Desk {
    double: ProviderDouble,
    stack: Stack,
    ana: Connection,
    session: String,
}

impl Desk {
    async fn start() -> Result<Self> {
        let double = ProviderDouble::start().await?;
        let stack = Stack::builder().model(Model::at("bird", Dialect::OpenAi, &double.url())).start().await?;
        let session = new_session();
        let mut ana = stack.user("ana")?.connect().await?;
        ana.open(&session).await?;
        Ok(Self { double, stack, ana, session })
    }

    async fn admin(&self, name: &str) -> Result<Connection> {
        self.stack.knock().bearer(&hs256(self.stack.secret(), &admin_claims(name))?).connect().await
    }

    /// A request of this type about the session.
    fn ask(&self, kind: &str) -> Value {
        json!({ "type": kind, "session_id": self.session })
    }

    fn reply_of(&self, text: &str) -> Value {
        let id = Uuid::new_v4();
        json!({ "type": "admin_message", "session_id": self.session, "client_msg_id": id, "content": text })
    }

    /// Lets the answer to a new message begin.
    async fn begin(&mut self, pieces: &[&str]) -> Result<(u64, Driver)> {
        let (script, driver) = Script::live();
        self.double.script(script);
        driver.step(Step::Begin);
        for piece in pieces {
            driver.delta(*piece);
        }
        let seq = self.ana.say(&self.session, "tell me").await?.number("/seq").context("no seq")?;
        self.ana.shown(&self.session, seq, &pieces.concat()).await?;
        Ok((seq, driver))
    }

    fn chats(&self) -> usize {
        self.double.journal().iter().filter(|call| Call::is_chat(call)).count()
    }
}

async fn event(connection: &mut Connection, name: &str) -> Result<Frame> {
    connection.seen(&format!("the event {name}"), |frame| frame.text("/entry/event") == name).await
}

#[tokio::test]
async fn an_admin_who_watches_sees_what_the_user_sees_and_nobody_sees_the_admin() -> Result<()> {
    let mut desk = Desk::start().await?;
    desk.double.script(Script::answer(["first"]));
    desk.ana.converse(&desk.session, "hello").await?;
    let (seq, driver) = desk.begin(&["One ", "two "]).await?;
    desk.ana.settle().await?;
    let mut ada = desk.admin("ada").await?;
    let opened = ada.open_with(desk.ask("admin_watch")).await?;
    ensure!(opened.at("/session/admin_assisted") == false, "{}", opened.raw);
    ada.shown(&desk.session, seq, "One two ").await?;
    let strays = desk.ana.settle().await?;
    ensure!(strays == 0, "the user was told of {strays} things");
    driver.delta("three");
    driver.step(Step::Finish { input: 1, output: 3 });
    desk.ana.answer(&desk.session, seq).await?;
    ada.answer(&desk.session, seq).await?;
    ada.log(&desk.session)?.assert_same(desk.ana.log(&desk.session)?)?;
    ensure!(ada.frames.iter().any(|frame| frame.is("ai_delta") && frame.text("/delta") == "three"), "no live delta");

    // Watching gives no voice.
    ada.ask_refused(desk.reply_of("hi"), "not_assisting").await?;
    ada.ask_refused(desk.ask("stop_generation"), "forbidden").await?;
    Ok(())
}

#[tokio::test]
async fn an_admin_who_joins_ends_the_answer_and_speaks_instead_of_the_ai() -> Result<()> {
    let mut desk = Desk::start().await?;
    let (seq, driver) = desk.begin(&["half ", "an answer"]).await?;
    let mut ada = desk.admin("ada").await?;
    ada.open_with(desk.ask("admin_join")).await?;
    driver.delta(" too late");
    // The end of the answer stands before the reply: what is read now, is read after it.
    let page = json!({ "type": "history", "session_id": desk.session, "before_seq": 100 });
    let history = ada.ask_ok(page).await?;
    let entries = history.at("/entries").as_array().cloned().unwrap_or_default();
    let states: Vec<_> = entries.iter().map(|entry| entry["state"].as_str().unwrap_or_default()).collect();
    ensure!(states == ["final"; 3], "{}", history.raw);
    let answer = desk.ana.answer(&desk.session, seq).await?;
    ensure!(answer["content"] == "half an answer" && answer["finish_reason"] == "interrupted", "{answer}");
    let joined = event(&mut desk.ana, "admin_joined").await?;
    ensure!(
        joined.text("/entry/sender/role") == "system" && joined.text("/entry/admin/name") == "ada",
        "{}",
        joined.raw
    );
    let told = |frame: &Frame| frame.is("session") && frame.text("/session/assisting_admin/name") == "ada";
    let summary = desk.ana.seen("the summary that names the admin", told).await?;
    ensure!(summary.at("/session/admin_assisted") == true, "{}", summary.raw);

    // Messages wait for the human, and reach them.
    desk.ana.say(&desk.session, "are you there?").await?;
    ada.seen("the user's message", |frame| frame.text("/entry/content") == "are you there?").await?;
    let request = desk.reply_of("yes, I am");
    let ack = ada.ask_ok(request.clone()).await?;
    ensure!(ack.is("ack") && ack.at("/duplicate") == false, "{}", ack.raw);
    let again = ada.ask_ok(request).await?;
    ensure!(again.at("/duplicate") == true && again.at("/seq") == ack.at("/seq"), "{}", again.raw);
    let heard = desk.ana.seen("the admin's message", |frame| frame.text("/entry/content") == "yes, I am").await?;
    ensure!(heard.at("/entry/sender") == &json!({ "id": "ada", "name": "ada", "role": "admin" }), "{}", heard.raw);

    // A second one is told who is there; the first may ask again.
    let mut bob = desk.admin("bob").await?;
    let refused = bob.ask_refused(desk.ask("admin_join"), "already_assisted").await?;
    ensure!(refused.text("/message").contains("ada"), "{}", refused.raw);
    bob.ask_refused(desk.ask("admin_leave"), "not_assisting").await?;
    bob.ask_refused(desk.reply_of("me too"), "not_assisting").await?;
    ada.open_with(desk.ask("admin_join")).await?;

    // After the human left the AI answers what is said from then on, and only that.
    ada.ask_ok(desk.ask("admin_leave")).await?;
    event(&mut desk.ana, "admin_left").await?;
    let calls = desk.chats();
    ensure!(calls == 1, "the AI was asked {calls} times while a human assisted");
    desk.double.script(Script::answer(["back again"]));
    let answer = desk.ana.converse(&desk.session, "thanks").await?;
    ensure!(answer["content"] == "back again", "{answer}");
    desk.ana.settle().await?;
    ensure!(desk.chats() == 2, "{} calls", desk.chats());
    let log = desk.ana.log(&desk.session)?;
    let answered: Vec<_> = log.entries().filter_map(|(_, seen)| seen.entry["reply_to_seq"].as_u64()).collect();
    ensure!(answered.len() == 2 && answered[0] == seq, "answered: {answered:?}");
    log.assert_gapless()?;
    ada.settle().await?;
    ada.log(&desk.session)?.assert_same(log)?;
    // Leaving again is no error.
    ada.ask_ok(desk.ask("admin_leave")).await?;
    Ok(())
}

#[tokio::test]
async fn an_admin_who_watches_and_then_joins_is_ready_again() -> Result<()> {
    let mut desk = Desk::start().await?;
    desk.double.script(Script::answer(["hello"]));
    desk.ana.converse(&desk.session, "hello").await?;
    let mut ada = desk.admin("ada").await?;
    ada.open_with(desk.ask("admin_watch")).await?;
    let opened = ada.open_with(desk.ask("admin_join")).await?;
    ensure!(opened.text("/session/assisting_admin/id") == "ada", "{}", opened.raw);
    ensure!(ada.log(&desk.session)?.ready == 2, "session_ready came {} times", ada.log(&desk.session)?.ready);
    desk.ana.say(&desk.session, "a question").await?;
    let entries = |frame: &Frame| frame.text("/entry/content") == "a question";
    ada.seen("the question", entries).await?;
    ada.settle().await?;
    let count = ada.frames.iter().filter(|frame| entries(frame)).count();
    ensure!(count == 1, "one live event came {count} times");
    desk.ana.settle().await?;
    ada.log(&desk.session)?.assert_same(desk.ana.log(&desk.session)?)
}

#[tokio::test]
async fn of_many_admins_who_join_at_once_exactly_one_does() -> Result<()> {
    let desk = Desk::start().await?;
    let mut admins = Vec::new();
    for index in 0..6 {
        let mut admin = desk.admin(&format!("admin-{index}")).await?;
        let request = admin.post(desk.ask("admin_join")).await?;
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
    let mut desk = Desk::start().await?;
    let session = desk.session.clone();
    let mut eve = desk.stack.user("eve")?.connect().await?;
    for connection in [&mut desk.ana, &mut eve] {
        for kind in ["admin_watch", "admin_join", "admin_leave"] {
            connection.ask_refused(json!({ "type": kind, "session_id": session }), "forbidden").await?;
        }
        let say =
            json!({ "type": "admin_message", "session_id": session, "client_msg_id": Uuid::new_v4(), "content": "x" });
        connection.ask_refused(say, "forbidden").await?;
    }
    desk.ana.settle().await?;
    ensure!(desk.ana.log(&session)?.last_seq() == 0, "something was written");
    Ok(())
}

#[tokio::test]
async fn a_call_for_help_is_shown_once_until_somebody_comes() -> Result<()> {
    let mut desk = Desk::start().await?;
    let request = json!({ "type": "help_request", "session_id": desk.session, "reason": "I am stuck" });
    desk.ana.ask_ok(request.clone()).await?;
    desk.ana.ask_ok(request).await?;
    let told = |frame: &Frame| frame.is("session") && frame.at("/session/help_requested") == true;
    desk.ana.seen("the summary", told).await?;
    desk.ana.settle().await?;
    let calls = desk.ana.log(&desk.session)?.entries().filter(|(_, seen)| seen.entry["event"] == "help_requested");
    ensure!(calls.count() == 1, "not one call for help");
    let list = desk.ana.ask_ok(json!({ "type": "session_list" })).await?;
    ensure!(list.at("/sessions/0/help_requested") == true, "{}", list.raw);

    let mut ada = desk.admin("ada").await?;
    let opened = ada.open_with(desk.ask("admin_join")).await?;
    ensure!(opened.at("/session/help_requested") == false, "somebody has come: {}", opened.raw);
    ada.ask_ok(desk.ask("admin_leave")).await?;
    desk.ana.ask_ok(desk.ask("help_request")).await?;
    desk.ana.settle().await?;
    let calls = desk.ana.log(&desk.session)?.entries().filter(|(_, seen)| seen.entry["event"] == "help_requested");
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
    let mut desk = Desk::start().await?;
    let mut ada = desk.admin("ada").await?;
    ada.open_with(desk.ask("admin_watch")).await?;
    desk.double.script(Script::answer(["seen"]));
    desk.ana.converse(&desk.session, "while she may").await?;
    ada.answer(&desk.session, 1).await?;
    let token = hs256(desk.stack.secret(), &claims("ada"))?;
    ada.ask_ok(json!({ "type": "token_refresh", "token": token })).await?;
    ada.settle().await?;
    let before = ada.frames.len();
    let (seq, driver) = desk.begin(&["a secret"]).await?;
    driver.step(Step::Finish { input: 1, output: 1 });
    desk.ana.answer(&desk.session, seq).await?;
    ada.ask_refused(desk.ask("admin_watch"), "forbidden").await?;
    ada.ask_refused(json!({ "type": "history", "session_id": desk.session, "before_seq": 100 }), "not_found").await?;
    let strays: Vec<_> = ada.frames[before..].iter().filter(|frame| !frame.is("error")).map(|it| &it.raw).collect();
    ensure!(strays.is_empty(), "{strays:?}");
    // Her own sessions work as before.
    let own = new_session();
    ada.open(&own).await?;
    ada.converse(&own, "hello").await?;
    Ok(())
}

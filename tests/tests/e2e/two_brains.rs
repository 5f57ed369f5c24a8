//! Two brains over one store: they share the users, and either can be lost at any moment without a client noticing more
//! than an answer that begins anew.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::connection::{Connection, new_session};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::waits::{eventually, within_time};
use chatbox_tests::harness::{Dialect, Stack, StoreAt, at_rest};
use chatbox_tests::mongod::Mongod;
use chatbox_tests::provider::{Call, Driver, ProviderDouble, Script, Step};
use tokio::time::Instant;

/// How long a brain owns an answer that it does not renew.
const LEASE: Duration = Duration::from_secs(2);

struct Pair {
    double: ProviderDouble,
    stack: Stack,
    ana: Connection,
    session: String,
    _server: Mongod,
}

impl Pair {
    async fn start() -> Result<Self> {
        let server = Mongod::start().await?;
        let double = ProviderDouble::start().await?;
        let lease = i64::try_from(LEASE.as_millis())?;
        let stack = Stack::builder()
            .store(StoreAt::mongo(server.uri()))
            .model(Model::at("bird", Dialect::OpenAi, &double.url()))
            .brains(2)
            .brain("answers.lease_ms", lease)?
            .brain("shutdown.drain_seconds", 1)?
            .start()
            .await?;
        stack.linked(2).await?;
        let session = new_session();
        let mut ana = stack.user("ana")?.device("phone").connect().await?;
        ana.open(&session).await?;
        Ok(Self { double, stack, ana, session, _server: server })
    }

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

    /// No client was told of anything, and what each knows is what the store holds.
    async fn unnoticed(&mut self) -> Result<()> {
        self.ana.settle().await?;
        let shown = self.ana.frames.iter().find(|frame| frame.is("notice") || frame.is("error"));
        ensure!(shown.is_none(), "the client was told: {:?}", shown.map(|frame| &frame.raw));
        stored(&self.stack, &self.ana, &self.session).await?;
        let mut fresh = self.stack.user("ana")?.device("fresh").connect().await?;
        fresh.open(&self.session).await?;
        fresh.log(&self.session)?.assert_same(self.ana.log(&self.session)?)
    }
}

/// The client's log is the store's.
async fn stored(stack: &Stack, connection: &Connection, session: &str) -> Result<()> {
    let log = connection.log(session)?;
    log.assert_gapless()?;
    let known: Vec<_> = log
        .entries()
        .map(|(seq, seen)| {
            let text = |field: &str| seen.entry[field].as_str().unwrap_or_default().to_owned();
            (seq, seen.entry["rev"].as_u64().unwrap_or_default(), text("id"), text("state"))
        })
        .collect();
    let held = at_rest::mongo_log(stack.store(), session).await?;
    ensure!(known == held, "the client knows {known:?}, the store holds {held:?}");
    Ok(())
}

#[tokio::test]
async fn all_devices_of_one_user_are_served_by_one_brain_and_see_the_same() -> Result<()> {
    let mut pair = Pair::start().await?;
    let mut devices = Vec::new();
    for device in ["laptop", "tablet", "watch"] {
        let mut connection = pair.stack.user("ana")?.device(device).connect().await?;
        connection.open(&pair.session).await?;
        devices.push(connection);
    }
    let served = pair.stack.served().await?;
    ensure!(served.contains(&Some(4)) && served.contains(&Some(0)), "served: {served:?}");
    let (seq, driver) = pair.begin(&["One ", "two "]).await?;
    for device in &mut devices {
        device.shown(&pair.session, seq, "One two ").await?;
    }
    driver.step(Step::Finish { input: 1, output: 2 });
    pair.ana.answer(&pair.session, seq).await?;
    for device in &mut devices {
        device.answer(&pair.session, seq).await?;
        device.log(&pair.session)?.assert_same(pair.ana.log(&pair.session)?)?;
    }
    // Many users are shared between the two.
    let mut others = Vec::new();
    for index in 0..16 {
        others.push(pair.stack.user(&format!("user-{index}"))?.connect().await?);
    }
    let served = pair.stack.served().await?;
    ensure!(served.iter().all(|count| count.is_some_and(|count| count > 0)), "served: {served:?}");
    pair.unnoticed().await
}

#[tokio::test]
async fn the_death_of_the_brain_in_the_middle_of_an_answer_begins_it_anew_on_the_other() -> Result<()> {
    let mut pair = Pair::start().await?;
    let mut laptop = pair.stack.user("ana")?.device("laptop").connect().await?;
    laptop.open(&pair.session).await?;
    let (seq, _driver) = pair.begin(&["lost ", "words"]).await?;
    let victim = pair.stack.answering().await?;
    pair.double.script(Script::answer(["a new ", "answer"]));
    let died = Instant::now();
    pair.stack.kill_brain_at(victim).await?;
    let answer = pair.ana.answer(&pair.session, seq).await?;
    ensure!(died.elapsed() <= LEASE + Duration::from_secs(4), "it took {:?}", died.elapsed());
    ensure!(answer["content"] == "a new answer" && answer["attempt"] == 2 && answer["state"] == "final", "{answer}");
    ensure!(pair.chats() == 2, "{} calls", pair.chats());
    laptop.answer(&pair.session, seq).await?;
    laptop.log(&pair.session)?.assert_same(pair.ana.log(&pair.session)?)?;

    pair.double.script(Script::answer(["and on"]));
    ensure!(pair.ana.converse(&pair.session, "go on").await?["content"] == "and on", "no next answer");
    // The brain comes back, and the conversation goes on wherever it is served.
    pair.stack.start_brain_at(victim).await?;
    pair.stack.linked(2).await?;
    pair.double.script(Script::answer(["still here"]));
    ensure!(pair.ana.converse(&pair.session, "and now?").await?["content"] == "still here", "no next answer");
    pair.unnoticed().await
}

#[tokio::test]
async fn a_brain_that_is_asked_to_end_hands_its_answer_to_the_other() -> Result<()> {
    let mut pair = Pair::start().await?;
    let (seq, _driver) = pair.begin(&["half "]).await?;
    let leaving = pair.stack.answering().await?;
    pair.double.script(Script::answer(["whole"]));
    pair.stack.term_brain_at(leaving).await?;
    let answer = within_time(Duration::from_secs(8), "the new attempt", pair.ana.answer(&pair.session, seq)).await??;
    ensure!(answer["content"] == "whole" && answer["attempt"] == 2, "{answer}");
    ensure!(pair.chats() == 2, "{} calls", pair.chats());
    pair.double.script(Script::answer(["and on"]));
    ensure!(pair.ana.converse(&pair.session, "go on").await?["content"] == "and on", "no next answer");
    pair.unnoticed().await
}

#[tokio::test]
async fn an_answer_that_ends_in_the_time_to_drain_is_not_begun_anew() -> Result<()> {
    let mut pair = Pair::start().await?;
    let (seq, driver) = pair.begin(&["half "]).await?;
    let leaving = pair.stack.answering().await?;
    let served = pair.stack.served().await?[leaving];
    ensure!(served == Some(1), "served: {served:?}");
    // The client moves at once; the rest of the text reaches it with the end.
    pair.ana.may_miss_deltas(&pair.session);
    driver.delta("and whole");
    driver.step(Step::Finish { input: 1, output: 2 });
    pair.stack.term_brain_at(leaving).await?;
    let answer = pair.ana.answer(&pair.session, seq).await?;
    ensure!(answer["content"] == "half and whole" && answer["attempt"] == 1, "{answer}");
    ensure!(pair.chats() == 1, "{} calls", pair.chats());
    pair.unnoticed().await
}

#[tokio::test]
async fn users_who_all_speak_while_brains_come_and_go_lose_nothing() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.double.always(Script::answer(["some ", "words ", "back"]).paced(Duration::from_millis(20)));
    let mut talks = Vec::new();
    for index in 0..6 {
        let session = new_session();
        let mut connection = pair.stack.user(&format!("user-{index}"))?.connect().await?;
        connection.open(&session).await?;
        // Of an answer that ends on a brain that drains only the end reaches clients that have moved.
        connection.may_miss_deltas(&session);
        talks.push((connection, session));
    }
    for round in 0..4 {
        let turns = talks.iter_mut().map(|(connection, session)| async move {
            for turn in 0..3 {
                // Retried as a client does: the same message under the same id.
                let id = uuid::Uuid::new_v4().to_string();
                let text = format!("round {round}, message {turn}");
                eventually_acknowledged(connection, session, &id, &text).await?;
            }
            anyhow::Ok(())
        });
        let speaking = futures_util::future::try_join_all(turns);
        let changing = async {
            match round {
                0 => pair.stack.kill_brain_at(0).await,
                1 => {
                    pair.stack.start_brain_at(0).await?;
                    pair.stack.linked(2).await
                }
                2 => pair.stack.term_brain_at(1).await,
                _ => pair.stack.start_brain_at(1).await,
            }
        };
        let (spoken, changed) = tokio::join!(speaking, changing);
        spoken?;
        changed?;
    }
    for (connection, session) in &mut talks {
        let asked: Vec<u64> = connection
            .log(session)?
            .entries()
            .filter(|(_, seen)| seen.entry["sender"]["role"] == "user")
            .map(|(seq, _)| seq)
            .collect();
        for seq in asked {
            let answer = connection.answer(session, seq).await?;
            ensure!(answer["content"] == "some words back", "{answer}");
        }
        connection.settle().await?;
        let log = connection.log(session)?;
        let messages = log.entries().filter(|(_, seen)| seen.entry["sender"]["role"] == "user").count();
        ensure!(messages == 12 && log.last_seq() == 24, "{messages} messages, {} entries", log.last_seq());
        stored(&pair.stack, connection, session).await?;
    }
    Ok(())
}

/// Sends a message until it is acknowledged; each refusal must be one that allows it.
async fn eventually_acknowledged(connection: &mut Connection, session: &str, id: &str, text: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let reply = connection.ask(chatbox_tests::harness::connection::user_message(session, id, text)).await?;
        if reply.is("ack") {
            return Ok(());
        }
        ensure!(reply.at("/retryable") == true && Instant::now() < deadline, "{}", reply.raw);
    }
}

#[tokio::test]
async fn a_gateway_without_any_brain_keeps_its_sockets_and_says_that_it_is_not_ready() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.double.always(Script::answer(["here"]));
    pair.ana.converse(&pair.session, "hello").await?;
    pair.stack.kill_brain_at(0).await?;
    pair.stack.kill_brain_at(1).await?;
    eventually("/readyz of the gateway to say 503", || async {
        let answer = chatbox_tests::harness::raw_http::get(pair.stack.gateway_ops(0), "/readyz").await?;
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(())
    })
    .await?;
    let refused = pair.stack.user("ben")?.answer().await?;
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{}", refused.status);
    pair.stack.start_brain_at(1).await?;
    pair.stack.ready().await?;
    ensure!(pair.ana.converse(&pair.session, "again").await?["content"] == "here", "no answer");
    pair.unnoticed().await
}

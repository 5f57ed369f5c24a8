//! The link between gateway and brain breaks while both live: no client sees a gap, an error, or a session opened anew.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chatbox_tests::harness::Dialect;
use chatbox_tests::harness::Stack;
use chatbox_tests::harness::brains::metric;
use chatbox_tests::harness::connection::{Connection, new_session, user_message};
use chatbox_tests::harness::model::Model;
use chatbox_tests::harness::waits::eventually;
use chatbox_tests::provider::{Call, Driver, ProviderDouble, Script, Step};
use tokio::time::Instant;
use uuid::Uuid;

struct Talk {
    double: ProviderDouble,
    stack: Stack,
    ana: Connection,
    session: String,
}

impl Talk {
    async fn start() -> Result<Self> {
        let double = ProviderDouble::start().await?;
        let stack = Stack::builder().model(Model::at("bird", Dialect::OpenAi, &double.url())).proxied().start().await?;
        let session = new_session();
        let mut ana = stack.user("ana")?.connect().await?;
        ana.open(&session).await?;
        Ok(Self { double, stack, ana, session })
    }

    async fn begin(&mut self, text: &str) -> Result<(u64, Driver)> {
        let (script, driver) = Script::live();
        self.double.script(script);
        driver.step(Step::Begin);
        driver.delta(text);
        let seq = self.ana.say(&self.session, "tell me").await?.number("/seq").context("no seq")?;
        self.ana.shown(&self.session, seq, text).await?;
        Ok((seq, driver))
    }

    /// Nothing but the conversation was seen, and the answer was made once.
    async fn unnoticed(&mut self) -> Result<()> {
        self.ana.settle().await?;
        self.ana.log(&self.session)?.assert_gapless()?;
        let log = self.ana.log(&self.session)?;
        ensure!(log.ready == 1, "session_ready came {} times", log.ready);
        ensure!(log.entries().all(|(_, seen)| seen.entry["attempt"].as_u64().unwrap_or(1) == 1), "made anew");
        let shown = self.ana.frames.iter().find(|frame| frame.is("notice") || frame.is("error"));
        ensure!(shown.is_none(), "the client was told: {:?}", shown.map(|frame| &frame.raw));
        let mut fresh = self.stack.user("ana")?.device("fresh").connect().await?;
        fresh.open(&self.session).await?;
        fresh.log(&self.session)?.assert_same(self.ana.log(&self.session)?)
    }

    async fn losses(&self) -> Result<u64> {
        metric(self.stack.gateway_ops(0), "chatbox_gateway_link_losses_total").await
    }
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_in_an_answer_leaves_no_gap() -> Result<()> {
    let mut talk = Talk::start().await?;
    let (seq, driver) = talk.begin("piece 0 ").await?;
    let mut text = "piece 0 ".to_owned();
    for cut in 1..=5 {
        talk.stack.proxy(0).cut();
        // Written while there is no link, and after.
        for part in ["a ", "b "] {
            let piece = format!("piece {cut}{part}");
            driver.delta(&piece);
            text.push_str(&piece);
        }
        talk.ana.shown(&talk.session, seq, &text).await?;
    }
    driver.step(Step::Finish { input: 1, output: 11 });
    let answer = talk.ana.answer(&talk.session, seq).await?;
    ensure!(answer["content"] == text, "{answer}");
    ensure!(talk.losses().await? == 5, "{} links were lost", talk.losses().await?);
    ensure!(talk.double.journal().iter().filter(|call| Call::is_chat(call)).count() == 1, "asked twice");
    talk.unnoticed().await
}

#[tokio::test]
async fn what_is_sent_when_the_link_breaks_is_stored_and_answered_once() -> Result<()> {
    let mut talk = Talk::start().await?;
    talk.double.always(Script::answer(["an ", "answer"]));
    for turn in 0..10 {
        let id = Uuid::new_v4().to_string();
        let request = talk.ana.post(user_message(&talk.session, &id, &format!("message {turn}"))).await?;
        talk.stack.proxy(0).cut();
        let ack = talk.ana.reply(&request).await?;
        ensure!(ack.is("ack"), "{}", ack.raw);
        let seq = ack.number("/seq").context("no seq")?;
        ensure!(seq == 2 * turn + 1, "message {turn} stands at {seq}");
        talk.ana.answer(&talk.session, seq).await?;
    }
    ensure!(talk.ana.log(&talk.session)?.last_seq() == 20, "{}", talk.ana.log(&talk.session)?.last_seq());
    talk.unnoticed().await
}

#[tokio::test]
async fn a_link_that_swallows_everything_is_noticed_and_replaced() -> Result<()> {
    let mut talk = Talk::start().await?;
    let (seq, driver) = talk.begin("before ").await?;
    let begun = Instant::now();
    talk.stack.proxy(0).swallow();
    driver.delta("lost on the way ");
    eventually("the gateway to notice", || async {
        ensure!(talk.losses().await? > 0, "not yet");
        Ok(())
    })
    .await?;
    ensure!(begun.elapsed() < Duration::from_secs(10), "noticed after {:?}", begun.elapsed());
    talk.stack.proxy(0).cut();
    talk.ana.shown(&talk.session, seq, "before lost on the way ").await?;
    driver.delta("and after");
    driver.step(Step::Finish { input: 1, output: 3 });
    let answer = talk.ana.answer(&talk.session, seq).await?;
    ensure!(answer["content"] == "before lost on the way and after", "{answer}");
    talk.unnoticed().await
}

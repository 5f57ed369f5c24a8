//! Turns of several brains over one store. Each brain of a test has its own session registry and turns, as separate
//! processes have, and shares only the store. The provider is a fake server whose bytes the test controls.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::clock::{Clock, SystemClock};
use chatbox_shared::ids::{ClientMessageId, Seq, SessionId, UserId};
use chatbox_shared::lifecycle::Lifecycle;
use chatbox_tests::provider::{FakeProvider, Gate, Script, Step};
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use super::sweep::sweep;
use super::turns::{TurnSettings, Turns};
use super::{stop, worker};
use crate::ledger::Allowance;
use crate::llm::catalog::Catalog;
use crate::llm::config::{ModelConfig, ProviderConfig};
use crate::llm::endpoint::Endpoints;
use crate::log::entry::{Body, Entry, EntryState, FinishReason, LogEvent, Person, Sender};
use crate::log::state::Intent;
use crate::metrics::Metrics;
use crate::session::append::{AppendOutcome, Draft, append};
use crate::session::catch_up::catch_up;
use crate::session::handle::Session;
use crate::session::registry::Sessions;
use crate::store::keyring::Keyring;
use crate::store::sqlite::SqliteStore;
use crate::store::{AnswerVersion, SharedStore, Store};
use crate::tunables::{ChatLimits, LiveConfig, Tunables};

const LEASE: Duration = Duration::from_millis(1000);
const PATIENCE: Duration = Duration::from_secs(20);

/// The store that all brains of a test share, and the provider that they call.
struct World {
    store: SharedStore,
    keys: String,
    /// How long a brain of this world owns an answer without renewing its lease.
    lease: Duration,
    provider: FakeProvider,
    _folder: TempDir,
}

/// The state of one brain.
struct Brain {
    sessions: Arc<Sessions>,
    turns: Arc<Turns>,
    lifecycle: Lifecycle,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("chat.db")).expect("a store");
        store.migrate().await.expect("a schema");
        let keys = Keyring::generate_line("k1").expect("a key").to_string();
        Self {
            store: Arc::new(store),
            keys,
            lease: LEASE,
            provider: FakeProvider::start().await.expect("a provider"),
            _folder: folder,
        }
    }

    fn brain(&self, name: &str) -> Brain {
        let lifecycle = Lifecycle::new();
        let keyring = Keyring::parse(&self.keys, None).expect("a keyring");
        let sessions = Arc::new(Sessions::new(Arc::clone(&self.store), keyring, lifecycle.clone()));
        let model = ModelConfig {
            id: "m".into(),
            provider: "openai".into(),
            base_url: self.provider.url(),
            model: "m".into(),
            ..ModelConfig::default()
        };
        let provider = ProviderConfig {
            connect_timeout_ms: 5000,
            first_token_timeout_ms: 60_000,
            idle_timeout_ms: 60_000,
            total_timeout_ms: 600_000,
            max_retries: 0,
            max_retry_after_ms: 1000,
            max_concurrent: 16,
            max_queued: 100,
            breaker_failures: 100,
            breaker_open_ms: 1000,
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let catalog = Catalog::build(&[model], &provider, "", &clock, &Endpoints::default()).expect("a catalog");
        let tunables = Tunables {
            catalog,
            limits: ChatLimits {
                max_content_chars: 1000,
                max_name_chars: 100,
                max_reason_chars: 100,
                replay_entries: 100,
                open_sessions: 64,
            },
            connections_per_user: 10,
            allowance: Allowance::default(),
            naming_model: None,
        };
        let settings = TurnSettings {
            owner: name.into(),
            lease: self.lease,
            checkpoint: Duration::from_millis(100),
            checkpoint_bytes: 64,
            max_attempts: 3,
            sweep_interval: Duration::from_millis(50),
        };
        let metrics = Arc::new(Metrics::new(&mut Registry::default()));
        let turns = Arc::new(Turns::new(Arc::clone(&sessions), Arc::new(LiveConfig::new(tunables)), settings, metrics));
        Brain { sessions, turns, lifecycle }
    }

    async fn log(&self, brain: &Brain, session: SessionId) -> Vec<Entry> {
        let session = brain.session(session).await;
        let rows = self.store.entries_after(session.id, 0, 10_000).await.expect("the log");
        rows.into_iter().map(|row| session.unseal(row)).collect()
    }

    /// Waits until the entry satisfies the condition.
    async fn until(&self, brain: &Brain, session: SessionId, seq: Seq, is: impl Fn(&Entry) -> bool) -> Entry {
        wait_for(async || {
            let session = brain.session(session).await;
            let row = self.store.entry(session.id, seq).await.expect("the store")?;
            Some(session.unseal(row)).filter(|entry| is(entry))
        })
        .await
    }
}

impl Brain {
    async fn create(&self) -> Arc<Session> {
        let id = SessionId::generate();
        self.sessions.create(id, &UserId::new("u"), "m".into(), "").await.expect("the store").expect("a session")
    }

    async fn session(&self, id: SessionId) -> Arc<Session> {
        self.sessions.get(id).await.expect("the store").expect("a session")
    }

    async fn say(&self, session: &Arc<Session>, text: &str) -> Entry {
        match append(&self.sessions, session, Intent::UserMessage, &message(text)).await {
            Ok(AppendOutcome::Appended(entry)) => entry,
            other => panic!("not appended: {other:?}"),
        }
    }

    async fn join(&self, session: &Arc<Session>, admin: &str) -> Entry {
        let who = Person { id: UserId::new(admin), name: None };
        let draft = Draft::new(Sender::System, Body::Event(LogEvent::AdminJoined(who.clone())), String::new());
        let joined = append(&self.sessions, session, Intent::Join(&who.id), &draft).await;
        stop::end(&self.turns, session, FinishReason::Interrupted).await.expect("the answer ends");
        match joined {
            Ok(AppendOutcome::Appended(entry)) => entry,
            other => panic!("not joined: {other:?}"),
        }
    }

    /// Starts the sweep, which adopts the answers of dead brains and answers forgotten messages.
    fn sweep(&self) {
        self.lifecycle.spawn(sweep(Arc::clone(&self.turns)));
    }

    /// Stops the brain as if its process had died: its tasks end and no answer is handed over.
    fn kill(self) {
        self.turns.workers.clear();
        self.lifecycle.stopping().cancel();
    }
}

fn message(text: &str) -> Draft {
    let sender = Sender::User(Person { id: UserId::new("u"), name: None });
    let body = Body::Message { client_msg_id: ClientMessageId::generate(), needs_answer: false };
    Draft::new(sender, body, text.into())
}

async fn wait_for<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the condition did not become true")
}

/// The entry without `needs_answer`. The mark is removed shortly after the answer has begun.
fn without_mark(mut entry: Entry) -> Entry {
    if let Body::Message { needs_answer, .. } = &mut entry.meta.body {
        *needs_answer = false;
    }
    entry
}

fn streams(entry: &Entry) -> bool {
    entry.meta.state == EntryState::Streaming
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writers_of_two_brains_make_one_log_without_gaps() {
    let world = World::new().await;
    let brains = [world.brain("a"), world.brain("b")];
    let id = brains[0].create().await.id;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let sessions = Arc::clone(&brains[writer % 2].sessions);
        writers.spawn(async move {
            let session = sessions.get(id).await.expect("the store").expect("a session");
            for n in 0..20 {
                let draft = message(&format!("{writer}.{n}"));
                let first = append(&sessions, &session, Intent::UserMessage, &draft).await.expect("appended");
                let again = append(&sessions, &session, Intent::UserMessage, &draft).await.expect("known");
                let (AppendOutcome::Appended(first), AppendOutcome::Duplicate(again)) = (first, again) else {
                    panic!("a message was stored twice or lost")
                };
                assert_eq!(first.meta.seq, again.meta.seq);
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("a writer");
    }
    let log = world.log(&brains[0], id).await;
    assert_eq!(log.iter().map(|entry| entry.meta.seq).collect::<Vec<_>>(), (1..=160).collect::<Vec<_>>());
    for writer in 0..8 {
        let said = log.iter().map(|entry| entry.content.text()).filter(|text| text.starts_with(&format!("{writer}.")));
        let wanted: Vec<_> = (0..20).map(|n| format!("{writer}.{n}")).collect();
        assert_eq!(said.collect::<Vec<_>>(), wanted, "the log keeps the order of each writer");
    }
    for brain in &brains {
        let session = brain.session(id).await;
        catch_up(brain.sessions.store.as_ref(), &session).await.expect("the store");
        assert_eq!(session.read(|live| live.state.message_count), 160);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_message_sent_through_two_brains_at_once_is_stored_once() {
    let world = World::new().await;
    let brains = [world.brain("a"), world.brain("b")];
    let id = brains[0].create().await.id;
    for round in 0..30 {
        let draft = message(&format!("round {round}"));
        let mut tries = tokio::task::JoinSet::new();
        for n in 0..8 {
            let (sessions, draft) = (Arc::clone(&brains[n % 2].sessions), draft.clone());
            tries.spawn(async move {
                let session = sessions.get(id).await.expect("the store").expect("a session");
                // Each try is a separate request, so it has its own entry id.
                let draft = Draft { id: chatbox_shared::ids::MessageId::generate(), ..draft };
                match append(&sessions, &session, Intent::UserMessage, &draft).await.expect("taken") {
                    AppendOutcome::Appended(entry) | AppendOutcome::Duplicate(entry) => (entry.meta.id, entry.meta.seq),
                    other => panic!("{other:?}"),
                }
            });
        }
        let first = tries.join_next().await.expect("a try").expect("no panic");
        while let Some(other) = tries.join_next().await {
            assert_eq!(other.expect("no panic"), first);
        }
        assert_eq!(first.1, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_written_during_an_answer_are_answered_one_after_the_other() {
    let world = World::new().await;
    let gate = Gate::new();
    world
        .provider
        .script(Script::begun(["A"]).then(Step::Hold(gate.clone())).then(Step::Finish { input: 1, output: 1 }));
    world.provider.script(Script::answer(["B"]));
    world.provider.script(Script::answer(["C"]));
    let brain = world.brain("a");
    let session = brain.create().await;
    brain.say(&session, "a").await;
    worker::kick(&brain.turns, &session);
    world.until(&brain, session.id, 2, streams).await;
    for text in ["b", "c"] {
        brain.say(&session, text).await;
        worker::kick(&brain.turns, &session);
    }
    gate.open();
    world.until(&brain, session.id, 6, |entry| !streams(entry)).await;
    let log = world.log(&brain, session.id).await;
    let said: Vec<_> = log.iter().map(|entry| (entry.content.text(), reply_to(entry))).collect();
    assert_eq!(said, [("a", 0), ("A", 1), ("b", 0), ("c", 0), ("B", 3), ("C", 4)]);
    assert_eq!(world.provider.journal().len(), 3);
}

fn reply_to(entry: &Entry) -> Seq {
    entry.meta.answer().map_or(0, |answer| answer.reply_to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_brain_restarts_the_answer_of_a_dead_owner() {
    let world = World::new().await;
    world.provider.script(Script::begun(["lost ", "words"]).then(Step::Stall));
    world.provider.script(Script::answer(["all ", "anew"]));
    let (dead, alive) = (world.brain("dead"), world.brain("alive"));
    let session = dead.create().await;
    // The dead brain has its own runtime: shutting it down ends all its tasks at any point, as the end of a process does.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    {
        let (turns, sessions, session) = (Arc::clone(&dead.turns), Arc::clone(&dead.sessions), Arc::clone(&session));
        let asked = runtime.spawn(async move {
            append(&sessions, &session, Intent::UserMessage, &message("hello")).await.expect("appended");
            worker::kick(&turns, &session);
        });
        asked.await.expect("asked");
    }
    world.until(&alive, session.id, 2, |entry| entry.content.text() == "lost words").await;
    runtime.shutdown_background();
    dead.kill();
    alive.sweep();
    let answer = world.until(&alive, session.id, 2, |entry| !streams(entry)).await;
    assert_eq!(answer.content.text(), "all anew");
    let part = answer.meta.answer().expect("an answer");
    assert_eq!((part.attempt, part.owner.as_str(), part.finish), (2, "alive", Some(FinishReason::Stop)));
    assert_eq!(world.provider.journal().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_lost_its_row_stores_and_sends_nothing_more() {
    let world = World::new().await;
    let (script, driver) = Script::live();
    world.provider.script(script);
    let (old, new) = (world.brain("old"), world.brain("new"));
    let session = old.create().await;
    old.say(&session, "hello").await;
    worker::kick(&old.turns, &session);
    world.until(&old, session.id, 2, streams).await;
    driver.delta("mine ");
    world.until(&old, session.id, 2, |entry| entry.content.text() == "mine ").await;
    // Another brain ends the answer, as for a stop request or a takeover.
    let there = new.session(session.id).await;
    stop::end(&new.turns, &there, FinishReason::Stopped).await.expect("it ends");
    driver.delta("too late");
    wait_for(async || (old.turns.count() == 0).then_some(())).await;
    let answer = world.until(&new, session.id, 2, |entry| !streams(entry)).await;
    assert_eq!(answer.content.text(), "mine ");
    assert_eq!(answer.meta.answer().expect("an answer").finish, Some(FinishReason::Stopped));
    assert!(session.read(|live| live.streaming.is_none()), "the old owner knows that the answer has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_owners_die_again_and_again_ends_with_its_text() {
    let world = World::new().await;
    let brain = world.brain("a");
    let session = brain.create().await;
    let asked = brain.say(&session, "hello").await;
    let draft = super::claim::draft(&brain.turns, asked.meta.seq, 0, None, "m".into());
    let Ok(AppendOutcome::Appended(mut row)) = append(&brain.sessions, &session, Intent::Answer(1), &draft).await
    else {
        panic!("not claimed")
    };
    let claimed = AnswerVersion::of(&row.meta).expect("an answer");
    row.content = crate::log::entry::Content::Text("what there was".into());
    let part = row.meta.answer_mut().expect("an answer");
    part.fence = 3;
    part.lease_until = chatbox_shared::clock::Timestamp(0);
    assert!(super::row::replace(world.store.as_ref(), &session, &row, claimed).await.expect("the store"));
    brain.sweep();
    let answer = world.until(&brain, session.id, row.meta.seq, |entry| !streams(entry)).await;
    assert_eq!(answer.content.text(), "what there was");
    assert_eq!(answer.meta.answer().expect("an answer").finish, Some(FinishReason::Interrupted));
    assert!(world.provider.journal().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_answers_a_message_whose_brain_died_before_the_answer() {
    let world = World::new().await;
    world.provider.script(Script::answer(["found"]));
    let brain = world.brain("a");
    let session = brain.create().await;
    brain.say(&session, "hello").await;
    brain.sweep();
    let answer = world.until(&brain, session.id, 2, |entry| !streams(entry)).await;
    assert_eq!(answer.content.text(), "found");
    wait_for(async || world.store.next_unanswered(session.id).await.expect("the store").is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_of_the_ai_follows_a_takeover() {
    let world = World::new().await;
    world.provider.always(Script::answer(["one ", "two ", "three ", "four"]).paced(Duration::from_millis(1)));
    let (user_side, admin_side) = (world.brain("user side"), world.brain("admin side"));
    for round in 0..60u64 {
        let session = user_side.create().await;
        user_side.say(&session, "hello").await;
        worker::kick(&user_side.turns, &session);
        tokio::time::sleep(Duration::from_micros(round * 200)).await;
        // Half of the takeovers reach the owner of the answer, the others a brain that has only read the store.
        let brain = if round % 2 == 0 { &user_side } else { &admin_side };
        let there = brain.session(session.id).await;
        let joined = brain.join(&there, "ann").await.meta.seq;
        let at_reply = world.log(&admin_side, session.id).await;
        user_side.say(&session, "is anybody there?").await;
        worker::kick(&user_side.turns, &session);
        wait_for(async || (user_side.turns.count() == 0).then_some(())).await;
        let later = world.log(&admin_side, session.id).await;
        assert!(!at_reply.iter().any(streams), "round {round}: an answer still grows after the takeover");
        let said = |log: &[Entry]| log.iter().cloned().map(without_mark).collect::<Vec<_>>();
        let (before, after) = (said(&at_reply), said(&later[..at_reply.len()]));
        assert_eq!(after, before, "round {round}: the log before the takeover has changed");
        let answers = later.iter().filter(|entry| entry.meta.seq > joined && reply_to(entry) > 0);
        assert_eq!(answers.count(), 0, "round {round}: the AI answered after the takeover");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_keeps_the_text_and_closes_the_connection_to_the_provider() {
    let world = World::new().await;
    world.provider.script(Script::begun(["so far"]).then(Step::Stall));
    let brain = world.brain("a");
    let session = brain.create().await;
    brain.say(&session, "hello").await;
    worker::kick(&brain.turns, &session);
    wait_for(async || {
        session.read(|live| live.streaming.as_ref().is_some_and(|entry| entry.content.text() == "so far")).then_some(())
    })
    .await;
    stop::end(&brain.turns, &session, FinishReason::Stopped).await.expect("it stops");
    let answer = world.until(&brain, session.id, 2, |entry| !streams(entry)).await;
    assert_eq!(answer.content.text(), "so far");
    let part = answer.meta.answer().expect("an answer");
    assert_eq!(part.finish, Some(FinishReason::Stopped));
    assert!(part.usage.expect("an estimate").estimated);
    wait_for(async || world.provider.journal()[0].ended().map(|_| ())).await;
}

/// A streaming answer of a brain that is gone, to a message in a new session.
async fn abandoned(world: &World, dead: &Brain) -> (Arc<Session>, Seq) {
    let session = dead.create().await;
    let asked = dead.say(&session, "hello").await;
    let mut draft = super::claim::draft(&dead.turns, asked.meta.seq, 0, None, "m".into());
    if let Body::Answer(answer) = &mut draft.body {
        answer.lease_until = dead.sessions.now().minus(Duration::from_secs(60));
    }
    let claimed = append(&dead.sessions, &session, Intent::Answer(asked.meta.seq), &draft).await;
    let Ok(AppendOutcome::Appended(row)) = claimed else { panic!("not claimed: {claimed:?}") };
    world.store.clear_need(session.id, asked.meta.id, asked.meta.seq).await.expect("the store");
    (session, row.meta.seq)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_does_not_stop_the_recovery_of_others() {
    let world = World::new().await;
    world.provider.script(Script::answer(["recovered"]));
    let (dead, alive) = (world.brain("dead"), world.brain("alive"));
    let (broken, seq) = abandoned(&world, &dead).await;
    let raw = rusqlite::Connection::open(world._folder.path().join("chat.db")).expect("the file");
    let row = (broken.id.0.as_bytes().as_slice(), i64::try_from(seq).expect("a seq"));
    raw.execute("UPDATE messages SET fen = NULL WHERE sid = ?1 AND seq = ?2", row).expect("damaged");
    let (readable, seq) = abandoned(&world, &dead).await;
    let forgotten = dead.create().await;
    dead.say(&forgotten, "hello").await;
    world.provider.script(Script::answer(["found"]));
    alive.sweep();
    world.until(&alive, readable.id, seq, |entry| !streams(entry)).await;
    world.until(&alive, forgotten.id, 2, |entry| !streams(entry)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_regenerated_only_after_every_message_has_its_first_answer() {
    let world = World::new().await;
    world.provider.script(Script::answer(["first"]));
    world.provider.script(Script::answer(["second"]));
    let brain = world.brain("a");
    let session = brain.create().await;
    brain.say(&session, "hello").await;
    // The message waits: no worker has been told of it.
    let id = chatbox_shared::ids::MessageId::generate();
    let refused = super::regenerate::regenerate(&brain.turns, &session, "m".into(), id).await;
    assert_eq!(refused.map_err(|failure| failure.code), Err(chatbox_shared::failure::ErrorCode::Conflict));
    // The worker that refused has begun the first answer. Its end is shown before anything else may be asked.
    wait_for(async || session.read(|live| live.state.seq == 2 && live.streaming.is_none()).then_some(())).await;
    let again = super::regenerate::regenerate(&brain.turns, &session, "m".into(), id).await;
    assert_eq!(again.map_err(|failure| failure.code), Ok(()));
    let answer = world.until(&brain, session.id, 3, |entry| !streams(entry)).await;
    assert_eq!((answer.content.text(), reply_to(&answer)), ("second", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_begins_no_answer() {
    let world = World::new().await;
    world.provider.script(Script::answer(["by another brain"]));
    let (draining, other) = (world.brain("draining"), world.brain("other"));
    let session = draining.create().await;
    draining.say(&session, "hello").await;
    draining.lifecycle.draining().cancel();
    worker::kick(&draining.turns, &session);
    wait_for(async || (draining.turns.count() == 0).then_some(())).await;
    assert_eq!(world.log(&other, session.id).await.len(), 1);
    other.sweep();
    let answer = world.until(&other, session.id, 2, |entry| !streams(entry)).await;
    assert_eq!(answer.meta.answer().expect("an answer").owner, "other");
}

//! The engine over scripted providers, with time standing still.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use chatbox_shared::clock::Timestamp;
use chatbox_shared::ids::{CallId, UserId};
use tokio::time::Instant;

use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::SessionId;
use parking_lot::Mutex;

use super::*;
use crate::ledger::{Call, Purpose, Reservation};
use crate::llm::conversation::Conversation;
use crate::llm::endpoint::{Circuit, Endpoint, EndpointSettings, testing::WIDE};
use crate::llm::kind::Kind;
use crate::llm::meter::{CallDenied, CallOutcome, Meter, PlannedCall};
use crate::llm::model::Model;
use crate::llm::retry::{Jitter, Policy};
use crate::llm::tokens::TokenCounter;
use crate::llm::{Chunk, ErrorClass, Generation, Prompt, PromptTurn, Provider, ProviderError, Remedy};
use crate::usage::{FinishReason, TokenUsage};

/// What one call does: fails at once, or streams these, each after a wait.
type Script = Result<Vec<(u64, Result<Chunk, ProviderError>)>, ProviderError>;

#[derive(Default)]
struct Scripted {
    calls: Mutex<VecDeque<Script>>,
    prompts: Mutex<Vec<Prompt>>,
    cancelled: Arc<Mutex<u32>>,
    /// Before the head of a reply.
    head: Duration,
}

struct Stream(VecDeque<(u64, Result<Chunk, ProviderError>)>, Arc<Mutex<u32>>);

#[async_trait]
impl Provider for Scripted {
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        self.prompts.lock().push(prompt.clone());
        let call = self.calls.lock().pop_front().expect("another call");
        tokio::time::sleep(self.head).await;
        Ok(Box::new(Stream(call?.into(), Arc::clone(&self.cancelled))))
    }
}

#[async_trait]
impl Generation for Stream {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        let wait = self.0.front()?.0;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.0.pop_front().map(|(_, item)| item)
    }

    async fn cancel(self: Box<Self>) {
        *self.1.lock() += 1;
    }
}

/// Records what it is told.
#[derive(Default)]
struct Recorder {
    planned: Mutex<Vec<(CallId, String, u32)>>,
    begun: Mutex<Vec<(CallId, String, u32)>>,
    withdrawn: Mutex<Vec<CallId>>,
    ended: Mutex<Vec<(CallId, CallOutcome)>>,
    /// What the next calls are told instead.
    refusals: Mutex<VecDeque<CallDenied>>,
}

#[async_trait]
impl Meter for Recorder {
    fn plan(&self, call: PlannedCall<'_>) -> Reservation {
        let planned = (call.id, call.model.id.clone(), call.restarts);
        let call = Call {
            id: call.id,
            user: UserId::new("u"),
            session: SessionId::generate(),
            purpose: Purpose::Answer,
            seq: 1,
            attempt: 1,
            model_id: call.model.id.clone(),
            provider: "demo".into(),
            started_at: Timestamp(0),
        };
        self.planned.lock().push(planned);
        Reservation { call, tokens: 0, cost: 0, input_estimate: 0, expires_at: Timestamp(0) }
    }

    async fn begin(&self, call: &Reservation) -> Result<(), CallDenied> {
        if let Some(refused) = self.refusals.lock().pop_front() {
            return Err(refused);
        }
        let planned = self.planned.lock().iter().find(|(id, ..)| *id == call.call.id).cloned();
        self.begun.lock().extend(planned);
        Ok(())
    }

    async fn withdraw(&self, call: &Reservation) {
        self.withdrawn.lock().push(call.call.id);
    }

    async fn end(&self, call: &Reservation, _: &Model, outcome: CallOutcome) {
        self.ended.lock().push((call.call.id, outcome));
    }
}

fn error(class: ErrorClass) -> ProviderError {
    ProviderError::new(class, "scripted")
}

fn text(text: &str) -> Result<Chunk, ProviderError> {
    Ok(Chunk::Delta(text.to_owned()))
}

fn says(words: &str) -> Script {
    Ok(vec![(0, text(words)), (0, Ok(Chunk::Finish(FinishReason::Stop)))])
}

fn breaks_after(words: &str) -> Script {
    Ok(vec![(0, text(words)), (0, Err(error(ErrorClass::Truncated)))])
}

/// A model in the making.
struct Setup {
    model: Model,
    scripted: Scripted,
}

fn model(id: &str, calls: Vec<Script>) -> Setup {
    let policy = Policy {
        first_token: Duration::from_secs(10),
        total: Duration::from_secs(60),
        max_retries: 2,
        max_retry_after: Duration::from_secs(20),
        jitter: Jitter::fixed(1.0),
    };
    let model = Model {
        id: id.into(),
        name: id.into(),
        kind: Kind::Demo,
        provider: Arc::new(Scripted::default()),
        policy,
        endpoint: Arc::new(Endpoint::new(id, &WIDE)),
        fallback: Vec::new(),
        price: None,
        counter: TokenCounter::default(),
        context_tokens: 1000,
        max_output_tokens: 100,
        system_prompt: None,
    };
    Setup { model, scripted: Scripted { calls: Mutex::new(calls.into()), ..Scripted::default() } }
}

/// What became of an answer, as its reader saw it.
struct Seen {
    text: String,
    /// Texts that were void later.
    void: Vec<String>,
    shown_model: Option<String>,
    end: AnswerEnd,
    took: Duration,
    providers: Vec<Arc<Scripted>>,
    meter: Arc<Recorder>,
}

impl Seen {
    fn failed(&self) -> ErrorCode {
        match &self.end.outcome {
            AnswerOutcome::Failed(error) => error.code,
            other => panic!("{other:?}"),
        }
    }

    fn calls_left(&self, provider: usize) -> usize {
        self.providers[provider].calls.lock().len()
    }

    fn cancelled(&self, provider: usize) -> u32 {
        *self.providers[provider].cancelled.lock()
    }

    fn finishes(&self) -> Vec<(CallFinish, Option<ErrorClass>)> {
        self.meter.ended.lock().iter().map(|(_, outcome)| (outcome.finish, outcome.error)).collect()
    }
}

struct Play {
    answering: Answering,
    providers: Vec<Arc<Scripted>>,
    meter: Arc<Recorder>,
}

fn play(models: Vec<Setup>, meter: Recorder) -> Play {
    let (mut providers, mut ready) = (Vec::new(), Vec::new());
    for Setup { mut model, scripted } in models {
        let scripted = Arc::new(scripted);
        model.provider = Arc::clone(&scripted) as crate::llm::SharedProvider;
        providers.push(scripted);
        ready.push(Arc::new(model));
    }
    let meter = Arc::new(meter);
    let turns = ["one", "two", "six", "ten"].map(|word| PromptTurn::user(word.repeat(40))).into();
    let answering = Answering::start(AnswerRequest {
        session: SessionId::generate(),
        user: "u".into(),
        models: ready,
        conversation: Arc::new(Conversation {
            turns,
            conversations: [("a".into(), "old".into())].into(),
            ..Default::default()
        }),
        meter: Arc::clone(&meter) as Arc<dyn Meter>,
    });
    Play { answering, providers, meter }
}

async fn read(play: Play) -> Seen {
    let Play { mut answering, providers, meter } = play;
    let begun = Instant::now();
    let (mut shown, mut void, mut shown_model, mut end, mut took) =
        (String::new(), Vec::new(), None, None, Duration::ZERO);
    while let Some(event) = answering.next().await {
        assert!(end.is_none(), "nothing follows the end");
        match event {
            AnswerEvent::Model(model) => {
                void.extend(Some(std::mem::take(&mut shown)).filter(|text| !text.is_empty()));
                shown_model = Some(model.id.clone());
            }
            AnswerEvent::Delta(text) => shown.push_str(&text),
            AnswerEvent::Replace(text) => void.push(std::mem::replace(&mut shown, text)),
            AnswerEvent::Conversation(_) => {}
            AnswerEvent::End(ended) => (end, took) = (Some(ended), begun.elapsed()),
        }
    }
    {
        let (begun, ended) = (meter.begun.lock(), meter.ended.lock());
        let ids = |calls: Vec<CallId>| calls;
        assert_eq!(
            ids(begun.iter().map(|(id, ..)| *id).collect()),
            ids(ended.iter().map(|(id, _)| *id).collect()),
            "each call is recorded once"
        );
        let mut asked: Vec<String> =
            providers.iter().flat_map(|it| it.prompts.lock().clone()).map(|it| it.request_id).collect();
        let mut recorded: Vec<String> = begun.iter().map(|(id, ..)| id.to_string()).collect();
        asked.sort();
        recorded.sort();
        assert_eq!(asked, recorded, "each call is made under its id");
    }
    Seen { text: shown, void, shown_model, end: end.expect("an end"), took, providers, meter }
}

async fn run(models: Vec<Setup>) -> Seen {
    read(play(models, Recorder::default())).await
}

#[tokio::test(start_paused = true)]
async fn failures_before_the_first_text_are_tried_again_with_growing_waits() {
    let broken = Ok(vec![(0, Ok(Chunk::Conversation("c".into()))), (0, Err(error(ErrorClass::Truncated)))]);
    let seen = run(vec![model("a", vec![Err(error(ErrorClass::Overloaded)), broken, says("hi")])]).await;
    assert_eq!((seen.text.as_str(), &seen.end.outcome), ("hi", &AnswerOutcome::Finished(FinishReason::Stop)));
    assert_eq!(seen.took, Duration::from_millis(500 + 1000));
    assert_eq!(seen.cancelled(0), 1, "the one whose stream broke");
    let failed = |class| (CallFinish::Failed, Some(class));
    let expected = [failed(ErrorClass::Overloaded), failed(ErrorClass::Truncated), (CallFinish::Stop, None)];
    assert_eq!(seen.finishes(), expected);
}

#[tokio::test(start_paused = true)]
async fn tries_are_counted() {
    let seen = run(vec![model("a", (0..5).map(|_| Err(error(ErrorClass::Server))).collect())]).await;
    assert_eq!((seen.failed(), seen.calls_left(0)), (ErrorCode::ProviderUnavailable, 2));
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_text_falls_back_silently() {
    for class in ErrorClass::ALL {
        let seen = run(vec![
            model("a", vec![Err(error(class)), Err(error(class)), Err(error(class))]),
            model("b", vec![says("hi")]),
        ])
        .await;
        if class == ErrorClass::ContentFiltered {
            assert_eq!((seen.failed(), seen.calls_left(1)), (ErrorCode::ContentFiltered, 1), "not asked elsewhere");
            continue;
        }
        assert_eq!((seen.text.as_str(), seen.shown_model.as_deref()), ("hi", Some("b")), "{class:?}");
        assert!(seen.void.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_first_text_falls_back_and_what_was_said_is_void() {
    let seen = run(vec![model("a", vec![breaks_after("so f")]), model("b", vec![says("all of it")])]).await;
    assert_eq!((seen.text.as_str(), seen.shown_model.as_deref()), ("all of it", Some("b")));
    assert_eq!(seen.void, ["so f"]);
    assert_eq!(seen.cancelled(0), 1);
    let restarts: Vec<_> =
        seen.meter.begun.lock().iter().map(|(_, model, restarts)| (model.clone(), *restarts)).collect();
    assert_eq!(restarts, [("a".to_owned(), 0), ("b".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_same_model_is_never_asked_again_after_its_first_text_and_the_text_stays() {
    let seen = run(vec![model("a", vec![breaks_after("so far"), says("never")])]).await;
    assert_eq!((seen.text.as_str(), seen.failed()), ("so far", ErrorCode::ProviderUnavailable));
    assert_eq!((seen.calls_left(0), seen.cancelled(0)), (1, 1));
    let silent = Err(error(ErrorClass::Auth));
    let seen = run(vec![model("a", vec![breaks_after("so far")]), model("b", vec![silent])]).await;
    assert_eq!((seen.text.as_str(), seen.failed()), ("so far", ErrorCode::ProviderRejected), "b said nothing instead");
    assert_eq!(seen.shown_model.as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_remedy_is_tried_once_and_at_once() {
    let with = |remedy| ProviderError { remedy: Some(remedy), ..error(ErrorClass::Rejected) };
    let calls = vec![
        Err(with(Remedy::NewConversation)),
        Err(with(Remedy::WithoutSampling)),
        Err(error(ErrorClass::ContextLength)),
        says("hi"),
    ];
    let seen = run(vec![model("a", calls)]).await;
    assert_eq!((seen.text.as_str(), seen.took), ("hi", Duration::ZERO));
    let prompts = seen.providers[0].prompts.lock().clone();
    let changed: Vec<_> =
        prompts.iter().map(|it| (it.conversation.is_some(), it.without_sampling, it.turns.len())).collect();
    assert_eq!(changed, [(true, false, 4), (false, false, 4), (false, true, 4), (false, true, 2)]);
    assert_eq!(prompts[3].question(), prompts[0].question(), "the question itself is never left out");

    let seen = run(vec![model(
        "a",
        vec![Err(error(ErrorClass::ContextLength)), Err(error(ErrorClass::ContextLength)), says("no")],
    )])
    .await;
    assert_eq!((seen.failed(), seen.calls_left(0)), (ErrorCode::ProviderRejected, 1));
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_first_text_is_a_failed_try() {
    let silent = || Ok(vec![(1000, Ok(Chunk::Conversation("c".into()))), (50_000, text("late"))]);
    let seen = run(vec![model("a", vec![silent(), says("hi")])]).await;
    assert_eq!((seen.took, seen.text.as_str(), seen.cancelled(0)), (Duration::from_millis(10_500), "hi", 1));
    let mut slow = model("a", vec![says("late"), says("late"), says("late")]);
    slow.scripted.head = Duration::from_secs(11);
    let seen = run(vec![slow]).await;
    assert_eq!((seen.failed(), seen.calls_left(0)), (ErrorCode::ProviderTimeout, 0));
}

#[tokio::test(start_paused = true)]
async fn the_answer_as_a_whole_is_limited_with_all_its_models() {
    let slow = Ok((0..100).map(|_| (900, text("x"))).collect());
    let seen = run(vec![model("a", vec![slow]), model("b", vec![says("too late")])]).await;
    assert_eq!((seen.text.len(), seen.took), (66, Duration::from_secs(60)));
    assert_eq!((seen.failed(), seen.cancelled(0), seen.calls_left(1)), (ErrorCode::ProviderTimeout, 1, 1));
    let asked = ProviderError { retry_after: Some(Duration::from_secs(19)), ..error(ErrorClass::RateLimited) };
    let mut hasty = model("a", vec![Err(asked), says("too late")]);
    hasty.model.policy.total = Duration::from_secs(19);
    let seen = run(vec![hasty]).await;
    assert_eq!((seen.took, seen.calls_left(0)), (Duration::ZERO, 1), "a wait that ends too late is not begun");
}

/// Always has something ready.
struct Flood;

#[async_trait]
impl Provider for Flood {
    async fn generate(&self, _: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl Generation for Flood {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        Some(text("x"))
    }

    async fn cancel(self: Box<Self>) {}
}

#[tokio::test]
async fn an_answer_that_never_pauses_is_limited_too() {
    let mut setup = model("a", vec![]);
    setup.model.policy.total = Duration::from_millis(50);
    setup.model.provider = Arc::new(Flood);
    let ask = AnswerRequest {
        session: SessionId::generate(),
        user: "u".into(),
        models: vec![Arc::new(setup.model)],
        conversation: Arc::default(),
        meter: Arc::new(Recorder::default()),
    };
    let mut answering = Answering::start(ask);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(10), "it goes on and on");
        match answering.next().await.expect("an end") {
            AnswerEvent::End(end) => {
                assert_eq!(end.outcome, AnswerOutcome::Failed(ErrorCode::ProviderTimeout.into()));
                break;
            }
            _ => continue,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_next_loses_nothing_and_calls_nobody_twice() {
    let mut setup = model(
        "a",
        vec![
            Ok(vec![(700, Err(error(ErrorClass::Truncated)))]),
            Ok(vec![(700, text("a")), (700, Ok(Chunk::Finish(FinishReason::Stop)))]),
        ],
    );
    setup.scripted.head = Duration::from_secs(3);
    let mut play = play(vec![setup], Recorder::default());
    let mut read = String::new();
    let end = loop {
        // Over and over again, as a turn that saves meanwhile does.
        match tokio::time::timeout(Duration::from_millis(10), play.answering.next()).await {
            Ok(Some(AnswerEvent::Delta(text))) => read += &text,
            Ok(Some(AnswerEvent::End(end))) => break end,
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => panic!("no end"),
        }
    };
    assert_eq!((read.as_str(), end.outcome), ("a", AnswerOutcome::Finished(FinishReason::Stop)));
    assert_eq!(play.providers[0].prompts.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_it_wherever_it_is_and_the_call_is_recorded() {
    let endless = || Ok((0..1000).map(|_| (1000, text("word "))).collect());
    for (wait, calls, words) in [
        (500, vec![endless()], 0),
        (3500, vec![endless()], 3),
        (100, vec![Err(error(ErrorClass::Server)), endless()], 0),
    ] {
        let mut play = play(vec![model("a", calls), model("b", vec![])], Recorder::default());
        let mut shown = 0;
        let reading = async {
            while let Some(event) = play.answering.next().await {
                shown += usize::from(matches!(event, AnswerEvent::Delta(_)));
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(wait), reading).await.is_err());
        assert_eq!(shown, words);
        play.answering.stop(CallFinish::Interrupted);
        let stopped = Instant::now();
        let seen = read(play).await;
        assert_eq!((seen.end.outcome.clone(), stopped.elapsed()), (AnswerOutcome::Stopped, Duration::ZERO));
        if wait > 100 {
            assert_eq!(seen.finishes(), [(CallFinish::Interrupted, None)]);
            assert_eq!(seen.cancelled(0), 1);
        } else {
            assert_eq!(seen.finishes(), [(CallFinish::Failed, Some(ErrorClass::Server))], "stopped between two calls");
        }
        if words > 0 {
            let usage = seen.end.usage.expect("a call was made");
            assert!(usage.estimated && usage.output >= 3 && usage.input > 0, "{usage:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_settled_without_a_reader() {
    let endless = Ok((0..1000).map(|_| (1, text("word "))).collect());
    let mut play = play(vec![model("a", vec![endless])], Recorder::default());
    while !matches!(play.answering.next().await, Some(AnswerEvent::Delta(_))) {}
    play.answering.settle().await;
    assert_eq!(play.meter.ended.lock().len(), 1);
    assert_eq!(*play.providers[0].cancelled.lock(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_keeps_failing_is_left_alone() {
    let mut setup = model("a", (0..3).map(|_| Err(error(ErrorClass::Server))).collect());
    let tight = EndpointSettings {
        breaker: crate::llm::endpoint::BreakerSettings { failures: 2, open_for: Duration::from_secs(30) },
        ..WIDE
    };
    let endpoint = Arc::new(Endpoint::new("e", &tight));
    setup.model.endpoint = Arc::clone(&endpoint);
    let seen = run(vec![setup, model("b", vec![says("hi")])]).await;
    assert_eq!((seen.text.as_str(), seen.calls_left(0), endpoint.circuit()), ("hi", 1, Circuit::Open));
    let mut open = model("a", vec![]);
    open.model.endpoint = endpoint;
    let seen = run(vec![open]).await;
    assert_eq!((seen.failed(), seen.took, seen.end.usage), (ErrorCode::ProviderUnavailable, Duration::ZERO, None));
}

#[tokio::test(start_paused = true)]
async fn a_user_over_the_quota_is_told_until_when_and_nothing_is_called() {
    let until = Timestamp(1_795_564_800_000);
    let meter = Recorder { refusals: Mutex::new([CallDenied::Quota(Some(until))].into()), ..Recorder::default() };
    let seen = read(play(vec![model("a", vec![says("no")]), model("b", vec![says("no")])], meter)).await;
    let expected = AnswerError { code: ErrorCode::QuotaExceeded, retry_at: Some(until) };
    assert_eq!((seen.end.outcome.clone(), seen.end.usage), (AnswerOutcome::Failed(expected), None));
    assert_eq!((seen.calls_left(0), seen.calls_left(1)), (1, 1));
    let meter = Recorder { refusals: Mutex::new([CallDenied::Unavailable; 3].into()), ..Recorder::default() };
    let seen = read(play(vec![model("a", vec![says("hi")])], meter)).await;
    assert_eq!((seen.text.as_str(), seen.took), ("hi", Duration::from_millis(750)), "accounts that come back");
    assert!(seen.meter.withdrawn.lock().is_empty());
    let meter = Recorder { refusals: Mutex::new([CallDenied::Broken].into()), ..Recorder::default() };
    let seen = read(play(vec![model("a", vec![says("no")]), model("b", vec![says("no")])], meter)).await;
    assert_eq!((seen.failed(), seen.calls_left(0), seen.took), (ErrorCode::Internal, 1, Duration::ZERO));
    assert_eq!(seen.meter.withdrawn.lock().len(), 1);
    let meter = Recorder { refusals: Mutex::new([CallDenied::Unavailable; 100].into()), ..Recorder::default() };
    let mut play = play(vec![model("a", vec![says("no")])], meter);
    assert!(tokio::time::timeout(Duration::from_secs(3), play.answering.next()).await.is_err());
    play.answering.stop(CallFinish::Stopped);
    let seen = read(play).await;
    assert_eq!((seen.end.outcome.clone(), seen.calls_left(0)), (AnswerOutcome::Stopped, 1));
    assert_eq!(seen.meter.withdrawn.lock().len(), 1, "what may be set aside is given back");
}

#[tokio::test(start_paused = true)]
async fn usage_is_the_providers_word_or_an_estimate_that_says_so() {
    let reported = TokenUsage { input: 9, cached: 4, output: 2, estimated: false };
    let told = Ok(vec![(0, text("hi")), (0, Ok(Chunk::Usage(reported))), (0, Ok(Chunk::Finish(FinishReason::Stop)))]);
    assert_eq!(run(vec![model("a", vec![told])]).await.end.usage, Some(reported));
    let seen = run(vec![model("a", vec![says("hi")])]).await;
    let estimate = seen.end.usage.expect("a call was made");
    assert!(estimate.estimated && estimate.output == 1 && estimate.input > 100, "{estimate:?}");
    let refused = |status| ProviderError { status: Some(status), ..error(ErrorClass::Auth) };
    for status in [401, 429, 503, 529] {
        let seen = run(vec![model("a", vec![Err(refused(status))])]).await;
        assert_eq!(seen.end.usage, Some(TokenUsage::default()), "a refusal uses nothing: {status}");
    }
    let unsent = ProviderError { unsent: true, ..error(ErrorClass::Auth) };
    let seen = run(vec![model("a", vec![Err(unsent)])]).await;
    assert_eq!(seen.end.usage, Some(TokenUsage::default()), "it never arrived");
    for broken in [refused(502), error(ErrorClass::Auth)] {
        let usage = run(vec![model("a", vec![Err(broken)])]).await.end.usage.expect("a call was made");
        assert!(usage.estimated && usage.input > 100 && usage.output == 0, "perhaps it was read: {usage:?}");
    }
}

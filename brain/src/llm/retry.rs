//! Time limits and further tries around any provider. It wraps the trait and knows no protocol; fallbacks and circuit
//! breakers go around it in the same way.
//!
//! A call is made again only while nobody has seen a word of the answer: after the first text a failure is the caller's to
//! handle. Each try has its own limit until the first text; the total limit spans all tries and the waits between them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Chunk, ErrorClass, Generation, Prompt, Provider, ProviderError, Remedy, SharedProvider};

/// The longest first wait, without any hint of the provider. It doubles with each try.
const BACKOFF: Duration = Duration::from_millis(500);

/// The longest wait at all without a hint.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// How calls are limited and repeated.
#[derive(Debug, Clone)]
pub struct Policy {
    /// From the request to the first text, for each try.
    pub first_token: Duration,
    /// For the answer as a whole, with all tries.
    pub total: Duration,
    /// Further tries after the first.
    pub max_retries: u32,
    /// Asked to wait longer than this, the call fails at once.
    pub max_retry_after: Duration,
    /// Where the randomness of waits comes from.
    pub jitter: Jitter,
}

/// A source of numbers in 0..1.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Jitter {
    /// True randomness.
    pub fn random() -> Self {
        Self(Arc::new(rand::random::<f64>))
    }

    /// Always the same number, for tests.
    pub fn fixed(number: f64) -> Self {
        Self(Arc::new(move || number))
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

impl Policy {
    /// How long to wait after a failure, `None` to give up. `failed` tries came before this one.
    ///
    /// Full jitter, so that callers who failed together do not come back together. A wait the provider asked for is a
    /// minimum, to which only a little is added.
    fn wait(&self, error: &ProviderError, failed: u32) -> Option<Duration> {
        if !error.retryable() || failed >= self.max_retries {
            return None;
        }
        let jitter = (self.jitter.0)().clamp(0.0, 1.0);
        match error.retry_after {
            Some(asked) if asked > self.max_retry_after => None,
            Some(asked) => Some(asked + BACKOFF.mul_f64(jitter)),
            None => Some(BACKOFF.saturating_mul(1 << failed.min(16)).min(MAX_BACKOFF).mul_f64(jitter)),
        }
    }
}

/// The decorator.
pub struct Retrying {
    inner: SharedProvider,
    policy: Policy,
}

impl Retrying {
    /// `inner` with limits and further tries.
    pub fn new(inner: SharedProvider, policy: Policy) -> Self {
        Self { inner, policy }
    }
}

#[async_trait]
impl Provider for Retrying {
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        let now = Instant::now();
        let mut tries = Tries {
            inner: Arc::clone(&self.inner),
            policy: self.policy.clone(),
            prompt: prompt.clone(),
            state: State::Waiting(now),
            failed: 0,
            first_text_by: now + self.policy.first_token,
            end_by: now + self.policy.total,
            text_seen: false,
        };
        loop {
            match tries.state {
                State::Waiting(until) => tries.call(until).await,
                State::Running(_) => return Ok(Box::new(tries)),
                State::Ended(error) => {
                    let error = error.unwrap_or_else(|| ProviderError::new(ErrorClass::Truncated, "no answer"));
                    return Err(error);
                }
            }
        }
    }
}

/// One answer through all its tries. The state is always changed before something is awaited, so that a dropped future
/// loses nothing.
struct Tries {
    inner: SharedProvider,
    policy: Policy,
    prompt: Prompt,
    state: State,
    /// Tries that failed.
    failed: u32,
    first_text_by: Instant,
    end_by: Instant,
    /// Some of the answer has been handed out: no more tries.
    text_seen: bool,
}

enum State {
    /// The next try is due at this time.
    Waiting(Instant),
    Running(Box<dyn Generation>),
    /// Over; with the error nobody has been told yet.
    Ended(Option<ProviderError>),
}

impl Tries {
    async fn call(&mut self, due: Instant) {
        sleep_until(due).await;
        self.first_text_by = Instant::now() + self.policy.first_token;
        let by = self.first_text_by.min(self.end_by);
        match timeout_at(by, self.inner.generate(&self.prompt)).await {
            Ok(Ok(generation)) => self.state = State::Running(generation),
            Ok(Err(error)) => self.fail(error).await,
            Err(_) => self.fail(self.out_of_time()).await,
        }
    }

    /// Ends this try and decides whether there is another. The failed one is cancelled: some providers go on generating
    /// for nobody.
    async fn fail(&mut self, error: ProviderError) {
        if !self.text_seen && Instant::now() < self.end_by && self.remedied(&error) {
            tracing::warn!(%error, "a model's provider refused a prompt; calling again with a changed one");
            let next = State::Waiting(Instant::now());
            if let State::Running(failed) = std::mem::replace(&mut self.state, next) {
                failed.cancel().await;
            }
            return;
        }
        let wait = if self.text_seen { None } else { self.policy.wait(&error, self.failed) };
        let due = wait.map(|wait| Instant::now() + wait).filter(|due| *due < self.end_by);
        let next = match due {
            Some(due) => {
                self.failed += 1;
                tracing::warn!(%error, tries = self.failed, ?wait, "a model's provider failed; trying again");
                State::Waiting(due)
            }
            None => State::Ended(Some(error)),
        };
        if let State::Running(failed) = std::mem::replace(&mut self.state, next) {
            failed.cancel().await;
        }
    }

    /// Changes the prompt as the error asks for; `false` where it asks for nothing, or for what was done before.
    fn remedied(&mut self, error: &ProviderError) -> bool {
        match error.remedy() {
            Some(Remedy::NewConversation) => self.prompt.conversation.take().is_some(),
            Some(Remedy::WithoutSampling) => !std::mem::replace(&mut self.prompt.without_sampling, true),
            Some(Remedy::LessHistory) | None => false,
        }
    }

    fn out_of_time(&self) -> ProviderError {
        let detail = if Instant::now() >= self.end_by {
            format!("the answer took longer than {:?}", self.policy.total)
        } else {
            format!("no text within {:?}", self.policy.first_token)
        };
        ProviderError::new(ErrorClass::Timeout, detail)
    }
}

#[async_trait]
impl Generation for Tries {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        loop {
            let by = if self.text_seen { self.end_by } else { self.first_text_by.min(self.end_by) };
            let generation = match &mut self.state {
                State::Ended(error) => return error.take().map(Err),
                State::Waiting(due) => {
                    let due = *due;
                    self.call(due).await;
                    continue;
                }
                State::Running(generation) => generation,
            };
            // Asked first: a stream that always has something ready would never let the timer have its say.
            if Instant::now() >= by {
                self.fail(self.out_of_time()).await;
                continue;
            }
            match timeout_at(by, generation.next()).await {
                Ok(Some(Ok(chunk))) => {
                    self.text_seen |= matches!(chunk, Chunk::Delta(_) | Chunk::Replace(_));
                    if matches!(chunk, Chunk::Finish(_)) {
                        self.state = State::Ended(None);
                    }
                    return Some(Ok(chunk));
                }
                Ok(Some(Err(error))) => self.fail(error).await,
                Ok(None) => self.fail(ProviderError::new(ErrorClass::Truncated, "no more and no end")).await,
                Err(_) => self.fail(self.out_of_time()).await,
            }
        }
    }

    async fn cancel(self: Box<Self>) {
        if let State::Running(generation) = self.state {
            generation.cancel().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use super::*;
    use crate::session::entry::FinishReason;

    /// What one call does: fails at once, or streams these, each after a wait.
    type Call = Result<Vec<(u64, Result<Chunk, ProviderError>)>, ProviderError>;

    #[derive(Default)]
    struct Scripted {
        calls: Mutex<VecDeque<Call>>,
        cancelled: Arc<Mutex<u32>>,
    }

    struct Stream(VecDeque<(u64, Result<Chunk, ProviderError>)>, Arc<Mutex<u32>>);

    #[async_trait]
    impl Provider for Scripted {
        async fn generate(&self, _: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
            let call = self.calls.lock().pop_front().expect("another call");
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

    fn policy() -> Policy {
        Policy {
            first_token: Duration::from_secs(10),
            total: Duration::from_secs(60),
            max_retries: 2,
            max_retry_after: Duration::from_secs(20),
            jitter: Jitter::fixed(1.0),
        }
    }

    fn error(class: ErrorClass) -> ProviderError {
        ProviderError::new(class, "scripted")
    }

    fn text(text: &str) -> Result<Chunk, ProviderError> {
        Ok(Chunk::Delta(text.to_owned()))
    }

    fn answer() -> Call {
        Ok(vec![(0, text("a")), (0, Ok(Chunk::Finish(FinishReason::Stop)))])
    }

    struct Outcome {
        text: String,
        end: Result<FinishReason, ProviderError>,
        took: Duration,
        calls_left: usize,
        cancelled: u32,
    }

    async fn run(policy: Policy, calls: Vec<Call>) -> Outcome {
        let scripted = Arc::new(Scripted { calls: Mutex::new(calls.into()), ..Scripted::default() });
        let begin = Instant::now();
        let provider = Retrying::new(Arc::clone(&scripted) as SharedProvider, policy);
        let mut read = String::new();
        let end = match provider.generate(&Prompt::default()).await {
            Err(error) => Err(error),
            Ok(mut generation) => loop {
                match generation.next().await {
                    Some(Ok(Chunk::Delta(more))) => read += &more,
                    Some(Ok(Chunk::Finish(reason))) => break Ok(reason),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Err(error),
                    None => panic!("an end without a finish"),
                }
            },
        };
        let (calls_left, cancelled) = (scripted.calls.lock().len(), *scripted.cancelled.lock());
        Outcome { text: read, end, took: begin.elapsed(), calls_left, cancelled }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_before_the_first_text_are_tried_again_with_growing_waits() {
        let broken = Ok(vec![(0, Ok(Chunk::Conversation("c".into()))), (0, Err(error(ErrorClass::Truncated)))]);
        let outcome = run(policy(), vec![Err(error(ErrorClass::Overloaded)), broken, answer()]).await;
        assert_eq!((outcome.text.as_str(), outcome.end.unwrap()), ("a", FinishReason::Stop));
        assert_eq!(outcome.took, Duration::from_millis(500 + 1000));
        assert_eq!(outcome.cancelled, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tries_are_counted_and_waits_are_capped() {
        let policy = Policy { max_retries: 6, ..policy() };
        let outcome = run(policy, (0..8).map(|_| Err(error(ErrorClass::Server))).collect()).await;
        assert_eq!(outcome.end.unwrap_err().class, ErrorClass::Server);
        assert_eq!(outcome.calls_left, 1);
        assert_eq!(outcome.took, Duration::from_millis(500 + 1000 + 2000 + 4000 + 8000 + 8000));
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_is_full() {
        let policy = Policy { jitter: Jitter::fixed(0.0), ..policy() };
        assert_eq!(run(policy, vec![Err(error(ErrorClass::Connect)), answer()]).await.took, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_get_better_is_not_tried_again() {
        for class in [
            ErrorClass::Auth,
            ErrorClass::Quota,
            ErrorClass::Rejected,
            ErrorClass::ContextLength,
            ErrorClass::NotFound,
            ErrorClass::ContentFiltered,
            ErrorClass::Protocol,
        ] {
            let outcome = run(policy(), vec![Err(error(class)), answer()]).await;
            assert_eq!((outcome.end.unwrap_err().class, outcome.calls_left), (class, 1));
        }
        let never = ProviderError { should_retry: Some(false), ..error(ErrorClass::Server) };
        assert_eq!(run(policy(), vec![Err(never), answer()]).await.calls_left, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_first_text_a_failure_is_final_and_the_text_stays() {
        let broken = Ok(vec![(0, text("so far")), (0, Err(error(ErrorClass::Truncated)))]);
        let outcome = run(policy(), vec![broken, answer()]).await;
        assert_eq!((outcome.text.as_str(), outcome.end.unwrap_err().class), ("so far", ErrorClass::Truncated));
        assert_eq!((outcome.calls_left, outcome.cancelled), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_asked_for_is_kept_up_to_the_cap() {
        let asked = |seconds| ProviderError {
            retry_after: Some(Duration::from_secs(seconds)),
            ..error(ErrorClass::RateLimited)
        };
        let outcome = run(policy(), vec![Err(asked(20)), answer()]).await;
        assert_eq!((outcome.took, outcome.text.as_str()), (Duration::from_millis(20_500), "a"));
        let outcome = run(policy(), vec![Err(asked(21)), answer()]).await;
        assert_eq!((outcome.took, outcome.calls_left), (Duration::ZERO, 1));
        let short = Policy { total: Duration::from_secs(5), ..policy() };
        let outcome = run(short, vec![Err(asked(6)), answer()]).await;
        assert_eq!((outcome.took, outcome.calls_left), (Duration::ZERO, 1), "it would come too late");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_before_the_first_text_is_a_failed_try() {
        let silent = || Ok(vec![(1000, Ok(Chunk::Conversation("c".into()))), (50_000, text("late"))]);
        let outcome = run(policy(), vec![silent(), answer()]).await;
        assert_eq!((outcome.took, outcome.text.as_str()), (Duration::from_millis(10_500), "a"));
        assert_eq!(outcome.cancelled, 1);
        let outcome = run(Policy { max_retries: 0, ..policy() }, vec![silent()]).await;
        assert_eq!(outcome.end.unwrap_err().class, ErrorClass::Timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_as_a_whole_is_limited() {
        let slow = Ok((0..100).map(|_| (900, text("x"))).collect());
        let outcome = run(policy(), vec![slow]).await;
        assert_eq!((outcome.text.len(), outcome.took), (66, Duration::from_secs(60)));
        assert_eq!((outcome.end.unwrap_err().class, outcome.cancelled), (ErrorClass::Timeout, 1));
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
        let provider = Retrying::new(Arc::new(Flood), Policy { total: Duration::from_millis(50), ..policy() });
        let mut generation = provider.generate(&Prompt::default()).await.unwrap();
        let begin = Instant::now();
        let error = loop {
            assert!(begin.elapsed() < Duration::from_secs(10), "it goes on and on");
            if let Err(error) = generation.next().await.unwrap() {
                break error;
            }
        };
        assert_eq!(error.class, ErrorClass::Timeout);
        assert!(generation.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_next_loses_nothing() {
        let broken = Ok(vec![(700, Err(error(ErrorClass::Truncated)))]);
        let later = Ok(vec![(700, text("a")), (700, Ok(Chunk::Finish(FinishReason::Stop)))]);
        let scripted = Arc::new(Scripted { calls: Mutex::new([broken, later].into()), ..Scripted::default() });
        let provider = Retrying::new(scripted, policy());
        let mut generation = provider.generate(&Prompt::default()).await.unwrap();
        let mut read = Vec::new();
        while read.len() < 2 {
            // The scripted stream starts its wait anew each time, so the pieces must be longer than that.
            if let Ok(chunk) = tokio::time::timeout(Duration::from_millis(701), generation.next()).await {
                read.push(chunk.unwrap().unwrap());
            }
        }
        assert_eq!(read, [Chunk::Delta("a".into()), Chunk::Finish(FinishReason::Stop)]);
        assert!(generation.next().await.is_none());
    }
}

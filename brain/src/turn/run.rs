//! Generating one answer: from the claimed row to its end, whatever the provider, the store, the participants or other
//! brains do meanwhile.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatbox_shared::failure::{ErrorCode, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::journal::{End, Journal, Lost, millis};
use super::{RunningAnswer, Turns};
use crate::llm::catalog::Model;
use crate::llm::{Chunk, ErrorClass, Generation, Prompt, ProviderError, TokenUsage, tokens};
use crate::session::Session;
use crate::session::entry::{Entry, EntryState, FinishReason, Usage};

/// How long a provider may take to be told to stop; nobody waits for it.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before a store that was away is asked again for a prompt.
const PREPARE_PAUSE: Duration = Duration::from_millis(250);

type Started = (Box<dyn Generation>, OwnedSemaphorePermit);
type Start = Pin<Box<dyn Future<Output = Result<Started, ProviderError>> + Send>>;
type Save = Pin<Box<dyn Future<Output = (Instant, Result<bool, Failure>)> + Send>>;

/// Everything that can happen while an answer grows.
enum Event {
    Chunk(Option<Result<Chunk, ProviderError>>),
    Saved(Instant, Result<bool, Failure>),
    SaveDue,
    EndWanted(FinishReason),
    HandOver,
}

/// How the growing came to an end.
enum Ending {
    Finished(FinishReason),
    Failed(ErrorCode),
    Lost,
    HandedOver,
}

impl Turns {
    /// Generates the answer of a row this brain has just written, to its end.
    pub(super) async fn run(self: &Arc<Self>, session: &Arc<Session>, row: Entry) {
        let Some(journal) = Journal::new(Arc::clone(session), row, self.sessions.now()) else { return };
        let running = Arc::new(RunningAnswer::new(journal.entry().meta.seq));
        self.set_running(session, Some(Arc::clone(&running)));
        self.metrics.answer_begun();
        let outcome = self.generate(session, journal, &running).await;
        self.metrics.answer_ended(outcome);
        self.set_running(session, None);
        running.ended.send_replace(true);
    }

    fn set_running(&self, session: &Session, running: Option<Arc<RunningAnswer>>) {
        if let Some(mut working) = self.working.get_mut(&session.id) {
            working.answer = running;
        }
    }

    async fn generate(
        self: &Arc<Self>,
        session: &Arc<Session>,
        mut journal: Journal,
        running: &RunningAnswer,
    ) -> &'static str {
        let (seq, model_id) = (running.seq, model_id(journal.entry()).to_owned());
        let begun = Instant::now();
        let mut used = Used::default();
        let mut source = None;
        let ending = match self.prepare_patiently(session, &journal, running, &mut used).await {
            Ok((model, prompt)) => {
                let source = source.insert(Source::start(Arc::clone(&self.places), model, prompt));
                self.grow(session, &mut journal, running, source, &mut used).await
            }
            Err(failure) => Ending::Failed(failure.code),
        };
        if let Some(source) = source {
            self.close(source);
        }
        let text = journal.entry().content.text().to_owned();
        let end = |state, finish, error| End { state, finish, error, usage: used.total(&text) };
        let (outcome, finished) = match ending {
            Ending::Finished(reason) => {
                (reason.as_str(), journal.finish(self, end(EntryState::Final, Some(reason), None)).await)
            }
            Ending::Failed(code) => ("failed", journal.finish(self, end(EntryState::Failed, None, Some(code))).await),
            Ending::HandedOver => {
                journal.release(self).await;
                ("handed_over", Ok(()))
            }
            Ending::Lost => ("lost", Err(Lost)),
        };
        if finished == Err(Lost) {
            // Somebody else has the answer now: what became of it is shown.
            if let Err(failure) = self.sessions.read_again(session, seq).await {
                tracing::debug!(session = %session.id, seq, %failure, "an answer that was lost could not be read");
            }
        }
        let outcome = if finished.is_err() { "lost" } else { outcome };
        tracing::info!(session = %session.id, seq, model_id, outcome, ms = millis(begun.elapsed()), "turn");
        outcome
    }

    /// [`Turns::prepare`], again while the store is away for a moment.
    async fn prepare_patiently(
        &self,
        session: &Arc<Session>,
        journal: &Journal,
        running: &RunningAnswer,
        used: &mut Used,
    ) -> Result<(Arc<Model>, Prompt), Failure> {
        loop {
            match self.prepare(session, journal, used).await {
                Err(failure) if failure.code == ErrorCode::StorageUnavailable && journal.owned() => {}
                prepared => return prepared,
            }
            tokio::select! {
                _ = running.end_wanted() => return Err(ErrorCode::Unavailable.into()),
                () = tokio::time::sleep(PREPARE_PAUSE) => {}
            }
        }
    }

    /// The model and what it is asked. The log is read
    /// after the claim, so it holds everything that stands before the answer.
    async fn prepare(
        &self,
        session: &Arc<Session>,
        journal: &Journal,
        used: &mut Used,
    ) -> Result<(Arc<Model>, Prompt), Failure> {
        let model = self.catalog.get(model_id(journal.entry())).cloned().ok_or(ErrorCode::ModelUnavailable)?;
        let prompt = self.prompt(session, journal.entry(), &model).await?;
        used.input_estimate = tokens::estimate_prompt(&prompt);
        Ok((model, prompt))
    }

    async fn grow(
        &self,
        session: &Arc<Session>,
        journal: &mut Journal,
        running: &RunningAnswer,
        source: &mut Source,
        used: &mut Used,
    ) -> Ending {
        let mut save: Option<Save> = None;
        let mut due =
            tokio::time::interval_at(tokio::time::Instant::now() + self.settings.checkpoint, self.settings.checkpoint);
        loop {
            let event = tokio::select! {
                biased;
                reason = running.end_wanted() => Event::EndWanted(reason),
                () = self.hand_over.cancelled() => Event::HandOver,
                (begun, saved) = pending(&mut save), if save.is_some() => Event::Saved(begun, saved),
                _ = due.tick(), if save.is_none() => Event::SaveDue,
                chunk = source.next(), if journal.owned() => Event::Chunk(chunk),
            };
            match event {
                Event::Chunk(Some(Ok(Chunk::Replace(text)))) => {
                    journal.restart(text);
                    if let Some(save) = save.take() {
                        // An older state must not arrive behind the newer one.
                        drop(save.await);
                    }
                    match self.save(session, journal).await {
                        (begun, Ok(true)) => journal.saved(begun, self.settings.lease),
                        (_, Ok(false)) => return Ending::Lost,
                        (_, Err(failure)) => return Ending::Failed(failure.code),
                    }
                    journal.show();
                }
                Event::Chunk(Some(Ok(chunk))) => {
                    if let Some(ending) = take(chunk, journal, used) {
                        return ending;
                    }
                    if save.is_none() && journal.unsaved_bytes() >= self.settings.checkpoint_bytes {
                        save = Some(self.save(session, journal));
                    }
                }
                Event::Chunk(Some(Err(error))) => {
                    tracing::warn!(session = %session.id, seq = running.seq, %error, "the provider failed");
                    return Ending::Failed(error.class.code());
                }
                Event::Chunk(None) => return Ending::Failed(ErrorCode::ProviderUnavailable),
                Event::SaveDue => save = Some(self.save(session, journal)),
                Event::Saved(begun, Ok(true)) => {
                    save = None;
                    journal.saved(begun, self.settings.lease);
                }
                Event::Saved(_, Ok(false)) => return Ending::Lost,
                // The next tick tries again; when the lease has run out, no text is taken until a save succeeds.
                Event::Saved(_, Err(_)) => save = None,
                Event::EndWanted(reason) => return Ending::Finished(reason),
                Event::HandOver => {
                    if let Some(save) = save.take() {
                        // It would renew the lease that is given up next.
                        drop(save.await);
                    }
                    return Ending::HandedOver;
                }
            }
        }
    }

    fn save(&self, session: &Arc<Session>, journal: &mut Journal) -> Save {
        let (entry, fence, begun) = journal.begin_save(self);
        let (sessions, session) = (Arc::clone(&self.sessions), Arc::clone(session));
        Box::pin(async move { (begun, sessions.replace_answer(&session, &entry, fence).await) })
    }

    /// Tells the provider to stop, where there is something to stop, without anybody waiting for it.
    fn close(&self, source: Source) {
        if let Source::Streaming { generation, .. } = source {
            self.sessions.lifecycle.spawn(async move {
                if tokio::time::timeout(CANCEL_PATIENCE, generation.cancel()).await.is_err() {
                    tracing::debug!("the provider did not take the stop in time; its connection is closed");
                }
            });
        }
    }
}

/// Takes one piece of the answer; an ending if it was the last.
fn take(chunk: Chunk, journal: &mut Journal, used: &mut Used) -> Option<Ending> {
    match chunk {
        Chunk::Delta(text) => {
            journal.push(&text);
            return journal.is_full().then_some(Ending::Finished(FinishReason::Length));
        }
        // Needs the store; see `grow`.
        Chunk::Replace(_) => {}
        Chunk::InputTokens { .. } => {}
        Chunk::Usage(TokenUsage { input, output, estimated, .. }) => {
            used.reported = Some(Usage { input, output, estimated });
        }
        Chunk::Conversation(conversation) => journal.set_conversation(conversation),
        Chunk::Finish(reason) => return Some(Ending::Finished(reason)),
    }
    None
}

/// What a call used: the provider's word, or else an estimate that says so.
#[derive(Debug, Default)]
struct Used {
    reported: Option<Usage>,
    input_estimate: u64,
}

impl Used {
    fn total(&self, text: &str) -> Usage {
        self.reported.unwrap_or_else(|| Usage {
            input: self.input_estimate,
            output: tokens::estimate(text),
            estimated: true,
        })
    }
}

/// A call to a provider: waiting for a free place and for the stream to begin, then streaming. `next` may be dropped at
/// any await and called again.
enum Source {
    Starting(Start),
    /// The place is held until the stream is let go.
    Streaming {
        generation: Box<dyn Generation>,
        _place: OwnedSemaphorePermit,
    },
    Ended,
}

impl Source {
    fn start(places: Arc<Semaphore>, model: Arc<Model>, prompt: Prompt) -> Self {
        Self::Starting(Box::pin(async move {
            // Nobody closes the semaphore.
            let place =
                places.acquire_owned().await.map_err(|_| ProviderError::new(ErrorClass::Connect, "stopping"))?;
            Ok((model.provider.generate(&prompt).await?, place))
        }))
    }

    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        if let Self::Starting(start) = self {
            match start.await {
                Ok((generation, place)) => *self = Self::Streaming { generation, _place: place },
                Err(error) => {
                    *self = Self::Ended;
                    return Some(Err(error));
                }
            }
        }
        match self {
            Self::Streaming { generation, .. } => generation.next().await,
            Self::Starting(_) | Self::Ended => None,
        }
    }
}

async fn pending(save: &mut Option<Save>) -> (Instant, Result<bool, Failure>) {
    match save {
        Some(save) => save.await,
        None => std::future::pending().await,
    }
}

fn model_id(entry: &Entry) -> &str {
    entry.meta.answer().map(|answer| answer.model_id.as_str()).unwrap_or_default()
}

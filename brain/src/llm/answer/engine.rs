//! Which call is made when: the tries of a model, the remedies for a refusal, the models it falls back to.

use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::failure::ErrorCode;
use chatbox_shared::ids::CallId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::call::{Call, Called, Ending, close};
use super::event::{AnswerEnd, AnswerError, AnswerEvent, AnswerOutcome, AnswerRequest};
use super::stop::StopSignal;
use crate::ledger::{CallFinish, Reservation};
use crate::llm::endpoint::{Admission, AdmitError};
use crate::llm::meter::{CallDenied, PlannedCall};
use crate::llm::model::Model;
use crate::llm::{ErrorClass, Prompt, ProviderError, Remedy};
use crate::usage::TokenUsage;

/// How long to wait before accounts that were away are asked again.
const METER_PAUSE: Duration = Duration::from_millis(250);

/// The work behind an answer.
pub(super) struct Engine {
    request: AnswerRequest,
    out: mpsc::Sender<AnswerEvent>,
    stop: Arc<StopSignal>,
    end_by: Instant,
    /// The model whose text stands there now.
    speaker: Option<Arc<Model>>,
    /// How many times the text has begun anew.
    restarts: u32,
    /// Of the call whose text stands there, or of the last one where none does.
    usage: Option<TokenUsage>,
}

/// Why a model's tries came to an end.
enum Ended {
    /// The answer is over; that was said.
    All,
    /// This model cannot; another one may.
    Model(ProviderError),
}

impl Engine {
    pub(super) fn new(request: AnswerRequest, out: mpsc::Sender<AnswerEvent>, stop: Arc<StopSignal>) -> Self {
        Self { request, out, stop, end_by: Instant::now(), speaker: None, restarts: 0, usage: None }
    }

    pub(super) async fn run(mut self) {
        let models = self.request.models.clone();
        let Some(first) = models.first() else {
            return self.end(AnswerOutcome::Failed(ErrorCode::ModelUnavailable.into())).await;
        };
        self.end_by = Instant::now() + first.policy.total;
        let mut fault = AnswerError::from(ErrorCode::ModelUnavailable);
        for (index, model) in models.iter().enumerate() {
            let Ended::Model(error) = self.try_model(model).await else { return };
            fault = error.class.code().into();
            let fallback = models.get(index + 1).filter(|_| error.class.falls_back() && Instant::now() < self.end_by);
            let fallback = fallback.map(|model| model.id.as_str());
            self.log(model, &error);
            tracing::warn!(session = %self.request.session, model = model.id, fallback, "a model could not answer");
            if fallback.is_none() {
                break;
            }
        }
        self.end(AnswerOutcome::Failed(fault)).await;
    }

    /// Calls one model as often as its policy allows.
    async fn try_model(&mut self, model: &Arc<Model>) -> Ended {
        let (mut prompt, mut input_estimate) = self.request.conversation.prepare(model).await;
        let mut remedies = Vec::new();
        let mut failed = 0;
        loop {
            let mut admission = match self.admit(model).await {
                Some(Ok(admission)) => admission,
                Some(Err(error)) => return Ended::Model(error),
                None => return self.stopped().await,
            };
            let call_id = CallId::generate();
            prompt.request_id = call_id.to_string();
            let reservation = match self.reserve(call_id, model, input_estimate).await {
                Some(Ok(reservation)) => reservation,
                Some(Err(fault)) => {
                    self.end(AnswerOutcome::Failed(fault)).await;
                    return Ended::All;
                }
                None => return self.stopped().await,
            };
            let opening = Some(model).filter(|model| !self.speaks(model));
            let (end_by, stop, out) = (self.end_by, self.stop.token(), &self.out);
            let call = Call { model, prompt: &prompt, input_estimate, end_by, stop, out };
            let called = call.make(&mut admission, opening).await;
            // The next call may have the place; what is left to do needs none.
            drop(admission);
            self.note(model, &called);
            let error = match self.settle(model, &reservation, called).await {
                Ok(()) => return Ended::All,
                Err(error) => error,
            };
            if self.speaks(model) {
                // Somebody has read words of this answer: it is not said again by the same model.
                return Ended::Model(error);
            }
            if let Some(remedy) = error.remedy().filter(|remedy| !remedies.contains(remedy))
                && self.apply(remedy, model, &mut prompt)
            {
                self.log(model, &error);
                tracing::info!(session = %self.request.session, model = model.id, ?remedy, "calling again, changed");
                remedies.push(remedy);
                input_estimate = model.counter.estimate_prompt(&prompt);
                continue;
            }
            let Some(wait) = model.policy.wait(&error, failed).filter(|wait| Instant::now() + *wait < self.end_by)
            else {
                return Ended::Model(error);
            };
            failed += 1;
            self.log(model, &error);
            tracing::warn!(session = %self.request.session, model = model.id, tries = failed, ?wait, "trying again");
            if !self.pause(wait).await {
                return self.stopped().await;
            }
        }
    }

    /// Is it this model whose text stands there?
    fn speaks(&self, model: &Arc<Model>) -> bool {
        self.speaker.as_ref().is_some_and(|speaker| Arc::ptr_eq(speaker, model))
    }

    /// Remembers whose text stands there now.
    fn note(&mut self, model: &Arc<Model>, called: &Called) {
        if called.tally.spoke() {
            self.restarts += called.tally.restarts + u32::from(self.speaker.is_some());
            self.speaker = Some(Arc::clone(model));
        }
        if called.tally.spoke() || self.speaker.is_none() {
            self.usage = Some(called.tally.usage());
        }
    }

    /// A place at the model's endpoint; `None`: stopped meanwhile.
    async fn admit(&self, model: &Model) -> Option<Result<Admission, ProviderError>> {
        let limit = model.policy.first_token.min(self.end_by.saturating_duration_since(Instant::now()));
        let admitted = tokio::select! {
            biased;
            () = self.stop.token().cancelled() => return None,
            admitted = timeout(limit, model.endpoint.admit(&self.request.user)) => admitted,
        };
        Some(match admitted {
            Ok(Ok(admission)) => Ok(admission),
            Ok(Err(error @ AdmitError::CircuitOpen(_))) => {
                Err(ProviderError::new(ErrorClass::CircuitOpen, error.to_string()))
            }
            Ok(Err(error @ AdmitError::Full)) => Err(ProviderError::new(ErrorClass::QueueFull, error.to_string())),
            Err(_) => Err(ProviderError::new(ErrorClass::QueueFull, format!("no place within {limit:?}"))),
        })
    }

    /// Sets aside what the call may use; `None`: stopped meanwhile. A try is never given up half way, and where its outcome
    /// is not known in the end, what it may have set aside is withdrawn.
    async fn reserve(
        &self,
        id: CallId,
        model: &Model,
        input_estimate: u64,
    ) -> Option<Result<Reservation, AnswerError>> {
        let restarts = self.restarts + u32::from(self.speaker.is_some());
        let time = self.end_by.saturating_duration_since(Instant::now());
        let reservation = self.request.meter.plan(PlannedCall { id, model, input_estimate, time, restarts });
        let given_up = loop {
            match self.request.meter.begin(&reservation).await {
                Ok(()) => return Some(Ok(reservation)),
                Err(CallDenied::Quota(retry_at)) => {
                    return Some(Err(AnswerError { code: ErrorCode::QuotaExceeded, retry_at }));
                }
                Err(CallDenied::Broken) => break Some(Err(ErrorCode::Internal.into())),
                Err(CallDenied::Unavailable) if Instant::now() < self.end_by => {}
                Err(CallDenied::Unavailable) => break Some(Err(ErrorCode::StorageUnavailable.into())),
            }
            if !self.pause(METER_PAUSE).await {
                break None;
            }
        };
        self.request.meter.withdraw(&reservation).await;
        given_up
    }

    /// Records the call and says the end, if it is one: first to the reader, who waits for it. The error of a failed call
    /// is the caller's to handle.
    async fn settle(&self, model: &Arc<Model>, call: &Reservation, called: Called) -> Result<(), ProviderError> {
        let Called { ending, tally, generation } = called;
        let meter = &self.request.meter;
        match ending {
            Ending::Finished(reason) => {
                drop(generation);
                if !tally.spoke() {
                    // An answer without a word is this model's too.
                    self.say(AnswerEvent::Model(Arc::clone(model))).await;
                }
                self.end(AnswerOutcome::Finished(reason)).await;
                meter.end(call, model, tally.outcome(CallFinish::of(reason), None)).await;
                Ok(())
            }
            Ending::Stopped => {
                self.end(AnswerOutcome::Stopped).await;
                tokio::join!(close(generation), meter.end(call, model, tally.outcome(self.stop.finish(), None)));
                Ok(())
            }
            Ending::Failed(error) => {
                let outcome = tally.outcome(CallFinish::Failed, Some(error.class));
                tokio::join!(close(generation), meter.end(call, model, outcome));
                Err(error)
            }
        }
    }

    /// Changes the prompt so that the call may succeed; `false`: there is nothing to change.
    fn apply(&self, remedy: Remedy, model: &Model, prompt: &mut Prompt) -> bool {
        match remedy {
            Remedy::NewConversation => prompt.conversation.take().is_some(),
            Remedy::WithoutSampling => !std::mem::replace(&mut prompt.without_sampling, true),
            Remedy::LessHistory => {
                let shorter = self.request.conversation.shorter(model, prompt);
                shorter.map(|shorter| *prompt = shorter).is_some()
            }
        }
    }

    /// What a provider says may quote the conversation, so its words are for those only who ask for details.
    fn log(&self, model: &Model, error: &ProviderError) {
        let (class, status) = (error.class.as_str(), error.status);
        tracing::warn!(session = %self.request.session, model = model.id, class, status, "a call failed");
        tracing::debug!(session = %self.request.session, model = model.id, detail = error.detail, "what the provider said");
    }

    async fn stopped(&self) -> Ended {
        self.end(AnswerOutcome::Stopped).await;
        Ended::All
    }

    async fn end(&self, outcome: AnswerOutcome) {
        self.say(AnswerEvent::End(AnswerEnd { outcome, usage: self.usage })).await;
    }

    async fn say(&self, piece: AnswerEvent) {
        // Without a reader there is nobody to tell; the calls are recorded all the same.
        let _read = self.out.send(piece).await;
    }

    /// `false`: stopped meanwhile.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.token().cancelled() => false,
            () = sleep(time) => true,
        }
    }
}

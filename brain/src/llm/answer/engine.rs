//! The order of calls for one answer: retries of a model, remedies after a rejection, fallback models.

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

/// Pause before an unavailable ledger is asked again.
const METER_PAUSE: Duration = Duration::from_millis(250);

/// Produces the events of one answer.
pub(super) struct Engine {
    request: AnswerRequest,
    out: mpsc::Sender<AnswerEvent>,
    stop: Arc<StopSignal>,
    end_by: Instant,
    /// The model whose text the reader sees.
    shown_model: Option<Arc<Model>>,
    /// How often the text was started again.
    restarts: u32,
    /// The usage of the call whose text the reader sees; of the last call where there is no text.
    usage: Option<TokenUsage>,
}

/// How the calls of one model ended.
enum Ended {
    /// The answer has ended, and the end was emitted.
    All,
    /// This model failed; a fallback model may be tried.
    Model(ProviderError),
}

impl Engine {
    pub(super) fn new(request: AnswerRequest, out: mpsc::Sender<AnswerEvent>, stop: Arc<StopSignal>) -> Self {
        Self { request, out, stop, end_by: Instant::now(), shown_model: None, restarts: 0, usage: None }
    }

    pub(super) async fn run(mut self) {
        let models = self.request.models.clone();
        let Some(first) = models.first() else {
            return self.end(AnswerOutcome::Failed(ErrorCode::ModelUnavailable.into())).await;
        };
        self.end_by = Instant::now() + first.policy.total;
        let mut last_error = AnswerError::from(ErrorCode::ModelUnavailable);
        for (index, model) in models.iter().enumerate() {
            let Ended::Model(error) = self.try_model(model).await else { return };
            last_error = error.class.code().into();
            let fallback = models.get(index + 1).filter(|_| error.class.falls_back() && Instant::now() < self.end_by);
            let fallback = fallback.map(|model| model.id.as_str());
            self.log(model, &error);
            tracing::warn!(session = %self.request.session, model = model.id, fallback, "a model could not answer");
            if fallback.is_none() {
                break;
            }
        }
        self.end(AnswerOutcome::Failed(last_error)).await;
    }

    /// Calls one model until it has answered or its policy allows no further retry.
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
                Some(Err(error)) => {
                    self.end(AnswerOutcome::Failed(error)).await;
                    return Ended::All;
                }
                None => return self.stopped().await,
            };
            let opening = Some(model).filter(|model| !self.is_shown(model));
            let (end_by, stop, out) = (self.end_by, self.stop.token(), &self.out);
            let call = Call { model, prompt: &prompt, input_estimate, end_by, stop, out };
            let called = call.make(&mut admission, opening).await;
            // Frees the slot for the next call: recording needs none.
            drop(admission);
            self.note(model, &called);
            let error = match self.settle(model, &reservation, called).await {
                Ok(()) => return Ended::All,
                Err(error) => error,
            };
            if self.is_shown(model) {
                // The reader has seen text of this model, so the same model does not start again.
                return Ended::Model(error);
            }
            if let Some(remedy) = error.remedy().filter(|remedy| !remedies.contains(remedy))
                && self.apply(remedy, model, &mut prompt)
            {
                self.log(model, &error);
                tracing::info!(session = %self.request.session, model = model.id, ?remedy, "retrying with a changed prompt");
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
            tracing::warn!(session = %self.request.session, model = model.id, tries = failed, ?wait, "retrying");
            if !self.pause(wait).await {
                return self.stopped().await;
            }
        }
    }

    /// Whether the reader sees text of this model.
    fn is_shown(&self, model: &Arc<Model>) -> bool {
        self.shown_model.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, model))
    }

    /// Notes the model whose text the reader sees, and the usage.
    fn note(&mut self, model: &Arc<Model>, called: &Called) {
        if called.tally.has_text() {
            self.restarts += called.tally.restarts + u32::from(self.shown_model.is_some());
            self.shown_model = Some(Arc::clone(model));
        }
        if called.tally.has_text() || self.shown_model.is_none() {
            self.usage = Some(called.tally.usage());
        }
    }

    /// Waits for a slot at the model's endpoint; `None` if the answer was stopped meanwhile.
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
            Err(_) => Err(ProviderError::new(ErrorClass::QueueFull, format!("no slot within {limit:?}"))),
        })
    }

    /// Reserves what the call may use; `None` if the answer was stopped meanwhile. An attempt is never cancelled half
    /// way. Where its outcome stays unknown, a reservation it may have made is withdrawn.
    async fn reserve(
        &self,
        id: CallId,
        model: &Model,
        input_estimate: u64,
    ) -> Option<Result<Reservation, AnswerError>> {
        let restarts = self.restarts + u32::from(self.shown_model.is_some());
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

    /// Emits the end, if the call is the end of the answer, then records the call: the reader does not wait for the
    /// ledger. Returns the error of a failed call, for the caller to handle.
    async fn settle(&self, model: &Arc<Model>, call: &Reservation, called: Called) -> Result<(), ProviderError> {
        let Called { ending, tally, generation } = called;
        let meter = &self.request.meter;
        match ending {
            Ending::Finished(reason) => {
                drop(generation);
                if !tally.has_text() {
                    // An empty answer has an author too.
                    self.emit(AnswerEvent::Model(Arc::clone(model))).await;
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

    /// Changes the prompt as the remedy says; `false` where there is nothing to change.
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

    /// A provider's message may quote the conversation, so it is logged at debug level only.
    fn log(&self, model: &Model, error: &ProviderError) {
        let (class, status) = (error.class.as_str(), error.status);
        tracing::warn!(session = %self.request.session, model = model.id, class, status, "a provider call failed");
        tracing::debug!(session = %self.request.session, model = model.id, detail = error.detail, "the provider's message");
    }

    async fn stopped(&self) -> Ended {
        self.end(AnswerOutcome::Stopped).await;
        Ended::All
    }

    async fn end(&self, outcome: AnswerOutcome) {
        self.emit(AnswerEvent::End(AnswerEnd { outcome, usage: self.usage })).await;
    }

    async fn emit(&self, event: AnswerEvent) {
        // Without a consumer the event is dropped; the calls are recorded nevertheless.
        let _read = self.out.send(event).await;
    }

    /// Waits; `false` if the answer was stopped meanwhile.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.token().cancelled() => false,
            () = sleep(time) => true,
        }
    }
}

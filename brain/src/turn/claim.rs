//! Beginning an answer: inserting its row. The insert goes through the log's one way in, so it has seen every takeover
//! that stands before it, and the store's unique keys let exactly one brain win.

use std::sync::Arc;

use chatbox_shared::failure::{ErrorCode, Failure};
use chatbox_shared::ids::{MessageId, Seq};

use super::{Turns, still_answering};
use crate::session::Session;
use crate::session::append::{Draft, Outcome};
use crate::session::entry::{Answer, Body, Entry, EntryMeta, EntryState, Sender};
use crate::session::state::Intent;
use crate::store::{Appended, EntryRow};

/// How far back the last user message is looked for when an answer is generated anew.
const LOOK_BACK: u32 = 100;

impl Turns {
    /// Claims the oldest message that needs an answer. `None`: there is none, or another brain is at it.
    pub(super) async fn claim_next(&self, session: &Arc<Session>) -> Result<Option<Entry>, Failure> {
        let store = &self.sessions.store;
        loop {
            let due =
                store.next_unanswered(session.id).await.map_err(|error| self.sessions.storage(session, &error))?;
            let Some(due) = due else { return Ok(None) };
            let model_id = session.read(|live| live.state.model_id.clone());
            let draft = self.draft(due.meta.seq, 0, None, model_id);
            match self.sessions.append(session, Intent::Answer(due.meta.seq), &draft).await {
                Ok(Outcome::Appended(row)) => {
                    self.clear_need_later(session, &due.meta);
                    return Ok(Some(row));
                }
                Ok(Outcome::AnswerTaken(Appended::StreamingExists)) => return Ok(None),
                // Somebody has begun it and did not get to say so, or the AI may not answer it any more.
                Ok(_) => self.clear_need(session, &due.meta).await?,
                Err(denied) if matches!(denied.code, ErrorCode::Conflict | ErrorCode::SessionEnded) => {
                    self.clear_need(session, &due.meta).await?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Claims the last user message once more, as an entry with this id. `None`: an earlier try has done it.
    pub(super) async fn claim_again(
        &self,
        session: &Arc<Session>,
        model_id: String,
        id: MessageId,
    ) -> Result<Option<Entry>, Failure> {
        let (reply_to, latest) = self.latest(session).await?;
        if latest.as_ref().is_some_and(|row| row.meta.id == id) {
            return Ok(None);
        }
        let latest = latest.as_ref().and_then(|row| Some((row.meta.seq, row.meta.answer()?)));
        let (generation, regenerates) = latest.map_or((0, None), |(seq, answer)| (answer.generation + 1, Some(seq)));
        let draft = Draft { id, ..self.draft(reply_to, generation, regenerates, model_id) };
        match self.sessions.append(session, Intent::Answer(reply_to), &draft).await? {
            Outcome::Appended(row) => Ok(Some(row)),
            _ => Err(still_answering()),
        }
    }

    /// Has an earlier try claimed the last user message as an entry with this id?
    pub(super) async fn was_claimed(&self, session: &Session, id: MessageId) -> Result<bool, Failure> {
        let (_, latest) = self.latest(session).await?;
        Ok(latest.is_some_and(|row| row.meta.id == id))
    }

    /// The last user message and the latest answer to it.
    async fn latest(&self, session: &Session) -> Result<(Seq, Option<EntryRow>), Failure> {
        let store = &self.sessions.store;
        let storage = |error| self.sessions.storage(session, &error);
        let recent = store.entries_before(session.id, Seq::MAX, LOOK_BACK).await.map_err(storage)?;
        let asked = recent.iter().rev().find(|row| matches!(row.meta.sender, Sender::User(_)));
        let reply_to = asked.ok_or(ErrorCode::NotFound)?.meta.seq;
        Ok((reply_to, store.latest_answer(session.id, reply_to).await.map_err(storage)?))
    }

    pub(super) fn draft(&self, reply_to: Seq, generation: u32, regenerates: Option<Seq>, model_id: String) -> Draft {
        let answer = Answer {
            reply_to,
            generation,
            regenerates,
            model_id,
            asked_model: None,
            attempt: 1,
            next_index: 0,
            owner: self.settings.owner.clone(),
            fence: 1,
            lease_until: self.sessions.now().plus(self.settings.lease),
            finish: None,
            error: None,
            retry_at: None,
            usage: None,
            first_token_ms: None,
            total_ms: None,
            conversation: None,
        };
        Draft {
            id: MessageId::generate(),
            state: EntryState::Streaming,
            sender: Sender::Ai,
            body: Body::Answer(Box::new(answer)),
            content: String::new(),
        }
    }

    /// The answer's row says that the message is being answered; the mark on the message is only how the sweep finds
    /// forgotten ones, so nobody waits for it to go.
    fn clear_need_later(&self, session: &Arc<Session>, message: &EntryMeta) {
        let (store, session, id, seq) = (Arc::clone(&self.sessions.store), session.id, message.id, message.seq);
        self.sessions.lifecycle.spawn(async move {
            if let Err(error) = store.clear_need(session, id, seq).await {
                tracing::debug!(%session, seq, %error, "the mark stays; the sweep will clear it");
            }
        });
    }

    async fn clear_need(&self, session: &Session, message: &EntryMeta) -> Result<(), Failure> {
        let cleared = self.sessions.store.clear_need(session.id, message.id, message.seq).await;
        cleared.map_err(|error| self.sessions.storage(session, &error))
    }
}

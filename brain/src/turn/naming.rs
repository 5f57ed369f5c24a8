//! A better name for a session than its first message: a model is asked once the first answer is there. Nobody waits for it,
//! and what a human has named stays as it is.

use std::sync::Arc;

use chatbox_shared::failure::Failure;

use super::Turns;
use super::prompt::opaque;
use crate::llm::PromptTurn;
use crate::llm::answer::{AnswerEvent, AnswerOutcome, AnswerRequest, Answering};
use crate::llm::conversation::Conversation;
use crate::llm::model::Model;
use crate::session::Session;
use crate::session::entry::{Body, Entry, Sender};
use crate::session::summary::name_of;

/// Messages a session has at most when it is named: the question and its answer, and what was written meanwhile.
const YOUNG: u64 = 4;
/// Characters of a message that the model gets to see.
const EXCERPT_CHARS: usize = 2000;
/// A name that is longer is no name: the model did something else.
const LONGEST_ANSWER: usize = 2000;

const REQUEST: &str = "Write a title for the conversation that begins below: at most six words, in the language of the \
    conversation, without quotation marks and without a full stop. Answer with the title alone.";

impl Turns {
    /// Asks the naming model for a name, where there is one and the session still has the name of its first message.
    pub(super) fn think_of_a_name(self: &Arc<Self>, session: &Arc<Session>) {
        let young = session.read(|live| live.state.message_count <= YOUNG && !live.name.is_empty());
        let tunables = self.current.get();
        let Some(naming_model) = tunables.naming_model.as_deref().filter(|_| young) else { return };
        let models = tunables.catalog.candidates(naming_model);
        let longest = tunables.limits.max_name_chars;
        let (turns, session) = (Arc::clone(self), Arc::clone(session));
        self.sessions.lifecycle.spawn(async move {
            if let Err(failure) = turns.name(&session, models, longest).await {
                tracing::debug!(session = %session.id, %failure, "the session keeps the name of its first message");
            }
        });
    }

    async fn name(
        self: &Arc<Self>,
        session: &Arc<Session>,
        models: Vec<Arc<Model>>,
        longest: usize,
    ) -> Result<(), Failure> {
        let rows = self.sessions.store.entries_after(session.id, 0, 10).await;
        let rows = rows.map_err(|error| self.sessions.storage(session, &error))?;
        let entries: Vec<Entry> = rows.into_iter().map(|row| session.unseal(row)).collect();
        let Some(first) = entries.iter().find(|entry| matches!(entry.meta.sender, Sender::User(_))) else {
            return Ok(());
        };
        let made = name_of(first.content.text());
        if session.read(|live| live.name != made) {
            return Ok(());
        }
        let answer = entries.iter().find(|entry| matches!(entry.meta.body, Body::Answer(_)));
        let answer = answer.map(|entry| excerpt(entry.content.text())).unwrap_or_default();
        let text = format!("{REQUEST}\n\nUser: {}\n\nAssistant: {answer}", excerpt(first.content.text()));
        let answering = Answering::start(AnswerRequest {
            session: session.id,
            user: session.owner.to_string(),
            models,
            conversation: Arc::new(Conversation {
                turns: vec![PromptTurn::user(text)],
                user: opaque(&session.owner),
                ..Conversation::default()
            }),
            meter: Arc::new(self.name_meter(session)),
        });
        let said = self.listen(session, answering).await;
        match said.as_deref().map(|said| title(said, longest)).filter(|title| !title.is_empty()) {
            Some(title) => self.sessions.rename_from(session, &made, &title).await,
            None => Ok(()),
        }
    }

    /// Everything the model says; `None` where it fails or says far too much.
    async fn listen(&self, session: &Arc<Session>, mut answering: Answering) -> Option<String> {
        let drain = self.sessions.lifecycle.draining().clone();
        let mut said = String::new();
        let mut whole = false;
        loop {
            let piece = tokio::select! {
                piece = answering.next() => piece,
                () = drain.cancelled() => break,
            };
            let Some(piece) = piece else { break };
            match piece {
                AnswerEvent::Model(_) => said.clear(),
                AnswerEvent::Replace(text) => said = text,
                AnswerEvent::Delta(text) => said.push_str(&text),
                AnswerEvent::Conversation(_) => {}
                AnswerEvent::End(end) => {
                    whole = matches!(end.outcome, AnswerOutcome::Finished(_));
                    break;
                }
            }
            if said.len() > LONGEST_ANSWER {
                break;
            }
        }
        answering.settle().await;
        self.sessions.refresh_usage(session).await;
        Some(said).filter(|_| whole)
    }
}

/// The beginning of a text, whole characters.
fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS).collect()
}

/// What a model means as a title: its first line without the marks models like to put around it.
fn title(said: &str, longest: usize) -> String {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = line.strip_prefix("Title:").unwrap_or(line);
    let marks = |c: char| c.is_whitespace() || "\"'`*#_“”„«»‘’".contains(c);
    let line = line.trim_matches(marks).trim_end_matches('.').trim_matches(marks);
    line.chars().filter(|c| !c.is_control()).take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_one_line_without_marks() {
        for (said, expected) in [
            ("Swifts asleep in the air", "Swifts asleep in the air"),
            ("\n\n**\"Swifts asleep\"**\n\nI chose this because …", "Swifts asleep"),
            ("# Title of it.", "Title of it"),
            ("Title: Swifts", "Swifts"),
            ("„Grüße“", "Grüße"),
            ("\u{1b}[31mred", "[31mred"),
            (" \n \"\" ", ""),
        ] {
            assert_eq!(title(said, 200), expected, "{said:?}");
        }
        assert_eq!(title(&"鳥".repeat(300), 200).chars().count(), 200);
    }
}

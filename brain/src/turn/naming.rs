//! Asks a model for the name of a session, once its first answer has ended. Until then the session has the name made from its
//! first message. A name that a human has given stays.

use std::sync::Arc;

use chatbox_shared::failure::Failure;

use super::meter::name_meter;
use super::prompt::opaque;
use super::turns::Turns;
use crate::llm::PromptTurn;
use crate::llm::answer::{AnswerEvent, AnswerOutcome, AnswerRequest, Answering};
use crate::llm::conversation::Conversation;
use crate::llm::model::Model;
use crate::log::entry::{Body, Entry, Sender};
use crate::session::handle::Session;
use crate::session::{failures, name, usage};

/// A session with more messages than this is not named: the question, its answer, and two messages written meanwhile.
const NAMED_WITHIN: u64 = 4;
/// Entries among which the first question and its answer are looked for.
const FIRST_ENTRIES: u32 = 10;
/// Characters of a message that the model gets.
const EXCERPT_CHARS: usize = 2000;
/// Bytes of the answer. A longer answer is no title.
const LONGEST_ANSWER: usize = 2000;

const REQUEST: &str = "Write a title for the conversation that begins below: at most six words, in the language of the \
    conversation, without quotation marks and without a full stop. Answer with the title alone.";

/// Asks the naming model for a name, if one is configured and the session still has the name of its first message. The turn
/// does not wait for this.
pub(super) fn name_session(turns: &Arc<Turns>, session: &Arc<Session>) {
    let young = session.read(|live| live.state.message_count <= NAMED_WITHIN && !live.name.is_empty());
    let tunables = turns.live_config.get();
    let Some(naming_model) = tunables.naming_model.as_deref().filter(|_| young) else { return };
    let models = tunables.catalog.candidates(naming_model);
    let max_chars = tunables.limits.max_name_chars;
    let (turns, session) = (Arc::clone(turns), Arc::clone(session));
    turns.sessions.lifecycle.clone().spawn(async move {
        if let Err(failure) = ask_for_name(&turns, &session, models, max_chars).await {
            tracing::debug!(session = %session.id, %failure, "the session keeps the name of its first message");
        }
    });
}

async fn ask_for_name(
    turns: &Turns,
    session: &Arc<Session>,
    models: Vec<Arc<Model>>,
    max_chars: usize,
) -> Result<(), Failure> {
    let rows = turns.store().entries_after(session.id, 0, FIRST_ENTRIES).await;
    let rows = rows.map_err(|error| failures::storage(session.id, &error))?;
    let entries: Vec<Entry> = rows.into_iter().map(|row| session.unseal(row)).collect();
    let Some(first) = entries.iter().find(|entry| matches!(entry.meta.sender, Sender::User(_))) else {
        return Ok(());
    };
    let made = name::from_message(first.content.text());
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
        meter: Arc::new(name_meter(turns, session)),
    });
    let said = listen(turns, session, answering).await;
    match said.as_deref().map(|said| title(said, max_chars)).filter(|title| !title.is_empty()) {
        Some(title) => name::rename_from(turns.store(), session, &made, &title).await,
        None => Ok(()),
    }
}

/// The whole text of the model. `None`: it failed, or its text is too long for a title.
async fn listen(turns: &Turns, session: &Arc<Session>, mut answering: Answering) -> Option<String> {
    let drain = turns.sessions.lifecycle.draining().clone();
    let mut said = String::new();
    let mut complete = false;
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
                complete = matches!(end.outcome, AnswerOutcome::Finished(_));
                break;
            }
        }
        if said.len() > LONGEST_ANSWER {
            break;
        }
    }
    answering.settle().await;
    usage::refresh(turns.store(), session).await;
    Some(said).filter(|_| complete)
}

/// The beginning of a text.
fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS).collect()
}

/// The title in the text of a model: its first line, without the quotation marks and markup that models put around it.
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

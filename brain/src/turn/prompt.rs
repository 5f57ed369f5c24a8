//! The prompt of an answer: the conversation up to the message to answer, as much of it as fits.

use std::sync::Arc;

use aws_lc_rs::digest;
use chatbox_shared::failure::Failure;
use chatbox_shared::ids::{Seq, UserId};

use crate::llm::conversation::Conversation;
use crate::llm::model::Model;
use crate::llm::{PromptRole, PromptTurn, tokens};
use crate::log::entry::{Answer, Body, Entry, Sender};
use crate::session::failures;
use crate::session::handle::Session;
use crate::store::Store;

/// Entries read from the log in one query.
const PAGE: u32 = 100;
/// Entries read for one prompt at most, except that the last page is read whole.
const MAX_ENTRIES: usize = 2000;

/// The conversation up to the message that the answer in `row` answers, as much of it as the model with the largest budget
/// can take.
pub(super) async fn conversation(
    store: &dyn Store,
    session: &Arc<Session>,
    row: &Entry,
    models: &[Arc<Model>],
) -> Result<Conversation, Failure> {
    let Some(answer) = row.meta.answer() else { return Ok(Conversation::default()) };
    let budget = models.iter().map(|model| model.prompt_budget()).max().unwrap_or(0);
    let mut history: Vec<Entry> = Vec::new();
    let (mut before, mut read_tokens) = (row.meta.seq, 0);
    while read_tokens < budget && history.len() < MAX_ENTRIES && before > 1 {
        let rows = store.entries_before(session.id, before, PAGE).await;
        let rows = rows.map_err(|error| failures::storage(session.id, &error))?;
        let Some(first) = rows.first() else { break };
        before = first.meta.seq;
        let page: Vec<Entry> = rows.into_iter().map(|row| session.unseal(row)).collect();
        read_tokens += page.iter().map(|entry| tokens::estimate(entry.content.text())).sum::<u64>();
        history.splice(0..0, page);
    }
    let conversations = models.iter().filter_map(|model| {
        let id = conversation_of(&history, &model.id)?;
        Some((model.id.clone(), id))
    });
    Ok(Conversation {
        turns: prompt_turns(&history, answer),
        user: opaque(&session.owner),
        conversations: conversations.collect(),
    })
}

/// The messages a model gets, in the order of the conversation: each answer follows the message it answers, even if the user
/// wrote more before the answer. Messages after the one to answer are left out.
fn prompt_turns(history: &[Entry], asked: &Answer) -> Vec<PromptTurn> {
    let mut placed: Vec<((Seq, Seq), PromptTurn)> = Vec::new();
    for entry in history {
        let text = entry.content.text();
        let seq = entry.meta.seq;
        let (place, role) = match (&entry.meta.body, &entry.meta.sender) {
            (Body::Answer(answer), _) if answer.reply_to < asked.reply_to && is_latest(history, answer) => {
                ((answer.reply_to, seq), PromptRole::Assistant)
            }
            (Body::Message { .. }, Sender::User(_)) if seq <= asked.reply_to => ((seq, 0), PromptRole::User),
            (Body::Message { .. }, Sender::Admin(_)) if seq <= asked.reply_to => ((seq, 0), PromptRole::Assistant),
            _ => continue,
        };
        if !text.is_empty() {
            placed.push((place, PromptTurn { role, text: text.to_owned(), images: Vec::new() }));
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, turn)| turn).collect()
}

/// Whether this is the latest of the answers to its message. The earlier ones were replaced.
fn is_latest(history: &[Entry], answer: &Answer) -> bool {
    let answers = history.iter().filter_map(|entry| entry.meta.answer());
    answers.filter(|other| other.reply_to == answer.reply_to).all(|other| other.generation <= answer.generation)
}

/// The provider's id of the conversation, from the latest answer of this model that has one.
fn conversation_of(history: &[Entry], model_id: &str) -> Option<String> {
    let answers = history.iter().rev().filter_map(|entry| entry.meta.answer());
    answers.filter(|answer| answer.model_id == model_id).find_map(|answer| answer.conversation.clone())
}

/// A stable name for the user that does not reveal who they are.
pub(super) fn opaque(user: &UserId) -> String {
    let digest = digest::digest(&digest::SHA256, format!("chatbox user\n{user}").as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use chatbox_shared::clock::Timestamp;
    use chatbox_shared::ids::{ClientMessageId, MessageId, SessionId};

    use super::*;
    use crate::log::entry::{Content, EntryMeta, EntryState, Person};

    fn entry(seq: Seq, sender: Sender, body: Body, text: &str) -> Entry {
        let meta = EntryMeta {
            id: MessageId::generate(),
            session: SessionId::generate(),
            seq,
            rev: 1,
            created_at: Timestamp(0),
            state: EntryState::Final,
            sender,
            body,
        };
        Entry { meta, content: Content::Text(text.into()) }
    }

    fn user(seq: Seq, text: &str) -> Entry {
        let body = Body::Message { client_msg_id: ClientMessageId::generate(), needs_answer: false };
        entry(seq, Sender::User(Person { id: UserId::new("u"), name: None }), body, text)
    }

    fn answer(seq: Seq, reply_to: Seq, generation: u32, text: &str) -> Entry {
        entry(seq, Sender::Ai, Body::Answer(Box::new(part(reply_to, generation))), text)
    }

    fn part(reply_to: Seq, generation: u32) -> Answer {
        Answer::begin(reply_to, generation, "m".into(), String::new(), Timestamp(0))
    }

    fn texts(history: &[Entry], asked: &Answer) -> Vec<String> {
        prompt_turns(history, asked).into_iter().map(|turn| turn.text).collect()
    }

    #[test]
    fn answers_stand_behind_their_questions_even_where_the_user_wrote_on() {
        let history =
            [user(1, "a"), user(2, "b"), answer(3, 1, 0, "A"), answer(4, 2, 0, "B"), user(5, "c"), user(6, "d")];
        assert_eq!(texts(&history, &part(5, 0)), ["a", "A", "b", "B", "c"]);
    }

    #[test]
    fn only_the_last_of_several_answers_counts_and_the_replaced_one_is_not_shown_again() {
        let history = [user(1, "a"), answer(2, 1, 0, "old"), answer(3, 1, 1, "new"), user(4, "b")];
        assert_eq!(texts(&history, &part(4, 0)), ["a", "new", "b"]);
        assert_eq!(texts(&history, &part(1, 2)), ["a"]);
    }
}

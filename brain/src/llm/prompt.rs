//! A prompt, independent of any protocol.

use bytes::Bytes;

/// A prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The operator's instructions; never the user's.
    pub system: Option<String>,
    /// The conversation, oldest first, ending with the user message to answer. Whole messages only.
    pub turns: Vec<PromptTurn>,
    /// A stable opaque hash of the user's id; no personal data.
    pub user: String,
    /// The provider's conversation id from an earlier answer (Dify).
    pub conversation: Option<String>,
    /// The id of the call in the ledger, sent to the provider so that both records can be matched.
    pub request_id: String,
    /// Leave the sampling fields out: the model rejected them.
    pub without_sampling: bool,
}

impl Prompt {
    /// The message to answer.
    pub fn question(&self) -> &str {
        self.turns.iter().rev().find(|turn| turn.role == PromptRole::User).map_or("", |turn| &turn.text)
    }

    /// The images of the message to answer.
    pub fn question_images(&self) -> &[Image] {
        self.turns.iter().rev().find(|turn| turn.role == PromptRole::User).map_or(&[], |turn| &turn.images)
    }

    /// The turns in the form every model accepts: the user begins, roles alternate, no message is empty. Neighbours of
    /// one role are joined by a blank line. Turns before the user's first are dropped, and so are images of other
    /// roles, for which no protocol has a place. A text is empty only beside images.
    pub fn alternating(&self) -> Vec<PromptTurn> {
        let mut turns: Vec<PromptTurn> = Vec::with_capacity(self.turns.len());
        let said = self.turns.iter().map(|turn| {
            let text = if turn.text.trim().is_empty() { "" } else { &turn.text };
            let images = if turn.role == PromptRole::User { turn.images.as_slice() } else { &[] };
            (turn.role, text, images)
        });
        let said = said.filter(|(_, text, images)| !text.is_empty() || !images.is_empty());
        for (role, text, images) in said.skip_while(|(role, ..)| *role == PromptRole::Assistant) {
            match turns.last_mut().filter(|last| last.role == role) {
                Some(last) => {
                    if !last.text.is_empty() && !text.is_empty() {
                        last.text.push_str("\n\n");
                    }
                    last.text.push_str(text);
                    last.images.extend_from_slice(images);
                }
                None => turns.push(PromptTurn { role, text: text.to_owned(), images: images.to_vec() }),
            }
        }
        turns
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTurn {
    /// The role of the author.
    pub role: PromptRole,
    /// The text.
    pub text: String,
    /// Images beside the text.
    pub images: Vec<Image>,
}

/// An image for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
    pub media_type: String,
    /// The content of the file.
    pub data: Bytes,
}

/// The role of an author. An assisting human has the role of the assistant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptRole {
    /// The user.
    User,
    /// The model, or a human in its place.
    Assistant,
}

impl PromptTurn {
    /// A message of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: PromptRole::User, text: text.into(), images: Vec::new() }
    }

    /// A message of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: PromptRole::Assistant, text: text.into(), images: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_alternate_and_the_user_begins() {
        let (user, assistant) = (PromptTurn::user, PromptTurn::assistant);
        let turns =
            vec![assistant("hello"), user("a"), user(" "), user("b"), assistant("c"), assistant("d"), user("e")];
        let prompt = Prompt { turns, ..Prompt::default() };
        assert_eq!(prompt.alternating(), [user("a\n\nb"), assistant("c\n\nd"), user("e")]);
        assert_eq!(prompt.question(), "e");
        assert_eq!(Prompt::default().alternating(), []);
    }

    #[test]
    fn pictures_stay_with_the_user_and_leave_no_empty_text() {
        let image =
            |name: &'static str| Image { media_type: "image/png".into(), data: Bytes::from_static(name.as_bytes()) };
        let with = |turn: PromptTurn, name| PromptTurn { images: vec![image(name)], ..turn };
        let (user, assistant) = (PromptTurn::user, PromptTurn::assistant);
        let turns = vec![
            with(user(" "), "a"),
            with(user("b"), "b"),
            with(assistant("c"), "c"),
            with(assistant(""), "d"),
            user("e"),
            with(user("\n"), "f"),
        ];
        let prompt = Prompt { turns, ..Prompt::default() };
        let first = PromptTurn { images: vec![image("a"), image("b")], ..user("b") };
        assert_eq!(prompt.alternating(), [first, assistant("c"), with(user("e"), "f")]);
        assert_eq!(prompt.question_images(), [image("f")]);
    }
}

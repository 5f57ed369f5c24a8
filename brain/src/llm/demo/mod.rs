//! The built-in model for the first run: works without network, key and cost, and says what it is. A few rules look at
//! the conversation; the same conversation at the same time gets the same answer.

mod arithmetic;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chatbox_shared::clock::Clock;
use tokio::time::{Instant, sleep_until};

use super::{Chunk, Generation, Prompt, PromptRole, Provider, ProviderError, tokens};
use crate::usage::FinishReason;
use crate::usage::TokenUsage;

/// The pause between two words: long enough to see the stream.
pub const PACE: Duration = Duration::from_millis(30);

/// The largest number the model counts to.
const MAX_COUNT: u32 = 1000;

/// The built-in model.
pub struct Demo {
    clock: Arc<dyn Clock>,
    pace: Duration,
}

impl Demo {
    /// A model that reads the time from `clock` and emits a word every `pace`.
    pub fn new(clock: Arc<dyn Clock>, pace: Duration) -> Self {
        Self { clock, pace }
    }

    /// The whole answer, by the first rule that matches the question.
    fn answer(&self, prompt: &Prompt) -> String {
        let question = prompt.question();
        let lower = question.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let has = |any: &[&str]| any.iter().any(|word| words.contains(word));
        if let Some((sum, value)) = arithmetic::solve(&lower) {
            return format!("{sum} = {}", arithmetic::number(value));
        }
        if let Some(end) = count_to(&words) {
            return (1..=end).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
        }
        if has(&[
            "configure",
            "config",
            "setup",
            "install",
            "key",
            "openai",
            "anthropic",
            "claude",
            "gpt",
            "dify",
            "ollama",
        ]) || lower.contains("real model")
        {
            return CONFIGURE.to_owned();
        }
        if has(&["time", "date", "clock", "today"]) {
            return format!("By this server's clock it is {} (UTC).", self.clock.now());
        }
        if has(&["recap", "summary", "summarise", "summarize", "earlier", "remember", "history"]) {
            return recap(prompt);
        }
        if has(&["chatbox", "demo"])
            || lower.contains("who are you")
            || lower.contains("what are you")
            || has(&["help"])
        {
            return ABOUT.to_owned();
        }
        if has(&["thanks", "thank"]) {
            return format!("You are welcome. That was message {} of yours in this conversation.", messages(prompt));
        }
        if has(&["hello", "hi", "hey", "hallo", "morning", "evening", "greetings"]) {
            return greeting(prompt);
        }
        fallback(prompt, question, &words)
    }
}

const ABOUT: &str = "I am the demo model of chatbox, a small set of rules that runs without network or key; there is no \
    language model behind me. chatbox carries a conversation between people, language models and human helpers: every \
    message is stored before it is acknowledged, answers stream word by word, and a lost connection resumes where it was. \
    I can add and multiply, tell the time, count, and recap what you wrote. Ask me how to configure a real model.";

const CONFIGURE: &str = "To talk to a real model, add it to the brain's configuration file:\n\n\
    ```toml\n[[models]]\nid = \"my-model\"\nprovider = \"openai\"        # or anthropic, dify\n\
    model = \"the provider's name of the model\"\napi_key_env = \"OPENAI_API_KEY\"\n```\n\n\
    Put the key into that environment variable and restart the brain. Local servers that speak OpenAI's protocol, such as \
    Ollama or vLLM, need only base_url and no key. Once a model is configured, I am gone.";

fn messages(prompt: &Prompt) -> usize {
    prompt.turns.iter().filter(|turn| turn.role == PromptRole::User).count()
}

fn greeting(prompt: &Prompt) -> String {
    match messages(prompt) {
        0 | 1 => "Hello! I am chatbox's demo model. Ask me what I can do, or give me a sum such as 17 * 3.".to_owned(),
        count => format!("Hello again! You have written {count} messages here. Shall I recap them?"),
    }
}

fn recap(prompt: &Prompt) -> String {
    let users = prompt.turns.iter().filter(|turn| turn.role == PromptRole::User);
    let earlier: Vec<String> = users.map(|turn| shortened(&turn.text)).collect();
    match earlier.split_last() {
        Some((_, earlier)) if !earlier.is_empty() => {
            let shown = earlier.iter().enumerate().skip(earlier.len().saturating_sub(10));
            let lines = shown.map(|(index, text)| format!("{}. {text}", index + 1)).collect::<Vec<_>>();
            let answers = prompt.turns.iter().filter(|turn| turn.role == PromptRole::Assistant).count();
            let (count, lines) = (earlier.len(), lines.join("\n"));
            format!("Before this you wrote {count} messages and got {answers} answers. You wrote:\n\n{lines}")
        }
        _ => "There is nothing to recap yet: this is your first message that I can see.".to_owned(),
    }
}

/// Says that it cannot answer, and shows that it read the question.
fn fallback(prompt: &Prompt, question: &str, words: &[&str]) -> String {
    let mut topics: Vec<&str> = words.iter().copied().filter(|word| word.chars().count() > 4).collect();
    topics.sort_by_key(|word| std::cmp::Reverse(word.chars().count()));
    topics.truncate(2);
    let kind = if question.trim_end().ends_with('?') { "a question" } else { "a message" };
    let about = match topics.as_slice() {
        [] => String::new(),
        [one] => format!(" about \"{one}\""),
        [one, two, ..] => format!(" about \"{one}\" and \"{two}\""),
    };
    format!(
        "I read {kind} of {} words{about}, number {} of yours here. I am only the demo model and cannot answer it: I know \
         sums, the time, counting, a recap of this conversation, what chatbox is, and how to configure a real model.",
        words.len(),
        messages(prompt),
    )
}

fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// "count to 20".
fn count_to(words: &[&str]) -> Option<u32> {
    let count = words.iter().position(|word| *word == "count")?;
    let end = words.iter().skip(count + 1).find_map(|word| word.parse().ok())?;
    (1..=MAX_COUNT).contains(&end).then_some(end)
}

#[async_trait]
impl Provider for Demo {
    async fn generate(&self, prompt: &Prompt) -> Result<Box<dyn Generation>, ProviderError> {
        let answer = self.answer(prompt);
        let usage = TokenUsage {
            input: tokens::estimate_prompt(prompt),
            cached: 0,
            output: tokens::estimate(&answer),
            estimated: true,
        };
        let mut chunks: VecDeque<Chunk> =
            answer.split_inclusive([' ', '\n']).map(|word| Chunk::Delta(word.to_owned())).collect();
        chunks.extend([Chunk::Usage(usage), Chunk::Finish(FinishReason::Stop)]);
        Ok(Box::new(DemoGeneration { chunks, pace: self.pace, due: Instant::now() + self.pace }))
    }
}

/// An answer under way.
struct DemoGeneration {
    chunks: VecDeque<Chunk>,
    pace: Duration,
    /// When the next word is due.
    due: Instant,
}

#[async_trait]
impl Generation for DemoGeneration {
    async fn next(&mut self) -> Option<Result<Chunk, ProviderError>> {
        if let Some(Chunk::Delta(_)) = self.chunks.front() {
            sleep_until(self.due).await;
            self.due += self.pace;
        }
        self.chunks.pop_front().map(Ok)
    }

    async fn cancel(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use chatbox_shared::clock::Timestamp;

    use super::*;
    use crate::llm::PromptTurn;

    struct Fixed;

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp(1_795_378_457_123)
        }
    }

    fn ask(turns: &[&str]) -> String {
        let turns = turns.iter().enumerate().map(|(index, text)| match index % 2 {
            0 => PromptTurn::user(*text),
            _ => PromptTurn::assistant(*text),
        });
        Demo::new(Arc::new(Fixed), PACE).answer(&Prompt { turns: turns.collect(), ..Prompt::default() })
    }

    #[test]
    fn it_answers_by_its_rules() {
        for (question, part) in [
            ("Hello there", "17 * 3"),
            ("What is 17 * 3?", "17 * 3 = 51"),
            ("please count to 5", "1 2 3 4 5"),
            ("What time is it?", "2026-11-22T20:14:17.123Z"),
            ("How do I configure a real model?", "api_key_env"),
            ("who are you?", "no language model behind me"),
            ("recap", "first message"),
            ("Why is the sky so wonderful?", "a question of 6 words about \"wonderful\""),
            ("日本", "a message of 1 words, number 1"),
        ] {
            let answer = ask(&[question]);
            assert!(answer.contains(part), "{question}: {answer}");
        }
    }

    #[test]
    fn it_looks_at_the_conversation() {
        let answer = ask(&["My cat is grey", "ok", "and old", "ok", "recap please"]);
        assert!(answer.contains("wrote 2 messages and got 2 answers"), "{answer}");
        assert!(answer.contains("1. My cat is grey\n2. and old"), "{answer}");
        assert!(ask(&["a", "b", "hi"]).contains("written 2 messages"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_speaks_word_by_word_and_tells_an_estimate() {
        let demo = Demo::new(Arc::new(Fixed), PACE);
        let prompt = Prompt { turns: vec![PromptTurn::user("count to 10")], ..Prompt::default() };
        let begin = Instant::now();
        let mut generation = demo.generate(&prompt).await.unwrap();
        let (mut words, mut text, mut usage) = (0, String::new(), None);
        while let Some(chunk) = generation.next().await {
            match chunk.unwrap() {
                Chunk::Delta(word) => {
                    words += 1;
                    text += &word;
                }
                Chunk::Usage(told) => usage = Some(told),
                end => assert_eq!(end, Chunk::Finish(FinishReason::Stop)),
            }
        }
        assert_eq!((words, text.as_str(), begin.elapsed()), (10, "1 2 3 4 5 6 7 8 9 10", PACE * 10));
        assert!(usage.is_some_and(|usage| usage.estimated && usage.input > 0 && usage.output > 0));
    }
}

//! Reads a Dify stream. Chatbots and agents end with `message_end`. Chatflows also send `workflow_finished`, before or
//! after it, and some builds omit one of the two.

use super::wire::{StreamEvent, Tokens, WorkflowData};
use crate::llm::sse::SseEvent;
use crate::llm::stream::{Decode, Output, json, no_answer, truncated};
use crate::llm::{Chunk, ErrorClass, ProviderError};
use crate::usage::FinishReason;

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The id that a stop request names.
    task_id: Option<String>,
    conversation_id: Option<String>,
    /// The text so far: the last event of a newer agent repeats it.
    text: String,
    /// The app is an agent: its text arrives as `agent_message`, and a `message` closes it.
    is_agent: bool,
    /// The app is a workflow: it ends with two events.
    is_workflow: bool,
    message_ended: bool,
    /// How the workflow ended.
    workflow: Option<Result<FinishReason, ProviderError>>,
}

impl Decoder {
    /// Reads a whole reply.
    pub(super) fn whole(body: &[u8], out: &mut Output) -> Result<(), ProviderError> {
        let reply: StreamEvent = json(body)?;
        let mut decoder = Self::default();
        decoder.ids(&reply, out);
        if reply.event == "error" {
            return Err(reply.dify_error.in_stream());
        }
        out.delta(&reply.answer.ok_or_else(no_answer)?);
        report(reply.metadata.and_then(|metadata| metadata.usage), out);
        out.finish(FinishReason::Stop);
        Ok(())
    }

    /// The id that a stop request names, once the first event has arrived.
    pub(super) fn task_id(&self) -> Option<&str> {
        self.task_id.as_deref()
    }

    /// Both ids are in every event; the first event suffices.
    fn ids(&mut self, event: &StreamEvent, out: &mut Output) {
        if self.task_id.is_none() {
            self.task_id = event.task_id.clone().filter(|id| !id.is_empty());
        }
        if self.conversation_id.is_none()
            && let Some(id) = event.conversation_id.clone().filter(|id| !id.is_empty())
        {
            out.chunk(Chunk::Conversation(id.clone()));
            self.conversation_id = Some(id);
        }
    }

    fn append(&mut self, text: &str, out: &mut Output) {
        self.text.push_str(text);
        out.delta(text);
    }

    fn replace(&mut self, text: String, out: &mut Output) {
        if self.text != text {
            self.text.clone_from(&text);
            out.replace(text);
        }
    }

    /// Finishes once no relevant event can follow.
    fn check_end(&mut self, out: &mut Output) -> Result<(), ProviderError> {
        let whole = self.message_ended && (self.workflow.is_some() || !self.is_workflow);
        if whole { self.end(out) } else { Ok(()) }
    }
}

impl Decode for Decoder {
    fn event(&mut self, event: &SseEvent, out: &mut Output) -> Result<(), ProviderError> {
        if event.data.trim().is_empty() {
            return Ok(());
        }
        let event: StreamEvent = json(event.data.as_bytes())?;
        self.ids(&event, out);
        let answer = event.answer.unwrap_or_default();
        match event.event.as_str() {
            "message" if self.is_agent => self.replace(answer, out),
            "message" => self.append(&answer, out),
            "agent_message" => {
                self.is_agent = true;
                self.append(&answer, out);
            }
            "message_replace" => self.replace(answer, out),
            "message_end" => {
                report(event.metadata.and_then(|metadata| metadata.usage), out);
                self.message_ended = true;
                return self.check_end(out);
            }
            "workflow_started" | "node_started" | "node_finished" => self.is_workflow = true,
            "workflow_finished" => {
                self.is_workflow = true;
                self.workflow = Some(workflow_end(event.data));
                return self.check_end(out);
            }
            "workflow_paused" | "human_input_required" => {
                return Err(ProviderError::new(
                    ErrorClass::Protocol,
                    "the app waits for a form, which chatbox does not support",
                ));
            }
            "error" => return Err(event.dify_error.in_stream()),
            // Pings, thoughts, files, speech, logs, and events of later versions.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Output) -> Result<(), ProviderError> {
        match (self.workflow.take(), self.message_ended) {
            (Some(end), _) => out.finish(end?),
            (None, true) => out.finish(FinishReason::Stop),
            (None, false) => return Err(truncated()),
        }
        Ok(())
    }

    fn lingering(&self) -> bool {
        self.message_ended || self.workflow.is_some()
    }
}

fn report(usage: Option<Tokens>, out: &mut Output) {
    if let Some(Tokens { prompt_tokens: input, completion_tokens: output }) = usage {
        out.usage(input, 0, output);
    }
}

fn workflow_end(data: Option<WorkflowData>) -> Result<FinishReason, ProviderError> {
    let (status, error) = data.map(|data| (data.status, data.error)).unwrap_or_default();
    match status.as_deref() {
        // An `error` event with the reason follows in most builds.
        Some("failed") => Err(ProviderError {
            should_retry: Some(false),
            ..ProviderError::new(ErrorClass::Server, format!("the workflow failed: {}", error.unwrap_or_default()))
        }),
        // Stopped at Dify by its time limit or its operator.
        Some("stopped") => Ok(FinishReason::Interrupted),
        _ => Ok(FinishReason::Stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::stream::Pipe;
    use crate::llm::stream::testing::{Read, assert_reads, assert_truncated_before, delta, finish, read, usage};

    const CHAT: &str = r#"data: {"event":"message","task_id":"t1","id":"m1","message_id":"m1","conversation_id":"c1","answer":"Gr\u00fc","created_at":1}

event: ping

data: {"event":"message","task_id":"t1","id":"m1","message_id":"m1","conversation_id":"c1","answer":"ße 😀","created_at":1}

data: {"event":"message_end","task_id":"t1","id":"m1","message_id":"m1","conversation_id":"c1","metadata":{"usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13,"total_price":"0.0001","currency":"USD","latency":1.2},"retriever_resources":[]}}

"#;

    const STARTED: &str = r#"data: {"event":"workflow_started","task_id":"t1","workflow_run_id":"r1","conversation_id":"c1","data":{"id":"r1","inputs":{},"created_at":1}}

data: {"event":"message","task_id":"t1","conversation_id":"c1","answer":"Hi"}

"#;
    const MESSAGE_END: &str = r#"data: {"event":"message_end","task_id":"t1","conversation_id":"c1","metadata":{"usage":{"prompt_tokens":10,"completion_tokens":3}}}

"#;
    const WORKFLOW_FINISHED: &str = r#"data: {"event":"workflow_finished","task_id":"t1","conversation_id":"c1","data":{"status":"succeeded","outputs":{"answer":"Hi"},"error":null}}

"#;
    const ERROR: &str = r#"data: {"event":"error","conversation_id":"c1","message_id":"m1","created_at":1,"status":400,"code":"provider_quota_exceeded","message":"x"}

"#;

    const NOISE: &str =
        "event: ping\n\ndata: {\"event\":\"ping\"}\n\ndata: {\"event\":\"tts_message\",\"audio\":\"\"}\n\n";

    fn conversation() -> Result<Chunk, ErrorClass> {
        Ok(Chunk::Conversation("c1".to_owned()))
    }

    fn replace(text: &str) -> Result<Chunk, ErrorClass> {
        Ok(Chunk::Replace(text.to_owned()))
    }

    fn read_all(events: &[&str]) -> Read {
        read(Decoder::default(), [events.concat().as_bytes()])
    }

    #[test]
    fn a_recorded_chat_reads_the_same_however_it_arrives() {
        let expected = vec![conversation(), delta("Grüße 😀"), usage(10, 3), finish(FinishReason::Stop)];
        assert_reads(Decoder::default, CHAT, NOISE, &expected);
        assert_truncated_before(Decoder::default, CHAT, 4);
    }

    #[test]
    fn a_workflow_may_end_in_either_order_or_with_one_of_the_two() {
        let expected = vec![conversation(), delta("Hi"), usage(10, 3), finish(FinishReason::Stop)];
        for order in [[MESSAGE_END, WORKFLOW_FINISHED], [WORKFLOW_FINISHED, MESSAGE_END], [MESSAGE_END, ""]] {
            assert_reads(Decoder::default, &[STARTED, order[0], order[1]].concat(), NOISE, &expected);
        }
        let without_usage = [conversation(), delta("Hi"), finish(FinishReason::Stop)];
        assert_eq!(read_all(&[STARTED, WORKFLOW_FINISHED]), without_usage);
        assert_truncated_before(Decoder::default, &[STARTED, MESSAGE_END, WORKFLOW_FINISHED].concat(), 3);
    }

    #[test]
    fn after_one_end_of_a_workflow_it_waits_for_the_other() {
        let mut pipe = Pipe::new(Decoder::default());
        pipe.push([STARTED, WORKFLOW_FINISHED].concat().as_bytes());
        assert!(pipe.decoder.lingering() && !pipe.ended());
        pipe.push(MESSAGE_END.as_bytes());
        assert!(pipe.ended());
        let mut pipe = Pipe::new(Decoder::default());
        pipe.push(CHAT.as_bytes());
        assert!(pipe.ended(), "a chatbot has one end only");
    }

    #[test]
    fn a_failed_workflow_is_an_error_with_the_reason_of_the_error_event() {
        let failed = WORKFLOW_FINISHED.replace("succeeded", "failed");
        assert_eq!(read_all(&[STARTED, &failed, ERROR]), [conversation(), delta("Hi"), Err(ErrorClass::Quota)]);
        assert_eq!(read_all(&[STARTED, &failed]), [conversation(), delta("Hi"), Err(ErrorClass::Server)]);
        let stopped = WORKFLOW_FINISHED.replace("succeeded", "stopped");
        assert_eq!(read_all(&[STARTED, &stopped, MESSAGE_END]).last(), Some(&finish(FinishReason::Interrupted)));
    }

    #[test]
    fn moderation_and_the_closing_event_of_an_agent_replace_the_text() {
        let say = |event: &str, text: &str| {
            format!(
                "data: {{\"event\":\"{event}\",\"task_id\":\"t1\",\"conversation_id\":\"c1\",\"answer\":\"{text}\"}}\n\n"
            )
        };
        let moderated = [&say("message", "bad"), &say("message_replace", "hidden"), MESSAGE_END].concat();
        let expected = vec![conversation(), delta("bad"), replace("hidden"), usage(10, 3), finish(FinishReason::Stop)];
        assert_reads(Decoder::default, &moderated, NOISE, &expected);

        let agent = say("agent_message", "a") + &say("agent_thought", "x") + &say("agent_message", "b");
        let same = read_all(&[&agent, &say("message", "ab"), MESSAGE_END]);
        assert_eq!(same, [conversation(), delta("ab"), usage(10, 3), finish(FinishReason::Stop)]);
        let other = read_all(&[&agent, &say("message", "abc"), MESSAGE_END]);
        assert_eq!(other, [conversation(), delta("ab"), replace("abc"), usage(10, 3), finish(FinishReason::Stop)]);
    }

    #[test]
    fn faults_in_the_stream_are_told_apart() {
        for (code, status, class, retryable) in [
            ("provider_quota_exceeded", 400, ErrorClass::Quota, false),
            ("completion_request_error", 400, ErrorClass::Server, false),
            ("unauthorized", 401, ErrorClass::Auth, false),
            ("internal_server_error", 500, ErrorClass::Server, true),
            ("too_many_requests", 429, ErrorClass::RateLimited, true),
            ("a_new_code", 503, ErrorClass::Overloaded, true),
            ("a_new_code", 400, ErrorClass::Rejected, false),
        ] {
            let event = ERROR.replace("provider_quota_exceeded", code).replace("400", &status.to_string());
            let mut pipe = Pipe::new(Decoder::default());
            pipe.push(event.as_bytes());
            assert!(matches!(pipe.pop(), Some(Ok(Chunk::Conversation(_)))));
            let error = pipe.pop().unwrap().unwrap_err();
            assert_eq!((error.class, error.retryable()), (class, retryable), "{code}");
        }
    }

    #[test]
    fn a_pause_for_a_form_is_an_error_and_zero_usage_is_none() {
        let paused = STARTED.replace("workflow_started", "workflow_paused");
        assert_eq!(read_all(&[&paused]), [conversation(), Err(ErrorClass::Protocol)]);
        let no_model = CHAT.replace(":10,", ":0,").replace(":3,", ":0,");
        assert_eq!(read_all(&[&no_model]), [conversation(), delta("Grüße 😀"), finish(FinishReason::Stop)]);
    }
}

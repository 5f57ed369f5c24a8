//! Reads an OpenAI chat stream: `chunk* finish-chunk [usage-chunk] [DONE]`.

use serde_json::Value;

use super::wire::{OpenAiError, Reply};
use crate::llm::ProviderError;
use crate::llm::sse::SseEvent;
use crate::llm::stream::{Decode, Output, json, no_answer, tool_requested, truncated};
use crate::usage::FinishReason;

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The reason to finish, which arrives before the usage.
    finish: Option<FinishReason>,
    /// The model refused to answer, in its own words.
    refused: bool,
}

impl Decoder {
    /// Reads a whole reply. It is complete by itself: without a reason to finish, the model stopped.
    pub(super) fn whole(body: &[u8], out: &mut Output) -> Result<(), ProviderError> {
        let mut decoder = Self::default();
        if !decoder.reply(body, out)? {
            return Err(no_answer());
        }
        decoder.finish.get_or_insert(FinishReason::Stop);
        decoder.end(out)
    }

    /// Takes a chunk or a whole reply, which have the same parts. Returns whether it contains a choice.
    fn reply(&mut self, text: &[u8], out: &mut Output) -> Result<bool, ProviderError> {
        let reply: Reply = json(text)?;
        if reply.error.is_some() || reply.object.as_deref() == Some("error") {
            let body: Value = json(text)?;
            if let Some(error) = OpenAiError::find(&body) {
                return Err(ProviderError::new(error.class_in_stream(), error.said()));
            }
        }
        let mut any = false;
        for choice in reply.choices.iter().flatten().filter(|choice| choice.index == 0) {
            any = true;
            if let Some(delta) = choice.delta.as_ref().or(choice.message.as_ref()) {
                out.delta(delta.content.as_deref().unwrap_or_default());
                if let Some(refusal) = delta.refusal.as_deref().filter(|text| !text.is_empty()) {
                    self.refused = true;
                    out.delta(refusal);
                }
            }
            self.finish = match choice.finish_reason.as_deref() {
                None | Some("") => self.finish,
                Some("length") => Some(FinishReason::Length),
                Some("content_filter") => Some(FinishReason::ContentFilter),
                Some("tool_calls" | "function_call") => return Err(tool_requested()),
                // Compatible servers use other words.
                Some(_) => Some(FinishReason::Stop),
            };
        }
        if let Some(tokens) = reply.usage {
            out.usage(tokens.prompt_tokens, tokens.cached(), tokens.completion_tokens);
        }
        Ok(any)
    }
}

impl Decode for Decoder {
    fn event(&mut self, event: &SseEvent, out: &mut Output) -> Result<(), ProviderError> {
        let data = event.data.trim();
        match data {
            "" => Ok(()),
            _ if data.starts_with("[DONE]") => self.end(out),
            _ => self.reply(data.as_bytes(), out).map(|_| ()),
        }
    }

    fn end(&mut self, out: &mut Output) -> Result<(), ProviderError> {
        let finish = self.finish.ok_or_else(truncated)?;
        out.finish(if self.refused { FinishReason::ContentFilter } else { finish });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ErrorClass;
    use crate::llm::stream::testing::{assert_reads, assert_truncated_before, delta, finish, read, usage};

    const RECORDED: &str = r#"data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Grü"},"finish_reason":null}],"usage":null,"obfuscation":"x8"}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"ße 😀"},"finish_reason":null}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

"#;

    const AZURE: &str = r#"data: {"id":"","object":"","created":0,"model":"","choices":[],"prompt_filter_results":[{"prompt_index":0}]}

data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

data: {"choices":[{"index":0,"content_filter_results":{"hate":{"filtered":false}},"content_filter_offsets":{"check_offset":1},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}

data: [DONE]

"#;

    const LOCAL: &str = r#"data:{"choices":[{"index":0,"delta":{"role":"assistant","content":"a","reasoning":"hm"}}]}

data:{"choices":[{"delta":{"content":null,"reasoning_content":"hm"},"finish_reason":""}],"usage":{"prompt_tokens":3,"completion_tokens":1}}

data:{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"length","stop_reason":7}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;

    const OLLAMA_FAILING: &str = r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"so"},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

"#;

    const NOISE: &str = "event: ping\n\nevent: news\ndata: {\"object\":\"news\",\"choices\":[]}\n\n";

    #[test]
    fn a_recorded_stream_reads_the_same_however_it_arrives() {
        let expected = vec![delta("Grüße 😀"), usage(9, 2), finish(FinishReason::Stop)];
        assert_reads(Decoder::default, RECORDED, NOISE, &expected);
        assert_truncated_before(Decoder::default, RECORDED, 4);
    }

    #[test]
    fn azure_filter_chunks_carry_no_text() {
        assert_reads(Decoder::default, AZURE, NOISE, &vec![delta("Hi"), finish(FinishReason::ContentFilter)]);
        assert_truncated_before(Decoder::default, AZURE, 4);
    }

    #[test]
    fn local_servers_put_text_into_the_first_and_the_last_chunk_and_may_never_say_done() {
        let expected = vec![delta("a"), usage(3, 1), delta("b"), usage(3, 2), finish(FinishReason::Length)];
        assert_reads(Decoder::default, LOCAL, NOISE, &expected);
    }

    #[test]
    fn a_silent_end_is_no_end() {
        assert_eq!(read(Decoder::default(), [OLLAMA_FAILING.as_bytes()]), [delta("so"), Err(ErrorClass::Truncated)]);
        assert_eq!(read(Decoder::default(), [b"data: [DONE]\n\n".as_slice()]), [Err(ErrorClass::Truncated)]);
        assert_eq!(read(Decoder::default(), []), [Err(ErrorClass::Truncated)]);
        assert_eq!(read(Decoder::default(), [b"data: {\"choi".as_slice()]), [Err(ErrorClass::Truncated)]);
        assert_eq!(read(Decoder::default(), [b"data: {\"choi\n\n".as_slice()]), [Err(ErrorClass::Protocol)]);
    }

    #[test]
    fn faults_in_the_stream_are_told_apart() {
        for (error, class) in [
            (r#"{"error":{"message":"x","type":"server_error","param":null,"code":null}}"#, ErrorClass::Server),
            (r#"{"error":{"message":"x","type":"insufficient_quota","code":"insufficient_quota"}}"#, ErrorClass::Quota),
            (r#"{"error":{"message":"x","type":"rate_limit_error","code":"slow_down"}}"#, ErrorClass::RateLimited),
            (r#"{"error":{"message":"x","code":"server_is_overloaded"}}"#, ErrorClass::Overloaded),
            (r#"{"error":{"message":"x","type":"BadRequestError","code":400}}"#, ErrorClass::Rejected),
            (r#"{"error":{"message":"x","type":"InternalServerError","code":500}}"#, ErrorClass::Server),
            (r#"{"error":"model runner has unexpectedly stopped"}"#, ErrorClass::Server),
            (r#"{"object":"error","message":"maximum context length is 8","code":400}"#, ErrorClass::ContextLength),
            (r#"{"error":{"message":"x","code":"content_filter"}}"#, ErrorClass::ContentFiltered),
        ] {
            let stream = format!("{OLLAMA_FAILING}data: {error}\n\ndata: [DONE]\n\n");
            assert_eq!(read(Decoder::default(), [stream.as_bytes()]), [delta("so"), Err(class)], "{error}");
        }
    }

    #[test]
    fn a_refusal_is_shown_and_marked_and_a_tool_is_an_error() {
        let refusal = "data: {\"choices\":[{\"delta\":{\"refusal\":\"I can not.\"}}]}\n\n\
                       data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let expected = vec![delta("I can not."), finish(FinishReason::ContentFilter)];
        assert_reads(Decoder::default, refusal, NOISE, &expected);
        let tool = r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0}]},"finish_reason":"tool_calls"}]}"#;
        let tool = format!("{tool}\n\n");
        assert_eq!(read(Decoder::default(), [tool.as_bytes()]), [Err(ErrorClass::Protocol)]);
    }

    #[test]
    fn an_answer_that_never_ends_is_ended() {
        let text = "x".repeat(1 << 20);
        let chunk = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let read = read(Decoder::default(), std::iter::repeat_n(chunk.as_bytes(), 6));
        assert_eq!(read.last(), Some(&Err(ErrorClass::Protocol)));
    }
}

//! Reads an Anthropic Messages stream: `message_start block* message_delta+ message_stop`, with pings and errors anywhere.

use super::wire::{BlockDelta, Reply, StreamEvent, Tokens};
use crate::llm::sse::SseEvent;
use crate::llm::stream::{Decode, Output, json, no_answer, tool_requested, truncated};
use crate::llm::{Chunk, ProviderError};
use crate::usage::FinishReason;

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    tokens: Tokens,
    /// The reason to finish, which arrives before `message_stop`.
    stop_reason: Option<FinishReason>,
}

impl Decoder {
    /// Reads a whole reply.
    pub(super) fn whole(body: &[u8], out: &mut Output) -> Result<(), ProviderError> {
        let reply: Reply = json(body)?;
        if let Some(error) = reply.error {
            return Err(error.in_stream());
        }
        reply.content.ok_or_else(no_answer)?.iter().for_each(|block| out.delta(block.text()));
        let mut decoder = Self::default();
        decoder.tokens.update(&reply.usage.unwrap_or_default());
        decoder.report(out);
        out.finish(finish_reason(reply.stop_reason.as_deref())?.unwrap_or(FinishReason::Stop));
        Ok(())
    }

    /// Reports the usage once the output is known: the number in `message_start` is a placeholder.
    fn report(&self, out: &mut Output) {
        if let Some(output) = self.tokens.output_tokens {
            out.usage(self.tokens.input(), self.tokens.cached(), output);
        }
    }
}

impl Decode for Decoder {
    fn event(&mut self, event: &SseEvent, out: &mut Output) -> Result<(), ProviderError> {
        if event.data.trim().is_empty() {
            return Ok(());
        }
        match json(event.data.as_bytes())? {
            StreamEvent::MessageStart { message } => {
                self.tokens.update(&message.usage.unwrap_or_default());
                let (input, cached) = (self.tokens.input(), self.tokens.cached());
                if input > 0 {
                    out.chunk(Chunk::InputTokens { input, cached });
                }
            }
            StreamEvent::ContentBlockStart { content_block } => out.delta(content_block.text()),
            StreamEvent::ContentBlockDelta { delta: BlockDelta::TextDelta { text } } => out.delta(&text),
            StreamEvent::MessageDelta { delta, usage } => {
                if let Some(usage) = usage {
                    self.tokens.update(&usage);
                    self.report(out);
                }
                self.stop_reason = finish_reason(delta.stop_reason.as_deref())?.or(self.stop_reason);
            }
            StreamEvent::MessageStop => out.finish(self.stop_reason.unwrap_or(FinishReason::Stop)),
            StreamEvent::Error { error } => {
                return Err(error.in_stream());
            }
            StreamEvent::ContentBlockDelta { delta: BlockDelta::Other } | StreamEvent::Other => {}
        }
        Ok(())
    }

    /// Only `message_stop` ends an answer.
    fn end(&mut self, _out: &mut Output) -> Result<(), ProviderError> {
        Err(truncated())
    }
}

fn finish_reason(stop_reason: Option<&str>) -> Result<Option<FinishReason>, ProviderError> {
    Ok(Some(match stop_reason {
        None => return Ok(None),
        Some("max_tokens" | "model_context_window_exceeded") => FinishReason::Length,
        Some("refusal") => FinishReason::ContentFilter,
        Some("tool_use") => return Err(tool_requested()),
        // A long turn of the provider's own tools, which another request would continue: the text so far is kept.
        Some("pause_turn") => FinishReason::Interrupted,
        Some(_) => FinishReason::Stop,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ErrorClass;
    use crate::llm::stream::testing::{assert_reads, assert_truncated_before, delta, finish, read};
    use crate::usage::TokenUsage;

    const RECORDED: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":3,"cache_read_input_tokens":2,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hidden"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Grüße "}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"😀"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;

    const NOISE: &str =
        "event: ping\ndata: {\"type\": \"ping\"}\n\nevent: news\ndata: {\"type\":\"news\",\"index\":0}\n\n";

    /// What `message_start` tells, and what `message_delta` does.
    fn started() -> Result<Chunk, ErrorClass> {
        Ok(Chunk::InputTokens { input: 30, cached: 2 })
    }

    fn cached_usage(input: u64, output: u64) -> Result<Chunk, ErrorClass> {
        Ok(Chunk::Usage(TokenUsage { input, cached: 2, output, estimated: false }))
    }

    fn expected() -> Vec<Result<Chunk, ErrorClass>> {
        vec![started(), delta("Grüße 😀"), cached_usage(30, 15), finish(FinishReason::Stop)]
    }

    #[test]
    fn a_recorded_stream_reads_the_same_however_it_arrives() {
        assert_reads(Decoder::default, RECORDED, NOISE, &expected());
        assert_truncated_before(Decoder::default, RECORDED, 13);
    }

    #[test]
    fn the_last_event_needs_no_blank_line_and_no_line_end() {
        assert_eq!(read(Decoder::default(), [RECORDED.trim_end().as_bytes()]), expected());
        assert_eq!(read(Decoder::default(), [format!("{RECORDED}{NOISE}").as_bytes()]), expected());
    }

    #[test]
    fn the_stop_reason_tells_how_it_ended() {
        for (reason, end) in [
            ("end_turn", finish(FinishReason::Stop)),
            ("stop_sequence", finish(FinishReason::Stop)),
            ("max_tokens", finish(FinishReason::Length)),
            ("model_context_window_exceeded", finish(FinishReason::Length)),
            ("refusal", finish(FinishReason::ContentFilter)),
            ("pause_turn", finish(FinishReason::Interrupted)),
            ("something_new", finish(FinishReason::Stop)),
            ("tool_use", Err(ErrorClass::Protocol)),
        ] {
            let stream = RECORDED.replace("end_turn", reason);
            assert_eq!(read(Decoder::default(), [stream.as_bytes()]).last(), Some(&end), "{reason}");
        }
    }

    #[test]
    fn usage_is_a_total_and_later_input_counts_win() {
        let twice = RECORDED.replace(
            "event: message_stop",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"input_tokens\":40,\
             \"output_tokens\":18}}\n\nevent: message_stop",
        );
        let expected =
            vec![started(), delta("Grüße 😀"), cached_usage(30, 15), cached_usage(45, 18), finish(FinishReason::Stop)];
        assert_eq!(read(Decoder::default(), [twice.as_bytes()]), expected);
    }

    #[test]
    fn faults_in_the_stream_are_classified_by_their_type() {
        for (kind, code, class) in [
            ("overloaded_error", "", ErrorClass::Overloaded),
            ("api_error", "", ErrorClass::Server),
            ("timeout_error", "", ErrorClass::Timeout),
            ("rate_limit_error", "ramp_limit_exceeded", ErrorClass::RateLimited),
            ("rate_limit_error", "enforced_spend_limit_reached", ErrorClass::Quota),
            ("authentication_error", "", ErrorClass::Auth),
            ("billing_error", "", ErrorClass::Quota),
            ("invalid_request_error", "", ErrorClass::Rejected),
            ("a_new_error", "", ErrorClass::Server),
        ] {
            let error = format!(
                "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"x\",\
                 \"details\":{{\"error_code\":\"{code}\"}}}},\"request_id\":\"req_1\"}}\n\n"
            );
            assert_eq!(read(Decoder::default(), [error.as_bytes()]), [Err(class)], "{kind}");
            let (head, tail) = RECORDED.split_at(
                RECORDED
                    .find("event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}")
                    .unwrap(),
            );
            let stream = format!("{head}{error}{tail}");
            assert_eq!(
                read(Decoder::default(), [stream.as_bytes()]),
                [started(), delta("Grüße 😀"), Err(class)],
                "{kind}"
            );
        }
    }
}

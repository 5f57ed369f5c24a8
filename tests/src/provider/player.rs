//! Plays a script: turns its steps into the frames of a body.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Instant, sleep, sleep_until};

use super::dialect::Names;
use super::event::Event;
use super::faulty_stream::CloseMode;
use super::format::SseWriter;
use super::gate::Gate;
use super::gzip::Gzip;
use super::journal::{Call, End, Ending};
use super::recorder::StreamRecorder;
use super::script::{Break, Script};
use super::stamp;
use super::step::{Finish, Step, Usage};
use super::stops::Running;

/// Larger pieces are sent in parts of this size, so that a slow reader slows the script down.
const PART: usize = 64 << 10;
/// The input tokens in the usage of an answer that a stop call ended.
const STOPPED_INPUT: u64 = 10;

/// The connection is to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the script")
    }
}

impl std::error::Error for Cut {}

/// The result of one step.
enum Played {
    Bytes(Bytes),
    Events(Vec<Event>),
    Nothing,
    Break(Break),
    HalfClose,
    Stalled,
    /// Dify's stop call came.
    Stopped,
}

/// A script that is being played to one client.
pub(super) struct Player {
    script: Script,
    steps: VecDeque<Step>,
    names: Names,
    ending: Ending,
    close_mode: CloseMode,
    writer: SseWriter,
    recorder: StreamRecorder,
    gzip: Option<Gzip>,
    /// Pieces of the current step that are not sent yet.
    pieces: VecDeque<Bytes>,
    sent: usize,
    deltas: u64,
    /// When the next piece of a paced step is due.
    due: Option<Instant>,
    stop: Option<Running>,
    over: bool,
}

impl Player {
    pub(super) fn new(
        mut script: Script,
        names: Names,
        ending: Ending,
        close_mode: CloseMode,
        stop: Option<Running>,
    ) -> Self {
        Self {
            steps: std::mem::take(&mut script.steps).into(),
            writer: SseWriter::new(script.format.clone()),
            recorder: StreamRecorder::new(names.dialect()),
            gzip: script.gzip.then(Gzip::new),
            script,
            names,
            ending,
            close_mode,
            pieces: VecDeque::new(),
            sent: 0,
            deltas: 0,
            due: None,
            stop,
            over: false,
        }
    }

    /// The next frame; `None` after the clean end or a cut.
    pub(super) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Cut>> {
        if self.over {
            return None;
        }
        loop {
            if let Some((at, how)) = self.script.break_at
                && self.sent >= at
            {
                return self.break_off(how).await;
            }
            if let Some(piece) = self.pieces.pop_front() {
                return Some(Ok(self.hand_out(piece).await));
            }
            let played = match self.stop.as_ref().map(Running::gate) {
                Some(gate) => self.play_until(&gate).await,
                None => self.play_next().await,
            };
            match played {
                None => match self.gzip.take() {
                    Some(gzip) => self.pieces.push_back(gzip.end().into()),
                    None => return self.end(),
                },
                Some(Played::Nothing) => {}
                Some(Played::Break(how)) => return self.break_off(how).await,
                Some(Played::HalfClose) => {
                    self.close_mode.half_close();
                    self.ending.tell(End::Cut);
                    return std::future::pending().await;
                }
                Some(Played::Stalled) => return std::future::pending().await,
                Some(Played::Bytes(bytes)) => {
                    let mark = self.writer.mark();
                    self.queue(if mark.is_empty() { bytes } else { [mark.as_bytes(), &bytes].concat().into() });
                }
                Some(Played::Events(events)) => self.speak(&events),
                Some(Played::Stopped) => self.stopped(),
            }
        }
    }

    async fn play_until(&mut self, stop: &Gate) -> Option<Played> {
        tokio::select! {
            biased;
            () = stop.opened() => Some(Played::Stopped),
            played = self.play_next() => played,
        }
    }

    /// Skips the remaining steps and sends the end that a stop call causes.
    fn stopped(&mut self) {
        self.stop = None;
        self.steps.clear();
        self.script.live = None;
        let events = self.names.stopped(Usage::new(STOPPED_INPUT, self.deltas));
        self.speak(&events);
    }

    fn speak(&mut self, events: &[Event]) {
        let last = self.script.live.is_none() && !self.steps.iter().any(Step::speaks);
        let text = self.writer.write(events, &self.names, last);
        self.queue(text.into());
    }

    fn queue(&mut self, bytes: Bytes) {
        let mut bytes = match &mut self.gzip {
            Some(gzip) => gzip.wrap(&bytes).into(),
            None => bytes,
        };
        let size = self.script.split.unwrap_or(PART);
        while !bytes.is_empty() {
            self.pieces.push_back(bytes.split_to(size.min(bytes.len())));
        }
    }

    async fn hand_out(&mut self, mut piece: Bytes) -> Frame<Bytes> {
        if let Some((at, _)) = self.script.break_at {
            piece.truncate(at - self.sent);
        }
        if self.script.split.is_some() {
            // Lets hyper send the piece before this one by itself.
            tokio::task::yield_now().await;
        }
        self.sent += piece.len();
        let (recorder, readable) = (&mut self.recorder, !self.script.gzip);
        let finished = self.ending.note(|call: &mut Call| {
            call.bytes_sent += piece.len();
            if readable {
                recorder.read(&piece, &mut call.sent);
            }
            call.sent.finished
        });
        if finished == Some(true) {
            // An ended answer cannot be stopped any more.
            self.stop = None;
        }
        Frame::data(piece)
    }

    fn end(&mut self) -> Option<Result<Frame<Bytes>, Cut>> {
        self.over = true;
        let (recorder, readable) = (&mut self.recorder, !self.script.gzip);
        if readable {
            self.ending.note(|call| recorder.end(&mut call.sent));
        }
        self.ending.tell(End::Finished);
        None
    }

    /// Plays the next step; `None` after the last one. Cancel-safe while it waits for a live step.
    async fn play_next(&mut self) -> Option<Played> {
        let step = match self.steps.pop_front() {
            Some(step) => step,
            None => self.script.live.as_ref()?.lock().await.recv().await?,
        };
        Some(self.play(step).await)
    }

    async fn play(&mut self, step: Step) -> Played {
        match step {
            Step::Bytes(bytes) => Played::Bytes(bytes),
            // Placeholders, as the API sends them before it knows the usage.
            Step::Begin => Played::Events(self.names.begin(Usage::new(1, 1))),
            Step::BeginWith(usage) => Played::Events(self.names.begin(usage)),
            Step::Delta(text) => self.delta(&text),
            Step::Reasoning { text, field } => Played::Events(self.names.reasoning(&text, field.as_deref())),
            Step::HugeLine { mib } => self.delta(&"huge ".repeat(usize::try_from(mib).unwrap_or(1) * (1 << 20) / 5)),
            Step::KeepAlive => Played::Events(vec![self.names.keep_alive()]),
            Step::Finish { input, output } => self.finish(Some(Usage::new(input, output))),
            Step::FinishWithoutUsage => self.finish(None),
            Step::FinishWith(finish) => Played::Events(self.names.finish(&finish)),
            Step::Fault(fault) => Played::Events(self.names.fault(&fault)),
            Step::Event { name, data } => {
                let data = data.map(|data| data.as_str().map_or_else(|| data.to_string(), str::to_owned));
                Played::Events(vec![Event::Data { name, data }])
            }
            Step::Chunk(more) => Played::Events(vec![self.names.chunk(&more)]),
            Step::Dify { event, with } => Played::Events(vec![self.names.dify_scripted(&event, &with)]),
            Step::Refusal(fault) => Played::Bytes(self.names.dialect().fault(&fault).to_string().into()),
            Step::Whole(text) => Played::Bytes(self.names.dialect().whole(&text).to_string().into()),
            Step::Wait(time) => {
                sleep(time).await;
                Played::Nothing
            }
            Step::Hold(gate) => {
                gate.opened().await;
                Played::Nothing
            }
            Step::Stall => Played::Stalled,
            Step::Cut => Played::Break(Break::Close),
            Step::Reset => Played::Break(Break::Reset),
            Step::HalfClose => Played::HalfClose,
            Step::Stamps { .. } | Step::KeepAlives { .. } | Step::Endless { .. } => self.paced(step).await,
        }
    }

    /// One round of a repeated step, at its pace. The remaining rounds are put back into the queue.
    async fn paced(&mut self, mut step: Step) -> Played {
        let (every, left) = match &mut step {
            Step::Stamps { until: Some(gate), .. } if gate.is_open() => (Duration::ZERO, Some(0)),
            Step::Stamps { every, count, .. } | Step::KeepAlives { every, count } => {
                let left = *count;
                *count = left.map(|left| left.saturating_sub(1));
                (*every, left)
            }
            Step::Endless { every, .. } => (*every, None),
            _ => (Duration::ZERO, Some(0)),
        };
        if left == Some(0) {
            self.due = None;
            return Played::Nothing;
        }
        // Due times, not sums of waits: the pace stays exact over thousands of pieces.
        let due = *self.due.get_or_insert_with(|| Instant::now() + phase(every, self.ending.number()));
        self.due = Some(due + every);
        sleep_until(due).await;
        let played = match &step {
            Step::KeepAlives { .. } => Played::Events(vec![self.names.keep_alive()]),
            Step::Endless { text, .. } => self.delta(text.as_deref().unwrap_or("on and on ")),
            _ => self.delta(&stamp::now()),
        };
        self.steps.push_front(step);
        played
    }

    fn delta(&mut self, text: &str) -> Played {
        self.deltas += 1;
        Played::Events(vec![self.names.delta(text)])
    }

    fn finish(&self, usage: Option<Usage>) -> Played {
        Played::Events(self.names.finish(&Finish { usage, ..Finish::default() }))
    }

    /// Ends the body with an error. Earlier pieces must reach the client first: hyper writes them while this yields.
    async fn break_off(&mut self, how: Break) -> Option<Result<Frame<Bytes>, Cut>> {
        tokio::task::yield_now().await;
        self.over = true;
        if how == Break::Reset {
            self.close_mode.reset();
        }
        self.ending.tell(End::Cut);
        Some(Err(Cut))
    }
}

/// The offset of a stream in its first period. Without it, streams that begin together always send at the same time, and
/// the measured delay is that of their queue.
fn phase(every: Duration, number: usize) -> Duration {
    let part = u32::try_from(number * 37 % 100).unwrap_or_default();
    every * part / 100
}

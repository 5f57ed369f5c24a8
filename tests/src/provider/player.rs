//! Plays a script: steps in, frames of the body out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Instant, sleep, sleep_until};

use super::dialect::Names;
use super::journal::{End, Ending};
use super::script::{Script, Step};
use super::stamp;

/// The connection is to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the script")
    }
}

impl std::error::Error for Cut {}

/// What one step comes to.
enum Played {
    Bytes(Bytes),
    Nothing,
    Cut,
}

/// A script that is being played to one client.
pub(super) struct Player {
    script: Script,
    steps: VecDeque<Step>,
    names: Names,
    ending: Ending,
    /// Pieces of the current step that are not sent yet.
    pieces: VecDeque<Bytes>,
    sent: usize,
    /// When the next stamp is due.
    stamp_at: Option<Instant>,
    over: bool,
}

impl Player {
    pub(super) fn new(mut script: Script, names: Names, ending: Ending) -> Self {
        let steps = std::mem::take(&mut script.steps).into();
        Self { script, steps, names, ending, pieces: VecDeque::new(), sent: 0, stamp_at: None, over: false }
    }

    /// The next frame; `None` after the clean end or a cut.
    pub(super) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Cut>> {
        if self.over {
            return None;
        }
        loop {
            if self.script.cut_at.is_some_and(|at| self.sent >= at) {
                return self.cut().await;
            }
            if let Some(mut piece) = self.pieces.pop_front() {
                if let Some(at) = self.script.cut_at {
                    piece.truncate(at - self.sent);
                }
                if self.script.split.is_some() {
                    // Lets the piece before this one go out by itself.
                    tokio::task::yield_now().await;
                }
                self.sent += piece.len();
                self.ending.sent(piece.len());
                return Some(Ok(Frame::data(piece)));
            }
            let Some(step) = self.next_step().await else {
                self.over = true;
                self.ending.tell(End::Finished);
                return None;
            };
            match self.play(step).await {
                Played::Nothing => {}
                Played::Cut => return self.cut().await,
                Played::Bytes(mut bytes) => match self.script.split {
                    None => self.pieces.push_back(bytes),
                    Some(size) => {
                        while !bytes.is_empty() {
                            self.pieces.push_back(bytes.split_to(size.min(bytes.len())));
                        }
                    }
                },
            }
        }
    }

    async fn next_step(&mut self) -> Option<Step> {
        if let Some(step) = self.steps.pop_front() {
            return Some(step);
        }
        self.script.live.as_ref()?.lock().await.recv().await
    }

    async fn play(&mut self, step: Step) -> Played {
        match step {
            Step::Bytes(bytes) => Played::Bytes(bytes),
            Step::Begin => Played::Bytes(self.names.begin()),
            Step::Delta(text) => Played::Bytes(self.names.delta(&text)),
            Step::KeepAlive => Played::Bytes(self.names.keep_alive()),
            Step::Finish { input, output } => Played::Bytes(self.names.finish(Some((input, output)))),
            Step::FinishWithoutUsage => Played::Bytes(self.names.finish(None)),
            Step::Wait(time) => {
                sleep(time).await;
                Played::Nothing
            }
            Step::Hold(gate) => {
                gate.opened().await;
                Played::Nothing
            }
            Step::Stall => std::future::pending().await,
            Step::Cut => Played::Cut,
            Step::Stamps { count: Some(0), .. } => Played::Nothing,
            Step::Stamps { until: Some(gate), .. } if gate.is_open() => Played::Nothing,
            Step::Stamps { every, count, until } => {
                // Due times are kept, not waits added up: the pace stays true over thousands of pieces.
                let due = *self.stamp_at.get_or_insert_with(|| Instant::now() + phase(every, self.ending.number()));
                self.stamp_at = Some(due + every);
                sleep_until(due).await;
                self.steps.push_front(Step::Stamps { every, count: count.map(|count| count - 1), until });
                Played::Bytes(self.names.delta(&stamp::now()))
            }
        }
    }

    /// What was sent before has to reach the client first: hyper writes it out while this waits.
    async fn cut(&mut self) -> Option<Result<Frame<Bytes>, Cut>> {
        tokio::task::yield_now().await;
        self.over = true;
        self.ending.tell(End::Cut);
        Some(Err(Cut))
    }
}

/// Where in the first period a stream begins. Streams that began together would otherwise send all at once for ever, and
/// what is measured would be their queue.
fn phase(every: Duration, number: usize) -> Duration {
    let part = u32::try_from(number * 37 % 100).unwrap_or_default();
    every * part / 100
}

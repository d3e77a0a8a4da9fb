//! What has come to the core from links and is not stepped yet, and whether the end was asked for in it.
//!
//! It deliberately knows no machine and no disk. Invariants: events leave in the order in which they came; who asks for the
//! end is noticed while nothing is stepped, too, as long as there is room here.

use std::collections::VecDeque;

use sheaf_roles::router::{Event, Inbound};
use sheaf_task::Question;
use tokio::sync::mpsc::Receiver;

use crate::core::Input;

/// Events that wait while the writer gets nowhere. Full: no more are taken, and links read nothing more.
const WAITING_MAX: usize = 4_096;

/// Everything that comes from links.
pub(crate) struct Inbox {
    inputs: Receiver<Vec<Input>>,
    /// Batches of the present [`Inbox::fill`].
    batches: Vec<Vec<Input>>,
    waiting: VecDeque<Input>,
    /// A message has asked for the end. It has not been stepped, perhaps.
    asks_stop: bool,
}

impl Inbox {
    /// Nothing has come yet.
    pub(crate) fn new(inputs: Receiver<Vec<Input>>) -> Self {
        Self { inputs, batches: Vec::new(), waiting: VecDeque::new(), asks_stop: false }
    }

    /// What came first.
    pub(crate) fn next(&mut self) -> Option<Input> {
        self.waiting.pop_front()
    }

    /// Everything that came is stepped.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// Waits for more, and takes so many batches at most. False: nobody can send any more. Cancel-safe.
    pub(crate) async fn fill(&mut self, batches_max: usize) -> bool {
        let taken = self.inputs.recv_many(&mut self.batches, batches_max).await;
        self.waiting.extend(self.batches.drain(..).flatten().inspect(|input| self.asks_stop |= asks_stop(input)));
        taken > 0
    }

    /// A message has asked for the end.
    pub(crate) fn asks_stop(&self) -> bool {
        self.asks_stop
    }
}

fn asks_stop(input: &Input) -> bool {
    matches!(input, Input::Event(Event::Message { inbound: Inbound::Ask { question: Question::Shutdown, .. }, .. }))
}

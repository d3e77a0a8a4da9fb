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

/// Bytes of bodies and results in them, but for the last batch. Full: the same.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Everything that comes from links.
pub(crate) struct Inbox {
    inputs: Receiver<Vec<Input>>,
    /// Batches of the present [`Inbox::fill`].
    batches: Vec<Vec<Input>>,
    waiting: VecDeque<Input>,
    /// Bytes of bodies and results in `waiting`.
    bytes: usize,
    /// A message has asked for the end. It has not been stepped, perhaps.
    asks_stop: bool,
}

impl Inbox {
    /// Nothing has come yet.
    pub(crate) fn new(inputs: Receiver<Vec<Input>>) -> Self {
        Self { inputs, batches: Vec::new(), waiting: VecDeque::new(), bytes: 0, asks_stop: false }
    }

    /// What came first.
    pub(crate) fn next(&mut self) -> Option<Input> {
        let input = self.waiting.pop_front()?;
        self.bytes -= bytes_of(&input);
        Some(input)
    }

    /// Everything that came is stepped.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nothing has come that is not stepped, here or on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.inputs.is_empty()
    }

    /// Whether more may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX && self.bytes < WAITING_BYTES_MAX
    }

    /// Waits for more, and takes so many batches at most. False: nobody can send any more. Cancel-safe.
    pub(crate) async fn fill(&mut self, batches_max: usize) -> bool {
        let taken = self.inputs.recv_many(&mut self.batches, batches_max).await;
        for input in self.batches.drain(..).flatten() {
            self.asks_stop |= asks_stop(&input);
            self.bytes += bytes_of(&input);
            self.waiting.push_back(input);
        }
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

/// What makes an event large.
fn bytes_of(input: &Input) -> usize {
    let Input::Event(Event::Message { inbound, .. }) = input else { return 0 };
    match inbound {
        Inbound::Submit { rows, .. } => rows.iter().map(|row| row.body.len()).sum(),
        Inbound::Results(items) => items.iter().map(|item| item.outcome.len()).sum(),
        Inbound::Piece(piece) => piece.bytes.len(),
        Inbound::OpenJob { .. }
        | Inbound::Scanned { .. }
        | Inbound::Ask { .. }
        | Inbound::Register(_)
        | Inbound::Recalled(_)
        | Inbound::Leave
        | Inbound::Watch { .. } => 0,
    }
}

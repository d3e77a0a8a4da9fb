//! Effects on their way out: what may go now, and what waits for the disk. One function releases.
//!
//! Invariant: an output leaves only when every record up to its gate is durable. Outputs with gates leave in the order
//! in which they were put, so a peer's messages keep their order as long as its gates never fall (`Router::send`).

use std::collections::VecDeque;

use super::event::{Lsn, Output};
use super::record::Record;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    now: VecDeque<Output>,
    gated: VecDeque<(Lsn, Output)>,
    written: Lsn,
    durable: Lsn,
    /// Releases so many records early: 0 but for a mutation.
    early: u64,
}

impl Outbox {
    pub(super) fn new(early: u64) -> Self {
        Self { now: VecDeque::new(), gated: VecDeque::new(), written: Lsn::NONE, durable: Lsn::NONE, early }
    }

    /// Everything up to here is on disk and nothing after it is written.
    pub(super) fn start(&mut self, last: Lsn) {
        (self.written, self.durable) = (last, last);
    }

    /// The last record written.
    pub(super) fn written(&self) -> Lsn {
        self.written
    }

    /// Takes a record to write; its position must have been counted with [`Outbox::count`].
    pub(super) fn append(&mut self, lsn: Lsn, record: Record) {
        self.now.push_back(Output::Append { lsn, record });
    }

    /// The position of the next record.
    pub(super) fn count(&mut self) -> Lsn {
        self.written = self.written.next();
        self.written
    }

    /// Puts an output that waits for `gate`.
    pub(super) fn put(&mut self, gate: Lsn, output: Output) {
        assert!(gate <= self.written, "nothing rests on a record that is not written");
        if self.open(gate) {
            self.now.push_back(output);
        } else {
            self.gated.push_back((gate, output));
        }
    }

    /// The one place where what waited is released.
    pub(super) fn release(&mut self, durable: Lsn) {
        assert!(durable <= self.written, "durable is what was written");
        self.durable = self.durable.max(durable);
        while let Some((gate, _)) = self.gated.front() {
            if !self.open(*gate) {
                break;
            }
            self.now.extend(self.gated.pop_front().map(|(_, output)| output));
        }
    }

    fn open(&self, gate: Lsn) -> bool {
        gate.0 <= self.durable.0 + self.early
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.now.pop_front()
    }

    /// Nothing waits for the disk, and everything written is there.
    pub(super) fn is_settled(&self) -> bool {
        self.gated.is_empty() && self.durable == self.written
    }
}

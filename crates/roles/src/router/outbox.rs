//! Effects on their way out: what may go now, and what waits for the disk. One function releases.
//!
//! Invariant: an output leaves only when every record up to its gate is durable. What waits leaves in the order of its
//! gates, equal ones in the order in which they were put, and nothing that is open waits for something that is not: so a
//! peer's messages keep their order as long as its gates never fall (`Router::send`).

use std::collections::{BTreeMap, VecDeque};

use super::event::{Lsn, Output};
use super::record::Record;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    now: VecDeque<Output>,
    /// By gate, then by number of putting.
    gated: BTreeMap<(Lsn, u64), Output>,
    put: u64,
    written: Lsn,
    durable: Lsn,
    /// Releases so many records early: 0 but for a mutation.
    early: u64,
}

impl Outbox {
    pub(super) fn new(early: u64) -> Self {
        Self { now: VecDeque::new(), gated: BTreeMap::new(), put: 0, written: Lsn::NONE, durable: Lsn::NONE, early }
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
            self.put += 1;
            self.gated.insert((gate, self.put), output);
        }
    }

    /// The one place where what waited is released.
    pub(super) fn release(&mut self, durable: Lsn) {
        assert!(durable <= self.written, "durable is what was written");
        self.durable = self.durable.max(durable);
        while let Some(first) = self.gated.first_entry() {
            if first.key().0.0 > self.durable.0 + self.early {
                break;
            }
            self.now.push_back(first.remove());
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

#[cfg(test)]
mod tests {
    use super::super::event::PeerId;
    use super::*;
    use sheaf_session::{Lane, Place};

    fn commit(seq: u64) -> Output {
        Output::Commit { peer: PeerId(1), place: Place { lane: Lane::Bulk, epoch: 1, seq } }
    }

    /// Found under load: one peer's output with a late gate, put first, kept back another's that was open, and a third, put
    /// after that one had become open, overtook it.
    #[test]
    fn nothing_overtakes_what_has_an_earlier_gate() {
        let mut out = Outbox::new(0);
        while out.count() < Lsn(10) {}
        out.put(Lsn(9), commit(9));
        out.put(Lsn(4), commit(4));
        out.put(Lsn(4), commit(5));
        out.release(Lsn(6));
        out.put(Lsn(5), commit(6));
        out.release(Lsn(10));
        let left: Vec<_> = std::iter::from_fn(|| out.poll()).collect();
        assert_eq!(left, [commit(4), commit(5), commit(6), commit(9)]);
        assert!(out.is_settled());
    }
}

//! The durable state of one side of a session, rebuilt by replaying its records.
//!
//! Invariant: `apply` accepts any sequence of records without panic. A record that does not continue the state (its
//! predecessor was lost in a crash, unsynced) changes nothing: what it named was never sent.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::record::{Record, Step};
use crate::wire::KIND_VOID;
use crate::{Lane, Place, Receipt, SessionId};

/// What [`crate::Session::recover`] starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The session.
    pub id: SessionId,
    /// The highest incarnation that [`Record::start`] logged; the next start takes one more.
    pub incarnation: u64,
    /// My sending lanes, as far as they have depth DISK: urgent, bulk.
    pub tx: [TxState; 2],
    /// The newest receipt of each of the peer's lanes of depth DISK.
    pub rx: Vec<Receipt>,
}

/// A sending lane of depth DISK.
///
/// ```text
///   n:     1 … first-1     first … first+log.len()-1
///          forgotten       log, numbered base, base+1 … on the wire
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxState {
    /// 0: nothing was ever persisted.
    pub(crate) epoch: u64,
    pub(crate) life: u64,
    pub(crate) base: u64,
    pub(crate) first: u64,
    /// Hash over the lane up to base − 1.
    pub(crate) chain: u64,
    pub(crate) log: VecDeque<StoredMsg>,
    /// (epoch, n of its number 1), oldest first.
    pub(crate) epochs: VecDeque<(u64, u64)>,
}

impl Default for TxState {
    fn default() -> TxState {
        TxState { epoch: 0, life: 0, base: 1, first: 1, chain: 0, log: VecDeque::new(), epochs: VecDeque::new() }
    }
}

/// A message that waits for its acknowledgement on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMsg {
    pub(crate) kind: u32,
    pub(crate) app: u32,
    pub(crate) of: Option<Place>,
    pub(crate) body: Bytes,
}

impl State {
    /// A session that nothing is known of.
    pub fn new(id: SessionId) -> State {
        State { id, ..State::default() }
    }

    /// Replays one record.
    pub fn apply(&mut self, record: Record) {
        match record.0 {
            Step::Start { incarnation } => self.incarnation = self.incarnation.max(incarnation),
            Step::Append { lane, n, kind, app, of, body } => {
                self.tx[lane.index()].append(n, StoredMsg { kind, app, of, body });
            }
            Step::Void { lane, n } => self.tx[lane.index()].void(n),
            Step::Epoch { lane, epoch, life, first } => self.tx[lane.index()].renumber(epoch, life, first),
            Step::Forget { lane, n, chain } => self.tx[lane.index()].forget(n, chain),
            Step::Received { receipt } => self.received(receipt),
        }
    }

    /// Replays a receipt that the embedder stored with the effects of a delivery.
    pub fn received(&mut self, receipt: Receipt) {
        let lane = receipt.place.lane;
        match self.rx.iter_mut().find(|known| known.place.lane == lane) {
            None => self.rx.push(receipt),
            Some(known) => {
                let newer = (receipt.place.epoch, receipt.place.seq) > (known.place.epoch, known.place.seq);
                if newer || receipt.life != known.life {
                    *known = receipt;
                }
            }
        }
    }

    pub(crate) fn receipt(&self, lane: Lane) -> Option<Receipt> {
        self.rx.iter().find(|receipt| receipt.place.lane == lane).copied()
    }

    /// The records that rebuild this state, for an embedder that rewrites its log.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut steps = vec![Step::Start { incarnation: self.incarnation }];
        for lane in Lane::ALL {
            self.tx[lane.index()].snapshot(lane, &mut steps);
        }
        steps.extend(self.rx.iter().map(|receipt| Step::Received { receipt: *receipt }));
        steps.into_iter().map(Record).collect()
    }
}

impl TxState {
    fn next(&self) -> u64 {
        self.first.saturating_add(self.log.len() as u64)
    }

    fn append(&mut self, n: u64, msg: StoredMsg) {
        // Before its first epoch a lane has nothing: that record was lost, and so nothing after it was durable.
        if self.epoch > 0 && n == self.next() {
            self.log.push_back(msg);
        }
    }

    fn void(&mut self, n: u64) {
        let msg = n.checked_sub(self.first).and_then(|index| self.log.get_mut(index as usize));
        if let Some(msg) = msg {
            *msg = StoredMsg { kind: KIND_VOID, app: 0, of: None, body: Bytes::new() };
        }
    }

    fn renumber(&mut self, epoch: u64, life: u64, first: u64) {
        if epoch <= self.epoch || first < self.first {
            return;
        }
        self.drop_below(first);
        (self.epoch, self.life, self.base, self.chain) = (epoch, life, 1, 0);
        self.epochs.push_back((epoch, first));
        if self.epochs.len() > EPOCHS_MAX {
            self.epochs.pop_front();
        }
    }

    fn forget(&mut self, n: u64, chain: u64) {
        if n >= self.first && n < u64::MAX {
            self.base = self.base.saturating_add(n + 1 - self.first);
            self.drop_below(n + 1);
            self.chain = chain;
        }
    }

    /// The log goes on at `first`. It may have been shorter: a snapshot leaves out what is forgotten.
    fn drop_below(&mut self, first: u64) {
        let gone = (first - self.first).min(self.log.len() as u64);
        self.log.drain(..gone as usize);
        self.first = first;
    }

    fn snapshot(&self, lane: Lane, steps: &mut Vec<Step>) {
        // Numbers of the epoch below `base` are represented by their hash alone.
        let start = self.first - (self.base - 1).min(self.first - 1);
        for (epoch, first) in self.epochs.iter().filter(|(epoch, _)| *epoch < self.epoch) {
            steps.push(Step::Epoch { lane, epoch: *epoch, life: self.life, first: *first });
        }
        if self.epoch > 0 {
            steps.push(Step::Epoch { lane, epoch: self.epoch, life: self.life, first: start });
        }
        if self.first > start {
            steps.push(Step::Forget { lane, n: self.first - 1, chain: self.chain });
        }
        for (n, msg) in (self.first..).zip(&self.log) {
            let StoredMsg { kind, app, of, body } = msg.clone();
            steps.push(Step::Append { lane, n, kind, app, of, body });
        }
    }
}

/// Epochs whose beginning is remembered, for naming what may be lost; of older ones everything is named.
pub(crate) const EPOCHS_MAX: usize = 64;

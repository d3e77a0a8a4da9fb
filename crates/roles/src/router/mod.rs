//! The router machine: takes rows, journals tasks, hands them to workers, brings back what they answer. Pure.
//!
//! `handle(now, event)` makes one mutation; `poll` drains its effects. It deliberately knows no clock, disk, socket or
//! session, and no body: bodies are LSNs.
//!
//! Invariants:
//! - Durable state changes only in [`apply`], live and in replay alike; live, the same record comes out as
//!   [`Output::Append`] before anything that rests on it.
//! - Every other output waits for the highest LSN that it wrote or relied on (`outbox`).
//! - No step costs more for a longer backlog: lists are intrusive, walks are cut into slices.

mod codec;
mod event;
mod limits;
pub mod record;
mod shim;

pub use codec::kind;
pub use event::{
    AssignItem, DeliverItem, Disk, Event, FailureItem, Generation, Inbound, KeyedRow, Lsn, Outbound, Output, PeerId,
    Prior, PriorFinished, Tag,
};
pub use limits::Limits;
pub use record::{JobNo, Record, RecordError};

use sheaf_task::RouterId;
use shim::{Micros, Receipt, SessionId};

/// What a router is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub router: RouterId,
    /// Epoch of its journal: goes into every fence.
    pub epoch: u64,
    /// For its random choices.
    pub seed: u64,
    /// Silence after which a worker is lost.
    pub grace: Micros,
    /// Its bounds.
    pub limits: Limits,
    /// A rule that is broken on purpose, to see that the simulator notices.
    #[cfg(feature = "mutations")]
    pub mutation: Option<Mutation>,
}

/// A rule to break; each is planted in exactly one place.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Messages are committed before their records are durable.
    AckBeforeDurable,
    /// A result is taken for the present attempt whatever its fence says.
    NoFence,
    /// Everything that waits is released one record early.
    EarlyRelease,
    /// A join changes the state without its record.
    WriteAheadSkipped,
    /// A row that is already known is submitted again.
    NoDedupOnResubmit,
    /// A message of rows that were known is committed before what it relied on is durable.
    JoinNotGated,
    /// The sink's cursor is ignored: everything is delivered again under new numbers.
    CursorIgnored,
    /// Attempts are given out again the moment a worker falls silent, and its results refused.
    NoGrace,
}

/// The router machine.
#[derive(Debug)]
pub struct Router {
    config: Config,
}

impl Router {
    /// A router that knows nothing yet: [`Router::replay`] the journal into it, then [`Router::start`].
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Takes in a record of the journal. In order of original LSN, moved records included.
    pub fn replay(&mut self, lsn: Lsn, record: &Record) {
        todo!("{lsn:?} {record:?} {:?}", self.config)
    }

    /// Ends the replay. The next record will be `next_lsn`; all before it are durable.
    pub fn start(&mut self, now: Micros, next_lsn: Lsn) {
        todo!("{now:?} {next_lsn:?}")
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Micros, event: Event) {
        todo!("{now:?} {event:?}")
    }

    /// The next effect; `None` when there is nothing more to do before the next event.
    pub fn poll(&mut self) -> Option<Output> {
        todo!()
    }

    /// When [`Event::Tick`] is due at the latest. Not after `now` while a walk goes on.
    pub fn deadline(&self) -> Micros {
        todo!()
    }

    /// Whether the journal must keep this record, for what is open or unsettled. What it does not need may still be kept
    /// for its retention (`Finished` answers later jobs).
    pub fn needed(&self, lsn: Lsn, record: &Record) -> bool {
        todo!("{lsn:?} {record:?}")
    }

    /// What each session of depth DISK had taken: for the sessions that the shell recovers after a restart.
    pub fn receipts(&self) -> impl Iterator<Item = (SessionId, Receipt)> + '_ {
        std::iter::empty()
    }

    /// A number over the durable state: equal for a router and one replayed from its records.
    pub fn digest(&self) -> u64 {
        todo!()
    }
}

//! The router machine: takes rows, journals tasks, hands them to workers, brings back what they answer. Pure.
//!
//! `handle(now, event)` makes one mutation; `poll` drains its effects. It deliberately knows no clock, disk, socket or
//! session, and no body: bodies are LSNs.
//!
//! Invariants:
//! - Durable state changes only in `apply`, live and in replay alike; live, the same record comes out as
//!   [`Output::Append`] before anything that rests on it.
//! - Every other output waits for the highest LSN that it wrote or relied on (`outbox`).
//! - No step costs more for a longer backlog: lists are intrusive, walks are cut into slices.

mod apply;
mod assign;
mod balance;
mod cancel;
mod codec;
mod deliver;
mod encode;
mod event;
mod explain;
mod jobs;
mod keys;
pub mod limits;
mod lost;
mod numbers;
mod outbox;
mod outcome;
mod poison;
mod queue;
mod recent;
pub mod record;
mod register;
mod retry;
mod slab;
mod submit;
#[cfg(test)]
mod tests;
mod trim;
mod wire;
mod workers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use sheaf_session::{Lane, Micros, Receipt, Rng, SessionId};
use sheaf_task::{RouterId, Totals};

pub use codec::kind;
pub use event::{
    AssignItem, DeliverItem, Disk, Event, FailureItem, Generation, Inbound, KeyedRow, Lsn, Outbound, Output, PeerId,
    Prior, PriorFinished, Tag, View, Wanted,
};
pub use limits::Limits;
pub use record::{JobNo, Record, RecordError};

use jobs::Jobs;
use limits::{GAP_MAX_MS, PROGRESS_MS, TICK_MS};
use lost::Restart;
use outbox::Outbox;
use recent::Recent;
use slab::{Ix, Tasks};
use workers::{Peer, Sent, ServiceNo, Workers};

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
    /// The index of finished keys has everything up to here when the router starts …
    pub sealed: Lsn,
    /// … and look-ups in it carry this.
    pub generation: Generation,
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
    /// A row that is already known is taken for one more row.
    NoDedupOnResubmit,
    /// A message of rows that join a task, or were known, is committed before what it relied on is durable.
    JoinNotGated,
    /// A worker is lost at its first second of silence.
    NoGrace,
    /// A restarted router hands everything out at once, without waiting for the workers that hold it.
    NoWithhold,
}

/// Sizes of what grows, for metrics: each has its bound in [`Limits`] or in the work that is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Open tasks.
    pub tasks: u64,
    /// Jobs on record.
    pub jobs: u64,
    /// Workers on record.
    pub workers: u64,
    /// Keys finished since the last seal.
    pub recent: u64,
    /// Results that no sink has committed.
    pub unsettled: u64,
}

/// Sealed keys, and failed rows of jobs that left, that leave memory with each event: more than one event can add, on
/// average.
const RECENT_DROPPED: u32 = 2_048;

/// The two clocks: the caller's, and that of leases, which stands still while the router itself was asleep.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    now: Micros,
    slept: Micros,
    /// The last tick.
    ticked: Micros,
}

impl Clock {
    fn advance(&mut self, now: Micros) {
        let gap = now.since(self.now);
        if gap > Micros::from_ms(GAP_MAX_MS) {
            self.slept = self.slept + gap;
        }
        self.now = self.now.max(now);
    }

    fn lease(&self) -> Micros {
        self.now.since(self.slept)
    }
}

/// Whether the router still takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Running,
    Stopping,
    Stopped,
}

/// The router machine.
#[derive(Debug)]
pub struct Router {
    config: Config,
    tasks: Tasks,
    jobs: Jobs,
    workers: Workers,
    recent: Recent,
    sessions: BTreeMap<(SessionId, Lane), (Lsn, Receipt)>,
    peers: BTreeMap<PeerId, Peer>,
    out: Outbox,
    time: Clock,
    rng: Rng,
    /// When failed tasks are due again. An entry counts only while its row says the same.
    backoff: BinaryHeap<Reverse<(Micros, Ix)>>,
    /// Services that may have something to hand out.
    workers_active: BTreeSet<ServiceNo>,
    restart: Restart,
    /// The last attempt given out in this epoch.
    attempt: u32,
    mode: (Mode, Disk),
    totals: Totals,
    /// When the last result came.
    resulted: Option<Micros>,
}

impl Router {
    /// A router that knows nothing yet: [`Router::replay`] the journal into it, then [`Router::start`].
    pub fn new(config: Config) -> Self {
        #[cfg(feature = "mutations")]
        let early = u64::from(config.mutation == Some(Mutation::EarlyRelease));
        #[cfg(not(feature = "mutations"))]
        let early = 0;
        Self {
            tasks: Tasks::new(),
            jobs: Jobs::default(),
            workers: Workers::default(),
            recent: Recent::new(config.sealed, config.generation),
            sessions: BTreeMap::new(),
            peers: BTreeMap::new(),
            out: Outbox::new(early),
            time: Clock::default(),
            rng: Rng::new(config.seed),
            backoff: BinaryHeap::new(),
            workers_active: BTreeSet::new(),
            restart: Restart::default(),
            attempt: 0,
            mode: (Mode::Running, Disk::Room),
            totals: Totals::default(),
            resulted: None,
            config,
        }
    }

    /// Makes the key table ready for about so many open tasks, before the first record is replayed: to let it grow meanwhile
    /// would cost a quarter of the time.
    pub fn expect(&mut self, tasks: usize) {
        self.tasks.expect(tasks);
    }

    /// Records that come next in a replay: what they need is fetched, many at once.
    pub fn prefetch(&self, records: &[(Lsn, Record)]) {
        let key_of = |record: &Record| {
            if let Record::Submitted(submitted) = record {
                return Some(submitted.key);
            }
            if let Record::Finished(finished) = record { Some(finished.key) } else { None }
        };
        self.tasks.touch(records.iter().filter_map(|(_, record)| key_of(record)));
    }

    /// Takes in a record of the journal. In order of original LSN, moved records included. False: it names a job that is
    /// not on record, which left, or whose own record is damaged; for the others that it names it counts all the same.
    pub fn replay(&mut self, lsn: Lsn, record: &Record) -> bool {
        let mut known = true;
        record::each_job(record, |job| {
            known &= self.jobs.get(job).is_some();
            self.jobs.note_given(job);
        });
        self.apply(lsn, record);
        known
    }

    /// Ends the replay. The next record will be `next_lsn`; all before it are durable.
    pub fn start(&mut self, now: Micros, next_lsn: Lsn) {
        self.out.start(Lsn(next_lsn.0 - 1));
        (self.time.now, self.time.ticked) = (now, now);
        self.disown();
        self.withhold();
        self.take_up_walks();
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Micros, event: Event) {
        self.time.advance(now);
        match event {
            Event::PeerUp { peer } => self.on_peer_up(peer),
            Event::PeerDown { peer } => self.on_peer_down(peer),
            Event::PeerGone { peer } => self.on_peer_gone(peer),
            Event::Heard { peer, at } => self.on_heard(peer, at),
            Event::Message { peer, place, receipt, inbound } => self.on_message(peer, place, receipt, inbound),
            Event::Announce { peer, capacity } => self.on_announce(peer, capacity),
            Event::Acked { peer, upto } => self.on_acked(peer, upto),
            Event::Durable(lsn) => self.out.release(lsn),
            Event::Sealed { upto, generation } => self.on_sealed(upto, generation),
            Event::Unreadable { lsn, wanted } => self.on_unreadable(lsn, wanted),
            Event::Disk(disk) => self.mode.1 = disk,
            Event::Tick => self.on_tick(),
            Event::Stop => self.on_stop(),
        }
        self.recent.drop_sealed(RECENT_DROPPED);
        self.jobs.forget_failed(RECENT_DROPPED);
        self.deliver();
        self.dispatch();
        self.recall();
        self.end_if_stopped();
    }

    /// The next effect; `None` when there is nothing more to do before the next event.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.poll()
    }

    /// When [`Event::Tick`] is due at the latest. Not after the present while a walk goes on.
    pub fn deadline(&self) -> Micros {
        if self.is_walking() {
            return self.time.now;
        }
        // Progress is told to clients more often than anything else needs looking after.
        let each = if self.peers.is_empty() { TICK_MS } else { PROGRESS_MS };
        let tick = self.time.ticked + Micros::from_ms(each);
        let backoff = self.backoff.peek().map(|Reverse((due, _))| *due);
        let rated = self.jobs.rated.first().map(|(due, _)| *due);
        [backoff, rated].into_iter().flatten().fold(tick, Micros::min)
    }

    /// What each session of depth DISK had taken: for the sessions that the shell recovers after a restart.
    pub fn receipts(&self) -> impl Iterator<Item = (SessionId, Receipt)> + '_ {
        self.sessions.iter().map(|((session, _), (_, receipt))| (*session, *receipt))
    }

    /// How large it is.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            tasks: u64::from(self.tasks.len()),
            jobs: self.jobs.len() as u64,
            workers: u64::from(self.workers.registered),
            recent: self.recent.len() as u64,
            unsettled: self.jobs.unsettled,
        }
    }

    /// The job as records name it, once it is open.
    pub fn job_no(&self, job: sheaf_task::JobId) -> Option<JobNo> {
        self.jobs.find(job)
    }

    fn on_tick(&mut self) {
        self.time.ticked = self.time.now;
        self.admit_rated();
        self.end_pauses();
        self.walk();
        self.judge_silence();
        self.release_withheld();
        self.signal_progress();
    }

    fn is_walking(&self) -> bool {
        !self.jobs.walks.is_empty() || self.restart.is_releasing(&self.tasks)
    }

    fn on_stop(&mut self) {
        if self.mode.0 == Mode::Running {
            self.mode.0 = Mode::Stopping;
        }
    }

    fn end_if_stopped(&mut self) {
        if self.mode.0 == Mode::Stopping && self.out.is_settled() {
            self.mode.0 = Mode::Stopped;
            self.out.put(Lsn::NONE, Output::Stopped);
        }
    }

    /// Changes the state and writes the record that says so.
    fn write(&mut self, record: Record) -> Lsn {
        let lsn = self.out.count();
        self.apply(lsn, &record);
        self.out.append(lsn, record);
        lsn
    }

    /// Sends when everything up to `gate` is durable, and not before what was sent to the same peer earlier.
    fn send(&mut self, id: PeerId, gate: Lsn, message: Outbound, sent: Option<Sent>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.gate = peer.gate.max(gate);
        let (lane, tag) = match sent {
            Some(sent) => {
                peer.tag += 1;
                peer.unacked.push_back((Tag(peer.tag), sent));
                (Lane::Bulk, Tag(peer.tag))
            }
            None => (Lane::Urgent, Tag::NONE),
        };
        let gate = peer.gate;
        self.out.put(gate, Output::Send { peer: id, lane, tag, message });
    }
}

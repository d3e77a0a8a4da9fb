//! The worker machine: which attempts a worker holds, which of them execute, and what the router is told of each.
//!
//! It deliberately knows no programs, no spool file and no session: executors and the port do what its outputs say.
//!
//! ```text
//! Assigned ─► Waiting ──room──► Running ──Finished──► Ended ──acknowledged──► past
//!                │                 │ Cancel: Killed, its end is reported
//!                │ Recall, Cancel  │ drop:   Dropped, only an answer is reported
//!                └─► Recalled ─► past
//! ```
//!
//! Invariants: a fence starts at most once in this process, however often it is assigned, and never after it was given
//! back, ended, or died with an earlier life; at most `batch` execute; a suspect executes alone; every attempt that
//! started and is not dropped is reported exactly once; nothing is dropped here that the router still counts on.

mod past;
mod results;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sheaf_session::Micros;
use sheaf_task::{
    Assignment, Capacity, FENCES_MAX, Fence, Outcome, Piece, Refusal, Registration, ResultItem, RouterId, ToRouter,
    Tokens, WorkerId,
};

use past::Past;

/// Who this worker is and what its earlier lives left behind.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub worker: WorkerId,
    /// Which of its lives, from 1.
    pub incarnation: u64,
    /// For people.
    pub name: String,
    /// What it can do.
    pub services: Vec<String>,
    /// How much of it.
    pub capacity: Capacity,
    /// What the previous life was executing when it died: suspects.
    pub died_with: Vec<Fence>,
    /// Attempts whose results are in the spool, unacknowledged ([`crate::port::WorkerPort::unacknowledged`]).
    pub spooled: Vec<Fence>,
}

/// One input.
#[derive(Clone, Debug)]
pub enum Event {
    /// The session has a live connection.
    Up,
    /// It has none: what executes goes on.
    Down,
    /// Attempts to make.
    Assigned(Vec<Assignment>),
    /// Give these back if they have not started.
    Recall(Vec<Fence>),
    /// End these.
    Cancel(Vec<Fence>),
    /// The registration is on record.
    Registered {
        /// Which life of this worker; an answer to an earlier one is passed over.
        incarnation: u64,
        /// Who answers.
        router: RouterId,
        /// Of `holding`: still wanted.
        keep: Vec<Fence>,
        /// Of `holding`: not wanted.
        drop: Vec<Fence>,
    },
    /// The registration is refused.
    Refused(Refusal),
    /// An executor has ended an attempt that [`Output::Start`] began.
    Finished {
        /// Which.
        fence: Fence,
        /// How.
        outcome: Outcome,
        /// How long it executed, milliseconds.
        ms: u64,
        /// What its answer cost.
        tokens: Tokens,
    },
    /// A piece of the answer that such an attempt makes.
    Piece(Piece),
    /// The results of these are on the router's disk.
    Acknowledged(Vec<Fence>),
    /// This worker can take more, or less.
    CapacityChanged(Capacity),
    /// Accept nothing more, give back what waits, finish what executes, leave.
    Stop,
    /// The time of [`Worker::deadline`] has come.
    Tick,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Log these fences as started (the next life reports those without an end as `died_with`), then execute them all.
    Start(Vec<Assignment>),
    /// End this attempt at once; its end still comes in as [`Event::Finished`].
    Kill(Fence),
    /// Say this to the router.
    Send(ToRouter),
    /// Signal this, newest wins.
    Announce(Capacity),
    /// The router has on record what the previous life died with: the log of its starts may go.
    DeathsReported,
    /// The router will not have this worker, and trying again would not help: end with this reason.
    Refused(Refusal),
    /// After [`Event::Stop`]: nothing is held and `Leave` is said. Drain the session and end.
    Done,
}

/// Where an attempt that is held stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running,
    /// Told to end; still occupies its place.
    Killed,
    /// The same, and the router no longer counts on it.
    Dropped,
    /// Its result is on its way.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Working,
    Draining,
    Left,
}

/// The machine.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    phase: Phase,
    up: bool,
    /// Attempts that have not started, in order; all are `Waiting` in `held`.
    waiting: VecDeque<Assignment>,
    held: BTreeMap<Fence, Stage>,
    /// Of `held`: occupying a place of the batch.
    executing: u32,
    /// One of them is a suspect, which is then the only one.
    suspect: Option<Fence>,
    past: Past,
    results: Vec<ResultItem>,
    recalled: Vec<Fence>,
    register_at: Option<Micros>,
    announce_at: Option<Micros>,
    outputs: VecDeque<Output>,
    #[cfg(feature = "mutations")]
    runs_twice: bool,
}

/// A capacity signal may be lost; it is repeated this often.
const ANNOUNCE_EVERY: Micros = Micros::from_secs(10);
/// When a router that is shutting down is asked again.
const STOPPING_RETRY: Micros = Micros::from_secs(1);

impl Worker {
    /// A worker that has not been connected yet.
    pub fn new(config: Config) -> Self {
        let mut past = Past::default();
        config.died_with.iter().for_each(|fence| past.add(*fence));
        let held = config.spooled.iter().map(|fence| (*fence, Stage::Ended)).collect();
        Self {
            config,
            phase: Phase::Working,
            up: false,
            waiting: VecDeque::new(),
            held,
            executing: 0,
            suspect: None,
            past,
            results: Vec::new(),
            recalled: Vec::new(),
            register_at: None,
            announce_at: None,
            outputs: VecDeque::new(),
            #[cfg(feature = "mutations")]
            runs_twice: false,
        }
    }

    /// Takes one input. Drain [`Worker::poll`] when the inputs at hand have been taken: it batches.
    pub fn handle(&mut self, now: Micros, event: Event) {
        match event {
            Event::Up => {
                self.up = true;
                self.register(now);
            }
            Event::Down => self.up = false,
            Event::Assigned(assignments) => assignments.into_iter().for_each(|one| self.on_assigned(one)),
            Event::Recall(fences) => self.on_recall(&fences),
            Event::Cancel(fences) => self.on_cancel(fences),
            Event::Registered { incarnation, router: _, keep, drop } => {
                if incarnation == self.config.incarnation {
                    self.on_registered(keep, drop);
                }
            }
            Event::Refused(refusal) => self.on_refused(now, refusal),
            Event::Finished { fence, outcome, ms, tokens } => self.on_finished(fence, outcome, ms, tokens),
            Event::Piece(piece) => self.on_piece(piece),
            Event::Acknowledged(fences) => self.on_acknowledged(&fences),
            Event::CapacityChanged(capacity) => {
                self.config.capacity = capacity;
                self.announce(now);
            }
            Event::Stop => self.on_stop(now),
            Event::Tick => self.on_tick(now),
        }
    }

    /// The next effect, in the order in which they must be done; `None` when there is nothing to do.
    pub fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.fill();
        }
        self.outputs.pop_front()
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Micros> {
        [self.register_at, self.announce_at].into_iter().flatten().filter(|_| self.up).min()
    }

    /// Attempts that occupy a place.
    pub fn executing(&self) -> u32 {
        self.executing
    }

    /// Attempts behind them.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Results that the router has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.held.values().filter(|stage| **stage == Stage::Ended).count()
    }
}

/// Reactions.
impl Worker {
    fn register(&mut self, now: Micros) {
        self.register_at = None;
        self.announce_at = Some(now + ANNOUNCE_EVERY);
        if self.phase == Phase::Left {
            return;
        }
        let wanted = self.held.iter().filter(|(_, stage)| **stage != Stage::Dropped);
        let registration = Registration {
            worker: self.config.worker,
            incarnation: self.config.incarnation,
            name: self.config.name.clone(),
            services: self.config.services.clone(),
            capacity: self.capacity(),
            holding: wanted.map(|(fence, _)| *fence).take(FENCES_MAX).collect(),
            died_with: self.config.died_with.clone(),
        };
        self.outputs.push_back(Output::Send(ToRouter::Register(registration)));
    }

    fn on_assigned(&mut self, assignment: Assignment) {
        let fence = assignment.fence;
        if self.is_known(fence) {
            return;
        }
        if self.phase != Phase::Working || self.past.take_revoked(fence) {
            self.give_back(fence);
            return;
        }
        // Another attempt at it: the router knows how the one before ended.
        self.config.died_with.retain(|died| died.key != fence.key);
        self.held.insert(fence, Stage::Waiting);
        self.waiting.push_back(assignment);
    }

    /// Assigned before: the session sends again what may have been lost.
    fn is_known(&self, fence: Fence) -> bool {
        #[cfg(feature = "mutations")]
        if self.runs_twice {
            return false;
        }
        self.held.contains_key(&fence) || self.past.contains(fence)
    }

    fn on_recall(&mut self, fences: &[Fence]) {
        let waiting = |fence: &&Fence| self.held.get(fence) == Some(&Stage::Waiting);
        let recalled: BTreeSet<Fence> = fences.iter().filter(waiting).copied().collect();
        self.drop_waiting(&recalled);
        recalled.into_iter().for_each(|fence| self.give_back(fence));
    }

    fn on_cancel(&mut self, fences: Vec<Fence>) {
        let mut waiting = BTreeSet::new();
        for fence in fences {
            match self.held.get(&fence) {
                Some(Stage::Waiting) => drop(waiting.insert(fence)),
                Some(Stage::Running) => self.kill(fence, Stage::Killed),
                Some(Stage::Killed | Stage::Dropped | Stage::Ended) => {}
                // The order has overtaken the assignment.
                None if !self.past.contains(fence) => self.past.revoke(fence),
                None => {}
            }
        }
        self.drop_waiting(&waiting);
        waiting.into_iter().for_each(|fence| self.give_back(fence));
    }

    fn on_registered(&mut self, kept: Vec<Fence>, dropped: Vec<Fence>) {
        // Said to be held when its result had already been taken, by a router that has forgotten: nobody must wait for it.
        self.recalled.extend(kept.into_iter().filter(|fence| !self.held.contains_key(fence)));
        if !self.config.died_with.is_empty() {
            self.config.died_with.clear();
            self.outputs.push_back(Output::DeathsReported);
        }
        let mut waiting = BTreeSet::new();
        for fence in dropped {
            match self.held.get(&fence) {
                Some(Stage::Waiting) => drop(waiting.insert(fence)),
                Some(Stage::Running | Stage::Killed) => self.kill(fence, Stage::Dropped),
                // A result on its way is the router's to judge.
                Some(Stage::Dropped | Stage::Ended) | None => {}
            }
        }
        self.drop_waiting(&waiting);
        waiting.into_iter().for_each(|fence| self.forget(fence));
    }

    fn on_refused(&mut self, now: Micros, refusal: Refusal) {
        match refusal {
            Refusal::Busy { retry_ms } => self.register_at = Some(now + Micros::from_ms(retry_ms)),
            Refusal::Stopping => self.register_at = Some(now + STOPPING_RETRY),
            // Said to an earlier life, and heard by this one.
            Refusal::Superseded { incarnation } if incarnation <= self.config.incarnation => {}
            Refusal::TooLong { .. }
            | Refusal::UnknownJob
            | Refusal::Cancelled
            | Refusal::OtherJob
            | Refusal::CursorAhead { .. }
            | Refusal::Superseded { .. }
            | Refusal::Forbidden => self.outputs.push_back(Output::Refused(refusal)),
        }
    }

    fn on_finished(&mut self, fence: Fence, outcome: Outcome, ms: u64, tokens: Tokens) {
        let wanted = match self.held.get(&fence) {
            Some(Stage::Running | Stage::Killed) => true,
            // Another attempt may still fail where this one did not.
            Some(Stage::Dropped) => outcome.is_ok(),
            Some(Stage::Waiting | Stage::Ended) | None => return,
        };
        self.executing -= 1;
        if self.suspect == Some(fence) {
            self.suspect = None;
        }
        if wanted {
            self.held.insert(fence, Stage::Ended);
            let outcome = results::fit(outcome, &self.config.name);
            self.results.push(ResultItem { fence, outcome, ms, tokens });
        } else {
            self.forget(fence);
        }
    }

    /// Said while somebody hears it; nothing is lost with it.
    fn on_piece(&mut self, piece: Piece) {
        if self.up && self.held.get(&piece.fence) == Some(&Stage::Running) {
            self.outputs.push_back(Output::Send(ToRouter::Piece(piece)));
        }
    }

    fn on_acknowledged(&mut self, fences: &[Fence]) {
        for fence in fences {
            if self.held.get(fence) == Some(&Stage::Ended) {
                self.forget(*fence);
            }
        }
    }

    fn on_stop(&mut self, now: Micros) {
        if self.phase != Phase::Working {
            return;
        }
        self.phase = Phase::Draining;
        self.announce(now);
        let waiting: BTreeSet<Fence> = self.waiting.iter().map(|assignment| assignment.fence).collect();
        self.drop_waiting(&waiting);
        waiting.into_iter().for_each(|fence| self.give_back(fence));
    }

    fn on_tick(&mut self, now: Micros) {
        if self.up && self.register_at.is_some_and(|at| at <= now) {
            self.register(now);
        }
        if self.up && self.announce_at.is_some_and(|at| at <= now) {
            self.announce(now);
        }
    }
}

/// Steps.
impl Worker {
    /// What this worker takes now.
    fn capacity(&self) -> Capacity {
        match self.phase {
            Phase::Working => self.config.capacity,
            Phase::Draining | Phase::Left => Capacity { batch: 0, depth: 0, bytes: 0 },
        }
    }

    fn announce(&mut self, now: Micros) {
        self.announce_at = Some(now + ANNOUNCE_EVERY);
        self.outputs.push_back(Output::Announce(self.capacity()));
    }

    fn kill(&mut self, fence: Fence, stage: Stage) {
        if self.held.insert(fence, stage) == Some(Stage::Running) {
            self.outputs.push_back(Output::Kill(fence));
        }
    }

    fn drop_waiting(&mut self, fences: &BTreeSet<Fence>) {
        if !fences.is_empty() {
            self.waiting.retain(|assignment| !fences.contains(&assignment.fence));
        }
    }

    fn give_back(&mut self, fence: Fence) {
        self.forget(fence);
        self.recalled.push(fence);
    }

    fn forget(&mut self, fence: Fence) {
        self.held.remove(&fence);
        self.past.add(fence);
    }

    /// Turns what has gathered into outputs.
    fn fill(&mut self) {
        let starts = self.take_startable();
        if !starts.is_empty() {
            self.outputs.push_back(Output::Start(starts));
        }
        let recalled = std::mem::take(&mut self.recalled);
        for chunk in recalled.chunks(FENCES_MAX) {
            self.outputs.push_back(Output::Send(ToRouter::Recalled(chunk.to_vec())));
        }
        for batch in results::batches(std::mem::take(&mut self.results)) {
            self.outputs.push_back(Output::Send(ToRouter::Results(batch)));
        }
        if self.phase == Phase::Draining && self.held.is_empty() && self.outputs.is_empty() {
            self.phase = Phase::Left;
            self.outputs.extend([Output::Send(ToRouter::Leave), Output::Done]);
        }
    }

    /// In order of arrival. A suspect waits until nothing executes and lets nothing start beside it; what is behind it
    /// waits too, or it would never come to its turn.
    fn take_startable(&mut self) -> Vec<Assignment> {
        let mut starts = Vec::new();
        while self.executing < self.config.capacity.batch && self.suspect.is_none() {
            let Some(next) = self.waiting.front() else { break };
            if next.alone && self.executing > 0 {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.held.insert(next.fence, Stage::Running);
            self.executing += 1;
            self.suspect = next.alone.then_some(next.fence);
            starts.push(next);
        }
        starts
    }
}

/// Rules that can be taken out, to prove that a checker sees it.
#[cfg(feature = "mutations")]
impl Worker {
    /// A re-sent assignment is executed again.
    pub fn plant_run_twice(&mut self) {
        self.runs_twice = true;
    }
}

//! The worker's shell: carries what the machine wants to the executor, the spool and the link, and back.
//!
//! It decides nothing of the protocol. Its own rules: starts are on the spool before anything executes; a record is
//! confirmed to the session only when written; on a full disk it announces no capacity, keeps what it has in memory
//! (bounded by what the worker may hold) and tries again every second.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use sheaf_net::Clock;
use sheaf_roles::port::{Over, WorkerCommand, WorkerReport};
use sheaf_roles::worker::{Event, Output, Worker};
use sheaf_session::{How, Micros, Ticket};
use sheaf_task::{Capacity, Fence};
use tokio::task::JoinHandle;

use crate::exec::{Ended, Executor};
use crate::run::WorkerError;
use crate::spool::Spool;

/// Results that the router has not acknowledged by then are synced.
const SYNC_AFTER: Micros = Micros::from_secs(1);
/// When a full disk is tried again.
const FULL_RETRY: Micros = Micros::from_secs(1);
/// After [`Output::Done`], or while the router is away, how long the farewell may take.
const LEAVE_WITHIN: Micros = Micros::from_secs(10);

const NO_CAPACITY: Capacity = Capacity { batch: 0, depth: 0, bytes: 0 };

pub(crate) struct Shell {
    pub(crate) machine: Worker,
    pub(crate) executor: Executor,
    pub(crate) spool: Option<Spool>,
    pub(crate) clock: Clock,
    /// What this worker takes when its disk is not full.
    pub(crate) capacity: Capacity,
    pub(crate) died_with: Vec<Fence>,
    /// For the link, in order.
    pub(crate) commands: Vec<WorkerCommand>,
    pub(crate) sync: Option<JoinHandle<io::Result<()>>>,
    executing: BTreeSet<Fence>,
    /// The last record pushed and not yet confirmed.
    ticket: Option<Ticket>,
    unsynced_since: Option<Micros>,
    full_until: Option<Micros>,
    is_up: bool,
    leave_at: Option<Micros>,
    pub(crate) attempts: u64,
}

impl Shell {
    pub(crate) fn new(
        machine: Worker,
        executor: Executor,
        spool: Option<Spool>,
        capacity: Capacity,
        clock: Clock,
    ) -> Self {
        Self {
            machine,
            executor,
            spool,
            clock,
            capacity,
            died_with: Vec::new(),
            commands: Vec::new(),
            sync: None,
            executing: BTreeSet::new(),
            ticket: None,
            unsynced_since: None,
            full_until: None,
            is_up: false,
            leave_at: None,
            attempts: 0,
        }
    }

    /// True when the session is over in agreement.
    pub(crate) fn on_report(&mut self, report: WorkerReport) -> Result<bool, WorkerError> {
        match report {
            WorkerReport::Event(event) => {
                match &event {
                    Event::Up => self.is_up = true,
                    Event::Down => self.is_up = false,
                    _ => {}
                }
                self.handle(event);
                Ok(false)
            }
            WorkerReport::Spool(ticket, record) => {
                self.ticket = Some(ticket);
                if let Some(spool) = &mut self.spool {
                    spool.on_record(record);
                }
                Ok(false)
            }
            WorkerReport::Over(Over::Ended) => Ok(true),
            WorkerReport::Over(over) => Err(WorkerError::Over(over)),
        }
    }

    pub(crate) fn on_ended(&mut self, ended: Vec<Ended>) {
        self.attempts += ended.len() as u64;
        if let Some(spool) = &mut self.spool {
            spool.on_ended(ended.iter().map(|ended| ended.fence));
        }
        for Ended { fence, outcome, ms } in ended {
            self.executing.remove(&fence);
            self.handle(Event::Finished { fence, outcome, ms });
        }
    }

    pub(crate) fn on_stop(&mut self) {
        self.leave_at = Some(self.clock.now() + LEAVE_WITHIN);
        self.handle(Event::Stop);
    }

    pub(crate) fn on_synced(&mut self, synced: io::Result<()>) -> Result<(), WorkerError> {
        self.sync = None;
        synced.map_err(WorkerError::Sync)
    }

    /// Something timed is due.
    pub(crate) fn on_time(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.now();
        if self.machine.deadline().is_some_and(|at| at <= now) {
            self.handle(Event::Tick);
        }
        if self.unsynced_since.is_some_and(|since| since + SYNC_AFTER <= now) {
            self.unsynced_since = None;
            if self.machine.unacknowledged() > 0 && self.sync.is_none() {
                self.sync = self.spool.as_ref().map(Spool::syncer).transpose()?.map(sync);
            }
        }
        Ok(())
    }

    /// When [`Shell::on_time`] is due.
    pub(crate) fn wake(&self) -> Option<Micros> {
        let sync = self.unsynced_since.map(|since| since + SYNC_AFTER);
        [self.machine.deadline(), sync, self.full_until, self.leave_at].into_iter().flatten().min()
    }

    /// After a stop: the farewell has taken too long, and nothing executes any more.
    pub(crate) fn is_overdue(&mut self) -> bool {
        let now = self.clock.now();
        let is_due = self.leave_at.is_some_and(|at| at <= now);
        if is_due && (self.is_up || !self.executing.is_empty()) {
            self.leave_at = Some(now + LEAVE_WITHIN);
            return false;
        }
        is_due
    }

    /// Does what the machine wants, until it wants nothing more.
    pub(crate) fn drain(&mut self) -> Result<(), WorkerError> {
        let mut starts = Vec::new();
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Start(assignments) => starts.extend(assignments),
                Output::Kill(fence) => self.executor.kill(fence),
                Output::Send(message) => self.commands.push(WorkerCommand::Send(message)),
                Output::Announce(capacity) => self.commands.push(WorkerCommand::Announce(capacity)),
                Output::DeathsReported => {
                    let died_with = std::mem::take(&mut self.died_with);
                    if let Some(spool) = &mut self.spool {
                        spool.on_ended(died_with);
                    }
                }
                Output::Refused(refusal) => return Err(WorkerError::Refused(refusal)),
                Output::Done => {
                    self.leave_at = Some(self.clock.now() + LEAVE_WITHIN);
                    self.commands.push(WorkerCommand::Close(How::Drain));
                }
            }
        }
        if let Some(spool) = &mut self.spool {
            spool.on_started(starts.iter().map(|assignment| assignment.fence));
        }
        self.write()?;
        for assignment in starts {
            self.executing.insert(assignment.fence);
            self.executor.start(assignment);
        }
        Ok(())
    }

    /// What executes was ended by us and is nobody's fault.
    pub(crate) fn on_forced(&mut self) -> Result<(), WorkerError> {
        if let Some(spool) = &mut self.spool {
            spool.on_ended(std::mem::take(&mut self.executing));
        }
        self.write()
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        self.machine.handle(now, event);
    }

    fn write(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.now();
        let Some(spool) = &mut self.spool else { return Ok(()) };
        if !spool.is_pending() || self.full_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        match spool.write() {
            Ok(()) => {
                self.unsynced_since.get_or_insert(now);
                self.commands.extend(self.ticket.take().map(WorkerCommand::Spooled));
                if self.full_until.take().is_some() {
                    tracing::warn!("the spool's disk has room again: tasks are accepted");
                    self.handle(Event::CapacityChanged(self.capacity));
                }
                Ok(())
            }
            Err(error) if error.is_full() => {
                if self.full_until.replace(now + FULL_RETRY).is_none() {
                    tracing::error!(%error, "the spool's disk is full: no more tasks are accepted, results wait in memory");
                    self.handle(Event::CapacityChanged(NO_CAPACITY));
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn sync(file: File) -> JoinHandle<io::Result<()>> {
    tokio::task::spawn_blocking(move || file.sync_data())
}

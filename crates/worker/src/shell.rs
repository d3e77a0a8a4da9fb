//! The worker's shell: carries what the machine wants to the executor, the spool and the link, and back.
//!
//! It decides nothing of the protocol. Its own rules: starts are on the spool before anything executes (room permitting); a
//! record is confirmed to the session only when written; results of programs leave together while there is more to execute;
//! on a full disk it announces no capacity, and keeps what it has in memory (bounded by what the worker may hold) until
//! there is room.

use std::collections::BTreeSet;

use sheaf_net::{Alarm, Clock};
use sheaf_roles::port::{Over, WorkerCommand, WorkerReport};
use sheaf_roles::worker::{Event, Output, Worker};
use sheaf_session::{How, Micros};
use sheaf_task::{Capacity, Fence, ToRouter};

use crate::disk::{Disk, Written};
use crate::exec::{Ended, Executor};
use crate::run::WorkerError;

/// After a stop: how long the farewell may take, and how long a router that is away is waited for.
const LEAVE_WITHIN: Micros = Micros::from_secs(5);

/// How long results wait for company where each takes a process, while there is more at hand to execute than is executing.
/// Each message costs the router a sync and everybody else a wake: more than many a small program.
const RESULTS_LINGER: Micros = Micros::from_ms(5);

const NO_CAPACITY: Capacity = Capacity { batch: 0, depth: 0, bytes: 0 };

pub(crate) struct Shell {
    pub(crate) machine: Worker,
    pub(crate) executor: Executor,
    pub(crate) disk: Option<Disk>,
    pub(crate) clock: Clock,
    pub(crate) alarm: Alarm,
    /// What this worker takes when its disk is not full, as far as its executor can.
    pub(crate) capacity: Capacity,
    pub(crate) died_with: Vec<Fence>,
    /// For the link, in order.
    commands: Vec<WorkerCommand>,
    /// Until when they wait for company.
    linger_until: Option<Micros>,
    executing: BTreeSet<Fence>,
    is_up: bool,
    leave_at: Option<Micros>,
    /// Everything is said but the farewell.
    is_done: bool,
    pub(crate) attempts: u64,
}

impl Shell {
    pub(crate) fn new(machine: Worker, executor: Executor, disk: Option<Disk>, capacity: Capacity) -> Self {
        Self {
            machine,
            executor,
            disk,
            clock: Clock::start(),
            alarm: Alarm::default(),
            capacity,
            died_with: Vec::new(),
            commands: Vec::new(),
            linger_until: None,
            executing: BTreeSet::new(),
            is_up: false,
            leave_at: None,
            is_done: false,
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
                if let Some(disk) = &mut self.disk {
                    disk.on_record(ticket, record);
                }
                Ok(false)
            }
            WorkerReport::Over(Over::Ended) => Ok(true),
            WorkerReport::Over(over) => Err(WorkerError::Over(over)),
        }
    }

    pub(crate) fn on_ended(&mut self, ended: Vec<Ended>) {
        self.follow_executor();
        for piece in self.executor.take_pieces() {
            self.handle(Event::Piece(piece));
        }
        self.attempts += ended.len() as u64;
        if let Some(disk) = &mut self.disk {
            disk.on_ended(ended.iter().map(|ended| ended.fence));
        }
        for Ended { fence, outcome, ms, tokens } in ended {
            self.executing.remove(&fence);
            self.handle(Event::Finished { fence, outcome, ms, tokens });
        }
    }

    /// The executor can do more at once than before, or less.
    fn follow_executor(&mut self) {
        let Some(batch) = self.executor.take_batch() else { return };
        self.capacity.batch = batch;
        if !self.disk.as_ref().is_some_and(Disk::is_full) {
            self.handle(Event::CapacityChanged(self.capacity));
        }
    }

    pub(crate) fn on_stop(&mut self) {
        // With the router away, results in memory are worth a wait; those on disk are safe, and there may be none.
        let is_idle = !self.is_up && self.executing.is_empty();
        let is_safe = self.disk.is_some() || self.machine.unacknowledged() == 0;
        let patience = if is_idle && is_safe { Micros::ZERO } else { LEAVE_WITHIN };
        self.leave_at = Some(self.clock.now() + patience);
        self.handle(Event::Stop);
    }

    /// Something timed is due.
    pub(crate) fn on_time(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.now();
        if self.machine.deadline().is_some_and(|at| at <= now) {
            self.handle(Event::Tick);
        }
        if let Some(disk) = &mut self.disk {
            disk.on_time(now, self.machine.unacknowledged() > 0)?;
        }
        Ok(())
    }

    /// When [`Shell::on_time`] is due.
    pub(crate) fn wake(&self) -> Option<Micros> {
        let disk = self.disk.as_ref().and_then(Disk::wake);
        [self.machine.deadline(), disk, self.leave_at, self.linger_until].into_iter().flatten().min()
    }

    /// After a stop: nothing executes any more, and the router is away or does not answer the farewell.
    pub(crate) fn is_overdue(&mut self) -> bool {
        let now = self.clock.now();
        if self.leave_at.is_none_or(|at| now < at) {
            return false;
        }
        self.leave_at = Some(now + LEAVE_WITHIN);
        self.is_done || (!self.is_up && self.executing.is_empty())
    }

    /// What is to be said to the link now.
    pub(crate) fn take_commands(&mut self) -> Vec<WorkerCommand> {
        if self.may_linger() {
            let now = self.clock.now();
            if now < *self.linger_until.get_or_insert(now + RESULTS_LINGER) {
                return Vec::new();
            }
        }
        self.linger_until = None;
        std::mem::take(&mut self.commands)
    }

    /// What is to be said when there is no later.
    pub(crate) fn last_commands(&mut self) -> Vec<WorkerCommand> {
        std::mem::take(&mut self.commands)
    }

    /// There are results to be said and nothing else, and the router's next assignments are not needed yet.
    fn may_linger(&self) -> bool {
        let is_result = |command: &WorkerCommand| matches!(command, WorkerCommand::Send(ToRouter::Results(_)));
        self.executor.is_by_process()
            && self.machine.waiting() > self.machine.executing() as usize
            && !self.commands.is_empty()
            && self.commands.iter().all(is_result)
    }

    /// Does what the machine wants, until it wants nothing more, and writes the spool.
    pub(crate) fn drain(&mut self) -> Result<(), WorkerError> {
        while self.step()? {}
        Ok(())
    }

    /// True when the machine may want more.
    fn step(&mut self) -> Result<bool, WorkerError> {
        let mut starts = Vec::new();
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Start(assignments) => starts.extend(assignments),
                Output::Kill(fence) => self.executor.kill(fence),
                Output::Send(message) => self.commands.push(WorkerCommand::Send(message)),
                Output::Announce(capacity) => self.commands.push(WorkerCommand::Announce(capacity)),
                Output::DeathsReported => {
                    let died_with = std::mem::take(&mut self.died_with);
                    if let Some(disk) = &mut self.disk {
                        disk.on_ended(died_with);
                    }
                }
                Output::Refused(refusal) => return Err(WorkerError::Refused(refusal)),
                Output::Done => {
                    self.is_done = true;
                    if self.is_up {
                        self.leave_at = Some(self.clock.now() + LEAVE_WITHIN);
                    }
                    self.commands.push(WorkerCommand::Close(How::Drain));
                }
            }
        }
        if let Some(disk) = &mut self.disk {
            disk.on_started(starts.iter().map(|assignment| assignment.fence));
        }
        // Without room the mark waits: a death now would make no suspects, which costs executions at worst.
        let has_told = self.write()?;
        for assignment in starts {
            self.executing.insert(assignment.fence);
            self.executor.start(assignment);
        }
        Ok(has_told)
    }

    /// What executes was ended by us and is nobody's fault.
    pub(crate) fn on_forced(&mut self) -> Result<(), WorkerError> {
        if let Some(disk) = &mut self.disk {
            disk.on_ended(std::mem::take(&mut self.executing));
        }
        self.write().map(|_| ())
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        self.machine.handle(now, event);
    }

    /// True when it had news for the machine.
    fn write(&mut self) -> Result<bool, WorkerError> {
        let now = self.clock.now();
        let Some(disk) = &mut self.disk else { return Ok(false) };
        match disk.write(now)? {
            Written::Nothing => Ok(false),
            Written::All { ticket, has_room_again } => {
                self.commands.extend(ticket.map(WorkerCommand::Spooled));
                if has_room_again {
                    tracing::warn!("the spool's disk has room again: tasks are accepted");
                    self.handle(Event::CapacityChanged(self.capacity));
                }
                Ok(has_room_again)
            }
            Written::Full => {
                self.handle(Event::CapacityChanged(NO_CAPACITY));
                Ok(true)
            }
        }
    }
}

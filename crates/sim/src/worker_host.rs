//! A worker's process: the machine, its port, its spool, and executors that take their time.

use std::collections::BTreeMap;

use bytes::Bytes;
use sheaf_roles::port::{Over, WorkerCommand, WorkerPort, WorkerReport, fit_dialer_config};
use sheaf_roles::worker::{Config, Event, Output, Worker};
use sheaf_session::{
    Config as SessionConfig, Depth, Endpoint, Faults, How, Input, Micros, Record, Refusal, Session, SessionId, Side,
};
use sheaf_task::{Assignment, Capacity, Class, Evidence, Failure, Fence, Outcome, WorkerId};

use crate::env::{Driven, Env, Happening, Line};
use crate::mutation::Planted;
use crate::network::End;
use crate::oddities::Oddities;
use crate::plan::{Left, Plan, Who, WorkerPlan};
use crate::spool::{Entry, Spool};

/// The process, running or not.
pub(crate) struct WorkerHost {
    number: usize,
    /// Whose names it goes by: its own number, unless its directory is a copy of another's.
    identity: usize,
    plan: WorkerPlan,
    seed: u64,
    faults: Option<Faults>,
    oddities: Oddities,
    #[cfg_attr(not(feature = "mutations"), expect(dead_code, reason = "read by mutations only"))]
    planted: Option<Planted>,
    spool: Spool,
    /// A copy of the spool, if somebody made one.
    backup: Option<Spool>,
    run: Option<Running>,
    pub life: u64,
    /// When it last said how much room it has, if it lies about that.
    lied: Option<Micros>,
    /// Leaving: so long until it is back.
    away: Option<Micros>,
    /// How often the router would not have it: another goes by its name, or it has gone back in time.
    refusals: u32,
}

struct Running {
    machine: Worker,
    port: WorkerPort,
    line: Line,
    executing: BTreeMap<u64, Assignment>,
    runs: u64,
    is_frozen: bool,
    wake: Option<Micros>,
    syncs: bool,
    /// What the life before was executing, until the router knows.
    died_with: Vec<Fence>,
}

/// How often a worker that stands still is looked at for what its programs did.
const LOOK_AGAIN: Micros = Micros::from_ms(10);

/// Until then a worker may lie about its room.
const LIES_END: Micros = Micros::from_secs(30);

/// Before the second start of a worker that is not wanted; doubles.
const PAUSE: Micros = Micros::from_ms(500);

/// Between a spool's write and its sync, if the router has not acknowledged.
const SYNC_AFTER: Micros = Micros::from_secs(1);

impl WorkerHost {
    pub(crate) fn new(number: usize, plan: &Plan, planted: Option<Planted>) -> Self {
        Self {
            number,
            identity: plan.workers[number].clone_of.unwrap_or(number),
            plan: plan.workers[number],
            seed: plan.seed,
            faults: plan.faults,
            oddities: plan.oddities.clone(),
            planted,
            spool: Spool::default(),
            backup: None,
            run: None,
            life: 0,
            lied: None,
            away: None,
            refusals: 0,
        }
    }

    pub(crate) fn who(&self) -> Who {
        Who::Worker(self.number)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Whose directory its own is a copy of.
    pub(crate) fn clone_of(&self) -> Option<usize> {
        self.plan.clone_of
    }

    /// It is asked to stop, and comes back when it has been away for a while.
    pub(crate) fn leave(&mut self, env: &mut Env, away: Micros) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        run.machine.handle(now, Event::Stop);
        self.away = Some(away);
        self.drive(env);
    }

    /// What somebody copies of its directory.
    pub(crate) fn copy(&self) -> Spool {
        self.spool.clone()
    }

    /// Its directory is a copy.
    pub(crate) fn adopt(&mut self, copy: Spool) {
        self.spool = copy;
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.copy());
    }

    /// The machine is gone, and its directory comes back from the backup, if there is one.
    pub(crate) fn restore(&mut self, env: &mut Env) {
        self.crash(env, Some(Left::Some));
        if let Some(backup) = &self.backup {
            self.spool = backup.clone();
            env.ledger.on_power_cut(self.number);
        }
    }

    pub(crate) fn start(&mut self, env: &mut Env) {
        self.life += 1;
        self.away = None;
        if !self.plan.has_spool {
            self.spool.clear();
            env.ledger.on_power_cut(self.number);
        }
        let id = self.session_id();
        let state = self.spool.state(id);
        let incarnation = if self.plan.has_spool { state.incarnation + 1 } else { self.life };
        let died_with = self.spool.died_with();
        let config = self.session_config(incarnation);
        let seed = self.seed ^ (self.life << 16) ^ self.number as u64;
        let port = if self.plan.has_spool {
            self.spool.append(Entry::Session(Record::start(incarnation)));
            self.spool.sync();
            WorkerPort::recover(config, seed, self.spool.state(id))
        } else {
            WorkerPort::new(Session::new(config, Side::Dialer, id, seed))
        };
        let machine = Worker::new(Config {
            worker: self.worker_id(),
            incarnation,
            name: format!("w{}", self.number),
            services: vec!["work".into()],
            capacity: Capacity { batch: self.plan.batch, depth: self.plan.depth, bytes: 0 },
            died_with: died_with.clone(),
            spooled: port.unacknowledged(),
        });
        env.trace.note(env.agenda.now(), &[self.number as u64], || format!("worker {} starts", self.number));
        env.tell(self.who(), |_| Some(format!("starts, life {incarnation}")));
        #[cfg_attr(not(feature = "mutations"), expect(unused_mut, reason = "changed by a mutation only"))]
        let mut run = Running {
            machine,
            port,
            line: Line::default(),
            executing: BTreeMap::new(),
            runs: 0,
            is_frozen: false,
            wake: None,
            syncs: false,
            died_with,
        };
        #[cfg(feature = "mutations")]
        if self.planted == Some(Planted::RunTwice) {
            run.machine.plant_run_twice();
        }
        self.run = Some(run);
        env.agenda.enter_in(Micros(1), Happening::Dial(self.who(), self.life));
        self.drive(env);
    }

    pub(crate) fn crash(&mut self, env: &mut Env, power: Option<Left>) {
        let Some(run) = self.run.take() else { return };
        if let Some(conn) = run.line.conn {
            env.cut(conn);
        }
        run.executing.values().for_each(|assignment| env.ledger.on_died_with(assignment.fence));
        env.tell(self.who(), |_| Some(crate::router_host::died(power)));
        if let Some(left) = power {
            self.spool.crash(left, &mut env.rng);
            env.ledger.on_power_cut(self.number);
        }
        env.trace
            .note(env.agenda.now(), &[self.number as u64], || format!("worker {} dies, power {power:?}", self.number));
    }

    pub(crate) fn freeze(&mut self, is_frozen: bool, env: &mut Env) {
        if let Some(run) = &mut self.run {
            run.is_frozen = is_frozen;
        }
        self.drive(env);
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_frozen)
    }

    pub(crate) fn dial(&mut self, env: &mut Env) {
        let Some(run) = &mut self.run else { return };
        if run.line.conn.is_none() {
            let conn = env.network.dial(self.number);
            run.line.conn = Some(conn);
            env.register(conn, Who::Worker(self.number));
            let nonce = env.rng.next_u64();
            env.input(&mut run.port, &mut run.line, End::Dialer, Input::Connected { conn: nonce });
        }
        self.drive(env);
    }

    pub(crate) fn conn(&self) -> Option<crate::network::ConnId> {
        self.run.as_ref()?.line.conn
    }

    pub(crate) fn on_bytes(&mut self, env: &mut Env, bytes: Option<Bytes>) {
        let Some(run) = &mut self.run else { return };
        match bytes {
            Some(bytes) => env.input(&mut run.port, &mut run.line, End::Dialer, Input::Bytes(bytes.into())),
            None => {
                run.line.conn = None;
                env.input(&mut run.port, &mut run.line, End::Dialer, Input::Disconnected);
                let (who, life) = (Who::Worker(self.number), self.life);
                env.redial(who, life);
            }
        }
        self.drive(env);
    }

    pub(crate) fn on_wake(&mut self, env: &mut Env) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        if run.wake.is_none_or(|at| at > now) {
            // An earlier one has been here in between.
            return;
        }
        run.wake = None;
        if run.line.wake.is_some_and(|at| at <= now) {
            env.input(&mut run.port, &mut run.line, End::Dialer, Input::Tick);
        }
        if run.machine.deadline().is_some_and(|at| at <= now) {
            run.machine.handle(now, Event::Tick);
        }
        self.lie(env);
        self.drive(env);
    }

    pub(crate) fn on_executed(&mut self, env: &mut Env, number: u64) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        if run.is_frozen {
            // The program is done; nobody looks.
            let again = Happening::Executed { worker: self.number, life: self.life, run: number };
            return env.agenda.enter_in(LOOK_AGAIN, again);
        }
        let Some(assignment) = run.executing.remove(&number) else { return };
        if assignment.body.starts_with(b"die") && env.rng.chance(0.5) {
            // The whole worker goes, as a long-lived program in its process would take it.
            let who = self.who();
            env.agenda.enter_in(
                Micros(0),
                Happening::Break(crate::plan::Break::Crash { who, power: None, down: Micros(200_000) }),
            );
            return;
        }
        let outcome = execute(env, &assignment);
        self.spool.append(Entry::Ended(assignment.fence));
        run.machine.handle(
            now,
            Event::Finished { fence: assignment.fence, outcome, ms: 1, tokens: sheaf_task::Tokens::default() },
        );
        self.drive(env);
    }

    pub(crate) fn on_sync(&mut self) {
        self.spool.sync();
        if let Some(run) = &mut self.run {
            run.syncs = false;
        }
    }

    fn drive(&mut self, env: &mut Env) {
        loop {
            let Some(run) = &mut self.run else { return };
            if run.is_frozen {
                return;
            }
            let Driven { reports, is_lost, done } = env.drive(&mut run.port, &mut run.line, End::Dialer);
            if is_lost && !done {
                env.redial(Who::Worker(self.number), self.life);
            }
            let mut is_idle = reports.is_empty();
            for report in reports {
                self.on_report(env, report);
            }
            let Some(run) = &mut self.run else { return };
            let mut outputs = Vec::new();
            while let Some(output) = run.machine.poll() {
                outputs.push(output);
            }
            is_idle &= outputs.is_empty();
            for output in outputs {
                self.on_output(env, output);
            }
            if is_idle {
                break;
            }
        }
        self.set_timer(env);
    }

    fn on_report(&mut self, env: &mut Env, report: WorkerReport) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        match report {
            WorkerReport::Event(event) => {
                if let Event::Acknowledged(fences) = &event {
                    fences.iter().for_each(|fence| env.ledger.on_result_acknowledged(*fence));
                }
                env.tell(Who::Worker(self.number), |story| story.worker_event(&event));
                env.trace.note(now, &[], || format!("worker {} <- {event:?}", self.number));
                run.machine.handle(now, event);
            }
            WorkerReport::Spool(ticket, record) => {
                self.spool.append(Entry::Session(record));
                run.port.command(now, WorkerCommand::Spooled(ticket));
                if !run.syncs {
                    run.syncs = true;
                    let sync = Happening::SyncSpool { worker: self.number, life: self.life };
                    env.agenda.enter_in(SYNC_AFTER, sync);
                }
            }
            WorkerReport::Over(over) => self.on_over(env, &over),
        }
    }

    fn on_over(&mut self, env: &mut Env, over: &Over) {
        if let Some(away) = self.away.filter(|_| *over == Over::Ended) {
            self.crash(env, None);
            return env.agenda.enter_in(away, Happening::Start(self.who()));
        }
        let is_double = matches!(over, Over::Fenced | Over::Refused(Refusal::Fenced | Refusal::Clone));
        if !(is_double && self.oddities.has_doubles()) {
            return env.ledger.violate(format!("worker {}: session over: {over:?}", self.number));
        }
        self.give_up(env, &format!("{over:?}"));
    }

    fn on_refused(&mut self, env: &mut Env, refusal: &sheaf_task::Refusal) {
        let is_double = matches!(refusal, sheaf_task::Refusal::Superseded { .. });
        if !(is_double && self.oddities.has_doubles()) {
            return env.ledger.violate(format!("worker {} refused: {refusal:?}", self.number));
        }
        self.give_up(env, &format!("{refusal:?}"));
    }

    /// The process ends; whoever watches over it starts it again, later each time.
    fn give_up(&mut self, env: &mut Env, why: &str) {
        env.trace.note(env.agenda.now(), &[], || format!("worker {} is not wanted: {why}", self.number));
        self.crash(env, None);
        self.refusals += 1;
        let pause = Micros(PAUSE.0 << self.refusals.min(6));
        let down = Micros(pause.0 + env.rng.below(pause.0));
        env.agenda.enter_in(down, Happening::Start(self.who()));
    }

    fn on_output(&mut self, env: &mut Env, output: Output) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        env.tell(Who::Worker(self.number), |story| story.worker_output(&output));
        env.trace.note(now, &[], || format!("worker {} -> {output:?}", self.number));
        match output {
            Output::Start(assignments) => {
                for assignment in assignments {
                    self.spool.append(Entry::Started(assignment.fence));
                    env.ledger.on_started(assignment.fence, self.number, self.life);
                    run.runs += 1;
                    let time = env.time_below(self.plan.slow);
                    let done = Happening::Executed { worker: self.number, life: self.life, run: run.runs };
                    run.executing.insert(run.runs, assignment);
                    env.agenda.enter_in(time, done);
                }
            }
            Output::Kill(fence) => {
                let Some(number) = run.executing.iter().find(|(_, a)| a.fence == fence).map(|(n, _)| *n) else {
                    return;
                };
                run.executing.remove(&number);
                self.spool.append(Entry::Ended(fence));
                let outcome = Outcome::Failed(Failure::new(Class::Cancelled, "cancelled"));
                run.machine
                    .handle(now, Event::Finished { fence, outcome, ms: 0, tokens: sheaf_task::Tokens::default() });
            }
            Output::Send(message) => {
                env.ledger.on_worker_says(&message);
                run.port.command(now, WorkerCommand::Send(message));
            }
            Output::Announce(capacity) => run.port.command(now, WorkerCommand::Announce(capacity)),
            Output::DeathsReported => self.spool.append(Entry::DeathsReported(std::mem::take(&mut run.died_with))),
            Output::Refused(refusal) => self.on_refused(env, &refusal),
            Output::Done => run.port.command(now, WorkerCommand::Close(How::Drain)),
        }
    }

    /// Says something else about its room each second: nothing, too much, anything. The truth in the end.
    fn lie(&mut self, env: &mut Env) {
        let now = env.now();
        let due = self.lied.is_none_or(|at| now.since(at) >= Micros::from_secs(1));
        if !due || !self.oddities.liars.contains(&self.number) || self.away.is_some() {
            return;
        }
        let Some(run) = &mut self.run else { return };
        let truth = Capacity { batch: self.plan.batch, depth: self.plan.depth, bytes: 0 };
        let any = |rng: &mut sheaf_session::Rng| match rng.below(3) {
            0 => 0,
            1 => 1_000_000_000,
            _ => rng.below(10) as u32,
        };
        let is_over = now >= LIES_END;
        let lie = Capacity { batch: any(&mut env.rng), depth: any(&mut env.rng), bytes: 0 };
        run.machine.handle(now, Event::CapacityChanged(if is_over { truth } else { lie }));
        self.lied = Some(now);
    }

    fn set_timer(&mut self, env: &mut Env) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        let wakes = run.line.wake.into_iter().chain(run.machine.deadline());
        let Some(next) = wakes.min().map(|at| at.max(Micros(now.0 + 1))) else { return };
        if run.wake.is_none_or(|at| next < at) {
            run.wake = Some(next);
            env.agenda.enter(next, Happening::Wake(Who::Worker(self.number), self.life));
        }
    }

    fn session_id(&self) -> SessionId {
        let mut id = [1; 16];
        id[0] = self.identity as u8;
        if !self.plan.has_spool {
            id[1..9].copy_from_slice(&(self.life << 8).to_le_bytes());
        }
        SessionId(id)
    }

    fn worker_id(&self) -> WorkerId {
        WorkerId([self.identity as u8 + 1; 16])
    }

    fn session_config(&self, incarnation: u64) -> SessionConfig {
        let seed = (self.life << 20) ^ self.number as u64;
        let faults = self.faults.map(|faults| Faults { seed: faults.seed ^ seed, ..faults });
        let config = SessionConfig {
            incarnation,
            boot: self.seed ^ seed,
            faults,
            #[cfg(feature = "mutations")]
            mutation: self.planted.and_then(Planted::session),
            ..self.oddities.session_config()
        };
        fit_dialer_config(config, if self.plan.has_spool { Depth::Disk } else { Depth::Memory })
    }
}

/// What the program says to a body. The answer depends on the body alone, so that the ledger can check it.
fn execute(env: &mut Env, assignment: &Assignment) -> Outcome {
    let body = &assignment.body;
    let failed = |class| Outcome::Failed(Failure { class, message: "simulated".into(), evidence: Box::default() });
    if body.starts_with(b"bad") {
        return failed(Class::Rejected);
    }
    if body.starts_with(b"die") {
        let evidence = Evidence { signal: Some(6), ..Evidence::default() };
        return Outcome::Failed(Failure {
            class: Class::Crashed,
            message: "simulated".into(),
            evidence: Box::new(evidence),
        });
    }
    if body.starts_with(b"flaky") && env.rng.chance(0.4) {
        return failed(if env.rng.chance(0.5) { Class::Error } else { Class::Timeout });
    }
    Outcome::Ok(answer(body))
}

/// The right answer to a body.
pub(crate) fn answer(body: &[u8]) -> Bytes {
    [b"=".as_slice(), body].concat().into()
}

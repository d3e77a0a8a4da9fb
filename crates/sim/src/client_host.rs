//! A client's process: the machine, its port, a source that is read again after each crash, and a sink that commits rows
//! and cursor in one act.

mod order;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sheaf_roles::client::{Client, Config, Cursor, Event, Kept, Output, Reason, ScannedRow, Tag, WriteId, WriteRow};
use sheaf_roles::port::{ClientCommand, ClientPort, ClientReport, fit_dialer_config};
use sheaf_session::{Config as SessionConfig, Depth, Endpoint, Faults, How, Input, Micros, Session, SessionId, Side};
use sheaf_task::{JobOptions, JobSpec, Outcome, Refusal, RowId, ToRouter};

use crate::env::{Driven, Env, Happening, Line};
use crate::mutation::Planted;
use crate::network::{ConnId, End};
use crate::oddities::Oddities;
use crate::plan::{ClientPlan, Order, Plan, Who};
use crate::trace::digest;

/// The process, running or not, with its source and its sink.
pub(crate) struct ClientHost {
    number: usize,
    seed: u64,
    faults: Option<Faults>,
    oddities: Oddities,
    planted: Option<Planted>,
    source: Vec<SourceRow>,
    starts: Micros,
    sink: Sink,
    run: Option<Running>,
    pub life: u64,
    /// The job is complete; nothing starts this client again.
    pub is_done: bool,
    /// It ended with a refusal: the router does not know what it had acknowledged.
    gave_up: bool,
    /// What somebody asked about its job, by number, and not answered.
    orders: VecDeque<(u64, Order)>,
    /// The number of the last question.
    asked: u64,
    /// Failures run again.
    has_retried: bool,
    /// They did once: the sink's failures may be replaced.
    may_replace: bool,
    /// The last order about the job was to cancel it.
    is_cancelled: bool,
}

struct SourceRow {
    row: RowId,
    sample: u32,
    body: Bytes,
}

/// What survives everything.
#[derive(Default)]
struct Sink {
    rows: BTreeMap<RowId, Outcome>,
    cursor: Option<Cursor>,
}

struct Running {
    machine: Client,
    port: ClientPort,
    line: Line,
    /// Where the scan of the source is.
    at: usize,
    /// Asked for, and not committed.
    writes: VecDeque<(WriteId, Vec<WriteRow>, Option<Cursor>)>,
    /// Rows of each submitted message that is not acknowledged.
    submitted: BTreeMap<Tag, Vec<RowId>>,
    is_frozen: bool,
    wake: Option<Micros>,
    /// It leaves then, whatever the session still has under way.
    leaves: Option<Micros>,
}

/// How long the session of a client that is done may go on once its failures run again: as long as the client's own `LAST_WORDS`.
/// What the router sends it then nobody takes, and such a session does not end by itself.
pub(super) const LAST_WORDS: Micros = Micros::from_secs(2);

/// Longest time of a commit of a sink.
const COMMIT_MAX: Micros = Micros::from_ms(20);

impl ClientHost {
    pub(crate) fn new(number: usize, plan: &Plan, planted: Option<Planted>) -> Self {
        Self {
            number,
            seed: plan.seed,
            faults: plan.faults,
            oddities: plan.oddities.clone(),
            planted,
            source: source(&plan.clients[number], number),
            starts: plan.clients[number].starts,
            sink: Sink::default(),
            run: None,
            life: 0,
            is_done: false,
            gave_up: false,
            orders: VecDeque::new(),
            asked: 0,
            has_retried: false,
            may_replace: false,
            is_cancelled: false,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_frozen)
    }

    pub(crate) fn conn(&self) -> Option<ConnId> {
        self.run.as_ref()?.line.conn
    }

    pub(crate) fn start(&mut self, env: &mut Env) {
        self.life += 1;
        let spec = JobSpec {
            job: self.job(),
            name: format!("c{}", self.number),
            service: "work".into(),
            revision: "1".into(),
            nonce: if self.oddities.fresh.contains(&self.number) { Bytes::from_static(b"fresh") } else { Bytes::new() },
            cursor: self.sink.cursor.map_or(0, |cursor| cursor.number),
            cursor_router: self.sink.cursor.map(|cursor| cursor.router),
            options: JobOptions { retries: 50, ..JobOptions::default() },
        };
        #[cfg_attr(not(feature = "mutations"), expect(unused_mut, reason = "only a mutation changes it"))]
        let mut machine = Client::new(Config { spec, failures_max: None, collects: self.collects() });
        #[cfg(feature = "mutations")]
        if self.planted == Some(Planted::LeaveWhenCancelled) {
            machine.plant_leave_when_cancelled();
        }
        let mut id = [2; 16];
        id[0] = self.number as u8;
        id[1..9].copy_from_slice(&self.life.to_le_bytes());
        let seed = self.seed ^ (self.life << 24) ^ (self.number as u64 + 77);
        let session = Session::new(self.session_config(seed), Side::Dialer, SessionId(id), seed);
        env.trace.note(env.agenda.now(), &[self.number as u64], || format!("client {} starts", self.number));
        env.tell(self.who(), |_| Some(format!("starts, life {}", self.life)));
        self.run = Some(Running {
            machine,
            port: ClientPort::new(session),
            line: Line::default(),
            at: 0,
            writes: VecDeque::new(),
            submitted: BTreeMap::new(),
            is_frozen: false,
            wake: None,
            leaves: None,
        });
        env.agenda.enter_in(Micros(1), Happening::Dial(self.who(), self.life));
        self.ask_again(env);
        self.drive(env);
    }

    pub(crate) fn crash(&mut self, env: &mut Env) {
        let Some(run) = self.run.take() else { return };
        if let Some(conn) = run.line.conn {
            env.cut(conn);
        }
        self.is_done &= !self.has_more();
        env.tell(self.who(), |_| Some("dies".to_owned()));
        env.trace.note(env.agenda.now(), &[self.number as u64], || format!("client {} dies", self.number));
    }

    pub(crate) fn freeze(&mut self, is_frozen: bool, env: &mut Env) {
        if let Some(run) = &mut self.run {
            run.is_frozen = is_frozen;
        }
        self.drive(env);
    }

    pub(crate) fn dial(&mut self, env: &mut Env) {
        let Some(run) = &mut self.run else { return };
        if run.line.conn.is_none() {
            let conn = env.network.dial(self.number);
            run.line.conn = Some(conn);
            env.register(conn, Who::Client(self.number));
            let nonce = env.rng.next_u64();
            env.input(&mut run.port, &mut run.line, End::Dialer, Input::Connected { conn: nonce });
        }
        self.drive(env);
    }

    pub(crate) fn on_bytes(&mut self, env: &mut Env, bytes: Option<Bytes>) {
        let Some(run) = &mut self.run else { return };
        match bytes {
            Some(bytes) => env.input(&mut run.port, &mut run.line, End::Dialer, Input::Bytes(bytes.into())),
            None => {
                run.line.conn = None;
                env.input(&mut run.port, &mut run.line, End::Dialer, Input::Disconnected);
                env.redial(Who::Client(self.number), self.life);
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
        if !run.is_frozen && run.leaves.is_some_and(|at| at <= now) {
            return self.leave(env);
        }
        if run.line.wake.is_some_and(|at| at <= now) {
            env.input(&mut run.port, &mut run.line, End::Dialer, Input::Tick);
        }
        if run.machine.deadline().is_some_and(|at| at <= now) {
            run.machine.handle(now, Event::Tick);
        }
        self.drive(env);
    }

    /// The oldest write is durable: its rows and its cursor, both.
    pub(crate) fn on_committed(&mut self, env: &mut Env) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        let Some((id, rows, cursor)) = run.writes.pop_front() else { return };
        env.tell(Who::Client(self.number), |story| {
            let cursor = cursor.map_or(String::new(), |cursor| format!(", cursor {}", cursor.number));
            Some(format!("sink has{}{cursor}", story.rows(rows.iter().map(|row| row.row))))
        });
        for row in rows {
            let body = self.source.iter().find(|source| source.row == row.row).map(|source| source.body.clone());
            let Some(body) = body else {
                env.ledger.violate(format!("client {}: a row that is not in the source is written", self.number));
                continue;
            };
            env.trace.note(now, &[digest(&body)], || {
                format!("client {} has {}", self.number, String::from_utf8_lossy(&body))
            });
            // A router that went back in time fails a row anew, as it would after somebody's retry; an answer stays.
            let before = self.sink.rows.get(&row.row);
            let is_there =
                before.is_some_and(|before| before.is_ok() || !(self.oddities.has_old_journal || self.may_replace));
            env.ledger.on_committed(self.number, &row, &body, is_there);
            self.sink.rows.insert(row.row, row.outcome);
        }
        if let Some(cursor) = cursor
            && self.planted != Some(Planted::CursorNotInSink)
        {
            self.sink.cursor = Some(cursor);
        }
        run.machine.handle(now, Event::Written(id));
        self.drive(env);
    }

    /// Every row has its outcome, once, and nothing else is there.
    pub(crate) fn check(&self, env: &mut Env) {
        let missing = self.source.iter().filter(|row| !self.sink.rows.contains_key(&row.row)).count();
        if missing > 0 && !self.gave_up {
            env.ledger.violate(format!("client {}: {missing} of {} rows lost", self.number, self.source.len()));
        }
        if !self.is_done {
            env.ledger.violate(format!("client {}: its job does not end", self.number));
        }
        if let Some(what) = env.ledger.orders.on_rest(self.job(), &self.sink.rows) {
            env.ledger.violate(format!("client {}: {what}", self.number));
        }
    }

    fn check_time(&self, env: &mut Env) {
        let Some((_, most)) = self.oddities.in_time.filter(|(number, _)| *number == self.number) else { return };
        let took = env.now().since(self.starts);
        if took > most {
            env.ledger.violate(format!("client {}: a small job took {took:?} beside a huge one", self.number));
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
                env.redial(Who::Client(self.number), self.life);
            }
            if done && self.is_done {
                return self.leave(env);
            }
            let mut is_idle = reports.is_empty();
            for report in reports {
                self.on_report(env, report);
            }
            let mut outputs = Vec::new();
            let now = env.now();
            while let Some(output) = self.run.as_mut().and_then(|run| run.machine.poll(now)) {
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

    fn leave(&mut self, env: &mut Env) {
        let Some(run) = self.run.take() else { return };
        if let Some(conn) = run.line.conn {
            env.cut(conn);
        }
        if self.has_more() {
            self.come_back(env);
        }
    }

    fn on_report(&mut self, env: &mut Env, report: ClientReport) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        match report {
            ClientReport::Event { job: _, event } => {
                if let Event::Acknowledged(upto) = &event {
                    while let Some(entry) = run.submitted.first_entry().filter(|entry| entry.key() <= upto) {
                        env.ledger.on_rows_told(&entry.remove());
                    }
                }
                env.tell(Who::Client(self.number), |story| story.client_event(&event));
                env.trace.note(now, &[], || format!("client {} <- {event:?}", self.number));
                run.machine.handle(now, event);
            }
            // Nobody watches here, and simulated programs make no pieces.
            ClientReport::Piece { .. } => {}
            ClientReport::Answer { id, answer } => self.on_answer(env, id, answer),
            ClientReport::Over(over) if self.is_done => {
                env.trace.note(now, &[], || format!("client {}: session over: {over:?}", self.number));
            }
            ClientReport::Over(over) => env.ledger.violate(format!("client {}: session over: {over:?}", self.number)),
        }
    }

    fn on_output(&mut self, env: &mut Env, output: Output) {
        let now = env.now();
        let (life, job) = (self.life, self.job());
        env.trace.note(now, &[], || format!("client {} -> {output:?}", self.number));
        let Some(run) = &mut self.run else { return };
        match output {
            Output::Read { rows, bytes: _ } => self.read(now, rows),
            Output::Rewind => run.at = 0,
            Output::Send { tag, message } => {
                env.tell(Who::Client(self.number), |story| story.says(&message));
                if let (Some(tag), ToRouter::Submit { rows, .. }) = (tag, &message) {
                    run.submitted.insert(tag, rows.iter().map(|row| row.row).collect());
                }
                run.port.command(now, ClientCommand::Send { tag, message });
            }
            Output::Write { id, rows, cursor } => {
                run.writes.push_back((id, rows, cursor));
                let delay = env.time_below(self.oddities.slow_sink.unwrap_or(COMMIT_MAX));
                // Commits come in order: each takes its turn from the front.
                env.agenda.enter_in(delay, Happening::Committed { client: self.number, life });
            }
            Output::Commit(ticket) => run.port.command(now, ClientCommand::Commit(ticket)),
            Output::Done(ended) => {
                env.tell(Who::Client(self.number), |_| Some(format!("job ends: {:?}", ended.reason)));
                let is_cancelled = ended.reason == Reason::Refused(Refusal::Cancelled);
                self.gave_up = (self.oddities.has_old_journal && is_refusal_of_old(&ended.reason))
                    || (is_cancelled && env.ledger.orders.is_doomed(job));
                let is_complete = ended.reason == Reason::Complete && ended.audit.lost == 0;
                let repeats = ended.audit.repeated > 0 && !self.oddities.has_old_journal;
                if !(is_complete || self.gave_up) || repeats {
                    env.ledger.violate(format!("client {} ends with {ended:?}", self.number));
                }
                self.is_done = true;
                run.port.command(now, ClientCommand::Close(How::Drain));
                self.check_time(env);
            }
        }
    }

    /// The next rows of the source; those that the sink has are only counted.
    fn read(&mut self, now: Micros, max: usize) {
        let Some(run) = &mut self.run else { return };
        if run.at >= self.source.len() {
            run.machine.handle(now, Event::SourceEnd);
            return;
        }
        let (mut rows, mut kept) = (Vec::new(), Kept::default());
        while let Some(source) = self.source.get(run.at)
            && rows.len() < max
        {
            run.at += 1;
            let number = run.at as u64;
            match self.sink.rows.get(&source.row) {
                Some(outcome) => {
                    kept.rows += 1;
                    if !outcome.is_ok() {
                        kept.failed.push((source.row, number));
                    }
                }
                None => {
                    let SourceRow { row, sample, body } = source;
                    rows.push(ScannedRow { number, row: *row, sample: *sample, body: Ok(body.clone()) });
                }
            }
        }
        run.machine.handle(now, Event::Scanned { rows, kept });
    }

    fn set_timer(&mut self, env: &mut Env) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        let wakes = run.line.wake.into_iter().chain(run.machine.deadline()).chain(run.leaves);
        let Some(next) = wakes.min().map(|at| at.max(Micros(now.0 + 1))) else { return };
        if run.wake.is_none_or(|at| next < at) {
            run.wake = Some(next);
            env.agenda.enter(next, Happening::Wake(Who::Client(self.number), self.life));
        }
    }

    fn who(&self) -> Who {
        Who::Client(self.number)
    }

    fn session_config(&self, seed: u64) -> SessionConfig {
        let faults = self.faults.map(|faults| Faults { seed: faults.seed ^ seed, ..faults });
        let config = SessionConfig {
            incarnation: 1,
            boot: seed,
            faults,
            #[cfg(feature = "mutations")]
            mutation: self.planted.and_then(Planted::session),
            ..self.oddities.session_config()
        };
        fit_dialer_config(config, Depth::Memory)
    }
}

/// The router has an older copy of its journal, and the client saw that.
fn is_refusal_of_old(reason: &Reason) -> bool {
    matches!(reason, Reason::Refused(Refusal::CursorAhead { .. }) | Reason::Gap { .. })
}

/// Rows with their names: a body and its ordinal among equals, within this client.
fn source(plan: &ClientPlan, number: usize) -> Vec<SourceRow> {
    let mut seen: BTreeMap<Bytes, u32> = BTreeMap::new();
    let mut named = |body: &Bytes| {
        let ordinal = seen.entry(body.clone()).or_default();
        let mut row = [number as u8; 16];
        row[1..9].copy_from_slice(&digest(body).to_le_bytes());
        row[9..13].copy_from_slice(&ordinal.to_le_bytes());
        let sample = if plan.share { 0 } else { *ordinal };
        *ordinal += 1;
        SourceRow { row: RowId(row), sample, body: body.clone() }
    };
    plan.rows.iter().map(&mut named).collect()
}

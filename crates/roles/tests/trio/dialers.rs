//! The client and the workers of the trio: machine, port, and what stands for source, sink, executor and spool.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sheaf_roles::client::{self, Client, Cursor, Kept, ScannedRow, WriteId, WriteRow};
use sheaf_roles::port::{ClientCommand, ClientPort, ClientReport, WorkerCommand, WorkerPort, WorkerReport, fit_config};
use sheaf_roles::worker::{self, Worker};
use sheaf_session::{
    Config as SessionConfig, Depth, Endpoint, How, Input, Micros, Rng, Session, SessionId, Side, State, Step,
};
use sheaf_task::{Capacity, Fence, JobId, JobOptions, JobSpec, Outcome, RowId, WorkerId};

use crate::world::{Pipe, Setup};

/// Everything that survives a crash of the client.
#[derive(Default)]
pub(crate) struct Sink {
    /// How often each row was written.
    pub(crate) rows: BTreeMap<RowId, u32>,
    cursor: Option<Cursor>,
}

pub(crate) struct ClientSide {
    setup: Setup,
    life: u64,
    machine: Client,
    port: ClientPort,
    pub(crate) sink: Sink,
    /// Writes under way.
    writing: Vec<(Micros, WriteId, Vec<WriteRow>, Option<Cursor>)>,
    next: u64,
    wake: Option<Micros>,
    pub(crate) ended: Option<client::Ended>,
    /// The router once said that the sink has more than it had.
    pub(crate) overtaken: bool,
}

fn row(number: u64) -> RowId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    RowId(id)
}

impl ClientSide {
    pub(crate) fn new(setup: Setup) -> Self {
        let sink = Sink::default();
        let (machine, port) = Self::begin(&setup, 1, &sink);
        Self {
            setup,
            life: 1,
            machine,
            port,
            sink,
            writing: Vec::new(),
            next: 1,
            wake: None,
            ended: None,
            overtaken: false,
        }
    }

    fn begin(setup: &Setup, life: u64, sink: &Sink) -> (Client, ClientPort) {
        let spec = JobSpec {
            job: JobId([8; 16]),
            name: "job".into(),
            service: "s".into(),
            revision: "1".into(),
            nonce: Bytes::new(),
            cursor: sink.cursor.map_or(0, |cursor| cursor.number),
            cursor_router: sink.cursor.map(|cursor| cursor.router),
            options: JobOptions::default(),
        };
        #[cfg_attr(not(feature = "mutations"), expect(unused_mut, reason = "only a mutation changes it"))]
        let mut machine = Client::new(client::Config { spec, failures_max: None, collects: false });
        #[cfg(feature = "mutations")]
        if setup.commit_before_sink {
            machine.plant_commit_before_sink();
        }
        let mut id = [1; 16];
        id[0] = life as u8;
        let config = SessionConfig { boot: life, ..fit_config(setup.session(2 + 10 * life), Depth::Memory) };
        (machine, ClientPort::new(Session::new(config, Side::Dialer, SessionId(id), life)))
    }

    /// `kill -9`, and the same command again.
    pub(crate) fn die(&mut self) {
        self.life += 1;
        (self.machine, self.port) = Self::begin(&self.setup, self.life, &self.sink);
        self.writing.clear();
        self.next = 1;
        self.wake = None;
    }

    pub(crate) fn on_connected(&mut self, now: Micros, conn: u64) {
        self.port.input(now, Input::Connected { conn }).expect("nothing of the peer's");
    }

    pub(crate) fn on_closed(&mut self, now: Micros) {
        self.port.input(now, Input::Disconnected).expect("nothing of the peer's");
    }

    pub(crate) fn on_bytes(&mut self, now: Micros, bytes: Bytes) -> bool {
        self.port.input(now, Input::Bytes(bytes.into())).is_ok()
    }

    pub(crate) fn turn(&mut self, now: Micros, pipe: &mut Pipe) {
        if self.wake.is_some_and(|wake| wake <= now) {
            self.port.input(now, Input::Tick).expect("nothing of the peer's");
        }
        if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.machine.handle(now, client::Event::Tick);
        }
        while self.writing.first().is_some_and(|(due, ..)| *due <= now) {
            let (_, id, rows, cursor) = self.writing.remove(0);
            rows.iter().for_each(|row| *self.sink.rows.entry(row.row).or_default() += 1);
            self.sink.cursor = cursor.or(self.sink.cursor);
            self.machine.handle(now, client::Event::Written(id));
        }
        loop {
            self.poll_port(now, pipe);
            let mut quiet = true;
            while let Some(output) = self.machine.poll(now) {
                quiet = false;
                self.carry_out(now, output);
            }
            if quiet {
                break;
            }
        }
    }

    fn poll_port(&mut self, now: Micros, pipe: &mut Pipe) {
        loop {
            match self.port.poll(now) {
                Step::Transmit(bytes) => pipe.send(now, true, bytes),
                Step::Report(ClientReport::Event { job: _, event }) => {
                    if let client::Event::Opened { cursor, .. } = &event {
                        self.overtaken |= *cursor > self.sink.cursor.map_or(0, |cursor| cursor.number);
                    }
                    self.machine.handle(now, event);
                }
                Step::Report(ClientReport::Answer { .. } | ClientReport::Piece { .. } | ClientReport::Over(_)) => {}
                Step::Close(_) => pipe.close(),
                Step::Wait(wake) => {
                    self.wake = wake;
                    return;
                }
                Step::Done => return,
            }
        }
    }

    fn carry_out(&mut self, now: Micros, output: client::Output) {
        match output {
            client::Output::Read { rows, .. } => {
                let event = self.read(rows as u64);
                self.machine.handle(now, event);
            }
            client::Output::Rewind => self.next = 1,
            client::Output::Send { tag, message } => self.port.command(now, ClientCommand::Send { tag, message }),
            client::Output::Write { id, rows, cursor } => {
                self.writing.push((now + Micros::from_ms(self.setup.write_ms), id, rows, cursor))
            }
            client::Output::Commit(ticket) => self.port.command(now, ClientCommand::Commit(ticket)),
            client::Output::Done(ended) => {
                self.port.command(now, ClientCommand::Close(How::Drain));
                self.ended = Some(ended);
            }
        }
    }

    fn read(&mut self, rows_max: u64) -> client::Event {
        let end = (self.next + rows_max.min(64)).min(self.setup.rows + 1);
        if self.next == end {
            return client::Event::SourceEnd;
        }
        let numbers = std::mem::replace(&mut self.next, end)..end;
        let (mut rows, mut kept) = (Vec::new(), Kept::default());
        for number in numbers {
            if self.sink.rows.contains_key(&row(number)) {
                kept.rows += 1;
                continue;
            }
            let body = Ok(Bytes::from(format!("row {number}")));
            rows.push(ScannedRow { number, row: row(number), sample: 0, body });
        }
        client::Event::Scanned { rows, kept }
    }
}

pub(crate) struct WorkerSide {
    setup: Setup,
    which: u8,
    life: u64,
    capacity: Capacity,
    machine: Worker,
    port: WorkerPort,
    executing: Vec<(Micros, Fence, Bytes)>,
    /// The spool: what the session must remember, and the ends that are in it.
    spool: State,
    wake: Option<Micros>,
    /// Of all its lives.
    started: BTreeSet<Fence>,
    /// Attempts that started more than once.
    pub(crate) twice: u32,
}

impl WorkerSide {
    pub(crate) fn new(setup: Setup, which: u8, batch: u32, depth: u32) -> Self {
        let capacity = Capacity { batch, depth, bytes: 0 };
        let spool = State::new(SessionId([20 + which; 16]));
        let (machine, port) = Self::begin(&setup, which, 1, capacity, &spool, Vec::new());
        Self {
            setup,
            which,
            life: 1,
            capacity,
            machine,
            port,
            executing: Vec::new(),
            spool,
            wake: None,
            started: BTreeSet::new(),
            twice: 0,
        }
    }

    fn begin(
        setup: &Setup,
        which: u8,
        life: u64,
        capacity: Capacity,
        spool: &State,
        died_with: Vec<Fence>,
    ) -> (Worker, WorkerPort) {
        let config = setup.session(3 + u64::from(which) + 10 * life);
        let config = SessionConfig { incarnation: life, boot: life, ..fit_config(config, Depth::Disk) };
        let port = WorkerPort::recover(config, life, spool.clone());
        #[cfg_attr(not(feature = "mutations"), expect(unused_mut, reason = "only a mutation changes it"))]
        let mut machine = Worker::new(worker::Config {
            worker: WorkerId([30 + which; 16]),
            incarnation: life,
            name: format!("w{which}"),
            services: vec!["s".into()],
            capacity,
            died_with,
            spooled: port.unacknowledged(),
        });
        #[cfg(feature = "mutations")]
        if setup.run_twice {
            machine.plant_run_twice();
        }
        (machine, port)
    }

    /// Dies and comes back with its spool. How many executions that cut short.
    pub(crate) fn die(&mut self) -> u32 {
        self.life += 1;
        let died_with: Vec<Fence> = self.executing.drain(..).map(|(_, fence, _)| fence).collect();
        let cut_short = died_with.len() as u32;
        (self.machine, self.port) =
            Self::begin(&self.setup, self.which, self.life, self.capacity, &self.spool, died_with);
        self.wake = None;
        cut_short
    }

    pub(crate) fn on_connected(&mut self, now: Micros, conn: u64) {
        self.port.input(now, Input::Connected { conn }).expect("nothing of the peer's");
    }

    pub(crate) fn on_closed(&mut self, now: Micros) {
        self.port.input(now, Input::Disconnected).expect("nothing of the peer's");
    }

    pub(crate) fn on_bytes(&mut self, now: Micros, bytes: Bytes) -> bool {
        self.port.input(now, Input::Bytes(bytes.into())).is_ok()
    }

    pub(crate) fn turn(&mut self, now: Micros, pipe: &mut Pipe, rng: &mut Rng, ledger: &mut BTreeMap<Bytes, u32>) {
        if self.wake.is_some_and(|wake| wake <= now) {
            self.port.input(now, Input::Tick).expect("nothing of the peer's");
        }
        if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.machine.handle(now, worker::Event::Tick);
        }
        let (ended, executing) = self.executing.drain(..).partition(|(due, ..)| *due <= now);
        self.executing = executing;
        for (_, fence, body) in ended {
            self.machine.handle(
                now,
                worker::Event::Finished {
                    fence,
                    outcome: Outcome::Ok(body),
                    ms: 1,
                    tokens: sheaf_task::Tokens::default(),
                },
            );
        }
        loop {
            self.poll_port(now, pipe);
            let mut quiet = true;
            while let Some(output) = self.machine.poll() {
                quiet = false;
                self.carry_out(now, output, rng, ledger);
            }
            if quiet {
                break;
            }
        }
    }

    fn poll_port(&mut self, now: Micros, pipe: &mut Pipe) {
        loop {
            match self.port.poll(now) {
                Step::Transmit(bytes) => pipe.send(now, true, bytes),
                Step::Report(WorkerReport::Event(event)) => self.machine.handle(now, event),
                Step::Report(WorkerReport::Spool(ticket, record)) => {
                    self.spool.apply(record);
                    self.port.command(now, WorkerCommand::Spooled(ticket));
                }
                Step::Report(WorkerReport::Over(over)) => panic!("a worker's session ended: {over:?}"),
                Step::Close(_) => pipe.close(),
                Step::Wait(wake) => {
                    self.wake = wake;
                    return;
                }
                Step::Done => return,
            }
        }
    }

    fn carry_out(&mut self, now: Micros, output: worker::Output, rng: &mut Rng, ledger: &mut BTreeMap<Bytes, u32>) {
        match output {
            worker::Output::Start(assignments) => {
                for assignment in assignments {
                    self.twice += u32::from(!self.started.insert(assignment.fence));
                    *ledger.entry(assignment.body.clone()).or_default() += 1;
                    let ends = now + Micros(5_000 + rng.below(30_000));
                    self.executing.push((ends, assignment.fence, assignment.body));
                }
            }
            worker::Output::Kill(killed) => {
                self.executing.retain(|(_, fence, _)| *fence != killed);
                let failure = sheaf_task::Failure::new(sheaf_task::Class::Cancelled, "killed");
                let outcome = Outcome::Failed(failure);
                self.machine.handle(
                    now,
                    worker::Event::Finished { fence: killed, outcome, ms: 1, tokens: sheaf_task::Tokens::default() },
                );
            }
            worker::Output::Send(message) => self.port.command(now, WorkerCommand::Send(message)),
            worker::Output::Announce(capacity) => self.port.command(now, WorkerCommand::Announce(capacity)),
            worker::Output::DeathsReported => {}
            worker::Output::Refused(_) | worker::Output::Done => panic!("no worker is refused or stopped here"),
        }
    }
}

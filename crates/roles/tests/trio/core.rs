//! The router of the trio: its machine, its ports, and a journal in memory that is durable a millisecond later.

use std::collections::BTreeMap;

use sheaf_roles::port::{Fetched, Principal, RouterCommand, RouterPort, RouterReport, fit_config};
use sheaf_roles::router::{Config, Event, Generation, Limits, Lsn, Output, PeerId, Record, Router};
use sheaf_session::{
    Config as SessionConfig, Depth, Endpoint, Micros, Session, SessionId, Side, State, Step, peek_hello,
};
use sheaf_task::{KeySecret, RouterId};

use crate::world::Pipe;

pub(crate) struct Core {
    machine: Router,
    ports: BTreeMap<SessionId, Port>,
    journal: Vec<Record>,
    /// Commits under way, in order.
    syncing: Vec<(Micros, Lsn)>,
    synced: Lsn,
    epoch: u64,
    config: SessionConfig,
    peers: u64,
}

struct Port {
    peer: PeerId,
    port: RouterPort,
    /// The pipe that it is on.
    pipe: Option<usize>,
    wake: Option<Micros>,
}

const COMMIT: Micros = Micros::from_ms(1);

impl Core {
    pub(crate) fn new(config: SessionConfig) -> Self {
        let mut core = Self {
            machine: machine(1),
            ports: BTreeMap::new(),
            journal: Vec::new(),
            syncing: Vec::new(),
            synced: Lsn(0),
            epoch: 1,
            config,
            peers: 0,
        };
        core.machine.start(Micros::ZERO, Lsn(1));
        core
    }

    /// Dies, and comes back from what was durable.
    pub(crate) fn restart(&mut self, now: Micros) {
        self.journal.truncate(self.synced.0 as usize);
        self.syncing.clear();
        self.ports.clear();
        self.epoch += 1;
        self.machine = machine(self.epoch);
        for (at, record) in self.journal.iter().enumerate() {
            assert!(self.machine.replay(Lsn(at as u64 + 1), record), "{record:?}");
        }
        self.machine.start(now, Lsn(self.journal.len() as u64 + 1));
    }

    /// Bytes of a connection. False: drop it.
    pub(crate) fn on_bytes(&mut self, now: Micros, pipe: usize, bytes: &bytes::Bytes) -> bool {
        if let Some(port) = self.ports.values_mut().find(|port| port.pipe == Some(pipe)) {
            return port.port.input(now, sheaf_session::Input::Bytes(bytes.clone().into())).is_ok();
        }
        // Pipes keep packets whole, so the greeting is there or it is not.
        let Ok(Some(hello)) = peek_hello(bytes) else { return false };
        let port = self.port_of(hello.session);
        port.pipe = Some(pipe);
        let up = port.port.input(now, sheaf_session::Input::Connected { conn: 0 });
        up.and_then(|()| port.port.input(now, sheaf_session::Input::Bytes(bytes.clone().into()))).is_ok()
    }

    pub(crate) fn on_closed(&mut self, now: Micros, pipe: usize) {
        for port in self.ports.values_mut().filter(|port| port.pipe == Some(pipe)) {
            port.pipe = None;
            port.port.input(now, sheaf_session::Input::Disconnected).expect("nothing of the peer's");
        }
    }

    fn port_of(&mut self, id: SessionId) -> &mut Port {
        let Self { machine, ports, config, peers, epoch, .. } = self;
        ports.entry(id).or_insert_with(|| {
            *peers += 1;
            let mut state = State::new(id);
            machine.receipts().filter(|(session, _)| *session == id).for_each(|(_, receipt)| state.received(receipt));
            let config =
                SessionConfig { incarnation: *epoch, boot: *epoch, ..fit_config(config.clone(), Depth::Memory) };
            let session = Session::recover(config, Side::Listener, *peers, state);
            let port = RouterPort::new(session, id, PeerId(*peers), KeySecret([5; 32]), Principal::Owner);
            Port { peer: PeerId(*peers), port, pipe: None, wake: None }
        })
    }

    /// One turn: what ports have to say, one step of the machine, what it wants of ports. Transmits into `pipes`.
    pub(crate) fn turn(&mut self, now: Micros, pipes: &mut [Pipe]) {
        let mut over = Vec::new();
        for (id, port) in &mut self.ports {
            if port.wake.is_some_and(|wake| wake <= now) {
                port.port.input(now, sheaf_session::Input::Tick).expect("nothing of the peer's");
            }
            if poll(port, now, pipes, &mut self.machine, &self.journal) {
                over.push(*id);
            }
        }
        over.iter().for_each(|id| drop(self.ports.remove(id)));
        while self.syncing.first().is_some_and(|(due, _)| *due <= now) {
            self.synced = self.syncing.remove(0).1;
            self.machine.handle(now, Event::Durable(self.synced));
        }
        if self.machine.deadline() <= now {
            self.machine.handle(now, Event::Tick);
        }
        let before = self.journal.len();
        while let Some(output) = self.machine.poll() {
            self.carry_out(now, output);
        }
        if self.journal.len() > before {
            self.syncing.push((now + COMMIT, Lsn(self.journal.len() as u64)));
        }
    }

    fn carry_out(&mut self, now: Micros, output: Output) {
        let (peer, command) = match output {
            Output::Append { lsn, record } => {
                self.journal.push(record);
                assert_eq!(lsn.0, self.journal.len() as u64);
                return;
            }
            Output::Commit { peer, place } => (peer, RouterCommand::Commit(place)),
            Output::Send { peer, lane, tag, message } => (peer, RouterCommand::Send { lane, tag, message }),
            Output::Signal { peer, counts } => (peer, RouterCommand::Signal(counts)),
            Output::Relook { .. } | Output::Lost(_) | Output::Stopped => {
                unreachable!("nothing is sealed, lost or stopped here")
            }
        };
        if let Some(port) = self.ports.values_mut().find(|port| port.peer == peer) {
            port.port.command(now, command);
        }
    }
}

/// True when the session is over.
fn poll(port: &mut Port, now: Micros, pipes: &mut [Pipe], machine: &mut Router, journal: &[Record]) -> bool {
    loop {
        match port.port.poll(now) {
            Step::Transmit(bytes) => {
                if let Some(pipe) = port.pipe {
                    pipes[pipe].send(now, false, bytes);
                }
            }
            Step::Report(RouterReport::Event(mut event)) => {
                if let Event::Message { inbound, .. } = &mut event {
                    port.port.look_up(inbound, Generation(0), |keys| vec![Vec::new(); keys.len()]);
                }
                machine.handle(now, event);
            }
            Step::Report(RouterReport::Fetch { msg, lsns }) => {
                let read = |lsn: &Lsn| journal.get(lsn.0 as usize - 1).map(fetched);
                let records = lsns.iter().map(read).collect();
                port.port.command(now, RouterCommand::Fetched { msg, records });
            }
            Step::Report(RouterReport::Over(_)) => {}
            Step::Close(_) => {
                if let Some(pipe) = port.pipe {
                    pipes[pipe].close();
                }
            }
            Step::Wait(wake) => {
                port.wake = wake;
                return false;
            }
            Step::Done => return true,
        }
    }
}

fn fetched(record: &Record) -> Fetched {
    let mut payload = Vec::new();
    record.encode_into(&mut payload);
    Fetched { kind: record.kind(), payload: payload.into() }
}

fn machine(epoch: u64) -> Router {
    Router::new(Config {
        router: RouterId([4; 16]),
        epoch,
        seed: epoch,
        grace: Micros::from_secs(20),
        sealed: Lsn(0),
        generation: Generation(0),
        limits: Limits::default(),
        #[cfg(feature = "mutations")]
        mutation: None,
    })
}

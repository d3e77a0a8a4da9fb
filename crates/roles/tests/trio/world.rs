//! Time, pipes and faults of the trio.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sheaf_session::{Config, Faults, Micros, Rng};

use crate::core::Core;
use crate::dialers::{ClientSide, WorkerSide};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) rows: u64,
    pub(crate) seed: u64,
    /// Sessions drop, double and reorder packets.
    pub(crate) faulty: bool,
    /// How long the sink takes to commit.
    pub(crate) write_ms: u64,
    #[cfg(feature = "mutations")]
    pub(crate) commit_before_sink: bool,
    #[cfg(feature = "mutations")]
    pub(crate) run_twice: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            rows: 100,
            seed: 1,
            faulty: false,
            write_ms: 3,
            #[cfg(feature = "mutations")]
            commit_before_sink: false,
            #[cfg(feature = "mutations")]
            run_twice: false,
        }
    }
}

impl Setup {
    pub(crate) fn session(&self, of: u64) -> Config {
        let seed = self.seed * 100 + of;
        let faults = Faults { drop: 0.1, dup: 0.05, reorder: 0.1, delay: 0.05, seed };
        Config { faults: self.faulty.then_some(faults), ..Config::default() }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The link of this dialer: 0 the client's, 1 and 2 the workers'.
    Cut(usize),
    Router,
    Worker(usize),
    Client,
}

/// A connection, or its absence. Both ends see it end at once; what was on the way is gone.
pub(crate) struct Pipe {
    pub(crate) open: bool,
    closing: bool,
    dial_at: Micros,
    way: [VecDeque<(Micros, Bytes)>; 2],
}

const LATENCY: Micros = Micros::from_ms(1);
const REDIAL: Micros = Micros::from_ms(20);

impl Pipe {
    fn new() -> Self {
        Self { open: false, closing: false, dial_at: Micros::ZERO, way: [VecDeque::new(), VecDeque::new()] }
    }

    pub(crate) fn send(&mut self, now: Micros, to_router: bool, bytes: Bytes) {
        if self.open {
            self.way[usize::from(to_router)].push_back((now + LATENCY, bytes));
        }
    }

    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    fn next(&mut self, now: Micros, to_router: bool) -> Option<Bytes> {
        let way = &mut self.way[usize::from(to_router)];
        way.front().is_some_and(|(due, _)| *due <= now).then(|| way.pop_front().map(|(_, bytes)| bytes)).flatten()
    }

    fn cut(&mut self, now: Micros) {
        (self.open, self.closing, self.dial_at) = (false, false, now + REDIAL);
        self.way = [VecDeque::new(), VecDeque::new()];
    }
}

pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) core: Core,
    pub(crate) client: ClientSide,
    pub(crate) workers: Vec<WorkerSide>,
    pipes: Vec<Pipe>,
    rng: Rng,
    /// Executions that came to their end or were cut short, by body.
    pub(crate) ledger: BTreeMap<Bytes, u32>,
    /// Executions that a dying worker cut short.
    pub(crate) died_executing: u32,
}

const TIME_MAX: Micros = Micros::from_secs(300);

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            now: Micros::ZERO,
            core: Core::new(setup.session(1)),
            client: ClientSide::new(setup),
            workers: vec![WorkerSide::new(setup, 0, 2, 3), WorkerSide::new(setup, 1, 4, 4)],
            pipes: (0..3).map(|_| Pipe::new()).collect(),
            rng: Rng::new(setup.seed),
            ledger: BTreeMap::new(),
            died_executing: 0,
        }
    }

    /// Until the client's end, or far too long.
    pub(crate) fn run(&mut self, faults: &[(u64, Fault)]) {
        let mut faults: VecDeque<_> = faults.iter().copied().collect();
        while self.now < TIME_MAX && self.client.ended.is_none() {
            while faults.front().is_some_and(|(at, _)| Micros::from_ms(*at) <= self.now)
                && let Some((_, fault)) = faults.pop_front()
            {
                self.inflict(fault);
            }
            self.turn();
            self.now = self.now + Micros::from_ms(1);
        }
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(link) => self.cut(link),
            Fault::Router => {
                (0..3).for_each(|link| self.cut(link));
                self.core.restart(self.now);
            }
            Fault::Worker(which) => {
                self.cut(1 + which);
                self.died_executing += self.workers[which].die();
            }
            Fault::Client => {
                self.cut(0);
                self.client.die();
            }
        }
    }

    fn cut(&mut self, link: usize) {
        if !self.pipes[link].open {
            return;
        }
        self.pipes[link].cut(self.now);
        self.core.on_closed(self.now, link);
        match link {
            0 => self.client.on_closed(self.now),
            worker => self.workers[worker - 1].on_closed(self.now),
        }
    }

    fn turn(&mut self) {
        for link in 0..3 {
            if self.pipes[link].closing {
                self.cut(link);
            }
            if !self.pipes[link].open && self.pipes[link].dial_at <= self.now {
                self.pipes[link].open = true;
                let conn = self.rng.next_u64();
                match link {
                    0 => self.client.on_connected(self.now, conn),
                    worker => self.workers[worker - 1].on_connected(self.now, conn),
                }
            }
            self.carry(link);
        }
        self.core.turn(self.now, &mut self.pipes);
        self.client.turn(self.now, &mut self.pipes[0]);
        for (worker, pipe) in self.workers.iter_mut().zip(&mut self.pipes[1..]) {
            worker.turn(self.now, pipe, &mut self.rng, &mut self.ledger);
        }
    }

    fn carry(&mut self, link: usize) {
        let mut good = true;
        while let Some(bytes) = self.pipes[link].next(self.now, true) {
            good &= self.core.on_bytes(self.now, link, &bytes);
        }
        while let Some(bytes) = self.pipes[link].next(self.now, false) {
            good &= match link {
                0 => self.client.on_bytes(self.now, bytes),
                worker => self.workers[worker - 1].on_bytes(self.now, bytes),
            };
        }
        if !good {
            self.cut(link);
        }
    }
}

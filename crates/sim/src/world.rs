//! The world: hosts, and the loop that takes one thing after the other off the agenda.

use bytes::Bytes;
use sheaf_session::{Micros, Rng};

use crate::agenda::Agenda;
use crate::client_host::ClientHost;
use crate::env::{Env, Happening};
use crate::ledger::{Ledger, Violation};
use crate::mutation::Planted;
use crate::network::{Arrival, ConnId, End, Network};
use crate::plan::{Break, Plan, Who};
use crate::router_host::RouterHost;
use crate::story::Story;
use crate::trace::{Show, Trace};
use crate::worker_host::WorkerHost;

/// A cluster and everything around it.
pub struct World {
    env: Env,
    router: RouterHost,
    workers: Vec<WorkerHost>,
    clients: Vec<ClientHost>,
    /// What has come for hosts that stand still.
    held: Vec<(Who, ConnId, Option<Bytes>)>,
    horizon: Micros,
    steps_max: u64,
    /// Hosts that nothing reaches, until then.
    parted: Vec<(Who, Micros)>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Equal for equal seeds.
    pub hash: u64,
    /// Simulated time until the last job was done.
    pub ended: Micros,
    /// Things that were on the agenda.
    pub steps: u64,
    /// Attempts that began.
    pub executed: u64,
    /// What must never happen and did.
    pub violations: Vec<Violation>,
    /// What happened, where it was to be kept.
    pub lines: Vec<String>,
}

/// After the last fault the cluster has this long to finish: longer than every backoff and grace.
const PATIENCE: Micros = Micros::from_secs(3_600);

impl World {
    /// A world as planned; `show`: what its outcome has as text.
    pub fn new(plan: &Plan, planted: Option<Planted>, show: Show) -> Self {
        let mut env = Env {
            agenda: Agenda::new(),
            network: Network::new(plan.weather, plan.seed ^ 1),
            rng: Rng::new(plan.seed ^ 2),
            trace: Trace::new(show == Show::All),
            story: (show == Show::Story).then(Story::default),
            ledger: Ledger::default(),
            ends: std::collections::BTreeMap::new(),
            cuts: Vec::new(),
            loses_packets: plan.faults.is_some(),
            is_steady: plan.is_steady,
        };
        env.agenda.enter(Micros(0), Happening::Start(Who::Router));
        for (number, worker) in plan.workers.iter().enumerate() {
            env.agenda.enter(worker.starts, Happening::Start(Who::Worker(number)));
        }
        for (number, client) in plan.clients.iter().enumerate() {
            env.agenda.enter(client.starts, Happening::Start(Who::Client(number)));
        }
        for (at, one) in &plan.breaks {
            env.agenda.enter(*at, Happening::Break(*one));
        }
        Self {
            env,
            router: RouterHost::new(plan, planted),
            workers: (0..plan.workers.len()).map(|number| WorkerHost::new(number, plan, planted)).collect(),
            clients: (0..plan.clients.len()).map(|number| ClientHost::new(number, plan, planted)).collect(),
            held: Vec::new(),
            horizon: plan.calm_after() + PATIENCE,
            steps_max: plan.steps_max,
            parted: Vec::new(),
        }
    }

    /// Runs until every job is done, something impossible happens, or it takes too long.
    pub fn run(mut self) -> Outcome {
        let mut steps = 0;
        while self.env.ledger.violations().is_empty()
            && !self.clients.iter().all(ClientHost::rests)
            && self.env.now() < self.horizon
            && steps < self.steps_max
        {
            let Some(happening) = self.env.agenda.next() else { break };
            steps += 1;
            self.happen(happening);
            self.cut_ends();
        }
        for client in &self.clients {
            client.check(&mut self.env);
        }
        if let Some(what) = self.env.ledger.orders.on_end() {
            self.env.ledger.violate(what);
        }
        if steps == self.steps_max {
            let next = self.env.agenda.next();
            self.env.ledger.violate(format!("{steps} steps and no end; next: {next:?}"));
        }
        let Env { trace, story, ledger, agenda, .. } = self.env;
        Outcome {
            hash: trace.hash(),
            ended: agenda.now(),
            steps,
            executed: ledger.executed,
            violations: ledger.violations().to_vec(),
            lines: story.map_or_else(|| trace.lines().to_vec(), Story::into_lines),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start(who) => self.start(who),
            Happening::Arrive(Arrival { conn, end, .. }) if self.env.network.is_lost(conn, end) => {}
            Happening::Arrive(Arrival { conn, end, bytes }) => self.arrive(conn, end, bytes),
            Happening::Wake(who, life) if self.life(who) == life => match who {
                Who::Router => self.router.on_wake(&mut self.env),
                Who::Worker(number) => self.workers[number].on_wake(&mut self.env),
                Who::Client(number) => self.clients[number].on_wake(&mut self.env),
            },
            Happening::Dial(who, life) if self.life(who) == life => self.dial(who),
            Happening::Synced(life) if self.router.life == life => self.router.on_synced(&mut self.env),
            Happening::Executed { worker, life, run } if self.workers[worker].life == life => {
                self.workers[worker].on_executed(&mut self.env, run);
            }
            Happening::SyncSpool { worker, life } if self.workers[worker].life == life => {
                self.workers[worker].on_sync()
            }
            Happening::Committed { client, life } if self.clients[client].life == life => {
                self.clients[client].on_committed(&mut self.env);
            }
            Happening::Break(one) => self.break_something(one),
            Happening::Thaw(who, life) if self.life(who) == life => self.thaw(who),
            // Meant for a life that is over.
            Happening::Wake(..)
            | Happening::Dial(..)
            | Happening::Synced(_)
            | Happening::Executed { .. }
            | Happening::SyncSpool { .. }
            | Happening::Committed { .. }
            | Happening::Thaw(..) => {}
        }
    }

    fn life(&self, who: Who) -> u64 {
        match who {
            Who::Router => self.router.life,
            Who::Worker(number) => self.workers[number].life,
            Who::Client(number) => self.clients[number].life,
        }
    }

    fn start(&mut self, who: Who) {
        match who {
            Who::Router if !self.router.is_running() => self.router.start(&mut self.env),
            Who::Worker(number) if !self.workers[number].is_running() => {
                self.take_copy(number);
                self.workers[number].start(&mut self.env);
            }
            Who::Client(number) if !self.clients[number].is_running() && !self.clients[number].is_done => {
                self.clients[number].start(&mut self.env);
            }
            Who::Router | Who::Worker(_) | Who::Client(_) => {}
        }
    }

    /// A directory that is a copy is made before its first start.
    fn take_copy(&mut self, number: usize) {
        let worker = &self.workers[number];
        if let Some(original) = worker.clone_of().filter(|_| worker.life == 0) {
            let copy = self.workers[original].copy();
            self.workers[number].adopt(copy);
            self.env.ledger.on_doubled([original, number]);
        }
    }

    fn dial(&mut self, who: Who) {
        let now = self.env.now();
        self.parted.retain(|(_, until)| *until > now);
        if !self.router.is_running() || self.parted.iter().any(|(other, _)| *other == who) {
            let life = self.life(who);
            return self.env.redial(who, life);
        }
        match who {
            Who::Router => {}
            Who::Worker(number) => self.workers[number].dial(&mut self.env),
            Who::Client(number) => self.clients[number].dial(&mut self.env),
        }
    }

    fn arrive(&mut self, conn: ConnId, end: End, bytes: Option<Bytes>) {
        match (end, self.env.ends.get(&conn).copied()) {
            (End::Listener, _) if self.router.is_frozen() => self.held.push((Who::Router, conn, bytes)),
            (End::Listener, _) => self.router.on_arrival(&mut self.env, conn, bytes),
            (End::Dialer, Some(who)) if self.conn(who) == Some(conn) => self.hand_in(who, conn, bytes),
            // For a connection that its host has given up.
            (End::Dialer, _) => {}
        }
    }

    /// Bytes wait at the door of a host that stands still.
    fn hand_in(&mut self, who: Who, conn: ConnId, bytes: Option<Bytes>) {
        match who {
            Who::Router => {}
            Who::Worker(number) if self.workers[number].is_frozen() => self.held.push((who, conn, bytes)),
            Who::Client(number) if self.clients[number].is_frozen() => self.held.push((who, conn, bytes)),
            Who::Worker(number) => self.workers[number].on_bytes(&mut self.env, bytes),
            Who::Client(number) => self.clients[number].on_bytes(&mut self.env, bytes),
        }
    }

    fn thaw(&mut self, who: Who) {
        self.env.tell(who, |_| Some("goes on".to_owned()));
        self.freeze(who, false);
        let held = std::mem::take(&mut self.held);
        for (whose, conn, bytes) in held {
            if whose == who {
                let end = if who == Who::Router { End::Listener } else { End::Dialer };
                if bytes.is_none() || !self.env.network.is_lost(conn, end) {
                    self.arrive(conn, end, bytes);
                }
            } else {
                self.held.push((whose, conn, bytes));
            }
        }
    }

    fn break_something(&mut self, one: Break) {
        self.env.trace.note(self.env.agenda.now(), &[], || format!("{one:?}"));
        self.tell(one);
        if let Break::Crash { who, .. } | Break::Restore { who, .. } = one {
            self.held.retain(|(held, ..)| *held != who);
        }
        match one {
            Break::Crash { who, power, down } => {
                match who {
                    Who::Router => self.router.crash(&mut self.env, power),
                    Who::Worker(number) => self.workers[number].crash(&mut self.env, power),
                    Who::Client(number) => self.clients[number].crash(&mut self.env),
                }
                self.env.agenda.enter_in(down, Happening::Start(who));
            }
            Break::Cut(who) => {
                if let Some(conn) = self.conn(who) {
                    self.env.cut(conn);
                }
            }
            Break::Deafen { who, host_end } => {
                if let Some(conn) = self.conn(who) {
                    self.env.network.deafen(conn, if host_end { End::Dialer } else { End::Listener });
                }
            }
            Break::Part { who, time } => {
                self.parted.push((who, Micros(self.env.now().0.saturating_add(time.0))));
                if let Some(conn) = self.conn(who) {
                    self.env.network.deafen(conn, End::Dialer);
                    self.env.network.deafen(conn, End::Listener);
                }
            }
            Break::Leave { who: Who::Worker(number), away } => self.workers[number].leave(&mut self.env, away),
            Break::Leave { who: Who::Router | Who::Client(_), .. } => {}
            Break::Order { who: Who::Client(number), order } => self.clients[number].order(&mut self.env, order),
            Break::Order { who: Who::Router | Who::Worker(_), .. } => {}
            Break::BackUp(who) => match who {
                Who::Router => self.router.back_up(&mut self.env),
                Who::Worker(number) => self.workers[number].back_up(),
                Who::Client(_) => {}
            },
            Break::Restore { who, down } => {
                match who {
                    Who::Router => self.router.restore(&mut self.env),
                    Who::Worker(number) => self.workers[number].restore(&mut self.env),
                    Who::Client(number) => self.clients[number].crash(&mut self.env),
                }
                self.env.agenda.enter_in(down, Happening::Start(who));
            }
            Break::Freeze { who, time } => {
                self.freeze(who, true);
                let life = self.life(who);
                self.env.agenda.enter_in(time, Happening::Thaw(who, life));
            }
        }
    }

    fn tell(&mut self, one: Break) {
        let (who, text) = match one {
            Break::Crash { .. } => return,
            Break::Cut(who) => (who, "connection is cut"),
            Break::Deafen { who, host_end: true } => (who, "hears nothing any more"),
            Break::Deafen { who, host_end: false } => (who, "is not heard any more"),
            Break::Part { who, .. } => (who, "nothing passes between it and the router"),
            Break::Freeze { who, .. } => (who, "stands still"),
            Break::Leave { who, .. } => (who, "is told to leave"),
            Break::Order { .. } => return,
            Break::BackUp(who) => (who, "disk is copied"),
            Break::Restore { who, .. } => (who, "is put back to the copy of its disk"),
        };
        self.env.tell(who, |_| Some(text.to_owned()));
    }

    fn freeze(&mut self, who: Who, is_frozen: bool) {
        match who {
            Who::Router => self.router.freeze(is_frozen, &mut self.env),
            Who::Worker(number) => self.workers[number].freeze(is_frozen, &mut self.env),
            Who::Client(number) => self.clients[number].freeze(is_frozen, &mut self.env),
        }
    }

    fn conn(&self, who: Who) -> Option<ConnId> {
        match who {
            Who::Router => None,
            Who::Worker(number) => self.workers[number].conn(),
            Who::Client(number) => self.clients[number].conn(),
        }
    }

    /// Tells both ends of the connections that were cut just now.
    fn cut_ends(&mut self) {
        while let Some(conn) = self.env.cuts.pop() {
            self.arrive(conn, End::Listener, None);
            self.arrive(conn, End::Dialer, None);
        }
    }
}

//! What a seed decides before anything runs: how big the cluster is, what its rows are like, how the network and the
//! disks behave, and what breaks when.

use bytes::Bytes;
use sheaf_session::{Faults, Micros, Rng};

use crate::network::Weather;
use crate::oddities::Oddities;

/// Steps of a run that comes to no end, unless a scenario says less.
pub(crate) const STEPS_MAX: u64 = 3_000_000;

/// One run, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The seed that it came from.
    pub seed: u64,
    /// Rows of each client's source.
    pub clients: Vec<ClientPlan>,
    /// One entry a worker.
    pub workers: Vec<WorkerPlan>,
    /// Silence that loses a worker.
    pub grace: Micros,
    /// Delays of the network.
    pub(crate) weather: Weather,
    /// Faults inside every session.
    pub faults: Option<Faults>,
    /// Longest time of a sync of the router's disk.
    pub sync_max: Micros,
    /// What breaks, in order of time.
    pub breaks: Vec<(Micros, Break)>,
    /// What few runs have.
    pub oddities: Oddities,
    /// Everything takes its longest time: chance has no say in how long, so that a story stays as it is told.
    pub is_steady: bool,
    /// A run that takes more steps than this goes in circles.
    pub steps_max: u64,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Bodies, in order. Equal bodies are samples unless `share`.
    pub rows: Vec<Bytes>,
    /// Equal rows share one execution.
    pub share: bool,
    /// When it starts first.
    pub starts: Micros,
}

/// One worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerPlan {
    /// Executions at once.
    pub batch: u32,
    /// Waiting behind them.
    pub depth: u32,
    /// Longest execution.
    pub slow: Micros,
    /// It keeps a spool; else it forgets everything when it dies.
    pub has_spool: bool,
    /// When it starts first.
    pub starts: Micros,
    /// Its directory is a copy of this worker's, made as it starts: two of one name.
    pub clone_of: Option<usize>,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// A process dies and is started again after a while.
    Crash {
        /// Which.
        who: Who,
        /// Its machine too, and this is left of what its disk had not synced.
        power: Option<Left>,
        /// Until the next start.
        down: Micros,
    },
    /// A host's connection is cut.
    Cut(Who),
    /// Nothing reaches one end of a host's connection any more, and nobody is told.
    Deafen {
        /// Whose connection.
        who: Who,
        /// The host's end; else the router's.
        host_end: bool,
    },
    /// Nothing passes between a host and the router for so long, new connections included.
    Part {
        /// Which host.
        who: Who,
        /// For how long.
        time: Micros,
    },
    /// A host stands still and goes on later, as after SIGSTOP and SIGCONT.
    Freeze {
        /// Which.
        who: Who,
        /// For how long.
        time: Micros,
    },
    /// A worker is told to stop, finishes what it executes, leaves, and comes back.
    Leave {
        /// Which.
        who: Who,
        /// Until the next start.
        away: Micros,
    },
    /// An operator asks something about a client's job.
    Order {
        /// Whose.
        who: Who,
        /// What.
        order: Order,
    },
    /// Somebody copies a host's disk.
    BackUp(Who),
    /// A host's machine is lost, and starts again from the copy.
    Restore {
        /// Which.
        who: Who,
        /// Until the next start.
        down: Micros,
    },
}

impl Break {
    /// How long it goes on.
    fn lasts(&self) -> Micros {
        match self {
            Break::Crash { down: time, .. }
            | Break::Restore { down: time, .. }
            | Break::Freeze { time, .. }
            | Break::Part { time, .. }
            | Break::Leave { away: time, .. } => *time,
            Break::Cut(_) | Break::Deafen { .. } | Break::BackUp(_) | Break::Order { .. } => Micros(0),
        }
    }
}

/// What an operator asks about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop it.
    Cancel,
    /// Run its failures again.
    Retry,
    /// How it stands, and what failed.
    Look,
}

/// What a disk keeps of its unsynced bytes when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Any of them, as chance has it.
    Some,
    /// None.
    Nothing,
    /// Every second sector; of a worker's spool the older half.
    Half,
    /// All of them.
    All,
}

/// One process of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The router.
    Router,
    /// By number.
    Worker(usize),
    /// By number.
    Client(usize),
}

impl Break {
    /// Whom it befalls.
    pub fn who(mut self) -> Who {
        *self.who_mut()
    }

    pub(crate) fn who_mut(&mut self) -> &mut Who {
        match self {
            Break::Crash { who, .. }
            | Break::Cut(who)
            | Break::Deafen { who, .. }
            | Break::Part { who, .. }
            | Break::Freeze { who, .. }
            | Break::BackUp(who)
            | Break::Order { who, .. }
            | Break::Leave { who, .. }
            | Break::Restore { who, .. } => who,
        }
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eaf_5eaf_5eaf_5eaf);
        let clients = clients(&mut rng);
        let workers: Vec<_> = (0..=rng.below(3)).map(|_| worker(&mut rng)).collect();
        let weather = Weather { delay_min: Micros(50), delay_max: Micros(50 + rng.below(40_000)) };
        let faults = rng.chance(0.6).then(|| Faults {
            drop: rng.below(300) as f64 / 1_000.0,
            dup: rng.below(200) as f64 / 1_000.0,
            reorder: rng.below(200) as f64 / 1_000.0,
            delay: rng.below(100) as f64 / 1_000.0,
            seed,
        });
        // A disk that is slow now and then: much can lean on what is not yet durable.
        let slow = if rng.chance(0.25) { 1_500_000 } else { 30_000 };
        let sync_max = Micros(100 + rng.below(slow));
        let breaks = breaks(&mut rng, clients.len(), workers.len());
        let plan = Self {
            seed,
            clients,
            workers,
            grace: Micros::from_ms(3_000 + rng.below(20_000)),
            weather,
            faults,
            sync_max,
            breaks,
            oddities: Oddities::default(),
            is_steady: false,
            steps_max: STEPS_MAX,
        };
        Oddities::draw(plan)
    }

    /// When the last of the faults has passed.
    pub fn calm_after(&self) -> Micros {
        self.breaks.iter().map(|(at, one)| *at + one.lasts()).max().unwrap_or_default()
    }
}

fn clients(rng: &mut Rng) -> Vec<ClientPlan> {
    let first = ClientPlan { rows: rows(rng), share: rng.chance(0.3), starts: Micros(rng.below(200_000)) };
    let mut clients = vec![first];
    if rng.chance(0.4) {
        let latest = if rng.chance(0.5) { 300_000 } else { 3_000_000 };
        // Over rows of the first, mostly: joins and cached answers.
        let mut rows: Vec<Bytes> = clients[0].rows.iter().filter(|_| rng.chance(0.7)).cloned().collect();
        rows.extend((0..rng.below(5)).map(|n| Bytes::from(format!("own-{n}"))));
        clients.push(ClientPlan { rows, share: rng.chance(0.3), starts: Micros(rng.below(latest)) });
    }
    clients
}

/// Mostly plain rows; a few that the program refuses, a few that kill whoever executes them, and equal ones.
fn rows(rng: &mut Rng) -> Vec<Bytes> {
    let count = 1 + rng.below(60);
    let distinct = 1 + rng.below(count);
    let text = |rng: &mut Rng| match rng.below(40) {
        0 => format!("bad-{}", rng.below(distinct)),
        1 => format!("die-{}", rng.below(2)),
        2 | 3 => format!("flaky-{}", rng.below(distinct)),
        _ => format!("row-{}-{}", rng.below(distinct), "x".repeat(rng.below(3) as usize * 200)),
    };
    (0..count).map(|_| Bytes::from(text(rng))).collect()
}

fn worker(rng: &mut Rng) -> WorkerPlan {
    WorkerPlan {
        batch: 1 + rng.below(4) as u32,
        depth: rng.below(5) as u32,
        slow: Micros(1_000 + rng.below(800_000)),
        has_spool: rng.chance(0.7),
        starts: Micros(10),
        clone_of: None,
    }
}

fn breaks(rng: &mut Rng, clients: usize, workers: usize) -> Vec<(Micros, Break)> {
    let mut breaks: Vec<(Micros, Break)> =
        (0..rng.below(12)).map(|_| (Micros(rng.below(20_000_000)), one_break(rng, clients, workers))).collect();
    if rng.chance(0.1) {
        breaks.extend((0..4).map(|_| hasty_client(rng)));
    }
    breaks.sort_by_key(|(at, _)| *at);
    breaks
}

/// Somebody kills the first client as it begins, and repeats the command at once: it asks again for what is hardly written.
fn hasty_client(rng: &mut Rng) -> (Micros, Break) {
    let (at, down) = (Micros(rng.below(3_000_000)), Micros(1_000 + rng.below(50_000)));
    (at, Break::Crash { who: Who::Client(0), power: None, down })
}

fn one_break(rng: &mut Rng, clients: usize, workers: usize) -> Break {
    let who = match rng.below(10) {
        0..=3 => Who::Router,
        4..=6 => Who::Worker(rng.below(workers as u64) as usize),
        _ => Who::Client(rng.below(clients as u64) as usize),
    };
    let host = if who == Who::Router { Who::Worker(rng.below(workers as u64) as usize) } else { who };
    let longest = if rng.chance(0.2) { 60_000_000 } else { 3_000_000 };
    let time = Micros(1_000 + rng.below(longest));
    match rng.below(10) {
        0..=5 => Break::Crash { who, power: rng.chance(0.5).then_some(Left::Some), down: time },
        6 | 7 => Break::Cut(host),
        8 => Break::Deafen { who: host, host_end: rng.chance(0.5) },
        _ => Break::Freeze { who: host, time },
    }
}

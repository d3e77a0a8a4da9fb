//! What only some runs have: rare sizes, rare people, rare accidents. Drawn apart from the rest of a plan, so that the small
//! world stays the common case and stays as it was for a seed.

use bytes::Bytes;
use sheaf_session::{Config, Micros, Rng};

use crate::plan::{Break, ClientPlan, Left, Order, Plan, STEPS_MAX, Who, WorkerPlan};

/// What is odd about a run; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Messages that each side of a session may send ahead at first: so few that senders stand at their limit.
    pub window: Option<u64>,
    /// Longest commit of a sink, where its disk is slow: a slow reader.
    pub slow_sink: Option<Micros>,
    /// A worker's directory was copied and used twice.
    pub has_clone: bool,
    /// A worker's disk was put back to an old copy.
    pub has_old_spool: bool,
    /// The router's disk was put back to an old copy: what it had acknowledged since is lost to it. A client may then be
    /// refused, loudly; one that completes has every row, and no sink has a row twice.
    pub has_old_journal: bool,
    /// Segments so small that they are sealed, indexed and, if a retention is given, compacted in mid-run.
    pub small_segments: Option<(u32, Option<Micros>)>,
    /// Clients that want nothing of what was answered before (`--fresh`).
    pub fresh: Vec<usize>,
    /// Clients that come again for what is left of a cancelled job, and for nothing else.
    pub collectors: Vec<usize>,
    /// Workers that announce nonsense, something else each second, for their first half minute.
    pub liars: Vec<usize>,
    /// This client must be done so long after its start, whatever else there is to do.
    pub in_time: Option<(usize, Micros)>,
}

impl Oddities {
    /// The plan with what is odd about its seed.
    pub(crate) fn draw(mut plan: Plan) -> Plan {
        let rng = &mut Rng::new(plan.seed ^ 0x0dd_0dd_0dd_0dd);
        plan.oddities = Self {
            window: rng.chance(0.3).then(|| 1 + rng.below(6)),
            slow_sink: rng.chance(0.1).then(|| Micros(1 + rng.below(4_000_000))),
            has_clone: rng.chance(0.05),
            has_old_spool: rng.chance(0.05),
            has_old_journal: rng.chance(0.03),
            small_segments: rng.chance(0.25).then(|| small_segments(rng)),
            liars: (0..plan.workers.len()).filter(|_| rng.chance(0.03)).collect(),
            ..Self::default()
        };
        let one = rng.below(plan.workers.len() as u64) as usize;
        if plan.oddities.has_clone {
            clone(&mut plan, one, rng);
        }
        if plan.oddities.has_old_spool {
            put_back(&mut plan, Who::Worker(one), rng);
        }
        if plan.oddities.has_old_journal {
            put_back(&mut plan, Who::Router, rng);
        }
        if rng.chance(0.1) {
            again(&mut plan, rng);
        }
        if rng.chance(0.08) {
            sleep(&mut plan, rng);
        }
        if rng.chance(0.15) {
            come_and_go(&mut plan, rng);
        }
        if rng.chance(0.2) {
            orders(&mut plan, rng);
        }
        match rng.below(200) {
            0..=1 => crowd(&mut plan, rng),
            4 => huge_beside_small(&mut plan, rng),
            _ => {}
        }
        if rng.chance(0.004) && plan.oddities.in_time.is_none() && plan.clients.len() < CROWD {
            week(&mut plan, rng);
        }
        if rng.chance(0.5) {
            go_away_cancelled(&mut plan, rng);
        }
        plan.breaks.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The settings of any session.
    pub(crate) fn session_config(&self) -> Config {
        let usual = Config::default();
        Config { window: self.window.unwrap_or(usual.window), ..usual }
    }

    /// Two workers may go by one name, or one and what it was.
    pub(crate) fn has_doubles(&self) -> bool {
        self.has_clone || self.has_old_spool
    }
}

/// One of the first seconds: most runs are over soon.
fn soon(rng: &mut Rng) -> Micros {
    Micros(rng.below(4_000_000))
}

fn small_segments(rng: &mut Rng) -> (u32, Option<Micros>) {
    let retention = if rng.chance(0.5) { 1 } else { 10_000_000 };
    (2_048 + rng.below(8_192) as u32, rng.chance(0.8).then(|| Micros(rng.below(retention))))
}

/// Another job over rows of the first, when that is mostly done: answered from the journal, or made anew.
fn again(plan: &mut Plan, rng: &mut Rng) {
    let first = &plan.clients[0];
    let rows = first.rows.iter().filter(|_| rng.chance(0.8)).cloned().collect();
    let client = ClientPlan { rows, share: first.share, starts: Micros(2_000_000 + rng.below(20_000_000)) };
    if rng.chance(0.4) {
        plan.oddities.fresh.push(plan.clients.len());
    }
    plan.clients.push(client);
}

/// Clocks leap by minutes or hours while nothing happens: the router's machine sleeps, or another's. And somebody shuts a
/// laptop and returns within two hours.
fn sleep(plan: &mut Plan, rng: &mut Rng) {
    let time = Micros::from_secs(if rng.chance(0.3) { 60 + rng.below(6_000) } else { 1 + rng.below(120) });
    let who = match rng.below(4) {
        0 => Who::Worker(rng.below(plan.workers.len() as u64) as usize),
        1 => Who::Client(0),
        _ => Who::Router,
    };
    let one = match who {
        Who::Client(_) => Break::Crash { who, power: None, down: time },
        Who::Router | Who::Worker(_) => Break::Freeze { who, time },
    };
    plan.breaks.push((soon(rng), one));
}

/// Workers that join late, and workers that leave in order; some come back.
fn come_and_go(plan: &mut Plan, rng: &mut Rng) {
    for worker in 0..plan.workers.len() {
        if rng.chance(0.5) {
            plan.workers[worker].starts = soon(rng);
        }
        if rng.chance(0.5) {
            plan.breaks
                .push((soon(rng), Break::Leave { who: Who::Worker(worker), away: Micros(rng.below(5_000_000)) }));
        }
    }
}

/// Somebody stops jobs, runs their failures again, and asks how they stand.
fn orders(plan: &mut Plan, rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        let who = Who::Client(rng.below(plan.clients.len() as u64) as usize);
        let order = match rng.below(5) {
            0 | 1 => Order::Cancel,
            2 | 3 => Order::Retry,
            _ => Order::Look,
        };
        plan.breaks.push((soon(rng), Break::Order { who, order }));
    }
}

/// The client of a job that is cancelled dies soon before that or after it, and comes again for what is left there; some
/// want nothing else.
fn go_away_cancelled(plan: &mut Plan, rng: &mut Rng) {
    let is_cancel = |(_, one): &&(Micros, Break)| matches!(one, Break::Order { order: Order::Cancel, .. });
    let Some((at, who)) = plan.breaks.iter().find(is_cancel).map(|(at, one)| (*at, one.who())) else { return };
    let gone = Micros((at.0 + rng.below(1_000_000)).saturating_sub(500_000));
    plan.breaks.push((gone, Break::Crash { who, power: None, down: Micros(1_000 + rng.below(2_000_000)) }));
    if let Who::Client(number) = who
        && rng.chance(0.5)
    {
        plan.oddities.collectors.push(number);
    }
}

/// Somebody's client is away for a week, longer than anything is retained. One day others come and finish what they have. On
/// the days between nobody works, and mostly the router is switched off too: whoever is there all week takes a million steps.
fn week(plan: &mut Plan, rng: &mut Rng) {
    let client = Who::Client(0);
    plan.breaks.retain(|(_, one)| one.who() != client || matches!(one, Break::Order { .. }));
    let gone = Micros(rng.below(2_000_000));
    let evening = plan.calm_after() + SHIFT;
    let day = evening + Micros(DAY.0 * (1 + rng.below(5)));
    let back = evening + Micros(7 * DAY.0);
    plan.breaks.push((gone, Break::Crash { who: client, power: None, down: back.since(gone) }));
    for who in (0..plan.workers.len()).map(Who::Worker) {
        // One that happens to be dead is not there to be told.
        for late in (0..3).map(|call| Micros(call * SHIFT.0)) {
            let (first, second) = (evening + late, day + SHIFT + late);
            plan.breaks.push((first, Break::Leave { who, away: day.since(first) }));
            plan.breaks.push((second, Break::Leave { who, away: back.since(second) }));
        }
    }
    if rng.chance(0.75) {
        for (from, until) in [(evening, day), (day + SHIFT, back)] {
            let night = from + Micros(4 * SHIFT.0);
            let power = rng.chance(0.5).then_some(Left::Some);
            plan.breaks.push((night, Break::Crash { who: Who::Router, power, down: until.since(night) }));
        }
    }
    let first = &plan.clients[0];
    let mut rows: Vec<Bytes> = first.rows.iter().filter(|_| rng.chance(0.5)).cloned().collect();
    rows.extend((0..5 + rng.below(20)).map(|n| Bytes::from(format!("row-{n}-{}", "y".repeat(400)))));
    plan.clients.push(ClientPlan { rows, share: first.share, starts: day + soon(rng) });
    plan.oddities.small_segments = Some((2_048 + rng.below(2_048) as u32, Some(Micros(rng.below(DAY.0)))));
    plan.steps_max = WEEK_STEPS_MAX;
}

const DAY: Micros = Micros::from_secs(86_400);
/// How long everybody works before and after the days off.
const SHIFT: Micros = Micros::from_secs(600);
/// Some who were dead whenever they were told to leave may be there all week.
const WEEK_STEPS_MAX: u64 = 20 * STEPS_MAX;

/// So many clients are a crowd.
const CROWD: usize = 10;
/// How long a crowd is without one of its hosts.
const CROWD_PATIENCE: Micros = Micros::from_secs(120);

/// Very many tiny jobs.
fn crowd(plan: &mut Plan, rng: &mut Rng) {
    for number in 0..20 + rng.below(40) {
        let rows = (0..rng.below(3)).map(|n| Bytes::from(format!("row-tiny-{}", number % 7 + n))).collect();
        plan.clients.push(ClientPlan { rows, share: rng.chance(0.3), starts: soon(rng) });
    }
    // Nobody is away for long: so many clients that ask again each second take all the steps of a run.
    for (_, one) in &mut plan.breaks {
        if let Break::Freeze { time, .. } | Break::Crash { down: time, .. } = one {
            *time = (*time).min(CROWD_PATIENCE);
        }
    }
}

/// One huge job beside a small one, and nothing breaks: the small one must not wait for the huge one.
fn huge_beside_small(plan: &mut Plan, rng: &mut Rng) {
    let rows = |name: &str, count: u64| (0..count).map(|n| Bytes::from(format!("row-{name}-{n}"))).collect();
    let huge = ClientPlan { rows: rows("huge", 1_000), share: false, starts: Micros(0) };
    let small = ClientPlan { rows: rows("small", 1 + rng.below(5)), share: false, starts: Micros(1_000_000) };
    let worker = WorkerPlan { slow: Micros(20_000), starts: Micros(10), clone_of: None, ..plan.workers[0] };
    (plan.clients, plan.workers, plan.breaks) = (vec![huge, small], vec![worker], Vec::new());
    plan.faults = None;
    plan.sync_max = Micros(10_000);
    plan.oddities = Oddities { in_time: Some((1, Micros::from_secs(4))), ..Oddities::default() };
}

/// A copy of the directory is started elsewhere, mostly while the original cannot be heard and goes on by itself.
fn clone(plan: &mut Plan, one: usize, rng: &mut Rng) {
    let starts = soon(rng);
    plan.workers[one].has_spool = true;
    let original = plan.workers[one];
    plan.workers.push(WorkerPlan { starts, clone_of: Some(one), ..original });
    if rng.chance(0.7) {
        let at = Micros(starts.0.saturating_sub(rng.below(500_000)));
        plan.breaks.push((at, Break::Deafen { who: Who::Worker(one), host_end: false }));
    }
}

/// A host's disk is put back to what it was a while ago.
fn put_back(plan: &mut Plan, who: Who, rng: &mut Rng) {
    let at = soon(rng);
    let later = Micros(at.0 + 1 + soon(rng).0);
    plan.breaks.push((at, Break::BackUp(who)));
    plan.breaks.push((later, Break::Restore { who, down: Micros(1_000 + rng.below(2_000_000)) }));
}

//! A plan as text. The inverse of `super::read`.

use std::fmt;

use sheaf_session::Micros;

use crate::plan::{Break, ClientPlan, Left, Order, Plan, STEPS_MAX, Who, WorkerPlan};

/// One line a fact; what is as ever is left out.
pub(super) fn plan(plan: &Plan) -> String {
    let mut lines = vec![format!("seed {}", plan.seed)];
    if plan.is_steady {
        lines.push("steady".to_owned());
    }
    lines.push(format!("grace {}", time(plan.grace)));
    lines.push(format!("delay {} to {}", time(plan.weather.delay_min), time(plan.weather.delay_max)));
    lines.push(format!("sync {}", time(plan.sync_max)));
    if let Some(faults) = plan.faults {
        let (drop, dup) = (faults.drop, faults.dup);
        lines.push(format!("chaos drop {drop} dup {dup} reorder {} delay {}", faults.reorder, faults.delay));
    }
    lines.extend(oddities(plan));
    if plan.steps_max != STEPS_MAX {
        lines.push(format!("steps {}", plan.steps_max));
    }
    lines.extend(plan.workers.iter().enumerate().map(|(number, one)| worker(plan, number, one)));
    lines.extend(plan.clients.iter().enumerate().map(|(number, one)| client(plan, number, one)));
    lines.extend(plan.breaks.iter().map(|(at, one)| format!("at {} {}", time(*at), broken(one))));
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

fn oddities(plan: &Plan) -> Vec<String> {
    let odd = &plan.oddities;
    let segments = odd.small_segments.map(|(bytes, retention)| match retention {
        Some(retention) => format!("segments {bytes} retention {}", time(retention)),
        None => format!("segments {bytes}"),
    });
    let window = odd.window.map(|window| format!("window {window}"));
    let sink = odd.slow_sink.map(|slow| format!("sink {}", time(slow)));
    window.into_iter().chain(sink).chain(segments).collect()
}

fn worker(plan: &Plan, number: usize, worker: &WorkerPlan) -> String {
    let WorkerPlan { batch, depth, slow, has_spool, starts, clone_of } = worker;
    let spool = if *has_spool { "" } else { " no-spool" };
    let clone = clone_of.map_or(String::new(), |of| format!(" copy-of {of}"));
    let lies = if plan.oddities.liars.contains(&number) { " liar" } else { "" };
    format!("worker batch {batch} depth {depth} time {} starts {}{spool}{clone}{lies}", time(*slow), time(*starts))
}

fn client(plan: &Plan, number: usize, client: &ClientPlan) -> String {
    let share = if client.share { " share" } else { "" };
    let rows: String = client.rows.iter().map(|row| format!(" {}", body(row))).collect();
    let fresh = if plan.oddities.fresh.contains(&number) { " fresh" } else { "" };
    let collects = if plan.oddities.collectors.contains(&number) { " collects" } else { "" };
    let within = plan.oddities.in_time.filter(|(one, _)| *one == number);
    let within = within.map_or(String::new(), |(_, most)| format!(" within {}", time(most)));
    format!("client starts {}{share}{fresh}{collects}{within} rows{rows}", time(client.starts))
}

fn broken(one: &Break) -> String {
    match one {
        Break::Crash { who, power: None, down } => format!("kill {who} for {}", time(*down)),
        Break::Crash { who, power: Some(left), down } => {
            let left = LEFT.iter().find(|(_, other)| other == left).map_or("", |(name, _)| name);
            format!("power-off {who} for {} keeps {left}", time(*down))
        }
        Break::Cut(who) => format!("cut {who}"),
        Break::Deafen { who, host_end: true } => format!("deafen {who}"),
        Break::Deafen { who, host_end: false } => format!("deafen router to {who}"),
        Break::Part { who, time: long } => format!("part {who} for {}", time(*long)),
        Break::Freeze { who, time: long } => format!("stop {who} for {}", time(*long)),
        Break::Leave { who, away } => format!("leave {who} for {}", time(*away)),
        Break::Order { who, order: Order::Cancel } => format!("cancel {who}"),
        Break::Order { who, order: Order::Retry } => format!("retry {who}"),
        Break::Order { who, order: Order::Look } => format!("look {who}"),
        Break::BackUp(who) => format!("copy-disk {who}"),
        Break::Restore { who, down } => format!("restore {who} for {}", time(*down)),
    }
}

/// What a disk keeps, by name.
pub(super) const LEFT: [(&str, Left); 4] =
    [("some", Left::Some), ("nothing", Left::Nothing), ("half", Left::Half), ("all", Left::All)];

/// A time in the largest unit that has no fraction.
pub(super) fn time(time: Micros) -> String {
    match time.0 {
        us if us % 1_000_000 == 0 => format!("{}s", us / 1_000_000),
        us if us % 1_000 == 0 => format!("{}ms", us / 1_000),
        us => format!("{us}us"),
    }
}

/// A body as a word; a long run of one character at its end as `c*400`.
fn body(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let Some(last) = text.chars().last() else { return String::new() };
    let run = text.chars().rev().take_while(|one| *one == last).count();
    if run < RUN_MIN {
        return text.into_owned();
    }
    format!("{}{last}*{run}", text.trim_end_matches(last))
}

/// A shorter run is written out.
const RUN_MIN: usize = 12;

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Router => f.write_str("router"),
            Who::Worker(number) => write!(f, "worker {number}"),
            Who::Client(number) => write!(f, "client {number}"),
        }
    }
}

//! Makes a plan that fails smaller: whatever can go without the failure going too, goes.
//!
//! It tries one change after the other and keeps those after which the plan still fails, until none is left to make or it
//! has tried long enough. It does not know what a failure is.

use bytes::Bytes;
use sheaf_session::Micros;

use crate::network::Weather;
use crate::oddities::Oddities;
use crate::plan::{Break, Plan, Who};

/// Plans that are tried, at most.
const TRIES_MAX: usize = 5_000;

/// The smallest plan that was found, `plan` itself if nothing can go.
pub fn shrink(plan: Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let (mut plan, mut tries) = (plan, 0);
    loop {
        let before = plan.clone();
        for change in changes(&before) {
            let Some(smaller) = change(&plan).filter(|smaller| *smaller != plan) else { continue };
            tries += 1;
            if tries > TRIES_MAX {
                return plan;
            }
            if fails(&smaller) {
                plan = smaller;
            }
        }
        if plan == before {
            return plan;
        }
    }
}

type Change = Box<dyn Fn(&Plan) -> Option<Plan>>;

/// The great ones first. Those that name a place count from the end, so that one that succeeds moves none that is to come.
fn changes(plan: &Plan) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    changes
        .extend((0..plan.clients.len()).rev().map(|one| -> Change { Box::new(move |plan| without_client(plan, one)) }));
    changes
        .extend((0..plan.workers.len()).rev().map(|one| -> Change { Box::new(move |plan| without_worker(plan, one)) }));
    changes
        .extend((0..plan.breaks.len()).rev().map(|one| -> Change { Box::new(move |plan| without_break(plan, one)) }));
    changes.extend(WHOLES.iter().map(|change| -> Change { Box::new(move |plan| with(plan, change)) }));
    for (client, rows) in plan.clients.iter().map(|client| client.rows.len()).enumerate() {
        let mut size = rows;
        while size > 0 {
            let starts = (0..rows).step_by(size).rev();
            changes.extend(starts.map(|at| -> Change { Box::new(move |plan| without_rows(plan, client, at, size)) }));
            size /= 2;
        }
    }
    changes.extend(
        (0..plan.breaks.len()).flat_map(|one| {
            ROUNDS.iter().map(move |unit| -> Change { Box::new(move |plan| rounded(plan, one, *unit)) })
        }),
    );
    changes
}

fn with(plan: &Plan, change: impl Fn(&mut Plan)) -> Option<Plan> {
    let mut plan = plan.clone();
    change(&mut plan);
    Some(plan)
}

/// Changes of a plan as a whole.
const WHOLES: [fn(&mut Plan); 13] = [
    |plan| plan.faults = None,
    |plan| plan.oddities = plain(&plan.oddities),
    |plan| plan.oddities.window = None,
    |plan| plan.oddities.slow_sink = None,
    |plan| plan.oddities.small_segments = None,
    |plan| plan.is_steady = true,
    |plan| plan.weather = Weather { delay_min: Micros::from_ms(1), delay_max: Micros::from_ms(1) },
    |plan| plan.sync_max = Micros::from_ms(5),
    |plan| plan.grace = Micros(plan.grace.0.next_multiple_of(1_000_000)),
    |plan| plan.workers.iter_mut().for_each(|worker| (worker.batch, worker.depth) = (1, 0)),
    |plan| plan.workers.iter_mut().for_each(|worker| worker.slow = Micros(worker.slow.0.next_multiple_of(100_000))),
    |plan| plan.clients.iter_mut().for_each(|client| client.starts = Micros::from_ms(20)),
    short_names,
];

/// Nothing is odd but what follows from the rest of the plan.
fn plain(odd: &Oddities) -> Oddities {
    let Oddities { has_clone, has_old_spool, has_old_journal, .. } = *odd;
    Oddities { has_clone, has_old_spool, has_old_journal, ..Oddities::default() }
}

/// Units to which times of breaks are rounded, the roughest first.
const ROUNDS: [u64; 3] = [100_000, 10_000, 1_000];

fn rounded(plan: &Plan, one: usize, unit: u64) -> Option<Plan> {
    let mut plan = plan.clone();
    let (at, what) = plan.breaks.get_mut(one)?;
    at.0 = at.0.next_multiple_of(unit);
    match what {
        Break::Crash { down: time, .. }
        | Break::Restore { down: time, .. }
        | Break::Part { time, .. }
        | Break::Leave { away: time, .. }
        | Break::Freeze { time, .. } => time.0 = time.0.next_multiple_of(unit),
        Break::Cut(_) | Break::Deafen { .. } | Break::BackUp(_) | Break::Order { .. } => {}
    }
    plan.breaks.sort_by_key(|(at, _)| *at);
    Some(plan)
}

fn without_break(plan: &Plan, gone: usize) -> Option<Plan> {
    let mut plan = plan.clone();
    (gone < plan.breaks.len()).then(|| plan.breaks.remove(gone))?;
    Some(plan)
}

fn without_rows(plan: &Plan, client: usize, at: usize, count: usize) -> Option<Plan> {
    let mut plan = plan.clone();
    let rows = &mut plan.clients.get_mut(client)?.rows;
    let end = (at + count).min(rows.len());
    (at < end && end - at < rows.len()).then(|| rows.drain(at..end).for_each(drop))?;
    Some(plan)
}

/// `row-7-xxxx` is `row-7`: what a body begins with says what becomes of it.
fn short_names(plan: &mut Plan) {
    let short = |row: &Bytes| row.iter().rposition(|byte| *byte != b'x').map(|at| row.slice(..=at));
    let trimmed =
        |row: &Bytes| short(row).map(|row| if row.ends_with(b"-") { row.slice(..row.len() - 1) } else { row });
    for client in &mut plan.clients {
        client.rows.iter_mut().for_each(|row| *row = trimmed(row).unwrap_or_default());
    }
}

fn without_client(plan: &Plan, gone: usize) -> Option<Plan> {
    let mut plan = plan.clone();
    (plan.clients.len() > 1 && gone < plan.clients.len()).then(|| plan.clients.remove(gone))?;
    without(&mut plan, Who::Client(gone));
    Some(plan)
}

/// Not one that another is a copy of.
fn without_worker(plan: &Plan, gone: usize) -> Option<Plan> {
    let mut plan = plan.clone();
    let is_copied = plan.workers.iter().any(|worker| worker.clone_of == Some(gone));
    (plan.workers.len() > 1 && gone < plan.workers.len() && !is_copied).then(|| plan.workers.remove(gone))?;
    without(&mut plan, Who::Worker(gone));
    for worker in &mut plan.workers {
        worker.clone_of = worker.clone_of.map(|of| if of > gone { of - 1 } else { of });
    }
    plan.oddities.has_clone = plan.workers.iter().any(|worker| worker.clone_of.is_some());
    Some(plan)
}

/// Nothing befalls who is gone, and those after it have a number less.
fn without(plan: &mut Plan, gone: Who) {
    let odd = &mut plan.oddities;
    match gone {
        Who::Router => {}
        Who::Worker(gone) => odd.liars = renumbered(&odd.liars, gone),
        Who::Client(gone) => {
            odd.fresh = renumbered(&odd.fresh, gone);
            odd.collectors = renumbered(&odd.collectors, gone);
            odd.in_time = None;
        }
    }
    plan.breaks.retain(|(_, one)| one.who() != gone);
    for (_, one) in &mut plan.breaks {
        let who = one.who_mut();
        *who = match (*who, gone) {
            (Who::Worker(number), Who::Worker(gone)) if number > gone => Who::Worker(number - 1),
            (Who::Client(number), Who::Client(gone)) if number > gone => Who::Client(number - 1),
            (same, _) => same,
        };
    }
}

fn renumbered(numbers: &[usize], gone: usize) -> Vec<usize> {
    let left = numbers.iter().filter(|number| **number != gone);
    left.map(|number| if *number > gone { number - 1 } else { *number }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_failure_does_not_need_goes() {
        let is_enough = |plan: &Plan| {
            let dies = |one: &Break| matches!(one, Break::Crash { who: Who::Client(0), .. });
            plan.workers.len() > 1 && plan.breaks.iter().any(|(_, one)| dies(one))
        };
        let plan = (0..).map(Plan::from_seed).find(|plan| plan.clients.len() > 1 && is_enough(plan)).unwrap();
        let plan = shrink(plan, is_enough);
        let rows: Vec<usize> = plan.clients.iter().map(|client| client.rows.len()).collect();
        assert_eq!((rows, plan.workers.len(), plan.breaks.len(), plan.faults), (vec![1], 2, 1, None));
    }
}

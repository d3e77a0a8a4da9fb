//! The checker: rows, ledger and sink in, violations out. It asks nobody, least of all Sheaf.
//!
//! What it deliberately does not know: which faults were injected. What they excuse is said by [`Allowed`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ledger::{Executions, Ledger};
use crate::rows::Rows;
use crate::sink::{Landed, SinkRow};

/// What the faults of a round excuse. Nothing, by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowed {
    /// Executions beyond one for each row: work that faults cut off, or held back for longer than the grace.
    pub again: u64,
    /// Rows may fail as `crashed` after so many deaths: the processes that run them were killed. None may with 0.
    pub deaths: u64,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// The row has no result.
    Lost { row: u64 },
    /// The row has more than one.
    Duplicate { row: u64, times: usize },
    /// A result for a row that there is not.
    Stranger { row: u64 },
    /// Bytes that no program answered for this row.
    Wrong { row: u64, output: String },
    /// A result that names an execution which never came to its answer.
    Unproved { row: u64, token: String },
    /// It failed, and nothing excuses it.
    Failed { row: u64, class: String },
    /// A result that once stood in the sink is another one now.
    Replaced { row: u64 },
    /// More executions than the faults excuse.
    Again { extra: u64, allowed: u64 },
    /// What was said to be acknowledged was never executed, though nobody came back with it.
    Unkept { acknowledged: u64, executed: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost { row } => write!(f, "LOST: row {row} has no result"),
            Violation::Duplicate { row, times } => write!(f, "DUPLICATE: row {row} stands in the sink {times} times"),
            Violation::Stranger { row } => write!(f, "WRONG: a result for row {row}, which does not exist"),
            Violation::Wrong { row, output } => write!(f, "WRONG: row {row} got `{output}`"),
            Violation::Unproved { row, token } => write!(f, "WRONG: row {row} got the answer of unknown `{token}`"),
            Violation::Failed { row, class } => write!(f, "FAILED: row {row} as {class}, without excuse"),
            Violation::Replaced { row } => write!(f, "REPLACED: the settled result of row {row}"),
            Violation::Again { extra, allowed } => write!(f, "AGAIN: {extra} executions too many, {allowed} excused"),
            Violation::Unkept { acknowledged, executed } => {
                write!(f, "LOST: {acknowledged} rows were acknowledged and only {executed} ran")
            }
        }
    }
}

/// Judges a sink that should be complete.
pub(crate) fn complete(rows: &Rows, ledger: &Ledger, sink: &[SinkRow], allowed: Allowed) -> Vec<Violation> {
    let digests = rows.digests();
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    let mut violations = BTreeSet::new();
    for found in sink {
        *times.entry(found.row).or_default() += 1;
        violations.extend(match digests.get(&found.row) {
            Some(digest) => wrong(found, digest, ledger, allowed),
            None => Some(Violation::Stranger { row: found.row }),
        });
    }
    violations.extend(digests.keys().filter(|row| !times.contains_key(row)).map(|row| Violation::Lost { row: *row }));
    let twice = times.iter().filter(|(_, times)| **times > 1);
    violations.extend(twice.map(|(row, times)| Violation::Duplicate { row: *row, times: *times }));
    let extra = extra_executions(rows, ledger);
    if extra > allowed.again {
        violations.insert(Violation::Again { extra, allowed: allowed.again });
    }
    violations.into_iter().collect()
}

/// Judges what stands in a sink against what was seen there before: no row has another result now. That it is there
/// again at the end is for [`complete`] to judge.
pub(crate) fn replaced(seen: &BTreeMap<u64, Landed>, now: &[SinkRow]) -> Vec<Violation> {
    let other = now.iter().filter(|found| seen.get(&found.row).is_some_and(|before| *before != found.result));
    other.map(|found| Violation::Replaced { row: found.row }).collect()
}

/// Judges a claim that so many rows were acknowledged, when all that could be done without their client has been done.
pub(crate) fn kept(acknowledged: u64, rows: &Rows, ledger: &Ledger) -> Option<Violation> {
    let executed = executed(rows, ledger);
    (executed < acknowledged).then_some(Violation::Unkept { acknowledged, executed })
}

/// Rows of which at least one execution came to its answer.
pub(crate) fn executed(rows: &Rows, ledger: &Ledger) -> u64 {
    let ended = |digest: &&str| ledger.get(*digest).is_some_and(|of| !of.ended.is_empty());
    rows.digests().into_values().filter(ended).count() as u64
}

/// Executions that began beyond the first of each row.
pub(crate) fn extra_executions(rows: &Rows, ledger: &Ledger) -> u64 {
    let begun = |digest: &str| ledger.get(digest).map_or(0, |of| of.begun.len() as u64);
    rows.digests().into_values().map(|digest| begun(digest).saturating_sub(1)).sum()
}

fn wrong(found: &SinkRow, digest: &str, ledger: &Ledger, allowed: Allowed) -> Option<Violation> {
    let row = found.row;
    match &found.result {
        Landed::Failed { class, deaths } => {
            let excused =
                allowed.deaths > 0 && class == "crashed" && deaths.is_none_or(|deaths| deaths >= allowed.deaths);
            (!excused).then(|| Violation::Failed { row, class: class.clone() })
        }
        Landed::Bytes(base64) => Some(Violation::Wrong { row, output: base64.chars().take(80).collect() }),
        Landed::Ok(output) => {
            let Some((named, token)) = output.split_once(' ').filter(|(named, _)| *named == digest) else {
                return Some(Violation::Wrong { row, output: output.chars().take(80).collect() });
            };
            let proved = |of: &Executions| of.ended.iter().any(|ended| ended == token);
            let known = ledger.get(named).is_some_and(proved);
            (!known).then(|| Violation::Unproved { row, token: token.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests;

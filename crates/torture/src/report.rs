//! What a run says at its end, and what it counts on the way.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// Sums over the rounds of a family.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Rounds that came to their end.
    pub rounds: u64,
    /// Faults injected: what `--cycles` counts.
    pub faults: u64,
    /// Rows judged.
    pub rows: u64,
    /// Executions beyond the first of a row, all of them excused by a fault.
    pub again: u64,
    /// Rows that failed with an excuse.
    pub failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.rounds += more.rounds;
        self.faults += more.faults;
        self.rows += more.rows;
        self.again += more.again;
        self.failed += more.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, faults, rows, again, failed } = self;
        write!(f, "{faults} faults in {rounds} rounds, {rows} rows: lost 0, duplicate 0, wrong 0; ")?;
        write!(f, "executed again {again}, failed with evidence {failed}, both excused")
    }
}

/// One line that says how a family went.
pub(crate) fn line(family: &str, tally: &Tally, seed: u64, took: Duration) -> String {
    format!("torture {family}: ok; {tally}; seed {seed}, {:.0} s", took.as_secs_f64())
}

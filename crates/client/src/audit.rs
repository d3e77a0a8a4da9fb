//! The sum at the end of a job: `submitted = ok + failed + open`.

use std::fmt;

/// What became of the rows of one run. Rows that were finished before the run are counted among the others, and once
/// more in `resumed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Rows that were read: every row of the source, or the first `--limit`, or as far as an interrupted run came.
    pub submitted: u64,
    /// Rows with an answer in the sink.
    pub ok: u64,
    /// Rows without an answer in the sink.
    pub failed: u64,
    /// Rows still without an outcome: an interrupted run resumes them.
    pub open: u64,
    /// Of `ok` and `failed`: in the sink before this run.
    pub resumed: u64,
    /// Of `ok`: answered from the journal, without execution.
    pub cached: u64,
    /// Of `failed`: malformed rows, which were never sent.
    pub malformed: u64,
    /// Results that came although the sink had one, and were not written again.
    pub repeated: u64,
    /// Why the run ended before every row had an outcome, if it did.
    pub stopped: Option<Stopped>,
    /// How long the run took, milliseconds.
    pub ms: u64,
}

/// Why a run ended early. The same command resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The user said so.
    Interrupted,
    /// More rows failed than `--max-failures` allows.
    TooManyFailures,
    /// The job was cancelled at the router.
    Cancelled,
}

impl Audit {
    /// Rows that are in no column of the equation: 0, or this is a defect.
    pub fn lost(&self) -> u64 {
        self.submitted.saturating_sub(self.ok + self.failed + self.open)
    }

    /// True if the equation holds.
    pub fn balances(&self) -> bool {
        self.submitted == self.ok + self.failed + self.open
    }

    /// Exit code of a run: 0 all ok, 3 finished with failed rows, 130 interrupted and resumable.
    pub fn exit_code(&self) -> u8 {
        match self.stopped {
            Some(Stopped::Interrupted) => 130,
            Some(Stopped::TooManyFailures | Stopped::Cancelled) => 3,
            None if self.failed > 0 => 3,
            None => 0,
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { submitted, ok, failed, open, resumed, cached, repeated, .. } = self;
        let sign = if self.balances() { "=" } else { "≠" };
        write!(f, "submitted {submitted} {sign} ok {ok} + failed {failed} + open {open}")?;
        write!(f, " · resumed {resumed} · cached {cached} · lost {} · repeated {repeated}", self.lost())
    }
}

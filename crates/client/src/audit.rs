//! How a run ended, for people and for the shell that called it.

use std::fmt;

use sheaf_roles::client::{Audit, Ended, Reason};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Why it ended, and the books: `submitted = ok + failed + open`.
    pub ended: Ended,
    /// The source was read to its end: no `--limit` cut it off.
    pub whole: bool,
    /// How long it took, milliseconds.
    pub ms: u64,
}

impl Summary {
    /// Rows in the sink without an answer, earlier runs included.
    pub fn failed(&self) -> u64 {
        self.ended.audit.failed + self.ended.audit.resumed_failed
    }

    /// What the process should say to its caller: 0 all rows ok, 1 the router broke its word, 2 it refused the job,
    /// 3 failed rows, 130 interrupted and resumable.
    pub fn exit_code(&self) -> u8 {
        match &self.ended.reason {
            Reason::Interrupted => 130,
            Reason::Complete if self.ended.audit.lost > 0 => 1,
            Reason::Complete if self.failed() == 0 => 0,
            Reason::Complete | Reason::TooManyFailures => 3,
            Reason::Refused(_) => 2,
            Reason::Gap { .. } => 1,
        }
    }
}

/// The audit line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { submitted, ok, failed, open, lost, repeated, cached, resumed, .. } = self.ended.audit;
        let sign = if submitted == ok + failed + open { '=' } else { '≠' };
        write!(
            f,
            "submitted {submitted} {sign} ok {ok} + failed {failed} + open {open}; lost {lost}, repeated {repeated}"
        )?;
        write!(f, "; resumed {resumed}, cached {cached}")
    }
}

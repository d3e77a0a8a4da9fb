//! How a run ended, for people and for the shell that called it. The books are those of the job: rows that earlier runs
//! finished are in them.

use std::fmt;

use crate::prompt::Tokens;
use sheaf_roles::client::{Audit, Ended, Reason};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Why it ended, and the books of this run alone; [`Summary::books`] has those of the job.
    pub ended: Ended,
    /// Rows failed at the router, by its word or by what it delivered: others could not be read, and never became tasks.
    pub tasks_failed: bool,
    /// The source was read to its end: no `--limit` cut it off.
    pub whole: bool,
    /// How long it took, milliseconds.
    pub ms: u64,
    /// What the answers written in this run cost, by their own word; those answered without execution among them.
    pub tokens: Option<Tokens>,
}

/// The books of a job, earlier runs included: `submitted = ok + failed + open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// Rows of the source, as far as it was read.
    pub submitted: u64,
    /// Of those, in the sink with an answer.
    pub ok: u64,
    /// Of those, in the sink without one.
    pub failed: u64,
    /// Of those, not in the sink.
    pub open: u64,
}

impl Summary {
    /// The books of the job.
    pub fn books(&self) -> Books {
        let Audit { submitted, ok, failed, open, resumed, resumed_failed, .. } = self.ended.audit;
        assert!(resumed_failed <= resumed, "rows without an answer are counted among those that were there");
        Books {
            submitted: submitted + resumed,
            ok: ok + resumed - resumed_failed,
            failed: failed + resumed_failed,
            open,
        }
    }

    /// What the process should say to its caller: 0 all rows ok, 1 the router broke its word, 2 it refused the job,
    /// 3 failed rows, 130 interrupted and resumable.
    pub fn exit_code(&self) -> u8 {
        match &self.ended.reason {
            Reason::Interrupted => 130,
            Reason::Complete if self.ended.audit.lost > 0 => 1,
            Reason::Complete if self.books().failed == 0 => 0,
            Reason::Complete | Reason::TooManyFailures => 3,
            Reason::Refused(_) => 2,
            Reason::Gap { .. } => 1,
        }
    }
}

/// The audit line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Books { submitted, ok, failed, open } = self.books();
        let Audit { lost, repeated, cached, resumed, .. } = self.ended.audit;
        let sign = if submitted == ok + failed + open { '=' } else { '≠' };
        write!(
            f,
            "submitted {submitted} {sign} ok {ok} + failed {failed} + open {open}; lost {lost}, repeated {repeated}"
        )?;
        write!(f, "; resumed {resumed}, cached {cached}")?;
        match self.tokens {
            Some(Tokens { prompt, completion }) => write!(f, "; tokens {prompt} in, {completion} out"),
            None => Ok(()),
        }
    }
}

//! What operators ask of a router, and what it answers.

use bytes::Bytes;

use crate::{Class, Failure, JobCounts, JobId, Key, RowId, Tokens, WorkerId};

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Every job, newest last. Of more than [`crate::BATCH_ROWS_MAX`], first those that something is left of: tasks that are
    /// open, or results that no sink has. Then the newest.
    Jobs,
    /// Every worker.
    Workers,
    /// Stop this job: open tasks finish as `cancelled`, running ones are ended.
    CancelJob(JobId),
    /// One task.
    Task(Key),
    /// Tasks of a job that failed, by delivery number.
    Failures {
        /// The job.
        job: JobId,
        /// Numbers above this one.
        after: u64,
        /// At most so many.
        limit: u32,
    },
    /// Run failed tasks of a job again.
    Retry {
        /// The job.
        job: JobId,
        /// Which; empty: all that failed.
        keys: Vec<Key>,
    },
    /// These rows of a job are wanted no more: those without an outcome finish as `cancelled`, running ones are ended where
    /// nobody else waits for their task. Only of a job that the asker has open.
    Withdraw {
        /// The job.
        job: JobId,
        /// At most [`crate::BATCH_ROWS_MAX`], each with the task that it asked for.
        rows: Vec<(Key, RowId)>,
    },
    /// Stop gracefully: accept nothing more, make everything durable, end.
    Shutdown,
    /// What happened so far, and what is open.
    Stats,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Jobs`.
    Jobs(Vec<JobInfo>),
    /// To `Workers`.
    Workers(Vec<WorkerInfo>),
    /// To `Task`; `None` where the router does not know it.
    Task(Option<TaskInfo>),
    /// To `Failures`.
    Failures(Vec<FailureRow>),
    /// To `CancelJob`, `Retry` and `Withdraw`: how many tasks it concerned. On disk.
    Done(u64),
    /// To whatever names a job or a task that is not there.
    NotFound,
    /// To `Shutdown`: it has begun.
    Stopping,
    /// To what the asker has no right to.
    Forbidden,
    /// To `Stats`.
    Stats(Stats),
}

/// A job as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Its id.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// What its tasks ask for.
    pub service: String,
    /// How it stands.
    pub state: JobState,
    /// In numbers.
    pub counts: JobCounts,
}

/// The life of a job: `Open → Done`, or `Open → Cancelled`; `Done → Open` by `retry` or new rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Rows may come, or are open.
    Open,
    /// Scanned to the end, every outcome in the sink.
    Done,
    /// Cancelled by a user.
    Cancelled,
}

/// A worker as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its id.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// What it can do.
    pub services: Vec<String>,
    /// Announced: executions at once.
    pub batch: u32,
    /// Announced: waiting behind them.
    pub depth: u32,
    /// Attempts that it holds by the router's count.
    pub outstanding: u32,
    /// Milliseconds since it was last heard.
    pub silent_ms: u64,
    /// Given nothing for now: it answered garbage.
    pub quarantined: bool,
}

/// A task as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// Its key.
    pub key: Key,
    /// What it asks for.
    pub service: String,
    /// Bytes of its body.
    pub body_len: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// Where it is.
    pub state: TaskState,
    /// Its answer, where it is `Ok`.
    pub output: Option<Bytes>,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Not being executed, for the reason given.
    Waiting(Waiting),
    /// Held by a worker.
    Running {
        /// Its name.
        worker: String,
        /// For how long, milliseconds.
        ms: u64,
    },
    /// Answered.
    Ok,
    /// Failed.
    Failed(Failure),
}

/// Why a task waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No worker announces its service.
    NoWorker {
        /// The service.
        service: String,
    },
    /// Every worker of its service is full.
    AllFull {
        /// Workers of the service.
        workers: u32,
        /// Tasks ready before it, at most.
        ahead: u64,
    },
    /// It failed and will be tried again.
    Backoff {
        /// In so many milliseconds.
        ms: u64,
    },
    /// The router has just started and waits for workers that may be running it.
    Withheld {
        /// For at most so many milliseconds.
        ms: u64,
    },
    /// A suspect that waits to run alone.
    Suspect,
    /// Its job's `--rate` is used up for now.
    Rate,
    /// Its turn has come; it will be assigned at the next step.
    Ready,
}

/// One failed row of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// Its delivery number.
    pub number: u64,
    /// The client's identity of it.
    pub row: RowId,
    /// The task.
    pub key: Key,
    /// Attempts made.
    pub attempts: u32,
    /// Why.
    pub failure: Failure,
    /// The body that failed.
    pub body: Bytes,
}

/// A router in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Counted since it started.
    pub totals: Totals,
    /// As it is now.
    pub standing: Standing,
    /// What the answers of services cost that count tokens, since it started: of [`STATS_SERVICES_MAX`] at most.
    pub tokens: Vec<ServiceTokens>,
}

/// Services whose tokens are told.
pub const STATS_SERVICES_MAX: usize = 500;

/// What the answers of a service cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTokens {
    /// Its name.
    pub service: String,
    /// Of all answers that ended a task.
    pub tokens: Tokens,
}

/// Outcomes that are told apart: `ok`, then every [`Class`] in order.
pub const OUTCOMES: usize = 1 + Class::ALL.len();

/// Lengths that are told apart: number n counts what took at most 2ⁿ ms, the last one whatever took longer.
pub const LENGTHS: usize = 24;

/// What happened in a router since it started. These only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tasks that ended, by outcome. A cancelled row counts as a task.
    pub outcomes: [u64; OUTCOMES],
    /// Of them, by how long the attempt that ended them took.
    pub lengths: [u64; LENGTHS],
    /// How long those attempts took together, milliseconds.
    pub took_ms: u64,
    /// Attempts given out.
    pub assigned: u64,
    /// Of them: while nobody knew how the attempt before had ended.
    pub redelivered: u64,
    /// Attempts called back before they started.
    pub recalled: u64,
    /// Results that nobody needed any more: their task was finished, or their attempt was not the present one.
    pub dropped: u64,
    /// Workers that fell silent past the grace.
    pub lost: u64,
    /// Rows refused for want of room.
    pub refused: u64,
    /// Rows that became no task of their own: known already, open for another row, or answered before.
    pub suppressed: u64,
}

impl Totals {
    /// A task has ended: with `class`, or with an answer.
    pub fn note_outcome(&mut self, class: Option<Class>) {
        self.outcomes[class.map_or(0, |class| 1 + class as usize)] += 1;
    }

    /// The attempt that ended it took so long.
    pub fn note_length(&mut self, ms: u64) {
        self.took_ms = self.took_ms.saturating_add(ms);
        let length = (u64::BITS - ms.saturating_sub(1).leading_zeros()) as usize;
        self.lengths[length.min(LENGTHS - 1)] += 1;
    }
}

/// What is open in a router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Tasks that could be given out.
    pub ready: u64,
    /// Tasks that workers hold.
    pub running: u64,
    /// Tasks that failed and wait for their next attempt.
    pub backoff: u64,
    /// Tasks that wait to run alone: they may have killed a program.
    pub suspect: u64,
    /// Tasks open since before the restart: a worker may be running them.
    pub withheld: u64,
    /// Jobs on record.
    pub jobs: u64,
    /// Results that no sink has committed.
    pub unsettled: u64,
    /// Milliseconds since the last result came; `None`: none has.
    pub idle_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_counts_with_the_shortest_length_that_it_fits() {
        let length = |ms| {
            let mut totals = Totals::default();
            totals.note_length(ms);
            totals.lengths.iter().position(|count| *count == 1)
        };
        let ends = [0, 1, 2, 3, 4, 5, 1 << 22, (1 << 22) + 1, u64::MAX];
        assert_eq!(ends.map(length), [0, 0, 1, 2, 2, 3, 22, 23, 23].map(Some));
    }

    #[test]
    fn every_class_has_a_count_of_its_own() {
        let mut totals = Totals::default();
        totals.note_outcome(None);
        Class::ALL.into_iter().for_each(|class| totals.note_outcome(Some(class)));
        assert_eq!(totals.outcomes, [1; OUTCOMES]);
    }
}

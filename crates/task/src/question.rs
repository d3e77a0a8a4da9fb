//! What operators ask of a router, and what it answers.

use bytes::Bytes;

use crate::{Failure, JobCounts, JobId, Key, RowId, WorkerId};

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Every job, newest last.
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

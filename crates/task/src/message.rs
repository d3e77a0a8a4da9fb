//! The messages between roles. One session message carries one of these; lists in them are the batches.
//!
//! | enum | from → to | lane |
//! |---|---|---|
//! | [`ToRouter`] | client or worker → router | rows and results bulk, the rest urgent |
//! | [`ToWorker`] | router → worker | assignments bulk, the rest urgent |
//! | [`ToClient`] | router → client | deliveries bulk, the rest urgent |

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Answer, JobId, Key, Outcome, Question, RouterId, RowId, WorkerId};

/// Topics of session signals (unnumbered, newest wins).
pub mod topic {
    /// Worker → router: its [`crate::Capacity`].
    pub const ANNOUNCE: u16 = 1;
    /// Router → client: [`crate::JobCounts`] of the job it has open.
    pub const PROGRESS: u16 = 2;
}

/// One attempt at one task. A result names it, so that a late one is known for what it is.
///
/// Fences are ordered by age, the oldest first: a tree of those that are held grows at one end and shrinks near the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// Epoch of the router's journal that made the attempt.
    pub epoch: u64,
    /// Ordinal of the attempt within that epoch, from 1.
    pub attempt: u32,
    /// The task.
    pub key: Key,
}

/// What a client or a worker says to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToRouter {
    /// Opens a job, or takes up one that this client opened before.
    OpenJob(JobSpec),
    /// Rows of a job. Committed when they are on the router's disk.
    Submit {
        /// The job, opened earlier in this session.
        job: JobId,
        /// The delivery number up to which the sink was known not to have these rows. A row with a later number has been
        /// or will be delivered, even where this message comes again after it was.
        cursor: u64,
        /// At most [`crate::BATCH_ROWS_MAX`].
        rows: Vec<SubmitRow>,
    },
    /// The source has been read to its end: nothing more will be submitted in this run.
    Scanned {
        /// The job.
        job: JobId,
    },
    /// A question or an order of an operator; answered by [`ToClient::Answer`] with the same number.
    Ask {
        /// Chosen by the asker.
        id: u64,
        /// What is asked.
        question: Question,
    },
    /// A worker's first word on every new session, and again after each of its restarts.
    Register(Registration),
    /// Attempts that ended. Committed when they are on the router's disk.
    Results(Vec<ResultItem>),
    /// Attempts given back before they started, as `Recall` asked.
    Recalled(Vec<Fence>),
    /// The worker has finished what it ran and goes for good.
    Leave,
    /// Pieces of this job's answers are to be passed on to this session as they come. Not on record: said
    /// again in every session that opens the job.
    Watch {
        /// The job, opened earlier in this session.
        job: JobId,
    },
    /// A piece of an answer that is still being made.
    Piece(Piece),
}

/// A piece of an answer that is still being made, for whoever watches it come. Nothing rests on it: it may be lost, and
/// what it says is in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// By which attempt.
    pub fence: Fence,
    /// Where it begins: bytes of all pieces of the attempt before it. After a gap the rest is of no use.
    pub at: u64,
    /// As the backend sent them: a part of its stream of events. At most [`crate::PIECE_BYTES_MAX`].
    pub bytes: Bytes,
}

/// A job as its client describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Its id.
    pub job: JobId,
    /// For people; the sink's name by default.
    pub name: String,
    /// What its tasks ask for.
    pub service: String,
    /// What changes when the service's answers change.
    pub revision: String,
    /// Empty, or the nonce of `--fresh`.
    pub nonce: Bytes,
    /// The number up to which the sink has committed this job's deliveries from the router `cursor_router`.
    pub cursor: u64,
    /// The router that `cursor` counts from; `None` for a new job.
    pub cursor_router: Option<RouterId>,
    /// How its tasks are treated.
    pub options: JobOptions,
}

/// How the tasks of a job are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobOptions {
    /// Longest time an attempt may take, milliseconds; 0: none.
    pub timeout_ms: u64,
    /// Attempts after the first for failures that are retried.
    pub retries: u32,
    /// Order of its ready tasks.
    pub order: Order,
    /// Its share against other jobs of the same service, 1 by default.
    pub weight: u32,
    /// Tasks started per 1,000 seconds at most; 0: no bound.
    pub rate_millihertz: u64,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self { timeout_ms: 0, retries: 3, order: Order::Auto, weight: 1, rate_millihertz: 0 }
    }
}

/// The order in which ready tasks of a job are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they came.
    Fifo,
    /// Shortest expected first, aged by their wait.
    Shortest,
    /// `Fifo` until lengths are seen to differ much, then like lengths together.
    Auto,
}

/// One row, submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitRow {
    /// The client's identity of it.
    pub row: RowId,
    /// Ordinal of its body among equal bodies of the job; always 0 with `--share`.
    pub sample: u32,
    /// The body, at most [`crate::BODY_BYTES_MAX`].
    pub body: Bytes,
}

/// A worker's introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Who it is.
    pub worker: WorkerId,
    /// Which of its lives: +1 at each start.
    pub incarnation: u64,
    /// For people.
    pub name: String,
    /// What it can do.
    pub services: Vec<String>,
    /// How much of it.
    pub capacity: Capacity,
    /// Attempts that it still holds, running or waiting: answered by `Verdict`.
    pub holding: Vec<Fence>,
    /// Attempts that its previous life was executing when it died: suspects.
    pub died_with: Vec<Fence>,
}

/// How much a worker can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Executions at once.
    pub batch: u32,
    /// Waiting behind them.
    pub depth: u32,
    /// Body bytes that it will hold; 0: no bound.
    pub bytes: u64,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultItem {
    /// Which attempt.
    pub fence: Fence,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it executed, milliseconds.
    pub ms: u64,
    /// What its answer cost.
    pub tokens: Tokens,
}

/// What an answer of a model cost, as who made it says; zeros where nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read.
    pub prompt: u64,
    /// Written.
    pub completion: u64,
}

impl Tokens {
    /// Of these and those together.
    pub fn add(&mut self, Tokens { prompt, completion }: Tokens) {
        self.prompt = self.prompt.saturating_add(prompt);
        self.completion = self.completion.saturating_add(completion);
    }
}

/// What the router says to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// The registration is on record.
    Registered {
        /// The life of the worker that it answers: one that was meant for an earlier life says nothing to this one.
        incarnation: u64,
        /// Who answers.
        router: RouterId,
        /// Of `holding`: these are still wanted.
        keep: Vec<Fence>,
        /// Of `holding`: another attempt has started, or nobody wants them any more.
        drop: Vec<Fence>,
    },
    /// Attempts to make.
    Assign(Vec<Assignment>),
    /// Give these back if they have not started.
    Recall(Vec<Fence>),
    /// End these: nobody wants them.
    Cancel(Vec<Fence>),
    /// The registration is refused: what was wrong with it.
    Refused(Refusal),
}

/// One attempt, assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Which.
    pub fence: Fence,
    /// What is asked for.
    pub service: ByteString,
    /// Longest time that it may take, milliseconds; 0: none.
    pub timeout_ms: u64,
    /// A suspect: nothing else may execute beside it in the same process.
    pub alone: bool,
    /// The body.
    pub body: Bytes,
}

/// What the router says to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToClient {
    /// The job is open and on record.
    JobOpened {
        /// The job.
        job: JobId,
        /// Who answers: goes into the sink beside the cursor.
        router: RouterId,
        /// The cursor that the router starts from.
        cursor: u64,
        /// Where the job stands.
        counts: JobCounts,
    },
    /// The job cannot be opened.
    JobRefused {
        /// The job.
        job: JobId,
        /// Why.
        refusal: Refusal,
    },
    /// Results, in order of their numbers. Committed when the sink has them.
    Deliver {
        /// The job.
        job: JobId,
        /// In order.
        rows: Vec<DeliveredRow>,
    },
    /// Rows that were not accepted.
    Refused {
        /// The job.
        job: JobId,
        /// Which.
        rows: Vec<RowId>,
        /// Why, and whether to try again.
        refusal: Refusal,
    },
    /// A piece of a row's answer, after `Watch`.
    Piece {
        /// The job.
        job: JobId,
        /// The row.
        row: RowId,
        /// The piece.
        piece: Piece,
    },
    /// The answer to `Ask`.
    Answer {
        /// The asker's number.
        id: u64,
        /// The answer.
        answer: Answer,
    },
}

/// Why the router will not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A limit is reached or the disk is full: try again after so many milliseconds.
    Busy {
        /// How long to wait.
        retry_ms: u64,
    },
    /// The body, or a name, is longer than allowed.
    TooLong {
        /// What was given, bytes.
        len: u64,
        /// What is allowed.
        max: u64,
    },
    /// The job is not open here.
    UnknownJob,
    /// The job was cancelled.
    Cancelled,
    /// The same id with another service, revision or nonce.
    OtherJob,
    /// The sink's cursor is ahead of this router: it committed deliveries that this journal never made (restored copy).
    CursorAhead {
        /// The router's last number for the job.
        last: u64,
    },
    /// The router is shutting down.
    Stopping,
    /// A later life of this worker is on record: its directory is an old copy, or is used twice.
    Superseded {
        /// Which life.
        incarnation: u64,
    },
    /// Whoever asks has no right to it: its token grants another role.
    Forbidden,
}

/// One result on its way to the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredRow {
    /// Delivery number: 1, 2, 3 … within the job, for good.
    pub number: u64,
    /// The client's identity of the row.
    pub row: RowId,
    /// The task.
    pub key: Key,
    /// How it ended.
    pub outcome: Outcome,
    /// Attempts that it took.
    pub attempts: u32,
    /// Who did it.
    pub worker: ByteString,
    /// How long the last attempt took, milliseconds.
    pub ms: u64,
    /// Answered from the journal: nobody executed it for this job.
    pub cached: bool,
}

/// Where a job stands. `submitted = ok + failed + open`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Rows that the router has acknowledged.
    pub submitted: u64,
    /// Rows with an answer.
    pub ok: u64,
    /// Rows with a failure.
    pub failed: u64,
    /// Rows without an outcome yet.
    pub open: u64,
    /// Of those open: being executed.
    pub running: u64,
    /// Of those with an answer: answered without execution for this job.
    pub cached: u64,
    /// Attempts that were made again.
    pub retried: u64,
    /// The last delivery number given out.
    pub last_number: u64,
    /// The number up to which the sink has committed.
    pub settled: u64,
    /// Of those open: nobody can execute them, since no worker on record offers their service. 0 from a router that does
    /// not tell.
    pub unserved: u64,
}

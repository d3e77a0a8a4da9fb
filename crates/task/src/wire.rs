//! The wire forms: prost structs, one for each memory form.
//!
//! Version rule: a field is added with a new number, and a number is never used again; unknown fields are skipped.

use bytes::Bytes;

/// `crate::Fence`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Fence {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
}

/// `crate::Outcome`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Outcome {
    #[prost(oneof = "OutcomeKind", tags = "1, 2")]
    pub kind: Option<OutcomeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OutcomeKind {
    #[prost(bytes = "bytes", tag = "1")]
    Ok(Bytes),
    #[prost(message, tag = "2")]
    Failed(Failure),
}

/// `crate::Failure` with its evidence
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Failure {
    #[prost(uint32, tag = "1")]
    pub class: u32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(sint32, optional, tag = "3")]
    pub exit_code: Option<i32>,
    #[prost(sint32, optional, tag = "4")]
    pub signal: Option<i32>,
    #[prost(bytes = "bytes", tag = "5")]
    pub stderr: Bytes,
    #[prost(string, tag = "6")]
    pub worker: String,
    #[prost(uint32, tag = "7")]
    pub deaths: u32,
    #[prost(message, optional, boxed, tag = "8")]
    pub upstream: Option<Box<Upstream>>,
}

/// `crate::Upstream`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Upstream {
    #[prost(uint32, tag = "1")]
    pub status: u32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(string, tag = "3")]
    pub kind: String,
    #[prost(string, tag = "4")]
    pub param: String,
    #[prost(string, tag = "5")]
    pub code: String,
}

/// `crate::JobSpec` with its options
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JobSpec {
    #[prost(bytes = "bytes", tag = "1")]
    pub job: Bytes,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub service: String,
    #[prost(string, tag = "4")]
    pub revision: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub nonce: Bytes,
    #[prost(uint64, tag = "6")]
    pub cursor: u64,
    #[prost(bytes = "bytes", tag = "7")]
    pub cursor_router: Bytes,
    #[prost(uint64, tag = "8")]
    pub timeout_ms: u64,
    #[prost(uint32, tag = "9")]
    pub retries: u32,
    #[prost(uint32, tag = "10")]
    pub order: u32,
    #[prost(uint32, tag = "11")]
    pub weight: u32,
    #[prost(uint64, tag = "12")]
    pub rate_millihertz: u64,
}

/// `crate::Capacity`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Capacity {
    #[prost(uint32, tag = "1")]
    pub batch: u32,
    #[prost(uint32, tag = "2")]
    pub depth: u32,
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
}

/// `crate::JobCounts`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JobCounts {
    #[prost(uint64, tag = "1")]
    pub submitted: u64,
    #[prost(uint64, tag = "2")]
    pub ok: u64,
    #[prost(uint64, tag = "3")]
    pub failed: u64,
    #[prost(uint64, tag = "4")]
    pub open: u64,
    #[prost(uint64, tag = "5")]
    pub running: u64,
    #[prost(uint64, tag = "6")]
    pub cached: u64,
    #[prost(uint64, tag = "7")]
    pub retried: u64,
    #[prost(uint64, tag = "8")]
    pub last_number: u64,
    #[prost(uint64, tag = "9")]
    pub settled: u64,
    #[prost(uint64, tag = "10")]
    pub unserved: u64,
}

/// `crate::Refusal`: which variant, and its numbers
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Refusal {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint64, tag = "2")]
    pub a: u64,
    #[prost(uint64, tag = "3")]
    pub b: u64,
}

/// A bare list of fences
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Fences {
    #[prost(message, repeated, tag = "1")]
    pub fences: Vec<Fence>,
}

/// Nothing to say beyond the variant
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Unit {}

/// `crate::ToRouter`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToRouter {
    #[prost(oneof = "ToRouterKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub kind: Option<ToRouterKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum ToRouterKind {
    #[prost(message, tag = "1")]
    OpenJob(JobSpec),
    #[prost(message, tag = "2")]
    Submit(Submit),
    #[prost(bytes = "bytes", tag = "3")]
    Scanned(Bytes),
    #[prost(message, tag = "4")]
    Ask(Ask),
    #[prost(message, tag = "5")]
    Register(Registration),
    #[prost(message, tag = "6")]
    Results(Results),
    #[prost(message, tag = "7")]
    Recalled(Fences),
    #[prost(message, tag = "8")]
    Leave(Unit),
    #[prost(bytes = "bytes", tag = "9")]
    Watch(Bytes),
    #[prost(message, tag = "10")]
    Piece(Piece),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Piece {
    #[prost(message, optional, tag = "1")]
    pub fence: Option<Fence>,
    #[prost(uint64, tag = "2")]
    pub at: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Submit {
    #[prost(bytes = "bytes", tag = "1")]
    pub job: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub rows: Vec<SubmitRow>,
    #[prost(uint64, tag = "3")]
    pub cursor: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubmitRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub row: Bytes,
    #[prost(uint32, tag = "2")]
    pub sample: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Registration {
    #[prost(bytes = "bytes", tag = "1")]
    pub worker: Bytes,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub services: Vec<String>,
    #[prost(message, optional, tag = "5")]
    pub capacity: Option<Capacity>,
    #[prost(message, repeated, tag = "6")]
    pub holding: Vec<Fence>,
    #[prost(message, repeated, tag = "7")]
    pub died_with: Vec<Fence>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Results {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<ResultItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResultItem {
    #[prost(message, optional, tag = "1")]
    pub fence: Option<Fence>,
    #[prost(message, optional, tag = "2")]
    pub outcome: Option<Outcome>,
    #[prost(uint64, tag = "3")]
    pub ms: u64,
    #[prost(uint64, tag = "4")]
    pub prompt_tokens: u64,
    #[prost(uint64, tag = "5")]
    pub completion_tokens: u64,
}

/// `crate::ToWorker`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToWorker {
    #[prost(oneof = "ToWorkerKind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<ToWorkerKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum ToWorkerKind {
    #[prost(message, tag = "1")]
    Registered(Registered),
    #[prost(message, tag = "2")]
    Assign(Assign),
    #[prost(message, tag = "3")]
    Recall(Fences),
    #[prost(message, tag = "4")]
    Cancel(Fences),
    #[prost(message, tag = "5")]
    Refused(Refusal),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Registered {
    #[prost(bytes = "bytes", tag = "1")]
    pub router: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub keep: Vec<Fence>,
    #[prost(message, repeated, tag = "3")]
    pub drop: Vec<Fence>,
    #[prost(uint64, tag = "4")]
    pub incarnation: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Assign {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<Assignment>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Assignment {
    #[prost(message, optional, tag = "1")]
    pub fence: Option<Fence>,
    /// UTF-8.
    #[prost(bytes = "bytes", tag = "2")]
    pub service: Bytes,
    #[prost(uint64, tag = "3")]
    pub timeout_ms: u64,
    #[prost(bool, tag = "4")]
    pub alone: bool,
    #[prost(bytes = "bytes", tag = "5")]
    pub body: Bytes,
}

/// `crate::ToClient`
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ToClient {
    #[prost(oneof = "ToClientKind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<ToClientKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum ToClientKind {
    #[prost(message, tag = "1")]
    JobOpened(JobOpened),
    #[prost(message, tag = "2")]
    JobRefused(JobRefused),
    #[prost(message, tag = "3")]
    Deliver(Deliver),
    #[prost(message, tag = "4")]
    Refused(RowsRefused),
    #[prost(message, tag = "5")]
    Answer(Answered),
    #[prost(message, tag = "6")]
    Piece(RowPiece),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RowPiece {
    #[prost(bytes = "bytes", tag = "1")]
    pub job: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub row: Bytes,
    #[prost(message, optional, tag = "3")]
    pub piece: Option<Piece>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JobOpened {
    #[prost(bytes = "bytes", tag = "1")]
    pub job: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub router: Bytes,
    #[prost(uint64, tag = "3")]
    pub cursor: u64,
    #[prost(message, optional, tag = "4")]
    pub counts: Option<JobCounts>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JobRefused {
    #[prost(bytes = "bytes", tag = "1")]
    pub job: Bytes,
    #[prost(message, optional, tag = "2")]
    pub refusal: Option<Refusal>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Deliver {
    #[prost(bytes = "bytes", tag = "1")]
    pub job: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub rows: Vec<DeliveredRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeliveredRow {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub row: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    #[prost(message, optional, tag = "4")]
    pub outcome: Option<Outcome>,
    #[prost(uint32, tag = "5")]
    pub attempts: u32,
    /// UTF-8.
    #[prost(bytes = "bytes", tag = "6")]
    pub worker: Bytes,
    #[prost(uint64, tag = "7")]
    pub ms: u64,
    #[prost(bool, tag = "8")]
    pub cached: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RowsRefused {
    #[prost(bytes = "bytes", tag = "1")]
    pub job: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub rows: Vec<Bytes>,
    #[prost(message, optional, tag = "3")]
    pub refusal: Option<Refusal>,
}

pub(crate) use questions::*;

mod questions {
    use super::{Bytes, Failure, JobCounts, Unit};

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Ask {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(oneof = "AskKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
        pub kind: Option<AskKind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum AskKind {
        #[prost(message, tag = "2")]
        Jobs(Unit),
        #[prost(message, tag = "3")]
        Workers(Unit),
        #[prost(bytes = "bytes", tag = "4")]
        CancelJob(Bytes),
        #[prost(bytes = "bytes", tag = "5")]
        Task(Bytes),
        #[prost(message, tag = "6")]
        Failures(AskFailures),
        #[prost(message, tag = "7")]
        Retry(AskRetry),
        #[prost(message, tag = "8")]
        Shutdown(Unit),
        #[prost(message, tag = "9")]
        Withdraw(AskWithdraw),
        #[prost(message, tag = "10")]
        Stats(Unit),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct AskFailures {
        #[prost(bytes = "bytes", tag = "1")]
        pub job: Bytes,
        #[prost(uint64, tag = "2")]
        pub after: u64,
        #[prost(uint32, tag = "3")]
        pub limit: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct AskRetry {
        #[prost(bytes = "bytes", tag = "1")]
        pub job: Bytes,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        pub keys: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct AskWithdraw {
        #[prost(bytes = "bytes", tag = "1")]
        pub job: Bytes,
        /// A key and a row in turn.
        #[prost(bytes = "bytes", repeated, tag = "2")]
        pub rows: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Answered {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(oneof = "AnswerKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
        pub kind: Option<AnswerKind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum AnswerKind {
        #[prost(message, tag = "2")]
        Jobs(Jobs),
        #[prost(message, tag = "3")]
        Workers(Workers),
        #[prost(message, tag = "4")]
        Task(MaybeTask),
        #[prost(message, tag = "5")]
        Failures(Failures),
        #[prost(uint64, tag = "6")]
        Done(u64),
        #[prost(message, tag = "7")]
        NotFound(Unit),
        #[prost(message, tag = "8")]
        Stopping(Unit),
        #[prost(message, tag = "9")]
        Forbidden(Unit),
        #[prost(message, tag = "10")]
        Stats(Stats),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Stats {
        #[prost(message, optional, tag = "1")]
        pub totals: Option<Totals>,
        #[prost(message, optional, tag = "2")]
        pub standing: Option<Standing>,
        #[prost(message, repeated, tag = "3")]
        pub tokens: Vec<ServiceTokens>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ServiceTokens {
        #[prost(string, tag = "1")]
        pub service: String,
        #[prost(uint64, tag = "2")]
        pub prompt: u64,
        #[prost(uint64, tag = "3")]
        pub completion: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Totals {
        #[prost(uint64, repeated, packed = "false", tag = "1")]
        pub outcomes: Vec<u64>,
        #[prost(uint64, repeated, packed = "false", tag = "2")]
        pub lengths: Vec<u64>,
        #[prost(uint64, tag = "3")]
        pub took_ms: u64,
        #[prost(uint64, tag = "4")]
        pub assigned: u64,
        #[prost(uint64, tag = "5")]
        pub redelivered: u64,
        #[prost(uint64, tag = "6")]
        pub recalled: u64,
        #[prost(uint64, tag = "7")]
        pub dropped: u64,
        #[prost(uint64, tag = "8")]
        pub lost: u64,
        #[prost(uint64, tag = "9")]
        pub refused: u64,
        #[prost(uint64, tag = "10")]
        pub suppressed: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Standing {
        #[prost(uint64, tag = "1")]
        pub ready: u64,
        #[prost(uint64, tag = "2")]
        pub running: u64,
        #[prost(uint64, tag = "3")]
        pub backoff: u64,
        #[prost(uint64, tag = "4")]
        pub suspect: u64,
        #[prost(uint64, tag = "5")]
        pub withheld: u64,
        #[prost(uint64, tag = "6")]
        pub jobs: u64,
        #[prost(uint64, tag = "7")]
        pub unsettled: u64,
        #[prost(uint64, optional, tag = "8")]
        pub idle_ms: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Jobs {
        #[prost(message, repeated, tag = "1")]
        pub jobs: Vec<JobInfo>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct JobInfo {
        #[prost(bytes = "bytes", tag = "1")]
        pub job: Bytes,
        #[prost(string, tag = "2")]
        pub name: String,
        #[prost(string, tag = "3")]
        pub service: String,
        #[prost(uint32, tag = "4")]
        pub state: u32,
        #[prost(message, optional, tag = "5")]
        pub counts: Option<JobCounts>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Workers {
        #[prost(message, repeated, tag = "1")]
        pub workers: Vec<WorkerInfo>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct WorkerInfo {
        #[prost(bytes = "bytes", tag = "1")]
        pub worker: Bytes,
        #[prost(string, tag = "2")]
        pub name: String,
        #[prost(string, repeated, tag = "3")]
        pub services: Vec<String>,
        #[prost(uint32, tag = "4")]
        pub batch: u32,
        #[prost(uint32, tag = "5")]
        pub depth: u32,
        #[prost(uint32, tag = "6")]
        pub outstanding: u32,
        #[prost(uint64, tag = "7")]
        pub silent_ms: u64,
        #[prost(bool, tag = "8")]
        pub quarantined: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct MaybeTask {
        #[prost(message, optional, tag = "1")]
        pub task: Option<TaskInfo>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TaskInfo {
        #[prost(bytes = "bytes", tag = "1")]
        pub key: Bytes,
        #[prost(string, tag = "2")]
        pub service: String,
        #[prost(uint64, tag = "3")]
        pub body_len: u64,
        #[prost(uint32, tag = "4")]
        pub attempts: u32,
        #[prost(message, optional, tag = "5")]
        pub state: Option<TaskState>,
        #[prost(bytes = "bytes", optional, tag = "6")]
        pub output: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TaskState {
        #[prost(oneof = "TaskStateKind", tags = "1, 2, 3, 4")]
        pub kind: Option<TaskStateKind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum TaskStateKind {
        #[prost(message, tag = "1")]
        Waiting(Waiting),
        #[prost(message, tag = "2")]
        Running(Running),
        #[prost(message, tag = "3")]
        Ok(Unit),
        #[prost(message, tag = "4")]
        Failed(Failure),
    }

    /// `crate::Waiting`: which variant, and its data
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Waiting {
        #[prost(uint32, tag = "1")]
        pub kind: u32,
        #[prost(string, tag = "2")]
        pub service: String,
        #[prost(uint64, tag = "3")]
        pub a: u64,
        #[prost(uint64, tag = "4")]
        pub b: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Running {
        #[prost(string, tag = "1")]
        pub worker: String,
        #[prost(uint64, tag = "2")]
        pub ms: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Failures {
        #[prost(message, repeated, tag = "1")]
        pub rows: Vec<FailureRow>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct FailureRow {
        #[prost(uint64, tag = "1")]
        pub number: u64,
        #[prost(bytes = "bytes", tag = "2")]
        pub row: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        pub key: Bytes,
        #[prost(uint32, tag = "4")]
        pub attempts: u32,
        #[prost(message, optional, tag = "5")]
        pub failure: Option<Failure>,
        #[prost(bytes = "bytes", tag = "6")]
        pub body: Bytes,
    }
}

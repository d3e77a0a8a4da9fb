//! What travels between the roles of Sheaf and what it is called: keys, tasks, outcomes, the messages, and their
//! protobuf codec. Pure: bytes in, values out. It knows no session, no journal and no machine.
//!
//! Invariant: every type here that crosses a wire has a memory form (this crate's public types) and a wire form
//! (private, in `wire`), so that the one may change without the other.

mod codec;
mod id;
mod key;
mod limits;
mod message;
mod outcome;
pub mod put;
mod question;
mod wire;

pub use codec::DecodeError;
pub use id::{JobId, Key, RouterId, RowId, WorkerId};
pub use key::{KeyHasher, KeySecret};
pub use limits::*;
pub use message::{
    Assignment, Capacity, DeliveredRow, Fence, JobCounts, JobOptions, JobSpec, Order, Piece, Refusal, Registration,
    ResultItem, SubmitRow, ToClient, ToRouter, ToWorker, Tokens, topic,
};
pub use outcome::{Class, Evidence, Failure, Outcome, Upstream};
pub use question::{
    Answer, FailureRow, JobInfo, JobState, LENGTHS, OUTCOMES, Question, STATS_SERVICES_MAX, ServiceTokens, Standing,
    Stats, TaskInfo, TaskState, Totals, Waiting, WorkerInfo,
};

//! Online calls: a request becomes a task of the router, and its answer the task's outcome.
//!
//! | module | what |
//! |---|---|
//! | `machine` | who waits for which row of which job; pure |
//! | `jobs`, `recent` | the jobs that rows are of; answers that are kept for a retry; pure |
//! | `line` | one task that owns the machine and a session with the router |
//! | `types`, `limits` | what goes in and out, and how much |

mod jobs;
mod limits;
mod line;
mod machine;
mod recent;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use jobs::is_left_by;
pub use limits::CallLimits;
pub(crate) use line::{Answered, Caller, LineConfig, open};
pub(crate) use types::{Digest, Done, Identity, JobKey, NewCall, Refused, Told};

//! Sources, sinks and the job driver. Shell.
//!
//! A run in order: [`claim`] takes the sink and opens the source, [`Claimed::prepare`] finds or begins the job beside the
//! sink and makes it agree with the source; [`run_job`] carries rows and results between source, router and sink until the client machine says that it is
//! over. Nothing is decided here that the machine decides: see `sheaf_roles::client`.
//!
//! | module | what |
//! |---|---|
//! | [`source`] | rows from text, JSONL, CSV, SQLite, standard input |
//! | [`sink`] | results into JSONL, CSV, SQLite, each committed once with the cursor |
//! | `rows`, `reconcile` | names of rows; the sink made to agree with the source |
//! | `prompt` | rows made into requests for a model, answers into results |
//! | `identity`, `revision` | the job beside its sink; what makes it another |
//! | `scan`, `writer`, `driver`, `line` | two threads, the loop between them, what it has of sessions with the router |
//! | `session` | one session with a router, for whoever has one |
//! | `progress`, `audit` | how far it is; how it ended |
//!
//! **Invariant**: a row is in the sink if and only if the state beside it says so, after any crash.

mod audit;
mod config;
mod driver;
mod identity;
mod ids;
mod line;
mod progress;
mod prompt;
mod reconcile;
mod revision;
mod rows;
mod scan;
mod session;
pub mod sink;
pub mod source;
mod writer;

pub use audit::{Books, Summary};
pub use config::{Claimed, Interrupt, JobConfig, PrepareError, Prepared, claim, prepare};
pub use driver::{Line, RunError, run_job};
pub use identity::{Difference, Fingerprint, JobError, JobRecord, take_up};
pub use line::{LineError, SessionLine, cancel_job};
pub use progress::{Pace, Phase, Progress};
pub use prompt::{Prompt, PromptError, PromptSpec, PromptTask, Tokens};
pub use reconcile::ReconcileError;
pub use revision::{RevisionError, default_revision};
pub use session::{Leaving, RouterSession};

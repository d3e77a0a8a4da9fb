//! Sources, sinks and the job driver. Shell.

mod audit;
mod config;
mod driver;
mod identity;
mod ids;
mod line;
mod progress;
mod reconcile;
mod revision;
mod rows;
mod scan;
pub mod sink;
pub mod source;
mod writer;

pub use audit::Summary;
pub use config::{Interrupt, JobConfig, PrepareError, Prepared, prepare};
pub use driver::{Line, RunError, run_job};
pub use identity::{Difference, Fingerprint, JobError, JobRecord, take_up};
pub use line::SessionLine;
pub use progress::{Pace, Phase, Progress};
pub use reconcile::ReconcileError;
pub use revision::{RevisionError, default_revision};

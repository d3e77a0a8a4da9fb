//! Sources, sinks and the job driver. Shell.

mod audit;
mod config;
mod identity;
mod ids;
mod progress;
mod reconcile;
mod revision;
mod rows;
mod scan;
pub mod sink;
pub mod source;
mod writer;

pub use audit::{Audit, Stopped};
pub use config::{Interrupt, JobConfig, PrepareError, Prepared, prepare};
pub use identity::{Difference, Fingerprint, JobError, JobRecord, take_up};
pub use progress::{Pace, Phase, Progress};
pub use reconcile::ReconcileError;
pub use revision::{RevisionError, default_revision};

//! Sources, sinks and the job driver. Shell.

mod identity;
mod progress;
mod reconcile;
mod revision;
mod rows;
pub mod sink;
pub mod source;

pub use identity::{Difference, Fingerprint, JobError, JobRecord, take_up};
pub use progress::{Pace, Phase, Progress};
pub use revision::{RevisionError, default_revision};

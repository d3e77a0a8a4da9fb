//! Sources, sinks and the job driver. Shell.

pub mod sink;
pub mod source;

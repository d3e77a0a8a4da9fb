//! Sources, sinks and the job driver. Shell.

pub mod source;

//! Sources, sinks and the job driver. Shell.

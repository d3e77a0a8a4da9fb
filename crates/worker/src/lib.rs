//! The worker process: executors, spool, announcements. Shell.

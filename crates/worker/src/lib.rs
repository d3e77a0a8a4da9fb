//! The worker process: executors (programs, and servers called over HTTP), the keeper of programs, the spool of results, and the loop. Shell: it decides nothing
//! that the worker machine of `sheaf-roles` can decide.

mod backend;
mod config;
mod disk;
mod exec;
pub mod keeper;
mod run;
mod shell;
mod spool;

pub use backend::{Api, ApiKey, Backend, BackendError, BackendUrl, HOLD_DEFAULT, REPLY_DEFAULT};
pub use config::{ConfigError, Mode, PLACEHOLDER, ProgramConfig, RETRY_EXIT_DEFAULT, Work, find_program};
pub use exec::{Ended, Executor, HASH_EMBED_MODEL, check_schema};
pub use run::{Config, Stop, Summary, WorkerError, run};
pub use spool::SpoolError;

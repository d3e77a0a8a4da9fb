//! What a worker keeps on disk: who it is, the results that the router has not acknowledged, and what it was executing.

mod dir;
mod log;
mod store;

use dir::WorkerDir;
pub(crate) use dir::random;
use log::{Entry, Log};
pub(crate) use store::{Recovered, Spool};

use std::io;
use std::path::PathBuf;

/// Why a worker's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process holds the lock.
    #[error("{path} is in use by another sheaf worker; stop it, or choose another directory with --data")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It is there and is not what this program writes.
    #[error(
        "{path} is damaged: move the directory away to start as a new worker; results in it that were never sent are executed again elsewhere"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {act} {path}: {error}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl SpoolError {
    /// True when there is no room: that passes.
    pub fn is_full(&self) -> bool {
        match self {
            SpoolError::Io { error, .. } => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            SpoolError::InUse { .. } | SpoolError::Damaged { .. } => false,
        }
    }
}

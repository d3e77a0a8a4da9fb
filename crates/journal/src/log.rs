//! The seam: what a shard asks of its log, whoever keeps it. The file journal is one; the simulator's disks go under it.
//! A replicated log (a NATS JetStream stream, three replicas, synced before it acknowledges, the expected last sequence
//! as fence) comes later behind the same five calls; so `append` here is durable when it returns, and may end unknown.
//!
//! Group commit, compaction and reading by number are the file journal's own, beside this trait.

use crate::disk::{Disk, DiskError};
use crate::journal::{AppendError, Class, CommitError, Entry, Journal};
use crate::number::{Epoch, Lsn};
use crate::replay::Visit;

/// Who wants to write: a process of a shard's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(pub [u8; 16]);

/// Why a log did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Another owner has taken a later epoch.
    #[error("another owner has taken the log")]
    Fenced,
    /// The log ends elsewhere than the writer believes: here.
    #[error("the log ends at {0}")]
    WrongTail(Lsn),
    /// The batch may be in or not: take the log anew and read its tail.
    #[error("the log did not say whether the batch is in")]
    Unknown,
    /// Refused, for now.
    #[error("the log is full")]
    Full,
    /// The batch can never be taken.
    #[error("a record or batch of {bytes} bytes is too long for the log")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nothing could be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A shard's log.
pub trait Log {
    /// Takes the log: earlier owners are fenced from now on.
    fn acquire(&mut self, owner: Owner) -> Result<Epoch, LogError>;

    /// Appends a batch behind `expect` and makes it durable; returns the number of its last record.
    fn append(&mut self, epoch: Epoch, expect: Lsn, batch: &[Entry<&[u8]>]) -> Result<Lsn, LogError>;

    /// The last record.
    fn tail(&self) -> Lsn;

    /// Shows records from `from` on, in order; returns where to go on, `None` at the end.
    fn read(&self, from: Lsn, visit: &mut Visit<'_>) -> Result<Option<Lsn>, LogError>;

    /// Everything up to this record may go.
    fn trim(&mut self, upto: Lsn) -> Result<(), LogError>;
}

/// Payload bytes shown by one `read`.
const READ_BYTES: usize = 1 << 20;

impl<D: Disk> Log for Journal<D> {
    /// The process that opened the journal holds its lock, so opening was the taking: another owner must open it itself.
    fn acquire(&mut self, _owner: Owner) -> Result<Epoch, LogError> {
        Ok(self.epoch())
    }

    fn append(&mut self, epoch: Epoch, expect: Lsn, batch: &[Entry<&[u8]>]) -> Result<Lsn, LogError> {
        if epoch != self.epoch() {
            return Err(LogError::Fenced);
        }
        if expect != self.last() {
            return Err(LogError::WrongTail(self.last()));
        }
        Self::append(self, Class::Intake, batch)?;
        Ok(self.commit()?.durable)
    }

    fn tail(&self) -> Lsn {
        self.last()
    }

    fn read(&self, from: Lsn, visit: &mut Visit<'_>) -> Result<Option<Lsn>, LogError> {
        Ok(self.replay_slice(from, READ_BYTES, visit)?)
    }

    fn trim(&mut self, upto: Lsn) -> Result<(), LogError> {
        Self::trim(self, upto)?;
        Ok(())
    }
}

impl From<AppendError> for LogError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full => Self::Full,
            AppendError::TooLong { bytes } => Self::TooLong { bytes },
            AppendError::Disk(_) | AppendError::Poisoned => Self::Unknown,
        }
    }
}

impl From<CommitError> for LogError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Disk(_) | CommitError::Poisoned => Self::Unknown,
        }
    }
}

//! Records on a disk: framing, group commit, recovery, compaction, and the index of finished keys. Pure but for its disk.
//!
//! A journal is a row of segment files. Records go in in batches ([`Journal::append`]), are durable after
//! [`Journal::commit`], are shown again in order by [`Journal::replay`], and are read one by one, for life, by the
//! number that they got ([`read_record`]). What a record means is its owner's business: this crate knows no tasks.
//!
//! It deliberately knows no file system (a [`Disk`] is handed in), no lock (one process per directory is the shell's
//! duty), no thread and no clock.
//!
//! Invariants:
//! - What a commit confirmed is found again, in order, whatever of the unsynced rest a crash kept.
//! - Wrong bytes are never returned: every read is checked, position and identity are inside the checksum.
//! - A segment's file name exists only once every record before its first is durable.
//! - After an error of a sync nothing is written any more: the journal is poisoned.
//! - Numbers ([`Lsn`]) of a caller's records are dense: a batch of n gets the n numbers after the last one.

mod compact;
mod config;
mod disk;
mod frame;
mod group;
pub mod index;
mod journal;
mod log;
mod map;
mod name;
mod number;
mod read;
mod recover;
mod replay;
mod scan;
mod space;
mod survey;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod view;
mod writer;

pub use compact::{CompactError, Keep, Progress};
pub use config::Config;
#[cfg(any(test, feature = "mutations"))]
pub use config::Mutation;
pub use disk::{Disk, DiskError, DiskErrorKind, FileInfo};
pub use frame::{FRAME_EXTRA_MAX, KIND_MAX, RECORD_MAX};
pub use journal::{AppendError, Class, CommitError, Entry, Journal, SegmentInfo};
pub use log::{Log, LogError, Owner};
pub use map::{Committed, Map, Mark};
pub use name::{SegmentId, SegmentName};
pub use number::{Epoch, Lsn};
pub use read::{ReadError, Record, read_many, read_record};
pub use recover::OpenError;
pub use replay::Visit;
pub use survey::{Quarantined, Report, Torn};
pub use view::SegmentView;

//! Checks a data directory without a router: opens its journal and reads every record.

use std::path::Path;

use sheaf_journal::Journal;

use crate::datadir::DataDir;
use crate::disk::FileDisk;
use crate::restore::RestoreError;
use crate::server::StartError;

/// What a check found.
#[derive(Clone, Debug)]
pub struct Check {
    /// Whole records.
    pub records: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Epoch that the check itself took.
    pub epoch: u32,
    /// Each damaged place, named.
    pub damaged: Vec<String>,
}

/// Opens the directory as a router would (so none may be running on it) and reads all of it.
///
/// # Errors
/// It is in use, or cannot be read at all.
pub fn check(data: &Path) -> Result<Check, StartError> {
    let dir = DataDir::open(data)?;
    let opened = Journal::open(FileDisk::new(dir.journal()), sheaf_journal::Config::default());
    let (journal, report) = opened.map_err(RestoreError::from)?;
    let mut records = 0;
    journal.replay(sheaf_journal::Lsn(1), &mut |_, _, _, _| records += 1).map_err(RestoreError::from)?;
    let damaged = report.quarantined.iter().map(ToString::to_string);
    Ok(Check {
        records,
        bytes: report.bytes,
        segments: report.segments,
        epoch: report.epoch.0,
        damaged: damaged.collect(),
    })
}

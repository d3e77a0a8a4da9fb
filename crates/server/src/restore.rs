//! From what is on disk to a router that goes on where the last one stopped.

use bytes::Bytes;
use sheaf_journal::{DiskError, Journal, OpenError, Report};
use sheaf_roles::router::{Config, Lsn, Record, RecordError, Router};
use sheaf_session::Micros;
use sheaf_task::RouterId;

use crate::disk::FileDisk;
use crate::finished::Finished;
use crate::indexer;

/// Why a journal cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be opened.
    #[error("cannot open the journal: {0}")]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error("cannot read the journal: {0}")]
    Read(#[from] DiskError),
    /// A whole record means nothing to this version.
    #[error("record {} of the journal is of a version that this program does not know ({error}): run the version that wrote it", lsn.0)]
    Record {
        /// Which.
        lsn: Lsn,
        /// What is wrong with it.
        error: RecordError,
    },
}

/// A router as it was when the last record was written, and the journal it goes on with.
pub(crate) struct Restored {
    pub router: Router,
    pub finished: Finished,
    /// The index has everything up to here.
    pub indexed: Lsn,
    pub journal: Journal<FileDisk>,
    pub next: Lsn,
}

/// Opens the journal in segments of this size, and its index, and replays it.
pub(crate) fn restore(
    disk: FileDisk,
    id: RouterId,
    grace: Micros,
    seed: u64,
    segment_bytes: u32,
) -> Result<Restored, RestoreError> {
    let (journal, report) = Journal::open(disk, sheaf_journal::Config { segment_bytes, ..Default::default() })?;
    say(&report);
    let (finished, indexed) = indexer::open(&journal)?;
    let epoch = u64::from(journal.epoch().0);
    let mut router = Router::new(Config {
        router: id,
        epoch,
        seed,
        grace,
        sealed: indexed,
        generation: finished.generation(),
        limits: sheaf_roles::router::Limits::default(),
    });
    let mut failed = None;
    journal.replay(sheaf_journal::Lsn(1), &mut |lsn, _, kind, payload| {
        let lsn = Lsn(lsn.0);
        match Record::decode(kind, Bytes::copy_from_slice(payload)) {
            Ok(record) => {
                if !router.replay(lsn, &record) {
                    tracing::error!(lsn = lsn.0, "a record names a job whose own record is lost: it is left out");
                }
            }
            Err(error) => failed = failed.take().or(Some(RestoreError::Record { lsn, error })),
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Restored { router, finished, indexed, next: Lsn(report.next.0), journal }),
    }
}

/// What was lost is said loudly; what is normal after a crash is not.
fn say(report: &Report) {
    for bad in &report.quarantined {
        tracing::error!(
            file = bad.file, offset = bad.offset, lost = ?bad.lsns, "damaged records in the journal: the rest is served"
        );
    }
    if let Some(torn) = &report.torn {
        tracing::debug!(file = torn.file, offset = torn.offset, "cut a torn tail: nothing of it was acknowledged");
    }
    tracing::info!(
        epoch = report.epoch.0,
        records = report.records,
        bytes = report.bytes,
        segments = report.segments,
        "journal open"
    );
}

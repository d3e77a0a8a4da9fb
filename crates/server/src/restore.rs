//! From what is on disk to a router that goes on where the last one stopped.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use sheaf_journal::{DiskError, Epoch, Journal, OpenError, Report};
use sheaf_roles::router::{Config, Lsn, Record, RecordError, Router, kind};
use sheaf_session::Micros;
use sheaf_task::RouterId;

use crate::disk::FileDisk;
use crate::finished::Finished;
use crate::indexer;
use crate::limits::RESERVE_BYTES;

/// Why a journal cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be opened.
    #[error("cannot open the journal: {0}")]
    Open(OpenError),
    /// It cannot be read.
    #[error("cannot read the journal: {0}")]
    Read(DiskError),
    /// A whole record means nothing to this version.
    #[error("record {} of the journal is of a version that this program does not know ({error}): run the version that wrote it", lsn.0)]
    Record {
        /// Which.
        lsn: Lsn,
        /// What is wrong with it.
        error: RecordError,
    },
    /// No thread to read it with.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

// Not their sources: whoever shows an error with what caused it would say the same twice.
impl From<OpenError> for RestoreError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<DiskError> for RestoreError {
    fn from(error: DiskError) -> Self {
        Self::Read(error)
    }
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
    let epoch_min = Epoch(seconds_since_2026());
    let config = sheaf_journal::Config { segment_bytes, reserve_bytes: RESERVE_BYTES, epoch_min, ..Default::default() };
    let (journal, report) = Journal::open(disk, config)?;
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
    router.expect(open_tasks(&report));
    replay(&journal, &mut router)?;
    Ok(Restored { router, finished, indexed, next: Lsn(report.next.0), journal })
}

/// About how many tasks will be open, by what the journal holds. Too few where an end is kept longer than its beginning, and
/// where one task ended for several rows; then the table grows as it would have.
fn open_tasks(report: &Report) -> usize {
    let of = |kind| report.kinds.get(&kind).copied().unwrap_or(0);
    let begun = of(kind::SUBMITTED) + of(kind::RETRIED);
    begun.saturating_sub(of(kind::FINISHED) + of(kind::WITHDRAWN)) as usize
}

/// The least epoch of this start. A directory that is put back from an old copy does not know which epochs it has had;
/// workers that hold attempts of those do. A clock that is wrong takes nothing away: the epoch still grows from start to
/// start. Counted from 2026, for a small number is a short one.
fn seconds_since_2026() -> u32 {
    const UNIX_2026: u64 = 1_767_225_600;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|now| now.as_secs().saturating_sub(UNIX_2026));
    match now.map(u32::try_from) {
        Ok(Ok(seconds)) if seconds > 0 => seconds,
        Ok(_) | Err(_) => {
            tracing::warn!(
                "the clock is far off: a router on an old copy of its data could take an epoch twice; set the clock"
            );
            0
        }
    }
}

/// Records that are decoded while the ones before them are applied.
struct Batch {
    /// Number, kind and end in `payloads` of each.
    marks: Vec<(Lsn, u8, usize)>,
    /// One behind the other: bodies of new tasks are slices of it, so that they cost no memory of their own.
    payloads: BytesMut,
}

/// Payload bytes of a batch, or a little more.
const BATCH_BYTES: usize = 256 << 10;
/// Room for them and for one record more, unless it is long.
const BATCH_ROOM: usize = BATCH_BYTES + (16 << 10);
/// Batches under way. Full: the reader waits.
const BATCHES: usize = 4;

/// Shows the machine every record: one thread reads, checks and decodes, this one applies, for either is slow on millions.
fn replay(journal: &Journal<FileDisk>, router: &mut Router) -> Result<(), RestoreError> {
    let (give, take) = sync_channel(BATCHES);
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("sheaf-restore".into());
        let read = reader.spawn_scoped(scope, move || read_all(journal, &give)).map_err(RestoreError::Thread)?;
        for records in take {
            router.prefetch(&records);
            for (lsn, record) in &records {
                if !router.replay(*lsn, record) {
                    tracing::debug!(lsn = lsn.0, "a record names a job that left, or whose own record is damaged");
                }
            }
        }
        read.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn read_all(journal: &Journal<FileDisk>, give: &SyncSender<Vec<(Lsn, Record)>>) -> Result<(), RestoreError> {
    let mut batch = Batch { marks: Vec::new(), payloads: BytesMut::new() };
    let mut failed = None;
    let mut flush = |batch: &mut Batch| match batch.decode() {
        Ok(records) => give.send(records).unwrap_or_else(|_| tracing::debug!("nobody takes the records any more")),
        Err(error) => failed = failed.take().or(Some(error)),
    };
    journal.replay(sheaf_journal::Lsn(1), &mut |lsn, _, kind, payload| {
        batch.payloads.extend_from_slice(payload);
        batch.marks.push((Lsn(lsn.0), kind, batch.payloads.len()));
        if batch.payloads.len() >= BATCH_BYTES {
            flush(&mut batch);
        }
    })?;
    flush(&mut batch);
    failed.map_or(Ok(()), Err)
}

impl Batch {
    /// Takes the records out.
    fn decode(&mut self) -> Result<Vec<(Lsn, Record)>, RestoreError> {
        // Memory of its own: both threads would count the same references.
        let payloads = std::mem::replace(&mut self.payloads, BytesMut::with_capacity(BATCH_ROOM)).freeze();
        let mut start = 0;
        let decode = |(lsn, kind_no, end)| {
            let payload = payloads.slice(start..end);
            start = end;
            // The machine keeps parts of others, each of which would keep the whole batch in memory.
            let is_dropped = kind_no == kind::SUBMITTED;
            let payload = if is_dropped { payload } else { Bytes::copy_from_slice(&payload) };
            let record = Record::decode(kind_no, payload).map_err(|error| RestoreError::Record { lsn, error })?;
            Ok((lsn, record))
        };
        self.marks.drain(..).map(decode).collect()
    }
}

/// What was lost is said loudly; what is normal after a crash is not.
fn say(report: &Report) {
    for bad in &report.quarantined {
        if bad.is_mended() {
            tracing::warn!(file = bad.file, offset = bad.offset, "a wrong bit in the journal: nothing is lost");
            continue;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_ended_is_open() {
        let kinds = [(kind::OPENED, 3), (kind::SUBMITTED, 100), (kind::FINISHED, 60), (kind::WITHDRAWN, 7)];
        let report =
            |more: &[(u8, u64)]| Report { kinds: kinds.iter().chain(more).copied().collect(), ..Report::default() };
        assert_eq!(open_tasks(&report(&[])), 33);
        assert_eq!(open_tasks(&report(&[(kind::RETRIED, 5)])), 38);
        // Ends are kept longer than what they end.
        assert_eq!(open_tasks(&report(&[(kind::FINISHED, 1_000)])), 0);
    }
}

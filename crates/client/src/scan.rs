//! The thread that reads the source: names rows, leaves out those that are finished, hands the rest on in batches.
//!
//! It blocks while nobody takes its batches, so memory is bounded by [`BATCHES`] of them.

use std::thread::{self, JoinHandle};

use sheaf_task::{BATCH_BYTES_AIM, BATCH_ROWS_MAX};
use tokio::sync::mpsc;

use crate::reconcile::{Kept, ReconcileError};
use crate::rows::{NamedRow, Namer};
use crate::source::Source;

/// Batches between the scanner and the driver; when full, the scanner waits.
pub(crate) const BATCHES: usize = 4;

/// What the scanner says. After `End` or `Failed` it says nothing.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// Some rows were read.
    Rows {
        /// Those that are to be worked on, malformed ones among them.
        rows: Vec<NamedRow>,
        /// Rows that are in the sink.
        kept: u64,
        /// Of those: without an answer.
        kept_failed: u64,
    },
    /// There is no more; or no more is wanted, and then `whole` is false.
    End {
        /// The source was read to its end.
        whole: bool,
    },
    /// The source cannot be read further.
    Failed(ReconcileError),
}

/// A scan under way.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// What it says.
    pub(crate) batches: mpsc::Receiver<Scanned>,
    thread: JoinHandle<Kept>,
}

impl Scanner {
    /// Begins a scan. `limit`: rows that are taken at most, finished ones included.
    pub(crate) fn start(
        source: Box<dyn Source>,
        namer: Namer,
        kept: Kept,
        limit: Option<u64>,
    ) -> std::io::Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES);
        let thread = thread::Builder::new().name("scan".into()).spawn(move || {
            let mut scan = Scan { source, namer, kept: &kept, left: limit.unwrap_or(u64::MAX), sender };
            let last = match scan.run() {
                Ok(Some(whole)) => Some(Scanned::End { whole }),
                Ok(None) => None,
                Err(error) => Some(Scanned::Failed(error)),
            };
            if let Some(last) = last {
                // A driver that is gone wants to hear nothing.
                drop(scan.sender.blocking_send(last));
            }
            kept
        })?;
        Ok(Self { batches, thread })
    }

    /// Ends the scan, wherever it is, and waits for its thread.
    pub(crate) fn stop(self) {
        drop(self.batches);
        if self.thread.join().is_err() {
            tracing::error!("the scanning thread panicked");
        }
    }
}

struct Scan<'a> {
    source: Box<dyn Source>,
    namer: Namer,
    kept: &'a Kept,
    left: u64,
    sender: mpsc::Sender<Scanned>,
}

impl Scan<'_> {
    /// Reads to the end (or the limit): whether it was the end. `None` when the driver is gone.
    fn run(&mut self) -> Result<Option<bool>, ReconcileError> {
        let mut read = Vec::new();
        loop {
            let rows_max = usize::try_from(self.left).unwrap_or(usize::MAX).min(BATCH_ROWS_MAX);
            // One row more tells the limit from the end.
            self.source.next_batch(rows_max.max(1), BATCH_BYTES_AIM, &mut read)?;
            if read.is_empty() {
                return Ok(Some(true));
            }
            if self.left == 0 {
                return Ok(Some(false));
            }
            self.left -= read.len() as u64;
            let (mut rows, mut kept, mut kept_failed) = (Vec::with_capacity(read.len()), 0, 0);
            for row in read.drain(..) {
                let row =
                    self.namer.name(row, |name| self.kept.names.contains(&name)).map_err(ReconcileError::Samples)?;
                if self.kept.names.contains(&row.name) {
                    kept += 1;
                    kept_failed += u64::from(self.kept.failed.contains_key(&row.name));
                } else {
                    rows.push(row);
                }
            }
            if self.sender.blocking_send(Scanned::Rows { rows, kept, kept_failed }).is_err() {
                return Ok(None);
            }
        }
    }
}

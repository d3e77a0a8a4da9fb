//! The thread that reads the source: names rows, leaves out those that are finished, hands the rest on when asked.

use std::io;
use std::thread::{self, JoinHandle};

use sheaf_task::RowId;
use tokio::sync::mpsc;

use crate::reconcile::{Kept, ReconcileError};
use crate::rows::{NamedRow, Namer};
use crate::source::{Source, SourceId};

/// Requests that may be on their way at once.
pub(crate) const REQUESTS: usize = 8;

/// What the scanner is asked.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// For the next rows, at most so many and about so many bytes.
    Read { rows: usize, bytes: usize },
    /// To begin again with the first row.
    Rewind,
}

/// What the scanner answers to a request for rows.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// These were read.
    Rows(Page),
    /// There is no more; or no more is wanted, and then `whole` is false.
    End {
        /// The source was read to its end.
        whole: bool,
    },
    /// The source cannot be read further.
    Failed(ReconcileError),
}

/// Rows that were read.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Those that are to be worked on, malformed ones among them.
    pub(crate) rows: Vec<NamedRow>,
    /// How many are in the sink.
    pub(crate) kept: u64,
    /// Those in the sink without an answer, with their numbers.
    pub(crate) kept_failed: Vec<(RowId, u64)>,
    /// The ids of those to be worked on, and of those without an answer, by ascending number.
    pub(crate) ids: Vec<(u64, SourceId)>,
}

/// A scan under way.
#[derive(Debug)]
pub(crate) struct Scanner {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Scanned>,
    thread: JoinHandle<()>,
}

impl Scanner {
    /// Begins a scan. `limit`: rows that are taken at most, finished ones included.
    pub(crate) fn start(source: Box<dyn Source>, namer: Namer, kept: Kept, limit: Option<u64>) -> io::Result<Self> {
        let (requests, mut asked) = mpsc::channel(REQUESTS);
        let (says, answers) = mpsc::channel(REQUESTS);
        let limit = limit.unwrap_or(u64::MAX);
        let mut scan = Scan { source, namer, kept, limit, left: limit };
        let thread = thread::Builder::new().name("scan".into()).spawn(move || {
            while let Some(request) = asked.blocking_recv() {
                let answer = match request {
                    Request::Read { rows, bytes } => scan.read(rows, bytes).unwrap_or_else(Scanned::Failed),
                    Request::Rewind => match scan.rewind() {
                        Ok(()) => continue,
                        Err(error) => Scanned::Failed(error),
                    },
                };
                if says.blocking_send(answer).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, answers, thread })
    }

    /// Asks for the next rows; at most [`REQUESTS`] may be unanswered. False when the thread is gone.
    pub(crate) fn read(&self, rows: usize, bytes: usize) -> bool {
        self.requests.try_send(Request::Read { rows, bytes }).is_ok()
    }

    /// Asks to begin again; answered only if that fails.
    pub(crate) fn rewind(&self) -> bool {
        self.requests.try_send(Request::Rewind).is_ok()
    }

    /// The next answer; `None` when the thread is gone. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> Option<Scanned> {
        self.answers.recv().await
    }

    /// Ends the scan, wherever it is, and waits for its thread. Blocks.
    pub(crate) fn stop(self) {
        drop((self.requests, self.answers));
        if self.thread.join().is_err() {
            tracing::error!("the scanning thread panicked");
        }
    }
}

struct Scan {
    source: Box<dyn Source>,
    namer: Namer,
    kept: Kept,
    limit: u64,
    left: u64,
}

impl Scan {
    fn rewind(&mut self) -> Result<(), ReconcileError> {
        self.source.rewind()?;
        self.namer.rewind();
        self.left = self.limit;
        Ok(())
    }

    fn read(&mut self, rows_max: usize, bytes_max: usize) -> Result<Scanned, ReconcileError> {
        let rows_max = usize::try_from(self.left).unwrap_or(usize::MAX).min(rows_max);
        let mut read = Vec::with_capacity(rows_max.min(sheaf_task::BATCH_ROWS_MAX));
        // At the limit one row more is read: only that tells the limit from the end.
        self.source.next_batch(rows_max.max(1), bytes_max, &mut read)?;
        if read.is_empty() || self.left == 0 {
            return Ok(Scanned::End { whole: read.is_empty() });
        }
        self.left -= read.len() as u64;
        let mut page = Page::default();
        for row in read {
            let kept = &self.kept.names;
            let row = self.namer.name(row, |name| kept.contains_key(&name)).map_err(ReconcileError::Samples)?;
            let answered = kept.get(&row.name).copied();
            page.kept += u64::from(answered.is_some());
            if answered == Some(true) {
                continue;
            }
            if let Some(id) = &row.id {
                page.ids.push((row.number, id.clone()));
            }
            match answered {
                Some(_) => page.kept_failed.push((row.name, row.number)),
                None => page.rows.push(row),
            }
        }
        Ok(Scanned::Rows(page))
    }
}

//! The thread that owns the sink: takes batches, commits whatever has gathered in one act, says so. After a commit of few
//! rows it lets more gather: where programs end one by one, a sync for each row would cost as much as a small program.

use std::collections::VecDeque;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::sink::{Cursor, Sink, SinkError, SinkRow};

/// Batches handed over and not yet durable, at most; the driver takes no more deliveries while so many are.
pub(crate) const BATCHES: usize = 16;

/// Rows that are committed in one act, but for the last batch of them.
const COMMIT_ROWS: usize = 4_096;

/// A commit of fewer rows than this is followed by a pause.
const FEW_ROWS: usize = 64;

/// How long rows gather then. Nobody waits for them: a worker has its next task long before.
const PAUSE: Duration = Duration::from_millis(20);

/// Rows for the sink, with the cursor that they and all before them stand for; `None` leaves it where it is.
pub(crate) type Batch = (Vec<SinkRow>, Option<Cursor>);

/// The sink, on its own thread.
#[derive(Debug)]
pub(crate) struct Writer<T> {
    sender: mpsc::Sender<Batch>,
    /// How many batches more are durable. Closed when a commit has failed.
    durable: mpsc::Receiver<usize>,
    thread: JoinHandle<Written>,
    /// What the driver wants to be reminded of when a batch is durable, in order.
    waiting: VecDeque<T>,
}

type Written = (Box<dyn Sink>, Result<(), SinkError>);

impl<T> Writer<T> {
    pub(crate) fn start(mut sink: Box<dyn Sink>) -> io::Result<Self> {
        let (sender, mut batches) = mpsc::channel::<Batch>(BATCHES);
        let (says, durable) = mpsc::channel(BATCHES);
        let thread = thread::Builder::new().name("sink".into()).spawn(move || {
            while let Some(first) = batches.blocking_recv() {
                let (count, (rows, cursor)) = gather(first, &mut batches);
                if let Err(error) = sink.commit(&rows, cursor) {
                    return (sink, Err(error));
                }
                if says.blocking_send(count).is_err() {
                    // It still wants what it handed over to be written.
                    tracing::debug!("the driver has stopped listening to the writer");
                }
                if rows.len() < FEW_ROWS && !batches.is_closed() {
                    // Cut short when there will be no more.
                    thread::park_timeout(PAUSE);
                }
            }
            (sink, Ok(()))
        })?;
        Ok(Self { sender, durable, thread, waiting: VecDeque::new() })
    }

    /// True if a batch may be handed over.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < BATCHES
    }

    /// Hands a batch over, with what is to be remembered until it is durable. False if a commit has failed.
    ///
    /// # Panics
    /// Without room.
    pub(crate) fn push(&mut self, batch: Batch, reminder: T) -> bool {
        assert!(self.has_room(), "the driver looks for room first");
        // Room here is room in the channel: it holds at most what is waiting.
        let sent = self.sender.try_send(batch).is_ok();
        self.waiting.push_back(reminder);
        sent
    }

    /// Waits until more is durable, and returns what was to be remembered of it; `None` when a commit has failed.
    /// Cancel-safe.
    pub(crate) async fn durable(&mut self) -> Option<Vec<T>> {
        let count = self.durable.recv().await?;
        Some(self.waiting.drain(..count).collect())
    }

    /// Commits what was handed over, ends the thread and gives the sink back. Blocks.
    pub(crate) fn stop(self) -> Result<Box<dyn Sink>, WriterError> {
        drop((self.sender, self.durable));
        self.thread.thread().unpark();
        let (sink, written) = self.thread.join().map_err(|_| WriterError::Panicked)?;
        written.map(|()| sink).map_err(WriterError::Sink)
    }
}

/// Why the writer ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriterError {
    #[error(transparent)]
    Sink(SinkError),
    #[error("the thread that writes results panicked; the same command resumes")]
    Panicked,
}

/// Adds whatever else has been handed over.
fn gather(first: Batch, batches: &mut mpsc::Receiver<Batch>) -> (usize, Batch) {
    let (mut rows, mut cursor) = first;
    let mut count = 1;
    while rows.len() < COMMIT_ROWS {
        let Ok((more, later)) = batches.try_recv() else { break };
        rows.extend(more);
        cursor = later.or(cursor);
        count += 1;
    }
    (count, (rows, cursor))
}

//! A batch that is not over: its state, which is on disk before anybody sees it, and how far its jobs are.

use std::io;

use tokio::sync::{Mutex, watch};

use super::jobs::Gauges;
use super::machine::{Event, TooLate};
use super::place::Place;
use super::record::{Batch, Counts, Status};
use crate::disk::unix_now;

/// A batch that is not over.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) place: Place,
    pub(super) gauges: Gauges,
    /// One change at a time; whoever only looks, looks at `seen`.
    changing: Mutex<()>,
    seen: watch::Sender<Batch>,
}

impl Live {
    pub(super) fn new(place: Place, batch: Batch) -> Self {
        Self { place, gauges: Gauges::default(), changing: Mutex::new(()), seen: watch::Sender::new(batch) }
    }

    /// As it is now, and durable.
    pub(super) fn batch(&self) -> Batch {
        self.seen.borrow().clone()
    }

    pub(super) fn status(&self) -> Status {
        self.seen.borrow().status
    }

    /// Lines that are done by now.
    pub(super) fn counts(&self) -> Counts {
        let batch = self.seen.borrow();
        match batch.status {
            Status::InProgress | Status::Finalizing | Status::Cancelling => self.gauges.counts(batch.counts.total),
            Status::Validating | Status::Failed | Status::Completed | Status::Expired | Status::Cancelled => {
                batch.counts
            }
        }
    }

    /// Takes an event. What it changed is durable on return; where the disk says no, nothing is changed.
    pub(super) async fn handle(&self, event: Event) -> io::Result<Result<Batch, TooLate>> {
        let _turn = self.changing.lock().await;
        let mut batch = self.batch();
        if let Err(too_late) = batch.handle(event, unix_now().as_secs()) {
            return Ok(Err(too_late));
        }
        if batch != *self.seen.borrow() {
            let (place, changed) = (self.place.clone(), batch.clone());
            tokio::task::spawn_blocking(move || place.store(&changed)).await.map_err(io::Error::other)??;
            self.seen.send_replace(batch.clone());
        }
        Ok(Ok(batch))
    }

    /// Waits until it is not there any more.
    pub(super) async fn left(&self, status: Status) {
        let mut seen = self.seen.subscribe();
        // The sender is here, and lives.
        if seen.wait_for(|batch| batch.status != status).await.is_err() {
            tracing::error!("a batch is watched that is gone");
        }
    }
}

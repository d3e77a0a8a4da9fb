//! A batch that is not over: its state, which is on disk before anybody sees it, and how far its jobs are.

use std::io;
use std::sync::{Mutex as Lock, PoisonError};

use tokio::sync::{Mutex, watch};

use super::jobs::Gauges;
use super::machine::{Event, TooLate};
use super::place::Place;
use super::record::{Batch, Counts, Status};
use crate::disk::unix_now;
use crate::files::{Held, HeldInput, Store};

/// A batch that is not over.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) place: Place,
    pub(super) gauges: Gauges,
    /// One change at a time; whoever only looks, looks at `seen`.
    changing: Mutex<()>,
    seen: watch::Sender<Batch>,
    /// What it takes of what its app may have: its input, until it is over, and the copy of that which several models need,
    /// until it is known that it needs none.
    _input: Option<HeldInput>,
    copy: Lock<Option<Held>>,
}

/// Whether there is a copy of its input, or may be one before this is known.
fn may_have_copy(batch: &Batch) -> bool {
    batch.status == Status::Validating || batch.parts.len() > 1
}

impl Live {
    /// Of a batch whose input has so many bytes.
    pub(super) fn new(place: Place, batch: Batch, input_bytes: u64, store: &Store) -> Self {
        let copy = may_have_copy(&batch).then(|| store.hold(&batch.app, input_bytes));
        Self {
            place,
            gauges: Gauges::default(),
            changing: Mutex::new(()),
            _input: store.hold_input(&batch.app, &batch.asked.input_file_id, input_bytes),
            copy: Lock::new(copy),
            seen: watch::Sender::new(batch),
        }
    }

    /// As it is now, and durable.
    pub(super) fn batch(&self) -> Batch {
        self.seen.borrow().clone()
    }

    pub(super) fn status(&self) -> Status {
        self.seen.borrow().status
    }

    /// Lines that are done by now of the batch, which was as it is here a moment ago: looked at again it may be over.
    pub(super) fn counts(&self, batch: &Batch) -> Counts {
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
            if !may_have_copy(&batch) {
                drop(self.copy.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::record::Part;
    use super::*;
    use crate::disk::new_id;

    #[tokio::test]
    async fn the_input_counts_till_the_end_and_twice_where_it_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_owned(), 10_000).unwrap();
        let left = || (0..).find(|left| store.too_many("", left + 1).is_some()).unwrap();
        let part = || Part { service: "m".into(), encoding: None };
        for (parts, bytes_left) in [(vec![part()], 8_000), (vec![part(), part()], 6_000)] {
            let batch: Batch = serde_json::from_value(json!({
                "id": new_id("batch_", unix_now()).unwrap(), "app": "",
                "asked": {"endpoint": "", "input_file_id": new_id("file-", unix_now()).unwrap(), "completion_window": ""},
                "status": "validating", "times": {"created_at": 1, "expires_at": 2}, "ending": "complete", "parts": [],
                "counts": {"total": 0, "completed": 0, "failed": 0}, "errors": [],
                "names": {"output": "", "error": ""}, "has_output": false, "has_errors": false,
            }))
            .unwrap();
            std::fs::create_dir_all(dir.path().join("batches/@").join(&batch.id)).unwrap();
            let place = Place::of(dir.path(), "", &batch.id).unwrap();
            let live = Live::new(place.clone(), batch, 2_000, &store);
            assert_eq!(left(), 6_000, "nobody knows yet how many models it has");
            let batch = live.handle(Event::Valid { parts, lines: 1 }).await.unwrap().unwrap();
            assert_eq!(left(), bytes_left);
            drop(live);
            assert_eq!(left(), 10_000);
            let live = Live::new(place, batch, 2_000, &store);
            assert_eq!(left(), bytes_left, "another process counts the same");
            drop(live);
        }
    }
}

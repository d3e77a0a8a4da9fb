//! The spool in time: when it is written, when it is synced, and what happens while its disk is full.

use std::io;

use sheaf_session::{Micros, Record, Ticket};
use sheaf_task::Fence;
use tokio::task::JoinHandle;

use crate::spool::{Spool, SpoolError};

/// Results that the router has not acknowledged by then are synced.
const SYNC_AFTER: Micros = Micros::from_secs(1);
/// When a full disk is tried again.
const FULL_RETRY: Micros = Micros::from_secs(1);

/// The spool and its timers.
pub(crate) struct Disk {
    spool: Spool,
    /// The last record pushed and not yet written.
    ticket: Option<Ticket>,
    unsynced_since: Option<Micros>,
    /// The disk is full, and is tried again then.
    full_until: Option<Micros>,
    syncing: Option<JoinHandle<io::Result<()>>>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// There was nothing to write, or it waits for room.
    Nothing,
    /// All is written: records up to this one, if there were any.
    All {
        ticket: Option<Ticket>,
        /// After a time without room.
        has_room_again: bool,
    },
    /// There is no room any more.
    Full,
}

impl Disk {
    pub(crate) fn new(spool: Spool) -> Self {
        Self { spool, ticket: None, unsynced_since: None, full_until: None, syncing: None }
    }

    pub(crate) fn on_record(&mut self, ticket: Ticket, record: Record) {
        self.ticket = Some(ticket);
        self.spool.on_record(record);
    }

    pub(crate) fn on_started(&mut self, fences: impl IntoIterator<Item = Fence>) {
        self.spool.on_started(fences);
    }

    pub(crate) fn on_ended(&mut self, fences: impl IntoIterator<Item = Fence>) {
        self.spool.on_ended(fences);
    }

    /// Writes what is pending, unsynced.
    pub(crate) fn write(&mut self, now: Micros) -> Result<Written, SpoolError> {
        if !self.spool.is_pending() || self.full_until.is_some_and(|until| now < until) {
            return Ok(Written::Nothing);
        }
        match self.spool.write() {
            Ok(()) => {
                self.unsynced_since.get_or_insert(now);
                let has_room_again = self.full_until.take().is_some();
                Ok(Written::All { ticket: self.ticket.take(), has_room_again })
            }
            Err(error) if error.is_full() => {
                let was_full = self.full_until.replace(now + FULL_RETRY).is_some();
                if was_full {
                    return Ok(Written::Nothing);
                }
                tracing::error!(%error, "the spool's disk is full: no more tasks are accepted, results wait in memory");
                Ok(Written::Full)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins to sync what was written a while ago, if that is still of use.
    pub(crate) fn on_time(&mut self, now: Micros, is_of_use: bool) -> Result<(), SpoolError> {
        if self.unsynced_since.is_none_or(|since| now < since + SYNC_AFTER) {
            return Ok(());
        }
        self.unsynced_since = None;
        if is_of_use && self.syncing.is_none() {
            let file = self.spool.syncer()?;
            self.syncing = Some(tokio::task::spawn_blocking(move || file.sync_data()));
        }
        Ok(())
    }

    /// When [`Disk::on_time`] or [`Disk::write`] is due.
    pub(crate) fn wake(&self) -> Option<Micros> {
        let sync = self.unsynced_since.map(|since| since + SYNC_AFTER);
        [sync, self.full_until].into_iter().flatten().min()
    }

    /// What should be written waits for room.
    pub(crate) fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    /// Waits for a sync under way; for ever where there is none. May be dropped and called again.
    pub(crate) async fn synced(&mut self) -> io::Result<()> {
        let Some(syncing) = &mut self.syncing else { return std::future::pending().await };
        let synced = syncing.await;
        self.syncing = None;
        synced.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Waits for the last sync.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        if self.syncing.is_some() { self.synced().await } else { Ok(()) }
    }
}

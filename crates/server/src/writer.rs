//! The writer's thread: owns the journal, writes each batch it is given, syncs, says what is durable.
//!
//! Group commit is the core's: whatever arrives while one batch syncs is the next batch. After any error of the disk but
//! a full one the thread ends, and with it the process: a failed sync is never tried again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use sheaf_journal::{AppendError, Class, CommitError, Committed, DiskError, Entry, Journal, SegmentId, SegmentView};
use tokio::sync::mpsc::Sender;

use crate::compaction::{After, Compaction, Verdict};
use crate::disk::FileDisk;
use crate::finished::Finished;
use crate::gauges::{Gauges, Health};
use crate::pulse::Pulse;
use crate::recent::Batch;
use crate::stages::APPENDS;
use crate::store::Store;

/// The disk has failed: the process must stop.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriterError {
    /// Nothing could be written.
    #[error("cannot write the journal: {0}")]
    Append(#[from] AppendError),
    /// An index file could not be made durable.
    #[error("cannot make an index of the journal durable: {0}; stopping, for this disk is no longer to be trusted")]
    Index(DiskError),
    /// The router was to end while there was room neither on the disk nor in the reserve.
    #[error(
        "the disk and the reserve of the journal are full, so what came last could not be written: nothing of it was \
         acknowledged, and whoever sent it will send it again; make room on the disk and start the router again"
    )]
    Full,
    /// Nothing could be made durable.
    #[error(
        "cannot make the journal durable: {0}; stopping, for what the system says of this file is no longer to be trusted"
    )]
    Commit(#[from] CommitError),
}

/// What the core gives the writer.
#[derive(Debug)]
pub(crate) enum Order {
    /// Records to write.
    Append(Append),
    /// What compaction asked.
    Verdict(Verdict),
}

/// Records to write.
#[derive(Debug)]
pub(crate) struct Append {
    pub batch: Batch,
    pub class: Class,
}

/// What the writer tells the core.
#[derive(Debug)]
pub(crate) enum Written {
    /// Every record up to here is on disk.
    Durable(sheaf_journal::Lsn),
    /// The disk is full (true) or has room again.
    Full(bool),
    /// The disk and the reserve are full: nothing is written until there is room, or the core has ended.
    Stuck,
    /// The thread has ended.
    Failed(WriterError),
}

/// Silence after which the end of the journal is marked durable, so that a later damage there is told from a torn tail.
const IDLE: Duration = Duration::from_millis(200);

/// Pause between two looks at a full disk.
const FULL_RETRY: Duration = Duration::from_millis(500);

/// The writer's thread and everything it reaches.
pub(crate) struct Writer {
    pub journal: Journal<FileDisk>,
    pub store: Arc<Store>,
    pub finished: Arc<Finished>,
    pub written: Sender<Written>,
    pub compaction: Compaction,
    pub seals: SyncSender<Vec<SegmentView>>,
    pub pulse: Arc<Pulse>,
    /// The oldest and the active segment when the indexer was last told.
    pub told: (SegmentId, SegmentId),
    pub room: Room,
    pub gauges: Arc<Gauges>,
}

/// What the machine knows of the room on the disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    is_said_full: bool,
    /// The last look at a full disk.
    looked: Option<Instant>,
}

impl Writer {
    /// Runs until the core drops its sender, or the disk fails.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        if let Err(error) = self.serve(orders) {
            tracing::error!(%error, "the journal failed");
            self.tell(Written::Failed(error));
        }
        self.pulse.end();
    }

    fn serve(&mut self, orders: &Receiver<Order>) -> Result<(), WriterError> {
        let mut is_marked = true;
        loop {
            let order = orders.recv_timeout(self.patience(is_marked));
            self.pulse.begin(&APPENDS);
            match order {
                Ok(Order::Append(append)) => {
                    self.write(&append)?;
                    is_marked = false;
                }
                Ok(Order::Verdict(verdict)) => {
                    self.compaction.on_verdict(&mut self.journal, &self.finished, &verdict)?;
                    is_marked = false;
                }
                Err(RecvTimeoutError::Timeout) if is_marked => {}
                Err(RecvTimeoutError::Timeout) => {
                    let committed = self.journal.mark_idle()?;
                    self.store.committed(&committed);
                    is_marked = true;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let committed = self.journal.mark_idle()?;
                    self.store.committed(&committed);
                    return Ok(());
                }
            }
            self.compact()?;
            self.look_for_room()?;
            self.tell_sealed();
            self.pulse.end();
        }
    }

    fn compact(&mut self) -> Result<(), WriterError> {
        while self.compaction.turn(&mut self.journal, &self.finished)? == After::Commit {
            let committed = self.journal.commit()?;
            self.store.committed(&committed);
        }
        Ok(())
    }

    /// The indexer hears of it when a segment is sealed or dropped.
    fn tell_sealed(&mut self) {
        let active = self.journal.active_view().id();
        let now = (self.journal.oldest_sealed().map_or(active, |oldest| oldest.id()), active);
        if now != self.told && self.seals.try_send(self.journal.sealed_views()).is_ok() {
            self.told = now;
        }
    }

    fn patience(&self, is_marked: bool) -> Duration {
        match (is_marked, self.journal.is_full()) {
            (false, _) => IDLE,
            (true, true) => FULL_RETRY,
            (true, false) => self.compaction.patience(),
        }
    }

    /// While the disk is full: looks whether there is room again, however much else there is to do. Says what changed.
    fn look_for_room(&mut self) -> Result<(), WriterError> {
        if self.journal.is_full() && self.room.looked.is_none_or(|at| at.elapsed() >= FULL_RETRY) {
            self.journal.retry_full()?;
            self.room.looked = Some(Instant::now());
        }
        self.say_room(self.journal.is_full());
        Ok(())
    }

    fn say_room(&mut self, is_full: bool) {
        if self.room.is_said_full != is_full {
            self.room.is_said_full = is_full;
            tracing::warn!(is_full, "the disk's room has changed: new rows are taken while it is not full");
            self.tell(Written::Full(is_full));
        }
    }

    fn write(&mut self, append: &Append) -> Result<(), WriterError> {
        let entries: Vec<Entry<&[u8]>> =
            append.batch.records().map(|(kind, payload)| Entry { kind, payload }).collect();
        self.append(append.class, &entries)?;
        self.compaction.on_appended(append.batch.buffer.len());
        let started = Instant::now();
        let committed = self.journal.commit()?;
        self.gauges.note_commit(started.elapsed(), entries.len(), append.batch.buffer.len());
        self.gauges.set_journal_bytes(self.journal.bytes());
        self.confirm(&committed);
        Ok(())
    }

    /// Appends to the reserve what no longer fits: the machine has taken it in already. Where the reserve is full too,
    /// nothing is acknowledged until there is room.
    fn append(&mut self, class: Class, entries: &[Entry<&[u8]>]) -> Result<(), WriterError> {
        let mut outcome = self.journal.append(class, entries);
        if self.journal.is_full() {
            // Before anything is confirmed: what the machine gathers until it hears of it goes into the reserve too.
            self.say_room(true);
        }
        if outcome == Err(AppendError::Full) {
            outcome = self.journal.append(Class::Upkeep, entries);
        }
        if outcome == Err(AppendError::Full) {
            tracing::error!("the disk and the reserve are full: nothing is accepted until there is room");
            self.tell(Written::Stuck);
        }
        while outcome == Err(AppendError::Full) {
            if self.written.is_closed() {
                return Err(WriterError::Full);
            }
            std::thread::park_timeout(FULL_RETRY);
            self.journal.retry_full()?;
            outcome = self.journal.append(Class::Upkeep, entries);
        }
        outcome?;
        if self.gauges.health() == Health::Stuck {
            self.gauges.set_health(Health::Full);
        }
        Ok(())
    }

    fn confirm(&mut self, committed: &Committed) {
        self.store.committed(committed);
        self.tell(Written::Durable(committed.durable));
    }

    fn note(&self, what: &Written) {
        match what {
            Written::Durable(lsn) => self.gauges.set_durable(*lsn),
            Written::Full(true) => self.gauges.set_health(Health::Full),
            Written::Full(false) => self.gauges.set_health(Health::Writable),
            Written::Stuck => self.gauges.set_health(Health::Stuck),
            Written::Failed(_) => self.gauges.set_health(Health::Failed),
        }
    }

    /// The core is gone only when the process ends: then nobody needs to know.
    fn tell(&self, what: Written) {
        self.note(&what);
        if self.written.blocking_send(what).is_err() {
            tracing::debug!("the core has ended before the writer");
        }
    }
}

#[cfg(test)]
mod tests;

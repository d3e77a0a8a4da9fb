//! The writer: owns the journal, writes each batch, syncs, says what is durable. Whoever has it locked is the writer: its
//! thread, which also looks after room, compaction and the mark of an idle end, or the core with a small batch.
//!
//! Group commit is the core's: whatever arrives while one batch syncs is the next batch. After any error of the disk but
//! a full one the thread ends, and with it the process: a failed sync is never tried again.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sheaf_journal::{
    AppendError, Class, CommitError, DiskError, Entry, FRAME_EXTRA_MAX, Journal, SegmentId, SegmentView,
};
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
    /// The core has written something itself, the first after a while: the thread looks after it from now on.
    Wake,
}

/// Records to write.
#[derive(Debug)]
pub(crate) struct Append {
    pub batch: Batch,
    pub class: Class,
}

impl Append {
    fn entries(&self) -> Vec<Entry<&[u8]>> {
        self.batch.records().map(|(kind, payload)| Entry { kind, payload }).collect()
    }
}

/// A batch that was written on the core's own thread.
#[derive(Debug)]
pub(crate) struct AtOnce {
    /// That the disk has become full, perhaps; and what is durable.
    pub written: Vec<Written>,
    /// The thread has nothing to look after until it hears of it.
    pub is_first: bool,
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

/// What the core writes itself is at most so long: with more there is work enough for two threads.
const AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// A disk that took longer for a sync is not waited for on the core's thread, which others share, …
pub(crate) const AT_ONCE_TIME_MAX: Duration = Duration::from_millis(10);
/// … for so many times what it took: no more than a hundredth of the time is spent so, however the disk stalls.
const SLOW_FACTOR: u32 = 100;

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
    /// To be said when the lock is free.
    pub unsaid: Vec<Written>,
    /// When something was written last; `None`: the end of the journal is marked.
    pub unmarked: Option<Instant>,
    /// A sync took longer than `at_once_max`: so long the core does not write by itself.
    pub slow_until: Option<Instant>,
    /// A sync that takes longer is none to wait for on the core's thread; zero: the core never writes by itself.
    pub at_once_max: Duration,
}

/// What the machine knows of the room on the disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    is_said_full: bool,
    /// The last look at a full disk.
    looked: Option<Instant>,
}

/// The writer, for its thread and for the core: whoever has it locked writes. Where one panicked with it, so does the other.
pub(crate) type Shared = Arc<Mutex<Writer>>;

/// The thread: runs until the core drops its sender, or the disk fails.
pub(crate) fn run(writer: &Shared, orders: &Receiver<Order>) {
    let mut patience = Duration::ZERO;
    loop {
        let order = orders.recv_timeout(patience);
        let has_ended = matches!(order, Err(RecvTimeoutError::Disconnected));
        let turn = locked(writer, |writer| writer.obey(order)).and_then(|()| locked(writer, Writer::look_after));
        match turn {
            Ok(_) if has_ended => return,
            Ok(next) => patience = next,
            Err(error) => {
                let written = lock(writer).written.clone();
                return tell(&written, Written::Failed(error));
            }
        }
    }
}

/// Does something with the writer, and says what is to be said when it is free again: who is told goes on writing at once.
fn locked<T>(writer: &Shared, act: impl FnOnce(&mut Writer) -> Result<T, WriterError>) -> Result<T, WriterError> {
    let mut held = lock(writer);
    held.pulse.begin(&APPENDS);
    let outcome = act(&mut held).inspect_err(|error| held.failed(error));
    held.pulse.end();
    let (unsaid, written) = (std::mem::take(&mut held.unsaid), held.written.clone());
    drop(held);
    unsaid.into_iter().for_each(|what| tell(&written, what));
    outcome
}

fn lock(writer: &Shared) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(|poisoned| panic!("the core panicked while it wrote: {poisoned}"))
}

/// The core is gone only when the process ends: then nobody needs to know.
fn tell(written: &Sender<Written>, what: Written) {
    if written.blocking_send(what).is_err() {
        tracing::debug!("the core has ended before the writer");
    }
}

impl Writer {
    /// Does what was ordered, or what silence calls for.
    pub(crate) fn obey(&mut self, order: Result<Order, RecvTimeoutError>) -> Result<(), WriterError> {
        match order {
            Ok(Order::Append(append)) => self.write(&append),
            Ok(Order::Verdict(verdict)) => {
                self.compaction.on_verdict(&mut self.journal, &self.finished, &verdict)?;
                self.unmarked = Some(Instant::now());
                Ok(())
            }
            Ok(Order::Wake) => Ok(()),
            Err(RecvTimeoutError::Timeout) if self.unmarked.is_none_or(|since| since.elapsed() < IDLE) => Ok(()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => self.mark_idle(),
        }
    }

    /// What there is to do besides: how long until the next time.
    fn look_after(&mut self) -> Result<Duration, WriterError> {
        self.compact()?;
        self.look_for_room()?;
        self.tell_sealed();
        Ok(self.patience())
    }

    fn mark_idle(&mut self) -> Result<(), WriterError> {
        let committed = self.journal.mark_idle()?;
        self.store.committed(&committed);
        self.unmarked = None;
        Ok(())
    }

    /// Writes a small batch on the thread of the core, which has nothing else to do meanwhile: two wakes of threads take as
    /// long as the disk itself. `None`: it is one for the writer's thread, as where the disk was slow, is full, or at work.
    pub(crate) fn write_at_once(&mut self, append: &Append) -> Result<Option<AtOnce>, WriterError> {
        if !self.may_write_at_once(append) {
            return Ok(None);
        }
        self.pulse.begin(&APPENDS);
        let written = self.try_at_once(append).inspect_err(|error| self.failed(error));
        self.pulse.end();
        written
    }

    fn may_write_at_once(&self, append: &Append) -> bool {
        let bytes = append.batch.buffer.len() + append.batch.marks.len() * FRAME_EXTRA_MAX;
        let is_quick = self.slow_until.is_none_or(|until| until < Instant::now());
        bytes <= AT_ONCE_BYTES_MAX
            && is_quick
            && self.at_once_max > Duration::ZERO
            && self.journal.has_blocks_for(bytes as u64)
            && self.compaction.is_idle()
    }

    fn try_at_once(&mut self, append: &Append) -> Result<Option<AtOnce>, WriterError> {
        let is_first = self.unmarked.is_none();
        match self.journal.append(append.class, &append.entries()) {
            Ok(_) => {}
            Err(AppendError::Full) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Blocks that were asked for ahead are there, but not every disk keeps its word.
        self.say_room(self.journal.is_full());
        let written = self.commit(append)?;
        self.say(written);
        Ok(Some(AtOnce { written: std::mem::take(&mut self.unsaid), is_first }))
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

    fn patience(&self) -> Duration {
        match (self.unmarked, self.journal.is_full()) {
            (Some(since), _) => IDLE.saturating_sub(since.elapsed()),
            (None, true) => FULL_RETRY,
            (None, false) => self.compaction.patience(),
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
            self.say(Written::Full(is_full));
        }
    }

    fn write(&mut self, append: &Append) -> Result<(), WriterError> {
        self.append(append.class, &append.entries())?;
        let written = self.commit(append)?;
        self.say(written);
        Ok(())
    }

    fn commit(&mut self, append: &Append) -> Result<Written, WriterError> {
        let bytes = append.batch.buffer.len();
        self.compaction.on_appended(bytes);
        let started = Instant::now();
        let committed = self.journal.commit()?;
        let took = started.elapsed();
        if took > self.at_once_max {
            self.slow_until = Instant::now().checked_add(took.saturating_mul(SLOW_FACTOR));
        }
        self.unmarked = Some(Instant::now());
        self.gauges.note_commit(took, append.batch.marks.len(), bytes);
        self.gauges.set_journal_bytes(self.journal.bytes());
        self.store.committed(&committed);
        Ok(Written::Durable(committed.durable))
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
            self.say(Written::Stuck);
            self.unsaid.drain(..).for_each(|what| tell(&self.written, what));
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

    fn note(&self, what: &Written) {
        match what {
            Written::Durable(lsn) => self.gauges.set_durable(*lsn),
            Written::Full(true) => self.gauges.set_health(Health::Full),
            Written::Full(false) => self.gauges.set_health(Health::Writable),
            Written::Stuck => self.gauges.set_health(Health::Stuck),
            Written::Failed(error) => self.failed(error),
        }
    }

    fn failed(&self, error: &WriterError) {
        tracing::error!(%error, "the journal failed");
        self.gauges.set_health(Health::Failed);
    }

    fn say(&mut self, what: Written) {
        self.note(&what);
        self.unsaid.push(what);
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! The journal's files: sealing a segment and beginning the next, writing dropped ones again, and the reserve.
//!
//! ```text
//!            roll                   drop                      roll
//!   active ────────▶ sealed ──────────────────▶ free (≤ 2) ────────▶ active
//!      ▲                        └─ pool full ▶ removed
//!      └──────────── reserve (upkeep on a full disk)
//! ```
//!
//! Invariants: a new segment begins only once all of the one before it is durable; nothing is written behind a failed
//! write in the same file.

use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::frame;
use crate::journal::{Active, AppendError, Class, Health, Journal, Sealed};
use crate::map::Mark;
use crate::name::{Format, RESERVE, SegmentId, SegmentName, TMP, free_file};
use crate::survey::Tally;

/// Files in store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stock {
    pub(crate) free: Vec<SegmentId>,
    pub(crate) has_reserve: bool,
    /// The id that the next segment gets.
    pub(crate) next_id: SegmentId,
}

/// Where the blocks of a new segment come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A free file if there is one, else a new one.
    Any,
    /// Only blocks that exist: free files, then the reserve.
    Existing,
}

/// Blocks asked for at once: as many as there are, within these bounds.
const AHEAD_MIN: u64 = 256 << 10;
const AHEAD_MAX: u64 = 4 << 20;

impl Active {
    /// A segment without frames.
    pub(crate) fn new(name: SegmentName) -> Self {
        let (file, seed) = (name.file(), frame::seed(name.id.0));
        Self { name, file, seed, tally: Tally::default(), reserved: 0, is_tainted: false }
    }
}

impl Stock {
    pub(crate) fn take_id(&mut self) -> SegmentId {
        let id = self.next_id;
        self.next_id = SegmentId(id.0 + 1);
        id
    }
}

impl<D: Disk> Journal<D> {
    /// Tries whether there is room again, and makes the reserve anew if it was used. True if intake is taken again; call
    /// it about once a second while [`Journal::is_full`].
    pub fn retry_full(&mut self) -> Result<bool, AppendError> {
        match self.health {
            Health::Poisoned => return Err(AppendError::Poisoned),
            Health::Good => return Ok(true),
            Health::Full => {}
        }
        match make_reserve(&mut self.disk, self.config.reserve_bytes, &mut self.stock) {
            Ok(()) => self.health = Health::Good,
            Err(error) if error.kind == DiskErrorKind::Full => {}
            Err(error) => return Err(self.poison(error)),
        }
        Ok(self.health == Health::Good)
    }

    /// Begins a new segment if the active one cannot take the batch.
    pub(crate) fn make_room(&mut self, bytes: u64) -> Result<(), AppendError> {
        let is_past = self.active.tally.bytes + bytes > u64::from(self.config.segment_bytes);
        if !self.active.is_tainted && !is_past {
            return Ok(());
        }
        let source = if self.health == Health::Full { Source::Existing } else { Source::Any };
        // On a full disk a long segment is better than none.
        match self.roll(source) {
            Err(AppendError::Full) if !self.active.is_tainted => Ok(()),
            outcome => outcome,
        }
    }

    /// Asks for blocks ahead of the writes that need them, so that a sync has no new length to make durable. On a disk
    /// with too little room for that the writes find out what still fits.
    pub(crate) fn reserve_ahead(&mut self, bytes: u64) -> Result<(), AppendError> {
        let end = self.active.tally.bytes + bytes;
        if end <= self.active.reserved || self.health == Health::Full {
            return Ok(());
        }
        let ahead = end.clamp(AHEAD_MIN, AHEAD_MAX);
        self.active.reserved = (end + ahead).min(self.config.segment_bytes.into()).max(end);
        match self.disk.reserve(&self.active.file, self.active.reserved) {
            Err(error) if error.kind != DiskErrorKind::Full => Err(self.poison(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// After a write that found the disk full: upkeep goes on in blocks that exist, intake is refused.
    pub(crate) fn on_full(&mut self, class: Class) -> Result<(), AppendError> {
        self.health = Health::Full;
        self.active.is_tainted = true;
        match class {
            Class::Intake => Err(AppendError::Full),
            Class::Upkeep => self.roll(Source::Existing),
        }
    }

    /// Makes everything written so far durable. Its error must poison the journal.
    pub(crate) fn sync_active(&mut self) -> Result<(), DiskError> {
        if self.tip.durable < self.tip.next.prev() {
            if self.config.syncs_before_ack() {
                self.disk.sync(&self.active.file)?;
            }
            self.tip.durable = self.tip.next.prev();
            self.tip.durable_lsn = self.tip.next_lsn.prev();
        }
        Ok(())
    }

    /// Seals the active segment and begins the next.
    fn roll(&mut self, source: Source) -> Result<(), AppendError> {
        if source == Source::Existing && self.stock.free.is_empty() && !self.stock.has_reserve {
            return Err(AppendError::Full);
        }
        self.sync_active().map_err(|error| self.poison(error))?;
        let id = self.stock.take_id();
        let (epoch, base, base_seq) = (self.epoch, self.tip.next_lsn, self.tip.next);
        let name = SegmentName { id, epoch, base, base_seq, format: Format::Two };
        let fresh = Active::new(name);
        self.fetch(&fresh.file).map_err(|error| self.poison(error))?;
        let old = std::mem::replace(&mut self.active, fresh);
        if old.tally.bytes == 0 {
            self.discard(&old)?;
        } else {
            let (end, end_lsn) = (self.tip.next, self.tip.next_lsn);
            self.sealed.push_back(Sealed { name: old.name, end, end_lsn, tally: old.tally });
        }
        self.note(Mark::Segment(name));
        Ok(())
    }

    /// Puts blocks under the new name, where some are in store.
    fn fetch(&mut self, file: &str) -> Result<(), DiskError> {
        if let Some(id) = self.stock.free.pop() {
            self.disk.rename(&free_file(id), file)?;
        } else if self.health == Health::Full && self.stock.has_reserve {
            self.stock.has_reserve = false;
            self.disk.rename(RESERVE, file)?;
        }
        Ok(())
    }

    /// Removes a segment in which no write succeeded.
    fn discard(&mut self, empty: &Active) -> Result<(), AppendError> {
        self.note(Mark::Dropped(empty.name.id));
        match self.disk.remove(&empty.file) {
            Ok(()) => Ok(()),
            Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Lets go of a sealed segment: its file is written again, removed, or kept as evidence if it is damaged.
    pub(crate) fn drop_segment(&mut self, sealed: &Sealed) -> Result<(), DiskError> {
        let (id, file) = (sealed.name.id, sealed.name.file());
        if sealed.tally.is_damaged {
            self.disk.rename(&file, &sealed.name.damaged_file())?;
        } else if self.stock.free.len() < self.config.free_segments_max
            && sealed.tally.bytes <= u64::from(self.config.segment_bytes)
        {
            self.disk.rename(&file, &free_file(id))?;
            self.stock.free.push(id);
        } else {
            self.disk.remove(&file)?;
        }
        self.note(Mark::Dropped(id));
        Ok(())
    }

    pub(crate) fn note(&mut self, mark: Mark) {
        self.map.mark(&mark);
        self.marks.push(mark);
    }

    pub(crate) fn poison(&mut self, error: DiskError) -> AppendError {
        self.health = Health::Poisoned;
        AppendError::Disk(error)
    }
}

/// Writes the reserved file, if there is none: blocks that are there for certain have been written.
pub(crate) fn make_reserve<D: Disk>(disk: &mut D, bytes: u32, stock: &mut Stock) -> Result<(), DiskError> {
    const PIECE: u32 = 1 << 20;
    if stock.has_reserve || bytes == 0 {
        return Ok(());
    }
    let aside = format!("{RESERVE}{TMP}");
    let zeros = vec![0; PIECE.min(bytes) as usize];
    for at in (0..bytes).step_by(PIECE as usize) {
        let piece = &zeros[..PIECE.min(bytes - at) as usize];
        if let Err(error) = disk.write(&aside, u64::from(at), piece) {
            // Its blocks are wanted elsewhere. After any other error the process ends, and the next one clears up.
            if error.kind == DiskErrorKind::Full {
                match disk.remove(&aside) {
                    Ok(()) => {}
                    Err(gone) if gone.kind == DiskErrorKind::NotFound => {}
                    Err(other) => return Err(other),
                }
            }
            return Err(error);
        }
    }
    // A sync that failed, for whatever reason, is not to be tried again: that is no full disk.
    disk.sync(&aside).map_err(|error| DiskError { kind: DiskErrorKind::Io, ..error })?;
    disk.rename(&aside, RESERVE)?;
    stock.has_reserve = true;
    Ok(())
}

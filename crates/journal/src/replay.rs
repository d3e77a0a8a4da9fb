//! Shows records again, in the order of their numbers: what compaction moved is shown in its old place, and each record
//! once, however many copies a crash left.

use crate::disk::{Disk, DiskError};
use crate::frame::{Head, Kind, Original};
use crate::journal::{Journal, Sealed};
use crate::map::Place;
use crate::name::SegmentId;
use crate::number::{Epoch, Lsn, Seq};
use crate::read::{LARGE, ReadError, Record, Window};
use crate::scan::{Scanner, Step};

/// Payload bytes shown in one slice of a whole replay.
const SLICE: usize = 4 << 20;

/// Is shown a record: its number, the epoch that appended it first, its kind and payload.
pub type Visit<'a> = dyn FnMut(Lsn, Epoch, u8, &[u8]) + 'a;

impl<D: Disk> Journal<D> {
    /// Shows every record from `from` on, unsynced ones too. Records that are damaged are left out: recovery reported
    /// them.
    pub fn replay(&self, from: Lsn, visit: &mut Visit<'_>) -> Result<(), DiskError> {
        let mut next = Some(from);
        while let Some(from) = next {
            next = self.replay_slice(from, SLICE, visit)?;
        }
        Ok(())
    }

    /// Shows records from `from` on, until `bytes` of payload were shown. Returns where to go on; `None` at the end.
    pub fn replay_slice(&self, from: Lsn, bytes: usize, visit: &mut Visit<'_>) -> Result<Option<Lsn>, DiskError> {
        let mut show = Show { journal: self, next: from, left: bytes.max(1), window: Window::default(), visit };
        for (name, end) in self.extents() {
            if self.end_lsn(name.id) <= from {
                continue;
            }
            let start = match self.map.place(from) {
                Some(Place { name: holder, offset, is_moved: false, .. }) if holder.id == name.id => u64::from(offset),
                Some(_) | None => 0,
            };
            let mut scanner =
                Scanner::new(&self.disk, &name, Some(end), self.config.trusts_length()).resuming(start, None);
            loop {
                match scanner.step()? {
                    Step::Frame { head, .. } if head.appended() > 0 => {
                        for original in scanner.originals().skip_while(|original| original.lsn < from) {
                            show.moved_before(original.lsn)?;
                            if show.left == 0 {
                                return Ok(Some(show.next));
                            }
                            if self.map.moved(original.lsn).is_none() {
                                show.show(&original);
                            }
                        }
                    }
                    Step::Frame { .. } | Step::Damage(_) => {}
                    Step::End { .. } => break,
                }
            }
        }
        show.moved_before(Lsn(u64::MAX))?;
        Ok((show.left == 0).then_some(show.next))
    }

    /// Shows the records that are in one sealed segment now, for an index of it: moved ones by their own numbers, and
    /// only where this is their newest copy. False if there is no such sealed segment.
    pub fn scan_segment(&self, id: SegmentId, visit: &mut Visit<'_>) -> Result<bool, DiskError> {
        let Some(sealed) = self.sealed.iter().find(|sealed| sealed.name.id == id) else { return Ok(false) };
        let mut scanner = Scanner::new(&self.disk, &sealed.name, Some(sealed.end), self.config.trusts_length());
        loop {
            match scanner.step()? {
                Step::Frame { offset, head } => {
                    for Original { lsn, epoch, kind, payload } in scanner.originals() {
                        if self.is_newest(id, offset, &head, lsn) {
                            visit(lsn, epoch, kind, payload);
                        }
                    }
                }
                Step::Damage(_) => {}
                Step::End { .. } => return Ok(true),
            }
        }
    }

    /// True if this frame is where the record of this number is read from.
    pub(crate) fn is_newest(&self, id: SegmentId, offset: u64, head: &Head, lsn: Lsn) -> bool {
        match (head.kind, self.map.moved(lsn)) {
            (Kind::Record(_) | Kind::Group(_), spot) => spot.is_none(),
            (Kind::Moved(_), spot) => spot.is_some_and(|spot| spot.segment == id && u64::from(spot.offset) == offset),
            (Kind::Mark, _) => false,
        }
    }

    fn extents(&self) -> impl Iterator<Item = (crate::name::SegmentName, Seq)> {
        let sealed = self.sealed.iter().map(|Sealed { name, end, .. }| (*name, *end));
        sealed.chain([(self.active.name, self.tip.next)])
    }

    fn end_lsn(&self, id: SegmentId) -> Lsn {
        self.sealed.iter().find(|sealed| sealed.name.id == id).map_or(self.tip.next_lsn, |sealed| sealed.end_lsn)
    }
}

/// A slice of a replay under way.
struct Show<'a, 'v, D> {
    journal: &'a Journal<D>,
    /// The first record that was not shown yet.
    next: Lsn,
    left: usize,
    window: Window,
    visit: &'a mut Visit<'v>,
}

impl<D: Disk> Show<'_, '_, D> {
    fn show(&mut self, &Original { lsn, epoch, kind, payload }: &Original<'_>) {
        (self.visit)(lsn, epoch, kind, payload);
        self.next = lsn.next();
        self.left = self.left.saturating_sub(payload.len().max(1));
    }

    /// Shows moved records whose old place is before `lsn`, or is this one's.
    fn moved_before(&mut self, lsn: Lsn) -> Result<(), DiskError> {
        while let Some(moved) = self.journal.map.moved_from(self.next).filter(|moved| *moved <= lsn)
            && self.left > 0
        {
            self.next = moved.next();
            let Some(place) = self.journal.map.place(moved) else { continue };
            match self.window.read(&self.journal.disk, &place, moved, LARGE) {
                Ok(Record { lsn, epoch, kind, payload }) => {
                    self.show(&Original { lsn, epoch, kind, payload: &payload });
                }
                Err(ReadError::Missing { .. } | ReadError::Corrupt { .. }) => {}
                Err(ReadError::Disk(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

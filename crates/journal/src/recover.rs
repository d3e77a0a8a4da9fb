//! Opens a journal: decides what is a torn tail and what is corruption, copies the unconfirmed tail to a place that is
//! certain, and takes the next epoch.
//!
//! ```text
//!   last segment before:   | 1 2 3 4 5 | 6 7 8 | x x 10 x |      5 = last durable-up-to seen; 9 is not whole
//!   after:                 | 1 2 3 4 5 |                          ends at 5: its rest is never read again
//!   fresh segment:                     | 6 7 8 | mark |           synced, then named
//! ```
//!
//! A frame that is bad above the last durable-up-to was never acknowledged: the tail is cut there. Below it is
//! corruption: what is damaged of it is quarantined and the rest is served. All segments but the last are durable as a whole,
//! because the next one's name exists.
//!
//! The tail may have been acknowledged (synced after its last frame was written), or may be in the page cache only, even
//! if an earlier sync failed. So it is copied into a fresh file and that is synced before anything is shown of it. A crash
//! at any moment of this leaves either the old state or the new one: renaming decides.

use std::collections::VecDeque;

use crate::config::Config;
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::frame::{self, Head, Kind};
use crate::group;
use crate::journal::{Active, Health, Journal, Sealed, Tip};
use crate::map::Map;
use crate::name::{FileKind, Format, RESERVE, SegmentId, SegmentName, TMP, free_file, kind_of};
use crate::number::{Epoch, Lsn, Seq};
use crate::scan::{Scanner, Step};
use crate::space::{Stock, make_reserve};
use crate::survey::{Report, Tally, Torn, survey};

/// Why a journal cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed, or is so full that not even the opening could be noted.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A segment of a format that this version does not know.
    #[error("journal file {file} was written by another version: run the version that wrote it")]
    Foreign {
        /// Its name.
        file: String,
    },
    /// All epochs are used up.
    #[error("the journal has used up its epochs, which count starts or a clock's seconds")]
    EpochsExhausted,
}

/// A last segment with less than this is copied whole: so restarts do not leave a row of tiny segments behind.
const COPY_WHOLE_MAX: u64 = 256 << 10;
/// The copy is written in pieces of this size.
const COPY_CHUNK: usize = 1 << 20;

impl<D: Disk> Journal<D> {
    /// Opens the journal that is on the disk, or begins one. Takes the next epoch, or a later one ([`Config::epoch_min`]).
    /// One process at a time: the lock is the caller's duty.
    pub fn open(mut disk: D, config: Config) -> Result<(Self, Report), OpenError> {
        let Found { mut segments, mut stock } = Found::list(&mut disk)?;
        let tail = match segments.last() {
            Some(name) => Tail::probe(&disk, name, &config)?,
            None => Tail::none(),
        };
        let epoch = segments.iter().map(|name| name.epoch).fold(tail.epoch, Epoch::max);
        if epoch.0 == u32::MAX {
            return Err(OpenError::EpochsExhausted);
        }
        let epoch = epoch.next().max(config.epoch_min);
        let mut report = Report { epoch, torn: tail.torn.clone(), ..Report::default() };
        let fresh = begin(&mut disk, segments.last(), &tail, epoch, &mut stock, &mut report)?;
        segments.push(fresh);
        let tip = Tip {
            next: tail.end.0.next(),
            next_lsn: tail.end.1,
            durable: tail.end.0,
            durable_lsn: tail.end.1.prev(),
            marked: tail.end.0,
        };
        let (mut sealed, map) = survey_all(&mut disk, &segments, (tip.next, tip.next_lsn), &config, &mut report)?;
        let tally = sealed.pop_back().map_or_else(Tally::default, |active| active.tally);
        let health = match make_reserve(&mut disk, config.reserve_bytes, &mut stock) {
            Ok(()) => Health::Good,
            Err(error) if error.kind == DiskErrorKind::Full => Health::Full,
            Err(error) => return Err(error.into()),
        };
        report.no_reserve = health == Health::Full;
        let active = Active { tally, ..Active::new(fresh) };
        let (marks, work, buf) = (Vec::new(), None, Vec::new());
        let journal = Self { disk, config, map, epoch, sealed, active, tip, stock, health, marks, work, buf };
        report.segments = journal.sealed.len() + 1;
        report.next = journal.tip.next_lsn;
        report.bytes = journal.bytes();
        Ok((journal, report))
    }
}

/// The journal's files.
struct Found {
    /// Oldest first.
    segments: Vec<SegmentName>,
    stock: Stock,
}

impl Found {
    fn list<D: Disk>(disk: &mut D) -> Result<Self, OpenError> {
        let mut found = Self { segments: Vec::new(), stock: Stock::default() };
        let mut highest = SegmentId(0);
        for file in disk.list()? {
            let id = match kind_of(&file.name) {
                FileKind::Segment(name) => {
                    found.segments.push(name);
                    name.id
                }
                FileKind::Foreign => return Err(OpenError::Foreign { file: file.name }),
                FileKind::Free(id) => {
                    found.stock.free.push(id);
                    id
                }
                FileKind::Damaged(id) => id,
                FileKind::Reserve => {
                    found.stock.has_reserve = true;
                    continue;
                }
                FileKind::Tmp => {
                    disk.remove(&file.name)?;
                    continue;
                }
                FileKind::Other => continue,
            };
            highest = highest.max(id);
        }
        found.segments.sort_unstable_by_key(|name| name.id);
        found.stock.free.sort_unstable();
        found.stock.next_id = SegmentId(highest.0 + 1);
        Ok(found)
    }
}

/// The end of the last segment.
struct Tail {
    /// Seq and lsn after the last frame that is kept.
    end: (Seq, Lsn),
    /// Frames from this one on are copied.
    copy_from: Seq,
    epoch: Epoch,
    torn: Option<Torn>,
}

impl Tail {
    /// That of a journal without segments.
    fn none() -> Self {
        Self { end: (Seq(1), Lsn(1)), copy_from: Seq(1), epoch: Epoch(0), torn: None }
    }

    /// Reads the last segment, to its very end: what is durable may be said by a frame behind a damaged one.
    fn probe<D: Disk>(disk: &D, name: &SegmentName, config: &Config) -> Result<Self, DiskError> {
        let mut scanner = Scanner::new(disk, name, None, config.trusts_length());
        let mut durable = name.base_seq.prev();
        let mut epoch = name.epoch;
        // The ends of whole stretches: where one is followed by damage, the cut may be there.
        let mut end = (name.base_seq, name.base);
        let mut holes: Vec<((Seq, Lsn), u64)> = Vec::new();
        let at_end = loop {
            match scanner.step()? {
                Step::Frame { offset, head } => {
                    if !head.is_whole() {
                        // The group tells its own place: what is before it may be damaged too.
                        holes.push(((head.seq, head.lsn), offset));
                    }
                    durable = durable.max(head.durable);
                    epoch = epoch.max(head.epoch);
                    end = (head.seq.next(), head.next_lsn(end.1));
                }
                Step::Damage(damage) => {
                    holes.push((end, damage.offset));
                    // As many records may be lost as there is room for: no number of one is ever given again. A record
                    // or a mark behind tells exactly.
                    end.1 = Lsn(end.1.0.saturating_add(damage.records_max));
                }
                Step::End { offset } => break offset,
            }
        };
        let is_torn = scanner.is_torn()?;
        let cut = holes.iter().find(|((seq, _), _)| *seq > durable);
        let torn_at = cut.map(|(_, offset)| *offset).or(is_torn.then_some(at_end));
        let end = cut.map_or(end, |(end, _)| *end);
        let is_whole = holes.first().is_none_or(|((hole, _), _)| *hole >= end.0);
        let copy_from = if !config.copies_tail() {
            end.0
        } else if is_whole && at_end <= COPY_WHOLE_MAX {
            name.base_seq
        } else {
            durable.next().min(end.0)
        };
        let torn = torn_at.map(|offset| Torn { file: name.file(), offset });
        Ok(Self { end, copy_from, epoch, torn })
    }
}

/// Makes the fresh segment: the tail and a mark of the new epoch, synced before it gets its name.
fn begin<D: Disk>(
    disk: &mut D,
    last: Option<&SegmentName>,
    tail: &Tail,
    epoch: Epoch,
    stock: &mut Stock,
    report: &mut Report,
) -> Result<SegmentName, DiskError> {
    let id = stock.take_id();
    let aside = format!("open{TMP}");
    if let Some(free) = stock.free.pop() {
        disk.rename(&free_file(free), &aside)?;
    }
    let copied = match copy_tail(disk, last, tail, (id, epoch), &aside) {
        Err(error) if error.kind == DiskErrorKind::Full && stock.has_reserve => {
            stock.has_reserve = false;
            disk.rename(RESERVE, &aside)?;
            copy_tail(disk, last, tail, (id, epoch), &aside)?
        }
        outcome => outcome?,
    };
    disk.sync(&aside)?;
    report.copied = copied.frames;
    let base = copied.base.unwrap_or(tail.end.1);
    let name = SegmentName { id, epoch, base, base_seq: tail.copy_from, format: Format::Two };
    disk.rename(&aside, &name.file())?;
    Ok(name)
}

#[derive(Debug, Default)]
struct Copied {
    frames: u64,
    /// The first record among them.
    base: Option<Lsn>,
}

fn copy_tail<D: Disk>(
    disk: &mut D,
    last: Option<&SegmentName>,
    tail: &Tail,
    (id, epoch): (SegmentId, Epoch),
    aside: &str,
) -> Result<Copied, DiskError> {
    let seed = frame::seed(id.0);
    let (mut copied, mut buf, mut at, mut read_from) = (Copied::default(), Vec::new(), 0, 0);
    let mut resume = None;
    while let (Some(name), false) = (last, tail.copy_from >= tail.end.0) {
        // The scanner borrows the disk, so it is left and taken up again around each write.
        let mut scanner = Scanner::new(disk, name, Some(tail.end.0), false).resuming(read_from, resume);
        let is_done = loop {
            match scanner.step()? {
                Step::Frame { head, .. } if head.seq < tail.copy_from => {}
                Step::Frame { offset, head } => {
                    copy(&mut buf, seed, &head, &scanner);
                    copied.frames += 1;
                    copied.base = copied.base.or((head.appended() > 0).then_some(head.lsn));
                    if buf.len() >= COPY_CHUNK {
                        (read_from, resume) = (offset + head.size() as u64, Some(head.seq.next()));
                        break false;
                    }
                }
                Step::Damage(_) => {}
                Step::End { .. } => break true,
            }
        };
        if is_done {
            break;
        }
        disk.write(aside, at, &buf)?;
        at += buf.len() as u64;
        buf.clear();
    }
    let mark = Head { durable: tail.end.0.prev(), ..Head::new(Kind::Mark, tail.end.0, tail.end.1, epoch) };
    frame::encode(&mut buf, seed, &mark, |_| {});
    disk.write(aside, at, &buf)?;
    Ok(copied)
}

/// Appends a whole frame once more, for the segment of this seed.
fn copy<D: Disk>(out: &mut Vec<u8>, seed: u32, head: &Head, scanner: &Scanner<'_, D>) {
    frame::encode(out, seed, head, |out| match head.kind {
        Kind::Group(_) => scanner.originals().for_each(|one| group::push(out, seed, one.lsn, one.kind, one.payload)),
        Kind::Record(_) | Kind::Moved(_) | Kind::Mark => out.extend_from_slice(scanner.payload()),
    });
}

/// Reads every segment into the map; the last one is the active one.
fn survey_all<D: Disk>(
    disk: &mut D,
    segments: &[SegmentName],
    end: (Seq, Lsn),
    config: &Config,
    report: &mut Report,
) -> Result<(VecDeque<Sealed>, Map), DiskError> {
    let ends = segments.iter().skip(1).map(|next| (next.base_seq, next.base)).chain([end]);
    let (superseded, whole): (Vec<_>, Vec<_>) =
        segments.iter().zip(ends).partition(|(name, end)| end.0 <= name.base_seq);
    for (name, _) in superseded {
        disk.remove(&name.file())?; // The next one holds all that it held.
    }
    let read = |disk: &D, at: usize| survey(disk, whole[at].0, whole[at].1, config.trusts_length());
    let surveyed = D::each(disk, whole.len(), read);
    let (mut sealed, mut map) = (VecDeque::new(), Map::default());
    for ((name, end), surveyed) in whole.iter().zip(surveyed) {
        let tally = surveyed?.enter(name, end.1, &mut map, report);
        sealed.push_back(Sealed { name: **name, end: end.0, end_lsn: end.1, tally });
    }
    Ok((sealed, map))
}

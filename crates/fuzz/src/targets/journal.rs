//! A journal's directory after anything happened to it: `image u8 | edit*`. An image is a journal that the real code
//! wrote; edits flip, cut, copy, rename and forge its files.
//!
//! Checked, whatever happened: opening gives a journal or an error, and a record that is shown is one whose checksum a
//! file holds, found by a reader of our own. Where only bytes of files rotted: numbers rise, each record reads as it is
//! shown, opening again shows the same, what is appended then is there after another opening, and an index yields
//! candidates or says that it is damaged. Where nothing happened: all that was written is shown; where one bit flipped:
//! all but one record, unless the tail was never confirmed.

use std::collections::BTreeMap;
use std::path::Path;

use sheaf_journal::index::{Span, Tiers, build, merge};
use sheaf_journal::testing::MemDisk;
use sheaf_journal::{Class, Config, Disk, Entry, Journal, Keep, Lsn, OpenError, Report, SegmentId};

use super::edits::{self, Harm};
use super::frames::{self, Records};
use crate::target::{Shape, Spec, Target, scale};

pub(crate) const SPEC: Spec = Spec {
    name: "journal",
    share: 10,
    words: edits::WORDS,
    make: |_: &Path| Box::new(Recovery { images: (0..IMAGES).map(image).collect() }),
    examples: edits::examples,
};

/// Stories of an image: one segment; several, with indexes; compacted; a tail that was never confirmed.
const STORIES: u8 = 4;
const COMPACTED: u8 = 2;
const UNCONFIRMED: u8 = 3;
/// Each story with records that are appended one by one, and behind those again with records that share frames.
const IMAGES: u8 = 2 * STORIES;
/// Records of a batch that are to share a frame.
const BATCH: u64 = 5;

struct Recovery {
    images: Vec<(MemDisk, Records)>,
}

fn config() -> Config {
    Config { segment_bytes: 1024, reserve_bytes: 0, free_segments_max: 1, ..Config::default() }
}

impl Target for Recovery {
    fn run(&mut self, input: &[u8]) -> Result<Shape, String> {
        let Some((image, script)) = input.split_first() else { return Ok(Shape::default()) };
        let (mut disk, written) = self.images[usize::from(image % IMAGES)].clone();
        let harm = edits::apply(&mut disk, script);
        let sound = sound(&disk);
        let (journal, report) = match Journal::open(disk, config()) {
            Ok(opened) => opened,
            Err(error) => return Ok(refused(&error)),
        };
        let (shown, fault) = contents(&journal);
        if let Some(made_up) = shown.difference(&sound).next() {
            return Err(format!("made up: record {} of kind {}: {:?}", made_up.0, made_up.1, made_up.2));
        }
        if harm == Harm::None && shown != written {
            return Err(format!("lost: {} of {} records are shown", shown.len(), written.len()));
        }
        let lost = written.difference(&shown).count();
        if harm == Harm::Flip && image % STORIES != UNCONFIRMED && lost > 1 {
            return Err(format!("lost: one bit costs {lost} records"));
        }
        let shape = shape(&journal, &report, shown.len());
        let held = fault.map_or(Ok(()), Err).and_then(|()| live_on(journal, shown));
        match (harm, held) {
            (Harm::Forgery, held) => Ok(Shape::of((shape.0, held.is_ok()))),
            (Harm::None | Harm::Flip | Harm::Rot, Ok(found)) => Ok(Shape::of((shape.0, found))),
            (Harm::None | Harm::Flip | Harm::Rot, Err(says)) => Err(says),
        }
    }
}

fn refused(error: &OpenError) -> Shape {
    Shape::of(std::mem::discriminant(error))
}

fn shape(journal: &Journal<MemDisk>, report: &Report, shown: usize) -> Shape {
    let segments = journal.segments().map(|one| (scale(one.records as usize), one.moved > 0, one.is_damaged));
    let seen = (scale(shown), report.torn.is_some(), report.quarantined.len(), scale(report.copied as usize));
    Shape::of((segments.collect::<Vec<_>>(), seen))
}

/// Everything that replay shows, each read by its number too; and what is wrong with it.
fn contents(journal: &Journal<MemDisk>) -> (Records, Option<String>) {
    let (mut shown, mut fault) = (Records::new(), None);
    let mut last = Lsn::ZERO;
    let visit = &mut |lsn: Lsn, _, kind, payload: &[u8]| {
        if lsn <= last {
            fault = Some(format!("out of order: {lsn} after {last}"));
        }
        last = lsn;
        match journal.read(lsn) {
            Ok(record) if record.kind == kind && record.payload == payload => {}
            Ok(_) => fault = Some(format!("reads differently: record {lsn}")),
            Err(error) => fault = Some(format!("cannot be read: record {lsn}: {error}")),
        }
        shown.insert((lsn.0, kind, payload.to_vec()));
    };
    if let Err(error) = journal.replay(Lsn(1), visit) {
        fault = Some(format!("cannot be replayed: {error}"));
    }
    (shown, fault)
}

fn same(before: &Records, journal: &Journal<MemDisk>, when: &str) -> Result<(), String> {
    let numbers = |records: &Records| records.iter().map(|record| record.0).collect::<Vec<_>>();
    match contents(journal) {
        (_, Some(fault)) => Err(format!("{fault}, {when}")),
        (after, None) if after == *before => Ok(()),
        (after, None) => Err(format!("differs: when {when}, {:?} became {:?}", numbers(before), numbers(&after))),
    }
}

fn open_again(disk: MemDisk) -> Result<Journal<MemDisk>, String> {
    let opened = Journal::open(disk, config()).map_err(|error| format!("does not open again: {error}"))?;
    Ok(opened.0)
}

/// Opens again, appends, opens once more; then asks the index files, and merges them. Returns how many candidates there
/// were, and how many segments lack a file.
fn live_on(journal: Journal<MemDisk>, shown: Records) -> Result<(usize, usize), String> {
    let mut journal = open_again(journal.into_disk())?;
    same(&shown, &journal, "opened again")?;
    let more: [Entry<&[u8]>; 2] = [Entry { kind: 9, payload: b"one more" }, Entry { kind: 8, payload: b"" }];
    if journal.append(Class::Intake, &more).is_ok() {
        let upto = journal.commit().map_err(|error| format!("does not commit: {error}"))?.durable;
        let mut disk = journal.into_disk();
        disk.crash(&mut |_| 0);
        journal = open_again(disk)?;
        let mut wanted = shown;
        wanted.extend((upto.0 - 1..).zip(more).map(|(lsn, one)| (lsn, one.kind, one.payload.to_vec())));
        same(&wanted, &journal, "appended to")?;
    }
    let sealed: Vec<SegmentId> = journal.sealed_views().iter().map(|view| view.id()).collect();
    let mut disk = journal.into_disk();
    let error = |error: &dyn std::fmt::Display| format!("an index fails: {error}");
    let (mut tiers, missing) = Tiers::open(&mut disk, &sealed).map_err(|e| error(&e))?;
    let mut found = 0;
    for n in 0..8 {
        let candidates = tiers.lookup(&disk, &[key(n)]);
        candidates.failed.map_or(Ok(()), |e| Err(error(&e)))?;
        found += candidates.found.len();
        candidates.damaged.into_iter().for_each(|damaged| tiers.close(damaged));
    }
    let spans: Vec<Span> = tiers.files().iter().map(|file| file.span()).collect();
    if spans.len() > 1
        && let Ok(merged) = merge(&mut disk, &spans, &|lsn| lsn.0.is_multiple_of(5))
    {
        tiers.add(&mut disk, merged).map_err(|e| error(&e))?;
    }
    Ok((found, missing.len()))
}

/// The records that files hold under a good checksum, wherever they lie: an own reading of the format.
fn sound(disk: &MemDisk) -> Records {
    let mut sound = Records::new();
    for file in disk.list().unwrap_or_default() {
        let Some(id) = frames::segment_of(&file.name) else { continue };
        let bytes = disk.content(&file.name).unwrap_or_default();
        for at in (0..bytes.len()).step_by(8) {
            sound.extend(frames::records(id, &bytes[at..]));
        }
    }
    sound
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [7; 16];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// A journal as the real code writes it, and what is in it: so say the real code and our own reader.
#[expect(clippy::expect_used, reason = "a disk in memory without faults refuses nothing")]
fn image(which: u8) -> (MemDisk, Records) {
    let (story, batch) = (which % STORIES, if which < STORIES { 1 } else { BATCH });
    let mut journal = Journal::open(MemDisk::new(), config()).expect("an empty directory").0;
    let appended = append_all(&mut journal, story, batch);
    if story == COMPACTED {
        for _ in 0..12 {
            let keep = &mut |lsn, _, _: &[u8]| if is_kept(lsn) { Keep::Keep } else { Keep::Drop };
            journal.compact(600, keep).expect("the disk works");
        }
    }
    if story != UNCONFIRMED {
        journal.commit().expect("the disk works");
        journal.mark_idle().expect("the disk works");
    }
    let (records, fault) = contents(&journal);
    assert_eq!(fault, None, "it was just written");
    assert_eq!(records, sound(journal.disk()), "it holds what the own reader finds");
    let is_due = |record: &(u64, u8, Vec<u8>)| story != COMPACTED || is_kept(Lsn(record.0));
    assert!(appended.iter().filter(|record| is_due(record)).all(|record| records.contains(record)), "none is lost");
    assert!(records.is_subset(&appended), "none is made up");
    let views = journal.sealed_views();
    let mut disk = journal.into_disk();
    for view in views.iter().take(3) {
        let mut postings: BTreeMap<[u8; 16], Lsn> = BTreeMap::new();
        let mut visit = |lsn: Lsn, _, _, _: &[u8]| postings.extend([(key(lsn.0 % 8), lsn)]);
        view.scan(&disk, &mut visit).expect("the disk works");
        let span = Span::of(view.id());
        build(&mut disk, span, &mut postings.into_iter().collect()).expect("the disk works");
    }
    // What was not confirmed lies on the platter all the same: edits are to files, not to a cache.
    let files = disk.list().expect("the disk works");
    files.iter().for_each(|file| disk.sync(&file.name).expect("the disk works"));
    (disk, records)
}

/// What compaction keeps.
fn is_kept(lsn: Lsn) -> bool {
    lsn.0.is_multiple_of(3)
}

/// Appends the records of a story, so many at once, with a commit after every few.
#[expect(clippy::expect_used, reason = "a disk in memory without faults refuses nothing")]
fn append_all(journal: &mut Journal<MemDisk>, story: u8, batch: u64) -> Records {
    let records = if story == 0 { batch.max(5) } else { 40 };
    let entry = |n: u64| {
        let payload = format!("record {n} {}", "x".repeat((n * 7 % 90) as usize)).into_bytes();
        Entry { kind: (n % 5) as u8, payload }
    };
    // The last few.
    let is_unconfirmed = |first: u64| story == UNCONFIRMED && first + 3 * batch > 33;
    let mut appended = Records::new();
    for first in (0..records).step_by(batch as usize) {
        let entries: Vec<_> = (first..first + batch).map(entry).collect();
        journal.append(Class::Intake, &entries).expect("there is room");
        appended.extend((first + 1..).zip(entries).map(|(lsn, one)| (lsn, one.kind, one.payload)));
        if (first / batch).is_multiple_of(3) && !is_unconfirmed(first) {
            journal.commit().expect("the disk works");
        }
    }
    appended
}

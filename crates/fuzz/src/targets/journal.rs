//! A journal's directory after anything happened to it: `image u8 | edit*`. An image is a journal that the real code
//! wrote; edits flip, cut, copy, rename and forge its files.
//!
//! Checked, whatever happened: opening gives a journal or an error, and a record that is shown is one whose checksum a
//! file holds, found by a reader of this file's own. Where only bytes of files rotted: numbers rise, each record reads
//! as it is shown, opening again shows the same, what is appended then is there after another opening, and an index
//! yields candidates or says that it is damaged. Where nothing happened: all that was written is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sheaf_journal::index::{Span, Tiers, build, merge};
use sheaf_journal::testing::MemDisk;
use sheaf_journal::{Class, Config, Disk, Entry, Journal, Keep, Lsn, OpenError, Report, SegmentId};

use super::edits::{self, Harm};
use crate::target::{Shape, Spec, Target, scale};

pub(crate) const SPEC: Spec = Spec {
    name: "journal",
    share: 10,
    words: edits::WORDS,
    make: |_: &Path| Box::new(Recovery { images: (0..IMAGES).map(image).collect() }),
    examples: edits::examples,
};

/// What the images hold: number, kind, payload.
type Records = BTreeSet<(u64, u8, Vec<u8>)>;

const IMAGES: u8 = 4;

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
        let shape = shape(&journal, &report, shown.len());
        let held = fault.map_or(Ok(()), Err).and_then(|()| live_on(journal, shown));
        match (harm, held) {
            (Harm::Forgery, held) => Ok(Shape::of((shape.0, held.is_ok()))),
            (Harm::None | Harm::Rot, Ok(found)) => Ok(Shape::of((shape.0, found))),
            (Harm::None | Harm::Rot, Err(says)) => Err(says),
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
    if journal.append(Class::Intake, &[Entry { kind: 9, payload: b"one more" }]).is_ok() {
        let upto = journal.commit().map_err(|error| format!("does not commit: {error}"))?.durable;
        let mut disk = journal.into_disk();
        disk.crash(&mut |_| 0);
        journal = open_again(disk)?;
        let mut wanted = shown;
        wanted.insert((upto.0, 9, b"one more".to_vec()));
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
        let Some(id) = edits::segment_of(&file.name) else { continue };
        let bytes = disk.content(&file.name).unwrap_or_default();
        for at in (0..bytes.len()).step_by(8) {
            sound.extend(frame(id, &bytes[at..]));
        }
    }
    sound
}

fn frame(segment: u64, bytes: &[u8]) -> Option<(u64, u8, Vec<u8>)> {
    let size = edits::frame_size(bytes)?;
    let frame = bytes.get(..size)?;
    if frame[..4] != edits::frame_crc(segment, frame).to_le_bytes() {
        return None;
    }
    let len = size_of_payload(frame);
    let lsn = u64::from_le_bytes(frame[16..24].try_into().ok()?);
    let payload = frame.get(32..32 + len)?;
    match frame[7] {
        0xff => None,
        kind @ 0x80.. => Some((lsn, kind & 0x7f, payload.get(8..)?.to_vec())),
        kind => Some((lsn, kind, payload.to_vec())),
    }
}

fn size_of_payload(frame: &[u8]) -> usize {
    usize::from(frame[4]) | usize::from(frame[5]) << 8 | usize::from(frame[6]) << 16
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [7; 16];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// A journal as the real code writes it. 0: one segment; 1: several, with indexes; 2: compacted; 3: with a tail that was
/// never confirmed.
#[expect(clippy::expect_used, reason = "a disk in memory without faults refuses nothing")]
fn image(which: u8) -> (MemDisk, Records) {
    let mut journal = Journal::open(MemDisk::new(), config()).expect("an empty directory").0;
    let records = if which == 0 { 5 } else { 40 };
    for n in 0..records {
        let payload = format!("record {n} {}", "x".repeat(n * 7 % 90)).into_bytes();
        journal.append(Class::Intake, &[Entry { kind: (n % 5) as u8, payload }]).expect("there is room");
        if n % 3 == 0 && !(which == 3 && n > 30) {
            journal.commit().expect("the disk works");
        }
    }
    if which == 2 {
        for _ in 0..12 {
            let keep = &mut |lsn: Lsn, _, _: &[u8]| if lsn.0.is_multiple_of(3) { Keep::Keep } else { Keep::Drop };
            journal.compact(600, keep).expect("the disk works");
        }
    }
    if which != 3 {
        journal.commit().expect("the disk works");
        journal.mark_idle().expect("the disk works");
    }
    let (records, fault) = contents(&journal);
    assert_eq!(fault, None, "it was just written");
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

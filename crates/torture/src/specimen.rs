//! The data directory of a real router, kept in memory: to be laid out damaged, opened, and compared with what it was.
//!
//! It reads frames by itself, and the records in them, so that what lies where is not the word of the code under test. The
//! layout is drawn in `crates/journal/src/frame.rs`: small records share a frame, and are lost together.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sheaf_journal::{Config, Journal, Lsn, Report};
use sheaf_server::FileDisk;

/// Records by number: kind and payload.
pub(crate) type Records = BTreeMap<u64, (u8, Vec<u8>)>;

/// Files by their path in the directory.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// An undamaged directory and what is in it.
///
/// Invariant: `records` are what the frames hold, and the journal showed exactly them before anything was damaged.
pub(crate) struct Specimen {
    pub files: Files,
    pub records: Records,
    /// The segment that was written last.
    pub last: String,
    /// The frames of each segment.
    pub frames: BTreeMap<String, Vec<Frame>>,
    /// How many frames hold a record: more than one where compaction moved it and the old segment is still there.
    copies: BTreeMap<u64, usize>,
}

/// Where some records, or a mark, lie in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub start: usize,
    pub end: usize,
    pub seq: u64,
    /// Numbers of the records in it: one, as many as share it, or none in a mark.
    pub lsns: Range<u64>,
    /// Compaction wrote it: its record is an old one.
    pub is_moved: bool,
    /// When it was written, all frames up to this one were durable.
    pub durable: u64,
}

/// Blocks without content: not worth laying out thousands of times.
const RESERVE: &str = "journal/reserve";
/// Bytes of a frame's header.
pub(crate) const HEADER: usize = 32;
/// Where its kind is.
const KIND: usize = 7;
/// Bytes of what is reserved behind the frames that are kept.
const RESERVED_KEPT: usize = 4 << 10;
/// Kinds from this one on are of frames that records share: of one, of two, and so on.
const GROUP: u8 = 0x40;
/// The longest such frame.
const GROUP_BYTES_MAX: usize = 4096;
/// Kinds from this one on are of moved records.
const MOVED: u8 = 0x80;
/// What is before the payload of a moved record.
const MOVED_PREFIX: usize = 8;
const MARK: u8 = 0xff;

impl Specimen {
    /// Reads a directory that no router runs on. `bench` is scratch.
    pub(crate) fn read(data: &Path, bench: &Bench) -> anyhow::Result<Self> {
        let mut files = Files::new();
        for dir in ["", "journal"] {
            for entry in fs::read_dir(data.join(dir))? {
                let path = entry?.path();
                if path.is_file() {
                    let name = path.strip_prefix(data)?.to_str().context("a file's name")?.to_owned();
                    let bytes = fs::read(&path)?;
                    files.insert(name.clone(), if is_segment(&name) { without_reserved(bytes) } else { bytes });
                }
            }
        }
        files.remove(RESERVE);
        let last = files.keys().rfind(|name| is_segment(name)).context("no segment")?.clone();
        bench.lay(&files)?;
        let (shown, report) = bench.open()?;
        ensure!(report.damaged == 0, "the undamaged journal is damaged: {:?}", report.quarantined);
        // The kill may have cut a write short: what it left is no part of the specimen.
        if let (Some(torn), Some(bytes)) = (report.torn, files.get_mut(&last)) {
            bytes.truncate(usize::try_from(torn.offset)?);
        }
        let specimen = Self::of(files, last)?;
        specimen.insist_right(&shown)?;
        let missing = specimen.missing(&shown);
        ensure!(missing.is_empty(), "LOST: {missing:?}, though nothing was damaged");
        Ok(specimen)
    }

    /// What its frames hold.
    fn of(files: Files, last: String) -> anyhow::Result<Self> {
        let (mut all, mut records, mut copies) = (BTreeMap::new(), Records::new(), BTreeMap::new());
        for (name, bytes) in files.iter().filter(|(name, _)| is_segment(name)) {
            let frames = frames(bytes);
            for frame in &frames {
                let held = held(bytes, frame).with_context(|| format!("{name}: {frame:?}"))?;
                for (lsn, (kind, payload)) in frame.lsns.clone().zip(held) {
                    records.insert(lsn, (kind, payload.to_vec()));
                    *copies.entry(lsn).or_default() += 1;
                }
            }
            all.insert(name.clone(), frames);
        }
        Ok(Self { files, records, last, frames: all, copies })
    }

    /// Frames of the segment that was written last.
    pub(crate) fn last_frames(&self) -> &[Frame] {
        self.frames.get(&self.last).map_or(&[], Vec::as_slice)
    }

    /// Records of the frame that no other frame holds: what is lost with it.
    pub(crate) fn only_in(&self, frame: &Frame) -> Vec<u64> {
        frame.lsns.clone().filter(|lsn| self.copies.get(lsn) == Some(&1)).collect()
    }

    /// Every record in `found` is the one that was written.
    pub(crate) fn insist_right(&self, found: &Records) -> anyhow::Result<()> {
        let wrong = found.iter().find(|(lsn, record)| self.records.get(*lsn) != Some(*record));
        ensure!(wrong.is_none(), "WRONG: record {:?} is not what was written", wrong.map(|(lsn, _)| lsn));
        Ok(())
    }

    /// Numbers of the records that are not in `found`.
    pub(crate) fn missing(&self, found: &Records) -> Vec<u64> {
        self.records.keys().filter(|lsn| !found.contains_key(lsn)).copied().collect()
    }
}

/// Behind the frames there may be megabytes that were reserved and are zeros. Some of them say as much as all.
fn without_reserved(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end + RESERVED_KEPT);
    bytes
}

pub(crate) fn is_segment(name: &str) -> bool {
    name.ends_with(".seg2")
}

/// Frames from the first on, as long as their numbers follow each other.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut found: Vec<Frame> = Vec::new();
    let mut start = 0;
    while let Some(head) = bytes.get(start..).and_then(|rest| rest.first_chunk::<HEADER>()) {
        let len = u32::from_le_bytes([head[4], head[5], head[6], 0]) as usize;
        let long = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let (seq, end) = (long(8), start + (HEADER + len).next_multiple_of(8));
        if seq == 0 || end > bytes.len() || found.last().is_some_and(|before| seq != before.seq + 1) {
            break;
        }
        let back = u32::from_le_bytes([head[28], head[29], head[30], head[31]]);
        let first = long(16);
        let lsns = first..first.saturating_add(records_in(head[KIND]));
        let is_moved = (MOVED..MARK).contains(&head[KIND]);
        found.push(Frame { start, end, seq, lsns, is_moved, durable: seq.saturating_sub(u64::from(back)) });
        start = end;
    }
    found
}

/// How many records a frame of that kind holds.
fn records_in(kind: u8) -> u64 {
    match kind {
        0..GROUP | MOVED..MARK => 1,
        GROUP..MOVED => u64::from(kind - GROUP) + 1,
        MARK => 0,
    }
}

/// Kinds and payloads of the records in a frame, in the order of their numbers.
fn held<'a>(bytes: &'a [u8], frame: &Frame) -> anyhow::Result<Vec<(u8, &'a [u8])>> {
    let frame = &bytes[frame.start..frame.end];
    let len = u32::from_le_bytes([frame[4], frame[5], frame[6], 0]) as usize;
    let payload = &frame[HEADER..HEADER + len];
    match frame[KIND] {
        kind @ 0..GROUP => Ok(vec![(kind, payload)]),
        kind @ GROUP..MOVED => {
            ensure!(frame.len() <= GROUP_BYTES_MAX, "a frame that is shared is too long");
            members(payload, records_in(kind))
        }
        kind @ MOVED..MARK => Ok(vec![(kind - MOVED, payload.get(MOVED_PREFIX..).context("too short")?)]),
        MARK => Ok(Vec::new()),
    }
}

/// Records that share a frame: they fill its payload exactly.
fn members(mut payload: &[u8], records: u64) -> anyhow::Result<Vec<(u8, &[u8])>> {
    let mut members = Vec::new();
    for _ in 0..records {
        let ([kind, low, high], rest) = payload.split_first_chunk().context("a record's length is cut off")?;
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let (member, rest) = rest.split_at_checked(len).context("a record is cut off")?;
        members.push((*kind, member));
        payload = rest;
    }
    ensure!(payload.is_empty(), "there is something behind the last record");
    Ok(members)
}

/// A directory in memory, where specimens are laid out and opened.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(round: &Path) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let ground = if memory.is_dir() { memory } else { round };
        Ok(Self { dir: tempfile::Builder::new().prefix("sheaf-torture-").tempdir_in(ground)? })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Makes the directory hold these files and no others.
    pub(crate) fn lay(&self, files: &Files) -> anyhow::Result<()> {
        lay(&self.path(), files)
    }

    /// Opens the journal as a router does, and shows all of it.
    pub(crate) fn open(&self) -> anyhow::Result<(Records, Report)> {
        let (journal, report) = self.journal()?;
        let mut records = Records::new();
        journal.replay(Lsn(1), &mut |lsn, _, kind, payload| {
            records.insert(lsn.0, (kind, payload.to_vec()));
        })?;
        Ok((records, report))
    }

    pub(crate) fn journal(&self) -> anyhow::Result<(Journal<FileDisk>, Report)> {
        let config = Config { reserve_bytes: 0, ..Config::default() };
        Ok(Journal::open(FileDisk::new(self.path().join("journal")), config)?)
    }
}

/// Makes `dir` hold these files and no others.
pub(crate) fn lay(dir: &Path, files: &Files) -> anyhow::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir.join("journal"))?;
    files.iter().try_for_each(|(name, bytes)| fs::write(dir.join(name), bytes))?;
    Ok(())
}

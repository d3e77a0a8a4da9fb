//! The data directory of a real router, kept in memory: to be laid out damaged, opened, and compared with what it was.
//!
//! It reads frames by itself, and the records in them, so that what lies where is not the word of the code under test. The
//! layout is drawn in `crates/journal/src/frame.rs`, and in `group.rs` that of records which share a frame.

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
    pub form: Form,
    /// Numbers of the records in it: one, as many as share it, or none in a mark.
    pub lsns: Range<u64>,
    /// The records, in the order of their numbers.
    pub parts: Vec<Part>,
    /// When it was written, all frames up to this one were durable.
    pub durable: u64,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Record,
    /// Records that share it.
    Group,
    /// Compaction wrote it: its record is an old one.
    Moved,
    Mark,
}

/// A record in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    kind: u8,
    /// The bytes that are its alone: of a record that does not share its frame, all of it.
    pub bytes: Range<usize>,
    payload: Range<usize>,
}

impl Frame {
    /// The records that a wrong bit in this byte costs. Of a group it costs one at most: a header, padding, and a record's
    /// length are mended.
    pub(crate) fn costs(&self, byte: usize) -> Range<u64> {
        match self.form {
            Form::Record | Form::Moved | Form::Mark => self.lsns.clone(),
            Form::Group => {
                let hit = self.parts.iter().position(|part| part.is_checked_at(byte));
                let first = hit.map_or(self.lsns.start, |ahead| self.lsns.start + ahead as u64);
                first..first + u64::from(hit.is_some())
            }
        }
    }

    /// The header and the padding: what a group's own checksum is of.
    pub(crate) fn frame_bytes(&self) -> [Range<usize>; 2] {
        let behind = self.parts.last().map_or(self.start + HEADER, |part| part.bytes.end);
        [self.start..self.start + HEADER, behind..self.end]
    }
}

impl Part {
    /// True if this byte of a group's record is not of its length.
    pub(crate) fn is_checked_at(&self, byte: usize) -> bool {
        let length = self.bytes.start + MEMBER_LENGTH..self.bytes.start + MEMBER_PREFIX;
        self.bytes.contains(&byte) && !length.contains(&byte)
    }
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
/// What is before the payload of a record in it: checksum, kind, length.
const MEMBER_PREFIX: usize = 7;
/// Where its length is.
const MEMBER_LENGTH: usize = 5;
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
            let frames = frames(bytes).with_context(|| name.clone())?;
            for (lsn, part) in frames.iter().flat_map(|frame| frame.lsns.clone().zip(&frame.parts)) {
                records.insert(lsn, (part.kind, bytes[part.payload.clone()].to_vec()));
                *copies.entry(lsn).or_default() += 1;
            }
            all.insert(name.clone(), frames);
        }
        Ok(Self { files, records, last, frames: all, copies })
    }

    /// Frames of the segment that was written last.
    pub(crate) fn last_frames(&self) -> &[Frame] {
        self.frames.get(&self.last).map_or(&[], Vec::as_slice)
    }

    /// Those of the records that one frame alone holds: with it they are lost.
    pub(crate) fn without_copy(&self, lsns: Range<u64>) -> impl Iterator<Item = u64> {
        lsns.filter(|lsn| self.copies.get(lsn) == Some(&1))
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
fn frames(bytes: &[u8]) -> anyhow::Result<Vec<Frame>> {
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
        let payload = start + HEADER..start + HEADER + len;
        let (form, parts) = parts(bytes, start..end, payload).with_context(|| format!("the frame at {start}"))?;
        let lsns = long(16)..long(16).saturating_add(parts.len() as u64);
        found.push(Frame { start, end, seq, form, lsns, parts, durable: seq.saturating_sub(u64::from(back)) });
        start = end;
    }
    Ok(found)
}

/// The records in a frame.
fn parts(bytes: &[u8], frame: Range<usize>, payload: Range<usize>) -> anyhow::Result<(Form, Vec<Part>)> {
    match bytes[frame.start + KIND] {
        kind @ 0..GROUP => Ok((Form::Record, vec![Part { kind, bytes: frame, payload }])),
        kind @ GROUP..MOVED => {
            ensure!(frame.len() <= GROUP_BYTES_MAX, "a group of {} bytes", frame.len());
            Ok((Form::Group, members(bytes, payload, usize::from(kind - GROUP) + 1)?))
        }
        kind @ MOVED..MARK => {
            let payload = payload.start + MOVED_PREFIX..payload.end;
            Ok((Form::Moved, vec![Part { kind: kind - MOVED, bytes: frame, payload }]))
        }
        MARK => Ok((Form::Mark, Vec::new())),
    }
}

/// Records that share a frame: they fill its payload exactly.
fn members(bytes: &[u8], payload: Range<usize>, count: usize) -> anyhow::Result<Vec<Part>> {
    let (mut found, mut start) = (Vec::new(), payload.start);
    for _ in 0..count {
        let prefix =
            bytes[start..payload.end].first_chunk::<MEMBER_PREFIX>().context("a record's length is cut off")?;
        let [_, _, _, _, kind, low, high] = *prefix;
        let from = start + MEMBER_PREFIX;
        let end = from + usize::from(u16::from_le_bytes([low, high]));
        ensure!(end <= payload.end, "a record is cut off");
        found.push(Part { kind, bytes: start..end, payload: from..end });
        start = end;
    }
    ensure!(start == payload.end, "there is something behind the last record");
    Ok(found)
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

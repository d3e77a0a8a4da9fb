//! The data directory of a real router, kept in memory: to be laid out damaged, opened, and compared with what it was.
//!
//! It reads frames by itself, so that where a record lies is not the word of the code under test. The layout is drawn in
//! `crates/journal/src/frame.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sheaf_journal::{Config, Journal, Lsn, Report};
use sheaf_server::FileDisk;

/// Records by number: kind and payload.
pub(crate) type Records = BTreeMap<u64, (u8, Vec<u8>)>;

/// Files by their path in the directory.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// An undamaged directory and what is in it.
pub(crate) struct Specimen {
    pub files: Files,
    pub records: Records,
    /// The segment that was written last, and its frames.
    pub last: String,
    pub frames: Vec<Frame>,
}

/// Where a record, or a mark, lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub start: usize,
    pub end: usize,
    pub seq: u64,
    /// Of a record; a mark has none.
    pub lsn: Option<u64>,
    /// When it was written, all frames up to this one were durable.
    pub durable: u64,
}

/// Blocks without content: not worth laying out thousands of times.
const RESERVE: &str = "journal/reserve";
const HEADER: usize = 32;
/// Bytes of what is reserved behind the frames that are kept.
const RESERVED_KEPT: usize = 4 << 10;
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
        let frames = frames(&files[&last]);
        bench.lay(&files)?;
        let (records, report) = bench.open()?;
        ensure!(report.damaged == 0, "the undamaged journal is damaged: {:?}", report.quarantined);
        Ok(Self { files, records, last, frames })
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
        let lsn = (head[7] != MARK).then(|| long(16));
        found.push(Frame { start, end, seq, lsn, durable: seq.saturating_sub(u64::from(back)) });
        start = end;
    }
    found
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

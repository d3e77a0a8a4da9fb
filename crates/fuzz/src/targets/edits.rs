//! What may happen to the files of a journal, as bytes: `edit u8 | arguments`. It knows where checksums lie, so that it
//! can forge them, and nothing of what the journal makes of it.
//!
//! A file is named by its place among all names in order; offsets are of two bytes.

use sheaf_journal::Disk;
use sheaf_journal::testing::MemDisk;

use super::frames;

pub(crate) const WORDS: &[&[u8]] = &[
    &[FLIP],
    &[WRITE],
    &[CUT],
    &[SEAL_FRAME],
    &[RENAME],
    &[SEAL_INDEX],
    &[0xff, 0xff, 0xff],
    &[0, 0, 0, 0x80],
    &[0, 0, 0, 0xff],
    &[0, 0, 0, 0x41],
    &[1, 0, 0, 0, 0, 0, 0, 0],
];

const FLIP: u8 = 0;
const WRITE: u8 = 1;
const CUT: u8 = 2;
const REMOVE: u8 = 3;
const COPY: u8 = 4;
const ZERO: u8 = 5;
const APPEND: u8 = 6;
const SEAL_FRAME: u8 = 7;
const RENAME: u8 = 8;
const SEAL_INDEX: u8 = 9;
const KINDS: u8 = 10;

/// Edits of one input at most.
const EDITS_MAX: usize = 24;
/// No file grows beyond.
const FILE_MAX: usize = 32 << 10;

/// How far a directory is from what the journal wrote: what can still be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing happened.
    None,
    /// One bit, at most, is wrong.
    Flip,
    /// Files hold other bytes than were written, under their own names: what a sick disk does.
    Rot,
    /// Names lie, files are gone, or wrong frames check: what only hands can do. Names are proofs to the journal.
    Forgery,
}

/// A script, read from its front; what is missing is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn word(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}

/// Does to the disk what the script says.
pub(crate) fn apply(disk: &mut MemDisk, script: &[u8]) -> Harm {
    let mut script = Script(script);
    let mut harm = Harm::None;
    for _ in 0..EDITS_MAX {
        if script.0.is_empty() {
            break;
        }
        let kind = script.byte() % KINDS;
        let is_forged = matches!(kind, REMOVE | COPY | RENAME | SEAL_FRAME | SEAL_INDEX);
        harm = match (harm, is_forged) {
            (_, true) => Harm::Forgery,
            (Harm::None, false) if kind == FLIP => Harm::Flip,
            (Harm::None | Harm::Flip | Harm::Rot, false) => Harm::Rot,
            (Harm::Forgery, false) => Harm::Forgery,
        };
        let Some(name) = pick(disk, script.byte()) else { break };
        let mut bytes = disk.content(&name).unwrap_or_default().to_vec();
        match kind {
            REMOVE => {
                set(disk, &name, None);
                continue;
            }
            COPY => {
                let Some(to) = pick(disk, script.byte()) else { continue };
                set(disk, &to, Some(&bytes));
                continue;
            }
            RENAME => {
                let to = renamed(&name, script.byte(), script.byte());
                set(disk, &name, None);
                set(disk, &to, Some(&bytes));
                continue;
            }
            _ => {}
        }
        change(&mut bytes, kind, &name, &mut script);
        bytes.truncate(FILE_MAX);
        set(disk, &name, Some(&bytes));
    }
    harm
}

fn change(bytes: &mut Vec<u8>, kind: u8, name: &str, script: &mut Script<'_>) {
    let at = if kind == APPEND { bytes.len() } else { script.word() };
    match kind {
        FLIP => {
            let bit = script.byte() % 8;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        CUT => bytes.truncate(at),
        ZERO => {
            let end = bytes.len().min(at + script.word());
            bytes.get_mut(at.min(end)..end).unwrap_or_default().fill(0);
        }
        SEAL_FRAME => {
            if let (Some(id), Some(frame)) = (frames::segment_of(name), bytes.get_mut(at / 8 * 8..)) {
                frames::seal(id, frame);
            }
        }
        SEAL_INDEX => seal_index(bytes),
        _ => {
            let part = script.bytes();
            let end = at + part.len();
            if end <= FILE_MAX {
                bytes.resize(bytes.len().max(end), 0);
                bytes[at..end].copy_from_slice(part);
            }
        }
    }
}

/// Makes the header's, the first block's and the tail's checksums right, where they can be found.
fn seal_index(bytes: &mut [u8]) {
    const HEADER: usize = 64;
    const BLOCK: usize = 1024;
    if bytes.len() < HEADER + BLOCK + 4 {
        return;
    }
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..HEADER].copy_from_slice(&crc);
    let block = crc32c::crc32c_append(crc32c::crc32c(&0_u64.to_le_bytes()), &bytes[HEADER + 4..HEADER + BLOCK]);
    bytes[HEADER..HEADER + 4].copy_from_slice(&block.to_le_bytes());
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[HEADER + BLOCK..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
}

/// One hexadecimal digit of a name replaced, or its ending.
fn renamed(name: &str, place: u8, digit: u8) -> String {
    let endings = [".seg2", ".free", ".seg2.damaged", ".tmp", ".seg3", ".idx2", "", ".seg1", ".seg1.damaged"];
    let stem = name.split('.').next().unwrap_or(name);
    if place >= 0xf0 {
        return format!("{stem}{}", endings[usize::from(digit) % endings.len()]);
    }
    let mut letters = name.as_bytes().to_vec();
    let place = usize::from(place) % letters.len().max(1);
    if let Some(letter) = letters.get_mut(place) {
        *letter = b"0123456789abcdef-"[usize::from(digit) % 17];
    }
    String::from_utf8_lossy(&letters).into_owned()
}

fn pick(disk: &MemDisk, which: u8) -> Option<String> {
    let files = disk.list().unwrap_or_default();
    let at = usize::from(which) % files.len().max(1);
    files.into_iter().nth(at).map(|file| file.name)
}

/// Writes a file anew, durably, or removes it.
fn set(disk: &mut MemDisk, name: &str, bytes: Option<&[u8]>) {
    disk.truncate(name, 0);
    let done = match bytes {
        Some(bytes) => disk.write(name, 0, bytes).and_then(|()| disk.sync(name)),
        None => disk.remove(name),
    };
    assert!(done.is_ok() || bytes.is_none(), "a disk in memory without faults refuses nothing");
}

pub(crate) fn examples() -> Vec<(String, Vec<u8>)> {
    let scripts: [(&str, &[u8]); 18] = [
        ("untouched-0", &[0]),
        ("untouched-1", &[1]),
        ("untouched-2", &[2]),
        ("untouched-3", &[3]),
        ("untouched-4", &[4]),
        ("untouched-5", &[5]),
        ("untouched-6", &[6]),
        ("untouched-7", &[7]),
        ("flip", &[1, FLIP, 3, 70, 0, 3]),
        ("flip-length", &[1, FLIP, 4, 4, 0, 5]),
        ("cut-tail", &[3, CUT, 255, 100, 0]),
        ("garbage-tail", &[0, APPEND, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("hole", &[1, ZERO, 2, 64, 0, 0, 1]),
        ("gone", &[2, REMOVE, 2]),
        ("copied", &[1, COPY, 3, 4]),
        ("renamed", &[1, RENAME, 5, 15, 9]),
        ("forged-seq", &[0, WRITE, 0, 8, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255, SEAL_FRAME, 0, 0, 0]),
        ("forged-index", &[1, WRITE, 1, 32, 0, 8, 255, 255, 0, 0, 255, 255, 255, 0, SEAL_INDEX, 1]),
    ];
    scripts.iter().chain(&GROUPS).map(|(name, script)| ((*name).to_owned(), script.to_vec())).collect()
}

/// Harm to a frame that records share. In image 4, behind a mark, it is
///
/// ```text
///  32      36    39     40    48    64                   80                   103
///  +-----+-----+------+-----+-----+--------------------+--------------------+---
///  | crc | len | 0x44 | seq | lsn | crc, kind, len ... | crc, kind, len ... |
///  +-----+-----+------+-----+-----+--------------------+--------------------+---
/// ```
const GROUPS: [(&str, &[u8]); 18] = [
    ("group-flip", &[4, FLIP, 0, 90, 0, 3]),
    ("group-flip-length", &[4, FLIP, 0, 85, 0, 2]),
    ("group-flip-lengths", &[4, FLIP, 0, 69, 0, 2, FLIP, 0, 85, 0, 5]),
    ("group-flip-count", &[4, FLIP, 0, 39, 0, 1]),
    ("group-flip-header", &[5, FLIP, 1, 39, 0, 6]),
    ("group-cut", &[4, CUT, 0, 90, 0]),
    ("group-cut-tail", &[7, CUT, 255, 100, 0]),
    ("group-hole", &[5, ZERO, 2, 96, 0, 4, 0]),
    ("group-hole-header", &[5, ZERO, 2, 32, 0, 8, 0]),
    ("group-length-less", &[4, WRITE, 0, 85, 0, 2, 3, 0, SEAL_FRAME, 0, 32, 0]),
    ("group-length-more", &[4, WRITE, 0, 85, 0, 2, 255, 255, SEAL_FRAME, 0, 32, 0]),
    ("group-kind", &[4, WRITE, 0, 84, 0, 1, 0x81, SEAL_FRAME, 0, 32, 0]),
    ("group-count-less", &[4, WRITE, 0, 39, 0, 1, 0x41, SEAL_FRAME, 0, 32, 0]),
    ("group-count-more", &[4, WRITE, 0, 39, 0, 1, 0x4f, SEAL_FRAME, 0, 32, 0]),
    ("group-of-one", &[0, WRITE, 0, 39, 0, 1, 0x40, SEAL_FRAME, 0, 32, 0]),
    ("group-as-record", &[4, WRITE, 0, 39, 0, 1, 3, SEAL_FRAME, 0, 32, 0]),
    ("group-last-number", &[4, WRITE, 0, 48, 0, 8, 253, 255, 255, 255, 255, 255, 255, 255, SEAL_FRAME, 0, 32, 0]),
    ("group-too-long", &[4, WRITE, 0, 36, 0, 2, 0xe8, 0x0f, WRITE, 0, 0x88, 0x13, 1, 0, SEAL_FRAME, 0, 32, 0]),
];

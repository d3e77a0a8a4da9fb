//! An append-only file of small entries, kept short by rewriting it.
//!
//! ```text
//! file    "SHEAFSP1" | frame*
//! frame   len u32le | crc32c u32le | kind u8 | payload[len]        CRC over len, kind and payload
//! ```
//!
//! Entries are written unsynced and synced when the caller asks. What cannot be read at the end was never relied on:
//! it is cut off, and said. It knows nothing of what the entries mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::SpoolError;
use super::dir::failed;

const MAGIC: &[u8; 8] = b"SHEAFSP1";
const HEAD: usize = 9;
/// Largest payload; a longer length is damage.
const PAYLOAD_MAX: usize = 64 << 20;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: u8,
    pub(crate) payload: Bytes,
}

/// The open file, positioned at its end.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    file: File,
    len: u64,
    pending: Vec<u8>,
}

impl Log {
    /// Opens or makes the file: its entries, and the bytes cut off its end.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Vec<Entry>, u64), SpoolError> {
        let path = dir.join("spool");
        let bytes = match fs::read(&path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Bytes::new(),
            Err(error) => return Err(SpoolError::Io { act: "read", path, error }),
        };
        // Short of its first word it was never written to: made anew. Another first word is not ours to overwrite.
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            let (file, len) = create(dir, &[])?;
            return Ok((Self { dir: dir.to_owned(), file, len, pending: Vec::new() }, Vec::new(), bytes.len() as u64));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(SpoolError::Damaged { path });
        }
        let (entries, len) = read(&bytes);
        let file = OpenOptions::new().write(true).open(&path).map_err(failed("open", &path))?;
        file.set_len(len).map_err(failed("cut", &path))?;
        let cut = bytes.len() as u64 - len;
        Ok((Self { dir: dir.to_owned(), file, len, pending: Vec::new() }, entries, cut))
    }

    /// Adds an entry to the next [`Log::write`].
    pub(crate) fn push(&mut self, kind: u8, payload: &[u8]) {
        frame(kind, payload, &mut self.pending);
    }

    /// Writes what was pushed, in one piece. After an error nothing of it is in the file, and it is still pending.
    pub(crate) fn write(&mut self) -> Result<(), SpoolError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        match self.file.write_all_at(&self.pending, self.len) {
            Ok(()) => {
                self.len += self.pending.len() as u64;
                self.pending.clear();
                Ok(())
            }
            // A part may have been written: it is overwritten by the next try, or cut off at the next start.
            Err(error) => Err(self.error("write", error)),
        }
    }

    /// True when something was pushed and not written.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// A handle for syncing elsewhere.
    pub(crate) fn syncer(&self) -> Result<File, SpoolError> {
        self.file.try_clone().map_err(|error| self.error("duplicate", error))
    }

    /// Bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Replaces everything by `entries`, synced; what was pushed and not written is dropped.
    pub(crate) fn rewrite(&mut self, entries: &[Entry]) -> Result<(), SpoolError> {
        let (file, len) = create(&self.dir, entries)?;
        self.file = file;
        self.len = len;
        self.pending.clear();
        Ok(())
    }

    fn error(&self, act: &'static str, error: io::Error) -> SpoolError {
        SpoolError::Io { act, path: self.dir.join("spool"), error }
    }
}

/// A new file in place of the old one, by rename.
fn create(dir: &Path, entries: &[Entry]) -> Result<(File, u64), SpoolError> {
    let aside = dir.join("spool.new");
    let mut bytes = MAGIC.to_vec();
    for entry in entries {
        frame(entry.kind, &entry.payload, &mut bytes);
    }
    let write = || -> io::Result<File> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&aside, dir.join("spool"))?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    };
    let file = write().map_err(failed("write", &aside))?;
    Ok((file, bytes.len() as u64))
}

fn frame(kind: u8, payload: &[u8], into: &mut Vec<u8>) {
    let len = (payload.len() as u32).to_le_bytes();
    into.extend_from_slice(&len);
    into.extend_from_slice(&crc(len, kind, payload).to_le_bytes());
    into.push(kind);
    into.extend_from_slice(payload);
}

fn crc(len: [u8; 4], kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&len), &[kind]), payload)
}

/// The entries before the first frame that is none, and where that stands.
fn read(file: &Bytes) -> (Vec<Entry>, u64) {
    let mut entries = Vec::new();
    let mut rest = file.slice(MAGIC.len()..);
    while rest.len() >= HEAD {
        let mut head = rest.clone();
        let (len, sum, kind) = (head.get_u32_le(), head.get_u32_le(), head.get_u8());
        let size = len as usize;
        if size > PAYLOAD_MAX || head.len() < size || crc(len.to_le_bytes(), kind, &head[..size]) != sum {
            break;
        }
        entries.push(Entry { kind, payload: head.split_to(size) });
        rest = head;
    }
    (entries, (file.len() - rest.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8) -> Entry {
        Entry { kind: n, payload: vec![n; usize::from(n) * 5].into() }
    }

    fn filled(dir: &Path, n: u8) -> Vec<u8> {
        let (mut log, entries, cut) = Log::open(dir).unwrap();
        assert_eq!((entries.len(), cut), (0, 0));
        (0..n).for_each(|n| log.push(n, &entry(n).payload));
        log.write().unwrap();
        log.syncer().unwrap().sync_data().unwrap();
        fs::read(dir.join("spool")).unwrap()
    }

    #[test]
    fn cut_at_every_byte_it_opens_with_what_was_whole_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let whole = filled(dir.path(), 6);
        let mut last = 0;
        for at in 0..=whole.len() {
            fs::write(dir.path().join("spool"), &whole[..at]).unwrap();
            let (mut log, entries, cut) = Log::open(dir.path()).unwrap();
            assert_eq!(entries, (0..entries.len() as u8).map(entry).collect::<Vec<_>>());
            assert!(entries.len() >= last && cut < HEAD as u64 + 26, "at {at}");
            last = entries.len();
            log.push(99, b"more");
            log.write().unwrap();
            let (_, after, cut) = Log::open(dir.path()).unwrap();
            assert_eq!((after.len(), cut), (last + 1, 0), "at {at}");
        }
        assert_eq!(last, 6);
    }

    #[test]
    fn any_flipped_byte_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let whole = filled(dir.path(), 4);
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            fs::write(dir.path().join("spool"), &bad).unwrap();
            match Log::open(dir.path()) {
                Ok((_, entries, cut)) => assert!(entries.len() < 4 && cut > 0, "at {at}"),
                Err(SpoolError::Damaged { .. }) => assert!(at < MAGIC.len()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_rewrite_is_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 6);
        let (mut log, _, _) = Log::open(dir.path()).unwrap();
        log.rewrite(&[entry(3)]).unwrap();
        log.push(7, b"x");
        log.write().unwrap();
        // A crash in the middle of the next rewrite leaves a part of the file aside.
        fs::write(dir.path().join("spool.new"), b"SHEA").unwrap();
        let (_, entries, _) = Log::open(dir.path()).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [3, 7]);
    }

    #[test]
    fn a_full_disk_is_said_and_what_was_pending_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _, _) = Log::open(dir.path()).unwrap();
        let good = std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.push(1, b"one");
        assert!(log.write().unwrap_err().is_full());
        log.push(2, b"two");
        assert!(log.write().is_err());
        log.file = good;
        log.write().unwrap();
        let (_, entries, cut) = Log::open(dir.path()).unwrap();
        assert_eq!((entries.len(), cut), (2, 0));
    }
}

//! A journal that takes batches of records: framing, checksums, commit. The disk takes
//! everything and keeps the lengths.

use std::collections::BTreeMap;

use bytes::Bytes;
use sheaf_journal::{Class, Config, Disk, DiskError, DiskErrorKind, Entry, FileInfo, Journal};
use sheaf_roles::router::kind;

use crate::{BATCH, BATCHES, body};

pub(crate) fn run() -> u64 {
    let (mut journal, _) = Journal::open(Sink::default(), Config::default()).expect("an empty disk");
    for batch in 0..BATCHES {
        let payloads: Vec<Bytes> = (0..BATCH).map(|number| body(batch * BATCH + number)).collect();
        measured(&mut journal, &payloads);
    }
    BATCH * BATCHES
}

#[inline(never)]
fn measured(journal: &mut Journal<Sink>, payloads: &[Bytes]) {
    let entries: Vec<Entry<&Bytes>> = payloads.iter().map(|payload| Entry { kind: kind::SUBMITTED, payload }).collect();
    journal.append(Class::Intake, &entries).expect("there is room");
    journal.commit().expect("a disk that never fails");
}

/// Lengths of files that read as zeros.
#[derive(Default)]
struct Sink {
    files: BTreeMap<String, u64>,
}

impl Disk for Sink {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        Ok(self.files.iter().map(|(name, len)| FileInfo { name: name.clone(), len: *len }).collect())
    }

    fn read(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let len = self.files.get(name).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, name))?;
        let read = buf.len().min(len.saturating_sub(offset) as usize);
        buf[..read].fill(0);
        Ok(read)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let end = offset + bytes.len() as u64;
        match self.files.get_mut(name) {
            Some(len) => *len = end.max(*len),
            None => {
                self.files.insert(name.to_owned(), end);
            }
        }
        Ok(())
    }

    fn reserve(&mut self, _: &str, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let len = self.files.remove(from).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, from))?;
        self.files.insert(to.to_owned(), len);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.files.remove(name).map(|_| ()).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, name))
    }
}

//! How often the disk is asked, and for how much, to read records by number.

use std::cell::Cell;

use super::append;
use crate::testing::{DiskCall, MemDisk};
use crate::{Config, Disk, DiskError, FileInfo, Journal, Lsn, read_many, read_record};

/// A disk that is only read, and remembers how.
struct Metered {
    disk: MemDisk,
    reads: Cell<usize>,
    longest: Cell<usize>,
}

impl Disk for Metered {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        self.disk.list()
    }

    fn read(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        self.reads.set(self.reads.get() + 1);
        self.longest.set(self.longest.get().max(buf.len()));
        self.disk.read(name, offset, buf)
    }

    fn write(&mut self, _: &str, _: u64, _: &[u8]) -> Result<(), DiskError> {
        unreachable!("it is only read")
    }

    fn reserve(&mut self, _: &str, _: u64) -> Result<(), DiskError> {
        unreachable!("it is only read")
    }

    fn sync(&mut self, _: &str) -> Result<(), DiskError> {
        unreachable!("it is only read")
    }

    fn rename(&mut self, _: &str, _: &str) -> Result<(), DiskError> {
        unreachable!("it is only read")
    }

    fn remove(&mut self, _: &str) -> Result<(), DiskError> {
        unreachable!("it is only read")
    }
}

/// Reads these of 750 records of 800 bytes, in segments of 128 KiB or of 1 MiB: reads of the disk, and the longest.
fn cost(segment_bytes: u32, lsns: &[Lsn]) -> (usize, usize) {
    let config = Config { segment_bytes, ..super::config() };
    let (mut journal, _) = Journal::open(MemDisk::new(), config).unwrap();
    for i in 0..75_u64 {
        append(&mut journal, &[i.to_le_bytes().repeat(100).as_slice(); 10]);
    }
    journal.commit().unwrap();
    let map = journal.map().clone();
    let disk = Metered { disk: journal.into_disk(), reads: Cell::new(0), longest: Cell::new(0) };
    let mut seen = Vec::new();
    read_many(&disk, &map, lsns, &mut |lsn, record| {
        assert_eq!(record.unwrap().payload[..8], ((lsn.0 - 1) / 10).to_le_bytes());
        seen.push(lsn);
    });
    assert_eq!(seen, lsns);
    (disk.reads.get(), disk.longest.get())
}

#[test]
fn neighbours_share_long_reads_and_never_too_long_ones() {
    let all: Vec<_> = (1..=750).map(Lsn).collect();
    // About 620 KB: three reads of 256 KiB are the least.
    let (reads, longest) = cost(1 << 20, &all);
    assert!((3..=5).contains(&reads) && longest <= 256 << 10, "{reads} reads, the longest of {longest} bytes");
    // Five segments, each less than one long read: none reaches into the next.
    let (reads, longest) = cost(128 << 10, &all);
    assert!((5..=8).contains(&reads) && longest <= 136 << 10, "{reads} reads, the longest of {longest} bytes");
}

#[test]
fn what_is_far_apart_is_read_alone() {
    let far: Vec<_> = [1, 375, 750].map(Lsn).to_vec();
    assert_eq!(cost(1 << 20, &far), (3, 8 << 10));
}

#[test]
fn a_single_record_costs_one_short_read() {
    let (mut journal, _) = Journal::open(MemDisk::new(), Config { segment_bytes: 1 << 20, ..super::config() }).unwrap();
    for i in 0..500_u64 {
        append(&mut journal, &[&i.to_le_bytes().repeat(25)]);
    }
    journal.commit().unwrap();
    for lsn in [1, 20, 21, 250, 500] {
        let before = journal.disk().calls(DiskCall::Read);
        read_record(journal.disk(), journal.map(), Lsn(lsn)).unwrap();
        assert!(journal.disk().calls(DiskCall::Read) - before <= 2, "record {lsn}");
    }
}

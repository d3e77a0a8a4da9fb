//! The journal under test: on a disk in memory, against what was appended.

use std::collections::BTreeMap;

use crate::testing::MemDisk;
use crate::{Class, Config, Entry, Journal, Lsn, Report};

mod agree;
mod basics;
mod crash;
mod damage;
mod failures;
mod reading;
mod space;

/// Small files, so that a test crosses many of them.
pub(crate) fn config() -> Config {
    Config { segment_bytes: 4096, reserve_bytes: 2048, ..Config::default() }
}

pub(crate) fn open(disk: MemDisk) -> (Journal<MemDisk>, Report) {
    Journal::open(disk, config()).expect("the journal opens")
}

pub(crate) fn append(journal: &mut Journal<MemDisk>, payloads: &[&[u8]]) -> Lsn {
    let entries: Vec<_> = payloads.iter().map(|payload| Entry { kind: 1, payload }).collect();
    journal.append(Class::Intake, &entries).expect("there is room")
}

/// Everything in the journal, after checking that replay and reading by number agree and the order is that of numbers.
pub(crate) fn contents(journal: &Journal<MemDisk>) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut last = Lsn::ZERO;
    let mut visit = |lsn: Lsn, epoch, kind, payload: &[u8]| {
        assert!(lsn > last, "{lsn} is shown after {last}");
        last = lsn;
        let record = journal.read(lsn).expect("what is shown can be read");
        assert_eq!((record.lsn, record.epoch, record.kind, &record.payload[..]), (lsn, epoch, kind, payload));
        found.insert(lsn.0, payload.to_vec());
    };
    journal.replay(Lsn(1), &mut visit).expect("the disk can be read");
    found
}

/// A tiny generator for choices of tests.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

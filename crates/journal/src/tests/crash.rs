//! Crashes: power cuts that keep any subset of what was not synced, ends of the process, syncs that fail, calls that never
//! return, at any moment, also of recovery and compaction. Checked against a model: nothing acknowledged is lost, nothing
//! is made up, order is kept.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dice, config};
use crate::testing::{DiskCall, FailCall, MemDisk};
use crate::writer::LONG;
use crate::{Class, Config, DiskErrorKind, Entry, Journal, Keep, Lsn, Mutation};

/// What the journal must hold.
#[derive(Default)]
struct Model {
    /// All that was ever appended and may be there.
    appended: BTreeMap<u64, Vec<u8>>,
    /// Up to here it must be there.
    acked: u64,
    /// Compaction was told to let these go: they may be there.
    let_go: BTreeSet<u64>,
}

impl Model {
    fn check(&self, found: &BTreeMap<u64, Vec<u8>>) -> Result<(), String> {
        for (lsn, payload) in found {
            match self.appended.get(lsn) {
                None => return Err(format!("record {lsn} was never appended")),
                Some(wanted) if wanted != payload => return Err(format!("record {lsn} has other bytes")),
                Some(_) => {}
            }
        }
        let last = found.last_key_value().map_or(0, |(last, _)| *last);
        for lsn in self.appended.keys().filter(|lsn| **lsn <= self.acked.max(last)) {
            if !found.contains_key(lsn) && !self.let_go.contains(lsn) {
                return Err(format!("record {lsn} is lost (acknowledged {}, last {last})", self.acked));
            }
        }
        Ok(())
    }

    /// After an open all that was found was shown, so it must stay.
    fn settle(&mut self, last: u64) {
        self.appended.retain(|lsn, _| *lsn <= last);
        self.acked = last;
    }
}

fn found_in(journal: &Journal<MemDisk>) -> Result<BTreeMap<u64, Vec<u8>>, String> {
    let (mut found, mut last) = (BTreeMap::new(), 0);
    let mut order = Ok(());
    let visit = &mut |lsn: Lsn, _, _, payload: &[u8]| {
        if lsn.0 <= last {
            order = Err(format!("record {lsn} is shown after {last}"));
        }
        last = lsn.0;
        found.insert(lsn.0, payload.to_vec());
    };
    journal.replay(Lsn(1), visit).map_err(|error| error.to_string())?;
    order?;
    for (lsn, payload) in &found {
        let record = journal.read(Lsn(*lsn)).map_err(|error| error.to_string())?;
        if record.payload != payload.as_slice() {
            return Err(format!("record {lsn} reads differently"));
        }
    }
    Ok(found)
}

/// Runs a process until a call fails, or for a while.
fn live(journal: &mut Journal<MemDisk>, model: &mut Model, dice: &mut Dice) {
    for _ in 0..dice.below(60) {
        match dice.below(10) {
            0..=4 => {
                let batch: Vec<_> = (0..dice.below(6) + 1)
                    .map(|_| {
                        let len = match dice.below(60) {
                            0 => LONG + dice.below(20) as usize,
                            1..=3 => dice.below(3000) as usize,
                            _ => dice.below(200) as usize,
                        };
                        Entry { kind: 1, payload: vec![dice.below(256) as u8; len] }
                    })
                    .collect();
                for (at, entry) in batch.iter().enumerate() {
                    model.appended.insert(journal.last().0 + 1 + at as u64, entry.payload.clone());
                }
                if journal.append(Class::Intake, &batch).is_err() {
                    return;
                }
            }
            5 | 6 => match journal.commit() {
                Ok(committed) => model.acked = committed.durable.0,
                Err(_) => return,
            },
            7 => match journal.mark_idle() {
                Ok(committed) => model.acked = committed.durable.0,
                Err(_) => return,
            },
            _ => {
                let judge = &mut |lsn: Lsn, _, _: &[u8]| match lsn.0 % 3 {
                    0 => Keep::Keep,
                    _ => {
                        model.let_go.insert(lsn.0);
                        Keep::Drop
                    }
                };
                if journal.compact(700, judge).is_err() {
                    return;
                }
            }
        }
    }
}

/// A few lives of one journal.
fn story(seed: u64, mutation: Option<Mutation>) -> Result<(), String> {
    let dice = &mut Dice(seed);
    let config = Config { mutation, ..config() };
    let (mut disk, mut model) = (MemDisk::new(), Model::default());
    for _ in 0..6 {
        if dice.below(4) == 0 {
            disk.faults.calls_left = Some(dice.below(12));
            if Journal::open(&mut disk, config.clone()).is_err() {
                disk.crash(&mut |n| dice.below(n));
            }
            disk.kill();
        }
        let (mut journal, report) = Journal::open(disk, config.clone()).map_err(|error| error.to_string())?;
        if !report.quarantined.is_empty() {
            return Err(format!("damage where there is none: {:?}", report.quarantined));
        }
        let found = found_in(&journal)?;
        model.check(&found)?;
        let last = journal.last().0;
        model.settle(last);
        let syncs = journal.disk().calls(DiskCall::Sync);
        let failing_sync = |number| FailCall { call: DiskCall::Sync, number, kind: DiskErrorKind::Io };
        let faults = &mut journal.disk_mut().faults;
        faults.calls_left = (dice.below(3) == 0).then(|| dice.below(40));
        faults.fail_call = (dice.below(6) == 0).then(|| failing_sync(syncs + 1 + dice.below(5)));
        live(&mut journal, &mut model, dice);
        disk = journal.into_disk();
        match dice.below(3) {
            0 => disk.kill(),
            _ => disk.crash(&mut |n| dice.below(n)),
        }
    }
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_made_up() {
    for seed in 0..SEEDS {
        story(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn acknowledging_before_the_sync_is_caught() {
    assert!((0..SEEDS).any(|seed| story(seed, Some(Mutation::AckBeforeSync)).is_err()));
}

#[test]
fn relying_on_an_unconfirmed_tail_where_it_lies_is_caught() {
    assert!((0..SEEDS).any(|seed| story(seed, Some(Mutation::NoTailCopy)).is_err()));
}

#[test]
fn compaction_and_recovery_may_stop_at_any_call() {
    let mut journal = Journal::open(MemDisk::new(), config()).unwrap().0;
    let mut model = Model::default();
    for lsn in 1..=150_u64 {
        model.appended.insert(lsn, lsn.to_le_bytes().repeat(12));
        journal.append(Class::Intake, &[Entry { kind: 1, payload: &model.appended[&lsn] }]).unwrap();
    }
    model.acked = journal.commit().unwrap().durable.0;
    let start = journal.into_disk();
    for calls in 0..80 {
        let mut disk = start.clone();
        disk.faults.calls_left = Some(calls);
        let keeps = |lsn: u64| lsn.is_multiple_of(4);
        model.let_go = (1..=150).filter(|lsn| !keeps(*lsn)).collect();
        if let Ok((mut journal, _)) = Journal::open(&mut disk, config()) {
            let judge = &mut |lsn: Lsn, _, _: &[u8]| if keeps(lsn.0) { Keep::Keep } else { Keep::Drop };
            for _ in 0..40 {
                if journal.compact(600, judge).is_err() || journal.commit().is_err() {
                    break;
                }
            }
        }
        let mut dice = Dice(calls);
        disk.crash(&mut |n| dice.below(n));
        let journal = Journal::open(disk, config()).unwrap().0;
        let found = found_in(&journal).unwrap_or_else(|error| panic!("after {calls} calls: {error}"));
        model.check(&found).unwrap_or_else(|error| panic!("after {calls} calls: {error}"));
        assert_eq!(journal.last(), Lsn(150));
    }
}

/// Each is a few lives with some hundred calls.
const SEEDS: u64 = 2000;

#[test]
fn a_long_unconfirmed_tail_is_copied_whole_and_only_the_tail() {
    let config = Config { segment_bytes: 32 << 20, reserve_bytes: 0, ..Config::default() };
    let mut journal = Journal::open(MemDisk::new(), config.clone()).unwrap().0;
    let batch = |fill: u8| vec![Entry { kind: 1, payload: vec![fill; 1000] }; 100];
    for fill in 0..10 {
        journal.append(Class::Intake, &batch(fill)).unwrap();
    }
    journal.commit().unwrap();
    for fill in 10..60 {
        journal.append(Class::Intake, &batch(fill)).unwrap();
    }
    let wanted = found_in(&journal).unwrap();
    let mut disk = journal.into_disk();
    disk.kill();
    let (journal, report) = Journal::open(disk, config.clone()).unwrap();
    assert_eq!(report.copied, 50 * 25, "four records share a frame");
    let mut disk = journal.into_disk();
    disk.crash(&mut |_| 0);
    let (journal, report) = Journal::open(disk, config).unwrap();
    assert_eq!(found_in(&journal).unwrap(), wanted);
    assert_eq!((report.copied, report.torn, report.segments), (1, None, 3), "all but the mark is confirmed");
}

//! Every way to read a journal shows the same records: whole replays and slices of them, by number, many at once, and segment by
//! segment; in groups and alone, moved and not, with a flipped bit and without.

use std::collections::BTreeMap;

use super::Dice;
use crate::testing::MemDisk;
use crate::{Class, Config, Disk, Entry, Journal, Keep, Lsn, ReadError, read_many};

type Records = BTreeMap<u64, (u8, Vec<u8>)>;

fn config(dice: &mut Dice) -> Config {
    Config { segment_bytes: [4096, 16_384, 65_536][dice.below(3) as usize], reserve_bytes: 0, ..Config::default() }
}

/// Lengths around those by which it is decided what shares a frame.
fn payload(dice: &mut Dice, most: u64) -> Vec<u8> {
    let len = match dice.below(30) {
        0 => dice.below(12_000),
        1 => 4000 + dice.below(130),
        _ => dice.below(most),
    };
    vec![dice.below(256) as u8; len as usize]
}

/// A journal after some appends, compactions and restarts, and what must be in it.
fn lived(dice: &mut Dice, config: &Config) -> (Journal<MemDisk>, Records) {
    let (mut journal, mut wanted) = (Journal::open(MemDisk::new(), config.clone()).unwrap().0, Records::new());
    let (most, at_once) = [(12, 150), (400, 20), (400, 2)][dice.below(3) as usize];
    for _ in 0..dice.below(60) + 5 {
        match dice.below(9) {
            0..=5 => {
                let entry = |dice: &mut Dice| Entry { kind: dice.below(64) as u8, payload: payload(dice, most) };
                let batch: Vec<_> = (0..dice.below(at_once) + 1).map(|_| entry(dice)).collect();
                let first = journal.last().0 + 1;
                wanted.extend((first..).zip(&batch).map(|(lsn, entry)| (lsn, (entry.kind, entry.payload.clone()))));
                journal.append(Class::Intake, &batch).unwrap();
            }
            6 => _ = journal.commit().unwrap(),
            7 => {
                let keep = &mut |lsn: Lsn, _, _: &[u8]| match lsn.0 % 3 {
                    0 => Keep::Keep,
                    _ => {
                        wanted.remove(&lsn.0);
                        Keep::Drop
                    }
                };
                journal.compact(1 + dice.below(9000) as usize, keep).unwrap();
            }
            _ => {
                journal.commit().unwrap();
                journal = Journal::open(journal.into_disk(), config.clone()).unwrap().0;
            }
        }
    }
    journal.mark_idle().unwrap();
    (journal, wanted)
}

fn in_slices(journal: &Journal<MemDisk>, dice: &mut Dice) -> Records {
    let (mut shown, mut next) = (Records::new(), Some(Lsn(1)));
    while let Some(from) = next {
        let mut visit = |lsn: Lsn, _, kind, payload: &[u8]| {
            assert!(shown.last_key_value().is_none_or(|(last, _)| *last < lsn.0), "{lsn} is out of order");
            shown.insert(lsn.0, (kind, payload.to_vec()));
        };
        next = journal.replay_slice(from, 1 + dice.below(300) as usize, &mut visit).unwrap();
    }
    shown
}

fn by_segment(journal: &Journal<MemDisk>) -> (Records, Records) {
    let (mut newest, mut all) = (Records::new(), Records::new());
    for view in journal.sealed_views().into_iter().chain([journal.active_view()]) {
        let mut visit = |lsn: Lsn, _, kind, payload: &[u8]| {
            assert!(newest.insert(lsn.0, (kind, payload.to_vec())).is_none(), "{lsn} is the newest in two segments");
        };
        if !journal.scan_segment(view.id(), &mut visit).unwrap() {
            // Only the sealed ones are shown so.
            view.scan(journal.disk(), &mut |lsn, _, kind, payload| {
                newest.insert(lsn.0, (kind, payload.to_vec()));
            })
            .unwrap();
        }
        let mut visit = |lsn: Lsn, _, kind, payload: &[u8]| _ = all.insert(lsn.0, (kind, payload.to_vec()));
        view.scan(journal.disk(), &mut visit).unwrap();
    }
    (newest, all)
}

fn flip_somewhere(journal: &mut Journal<MemDisk>, dice: &mut Dice) {
    let files = journal.disk().list().unwrap();
    let file = &files[dice.below(files.len() as u64) as usize];
    if file.len > 0 {
        journal.disk_mut().flip(&file.name, dice.below(file.len * 8));
    }
}

#[test]
fn every_way_to_read_shows_the_same() {
    for seed in 0..250 {
        let dice = &mut Dice(seed);
        let config = config(dice);
        let (mut journal, wanted) = lived(dice, &config);
        let is_damaged = dice.below(2) == 0;
        if is_damaged {
            flip_somewhere(&mut journal, dice);
            if dice.below(2) == 0 {
                journal = Journal::open(journal.into_disk(), config).unwrap().0;
            }
        }
        let shown = in_slices(&journal, dice);
        let mut whole = Records::new();
        journal.replay(Lsn(1), &mut |lsn, _, kind, payload| _ = whole.insert(lsn.0, (kind, payload.to_vec()))).unwrap();
        assert_eq!(shown, whole, "seed {seed}");
        assert!(shown.iter().all(|(lsn, record)| wanted.get(lsn).is_none_or(|wanted| wanted == record)), "seed {seed}");
        let missing = wanted.keys().filter(|lsn| !shown.contains_key(lsn)).count();
        assert!(missing <= usize::from(is_damaged), "seed {seed}: {missing} are missing");
        let (newest, all) = by_segment(&journal);
        assert!(shown.iter().all(|(lsn, record)| newest.get(lsn) == Some(record)), "seed {seed}");
        assert!(newest.iter().all(|(lsn, record)| all.get(lsn) == Some(record)), "seed {seed}");
        read_in_any_order(&journal, &shown, dice);
    }
}

fn read_in_any_order(journal: &Journal<MemDisk>, shown: &Records, dice: &mut Dice) {
    let mut lsns: Vec<_> = (1..=journal.last().0 + 2).map(Lsn).collect();
    (1..lsns.len()).rev().for_each(|at| lsns.swap(at, dice.below(at as u64 + 1) as usize));
    lsns.truncate(1 + dice.below(lsns.len() as u64) as usize);
    lsns.push(lsns[0]);
    let mut told = 0;
    read_many(journal.disk(), journal.map(), &lsns, &mut |lsn, record| {
        told += 1;
        assert_eq!(record, journal.read(lsn));
        match record {
            Ok(record) => assert_eq!(Some(&(record.kind, record.payload.to_vec())), shown.get(&lsn.0), "{lsn}"),
            Err(ReadError::Missing { .. } | ReadError::Corrupt { .. }) => assert_eq!(shown.get(&lsn.0), None, "{lsn}"),
            Err(error) => panic!("{error}"),
        }
    });
    assert_eq!(told, lsns.len());
}

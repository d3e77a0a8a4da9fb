//! Damage: torn tails cut at every byte, bits flipped anywhere. What is left is what was appended, and what is not is named.

use std::collections::BTreeMap;

use super::{Dice, append, config, contents, open};
use crate::testing::MemDisk;
use crate::{Config, Disk, Journal, Lsn, Mutation, ReadError, Report};

/// The journal's segment files, oldest first.
fn segments(disk: &MemDisk) -> Vec<String> {
    let files = disk.list().unwrap();
    files.into_iter().map(|file| file.name).filter(|name| name.ends_with(".seg2")).collect()
}

/// A journal of records of many sizes, over several segments, that ended in a clean idle.
fn clean(records: u64) -> (MemDisk, BTreeMap<u64, Vec<u8>>) {
    clean_of(records, 1)
}

/// The same, of records that came so many at once, and so share frames.
fn clean_of(records: u64, at_once: usize) -> (MemDisk, BTreeMap<u64, Vec<u8>>) {
    let (mut journal, _) = open(MemDisk::new());
    let payloads: Vec<_> = (0..records).map(|i| i.to_le_bytes().repeat(1 + (i as usize * 7) % 60)).collect();
    for (i, batch) in payloads.chunks(at_once).enumerate() {
        append(&mut journal, &batch.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if i % 5 == 0 {
            journal.commit().unwrap();
        }
    }
    journal.mark_idle().unwrap();
    let wanted = contents(&journal);
    (journal.into_disk(), wanted)
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_record() {
    let (mut journal, _) = open(MemDisk::new());
    append(&mut journal, &[b"acknowledged"]);
    journal.commit().unwrap();
    append(&mut journal, &[b"first"]);
    append(&mut journal, &[b"second", b"and third, a little longer"]);
    append(&mut journal, &[b""]);
    append(&mut journal, &[b"fifth"]);
    let len = journal.bytes() as usize;
    let disk = journal.into_disk();
    let file = segments(&disk).remove(0);
    let mut seen = BTreeMap::new();
    for cut in len - (40 + 80 + 32 + 40)..=len {
        let mut disk = disk.clone();
        disk.truncate(&file, cut);
        let (journal, report) = open(disk);
        assert!(report.quarantined.is_empty(), "{cut}: a tail is no damage");
        *seen.entry(contents(&journal).len()).or_insert(0) += 1;
        assert_eq!(journal.last().0 as usize, contents(&journal).len());
    }
    let seen = seen.into_keys().collect::<Vec<_>>();
    assert_eq!(seen, [1, 2, 4, 5, 6], "of an unconfirmed tail those in one frame are there together or not");
}

#[test]
fn garbage_in_the_tail_is_cut_and_never_shown() {
    let (mut journal, _) = open(MemDisk::new());
    append(&mut journal, &[b"acknowledged"]);
    journal.commit().unwrap();
    (1..4).for_each(|fill| _ = append(&mut journal, &[&[fill; 90]]));
    let len = journal.bytes();
    let disk = journal.into_disk();
    let file = segments(&disk).remove(0);
    let tail = (len - 3 * 128) * 8..len * 8;
    for bit in tail.clone() {
        let mut disk = disk.clone();
        disk.flip(&file, bit);
        let (journal, report) = open(disk);
        let hit = (bit - tail.start) / (128 * 8);
        assert_eq!(contents(&journal).len() as u64, 1 + hit, "all before the damage, nothing behind it");
        assert!(report.quarantined.is_empty());
        assert!(report.torn.is_some(), "bit {} of frame {hit}: the cut is said", (bit - tail.start) % (128 * 8));
    }
}

/// Flips a bit of a clean journal, opens it and says how many records are gone; checks all that must hold.
fn flip(disk: &MemDisk, wanted: &BTreeMap<u64, Vec<u8>>, dice: &mut Dice, config: Config) -> Result<Report, String> {
    let mut disk = disk.clone();
    let files = segments(&disk);
    let file = &files[dice.below(files.len() as u64) as usize];
    let len = disk.content(file).unwrap().len() as u64;
    let bit = dice.below(len * 8);
    disk.flip(file, bit);
    let (journal, report) = Journal::open(disk, config).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    journal
        .replay(Lsn(1), &mut |lsn, _, _, payload| {
            found.insert(lsn.0, payload.to_vec());
        })
        .map_err(|error| error.to_string())?;
    if found.iter().any(|(lsn, payload)| wanted.get(lsn) != Some(payload)) {
        return Err("wrong bytes".into());
    }
    let lost: Vec<u64> = wanted.keys().filter(|lsn| !found.contains_key(lsn)).copied().collect();
    let named: Vec<u64> = report.quarantined.iter().flat_map(|place| place.lsns.clone()).collect();
    if lost.len() > 1 || lost != named {
        return Err(format!("bit {bit} of {file}: lost {lost:?}, named {named:?}"));
    }
    for lsn in lost {
        if !matches!(journal.read(Lsn(lsn)), Err(ReadError::Corrupt { .. })) {
            return Err(format!("record {lsn} is lost and reads well"));
        }
    }
    Ok(report)
}

#[test]
fn a_flipped_bit_costs_one_named_record_at_most() {
    let (disk, wanted) = clean(100);
    let dice = &mut Dice(6);
    let mut hits = 0;
    for _ in 0..3000 {
        let report = flip(&disk, &wanted, dice, config()).unwrap_or_else(|error| panic!("{error}"));
        hits += report.damaged;
    }
    assert!(hits > 2500, "nearly every bit matters: {hits}");
}

#[test]
fn a_flipped_bit_costs_one_named_record_at_most_where_they_share_frames() {
    let (disk, wanted) = clean_of(300, 7);
    let dice = &mut Dice(9);
    let mut hits = [0; 2];
    for _ in 0..3000 {
        let report = flip(&disk, &wanted, dice, config()).unwrap_or_else(|error| panic!("{error}"));
        let named: u64 = report.quarantined.iter().map(|place| place.lsns.end - place.lsns.start).sum();
        hits[named as usize] += report.damaged;
    }
    assert!(hits.iter().sum::<u64>() > 2000, "nearly every bit matters: {hits:?}");
    assert!(hits[0] > 30, "a header or a length is mended: {hits:?}");
}

#[test]
fn trusting_a_damaged_length_is_caught() {
    let (disk, wanted) = clean(100);
    let (dice, config) = (&mut Dice(7), Config { mutation: Some(Mutation::TrustLength), ..config() });
    assert!((0..3000).any(|_| flip(&disk, &wanted, dice, config.clone()).is_err()));
}

#[test]
fn damage_in_a_running_journal_is_never_read_as_a_record() {
    let dice = &mut Dice(8);
    let disks = [clean(100), clean_of(200, 9)];
    for (disk, wanted) in disks.iter().cycle().take(2000) {
        let (mut journal, _) = open(disk.clone());
        let files = segments(journal.disk());
        let file = &files[dice.below(files.len() as u64) as usize];
        let bit = dice.below(journal.disk().content(file).unwrap().len() as u64 * 8);
        journal.disk_mut().flip(file, bit);
        let mut lost = 0;
        for (lsn, payload) in wanted {
            match journal.read(Lsn(*lsn)) {
                Ok(record) => assert_eq!(record.payload[..], payload[..]),
                Err(ReadError::Corrupt { .. }) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lost <= 1);
    }
}

#[test]
fn a_segment_that_vanished_is_named_by_the_records_in_it() {
    let (mut disk, wanted) = clean(100);
    let file = segments(&disk).remove(1);
    disk.remove(&file).unwrap();
    let (journal, report) = open(disk);
    assert_eq!(report.quarantined.len(), 1);
    let lost = report.quarantined[0].lsns.clone();
    assert!(lost.end - lost.start > 5);
    assert!(
        lost.clone()
            .all(|lsn| matches!(journal.read(Lsn(lsn)), Err(ReadError::Corrupt { .. } | ReadError::Missing { .. })))
    );
    assert_eq!(contents(&journal).len() as u64, wanted.len() as u64 - (lost.end - lost.start));
}

#[test]
fn a_damaged_segment_is_kept_as_evidence_when_it_is_compacted() {
    let (mut disk, wanted) = clean(100);
    let file = segments(&disk).remove(0);
    disk.flip(&file, 100 * 8);
    let (mut journal, report) = open(disk);
    assert_eq!(report.damaged, 1);
    while journal.disk().content(&file).is_some() {
        journal.compact(1 << 20, &mut |_, _, _| crate::Keep::Keep).unwrap();
        journal.commit().unwrap();
    }
    assert!(journal.disk().content(&format!("{file}.damaged")).is_some());
    assert_eq!(contents(&journal).len(), wanted.len() - 1);
}

/// Found by the fuzzer: a broken group of the tail, right behind a damaged frame, passed for durable under that one's number.
#[test]
fn a_broken_group_behind_a_damaged_frame_is_cut() {
    let (mut journal, _) = open(MemDisk::new());
    append(&mut journal, &[b"kept"]);
    append(&mut journal, &[b"the victim"]);
    journal.commit().unwrap();
    append(&mut journal, &[b"one".as_slice(), b"two", b"three"]);
    append(&mut journal, &[b"after them"]);
    let mut disk = journal.into_disk();
    let file = segments(&disk).remove(0);
    let place =
        |what: &[u8]| disk.content(&file).unwrap().windows(what.len()).position(|bytes| bytes == what).unwrap() as u64;
    let (victim, two) = (place(b"the victim"), place(b"two"));
    disk.flip(&file, victim * 8);
    disk.flip(&file, two * 8);
    let (journal, report) = open(disk);
    assert_eq!(contents(&journal).into_values().collect::<Vec<_>>(), [b"kept"]);
    assert!(report.torn.is_some() && journal.last() >= Lsn(2), "{report:?}");
}

/// The last record is damaged and only moved records follow it: they prove that it was durable, but do not tell its number.
#[test]
fn the_number_of_a_damaged_last_record_is_never_given_again() {
    let alone = [b"the victim".as_slice()];
    let many = [[b"the victim".as_slice()].as_slice(), &[b"and others".as_slice(); 8]].concat();
    for (pad, victims) in (0..30).zip([alone.as_slice(), &many].into_iter().cycle()) {
        let (mut journal, _) = open(clean(100 + pad).0);
        let victim = append(&mut journal, victims);
        for _ in 0..3 {
            journal.commit().unwrap();
            journal.compact(300, &mut |_, _, _| crate::Keep::Keep).unwrap();
        }
        let mut disk = journal.into_disk();
        let holds = |file: &String| disk.content(file).unwrap().windows(10).position(|bytes| bytes == b"the victim");
        let (file, at) = segments(&disk)
            .into_iter()
            .find_map(|file| Some((holds(&file)?, file)))
            .map(|(at, file)| (file, at))
            .unwrap();
        // One bit of one that is alone; of those that share a frame all of it.
        let hit = if victims.len() == 1 { at..at + 1 } else { at - 39..at + 130 };
        hit.for_each(|byte| disk.flip(&file, byte as u64 * 8));
        let (journal, report) = open(disk);
        assert!(report.next > victim && report.next.0 < victim.0 + 30, "{pad}: {report:?}");
        assert!(report.quarantined.iter().any(|place| place.lsns.contains(&victim.0)));
        assert!(matches!(journal.read(victim), Err(ReadError::Corrupt { .. })));
    }
}

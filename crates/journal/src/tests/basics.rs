//! What a journal does on a disk that works.

use super::{append, config, contents, open};
use crate::testing::{DiskCall, MemDisk};
use crate::writer::LONG;
use crate::{
    AppendError, Class, Config, Disk, Entry, Epoch, Journal, Lsn, Map, OpenError, RECORD_MAX, ReadError, read_many,
    read_record,
};

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let (mut journal, report) = open(MemDisk::new());
    assert_eq!((report.epoch, report.next, report.records), (Epoch(1), Lsn(1), 0));
    assert_eq!(append(&mut journal, &[b"one", b"two", b""]), Lsn(3));
    assert_eq!(journal.durable(), Lsn::ZERO);
    assert_eq!(journal.commit().unwrap().durable, Lsn(3));
    assert_eq!(journal.durable(), Lsn(3));
    let before = contents(&journal);
    let (journal, report) = open(journal.into_disk());
    assert_eq!((report.epoch, report.next, report.records), (Epoch(2), Lsn(4), 3));
    assert_eq!(contents(&journal), before);
    assert_eq!(before.len(), 3);
}

#[test]
fn records_of_every_size_cross_segments_and_are_read_back() {
    let (mut journal, _) = open(MemDisk::new());
    let mut wanted = Vec::new();
    for i in 0..400_usize {
        let len = [0, 1, 7, 200, 3000, 5000, 100_000][i % 7] + i;
        wanted.push(vec![i as u8; len]);
        append(&mut journal, &[&wanted[i]]);
        if i % 3 == 0 {
            journal.commit().unwrap();
        }
    }
    append(&mut journal, &[&vec![9; 1_100_000]]);
    journal.commit().unwrap();
    assert!(journal.segments().count() > 50);
    let found = contents(&journal);
    assert_eq!(found.len(), 401);
    assert!(wanted.iter().zip(found.values()).all(|(wanted, found)| wanted == found));
    let (journal, _) = open(journal.into_disk());
    assert_eq!(contents(&journal), found);
    assert!(matches!(journal.read(Lsn(402)), Err(ReadError::Missing { .. })));
    assert!(matches!(journal.read(Lsn(0)), Err(ReadError::Missing { .. })));
}

#[test]
fn long_payloads_are_written_by_themselves_and_read_back() {
    let (mut journal, _) = open(MemDisk::new());
    let lengths = [10, 10, LONG, LONG + 3, LONG - 1, 0, LONG + 7, 5000];
    let payloads: Vec<_> = lengths.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
    let entries: Vec<_> = payloads.iter().map(|payload| Entry { kind: 1, payload }).collect();
    for (writes, entries) in [(7, &entries[..]), (2, &entries[2..3]), (3, &entries[3..4]), (1, &entries[4..6])] {
        let before = journal.disk().calls(DiskCall::Write);
        journal.append(Class::Intake, entries).unwrap();
        assert_eq!(journal.disk().calls(DiskCall::Write) - before, writes);
    }
    journal.commit().unwrap();
    let wanted = [&payloads[..], &payloads[2..3], &payloads[3..4], &payloads[4..6]].concat();
    assert_eq!(contents(&journal).into_values().collect::<Vec<_>>(), wanted);
    let (journal, _) = open(journal.into_disk());
    assert_eq!(contents(&journal).into_values().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_reader_follows_by_marks_alone() {
    let (mut journal, _) = open(MemDisk::new());
    let mut map: Map = journal.map().clone();
    for round in 0..200_u64 {
        append(&mut journal, &[&round.to_le_bytes(), &[7; 300]]);
        assert!(map.place(Lsn(round * 2 + 1)).is_none(), "not before it is committed");
        map.apply(&journal.commit().unwrap());
        assert_eq!(read_record(journal.disk(), &map, Lsn(round * 2 + 1)).unwrap().payload[..], round.to_le_bytes());
    }
    let mut seen = 0;
    let lsns: Vec<_> = (1..=400).rev().map(Lsn).collect();
    read_many(journal.disk(), &map, &lsns, &mut |lsn, record| {
        seen += 1;
        assert_eq!(record.unwrap().lsn, lsn);
    });
    assert_eq!(seen, 400);
}

#[test]
fn replay_goes_on_where_a_slice_ended() {
    let (mut journal, _) = open(MemDisk::new());
    // Seven share a frame and ten are a slice: it ends anywhere in a frame.
    let payloads: Vec<_> = (0..300_u64).map(u64::to_le_bytes).collect();
    for batch in payloads.chunks(7) {
        append(&mut journal, &batch.iter().map(<[u8; 8]>::as_slice).collect::<Vec<_>>());
    }
    let (mut next, mut seen, mut slices) = (Some(Lsn(11)), Vec::new(), 0);
    while let Some(from) = next {
        next = journal.replay_slice(from, 80, &mut |lsn, _, _, _| seen.push(lsn.0)).unwrap();
        slices += 1;
    }
    assert_eq!(seen, (11..=300).collect::<Vec<_>>());
    assert!(slices >= 29);
}

#[test]
fn restarts_do_not_pile_up_small_segments() {
    let (mut journal, _) = open(MemDisk::new());
    for round in 0..50 {
        append(&mut journal, &[b"a little"]);
        journal.mark_idle().unwrap();
        journal = Journal::open(journal.into_disk(), config()).unwrap().0;
        assert_eq!(journal.epoch(), Epoch(round + 2));
    }
    assert_eq!(contents(&journal).len(), 50);
    assert_eq!(journal.segments().count(), 2, "a segment is left behind only when it is full");
}

#[test]
fn a_journal_of_another_version_is_refused_and_left_alone() {
    let mut disk = open(MemDisk::new()).0.into_disk();
    let file = disk.list().unwrap().remove(0).name;
    disk.rename(&file, &file.replace(".seg2", ".seg3")).unwrap();
    let before = disk.list().unwrap();
    assert!(matches!(Journal::open(&mut disk, config()), Err(OpenError::Foreign { .. })));
    assert_eq!(disk.list().unwrap(), before);
}

/// Of the first version, in which every record had a frame of its own, this one differs by the names of its files alone.
#[test]
fn a_journal_from_before_records_shared_frames_goes_on() {
    let (mut journal, _) = open(MemDisk::new());
    for i in 0..100_u64 {
        append(&mut journal, &[&i.to_le_bytes().repeat(20)]);
    }
    journal.mark_idle().unwrap();
    let mut wanted = contents(&journal);
    let mut disk = journal.into_disk();
    for file in disk.list().unwrap() {
        disk.rename(&file.name, &file.name.replace(".seg2", ".seg1")).unwrap();
    }
    let (mut journal, report) = open(disk);
    assert_eq!((report.records, report.damaged), (100, 0));
    assert_eq!(contents(&journal), wanted);
    append(&mut journal, &[[7_u8; 90].as_slice(); 200]);
    journal.commit().unwrap();
    wanted.extend((101..=300).map(|lsn| (lsn, vec![7; 90])));
    while journal.disk().list().unwrap().iter().any(|file| file.name.ends_with(".seg1")) {
        journal.compact(1 << 10, &mut |_, _, _| crate::Keep::Keep).unwrap();
        journal.commit().unwrap();
    }
    assert_eq!(contents(&journal), wanted, "old segments were left behind, and nothing with them");
    assert_eq!(contents(&open(journal.into_disk()).0), wanted);
}

#[test]
fn what_is_too_long_is_refused_and_nothing_of_its_batch_is_in() {
    let (mut journal, _) = open(MemDisk::new());
    let batch = [Entry { kind: 1, payload: vec![1; 10] }, Entry { kind: 1, payload: vec![2; RECORD_MAX + 1] }];
    assert_eq!(journal.append(Class::Intake, &batch), Err(AppendError::TooLong { bytes: RECORD_MAX + 1 }));
    assert_eq!(journal.last(), Lsn::ZERO);
    append(&mut journal, &[&vec![3; RECORD_MAX]]);
    assert_eq!(journal.read(Lsn(1)).unwrap().payload.len(), RECORD_MAX);
    assert_eq!(contents(&open(journal.into_disk()).0).len(), 1);
}

#[test]
fn the_map_is_small_against_the_journal() {
    let (mut journal, _) = open(MemDisk::new());
    for _ in 0..50 {
        append(&mut journal, &[[7_u8; 200].as_slice(); 500]);
    }
    let (map, strides) = (journal.map().bytes() as u64, journal.bytes() / 4096);
    assert!((strides * 4..=strides * 32).contains(&map), "{map} bytes for {strides} strides");
}

#[test]
fn a_borrowed_disk_does_all_that_the_disk_does() {
    fn change(mut disk: impl Disk) {
        disk.write("a", 0, b"bytes").unwrap();
        disk.sync("a").unwrap();
        disk.write("b", 0, b"more").unwrap();
        disk.rename("a", "c").unwrap();
        disk.remove("b").unwrap();
    }
    let mut disk = MemDisk::new();
    change(&mut disk);
    let left: Vec<_> = disk.list().unwrap().into_iter().map(|file| (file.name, file.len)).collect();
    assert_eq!((left, disk.calls(DiskCall::Sync)), (vec![("c".to_string(), 5)], 1));
}

#[test]
fn an_epoch_is_no_smaller_than_it_is_told_and_than_the_last() {
    let mut disk = MemDisk::new();
    let mut old = None;
    for (least, taken) in [(1_000, 1_000), (5, 1_001), (0, 1_002), (2_000, 2_000)] {
        let config = Config { epoch_min: Epoch(least), ..config() };
        let (mut journal, report) = Journal::open(disk, config).unwrap();
        assert_eq!((journal.epoch(), report.epoch), (Epoch(taken), Epoch(taken)));
        append(&mut journal, &[b"one of each life"]);
        journal.commit().unwrap();
        assert_eq!(contents(&journal).len(), journal.last().0 as usize);
        disk = journal.into_disk();
        old.get_or_insert_with(|| disk.clone());
    }
    // Put back to a copy from before, it takes none of those again.
    let config = Config { epoch_min: Epoch(2_001), ..config() };
    let (journal, _) = Journal::open(old.unwrap(), config).unwrap();
    assert_eq!((journal.epoch(), contents(&journal).len()), (Epoch(2_001), 1));
}

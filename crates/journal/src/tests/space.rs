//! Files: compaction, trimming, recycling, a full disk, a sync that fails.

use super::{Dice, append, config, contents, open};
use crate::testing::{DiskCall, MemDisk};
use crate::writer::LONG;
use crate::{
    AppendError, Class, CommitError, Config, Disk, DiskErrorKind, Entry, Epoch, Journal, Keep, Log, LogError, Lsn, Map,
    Owner, Progress, ReadError, SegmentId, SegmentView,
};

pub(super) fn upkeep(journal: &mut Journal<MemDisk>) -> Result<Lsn, AppendError> {
    journal.append(Class::Upkeep, &[Entry { kind: 2, payload: b"settled" }])
}

fn compact_oldest(journal: &mut Journal<MemDisk>, keep: &mut dyn FnMut(Lsn) -> bool) -> Option<SegmentId> {
    let map = &mut journal.map().clone();
    compact_followed(journal, map, keep)
}

/// Compacts the oldest segment while a reader's map follows.
fn compact_followed(
    journal: &mut Journal<MemDisk>,
    map: &mut Map,
    keep: &mut dyn FnMut(Lsn) -> bool,
) -> Option<SegmentId> {
    loop {
        let (mut told, mut asked) = (Vec::new(), Vec::new());
        let will_ask = journal.compact_next(500, &mut |lsn, _, _| told.push(lsn)).unwrap();
        let mut judge = |lsn, _, _: &[u8]| {
            asked.push(lsn);
            if keep(lsn) { Keep::Keep } else { Keep::Drop }
        };
        let progress = journal.compact(500, &mut judge).unwrap();
        assert_eq!((told, will_ask), (asked, matches!(progress, Progress::Slice { .. })));
        match progress {
            Progress::Nothing => return None,
            Progress::Slice { .. } => {}
            Progress::AwaitsCommit => map.apply(&journal.commit().unwrap()),
            Progress::Dropped(id) => return Some(id),
        }
    }
}

/// Records of 96 bytes, up to five in a frame.
pub(super) fn filled(records: u64) -> Journal<MemDisk> {
    let (mut journal, _) = open(MemDisk::new());
    let payloads: Vec<_> = (1..=records).map(|i| i.to_le_bytes().repeat(12)).collect();
    for batch in payloads.chunk_by(|one, _| one[0] % 5 != 0) {
        append(&mut journal, &batch.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    journal.commit().unwrap();
    journal
}

#[test]
fn a_kept_record_keeps_its_number_and_place_in_replay_however_often_it_moves() {
    let mut journal = filled(300);
    let mut map = journal.map().clone();
    for _ in 0..60 {
        append(&mut journal, &[&[5; 100]]);
        compact_followed(&mut journal, &mut map, &mut |lsn| lsn.0 % 50 == 0 && lsn.0 <= 300);
        map.apply(&journal.commit().unwrap());
        if journal.map().base() > Lsn(300) {
            break;
        }
    }
    for _ in 0..10 {
        append(&mut journal, &[&[6; 1500]]);
        compact_followed(&mut journal, &mut map, &mut |lsn| lsn.0 % 50 == 0 && lsn.0 <= 300);
    }
    map.apply(&journal.commit().unwrap());
    let found = contents(&journal);
    assert_eq!(found.keys().copied().take(6).collect::<Vec<_>>(), [50, 100, 150, 200, 250, 300]);
    assert_eq!(found[&150], 150_u64.to_le_bytes().repeat(12));
    assert!(matches!(journal.read(Lsn(151)), Err(ReadError::Missing { .. })));
    assert_eq!(crate::read_record(journal.disk(), &map, Lsn(150)).unwrap().payload[..], found[&150][..]);
    let (journal, report) = open(journal.into_disk());
    assert_eq!(contents(&journal), found);
    assert_eq!(report.records, found.len() as u64);
    assert_eq!(report.next, journal.last().next());
}

#[test]
fn a_moved_record_is_still_of_the_kind_and_epoch_that_wrote_it() {
    let mut journal = open(filled(60).into_disk()).0;
    append(&mut journal, &[b"of the second epoch"]);
    let own = journal.epoch();
    assert!(own > Epoch(1));
    while compact_oldest(&mut journal, &mut |lsn| lsn == Lsn(7)).is_some() && journal.map().base() <= Lsn(60) {}
    let record = journal.read(Lsn(7)).unwrap();
    assert_eq!((record.kind, record.epoch), (1, Epoch(1)));
    let others = journal.last().0 - journal.map().base().0 + 1;
    let (journal, report) = open(journal.into_disk());
    assert_eq!(contents(&journal)[&7], 7_u64.to_le_bytes().repeat(12));
    // All are of kind 1; that one is where it was moved to, and not where it was.
    assert_eq!(report.kinds, [(1, others + 1)].into());
}

#[test]
fn a_slice_of_compaction_judges_about_as_many_bytes_as_it_may() {
    let mut journal = filled(200);
    let judged = |journal: &mut Journal<MemDisk>| {
        let mut judged = 0;
        let progress = journal.compact(500, &mut |_, _, _| {
            judged += 1;
            Keep::Drop
        });
        matches!(progress, Ok(Progress::Slice { .. })).then_some(judged)
    };
    // Five of these share a frame, of 528 bytes: it brings the slice to its end.
    let slices: Vec<_> = std::iter::from_fn(|| judged(&mut journal)).take(5).collect();
    assert_eq!(slices[1..], [5; 4], "{slices:?}");
}

#[test]
fn the_reserve_has_its_length_whatever_the_pieces_that_it_is_written_in() {
    for reserve_bytes in [2048, 1 << 20, (1 << 20) + 4096, (3 << 20) - 512] {
        let (journal, _) = Journal::open(MemDisk::new(), Config { reserve_bytes, ..config() }).unwrap();
        let files = journal.disk().list().unwrap();
        let reserve = files.iter().filter(|file| file.len == u64::from(reserve_bytes)).count();
        assert_eq!(reserve, 1, "{files:?}");
    }
}

#[test]
fn as_many_files_are_written_again_as_may_wait_for_it() {
    for free_segments_max in [0, 1, 3] {
        let (mut journal, _) = Journal::open(MemDisk::new(), Config { free_segments_max, ..config() }).unwrap();
        for i in 0..300_u64 {
            append(&mut journal, &[&i.to_le_bytes().repeat(12)]);
        }
        journal.commit().unwrap();
        journal.trim(Lsn(290)).unwrap();
        let files = journal.disk().list().unwrap();
        assert_eq!(files.iter().filter(|file| file.name.ends_with(".free")).count(), free_segments_max);
    }
}

#[test]
fn a_view_shows_what_lies_in_its_segment_until_that_is_gone() {
    let mut journal = filled(300);
    let scan = |journal: &Journal<MemDisk>, view: &SegmentView| {
        let mut lsns = Vec::new();
        view.scan(journal.disk(), &mut |lsn, _, _, _| lsns.push(lsn)).map(|()| lsns)
    };
    let first = journal.sealed_views()[0];
    let own = scan(&journal, &first).unwrap();
    assert_eq!((first.id(), own[0]), (SegmentId(1), first.base()));
    compact_oldest(&mut journal, &mut |lsn| lsn == own[1]);
    assert!(scan(&journal, &first).is_err());
    assert!(scan(&journal, &journal.active_view()).unwrap().contains(&own[1]));
}

#[test]
fn numbers_go_on_when_only_moved_records_are_left() {
    let mut journal = filled(100);
    while compact_oldest(&mut journal, &mut |lsn| lsn == Lsn(3)).is_some() && journal.map().base() <= Lsn(100) {}
    let (mut journal, report) = open(journal.into_disk());
    assert_eq!(report.next, Lsn(101));
    assert_eq!(append(&mut journal, &[b"new"]), Lsn(101));
    assert_eq!(contents(&journal).keys().copied().next(), Some(3));
}

#[test]
fn dropped_segments_are_written_again_and_their_old_frames_never_shown() {
    let mut journal = filled(500);
    for round in 0..40_u64 {
        journal.trim(Lsn(journal.last().0 - 100)).unwrap();
        for _ in 0..30 {
            append(&mut journal, &[&round.to_le_bytes().repeat(12)]);
        }
        journal.commit().unwrap();
        let names = journal.disk().list().unwrap();
        assert!(names.iter().filter(|file| file.name.ends_with(".free")).count() <= 2);
        if round % 7 == 3 {
            let before = contents(&journal);
            let mut disk = journal.into_disk();
            disk.crash(&mut |_| 0);
            journal = open(disk).0;
            assert_eq!(contents(&journal), before);
        }
    }
}

#[test]
fn an_index_of_a_segment_can_be_made_from_it() {
    let mut journal = filled(130);
    compact_oldest(&mut journal, &mut |lsn| lsn == Lsn(3));
    let mut seen = Vec::new();
    let ids: Vec<_> = journal.segments().filter(|segment| segment.is_sealed).map(|segment| segment.id).collect();
    for id in ids {
        assert!(journal.scan_segment(id, &mut |lsn, _, _, _| seen.push(lsn.0)).unwrap());
    }
    assert!(seen.is_sorted() && !seen.contains(&1) && seen.len() > 40);
    assert!(!journal.scan_segment(SegmentId(999), &mut |_, _, _, _| ()).unwrap());
}

#[test]
fn a_full_disk_refuses_intake_and_goes_on_with_upkeep() {
    for spare in 0..200 {
        let mut journal = filled(60);
        let used = journal.disk().used();
        journal.disk_mut().faults.capacity = Some(used + spare * 8);
        let mut refused = 0;
        for _ in 0..20 {
            let batch = [Entry { kind: 1, payload: [1; 100] }, Entry { kind: 1, payload: [2; 100] }];
            refused += u32::from(journal.append(Class::Intake, &batch) == Err(AppendError::Full));
        }
        assert!(refused > 0 && journal.is_full());
        let before = contents(&journal);
        for _ in 0..20 {
            upkeep(&mut journal).unwrap();
        }
        journal.commit().unwrap();
        assert!(!journal.retry_full().unwrap(), "the reserve is used and cannot be made anew");
        assert_eq!(journal.append(Class::Intake, &[Entry { kind: 1, payload: b"" }]), Err(AppendError::Full));
        let wanted = contents(&journal);
        assert_eq!(wanted.len(), before.len() + 20);
        let mut disk = journal.into_disk();
        disk.crash(&mut |n| n - 1);
        let (mut journal, report) = open(disk);
        assert_eq!(contents(&journal), wanted, "the refused records are not there, the settled ones are");
        assert!(report.quarantined.is_empty());
        append(&mut journal, &[b"room again"]);
    }
}

#[test]
fn a_disk_that_fills_up_between_the_writes_of_a_batch_loses_nothing() {
    let payloads = [vec![1; 100], vec![2; LONG + 3], vec![3; 100], vec![4; LONG]];
    let batch: Vec<_> = payloads.iter().map(|payload| Entry { kind: 1, payload }).collect();
    let mut refused = 0;
    for (spare, class) in (0..200_000).step_by(500).flat_map(|spare| [(spare, Class::Intake), (spare, Class::Upkeep)]) {
        let config = Config { reserve_bytes: 1 << 20, ..config() };
        let (mut journal, _) = Journal::open(MemDisk::new(), config.clone()).unwrap();
        append(&mut journal, &[b"before"]);
        journal.commit().unwrap();
        journal.disk_mut().faults.capacity = Some(journal.disk().used() + spare);
        match (class, journal.append(class, &batch)) {
            (Class::Intake, Err(AppendError::Full)) => refused += 1,
            (Class::Intake | Class::Upkeep, outcome) => drop(outcome.unwrap()),
        }
        upkeep(&mut journal).unwrap();
        journal.commit().unwrap();
        let wanted = contents(&journal);
        assert!([2, 6].contains(&wanted.len()), "all of a batch or none");
        let mut disk = journal.into_disk();
        disk.crash(&mut |n| n - 1);
        let (journal, report) = Journal::open(disk, config).unwrap();
        assert_eq!(contents(&journal), wanted, "{spare} bytes of room, {class:?}");
        assert!(report.quarantined.is_empty());
    }
    assert!((100..350).contains(&refused), "{refused}: else this test shows nothing");
}

#[test]
fn intake_goes_on_once_there_is_room() {
    let mut journal = filled(60);
    journal.disk_mut().faults.capacity = Some(0);
    assert_eq!(journal.append(Class::Intake, &[Entry { kind: 1, payload: [0; 5000] }]), Err(AppendError::Full));
    upkeep(&mut journal).unwrap();
    assert!(!journal.retry_full().unwrap());
    journal.disk_mut().faults.capacity = None;
    assert!(journal.retry_full().unwrap());
    let last = append(&mut journal, &[b"room again"]);
    journal.commit().unwrap();
    assert_eq!(contents(&journal).len() as u64, last.0);
}

#[test]
fn a_full_disk_can_be_opened() {
    // The last segment is copied as it opens, into the reserve: it is not to be longer.
    let mut disk = filled(290).into_disk();
    let wanted = contents(&open(disk.clone()).0);
    disk.faults.capacity = Some(0);
    let (mut journal, report) = open(disk);
    assert!(report.no_reserve && journal.is_full());
    assert_eq!(contents(&journal), wanted);
    assert_eq!(journal.append(Class::Intake, &[Entry { kind: 1, payload: b"" }]), Err(AppendError::Full));
    upkeep(&mut journal).unwrap();
}

#[test]
fn a_failed_sync_poisons_the_journal_for_good() {
    let mut journal = filled(10);
    append(&mut journal, &[b"unlucky"]);
    journal.disk_mut().fail_next(DiskCall::Sync, DiskErrorKind::Io);
    assert!(matches!(journal.commit(), Err(CommitError::Disk(_))));
    assert_eq!(journal.commit(), Err(CommitError::Poisoned));
    assert_eq!(upkeep(&mut journal), Err(AppendError::Poisoned));
    assert_eq!(journal.trim(Lsn(5)), Err(AppendError::Poisoned));
    assert!(journal.read(Lsn(3)).is_ok(), "what is there can still be read");
}

#[test]
fn the_reserve_is_there_before_it_is_needed() {
    let (journal, report) = Journal::open(MemDisk::new(), Config { reserve_bytes: 3 << 20, ..config() }).unwrap();
    assert_eq!(journal.disk().content("reserve").map(<[u8]>::len), Some(3 << 20));
    assert!(!report.no_reserve);
}

#[test]
fn the_seam_fences_and_knows_its_tail() {
    let (mut log, _) = open(MemDisk::new());
    let epoch = log.acquire(Owner([1; 16])).unwrap();
    let batch = [Entry { kind: 1, payload: &b"a"[..] }];
    assert_eq!(Log::append(&mut log, epoch, Lsn(0), &batch), Ok(Lsn(1)));
    assert_eq!(Log::append(&mut log, epoch, Lsn(0), &batch), Err(LogError::WrongTail(Lsn(1))));
    assert_eq!(Log::append(&mut log, epoch.next(), Lsn(1), &batch), Err(LogError::Fenced));
    let mut seen = 0;
    assert_eq!(Log::read(&log, Lsn(1), &mut |_, _, _, _| seen += 1), Ok(None));
    assert_eq!((seen, log.tail()), (1, Lsn(1)));
}

#[test]
fn a_full_disk_and_power_cuts_lose_nothing_acknowledged() {
    for seed in 0..300 {
        let dice = &mut Dice(seed);
        let mut journal = filled(dice.below(40));
        let used = journal.disk().used();
        journal.disk_mut().faults.capacity = Some(used + dice.below(6000));
        let mut acked = journal.durable();
        for _ in 0..60 {
            let class = if dice.below(2) == 0 { Class::Intake } else { Class::Upkeep };
            match journal.append(class, &[Entry { kind: 1, payload: vec![7; dice.below(300) as usize] }]) {
                Ok(_) | Err(AppendError::Full) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
            if dice.below(3) == 0 {
                acked = journal.commit().unwrap().durable;
            }
            if dice.below(10) == 0 {
                journal.disk_mut().faults.capacity = Some(used + dice.below(12_000));
                journal.retry_full().unwrap();
            }
        }
        let before = contents(&journal);
        let mut disk = journal.into_disk();
        disk.crash(&mut |n| dice.below(n));
        let (journal, report) = open(disk);
        let after = contents(&journal);
        assert!(report.quarantined.is_empty(), "seed {seed}: {report:?}");
        assert!(
            before.iter().take(acked.0 as usize).all(|(lsn, payload)| after.get(lsn) == Some(payload)),
            "seed {seed}"
        );
    }
}

#[test]
fn blocks_are_there_before_the_records_and_none_are_asked_for_on_a_full_disk() {
    let (mut journal, _) = open(MemDisk::new());
    append(&mut journal, &[b"small"]);
    let whole = u64::from(config().segment_bytes);
    let length = |journal: &Journal<MemDisk>| journal.disk().content(&journal.active.file).unwrap().len() as u64;
    assert_eq!(length(&journal), whole, "a segment is no longer than it may become");
    journal.commit().unwrap();
    let mut disk = journal.into_disk();
    disk.crash(&mut |_| 1);
    let (mut journal, report) = open(disk);
    assert_eq!((report.records, report.damaged), (1, 0), "zeros behind the frames are no damage");
    assert!(report.torn.is_none(), "and no torn tail");

    // Room for a record, but not for a segment.
    let room = journal.disk().used() + 200;
    journal.disk_mut().faults.capacity = Some(room);
    append(&mut journal, &[&[7; 100]]);
    journal.commit().unwrap();
    assert!(!journal.is_full() && length(&journal) < whole);
    assert_eq!(contents(&journal).len(), 2);
}

//! One call of the disk fails, and only that one: what was acknowledged is there in the next life, and a journal that met an
//! error other than a full disk does nothing more.

use std::collections::BTreeMap;

use super::space::{filled, upkeep};
use super::{append, config, contents, open};
use crate::testing::{DiskCall, FailCall, MemDisk};
use crate::{
    AppendError, Class, CommitError, CompactError, Config, Disk, DiskError, DiskErrorKind, Entry, Journal, Keep, Lsn,
    OpenError,
};

const KINDS: [DiskErrorKind; 3] = [DiskErrorKind::Full, DiskErrorKind::Io, DiskErrorKind::NotFound];
const CHANGING: [DiskCall; 5] =
    [DiskCall::Write, DiskCall::Reserve, DiskCall::Sync, DiskCall::Rename, DiskCall::Remove];

fn intake(journal: &mut Journal<MemDisk>, payload: &[u8]) -> Result<Lsn, AppendError> {
    journal.append(Class::Intake, &[Entry { kind: 1, payload }])
}

fn changes(disk: &MemDisk) -> u64 {
    CHANGING.iter().map(|call| disk.calls(*call)).sum()
}

fn names(disk: &MemDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().map(|file| file.name).collect()
}

/// The journal refuses everything, and leaves the disk alone; what was durable can be read, and is there after a power cut.
fn assert_stopped(mut journal: Journal<MemDisk>, wanted: impl Fn(&Journal<MemDisk>)) {
    let before = changes(journal.disk());
    assert_eq!(intake(&mut journal, b"more"), Err(AppendError::Poisoned));
    assert_eq!(upkeep(&mut journal), Err(AppendError::Poisoned));
    assert_eq!(journal.retry_full(), Err(AppendError::Poisoned));
    assert_eq!(journal.trim(journal.last()), Err(AppendError::Poisoned));
    assert_eq!(journal.commit(), Err(CommitError::Poisoned));
    assert_eq!(journal.mark_idle(), Err(CommitError::Poisoned));
    assert_eq!(changes(journal.disk()), before);
    let mut disk = journal.into_disk();
    disk.crash(&mut |_| 0);
    wanted(&open(disk).0);
}

fn assert_disk_error<T: std::fmt::Debug>(result: Result<T, AppendError>, kind: DiskErrorKind) {
    assert!(matches!(&result, Err(AppendError::Disk(DiskError { kind: of, .. })) if *of == kind), "{result:?}");
}

/// A journal that found its disk full, used its reserve, and was given room again.
fn was_full(config: Config) -> Journal<MemDisk> {
    let (mut journal, _) = Journal::open(MemDisk::new(), config).unwrap();
    append(&mut journal, &[b"first"]);
    journal.commit().unwrap();
    journal.disk_mut().faults.capacity = Some(0);
    assert_eq!(intake(&mut journal, &[0; 5000]), Err(AppendError::Full));
    upkeep(&mut journal).unwrap();
    journal.commit().unwrap();
    journal.disk_mut().faults.capacity = None;
    journal
}

#[test]
fn a_reserve_for_which_there_is_no_room_leaves_nothing_behind() {
    let mut journal = was_full(Config { reserve_bytes: 3 << 20, ..config() });
    let (used, before) = (journal.disk().used(), names(journal.disk()));
    for spare in [0, 100, 1 << 20, (3 << 20) - 1] {
        journal.disk_mut().faults.capacity = Some(used + spare);
        assert_eq!(journal.retry_full(), Ok(false));
        assert_eq!((journal.disk().used(), names(journal.disk())), (used, before.clone()), "{spare} bytes of room");
    }
    // A file that was not even made cannot be removed.
    journal.disk_mut().fail_next(DiskCall::Remove, DiskErrorKind::NotFound);
    assert_eq!(journal.retry_full(), Ok(false));
    journal.disk_mut().faults.capacity = None;
    assert_eq!(journal.retry_full(), Ok(true));
    append(&mut journal, &[b"room again"]);
}

#[test]
fn a_reserve_that_a_sick_disk_refuses_stops_the_journal() {
    let refused = |call, kind, capacity, then| {
        let mut journal = was_full(Config { reserve_bytes: 3 << 20, ..config() });
        let wanted = contents(&journal);
        journal.disk_mut().faults.capacity = capacity;
        journal.disk_mut().fail_next(call, kind);
        assert_disk_error(journal.retry_full(), then);
        assert_stopped(journal, |next| assert_eq!(contents(next), wanted));
    };
    let (full, io) = (DiskErrorKind::Full, DiskErrorKind::Io);
    refused(DiskCall::Write, io, None, io);
    refused(DiskCall::Sync, io, None, io);
    refused(DiskCall::Rename, io, None, io);
    // What a full disk leaves is to be removed.
    refused(DiskCall::Remove, io, Some(0), io);
    // A sync is never tried again, whatever it says.
    refused(DiskCall::Sync, full, None, io);
}

#[test]
fn a_rename_that_finds_no_room_is_a_full_disk() {
    let mut journal = was_full(config());
    journal.disk_mut().fail_next(DiskCall::Rename, DiskErrorKind::Full);
    assert_eq!(journal.retry_full(), Ok(false));
    assert_eq!(journal.retry_full(), Ok(true));
}

#[test]
fn without_a_reserve_files_change_as_ever_and_a_full_disk_takes_free_ones() {
    let (mut journal, _) = Journal::open(MemDisk::new(), Config { reserve_bytes: 0, ..config() }).unwrap();
    for i in 0..200_u64 {
        append(&mut journal, &[&i.to_le_bytes().repeat(12)]);
    }
    assert!(journal.segments().count() > 3 && journal.segments().all(|segment| segment.bytes <= 4096));
    journal.commit().unwrap();
    journal.trim(Lsn(190)).unwrap();
    let spare = names(journal.disk()).iter().filter(|name| name.ends_with(".free")).count();
    assert_eq!(spare, 2);
    journal.disk_mut().faults.capacity = Some(0);
    assert_eq!(intake(&mut journal, &[0; 5000]), Err(AppendError::Full));
    let before = journal.last();
    for _ in 0..20 {
        upkeep(&mut journal).unwrap();
    }
    journal.commit().unwrap();
    let mut disk = journal.into_disk();
    disk.crash(&mut |_| 0);
    assert_eq!(contents(&open(disk).0).keys().next_back(), Some(&(before.0 + 20)));
}

/// A full disk, a batch that is too long for the free files: they are begun and given up, until the reserve takes it.
fn give_up_free_files(remove: Option<DiskErrorKind>) -> (Journal<MemDisk>, Result<Lsn, AppendError>) {
    let (mut journal, _) = Journal::open(MemDisk::new(), Config { reserve_bytes: 8192, ..config() }).unwrap();
    for i in 1..=300_u64 {
        append(&mut journal, &[&i.to_le_bytes().repeat(12)]);
    }
    journal.commit().unwrap();
    journal.trim(Lsn(290)).unwrap();
    journal.disk_mut().faults.capacity = Some(0);
    if let Some(kind) = remove {
        journal.disk_mut().fail_next(DiskCall::Remove, kind);
    }
    let outcome = journal.append(Class::Upkeep, &[Entry { kind: 2, payload: [9; 5000] }]);
    (journal, outcome)
}

#[test]
fn a_file_without_frames_is_given_up_whether_it_is_there_or_not() {
    for remove in [None, Some(DiskErrorKind::NotFound)] {
        let (mut journal, outcome) = give_up_free_files(remove);
        let lsn = outcome.unwrap();
        journal.commit().unwrap();
        assert!(journal.is_full());
        let mut disk = journal.into_disk();
        disk.crash(&mut |_| 0);
        assert_eq!(contents(&open(disk).0)[&lsn.0], [9; 5000]);
    }
    let (journal, outcome) = give_up_free_files(Some(DiskErrorKind::Io));
    assert_disk_error(outcome, DiskErrorKind::Io);
    assert_stopped(journal, |next| assert_eq!(contents(next)[&300], 300_u64.to_le_bytes().repeat(12)));
}

#[test]
fn a_segment_that_cannot_leave_stops_the_journal_and_is_there_next_time() {
    let refused = |free_segments_max, flipped: bool, call| {
        let mut disk = filled(300).into_disk();
        if flipped {
            let first = names(&disk).into_iter().find(|name| name.ends_with(".seg2")).unwrap();
            disk.flip(&first, 8 * 500);
        }
        let (mut journal, report) = Journal::open(disk, Config { free_segments_max, ..config() }).unwrap();
        assert_eq!(report.quarantined.is_empty(), !flipped);
        let wanted = contents(&journal);
        journal.disk_mut().fail_next(call, DiskErrorKind::Io);
        assert_disk_error(journal.trim(Lsn(290)), DiskErrorKind::Io);
        assert_stopped(journal, |next| assert_eq!(contents(next), wanted));
    };
    refused(2, false, DiskCall::Rename);
    refused(0, false, DiskCall::Remove);
    refused(2, true, DiskCall::Rename);
}

#[test]
fn a_directory_that_cannot_be_listed_or_cleared_is_not_opened() {
    let mut disk = filled(60).into_disk();
    disk.write("reserve.tmp", 0, b"of a reserve that was never finished").unwrap();
    for call in [DiskCall::List, DiskCall::Remove, DiskCall::Read, DiskCall::Rename] {
        disk.fail_next(call, DiskErrorKind::Io);
        let outcome = Journal::open(&mut disk, config()).map(|_| ());
        assert!(matches!(outcome, Err(OpenError::Disk(_))), "{call:?}: {outcome:?}");
    }
    let journal = open(disk).0;
    assert_eq!(contents(&journal).len(), 60);
    assert!(names(journal.disk()).iter().all(|name| !name.ends_with(".tmp")));
}

/// A life with all that a journal does to files, until the first error that is no full disk.
#[derive(Debug, Default)]
struct Life {
    appended: BTreeMap<u64, u8>,
    acknowledged: Lsn,
    /// Up to here records may have left.
    trimmed: Lsn,
}

impl Life {
    fn on(disk: &mut MemDisk) -> Self {
        let mut life = Self::default();
        let Ok((mut journal, _)) = Journal::open(disk, config()) else { return life };
        if (0..40).any(|round| life.step(&mut journal, round).is_err()) {
            assert_eq!(journal.commit(), Err(CommitError::Poisoned));
        }
        life
    }

    fn step(&mut self, journal: &mut Journal<&mut MemDisk>, round: u8) -> Result<(), AppendError> {
        let used = journal.disk().used();
        journal.disk_mut().faults.capacity = (18..30).contains(&round).then_some(used);
        for class in [Class::Intake, Class::Upkeep] {
            match journal.append(class, &[Entry { kind: 1, payload: [round; 300] }]) {
                Ok(lsn) => self.appended.extend([(lsn.0, round)]),
                Err(AppendError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        self.acknowledged = journal.commit().map_err(|_| AppendError::Poisoned)?.durable;
        journal.retry_full()?;
        if round % 12 == 11 {
            self.trimmed = Lsn(self.acknowledged.0 - 10);
            journal.trim(self.trimmed)?;
        }
        match journal.compact(1000, &mut |_, _, _| Keep::Keep) {
            Ok(_) | Err(CompactError::Append(AppendError::Full) | CompactError::Read(_)) => Ok(()),
            Err(CompactError::Append(error)) => Err(error),
        }
    }

    fn check(&self, found: &BTreeMap<u64, Vec<u8>>, story: &FailCall) {
        let promised = self.trimmed.next().0..self.acknowledged.next().0;
        for (lsn, round) in self.appended.iter().filter(|(lsn, _)| promised.contains(lsn)) {
            assert_eq!(found.get(lsn), Some(&vec![*round; 300]), "record {lsn}, {story:?}");
        }
    }
}

#[test]
fn whichever_call_fails_what_was_acknowledged_is_there() {
    let calls = [DiskCall::List, DiskCall::Read].into_iter().chain(CHANGING);
    for (call, kind) in calls.flat_map(|call| KINDS.map(|kind| (call, kind))) {
        for number in 1.. {
            let (mut disk, story) = (MemDisk::new(), FailCall { call, number, kind });
            disk.faults.fail_call = Some(story);
            let life = Life::on(&mut disk);
            if disk.calls(call) < number {
                assert!(number > 1 && life.acknowledged > Lsn(60), "{story:?}: {life:?}");
                break;
            }
            disk.crash(&mut |_| 0);
            life.check(&contents(&open(disk).0), &story);
        }
    }
}

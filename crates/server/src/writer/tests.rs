//! A writer on a real directory, with a test in the place of the core.

use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use super::*;
use crate::disk::Faults;
use crate::limits::Limits;
use crate::stages::{DURABLES, QUESTIONS, SEALS, Stage};
use crate::{DataDir, indexer};

/// Bytes of a record: so few that the reserve outlasts a second of records on the fastest disk.
const ROW: u32 = 16;

/// A writer of a journal, to whom nothing has happened.
pub(crate) fn writer(journal: Journal<FileDisk>, written: Sender<Written>) -> Writer {
    let (ask, _) = mpsc::channel(QUESTIONS.capacity);
    let (seals, _) = sync_channel(SEALS.capacity);
    Writer {
        store: Arc::new(Store::new(journal.disk().clone(), journal.map().clone(), 1 << 20)),
        finished: Arc::new(indexer::open(&journal).unwrap().0),
        written,
        compaction: Compaction::new(&journal, Limits::default(), ask),
        seals,
        pulse: Pulse::new(Stage::Writer),
        told: (SegmentId(0), SegmentId(0)),
        room: Room::default(),
        gauges: Arc::default(),
        unsaid: Vec::new(),
        unmarked: None,
        slow_until: None,
        // However slow the disk of the test is.
        at_once_max: Duration::MAX,
        journal,
    }
}

struct World {
    faults: Arc<Faults>,
    orders: SyncSender<Order>,
    written: mpsc::Receiver<Written>,
    shared: Shared,
    writer: JoinHandle<()>,
    next: u64,
    _dir: (tempfile::TempDir, DataDir),
}

impl World {
    fn new() -> Self {
        let (temp, faults) = (tempfile::tempdir().unwrap(), Arc::new(Faults::default()));
        let dir = DataDir::open(temp.path()).unwrap();
        let disk = FileDisk::new(dir.journal()).with_faults(Arc::clone(&faults));
        let (journal, _) = Journal::open(disk.clone(), sheaf_journal::Config::default()).unwrap();
        let (tell, written) = mpsc::channel(DURABLES.capacity);
        let (orders, taken) = sync_channel(APPENDS.capacity);
        let shared = Arc::new(Mutex::new(writer(journal, tell)));
        let for_thread = Arc::clone(&shared);
        let writer = thread::spawn(move || run(&for_thread, &taken));
        Self { faults, orders, written, shared, writer, next: 1, _dir: (temp, dir) }
    }

    fn append(&mut self, class: Class) {
        self.orders.send(Order::Append(batch(self.next, class, ROW))).unwrap();
        self.next += 1;
    }

    fn told(&mut self) -> Written {
        self.written.blocking_recv().unwrap()
    }
}

#[test]
fn intake_goes_on_soon_after_there_is_room_however_busy_the_writer_is() {
    let mut stage = World::new();
    stage.faults.room.store(0, Ordering::SeqCst);
    stage.append(Class::Intake);
    assert!(matches!(stage.told(), Written::Full(true)));
    assert!(matches!(stage.told(), Written::Durable(sheaf_journal::Lsn(1))), "it was taken in: the reserve has it");
    let until = Instant::now() + 20 * FULL_RETRY;
    let busy = Instant::now() + 2 * FULL_RETRY;
    loop {
        assert!(Instant::now() < until, "it was never told of the room");
        if Instant::now() > busy {
            stage.faults.room.store(u64::MAX, Ordering::SeqCst);
        }
        stage.append(Class::Upkeep);
        match stage.told() {
            Written::Durable(_) => {}
            Written::Full(is_full) => {
                assert!(!is_full && Instant::now() > busy);
                break;
            }
            Written::Stuck => panic!("the reserve outlasts this test"),
            Written::Failed(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_disk_is_said_before_anything_is_confirmed() {
    // What the machine takes in until it hears of it goes into the reserve.
    for class in [Class::Intake, Class::Upkeep] {
        let mut stage = World::new();
        stage.faults.room.store(0, Ordering::SeqCst);
        stage.append(class);
        assert!(matches!(stage.told(), Written::Full(true)));
        assert!(matches!(stage.told(), Written::Durable(sheaf_journal::Lsn(1))));
    }
}

#[test]
fn nothing_is_confirmed_after_a_sync_that_failed() {
    for works in 0..20 {
        let mut stage = World::new();
        stage.faults.syncs.store(works, Ordering::SeqCst);
        for n in 1..=works {
            stage.append(Class::Intake);
            assert!(matches!(stage.told(), Written::Durable(lsn) if lsn.0 == n));
        }
        stage.append(Class::Intake);
        assert!(matches!(stage.told(), Written::Failed(WriterError::Commit(CommitError::Disk(_)))));
        stage.writer.join().unwrap();
        drop(stage.shared);
        assert!(stage.written.blocking_recv().is_none(), "that was its last word");
    }
}

/// A writer without its thread, whose journal has asked for blocks.
fn threadless() -> (Writer, Arc<Faults>, mpsc::Receiver<Written>, (tempfile::TempDir, DataDir)) {
    let (temp, faults) = (tempfile::tempdir().unwrap(), Arc::new(Faults::default()));
    let dir = DataDir::open(temp.path()).unwrap();
    let disk = FileDisk::new(dir.journal()).with_faults(Arc::clone(&faults));
    let (journal, _) = Journal::open(disk, sheaf_journal::Config::default()).unwrap();
    let (tell, written) = mpsc::channel(DURABLES.capacity);
    let mut writer = writer(journal, tell);
    assert!(writer.write_at_once(&batch(1, Class::Intake, ROW)).unwrap().is_none(), "no blocks were asked for");
    writer.obey(Ok(Order::Append(batch(1, Class::Intake, ROW)))).unwrap();
    writer.unsaid.clear();
    (writer, faults, written, (temp, dir))
}

fn batch(first: u64, class: Class, len: u32) -> Append {
    let batch = Batch { first, buffer: vec![7; len as usize].into(), marks: vec![(7, len)] };
    Append { batch, class }
}

#[test]
fn what_the_core_writes_itself_is_durable_and_the_thread_marks_it_when_it_is_idle() {
    let (mut writer, _faults, _written, _dir) = threadless();
    for round in 0..2 {
        writer.mark_idle().unwrap();
        for n in 0..3 {
            let first = 2 + round * 3 + n;
            let AtOnce { written, is_first } =
                writer.write_at_once(&batch(first, Class::Intake, ROW)).unwrap().unwrap();
            assert!(matches!(written[..], [Written::Durable(lsn)] if lsn.0 == first));
            assert_eq!(is_first, n == 0);
        }
        // Word of it, and the time that nothing more comes.
        writer.obey(Ok(Order::Wake)).unwrap();
        assert!(writer.look_after().unwrap() <= IDLE && writer.unmarked.is_some());
        writer.unmarked = Instant::now().checked_sub(IDLE);
        writer.obey(Err(RecvTimeoutError::Timeout)).unwrap();
        assert!(writer.unmarked.is_none());
    }
}

#[test]
fn a_slow_disk_and_a_large_batch_are_the_threads() {
    let (mut writer, _faults, _written, _dir) = threadless();
    writer.slow_until = Some(Instant::now() + 100 * IDLE);
    assert!(writer.write_at_once(&batch(2, Class::Intake, ROW)).unwrap().is_none());
    writer.slow_until = None;
    assert!(writer.write_at_once(&batch(2, Class::Intake, AT_ONCE_BYTES_MAX as u32)).unwrap().is_none());
    // Any sync is slower than this.
    writer.at_once_max = Duration::from_nanos(1);
    assert!(writer.write_at_once(&batch(2, Class::Intake, ROW)).unwrap().is_some());
    assert!(writer.slow_until.is_some());
    writer.at_once_max = Duration::ZERO;
    writer.slow_until = None;
    assert!(writer.write_at_once(&batch(3, Class::Intake, ROW)).unwrap().is_none());
}

#[test]
fn a_disk_that_is_full_is_the_threads_until_there_is_room() {
    let (mut writer, faults, _written, _dir) = threadless();
    faults.room.store(0, Ordering::SeqCst);
    // More than the blocks that were asked for.
    let long = batch(2, Class::Intake, 4 << 20);
    writer.obey(Ok(Order::Append(long))).unwrap();
    assert!(matches!(writer.unsaid[..], [Written::Full(true), Written::Durable(_)]), "{:?}", writer.unsaid);
    writer.unsaid.clear();
    for class in [Class::Intake, Class::Upkeep] {
        assert!(writer.write_at_once(&batch(3, class, ROW)).unwrap().is_none());
    }
}

#[test]
fn a_sync_that_failed_for_the_core_has_failed_for_the_thread() {
    let (mut writer, faults, _written, _dir) = threadless();
    faults.syncs.store(0, Ordering::SeqCst);
    let failed = writer.write_at_once(&batch(2, Class::Upkeep, ROW));
    assert!(matches!(failed, Err(WriterError::Commit(CommitError::Disk(_)))));
    let after = writer.obey(Ok(Order::Append(batch(3, Class::Upkeep, ROW))));
    assert!(matches!(after, Err(WriterError::Append(AppendError::Poisoned))));
}

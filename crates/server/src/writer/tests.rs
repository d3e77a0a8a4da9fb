//! A writer on a real directory, with a test in the place of the core.

use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
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
        last_commit: Duration::ZERO,
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

    fn batch(&mut self, class: Class) -> Append {
        let batch = Batch { first: self.next, buffer: Bytes::from_static(&[7; ROW as usize]), marks: vec![(7, ROW)] };
        self.next += 1;
        Append { batch, class }
    }

    fn append(&mut self, class: Class) {
        let append = self.batch(class);
        self.orders.send(Order::Append(append)).unwrap();
    }

    /// As the core does.
    fn at_once(&mut self) -> Result<Option<AtOnce>, WriterError> {
        let append = self.batch(Class::Intake);
        let done = self.shared.lock().unwrap().write_at_once(&append);
        if !matches!(done, Ok(Some(_))) {
            self.next -= 1;
        }
        done
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

#[test]
fn what_the_core_writes_itself_is_durable_and_the_thread_marks_it_when_it_is_idle() {
    let mut stage = World::new();
    for n in 1..=3 {
        let AtOnce { written, is_first } = stage.at_once().unwrap().expect("nothing speaks against it");
        assert!(matches!(written, Written::Durable(lsn) if lsn.0 == n));
        assert_eq!(is_first, n == 1);
    }
    let is_marked = |stage: &World| stage.shared.lock().unwrap().unmarked.is_none();
    assert!(!is_marked(&stage));
    stage.orders.send(Order::Wake).unwrap();
    let until = Instant::now() + 100 * IDLE;
    while !is_marked(&stage) {
        assert!(Instant::now() < until, "the thread never looked after it");
        thread::yield_now();
    }
    assert!(stage.at_once().unwrap().unwrap().is_first);
    stage.append(Class::Intake);
    assert!(matches!(stage.told(), Written::Durable(lsn) if lsn.0 == 5));
}

#[test]
fn a_slow_or_full_disk_and_a_large_batch_are_the_threads() {
    let mut stage = World::new();
    let set = |stage: &World, last, max| {
        let mut writer = stage.shared.lock().unwrap();
        (writer.last_commit, writer.at_once_max) = (last, max);
    };
    set(&stage, 2 * AT_ONCE_TIME_MAX, AT_ONCE_TIME_MAX);
    assert!(stage.at_once().unwrap().is_none());
    stage.append(Class::Intake);
    assert!(matches!(stage.told(), Written::Durable(_)));
    set(&stage, Duration::ZERO, Duration::MAX);
    let len = AT_ONCE_BYTES_MAX + 1;
    let batch = Batch { first: stage.next, buffer: vec![7; len].into(), marks: vec![(7, len as u32)] };
    let large = Append { batch, class: Class::Intake };
    assert!(stage.shared.lock().unwrap().write_at_once(&large).unwrap().is_none());
    let mut stage = World::new();
    stage.faults.room.store(0, Ordering::SeqCst);
    assert!(stage.at_once().unwrap().is_none());
    // The thread says so and has the reserve.
    stage.append(Class::Intake);
    assert!(matches!(stage.told(), Written::Full(true)));
    assert!(matches!(stage.told(), Written::Durable(lsn) if lsn.0 == 1));
    assert!(stage.at_once().unwrap().is_none());
}

#[test]
fn a_sync_that_failed_for_the_core_has_failed_for_the_thread() {
    let mut stage = World::new();
    stage.faults.syncs.store(0, Ordering::SeqCst);
    assert!(matches!(stage.at_once(), Err(WriterError::Commit(CommitError::Disk(_)))));
    stage.append(Class::Upkeep);
    assert!(matches!(stage.told(), Written::Failed(WriterError::Append(AppendError::Poisoned))));
    stage.writer.join().unwrap();
}

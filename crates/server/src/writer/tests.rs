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

struct World {
    faults: Arc<Faults>,
    orders: SyncSender<Order>,
    written: mpsc::Receiver<Written>,
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
        let (ask, _) = mpsc::channel(QUESTIONS.capacity);
        let (tell, written) = mpsc::channel(DURABLES.capacity);
        let (orders, taken) = sync_channel(APPENDS.capacity);
        let (seals, _) = sync_channel(SEALS.capacity);
        let writer = Writer {
            store: Arc::new(Store::new(disk, journal.map().clone(), 1 << 20)),
            finished: Arc::new(indexer::open(&journal).unwrap().0),
            written: tell,
            compaction: Compaction::new(&journal, Limits::default(), ask),
            seals,
            pulse: Pulse::new(Stage::Writer),
            told: (SegmentId(0), SegmentId(0)),
            room: Room::default(),
            gauges: Arc::default(),
            journal,
        };
        let writer = thread::spawn(move || writer.run(&taken));
        Self { faults, orders, written, writer, next: 1, _dir: (temp, dir) }
    }

    fn append(&mut self, class: Class) {
        let batch = Batch { first: self.next, buffer: Bytes::from_static(&[7; ROW as usize]), marks: vec![(7, ROW)] };
        self.next += 1;
        self.orders.send(Order::Append(Append { batch, class })).unwrap();
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
        assert!(stage.written.blocking_recv().is_none(), "that was its last word");
    }
}

//! The core with a test in the place of the links and of the writer: what it hands over, and when.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver as Orders, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use sheaf_journal::{Class, Config as JournalConfig, FRAME_EXTRA_MAX, Journal};
use sheaf_net::{Alarm, Clock};
use sheaf_roles::router::{Config, Inbound, KeyedRow, Limits as MachineLimits, View};
use sheaf_session::{Lane, Place};
use sheaf_task::{JobId, JobOptions, JobSpec, Key, Question, RouterId, RowId};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::*;
use crate::disk::FileDisk;
use crate::limits::{EVENT_BYTES_MAX, RESERVE_BYTES, ROW_EXTRA, UPKEEP_BYTES_MIN};
use crate::stages::{APPENDS, ORDERS, QUESTIONS as ASKED, Stage};
use crate::writer::Append;

const PEER: PeerId = PeerId(1);
/// Of stopped time: nothing here takes long.
const MINUTE: Duration = Duration::from_secs(60);
const JOB: JobId = JobId([1; 16]);

struct World {
    inputs: Sender<Vec<Input>>,
    orders: Orders<Order>,
    written: Sender<Written>,
    stop: watch::Sender<bool>,
    core: JoinHandle<Result<(), WriterError>>,
    said: mpsc::Receiver<Vec<Output>>,
    writer: writer::Shared,
    seq: u64,
    _dir: tempfile::TempDir,
}

/// Messages of rows: more than the core takes.
#[derive(Clone, Copy)]
struct Shape {
    messages: usize,
    rows: usize,
    bytes: usize,
}

/// Each nearly as large as a message may be.
const LONG: Shape = Shape { messages: 6, rows: 190, bytes: 10_000 };
/// Frames that are mostly header.
const SHORT: Shape = Shape { messages: 30, rows: 1_024, bytes: 1 };

impl World {
    /// A client that has opened its job; the writer has the record of that.
    async fn new() -> Self {
        Self::on_disk(false).await
    }

    /// The same on a disk that is quick, or not.
    async fn on_disk(is_quick: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::new(dir.path().to_owned());
        let (journal, report) = Journal::open(disk.clone(), JournalConfig::default()).unwrap();
        let mut router = Router::new(Config {
            router: RouterId([1; 16]),
            epoch: 1,
            seed: 1,
            grace: Micros::from_secs(60),
            sealed: Lsn::NONE,
            generation: Generation::default(),
            limits: MachineLimits::default(),
        });
        let clock = Clock::start();
        router.start(clock.now(), Lsn(report.next.0));
        let (inputs, from_links) = mpsc::channel(EVENTS.capacity);
        let (written, from_writer) = mpsc::channel(DURABLES.capacity);
        let (_, questions) = mpsc::channel(ASKED.capacity);
        let (_, indexed) = mpsc::channel(INDEXED.capacity);
        let (to_writer, orders) = sync_channel(APPENDS.capacity);
        let (stop, stopped) = watch::channel(false);
        let store = Arc::new(Store::new(disk, journal.map().clone(), 0));
        let (tell, _) = mpsc::channel(DURABLES.capacity);
        let mut writer = crate::writer::tests::writer(journal, tell);
        if !is_quick {
            writer.at_once_max = Duration::ZERO;
        }
        let writer = Arc::new(Mutex::new(writer));
        let core = Core {
            router,
            clock,
            limits: Limits::default(),
            store,
            inlets: Inlets {
                inbox: Inbox::new(from_links),
                stop: stopped,
                written: from_writer,
                questions,
                indexed,
                alarm: Alarm::default(),
            },
            orders: to_writer,
            writer: Arc::clone(&writer),
            peers: BTreeMap::new(),
            dirty: BTreeSet::new(),
            pending: Pending::new(Lsn(report.next.0)),
            ending: Ending::default(),
            gauges: Arc::default(),
            pulse: Pulse::new(Stage::Core),
            generation: Generation::default(),
        };
        let core = tokio::spawn(core.run());
        let (to_link, said) = mpsc::channel(ORDERS.capacity);
        let mut world = Self { inputs, orders, written, stop, core, said, writer, seq: 0, _dir: dir };
        let up = vec![Input::Attach(PEER, to_link), Input::Event(Event::PeerUp { peer: PEER })];
        world.inputs.send(up).await.unwrap();
        world.hear(Inbound::OpenJob { spec: spec(), app: String::new() }).await;
        world
    }

    async fn hear(&mut self, inbound: Inbound) {
        self.seq += 1;
        let place = Place { lane: Lane::Bulk, epoch: 1, seq: self.seq };
        let event = Event::Message { peer: PEER, place, receipt: None, inbound };
        self.inputs.send(vec![Input::Event(event)]).await.unwrap();
    }

    async fn submit(&mut self, Shape { rows, bytes, .. }: Shape) {
        let first = self.seq * rows as u64;
        let rows = (0..rows as u64).map(|n| row(first + n, bytes)).collect();
        self.hear(Inbound::Submit { job: JOB, cursor: 0, rows, generation: Generation::default() }).await;
    }

    /// Lets the core do all that it can do.
    async fn settle(&mut self) {
        for _ in 0..1_000 {
            yield_now().await;
        }
    }

    /// What the writer is given; it has nothing else meanwhile.
    async fn handed(&mut self) -> Option<Append> {
        self.settle().await;
        match self.orders.try_recv().ok()? {
            Order::Append(append) => Some(append),
            Order::Verdict(_) | Order::Wake => panic!("nobody asked"),
        }
    }

    async fn is_durable(&mut self, append: &Append) {
        let last = append.batch.first + append.batch.marks.len() as u64 - 1;
        self.written.send(Written::Durable(sheaf_journal::Lsn(last))).await.unwrap();
    }
}

#[tokio::test]
async fn what_comes_alone_on_a_quick_disk_needs_no_other_thread() {
    let mut world = World::on_disk(true).await;
    let few = Shape { messages: 3, rows: 2, bytes: 100 };
    // The first batch makes the journal ask for blocks: that is the thread's.
    let opened = world.handed().await.expect("the job's record");
    world.is_durable(&opened).await;
    {
        let mut writer = world.writer.lock().unwrap();
        writer.obey(Ok(Order::Append(opened))).unwrap();
        writer.unmarked = None;
    }
    for _ in 0..few.messages {
        world.submit(few).await;
        world.settle().await;
    }
    let orders: Vec<Order> = world.orders.try_iter().collect();
    assert!(matches!(orders[..], [Order::Wake]), "{orders:?}");
    let said: Vec<Output> = std::iter::from_fn(|| world.said.try_recv().ok()).flatten().collect();
    let acknowledged = said.iter().filter(|said| matches!(said, Output::Commit { .. })).count();
    assert_eq!(acknowledged, 1 + few.messages, "the job and its rows: {said:?}");
    world.submit(LONG).await;
    assert!(world.handed().await.is_some(), "a large batch is the thread's");
}

fn spec() -> JobSpec {
    JobSpec {
        job: JOB,
        name: "job".into(),
        service: "service".into(),
        revision: String::new(),
        nonce: Bytes::new(),
        cursor: 0,
        cursor_router: None,
        options: JobOptions::default(),
    }
}

fn row(n: u64, bytes: usize) -> KeyedRow {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    KeyedRow { row: RowId(id), key: Key(id), sample: 0, body: vec![7; bytes].into(), prior: None }
}

fn frames(append: &Append) -> usize {
    append.batch.buffer.len() + append.batch.marks.len() * FRAME_EXTRA_MAX
}

#[tokio::test]
async fn rows_on_their_way_when_the_disk_fills_leave_room_in_the_reserve() {
    for shape in [LONG, SHORT] {
        let mut world = World::new().await;
        let opened = world.handed().await.expect("the job's record");
        for _ in 0..shape.messages {
            world.submit(shape).await;
        }
        // Gathered while that record was written, refused by the disk, put into the reserve …
        world.settle().await;
        world.is_durable(&opened).await;
        let first = world.handed().await.expect("rows");
        world.settle().await;
        world.written.send(Written::Full(true)).await.unwrap();
        // … and gathered meanwhile.
        world.is_durable(&first).await;
        let second = world.handed().await.expect("more rows");
        assert_eq!((first.class, second.class), (Class::Intake, Class::Intake), "else this test shows nothing");
        let event = shape.rows * (shape.bytes + ROW_EXTRA);
        assert!(event <= EVENT_BYTES_MAX);
        assert!(frames(&first).max(frames(&second)) <= APPEND_BYTES_MAX + event);
        assert!(frames(&first) + frames(&second) + UPKEEP_BYTES_MIN <= RESERVE_BYTES as usize);
        // Whatever came behind them is refused.
        world.is_durable(&second).await;
        while let Some(append) = world.handed().await {
            assert_eq!(append.class, Class::Upkeep);
            world.is_durable(&append).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_router_that_is_to_end_does_not_wait_for_room_for_ever() {
    for by_message in [false, true] {
        let mut world = World::new().await;
        let opened = world.handed().await.expect("the job's record");
        world.written.send(Written::Stuck).await.unwrap();
        for _ in 0..LONG.messages {
            world.submit(LONG).await;
        }
        world.settle().await;
        assert!(!world.core.is_finished(), "nobody has asked for the end");
        if by_message {
            let question = Question::Shutdown;
            world.hear(Inbound::Ask { id: 1, question, prior: None, owners: Vec::new(), view: View::All }).await;
        } else {
            world.stop.send_replace(true);
        }
        let began = Clock::start();
        let ended = timeout(MINUTE, &mut world.core).await.expect("it ends").unwrap();
        assert!(matches!(ended, Err(WriterError::Full)));
        assert!(began.now() <= ROOM_PATIENCE + Micros::from_ms(10));
        let said: Vec<Output> = std::iter::from_fn(|| world.said.try_recv().ok()).flatten().collect();
        assert!(!said.iter().any(|said| matches!(said, Output::Commit { .. })), "nothing is acknowledged: {said:?}");
        drop(opened);
    }
}

#[tokio::test(start_paused = true)]
async fn a_router_that_is_to_end_and_finds_room_ends_as_it_should() {
    let mut world = World::new().await;
    let opened = world.handed().await.expect("the job's record");
    world.written.send(Written::Stuck).await.unwrap();
    world.submit(LONG).await;
    world.settle().await;
    world.stop.send_replace(true);
    world.settle().await;
    world.is_durable(&opened).await;
    let rows = world.handed().await.expect("the rows");
    assert!(!world.core.is_finished(), "they are not durable");
    world.is_durable(&rows).await;
    let ended = timeout(MINUTE, &mut world.core).await.expect("it ends").unwrap();
    assert!(matches!(ended, Ok(())));
}

//! The driver alone: an endpoint without a session, a carrier whose other end the test holds, and time that passes only
//! when nothing else can happen.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sheaf_session::{CloseReason, Fatal};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::limits::IN_PROCESS_CHUNKS;

const CHUNK: Bytes = Bytes::from_static(&[7; 64 << 10]);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Do {
    Transmit(usize, Bytes),
    Close,
    End,
}

#[derive(Debug, PartialEq)]
enum Saw {
    Connected(u64),
    Bytes(Bytes),
    Disconnected,
    Tick,
}

/// Does as told, reports what it sees, and wants to know each second.
#[derive(Debug, Default)]
struct Puppet {
    steps: VecDeque<Step<Saw>>,
    wakes: bool,
    ended: bool,
    now: Micros,
    commanded: Arc<AtomicUsize>,
    transmitted: Arc<AtomicUsize>,
    /// What it was called for: input, command, poll; polls in a row once.
    calls: Arc<Mutex<String>>,
}

impl Puppet {
    fn note(&self, call: char) {
        let mut calls = self.calls.lock().unwrap();
        if call != 'p' || !calls.ends_with('p') {
            calls.push(call);
        }
    }
}

impl Endpoint for Puppet {
    type Command = Do;
    type Report = Saw;

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.now = now;
        self.note('i');
        self.steps.push_back(Step::Report(match input {
            Input::Connected { conn } => Saw::Connected(conn),
            Input::Bytes(bytes) if bytes[..] == *b"garbage" => return Err(Fatal::Malformed),
            Input::Bytes(bytes) => Saw::Bytes(bytes.freeze()),
            Input::Disconnected => Saw::Disconnected,
            Input::Persisted(_) | Input::Tick => Saw::Tick,
        }));
        Ok(())
    }

    fn missing_bytes(&self) -> usize {
        0
    }

    fn command(&mut self, _: Micros, command: Do) {
        self.commanded.fetch_add(1, Ordering::Relaxed);
        self.note('c');
        match command {
            Do::Transmit(times, bytes) => {
                self.steps.extend(std::iter::repeat_n(bytes, times).map(Step::Transmit));
            }
            Do::Close => self.steps.push_back(Step::Close(CloseReason::Dead)),
            Do::End => self.ended = true,
        }
    }

    fn poll(&mut self, _: Micros) -> Step<Saw> {
        self.note('p');
        match self.steps.pop_front() {
            Some(step) => {
                self.transmitted.fetch_add(usize::from(matches!(step, Step::Transmit(_))), Ordering::Relaxed);
                step
            }
            None if self.ended => Step::Done,
            None => Step::Wait(self.wakes.then(|| self.now + Micros::from_secs(1))),
        }
    }
}

/// A link, and all that it is connected to.
struct Stage {
    commanded: Arc<AtomicUsize>,
    transmitted: Arc<AtomicUsize>,
    connections: mpsc::Sender<Incoming>,
    commands: mpsc::Sender<Vec<Do>>,
    reports: mpsc::Receiver<Vec<Saw>>,
    seen: VecDeque<Saw>,
    link: JoinHandle<Puppet>,
}

impl Stage {
    fn new(puppet: Puppet) -> Self {
        let (connections, arrivals) = mpsc::channel(4);
        let (commands, taken) = mpsc::channel(2_000);
        let (says, reports) = mpsc::channel(1);
        let (commanded, transmitted) = (Arc::clone(&puppet.commanded), Arc::clone(&puppet.transmitted));
        let link = tokio::spawn(Link::new(puppet, Clock::start(), Source::Accept(arrivals), taken, says).run());
        Self { commanded, transmitted, connections, commands, reports, seen: VecDeque::new(), link }
    }

    async fn connected() -> (Self, Carrier) {
        let mut stage = Self::new(Puppet::default());
        let peer = stage.connect(1).await;
        (stage, peer)
    }

    async fn connect(&mut self, conn: u64) -> Carrier {
        let (ours, theirs) = Carrier::pair();
        self.connections.send(Incoming { carrier: ours, conn, read: Bytes::new(), hello: None }).await.unwrap();
        assert_eq!(self.saw_until(|saw| matches!(saw, Saw::Connected(_))).await, Saw::Connected(conn));
        theirs
    }

    async fn tell(&self, command: Do) {
        self.commands.send(vec![command]).await.unwrap();
    }

    async fn saw(&mut self) -> Saw {
        while self.seen.is_empty() {
            let batch = timeout(PATIENCE, self.reports.recv()).await.expect("nothing is reported");
            self.seen.extend(batch.expect("the link has ended"));
        }
        self.seen.pop_front().unwrap()
    }

    async fn saw_until(&mut self, wanted: impl Fn(&Saw) -> bool) -> Saw {
        loop {
            let saw = self.saw().await;
            if wanted(&saw) {
                return saw;
            }
        }
    }
}

/// All that comes until the end.
async fn read_all(mut peer: Carrier) -> usize {
    let mut bytes = 0;
    while let Some(chunk) = timeout(PATIENCE, peer.reader.read(0)).await.expect("no end").unwrap() {
        bytes += chunk.len();
    }
    bytes
}

async fn write(peer: &mut Carrier, bytes: Bytes) {
    let mut outbound = Outbound::default();
    outbound.push(bytes);
    peer.writer.write(&mut outbound).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_stops_the_endpoint_and_then_loses_its_connection() {
    let (mut stage, _peer) = Stage::connected().await;
    let start = Instant::now();
    stage.tell(Do::Transmit(10_000, CHUNK)).await;
    stage.saw_until(|saw| *saw == Saw::Disconnected).await;
    assert!(start.elapsed() >= WRITE_STALL && start.elapsed() < WRITE_STALL + Duration::from_secs(1));
    let most = IN_PROCESS_CHUNKS + OUTBOUND_BYTES_MAX / CHUNK.len();
    assert!(stage.transmitted.load(Ordering::Relaxed) >= most);
    // What it says to nobody is dropped, and the next connection is served.
    let peer = stage.connect(2).await;
    stage.tell(Do::Transmit(3, CHUNK)).await;
    stage.tell(Do::End).await;
    assert_eq!(read_all(peer).await, 3 * CHUNK.len());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_bounds_what_waits_and_keeps_its_connection() {
    let (stage, mut peer) = Stage::connected().await;
    stage.tell(Do::Transmit(400, CHUNK)).await;
    let most = IN_PROCESS_CHUNKS + OUTBOUND_BYTES_MAX / CHUNK.len() + 1;
    for read in 0..400 {
        let waits = timeout(WRITE_STALL / 2, std::future::pending::<()>()).await;
        assert!(waits.is_err());
        assert!(stage.transmitted.load(Ordering::Relaxed) <= most + read);
        assert_eq!(peer.reader.read(0).await.unwrap().map(bytes::BytesMut::freeze), Some(CHUNK));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_commands_starves_nothing() {
    let (stage, mut peer) = Stage::connected().await;
    for _ in 0..2_000 {
        stage.commands.try_send(vec![Do::Transmit(1, Bytes::from_static(b"x"))]).unwrap();
    }
    assert!(peer.reader.read(0).await.unwrap().is_some());
    assert!(stage.commanded.load(Ordering::Relaxed) < 2_000, "nothing was written before the last command was taken");
}

#[tokio::test(start_paused = true)]
async fn whatever_wakes_the_link_what_was_commanded_by_then_leaves_with_what_came_of_it() {
    let puppet = Puppet::default();
    let calls = Arc::clone(&puppet.calls);
    let mut stage = Stage::new(puppet);
    let mut peer = stage.connect(1).await;
    // Which of the two wakes it is chance.
    for _ in 0..30 {
        calls.lock().unwrap().push(' ');
        write(&mut peer, Bytes::from_static(b"x")).await;
        stage.commands.try_send(vec![Do::Transmit(1, Bytes::from_static(b"y"))]).unwrap();
        stage.saw_until(|saw| matches!(saw, Saw::Bytes(_))).await;
        assert!(peer.reader.read(0).await.unwrap().is_some());
    }
    let calls = calls.lock().unwrap().clone();
    let rounds = || calls.split(' ').skip(1);
    assert!(rounds().any(|round| round == "icp") && rounds().all(|round| ["icp", "cpip"].contains(&round)), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn input_waits_while_the_embedder_takes_no_reports() {
    let (mut stage, mut peer) = Stage::connected().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let writer = tokio::spawn(async move {
        for _ in 0..20_000 {
            write(&mut peer, Bytes::from_static(b"x")).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
        peer
    });
    assert!(timeout(Duration::from_secs(5), std::future::pending::<()>()).await.is_err());
    // A batch in the channel, one that waits, and what the carrier holds.
    assert!(sent.load(Ordering::Relaxed) <= 2 * REPORTS_MAX + IN_PROCESS_CHUNKS + 2);
    for _ in 0..20_000 {
        assert_eq!(stage.saw().await, Saw::Bytes(Bytes::from_static(b"x")));
    }
    drop(writer.await.unwrap());
    assert_eq!(stage.saw().await, Saw::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn what_was_transmitted_before_a_close_is_out_before_it() {
    let (mut stage, peer) = Stage::connected().await;
    stage.tell(Do::Transmit(300, CHUNK)).await;
    stage.tell(Do::Close).await;
    assert_eq!(read_all(peer).await, 300 * CHUNK.len());
    assert_eq!(stage.saw().await, Saw::Disconnected);
    // Only the connection went.
    stage.connect(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_holds_up_no_end() {
    for last in [Do::Close, Do::End] {
        let (mut stage, _peer) = Stage::connected().await;
        let most = IN_PROCESS_CHUNKS + OUTBOUND_BYTES_MAX / CHUNK.len() / 2;
        let start = Instant::now();
        stage.commands.send(vec![Do::Transmit(most, CHUNK), last]).await.unwrap();
        assert_eq!(stage.saw().await, Saw::Disconnected);
        assert!(start.elapsed() <= FLUSH + Duration::from_millis(10));
    }
}

#[tokio::test(start_paused = true)]
async fn an_embedder_that_goes_lets_the_last_words_out() {
    let (stage, peer) = Stage::connected().await;
    stage.tell(Do::Transmit(70, CHUNK)).await;
    let Stage { link, commands, .. } = stage;
    drop(commands);
    assert_eq!(read_all(peer).await, 70 * CHUNK.len());
    link.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_embedder_that_goes_waits_for_no_peer() {
    let (stage, _peer) = Stage::connected().await;
    let start = Instant::now();
    stage.tell(Do::Transmit(1_000, CHUNK)).await;
    let Stage { link, commands, .. } = stage;
    drop(commands);
    timeout(PATIENCE, link).await.expect("the link hangs").unwrap();
    assert!(start.elapsed() <= FLUSH + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_listener_went_is_out_before_its_links_end() {
    // Which of the two the link sees first is a matter of chance.
    for _ in 0..64 {
        let (stage, peer) = Stage::connected().await;
        stage.tell(Do::Transmit(1, CHUNK)).await;
        let Stage { connections, commands, reports, link, .. } = stage;
        drop(connections);
        assert_eq!(read_all(peer).await, CHUNK.len());
        drop((commands, reports));
        link.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_goes_ends_its_links() {
    let (stage, peer) = Stage::connected().await;
    let Stage { link, connections, commands, reports, .. } = stage;
    drop(connections);
    assert_eq!(read_all(peer).await, 0);
    drop((timeout(PATIENCE, link).await.expect("the link hangs").unwrap(), commands, reports));
}

#[tokio::test(start_paused = true)]
async fn a_later_connection_replaces_an_earlier_one() {
    let (mut stage, first) = Stage::connected().await;
    let mut second = stage.connect(2).await;
    assert_eq!(read_all(first).await, 0);
    write(&mut second, Bytes::from_static(b"hi")).await;
    assert_eq!(stage.saw().await, Saw::Bytes(Bytes::from_static(b"hi")));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_protocol_loses_its_connection_only() {
    let (mut stage, mut first) = Stage::connected().await;
    write(&mut first, Bytes::from_static(b"garbage")).await;
    assert_eq!(stage.saw().await, Saw::Disconnected);
    assert_eq!(read_all(first).await, 0);
    stage.connect(2).await;
}

#[tokio::test(start_paused = true)]
async fn time_is_judged_after_what_has_arrived_is_read() {
    let mut stage = Stage::new(Puppet { wakes: true, ..Puppet::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let carrier = Carrier::tcp(listener.accept().await.unwrap().0).unwrap();
    stage.connections.send(Incoming { carrier, conn: 1, read: Bytes::new(), hello: None }).await.unwrap();
    for round in 0..50_u8 {
        stage.saw_until(|saw| *saw == Saw::Tick).await;
        // As a process finds it that was stopped for a while: its input is there, and its time is long over.
        peer.write_all(&[round]).unwrap();
        advance(Duration::from_secs(20)).await;
        assert_eq!(stage.saw().await, Saw::Bytes(Bytes::from(vec![round])));
    }
}

//! The session layer alone: two peers in this process, over TCP and over the in-process carrier.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use sheaf_net::{Arrival, Clock, Incoming, Link, Listener, Source, Target};
use sheaf_session::{
    Body, Config, Endpoint, Event, Fatal, Input, Kind, Lane, Micros, Outgoing, Output, Session, SessionId, Side, Step,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::floor;
use super::report::{Figure, percentile};

/// Batches between a peer and its link.
const BATCHES: usize = 4;

/// Messages on their way at once, where the rate is measured.
const WINDOW: u64 = 8_192;

/// Round trips, one at a time.
const TRIPS: u64 = 5_000;

/// Rate and round trip over each carrier.
pub(super) async fn session(messages: u64, body: usize) -> Result<Vec<Figure>> {
    let floors = tokio::task::spawn_blocking(move || -> Result<_> {
        Ok((floor::echo_rate(messages as usize, body)?, floor::echo_latency(TRIPS as usize, body)?))
    });
    let (rate_floor, trip_floor) = floors.await.context("a thread panicked")??;
    let body = Bytes::from(vec![b'x'; body]);
    let mut figures = Vec::new();
    for carrier in ["tcp", "in-process"] {
        let mut pair = Pair::connect(carrier == "tcp").await?;
        pair.trips(&body, 1, 1).await?;
        let since = Instant::now();
        pair.trips(&body, messages, WINDOW).await?;
        let rate = messages as f64 / since.elapsed().as_secs_f64();
        let mut took = pair.trips(&body, TRIPS, 1).await?;
        took.sort_by(f64::total_cmp);
        figures.push(Figure::new(format!("{carrier}: messages there and back"), rate, "/s").against(rate_floor));
        figures.push(Figure::new(format!("{carrier}: p50"), percentile(&took, 0.5), "us").against(trip_floor));
        figures.push(Figure::new(format!("{carrier}: p99"), percentile(&took, 0.99), "us"));
    }
    Ok(figures)
}

/// A caller and its echo.
struct Pair {
    say: mpsc::Sender<Vec<Bytes>>,
    heard: mpsc::Receiver<Vec<Bytes>>,
    /// Ended with the pair.
    _tasks: JoinSet<()>,
}

impl Pair {
    async fn connect(tcp: bool) -> Result<Self> {
        let listener = Listener::bind(tcp.then_some("127.0.0.1:0")).await?;
        let target = listener.addr().map_or(Target::InProcess(listener.door()), Target::Tcp);
        let (arrived, arrivals) = mpsc::channel(1);
        let (say, commands) = mpsc::channel(BATCHES);
        let (reports, heard) = mpsc::channel(BATCHES);
        let session = Session::new(Config::default(), Side::Dialer, SessionId([1; 16]), 1);
        let source = Source::Dial { target, seed: 1 };
        let caller = Link::new(Talker::new(session, false), Clock::start(), source, commands, reports);
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.serve(arrived));
        tasks.spawn(echo(arrivals));
        tasks.spawn(async move { drop(caller.run().await) });
        Ok(Self { say, heard, _tasks: tasks })
    }

    /// Sends so many, with at most `window` unanswered. With a window of one: the microseconds of each.
    async fn trips(&mut self, body: &Bytes, messages: u64, window: u64) -> Result<Vec<f64>> {
        let (mut sent, mut back, mut took) = (0, 0, Vec::new());
        while back < messages {
            let more = (messages - sent).min(window - (sent - back));
            let since = Instant::now();
            if more > 0 {
                self.say.send(vec![body.clone(); more as usize]).await.context("the link has ended")?;
                sent += more;
            }
            back += self.heard.recv().await.context("the link has ended")?.len() as u64;
            if window == 1 {
                took.push(since.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(took)
    }
}

/// Answers on the first connection that comes.
async fn echo(mut arrivals: mpsc::Receiver<Arrival>) {
    let Some(Arrival { session, incoming, origin: _ }) = arrivals.recv().await else { return };
    let session = Session::new(Config::default(), Side::Listener, session, 2);
    let (connect, connections) = mpsc::channel::<Incoming>(1);
    let (_say, commands) = mpsc::channel(1);
    let (reports, mut heard) = mpsc::channel(BATCHES);
    let link = Link::new(Talker::new(session, true), Clock::start(), Source::Accept(connections), commands, reports);
    if connect.send(incoming).await.is_ok() {
        tokio::join!(link.run(), async { while heard.recv().await.is_some() {} });
    }
}

/// One side: commits what it hears at once, and says it again or tells it.
struct Talker {
    session: Session,
    echoes: bool,
    /// Bounded by the caller's window.
    waiting: VecDeque<Bytes>,
}

impl Talker {
    fn new(session: Session, echoes: bool) -> Self {
        Self { session, echoes, waiting: VecDeque::new() }
    }

    fn say(&mut self, now: Micros) {
        while let Some(body) = self.waiting.front() {
            let body = Body::Inline(body.clone());
            let message = Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body };
            if self.session.send(now, message).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

impl Endpoint for Talker {
    type Command = Bytes;
    type Report = Bytes;

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.session.feed(now, input)
    }

    fn missing_bytes(&self) -> usize {
        self.session.missing_bytes()
    }

    fn command(&mut self, now: Micros, body: Bytes) {
        self.waiting.push_back(body);
        self.say(now);
    }

    fn poll(&mut self, now: Micros) -> Step<Bytes> {
        loop {
            match self.session.take(now) {
                Output::Transmit(bytes) => return Step::Transmit(bytes),
                Output::Deliver(delivery) => {
                    self.session.commit(now, delivery.place);
                    if !self.echoes {
                        return Step::Report(delivery.body);
                    }
                    self.waiting.push_back(delivery.body);
                    self.say(now);
                }
                Output::Event(Event::Room { .. }) => self.say(now),
                Output::Event(Event::Ended) => return Step::Done,
                Output::Event(_) => {}
                Output::Close(reason) => return Step::Close(reason),
                Output::Wait(wake) => return Step::Wait(wake),
                Output::Persist(..) | Output::Need(_) => unreachable!("depth MEMORY, inline bodies"),
            }
        }
    }
}

//! Two kinds of peer on real sessions: one that says what the test tells it to, and a hall where each session finds an
//! echo that outlives its connections.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sheaf_net::{Arrival, Clock, Incoming, Link, Listener, Source, Target};
use sheaf_session::{
    Body, Config, Endpoint, Event, Fatal, Faults, HelloInfo, How, Input, Kind, Lane, Micros, Outgoing, Output, Refusal,
    Session, SessionId, Side, Step,
};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// Longer than anything here takes; a test that fails by it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn config(faults: Option<Faults>) -> Config {
    Config { faults, ..Config::default() }
}

#[derive(Debug)]
pub enum Say {
    Message(Bytes),
    Close,
}

#[derive(Debug, PartialEq)]
pub enum Heard {
    Message(Bytes),
    Up { resumed: bool },
    Down,
    Refused(Refusal),
}

/// One side of a session; commits what it hears at once.
#[derive(Debug)]
pub struct Talker {
    session: Session,
    echoes: bool,
    waiting: VecDeque<Bytes>,
    ended: bool,
}

impl Talker {
    pub fn new(session: Session, echoes: bool) -> Self {
        Self { session, echoes, waiting: VecDeque::new(), ended: false }
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
    type Command = Say;
    type Report = Heard;

    fn admit(&self, hello: &HelloInfo) -> Result<(), Refusal> {
        self.session.admit(hello)
    }

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.session.feed(now, input)
    }

    fn missing_bytes(&self) -> usize {
        self.session.missing_bytes()
    }

    fn command(&mut self, now: Micros, command: Say) {
        match command {
            Say::Message(body) => self.waiting.push_back(body),
            Say::Close => self.session.close(now, How::Drain),
        }
        self.say(now);
    }

    fn poll(&mut self, now: Micros) -> Step<Heard> {
        loop {
            match self.session.take(now) {
                Output::Transmit(bytes) => return Step::Transmit(bytes),
                Output::Deliver(delivery) => {
                    self.session.commit(now, delivery.place);
                    if !self.echoes {
                        return Step::Report(Heard::Message(delivery.body));
                    }
                    self.waiting.push_back(delivery.body);
                    self.say(now);
                }
                Output::Event(Event::Up { resumed }) => return Step::Report(Heard::Up { resumed }),
                Output::Event(Event::Fenced) => return Step::Report(Heard::Refused(Refusal::Fenced)),
                Output::Event(Event::Refused(why)) => return Step::Report(Heard::Refused(why)),
                Output::Event(Event::Down) => return Step::Report(Heard::Down),
                Output::Event(Event::Ended) => self.ended = true,
                Output::Event(Event::Room { .. }) => self.say(now),
                Output::Event(_) => {}
                Output::Close(reason) => return Step::Close(reason),
                Output::Wait(_) if self.ended => return Step::Done,
                Output::Wait(wake) => return Step::Wait(wake),
                Output::Persist(..) | Output::Need(_) => unreachable!("depth MEMORY, inline bodies"),
            }
        }
    }
}

/// A dialer with its link.
pub struct Caller {
    pub say: mpsc::Sender<Vec<Say>>,
    hear: mpsc::Receiver<Vec<Heard>>,
    heard: VecDeque<Heard>,
    pub link: JoinHandle<Talker>,
}

impl Caller {
    pub fn dial(target: Target, id: u8, faults: Option<Faults>) -> Self {
        Self::dial_as(target, id, config(faults))
    }

    pub fn dial_as(target: Target, id: u8, config: Config) -> Self {
        let source = Source::Dial { target, seed: u64::from(id) };
        let session = Session::new(config, Side::Dialer, SessionId([id; 16]), 1);
        let (say, commands) = mpsc::channel(4);
        let (reports, hear) = mpsc::channel(4);
        let link = Link::new(Talker::new(session, false), Clock::start(), source, commands, reports);
        Self { say, hear, heard: VecDeque::new(), link: tokio::spawn(link.run()) }
    }

    pub async fn say(&self, bodies: impl IntoIterator<Item = Bytes>) {
        self.say.send(bodies.into_iter().map(Say::Message).collect()).await.unwrap();
    }

    pub async fn hear(&mut self) -> Heard {
        while self.heard.is_empty() {
            let batch = tokio::time::timeout(PATIENCE, self.hear.recv()).await.expect("nothing is heard");
            self.heard.extend(batch.expect("the link has ended"));
        }
        self.heard.pop_front().unwrap()
    }

    pub async fn hear_up(&mut self) -> bool {
        loop {
            if let Heard::Up { resumed } = self.hear().await {
                return resumed;
            }
        }
    }

    /// The next message, whatever connections come and go.
    pub async fn message(&mut self) -> Bytes {
        loop {
            if let Heard::Message(body) = self.hear().await {
                return body;
            }
        }
    }

    /// Ends the session in agreement.
    pub async fn close(mut self) {
        self.say.send(vec![Say::Close]).await.unwrap();
        let ended = async {
            while self.hear.recv().await.is_some() {}
            self.link.await.unwrap();
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the session does not end");
    }
}

/// A listener whose sessions echo. Dropping its connections keeps its sessions: `stop` and `resume`.
pub struct Hall {
    pub target: Target,
    pub addr: Option<std::net::SocketAddr>,
    serve: JoinHandle<()>,
    sessions: JoinHandle<Sessions>,
}

/// What a hall keeps while nobody listens.
pub struct Sessions {
    clock: Clock,
    faults: Option<Faults>,
    live: BTreeMap<SessionId, mpsc::Sender<Incoming>>,
    says: Vec<mpsc::Sender<Vec<Say>>>,
    links: JoinSet<Talker>,
}

impl Hall {
    pub async fn open(addr: Option<&str>, faults: Option<Faults>) -> Self {
        Self::resume(addr, Sessions::new(faults, Clock::start())).await
    }

    pub async fn resume(addr: Option<&str>, sessions: Sessions) -> Self {
        Self::behind(Listener::bind(addr).await.unwrap(), sessions)
    }

    pub async fn over_tls(config: std::sync::Arc<rustls::ServerConfig>) -> Self {
        let listener = Listener::bind_tls("127.0.0.1:0", config).await.unwrap();
        Self::behind(listener, Sessions::new(None, Clock::start()))
    }

    fn behind(listener: Listener, sessions: Sessions) -> Self {
        let addr = listener.addr();
        let target = addr.map_or(Target::InProcess(listener.door()), Target::Tcp);
        let (arrived, arrivals) = mpsc::channel(4);
        let (serve, sessions) = (tokio::spawn(listener.serve(arrived)), tokio::spawn(sessions.serve(arrivals)));
        Self { target, addr, serve, sessions }
    }

    /// As if the process had ended: nobody listens, every connection breaks. Only the sessions' memory is kept.
    pub async fn stop(self) -> Sessions {
        self.serve.abort();
        assert!(self.serve.await.is_err_and(|error| error.is_cancelled()));
        self.sessions.await.unwrap()
    }
}

impl Sessions {
    fn new(faults: Option<Faults>, clock: Clock) -> Self {
        Self { clock, faults, live: BTreeMap::new(), says: Vec::new(), links: JoinSet::new() }
    }

    async fn serve(mut self, mut arrivals: mpsc::Receiver<Arrival>) -> Self {
        while let Some(Arrival { session: id, incoming, origin: _ }) = arrivals.recv().await {
            // One that ended while its dialer missed the last word is asked for once more.
            if self.live.get(&id).is_none_or(|link| link.is_closed()) {
                let session = Session::new(config(self.faults), Side::Listener, id, 2);
                self.open(id, Talker::new(session, true));
            }
            // A link that ends just now drops it: its dialer dials again.
            drop(self.live[&id].send(incoming).await);
        }
        // The connections break when their links go; the talkers stay, for the next hall.
        self.says.clear();
        let mut kept = Sessions::new(self.faults, self.clock);
        while let Some(talker) = self.links.join_next().await {
            let mut talker = talker.unwrap();
            if !talker.ended {
                talker.input(self.clock.now(), Input::Disconnected).unwrap();
                kept.open(talker.session.id(), talker);
            }
        }
        kept
    }

    fn open(&mut self, id: SessionId, talker: Talker) {
        let (link, connections) = mpsc::channel(2);
        let (say, commands) = mpsc::channel(1);
        let (reports, mut hear) = mpsc::channel(4);
        let run = Link::new(talker, self.clock, Source::Accept(connections), commands, reports).run();
        self.links.spawn(async move {
            let reports = async { while hear.recv().await.is_some() {} };
            tokio::join!(run, reports).0
        });
        self.live.insert(id, link);
        self.says.push(say);
    }
}

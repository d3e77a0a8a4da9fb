//! A stand-in for the router: a bare session that says what a test tells it to, and commits when told.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

use std::collections::VecDeque;

use sheaf_net::{Clock, Incoming, Link, Listener, Source, Target};
use sheaf_roles::port::fit_config;
use sheaf_session::{
    Body, Config, Depth, Endpoint, Event, Fatal, How, Input, Kind, Lane, Micros, Outgoing, Output, Place, Session,
    Side, Step,
};
use sheaf_task::{Assignment, Capacity, Fence, Registration, ResultItem, RouterId, ToRouter, ToWorker, topic};
use tokio::sync::mpsc;

use super::PATIENCE;

pub enum Say {
    Urgent(ToWorker),
    Bulk(ToWorker),
    Commit(Place),
    Close,
}

#[derive(Debug)]
pub enum Heard {
    Message(Place, ToRouter),
    Capacity(Capacity),
    Up,
    Down,
    Ended,
}

struct Peer {
    session: Session,
    ended: bool,
    said: VecDeque<Heard>,
}

impl Endpoint for Peer {
    type Command = Say;
    type Report = Heard;

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        self.session.feed(now, input)
    }

    fn missing_bytes(&self) -> usize {
        self.session.missing_bytes()
    }

    fn command(&mut self, now: Micros, command: Say) {
        let (lane, message) = match command {
            Say::Urgent(message) => (Lane::Urgent, message),
            Say::Bulk(message) => (Lane::Bulk, message),
            Say::Commit(place) => return self.session.commit(now, place),
            Say::Close => return self.session.close(now, How::Drain),
        };
        let body = Body::Inline(message.encode());
        self.session.send(now, Outgoing { lane, kind: Kind::Data, app: 0, of: None, body }).unwrap();
    }

    fn poll(&mut self, now: Micros) -> Step<Heard> {
        loop {
            if let Some(heard) = self.said.pop_front() {
                return Step::Report(heard);
            }
            match self.session.take(now) {
                Output::Persist(..) | Output::Need(_) => unreachable!("depth MEMORY, and inline"),
                Output::Transmit(bytes) => return Step::Transmit(bytes),
                Output::Deliver(delivery) => {
                    let message = ToRouter::decode(delivery.body).unwrap();
                    return Step::Report(Heard::Message(delivery.place, message));
                }
                Output::Event(Event::Up { .. }) => return Step::Report(Heard::Up),
                Output::Event(Event::Down) => return Step::Report(Heard::Down),
                Output::Event(Event::Signal { topic: topic::ANNOUNCE, body }) => {
                    return Step::Report(Heard::Capacity(Capacity::decode(body).unwrap()));
                }
                Output::Event(Event::Ended) => self.said.push_back(Heard::Ended),
                Output::Event(_) => {}
                Output::Close(reason) => return Step::Close(reason),
                Output::Wait(_) if self.ended => return Step::Done,
                Output::Wait(at) => return Step::Wait(at),
            }
        }
    }
}

/// The link's ends of the channels, until there is a link.
type Ends = (mpsc::Receiver<Vec<Say>>, mpsc::Sender<Vec<Heard>>);

/// The stand-in, within this process.
pub struct Router {
    pub target: Target,
    arrivals: mpsc::Receiver<sheaf_net::Arrival>,
    connections: Option<mpsc::Sender<Incoming>>,
    say: mpsc::Sender<Vec<Say>>,
    for_link: Option<Ends>,
    hear: mpsc::Receiver<Vec<Heard>>,
    heard: VecDeque<Heard>,
}

impl Router {
    pub async fn start() -> Self {
        let listener = Listener::bind(None).await.unwrap();
        let target = Target::InProcess(listener.door());
        let (to_us, arrivals) = mpsc::channel(4);
        tokio::spawn(listener.serve(to_us));
        let (say, orders) = mpsc::channel(16);
        let (reports, hear) = mpsc::channel(16);
        let for_link = Some((orders, reports));
        Self { target, arrivals, connections: None, say, for_link, hear, heard: VecDeque::new() }
    }

    pub async fn say(&self, say: Say) {
        assert!(self.say.send(vec![say]).await.is_ok(), "the stand-in's link is gone");
    }

    /// The next thing that the worker says. A later life of the same worker is the same session.
    pub async fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            let next = async {
                tokio::select! {
                    Some(batch) = self.hear.recv() => self.heard.extend(batch),
                    Some(arrival) = self.arrivals.recv() => {
                        if let Some((orders, reports)) = self.for_link.take() {
                            let config = fit_config(Config::default(), Depth::Memory);
                            let session = Session::new(config, Side::Listener, arrival.session, 1);
                            let (connections, incoming) = mpsc::channel(4);
                            let peer = Peer { session, ended: false, said: VecDeque::new() };
                            let link = Link::new(peer, Clock::start(), Source::Accept(incoming), orders, reports);
                            tokio::spawn(link.run());
                            self.connections = Some(connections);
                        }
                        self.connections.as_ref().unwrap().send(arrival.incoming).await.unwrap();
                    }
                }
            };
            tokio::time::timeout(PATIENCE, next).await.expect("the worker says nothing");
        }
    }

    /// Listens until `wanted` picks something.
    pub async fn until<T>(&mut self, mut wanted: impl FnMut(Heard) -> Option<T>) -> T {
        loop {
            let heard = self.hear().await;
            if let Some(found) = wanted(heard) {
                return found;
            }
        }
    }

    /// Waits for a registration and answers it: everything that it holds is kept.
    pub async fn register(&mut self) -> Registration {
        let (place, registration) = self
            .until(|heard| match heard {
                Heard::Message(place, ToRouter::Register(registration)) => Some((place, registration)),
                _ => None,
            })
            .await;
        self.say(Say::Commit(place)).await;
        let (incarnation, keep) = (registration.incarnation, registration.holding.clone());
        self.say(Say::Urgent(ToWorker::Registered { incarnation, router: RouterId([9; 16]), keep, drop: Vec::new() }))
            .await;
        registration
    }

    pub async fn assign(&self, assignments: Vec<Assignment>) {
        self.say(Say::Bulk(ToWorker::Assign(assignments))).await;
    }

    /// The next results; committed if asked.
    pub async fn results(&mut self, commit: bool) -> Vec<ResultItem> {
        let (place, items) = self
            .until(|heard| match heard {
                Heard::Message(place, ToRouter::Results(items)) => Some((place, items)),
                _ => None,
            })
            .await;
        if commit {
            self.say(Say::Commit(place)).await;
        }
        items
    }

    /// Results of `n` attempts, all committed.
    pub async fn all_results(&mut self, n: usize) -> Vec<ResultItem> {
        let mut all = Vec::new();
        while all.len() < n {
            all.extend(self.results(true).await);
        }
        all.sort_by_key(|item| item.fence);
        all
    }

    /// What the worker gives back.
    pub async fn recalled(&mut self) -> Vec<Fence> {
        let (place, fences) = self
            .until(|heard| match heard {
                Heard::Message(place, ToRouter::Recalled(fences)) => Some((place, fences)),
                _ => None,
            })
            .await;
        self.say(Say::Commit(place)).await;
        fences
    }
}

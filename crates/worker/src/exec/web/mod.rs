//! Rows that are sent to a backend over HTTP, several at once, and what becomes of them.
//!
//! It owns what waits and what is on its way, in one task: [`Pace`] says how many may be sent, `client` sends, `judge`
//! says what an answer means. A row whose backend has too much to do, or is away, waits here and is sent again; only
//! when that takes too long is it given back, as an attempt that failed.
//!
//! Invariants: an attempt that came in ends once, with an outcome; never more rows are on their way than the pace
//! allows; rows are sent in the order they came, those that waited first.

mod client;
mod judge;
mod openai;
mod pace;
mod uris;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sheaf_task::{Assignment, BODY_BYTES_MAX, Class, Evidence, Failure, Fence, Key, Outcome, Piece, Tokens};
use tokio::sync::mpsc;
use tokio::task::{self, AbortHandle, JoinSet};

use super::{Ended, panicked, verdict};
use crate::backend::{Api, Backend, BackendError};
use client::{Client, Post, Watcher};
use judge::{Judged, Verdict};
pub use openai::check_schema;
use openai::{Ask, Lengths, Schemas};
use pace::{Mood, Pace};
use uris::{Uris, content_type};

pub(super) struct Web {
    backend: Arc<Backend>,
    client: Client,
    uris: Uris,
    lengths: Arc<Lengths>,
    schemas: Schemas,
    pace: Pace,
    /// Of streams of events that somebody may watch, and the other end.
    pieces: (mpsc::Sender<Piece>, mpsc::Receiver<Piece>),
    came: Vec<Piece>,
    /// To be sent, in order.
    waiting: VecDeque<Flight>,
    sent: JoinSet<Judged>,
    parcels: HashMap<task::Id, Parcel>,
    /// Of the rows in `parcels`.
    rows_sent: u32,
    /// How many rows are taken at once, as [`Web::take_batch`] last said, and as [`Web::ended`] last returned for.
    told: u32,
    noticed: u32,
    /// Since when no answer was a good one, where the last news were bad.
    bad_since: Option<Instant>,
    /// When the log last had bad news of the backend.
    said_at: Option<Instant>,
}

/// Finds what is wrong with a backend before it is called: its certificates, its address.
pub(crate) fn check(backend: &Backend) -> Result<(), BackendError> {
    Web::new(backend, 1).map(|_| ())
}

/// An attempt.
struct Flight {
    assignment: Assignment,
    since: Instant,
    /// What its body asks for, where that is understood.
    ask: Option<Ask>,
    /// It shares no request.
    is_alone: bool,
    /// How often the backend did not take it.
    refused: u32,
}

/// A request that is on its way.
struct Parcel {
    flights: Vec<Flight>,
    sent: Instant,
    abort: AbortHandle,
}

impl Web {
    /// At most `most` rows are with the backend at once.
    pub(super) fn new(backend: &Backend, most: u32) -> Result<Self, BackendError> {
        let client = Client::new(backend.ca.as_deref(), backend.url.is_tls(), most as usize)?;
        Ok(Self {
            backend: Arc::new(backend.clone()),
            client,
            uris: Uris::new(backend)?,
            lengths: Arc::default(),
            schemas: Schemas::default(),
            pace: Pace::new(most),
            pieces: mpsc::channel(PIECES_MAX),
            came: Vec::new(),
            waiting: VecDeque::new(),
            sent: JoinSet::new(),
            parcels: HashMap::new(),
            rows_sent: 0,
            told: most.max(1),
            noticed: most.max(1),
            bad_since: None,
            said_at: None,
        })
    }

    /// The end of an attempt that is over before it began: its row is no request.
    pub(super) fn start(&mut self, assignment: Assignment) -> Option<Ended> {
        let mut flight =
            Flight { since: Instant::now(), ask: None, is_alone: assignment.alone, refused: 0, assignment };
        if let Api::OpenAi { model, .. } = &self.backend.api {
            match Ask::read(&flight.assignment.body, model.as_deref(), &mut self.schemas) {
                Ok(ask) => flight.ask = Some(ask),
                Err(why) => return Some(flight.end(verdict::failed(Class::Rejected, why, Evidence::default()))),
            }
        }
        self.waiting.push_back(flight);
        None
    }

    /// The end of an attempt that is still here. A request that nobody waits for any more is broken off.
    pub(super) fn kill(&mut self, fence: Fence) -> Option<Ended> {
        let of_it = |flight: &Flight| flight.assignment.fence == fence;
        let flight = match self.waiting.iter().position(of_it) {
            Some(at) => self.waiting.remove(at)?,
            None => self.take_sent(fence)?,
        };
        let message = "cancelled while it was with the backend, or waited for it";
        Some(flight.end(verdict::failed(Class::Cancelled, message.to_owned(), Evidence::default())))
    }

    fn take_sent(&mut self, fence: Fence) -> Option<Flight> {
        for parcel in self.parcels.values_mut() {
            if let Some(at) = parcel.flights.iter().position(|flight| flight.assignment.fence == fence) {
                let flight = parcel.flights.remove(at);
                self.rows_sent -= 1;
                if parcel.flights.is_empty() {
                    parcel.abort.abort();
                }
                return Some(flight);
            }
        }
        None
    }

    /// How many rows are taken at once from now on, where that is news.
    pub(super) fn take_batch(&mut self) -> Option<u32> {
        let room = self.pace.room(Instant::now());
        (std::mem::replace(&mut self.told, room) != room).then_some(room)
    }

    /// Pieces of answers that came since it was last asked.
    pub(super) fn take_pieces(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.came)
    }

    /// Waits for ends, for pieces, or for news of [`Web::take_batch`]. May be dropped at any await.
    pub(super) async fn ended(&mut self, into: &mut Vec<Ended>) {
        let before = into.len();
        loop {
            let now = Instant::now();
            self.send_all(now, into);
            let is_news = std::mem::replace(&mut self.noticed, self.pace.room(now)) != self.noticed;
            while let Ok(piece) = self.pieces.1.try_recv() {
                self.came.push(piece);
            }
            if into.len() > before || is_news || !self.came.is_empty() {
                return;
            }
            tokio::select! {
                Some(joined) = self.sent.join_next_with_id() => self.on_joined(joined, into),
                Some(piece) = self.pieces.1.recv() => self.came.push(piece),
                () = until(self.pace.resumes_at(now)) => {}
            }
            while let Some(joined) = self.sent.try_join_next_with_id() {
                self.on_joined(joined, into);
            }
        }
    }

    pub(super) async fn close(mut self) {
        self.sent.shutdown().await;
    }

    fn send_all(&mut self, now: Instant, into: &mut Vec<Ended>) {
        while let Some(room) = self.pace.room(now).checked_sub(self.rows_sent).filter(|room| *room > 0) {
            let Some(flight) = self.waiting.pop_front() else { return };
            let Some(left) = self.time_left(&flight, now) else {
                into.push(flight.end(judge::late(&self.backend, flight.assignment.timeout_ms)));
                continue;
            };
            let mut flights = vec![flight];
            while flights.len() < (room as usize).min(TOGETHER_MAX)
                && let Some(next) = self.waiting.pop_front_if(|next| next.may_join(&flights))
            {
                flights.push(next);
            }
            self.send(flights, left, now);
        }
    }

    /// Of the time that an attempt may take; `None` when that is over.
    fn time_left(&self, flight: &Flight, now: Instant) -> Option<Duration> {
        let limit = match flight.assignment.timeout_ms {
            0 => return Some(self.backend.reply),
            ms => Duration::from_millis(ms),
        };
        limit.checked_sub(now - flight.since).filter(|left| !left.is_zero())
    }

    /// Sends a request for these, which may go together.
    fn send(&mut self, flights: Vec<Flight>, left: Duration, now: Instant) {
        let rows: Vec<(Fence, u64)> = flights.iter().map(Flight::row).collect();
        let asks: Vec<Ask> = flights.iter().filter_map(|flight| flight.ask.clone()).collect();
        let post = self.post(&flights, &asks);
        let (client, backend, lengths) = (self.client.clone(), self.backend.clone(), self.lengths.clone());
        let abort = self.sent.spawn(async move {
            match tokio::time::timeout(left, client.post(post)).await {
                Ok(answer) if asks.is_empty() => judge::plain(&backend, &rows, answer),
                Ok(answer) => openai::judge(&backend, &lengths, &rows, &asks, answer),
                Err(_) => judge::overdue(&backend, &rows),
            }
        });
        self.rows_sent += flights.len() as u32;
        self.parcels.insert(abort.id(), Parcel { flights, sent: now, abort });
    }

    fn post(&self, flights: &[Flight], asks: &[Ask]) -> Post {
        let parts: Vec<_> = asks.iter().filter_map(|ask| ask.part.as_ref()).collect();
        let body = match (asks, flights) {
            ([_, _, ..], _) => openai::join(&parts),
            ([ask], _) => ask.body.clone(),
            ([], [flight, ..]) => flight.assignment.body.clone(),
            ([], []) => Bytes::new(),
        };
        let keys = flights.iter().map(|flight| u128::from_le_bytes(flight.assignment.fence.key.0));
        // Keys are digests: of several, each in one request at a time, this is as good as another digest.
        let together = Key(keys.fold(0, |all, key| all ^ key).to_le_bytes());
        let authorization = match &self.backend.api {
            Api::OpenAi { key: Some(key), .. } => Some(key.authorization()),
            Api::OpenAi { key: None, .. } | Api::Plain => None,
        };
        Post {
            uri: self.uris.of(asks.first().map(|ask| ask.kind)),
            content_type: content_type(&body),
            body,
            authorization,
            idempotency_key: together.to_string(),
            reply_max: (BODY_BYTES_MAX * flights.len()).min(REPLY_BYTES_MAX),
            watcher: self.watcher(flights, asks),
        }
    }

    /// For an answer that is wanted as a stream.
    fn watcher(&self, flights: &[Flight], asks: &[Ask]) -> Option<Watcher> {
        let ([flight], [ask]) = (flights, asks) else { return None };
        ask.streams.then(|| Watcher::new(flight.assignment.fence, self.pieces.0.clone()))
    }

    fn on_joined(&mut self, joined: Result<(task::Id, Judged), task::JoinError>, into: &mut Vec<Ended>) {
        let id = joined.as_ref().map_or_else(task::JoinError::id, |(id, _)| *id);
        let Some(parcel) = self.parcels.remove(&id) else { return };
        self.rows_sent -= parcel.flights.len() as u32;
        match joined {
            Ok((_, judged)) => self.on_judged(parcel, judged, into),
            // One that was broken off has no flights any more.
            Err(error) => into.extend(parcel.flights.iter().map(|flight| panicked(flight.assignment.fence, &error))),
        }
    }

    fn on_judged(&mut self, parcel: Parcel, judged: Judged, into: &mut Vec<Ended>) {
        let now = Instant::now();
        if judged.mood == Mood::Good {
            self.bad_since = None;
        }
        // A good answer counts for each of its rows, a bad one is one.
        let times = if judged.mood == Mood::Good { parcel.flights.len() } else { 1 };
        for _ in 0..times {
            if self.pace.on_answer(&judged.mood, parcel.sent, now) {
                self.bad_since.get_or_insert(now);
                self.say(&judged.says, now);
                self.give_back(&judged.says, now, into);
            }
        }
        let mut verdicts: HashMap<Fence, Verdict> = judged.verdicts.into_iter().collect();
        let mut held = Vec::new();
        for flight in parcel.flights {
            match verdicts.remove(&flight.assignment.fence) {
                Some(Verdict::Ended(outcome)) => into.push(flight.end(outcome)),
                Some(Verdict::Held(failure)) if self.is_too_long(&flight, now) => {
                    into.push(flight.end(Outcome::Failed(failure)));
                }
                Some(Verdict::Held(_)) => held.push(Flight { refused: flight.refused + 1, ..flight }),
                Some(Verdict::Alone) => held.push(Flight { is_alone: true, ..flight }),
                None => {
                    let failure = Failure::new(Class::Error, "the backend's answer says nothing of this row");
                    into.push(flight.end(Outcome::Failed(failure)));
                }
            }
        }
        held.into_iter().rev().for_each(|flight| self.waiting.push_front(flight));
    }

    /// In a new pause, what would wait too long: it is not to queue for a try of its own.
    fn give_back(&mut self, why: &str, now: Instant, into: &mut Vec<Ended>) {
        let waiting = std::mem::take(&mut self.waiting);
        let (back, kept) = waiting.into_iter().partition::<VecDeque<_>, _>(|flight| self.is_too_long(flight, now));
        self.waiting = kept;
        let failure = Failure::new(Class::Error, why);
        into.extend(back.iter().map(|flight| flight.end(Outcome::Failed(failure.clone()))));
    }

    /// A backend under pressure gives many pauses: the log has some of them.
    fn say(&mut self, what: &str, now: Instant) {
        let pause = self.pace.resumes_at(now).map_or(Duration::ZERO, |until| until - now);
        if self.said_at.is_some_and(|said| now - said < SAY_EVERY) {
            tracing::debug!("{what}; nothing is sent there for {pause:.1?}");
            return;
        }
        self.said_at = Some(now);
        tracing::warn!("{what}; nothing is sent there for {pause:.1?}");
    }

    /// It would wait past its time, or so long for a backend that serves nobody that another worker should have it. While
    /// others are served it waits on, for its turn.
    fn is_too_long(&self, flight: &Flight, now: Instant) -> bool {
        let resumes = self.pace.resumes_at(now).unwrap_or(now);
        let waits_since = self.bad_since.unwrap_or(now).max(flight.since);
        let is_over = flight.refused >= REFUSED_MAX || self.time_left(flight, resumes).is_none();
        is_over || resumes - waits_since > self.backend.hold
    }
}

impl Flight {
    fn row(&self) -> (Fence, u64) {
        (self.assignment.fence, self.assignment.timeout_ms)
    }

    /// It may travel in one request with these.
    fn may_join(&self, others: &[Flight]) -> bool {
        let agrees = |other: &Flight| {
            let is_alike = self.rest().is_some() && self.rest() == other.rest();
            is_alike && !other.is_alone && self.assignment.timeout_ms == other.assignment.timeout_ms
        };
        let bytes: usize = others.iter().map(|other| other.assignment.body.len()).sum();
        !self.is_alone && bytes + self.assignment.body.len() <= TOGETHER_BYTES_MAX && others.first().is_some_and(agrees)
    }

    /// What it must have in common with those it shares a request with; `None` where it shares none.
    fn rest(&self) -> Option<&str> {
        self.ask.as_ref()?.part.as_ref().map(|part| part.rest.as_str())
    }

    fn end(&self, outcome: Outcome) -> Ended {
        let ms = self.since.elapsed().as_millis() as u64;
        let tokens = match (&outcome, &self.ask) {
            (Outcome::Ok(body), Some(_)) => openai::tokens(body),
            (Outcome::Ok(_), None) | (Outcome::Failed(_), _) => Tokens::default(),
        };
        Ended { fence: self.assignment.fence, outcome, ms, tokens }
    }
}

/// How often a backend may not take a row, while it serves others, before the row is given back.
const REFUSED_MAX: u32 = 64;
/// Between two warnings of a backend's troubles.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Pieces of answers that nobody has taken yet. Full: the rest of that stream is not shown.
const PIECES_MAX: usize = 256;
/// Rows in one request, at most; what OpenAI takes.
const TOGETHER_MAX: usize = 2_048;
/// Bytes of their bodies.
const TOGETHER_BYTES_MAX: usize = 4 << 20;
/// What the answer to several may hold.
const REPLY_BYTES_MAX: usize = 64 << 20;

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

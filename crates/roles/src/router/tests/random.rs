//! Random days: clients, workers and the router stop and start at any moment; in the end every row has its outcome in
//! its sink once, and the router knows what its records say.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sheaf_session::{Micros, Rng};
use sheaf_task::{
    Capacity, Class, Failure, Fence, JobId, JobOptions, JobSpec, Key, Order, Outcome, Question, Registration,
    ResultItem, RouterId, RowId, ToWorker,
};

use super::super::record::{Delivered, delivered};
use super::super::*;
use super::world::{World, id, name, worker_id};

/// A client: rows that it wants, and a sink.
struct Client {
    job: &'static str,
    peer: String,
    rows: Vec<(String, String)>,
    /// Row → number, of everything that its sink committed; and up to which number.
    sink: BTreeMap<String, u64>,
    cursor: u64,
    /// An operator had failed rows run again: they come once more.
    retried: bool,
}

struct Worker {
    id: &'static str,
    peer: String,
    life: u64,
    batch: usize,
    holds: Vec<Fence>,
}

struct Day {
    world: World,
    rng: Rng,
    clients: Vec<Client>,
    workers: Vec<Worker>,
    sessions: u64,
    /// Deliveries that reached a client and are not committed: (client, row, number, tag).
    inbox: Vec<(usize, String, u64, Tag)>,
    calm: bool,
    /// Rows of messages that are not committed, by place.
    pending: BTreeMap<u64, (&'static str, Vec<String>)>,
}

impl Day {
    fn new(seed: u64) -> Self {
        let row = |n: u64| (format!("r{n}"), format!("k{}", n % 17));
        let client = |job, rows: std::ops::Range<u64>| Client {
            job,
            peer: String::new(),
            rows: rows.map(row).collect(),
            sink: BTreeMap::new(),
            cursor: 0,
            retried: false,
        };
        let worker = |id, batch| Worker { id, peer: String::new(), life: 0, batch, holds: Vec::new() };
        Self {
            world: World::new(Limits { deliver_messages_max: 2, slice_max: 5, ..Limits::default() }),
            rng: Rng::new(seed),
            clients: vec![client("j", 0..25), client("k", 10..40)],
            workers: vec![worker("V", 1), worker("W", 3)],
            sessions: 0,
            inbox: Vec::new(),
            calm: false,
            pending: BTreeMap::new(),
        }
    }

    fn session(&mut self) -> String {
        self.sessions += 1;
        format!("s{}", self.sessions)
    }

    fn event(&mut self, event: Event) {
        let outputs = self.world.handle(event);
        self.take(outputs);
    }

    fn message(&mut self, peer: &str, inbound: Inbound) {
        let outputs = self.world.message(peer, inbound);
        self.take(outputs);
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if let Output::Commit { place, .. } = &output {
                self.check_commit(place.seq);
            }
            let Output::Send { peer, tag, message, .. } = output else { continue };
            let peer = self.world.peer_name(peer);
            match message {
                Outbound::Assign { items, .. } => {
                    if let Some(worker) = self.workers.iter_mut().find(|worker| worker.peer == peer) {
                        worker.holds.extend(items.iter().map(|item| item.fence));
                        let allowed = worker.batch * 2;
                        assert!(self.calm || worker.holds.len() <= allowed * 3, "bounded but for stale attempts");
                    }
                    if let Some(id) = self.world.known_peer(&peer) {
                        self.event(Event::Acked { peer: id, upto: tag });
                    }
                }
                Outbound::Worker(ToWorker::Cancel(fences)) => self.drop_fences(&peer, &fences),
                Outbound::Worker(ToWorker::Registered { drop, .. }) => self.drop_fences(&peer, &drop),
                Outbound::Worker(ToWorker::Recall(fences)) => self.give_back(&peer, &fences),
                Outbound::Deliver { job_no, items, .. } => self.deliver(&peer, job_no, &items, tag),
                Outbound::Client(_)
                | Outbound::Opened { .. }
                | Outbound::Worker(ToWorker::Refused(_) | ToWorker::Assign(_))
                | Outbound::Failures { .. }
                | Outbound::Task { .. } => {}
            }
        }
    }

    /// Acknowledged means on disk: every row of the message is known to what is durable.
    fn check_commit(&mut self, seq: u64) {
        let Some((job, rows)) = self.pending.remove(&seq) else { return };
        let no = self.world.router.job_no(JobId(id(job))).unwrap();
        let durable = self.world.archive.iter().filter(|(lsn, _)| *lsn <= self.world.durable);
        let known = durable.flat_map(|(_, record)| rows_of(record)).filter(|(job, _)| *job == no);
        let known = known.map(|(_, row)| name(&row.0)).collect::<BTreeSet<_>>();
        // A cancelled job's rows are refused.
        for row in rows.into_iter().filter(|_| !self.clients.iter().any(|client| client.job == job && client.retried)) {
            assert!(known.contains(&row), "{row} of {job} is acknowledged and on disk");
        }
    }

    fn drop_fences(&mut self, peer: &str, fences: &[Fence]) {
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.peer == peer) {
            worker.holds.retain(|fence| !fences.contains(fence));
        }
    }

    fn give_back(&mut self, peer: &str, fences: &[Fence]) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.peer == peer) else { return };
        let started = worker.holds.iter().take(worker.batch).copied().collect::<Vec<_>>();
        let back = fences.iter().copied().filter(|fence| worker.holds.contains(fence) && !started.contains(fence));
        let back = back.collect::<Vec<_>>();
        self.drop_fences(peer, &back);
        self.message(peer, Inbound::Recalled(back));
    }

    fn deliver(&mut self, peer: &str, job_no: JobNo, items: &[DeliverItem], tag: Tag) {
        let Some(at) = self.clients.iter().position(|client| client.peer == peer) else { return };
        for item in items {
            assert!(item.record <= self.world.durable, "nothing is delivered before it is durable");
            let (_, record) = self.world.journal.iter().find(|(lsn, _)| *lsn == item.record).unwrap().clone();
            let row = match delivered(record, job_no, item.number) {
                Delivered::Row(row) => row.row,
                Delivered::See { delivery, .. } => delivery.row,
                Delivered::Other => panic!("the record gives the number"),
            };
            self.inbox.push((at, name(&row.0), item.number, tag));
        }
    }

    fn connect_client(&mut self, at: usize) {
        if let Some(peer) = self.world.known_peer(&self.clients[at].peer.clone()) {
            self.event(Event::PeerGone { peer });
        }
        let peer = self.session();
        self.inbox.retain(|(client, ..)| *client != at);
        self.clients[at].peer.clone_from(&peer);
        let id_of = self.world.peer(&peer);
        self.event(Event::PeerUp { peer: id_of });
        let (job, cursor) = (self.clients[at].job, self.clients[at].cursor);
        let spec = JobSpec {
            job: JobId(id(job)),
            name: job.to_owned(),
            service: "echo".to_owned(),
            revision: String::new(),
            nonce: Bytes::new(),
            cursor,
            cursor_router: Some(RouterId(id("router"))),
            options: JobOptions { retries: 1, order: Order::Shortest, ..JobOptions::default() },
        };
        self.message(&peer, Inbound::OpenJob { spec, app: String::new() });
    }

    /// Submits some of the rows that the sink does not have, or all of them.
    fn submit(&mut self, at: usize, all: bool) {
        let client = &self.clients[at];
        let missing = client.rows.iter().filter(|(row, _)| !client.sink.contains_key(row)).cloned();
        let mut missing = missing.collect::<Vec<_>>();
        let (job, peer) = (client.job, client.peer.clone());
        if !all {
            missing.retain(|_| self.rng.below(4) == 0);
        }
        let rows = missing.iter().map(|(row, key)| self.world.row(job, row, key, key.len() * 50)).collect();
        let generation = self.world.sealed.1;
        if self.world.router.job_no(JobId(id(job))).is_some() {
            self.pending.insert(self.world.seq + 1, (job, missing.into_iter().map(|(row, _)| row).collect()));
        }
        let cursor = self.clients[at].cursor;
        self.message(&peer, Inbound::Submit { job: JobId(id(job)), cursor, rows, generation });
    }

    fn commit(&mut self, at: usize) {
        let Some((_, _, last, tag)) = self.inbox.iter().find(|(client, ..)| *client == at).cloned() else { return };
        let (mine, rest) = std::mem::take(&mut self.inbox).into_iter().partition(|(c, _, _, t)| *c == at && *t == tag);
        let mine: Vec<(usize, String, u64, Tag)> = mine;
        self.inbox = rest;
        let client = &mut self.clients[at];
        assert!(last <= client.cursor + 1, "numbers come without gaps");
        for (_, row, number, _) in mine {
            if number > client.cursor {
                let before = client.sink.insert(row.clone(), number);
                assert!(before.is_none() || client.retried, "{row} reaches the sink of {} once", client.job);
                client.cursor = number;
            }
        }
        if let Some(peer) = self.world.known_peer(&client.peer) {
            self.event(Event::Acked { peer, upto: tag });
        }
    }

    /// A worker introduces itself: after its own restart, on a new session, or again.
    fn register(&mut self, at: usize, dies: bool) {
        let worker = &mut self.workers[at];
        let mut died_with = Vec::new();
        if dies || worker.life == 0 {
            worker.life += 1;
            died_with = worker.holds.iter().take(worker.batch).copied().collect();
            worker.holds.clear();
        }
        if self.world.known_peer(&self.workers[at].peer.clone()).is_none() {
            let peer = self.session();
            self.workers[at].peer = peer;
        }
        let worker = &self.workers[at];
        let (name, batch, peer) = (worker.id, worker.batch as u32, worker.peer.clone());
        let registration = Registration {
            worker: worker_id(name),
            incarnation: worker.life,
            name: name.to_owned(),
            services: vec!["echo".to_owned()],
            capacity: Capacity { batch, depth: batch, bytes: 0 },
            holding: worker.holds.clone(),
            died_with: if self.calm { Vec::new() } else { died_with },
        };
        let peer_id = self.world.peer(&peer);
        self.event(Event::PeerUp { peer: peer_id });
        self.message(&peer, Inbound::Register(registration));
    }

    fn result(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.holds.is_empty() {
            return;
        }
        let fence = worker.holds.remove(0);
        let outcome = match self.rng.below(8) {
            1 if !self.calm => Outcome::Failed(Failure::new(Class::Error, "")),
            2 if !self.calm => Outcome::Failed(Failure::new(Class::Rejected, "")),
            3 if !self.calm => Outcome::Failed(Failure::new(Class::Crashed, "")),
            _ => Outcome::Ok(Bytes::from_static(b"ok")),
        };
        let ms = self.rng.below(1_000);
        let peer = worker.peer.clone();
        // Of attempts made by earlier lives of the router, it keeps the one that it hears of first.
        let newest = self.world.attempts.get(&(self.world.epoch, fence.key)).and_then(|attempts| attempts.last());
        let stale = newest.is_some_and(|newest| (self.world.epoch, *newest) != (fence.epoch, fence.attempt));
        if stale && !outcome.is_ok() {
            let next = self.world.next_lsn;
            self.message(
                &peer,
                Inbound::Results(vec![ResultItem { fence, outcome, ms, tokens: sheaf_task::Tokens::default() }]),
            );
            let ended = self.world.journal.iter().filter(|(lsn, record)| *lsn >= next && ends(record, fence.key));
            assert_eq!(ended.count(), 0, "a stale attempt contributes only an ok");
            return;
        }
        self.message(
            &peer,
            Inbound::Results(vec![ResultItem { fence, outcome, ms, tokens: sheaf_task::Tokens::default() }]),
        );
    }

    fn step(&mut self) {
        let (client, worker) = (self.rng.below(2) as usize, self.rng.below(2) as usize);
        match self.rng.below(24) {
            0 => self.connect_client(client),
            1..=3 => self.submit(client, false),
            4..=7 => self.commit(client),
            8 => {
                let dies = self.rng.below(2) == 0;
                self.register(worker, dies);
            }
            9..=14 => self.result(worker),
            15 => {
                self.world.now = self.world.now + Micros::from_secs(1 + self.rng.below(40) / 20);
                self.event(Event::Tick);
            }
            16 => {
                for _ in 0..self.rng.below(70) {
                    self.world.now = self.world.now + Micros::from_secs(1);
                    self.event(Event::Tick);
                }
            }
            17 => self.seal(),
            18 => match self.rng.below(2) {
                0 => self.restart(),
                _ => {
                    self.sync();
                    let upto = Lsn(self.world.durable.0 - self.rng.below(3) * self.world.durable.0 / 4);
                    self.world.compact(upto);
                }
            },
            19 => {
                if let Some(peer) = self.world.known_peer(&self.workers[worker].peer.clone()) {
                    let event = if self.rng.below(2) == 0 { Event::PeerDown { peer } } else { Event::PeerUp { peer } };
                    self.event(event);
                }
            }
            20 => {
                let question = if self.rng.below(3) > 0 { Question::CancelJob } else { retry_all };
                self.order(client, question);
            }
            _ => self.sync(),
        }
        if self.rng.below(8) == 0 {
            self.world.check_replay();
        }
        self.check_counts();
        self.world.check_states();
    }

    fn order(&mut self, at: usize, question: fn(JobId) -> Question) {
        let client = &mut self.clients[at];
        client.retried = true;
        let (peer, question) = (client.peer.clone(), question(JobId(id(client.job))));
        self.message(&peer, Inbound::Ask { id: 1, question, prior: None, owners: Vec::new(), view: View::All });
    }

    fn sync(&mut self) {
        let outputs = self.world.sync();
        self.take(outputs);
    }

    fn seal(&mut self) {
        let (upto, generation) = (self.world.durable, Generation(self.world.sealed.1.0 + 1));
        self.world.sealed = (upto, generation);
        self.event(Event::Sealed { upto, generation });
    }

    fn restart(&mut self) {
        self.world.restart();
        self.world.check_replay();
        self.pending.clear();
        self.inbox.clear();
        for at in 0..self.clients.len() {
            self.connect_client(at);
        }
        for at in 0..self.workers.len() {
            if self.rng.below(3) > 0 {
                self.register(at, false);
            }
        }
    }

    fn check_counts(&self) {
        let jobs = self.world.router.jobs.iter();
        assert_eq!(jobs.map(|job| job.numbers.len()).sum::<u64>(), self.world.router.sizes().unsettled);
        for job in self.world.router.jobs.iter() {
            let counts = job.counts;
            assert_eq!(
                counts.submitted,
                counts.ok + counts.failed + counts.open,
                "nothing is lost of {}",
                job.spec.name
            );
        }
    }

    /// Everybody works and nobody fails: the end is reached.
    fn finish(&mut self) {
        self.calm = true;
        self.sync();
        for at in 0..self.clients.len() {
            self.order(at, retry_all);
        }
        for _ in 0..40 {
            self.event(Event::Tick);
        }
        for at in 0..self.clients.len() {
            self.connect_client(at);
            self.submit(at, true);
        }
        for _ in 0..400 {
            for at in 0..self.workers.len() {
                self.register(at, false);
                while !self.workers[at].holds.is_empty() {
                    self.result(at);
                }
            }
            self.sync();
            for at in 0..self.clients.len() {
                self.commit(at);
            }
            self.sync();
            self.world.now = self.world.now + Micros::from_secs(2);
            self.event(Event::Tick);
        }
        for client in &self.clients {
            let done = client.sink.keys().collect::<BTreeSet<_>>();
            let all = client.rows.iter().map(|(row, _)| row).collect::<BTreeSet<_>>();
            assert_eq!(done, all, "every row of {} has its outcome", client.job);
        }
        assert_eq!(self.world.router.sizes().tasks, 0);
        self.seal();
        self.sync();
        self.world.compact(self.world.durable);
    }
}

fn retry_all(job: JobId) -> Question {
    Question::Retry { job, keys: Vec::new() }
}

/// The rows that a record makes known to their jobs.
fn rows_of(record: &Record) -> Vec<(JobNo, RowId)> {
    match record {
        Record::Submitted(submitted) => vec![(submitted.job, submitted.row)],
        Record::Joined(joined) => vec![(joined.job, joined.row)],
        Record::Cached(cached) => vec![(cached.delivery.job, cached.delivery.row)],
        _ => Vec::new(),
    }
}

/// The record ends an attempt at the task.
fn ends(record: &Record, key: Key) -> bool {
    match record {
        Record::Ended(ended) => ended.key == key,
        Record::Finished(finished) => finished.key == key && !finished.outcome.is_ok(),
        _ => false,
    }
}

fn live(seed: u64, change: impl Fn(&mut Config)) {
    let mut day = Day::new(seed);
    let mut config = day.world.config.clone();
    change(&mut config);
    day.world = World::with(config);
    for at in 0..2 {
        day.connect_client(at);
        day.register(at, false);
    }
    for _ in 0..300 {
        day.step();
    }
    day.finish();
}

#[test]
fn every_row_reaches_its_sink_once_whatever_stops() {
    let days = std::env::var_os("DAYS").and_then(|days| days.to_str()?.parse().ok()).unwrap_or(100);
    (0..days).for_each(|seed| live(seed, |_| {}));
}

/// Each rule, removed, is missed by some day.
#[cfg(feature = "mutations")]
#[test]
fn every_mutation_is_noticed() {
    use Mutation::*;
    std::panic::set_hook(Box::new(|_| {}));
    for mutation in [AckBeforeDurable, NoFence, EarlyRelease, WriteAheadSkipped, NoDedupOnResubmit, JoinNotGated] {
        let survives = |seed| {
            let day = move || live(seed, |config| config.mutation = Some(mutation));
            std::panic::catch_unwind(day).is_ok()
        };
        assert!(!(0..200).all(survives), "{mutation:?} is noticed");
    }
}

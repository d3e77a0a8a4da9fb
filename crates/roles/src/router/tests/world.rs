//! A router with a journal that is a list, and names for everything.

use std::collections::BTreeMap;

use bytes::Bytes;
use sheaf_session::{Lane, Micros, Place};
use sheaf_task::{JobId, Key, RouterId, RowId, Standing, WorkerId};

use super::super::record::prior_of;
use super::super::slab::Spot;
use super::super::*;

/// Sixteen bytes that show their name.
pub(super) fn id(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (at, byte) in name.bytes().take(16).enumerate() {
        out[at] = byte;
    }
    out
}

/// The name in sixteen bytes.
pub(super) fn name(id: &[u8; 16]) -> String {
    String::from_utf8_lossy(id).trim_end_matches('\0').to_owned()
}

pub(super) struct World {
    pub(super) router: Router,
    pub(super) now: Micros,
    pub(super) epoch: u64,
    /// What the disk has: records that compaction dropped are gone.
    pub(super) journal: Vec<(Lsn, Record)>,
    /// Every record that was ever appended and survived.
    pub(super) archive: Vec<(Lsn, Record)>,
    pub(super) next_lsn: Lsn,
    pub(super) durable: Lsn,
    pub(super) sealed: (Lsn, Generation),
    /// By epoch and key: the attempts that were given out, in order.
    pub(super) attempts: BTreeMap<(u64, Key), Vec<u32>>,
    peers: BTreeMap<String, PeerId>,
    next_peer: u64,
    pub(super) seq: u64,
    pub(super) config: Config,
}

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        Self::with(Config {
            router: RouterId(id("router")),
            epoch: 1,
            seed: 1,
            grace: Micros::from_secs(60),
            sealed: Lsn::NONE,
            generation: Generation(0),
            limits,
            #[cfg(feature = "mutations")]
            mutation: None,
        })
    }

    pub(super) fn with(config: Config) -> Self {
        let mut router = Router::new(config.clone());
        router.start(Micros::from_secs(1_000), Lsn(1));
        Self {
            router,
            now: Micros::from_secs(1_000),
            epoch: 1,
            journal: Vec::new(),
            archive: Vec::new(),
            next_lsn: Lsn(1),
            durable: Lsn::NONE,
            sealed: (Lsn::NONE, Generation(0)),
            attempts: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_peer: 1,
            seq: 0,
            config,
        }
    }

    pub(super) fn peer(&mut self, name: &str) -> PeerId {
        let next = &mut self.next_peer;
        *self.peers.entry(name.to_owned()).or_insert_with(|| {
            *next += 1;
            PeerId(*next - 1)
        })
    }

    /// The session of this name, if it lives.
    pub(super) fn known_peer(&self, name: &str) -> Option<PeerId> {
        self.peers.get(name).copied()
    }

    pub(super) fn peer_name(&self, peer: PeerId) -> String {
        self.peers.iter().find(|(_, known)| **known == peer).map_or_else(|| "?".to_owned(), |(name, _)| name.clone())
    }

    pub(super) fn forget_peer(&mut self, name: &str) {
        self.peers.remove(name);
    }

    pub(super) fn message(&mut self, peer: &str, inbound: Inbound) -> Vec<Output> {
        self.seq += 1;
        let place = Place { lane: Lane::Bulk, epoch: 1, seq: self.seq };
        let peer = self.peer(peer);
        self.handle(Event::Message { peer, place, receipt: None, inbound })
    }

    /// A row as the port would key it and look it up.
    pub(super) fn row(&self, job: &str, row: &str, key: &str, len: usize) -> KeyedRow {
        let job = self.router.job_no(JobId(id(job)));
        let key = Key(id(key));
        let prior = prior_of(key, job, RowId(id(row)), &self.sealed_records());
        KeyedRow { row: RowId(id(row)), key, sample: 0, body: Bytes::from(vec![b'x'; len]), prior }
    }

    /// What the index is made of.
    pub(super) fn sealed_records(&self) -> Vec<(Lsn, Record)> {
        self.journal.iter().filter(|(lsn, _)| *lsn <= self.sealed.0).cloned().collect()
    }

    /// One event; what comes out at once.
    pub(super) fn handle(&mut self, event: Event) -> Vec<Output> {
        self.router.handle(self.now, event);
        let mut outputs = Vec::new();
        while let Some(output) = self.router.poll() {
            if let Output::Append { lsn, record } = &output {
                assert_eq!(*lsn, self.next_lsn, "records come in order");
                let mut payload = Vec::new();
                record.encode_into(&mut payload);
                assert_eq!(&Record::decode(record.kind(), payload.into()).unwrap(), record);
                self.journal.push((*lsn, record.clone()));
                self.archive.push((*lsn, record.clone()));
                self.next_lsn = lsn.next();
            }
            if let Output::Send { message: Outbound::Assign { items, .. }, .. } = &output {
                for AssignItem { fence, .. } in items {
                    let attempts = self.attempts.entry((fence.epoch, fence.key)).or_default();
                    assert!(!attempts.contains(&fence.attempt), "a fence is given out once");
                    attempts.push(fence.attempt);
                }
            }
            outputs.push(output);
        }
        if self.config.limits.slice_max == Limits::default().slice_max {
            assert_eq!(
                self.router.neglected(),
                None,
                "a task waits, and a worker that could start it has nothing to do"
            );
        }
        outputs
    }

    /// The disk has everything.
    pub(super) fn sync(&mut self) -> Vec<Output> {
        let written = Lsn(self.next_lsn.0 - 1);
        if written == self.durable {
            return Vec::new();
        }
        self.durable = written;
        self.handle(Event::Durable(written))
    }

    /// A router that knows what the records say.
    pub(super) fn replayed(&self, records: &[(Lsn, Record)]) -> Router {
        let (sealed, generation) = self.sealed;
        let mut router = Router::new(Config { epoch: self.epoch, sealed, generation, ..self.config.clone() });
        for (lsn, record) in records {
            router.replay(*lsn, record);
        }
        router
    }

    /// What was made durable is all that the next life of the router has.
    pub(super) fn restart(&mut self) -> Vec<Output> {
        self.journal.retain(|(lsn, _)| *lsn <= self.durable);
        self.archive.retain(|(lsn, _)| *lsn <= self.durable);
        self.next_lsn = self.durable.next();
        self.epoch += 1;
        self.peers.clear();
        self.router = self.replayed(&self.journal);
        self.router.start(self.now, self.next_lsn);
        Vec::new()
    }

    /// Drops every record up to `upto` that is not needed. The rest must say the same.
    pub(super) fn compact(&mut self, upto: Lsn) {
        let router = &self.router;
        self.journal.retain(|(lsn, record)| *lsn > upto || router.needed(*lsn, record));
        self.check_replay();
    }

    /// What the router says of the states of its tasks is what counting them says.
    pub(super) fn check_states(&self) {
        let tasks = &self.router.tasks;
        let count = |spot| (0..tasks.end()).filter(|ix| tasks.used(Ix(*ix)) && tasks.row(Ix(*ix)).spot == spot).count();
        let counted = [Spot::Ready, Spot::Assigned, Spot::Backoff, Spot::Suspect, Spot::Withheld].map(count);
        let Standing { ready, running, backoff, suspect, withheld, .. } = self.router.stats().standing;
        assert_eq!([ready, running, backoff, suspect, withheld], counted.map(|count| count as u64));
    }

    pub(super) fn check_replay(&self) {
        let facts = |router: &Router| {
            let mut facts = Vec::new();
            router.facts(&mut |fact| facts.push(fact));
            facts
        };
        let replayed = self.replayed(&self.journal);
        if replayed.digest() != self.router.digest() {
            for (replayed, live) in facts(&replayed).into_iter().zip(facts(&self.router)) {
                assert_eq!(replayed, live, "a replay says the same");
            }
            panic!("a replay says more or less");
        }
    }
}

/// A worker by name.
pub(super) fn worker_id(name: &str) -> WorkerId {
    WorkerId(id(name))
}

//! The router machine from submission to settled delivery: one client, one worker, records durable at once.

use std::collections::VecDeque;

use bytes::Bytes;
use sheaf_roles::router::{
    AssignItem, Config, Event, Generation, Inbound, KeyedRow, Limits, Lsn, Outbound, Output, PeerId, Router, Tag,
};
use sheaf_session::{Lane, Micros, Place};
use sheaf_task::{
    Capacity, JobId, JobOptions, JobSpec, Key, Order, Outcome, Registration, ResultItem, RouterId, RowId, WorkerId,
};

use crate::{BATCH, BATCHES, body};

const CLIENT: PeerId = PeerId(1);
const WORKER: PeerId = PeerId(2);
const JOB: JobId = JobId([1; 16]);
const NOW: Micros = Micros::from_secs(1);

pub(crate) fn run() -> u64 {
    let mut world = World::start();
    for batch in 0..BATCHES {
        let (rows, results) = (rows(batch), Vec::with_capacity(BATCH as usize));
        measured(&mut world, rows, results);
    }
    assert_eq!(world.delivered, BATCH * BATCHES, "every task is delivered");
    world.delivered
}

#[inline(never)]
fn measured(world: &mut World, rows: Vec<KeyedRow>, results: Vec<ResultItem>) {
    world.results = results;
    world.say(CLIENT, Inbound::Submit { job: JOB, cursor: world.delivered, rows, generation: Generation(0) });
    while world.step() {}
}

fn rows(batch: u64) -> Vec<KeyedRow> {
    let row = |number: u64| {
        let id = u128::from(number).to_be_bytes();
        // Keys are hashes: without order.
        let key = Key(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
        KeyedRow { row: RowId(id), key, sample: 0, body: body(number), prior: None }
    };
    (batch * BATCH + 1..=(batch + 1) * BATCH).map(row).collect()
}

/// The machine, and the least that must surround it.
struct World {
    router: Router,
    events: VecDeque<Event>,
    /// The last place that each lane's messages had.
    places: u64,
    /// Payloads of records, as a journal would get them.
    journal: Vec<u8>,
    written: Lsn,
    durable: Lsn,
    results: Vec<ResultItem>,
    /// Of every task: to make one for each would be counted with what is measured.
    answer: Bytes,
    delivered: u64,
}

impl World {
    fn start() -> Self {
        let mut router = Router::new(Config {
            router: RouterId([1; 16]),
            epoch: 1,
            seed: 1,
            grace: Micros::from_secs(60),
            sealed: Lsn::NONE,
            generation: Generation(0),
            limits: Limits::default(),
        });
        router.start(NOW, Lsn(1));
        let mut world = Self {
            router,
            events: VecDeque::new(),
            places: 0,
            journal: Vec::new(),
            written: Lsn::NONE,
            durable: Lsn::NONE,
            results: Vec::new(),
            answer: body(0),
            delivered: 0,
        };
        world.events.extend([CLIENT, WORKER].map(|peer| Event::PeerUp { peer }));
        world.say(CLIENT, Inbound::OpenJob { spec: job(), app: String::new() });
        world.say(WORKER, Inbound::Register(worker()));
        while world.step() {}
        world
    }

    fn say(&mut self, peer: PeerId, inbound: Inbound) {
        self.places += 1;
        let place = Place { lane: Lane::Bulk, epoch: 1, seq: self.places };
        self.events.push_back(Event::Message { peer, place, receipt: None, inbound });
    }

    /// One event, or what has been written becomes durable. False: nothing is left to do.
    fn step(&mut self) -> bool {
        let event = match self.events.pop_front() {
            Some(event) => event,
            None if self.durable < self.written => {
                self.durable = self.written;
                self.journal.clear();
                Event::Durable(self.durable)
            }
            None => return false,
        };
        self.router.handle(NOW, event);
        while let Some(output) = self.router.poll() {
            self.on_output(output);
        }
        true
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Append { lsn, record } => {
                record.encode_into(&mut self.journal);
                self.written = lsn;
            }
            Output::Send { peer, tag, message, .. } => self.on_message(peer, tag, message),
            Output::Commit { .. } | Output::Signal { .. } => {}
            Output::Relook { .. } | Output::Lost(_) | Output::Stopped => {
                unreachable!("nothing is sealed, nothing leaves, nobody stops")
            }
        }
    }

    fn on_message(&mut self, peer: PeerId, tag: Tag, message: Outbound) {
        match message {
            Outbound::Assign { items, .. } => {
                self.results.extend(items.iter().map(|item| result(item, self.answer.clone())));
                if self.results.len() as u64 == BATCH {
                    let results = std::mem::take(&mut self.results);
                    self.say(WORKER, Inbound::Results(results));
                }
            }
            Outbound::Deliver { items, .. } => self.delivered += items.len() as u64,
            Outbound::Client(_)
            | Outbound::Opened { .. }
            | Outbound::Worker(_)
            | Outbound::Failures { .. }
            | Outbound::Task { .. } => {}
        }
        if tag != Tag::NONE {
            self.events.push_back(Event::Acked { peer, upto: tag });
        }
    }
}

fn result(item: &AssignItem, answer: Bytes) -> ResultItem {
    ResultItem { fence: item.fence, outcome: Outcome::Ok(answer), ms: 1, tokens: sheaf_task::Tokens::default() }
}

fn job() -> JobSpec {
    JobSpec {
        job: JOB,
        name: "hot".to_owned(),
        service: "echo".to_owned(),
        revision: String::new(),
        nonce: Bytes::new(),
        cursor: 0,
        cursor_router: None,
        options: JobOptions { timeout_ms: 0, retries: 0, order: Order::Fifo, weight: 1, rate_millihertz: 0 },
    }
}

fn worker() -> Registration {
    Registration {
        worker: WorkerId([1; 16]),
        incarnation: 1,
        name: "hot".to_owned(),
        services: vec!["echo".to_owned()],
        capacity: Capacity { batch: 2 * BATCH as u32, depth: 0, bytes: 0 },
        holding: Vec::new(),
        died_with: Vec::new(),
    }
}

//! The core's thread: owns the router machine. Events in, step, records to the writer, orders to the links.
//!
//! It decides nothing and waits for nobody: a batch is stepped while the one before is being synced, and orders that a
//! link does not take yet stay in that link's own list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use sheaf_net::Clock;
use sheaf_roles::router::{Disk, Event, Generation, Lsn, Output, PeerId, Router};
use sheaf_session::Micros;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::compaction::{Question, Verdict};
use crate::indexer::Indexed;
use crate::limits::Limits;
use crate::pending::Pending;
use crate::pulse::Pulse;
use crate::stages::{DURABLES, EVENTS, INDEXED, QUESTIONS};
use crate::store::Store;
use crate::writer::{Order, WriterError, Written};

/// What reaches the core from outside.
#[derive(Debug)]
pub(crate) enum Input {
    /// A new session: where its orders go. Before any of its events.
    Attach(PeerId, Sender<Vec<Output>>),
    /// Something of a session.
    Event(Event),
    /// Stop gracefully.
    Stop,
}

/// The core and everything it reaches.
pub(crate) struct Core {
    pub router: Router,
    pub clock: Clock,
    pub limits: Limits,
    pub store: Arc<Store>,
    pub inlets: Inlets,
    pub orders: SyncSender<Order>,
    pub peers: BTreeMap<PeerId, Peer>,
    /// Peers with orders to flush.
    pub dirty: BTreeSet<PeerId>,
    pub pending: Pending,
    /// The machine has stopped.
    pub has_stopped: bool,
    pub pulse: Arc<Pulse>,
    /// The state of the index that the machine was last told of.
    pub generation: Generation,
}

/// Everything that comes to the core.
pub(crate) struct Inlets {
    pub inputs: Receiver<Vec<Input>>,
    pub written: Receiver<Written>,
    pub questions: Receiver<Question>,
    pub indexed: Receiver<Indexed>,
}

/// A session, from the core's side.
#[derive(Debug)]
pub(crate) struct Peer {
    orders: Sender<Vec<Output>>,
    /// Not yet taken: bounded by what the machine lets a peer have outstanding.
    waiting: Vec<Output>,
}

/// How long a link that did not take its orders is left before it is asked again.
const ORDERS_RETRY: Micros = Micros(2_000);

impl Core {
    /// Runs until the machine has stopped or the disk has failed.
    pub(crate) async fn run(mut self) -> Result<(), WriterError> {
        let outcome = self.serve().await;
        self.pulse.end();
        outcome
    }

    async fn serve(&mut self) -> Result<(), WriterError> {
        let mut batch = Vec::with_capacity(self.limits.step_batches_max);
        loop {
            let wake = self.wake_at();
            let has_room = self.pending.bytes() < self.limits.append_bytes_max;
            tokio::select! {
                biased;
                Some(written) = self.inlets.written.recv() => {
                    self.pulse.begin(&DURABLES);
                    self.on_written(written)?;
                }
                Some(question) = self.inlets.questions.recv() => {
                    self.pulse.begin(&QUESTIONS);
                    self.on_question(&question);
                }
                Some(indexed) = self.inlets.indexed.recv() => {
                    self.pulse.begin(&INDEXED);
                    match indexed {
                        Indexed::Upto { upto, generation } => self.on_sealed(upto, generation),
                        Indexed::Failed(error) => return Err(WriterError::Index(error)),
                    }
                }
                taken = self.inlets.inputs.recv_many(&mut batch, self.limits.step_batches_max), if has_room => {
                    self.pulse.begin(&EVENTS);
                    if taken == 0 {
                        return Ok(());
                    }
                }
                () = self.clock.sleep_until(wake) => self.pulse.begin(&EVENTS),
            }
            batch.drain(..).flatten().for_each(|input| self.on_input(input));
            let has_stopped = self.tick();
            self.write();
            // The answer to whoever asked for the end comes in the same step as the end.
            self.flush();
            if has_stopped {
                return Ok(());
            }
            self.pulse.end();
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Attach(peer, orders) => {
                self.peers.insert(peer, Peer { orders, waiting: Vec::new() });
            }
            Input::Event(event) => {
                let gone = if let Event::PeerGone { peer } = &event { Some(*peer) } else { None };
                self.step(event);
                gone.map(|peer| self.peers.remove(&peer));
            }
            Input::Stop => self.step(Event::Stop),
        }
    }

    fn on_written(&mut self, written: Written) -> Result<(), WriterError> {
        match written {
            Written::Durable(lsn) => {
                self.pending.written();
                self.step(Event::Durable(Lsn(lsn.0)));
            }
            Written::Full(is_full) => self.step(Event::Disk(if is_full { Disk::Full } else { Disk::Room })),
            Written::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Which old records the machine still needs, once it no longer rests on look-ups that found them.
    fn on_question(&mut self, question: &Question) {
        if question.generation > self.generation {
            self.on_sealed(Lsn::NONE, question.generation);
        }
        let needed = question.records.iter().map(|(lsn, record)| self.router.needed(*lsn, record)).collect();
        let rests_on = sheaf_journal::Lsn(self.router.written().0);
        // The writer asks one question at a time, so there is room.
        if self.orders.try_send(Order::Verdict(Verdict { needed, rests_on })).is_err() {
            tracing::debug!("the writer has ended before the core");
        }
    }

    fn on_sealed(&mut self, upto: Lsn, generation: Generation) {
        self.generation = self.generation.max(generation);
        self.step(Event::Sealed { upto, generation });
    }

    /// The last event of a step, when it is due: silence is judged after what was pending has been read.
    fn tick(&mut self) -> bool {
        if self.router.deadline() <= self.clock.now() {
            self.step(Event::Tick);
        }
        self.has_stopped
    }

    fn step(&mut self, event: Event) {
        self.router.handle(self.clock.now(), event);
        while let Some(output) = self.router.poll() {
            self.on_output(output);
        }
    }

    fn on_output(&mut self, output: Output) {
        let peer = match &output {
            Output::Append { lsn, record } => return self.pending.push(*lsn, record),
            Output::Lost(lsn) => {
                tracing::error!(lsn = lsn.0, "a result or body cannot be read from the journal and was left out");
                return;
            }
            Output::Stopped => {
                self.has_stopped = true;
                return;
            }
            Output::Commit { peer, .. }
            | Output::Send { peer, .. }
            | Output::Relook { peer, .. }
            | Output::Signal { peer, .. } => *peer,
        };
        // A session that is gone takes nothing more; whatever it was owed is on disk.
        if let Some(to) = self.peers.get_mut(&peer) {
            to.waiting.push(output);
            self.dirty.insert(peer);
        }
    }

    fn write(&mut self) {
        let Some(append) = self.pending.take() else { return };
        self.store.remember(append.batch.clone());
        // The writer holds one batch at most, so there is room; if it is gone, its last word is on its way.
        if self.orders.try_send(Order::Append(append)).is_err() {
            tracing::debug!("the writer has ended before the core");
        }
    }

    fn flush(&mut self) {
        let peers = &mut self.peers;
        self.dirty.retain(|peer| {
            let Some(peer) = peers.get_mut(peer) else { return false };
            match peer.orders.try_send(std::mem::take(&mut peer.waiting)) {
                Ok(()) => false,
                Err(TrySendError::Full(orders)) => {
                    peer.waiting = orders;
                    true
                }
                // The link is ending; its PeerGone is on its way.
                Err(TrySendError::Closed(_)) => false,
            }
        });
    }

    fn wake_at(&self) -> Micros {
        let deadline = self.router.deadline();
        if self.dirty.is_empty() { deadline } else { deadline.min(self.clock.now() + ORDERS_RETRY) }
    }
}

//! The core's task: owns the router machine. Events in, step, records to the writer, orders to the links.
//!
//! It decides nothing. A batch is stepped while the one before is being synced, and orders that a link does not take yet stay
//! in that link's own list. The disk is all that it ever waits for: it writes a small batch itself when there is nothing else
//! to step and the disk was quick last time, since two wakes of threads would take as long.
//!
//! Invariant: what is on its way to the writer, and what waits for it, is each less than [`APPEND_BYTES_MAX`] and one event
//! ([`EVENT_BYTES_MAX`]), so that both fit into the reserve of a disk that is full.
//!
//! [`EVENT_BYTES_MAX`]: crate::limits::EVENT_BYTES_MAX

use std::collections::{BTreeMap, BTreeSet};
use std::future::{pending, ready};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, TryLockError};

use sheaf_net::{Alarm, Clock};
use sheaf_roles::router::{Disk, Event, Generation, Lsn, Output, PeerId, Router};
use sheaf_session::Micros;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;

use crate::compaction::{Question, Verdict};
use crate::gauges::Gauges;
use crate::inbox::Inbox;
use crate::indexer::Indexed;
use crate::limits::{APPEND_BYTES_MAX, Limits};
use crate::pending::Pending;
use crate::pulse::Pulse;
use crate::stages::{DURABLES, EVENTS, INDEXED, QUESTIONS};
use crate::store::Store;
use crate::writer::{self, Append, AtOnce, Order, WriterError, Written};

/// What reaches the core from outside.
#[derive(Debug)]
pub(crate) enum Input {
    /// A new session: where its orders go. Before any of its events.
    Attach(PeerId, Sender<Vec<Output>>),
    /// Something of a session.
    Event(Event),
}

/// The core and everything it reaches.
pub(crate) struct Core {
    pub router: Router,
    pub clock: Clock,
    pub limits: Limits,
    pub store: Arc<Store>,
    pub inlets: Inlets,
    pub orders: SyncSender<Order>,
    pub writer: writer::Shared,
    pub peers: BTreeMap<PeerId, Peer>,
    /// Peers with orders to flush.
    pub dirty: BTreeSet<PeerId>,
    pub pending: Pending,
    pub ending: Ending,
    pub pulse: Arc<Pulse>,
    pub gauges: Arc<Gauges>,
    /// The state of the index that the machine was last told of.
    pub generation: Generation,
}

/// Everything that comes to the core.
pub(crate) struct Inlets {
    pub inbox: Inbox,
    /// True once the process is to end.
    pub stop: watch::Receiver<bool>,
    pub written: Receiver<Written>,
    pub questions: Receiver<Question>,
    pub indexed: Receiver<Indexed>,
    /// When the machine has something to do by itself.
    pub alarm: Alarm,
}

/// How far the end is.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// The machine was told.
    is_told: bool,
    /// The machine has stopped.
    has_stopped: bool,
    /// The disk and the reserve are full: the writer gets nowhere.
    is_stuck: bool,
    /// The end was asked for and the writer gets nowhere: until then it may find room.
    give_up_at: Option<Micros>,
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

/// How long a router that is to end waits for room on its disk: less than the shortest grace, so that what it leaves
/// undone is taken up by the next one. Longer: it ends all the same, and says so.
const ROOM_PATIENCE: Micros = Micros::from_secs(2);

impl Core {
    /// Runs until the machine has stopped or the disk has failed.
    pub(crate) async fn run(mut self) -> Result<(), WriterError> {
        let outcome = self.serve().await;
        self.pulse.end();
        outcome
    }

    async fn serve(&mut self) -> Result<(), WriterError> {
        loop {
            self.wait().await?;
            self.take_in();
            self.write()?;
            self.tick();
            self.write()?;
            // The answer to whoever asked for the end comes in the same step as the end.
            self.flush();
            if self.ending.has_stopped {
                return Ok(());
            }
            self.pulse.end();
        }
    }

    /// Waits for something to do, and steps it unless it is of a link: those wait in the inbox.
    async fn wait(&mut self) -> Result<(), WriterError> {
        let (wake, give_up_at, clock) = (self.wake_at(), self.give_up_at(), self.clock);
        let Inlets { inbox, stop, written, questions, indexed, alarm } = &mut self.inlets;
        let has_room = self.pending.bytes() < APPEND_BYTES_MAX;
        let may_step = has_room && !inbox.is_empty();
        // Somebody who asks for the end is to be heard while nothing else can be done for anybody.
        let may_fill = inbox.is_empty() && has_room || self.ending.is_stuck && inbox.has_room();
        let is_told = self.ending.is_told;
        tokio::select! {
            biased;
            Some(written) = written.recv() => {
                self.pulse.begin(&DURABLES);
                self.on_written(written)?;
            }
            Some(question) = questions.recv() => {
                self.pulse.begin(&QUESTIONS);
                self.on_question(&question);
            }
            Some(indexed) = indexed.recv() => {
                self.pulse.begin(&INDEXED);
                match indexed {
                    Indexed::Upto { upto, generation } => self.on_sealed(upto, generation),
                    Indexed::Failed(error) => return Err(WriterError::Index(error)),
                }
            }
            () = given_up(clock, give_up_at) => return Err(WriterError::Full),
            () = asked(stop), if !is_told => {
                self.ending.is_told = true;
                self.step(Event::Stop);
            }
            () = ready(()), if may_step => self.pulse.begin(&EVENTS),
            is_open = inbox.fill(self.limits.step_batches_max), if may_fill => {
                self.pulse.begin(&EVENTS);
                // Nobody can ask for anything any more.
                self.ending.has_stopped |= !is_open;
            }
            () = alarm.wait(clock, wake) => self.pulse.begin(&EVENTS),
        }
        Ok(())
    }

    /// Steps what has come, as far as there is room for what it may write.
    fn take_in(&mut self) {
        while self.pending.bytes() < APPEND_BYTES_MAX
            && let Some(input) = self.inlets.inbox.next()
        {
            self.on_input(input);
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
        }
    }

    fn on_written(&mut self, written: Written) -> Result<(), WriterError> {
        match written {
            Written::Durable(lsn) => {
                (self.ending.is_stuck, self.ending.give_up_at) = (false, None);
                self.pending.written();
                self.step(Event::Durable(Lsn(lsn.0)));
            }
            Written::Full(is_full) => self.step(Event::Disk(if is_full { Disk::Full } else { Disk::Room })),
            Written::Stuck => self.ending.is_stuck = true,
            Written::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn give_up_at(&mut self) -> Option<Micros> {
        if self.ending.is_stuck && (*self.inlets.stop.borrow() || self.inlets.inbox.asks_stop()) {
            let at = self.clock.now() + ROOM_PATIENCE;
            self.ending.give_up_at.get_or_insert(at);
        }
        self.ending.give_up_at
    }

    /// Which old records the machine still needs, once it no longer rests on look-ups that found them.
    fn on_question(&mut self, question: &Question) {
        if question.generation > self.generation {
            self.on_sealed(Lsn::NONE, question.generation);
        }
        let needed = question.records.iter().map(|(lsn, record)| self.router.needed(*lsn, record)).collect();
        let rests_on = sheaf_journal::Lsn(self.router.written().0);
        self.order(Order::Verdict(Verdict { needed, rests_on }));
    }

    fn on_sealed(&mut self, upto: Lsn, generation: Generation) {
        self.generation = self.generation.max(generation);
        self.step(Event::Sealed { upto, generation });
    }

    /// The last event of a step, when it is due: silence is judged after what was pending has been read. Not while there
    /// is no room for what it may write.
    fn tick(&mut self) {
        if self.may_tick() && self.router.deadline() <= self.clock.now() {
            self.step(Event::Tick);
        }
    }

    fn may_tick(&self) -> bool {
        self.inlets.inbox.is_empty() && self.pending.bytes() < APPEND_BYTES_MAX
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
                self.ending.has_stopped = true;
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

    /// Gives the writer what is to be written, or does it itself: then what follows from it is for the writer.
    fn write(&mut self) -> Result<(), WriterError> {
        let Some(append) = self.next_append() else { return Ok(()) };
        let Some(AtOnce { written, is_first }) = self.write_at_once(&append)? else {
            self.order(Order::Append(append));
            return Ok(());
        };
        if is_first {
            self.order(Order::Wake);
        }
        for written in written {
            self.on_written(written)?;
        }
        if let Some(append) = self.next_append() {
            self.order(Order::Append(append));
        }
        Ok(())
    }

    fn next_append(&mut self) -> Option<Append> {
        self.gauges.set_made(self.router.written().0);
        let append = self.pending.take()?;
        self.store.remember(append.batch.clone());
        Some(append)
    }

    /// Where nobody else waits to be stepped meanwhile.
    fn write_at_once(&self, append: &Append) -> Result<Option<AtOnce>, WriterError> {
        match self.writer.try_lock() {
            Ok(mut writer) if self.inlets.inbox.is_idle() => writer.write_at_once(append),
            Ok(_) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Poisoned(_)) => panic!("the writer's thread panicked while it wrote"),
        }
    }

    fn order(&self, order: Order) {
        match self.orders.try_send(order) {
            // Whatever else is there makes the thread look, too.
            Ok(()) | Err(mpsc::TrySendError::Full(Order::Wake)) => {}
            Err(mpsc::TrySendError::Disconnected(_)) => tracing::debug!("the writer has ended before the core"),
            // It has one batch and one verdict at most, and word of the core's own twice.
            Err(mpsc::TrySendError::Full(Order::Append(_) | Order::Verdict(_))) => {
                unreachable!("there is room for these")
            }
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

    /// When there is something to do at the latest; `None`: when something comes.
    fn wake_at(&self) -> Option<Micros> {
        let tick = self.may_tick().then(|| self.router.deadline());
        let retry = (!self.dirty.is_empty()).then(|| self.clock.now() + ORDERS_RETRY);
        [tick, retry].into_iter().flatten().min()
    }
}

async fn given_up(clock: Clock, at: Option<Micros>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => pending().await,
    }
}

async fn asked(stop: &mut watch::Receiver<bool>) {
    // Where the server's value is gone nobody can ask any more.
    if stop.wait_for(|is_asked| *is_asked).await.is_err() {
        pending().await
    }
}

#[cfg(test)]
mod tests;

//! The processes of a `--serve` program, and which task goes to which.
//!
//! Invariants: a task that must be alone shares its process with nothing; tasks are placed in the order they came, so
//! that one that must be alone is not overtaken for ever.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sheaf_task::{Assignment, Class, Failure, Fence, Outcome};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};

use super::serve::{Order, Server};
use super::{Ended, panicked};
use crate::config::ProgramConfig;
use crate::keeper::KeeperSlot;

/// Orders waiting for one process; the pool keeps what does not fit.
const ORDERS_MAX: usize = 1_024;

/// Ends waiting to be taken; a server that has more waits for room.
const ENDED_MAX: usize = 1_024;

pub(super) struct Pool {
    config: Arc<ProgramConfig>,
    slots: Vec<Slot>,
    waiting: VecDeque<Assignment>,
    placed: BTreeMap<Fence, usize>,
    tasks: JoinSet<()>,
    keepers: KeeperSlot,
    report: mpsc::Sender<Ended>,
    inbox: mpsc::Receiver<Ended>,
}

struct Slot {
    orders: mpsc::Sender<Order>,
    task: task::Id,
    load: usize,
    alone: bool,
}

impl Pool {
    pub(super) fn new(config: Arc<ProgramConfig>, keepers: KeeperSlot, processes: usize) -> Self {
        let (report, inbox) = mpsc::channel(ENDED_MAX);
        let (waiting, placed) = (VecDeque::new(), BTreeMap::new());
        let mut pool =
            Self { config, slots: Vec::new(), waiting, placed, tasks: JoinSet::new(), keepers, report, inbox };
        for _ in 0..processes.max(1) {
            let slot = pool.open_slot();
            pool.slots.push(slot);
        }
        pool
    }

    fn open_slot(&mut self) -> Slot {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let server = Server::new(self.config.clone(), self.keepers.clone(), self.report.clone());
        let task = self.tasks.spawn(server.run(inbox)).id();
        Slot { orders, task, load: 0, alone: false }
    }

    pub(super) fn start(&mut self, assignment: Assignment) {
        self.waiting.push_back(assignment);
        self.place();
    }

    /// The end of an attempt that had not been given to a process; one that had reports its end itself.
    pub(super) fn kill(&mut self, fence: Fence) -> Option<Ended> {
        if let Some(slot) = self.placed.get(&fence) {
            // With the queue full of work, the kill is lost and the answer comes: the machine drops it.
            if self.slots[*slot].orders.try_send(Order::Stop(fence)).is_err() {
                tracing::warn!(?fence, "cannot be stopped now: its program has too much to do");
            }
            return None;
        }
        let at = self.waiting.iter().position(|assignment| assignment.fence == fence)?;
        self.waiting.remove(at);
        let outcome = Outcome::Failed(Failure::new(Class::Cancelled, "cancelled before it was given to the program"));
        Some(Ended::new(fence, outcome, 0))
    }

    /// Waits for ends. May be dropped at any await.
    pub(super) async fn ended(&mut self, into: &mut Vec<Ended>) {
        tokio::select! {
            Some(ended) = self.inbox.recv() => self.on_ended(ended, into),
            Some(Err(error)) = self.tasks.join_next() => self.on_panic(&error, into),
        }
        while let Ok(ended) = self.inbox.try_recv() {
            self.on_ended(ended, into);
        }
        self.place();
    }

    fn on_ended(&mut self, ended: Ended, into: &mut Vec<Ended>) {
        // One whose server panicked after it had reported this was failed already.
        let Some(slot) = self.placed.remove(&ended.fence) else { return };
        let slot = &mut self.slots[slot];
        slot.load -= 1;
        slot.alone &= slot.load > 0;
        into.push(ended);
    }

    /// The tasks of a server that panicked end with it; another takes its place.
    fn on_panic(&mut self, error: &task::JoinError, into: &mut Vec<Ended>) {
        let Some(at) = self.slots.iter().position(|slot| slot.task == error.id()) else { return };
        into.extend(self.placed.extract_if(.., |_, slot| *slot == at).map(|(fence, _)| panicked(fence, error)));
        self.slots[at] = self.open_slot();
    }

    pub(super) async fn close(mut self) {
        self.slots.clear();
        // Nobody reads reports any more: a server that waits to give one must not wait for ever.
        self.inbox.close();
        while let Some(joined) = self.tasks.join_next().await {
            if let Err(error) = joined {
                tracing::error!(%error, "the task of a long-lived program panicked");
            }
        }
        self.keepers.close().await;
    }

    fn place(&mut self) {
        while let Some(assignment) = self.waiting.front() {
            let Some(at) = self.slot_for(assignment.alone) else { return };
            let slot = &mut self.slots[at];
            let Ok(permit) = slot.orders.try_reserve() else { return };
            let Some(assignment) = self.waiting.pop_front() else { return };
            slot.load += 1;
            slot.alone = assignment.alone;
            self.placed.insert(assignment.fence, at);
            permit.send(Order::Run(assignment));
        }
    }

    fn slot_for(&self, alone: bool) -> Option<usize> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| !slot.alone && (!alone || slot.load == 0));
        open.min_by_key(|(_, slot)| slot.load).map(|(at, _)| at)
    }
}

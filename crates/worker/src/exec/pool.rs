//! The processes of a `--serve` program, and which task goes to which.
//!
//! Invariants: a task that must be alone shares its process with nothing; tasks are placed in the order they came, so
//! that one that must be alone is not overtaken for ever.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sheaf_task::{Assignment, Class, Failure, Fence, Outcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Ended;
use super::serve::{Order, Server};
use crate::config::ProgramConfig;
use crate::keeper::KeeperSlot;

/// Orders waiting for one process; the pool keeps what does not fit.
const ORDERS_MAX: usize = 1_024;

pub(super) struct Pool {
    slots: Vec<Slot>,
    waiting: VecDeque<Assignment>,
    placed: BTreeMap<Fence, usize>,
    tasks: JoinSet<()>,
    keepers: KeeperSlot,
}

struct Slot {
    orders: mpsc::Sender<Order>,
    load: usize,
    alone: bool,
}

impl Pool {
    pub(super) fn new(
        config: Arc<ProgramConfig>,
        keepers: KeeperSlot,
        processes: usize,
        report: &mpsc::Sender<Ended>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let slots = (0..processes.max(1))
            .map(|_| {
                let (orders, inbox) = mpsc::channel(ORDERS_MAX);
                tasks.spawn(Server::new(config.clone(), keepers.clone(), report.clone()).run(inbox));
                Slot { orders, load: 0, alone: false }
            })
            .collect();
        Self { slots, waiting: VecDeque::new(), placed: BTreeMap::new(), tasks, keepers }
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
        Some(Ended { fence, outcome, ms: 0 })
    }

    pub(super) fn on_ended(&mut self, fence: Fence) {
        if let Some(slot) = self.placed.remove(&fence) {
            let slot = &mut self.slots[slot];
            slot.load -= 1;
            slot.alone &= slot.load > 0;
        }
        self.place();
    }

    pub(super) async fn close(mut self) {
        self.slots.clear();
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

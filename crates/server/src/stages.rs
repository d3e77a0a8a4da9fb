//! The stages of the router process and the queues between them, in one table.
//!
//! A test proves that no cycle of stages can wait for each other; the watchdog names the stage and the queue when one
//! has work and makes no progress. Channels of the server are made from this table only: [`Queue::capacity`].

/// Who does what. One of each per process, but for `Link`: one per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// One session: moves its bytes, drives its machine, hashes keys, looks up finished ones (those of large messages beside
    /// it), fetches bodies.
    Link,
    /// Owns the router machine.
    Core,
    /// Has the journal; but a small batch the core writes itself, which is no queue: it waits for the disk alone, never for
    /// the writer's thread.
    Writer,
    /// Builds index files of sealed segments.
    Indexer,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Stage; 4] = [Stage::Link, Stage::Core, Stage::Writer, Stage::Indexer];
}

/// What the sending stage does when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits: an edge of the waiting graph.
    Wait,
    /// It keeps what it has, bounded as the text says, and goes on with other work.
    Keep(&'static str),
}

/// One queue of the table.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Its name, in messages and metrics.
    pub name: &'static str,
    /// Who sends.
    pub from: Stage,
    /// Who receives.
    pub to: Stage,
    /// Entries; each entry is a batch.
    pub capacity: usize,
    /// What the sender does when it is full.
    pub when_full: WhenFull,
}

/// Events of all sessions.
pub const EVENTS: Queue = Queue {
    name: "events",
    from: Stage::Link,
    to: Stage::Core,
    capacity: 64,
    when_full: WhenFull::Keep("reads nothing more from its carrier until there is room, but goes on taking orders"),
};

/// What the core wants said to one session.
pub const ORDERS: Queue = Queue {
    name: "orders",
    from: Stage::Core,
    to: Stage::Link,
    capacity: 16,
    when_full: WhenFull::Keep("keeps them for that session; the machine bounds what a peer may have outstanding"),
};

/// Batches of records to write, verdicts on old ones, and word that the core wrote one itself: one of each at most, and of the
/// last two.
pub const APPENDS: Queue = Queue {
    name: "appends",
    from: Stage::Core,
    to: Stage::Writer,
    capacity: 4,
    when_full: WhenFull::Keep("gathers records for the next batch, and steps no more events past append_bytes_max"),
};

/// What has become durable. At most one batch is under way, so this never fills.
pub const DURABLES: Queue =
    Queue { name: "durables", from: Stage::Writer, to: Stage::Core, capacity: 4, when_full: WhenFull::Wait };

/// Which old records are still needed. At most one is under way, so this never fills.
pub const QUESTIONS: Queue = Queue {
    name: "questions",
    from: Stage::Writer,
    to: Stage::Core,
    capacity: 1,
    when_full: WhenFull::Keep("compaction goes on later; commits go on meanwhile"),
};

/// The sealed segments, all of them, whenever there is a new one or one less.
pub const SEALS: Queue = Queue {
    name: "seals",
    from: Stage::Writer,
    to: Stage::Indexer,
    capacity: 4,
    when_full: WhenFull::Keep("says it again at its next turn"),
};

/// What the index has, so that the machine need not.
pub const INDEXED: Queue =
    Queue { name: "indexed", from: Stage::Indexer, to: Stage::Core, capacity: 4, when_full: WhenFull::Wait };

/// Index files that a look-up found damaged: no channel, but a wait of ten seconds at most until they are built again.
pub const DAMAGED: Queue =
    Queue { name: "damaged", from: Stage::Link, to: Stage::Indexer, capacity: 1, when_full: WhenFull::Wait };

/// Every queue.
pub const QUEUES: [Queue; 8] = [EVENTS, ORDERS, APPENDS, DURABLES, QUESTIONS, SEALS, INDEXED, DAMAGED];

/// A cycle of stages that wait for each other, if the table has one.
pub fn waiting_cycle(queues: &[Queue]) -> Option<Vec<Stage>> {
    Stage::ALL.iter().find_map(|start| {
        let mut path = vec![*start];
        reaches(queues, *start, *start, &mut path).then_some(path)
    })
}

fn reaches(queues: &[Queue], at: Stage, goal: Stage, path: &mut Vec<Stage>) -> bool {
    for queue in queues.iter().filter(|queue| queue.from == at && queue.when_full == WhenFull::Wait) {
        if queue.to == goal {
            return true;
        }
        if path.contains(&queue.to) {
            continue;
        }
        path.push(queue.to);
        if reaches(queues, queue.to, goal, path) {
            return true;
        }
        path.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stages_wait_for_each_other() {
        assert_eq!(waiting_cycle(&QUEUES), None);
    }

    #[test]
    fn a_planted_cycle_is_found() {
        let mut queues = QUEUES.to_vec();
        queues.push(Queue {
            name: "planted",
            from: Stage::Core,
            to: Stage::Writer,
            capacity: 1,
            when_full: WhenFull::Wait,
        });
        assert_eq!(waiting_cycle(&queues), Some(vec![Stage::Core, Stage::Writer]));
    }
}

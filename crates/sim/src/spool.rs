//! A worker's log on its disk: survives the process whole, the machine up to what was synced and some of the rest.

use sheaf_session::{Record, Rng, SessionId, State};
use sheaf_task::Fence;

use crate::plan::Left;

/// One entry, as the worker's shell writes it.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Session(Record),
    Started(Fence),
    Ended(Fence),
    /// The router knows what these, of an earlier life, died with.
    DeathsReported(Vec<Fence>),
}

/// The log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spool {
    entries: Vec<Entry>,
    synced: usize,
}

impl Spool {
    pub(crate) fn append(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(crate) fn sync(&mut self) {
        self.synced = self.entries.len();
    }

    /// The machine loses power: of what was not synced a beginning is left.
    pub(crate) fn crash(&mut self, left: Left, rng: &mut Rng) {
        let unsynced = (self.entries.len() - self.synced) as u64;
        let kept = match left {
            Left::Some => rng.below(unsynced + 1),
            Left::Nothing => 0,
            Left::Half => unsynced / 2,
            Left::All => unsynced,
        };
        self.entries.truncate(self.synced + kept as usize);
        self.sync();
    }

    /// Everything is forgotten.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.synced = 0;
    }

    /// The session as the log has it.
    pub(crate) fn state(&self, id: SessionId) -> State {
        let mut state = State::new(id);
        for entry in &self.entries {
            if let Entry::Session(record) = entry {
                state.apply(record.clone());
            }
        }
        state
    }

    /// Attempts that began and did not end.
    pub(crate) fn died_with(&self) -> Vec<Fence> {
        let mut running: Vec<Fence> = Vec::new();
        for entry in &self.entries {
            match entry {
                Entry::Started(fence) => running.push(*fence),
                Entry::Ended(fence) => running.retain(|other| other != fence),
                Entry::DeathsReported(fences) => running.retain(|other| !fences.contains(other)),
                Entry::Session(_) => {}
            }
        }
        running
    }
}

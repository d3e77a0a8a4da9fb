//! Answers that are kept for a while: a client that lost one asks again.

use std::collections::{BTreeMap, VecDeque};

use sheaf_session::Micros;
use sheaf_task::RowId;

use super::limits::{RECENT_AGE, RECENT_BYTES_MAX, RECENT_MAX};
use super::types::{Digest, Done};

/// The last answers, bounded in number, bytes and age.
#[derive(Default)]
pub(super) struct Recent {
    by_row: BTreeMap<RowId, (Done, Digest)>,
    /// The last row of each body.
    by_digest: BTreeMap<Digest, RowId>,
    order: VecDeque<(Micros, RowId)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn add(&mut self, now: Micros, row: RowId, digest: Digest, done: Done) {
        self.bytes += done.outcome.len();
        if let Some((before, _)) = self.by_row.insert(row, (done, digest)) {
            self.bytes -= before.outcome.len();
            self.order.retain(|(_, known)| *known != row);
        }
        self.by_digest.insert(digest, row);
        self.order.push_back((now, row));
        self.trim(now);
    }

    pub(super) fn trim(&mut self, now: Micros) {
        while let Some((at, row)) = self.order.front().copied()
            && (now.since(at) > RECENT_AGE || self.order.len() > RECENT_MAX || self.bytes > RECENT_BYTES_MAX)
        {
            self.order.pop_front();
            let Some((done, digest)) = self.by_row.remove(&row) else { continue };
            self.bytes -= done.outcome.len();
            if self.by_digest.get(&digest) == Some(&row) {
                self.by_digest.remove(&digest);
            }
        }
    }

    /// The answer to the last call of this body.
    pub(super) fn of_body(&self, digest: Digest) -> Option<&Done> {
        self.of_row(*self.by_digest.get(&digest)?)
    }

    /// The answer to the call of this name.
    pub(super) fn of_row(&self, row: RowId) -> Option<&Done> {
        self.by_row.get(&row).map(|(done, _)| done)
    }
}

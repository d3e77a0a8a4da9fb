//! Fences that must not start here: the latest that were given back, ended or died, and those cancelled before they came.
//!
//! Bounded: the oldest leaves first. A fence that has left and is assigned again anyway costs a second execution, whose
//! result the router knows as stale; it takes [`PAST_MAX`] attempts within one resend for that.

use std::collections::{BTreeSet, VecDeque};

use sheaf_task::Fence;

/// Fences remembered of each kind.
const PAST_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Past {
    over: Recent,
    revoked: Recent,
}

#[derive(Debug, Default)]
struct Recent {
    set: BTreeSet<Fence>,
    order: VecDeque<Fence>,
}

impl Past {
    /// This one is over.
    pub(super) fn add(&mut self, fence: Fence) {
        self.over.add(fence);
    }

    /// True for one that is over.
    pub(super) fn contains(&self, fence: Fence) -> bool {
        self.over.set.contains(&fence)
    }

    /// This one must not start when it comes.
    pub(super) fn revoke(&mut self, fence: Fence) {
        self.revoked.add(fence);
    }

    /// It has come: true if it must not start.
    pub(super) fn take_revoked(&mut self, fence: Fence) -> bool {
        self.revoked.set.remove(&fence)
    }
}

impl Recent {
    fn add(&mut self, fence: Fence) {
        if !self.set.insert(fence) {
            return;
        }
        self.order.push_back(fence);
        if self.order.len() > PAST_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

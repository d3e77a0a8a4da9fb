//! What happens when: the simulator's only clock.
//!
//! Invariant: entries of one instant leave in the order in which they were entered, so a seed decides everything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sheaf_session::Micros;

/// Things to come, ordered by time, then by entry.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    now: Micros,
    entered: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Micros,
    order: u64,
    what: T,
}

impl<T> Agenda<T> {
    /// An empty agenda at time zero.
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), now: Micros(0), entered: 0 }
    }

    /// The time of the last entry taken.
    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// Enters `what` for `at`, or for now where `at` has passed.
    pub(crate) fn enter(&mut self, at: Micros, what: T) {
        let at = at.max(self.now);
        self.entered += 1;
        self.heap.push(Reverse(Entry { at, order: self.entered, what }));
    }

    /// Enters `what` for `delay` from now.
    pub(crate) fn enter_in(&mut self, delay: Micros, what: T) {
        self.enter(Micros(self.now.0.saturating_add(delay.0)), what);
    }

    /// Takes the next entry, and moves the clock to it.
    pub(crate) fn next(&mut self) -> Option<T> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.what)
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_by_entry() {
        let mut agenda = Agenda::new();
        agenda.enter(Micros(5), 'c');
        agenda.enter(Micros(1), 'a');
        agenda.enter(Micros(5), 'd');
        agenda.enter(Micros(1), 'b');
        let order: String = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!((order.as_str(), agenda.now()), ("abcd", Micros(5)));
    }
}

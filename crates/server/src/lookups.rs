//! Looking keys up beside a link: while the rows of one message are looked up on another thread, the link takes in the next
//! one. (The first one may have to wait for the link's own thread: a task that it makes is next there.) Whatever else a session has to say waits behind them, so that the core hears all in the order in which it came.
//!
//! It deliberately knows no port and no machine. Invariants: events leave in the order in which they came in; at most
//! [`BESIDE_MAX`] messages are looked up at a time, what is more is looked up on the spot; a look-up that panics takes
//! its link with it, as it would on the spot.

use std::collections::VecDeque;
use std::sync::Arc;

use sheaf_roles::port::look_up;
use sheaf_roles::router::{Event, Inbound, JobNo, Output};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc::WeakSender;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::JoinSet;

use crate::blocking::blocking;
use crate::finished::Finished;
use crate::store::Store;

/// Messages of a session that are looked up at a time. More: on the spot, and the link reads nothing meanwhile.
const BESIDE_MAX: usize = 4;

/// Fewer rows cost less than the way to another thread.
const ROWS_MIN: usize = 64;

/// Events that wait behind look-ups. Full: look-ups are waited for on the spot.
const WAITING_MAX: usize = 1_024;

/// The index, as one session asks it.
pub(crate) struct Lookups {
    store: Arc<Store>,
    finished: Arc<Finished>,
    /// Where the link listens: an empty batch makes it look here again. Weak, because the link ends with the last sender.
    nudge: WeakSender<Vec<Output>>,
    waiting: VecDeque<Waiting>,
    beside: JoinSet<()>,
    /// Some row of the last message was known: what is new costs less than the way to another thread.
    finds: bool,
}

/// Makes a link look here again when a look-up has ended, however it did. Dropped after the outcome is sent.
struct Nudge(WeakSender<Vec<Output>>);

impl Drop for Nudge {
    fn drop(&mut self) {
        if self.0.upgrade().is_some_and(|link| link.try_send(Vec::new()).is_err()) {
            tracing::trace!("a link has orders, and looks anyway");
        }
    }
}

enum Waiting {
    Ready(Event),
    LookedUp(oneshot::Receiver<Event>),
}

impl Lookups {
    /// For a session whose link takes orders from the other end of `nudge`.
    pub(crate) fn new(store: Arc<Store>, finished: Arc<Finished>, nudge: WeakSender<Vec<Output>>) -> Self {
        Self { store, finished, nudge, waiting: VecDeque::new(), beside: JoinSet::new(), finds: false }
    }

    /// Takes an event; `no` is the number of the job that it is of, if it is of one.
    pub(crate) fn push(&mut self, event: Event, no: Option<JobNo>) {
        while !self.beside.is_empty() && self.beside.try_join_next().is_some() {}
        if self.waiting.len() >= WAITING_MAX {
            self.settle();
        }
        if self.finds && has_many(&event) && self.beside.len() < BESIDE_MAX && has_threads() {
            let (done, outcome) = oneshot::channel();
            let (store, finished, nudge) = (Arc::clone(&self.store), Arc::clone(&self.finished), self.nudge.clone());
            let nudge = Nudge(nudge);
            self.beside.spawn(async move {
                // Dropped in this order, also by a panic.
                let (_nudge, done) = (nudge, done);
                if done.send(noted(&store, &finished, event, no)).is_err() {
                    tracing::trace!("a link has ended");
                }
            });
            self.waiting.push_back(Waiting::LookedUp(outcome));
            return;
        }
        let event = self.now(event, no);
        self.waiting.push_back(Waiting::Ready(event));
    }

    /// The same at once.
    pub(crate) fn now(&self, event: Event, no: Option<JobNo>) -> Event {
        noted(&self.store, &self.finished, event, no)
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits on the spot until everything is looked up.
    fn settle(&mut self) {
        let settle = |waiting| match waiting {
            Waiting::Ready(event) => Waiting::Ready(event),
            Waiting::LookedUp(outcome) => match blocking(|| outcome.blocking_recv()) {
                Ok(event) => Waiting::Ready(event),
                Err(_) => panic!("a look-up panicked"),
            },
        };
        self.waiting = std::mem::take(&mut self.waiting).into_iter().map(settle).collect();
    }

    /// The event that is next, once it is ready.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        if let Waiting::LookedUp(outcome) = self.waiting.front_mut()? {
            match outcome.try_recv() {
                Ok(event) => self.waiting[0] = Waiting::Ready(event),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Closed) => panic!("a look-up panicked"),
            }
        }
        match self.waiting.pop_front()? {
            Waiting::Ready(event) => {
                self.finds = finds(&event).unwrap_or(self.finds);
                Some(event)
            }
            Waiting::LookedUp(_) => unreachable!("it has just been made ready"),
        }
    }
}

/// Whether there is another thread to look it up on.
fn has_threads() -> bool {
    Handle::try_current().is_ok_and(|runtime| {
        runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1
    })
}

/// Whether a row of a message is known, if it is a message of rows.
fn finds(event: &Event) -> Option<bool> {
    match event {
        Event::Message { inbound: Inbound::Submit { rows, .. }, .. } => {
            Some(rows.iter().any(|row| row.prior.is_some()))
        }
        _ => None,
    }
}

fn has_many(event: &Event) -> bool {
    matches!(event, Event::Message { inbound: Inbound::Submit { rows, .. }, .. } if rows.len() >= ROWS_MIN)
}

/// The event, with what the index has of its keys.
fn noted(store: &Store, finished: &Finished, mut event: Event, no: Option<JobNo>) -> Event {
    let Event::Message { inbound, .. } = &mut event else { return event };
    look_up(inbound, no, finished.generation(), |keys| finished.records(store, keys));
    if let Inbound::Submit { rows, .. } = inbound {
        let floor = finished.floor();
        for prior in rows.iter_mut().filter_map(|row| row.prior.as_mut()) {
            prior.finished = prior.finished.filter(|finished| finished.lsn >= floor);
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use sheaf_journal::Map;
    use sheaf_journal::index::Tiers;
    use sheaf_roles::router::{Generation, KeyedRow, Lsn, PeerId};
    use sheaf_session::{Lane, Place};
    use sheaf_task::{JobId, Key, RowId};
    use tokio::sync::mpsc;

    use super::*;
    use crate::disk::FileDisk;

    const PEER: PeerId = PeerId(7);

    fn submit(seq: u64, rows: usize) -> Event {
        let row = KeyedRow { row: RowId([1; 16]), key: Key([2; 16]), sample: 0, body: Bytes::new(), prior: None };
        let rows = vec![row; rows];
        let inbound = Inbound::Submit { job: JobId([3; 16]), cursor: 0, rows, generation: Generation(0) };
        Event::Message { peer: PEER, place: Place { lane: Lane::Bulk, epoch: 1, seq }, receipt: None, inbound }
    }

    /// Both ends of where a link listens.
    type Orders = (mpsc::Sender<Vec<Output>>, mpsc::Receiver<Vec<Output>>);

    fn lookups(dir: &Path) -> (Lookups, Orders) {
        let disk = FileDisk::new(dir.to_owned());
        let store = Arc::new(Store::new(disk.clone(), Map::default(), 1 << 20));
        let finished = Arc::new(Finished::new(disk, Tiers::default(), Lsn::NONE));
        finished.next_generation();
        let (orders, link) = mpsc::channel(1);
        (Lookups::new(store, finished, orders.downgrade()), (orders, link))
    }

    /// What is heard of many messages, with a word between each two of them.
    async fn heard() -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let (mut lookups, (_orders, mut link)) = lookups(dir.path());
        let mut heard = Vec::new();
        for seq in 0..40 {
            lookups.finds = true;
            lookups.push(submit(seq, if seq % 3 == 0 { 1 } else { 1_000 }), None);
            lookups.push(Event::PeerUp { peer: PEER }, None);
            heard.extend(lookups.pop());
        }
        while !lookups.is_empty() {
            match lookups.pop() {
                Some(event) => heard.push(event),
                None => drop(link.recv().await),
            }
        }
        heard.into_iter().map(show).collect()
    }

    fn show(event: Event) -> String {
        match event {
            Event::Message { place, inbound: Inbound::Submit { generation, .. }, .. } => {
                format!("{} under {}", place.seq, generation.0)
            }
            other => format!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_is_heard_in_the_order_in_which_it_came() {
        let up = show(Event::PeerUp { peer: PEER });
        let expected: Vec<_> = (0..40).flat_map(|seq| [format!("{seq} under 1"), up.clone()]).collect();
        assert_eq!(heard().await, expected);
    }

    #[tokio::test]
    async fn without_another_thread_it_is_looked_up_on_the_spot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut lookups, _link) = lookups(dir.path());
        for seq in 0..10 {
            lookups.finds = true;
            lookups.push(submit(seq, 1_000), None);
            assert!(lookups.beside.is_empty() && lookups.pop().is_some());
        }
    }
}

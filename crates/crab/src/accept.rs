//! The accept loop: a ticket, a connection, again. It sleeps in one of two system calls and decides nothing.
//!
//! Invariant: without a ticket nothing is accepted, so what the keeper of the queue cannot take stays with the kernel.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::{self, Thread};
use std::time::Duration;

use crate::plant;
use crate::queue::Event;

/// After a failed accept: the connection was gone already, or descriptors are short and will come back.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives tickets to the accept loop. A ticket is a one in a counter, and a nudge.
pub(crate) struct Tickets {
    pub(crate) count: Arc<AtomicUsize>,
    pub(crate) accepting: Thread,
}

impl Tickets {
    /// One more connection may be accepted.
    pub(crate) fn give(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.accepting.unpark();
    }
}

/// Accepts one connection for each ticket, until the keeper is gone.
pub(crate) fn run(listener: &TcpListener, tickets: &AtomicUsize, events: &SyncSender<Event>) {
    loop {
        // Only this thread takes tickets, so what it has seen is there to be taken.
        while tickets.load(Ordering::Acquire) == 0 {
            thread::park();
        }
        tickets.fetch_sub(1, Ordering::AcqRel);
        let (stream, peer) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(_) => thread::sleep(PAUSE),
            }
        };
        plant::panic_here("accept");
        if events.send(Event::Accepted(stream, peer.ip())).is_err() {
            return;
        }
    }
}

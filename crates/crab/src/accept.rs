//! The accept loop: a ticket, a connection, again. It sleeps in one of two system calls and decides nothing.
//!
//! Invariant: without a ticket nothing is accepted, so what the keeper of the queue cannot take stays with the kernel.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use crate::plant;
use crate::queue::Event;

/// After a failed accept: the connection was gone already, or descriptors are short and will come back.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts one connection for each ticket, until the keeper is gone.
pub(crate) fn run(listener: &TcpListener, tickets: &Receiver<()>, events: &SyncSender<Event>) {
    while tickets.recv().is_ok() {
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

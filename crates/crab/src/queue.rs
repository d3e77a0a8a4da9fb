//! The keeper of the queue. It alone knows who is being read, what waits, and what the handler does; others tell it by
//! events, and what it gives away it no longer has. So there is no lock.
//!
//! Invariants: at most `readers` tickets are out or being read, and at most `per_address` of one address are read; only
//! complete requests wait; while `queue` requests or `queue_bytes` bytes wait, no ticket is given. What was being read when
//! the queue became full still gets in, so it never holds more than `queue + readers`.

use std::collections::VecDeque;
use std::mem;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::accept::Tickets;
use crate::args::Config;
use crate::conn::Conn;
use crate::handler::{self, Order};
use crate::reader::{self, Door};
use crate::say;

/// A complete request, and the one who waits for the answer.
pub(crate) struct Request {
    pub(crate) conn: Conn,
    pub(crate) input: Vec<u8>,
}

/// Requests in the order in which they were complete.
pub(crate) type Batch = VecDeque<Request>;

/// What the others tell.
pub(crate) enum Event {
    /// A ticket was used.
    Accepted(TcpStream, IpAddr),
    /// A reader is done: with a request, or because there was none.
    Read(IpAddr, Option<Request>),
    /// The handler could start another program.
    Idle,
    /// The handler panicked, and this is what it had not begun.
    Failed(Batch),
}

/// The states of the handler. It takes a whole queue when it is idle.
///
/// ```text
///   idle ──batch──► busy ──Idle──► idle
///                    └──Failed──► failed ──a fresh one──► busy with what is left
/// ```
enum Handler {
    Idle(SyncSender<Order>),
    Busy(SyncSender<Order>),
    Failed(Batch),
}

/// The keeper.
pub(crate) struct Keeper {
    config: Arc<Config>,
    door: Arc<Door>,
    tickets: Tickets,
    events: SyncSender<Event>,
    /// Tickets given and not used.
    given: usize,
    /// The addresses of connections that are being read.
    reading: Vec<IpAddr>,
    queue: Batch,
    bytes: usize,
    handler: Handler,
}

impl Keeper {
    /// A keeper with an empty queue. The handler is yet to be made, as after a failure.
    pub(crate) fn new(config: Arc<Config>, door: Door, tickets: Tickets, events: SyncSender<Event>) -> Self {
        Self {
            config,
            door: Arc::new(door),
            tickets,
            events,
            given: 0,
            reading: Vec::new(),
            queue: Batch::new(),
            bytes: 0,
            handler: Handler::Failed(Batch::new()),
        }
    }

    /// The loop. Ends never: it holds a sender of its own events.
    pub(crate) fn run(mut self, inbox: &Receiver<Event>) {
        loop {
            self.hand_over();
            self.give_tickets();
            let Ok(event) = inbox.recv() else { return };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted(stream, ip) => self.on_accepted(stream, ip),
            Event::Read(ip, request) => self.on_read(ip, request),
            Event::Idle => {
                if let Handler::Busy(inbox) | Handler::Idle(inbox) = &self.handler {
                    self.handler = Handler::Idle(inbox.clone());
                }
            }
            Event::Failed(rest) => self.handler = Handler::Failed(rest),
        }
    }

    fn on_accepted(&mut self, stream: TcpStream, ip: IpAddr) {
        self.given -= 1;
        if self.reading.iter().filter(|reading| **reading == ip).count() >= self.config.per_address {
            // Closed without a word: an address with so many slow connections gets no more attention.
            return;
        }
        self.reading.push(ip);
        reader::start(stream, ip, Arc::clone(&self.door), self.events.clone());
    }

    fn on_read(&mut self, ip: IpAddr, request: Option<Request>) {
        if let Some(index) = self.reading.iter().position(|reading| *reading == ip) {
            self.reading.swap_remove(index);
        }
        if let Some(request) = request {
            self.bytes += request.input.len();
            self.queue.push_back(request);
        }
    }

    /// Gives the whole queue to an idle handler. A failed one is replaced, and the fresh one gets what the old one left.
    fn hand_over(&mut self) {
        if let Handler::Failed(rest) = &mut self.handler {
            let rest = mem::take(rest);
            match handler::start(Arc::clone(&self.config), self.events.clone()) {
                Ok(inbox) => self.give(inbox, rest),
                // No thread can be had now; whatever happens next is the occasion to try again.
                Err(_) => self.handler = Handler::Failed(rest),
            }
        }
        if let Handler::Idle(inbox) = &self.handler
            && !self.queue.is_empty()
        {
            let inbox = inbox.clone();
            self.bytes = 0;
            let batch = mem::take(&mut self.queue);
            self.give(inbox, batch);
        }
    }

    fn give(&mut self, inbox: SyncSender<Order>, batch: Batch) {
        self.handler = if batch.is_empty() {
            Handler::Idle(inbox)
        } else {
            match inbox.try_send(Order::Work(batch)) {
                Ok(()) => Handler::Busy(inbox),
                // Its thread is gone without a word, which only a fault of ours could bring about.
                Err(_) => {
                    say::line("the handler vanished; a fresh one is made");
                    Handler::Failed(Batch::new())
                }
            }
        };
    }

    /// As many tickets as there are readers free, unless the queue is full. Clients that left while it filled up make room.
    fn give_tickets(&mut self) {
        if self.is_full() {
            self.queue.retain(|request| !request.conn.has_left());
            self.bytes = self.queue.iter().map(|request| request.input.len()).sum();
        }
        while !self.is_full() && self.given + self.reading.len() < self.config.readers {
            self.tickets.give();
            self.given += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= self.config.queue || self.bytes >= self.config.queue_bytes
    }
}

//! The handler: takes a whole queue, and starts the program for each request in turn, as the light and the pace allow.
//!
//! Each request gets a disposable thread, which runs the program, gives its place back, and then sends the answer; so a client
//! that takes its answer slowly keeps nobody waiting. Of those at most `SENDERS` are there: the oldest is cut for a newer one.
//!
//! A handler that panics is thrown away. What it had not begun goes back to the keeper; what runs ends by its own time limit.

use std::net::{Shutdown, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Config;
use crate::family;
use crate::light::{GLANCE, Light};
use crate::plant;
use crate::program;
use crate::queue::{Batch, Event, Request};
use crate::say;

/// Answers on their way at the same time.
const SENDERS: usize = 32;
/// Bytes of stack of a request's thread.
const STACK: usize = 256 << 10;

/// Names a request within its handler; later ones are greater.
type Id = u64;

/// What a handler is told.
pub(crate) enum Order {
    /// The whole queue, by the keeper, when the handler is idle.
    Work(Batch),
    /// The program has ended, and its place is free; the answer follows on this socket.
    Ended(Id, Arc<TcpStream>),
    /// The answer is sent, or never will be.
    Sent(Id),
}

struct Handler {
    config: Arc<Config>,
    light: Light,
    inbox: Receiver<Order>,
    tell: SyncSender<Order>,
    next: Id,
    running: usize,
    /// Answers on their way, the oldest first.
    senders: Vec<(Id, Arc<TcpStream>)>,
    last_start: Option<Instant>,
}

/// Starts a handler. It lives until it panics.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) fn start(config: Arc<Config>, events: SyncSender<Event>) -> std::io::Result<SyncSender<Order>> {
    // Each thread of a request tells two things, the keeper one: none ever waits to tell them.
    let most = config.jellyfish.unwrap_or(1) + SENDERS + 1;
    let (tell, inbox) = mpsc::sync_channel(2 * most + 1);
    let mut handler = Handler::new(config, inbox, tell.clone());
    thread::Builder::new().name("handler".into()).stack_size(STACK).spawn(move || {
        loop {
            let mut batch = handler.next_batch();
            let result = panic::catch_unwind(AssertUnwindSafe(|| handler.work(&mut batch)));
            let event = if result.is_ok() { Event::Idle } else { Event::Failed(batch) };
            // Without a keeper the process is ending.
            if events.send(event).is_err() || result.is_err() {
                return;
            }
        }
    })?;
    Ok(tell)
}

impl Handler {
    fn new(config: Arc<Config>, inbox: Receiver<Order>, tell: SyncSender<Order>) -> Self {
        let light = Light::new(config.jellyfish);
        Self { config, light, inbox, tell, next: 0, running: 0, senders: Vec::new(), last_start: None }
    }

    /// Idle: waits for work.
    fn next_batch(&mut self) -> Batch {
        loop {
            if let Some(batch) = self.hear(self.config.timeout) {
                return batch;
            }
        }
    }

    /// Waits at most so long for one order, and notes it unless it is work.
    fn hear(&mut self, wait: Duration) -> Option<Batch> {
        match self.inbox.recv_timeout(wait) {
            Ok(Order::Work(batch)) => return Some(batch),
            Ok(Order::Ended(id, socket)) => self.on_ended(id, socket),
            Ok(Order::Sent(id)) => self.senders.retain(|(sender, _)| *sender != id),
            Err(_) => {}
        }
        None
    }

    /// First in, first out, until another program could start and there is no request left.
    fn work(&mut self, batch: &mut Batch) {
        while let Some(request) = batch.pop_front() {
            plant::panic_here("handler");
            if request.conn.has_left() {
                continue;
            }
            self.wait_for_turn();
            if !request.conn.has_left() {
                self.start(request);
            }
        }
        self.wait_for_turn();
    }

    /// Waits until pace, light and running programs allow one more.
    fn wait_for_turn(&mut self) {
        loop {
            let pause = self.pause();
            if pause.is_zero() && self.running < self.light.allows() {
                // Whoever is still there with nothing running has outlived its program.
                family::sweep(self.running == 0);
                return;
            }
            let wait = if !pause.is_zero() {
                pause
            } else if self.light.may_clear(self.running) {
                GLANCE
            } else {
                // Only the end of a program helps, and that comes within its time.
                self.config.timeout
            };
            self.hear(wait);
        }
    }

    /// What is left of the least time between two starts.
    fn pause(&self) -> Duration {
        self.last_start.map_or(Duration::ZERO, |start| self.config.pace.saturating_sub(start.elapsed()))
    }

    fn on_ended(&mut self, id: Id, socket: Arc<TcpStream>) {
        self.running -= 1;
        self.senders.push((id, socket));
        if self.senders.len() > SENDERS {
            let (_, oldest) = self.senders.remove(0);
            // It fails on a socket that is closed already, which is what is wanted.
            let _ = oldest.shutdown(Shutdown::Both);
        }
    }

    fn start(&mut self, request: Request) {
        let id = self.next;
        self.next += 1;
        self.running += 1;
        self.last_start = Some(Instant::now());
        let (config, tell) = (Arc::clone(&self.config), self.tell.clone());
        let mut place = Place { id, socket: Some(request.conn.socket()), tell };
        let work = move || serve(request, &config, &mut place);
        if thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
            say::line("no thread for a request: it was dropped");
        }
    }
}

/// A request's claim on the handler: gives back first the program's place, then the sender's, even in a panic.
struct Place {
    id: Id,
    socket: Option<Arc<TcpStream>>,
    tell: SyncSender<Order>,
}

impl Place {
    fn ended(&mut self) {
        if let Some(socket) = self.socket.take() {
            // A handler that was thrown away counts no more.
            let _ = self.tell.send(Order::Ended(self.id, socket));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ended();
        // As above.
        let _ = self.tell.send(Order::Sent(self.id));
    }
}

/// The life of a request's thread.
fn serve(request: Request, config: &Config, place: &mut Place) {
    let answer = program::run(config, &request.input, &request.conn).answer(config);
    place.ended();
    if let Some(answer) = answer {
        answer.send(request.conn, false);
    }
}

//! The handler: takes a whole queue, and starts the program for each request in turn, as the light and the pace allow.
//!
//! Each request gets a disposable thread, which runs the program, gives its place back, and then sends the answer; so a client
//! that takes its answer slowly keeps nobody waiting. Of those there are as many as there are readers: the oldest is cut for a newer one.
//!
//! A handler that panics is thrown away. What it had not begun goes back to the accept loop; what runs ends by its time limit.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::accept::{Batch, Request};
use crate::args::Config;
use crate::bell::{self, AtEnd, Bell, Rope};
use crate::family;
use crate::light::{GLANCE, Light};
use crate::plant;
use crate::program;

/// Bytes of stack of a request's thread.
const STACK: usize = 256 << 10;

/// A handler; it outlives the threads in which it works.
pub(crate) struct Handler {
    config: Arc<Config>,
    light: Light,
    bell: Bell,
    rope: Rope,
    /// Requests whose thread has not ended, the oldest first.
    flights: Vec<Flight>,
    next: u32,
    last_start: Option<Instant>,
}

/// How a batch ended.
pub(crate) enum End {
    /// Another program could start, and there is no request left.
    Idle(Box<Handler>),
    /// It panicked; this is what it had not begun.
    Failed(Batch),
}

/// A request and its thread. The thread rings with the id: once when the program has ended, once when the answer is sent.
struct Flight {
    id: u32,
    runs: bool,
    /// Weak, so that the connection is closed when its thread is done with it, and not when the handler looks.
    socket: Weak<TcpStream>,
    thread: JoinHandle<()>,
}

/// Has the handler work through the batch in a thread of its own, which rings at its end.
///
/// # Errors
/// When there is no thread to be had; then handler and batch are lost.
pub(crate) fn start(
    mut handler: Box<Handler>,
    mut batch: Batch,
    rope: Rope,
    number: u32,
) -> io::Result<JoinHandle<End>> {
    thread::Builder::new().stack_size(STACK).spawn(move || {
        let _told = AtEnd(rope, number);
        match panic::catch_unwind(AssertUnwindSafe(|| handler.work(&mut batch))) {
            Ok(Ok(())) => End::Idle(handler),
            Ok(Err(_)) | Err(_) => End::Failed(batch),
        }
    })
}

impl Handler {
    /// A fresh one.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub(crate) fn new(config: Arc<Config>) -> io::Result<Self> {
        let (bell, rope) = bell::new()?;
        let light = Light::new(config.jellyfish);
        Ok(Self { config, light, bell, rope, flights: Vec::new(), next: 0, last_start: None })
    }

    /// Whether every answer is sent.
    pub(crate) fn has_nothing(&self) -> bool {
        self.flights.iter().all(|flight| flight.thread.is_finished())
    }

    /// First in, first out, until another program could start and there is no request left.
    fn work(&mut self, batch: &mut Batch) -> io::Result<()> {
        while !batch.is_empty() {
            let request = batch.remove(0);
            plant::panic_here("handler");
            if request.conn.has_left() {
                continue;
            }
            self.wait_for_turn()?;
            if !request.conn.has_left() {
                self.start(request);
            }
        }
        self.wait_for_turn()
    }

    /// Waits until pace, light and running programs allow one more.
    fn wait_for_turn(&mut self) -> io::Result<()> {
        loop {
            let pause = self.pause();
            let running = self.running();
            if pause.is_zero() && running < self.light.allows() {
                // Whoever is still there with nothing running has outlived its program.
                family::sweep(running == 0);
                return Ok(());
            }
            let wait = if !pause.is_zero() {
                pause
            } else if self.light.may_clear(running) {
                GLANCE
            } else {
                // Only the end of a program helps, and that comes within its time.
                self.config.timeout
            };
            if let Some(id) = self.bell.wait_for(wait)? {
                self.on_ring(id);
            }
        }
    }

    fn running(&self) -> usize {
        self.flights.iter().filter(|flight| flight.runs).count()
    }

    /// What is left of the least time between two starts.
    fn pause(&self) -> Duration {
        self.last_start.map_or(Duration::ZERO, |start| self.config.pace.saturating_sub(start.elapsed()))
    }

    fn on_ring(&mut self, id: u32) {
        let Some(index) = self.flights.iter().position(|flight| flight.id == id) else { return };
        match self.flights.get_mut(index) {
            Some(flight) if flight.runs => {
                flight.runs = false;
                self.cut_slowest();
            }
            _ => {
                // It has nothing left to do but to end, or it panicked, which was said.
                let _ = self.flights.remove(index).thread.join();
            }
        }
    }

    fn cut_slowest(&self) {
        let mut sending = self.flights.iter().filter(|flight| !flight.runs);
        if let Some(oldest) = sending.next()
            && sending.count() >= self.config.readers
        {
            // It fails on a socket that is closed already, which is what is wanted.
            let _ = oldest.socket.upgrade().map(|socket| socket.shutdown(Shutdown::Both));
        }
    }

    fn start(&mut self, request: Request) {
        let id = self.next;
        self.next = id.wrapping_add(1);
        self.last_start = Some(Instant::now());
        let (config, rope, socket) = (Arc::clone(&self.config), self.rope.clone(), request.conn.socket());
        let work = move || serve(request, &config, rope, id);
        // Without a thread the connection is closed, and the next request is tried.
        if let Ok(thread) = thread::Builder::new().stack_size(STACK).spawn(work) {
            self.flights.push(Flight { id, runs: true, socket, thread });
        }
    }
}

/// The life of a request's thread. It rings twice, a panic included.
fn serve(request: Request, config: &Config, rope: Rope, id: u32) {
    let _sent = AtEnd(rope.clone(), id);
    let ended = AtEnd(rope, id);
    let answer = program::run(config, &request.input, &request.conn).answer();
    drop(ended);
    if let Some(answer) = answer {
        answer.send(request.conn, false);
    }
}

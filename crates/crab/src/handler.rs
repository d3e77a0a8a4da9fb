//! The handler: takes a whole queue, and starts the program for each request in turn, as the light and the pace allow.
//!
//! Each request gets a disposable thread, which runs the program, gives its place back, and then sends the answer; so a client
//! that takes its answer slowly keeps nobody waiting. Of those at most `SENDERS` are there: the oldest is cut for a newer one.
//!
//! A handler that panics is thrown away. What it had not begun goes back to the keeper; what runs ends by its own time limit.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
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

/// What a request's thread tells.
enum Progress {
    /// The program has ended, and its place is free; the answer follows on this socket.
    Ended(Id, Arc<TcpStream>),
    /// The answer is sent, or never will be.
    Sent(Id),
}

struct Handler {
    config: Arc<Config>,
    light: Light,
    progress: Receiver<Progress>,
    tell: SyncSender<Progress>,
    next: Id,
    running: usize,
    senders: BTreeMap<Id, Arc<TcpStream>>,
    last_start: Option<Instant>,
}

/// Starts a handler. It lives until it panics or its inbox is dropped.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) fn start(config: Arc<Config>, events: SyncSender<Event>) -> std::io::Result<SyncSender<Batch>> {
    let (inbox, batches) = mpsc::sync_channel::<Batch>(1);
    thread::Builder::new().name("handler".into()).stack_size(STACK).spawn(move || {
        let mut handler = Handler::new(config);
        while let Ok(mut batch) = batches.recv() {
            let result = panic::catch_unwind(AssertUnwindSafe(|| handler.work(&mut batch)));
            let event = if result.is_ok() { Event::Idle } else { Event::Failed(batch) };
            // Without a keeper the process is ending.
            if events.send(event).is_err() || result.is_err() {
                return;
            }
        }
    })?;
    Ok(inbox)
}

impl Handler {
    fn new(config: Arc<Config>) -> Self {
        // Each thread tells two things; none ever waits to tell them.
        let most = config.jellyfish.unwrap_or(1) + SENDERS + 1;
        let (tell, progress) = mpsc::sync_channel(2 * most);
        let light = Light::new(config.jellyfish);
        Self { config, light, progress, tell, next: 0, running: 0, senders: BTreeMap::new(), last_start: None }
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
            while let Ok(progress) = self.progress.try_recv() {
                self.note(progress);
            }
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
            match self.progress.recv_timeout(wait) {
                Ok(progress) => self.note(progress),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// What is left of the least time between two starts.
    fn pause(&self) -> Duration {
        self.last_start.map_or(Duration::ZERO, |start| self.config.pace.saturating_sub(start.elapsed()))
    }

    fn note(&mut self, progress: Progress) {
        match progress {
            Progress::Ended(id, socket) => {
                self.running -= 1;
                self.senders.insert(id, socket);
                while self.senders.len() > SENDERS
                    && let Some((_, oldest)) = self.senders.pop_first()
                {
                    // It fails on a socket that is closed already, which is what is wanted.
                    let _ = oldest.shutdown(Shutdown::Both);
                }
            }
            Progress::Sent(id) => {
                self.senders.remove(&id);
            }
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
    tell: SyncSender<Progress>,
}

impl Place {
    fn ended(&mut self) {
        if let Some(socket) = self.socket.take() {
            // A handler that was thrown away counts no more.
            let _ = self.tell.send(Progress::Ended(self.id, socket));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ended();
        // As above.
        let _ = self.tell.send(Progress::Sent(self.id));
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

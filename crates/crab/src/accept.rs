//! The accept loop: takes connections, has them read, queues what is complete, and gives the whole queue away when the handler
//! is idle. What it gives to a thread it no longer has, and gets back by joining it: there is no lock.
//!
//! Invariants: at most `readers` connections are read, at most `per_address` of them from one address; only complete requests
//! wait; while `queue` requests or `queue_bytes` bytes wait, it sleeps until the handler takes them. What was being read when
//! the queue became full still gets in, so it never holds more than `queue + readers`.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::args::Config;
use crate::bell::{self, Bell, Heard, Rope};
use crate::conn::Conn;
use crate::handler::{self, End, Handler};
use crate::plant;
use crate::reader::{self, Door};
use crate::say;

/// A complete request, and the one who waits for the answer.
pub(crate) struct Request {
    pub(crate) conn: Conn,
    pub(crate) input: Vec<u8>,
}

/// Requests in the order in which they were complete.
pub(crate) type Batch = Vec<Request>;

/// Who rings: the handler, or the reader of that place.
const HANDLER: u32 = u32::MAX;
/// After a failed accept: descriptors are short, and will come back.
const PAUSE: Duration = Duration::from_millis(100);
/// After a connection that was one too many of its address.
const BREATH: Duration = Duration::from_millis(1);

/// So long without anything to do, and it goes to rest: the supervisor starts another for the next connection.
const REST: Duration = Duration::from_secs(10);

/// The states of the handler.
///
/// ```text
///   idle ──the whole queue──► busy ──► idle
///                              └─panic─► failed ──a fresh one──► busy with what is left
/// ```
enum State {
    Idle(Box<Handler>),
    Busy(JoinHandle<End>),
    Failed(Batch),
}

/// A connection that is being read.
struct Reading {
    ip: IpAddr,
    thread: JoinHandle<Option<Request>>,
}

/// The accept loop.
pub(crate) struct Accept {
    listener: TcpListener,
    config: Arc<Config>,
    door: Arc<Door>,
    bell: Bell,
    rope: Rope,
    /// A place for each reader.
    readers: Vec<Option<Reading>>,
    queue: Batch,
    state: State,
}

impl Accept {
    /// With an empty queue, and a handler that is yet to be made, as after a failure.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn new(listener: TcpListener, config: Config, door: Door) -> io::Result<Self> {
        // One that left between the poll and the accept must not hold up everything.
        listener.set_nonblocking(true)?;
        let (bell, rope) = bell::new()?;
        let readers = (0..config.readers).map(|_| None).collect();
        let (config, door) = (Arc::new(config), Arc::new(door));
        let state = State::Failed(Batch::new());
        Ok(Self { listener, config, door, bell, rope, readers, queue: Batch::new(), state })
    }

    /// The loop. It returns when there was nothing to do for a while.
    ///
    /// # Errors
    /// When the bell or the socket is broken.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            self.hand_over();
            if self.is_full() {
                // Those who left while it filled up make room. After this, full means nothing: it sleeps.
                self.queue.retain(|request| !request.conn.has_left());
            }
            let free = self.readers.iter().position(Option::is_none).filter(|_| !self.is_full());
            let heard = match free {
                Some(_) => self.bell.wait_beside(self.listener.as_fd(), REST)?,
                None => Heard::Ring(self.bell.wait()?),
            };
            match (heard, free) {
                (Heard::Ring(HANDLER), _) => self.on_handler(),
                (Heard::Ring(place), _) => self.on_read(place as usize),
                (Heard::Other, Some(place)) => self.accept(place),
                (Heard::Nothing, _) if self.has_nothing() => return Ok(()),
                (Heard::Other | Heard::Nothing, _) => {}
            }
        }
    }

    /// Nobody is read, nothing waits, and every answer is sent.
    fn has_nothing(&self) -> bool {
        let is_idle = matches!(&self.state, State::Idle(handler) if handler.has_nothing());
        is_idle && self.queue.is_empty() && self.readers.iter().all(Option::is_none)
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.queue.iter().map(|request| request.input.len()).sum();
        self.queue.len() >= self.config.queue || bytes >= self.config.queue_bytes
    }

    fn accept(&mut self, place: usize) {
        let (stream, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return thread::sleep(PAUSE),
        };
        plant::panic_here("accept");
        let ip = household(peer.ip());
        if self.readers.iter().flatten().filter(|reading| reading.ip == ip).count() >= self.config.per_address {
            // Closed without a word: an address with so many slow connections gets no more attention. Whoever is closed so may
            // come back at once, and must not keep a processor busy with that.
            return thread::sleep(BREATH);
        }
        // Without a thread the connection is closed.
        if let Ok(thread) = reader::start(stream, Arc::clone(&self.door), self.rope.clone(), place as u32)
            && let Some(free) = self.readers.get_mut(place)
        {
            *free = Some(Reading { ip, thread });
        }
    }

    fn on_read(&mut self, place: usize) {
        let reading = self.readers.get_mut(place).and_then(Option::take);
        // A reader that panicked has no request.
        if let Some(Ok(Some(request))) = reading.map(|reading| reading.thread.join()) {
            self.queue.push(request);
        }
    }

    fn on_handler(&mut self) {
        if let State::Busy(thread) = mem::replace(&mut self.state, State::Failed(Batch::new())) {
            self.state = match thread.join() {
                Ok(End::Idle(handler)) => State::Idle(handler),
                Ok(End::Failed(rest)) => State::Failed(rest),
                Err(_) => State::Failed(Batch::new()),
            };
        }
    }

    /// Gives an idle handler the whole queue. A failed one is replaced, and the fresh one begins with what the old one left.
    fn hand_over(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Failed(Batch::new())) {
            State::Idle(handler) if !self.queue.is_empty() => {
                let batch = mem::take(&mut self.queue);
                self.busy(handler, batch)
            }
            State::Failed(mut rest) => match Handler::new(Arc::clone(&self.config)) {
                Ok(handler) if rest.is_empty() && self.queue.is_empty() => State::Idle(Box::new(handler)),
                Ok(handler) => {
                    // With what came meanwhile: nobody might ring again for it.
                    rest.append(&mut self.queue);
                    self.busy(Box::new(handler), rest)
                }
                // Whatever happens next is the occasion to try again.
                Err(_) => State::Failed(rest),
            },
            state @ (State::Idle(_) | State::Busy(_)) => state,
        };
    }

    fn busy(&self, handler: Box<Handler>, batch: Batch) -> State {
        match handler::start(handler, batch, self.rope.clone(), HANDLER) {
            Ok(thread) => State::Busy(thread),
            Err(error) => {
                say::line(&format!("no thread for the handler, the queue is lost: {error}"));
                State::Failed(Batch::new())
            }
        }
    }
}

/// What counts as one address: of IPv6 the first half, for whoever has one address of the other half has them all.
fn household(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let one = |a: &str, b: &str| household(a.parse().unwrap()) == household(b.parse().unwrap());
        assert!(one("2001:db8::1", "2001:db8::ffff:2"));
        assert!(one("192.0.2.1", "::ffff:192.0.2.1"));
        for (a, b) in
            [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", "192.0.2.2"), ("::ffff:192.0.2.1", "::ffff:192.0.2.2")]
        {
            assert!(!one(a, b), "{a} {b}");
        }
    }
}

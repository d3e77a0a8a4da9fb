//! The line to a real router: a session on a link that dials, with the client's port on it.
//!
//! A session that is over for good is followed by another: the router then knows nothing of what was on its way, and the
//! machine is told so (`Lost`). The pauses between them grow ([`Backoff`]) until something comes of one. Where another
//! would be refused as the last one was, the line ends with the reason.

mod cancel;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::Duration;

use sheaf_net::{Backoff, Clock, Link, Source, Target};
use sheaf_roles::client::{Event, Tag, Ticket};
use sheaf_roles::port::{ClientCommand, ClientPort, ClientReport, Over, fit_dialer_config};
use sheaf_session::{Config, Depth, Faults, How, Refusal, Session, SessionId, Side};
use sheaf_task::ToRouter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::driver::Line;

pub use cancel::cancel_job;

/// Batches of commands and of reports between the line and its link. The link always takes commands; reports wait.
const BATCHES: usize = 8;

/// How long the router is given to hear the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why no other session is tried: it would end as the last one did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router at {place} {}", say(over))]
pub struct LineError {
    /// Where the router is.
    pub place: String,
    /// How the session ended.
    pub over: Over,
}

/// What the router did, and what is to be done.
fn say(over: &Over) -> &'static str {
    match over {
        Over::Refused(Refusal::Version) => {
            "speaks another version: install the same sheaf on both, and repeat the command"
        }
        Over::Refused(Refusal::Auth) => {
            "does not let this client in: it has no such token, had it revoked, or began this session with another one (--token-file \
             FILE, SHEAF_TOKEN)"
        }
        Over::Refused(Refusal::Untrusted) => {
            "is not to be trusted, as was said: name whom to trust with --ca FILE, and write its address as \
             sheaf://HOST:PORT if, and only if, it speaks TLS"
        }
        Over::Malformed => {
            "says what means nothing to this version: install the same sheaf on both, and repeat the command"
        }
        Over::Refused(Refusal::Clone | Refusal::Busy | Refusal::Fenced)
        | Over::Ended
        | Over::Fenced
        | Over::Overrun => "has ended the session: repeat the command",
    }
}

/// Whether another session may fare better than one that ended so.
fn may_pass(over: &Over) -> bool {
    match over {
        Over::Refused(Refusal::Version | Refusal::Auth | Refusal::Untrusted) | Over::Malformed => false,
        // Of this very session, which has a name of its own; and what a router does that ends.
        Over::Refused(Refusal::Clone | Refusal::Busy | Refusal::Fenced)
        | Over::Ended
        | Over::Fenced
        | Over::Overrun => true,
    }
}

/// A line to the router at `target`.
pub struct SessionLine {
    target: Target,
    faults: Option<Faults>,
    running: Option<Running>,
    /// When the next session may begin, while there is none.
    again_at: Instant,
    backoff: Backoff,
    /// Not yet given to the link.
    commands: Vec<ClientCommand>,
    /// Not yet taken by the driver.
    events: VecDeque<Event>,
    /// Tickets of earlier sessions, which mean nothing to the present one.
    tickets_before: u64,
    ticket: u64,
    /// The last message that is to be acknowledged.
    tag: Option<Tag>,
}

/// A session and its link.
struct Running {
    commands: mpsc::Sender<Vec<ClientCommand>>,
    reports: mpsc::Receiver<Vec<ClientReport>>,
    link: JoinHandle<ClientPort>,
}

impl SessionLine {
    /// A line that dials from now on, until it is connected. `faults` are injected into its session.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn open(target: Target, faults: Option<Faults>) -> io::Result<Self> {
        let running = Some(Running::start(&target, faults.as_ref())?);
        let mut seed = [0; 8];
        random(&mut seed)?;
        let (commands, events) = (Vec::new(), VecDeque::new());
        Ok(Self {
            target,
            faults,
            running,
            again_at: Instant::now(),
            backoff: Backoff::new(u64::from_le_bytes(seed)),
            commands,
            events,
            tickets_before: 0,
            ticket: 0,
            tag: None,
        })
    }

    fn take(&mut self, reports: Vec<ClientReport>) -> Result<(), LineError> {
        for report in reports {
            match report {
                ClientReport::Event { job: _, event: Event::Delivered { ticket, rows } } => {
                    self.backoff.reset();
                    self.ticket = self.tickets_before + ticket.0;
                    self.events.push_back(Event::Delivered { ticket: Ticket(self.ticket), rows });
                }
                ClientReport::Event { job: _, event } => {
                    if matches!(event, Event::Acknowledged(_)) {
                        self.backoff.reset();
                    }
                    self.events.push_back(event);
                }
                ClientReport::Answer { id, .. } => tracing::debug!(id, "an answer to nobody's question"),
                ClientReport::Piece { .. } => tracing::debug!("a piece of an answer that nobody watches"),
                ClientReport::Over(over) if may_pass(&over) => {
                    tracing::warn!(?over, "the session with the router is over; beginning another");
                    self.hang_up();
                }
                ClientReport::Over(over) => {
                    self.running = None;
                    return Err(LineError { place: self.target.to_string(), over });
                }
            }
        }
        Ok(())
    }

    /// The present session is over.
    fn hang_up(&mut self) {
        self.running = None;
        self.again_at = Instant::now() + self.backoff.pause();
        self.commands.clear();
        self.tickets_before = self.ticket;
        self.events.push_back(Event::Down);
        // Nobody will acknowledge what was sent: it counts as acknowledged, and as lost.
        self.events.extend(self.tag.take().map(Event::Acknowledged));
        self.events.push_back(Event::Lost);
    }

    /// Cancel-safe: the time at which it may be is kept.
    async fn begin_again(&mut self) {
        sleep_until(self.again_at).await;
        self.again_at = Instant::now() + self.backoff.pause();
        match Running::start(&self.target, self.faults.as_ref()) {
            Ok(running) => self.running = Some(running),
            Err(error) => tracing::warn!(%error, "cannot begin a session"),
        }
    }
}

impl Running {
    fn start(target: &Target, faults: Option<&Faults>) -> io::Result<Self> {
        let (mut id, mut seeds) = ([0; 16], [0; 24]);
        random(&mut id)?;
        random(&mut seeds)?;
        let [seed, boot, dial] = [0, 8, 16].map(|at| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&seeds[at..at + 8]);
            u64::from_le_bytes(bytes)
        });
        let config = fit_dialer_config(
            Config { boot, auth: target.auth(), faults: faults.cloned(), ..Config::default() },
            Depth::Memory,
        );
        let session = Session::new(config, Side::Dialer, SessionId(id), seed);
        let (commands, taken) = mpsc::channel(BATCHES);
        let (says, reports) = mpsc::channel(BATCHES);
        let source = Source::Dial { target: target.clone(), seed: dial };
        let link = Link::new(ClientPort::new(session), Clock::start(), source, taken, says);
        Ok(Self { commands, reports, link: tokio::spawn(link.run()) })
    }

    /// Gives the link what it is to do, or takes what it tells; `None` when it has ended. Cancel-safe.
    async fn exchange(&mut self, commands: &mut Vec<ClientCommand>) -> Option<Vec<ClientReport>> {
        tokio::select! {
            biased;
            permit = self.commands.reserve(), if !commands.is_empty() => {
                permit.ok()?.send(std::mem::take(commands));
                Some(Vec::new())
            }
            reports = self.reports.recv() => reports,
        }
    }

    /// Says these last words, waits a moment for the router to hear them, and hangs up.
    async fn hang_up(mut self, mut words: Vec<ClientCommand>) {
        words.push(ClientCommand::Close(How::Drain));
        let is_over = |reports: &[ClientReport]| reports.iter().any(|report| matches!(report, ClientReport::Over(_)));
        let ended = async { while self.exchange(&mut words).await.is_some_and(|reports| !is_over(&reports)) {} };
        if timeout(LAST_WORDS, ended).await.is_err() {
            tracing::debug!("the router did not hear the last words in time; it will be told again by the next run");
        }
        drop((self.commands, self.reports));
        if let Err(error) = self.link.await {
            tracing::error!(%error, "the link to the router panicked");
        }
    }
}

impl Line for SessionLine {
    async fn next(&mut self) -> Result<Event, LineError> {
        loop {
            match &mut self.running {
                // What the driver has said goes first: it may be what the router waits for.
                Some(running) if !self.commands.is_empty() || self.events.is_empty() => {
                    match running.exchange(&mut self.commands).await {
                        Some(reports) => self.take(reports)?,
                        None => self.hang_up(),
                    }
                }
                // What it says while there is no session waits for the next, bounded by the machine: the router will
                // ask for the job to be opened first.
                Some(_) | None => match self.events.pop_front() {
                    Some(event) => return Ok(event),
                    None => self.begin_again().await,
                },
            }
        }
    }

    fn send(&mut self, tag: Option<Tag>, message: ToRouter) {
        self.tag = tag.or(self.tag);
        self.commands.push(ClientCommand::Send { tag, message });
    }

    fn commit(&mut self, ticket: Ticket) {
        if let Some(ticket) = ticket.0.checked_sub(self.tickets_before).filter(|ticket| *ticket > 0) {
            self.commands.push(ClientCommand::Commit(Ticket(ticket)));
        }
    }

    async fn close(mut self) {
        if let Some(running) = self.running.take() {
            running.hang_up(std::mem::take(&mut self.commands)).await;
        }
    }
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

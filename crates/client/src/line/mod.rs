//! The line to a real router: a session on a link that dials, with the client's port on it.
//!
//! A session that is over for good is followed by another: the router then knows nothing of what was on its way, and the
//! machine is told so (`Lost`). The pauses between them grow ([`Backoff`]) until something comes of one. Where another
//! would be refused as the last one was, the line ends with the reason.

mod cancel;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use sheaf_net::{Backoff, Target};
use sheaf_roles::client::{Event, Tag, Ticket};
use sheaf_roles::port::{ClientCommand, ClientReport, Over};
use sheaf_session::{Faults, How, Refusal};
use sheaf_task::ToRouter;
use tokio::time::{Instant, sleep_until};

use crate::driver::Line;
use crate::session::{Leaving, RouterSession, random};

pub use cancel::cancel_job;

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
    running: Option<RouterSession>,
    /// The link of the session before.
    leaving: Option<Leaving>,
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

impl SessionLine {
    /// A line that dials from now on, until it is connected. `faults` are injected into its session.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn open(target: Target, faults: Option<Faults>) -> io::Result<Self> {
        let running = Some(RouterSession::start(&target, faults.as_ref())?);
        let mut seed = [0; 8];
        random(&mut seed)?;
        let (commands, events) = (Vec::new(), VecDeque::new());
        Ok(Self {
            target,
            faults,
            running,
            leaving: None,
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
                    self.leaving = self.running.take().map(RouterSession::leave);
                    return Err(LineError { place: self.target.to_string(), over });
                }
            }
        }
        Ok(())
    }

    /// The present session is over.
    fn hang_up(&mut self) {
        if let Some(running) = self.running.take() {
            self.leaving = Some(running.leave());
        }
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
        self.left().await;
        self.again_at = Instant::now() + self.backoff.pause();
        match RouterSession::start(&self.target, self.faults.as_ref()) {
            Ok(running) => self.running = Some(running),
            Err(error) => tracing::warn!(%error, "cannot begin a session"),
        }
    }

    /// The session before has left nothing behind. Cancel-safe.
    async fn left(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.ended().await;
        }
        self.leaving = None;
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
            running.hang_up(std::mem::take(&mut self.commands), How::Drain, LAST_WORDS).await;
        }
        self.left().await;
    }
}

//! What every host reaches of the world: the agenda, the network, chance, the trace and the ledger.

use std::collections::BTreeMap;

use sheaf_session::{Endpoint, Fatal, Input, Micros, Rng, Step};

use crate::agenda::Agenda;
use crate::ledger::Ledger;
use crate::network::{Arrival, ConnId, End, Network};
use crate::plan::{Break, Who};
use crate::story::Story;
use crate::trace::{Trace, digest};

/// Longest pause before a host dials again.
const REDIAL_MAX: Micros = Micros::from_ms(500);

/// The world without its hosts.
#[derive(Debug)]
pub(crate) struct Env {
    pub agenda: Agenda<Happening>,
    pub network: Network,
    pub rng: Rng,
    pub trace: Trace,
    pub ledger: Ledger,
    /// Where somebody wants to read it.
    pub story: Option<Story>,
    /// Who dialled which connection.
    pub ends: BTreeMap<ConnId, Who>,
    /// Cut just now; their ends have not been told.
    pub cuts: Vec<ConnId>,
    /// Sessions have faults.
    pub loses_packets: bool,
    /// What takes time takes its longest.
    pub is_steady: bool,
}

/// What is on the agenda. `life` counts a host's starts: what was meant for an earlier life is void.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Start(Who),
    Arrive(Arrival),
    /// A host's timer.
    Wake(Who, u64),
    /// A host tries to connect.
    Dial(Who, u64),
    /// The router's sync is done.
    Synced(u64),
    /// A worker's executor is done with an attempt.
    Executed {
        worker: usize,
        life: u64,
        run: u64,
    },
    /// A worker syncs what its spool holds.
    SyncSpool {
        worker: usize,
        life: u64,
    },
    /// A client's sink has committed.
    Committed {
        client: usize,
        life: u64,
    },
    Break(Break),
    Thaw(Who, u64),
}

/// A host's connection and its timer.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub conn: Option<ConnId>,
    /// When the endpoint wants a tick.
    pub wake: Option<Micros>,
    /// Given up by this end.
    pub is_lost: bool,
}

impl Env {
    pub(crate) fn now(&self) -> Micros {
        self.agenda.now()
    }

    /// Adds to the story, where one is kept.
    pub(crate) fn tell(&mut self, who: Who, text: impl FnOnce(&mut Story) -> Option<String>) {
        let now = self.now();
        let Some(story) = &mut self.story else { return };
        if let Some(text) = text(story) {
            story.add(now, who, &text);
        }
    }

    /// Cuts a connection: what is on its way is lost, both ends are told.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        if self.network.cut(conn) {
            self.cuts.push(conn);
        }
    }

    pub(crate) fn register(&mut self, conn: ConnId, who: Who) {
        self.ends.insert(conn, who);
    }

    /// A host tries again after a while.
    pub(crate) fn redial(&mut self, who: Who, life: u64) {
        let pause = self.time_below(REDIAL_MAX);
        self.agenda.enter_in(pause, Happening::Dial(who, life));
    }

    /// A time in `0..max`, at random; `max` where chance has no say.
    pub(crate) fn time_below(&mut self, max: Micros) -> Micros {
        if self.is_steady {
            return max;
        }
        Micros(self.rng.below(max.0.max(1)))
    }

    /// Does what an endpoint wants done outside, and returns what it reports.
    pub(crate) fn drive<E: Endpoint>(&mut self, endpoint: &mut E, line: &mut Line, me: End) -> Driven<E::Report> {
        let mut driven = Driven { reports: Vec::new(), is_lost: false, done: false };
        loop {
            match endpoint.poll(self.now()) {
                Step::Transmit(bytes) => {
                    self.trace
                        .note(self.agenda.now(), &[digest(&bytes)], || format!("{me:?} sends {} bytes", bytes.len()));
                    let sent = line.conn.and_then(|conn| self.network.send(self.agenda.now(), conn, me, bytes));
                    if let Some((at, arrival)) = sent {
                        self.agenda.enter(at, Happening::Arrive(arrival));
                    }
                }
                Step::Report(report) => driven.reports.push(report),
                Step::Close(_) => self.drop_line(endpoint, line, me),
                Step::Wait(wake) => {
                    line.wake = wake;
                    driven.is_lost = std::mem::take(&mut line.is_lost);
                    return driven;
                }
                Step::Done => {
                    self.hang_up(line, me);
                    line.wake = None;
                    driven.done = true;
                    return driven;
                }
            }
        }
    }

    /// Feeds an endpoint. A peer that breaks the protocol is hung up on, and is a violation here, for there are only our
    /// own; but a greeting may be lost or overtaken where packets are.
    pub(crate) fn input<E: Endpoint>(&mut self, endpoint: &mut E, line: &mut Line, me: End, input: Input) {
        let Err(fatal) = endpoint.input(self.now(), input) else { return };
        if !(self.loses_packets && fatal == Fatal::NoHello) {
            self.ledger.on_fatal(fatal);
        }
        self.drop_line(endpoint, line, me);
    }

    fn drop_line<E: Endpoint>(&mut self, endpoint: &mut E, line: &mut Line, me: End) {
        line.is_lost = true;
        self.hang_up(line, me);
        if let Err(fatal) = endpoint.input(self.now(), Input::Disconnected) {
            self.ledger.on_fatal(fatal);
        }
    }

    /// Closes this end; the other sees it after all that was sent.
    pub(crate) fn hang_up(&mut self, line: &mut Line, me: End) {
        let Some(conn) = line.conn.take() else { return };
        if let Some((at, arrival)) = self.network.close(self.now(), conn, me) {
            self.agenda.enter(at, Happening::Arrive(arrival));
        }
    }
}

/// What came of driving an endpoint.
#[derive(Debug)]
pub(crate) struct Driven<R> {
    pub reports: Vec<R>,
    /// The connection was given up since the last time.
    pub is_lost: bool,
    pub done: bool,
}

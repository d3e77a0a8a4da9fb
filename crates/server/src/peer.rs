//! One session of the router, as its link drives it: the port, with what it asks for answered on the spot from the
//! store. Keys are hashed here, on the link's task, and looked up beside it, not on the core.

use std::collections::VecDeque;
use std::sync::Arc;

use sheaf_roles::port::{RouterCommand, RouterPort, RouterReport};
use sheaf_roles::router::{Event, JobNo, Output, PeerId};
use sheaf_session::{Endpoint, Fatal, HelloInfo, How, Input, Micros, Refusal, Step};

use crate::core::Input as CoreInput;
use crate::gauges::Gauges;
use crate::lookups::Lookups;
use crate::store::Store;

/// The port and what it needs.
pub(crate) struct Peer {
    id: PeerId,
    port: RouterPort,
    store: Arc<Store>,
    lookups: Lookups,
    silence: Silence,
    /// Answers to the core that no report of the port stands for.
    relooked: VecDeque<Event>,
}

/// Since when a session has had no connection, and how long that may last.
pub(crate) struct Silence {
    since: Option<Micros>,
    max: Micros,
    is_over: bool,
    gauges: Arc<Gauges>,
}

impl Peer {
    /// A session that has no connection yet.
    pub(crate) fn new(id: PeerId, port: RouterPort, store: Arc<Store>, lookups: Lookups, silence: Silence) -> Self {
        Self { id, port, store, lookups, silence, relooked: VecDeque::new() }
    }

    fn on_report(&mut self, now: Micros, report: RouterReport) {
        match report {
            RouterReport::Event(event) => {
                self.silence.note(now, &event);
                let no = self.job_no(&event);
                self.lookups.push(event, no);
            }
            RouterReport::Fetch { msg, lsns } => {
                let records = self.store.fetch(&lsns);
                self.port.command(now, RouterCommand::Fetched { msg, records });
            }
            RouterReport::Over(why) => tracing::debug!(peer = self.id.0, ?why, "session over"),
        }
    }

    /// The number of the job that a message is of.
    fn job_no(&self, event: &Event) -> Option<JobNo> {
        if let Event::Message { inbound, .. } = event { self.port.job_no(inbound) } else { None }
    }
}

impl Silence {
    /// Of a session that has no connection yet.
    pub(crate) fn new(now: Micros, max: Micros, gauges: Arc<Gauges>) -> Self {
        Self { since: Some(now), max, is_over: false, gauges }
    }

    fn note(&mut self, now: Micros, event: &Event) {
        match event {
            Event::PeerUp { .. } => self.set(None),
            Event::PeerDown { .. } => self.set(Some(now)),
            _ => {}
        }
    }

    fn set(&mut self, since: Option<Micros>) {
        match (self.since.is_none(), since.is_none()) {
            (false, true) => self.gauges.link_up(),
            (true, false) => self.gauges.link_down(),
            (true, true) | (false, false) => {}
        }
        self.since = since;
    }

    fn deadline(&self) -> Option<Micros> {
        self.since.filter(|_| !self.is_over).map(|since| since + self.max)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if self.since.is_none() {
            self.gauges.link_down();
        }
    }
}

impl Endpoint for Peer {
    type Command = Output;
    type Report = CoreInput;

    fn admit(&self, hello: &HelloInfo) -> Result<(), Refusal> {
        self.port.admit(hello)
    }

    fn input(&mut self, now: Micros, input: Input) -> Result<(), Fatal> {
        if self.silence.deadline().is_some_and(|at| at <= now) {
            self.silence.is_over = true;
            self.port.command(now, RouterCommand::Close(How::Now));
        }
        self.port.input(now, input)
    }

    fn missing_bytes(&self) -> usize {
        self.port.missing_bytes()
    }

    fn command(&mut self, now: Micros, order: Output) {
        let command = match order {
            Output::Commit { place, .. } => RouterCommand::Commit(place),
            Output::Send { lane, tag, message, .. } => RouterCommand::Send { lane, tag, message },
            Output::Signal { counts, .. } => RouterCommand::Signal(counts),
            Output::Relook { peer, place, receipt, inbound } => {
                let event = Event::Message { peer, place, receipt, inbound: *inbound };
                let no = self.job_no(&event);
                return self.relooked.push_back(self.lookups.now(event, no));
            }
            Output::Append { .. } | Output::Lost(_) | Output::Stopped => {
                unreachable!("not a peer's: the core keeps it")
            }
        };
        self.port.command(now, command);
    }

    fn poll(&mut self, now: Micros) -> Step<CoreInput> {
        loop {
            if let Some(event) = self.relooked.pop_front().or_else(|| self.lookups.pop()) {
                return Step::Report(CoreInput::Event(event));
            }
            match self.port.poll(now) {
                Step::Report(report) => self.on_report(now, report),
                Step::Transmit(bytes) => return Step::Transmit(bytes),
                Step::Close(reason) => return Step::Close(reason),
                Step::Wait(wake) => {
                    let wakes = wake.into_iter().chain(self.silence.deadline());
                    return Step::Wait(wakes.min());
                }
                // What it said before is heard first: whoever looks it up says when it is done.
                Step::Done if !self.lookups.is_empty() => return Step::Wait(None),
                Step::Done => return Step::Done,
            }
        }
    }
}

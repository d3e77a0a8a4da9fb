//! One session of the router, as its link drives it: the port, with what it asks for answered on the spot from the
//! store. Keys are hashed and looked up here, on the link's task, and not on the core.

use std::sync::Arc;

use sheaf_roles::port::{RouterCommand, RouterPort, RouterReport};
use sheaf_roles::router::{Event, Inbound, Output, PeerId};
use sheaf_session::{Endpoint, Fatal, HelloInfo, How, Input, Micros, Refusal, Step};

use crate::core::Input as CoreInput;
use crate::finished::Finished;
use crate::gauges::Gauges;
use crate::store::Store;

/// The port and what it needs.
pub(crate) struct Peer {
    id: PeerId,
    port: RouterPort,
    store: Arc<Store>,
    finished: Arc<Finished>,
    silence: Silence,
    /// Answers to the core that no report of the port stands for.
    relooked: Vec<Event>,
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
    pub(crate) fn new(
        id: PeerId,
        port: RouterPort,
        store: Arc<Store>,
        finished: Arc<Finished>,
        silence: Silence,
    ) -> Self {
        Self { id, port, store, finished, silence, relooked: Vec::new() }
    }

    fn look_up(&self, inbound: &mut Inbound) {
        let finished = &self.finished;
        self.port.look_up(inbound, finished.generation(), |keys| finished.records(&self.store, keys));
        if let Inbound::Submit { rows, .. } = inbound {
            let floor = finished.floor();
            for prior in rows.iter_mut().filter_map(|row| row.prior.as_mut()) {
                prior.finished = prior.finished.filter(|finished| finished.lsn >= floor);
            }
        }
    }

    fn on_report(&mut self, now: Micros, report: RouterReport) -> Option<Event> {
        match report {
            RouterReport::Event(Event::Message { peer, place, receipt, mut inbound }) => {
                self.look_up(&mut inbound);
                Some(Event::Message { peer, place, receipt, inbound })
            }
            RouterReport::Event(event) => {
                self.silence.note(now, &event);
                Some(event)
            }
            RouterReport::Fetch { msg, lsns } => {
                let records = self.store.fetch(&lsns);
                self.port.command(now, RouterCommand::Fetched { msg, records });
                None
            }
            RouterReport::Over(why) => {
                tracing::debug!(peer = self.id.0, ?why, "session over");
                None
            }
        }
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

    fn command(&mut self, now: Micros, order: Output) {
        let command = match order {
            Output::Commit { place, .. } => RouterCommand::Commit(place),
            Output::Send { lane, tag, message, .. } => RouterCommand::Send { lane, tag, message },
            Output::Signal { counts, .. } => RouterCommand::Signal(counts),
            Output::Relook { peer, place, receipt, mut inbound } => {
                self.look_up(&mut inbound);
                return self.relooked.push(Event::Message { peer, place, receipt, inbound });
            }
            Output::Append { .. } | Output::Lost(_) | Output::Stopped => {
                unreachable!("not a peer's: the core keeps it")
            }
        };
        self.port.command(now, command);
    }

    fn poll(&mut self, now: Micros) -> Step<CoreInput> {
        if let Some(event) = self.relooked.pop() {
            return Step::Report(CoreInput::Event(event));
        }
        loop {
            match self.port.poll(now) {
                Step::Report(report) => {
                    if let Some(event) = self.on_report(now, report) {
                        return Step::Report(CoreInput::Event(event));
                    }
                }
                Step::Transmit(bytes) => return Step::Transmit(bytes),
                Step::Close(reason) => return Step::Close(reason),
                Step::Wait(wake) => {
                    let wakes = wake.into_iter().chain(self.silence.deadline());
                    return Step::Wait(wakes.min());
                }
                Step::Done => return Step::Done,
            }
        }
    }
}

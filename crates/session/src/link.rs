//! The connection under a session: its state, its timers, and the faults injected into it. A session has one link and
//! lives through many connections.
//!
//! Invariants: one live connection (`conn`); a connection that ends leaves nothing behind but the lanes' logs.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::faults::FaultPipe;
use crate::lane_tx::Opening;
use crate::session::{Phase, Session};
use crate::wire::{ByeW, Framer, Packet};
use crate::{CloseReason, Config, Event, Lane, Micros, Output, Side, Timers};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    Down,
    /// Connected; the greeting is under way.
    Greeting {
        since: Micros,
    },
    Up,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub state: LinkState,
    /// The dialer's nonce.
    pub conn: u64,
    pub last_heard: Option<Micros>,
    /// When this connection last brought something; its beginning at first.
    pub last_rx: Micros,
    pub last_tx: Micros,
    pub framer: Framer,
    pub faults_in: Option<FaultPipe>,
    pub faults_out: Option<FaultPipe>,
    /// Sealed packets that passed the faults.
    pub ready: VecDeque<Bytes>,
    /// Packets may be lost, by either side's word.
    pub lossy: bool,
    /// Hello (dialer) or Welcome (listener) is to be sent.
    pub greet: bool,
    pub ping: bool,
    /// Ask the peer to acknowledge at once.
    pub ask_now: bool,
    pub say_blocked_again: bool,
    pub probe_at: Option<Micros>,
    pub probes: u32,
    /// When sent messages last made progress.
    pub progress_at: Micros,
    /// Connections that were given up for want of it since it was quick.
    pub stalls: u32,
}

impl Link {
    pub(crate) fn new(config: &Config, side: Side) -> Link {
        let side = match side {
            Side::Dialer => 0x0d1a_1e50,
            Side::Listener => 0x1157_e9e5,
        };
        Link {
            state: LinkState::Down,
            conn: 0,
            last_heard: None,
            last_rx: Micros::ZERO,
            last_tx: Micros::ZERO,
            framer: Framer::default(),
            faults_in: config.faults.map(|faults| FaultPipe::new(faults, side)),
            faults_out: config.faults.map(|faults| FaultPipe::new(faults, side << 32)),
            ready: VecDeque::new(),
            lossy: config.lossy || config.faults.is_some(),
            greet: false,
            ping: false,
            ask_now: false,
            say_blocked_again: false,
            probe_at: None,
            probes: 0,
            progress_at: Micros::ZERO,
            stalls: 0,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    pub(crate) fn is_down(&self) -> bool {
        self.state == LinkState::Down
    }

    pub(crate) fn clear(&mut self) {
        self.state = LinkState::Down;
        self.framer.clear();
        self.ready.clear();
        for pipe in [&mut self.faults_in, &mut self.faults_out].into_iter().flatten() {
            pipe.clear();
        }
        (self.greet, self.ping, self.ask_now, self.say_blocked_again) = (false, false, false, false);
        (self.probe_at, self.probes) = (None, 0);
    }
}

impl Session {
    pub(crate) fn on_connected(&mut self, conn: u64) {
        self.drop_connection();
        if self.phase == Phase::Ended {
            self.out.push_back(Output::Close(CloseReason::Ended));
            return;
        }
        self.link.state = LinkState::Greeting { since: self.now };
        self.link.conn = conn;
        self.link.greet = self.side == Side::Dialer;
        (self.link.last_rx, self.link.last_tx) = (self.now, self.now);
    }

    /// The connection is gone, and with it what was to be sent on it.
    pub(crate) fn drop_connection(&mut self) {
        self.out.retain(|output| !matches!(output, Output::Transmit(_) | Output::Close(_)));
        self.go_down();
    }

    fn go_down(&mut self) {
        if self.link.is_up() {
            self.out.push_back(Output::Event(Event::Down));
        }
        self.link.clear();
        for lane in Lane::ALL {
            self.tx[lane.index()].opening = Opening::Shut;
            self.rx[lane.index()].on_connection();
        }
        self.rtt.abandon();
    }

    /// Has the driver drop the connection.
    pub(crate) fn shut(&mut self, why: CloseReason) {
        self.out.push_back(Output::Close(why));
        self.go_down();
    }

    pub(crate) fn say_bye_now(&mut self) {
        if self.link.is_up() {
            let packet = Packet { conn: self.link.conn, bye: Some(ByeW { now: true }), ..Packet::default() };
            self.out.push_back(Output::Transmit(packet.seal()));
        }
    }

    /// Runs the timers that are due.
    pub(crate) fn on_time(&mut self) {
        let timers = self.config.timers;
        let silent = self.link.last_rx + timers.dead <= self.now;
        match self.link.state {
            LinkState::Down => {}
            LinkState::Greeting { since } if since + timers.hello <= self.now => self.shut(CloseReason::HelloTimeout),
            LinkState::Greeting { .. } => self.on_probe_time(),
            LinkState::Up if silent => self.shut(CloseReason::Dead),
            LinkState::Up if self.stall_deadline().is_some_and(|at| at <= self.now) => {
                self.link.stalls += 1;
                self.shut(CloseReason::Stalled);
            }
            LinkState::Up => {
                self.link.ping |= self.link.last_tx + timers.heartbeat <= self.now;
                self.on_probe_time();
            }
        }
    }

    fn on_probe_time(&mut self) {
        if self.link.probe_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.link.probe_at = None;
        self.link.probes += 1;
        self.rtt.abandon();
        if !self.link.is_up() {
            self.link.greet = true;
            return;
        }
        self.link.ask_now = true;
        self.link.say_blocked_again = true;
        if self.phase == Phase::Said {
            self.wishes.byes = self.wishes.byes.max(1);
        }
        for tx in &mut self.tx {
            tx.probe();
            if tx.opening == (Opening::Said { told: true }) {
                tx.opening = Opening::Said { told: false };
            }
        }
    }

    /// Ordered carriers only: there nothing is lost while the connection lives, so no progress means it does not.
    fn stall_deadline(&self) -> Option<Micros> {
        let waits = !self.link.lossy && self.tx.iter().any(|tx| tx.unreceived());
        let Timers { stall, stall_max, .. } = self.config.timers;
        let patience = Micros(stall.0.saturating_mul(1 << self.link.stalls.min(16))).min(stall_max);
        waits.then(|| self.link.progress_at + patience)
    }

    fn wants_probe(&self) -> bool {
        match self.link.state {
            LinkState::Down => false,
            LinkState::Greeting { .. } => self.side == Side::Dialer,
            LinkState::Up => {
                self.link.lossy && (self.phase == Phase::Said || self.tx.iter().any(|tx| tx.wants_probe()))
            }
        }
    }

    /// When `Tick` is due at the latest.
    pub(crate) fn deadline(&mut self) -> Option<Micros> {
        if !self.wants_probe() {
            (self.link.probe_at, self.link.probes) = (None, 0);
        } else if self.link.probe_at.is_none() {
            let after = self.rtt.probe_after(&self.config.timers, self.link.probes);
            self.link.probe_at = Some(self.now + after);
        }
        let timers = &self.config.timers;
        let faults = [&self.link.faults_in, &self.link.faults_out].into_iter().flatten();
        let common = faults.filter_map(FaultPipe::deadline).chain(self.link.probe_at);
        match self.link.state {
            LinkState::Down => None,
            LinkState::Greeting { since } => common.chain([since + timers.hello]).min(),
            LinkState::Up => {
                let link = [self.link.last_tx + timers.heartbeat, self.link.last_rx + timers.dead];
                let span = self.rtt.span();
                let lanes = self.rx.iter().flat_map(|rx| [rx.ack_deadline(), rx.where_deadline(span)]).flatten();
                common.chain(link).chain(self.stall_deadline()).chain(lanes).min()
            }
        }
    }
}

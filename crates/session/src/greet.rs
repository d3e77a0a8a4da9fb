//! The greeting: one round trip in which each sender judges its lanes from the peer's durable facts.
//!
//! Invariants: divergence is always an event. A new epoch of a lane of depth DISK is persisted before it is said.

use bytes::Bytes;

use crate::lane_tx::Opening;
use crate::link::LinkState;
use crate::resume::judge;
use crate::session::{Peer, Phase, Session};
use crate::wire::{AckW, FactsW, Greeting, PROTO, depths, refuse, session_id};
use crate::{CloseReason, Depth, Event, Fatal, Lane, MsgId, Output, Refusal, Verdict};

impl Session {
    /// Hello or Welcome of this side.
    pub(crate) fn greeting(&self) -> Box<Greeting> {
        let disk = Lane::ALL.iter().filter(|lane| self.config.depth_tx[lane.index()] == Depth::Disk);
        Box::new(Greeting {
            proto: PROTO,
            session: Bytes::copy_from_slice(&self.id.0),
            incarnation: self.config.incarnation,
            boot: self.config.boot,
            auth: self.config.auth.0.clone(),
            rx: self.rx.iter().filter_map(|rx| rx.facts()).collect(),
            disk: disk.map(|lane| 1 << lane.index()).sum(),
            lossy: self.config.lossy || self.config.faults.is_some(),
            window: self.config.window.max(1),
            window_bytes: (self.config.buffer_max / 2).max(self.config.body_max) as u64,
        })
    }

    /// The listener's half. A repeated Hello of the living connection only asks for the Welcome again.
    pub(crate) fn on_hello(&mut self, hello: &Greeting) -> Result<(), Fatal> {
        if session_id(hello)? != self.id {
            return Err(Fatal::OtherSession);
        }
        let comer = Peer { incarnation: hello.incarnation, boot: hello.boot };
        if hello.proto != PROTO {
            self.turn_away(Refusal::Version);
        } else if let Err(why) = self.admit_peer(comer) {
            self.turn_away(why);
        } else if self.link.is_up() {
            self.link.greet = true;
            for tx in &mut self.tx {
                if tx.opening == (Opening::Said { told: true }) {
                    tx.opening = Opening::Said { told: false };
                }
            }
        } else {
            self.link.greet = true;
            self.on_greeting(hello)?;
        }
        Ok(())
    }

    /// The session itself goes on, with whom it was: that somebody else used its name is no event of it.
    fn turn_away(&mut self, why: Refusal) {
        self.out.push_back(Output::Transmit(refuse(self.link.conn, why)));
        self.shut(CloseReason::Refused(why));
    }

    /// Both halves: the peer's facts are here, the connection is up.
    pub(crate) fn on_greeting(&mut self, greeting: &Greeting) -> Result<(), Fatal> {
        let peer = Peer { incarnation: greeting.incarnation, boot: greeting.boot };
        let restarted = self.peer.is_some_and(|known| known != peer);
        self.peer = Some(peer);
        if restarted {
            self.take_back_bye();
        }
        let depths = depths(greeting);
        let mut resumed = false;
        for lane in Lane::ALL {
            self.rx[lane.index()].depth = depths[lane.index()];
            resumed |= self.rx[lane.index()].epoch() > 0;
        }
        self.link.lossy = self.config.lossy || self.config.faults.is_some() || greeting.lossy;
        self.link.state = LinkState::Up;
        self.link.progress_at = self.now;
        (self.link.probe_at, self.link.probes) = (None, 0);
        self.out.push_back(Output::Event(Event::Up { resumed: resumed || !greeting.rx.is_empty() }));
        let mut renumbered = false;
        for lane in Lane::ALL {
            let facts = greeting.rx.iter().find(|facts| facts.lane == lane.index() as u32);
            renumbered |= self.open_lane(lane, facts, greeting)?;
        }
        if restarted || renumbered {
            self.ask_cancels_again();
        }
        if self.phase == Phase::Said {
            self.wishes.byes = self.wishes.byes.max(1);
        }
        self.advance_phase();
        Ok(())
    }

    /// A Bye was the word of a life that is over: it ended before the two had agreed, and the next knows nothing of it.
    fn take_back_bye(&mut self) {
        self.wishes.peer_bye = false;
        if !self.wishes.close && matches!(self.phase, Phase::Draining | Phase::Said) {
            self.phase = Phase::Talking;
            self.wishes.byes = 0;
        }
    }

    /// Judges one lane. True: a new epoch began.
    fn open_lane(&mut self, lane: Lane, facts: Option<&FactsW>, greeting: &Greeting) -> Result<bool, Fatal> {
        let rules = self.rules();
        let tx = &self.tx[lane.index()];
        let check_chain = tx.depth == Depth::Disk && rules.chain;
        let verdict = judge(tx.facts(), facts, check_chain, |seq| tx.chain_at(seq));
        let renumbers = !matches!(verdict, Verdict::Resume | Verdict::Fresh);
        if renumbers {
            self.begin_epoch(lane, verdict, facts);
        }
        let bytes = usize::try_from(greeting.window_bytes).unwrap_or(usize::MAX);
        let limit = facts.filter(|_| verdict == Verdict::Resume).map_or(greeting.window, |facts| facts.limit);
        let tx = &mut self.tx[lane.index()];
        if verdict != Verdict::Resume {
            tx.doubt();
        }
        tx.resume(limit, bytes);
        if let Some(facts) = facts.filter(|_| verdict == Verdict::Resume) {
            let ack = AckW {
                lane: facts.lane,
                epoch: facts.epoch,
                floor: facts.floor,
                got: facts.got.max(facts.floor),
                ..AckW::default()
            };
            let acked = tx.on_ack(&ack, rules)?;
            self.on_acked(lane, acked);
        }
        self.tx[lane.index()].opening = Opening::Waiting;
        Ok(renumbers)
    }

    fn begin_epoch(&mut self, lane: Lane, verdict: Verdict, facts: Option<&FactsW>) {
        let lost = self.lost(lane, verdict, facts);
        let tx = &self.tx[lane.index()];
        let explained = match tx.depth {
            Depth::Memory => true,
            // A new epoch that the peer never heard of, because its connection died first.
            Depth::Disk => verdict == Verdict::OtherEpoch && facts.is_some_and(|facts| facts.epoch < tx.epoch),
        };
        let expected = lost.is_none() && explained;
        let drained = self.phase == Phase::Said && tx.len() == 0;
        if !drained {
            self.out.push_back(Output::Event(Event::Diverged { lane, verdict, lost, expected }));
        }
        let epoch = tx.epoch.max(facts.map_or(0, |facts| facts.epoch)).saturating_add(1);
        let life = self.rng.next_u64() | 1;
        self.tx[lane.index()].renumber(epoch, life);
        if self.tx[lane.index()].depth == Depth::Disk {
            self.persist_epoch(lane);
        }
    }

    /// First and last of the messages that were acknowledged, deleted, and are unknown to the peer now. On a lane of
    /// depth MEMORY the peer keeps no receipts: that it forgot says nothing about the effects, which are durable.
    fn lost(&self, lane: Lane, verdict: Verdict, facts: Option<&FactsW>) -> Option<(MsgId, MsgId)> {
        let tx = &self.tx[lane.index()];
        let last = tx.first() - 1;
        let first = match (verdict, facts) {
            (Verdict::Gone, _) if tx.depth == Depth::Memory => return None,
            (Verdict::Gone, _) => 1,
            (Verdict::Behind, Some(facts)) => tx.first().saturating_sub(tx.floor().saturating_sub(facts.floor)).max(1),
            (Verdict::OtherEpoch, Some(facts)) => {
                tx.committed_n(facts.epoch, facts.floor).map_or(1, |n| n.saturating_add(1))
            }
            (Verdict::OtherEpoch | Verdict::Behind, None) => 1,
            (Verdict::Resume | Verdict::Fresh | Verdict::SenderBehind | Verdict::Fork, _) => return None,
        };
        (first <= last).then_some((MsgId { lane, n: first }, MsgId { lane, n: last }))
    }

    /// The peer may have forgotten what it was asked, or the places have changed.
    fn ask_cancels_again(&mut self) {
        for id in std::mem::take(&mut self.wishes.cancels).into_keys() {
            if self.tx[id.lane.index()].seq_of(id.n).is_some() {
                self.wishes.cancels.insert(id, false);
                self.ask_cancel(id);
            } else {
                self.out.push_back(Output::Event(Event::TooLate(id)));
            }
        }
    }
}

//! What leaves: everything that may leave now shares one packet, up to about `packet_aim` bytes.
//!
//! Invariants: acknowledgements that changed ride on every packet. An idle connection sends heartbeats only: an
//! acknowledgement is never a reason for another one.

use crate::lane_tx::{Fill, Opening};
use crate::link::LinkState;
use crate::session::Session;
use crate::wire::{BlockedW, ByeW, FLAG_NOW, OpenW, Packet, SignalW};
use crate::{Lane, Micros, Output, Side};

use bytes::Bytes;

impl Session {
    /// The next thing to do; `Wait` when there is nothing more now.
    pub fn take(&mut self, now: Micros) -> Output {
        self.advance_clock(now);
        if let Some(output) = self.out.pop_front() {
            return output;
        }
        if let Some(packet) = self.poll_packet() {
            self.link.last_tx = self.now;
            return Output::Transmit(packet);
        }
        match self.out.pop_front() {
            Some(output) => output,
            None => Output::Wait(self.deadline()),
        }
    }

    /// The next sealed packet that passes the faults. Each round uses up what it builds, so the loop ends.
    fn poll_packet(&mut self) -> Option<Bytes> {
        loop {
            if self.link.is_down() {
                return None;
            }
            if let Some(pipe) = &mut self.link.faults_out {
                pipe.release(self.now, &mut self.link.ready);
            }
            if let Some(packet) = self.link.ready.pop_front() {
                return Some(packet);
            }
            let packet = self.build()?;
            match &mut self.link.faults_out {
                None => return Some(packet),
                Some(pipe) => {
                    self.link.last_tx = self.now;
                    pipe.offer(self.now, packet, &mut self.link.ready);
                }
            }
        }
    }

    /// Builds and seals one packet, if there is a reason for one.
    fn build(&mut self) -> Option<Bytes> {
        let mut packet = std::mem::take(&mut self.scratch.packet);
        packet.conn = self.link.conn;
        let worth = match self.link.state {
            LinkState::Down => false,
            LinkState::Greeting { .. } => self.put_hello(&mut packet),
            LinkState::Up => self.put_frames(&mut packet),
        };
        let sealed = worth.then(|| packet.seal());
        packet.reset();
        self.scratch.packet = packet;
        sealed
    }

    fn put_hello(&mut self, packet: &mut Packet) -> bool {
        let says = self.side == Side::Dialer && std::mem::take(&mut self.link.greet);
        if says {
            packet.hello = Some(self.greeting());
        }
        says
    }

    fn put_frames(&mut self, packet: &mut Packet) -> bool {
        if std::mem::take(&mut self.link.greet) && self.side == Side::Listener {
            packet.welcome = Some(self.greeting());
        }
        let room = self.put_control(packet);
        self.put_msgs(packet, room);
        self.put_opens(packet);
        let now = std::mem::take(&mut self.link.ask_now) | self.wishes.flush;
        packet.flags = if now { FLAG_NOW } else { 0 };
        packet.ping = std::mem::take(&mut self.link.ping);
        if self.wishes.byes > 0 {
            self.wishes.byes -= 1;
            packet.bye = Some(ByeW { now: false });
        }
        let due = self.rx.iter().any(|rx| rx.ack_is_due(self.now));
        let empty = Packet { conn: packet.conn, ..Packet::default() };
        if *packet == empty && !due {
            return false;
        }
        self.put_acks(packet);
        self.wishes.flush = false;
        self.advance_phase();
        true
    }

    /// Gives the room that is left for messages: none, if signals used it up, so that a packet holds at most one long
    /// body and stays below `packet_max`.
    fn put_control(&mut self, packet: &mut Packet) -> usize {
        let again = std::mem::take(&mut self.link.say_blocked_again);
        for tx in &mut self.tx {
            let lane = tx.lane.index() as u32;
            packet.blocked.extend(tx.poll_blocked(again).map(|limit| BlockedW { lane, limit }));
        }
        let span = self.rtt.span();
        packet.wheres.extend(self.rx.iter_mut().filter_map(|rx| rx.poll_where(self.now, span)));
        let mut room = self.config.packet_aim;
        while let Some((topic, body)) = self.wishes.signals.pop_first() {
            room = room.saturating_sub(body.len());
            packet.signals.push(SignalW { topic: u32::from(topic), body });
            if room == 0 {
                break;
            }
        }
        room
    }

    fn put_msgs(&mut self, packet: &mut Packet, mut room: usize) {
        let rules = self.rules();
        let idle = !self.tx.iter().any(|tx| tx.unreceived());
        let round_trip = if self.link.lossy { self.rtt.span() } else { Micros::ZERO };
        for tx in &mut self.tx {
            if tx.opening == Opening::Waiting && tx.epoch_ticket <= self.tickets.persisted {
                tx.opening = Opening::Said { told: false };
            }
            let before = tx.sent();
            let mut fill = Fill {
                now: self.now,
                persisted: self.tickets.persisted,
                round_trip,
                room,
                msgs: &mut packet.msgs,
                out: &mut self.out,
                rules,
            };
            if room > 0 || !fill.msgs.is_empty() {
                tx.fill(&mut fill);
            }
            room = fill.room;
            if tx.sent() > before && self.link.lossy {
                self.rtt.start(tx.lane, tx.sent(), self.now);
            }
        }
        if idle && !packet.msgs.is_empty() {
            self.link.progress_at = self.now;
        }
    }

    /// An opening is said once at first, and on lossy carriers with every message until the peer confirms it.
    fn put_opens(&mut self, packet: &mut Packet) {
        for tx in &mut self.tx {
            let Opening::Said { told } = tx.opening else { continue };
            let lane = tx.lane.index() as u32;
            let rides = self.link.lossy && packet.msgs.iter().any(|msg| msg.lane == lane);
            if !told || rides {
                packet.opens.push(OpenW { lane, epoch: tx.epoch, life: tx.life });
                tx.opening = Opening::Said { told: true };
            }
        }
    }

    /// A message brings all acknowledgements along on lossy carriers: it may be the answer to another one, whose own
    /// acknowledgement was lost alone. Whoever has the answer would send the question again to the peer's next life.
    fn put_acks(&mut self, packet: &mut Packet) {
        let all = self.wishes.flush || (self.link.lossy && !packet.msgs.is_empty());
        for lane in Lane::ALL {
            let rx = &mut self.rx[lane.index()];
            if all || rx.ack_is_dirty() {
                packet.acks.extend(rx.poll_ack());
            }
        }
    }
}

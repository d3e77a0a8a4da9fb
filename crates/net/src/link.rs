//! The link driver: keeps one endpoint on one carrier at a time, for as long as its session lives.
//!
//! The loop is [`Link::run`]; it decides nothing. Commands are always taken, so that an embedder which waits to give one
//! never waits for a report that it should take; what is bounded is what comes from the carrier.
//!
//! Invariants: no source of events starves another. Time is judged only after what has arrived is read. Whatever waits
//! for a peer waits for a bounded time ([`WRITE_STALL`], [`FLUSH`]).

use std::future::{pending, ready};
use std::io;

use bytes::{Buf, BytesMut};
use sheaf_session::{CloseReason, Endpoint, Input, Micros, Refusal, Step, refuse};
use tokio::sync::mpsc;

use crate::alarm::Alarm;
use crate::carrier::{Carrier, Reader, Writer};
use crate::clock::Clock;
use crate::error::Untrusted;
use crate::limits::{COMMANDS_AT_ONCE, FLUSH, OUTBOUND_BYTES_MAX, REPORTS_MAX, WRITE_STALL};
use crate::listen::Incoming;
use crate::outbound::Outbound;
use crate::source::{Connections, Source};

/// One endpoint with its channels.
#[derive(Debug)]
pub struct Link<E: Endpoint> {
    endpoint: E,
    clock: Clock,
    connections: Connections,
    commands: mpsc::Receiver<Vec<E::Command>>,
    reports: mpsc::Sender<Vec<E::Report>>,
    carrier: Option<Carrier>,
    /// Not yet taken by the embedder.
    pending: Vec<E::Report>,
    /// Not yet taken by the carrier.
    outbound: Outbound,
    /// When the endpoint wants to be told the time.
    wake: Option<Micros>,
    /// When the carrier is given up, unless it takes what waits for it.
    stuck_at: Option<Micros>,
    alarm: Alarm,
    phase: Phase,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    /// The connection goes once everything is out.
    Closing,
    /// The link goes once everything is out and told.
    Ending,
}

/// What woke the loop.
enum Woken<C> {
    Commands(Option<Vec<C>>),
    Reported,
    Connected(Option<Result<Incoming, Untrusted>>),
    Read(io::Result<Option<BytesMut>>),
    Wrote(io::Result<()>),
    Time,
}

impl<E: Endpoint> Link<E> {
    /// A link that has not started. The embedder ends it by dropping the sender of `commands`, or through the endpoint.
    pub fn new(
        endpoint: E,
        clock: Clock,
        source: Source,
        commands: mpsc::Receiver<Vec<E::Command>>,
        reports: mpsc::Sender<Vec<E::Report>>,
    ) -> Self {
        Self {
            endpoint,
            clock,
            connections: Connections::new(source),
            commands,
            reports,
            carrier: None,
            pending: Vec::new(),
            outbound: Outbound::default(),
            wake: None,
            stuck_at: None,
            alarm: Alarm::default(),
            phase: Phase::Running,
        }
    }

    /// Runs until the session is over or the embedder is gone. Gives the endpoint back.
    pub async fn run(mut self) -> E {
        loop {
            self.obey_waiting();
            self.drain();
            self.pass_on();
            if self.phase != Phase::Running && !self.has_output() && self.carrier.is_some() {
                self.disconnected();
                continue;
            }
            if self.phase == Phase::Ending && self.pending.is_empty() && self.carrier.is_none() {
                return self.endpoint;
            }
            match self.wait().await {
                Woken::Commands(Some(commands)) => self.obey(commands),
                Woken::Commands(None) => {
                    self.flush().await;
                    return self.endpoint;
                }
                Woken::Connected(Some(Ok(incoming))) => self.connected(incoming).await,
                Woken::Connected(Some(Err(why))) => self.distrust(&why),
                Woken::Connected(None) => {
                    // What the embedder had said by then still leaves.
                    while let Ok(commands) = self.commands.try_recv() {
                        self.obey(commands);
                    }
                    self.end(Phase::Ending);
                }
                Woken::Read(Ok(Some(bytes))) => self.feed(bytes),
                Woken::Read(Ok(None)) => self.disconnected(),
                Woken::Read(Err(error)) | Woken::Wrote(Err(error)) => {
                    tracing::debug!(%error, "connection lost");
                    self.disconnected();
                }
                Woken::Wrote(Ok(())) if self.phase == Phase::Running => self.stuck_at = None,
                Woken::Wrote(Ok(())) | Woken::Reported => {}
                Woken::Time => self.on_time(),
            }
        }
    }

    /// What was commanded by now leaves together, as far as there is no end of it, and with it what is due, whatever woke the
    /// loop.
    fn obey_waiting(&mut self) {
        for _ in 1..COMMANDS_AT_ONCE {
            let Ok(next) = self.commands.try_recv() else { return };
            self.obey(next);
        }
    }

    fn obey(&mut self, commands: Vec<E::Command>) {
        let now = self.clock.now();
        commands.into_iter().for_each(|command| self.endpoint.command(now, command));
    }

    async fn wait(&mut self) -> Woken<E::Command> {
        let is_running = self.phase == Phase::Running;
        let may_read = is_running && self.pending.len() < REPORTS_MAX;
        let may_connect = is_running && (self.carrier.is_none() || self.connections.replaces());
        let (may_report, may_write) = (!self.pending.is_empty(), self.has_output());
        let wake = [self.wake, self.stuck_at].into_iter().flatten().min();
        let missing = self.endpoint.missing_bytes();
        let (mut reader, writer) =
            self.carrier.as_mut().map(|carrier| (&mut carrier.reader, &mut carrier.writer)).unzip();
        let woken = tokio::select! {
            commands = self.commands.recv() => Woken::Commands(commands),
            permit = self.reports.reserve(), if may_report => {
                match permit {
                    Ok(permit) => permit.send(std::mem::take(&mut self.pending)),
                    Err(_) => self.pending.clear(),
                }
                Woken::Reported
            }
            incoming = self.connections.next(), if may_connect => Woken::Connected(incoming),
            wrote = write(writer, &mut self.outbound), if may_write => Woken::Wrote(wrote),
            read = read(reader.as_deref_mut(), missing), if may_read => Woken::Read(read),
            () = self.alarm.wait(self.clock, wake) => Woken::Time,
        };
        if !matches!(woken, Woken::Time) || !may_read {
            return woken;
        }
        // A process that was stopped finds its timers due and its input there, and must not take the peer for silent.
        tokio::select! {
            biased;
            read = read(reader, missing) => Woken::Read(read),
            () = ready(()) => Woken::Time,
        }
    }

    /// Something waits for the carrier, or in it.
    fn has_output(&self) -> bool {
        self.outbound.has_remaining() || self.carrier.as_ref().is_some_and(|carrier| !carrier.writer.is_flushed())
    }

    /// Takes from the endpoint what it wants done, as far as there is room for it.
    fn drain(&mut self) {
        self.wake = None;
        while self.outbound.remaining() < OUTBOUND_BYTES_MAX {
            match self.endpoint.poll(self.clock.now()) {
                // What was meant for a connection that is gone is said again on the next.
                Step::Transmit(_) if self.carrier.is_none() => {}
                Step::Transmit(bytes) => self.outbound.push(bytes),
                Step::Report(report) => self.pending.push(report),
                Step::Close(_) if self.carrier.is_none() => {}
                Step::Close(reason) => {
                    tracing::debug!(?reason, "closing the connection");
                    if let CloseReason::Refused(why) = reason {
                        tracing::warn!(?why, "no connection for now");
                        self.connections.proved(false);
                    }
                    self.end(Phase::Closing);
                }
                Step::Wait(wake) => {
                    self.wake = wake;
                    break;
                }
                Step::Done => {
                    self.end(Phase::Ending);
                    break;
                }
            }
        }
    }

    /// Hands over what is taken at once, which is nearly all; the rest waits for whoever is to have it. What was not all that
    /// the endpoint has to say waits, too, so that others have their turn.
    fn pass_on(&mut self) {
        if !self.pending.is_empty()
            && let Ok(permit) = self.reports.try_reserve()
        {
            permit.send(std::mem::take(&mut self.pending));
        }
        let waiting = self.outbound.remaining();
        if let Some(carrier) = self.carrier.as_ref().filter(|_| waiting > 0 && waiting < OUTBOUND_BYTES_MAX) {
            // An error is met again where the carrier is waited for: what the peer said last is read first, perhaps.
            if let Err(error) = carrier.writer.try_write(&mut self.outbound) {
                tracing::debug!(%error, "nothing more leaves on this connection");
            }
        }
        if self.outbound.remaining() < waiting && self.phase == Phase::Running {
            self.stuck_at = None;
        }
        self.judge_stuck();
    }

    /// Whether the peer takes what waits for it, or for how long it has not.
    fn judge_stuck(&mut self) {
        if !self.has_output() {
            self.stuck_at = None;
        } else if self.stuck_at.is_none() {
            let patience = if self.phase == Phase::Running { WRITE_STALL } else { FLUSH };
            self.stuck_at = Some(self.clock.after(patience));
        }
    }

    /// The end has come nearer, and patience is shorter.
    fn end(&mut self, phase: Phase) {
        if self.phase == Phase::Running {
            self.stuck_at = None;
        }
        self.phase = self.phase.max(phase);
    }

    async fn connected(&mut self, incoming: Incoming) {
        if let Some(Err(why)) = incoming.hello.as_ref().map(|hello| self.endpoint.admit(hello)) {
            tracing::warn!(from = incoming.place(), ?why, "a connection was refused");
            return incoming.refuse(why).await;
        }
        if self.carrier.is_some() {
            self.disconnected();
        }
        let Incoming { carrier, conn, read, hello: _ } = incoming;
        tracing::debug!(peer = %carrier.peer, "connected");
        self.carrier = Some(carrier);
        self.input(Input::Connected { conn });
        if !read.is_empty() {
            self.feed(read.into());
        }
    }

    fn feed(&mut self, bytes: BytesMut) {
        if self.connections.hears_alert(&bytes) {
            self.disconnected();
            return self.distrust(&Untrusted::SpeaksTls);
        }
        self.connections.proved(true);
        self.input(Input::Bytes(bytes));
    }

    /// Who listens there is not to be talked to, now or later: the endpoint hears it as it would from a listener.
    fn distrust(&mut self, why: &Untrusted) {
        tracing::error!(target = %self.connections, %why, "not connected");
        self.input(Input::Connected { conn: 0 });
        self.input(Input::Bytes(refuse(0, Refusal::Untrusted).into()));
    }

    fn on_time(&mut self) {
        let now = self.clock.now();
        if self.stuck_at.is_some_and(|at| at <= now) {
            tracing::debug!(waiting = self.outbound.remaining(), "the peer takes nothing: its connection is given up");
            self.disconnected();
        }
        self.input(Input::Tick);
    }

    fn input(&mut self, input: Input) {
        if let Err(error) = self.endpoint.input(self.clock.now(), input) {
            tracing::warn!(%error, "the peer broke the protocol: its connection is closed");
            self.connections.proved(false);
            self.disconnected();
        }
    }

    fn disconnected(&mut self) {
        self.carrier = None;
        self.outbound.clear();
        self.stuck_at = None;
        if self.phase == Phase::Closing {
            self.phase = Phase::Running;
        }
        if let Err(error) = self.endpoint.input(self.clock.now(), Input::Disconnected) {
            tracing::warn!(%error, "while the connection was closed");
        }
    }

    /// The embedder is gone: what the endpoint still has to say may leave, within bounds.
    async fn flush(&mut self) {
        match tokio::time::timeout(FLUSH, self.write_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the last words did not leave"),
            Err(_) => tracing::debug!("the last words did not leave in time"),
        }
    }

    async fn write_all(&mut self) -> io::Result<()> {
        loop {
            self.drain();
            match &mut self.carrier {
                Some(carrier) if self.outbound.has_remaining() || !carrier.writer.is_flushed() => {
                    carrier.writer.write(&mut self.outbound).await?;
                }
                Some(_) | None => return Ok(()),
            }
        }
    }
}

async fn read(reader: Option<&mut Reader>, missing: usize) -> io::Result<Option<BytesMut>> {
    match reader {
        Some(reader) => reader.read(missing).await,
        None => pending().await,
    }
}

async fn write(writer: Option<&mut Writer>, outbound: &mut Outbound) -> io::Result<()> {
    match writer {
        Some(writer) => writer.write(outbound).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;

//! The link driver: keeps one endpoint on one carrier at a time, for as long as its session lives.
//!
//! The loop is [`Link::run`]; it decides nothing. Commands are always taken, so that an embedder which waits to give one
//! never waits for a report that it should take; what is bounded is what comes from the carrier.

use std::future::Future;
use std::pin::Pin;

use bytes::{Buf, Bytes};
use sheaf_session::{Endpoint, Input, Micros, Step};
use tokio::sync::mpsc;

use crate::carrier::{Carrier, Reader, Writer};
use crate::clock::Clock;
use crate::dial::{Backoff, Target, connect};
use crate::limits::{FLUSH, OUTBOUND_BYTES_MAX, REPORTS_MAX};
use crate::listen::Incoming;
use crate::outbound::Outbound;

/// Where a link's connections come from.
#[derive(Debug)]
pub enum Source {
    /// It makes them.
    Dial {
        /// To where.
        target: Target,
        /// For nonces and pauses.
        seed: u64,
    },
    /// A listener hands them over; a newer one replaces an older one.
    Accept(mpsc::Receiver<Incoming>),
}

/// One endpoint with its channels.
#[derive(Debug)]
pub struct Link<E: Endpoint> {
    endpoint: E,
    clock: Clock,
    connections: Connections,
    commands: mpsc::Receiver<Vec<E::Command>>,
    reports: mpsc::Sender<Vec<E::Report>>,
    /// Not yet taken by the embedder.
    pending: Vec<E::Report>,
    outbound: Outbound,
    wake: Option<Micros>,
    phase: Phase,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Connected(Option<Incoming>),
    Read(std::io::Result<Option<Bytes>>),
    Wrote(std::io::Result<()>),
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
        let connections = Connections::new(source);
        let (pending, outbound) = (Vec::new(), Outbound::default());
        Self { endpoint, clock, connections, commands, reports, pending, outbound, wake: None, phase: Phase::Running }
    }

    /// Runs until the session is over or the embedder is gone. Gives the endpoint back.
    pub async fn run(mut self) -> E {
        let mut carrier: Option<(Reader, Writer)> = None;
        loop {
            self.drain();
            if self.phase != Phase::Running && !self.outbound.has_remaining() && carrier.is_some() {
                self.disconnected(&mut carrier);
            }
            if self.phase == Phase::Ending && self.pending.is_empty() && carrier.is_none() {
                return self.endpoint;
            }
            match self.wait(&mut carrier).await {
                Woken::Commands(Some(commands)) => {
                    let now = self.clock.now();
                    commands.into_iter().for_each(|command| self.endpoint.command(now, command));
                }
                Woken::Commands(None) => {
                    self.drain();
                    self.flush(carrier).await;
                    return self.endpoint;
                }
                Woken::Connected(Some(incoming)) => self.connected(incoming, &mut carrier),
                Woken::Connected(None) => self.phase = Phase::Ending,
                Woken::Read(Ok(Some(bytes))) => self.feed(bytes, &mut carrier),
                Woken::Read(Ok(None)) => self.disconnected(&mut carrier),
                Woken::Read(Err(error)) | Woken::Wrote(Err(error)) => {
                    tracing::debug!(%error, "connection lost");
                    self.disconnected(&mut carrier);
                }
                Woken::Wrote(Ok(())) | Woken::Reported => {}
                Woken::Time => self.input(Input::Tick, &mut carrier),
            }
        }
    }

    async fn wait(&mut self, carrier: &mut Option<(Reader, Writer)>) -> Woken<E::Command> {
        let is_running = self.phase == Phase::Running;
        let may_read = is_running && self.pending.len() < REPORTS_MAX;
        let may_connect = is_running && (carrier.is_none() || self.connections.replaces());
        let may_write = self.outbound.has_remaining();
        let (wake, clock) = (self.wake, self.clock);
        let (reader, writer) = carrier.as_mut().map(|(reader, writer)| (reader, writer)).unzip();
        tokio::select! {
            biased;
            commands = self.commands.recv() => Woken::Commands(commands),
            permit = self.reports.reserve(), if !self.pending.is_empty() => {
                match permit {
                    Ok(permit) => permit.send(std::mem::take(&mut self.pending)),
                    Err(_) => self.pending.clear(),
                }
                Woken::Reported
            }
            incoming = self.connections.next(), if may_connect => Woken::Connected(incoming),
            wrote = write(writer, &mut self.outbound), if may_write => Woken::Wrote(wrote),
            read = read(reader), if may_read => Woken::Read(read),
            () = sleep(clock, wake) => Woken::Time,
        }
    }

    /// Takes from the endpoint what it wants done, as far as there is room for it.
    fn drain(&mut self) {
        while self.outbound.remaining() < OUTBOUND_BYTES_MAX {
            match self.endpoint.poll(self.clock.now()) {
                Step::Transmit(bytes) => self.outbound.push(bytes),
                Step::Report(report) => self.pending.push(report),
                Step::Close(reason) => {
                    tracing::debug!(?reason, "closing the connection");
                    self.phase = self.phase.max(Phase::Closing);
                }
                Step::Wait(wake) => {
                    self.wake = wake;
                    return;
                }
                Step::Done => {
                    self.phase = Phase::Ending;
                    self.wake = None;
                    return;
                }
            }
        }
        self.wake = None;
    }

    fn connected(&mut self, incoming: Incoming, carrier: &mut Option<(Reader, Writer)>) {
        if carrier.is_some() {
            self.disconnected(carrier);
        }
        let Incoming { carrier: Carrier { reader, writer, peer }, conn, read } = incoming;
        tracing::debug!(peer, "connected");
        *carrier = Some((reader, writer));
        self.input(Input::Connected { conn }, carrier);
        if !read.is_empty() {
            self.feed(read, carrier);
        }
    }

    fn feed(&mut self, bytes: Bytes, carrier: &mut Option<(Reader, Writer)>) {
        self.connections.proved();
        self.input(Input::Bytes(bytes), carrier);
    }

    fn input(&mut self, input: Input, carrier: &mut Option<(Reader, Writer)>) {
        if let Err(error) = self.endpoint.input(self.clock.now(), input) {
            tracing::warn!(%error, "the peer broke the protocol: its connection is closed");
            self.disconnected(carrier);
        }
    }

    fn disconnected(&mut self, carrier: &mut Option<(Reader, Writer)>) {
        *carrier = None;
        self.outbound.clear();
        if self.phase == Phase::Closing {
            self.phase = Phase::Running;
        }
        if let Err(error) = self.endpoint.input(self.clock.now(), Input::Disconnected) {
            tracing::warn!(%error, "while the connection was closed");
        }
    }

    /// The embedder is gone: what is on its way may leave, within bounds.
    async fn flush(&mut self, carrier: Option<(Reader, Writer)>) {
        let Some((_, mut writer)) = carrier else { return };
        let all = async {
            while self.outbound.has_remaining() {
                writer.write(&mut self.outbound).await?;
            }
            std::io::Result::Ok(())
        };
        match tokio::time::timeout(FLUSH, all).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the last words did not leave"),
            Err(_) => tracing::debug!("the last words did not leave in time"),
        }
    }
}

impl Phase {
    fn max(self, other: Phase) -> Phase {
        if self == Phase::Running { other } else { self }
    }
}

async fn read(reader: Option<&mut Reader>) -> std::io::Result<Option<Bytes>> {
    match reader {
        Some(reader) => reader.read().await,
        None => std::future::pending().await,
    }
}

async fn write(writer: Option<&mut Writer>, outbound: &mut Outbound) -> std::io::Result<()> {
    match writer {
        Some(writer) => writer.write(outbound).await,
        None => {
            // What was meant for a connection that is gone; the session sends it again on the next.
            outbound.clear();
            Ok(())
        }
    }
}

async fn sleep(clock: Clock, wake: Option<Micros>) {
    match wake {
        Some(wake) => clock.sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Where the next connection comes from.
enum Connections {
    Dial { target: Target, backoff: Option<Backoff>, connecting: Option<Connecting>, is_proved: bool },
    Accept(mpsc::Receiver<Incoming>),
}

type Connecting = Pin<Box<dyn Future<Output = (Carrier, u64, Backoff)> + Send>>;

impl Connections {
    fn new(source: Source) -> Self {
        match source {
            Source::Dial { target, seed } => {
                Connections::Dial { target, backoff: Some(Backoff::new(seed)), connecting: None, is_proved: false }
            }
            Source::Accept(arrivals) => Connections::Accept(arrivals),
        }
    }

    /// A new connection may come while there is one.
    fn replaces(&self) -> bool {
        matches!(self, Connections::Accept(_))
    }

    /// The peer has said something: the next loss is a new one.
    fn proved(&mut self) {
        if let Connections::Dial { is_proved, .. } = self {
            *is_proved = true;
        }
    }

    /// The next one; `None` when there will be none. May be dropped at any await and called again.
    async fn next(&mut self) -> Option<Incoming> {
        match self {
            Connections::Accept(arrivals) => arrivals.recv().await,
            Connections::Dial { target, backoff, connecting, is_proved } => {
                if let Some(mut backoff) = backoff.take() {
                    if std::mem::take(is_proved) {
                        backoff.reset();
                    }
                    *connecting = Some(Box::pin(connect(target.clone(), backoff)));
                }
                let (carrier, conn, spent) = connecting.as_mut()?.await;
                *connecting = None;
                *backoff = Some(spent);
                Some(Incoming { carrier, conn, read: Bytes::new() })
            }
        }
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Connections::Dial { target, .. } => f.debug_tuple("Dial").field(target).finish(),
            Connections::Accept(_) => f.write_str("Accept"),
        }
    }
}

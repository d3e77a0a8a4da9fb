//! Where a link's connections come from: made by dialling, or handed over by a listener.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::carrier::Carrier;
use crate::dial::{Backoff, Target, connect};
use crate::error::Untrusted;
use crate::listen::Incoming;
use crate::tls;

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

/// The same while the link runs.
pub(crate) enum Connections {
    Dial { target: Target, backoff: Option<Backoff>, connecting: Option<Connecting>, is_proved: bool, is_new: bool },
    Accept(mpsc::Receiver<Incoming>),
}

type Connecting = Pin<Box<dyn Future<Output = (Result<(Carrier, u64), Untrusted>, Backoff)> + Send>>;

impl Connections {
    pub(crate) fn new(source: Source) -> Self {
        match source {
            Source::Dial { target, seed } => Connections::Dial {
                target,
                backoff: Some(Backoff::new(seed)),
                connecting: None,
                is_proved: false,
                is_new: false,
            },
            Source::Accept(arrivals) => Connections::Accept(arrivals),
        }
    }

    /// A new connection may come while there is one.
    pub(crate) fn replaces(&self) -> bool {
        matches!(self, Connections::Accept(_))
    }

    /// Whether the peer proved to be one: it said something that was understood, so that the next loss is a new one, or
    /// something that was not, so that it is to be dialled ever more slowly.
    pub(crate) fn proved(&mut self, is_peer: bool) {
        if let Connections::Dial { is_proved, .. } = self {
            *is_proved = is_peer;
        }
    }

    /// The first that a dialer without TLS hears of a new connection is what a listener with TLS says to it.
    pub(crate) fn hears_alert(&mut self, bytes: &[u8]) -> bool {
        match self {
            Connections::Dial { is_new, .. } => std::mem::take(is_new) && tls::is_alert(bytes),
            Connections::Accept(_) => false,
        }
    }

    /// The next one; `None` when there will be none. May be dropped at any await and called again.
    pub(crate) async fn next(&mut self) -> Option<Result<Incoming, Untrusted>> {
        match self {
            Connections::Accept(arrivals) => arrivals.recv().await.map(Ok),
            Connections::Dial { target, backoff, connecting, is_proved, is_new } => {
                if let Some(mut backoff) = backoff.take() {
                    if std::mem::take(is_proved) {
                        backoff.reset();
                    }
                    *connecting = Some(Box::pin(connect(target.clone(), backoff)));
                }
                let (connected, spent) = connecting.as_mut()?.await;
                *connecting = None;
                *backoff = Some(spent);
                *is_new = true;
                let incoming = |(carrier, conn)| Incoming { carrier, conn, read: Bytes::new(), hello: None };
                Some(connected.map(incoming))
            }
        }
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Connections::Dial { target, .. } => target.fmt(f),
            Connections::Accept(_) => f.write_str("a listener"),
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Connections::Dial { target, .. } => f.debug_tuple("Dial").field(target).finish(),
            Connections::Accept(_) => f.write_str("Accept"),
        }
    }
}

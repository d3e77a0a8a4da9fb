//! Connecting, again and again: each pause is drawn from zero up to a bound that doubles (full jitter), so that a
//! thousand workers do not come back in the same instant.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sheaf_session::Rng;
use tokio::net::{TcpStream, lookup_host};

use crate::carrier::{Carrier, InProcess};
use crate::error::NetError;
use crate::limits::{CONNECT, RECONNECT_FIRST, RECONNECT_MAX};

/// Where a dialer connects to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A listener of this process.
    InProcess(InProcess),
}

impl Target {
    /// Reads `127.0.0.1:4477` or `localhost:4477`.
    ///
    /// # Errors
    /// No address, or one that plain TCP must not be used for.
    pub async fn tcp(addr: &str) -> Result<Self, NetError> {
        Ok(Target::Tcp(loopback(addr).await?))
    }

    async fn connect(&self) -> io::Result<Carrier> {
        match self {
            Target::Tcp(addr) => {
                let stream = tokio::time::timeout(CONNECT, TcpStream::connect(addr)).await;
                Carrier::tcp(stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
            }
            Target::InProcess(door) => door.connect().await,
        }
    }
}

/// The one address that `addr` means, if all that it means is loopback. Of several the IPv4 one, on both sides, so that
/// `localhost` and `127.0.0.1` meet.
pub(crate) async fn loopback(addr: &str) -> Result<SocketAddr, NetError> {
    let none = |error| NetError::Address { addr: addr.to_owned(), error };
    let found: Vec<SocketAddr> = lookup_host(addr).await.map_err(none)?.collect();
    if found.iter().any(|found| !found.ip().to_canonical().is_loopback()) {
        return Err(NetError::NotLoopback { addr: addr.to_owned() });
    }
    let first = found.iter().find(|found| found.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| none(io::ErrorKind::NotFound.into()))
}

/// A dialer's patience; also of whoever begins anew what a connection carries.
#[derive(Debug)]
pub struct Backoff {
    rng: Rng,
    bound: Duration,
}

impl Backoff {
    /// Its pauses are drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), bound: Duration::ZERO }
    }

    /// The next pause. The first is none: most losses are a restart that is over already.
    pub fn pause(&mut self) -> Duration {
        let bound = self.bound.as_micros() as u64;
        self.bound = (self.bound * 2).clamp(RECONNECT_FIRST, RECONNECT_MAX);
        Duration::from_micros(self.rng.below(bound + 1))
    }

    /// A connection has proved itself.
    pub fn reset(&mut self) {
        self.bound = RECONNECT_FIRST;
    }
}

/// Tries until it is connected.
pub(crate) async fn connect(target: Target, mut backoff: Backoff) -> (Carrier, u64, Backoff) {
    loop {
        tokio::time::sleep(backoff.pause()).await;
        match target.connect().await {
            Ok(carrier) => {
                let nonce = backoff.rng.next_u64();
                return (carrier, nonce, backoff);
            }
            Err(error) => tracing::debug!(?target, %error, "not connected yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_no_further() {
        let mut backoff = Backoff::new(7);
        assert_eq!(backoff.pause(), Duration::ZERO);
        let mut longest = Duration::ZERO;
        for round in 0..200 {
            let pause = backoff.pause();
            assert!(pause <= RECONNECT_MAX && (round > 0 || pause <= RECONNECT_FIRST));
            longest = longest.max(pause);
        }
        assert!(longest > RECONNECT_MAX / 2);
    }
}

//! Connecting, again and again: each pause is drawn from zero up to a bound that doubles (full jitter), so that a
//! thousand workers do not come back in the same instant.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sheaf_session::{Auth, Rng};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio_rustls::TlsConnector;

use crate::carrier::{Carrier, InProcess};
use crate::error::{NetError, Untrusted};
use crate::limits::{CONNECT, GREETING, RECONNECT_FIRST, RECONNECT_MAX};
use crate::tls;

/// Where a dialer connects to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A loopback address.
    Tcp(SocketAddr),
    /// Anywhere, with TLS, or with a token.
    Remote(Remote),
    /// A listener of this process.
    InProcess(InProcess),
}

/// A listener as a user names it, and what is shown to it.
#[derive(Clone)]
pub struct Remote {
    place: Place,
    token: Auth,
}

#[derive(Clone)]
enum Place {
    Loopback(SocketAddr),
    Tls { host: String, port: u16, name: ServerName<'static>, config: Arc<ClientConfig> },
}

/// How an address begins at which there is TLS.
const SCHEME: &str = "sheaf://";

impl Target {
    /// Reads `127.0.0.1:4477` or `localhost:4477`.
    ///
    /// # Errors
    /// No address, or one that plain TCP must not be used for.
    pub async fn tcp(addr: &str) -> Result<Self, NetError> {
        Ok(Target::Tcp(loopback(addr).await?))
    }

    /// Reads `sheaf://host:port`, where there is TLS whose certificate an authority in the file `ca` (or one that the system
    /// trusts) has signed, or an address as [`Target::tcp`] does. The token is shown to whoever listens.
    ///
    /// # Errors
    /// No address, or one that plain TCP must not be used for; no authorities.
    pub async fn remote(addr: &str, ca: Option<&Path>, token: Auth) -> Result<Self, NetError> {
        let place = match addr.strip_prefix(SCHEME) {
            Some(name) => Place::tls(addr, name, ca)?,
            None if token.0.is_empty() => return Self::tcp(addr).await,
            None => Place::Loopback(loopback(addr).await?),
        };
        Ok(Target::Remote(Remote { place, token }))
    }

    /// Whether an address says that there is TLS.
    pub fn is_tls(addr: &str) -> bool {
        addr.starts_with(SCHEME)
    }

    /// What a session there is to show first.
    pub fn auth(&self) -> Auth {
        match self {
            Target::Remote(remote) => remote.token.clone(),
            Target::Tcp(_) | Target::InProcess(_) => Auth::default(),
        }
    }

    /// Connects without a word, to see whether anybody listens at all; `None` where that is no question.
    pub async fn knock(&self) -> Option<io::Result<()>> {
        match self {
            Target::Tcp(addr) => Some(connect_tcp(addr).await.map(drop)),
            Target::Remote(remote) => Some(remote.place.connect_tcp().await.map(drop)),
            Target::InProcess(_) => None,
        }
    }

    async fn connect(&self) -> io::Result<Carrier> {
        match self {
            Target::Tcp(addr) => Carrier::tcp(connect_tcp(addr).await?),
            Target::Remote(remote) => remote.place.connect().await,
            Target::InProcess(door) => door.connect().await,
        }
    }
}

impl Place {
    fn tls(addr: &str, name: &str, ca: Option<&Path>) -> Result<Self, NetError> {
        let none = || NetError::Address { addr: addr.to_owned(), error: io::ErrorKind::InvalidInput.into() };
        let (host, port) = name.rsplit_once(':').ok_or_else(none)?;
        let port = port.parse().map_err(|_| none())?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| none())?;
        Ok(Place::Tls { host: host.to_owned(), port, name, config: tls::client_config(ca)? })
    }

    /// Each time the name is looked up anew: a machine may have moved.
    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        match self {
            Place::Loopback(addr) => connect_tcp(addr).await,
            Place::Tls { host, port, .. } => connect_tcp((host.as_str(), *port)).await,
        }
    }

    async fn connect(&self) -> io::Result<Carrier> {
        let stream = self.connect_tcp().await?;
        let Place::Tls { name, config, .. } = self else { return Carrier::tcp(stream) };
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        let shaken = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
        let stream =
            tokio::time::timeout(GREETING, shaken).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Carrier::tls(stream.into(), peer))
    }
}

async fn connect_tcp(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(addr)).await;
    stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(addr) => addr.fmt(f),
            Target::Remote(remote) => remote.place.fmt(f),
            Target::InProcess(_) => f.write_str("this process"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Loopback(addr) => addr.fmt(f),
            Place::Tls { host, port, .. } if host.contains(':') => write!(f, "{SCHEME}[{host}]:{port}"),
            Place::Tls { host, port, .. } => write!(f, "{SCHEME}{host}:{port}"),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&format_args!("{}", self.place)).field(&self.token).finish()
    }
}

/// The one address that `addr` means, if all that it means is loopback. Of several the IPv4 one, on both sides, so that
/// `localhost` and `127.0.0.1` meet.
pub(crate) async fn loopback(addr: &str) -> Result<SocketAddr, NetError> {
    let found = look_up(addr).await?;
    if found.iter().any(|found| !found.ip().to_canonical().is_loopback()) {
        return Err(NetError::NotLoopback { addr: addr.to_owned() });
    }
    first(addr, &found)
}

/// The one address that `addr` means for a listener, chosen as [`loopback`] does.
pub(crate) async fn resolve(addr: &str) -> Result<SocketAddr, NetError> {
    first(addr, &look_up(addr).await?)
}

async fn look_up(addr: &str) -> Result<Vec<SocketAddr>, NetError> {
    let none = |error| NetError::Address { addr: addr.to_owned(), error };
    Ok(lookup_host(addr).await.map_err(none)?.collect())
}

fn first(addr: &str, found: &[SocketAddr]) -> Result<SocketAddr, NetError> {
    let first = found.iter().find(|found| found.is_ipv4()).or(found.first());
    let none = || NetError::Address { addr: addr.to_owned(), error: io::ErrorKind::NotFound.into() };
    first.copied().ok_or_else(none)
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

/// Tries until it is connected, or knows that it should not be.
pub(crate) async fn connect(target: Target, mut backoff: Backoff) -> (Result<(Carrier, u64), Untrusted>, Backoff) {
    loop {
        tokio::time::sleep(backoff.pause()).await;
        match target.connect().await {
            Ok(carrier) => {
                let nonce = backoff.rng.next_u64();
                return (Ok((carrier, nonce)), backoff);
            }
            Err(error) => match tls::distrust(&error) {
                Some(why) => return (Err(Untrusted::Tls(why.clone())), backoff),
                None => tracing::debug!(%target, %error, "not connected yet"),
            },
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

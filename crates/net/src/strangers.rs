//! Why connections were closed before they became a session's, and how loudly that is said: a scanner or a client of
//! another protocol that comes a thousand times a second is a count in a log, not a thousand lines.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use sheaf_session::{Fatal, Micros};

use crate::carrier::Peer;
use crate::limits::{SHOWN_OUT_PEERS_MAX, SHOWN_OUT_QUIET};

/// Why a stranger was shown out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShownOut {
    /// It left before it had greeted: a port probe, or a dialer that ended.
    #[error("it hung up")]
    HungUp,
    /// It does not speak the protocol.
    #[error(transparent)]
    Garbage(#[from] Fatal),
    /// It has no TLS, or other TLS than is spoken here.
    #[error("no TLS with it: {0}")]
    NoTls(io::Error),
    /// It has TLS where there is none.
    #[error("it speaks TLS, and this port does not")]
    SpeaksTls,
    /// It did not greet in time.
    #[error("it did not greet in time")]
    Late,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Counts of them by address.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    peers: BTreeMap<IpAddr, Seen>,
}

#[derive(Debug)]
struct Seen {
    said_at: Micros,
    unsaid: u64,
}

impl Strangers {
    /// Logs it, if its turn has come.
    pub(crate) fn shown_out(&mut self, now: Micros, peer: Peer, why: &ShownOut) {
        let loud = match (why, peer) {
            (ShownOut::Garbage(_) | ShownOut::Late | ShownOut::NoTls(_) | ShownOut::SpeaksTls, Peer::Tcp(addr)) => {
                self.count(now, addr.ip())
            }
            (_, Peer::InProcess) | (ShownOut::HungUp | ShownOut::Broken(_), _) => None,
        };
        match loud {
            Some(unsaid) => tracing::warn!(%peer, %why, unsaid, "a stranger was shown out"),
            None => tracing::debug!(%peer, %why, "a stranger was shown out"),
        }
    }

    /// `Some` where it is to be said aloud: how many from that address went unsaid since the last time.
    fn count(&mut self, now: Micros, ip: IpAddr) -> Option<u64> {
        if self.peers.len() >= SHOWN_OUT_PEERS_MAX && !self.peers.contains_key(&ip) {
            self.peers.clear();
        }
        let quiet = Micros::from_secs(SHOWN_OUT_QUIET.as_secs());
        match self.peers.get_mut(&ip) {
            Some(seen) if now.since(seen.said_at) < quiet => {
                seen.unsaid += 1;
                None
            }
            Some(seen) => {
                seen.said_at = now;
                Some(std::mem::take(&mut seen.unsaid))
            }
            None => {
                self.peers.insert(ip, Seen { said_at: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_is_named_once_a_minute_with_a_count() {
        let mut strangers = Strangers::default();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(strangers.count(Micros::ZERO, a), Some(0));
        assert_eq!(strangers.count(Micros::from_secs(1), a), None);
        assert_eq!(strangers.count(Micros::from_secs(2), b), Some(0));
        assert_eq!(strangers.count(Micros::from_secs(59), a), None);
        assert_eq!(strangers.count(Micros::from_secs(60), a), Some(2));
        assert_eq!(strangers.count(Micros::from_secs(120), a), Some(0));
    }

    #[test]
    fn memory_of_them_is_bounded() {
        let mut strangers = Strangers::default();
        for n in 0..10_000 {
            strangers.count(Micros::ZERO, IpAddr::from(Ipv4Addr::from_bits(n)));
            assert!(strangers.peers.len() <= SHOWN_OUT_PEERS_MAX);
        }
    }
}

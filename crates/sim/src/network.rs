//! Stream connections between hosts: delay, cuts, partitions, half-open ends. Loss and disorder of packets are the
//! session's own faults; here the stream itself goes wrong.
//!
//! Invariant: bytes of one direction arrive in order or not at all, as TCP has it; a cut loses what is on its way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sheaf_session::{Micros, Rng};

/// One connection, for good: a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub u64);

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// Who dialled.
    Dialer,
    /// Who listened.
    Listener,
}

impl End {
    /// The other one.
    pub(crate) fn other(self) -> End {
        match self {
            End::Dialer => End::Listener,
            End::Listener => End::Dialer,
        }
    }
}

/// How the network behaves in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Shortest delay of a chunk.
    pub delay_min: Micros,
    /// Longest delay of a chunk.
    pub delay_max: Micros,
}

/// What arrives, and when: for the agenda.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Where.
    pub conn: ConnId,
    /// At which end.
    pub end: End,
    /// What: bytes, or nothing when the other end is gone.
    pub bytes: Option<Bytes>,
}

/// All connections there are.
#[derive(Debug)]
pub(crate) struct Network {
    weather: Weather,
    rng: Rng,
    conns: BTreeMap<ConnId, Conn>,
    /// Cut: whatever is still on its way is lost.
    cut: BTreeSet<ConnId>,
    /// Closed by this end: it reads nothing more of it.
    shut: BTreeSet<(ConnId, End)>,
    dialled: u64,
}

#[derive(Debug)]
struct Conn {
    dialer: usize,
    /// Nothing arrives in this direction (named by the receiving end) before this time.
    clear_at: [Micros; 2],
    /// Bytes sent towards this end vanish: a half-open connection.
    deaf: [bool; 2],
}

impl Network {
    /// An empty network.
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            rng: Rng::new(seed),
            conns: BTreeMap::new(),
            cut: BTreeSet::new(),
            shut: BTreeSet::new(),
            dialled: 0,
        }
    }

    /// A new connection of the host `dialer` to the router.
    pub(crate) fn dial(&mut self, dialer: usize) -> ConnId {
        self.dialled += 1;
        let id = ConnId(self.dialled);
        self.conns.insert(id, Conn { dialer, clear_at: [Micros(0); 2], deaf: [false; 2] });
        id
    }

    /// Every connection that lives, with its dialer.
    pub(crate) fn live(&self) -> Vec<(ConnId, usize)> {
        self.conns.iter().map(|(id, conn)| (*id, conn.dialer)).collect()
    }

    /// Sends bytes away from the end `from`: when and where they arrive, unless they vanish.
    pub(crate) fn send(&mut self, now: Micros, conn: ConnId, from: End, bytes: Bytes) -> Option<(Micros, Arrival)> {
        let end = from.other();
        let at = self.arrival_time(now, conn, end)?;
        (!self.conns.get(&conn)?.deaf[index(end)]).then_some((at, Arrival { conn, end, bytes: Some(bytes) }))
    }

    /// The end `from` closes: the other end sees it after everything that was sent before.
    pub(crate) fn close(&mut self, now: Micros, conn: ConnId, from: End) -> Option<(Micros, Arrival)> {
        let end = from.other();
        self.shut.insert((conn, from));
        let at = self.arrival_time(now, conn, end)?;
        self.conns.remove(&conn).filter(|conn| !conn.deaf[index(end)])?;
        Some((at, Arrival { conn, end, bytes: None }))
    }

    /// Cuts the connection: what is on its way is lost, and both ends see it at once. False where it was gone.
    pub(crate) fn cut(&mut self, conn: ConnId) -> bool {
        let lived = self.conns.remove(&conn).is_some();
        self.cut.insert(conn);
        lived
    }

    /// Whether what is on its way over `conn` to `end` is lost.
    pub(crate) fn is_lost(&self, conn: ConnId, end: End) -> bool {
        self.cut.contains(&conn) || self.shut.contains(&(conn, end))
    }

    /// From now on nothing reaches `end`, and nobody is told.
    pub(crate) fn deafen(&mut self, conn: ConnId, end: End) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.deaf[index(end)] = true;
        }
    }

    fn arrival_time(&mut self, now: Micros, conn: ConnId, end: End) -> Option<Micros> {
        let spread = self.weather.delay_max.0.saturating_sub(self.weather.delay_min.0) + 1;
        let delay = self.weather.delay_min.0 + self.rng.below(spread);
        let conn = self.conns.get_mut(&conn)?;
        let clear = &mut conn.clear_at[index(end)];
        *clear = Micros(now.0 + delay).max(*clear);
        Some(*clear)
    }
}

fn index(end: End) -> usize {
    match end {
        End::Dialer => 0,
        End::Listener => 1,
    }
}

//! The sessions of the router: finds or makes the one that a stranger asks for, and gives its link the connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sheaf_net::{Arrival, Clock, Incoming, Link, Source};
use sheaf_roles::port::{RouterPort, fit_config};
use sheaf_roles::router::{Event, PeerId};
use sheaf_session::{Config, Depth, Faults, Micros, Receipt, Refusal, Session, SessionId, Side, State};
use sheaf_task::KeySecret;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::Input;
use crate::finished::Finished;
use crate::gate::{Gate, LOOK_EVERY, Pass};
use crate::gauges::Gauges;
use crate::limits::Limits;
use crate::lookups::Lookups;
use crate::peer::{Peer, Silence};
use crate::stages::ORDERS;
use crate::store::Store;

/// What sessions are made with.
pub(crate) struct Sessions {
    pub clock: Clock,
    pub limits: Limits,
    pub secret: KeySecret,
    /// Epoch of the journal: the incarnation of every session.
    pub incarnation: u64,
    pub boot: u64,
    pub faults: Option<Faults>,
    pub store: Arc<Store>,
    pub finished: Arc<Finished>,
    pub gate: Gate,
    pub core: mpsc::Sender<Vec<Input>>,
    /// What sessions of workers had delivered durably before this start.
    pub receipts: BTreeMap<SessionId, Vec<Receipt>>,
    /// Sessions so far.
    pub peers: u64,
    /// When it was last said that one was refused, and how many went unsaid since.
    pub turned_away: (Option<Instant>, u64),
    pub gauges: Arc<Gauges>,
}

/// Connections of a session that its link has not taken up: a newer one replaces an older one anyway.
const INCOMING_MAX: usize = 2;

/// At most one warning in this time about connections that are refused; the next one tells how many there were.
const TURNED_AWAY_QUIET: Duration = Duration::from_secs(10);

/// A session that lives.
struct Live {
    connections: mpsc::Sender<Incoming>,
    /// Whose it is: nobody else may take it up.
    pass: Pass,
}

impl Sessions {
    /// Serves until the listener or the core is gone, then lets every link say its last words.
    pub(crate) async fn serve(mut self, mut arrivals: mpsc::Receiver<Arrival>) {
        let mut links = JoinSet::new();
        let mut live: BTreeMap<SessionId, Live> = BTreeMap::new();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.core.closed() => break,
                arrival = arrivals.recv() => {
                    let Some(arrival) = arrival else { break };
                    if self.take(arrival, &mut live, &mut links).await.is_none() { break }
                }
                _ = looks.tick(), if live.values().any(|live| live.pass.token.is_some()) => self.end_revoked(&mut live),
                Some(ended) = links.join_next() => match ended {
                    Ok(session) => {
                        if live.get(&session).is_some_and(|live| live.connections.is_closed()) {
                            live.remove(&session);
                        }
                    }
                    Err(error) => tracing::error!(%error, "a session's link panicked"),
                },
            }
            self.gauges.set_sessions(live.len());
        }
        drop(live);
        while links.join_next().await.is_some() {}
    }

    /// Gives a connection to its session, which may be new; `None` when the core is gone.
    async fn take(
        &mut self,
        arrival: Arrival,
        live: &mut BTreeMap<SessionId, Live>,
        links: &mut JoinSet<SessionId>,
    ) -> Option<()> {
        let Arrival { session, origin, incoming } = arrival;
        let shown = incoming.hello.as_ref().map(|hello| &hello.auth);
        let Some(pass) = shown.and_then(|auth| self.gate.admit(&origin, auth)) else {
            self.turn_away(incoming, Refusal::Auth).await;
            return Some(());
        };
        if live.get(&session).is_none_or(|live| live.connections.is_closed()) {
            if live.len() >= self.limits.sessions_max {
                self.turn_away(incoming, Refusal::Busy).await;
                return Some(());
            }
            let (connections, taken) = mpsc::channel(INCOMING_MAX);
            let run = self.open(session, &pass, taken).await?;
            links.spawn(async move {
                run.await;
                session
            });
            live.insert(session, Live { connections, pass: pass.clone() });
        }
        match live.get(&session) {
            Some(live) if live.pass != pass => self.turn_away(incoming, Refusal::Auth).await,
            Some(live) if live.connections.try_send(incoming).is_err() => {
                tracing::debug!(%session, "a connection too many at once was dropped");
            }
            Some(_) | None => {}
        }
        Some(())
    }

    /// Who comes a thousand times a second is a count in a log, not a thousand lines.
    async fn turn_away(&mut self, incoming: Incoming, why: Refusal) {
        let now = Instant::now();
        if self.turned_away.0.is_none_or(|said| now.duration_since(said) >= TURNED_AWAY_QUIET) {
            let unsaid = std::mem::take(&mut self.turned_away.1);
            tracing::warn!(from = incoming.place(), ?why, unsaid, "a connection was refused");
            self.turned_away.0 = Some(now);
        } else {
            self.turned_away.1 += 1;
        }
        incoming.refuse(why).await;
    }

    /// Sessions whose token is revoked lose their connection; who connects again hears why.
    fn end_revoked(&mut self, live: &mut BTreeMap<SessionId, Live>) {
        self.gate.look();
        let revoked = live.extract_if(.., |_, live| !self.gate.holds(&live.pass));
        for (session, Live { pass, .. }) in revoked {
            tracing::warn!(%session, token = pass.token, "its token is revoked or has expired: the session is over");
        }
    }

    /// A new link; `None` when the core is gone.
    async fn open(
        &mut self,
        id: SessionId,
        pass: &Pass,
        connections: mpsc::Receiver<Incoming>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        self.peers += 1;
        let peer = PeerId(self.peers);
        let (orders, commands) = mpsc::channel(ORDERS.capacity);
        let lookups = Lookups::new(Arc::clone(&self.store), Arc::clone(&self.finished), orders.downgrade());
        self.core.send(vec![Input::Attach(peer, orders)]).await.ok()?;
        let principal = pass.principal.clone();
        let port = RouterPort::new(self.session(id, peer), id, peer, self.secret.clone(), principal);
        let warm = Micros::from_ms(self.limits.session_warm_ms);
        let silence = Silence::new(self.clock.now(), warm, Arc::clone(&self.gauges));
        let endpoint = Peer::new(peer, port, Arc::clone(&self.store), lookups, silence);
        let link = Link::new(endpoint, self.clock, Source::Accept(connections), commands, self.core.clone());
        let core = self.core.clone();
        Some(async move {
            drop(link.run().await);
            // A link whose token was revoked ends before its session: the machine hears of it from here.
            if core.send(vec![Input::Event(Event::PeerGone { peer })]).await.is_err() {
                tracing::debug!("the core has ended before a link");
            }
        })
    }

    fn session(&mut self, id: SessionId, peer: PeerId) -> Session {
        let faults = self.faults.map(|faults| Faults { seed: faults.seed ^ peer.0.rotate_left(32), ..faults });
        let config = Config { incarnation: self.incarnation, boot: self.boot, faults, ..Config::default() };
        let config = fit_config(config, Depth::Memory);
        let seed = self.boot ^ peer.0;
        match self.receipts.remove(&id) {
            Some(receipts) => {
                let mut state = State::new(id);
                receipts.into_iter().for_each(|receipt| state.received(receipt));
                Session::recover(config, Side::Listener, seed, state)
            }
            None => Session::new(config, Side::Listener, id, seed),
        }
    }
}

//! The sessions of the router: finds or makes the one that a stranger asks for, and gives its link the connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use sheaf_net::{Arrival, Clock, Incoming, Link, Source};
use sheaf_roles::port::{RouterPort, fit_config};
use sheaf_roles::router::PeerId;
use sheaf_session::{Config, Depth, Faults, Micros, Receipt, Refusal, Session, SessionId, Side, State};
use sheaf_task::KeySecret;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::core::Input;
use crate::finished::Finished;
use crate::gauges::Gauges;
use crate::limits::Limits;
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
    pub core: mpsc::Sender<Vec<Input>>,
    /// What sessions of workers had delivered durably before this start.
    pub receipts: BTreeMap<SessionId, Vec<Receipt>>,
    pub gauges: Arc<Gauges>,
}

/// Connections of a session that its link has not taken up: a newer one replaces an older one anyway.
const INCOMING_MAX: usize = 2;

impl Sessions {
    /// Serves until the listener or the core is gone, then lets every link say its last words.
    pub(crate) async fn serve(mut self, mut arrivals: mpsc::Receiver<Arrival>) {
        let mut links = JoinSet::new();
        let mut live: BTreeMap<SessionId, mpsc::Sender<Incoming>> = BTreeMap::new();
        let mut peers = 0;
        loop {
            tokio::select! {
                () = self.core.closed() => break,
                arrival = arrivals.recv() => {
                    let Some(Arrival { session, incoming }) = arrival else { break };
                    if live.get(&session).is_none_or(|link| link.is_closed()) {
                        if live.len() >= self.limits.sessions_max {
                            incoming.refuse(Refusal::Busy).await;
                            continue;
                        }
                        peers += 1;
                        let (link, connections) = mpsc::channel(INCOMING_MAX);
                        let Some(run) = self.open(session, PeerId(peers), connections).await else { break };
                        links.spawn(async move { run.await; session });
                        live.insert(session, link);
                    }
                    if let Some(link) = live.get(&session) && link.try_send(incoming).is_err() {
                        tracing::debug!(%session, "a connection too many at once was dropped");
                    }
                }
                Some(ended) = links.join_next() => match ended {
                    Ok(session) => {
                        if live.get(&session).is_some_and(|link| link.is_closed()) {
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

    /// A new link; `None` when the core is gone.
    async fn open(
        &mut self,
        id: SessionId,
        peer: PeerId,
        connections: mpsc::Receiver<Incoming>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let (orders, commands) = mpsc::channel(ORDERS.capacity);
        self.core.send(vec![Input::Attach(peer, orders)]).await.ok()?;
        let port = RouterPort::new(self.session(id, peer), id, peer, self.secret.clone());
        let warm = Micros::from_ms(self.limits.session_warm_ms);
        let silence = Silence::new(self.clock.now(), warm, Arc::clone(&self.gauges));
        let endpoint = Peer::new(peer, port, Arc::clone(&self.store), Arc::clone(&self.finished), silence);
        let link = Link::new(endpoint, self.clock, Source::Accept(connections), commands, self.core.clone());
        Some(async move { drop(link.run().await) })
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

//! The router at work: connections, sessions, and what the machine asks for between two syncs.

use bytes::Bytes;
use sheaf_roles::port::{Fetched, Principal, RouterCommand, RouterPort, RouterReport};
use sheaf_roles::router::{Event, Inbound, Lsn, Outbound, Output, PeerId};
use sheaf_session::{Fatal, Input, Micros, Session, SessionId, Side, State, peek_hello};
use sheaf_task::{KeySecret, ToClient};

use super::journal::append;
use super::{Peer, RouterHost, Running};
use crate::env::{Driven, Env, Happening, Line};
use crate::network::{ConnId, End};
use crate::plan::Who;

impl RouterHost {
    pub(crate) fn on_arrival(&mut self, env: &mut Env, conn: ConnId, bytes: Option<Bytes>) {
        let Some(run) = &mut self.run else { return };
        let known = run.peers.iter().find(|(_, peer)| peer.line.conn == Some(conn)).map(|(id, _)| *id);
        match (known, bytes) {
            (Some(id), bytes) => {
                let Some(peer) = run.peers.get_mut(&id) else { return };
                match bytes {
                    Some(bytes) => env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Bytes(bytes.into())),
                    None => {
                        peer.line.conn = None;
                        env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Disconnected);
                    }
                }
                self.drive(env, id);
            }
            (None, Some(bytes)) => self.greet(env, conn, &bytes),
            (None, None) => {
                run.strangers.remove(&conn);
            }
        }
        self.after(env);
    }

    pub(crate) fn on_wake(&mut self, env: &mut Env) {
        let now = env.now();
        let Some(run) = &mut self.run else { return };
        if run.wake.is_none_or(|at| at > now) {
            // An earlier one has been here in between.
            return;
        }
        run.wake = None;
        if run.is_frozen {
            return;
        }
        let due: Vec<PeerId> = run
            .peers
            .iter()
            .filter(|(_, peer)| peer.line.wake.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(peer) = self.run.as_mut().and_then(|run| run.peers.get_mut(&id)) {
                env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Tick);
            }
            self.drive(env, id);
        }
        self.after(env);
    }

    fn greet(&mut self, env: &mut Env, conn: ConnId, bytes: &[u8]) {
        let Some(run) = &mut self.run else { return };
        let stranger = run.strangers.entry(conn).or_default();
        stranger.extend_from_slice(bytes);
        let hello = match peek_hello(stranger) {
            Ok(Some(hello)) => hello,
            Ok(None) => return,
            Err(fatal) => return self.show_out(env, conn, fatal),
        };
        let read = run.strangers.remove(&conn).unwrap_or_default();
        let id = match run.by_session.get(&hello.session) {
            Some(id) => *id,
            None => self.attach(hello.session),
        };
        let Some(peer) = self.run.as_mut().and_then(|run| run.peers.get_mut(&id)) else { return };
        if peer.line.conn.is_some() {
            env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Disconnected);
            env.hang_up(&mut peer.line, End::Listener);
        }
        peer.line.conn = Some(conn);
        env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Connected { conn: hello.conn });
        env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Bytes(Bytes::from(read).into()));
        self.drive(env, id);
    }

    /// A greeting may be lost or overtaken where packets are: then the dialer is hung up on, and dials again.
    fn show_out(&mut self, env: &mut Env, conn: ConnId, fatal: Fatal) {
        if !env.loses_packets {
            env.ledger.on_fatal(fatal);
        }
        if let Some(run) = &mut self.run {
            run.strangers.remove(&conn);
        }
        let mut line = Line { conn: Some(conn), ..Line::default() };
        env.hang_up(&mut line, End::Listener);
    }

    fn attach(&mut self, session: SessionId) -> PeerId {
        let config = self.session_config();
        let Some(run) = &mut self.run else { return PeerId(0) };
        run.peers_made += 1;
        let id = PeerId(run.peers_made);
        let seed = self.plan.seed ^ (self.life << 32) ^ id.0;
        let session_machine = match run.receipts.remove(&session) {
            Some(receipts) => {
                let mut state = State::new(session);
                receipts.into_iter().for_each(|receipt| state.received(receipt));
                Session::recover(config, Side::Listener, seed, state)
            }
            None => Session::new(config, Side::Listener, session, seed),
        };
        let port = RouterPort::new(session_machine, session, id, KeySecret([7; 32]), Principal::Owner);
        run.peers.insert(id, Peer { port, line: Line::default() });
        run.by_session.insert(session, id);
        id
    }

    fn drive(&mut self, env: &mut Env, id: PeerId) {
        loop {
            let Some(run) = &mut self.run else { return };
            let Some(peer) = run.peers.get_mut(&id) else { return };
            let Driven { reports, done, .. } = env.drive(&mut peer.port, &mut peer.line, End::Listener);
            let is_idle = reports.is_empty();
            for report in reports {
                self.on_report(env, id, report);
            }
            if done && let Some(run) = &mut self.run {
                run.peers.remove(&id);
                run.by_session.retain(|_, other| *other != id);
                return;
            }
            if is_idle {
                return;
            }
        }
    }

    fn on_report(&mut self, env: &mut Env, id: PeerId, report: RouterReport) {
        let Some(run) = &mut self.run else { return };
        match report {
            RouterReport::Event(mut event) => {
                if let Event::Message { inbound, .. } = &mut event {
                    look_up(run, id, inbound);
                }
                self.step(env, event);
            }
            RouterReport::Fetch { msg, lsns } => {
                let fetch = |lsn: &Lsn| {
                    let record = run.journal.read(sheaf_journal::Lsn(lsn.0)).ok()?;
                    Some(Fetched { kind: record.kind, payload: record.payload })
                };
                let records = lsns.iter().map(fetch).collect();
                if let Some(peer) = run.peers.get_mut(&id) {
                    let now = env.now();
                    sheaf_session::Endpoint::command(&mut peer.port, now, RouterCommand::Fetched { msg, records });
                }
            }
            RouterReport::Over(over) => {
                env.trace.note(env.agenda.now(), &[id.0], || format!("router: session of {id:?} over: {over:?}"));
            }
        }
    }

    pub(super) fn step(&mut self, env: &mut Env, event: Event) {
        let Some(run) = &mut self.run else { return };
        env.trace.note(env.agenda.now(), &[], || format!("router <- {event:?}"));
        env.tell(Who::Router, |story| story.router_event(&event, |id| peer_name(run, id)));
        if let Event::Message { peer, place, inbound: Inbound::Submit { rows, .. }, .. } = &event {
            run.submits.insert((*peer, *place), rows.iter().map(|row| row.row).collect());
        }
        if let Event::Message { inbound: Inbound::Results(items), .. } = &event {
            items.iter().for_each(|item| env.ledger.on_heard(item.fence));
        }
        run.router.handle(env.now(), event);
        let mut touched = Vec::new();
        while let Some(output) = run.router.poll() {
            if let Output::Relook { peer, place, receipt, mut inbound } = output {
                look_up(run, peer, &mut inbound);
                run.router.handle(env.now(), Event::Message { peer, place, receipt, inbound: *inbound });
                continue;
            }
            env.trace.note(env.agenda.now(), &[fact(&output)], || format!("router -> {output:?}"));
            if let Some(peer) = on_output(run, env, output) {
                touched.push(peer);
            }
        }
        if let Some(service) = run.router.neglected() {
            env.ledger
                .violate(format!("a task of {service} waits, and a worker that could start it has nothing to do"));
        }
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.drive(env, id);
        }
    }

    /// Hands the journal what is pending, judges time last, and sets the next timer.
    pub(super) fn after(&mut self, env: &mut Env) {
        let now = env.now();
        if self.is_frozen() {
            return;
        }
        while self.run.as_ref().is_some_and(|run| run.router.deadline() <= now) {
            self.step(env, Event::Tick);
        }
        let Some(run) = &mut self.run else { return };
        if run.syncing.is_empty() && !run.pending.is_empty() {
            run.syncing = std::mem::take(&mut run.pending);
            append(run, env);
            let delay = env.time_below(self.plan.sync_max);
            env.agenda.enter_in(delay, Happening::Synced(self.life));
        }
        let wakes = run.peers.values().filter_map(|peer| peer.line.wake);
        let next = wakes.fold(run.router.deadline(), Micros::min).max(Micros(now.0 + 1));
        if run.wake.is_none_or(|at| next < at) {
            run.wake = Some(next);
            env.agenda.enter(next, Happening::Wake(Who::Router, self.life));
        }
    }
}

/// What of an output enters the hash. What it says to a peer enters as the bytes that are sent.
fn fact(output: &Output) -> u64 {
    match output {
        Output::Append { lsn, record } => lsn.0 << 8 | u64::from(record.kind()),
        Output::Commit { peer, place } => peer.0 << 32 | place.seq,
        Output::Send { peer, tag, .. } => peer.0 << 32 | tag.0,
        Output::Signal { peer, .. } | Output::Relook { peer, .. } => peer.0,
        Output::Lost(lsn) => lsn.0,
        Output::Stopped => 0,
    }
}

/// Does what the machine wants; says which peer has something to send.
fn on_output(run: &mut Running, env: &mut Env, output: Output) -> Option<PeerId> {
    let now = env.now();
    let (id, command) = match output {
        Output::Append { lsn, record } => {
            run.pending.push((lsn, record));
            return None;
        }
        Output::Lost(lsn) => {
            env.ledger.violate(format!("record {} is still needed and cannot be read", lsn.0));
            return None;
        }
        Output::Stopped => return None,
        Output::Commit { peer, place } => {
            let rows = run.submits.remove(&(peer, place)).unwrap_or_default();
            env.ledger.on_rows_acknowledged(&rows);
            (peer, RouterCommand::Commit(place))
        }
        Output::Signal { peer, counts } => (peer, RouterCommand::Signal(counts)),
        Output::Relook { .. } => return None,
        Output::Send { peer, lane, tag, message } => {
            note_sent(env, &message);
            env.tell(Who::Router, |story| Some(format!("-> {}: {}", peer_name(run, peer), story.outbound(&message))));
            if let Outbound::Client(told) = &message
                && let ToClient::Refused { rows: refused, .. } = &**told
            {
                env.ledger.on_rows_refused(refused);
                run.submits.values_mut().for_each(|rows| rows.retain(|row| !refused.contains(row)));
            }
            (peer, RouterCommand::Send { lane, tag, message })
        }
    };
    let peer = run.peers.get_mut(&id)?;
    sheaf_session::Endpoint::command(&mut peer.port, now, command);
    Some(id)
}

/// Whose session this is: hosts make the first and the last byte of its name from their number and their kind.
fn peer_name(run: &Running, id: PeerId) -> String {
    let session = run.by_session.iter().find(|(_, other)| **other == id).map(|(session, _)| session.0);
    match session {
        Some(name) if name[15] == 1 => Who::Worker(usize::from(name[0])).to_string(),
        Some(name) => Who::Client(usize::from(name[0])).to_string(),
        None => format!("{id:?}"),
    }
}

/// Notes what the index knows of the keys in a message.
fn look_up(run: &Running, id: PeerId, inbound: &mut Inbound) {
    let Some(peer) = run.peers.get(&id) else { return };
    let archive = &run.archive;
    peer.port.look_up(inbound, archive.generation(), |keys| {
        keys.iter().map(|key| archive.records(&run.journal, *key)).collect()
    });
    if let Inbound::Submit { rows, .. } = inbound {
        for prior in rows.iter_mut().filter_map(|row| row.prior.as_mut()) {
            prior.finished = prior.finished.filter(|finished| finished.lsn >= archive.floor());
        }
    }
}

fn note_sent(env: &mut Env, message: &Outbound) {
    match message {
        Outbound::Assign { items, .. } => items.iter().for_each(|item| env.ledger.on_assigned(item.fence)),
        Outbound::Opened { .. }
        | Outbound::Client(_)
        | Outbound::Worker(_)
        | Outbound::Deliver { .. }
        | Outbound::Failures { .. }
        | Outbound::Task { .. } => {}
    }
}

//! The router's process: the machine, its journal on a disk that fails as disks do, and a port for each session.

use std::collections::BTreeMap;

use bytes::Bytes;
use sheaf_journal::testing::MemDisk;
use sheaf_journal::{Class, Config as JournalConfig, Entry, Journal};
use sheaf_roles::port::{Fetched, RouterCommand, RouterPort, RouterReport, fit_config};
use sheaf_roles::router::{Config, Event, Generation, Inbound, Limits, Lsn, Outbound, Output, PeerId, Record, Router};
use sheaf_session::{
    Config as SessionConfig, Depth, Fatal, Faults, Input, Micros, Place, Receipt, Rng, Session, SessionId, Side, State,
    peek_hello,
};
use sheaf_task::{KeySecret, RouterId, RowId, ToClient};

use crate::archive::{Ages, Archive};
use crate::env::{Driven, Env, Happening, Line};
use crate::mutation::Planted;
use crate::network::{ConnId, End};
use crate::plan::{Left, Plan, Who};
use crate::trace::digest;

/// The process, running or not.
pub(crate) struct RouterHost {
    plan: Plan,
    #[cfg_attr(not(feature = "mutations"), expect(dead_code, reason = "read by mutations only"))]
    planted: Option<Planted>,
    /// While it does not run.
    disk: Option<MemDisk>,
    ages: Ages,
    /// A copy of the disk, if somebody made one.
    backup: Option<MemDisk>,
    run: Option<Running>,
    pub life: u64,
}

/// What a running process has in memory.
struct Running {
    router: Router,
    journal: Journal<MemDisk>,
    archive: Archive,
    peers: BTreeMap<PeerId, Peer>,
    by_session: BTreeMap<SessionId, PeerId>,
    /// Connections that have not said whose they are.
    strangers: BTreeMap<ConnId, Vec<u8>>,
    receipts: BTreeMap<SessionId, Vec<Receipt>>,
    /// Emitted, and not handed to the journal.
    pending: Vec<(Lsn, Record)>,
    /// Appended, not synced.
    syncing: Vec<(Lsn, Record)>,
    /// Rows of each submitted message that is not committed.
    submits: BTreeMap<(PeerId, Place), Vec<RowId>>,
    peers_made: u64,
    is_frozen: bool,
    wake: Option<Micros>,
}

struct Peer {
    port: RouterPort,
    line: Line,
}

/// How often a router that stands still is looked at for what its disk did.
const LOOK_AGAIN: Micros = Micros::from_ms(100);

/// Small; where segments are to be sealed in mid-run they are smaller.
const SEGMENT_BYTES: u32 = 32 << 10;

/// Jobs on record, where there are more clients than that.
const JOBS_MAX: u32 = 6;
/// Results that no sink has committed, there.
const UNSETTLED_MAX: u64 = 4;

impl RouterHost {
    pub(crate) fn new(plan: &Plan, planted: Option<Planted>) -> Self {
        Self {
            plan: plan.clone(),
            planted,
            disk: Some(MemDisk::new()),
            ages: Ages::default(),
            backup: None,
            run: None,
            life: 0,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Starts the process on what the disk has.
    pub(crate) fn start(&mut self, env: &mut Env) {
        let Some(disk) = self.disk.take() else { return };
        self.life += 1;
        let (mut journal, report) = match Journal::open(disk, self.journal_config()) {
            Ok(opened) => opened,
            Err(error) => return env.ledger.violate(format!("the journal does not open: {error}")),
        };
        if !report.quarantined.is_empty() {
            env.ledger.violate(format!("records quarantined on a disk that only lost power: {:?}", report.quarantined));
        }
        let archive = match Archive::open(&mut journal) {
            Ok(archive) => archive,
            Err(error) => return env.ledger.violate(format!("the index does not open: {error}")),
        };
        let (sealed, generation) = archive.sealed();
        let mut router = Router::new(Config { sealed, generation, ..self.router_config(u64::from(journal.epoch().0)) });
        let mut replayed = Vec::new();
        let shown = journal.replay(sheaf_journal::Lsn(1), &mut |lsn, _, kind, payload| {
            replayed.push((Lsn(lsn.0), Record::decode(kind, Bytes::copy_from_slice(payload))));
        });
        assert!(shown.is_ok(), "a simulated disk does not fail to read");
        env.ledger.on_restart();
        for (lsn, record) in &replayed {
            match record {
                Ok(record) => {
                    // Records of a job that left may outlive its own, until compaction comes to them.
                    if !router.replay(*lsn, record) && !self.jobs_leave() {
                        env.ledger.violate(format!("record {} names a job that is not there", lsn.0));
                    }
                    env.ledger.on_durable_record(*lsn, record);
                }
                Err(error) => env.ledger.violate(format!("record {} does not decode: {error}", lsn.0)),
            }
        }
        env.ledger.on_replayed();
        router.start(env.now(), Lsn(report.next.0));
        env.trace
            .note(env.agenda.now(), &[router.digest(), self.life], || format!("router starts, life {}", self.life));
        let mut receipts: BTreeMap<SessionId, Vec<Receipt>> = BTreeMap::new();
        for (session, receipt) in router.receipts() {
            receipts.entry(session).or_default().push(receipt);
        }
        env.tell(Who::Router, |_| Some(format!("starts, life {}: {} records", self.life, replayed.len())));
        self.run = Some(Running {
            router,
            journal,
            archive,
            peers: BTreeMap::new(),
            by_session: BTreeMap::new(),
            strangers: BTreeMap::new(),
            receipts,
            pending: Vec::new(),
            syncing: Vec::new(),
            submits: BTreeMap::new(),
            peers_made: 0,
            is_frozen: false,
            wake: None,
        });
        self.after(env);
    }

    /// The process dies; `power`: the machine too.
    pub(crate) fn crash(&mut self, env: &mut Env, power: Option<Left>) {
        let Some(run) = self.run.take() else { return };
        for (conn, _) in env.network.live() {
            env.cut(conn);
        }
        let mut disk = run.journal.into_disk();
        match power {
            Some(left) => lose_power(&mut disk, left, &mut env.rng),
            None => disk.kill(),
        }
        env.tell(Who::Router, |_| Some(died(power)));
        let fact = u64::from(power.is_some());
        env.trace.note(env.agenda.now(), &[fact], || format!("router dies, power {power:?}"));
        self.disk = Some(disk);
    }

    /// Somebody copies the directory, file by file, while nothing is written.
    pub(crate) fn back_up(&mut self, env: &mut Env) {
        env.ledger.on_journal_copied();
        let running = self.run.as_ref().map(|run| run.journal.disk());
        self.backup = running.or(self.disk.as_ref()).cloned();
    }

    /// The machine is gone, and its directory comes back from the backup, if there is one.
    pub(crate) fn restore(&mut self, env: &mut Env) {
        self.crash(env, Some(Left::Some));
        if let (Some(backup), Some(disk)) = (&self.backup, &mut self.disk) {
            disk.clone_from(backup);
            env.ledger.on_journal_restored();
        }
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_frozen)
    }

    pub(crate) fn freeze(&mut self, is_frozen: bool, env: &mut Env) {
        if let Some(run) = &mut self.run {
            run.is_frozen = is_frozen;
        }
        self.after(env);
    }

    pub(crate) fn on_arrival(&mut self, env: &mut Env, conn: ConnId, bytes: Option<Bytes>) {
        let Some(run) = &mut self.run else { return };
        let known = run.peers.iter().find(|(_, peer)| peer.line.conn == Some(conn)).map(|(id, _)| *id);
        match (known, bytes) {
            (Some(id), bytes) => {
                let Some(peer) = run.peers.get_mut(&id) else { return };
                match bytes {
                    Some(bytes) => env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Bytes(bytes)),
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

    /// The sync that was under way is done.
    pub(crate) fn on_synced(&mut self, env: &mut Env) {
        let Some(run) = &mut self.run else { return };
        if run.is_frozen {
            // The disk is done; nobody looks.
            return env.agenda.enter_in(LOOK_AGAIN, Happening::Synced(self.life));
        }
        match run.journal.commit() {
            Ok(committed) => {
                env.tell(Who::Router, |story| story.records(run.syncing.iter().map(|(_, record)| record)));
                for (lsn, record) in run.syncing.drain(..) {
                    env.ledger.on_durable_record(lsn, &record);
                }
                self.step(env, Event::Durable(Lsn(committed.durable.0)));
                self.tend(env);
            }
            Err(error) => env.ledger.violate(format!("a commit failed on a good disk: {error}")),
        }
        self.after(env);
    }

    /// Indexes what is sealed and compacts a slice. Nothing is between journal and disk now.
    fn tend(&mut self, env: &mut Env) {
        let Some(run) = &mut self.run else { return };
        match run.archive.index(&mut run.journal) {
            Ok(None) => {}
            Ok(Some(event)) => self.step(env, event),
            Err(error) => return env.ledger.violate(format!("an index cannot be built on a good disk: {error}")),
        }
        let Some((_, Some(retention))) = self.plan.oddities.small_segments else { return };
        let (now, ages) = (env.now(), &mut self.ages);
        let Some(run) = &mut self.run else { return };
        if let Some(event) = run.archive.begin(&run.journal, |segment| ages.is_ripe(segment, now, retention)) {
            env.ledger.on_floor(run.archive.floor());
            self.step(env, event);
        }
        let Some(run) = &mut self.run else { return };
        if let Err(what) = run.archive.compact(&mut run.journal, &run.router) {
            env.ledger.violate(what);
        }
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
        env.input(&mut peer.port, &mut peer.line, End::Listener, Input::Bytes(read.into()));
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
        let port = RouterPort::new(session_machine, session, id, KeySecret([7; 32]));
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

    fn step(&mut self, env: &mut Env, event: Event) {
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
                run.router.handle(env.now(), Event::Message { peer, place, receipt, inbound });
                continue;
            }
            env.trace.note(env.agenda.now(), &[digest(format!("{output:?}").as_bytes())], || {
                format!("router -> {output:?}")
            });
            if let Some(peer) = on_output(run, env, output) {
                touched.push(peer);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.drive(env, id);
        }
    }

    /// Hands the journal what is pending, judges time last, and sets the next timer.
    fn after(&mut self, env: &mut Env) {
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

    fn journal_config(&self) -> JournalConfig {
        let segment_bytes = self.plan.oddities.small_segments.map_or(SEGMENT_BYTES, |(bytes, _)| bytes);
        JournalConfig {
            segment_bytes,
            reserve_bytes: segment_bytes,
            #[cfg(feature = "mutations")]
            mutation: self.planted.and_then(Planted::journal),
            ..JournalConfig::default()
        }
    }

    fn router_config(&self, epoch: u64) -> Config {
        Config {
            router: RouterId([9; 16]),
            epoch,
            seed: self.plan.seed ^ self.life,
            grace: self.plan.grace,
            sealed: Lsn::NONE,
            generation: Generation::default(),
            limits: self.limits(),
            #[cfg(feature = "mutations")]
            mutation: self.planted.and_then(Planted::router),
        }
    }

    /// Of a crowd, only some have room at once: the jobs that are done have to leave, and sinks to keep up.
    fn limits(&self) -> Limits {
        if self.jobs_leave() {
            Limits { jobs_max: JOBS_MAX, unsettled_max: UNSETTLED_MAX, ..Limits::default() }
        } else {
            Limits::default()
        }
    }

    fn jobs_leave(&self) -> bool {
        self.plan.clients.len() > JOBS_MAX as usize
    }

    fn session_config(&self) -> SessionConfig {
        let faults = self.plan.faults.map(|faults| Faults { seed: faults.seed ^ self.life, ..faults });
        let config = SessionConfig {
            incarnation: self.run.as_ref().map_or(0, |run| u64::from(run.journal.epoch().0)),
            boot: self.plan.seed ^ (self.life << 8),
            faults,
            #[cfg(feature = "mutations")]
            mutation: self.planted.and_then(Planted::session),
            ..self.plan.oddities.session_config()
        };
        fit_config(config, Depth::Memory)
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
            if let Outbound::Client(ToClient::Refused { rows: refused, .. }) = &message {
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

/// The disk's chance, as [`MemDisk::crash`] asks for it: whether a file without a durable name stays (of 2), the mood of a
/// file (of 4: 0 loses all, 1 keeps all), what of a sector (of 8: 0 keeps it, 5 loses it).
fn lose_power(disk: &mut MemDisk, left: Left, rng: &mut Rng) {
    let mut sectors = 0;
    disk.crash(&mut |n| match (left, n) {
        (Left::Some, _) => rng.below(n),
        (Left::Nothing, 2) | (Left::All, 4) => 1,
        (Left::Half, 4) => 2,
        (Left::Half, 8) => {
            sectors += 1;
            if sectors % 2 == 1 { 0 } else { 5 }
        }
        (Left::Nothing | Left::Half | Left::All, _) => 0,
    });
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

/// How a process ended, in words.
pub(crate) fn died(power: Option<Left>) -> String {
    match power {
        None => "dies".to_owned(),
        Some(left) => format!("loses power, its disk keeps {left:?} of what was not synced").to_lowercase(),
    }
}

/// Notes what the index knows of the keys in a message.
fn look_up(run: &Running, id: PeerId, inbound: &mut Inbound) {
    let Some(peer) = run.peers.get(&id) else { return };
    let archive = &run.archive;
    peer.port.look_up(inbound, archive.generation(), |key| archive.records(&run.journal, key));
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

fn append(run: &mut Running, env: &mut Env) {
    let payloads: Vec<(u8, Vec<u8>)> = run
        .syncing
        .iter()
        .map(|(_, record)| {
            let mut payload = Vec::new();
            record.encode_into(&mut payload);
            (record.kind(), payload)
        })
        .collect();
    let entries: Vec<Entry<&[u8]>> =
        payloads.iter().map(|(kind, payload)| Entry { kind: *kind, payload: payload.as_slice() }).collect();
    match run.journal.append(Class::Intake, &entries) {
        Ok(last) => {
            let expected = run.syncing.last().map(|(lsn, _)| lsn.0);
            if expected != Some(last.0) {
                env.ledger.violate(format!("the machine counts to {expected:?}, the journal to {}", last.0));
            }
        }
        Err(error) => env.ledger.violate(format!("an append failed on a good disk: {error}")),
    }
}

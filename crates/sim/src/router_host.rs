//! The router's process: the machine, its journal on a disk that fails as disks do, and a port for each session. Here it
//! starts, dies and is put back.

mod journal;
mod serving;

use std::collections::BTreeMap;

use bytes::Bytes;
use sheaf_journal::testing::MemDisk;
use sheaf_journal::{Config as JournalConfig, Epoch, Journal};
use sheaf_roles::port::{RouterPort, fit_config};
use sheaf_roles::router::{Config, Generation, Limits, Lsn, PeerId, Record, Router};
use sheaf_session::{Config as SessionConfig, Depth, Faults, Micros, Place, Receipt, Rng, SessionId};
use sheaf_task::{RouterId, RowId};

use crate::archive::{Ages, Archive};
use crate::env::{Env, Line};
use crate::mutation::Planted;
use crate::network::ConnId;
use crate::plan::{Left, Plan, Who};

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

    fn journal_config(&self) -> JournalConfig {
        let segment_bytes = self.plan.oddities.small_segments.map_or(SEGMENT_BYTES, |(bytes, _)| bytes);
        JournalConfig {
            segment_bytes,
            reserve_bytes: segment_bytes,
            // The wall clock: it goes on whatever copy of the disk is put back.
            epoch_min: Epoch(self.life as u32),
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

    /// Not where the disk goes back in time: jobs that are open again there, and whose clients have ended, hold their
    /// places until somebody cancels them.
    fn jobs_leave(&self) -> bool {
        self.plan.clients.len() > JOBS_MAX as usize && !self.plan.oddities.has_old_journal
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

/// How a process ended, in words.
pub(crate) fn died(power: Option<Left>) -> String {
    match power {
        None => "dies".to_owned(),
        Some(left) => format!("loses power, its disk keeps {left:?} of what was not synced").to_lowercase(),
    }
}

//! Starts the stages of a router, with the queues between them, and ends them in order.
//!
//! ```text
//!   core ─ends─▶ writer ─ends─▶ indexer; the watchdog last. Whoever waits for the core's end joins them all.
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sheaf_journal::{Journal, SegmentId, SegmentView};
use sheaf_net::{Alarm, Clock};
use sheaf_roles::router::{Lsn, Router};
use sheaf_session::Micros;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::compaction::Compaction;
use crate::core::{Core, Ending, Inlets, Input};
use crate::disk::FileDisk;
use crate::finished::Finished;
use crate::gauges::Gauges;
use crate::inbox::Inbox;
use crate::indexer::Indexer;
use crate::limits::Limits;
use crate::pending::Pending;
use crate::pulse::{Pulse, Watchdog};
use crate::server::ServerError;
use crate::stages::{APPENDS, DURABLES, EVENTS, INDEXED, QUESTIONS, SEALS, Stage};
use crate::store::Store;
use crate::writer::{self, AT_ONCE_TIME_MAX, Room, Writer};

/// What every stage may reach.
pub(crate) struct Shared {
    pub clock: Clock,
    pub limits: Limits,
    pub store: Arc<Store>,
    pub finished: Arc<Finished>,
    pub gauges: Arc<Gauges>,
}

/// Where events go in, and how it ended.
pub(crate) type Spawned = (mpsc::Sender<Vec<Input>>, tokio::task::JoinHandle<Result<(), ServerError>>);

/// Starts the core, within the caller's runtime, and the writer, the indexer and the watchdog. The next record is `next`;
/// the index has all up to `indexed`. The core ends soon after `stop` is true.
pub(crate) fn spawn(
    router: Router,
    journal: Journal<FileDisk>,
    (next, indexed): (Lsn, Lsn),
    stop: watch::Receiver<bool>,
    shared: &Shared,
) -> Result<Spawned, std::io::Error> {
    let pulses = [Stage::Core, Stage::Writer, Stage::Indexer].map(Pulse::new);
    let [core_pulse, writer_pulse, indexer_pulse] = pulses.clone();
    let (inputs, from_links) = mpsc::channel(EVENTS.capacity);
    let (to_core, written) = mpsc::channel(DURABLES.capacity);
    let (ask, questions) = mpsc::channel(QUESTIONS.capacity);
    let (tell, from_indexer) = mpsc::channel(INDEXED.capacity);
    let (orders, to_write) = sync_channel(APPENDS.capacity);
    let (seals, to_index) = sync_channel(SEALS.capacity);

    let (sealed, disk) = (journal.sealed_views(), journal.disk().clone());
    let finished = Arc::clone(&shared.finished);
    let compaction = Compaction::new(&journal, shared.limits, ask);
    shared.gauges.set_made(next.0 - 1);
    shared.gauges.set_durable(sheaf_journal::Lsn(next.0 - 1));
    shared.gauges.set_journal_bytes(journal.bytes());
    let writer = Arc::new(Mutex::new(Writer {
        told: told(&sealed, &journal),
        journal,
        store: Arc::clone(&shared.store),
        finished: Arc::clone(&finished),
        written: to_core,
        compaction,
        seals,
        pulse: writer_pulse,
        room: Room::default(),
        gauges: Arc::clone(&shared.gauges),
        unsaid: Vec::new(),
        unmarked: None,
        slow_until: None,
        at_once_max: at_once_max(),
    }));
    let indexer =
        Indexer { disk, finished, sealed, upto: indexed, to_core: tell, pulse: indexer_pulse, has_failed: false };
    let core = Core {
        router,
        clock: shared.clock,
        limits: shared.limits,
        store: Arc::clone(&shared.store),
        inlets: Inlets {
            inbox: Inbox::new(from_links),
            stop,
            written,
            questions,
            indexed: from_indexer,
            alarm: Alarm::default(),
        },
        orders,
        writer: Arc::clone(&writer),
        peers: BTreeMap::new(),
        dirty: BTreeSet::new(),
        pending: Pending::new(next),
        ending: Ending::default(),
        pulse: core_pulse,
        gauges: Arc::clone(&shared.gauges),
        generation: shared.finished.generation(),
    };
    let indexer = named("sheaf-indexer", move || indexer.run(&to_index))?;
    let writer = named("sheaf-writer", move || writer::run(&writer, &to_write))?;
    let ended = start_core(core, writer, indexer, watchdog(pulses, shared))?;
    Ok((inputs, ended))
}

/// A thread that waits for the disk must not be the only one that there is.
fn at_once_max() -> Duration {
    let threads = Handle::current().metrics().num_workers();
    if threads > 1 { AT_ONCE_TIME_MAX } else { Duration::ZERO }
}

/// What the indexer knows of the journal: its oldest segment and the active one.
fn told(sealed: &[SegmentView], journal: &Journal<FileDisk>) -> (SegmentId, SegmentId) {
    let active = journal.active_view().id();
    (sealed.first().map_or(active, |oldest| oldest.id()), active)
}

/// The core is a task among those of the links: one that has an event for it and the one that it has an order for take turns
/// on a thread, where waking another would cost more than what either does.
fn start_core(
    core: Core,
    writer: JoinHandle<()>,
    indexer: JoinHandle<()>,
    watch: impl FnOnce(std::sync::mpsc::Receiver<()>) + Send + 'static,
) -> Result<tokio::task::JoinHandle<Result<(), ServerError>>, std::io::Error> {
    let (stop_watching, stop) = sync_channel(0);
    let watchdog = named("sheaf-watchdog", move || watch(stop))?;
    let core = tokio::spawn(core.run());
    let join = move || {
        let others = [writer.join(), indexer.join()];
        drop(stop_watching);
        watchdog.join().is_ok() && others.iter().all(Result::is_ok)
    };
    Ok(tokio::spawn(async move {
        let outcome = core.await;
        match (outcome, tokio::task::spawn_blocking(join).await) {
            (Ok(outcome), Ok(true)) => outcome.map_err(ServerError::from),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(ServerError::Panicked),
        }
    }))
}

fn watchdog(pulses: [Arc<Pulse>; 3], shared: &Shared) -> impl FnOnce(std::sync::mpsc::Receiver<()>) + Send + 'static {
    let clock = shared.clock;
    let watchdog = Watchdog::new(pulses, Micros::from_ms(shared.limits.stall_ms_max), clock.now());
    move |stop| watchdog.run(clock, &stop)
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, std::io::Error> {
    thread::Builder::new().name(name.into()).spawn(run)
}

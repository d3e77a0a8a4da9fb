//! A router with real files, a real client and a real worker, all in this process; segments small enough that sealing,
//! merging and compaction happen.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sheaf_client::sink::SinkSpec;
use sheaf_client::source::SourceSpec;
use sheaf_client::{Interrupt, JobConfig, Progress, SessionLine, Summary, prepare, run_job};
use sheaf_net::Target;
use sheaf_session::Micros;
use sheaf_task::{Capacity, JobOptions};
use sheaf_worker::{Stop, Work};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::Faults;
use crate::restore::{Restored, restore};
use crate::{Access, DataDir, FileDisk, Limits, Server, ServerConfig, ServerError};

mod full;
mod tenants;

struct World {
    dir: tempfile::TempDir,
    limits: Limits,
    grace: Duration,
    faults: Arc<Faults>,
}

struct Worker {
    task: JoinHandle<()>,
    stop: watch::Sender<Stop>,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), limits, grace: Duration::from_secs(30), faults: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn start(&self) -> Server {
        let config = ServerConfig {
            data: self.path("data"),
            listen: None,
            access: Access::default(),
            grace: self.grace,
            faults: None,
            limits: self.limits,
            disk_faults: Arc::clone(&self.faults),
        };
        Server::start(config).await.unwrap()
    }

    fn rows(&self, name: &str, count: usize) {
        let rows: String = (0..count).map(|n| format!("{name} row {n} {}\n", "x".repeat(180))).collect();
        fs::write(self.path(name), rows).unwrap();
    }

    /// The rows of file `rows`, for whoever offers the service of that name.
    fn job(&self, server: &Server, rows: &str, out: &str) -> JoinHandle<Summary> {
        self.job_at(server.target(), rows, out)
    }

    fn job_at(&self, target: Target, rows: &str, out: &str) -> JoinHandle<Summary> {
        let config = JobConfig {
            name: out.to_owned(),
            source: SourceSpec::new(self.path(rows)),
            sink: SinkSpec::new(self.path(out)),
            service: rows.to_owned(),
            revision: String::new(),
            prompt: None,
            fresh: false,
            share: false,
            limit: None,
            max_failures: None,
            options: JobOptions::default(),
        };
        let line = SessionLine::open(target, None).unwrap();
        tokio::spawn(async move {
            let prepared = tokio::task::spawn_blocking(move || prepare(config, &Interrupt::default()));
            let prepared = prepared.await.unwrap().unwrap();
            run_job(prepared, line, Interrupt::default(), watch::channel(Progress::default()).0).await.unwrap()
        })
    }

    /// Bytes in segments, without what is reserved behind them.
    fn written(&self) -> u64 {
        let used = |bytes: Vec<u8>| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        // One may be dropped between the two looks.
        self.journal(".seg2").iter().filter_map(|path| fs::read(path).ok()).map(used).sum()
    }

    fn journal(&self, ending: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.path("data/journal")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        files.sort();
        files
    }

    /// As files are named: sixteen digits, and the indexes' second sixteen.
    fn last_sealed(&self) -> Option<String> {
        let segments = self.journal(".seg2");
        let sealed = segments.get(segments.len().checked_sub(2)?)?;
        Some(file_name(sealed)[..16].to_owned())
    }

    fn last_indexed(&self) -> String {
        self.journal(".idx2").iter().map(|path| file_name(path)[17..33].to_owned()).max().unwrap_or_default()
    }

    fn restored(&self) -> Restored {
        let dir = DataDir::open(&self.path("data")).unwrap();
        let disk = FileDisk::new(dir.journal());
        restore(disk, dir.router, Micros::from_secs(1), 1, self.limits.segment_bytes).unwrap()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn echo(server: &Server, service: &str) -> Worker {
    let (stop, stopped) = watch::channel(Stop::No);
    let config = sheaf_worker::Config {
        name: format!("worker of {service}"),
        services: vec![service.to_owned()],
        capacity: Capacity { batch: 64, depth: 256, bytes: 0 },
        work: Work::Echo,
        target: server.target(),
        data: None,
        faults: None,
    };
    let task = tokio::spawn(async move {
        sheaf_worker::run(config, stopped).await.unwrap();
    });
    Worker { task, stop }
}

impl Worker {
    async fn stop(self) {
        self.stop.send_replace(Stop::Drain);
        self.task.await.unwrap();
    }
}

async fn stop(server: Server) {
    server.stopper().stop();
    server.ended().await.unwrap();
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        looks.tick().await;
    }
}

fn small() -> Limits {
    Limits { segment_bytes: 64 << 10, recent_bytes: 64 << 10, ..Limits::default() }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

const ROWS: usize = 2_000;

/// A journal of many segments with all of job `a` finished, and a router that has stopped.
async fn finished() -> World {
    let world = World::new(small());
    world.rows("a", ROWS);
    let server = world.start().await;
    let worker = echo(&server, "a");
    let summary = world.job(&server, "a", "first.jsonl").await.unwrap();
    assert_eq!((summary.ended.audit.ok, summary.ended.audit.cached), (ROWS as u64, 0));
    worker.stop().await;
    until("every sealed segment has an index", || world.last_sealed().is_some_and(|last| world.last_indexed() >= last))
        .await;
    stop(server).await;
    world
}

/// There is no worker: whatever is not found is never answered.
async fn all_is_cached(world: &World, out: &str) {
    let server = world.start().await;
    let summary = tokio::time::timeout(Duration::from_secs(60), world.job(&server, "a", out));
    let audit = summary.await.expect("every row is answered from the journal").unwrap().ended.audit;
    assert_eq!((audit.ok, audit.cached, lines(&world.path(out))), (ROWS as u64, ROWS as u64, ROWS));
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_job_is_answered_through_the_index() {
    let world = finished().await;
    let Restored { router, indexed, next, .. } = world.restored();
    assert!(indexed.0 + 1_000 > next.0, "only the last segment is not in the index: {indexed:?} of {next:?}");
    assert!(router.sizes().recent < 1_000, "{:?}", router.sizes());
    all_is_cached(&world, "second.jsonl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_index_files_are_built_again() {
    let world = finished().await;
    world.journal(".idx2").iter().for_each(|path| fs::remove_file(path).unwrap());
    all_is_cached(&world, "second.jsonl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_index_files_are_built_again() {
    let world = finished().await;
    let mut flipped = 0;
    for path in world.journal(".idx2") {
        let mut bytes = fs::read(&path).unwrap();
        // A block, not the header: only reading all of it tells. A segment without keys has none.
        if let Some(byte) = bytes.get_mut(200) {
            *byte ^= 1;
            flipped += 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(flipped > 0);
    all_is_cached(&world, "second.jsonl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_under_a_running_router_costs_time_and_no_answer() {
    let world = finished().await;
    let server = world.start().await;
    for path in world.journal(".idx2") {
        let mut bytes = fs::read(&path).unwrap();
        if bytes.len() > 4_000 {
            bytes[200..4_000].fill(0);
        }
        fs::write(&path, bytes).unwrap();
    }
    let worker = echo(&server, "a");
    let audit = world.job(&server, "a", "second.jsonl").await.unwrap().ended.audit;
    assert_eq!((audit.ok, audit.cached, audit.lost, audit.repeated), (ROWS as u64, ROWS as u64, 0, 0));
    worker.stop().await;
    stop(server).await;
    all_is_cached(&world, "third.jsonl").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_an_index_file_stops_the_router() {
    let world = World::new(small());
    world.rows("a", ROWS);
    world.faults.index_syncs.store(2, Ordering::SeqCst);
    let server = world.start().await;
    let worker = echo(&server, "a");
    let job = world.job(&server, "a", "first.jsonl");
    let ended = tokio::time::timeout(Duration::from_secs(60), server.ended()).await.expect("it stops by itself");
    assert!(matches!(ended, Err(ServerError::Writer(_))), "{ended:?}");
    job.abort();
    worker.task.abort();
    until("whoever joined is gone", || job.is_finished() && worker.task.is_finished()).await;
    // On a disk that can be trusted again everything is there.
    world.faults.index_syncs.store(u64::MAX, Ordering::SeqCst);
    let world = World { grace: Duration::from_secs(3), ..world };
    let server = world.start().await;
    let worker = echo(&server, "a");
    let audit = world.job(&server, "a", "first.jsonl").await.unwrap().ended.audit;
    assert_eq!((audit.ok + audit.resumed, audit.lost, audit.repeated), (ROWS as u64, 0, 0));
    assert_eq!(lines(&world.path("first.jsonl")), ROWS);
    worker.stop().await;
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_takes_what_is_settled_and_nothing_that_is_open() {
    // Few enough for one message: it is on disk as a whole or not at all, also when its client is aborted.
    const OPEN: usize = 200;
    let world = World::new(Limits { retention_ms: 0, ..small() });
    world.rows("open", OPEN);
    world.rows("a", 4 * ROWS);
    let server = world.start().await;
    let waits = world.job(&server, "open", "open.jsonl");
    until("the open rows are written", || world.written() > OPEN as u64 * 200).await;
    let first = world.journal(".seg2").remove(0);
    let worker = echo(&server, "a");
    let summary = world.job(&server, "a", "a.jsonl").await.unwrap();
    assert_eq!(summary.ended.audit.ok, 4 * ROWS as u64);
    worker.stop().await;
    until("the first segment is gone", || !first.exists()).await;
    until("most of the journal is gone", || world.written() < 1 << 20).await;
    waits.abort();
    stop(server).await;

    let restored = world.restored();
    assert_eq!(restored.router.sizes().tasks, OPEN as u64);
    drop(restored);
    let server = world.start().await;
    let worker = echo(&server, "open");
    until("the job is no longer locked", || waits.is_finished()).await;
    let audit = world.job(&server, "open", "open.jsonl").await.unwrap().ended.audit;
    assert_eq!((audit.ok, audit.lost, audit.repeated), (OPEN as u64, 0, 0));
    assert_eq!(lines(&world.path("open.jsonl")), OPEN);
    worker.stop().await;
    stop(server).await;
}

/// A job whose client is gone, but not before all of its rows are on disk.
async fn abandoned(world: &World, rows: &str, out: &str, count: usize) {
    for _ in 0..20 {
        let server = world.start().await;
        let leaves = world.job(&server, rows, out);
        until("rows are written", || world.written() > count as u64 * 200).await;
        leaves.abort();
        until("the client is gone", || leaves.is_finished()).await;
        stop(server).await;
        if world.restored().router.sizes().tasks == count as u64 {
            return;
        }
    }
    panic!("the client never comes to the end of its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_results_that_nobody_has_fetched() {
    // Few enough for one message: it is on disk as a whole or not at all, also when its client is aborted.
    const LATE: usize = 200;
    let mut world = World::new(small());
    world.rows("late", LATE);
    world.rows("a", 4 * ROWS);
    abandoned(&world, "late", "late.jsonl", LATE).await;
    let server = world.start().await;
    let worker = echo(&server, "late");
    // Another job over the same rows is done when every one of their tasks is; the first one's results stay unfetched.
    let other = world.job(&server, "late", "other.jsonl").await.unwrap();
    assert_eq!(other.ended.audit.ok, LATE as u64);
    worker.stop().await;
    stop(server).await;

    world.limits.retention_ms = 0;
    let first = world.journal(".seg2").remove(0);
    let server = world.start().await;
    let worker = echo(&server, "a");
    world.job(&server, "a", "a.jsonl").await.unwrap();
    worker.stop().await;
    until("the results were moved", || !first.exists() && world.written() < 1 << 20).await;
    stop(server).await;

    let server = world.start().await;
    // Without a worker: what a look-up misses is never answered.
    let audit = world.job(&server, "late", "late.jsonl").await.unwrap().ended.audit;
    assert_eq!((audit.ok, audit.lost, audit.repeated), (LATE as u64, 0, 0));
    assert_eq!(lines(&world.path("late.jsonl")), LATE);
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_too_many_is_told_so_and_comes_in_once_there_is_room() {
    let world = World::new(Limits { sessions_max: 2, session_warm_ms: 10, ..small() });
    world.rows("idle", 1);
    world.rows("a", 10);
    let server = world.start().await;
    let idle = world.job(&server, "idle", "idle.jsonl");
    until("the idle row is written", || world.written() > 200).await;
    let worker = echo(&server, "a");
    let waits = world.job(&server, "a", "a.jsonl");
    // Until then there is no room for a worker and two clients.
    idle.abort();
    let summary = tokio::time::timeout(Duration::from_secs(30), waits).await.expect("there is room now").unwrap();
    assert_eq!((summary.ended.audit.ok, summary.ended.audit.lost), (10, 0));
    worker.stop().await;
    stop(server).await;
}

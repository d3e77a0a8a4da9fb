//! One function for each thing that `sheaf bench` measures of a whole cluster: a router and workers as processes of their
//! own, the client in this one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sheaf_net::Target;
use sheaf_task::Capacity;
use sheaf_worker::{Stop, Work};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::floor;
use super::load::{self, Load, Seen};
use super::process::{self, Ground, Process};
use super::report::{Figure, percentile};
use crate::args::WorkersArgs;

/// Tasks on their way where nothing else bounds them.
const ALL: u64 = u64::MAX;

/// Executions at once in the one worker, or in all together, where the command line does not say.
const BATCH: u32 = 4_096;

/// The least that a worker has at once, however many there are.
const BATCH_MIN: u32 = 8;

/// Frames of the floor broker, for a steady rate …
const FLOOR_FRAMES_MAX: usize = 300_000;
/// … but no more bytes of bodies, whatever one has: they go to the disk twice.
const FLOOR_BYTES_MAX: usize = 64 << 20;

fn load(tasks: u64, body: usize) -> Load {
    Load { tasks, body, window: ALL, seed: 1, submit_only: false }
}

/// Client → router → worker → router → client.
pub(super) async fn roundtrip(dir: &Path, tasks: u64, body: usize, workers: WorkersArgs) -> Result<Vec<Figure>> {
    let ground = Ground::new(dir)?;
    let floor = broker_floor(dir, body).await?;
    let (router, join, _) = ground.router()?;
    let WorkersArgs { workers, batch, depth } = workers;
    let workers: Vec<Process> = (0..workers).map(|n| ground.worker(n, &join, batch, depth)).collect::<Result<_>>()?;
    let cpu = || [router.cpu_seconds(), workers.iter().map(Process::cpu_seconds).sum(), process::own_cpu_seconds()];
    let before = cpu();
    let seen = load::run(&join, load(tasks, body)).await?;
    let after = cpu();
    let mut figures = vec![Figure::new("tasks", rate(tasks, seen.time), "/s").against(floor)];
    figures.extend(router_figures(&router, before[0], tasks));
    for (whose, before, after) in [("workers'", before[1], after[1]), ("client's", before[2], after[2])] {
        let spent = after.zip(before).map(|(after, before)| (after - before) * 1e6 / tasks as f64);
        figures.extend(spent.map(|ms| Figure::new(format!("{whose} CPU for 1,000 tasks"), ms, "ms")));
    }
    Ok(figures)
}

/// Tasks a second through the least broker.
async fn broker_floor(dir: &Path, body: usize) -> Result<f64> {
    let frames = (FLOOR_BYTES_MAX / body.max(1)).clamp(1, FLOOR_FRAMES_MAX);
    blocking(dir, move |ground| floor::broker_rate(ground, frames, body)).await
}

/// What the system tells of the router, by task where that makes sense.
fn router_figures(router: &Process, cpu_before: Option<f64>, tasks: u64) -> Vec<Figure> {
    let by_task = |value: f64| value / tasks as f64;
    let cpu = router.cpu_seconds().zip(cpu_before).map(|(after, before)| after - before);
    let all = [
        cpu.map(|seconds| Figure::new("router CPU for 1,000 tasks", by_task(seconds * 1e6), "ms")),
        router.written().map(|bytes| Figure::new("written by the router, a task", by_task(bytes), "bytes")),
        router.rss_max().map(|bytes| Figure::new("router memory at most", bytes / 1e6, "MB")),
    ];
    all.into_iter().flatten().collect()
}

/// One task at a time.
pub(super) async fn latency(dir: &Path, tasks: u64, body: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new(dir)?;
    let [floor_p50, floor_p99] = blocking(dir, |ground| floor::sync_pair(ground, 1_000)).await?;
    let broker = blocking(dir, move |ground| floor::broker_latency(ground, 1_000, body)).await?;
    let (_router, join, _) = ground.router()?;
    let _worker = ground.worker(0, &join, 1, 0)?;
    let mut seen = load::run(&join, Load { window: 1, ..load(tasks, body) }).await?;
    seen.latencies.sort_by(f64::total_cmp);
    let of = |p| percentile(&seen.latencies, p);
    Ok(vec![
        Figure::new("p50", of(0.5), "us").against(floor_p50),
        Figure::new("p50, beside that of the floor's broker", of(0.5), "us").against(broker),
        Figure::new("p99", of(0.99), "us").against(floor_p99),
        Figure::new("p99.9", of(0.999), "us"),
    ])
}

/// Submitted while nobody works; then the router is killed and started again.
pub(super) async fn backlog(dir: &Path, tasks: u64, body: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new(dir)?;
    let bytes = tasks as usize * body;
    let floor = blocking(dir, move |ground| floor::append_rate(ground, bytes)).await? / body as f64;
    let (router, join, _) = ground.router()?;
    let before = router.cpu_seconds();
    let seen = load::run(&join, Load { submit_only: true, ..load(tasks, body) }).await?;
    let mut figures = vec![Figure::new("submitted", rate(tasks, seen.time), "/s").against(floor)];
    figures.extend(tenths(&seen, tasks));
    figures.extend(router_figures(&router, before, tasks));
    figures.push(Figure::new("on disk, a task", ground.router_bytes()? / tasks as f64, "bytes"));
    router.kill();
    let (_router, _, took) = ground.router()?;
    figures.push(Figure::new("ready again after kill -9", took.as_secs_f64(), "s"));
    Ok(figures)
}

/// The rate of the second and of the last tenth: the first one warms up.
fn tenths(seen: &Seen, tasks: u64) -> [Figure; 2] {
    let of = |from: u64, to: u64| {
        let time = seen.when(to).saturating_sub(seen.when(from));
        rate(to - from, time)
    };
    [
        Figure::new("submitted, second tenth", of(tasks / 10, tasks / 5), "/s"),
        Figure::new("submitted, last tenth", of(tasks - tasks / 10, tasks), "/s"),
    ]
}

/// Many connections, each a worker; all of them in this process.
pub(super) async fn fan(dir: &Path, tasks: u64, connections: &[u32], batch: Option<u32>) -> Result<Vec<Figure>> {
    let mut figures: Vec<Figure> = Vec::new();
    for workers in connections {
        let ground = Ground::new(dir)?;
        let (_router, join, _) = ground.router()?;
        let batch = batch.unwrap_or((BATCH / workers).max(BATCH_MIN));
        let crowd = Crowd::gather(&join, *workers, batch).await?;
        let warm = load::run(&join, Load { seed: 2, ..load(u64::from(*workers) * 10, 200) });
        warm.await.context("warming up")?;
        let seen = load::run(&join, load(tasks, 200)).await?;
        crowd.leave().await?;
        let figure = Figure::new(format!("tasks, {workers} workers"), rate(tasks, seen.time), "/s");
        let first = figures.first().map_or(figure.value, |first| first.value);
        figures.push(figure.against(first));
    }
    Ok(figures)
}

/// Workers of this process.
struct Crowd {
    workers: JoinSet<Result<sheaf_worker::Summary, sheaf_worker::WorkerError>>,
    stop: watch::Sender<Stop>,
}

impl Crowd {
    async fn gather(join: &str, workers: u32, batch: u32) -> Result<Self> {
        let (stop, stopped) = watch::channel(Stop::No);
        let mut set = JoinSet::new();
        for n in 0..workers {
            let config = sheaf_worker::Config {
                name: format!("bench-{n}"),
                services: vec![super::SERVICE.to_owned()],
                capacity: Capacity { batch, depth: batch, bytes: 0 },
                work: Work::Echo,
                target: Target::tcp(join).await?,
                data: None,
                faults: None,
            };
            set.spawn(sheaf_worker::run(config, stopped.clone()));
        }
        Ok(Self { workers: set, stop })
    }

    async fn leave(mut self) -> Result<()> {
        self.stop.send_replace(Stop::Drain);
        while let Some(ended) = self.workers.join_next().await {
            ended.context("a worker panicked")??;
        }
        Ok(())
    }
}

/// Many small jobs; the floor knows none, and has as many tasks.
pub(super) async fn jobs(dir: &Path, jobs: u64, tasks: u64, at_once: u32) -> Result<Vec<Figure>> {
    const BODY: usize = 200;
    let floor = broker_floor(dir, BODY).await?;
    let ground = Ground::new(dir)?;
    let (_router, join, _) = ground.router()?;
    let _worker = ground.worker(0, &join, BATCH, BATCH)?;
    let (slots, since, mut running) = (Arc::new(Semaphore::new(at_once as usize)), Instant::now(), JoinSet::new());
    for seed in 1..=jobs {
        let (join, slot) = (join.clone(), Arc::clone(&slots).acquire_owned().await?);
        running.spawn(async move {
            let seen = load::run(&join, Load { seed, ..load(tasks, BODY) }).await;
            drop(slot);
            seen
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a job panicked")??;
    }
    let took = since.elapsed();
    let tasks = Figure::new("tasks", rate(jobs * tasks, took), "/s").against(floor);
    Ok(vec![Figure::new("jobs", rate(jobs, took), "/s"), tasks])
}

/// The rows of a finished job, submitted by another.
pub(super) async fn cached(dir: &Path, tasks: u64, body: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new(dir)?;
    let (_router, join, _) = ground.router()?;
    let _worker = ground.worker(0, &join, BATCH, BATCH)?;
    let first = load::run(&join, load(tasks, body)).await?;
    let seen = load::run(&join, load(tasks, body)).await?;
    Ok(vec![
        Figure::new("tasks, executed", rate(tasks, first.time), "/s"),
        Figure::new("tasks, cached", rate(tasks, seen.time), "/s").against(rate(tasks, first.time)),
        Figure::new("of them answered without execution", seen.cached as f64, "tasks"),
    ])
}

fn rate(tasks: u64, time: Duration) -> f64 {
    tasks as f64 / time.as_secs_f64()
}

/// Measures a floor, beside the runtime.
async fn blocking<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce(&Ground) -> Result<T> + Send + 'static,
) -> Result<T> {
    let ground = Ground::new(dir)?;
    let measured = tokio::task::spawn_blocking(move || work(&ground)).await.context("a thread panicked")?;
    measured.with_context(|| floor::failed_in(dir))
}

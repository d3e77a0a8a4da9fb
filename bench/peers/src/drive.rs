//! The three measures, the same for every peer: `roundtrip`, `latency`, `backlog`. Knows no server by name.
//!
//! Invariant: a run fails where an answer is wrong or comes twice; its figure counts tasks whose answer came back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::peer::{Link, Peer};
use crate::server::Server;
use crate::table::{Backlog, Latency, Roundtrip, percentile};

/// What to send.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) tasks: u64,
    pub(crate) body: usize,
}

/// A producer stops after so long: a slow peer is measured by what it did until then.
const SUBMIT_MAX: Duration = Duration::from_secs(30);

/// Batches that may be submitted and not answered: a server shall not be slowed by a backlog that nobody asked for.
const AHEAD_BATCHES: u64 = 20;

/// How often a producer that waits for answers looks whether another side failed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A run that takes longer has failed.
const RUN_MAX: Duration = Duration::from_secs(300);

/// Where the three sides of a run meet.
struct Progress {
    since: Instant,
    wanted: AtomicU64,
    worked: AtomicU64,
    answered: Mutex<u64>,
    further: Condvar,
    over: AtomicBool,
}

impl Progress {
    fn new(tasks: u64) -> Self {
        Self {
            since: Instant::now(),
            wanted: AtomicU64::new(tasks),
            worked: AtomicU64::new(0),
            answered: Mutex::new(0),
            further: Condvar::new(),
            over: AtomicBool::new(false),
        }
    }

    fn on_answered(&self, count: u64) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = count;
        self.further.notify_one();
    }

    /// Waits until so many are answered.
    fn wait_answered(&self, count: u64) -> Result<()> {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        while *answered < count {
            self.check()?;
            let waited = self.further.wait_timeout(answered, LOOK_EVERY);
            answered = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Fails when another side has, so that no side waits for one that is gone.
    fn check(&self) -> Result<()> {
        ensure!(!self.over.load(Ordering::SeqCst), "another side of the run failed");
        ensure!(self.since.elapsed() < RUN_MAX, "no end after {} s", RUN_MAX.as_secs());
        Ok(())
    }

    fn told<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.over.store(true, Ordering::SeqCst);
        }
        result
    }
}

/// Producer → server → worker → server → producer.
pub(crate) fn roundtrip(peer: &dyn Peer, server: &Server, load: Load) -> Result<Roundtrip> {
    let profile = peer.profile();
    let (mut producer, mut collector) = (peer.connect(server)?, peer.connect(server)?);
    let mut workers = (0..profile.workers).map(|_| peer.connect(server)).collect::<Result<Vec<_>>>()?;
    let (cpu, written) = (server.cpu_seconds(), server.written());
    let progress = Progress::new(load.tasks);
    let (shared, batch) = (&progress, profile.batch);
    let took = thread::scope(|scope| {
        let submitting = scope.spawn(|| {
            let ahead = AHEAD_BATCHES * batch as u64;
            shared.told(submit(producer.as_mut(), load, batch, ahead, shared))
        });
        let mut sides = vec![submitting];
        for worker in &mut workers {
            sides.push(scope.spawn(move || shared.told(work(worker.as_mut(), batch, shared))));
        }
        let took = shared.told(collect(collector.as_mut(), load, batch, shared));
        for side in sides {
            side.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        took
    })?;
    let tasks = progress.wanted() as f64;
    Ok(Roundtrip {
        rate: tasks / took.as_secs_f64(),
        cpu_ms: (server.cpu_seconds() - cpu) * 1e6 / tasks,
        written: (server.written() - written) / tasks,
        floor: None,
    })
}

/// Hands over all tasks, or what the time allows, and is never further ahead of the answers than `ahead`.
fn submit(link: &mut dyn Link, load: Load, batch: usize, ahead: u64, progress: &Progress) -> Result<()> {
    let mut number: u64 = 0;
    while number < load.tasks && progress.since.elapsed() < SUBMIT_MAX {
        progress.check()?;
        progress.wait_answered(number.saturating_sub(ahead))?;
        let next = (number + batch as u64).min(load.tasks);
        let bodies: Vec<Vec<u8>> = (number..next).map(|number| body(number, load.body)).collect();
        link.submit(&bodies)?;
        number = next;
    }
    link.settle()?;
    progress.wanted.store(number, Ordering::SeqCst);
    Ok(())
}

fn work(link: &mut dyn Link, batch: usize, progress: &Progress) -> Result<()> {
    while progress.worked.load(Ordering::SeqCst) < progress.wanted() {
        progress.check()?;
        progress.worked.fetch_add(link.work(batch)? as u64, Ordering::SeqCst);
    }
    Ok(())
}

fn collect(link: &mut dyn Link, load: Load, batch: usize, progress: &Progress) -> Result<Duration> {
    let mut seen = Seen { answered: vec![false; load.tasks as usize], count: 0, body: load.body };
    while seen.count < progress.wanted() {
        progress.check()?;
        for result in link.collect(batch)? {
            seen.take(&result)?;
        }
        progress.on_answered(seen.count);
    }
    Ok(progress.since.elapsed())
}

/// One task at a time.
pub(crate) fn latency(peer: &dyn Peer, server: &Server, load: Load) -> Result<Latency> {
    let (mut producer, mut collector, mut worker) =
        (peer.connect(server)?, peer.connect(server)?, peer.connect(server)?);
    let progress = Progress::new(load.tasks);
    let mut took = thread::scope(|scope| {
        let working = scope.spawn(|| progress.told(work(worker.as_mut(), 1, &progress)));
        let took = progress.told(ping(producer.as_mut(), collector.as_mut(), load, &progress));
        working.join().map_err(|_| anyhow!("a thread panicked"))??;
        took
    })?;
    took.sort_by(f64::total_cmp);
    Ok(Latency { p50: percentile(&took, 0.5), p99: percentile(&took, 0.99) })
}

/// Microseconds of each. What comes back last may still be on its way out of the queue: that is not counted.
fn ping(producer: &mut dyn Link, collector: &mut dyn Link, load: Load, progress: &Progress) -> Result<Vec<f64>> {
    let mut seen = Seen { answered: vec![false; load.tasks as usize], count: 0, body: load.body };
    let mut took = Vec::with_capacity(load.tasks as usize);
    for number in 0..load.tasks {
        let since = Instant::now();
        producer.submit(&[body(number, load.body)])?;
        producer.settle()?;
        while seen.count <= number {
            progress.check()?;
            for result in collector.collect(1)? {
                seen.take(&result)?;
            }
        }
        took.push(since.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// Submitted while nobody works.
pub(crate) fn backlog(peer: &dyn Peer, server: &Server, load: Load) -> Result<Backlog> {
    let mut producer = peer.connect(server)?;
    let (cpu, progress) = (server.cpu_seconds(), Progress::new(load.tasks));
    submit(producer.as_mut(), load, peer.profile().batch, load.tasks, &progress)?;
    let (took, tasks) = (progress.since.elapsed(), progress.wanted() as f64);
    Ok(Backlog {
        rate: tasks / took.as_secs_f64(),
        cpu_ms: (server.cpu_seconds() - cpu) * 1e6 / tasks,
        tasks,
        memory: server.memory(),
        disk: server.disk_bytes()? / tasks,
        floor: None,
    })
}

/// The number, then filler.
fn body(number: u64, len: usize) -> Vec<u8> {
    let mut body = vec![b'x'; len];
    body[..NUMBER].copy_from_slice(&number.to_be_bytes());
    body
}

/// Bytes of a body that say which it is.
pub(crate) const NUMBER: usize = 8;

/// Which answers came.
struct Seen {
    answered: Vec<bool>,
    count: u64,
    body: usize,
}

impl Seen {
    fn take(&mut self, result: &[u8]) -> Result<()> {
        let number = result.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let known = number.filter(|number| body(*number, self.body) == result);
        let slot = known.and_then(|number| self.answered.get_mut(number as usize));
        let Some(slot) = slot else { anyhow::bail!("a wrong answer: {result:?}") };
        ensure!(!std::mem::replace(slot, true), "an answer came twice: {number:?}");
        self.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_and_repeated_answers_fail_a_run() {
        let mut seen = Seen { answered: vec![false; 2], count: 0, body: 16 };
        assert!(seen.take(&body(1, 16)).is_ok());
        assert!(seen.take(&body(1, 16)).is_err());
        assert!(seen.take(&body(0, 15)).is_err());
        assert!(seen.take(&body(2, 16)).is_err());
        assert_eq!(seen.count, 1);
    }
}

//! Ready tasks: per service a ring of jobs, per job lists by length. Round robin between jobs by weight; within a job
//! the order that it asked for.
//!
//! It deliberately knows no worker. Invariants: a job is in its service's ring, or waits for its rate, or has nothing
//! ready; choosing a task looks at the heads of at most [`BUCKETS`] lists, whatever waits behind them.

use std::collections::{BTreeSet, VecDeque};

use sheaf_session::Micros;
use sheaf_task::{Order, Tokens};

use super::Router;
use super::jobs::Job;
use super::record::JobNo;
use super::slab::{Ix, List, Moment, Spot, Tasks};
use super::workers::{Room, ServiceNo, WorkerNo};

/// List 0 takes what is handed out as it came; list 1 + n the bodies of 2^n bytes and more.
pub(super) const BUCKETS: usize = 22;

/// Rows after which `auto` judges whether lengths differ.
const MIXED_ROWS: u64 = 64;

/// Cost of one task in a job's rate account: micro-seconds times tasks per 1,000 s.
const RATE_COST: u64 = 1_000_000_000;

/// The ready tasks of one job.
#[derive(Debug, Default)]
pub(super) struct Ready {
    lists: [List; BUCKETS],
    pub(super) len: u32,
    /// In the ring of its service, or waiting for its rate.
    queued: bool,
    /// Tasks that it may still hand out in this turn.
    turn: u32,
    /// Lengths seen, as powers of two: count, sum, sum of squares.
    lengths: (u64, u64, u64),
    /// Rate account, and when it was last filled.
    rate: (u64, Micros),
    /// Tasks that are being executed.
    pub(super) running: u64,
}

/// A service: who asks for it and who can do it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    /// Workers on record that can do it.
    pub(super) workers: u32,
    /// Workers with room, by what for.
    pub(super) room: [Vec<WorkerNo>; Room::ALL.len()],
    /// Workers that something waits behind.
    pub(super) behind: BTreeSet<WorkerNo>,
    /// Jobs with ready tasks, next first.
    ring: VecDeque<JobNo>,
    /// Tasks that are to run alone.
    pub(super) suspects: List,
    /// Ready tasks of all its jobs.
    pub(super) ready: u32,
    /// Milliseconds that a task of a length took lately; 0: not seen.
    took: [u32; BUCKETS],
    /// What its answers cost since this router started.
    pub(super) tokens: Tokens,
}

impl Service {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            workers: 0,
            room: Default::default(),
            behind: BTreeSet::new(),
            ring: VecDeque::new(),
            suspects: List::default(),
            ready: 0,
            took: [0; BUCKETS],
            tokens: Tokens::default(),
        }
    }

    /// A job with nothing ready left.
    pub(super) fn forget(&mut self, job: JobNo) {
        self.ring.retain(|queued| *queued != job);
    }

    /// Something is ready for a worker.
    pub(super) fn has_ready(&self) -> bool {
        !self.ring.is_empty() || self.suspects.len > 0
    }

    /// Learns from an outcome.
    pub(super) fn learn(&mut self, len: u32, ms: u64) {
        let took = &mut self.took[length_bucket(len)];
        let ms = u32::try_from(ms.max(1)).unwrap_or(u32::MAX / 8);
        *took = if *took == 0 { ms } else { (u64::from(*took) * 7 / 8 + u64::from(ms) / 8).max(1) as u32 };
    }

    /// Expected length of a task of this list: learned, scaled from the nearest that was, or the body's own length.
    fn expected(&self, bucket: usize) -> u64 {
        let seen = |at: usize| self.took.get(at).copied().filter(|ms| *ms > 0).map(|ms| (at, u64::from(ms)));
        let nearest = (0..BUCKETS).find_map(|away| seen(bucket + away).or_else(|| seen(bucket.checked_sub(away)?)));
        match nearest {
            Some((at, ms)) if at <= bucket => ms.saturating_mul(1 << (bucket - at)),
            Some((at, ms)) => (ms >> (at - bucket)).max(1),
            None => 1 << bucket,
        }
    }
}

fn length_bucket(len: u32) -> usize {
    (1 + len.max(1).ilog2() as usize).min(BUCKETS - 1)
}

impl Job {
    fn bucket_of(&self, len: u32) -> usize {
        match self.spec.options.order {
            Order::Fifo => 0,
            Order::Shortest => length_bucket(len),
            Order::Auto if self.ready.is_mixed() => length_bucket(len),
            Order::Auto => 0,
        }
    }

    /// The list to take from: the one whose head came first, or with `shortest` the one whose head has waited longest
    /// for its length (so that nothing starves).
    fn next_bucket(&self, tasks: &Tasks, service: &Service, now: Micros) -> Option<usize> {
        let heads = self.ready.lists.iter().enumerate().filter(|(_, list)| list.len > 0);
        match self.spec.options.order {
            Order::Fifo | Order::Auto => {
                heads.min_by_key(|(_, list)| tasks.row(list.head).body).map(|(bucket, _)| bucket)
            }
            Order::Shortest => {
                let ratio = |bucket: usize, list: &List| {
                    let waited = tasks.row(list.head).since.age(now).as_ms();
                    (waited, service.expected(bucket))
                };
                let urgent = |a: (u64, u64), b: (u64, u64)| {
                    let (left, right) = (u128::from(a.0) * u128::from(b.1), u128::from(b.0) * u128::from(a.1));
                    left > right
                };
                heads
                    .map(|(bucket, list)| (bucket, ratio(bucket, list)))
                    .reduce(|best, other| if urgent(other.1, best.1) { other } else { best })
                    .map(|(bucket, _)| bucket)
            }
        }
    }
}

impl Ready {
    /// It has a place in the ring of its service, or waits for its rate.
    pub(super) fn is_queued(&self) -> bool {
        self.queued
    }

    /// Standard deviation of the lengths is above one and a half powers of two.
    fn is_mixed(&self) -> bool {
        let (count, sum, squares) = self.lengths;
        count >= MIXED_ROWS && (squares * count).saturating_sub(sum * sum) * 4 > 9 * count * count
    }

    pub(super) fn note_length(&mut self, len: u32) {
        let power = u64::from(len.max(1).ilog2());
        let (count, sum, squares) = self.lengths;
        // Halved now and then, so that it follows the job and never overflows.
        let (count, sum, squares) =
            if count >= 1 << 16 { (count / 2, sum / 2, squares / 2) } else { (count, sum, squares) };
        self.lengths = (count + 1, sum + power, squares + power * power);
    }

    /// Tasks that the rate allows now, or when it allows the next.
    fn allowance(&mut self, millihertz: u64, now: Micros) -> Result<u32, Micros> {
        if millihertz == 0 {
            return Ok(u32::MAX);
        }
        let (account, filled) = self.rate;
        let most = RATE_COST.max(millihertz.saturating_mul(1_000_000));
        let account = account.saturating_add(now.since(filled).0.saturating_mul(millihertz)).min(most);
        self.rate = (account, now);
        match u32::try_from(account / RATE_COST).unwrap_or(u32::MAX) {
            0 => Err(now + Micros((RATE_COST - account).div_ceil(millihertz).max(1))),
            tasks => Ok(tasks),
        }
    }
}

/// Where in its list a task becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Behind all: it is new, or was tried.
    Back,
    /// Before all: it had its turn already and nothing came of it.
    Front,
}

impl Router {
    /// Puts a task that is nowhere into the queue that it belongs into.
    pub(super) fn enqueue(&mut self, ix: Ix, end: End) {
        let (now, row) = (self.time.now, self.tasks.row(ix));
        let (job_no, len) = (row.job, row.len);
        assert!(row.spot == Spot::Idle, "a task is in one place at a time");
        let service = self.jobs.job(job_no).service;
        self.workers_active.insert(service);
        self.tasks.row_mut(ix).since = Moment::of(now);
        if self.tasks.cold(ix).deaths > 0 {
            self.tasks.row_mut(ix).spot = Spot::Suspect;
            self.tasks.push_back(&mut self.workers.service_mut(service).suspects, ix);
            return;
        }
        let job = self.jobs.job_mut(job_no);
        let bucket = job.bucket_of(len);
        let row = self.tasks.row_mut(ix);
        (row.spot, row.bucket) = (Spot::Ready, bucket as u8);
        let list = &mut job.ready.lists[bucket];
        match end {
            End::Back => self.tasks.push_back(list, ix),
            End::Front => self.tasks.push_front(list, ix),
        }
        job.ready.len += 1;
        let service = self.workers.service_mut(service);
        service.ready += 1;
        if !job.ready.queued {
            job.ready.queued = true;
            service.ring.push_back(job_no);
        }
    }

    /// Takes a ready task out of its job's lists.
    pub(super) fn unqueue(&mut self, ix: Ix) {
        let row = self.tasks.row(ix);
        let (job, bucket) = (row.job, usize::from(row.bucket));
        let job = self.jobs.job_mut(job);
        self.tasks.unlink(&mut job.ready.lists[bucket], ix);
        job.ready.len -= 1;
        self.workers.service_mut(job.service).ready -= 1;
        self.tasks.row_mut(ix).spot = Spot::Idle;
    }

    /// Takes up to `want` ready tasks and `bytes` of bodies (but one at least) of a service: similar lengths together,
    /// jobs in turn.
    pub(super) fn take_ready(&mut self, service: ServiceNo, want: u32, bytes: u64) -> Vec<Ix> {
        let (mut taken, mut total) = (Vec::new(), 0);
        while (taken.len() as u32) < want {
            let Some(job_no) = self.workers.service(service).ring.front().copied() else { break };
            let left = want - taken.len() as u32;
            let before = taken.len();
            if self.jobs.job(job_no).ready.len > 0 && self.jobs.job(job_no).records.cancelled.is_none() {
                match self.turn_of(job_no) {
                    Ok(turn) => self.take_of(job_no, turn.min(left), bytes, &mut total, &mut taken),
                    Err(due) => {
                        self.workers.service_mut(service).ring.pop_front();
                        self.jobs.rated.insert((due, job_no));
                        continue;
                    }
                }
            }
            let ready = self.jobs.job(job_no).ready.len > 0 && self.jobs.job(job_no).records.cancelled.is_none();
            let full = taken.len() == before && ready;
            self.end_turn(service, job_no, (taken.len() - before) as u32);
            if full {
                break;
            }
        }
        taken
    }

    /// Tasks that a job may hand out before the next has its turn.
    fn turn_of(&mut self, job_no: JobNo) -> Result<u32, Micros> {
        let now = self.time.now;
        let job = self.jobs.job_mut(job_no);
        if job.ready.turn == 0 {
            job.ready.turn = job.spec.options.weight.clamp(1, WEIGHT_MAX);
        }
        let allowed = job.ready.allowance(job.spec.options.rate_millihertz, now)?;
        Ok(job.ready.turn.min(allowed))
    }

    fn take_of(&mut self, job_no: JobNo, want: u32, bytes: u64, total: &mut u64, taken: &mut Vec<Ix>) {
        for _ in 0..want {
            let job = self.jobs.job(job_no);
            let service = self.workers.service(job.service);
            let like = taken.last().map(|ix| usize::from(self.tasks.row(*ix).bucket));
            let like = like.filter(|bucket| job.ready.lists[*bucket].len > 0 && *bucket > 0);
            let Some(bucket) = like.or_else(|| job.next_bucket(&self.tasks, service, self.time.now)) else { return };
            let ix = job.ready.lists[bucket].head;
            let len = u64::from(self.tasks.row(ix).len);
            if *total + len > bytes && !taken.is_empty() {
                return;
            }
            *total += len;
            self.unqueue(ix);
            taken.push(ix);
        }
    }

    fn end_turn(&mut self, service: ServiceNo, job_no: JobNo, used: u32) {
        let ready = &mut self.jobs.job_mut(job_no).ready;
        ready.turn = ready.turn.saturating_sub(used);
        if self.jobs.job(job_no).spec.options.rate_millihertz > 0 {
            let account = &mut self.jobs.job_mut(job_no).ready.rate.0;
            *account = account.saturating_sub(u64::from(used) * RATE_COST);
        }
        let cancelled = self.jobs.job(job_no).records.cancelled.is_some();
        let ready = &mut self.jobs.job_mut(job_no).ready;
        let ring = &mut self.workers.service_mut(service).ring;
        if ready.len == 0 || cancelled {
            (ready.queued, ready.turn) = (false, 0);
            ring.pop_front();
        } else if ready.turn == 0 {
            ring.rotate_left(1);
        }
    }

    /// Jobs whose rate allows a task again take their place in the ring.
    pub(super) fn admit_rated(&mut self) {
        while let Some((due, job_no)) = self.jobs.rated.first().copied() {
            if due > self.time.now {
                break;
            }
            self.jobs.rated.pop_first();
            let service = self.jobs.job(job_no).service;
            self.workers.service_mut(service).ring.push_back(job_no);
            self.workers_active.insert(service);
        }
    }
}

/// A job's share of a service's turns is at most this many times another's.
const WEIGHT_MAX: u32 = 1_000;

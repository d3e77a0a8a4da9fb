//! The jobs that calls are rows of: one per service, revision and time-limit, opened when it is first wanted.
//!
//! A job's id is derived from what it stands for, so that a door that starts again takes up what the last one left. A
//! job that an operator cancelled is followed by the next *generation* of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sheaf_session::Micros;
use sheaf_task::{JobId, JobInfo, JobOptions, JobSpec, KeyHasher, KeySecret, Order, RouterId, RowId, ToRouter};

use super::limits::{IDLE, JOBS_MAX};
use super::types::JobKey;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its calls wait for the router's answer.
    Opening,
    /// Its calls are submitted.
    Open,
}

/// One job.
pub(super) struct Job {
    pub(super) key: JobKey,
    pub(super) stage: Stage,
    generation: u32,
    /// Up to here its results are dealt with; counted by `router`.
    pub(super) cursor: u64,
    router: Option<RouterId>,
    pub(super) hasher: KeyHasher,
    /// Calls to be submitted.
    pub(super) queue: VecDeque<RowId>,
    /// Calls under way, those of the queue among them.
    pub(super) calls: usize,
    /// Since when it has none.
    idle_since: Option<Micros>,
    /// The router knows that nothing more comes for now.
    is_scanned: bool,
}

/// What every job of a tenant has in common.
pub(super) struct Tenant {
    pub(super) app: String,
    pub(super) secret: KeySecret,
    pub(super) retries: u32,
}

/// All of them.
pub(super) struct Jobs {
    tenant: Tenant,
    by_key: BTreeMap<JobKey, JobId>,
    by_id: BTreeMap<JobId, Job>,
    /// Open, with calls to submit.
    ready: BTreeSet<JobId>,
}

impl Jobs {
    pub(super) fn new(tenant: Tenant) -> Self {
        Self { tenant, by_key: BTreeMap::new(), by_id: BTreeMap::new(), ready: BTreeSet::new() }
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.by_id.get_mut(&id)
    }

    /// Before a job of this key is added, where there is no room: the one that has been without calls for longest is
    /// forgotten here. Returned if the router is to be told that it is at its end.
    pub(super) fn make_room(&mut self, key: &JobKey) -> Option<JobId> {
        if self.by_id.len() < JOBS_MAX || self.by_key.contains_key(key) {
            return None;
        }
        let idle = self.by_id.iter().filter_map(|(id, job)| Some((job.idle_since?, *id)));
        let (_, id) = idle.min()?;
        self.forget(id).filter(|job| job.stage == Stage::Open && !job.is_scanned).map(|_| id)
    }

    /// The job of a key, and whether it is to be opened; `None` when there are too many.
    pub(super) fn find_or_add(&mut self, now: Micros, key: &JobKey) -> Option<(JobId, bool)> {
        if let Some(id) = self.by_key.get(key) {
            return Some((*id, false));
        }
        if self.by_id.len() >= JOBS_MAX {
            return None;
        }
        Some((self.add(now, key.clone(), 0), true))
    }

    fn add(&mut self, now: Micros, key: JobKey, generation: u32) -> JobId {
        let id = job_id(&self.tenant.app, &key, generation);
        let Tenant { app, secret, retries: _ } = &self.tenant;
        let hasher = KeyHasher::new(secret, app, &key.service, &key.revision, b"");
        self.by_key.insert(key.clone(), id);
        let job = Job {
            key,
            stage: Stage::Opening,
            generation,
            cursor: 0,
            router: None,
            hasher,
            queue: VecDeque::new(),
            calls: 0,
            idle_since: Some(now),
            is_scanned: false,
        };
        self.by_id.insert(id, job);
        id
    }

    /// The job is at its end for good: its calls go to the one that follows it.
    pub(super) fn follow(&mut self, now: Micros, id: JobId) -> Option<JobId> {
        let Job { key, generation, .. } = self.forget(id)?;
        Some(self.add(now, key, generation.wrapping_add(1)))
    }

    /// Takes a job from the books.
    pub(super) fn forget(&mut self, id: JobId) -> Option<Job> {
        self.ready.remove(&id);
        let job = self.by_id.remove(&id)?;
        self.by_key.remove(&job.key);
        Some(job)
    }

    /// What opens a job, or takes it up again.
    pub(super) fn open_message(&self, id: JobId) -> Option<ToRouter> {
        let job = self.by_id.get(&id)?;
        let JobKey { service, revision, timeout_ms } = job.key.clone();
        let options =
            JobOptions { timeout_ms, retries: self.tenant.retries, order: Order::Fifo, ..JobOptions::default() };
        Some(ToRouter::OpenJob(JobSpec {
            job: id,
            name: job_name(&job.key, job.generation),
            service,
            revision,
            nonce: bytes::Bytes::new(),
            cursor: job.cursor,
            cursor_router: job.router,
            options,
        }))
    }

    /// The router has it open.
    pub(super) fn on_opened(&mut self, id: JobId, router: RouterId, cursor: u64) {
        let Some(job) = self.by_id.get_mut(&id) else { return };
        if job.router != Some(router) {
            job.cursor = cursor;
        }
        (job.router, job.stage) = (Some(router), Stage::Open);
        self.note_ready(id);
    }

    /// Another session: every job is to be opened again, and nothing is queued.
    pub(super) fn on_lost(&mut self) -> Vec<JobId> {
        self.ready.clear();
        for job in self.by_id.values_mut() {
            job.stage = Stage::Opening;
            job.queue.clear();
        }
        self.by_id.keys().copied().collect()
    }

    /// The router does not know it any more; whether it is to be told of it.
    pub(super) fn reopen(&mut self, id: JobId) -> bool {
        let Some(job) = self.by_id.get_mut(&id) else { return false };
        let was_open = job.stage == Stage::Open;
        job.stage = Stage::Opening;
        self.ready.remove(&id);
        was_open
    }

    /// One more call of a job.
    pub(super) fn begin(&mut self, id: JobId) {
        if let Some(job) = self.by_id.get_mut(&id) {
            job.calls += 1;
            (job.idle_since, job.is_scanned) = (None, false);
        }
    }

    /// One less.
    pub(super) fn end(&mut self, now: Micros, id: JobId) {
        if let Some(job) = self.by_id.get_mut(&id) {
            job.calls = job.calls.saturating_sub(1);
            if job.calls == 0 {
                job.idle_since = Some(now);
            }
        }
    }

    /// A call is to be submitted, after those that wait already.
    pub(super) fn queue(&mut self, id: JobId, row: RowId) {
        if let Some(job) = self.by_id.get_mut(&id) {
            job.queue.push_back(row);
        }
        self.note_ready(id);
    }

    fn note_ready(&mut self, id: JobId) {
        let is_ready = self.by_id.get(&id).is_some_and(|job| job.stage == Stage::Open && !job.queue.is_empty());
        if is_ready {
            self.ready.insert(id);
        } else {
            self.ready.remove(&id);
        }
    }

    /// A job with calls to submit. Each is asked in turn: `submitted` puts it behind the others.
    pub(super) fn next_ready(&self, after: Option<JobId>) -> Option<JobId> {
        let later = after.and_then(|after| {
            self.ready.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded)).next().copied()
        });
        later.or_else(|| self.ready.first().copied())
    }

    pub(super) fn submitted(&mut self, id: JobId) {
        self.note_ready(id);
    }

    /// Jobs that have been without calls for long, once each.
    pub(super) fn take_idle(&mut self, now: Micros) -> Vec<JobId> {
        let mut idle = Vec::new();
        for (id, job) in &mut self.by_id {
            let is_idle = job.idle_since.is_some_and(|since| now.since(since) >= IDLE);
            if is_idle && job.stage == Stage::Open && !job.is_scanned {
                job.is_scanned = true;
                idle.push(*id);
            }
        }
        idle
    }
}

/// The same for the same job, in every life of the door.
fn job_id(app: &str, key: &JobKey, generation: u32) -> JobId {
    let mut hasher = blake3::Hasher::new_derive_key("sheaf edge 1: job of online calls");
    for part in [app.as_bytes(), key.service.as_bytes(), key.revision.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(&key.timeout_ms.to_le_bytes());
    hasher.update(&generation.to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    JobId(id)
}

/// For people, and for a door that starts again: [`read_name`] finds in it what the job's service does not say.
fn job_name(key: &JobKey, generation: u32) -> String {
    format!("http {generation} {} {}", key.timeout_ms, key.revision)
}

/// The key and generation of a job of online calls, from what the router lists.
fn read_name(name: &str, service: &str) -> Option<(JobKey, u32)> {
    let mut words = name.strip_prefix("http ")?.splitn(3, ' ');
    let generation = words.next()?.parse().ok()?;
    let timeout_ms = words.next()?.parse().ok()?;
    let revision = words.next()?.to_owned();
    Some((JobKey { service: service.to_owned(), revision, timeout_ms }, generation))
}

/// Calls of a job go on at the router, or something of it is not taken.
pub(super) fn is_left(job: &JobInfo) -> bool {
    job.counts.open > 0 || job.counts.settled < job.counts.last_number
}

/// Whether something is left of a job of this app's calls.
pub(crate) fn is_left_by(app: &str, job: &JobInfo) -> bool {
    let read = read_name(&job.name, &job.service).filter(|_| is_left(job));
    read.is_some_and(|(key, generation)| job_id(app, &key, generation) == job.job)
}

impl Jobs {
    /// Takes up a job that an earlier life of the door left; `None` where it is none of this tenant's.
    pub(super) fn take_up(&mut self, now: Micros, id: JobId, name: &str, service: &str) -> Option<JobId> {
        let (key, generation) = read_name(name, service)?;
        let is_ours = job_id(&self.tenant.app, &key, generation) == id;
        let is_new = !self.by_key.contains_key(&key) && self.by_id.len() < JOBS_MAX;
        (is_ours && is_new).then(|| self.add(now, key, generation))
    }
}

//! Answers to operators, and why a task waits.
//!
//! Lists are bounded by what one message carries: of more workers than that, the newest are shown; of more jobs, those that
//! something is left of, then those that are settled, and of each the newest.

use sheaf_task::{
    Answer, BATCH_BYTES_AIM, BATCH_ROWS_MAX, JobId, JobInfo, Key, Question, RowId, STATS_SERVICES_MAX, ServiceTokens,
    Standing, Stats, TaskInfo, TaskState, Tokens, Waiting, WorkerInfo,
};

use super::Router;
use super::event::{FailureItem, Lsn, Outbound, PeerId, Prior, View};
use super::record::JobNo;
use super::slab::{Ix, Spot};
use super::workers::{ServiceNo, Worker};

/// What the index knows of the task that is asked about.
pub(super) struct Found {
    pub(super) prior: Option<Prior>,
    pub(super) owners: Vec<JobNo>,
}

impl Router {
    pub(super) fn on_ask(&mut self, peer: PeerId, id: u64, question: Question, found: Found, view: &View) -> Lsn {
        let message = match question {
            Question::Jobs => Outbound::answer(id, Answer::Jobs(self.job_infos(view))),
            Question::Workers => Outbound::answer(id, Answer::Workers(self.worker_infos())),
            Question::Task(key) => self.explain(id, key, found, view),
            Question::Failures { job, after, limit } => match self.seen(view, job) {
                Some(no) => Outbound::Failures { id, items: self.failures(no, after, limit) },
                None => Outbound::answer(id, Answer::NotFound),
            },
            Question::Stats => Outbound::answer(id, Answer::Stats(self.stats())),
            Question::CancelJob(job) => return self.on_cancel_job(peer, id, self.seen(view, job)),
            Question::Withdraw { job, rows } => return self.on_withdraw(peer, id, job, &rows),
            Question::Retry { job, keys } => return self.on_retry_job(peer, id, self.seen(view, job), keys),
            Question::Shutdown => {
                self.on_stop();
                Outbound::answer(id, Answer::Stopping)
            }
        };
        // An answer may tell of anything that is written.
        let gate = self.out.written();
        self.send(peer, gate, message, None);
        gate
    }

    /// What happened, and what is open. Looks at services and workers, never at tasks.
    pub(super) fn stats(&self) -> Stats {
        let services = (0..self.workers.service_count()).map(|no| self.workers.service(ServiceNo(no)));
        let (ready, suspect) = services.fold((0, 0), |(ready, suspect), service| {
            (ready + u64::from(service.ready), suspect + u64::from(service.suspects.len))
        });
        let running = self.workers.iter().map(|(_, worker)| u64::from(worker.outstanding())).sum();
        let withheld = u64::from(self.tasks.withheld.len);
        let standing = Standing {
            ready,
            running,
            backoff: u64::from(self.tasks.len()) - (ready + suspect + running + withheld),
            suspect,
            withheld,
            jobs: self.jobs.len() as u64,
            unsettled: self.jobs.unsettled,
            idle_ms: self.resulted.map(|at| self.time.now.since(at).as_ms()),
        };
        Stats { totals: self.totals, standing, tokens: self.tokens() }
    }

    /// What answers cost: of the first services that there were, more than one message needs.
    fn tokens(&self) -> Vec<ServiceTokens> {
        let services = (0..self.workers.service_count()).map(|no| self.workers.service(ServiceNo(no)));
        let counted = services.filter(|service| service.tokens != Tokens::default());
        let told = counted.map(|service| ServiceTokens { service: service.name.clone(), tokens: service.tokens });
        told.take(STATS_SERVICES_MAX).collect()
    }

    /// The job of this id, where it is there for whoever asks.
    fn seen(&self, view: &View, job: JobId) -> Option<JobNo> {
        self.jobs.find(job).filter(|no| self.sees(view, *no))
    }

    /// A job that has left is there for those alone who see every job: its tenant is not known any more.
    fn sees(&self, view: &View, no: JobNo) -> bool {
        *view == View::All || self.jobs.get(no).is_some_and(|job| view.has(&job.spec.app))
    }

    /// Whoever comes back looks here for what it left: however many jobs are settled since, that is shown.
    fn job_infos(&self, view: &View) -> Vec<JobInfo> {
        let seen = || self.jobs.iter().filter(|job| view.has(&job.spec.app));
        let settled = seen().filter(|job| job.is_settled()).count();
        let left = seen().count() - settled;
        let mut skip_left = left.saturating_sub(BATCH_ROWS_MAX);
        let mut skip_settled = settled.saturating_sub(BATCH_ROWS_MAX.saturating_sub(left));
        let is_shown = |job: &&super::jobs::Job| {
            let skip = if job.is_settled() { &mut skip_settled } else { &mut skip_left };
            let is_shown = *skip == 0;
            *skip = skip.saturating_sub(1);
            is_shown
        };
        let info = |job: &super::jobs::Job| JobInfo {
            job: job.spec.job,
            name: job.spec.name.clone(),
            service: job.spec.service.clone(),
            state: job.state(),
            counts: self.counts_of(job.spec.no),
        };
        seen().filter(is_shown).map(info).collect()
    }

    fn worker_infos(&self) -> Vec<WorkerInfo> {
        let lease = self.time.lease();
        let info = |worker: &Worker| WorkerInfo {
            worker: worker.id,
            name: worker.name.to_string(),
            services: worker.services.iter().map(|no| self.workers.service(*no).name.clone()).collect(),
            batch: worker.capacity.batch,
            depth: worker.capacity.depth,
            outstanding: worker.outstanding(),
            silent_ms: lease.since(worker.link.heard).as_ms(),
            quarantined: worker.quarantine.is_some(),
        };
        let registered = self.workers.iter().map(|(_, worker)| worker).filter(|worker| worker.registered.is_some());
        let skip = (self.workers.registered as usize).saturating_sub(BATCH_ROWS_MAX);
        registered.skip(skip).map(info).collect()
    }

    fn failures(&self, no: JobNo, after: u64, limit: u32) -> Vec<FailureItem> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for (number, failed) in self.jobs.job(no).failed.range(after.saturating_add(1)..) {
            bytes += failed.len as usize;
            let full = items.len() >= (limit as usize).min(BATCH_ROWS_MAX);
            if full || (bytes > BATCH_BYTES_AIM && !items.is_empty()) {
                break;
            }
            let (key, row, finished, body) = (failed.key, failed.row, failed.finished, failed.body);
            items.push(FailureItem { number: *number, row, key, finished, body });
        }
        items
    }

    fn explain(&self, id: u64, key: Key, found: Found, view: &View) -> Outbound {
        let Found { prior, mut owners } = found;
        let Some(ix) = self.tasks.find(key).filter(|ix| self.sees(view, self.tasks.row(*ix).job)) else {
            // A key is made with the tenant's name: whoever asked for it is of one tenant with all others who did.
            self.recent.each_owner(key, |owner| owners.push(owner));
            let is_seen = *view == View::All || owners.iter().any(|owner| self.sees(view, *owner));
            let prior = self.recent.prior(key, JobNo(0), RowId::default(), prior);
            let Some(finished) = prior.and_then(|prior| prior.finished).filter(|_| is_seen) else {
                return Outbound::answer(id, Answer::Task(None));
            };
            let (service, body_len) = (String::new(), u64::from(finished.len));
            let info = TaskInfo { key, service, body_len, attempts: 0, state: TaskState::Ok, output: None };
            return Outbound::Task { id, info: Box::new(info), finished: finished.lsn };
        };
        let row = self.tasks.row(ix);
        let held = u32::from(row.spot == Spot::Assigned);
        let info = TaskInfo {
            key,
            service: self.jobs.job(row.job).spec.service.clone(),
            body_len: u64::from(row.len),
            attempts: self.tasks.cold(ix).ended + held,
            state: self.state_of(ix),
            output: None,
        };
        Outbound::answer(id, Answer::Task(Some(info)))
    }

    fn state_of(&self, ix: Ix) -> TaskState {
        let row = self.tasks.row(ix);
        match row.spot {
            Spot::Assigned => {
                let worker = self.workers.worker(row.worker).name.to_string();
                TaskState::Running { worker, ms: self.held_for(ix).as_ms() }
            }
            Spot::Withheld => {
                TaskState::Waiting(Waiting::Withheld { ms: self.restart.left(self.time.lease()).as_ms() })
            }
            Spot::Backoff => TaskState::Waiting(Waiting::Backoff { ms: row.since.ahead(self.time.now).as_ms() }),
            Spot::Ready | Spot::Suspect | Spot::Idle => TaskState::Waiting(self.why_ready(ix)),
        }
    }

    /// Why a task that could be assigned is not.
    fn why_ready(&self, ix: Ix) -> Waiting {
        let row = self.tasks.row(ix);
        let job = self.jobs.job(row.job);
        let service = self.workers.service(job.service);
        if !self.has_worker(job.service) {
            return Waiting::NoWorker { service: service.name.clone() };
        }
        if row.spot == Spot::Suspect {
            return Waiting::Suspect;
        }
        if self.jobs.rated.iter().any(|(_, rated)| *rated == row.job) {
            return Waiting::Rate;
        }
        if service.room.iter().all(Vec::is_empty) {
            let ahead = u64::from(service.ready.saturating_sub(1)) + u64::from(service.suspects.len);
            return Waiting::AllFull { workers: service.workers, ahead };
        }
        Waiting::Ready
    }

    /// A worker of the service is on record and not lost.
    fn has_worker(&self, service: ServiceNo) -> bool {
        self.workers
            .iter()
            .any(|(_, worker)| worker.registered.is_some() && !worker.link.lost && worker.services.contains(&service))
    }
}

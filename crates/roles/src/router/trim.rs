//! What may go: records that nothing rests on, and keys that the index has.
//!
//! It deliberately knows no age: shells keep what is younger than its retention, whatever is said here. Invariant: when
//! every record that is not needed is left out of a replay, the state is the same but for what nobody can see any more.
//! Relied on: compaction takes the oldest segment first and keeps the order of what it moves, so that a record that ends
//! another's meaning is never gone before it.

use sheaf_task::Key;

use super::Router;
use super::event::{Generation, Lsn};
use super::record::{Delivery, JobNo, Record};

impl Router {
    /// Whether the journal must keep this record, for what is open or unsettled. What it does not need may still be kept
    /// for its retention (`Finished` answers later jobs); then everything after it must be kept as well, of whatever kind:
    /// compaction drops from a prefix of the log.
    ///
    /// The answer rests on records up to [`Router::written`]: nothing may be dropped for it before those are durable, or
    /// a crash loses both the record and what ended it. Before a segment is dropped whose `Finished` records look-ups
    /// may have found, the shell says so by [`super::Event::Sealed`] with a new generation.
    pub fn needed(&self, lsn: Lsn, record: &Record) -> bool {
        match record {
            Record::Opened(opened) => {
                let job = self.jobs.get(opened.no);
                job.is_some_and(|job| job.records.opened == lsn || job.records.first == lsn)
            }
            Record::Submitted(submitted) => {
                let open = self.tasks.find(submitted.key).is_some_and(|ix| self.tasks.row(ix).body == lsn);
                open || self.jobs.failed_bodies.contains_key(&lsn) || self.is_uncounted(lsn, submitted.job)
            }
            Record::Joined(joined) => self.is_of_open(lsn, joined.key) || self.is_uncounted(lsn, joined.job),
            Record::Cached(cached) => self.is_live(lsn, &cached.delivery),
            Record::Ended(ended) => self.is_of_open(lsn, ended.key) || self.is_uncounted(lsn, ended.job),
            Record::Finished(finished) => {
                let refers = |(oldest, _): &(Lsn, u64)| *oldest <= lsn;
                self.ends_kept(finished.key, finished.submitted)
                    || finished.deliveries.iter().any(|delivery| self.is_live(lsn, delivery))
                    || self.jobs.cached.values().any(refers)
                    || self.recent.refers(finished.key, lsn)
            }
            Record::Withdrawn(withdrawn) => {
                self.ends_kept(withdrawn.key, withdrawn.submitted) || self.is_live(lsn, &withdrawn.delivery)
            }
            Record::Retried(retried) => {
                let Delivery { job, .. } = retried.delivery;
                self.ends_kept(retried.key, retried.submitted) || self.is_uncounted(lsn, job)
            }
            // Small and rare; without it a failure that is kept for another reason would be listed again.
            Record::Unlisted { job, .. } => self.jobs.get(*job).is_some(),
            Record::Registered(registered) => {
                let worker = self.workers.find(registered.worker);
                worker.is_some_and(|no| self.workers.worker(no).registered == Some(lsn))
            }
            Record::Settled { job, .. } => self.jobs.get(*job).is_some_and(|job| job.records.settled == lsn),
            Record::Scanned { job } => self.jobs.get(*job).is_some_and(|job| job.records.scanned == Some(lsn)),
            Record::Cancelled { job } => self.jobs.get(*job).is_some_and(|job| job.records.cancelled == Some(lsn)),
            Record::Heard { session, receipt } => {
                self.sessions.get(&(*session, receipt.place.lane)).is_some_and(|(latest, _)| *latest == lsn)
            }
            // The last one tells how far numbers were given.
            Record::JobLeft { .. } => self.jobs.left == lsn,
            Record::Left { .. } | Record::Forgotten { .. } | Record::Resumed { .. } => false,
        }
    }

    /// The last record written; [`Router::needed`] rests on it.
    pub fn written(&self) -> Lsn {
        self.out.written()
    }

    /// The counts of the job in its last `Settled` do not have this record.
    fn is_uncounted(&self, lsn: Lsn, job: JobNo) -> bool {
        self.jobs.get(job).is_some_and(|job| lsn > job.records.settled)
    }

    /// It tells of a task that is open, after its body.
    fn is_of_open(&self, lsn: Lsn, key: Key) -> bool {
        self.body_of(key).is_some_and(|body| body < lsn)
    }

    fn body_of(&self, key: Key) -> Option<Lsn> {
        self.tasks.find(key).map(|ix| self.tasks.row(ix).body)
    }

    /// The `Submitted` record that this one ends or opens again is kept for its body: so all its life must be.
    fn ends_kept(&self, key: Key, submitted: Lsn) -> bool {
        self.body_of(key) == Some(submitted) || self.jobs.failed_bodies.contains_key(&submitted)
    }

    /// A result that is in use, or a failure that can be tried again.
    fn is_live(&self, lsn: Lsn, delivery: &Delivery) -> bool {
        let Some(job) = self.jobs.get(delivery.job) else { return false };
        let listed = job.failed.get(&delivery.number).is_some_and(|failed| failed.finished == lsn);
        listed || delivery.number > job.used_after() || self.is_uncounted(lsn, delivery.job)
    }

    /// The index has everything up to `upto`: recent keys can go, slice by slice, and so can older records once the
    /// counts of their jobs are written down anew.
    pub(super) fn on_sealed(&mut self, upto: Lsn, generation: Generation) {
        self.recent.seal(upto, generation);
        let changed = |job: &&super::jobs::Job| job.records.counted > job.records.settled;
        let changed = self.jobs.iter().filter(changed).map(|job| (job.spec.no, job.counts)).collect::<Vec<_>>();
        for (job, counts) in changed {
            self.write(Record::Settled { job, counts });
        }
    }
}

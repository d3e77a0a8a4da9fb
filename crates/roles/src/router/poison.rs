//! Tasks that kill: a death makes suspects of what was being executed, a suspect is tried alone, and what was there at
//! three deaths is failed with the evidence. Silence is no death.

use sheaf_task::{Class, Evidence, Failure, Fence, Outcome};

use super::Router;
use super::limits::DEATHS_MAX;
use super::queue::End;
use super::record::{Ended, Record};
use super::slab::{ENDED, Ix, Spot};
use super::workers::WorkerNo;

impl Router {
    /// The program that executed the task died, as its worker saw.
    pub(super) fn on_crashed(&mut self, no: WorkerNo, ix: Ix, fence: Fence, ms: u64, mut failure: Failure) {
        let deaths = self.tasks.cold(ix).deaths + 1;
        if deaths >= DEATHS_MAX || self.is_last(ix) {
            failure.evidence.deaths = u32::from(deaths);
            self.finish(ix, no, fence, ms, Outcome::Failed(failure));
        } else {
            self.retry(ix, Class::Crashed, true);
        }
    }

    /// The worker's own process died while it executed this.
    pub(super) fn on_died_with(&mut self, no: WorkerNo, fence: &Fence) {
        let Some(ix) = self.tasks.find(fence.key) else { return };
        let row = self.tasks.row(ix);
        let present = match row.spot {
            Spot::Assigned => row.worker == no && self.fence(ix) == *fence,
            Spot::Withheld | Spot::Ready | Spot::Suspect => self.is_latest(ix, fence),
            Spot::Backoff | Spot::Idle => false,
        };
        if !present {
            return;
        }
        let deaths = self.tasks.cold(ix).deaths + 1;
        self.detach(ix);
        if deaths < DEATHS_MAX {
            let (key, job) = (fence.key, self.tasks.row(ix).job);
            let attempt = (fence.epoch, fence.attempt);
            let class = Some(Class::Crashed);
            self.write(Record::Ended(Ended { key, job, class, attempt, suspect: true, counts: false }));
            self.tasks.row_mut(ix).attempt = ENDED;
            self.enqueue(ix, End::Back);
            return;
        }
        let worker = self.workers.worker(no).name.to_string();
        let message = format!("{deaths} workers died while they executed this; it is not tried again");
        let mut failure = Failure::new(Class::Crashed, message);
        failure.evidence = Box::new(Evidence { worker, deaths: u32::from(deaths), ..Evidence::default() });
        self.finish(ix, no, *fence, 0, Outcome::Failed(failure));
    }

    /// No attempt at an unassigned task was made after this one.
    pub(super) fn is_latest(&self, ix: Ix, fence: &Fence) -> bool {
        let attempt = self.tasks.row(ix).attempt;
        if (fence.epoch, fence.attempt) <= self.tasks.cold(ix).over {
            return false;
        }
        if fence.epoch == self.config.epoch { fence.attempt == attempt } else { attempt == 0 }
    }
}

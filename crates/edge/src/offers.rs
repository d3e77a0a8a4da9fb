//! What workers offer, as the router has it on its books, a moment old at most.
//!
//! A worker that is gone for a moment is still on the books: its calls wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sheaf_task::{Answer, Question};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::calls::{Caller, Refused};

/// How old what is known may be.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Where a service is not found, the router is asked anew, but no more often than this.
const AGE_MIN: Duration = Duration::from_millis(100);
/// How long the router may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Executions at once, by service.
pub(crate) type Offered = BTreeMap<String, u32>;

/// What is known.
pub(crate) struct Offers {
    // Held while the router is asked, so that it is asked once for all who want to know.
    known: Mutex<Option<(Instant, Arc<Offered>)>>,
}

impl Offers {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::new(None) }
    }

    /// All services.
    pub(crate) async fn all(&self, caller: &Caller) -> Result<Arc<Offered>, Refused> {
        self.younger(caller, AGE_MAX).await
    }

    /// All services; those of this moment, should `service` not be among them.
    pub(crate) async fn with(&self, caller: &Caller, service: &str) -> Result<Arc<Offered>, Refused> {
        let known = self.younger(caller, AGE_MAX).await?;
        if known.contains_key(service) { Ok(known) } else { self.younger(caller, AGE_MIN).await }
    }

    /// Nobody waits longer than one question takes, however many wait for their turn to ask.
    async fn younger(&self, caller: &Caller, age: Duration) -> Result<Arc<Offered>, Refused> {
        timeout(PATIENCE, self.look(caller, age)).await.unwrap_or(Err(Refused::Closing))
    }

    async fn look(&self, caller: &Caller, age: Duration) -> Result<Arc<Offered>, Refused> {
        let mut known = self.known.lock().await;
        if let Some((at, offered)) = known.as_ref()
            && at.elapsed() < age
        {
            return Ok(Arc::clone(offered));
        }
        let answer = caller.ask(Question::Workers).await?;
        let mut offered = Offered::new();
        if let Answer::Workers(workers) = answer {
            for worker in workers {
                for service in worker.services {
                    let batch: &mut u32 = offered.entry(service).or_default();
                    *batch = batch.saturating_add(worker.batch);
                }
            }
        }
        let offered = Arc::new(offered);
        *known = Some((Instant::now(), Arc::clone(&offered)));
        Ok(offered)
    }
}

//! `/v1/batches`: a batch is a job of `sheaf-client` for each of its models, whose source is the uploaded file and whose
//! sink is a file of its own. What survives a crash survives there; this module gives a batch a life around its jobs.
//!
//! | module | what |
//! |---|---|
//! | `machine`, `record` | the life of a batch, decided; how it looks on disk and to clients |
//! | `place`, `lines` | its directory; the lines of its input |
//! | `validate`, `jobs`, `finalize` | what it does in its states |
//! | `outcome`, `results` | lines of its files; lines while it runs |
//! | `live`, `run` | a batch that is not over, and what carries it on |
//! | `sweep` | removes files whose time is over |
//! | `http` | requests and replies |
//!
//! **Invariant**: every state is on disk before anybody sees it, and each can be begun again from there.

mod finalize;
mod http;
mod jobs;
mod lines;
mod live;
mod machine;
mod outcome;
mod place;
mod record;
mod results;
mod run;
mod sweep;
mod validate;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::disk::{app_dir, blocking, id_of, is_damaged, new_id, number_of, unix_now};
use crate::files::Store;
use crate::index::{Index, read_page};
use crate::limits::Limits;
use crate::page::Query;
use crate::reply::ApiError;
use crate::serve::EdgeConfig;
use crate::tenants::RouterDoor;
use live::Live;
use place::Place;
use record::{Batch, Counts, PREFIX};

pub(crate) use http::{BatchesRoute, answer, batches_route};

/// Inputs that are read, and files that are written, at once: both are work for a processor and a disk.
const READING_MAX: usize = 2;

/// Jobs of cancelled batches that are brought in at once: each holds a batch's lines in memory, by name.
const COLLECTING_MAX: usize = 4;

/// What is known of the record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Sound,
    /// No list has the batch, and nothing is done with it.
    Damaged,
}

/// What every batch has.
struct Shared {
    root: PathBuf,
    store: Store,
    router: RouterDoor,
    limits: Limits,
    reading: Semaphore,
    collecting: Semaphore,
    /// Jobs of each app that may be at the router: who waits for a worker keeps nobody else waiting.
    jobs: Mutex<HashMap<String, Arc<Semaphore>>>,
    stop: watch::Sender<bool>,
    /// Those that are not over, by name. Held for a look or an insertion, never across a wait.
    live: Mutex<HashMap<String, Arc<Live>>>,
    /// Every batch there is. Held for a look, never across a wait.
    index: Mutex<Index<Record>>,
}

/// The batches of a door.
pub(crate) struct Batches {
    shared: Arc<Shared>,
    /// A task for each that is not over, and for each request that changes one.
    running: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, HashMap<String, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, Index<Record>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch that is not over, of this app.
    fn find(&self, app: &str, id: &str) -> Option<Arc<Live>> {
        let place = Place::of(&self.root, app, id)?;
        self.live().get(id).filter(|live| live.place == place).cloned()
    }

    /// A batch of this app as it is now, with the lines that are done. Blocks, unless it is not over.
    fn look(&self, app: &str, id: &str) -> io::Result<Option<(Batch, Counts)>> {
        if let Some(live) = self.find(app, id) {
            let batch = live.batch();
            let counts = live.counts(&batch);
            return Ok(Some((batch, counts)));
        }
        let (Some(place), Some(number)) = (Place::of(&self.root, app, id), number_of(PREFIX, id)) else {
            return Ok(None);
        };
        let read = place.load();
        if let Some(record) = self.index().get_mut(&app_dir(app), number) {
            match (&read, *record) {
                (Ok(Some(_)), Record::Damaged) => *record = Record::Sound,
                (Err(error), Record::Sound) if is_damaged(error) => {
                    *record = Record::Damaged;
                    place.tell_damaged(error);
                }
                (Ok(_) | Err(_), Record::Sound | Record::Damaged) => {}
            }
        }
        Ok(read?.map(|batch| {
            let counts = batch.counts;
            (batch, counts)
        }))
    }

    /// The batches of a page, and one more where there is one. Blocks. Reads their records and no others; one that is
    /// damaged is left out.
    fn list(&self, app: &str, query: &Query) -> io::Result<Vec<(Batch, Counts)>> {
        let dir = app_dir(app);
        let names = |query: &Query| self.index().page(&dir, query, |record| *record == Record::Sound);
        read_page(query, names, |number| match self.look(app, &id_of(PREFIX, number)) {
            Err(error) if is_damaged(&error) => Ok(None),
            looked => looked,
        })
    }

    /// The places of an app's jobs.
    fn jobs(&self, app: &str) -> Arc<Semaphore> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.limits.batch_jobs_max as usize));
        Arc::clone(jobs.entry(app.to_owned()).or_insert_with(new))
    }

    /// The batch is over: what it needed for that goes.
    async fn forget(&self, live: &Live) {
        let (place, id) = (live.place.clone(), live.batch().id);
        let cleared = tokio::task::spawn_blocking(move || place.clear()).await.map_err(io::Error::other);
        if let Err(error) = cleared.and_then(|cleared| cleared) {
            tracing::warn!(batch = id, %error, "what a batch that is over needs no more is cleared at the next start");
        }
        self.live().remove(&id);
    }
}

impl Batches {
    /// Takes up the directory, and goes on with every batch that is not over.
    pub(crate) async fn open(config: &EdgeConfig, store: Store) -> io::Result<Arc<Self>> {
        let (root, of) = (config.data.clone(), store.clone());
        let (open, index) =
            tokio::task::spawn_blocking(move || open_all(&root, &of)).await.map_err(io::Error::other)??;
        let shared = Shared {
            root: config.data.clone(),
            store,
            router: RouterDoor::new(config.router.clone()),
            limits: config.limits,
            reading: Semaphore::new(READING_MAX),
            collecting: Semaphore::new(COLLECTING_MAX),
            jobs: Mutex::default(),
            stop: watch::Sender::new(false),
            live: Mutex::default(),
            index: Mutex::new(index),
        };
        let batches = Arc::new(Self { shared: Arc::new(shared), running: Mutex::default() });
        for (place, batch, input_bytes) in open {
            tracing::info!(batch = batch.id, status = ?batch.status, "a batch goes on");
            batches.begin(place, batch, input_bytes);
        }
        batches.spawn(sweep::sweep(Arc::clone(&batches.shared)));
        Ok(batches)
    }

    /// Lets every batch stop where it is: the next process goes on.
    pub(crate) async fn close(&self) {
        self.shared.stop.send_replace(true);
        loop {
            let mut running = std::mem::take(&mut *self.running());
            if running.is_empty() {
                return;
            }
            while let Some(ended) = running.join_next().await {
                report(ended);
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running();
        while let Some(ended) = running.try_join_next() {
            report(ended);
        }
        running.spawn(task);
    }

    /// Does what must not stop half-way when its client hangs up: what is on disk of a batch must be so in memory.
    async fn see_through<T, F>(&self, act: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let (says, said) = oneshot::channel();
        self.spawn(async move {
            if says.send(act.await).is_err() {
                tracing::debug!("a client did not wait for its answer");
            }
        });
        said.await.unwrap_or_else(|_| Err(ApiError::server("a defect of the server; its log has more")))
    }

    /// Takes up a batch that nobody has seen yet, whose input has so many bytes.
    fn begin_new(&self, place: Place, batch: Batch, input_bytes: u64) {
        self.shared.store.count_batch(&app_dir(&batch.app), record_bytes(&batch));
        self.begin(place, batch, input_bytes);
    }

    /// Takes a batch into the world. What is created when the door closes is begun by the next process.
    fn begin(&self, place: Place, batch: Batch, input_bytes: u64) {
        let (app, number) = (app_dir(&batch.app), number_of(PREFIX, &batch.id));
        let live = Arc::new(Live::new(place, batch.clone(), input_bytes, &self.shared.store));
        // Before any list has it: who finds it there may cancel it.
        self.shared.live().insert(batch.id, Arc::clone(&live));
        if let Some(number) = number {
            self.shared.index().insert(&app, number, Record::Sound);
        }
        self.spawn(run::live_through(Arc::clone(&self.shared), live));
    }

    /// A batch of this app as it is now, with the lines that are done.
    async fn get(&self, app: &str, id: &str) -> Result<Option<(Batch, Counts)>, ApiError> {
        let (shared, app, id) = (Arc::clone(&self.shared), app.to_owned(), id.to_owned());
        blocking(move || shared.look(&app, &id)).await?.map_err(|error| crate::disk::refused(&error))
    }

    /// Whether one more of this app may be begun.
    fn has_room(&self, app: &str) -> bool {
        let live = self.shared.live();
        let is_its =
            |(id, live): &(&String, &Arc<Live>)| Place::of(&self.shared.root, app, id).as_ref() == Some(&live.place);
        live.iter().filter(is_its).count() < self.shared.limits.batches_open_max
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a batch panicked; the next process goes on with it");
    }
}

/// What the record of a batch may have beside what every record has, bytes.
fn record_bytes(batch: &Batch) -> u64 {
    let metadata = batch.asked.metadata.iter().flatten();
    metadata.map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

/// Batches that are not over, and the bytes of their inputs.
type Open = Vec<(Place, Batch, u64)>;

/// The batches that are not over, and which there are at all, each of which its app's files count; what those that are over
/// needed is cleared away.
fn open_all(root: &std::path::Path, store: &Store) -> io::Result<(Open, Index<Record>)> {
    let (mut open, mut index) = (Vec::new(), Index::default());
    place::each(root, |app, number, found| {
        let record = if found.is_some() { Record::Sound } else { Record::Damaged };
        index.insert(app, number, record);
        store.count_batch(app, found.as_ref().map_or(0, |(_, batch)| record_bytes(batch)));
        match found {
            Some((place, batch)) if batch.status.is_final() => place.clear()?,
            Some((place, batch)) => {
                let input_bytes = place.input_bytes();
                open.push((place, batch, input_bytes));
            }
            None => {}
        }
        Ok(())
    })?;
    Ok((open, index))
}

/// A new name, for a batch or for a file that it will write.
fn name(prefix: &str) -> io::Result<String> {
    new_id(prefix, unix_now())
}

//! Carries a batch through its life: does what its state asks for, and takes what came of it, until it is over. It
//! decides nothing: see `machine`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sheaf_net::Backoff;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::finalize::finalize;
use super::jobs::{Job, JobEnd};
use super::live::Live;
use super::machine::{Duty, Event};
use super::record::{Batch, Ending, Status};
use super::validate::Validation;
use crate::disk::unix_now;

/// How long a job that is cancelled may take to write down what is on its way.
const WIND_DOWN: Duration = Duration::from_secs(10);

/// The clock is looked at so often, at least: it may be set, and the machine may sleep.
const LOOK: Duration = Duration::from_secs(60);

/// Lives through a batch, from wherever it stands, until it is over or the door closes.
pub(super) async fn live_through(shared: Arc<Shared>, live: Arc<Live>) {
    let mut stop = shared.stop.subscribe();
    let mut backoff = Backoff::new(0);
    while !*stop.borrow() {
        let batch = live.batch();
        let done = match batch.duty() {
            Duty::Nothing => return shared.forget(&live).await,
            Duty::Validate => validate(&shared, &live, &batch).await,
            Duty::Run => run(&shared, &live, &batch, &mut stop).await,
            Duty::Finalize(ending) => close(&shared, &live, &batch, ending, &mut stop).await,
        };
        let taken = match done {
            Ok(Some(event)) => live.handle(event).await.map(|_| ()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(batch = batch.id, %error, "a batch is held up, and is tried again");
                tokio::select! {
                    () = sleep(backoff.pause()) => {}
                    _ = stop.changed() => {}
                }
            }
        }
    }
}

/// Reads the input; no event where the batch was cancelled meanwhile, or the door closes.
async fn validate(shared: &Arc<Shared>, live: &Arc<Live>, batch: &Batch) -> io::Result<Option<Event>> {
    let _turn = shared.reading.acquire().await.map_err(io::Error::other)?;
    let validation = Validation {
        input: live.place.input(),
        parts: live.place.parts(),
        endpoint: batch.asked.endpoint.clone(),
        lines_max: shared.limits.batch_lines_max,
    };
    let (shared, live) = (Arc::clone(shared), Arc::clone(live));
    let is_unwanted = move || *shared.stop.borrow() || live.status() != Status::Validating;
    let read = move || if is_unwanted() { Ok(None) } else { validation.run(is_unwanted) };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// What ended the jobs of a batch.
enum Turn {
    /// They themselves.
    Ended(io::Result<Event>),
    /// A cancel.
    Overtaken,
    /// The time.
    Expired,
    /// The door closes.
    Stopping,
}

/// Runs the jobs. Whatever ends them, none is left behind.
async fn run(
    shared: &Arc<Shared>,
    live: &Arc<Live>,
    batch: &Batch,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<Option<Event>> {
    let (halt, halted) = watch::channel(false);
    let mut jobs = JoinSet::new();
    let wanted = u32::try_from(batch.parts.len()).unwrap_or(u32::MAX).min(shared.limits.batch_jobs_max);
    let turn = {
        let running = async {
            let places = shared.jobs(&batch.app);
            let turn = places.acquire_many(wanted).await;
            for job in jobs_of(shared, live, batch) {
                jobs.spawn(job.run(halted.clone()));
            }
            let ended = ended(&mut jobs).await;
            drop(turn);
            ended
        };
        tokio::select! {
            event = running => Turn::Ended(event),
            () = live.left(Status::InProgress) => Turn::Overtaken,
            () = expired(batch.times.expires_at) => Turn::Expired,
            _ = stop.wait_for(|stop| *stop) => Turn::Stopping,
        }
    };
    let is_ours = matches!(turn, Turn::Overtaken | Turn::Expired);
    let taken = match turn {
        Turn::Ended(Ok(event)) => return Ok(Some(event)),
        Turn::Ended(Err(error)) => Err(error),
        Turn::Stopping | Turn::Overtaken => Ok(()),
        Turn::Expired => live.handle(Event::Expired).await.map(|_| ()),
    };
    if is_ours && taken.is_ok() {
        wind_down(shared, live, batch, &mut jobs).await;
    }
    halt.send_replace(true);
    while jobs.join_next().await.is_some() {}
    taken.map(|()| None)
}

fn jobs_of<'a>(shared: &'a Shared, live: &'a Live, batch: &'a Batch) -> impl Iterator<Item = Job> + 'a {
    (0..batch.parts.len()).map(move |part| Job::new(&live.place, batch, part, &shared.router, &live.gauges))
}

/// Cancels the jobs of a batch at the router, all at once and each whatever becomes of the others: until then they are
/// executed. Returns those that something may be left of there.
async fn cancel_all(shared: &Shared, live: &Live, batch: &Batch) -> io::Result<Vec<Job>> {
    let mut cancelling = JoinSet::new();
    for job in jobs_of(shared, live, batch) {
        cancelling.spawn(async move { job.cancel().await.map(|is_left| is_left.then_some(job)) });
    }
    let (mut left, mut failed) = (Vec::new(), None);
    while let Some(cancelled) = cancelling.join_next().await {
        match cancelled.map_err(io::Error::other).and_then(|cancelled| cancelled) {
            Ok(job) => left.extend(job),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(left), Err)
}

/// What is at workers is called back, and what has come is written down.
async fn wind_down(shared: &Shared, live: &Live, batch: &Batch, jobs: &mut JoinSet<JobEnd>) {
    if let Err(error) = cancel_all(shared, live, batch).await {
        tracing::warn!(batch = batch.id, %error, "the jobs of a batch are not cancelled yet");
        return;
    }
    let ended = async { while jobs.join_next().await.is_some() {} };
    if timeout(WIND_DOWN, ended).await.is_err() {
        tracing::debug!(batch = batch.id, "the jobs of a batch do not end by themselves");
    }
}

/// Waits for every job.
async fn ended(jobs: &mut JoinSet<JobEnd>) -> io::Result<Event> {
    let mut event = Event::Done;
    while let Some(ended) = jobs.join_next().await {
        match ended.map_err(io::Error::other)? {
            JobEnd::Complete | JobEnd::Stopped => {}
            JobEnd::Cancelled => event = Event::Cancel,
        }
    }
    Ok(event)
}

async fn expired(expires_at: u64) {
    loop {
        let left = Duration::from_secs(expires_at).saturating_sub(unix_now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(LOOK)).await;
    }
}

/// Writes the files of a batch that is at its end.
async fn close(
    shared: &Arc<Shared>,
    live: &Arc<Live>,
    batch: &Batch,
    ending: Ending,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<Option<Event>> {
    match ending {
        Ending::Complete => {}
        // Also where the process that cancelled them did not live to hear the answer, or to write down what was left.
        Ending::Expired | Ending::Cancelled => {
            for job in cancel_all(shared, live, batch).await? {
                let _turn = shared.collecting.acquire().await.map_err(io::Error::other)?;
                let collected = job.collect(stop).await;
                if *stop.borrow() {
                    return Ok(None);
                }
                collected?;
            }
        }
    }
    let _turn = shared.reading.acquire().await.map_err(io::Error::other)?;
    let (place, batch, store) = (live.place.clone(), batch.clone(), shared.store.clone());
    let write = move || finalize(&place, &batch, &store, unix_now()).map(Some);
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

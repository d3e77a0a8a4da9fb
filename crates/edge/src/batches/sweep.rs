//! Removes files whose time is over, uploaded ones and those that batches wrote, for as long as the door is open.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Shared;
use crate::disk::{app_dir, number_of, unix_now};
use crate::files::{PREFIX, SWEEP_MAX};
use crate::index::Number;

/// Between two sweeps, and where the last one found as many as it may take.
const EVERY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);

pub(super) async fn sweep(shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    while !*stop.borrow() {
        let of = Arc::clone(&shared);
        let sweep = move || {
            let needed = needed(&of);
            let is_needed = |app: &str, number| needed.contains(&(app.to_owned(), number));
            of.store.sweep(unix_now(), is_needed, || *of.stop.borrow())
        };
        let pause = match tokio::task::spawn_blocking(sweep).await {
            Ok(SWEEP_MAX) => SOON,
            Ok(_) => EVERY,
            Err(error) => {
                tracing::error!(%error, "a sweep of files panicked");
                EVERY
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }
}

/// The files of batches that are not over. They would have their input without its name; but who looks at such a batch is to
/// find its files.
fn needed(shared: &Shared) -> HashSet<(String, Number)> {
    let live = shared.live();
    let batches = live.values().map(|live| live.batch());
    let files = batches.flat_map(|batch| {
        let app = app_dir(&batch.app);
        [batch.asked.input_file_id, batch.names.output, batch.names.error].map(|id| (app.clone(), id))
    });
    files.filter_map(|(app, id)| Some((app, number_of(PREFIX, &id)?))).collect()
}

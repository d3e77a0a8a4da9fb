//! Which metrics there are, and what they mean. No tenant, job or task is ever a label; workers are, by name, and of more
//! than [`WORKERS_MAX`] the rest together.

use std::collections::BTreeMap;
use std::time::SystemTime;

use sheaf_server::{Gauges, Health};
use sheaf_task::{Answer, Class, Question, ServiceTokens, Standing, Stats, Totals, WorkerInfo};

use super::page::Page;
use super::{Desk, Sources};
use crate::counts::Counted;

/// Names of workers that are labels. More: the last in order are one, called [`OTHERS`].
const WORKERS_MAX: usize = 500;
const OTHERS: &str = "(others)";

/// Everything as it is now. While the router does not answer, what the process itself knows.
pub(super) async fn page(desk: &Desk) -> String {
    let mut page = Page::default();
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    page.gauges("sheaf_build_info", "The version that runs.", "version", version);
    let Some(sources) = desk.sources.get() else { return page.into_text() };
    of_process(&mut page, &sources.gauges);
    if let Some(door) = desk.door.get() {
        of_door(&mut page, &door.read());
    }
    let answers = ask(sources).await;
    page.gauge("sheaf_router_answers", "Whether the router answers questions.", u8::from(answers.is_some()));
    if let Some((stats, workers)) = answers {
        of_tasks(&mut page, &stats.totals, &stats.standing);
        of_router(&mut page, &stats.totals, &stats.standing);
        of_models(&mut page, &stats.tokens);
        of_workers(&mut page, &workers);
    }
    page.into_text()
}

async fn ask(sources: &Sources) -> Option<(Stats, Vec<WorkerInfo>)> {
    let Ok(Answer::Stats(stats)) = sources.router.ask(Question::Stats).await else { return None };
    let Ok(Answer::Workers(workers)) = sources.router.ask(Question::Workers).await else { return None };
    Some((stats, workers))
}

fn of_process(page: &mut Page, gauges: &Gauges) {
    let took = (1e-6, &gauges.commits_us.counts()[..], gauges.commits_us.sum());
    page.histogram("sheaf_journal_fsync_duration_seconds", "How long commits of the journal took.", 4, took);
    let records = (1.0, &gauges.commit_records.counts()[..], gauges.commit_records.sum());
    page.histogram("sheaf_journal_commit_records", "Records in a commit of the journal.", 0, records);
    page.gauge("sheaf_journal_bytes", "Bytes of the journal's files.", gauges.journal_bytes());
    let help = "Bytes of records given to the journal.";
    page.counter("sheaf_journal_appended_bytes_total", help, gauges.appended_bytes());
    page.gauge("sheaf_journal_lag_records", "Records made and not on disk yet.", gauges.lag());
    let is_writable = gauges.health() == Health::Writable;
    page.gauge(
        "sheaf_journal_writable",
        "Whether the journal takes new rows: 0 on a full disk.",
        u8::from(is_writable),
    );
    page.gauge("sheaf_sessions", "Sessions of workers and clients, connected or waited for.", gauges.sessions());
    page.gauge("sheaf_links", "Sessions that are connected.", gauges.links());
}

fn of_door(page: &mut Page, door: &Counted) {
    let counters = [
        ("sheaf_edge_connections_total", "Connections that the front door took.", door.connections),
        ("sheaf_edge_requests_total", "Requests that the front door answered, whatever with.", door.requests),
        ("sheaf_edge_admitted_total", "Calls that were let in.", door.admitted),
        ("sheaf_edge_refused_total", "Calls refused because there was no room for them.", door.refused),
        ("sheaf_edge_panics_total", "Handlers that panicked: defects; the log has more.", door.panics),
    ];
    counters.into_iter().for_each(|(name, help, value)| page.counter(name, help, value));
}

fn of_tasks(page: &mut Page, totals: &Totals, standing: &Standing) {
    let names = std::iter::once("ok").chain(Class::ALL.into_iter().map(Class::name));
    let outcomes = names.zip(totals.outcomes.iter().copied());
    page.counters("sheaf_tasks_total", "Tasks that ended, by outcome.", "outcome", outcomes);
    page.gauges("sheaf_tasks", "Open tasks, by what they wait for.", "state", states(standing));
    let lengths = (1e-3, &totals.lengths[..], totals.took_ms);
    let help = "How long the attempts took that ended tasks.";
    page.histogram("sheaf_task_duration_seconds", help, 0, lengths);
    if let Some(idle) = standing.idle_ms {
        let at = since_epoch() - idle as f64 / 1e3;
        page.gauge("sheaf_last_result_timestamp_seconds", "When the last result of a worker came.", format!("{at:.3}"));
    }
}

fn of_models(page: &mut Page, tokens: &[ServiceTokens]) {
    let counts = tokens.iter().flat_map(|of| {
        let of_type = |word, count| ([("model", of.service.as_str()), ("type", word)], count);
        [of_type("prompt", of.tokens.prompt), of_type("completion", of.tokens.completion)]
    });
    let help = "Tokens of the answers that ended tasks, as workers counted them.";
    page.counters_by("sheaf_tokens_total", help, counts);
}

/// Open tasks by the word for their state.
pub(super) fn states(standing: &Standing) -> [(&'static str, u64); 5] {
    let Standing { ready, running, backoff, suspect, withheld, .. } = *standing;
    [("ready", ready), ("running", running), ("backoff", backoff), ("suspect", suspect), ("withheld", withheld)]
}

fn of_router(page: &mut Page, totals: &Totals, standing: &Standing) {
    let counters = [
        ("sheaf_attempts_total", "Attempts given to workers.", totals.assigned),
        (
            "sheaf_redelivered_total",
            "Attempts given out while nobody knew how the one before had ended: its worker was lost.",
            totals.redelivered,
        ),
        ("sheaf_recalled_total", "Attempts called back before they started, to balance.", totals.recalled),
        (
            "sheaf_duplicates_suppressed_total",
            "Rows that cost no execution: submitted again, open for another row, or answered before.",
            totals.suppressed,
        ),
        ("sheaf_results_dropped_total", "Results that came after their task had ended.", totals.dropped),
        ("sheaf_rows_refused_total", "Rows refused for want of room; their clients send them again.", totals.refused),
        ("sheaf_workers_lost_total", "Workers that were silent past the grace.", totals.lost),
    ];
    counters.into_iter().for_each(|(name, help, value)| page.counter(name, help, value));
    page.gauge("sheaf_jobs", "Jobs on record.", standing.jobs);
    page.gauge("sheaf_results_unsettled", "Results that no sink has committed yet.", standing.unsettled);
}

fn of_workers(page: &mut Page, workers: &[WorkerInfo]) {
    page.gauge("sheaf_workers", "Workers on record.", workers.len());
    let shut_out = workers.iter().filter(|worker| worker.quarantined).count();
    page.gauge("sheaf_workers_quarantined", "Workers given nothing for now: they answered garbage.", shut_out);
    let inflight = by_name(workers, |worker| worker.outstanding);
    let help = "Attempts that workers of this name hold.";
    page.gauges("sheaf_worker_inflight", help, "worker", inflight);
    let capacity = by_name(workers, |worker| worker.batch);
    let help = "Executions at once that workers of this name announce.";
    page.gauges("sheaf_worker_capacity", help, "worker", capacity);
}

/// A name is a label once, however many workers have it.
fn by_name(workers: &[WorkerInfo], figure: impl Fn(&WorkerInfo) -> u32) -> BTreeMap<&str, u64> {
    let mut sums = BTreeMap::<&str, u64>::new();
    for worker in workers {
        *sums.entry(&worker.name).or_default() += u64::from(figure(worker));
    }
    if sums.len() > WORKERS_MAX {
        let rest = sums.keys().nth(WORKERS_MAX - 1).copied().unwrap_or_default();
        let rest = sums.split_off(&rest).into_values().sum::<u64>();
        *sums.entry(OTHERS).or_default() += rest;
    }
    sums
}

/// Seconds since 1970, for timestamps.
pub(super) fn since_epoch() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use sheaf_task::WorkerId;

    use super::*;

    fn worker(name: String) -> WorkerInfo {
        let (batch, depth, outstanding, silent_ms, quarantined) = (2, 0, 1, 0, false);
        let (worker, services) = (WorkerId([1; 16]), Vec::new());
        WorkerInfo { worker, name, services, batch, depth, outstanding, silent_ms, quarantined }
    }

    #[test]
    fn two_workers_of_one_name_are_one_label() {
        let workers = [worker("a".into()), worker("b".into()), worker("a".into())];
        assert_eq!(by_name(&workers, |worker| worker.batch), BTreeMap::from([("a", 4), ("b", 2)]));
    }

    #[test]
    fn labels_are_bounded_and_lose_nothing() {
        let workers: Vec<_> = (0..WORKERS_MAX + 100).map(|n| worker(format!("w{n:04}"))).collect();
        let sums = by_name(&workers, |worker| worker.batch);
        assert_eq!(sums.len(), WORKERS_MAX);
        assert_eq!(sums.values().sum::<u64>(), 2 * workers.len() as u64);
    }
}

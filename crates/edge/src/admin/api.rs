//! What operators look at, as JSON. Payloads of failed rows are in it, cut to what shows what they are.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sheaf_server::Health;
use sheaf_task::{Answer, Class, Failure, FailureRow, JobInfo, JobState, Question, Stats, WorkerInfo};

use super::ask::{Asker, NoAnswer};
use super::metrics::{since_epoch, states};
use super::{Desk, Sources};

/// Failed rows of a job that are grouped. More: it says that there are more.
const FAILURES_MAX: usize = 2_000;

/// Messages told apart in a class, and the bytes that are shown of each text. More: counted, not shown.
const MESSAGES_MAX: usize = 20;
const SHOWN_BYTES: usize = 1_024;

/// Why there is nothing to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The journal is still being replayed.
    Starting,
    /// The router does not answer.
    Router,
    /// There is no such job.
    Job,
    /// There is more than one.
    Ambiguous,
}

impl From<NoAnswer> for Missing {
    fn from(NoAnswer: NoAnswer) -> Self {
        Missing::Router
    }
}

impl Desk {
    fn running(&self) -> Result<&Sources, Missing> {
        self.sources.get().ok_or(Missing::Starting)
    }
}

/// Why the process takes no rows; `None`: it does.
pub(super) async fn why_not_ready(desk: &Desk) -> Option<&'static str> {
    let Ok(sources) = desk.running() else { return Some("the journal is being replayed") };
    match sources.gauges.health() {
        Health::Writable => {}
        Health::Full => return Some("the disk of the journal is full"),
        Health::Stuck => return Some("the disk of the journal and its reserve are full"),
        Health::Failed => return Some("the disk of the journal has failed"),
    }
    if desk.expects_door && desk.door.get().is_none() {
        return Some("the front door reads its records");
    }
    stats(&sources.router).await.is_err().then_some("the router does not answer")
}

/// Everything at once but failures.
pub(super) async fn snapshot(desk: &Desk) -> Result<Value, Missing> {
    let sources = desk.running()?;
    let stats = stats(&sources.router).await?;
    let (jobs, workers) = (job_infos(&sources.router).await?, worker_infos(&sources.router).await?);
    let gauges = &sources.gauges;
    Ok(json!({
        "at": since_epoch(),
        "tasks": stats_json(&stats),
        "journal": {
            "health": health(gauges.health()), "bytes": gauges.journal_bytes(), "lag_records": gauges.lag(),
            "appended_bytes": gauges.appended_bytes(), "commits": gauges.commits_us.counts().iter().sum::<u64>(),
        },
        "sessions": gauges.sessions(),
        "links": gauges.links(),
        "jobs": jobs.iter().map(job_json).collect::<Vec<_>>(),
        "workers": workers.iter().map(worker_json).collect::<Vec<_>>(),
    }))
}

/// Every job, newest last.
pub(super) async fn jobs(desk: &Desk) -> Result<Value, Missing> {
    let jobs = job_infos(&desk.running()?.router).await?;
    Ok(json!({"data": jobs.iter().map(job_json).collect::<Vec<_>>()}))
}

/// Every worker.
pub(super) async fn workers(desk: &Desk) -> Result<Value, Missing> {
    let workers = worker_infos(&desk.running()?.router).await?;
    Ok(json!({"data": workers.iter().map(worker_json).collect::<Vec<_>>()}))
}

/// One job, by its id, the beginning of it, or its name; with what failed, by class.
pub(super) async fn job(desk: &Desk, wanted: &str) -> Result<Value, Missing> {
    let router = &desk.running()?.router;
    let jobs = job_infos(router).await?;
    let is_meant = |info: &&JobInfo| info.name == wanted || info.job.to_string().starts_with(wanted);
    let mut found = jobs.iter().filter(is_meant);
    let info = found.next().ok_or(Missing::Job)?;
    if found.next().is_some() {
        return Err(Missing::Ambiguous);
    }
    let rows = failures(router, info).await?;
    let mut value = job_json(info);
    value["failures"] = json!({
        "examined": rows.len(), "is_complete": rows.len() as u64 >= info.counts.failed, "classes": classes(&rows),
    });
    Ok(value)
}

async fn failures(router: &Asker, info: &JobInfo) -> Result<Vec<FailureRow>, Missing> {
    let (mut rows, mut after) = (Vec::<FailureRow>::new(), 0);
    while rows.len() < FAILURES_MAX {
        let limit = (FAILURES_MAX - rows.len()) as u32;
        let question = Question::Failures { job: info.job, after, limit };
        let Answer::Failures(more) = router.ask(question).await? else { return Err(Missing::Job) };
        let Some(last) = more.last() else { break };
        after = last.number;
        // Of a body only what is shown is kept: there may be a megabyte in each.
        rows.extend(more.into_iter().map(|row| FailureRow { body: cut(&row.body), ..row }));
    }
    Ok(rows)
}

fn cut(bytes: &bytes::Bytes) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&bytes[..bytes.len().min(SHOWN_BYTES)])
}

/// By class, and in it by message, the most frequent first.
fn classes(rows: &[FailureRow]) -> Value {
    let mut classes = BTreeMap::<Class, BTreeMap<&str, Vec<&FailureRow>>>::new();
    for row in rows {
        let of_class = classes.entry(row.failure.class).or_default();
        of_class.entry(&row.failure.message).or_default().push(row);
    }
    let class = |(class, messages): (Class, BTreeMap<&str, Vec<&FailureRow>>)| {
        let count = messages.values().map(Vec::len).sum::<usize>();
        let mut messages = messages.into_values().collect::<Vec<_>>();
        messages.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
        let shown = messages.iter().take(MESSAGES_MAX).filter_map(|rows| Some(group(rows.len(), rows.first()?)));
        json!({
            "class": class.name(), "count": count, "messages": shown.collect::<Vec<_>>(),
            "messages_total": messages.len(),
        })
    };
    classes.into_iter().map(class).collect()
}

fn group(count: usize, row: &FailureRow) -> Value {
    let Failure { message, evidence, .. } = &row.failure;
    json!({
        "message": shown(message.as_bytes()), "count": count,
        "sample": {
            "number": row.number, "key": row.key.to_string(), "attempts": row.attempts, "body": shown(&row.body),
            "worker": evidence.worker, "exit_code": evidence.exit_code, "signal": evidence.signal,
            "stderr": shown(&evidence.stderr), "deaths": evidence.deaths,
        },
    })
}

/// The beginning of it, as far as it is text.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned()
}

async fn stats(router: &Asker) -> Result<Stats, Missing> {
    let Answer::Stats(stats) = router.ask(Question::Stats).await? else { return Err(Missing::Router) };
    Ok(stats)
}

async fn job_infos(router: &Asker) -> Result<Vec<JobInfo>, Missing> {
    let Answer::Jobs(jobs) = router.ask(Question::Jobs).await? else { return Err(Missing::Router) };
    Ok(jobs)
}

async fn worker_infos(router: &Asker) -> Result<Vec<WorkerInfo>, Missing> {
    let Answer::Workers(workers) = router.ask(Question::Workers).await? else { return Err(Missing::Router) };
    Ok(workers)
}

fn stats_json(stats: &Stats) -> Value {
    let Stats { totals, standing, tokens } = stats;
    let names = std::iter::once("ok").chain(Class::ALL.into_iter().map(Class::name));
    let outcomes = names.zip(totals.outcomes).collect::<BTreeMap<_, _>>();
    json!({
        "outcomes": outcomes, "states": BTreeMap::from(states(standing)), "attempts": totals.assigned,
        "redelivered": totals.redelivered, "recalled": totals.recalled, "duplicates_suppressed": totals.suppressed,
        "results_dropped": totals.dropped, "rows_refused": totals.refused, "workers_lost": totals.lost,
        "took_ms": totals.took_ms, "jobs": standing.jobs, "results_unsettled": standing.unsettled,
        "idle_ms": standing.idle_ms,
        "tokens": tokens.iter().map(|of| json!({
            "model": of.service, "prompt": of.tokens.prompt, "completion": of.tokens.completion,
        })).collect::<Vec<_>>(),
    })
}

fn job_json(info: &JobInfo) -> Value {
    let c = &info.counts;
    let state = match info.state {
        JobState::Open => "open",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
    };
    json!({
        "job": info.job.to_string(), "name": info.name, "service": info.service, "state": state,
        "submitted": c.submitted, "ok": c.ok, "failed": c.failed, "open": c.open, "running": c.running,
        "cached": c.cached, "retried": c.retried, "last_number": c.last_number, "settled": c.settled,
        "unserved": c.unserved,
    })
}

fn worker_json(info: &WorkerInfo) -> Value {
    json!({
        "worker": info.worker.to_string(), "name": info.name, "services": info.services, "batch": info.batch,
        "depth": info.depth, "inflight": info.outstanding, "silent_ms": info.silent_ms,
        "quarantined": info.quarantined,
    })
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Writable => "writable",
        Health::Full => "full",
        Health::Stuck => "stuck",
        Health::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sheaf_task::{Key, RowId};

    use super::*;

    fn failed(number: u64, class: Class, message: &str) -> FailureRow {
        let failure = Failure::new(class, message);
        FailureRow { number, row: RowId([1; 16]), key: Key([2; 16]), attempts: 1, failure, body: Bytes::new() }
    }

    #[test]
    fn failures_stand_under_their_class_the_most_frequent_first() {
        let rows = [
            failed(1, Class::Error, "rare"),
            failed(2, Class::Error, "often"),
            failed(3, Class::Rejected, "no"),
            failed(4, Class::Error, "often"),
        ];
        let classes = classes(&rows);
        let told = |class: usize, message: usize| {
            let group = &classes[class]["messages"][message];
            (classes[class]["class"].clone(), group["message"].clone(), group["count"].clone())
        };
        assert_eq!(told(0, 0), (json!("rejected"), json!("no"), json!(1)));
        assert_eq!(told(1, 0), (json!("error"), json!("often"), json!(2)));
        assert_eq!(told(1, 1), (json!("error"), json!("rare"), json!(1)));
        assert_eq!(classes[1]["messages"][0]["sample"]["number"], 2);
    }

    #[test]
    fn a_body_is_cut_to_what_is_shown() {
        assert_eq!(cut(&Bytes::from(vec![b'x'; 5_000])).len(), SHOWN_BYTES);
    }
}

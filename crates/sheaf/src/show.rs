//! Answers of the router as a person reads them, and as JSON lines.

use std::path::Path;

use serde_json::{Value, json};
use sheaf_task::{
    Evidence, Failure, FailureRow, JobInfo, JobState, TaskInfo, TaskState, Upstream, Waiting, WorkerInfo,
};

use crate::progress::nobody_offers;

/// One job as a line.
pub(crate) fn job_line(info: &JobInfo) -> String {
    let c = &info.counts;
    format!(
        "{}  {:<9}  {:>9} rows  {:>9} ok  {:>6} failed  {:>9} open  {:<16}  {}",
        info.job.short(),
        job_state(info.state),
        c.submitted,
        c.ok,
        c.failed,
        c.open,
        info.service,
        info.name
    )
}

/// One job at length.
pub(crate) fn job_page(info: &JobInfo) -> String {
    let c = &info.counts;
    let is_again = c.last_number > c.submitted;
    let again = if is_again { "; a row that ran again has one for each time" } else { "" };
    let mut lines = vec![
        format!("job        {}", info.job),
        format!("name       {}", info.name),
        format!("service    {}", info.service),
        format!("state      {}", job_state(info.state)),
        format!("rows       submitted {} = ok {} + failed {} + open {}", c.submitted, c.ok, c.failed, c.open),
        format!("in flight  {}", c.running),
        format!("cached     {}", c.cached),
        format!("retried    {}", c.retried),
        format!("delivered  {} of {} results in the sink{again}", c.settled, c.last_number),
    ];
    lines.extend(waits_for(info).map(|why| format!("waiting    {why}")));
    lines.join("\n")
}

/// What the job's open rows cannot go on without.
fn waits_for(info: &JobInfo) -> Option<String> {
    let is_waiting = info.counts.running == 0 && info.counts.unserved > 0;
    is_waiting.then(|| nobody_offers(&info.service))
}

/// One job as JSON.
pub(crate) fn job_json(info: &JobInfo) -> Value {
    let c = &info.counts;
    json!({
        "job": info.job.to_string(), "name": info.name, "service": info.service, "state": job_state(info.state),
        "submitted": c.submitted, "ok": c.ok, "failed": c.failed, "open": c.open, "running": c.running,
        "cached": c.cached, "retried": c.retried, "last_number": c.last_number, "settled": c.settled,
        "waiting": waits_for(info),
    })
}

fn job_state(state: JobState) -> &'static str {
    match state {
        JobState::Open => "open",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
    }
}

/// One worker as a line.
pub(crate) fn worker_line(info: &WorkerInfo) -> String {
    format!(
        "{}  batch {:>4}  depth {:>4}  outstanding {:>5}  heard {:>6.1} s ago{}  {:<24}  {}",
        info.worker.short(),
        info.batch,
        info.depth,
        info.outstanding,
        info.silent_ms as f64 / 1e3,
        if info.quarantined { "  quarantined" } else { "" },
        info.services.join(","),
        info.name
    )
}

/// One task at length; `stopped` as in [`task_state`].
pub(crate) fn task_page(info: &TaskInfo, stopped: Option<&Path>) -> String {
    [
        format!("task       {}", info.key),
        format!("service    {}", service_of(info).unwrap_or("not kept, the task is settled")),
        format!("body       {} bytes", info.body_len),
        format!("attempts   {}", info.attempts),
        format!("state      {}", task_state(&info.state, stopped)),
    ]
    .join("\n")
}

/// What it asks for; of a settled task a router does not keep it.
fn service_of(info: &TaskInfo) -> Option<&str> {
    Some(info.service.as_str()).filter(|service| !service.is_empty())
}

/// Why a task is where it is; `stopped` as in [`task_state`].
pub(crate) fn task_reason(info: &TaskInfo, stopped: Option<&Path>) -> String {
    let state = task_state(&info.state, stopped);
    match &info.state {
        TaskState::Waiting(_) | TaskState::Running { .. } => state,
        TaskState::Ok => format!("{state}: it has its answer, at attempt {}, and waits for nothing", info.attempts),
        TaskState::Failed(_) => format!("{state}; it waits for nothing, and `sheaf retry` runs it again"),
    }
}

/// One task as JSON; `stopped` as in [`task_state`].
pub(crate) fn task_json(info: &TaskInfo, stopped: Option<&Path>) -> Value {
    let mut value = json!({
        "key": info.key.to_string(), "service": service_of(info), "body_len": info.body_len, "attempts": info.attempts,
        "state": task_state(&info.state, stopped),
    });
    if let TaskState::Failed(failure) = &info.state {
        value["error"] = failure_json(failure);
    }
    value
}

/// Where a task is, and why it is not further, in a sentence. `stopped` is the data directory, where no router runs on
/// it: what one would wait for if it had just started then says nothing.
pub(crate) fn task_state(state: &TaskState, stopped: Option<&Path>) -> String {
    match (state, stopped) {
        (TaskState::Waiting(_) | TaskState::Running { .. }, Some(data)) => {
            format!("open, and no router runs on {}: repeat the job's `sheaf run`, or start `sheaf up`", data.display())
        }
        (TaskState::Waiting(why), None) => format!("waiting: {}", waiting(why)),
        (TaskState::Running { worker, ms }, None) => format!("in flight at {worker} for {:.1} s", *ms as f64 / 1e3),
        (TaskState::Ok, _) => "ok".to_owned(),
        (TaskState::Failed(failure), _) => format!("failed ({}): {}", failure.class.name(), failure.message),
    }
}

fn waiting(why: &Waiting) -> String {
    match why {
        Waiting::NoWorker { service } => {
            format!("no worker offers `{service}`; start one with `sheaf worker --service {service} -- PROGRAM {{}}`")
        }
        Waiting::AllFull { workers, ahead } => {
            format!("all {workers} workers of its service are full, and about {ahead} tasks come before it")
        }
        Waiting::Backoff { ms } => format!("it failed and is tried again in {:.1} s", *ms as f64 / 1e3),
        Waiting::Withheld { ms } => {
            format!(
                "the router has just started and gives workers {:.1} s more to say that they run it",
                *ms as f64 / 1e3
            )
        }
        Waiting::Suspect => "it may have killed a worker, so it waits to run alone".to_owned(),
        Waiting::Rate => "the job's --rate is used up for now".to_owned(),
        Waiting::Ready => "its turn has come".to_owned(),
    }
}

/// One failed row, over a few lines.
pub(crate) fn failure_page(row: &FailureRow) -> String {
    let mut lines = vec![
        format!("#{}  task {}  attempts {}", row.number, row.key, row.attempts),
        format!("    {}: {}", row.failure.class.name(), row.failure.message),
        format!("    payload: {}", excerpt(&row.body)),
    ];
    if !row.failure.evidence.stderr.is_empty() {
        lines.push(format!("    stderr: {}", excerpt(&row.failure.evidence.stderr)));
    }
    lines.join("\n")
}

/// One failed row as JSON.
pub(crate) fn failure_row_json(row: &FailureRow) -> Value {
    json!({
        "number": row.number, "key": row.key.to_string(), "attempts": row.attempts,
        "body": String::from_utf8_lossy(&row.body), "error": failure_json(&row.failure),
    })
}

fn failure_json(failure: &Failure) -> Value {
    let Evidence { exit_code, signal, stderr, worker, deaths, upstream } = &*failure.evidence;
    let upstream = upstream.as_deref().map(|upstream| {
        let Upstream { status, message, kind, param, code } = upstream;
        json!({"status": status, "message": message, "type": kind, "param": param, "code": code})
    });
    json!({
        "class": failure.class.name(), "message": failure.message,
        "evidence": {
            "exit_code": exit_code, "signal": signal, "stderr": String::from_utf8_lossy(stderr),
            "worker": worker, "deaths": deaths, "upstream": upstream,
        },
    })
}

/// The beginning of some bytes on one line.
fn excerpt(bytes: &[u8]) -> String {
    const CHARS_MAX: usize = 200;
    let text = String::from_utf8_lossy(bytes);
    let short: String = text.trim_end().chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.trim_end().chars().nth(CHARS_MAX).is_some() { short + " …" } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_stay_on_one_line() {
        assert_eq!(excerpt(b"a\nb\n"), "a\\nb");
        assert!(excerpt(&[b'x'; 300]).ends_with(" …"));
    }
}

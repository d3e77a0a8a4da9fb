//! The commands of operators: each asks a router and shows the answer.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use sheaf_task::{Answer, JobId, JobInfo, JobState, Key, Question};

use crate::args::{FailuresArgs, JobArgs, JobCommand, RetryArgs, Target, TaskCommand};
use crate::ask::Asker;
use crate::out;
use crate::show;

/// Between two looks of `job wait`.
const WAIT_EVERY: Duration = Duration::from_millis(250);

/// `sheaf job …`
pub(crate) async fn job(command: JobCommand, json: bool) -> Result<u8> {
    match command {
        JobCommand::Ls(target) => list(&target, json).await,
        JobCommand::Info(args) => info(&args, json).await,
        JobCommand::Wait(args) => wait(&args, json).await,
        JobCommand::Cancel(args) => cancel(&args).await,
    }
}

async fn list(target: &Target, json: bool) -> Result<u8> {
    let mut asker = Asker::find(target).await?;
    let jobs = jobs(&mut asker).await?;
    // Workers belong to no app: a tenant is not shown them.
    let workers = match asker.ask_if_granted(Question::Workers).await? {
        Some(Answer::Workers(workers)) => workers,
        Some(_) => bail!("the answer is to another question"),
        None => Vec::new(),
    };
    for info in &jobs {
        out::line(if json { show::job_json(info).to_string() } else { show::job_line(info) })?;
    }
    if !json {
        for worker in &workers {
            out::line(format_args!("worker {}", show::worker_line(worker)))?;
        }
        if jobs.is_empty() {
            eprintln!("sheaf: no jobs yet; begin one with: sheaf run --in ROWS --out RESULTS -- PROGRAM {{}}");
        }
    }
    asker.close().await?;
    Ok(0)
}

async fn info(args: &JobArgs, json: bool) -> Result<u8> {
    let mut asker = Asker::find(&args.target).await?;
    let info = find(&mut asker, &args.job).await?;
    out::line(if json { show::job_json(&info).to_string() } else { show::job_page(&info) })?;
    asker.close().await?;
    Ok(0)
}

async fn wait(args: &JobArgs, json: bool) -> Result<u8> {
    let mut asker = Asker::find(&args.target).await?;
    let mut info = find(&mut asker, &args.job).await?;
    let id = info.job.to_string();
    while info.state == JobState::Open || info.counts.open > 0 {
        if asker.is_own() {
            asker.close().await?;
            bail!(
                "{} rows are open and no router runs on {}: nothing would ever end this wait",
                info.counts.open,
                args.target.data.display()
            );
        }
        tokio::time::sleep(WAIT_EVERY).await;
        info = find(&mut asker, &id).await?;
    }
    out::line(if json { show::job_json(&info).to_string() } else { show::job_page(&info) })?;
    asker.close().await?;
    Ok(if info.counts.failed > 0 { 3 } else { 0 })
}

async fn cancel(args: &JobArgs) -> Result<u8> {
    let mut asker = Asker::find(&args.target).await?;
    let info = find(&mut asker, &args.job).await?;
    match asker.ask(Question::CancelJob(info.job)).await? {
        Answer::Done(tasks) => eprintln!("sheaf: job {} is cancelled; {tasks} rows were open", info.job.short()),
        _ => bail!("job {} is gone", info.job.short()),
    }
    asker.close().await?;
    Ok(0)
}

/// `sheaf task …`
pub(crate) async fn task(command: TaskCommand, json: bool) -> Result<u8> {
    let (TaskCommand::Info(args) | TaskCommand::Explain(args)) = &command;
    let key = key(&args.key)?;
    let mut asker = Asker::find(&args.target).await?;
    let answer = asker.ask(Question::Task(key)).await?;
    let stopped = asker.is_own().then_some(args.target.data.as_path());
    asker.close().await?;
    let Answer::Task(Some(info)) = answer else {
        bail!("the router knows no task {}; its key is the `key` of an output line", args.key)
    };
    out::line(match command {
        _ if json => show::task_json(&info, stopped).to_string(),
        TaskCommand::Info(_) => show::task_page(&info, stopped),
        TaskCommand::Explain(_) => show::task_reason(&info, stopped),
    })?;
    Ok(0)
}

/// `sheaf failures`
pub(crate) async fn failures(args: FailuresArgs, json: bool) -> Result<u8> {
    let mut asker = Asker::find(&args.job.target).await?;
    let job = find(&mut asker, &args.job.job).await?.job;
    let (mut after, mut left) = (0, args.max);
    while left > 0 {
        let question = Question::Failures { job, after, limit: left };
        let Answer::Failures(rows) = asker.ask(question).await? else { break };
        let Some(last) = rows.last() else { break };
        (after, left) = (last.number, left.saturating_sub(rows.len() as u32));
        for row in &rows {
            out::line(if json { show::failure_row_json(row).to_string() } else { show::failure_page(row) })?;
        }
    }
    if after == 0 && !json {
        eprintln!("sheaf: no failures");
    }
    asker.close().await?;
    Ok(0)
}

/// `sheaf retry`
pub(crate) async fn retry(args: RetryArgs, json: bool) -> Result<u8> {
    let keys = args.keys.iter().map(|text| key(text)).collect::<Result<Vec<_>>>()?;
    let mut asker = Asker::find(&args.job.target).await?;
    let job = find(&mut asker, &args.job.job).await?;
    let is_chosen = !keys.is_empty();
    let tasks = match asker.ask(Question::Retry { job: job.job, keys }).await? {
        Answer::Done(tasks) if tasks > 0 || !is_chosen => tasks,
        _ => bail!("job {} has no such failed rows", job.job.short()),
    };
    if json {
        out::line(serde_json::json!({ "retried": tasks }))?;
    } else {
        match tasks {
            0 => eprintln!(
                "sheaf: no row of it failed at a program; a row that could not be read is mended at its source"
            ),
            1 => eprintln!("sheaf: 1 row is open again; repeat the job's `sheaf run` to have its answer"),
            _ => eprintln!("sheaf: {tasks} rows are open again; repeat the job's `sheaf run` to have their answers"),
        }
    }
    asker.close().await?;
    Ok(0)
}

/// `sheaf shutdown`
pub(crate) async fn shutdown(target: Target) -> Result<u8> {
    let mut asker = Asker::find(&target).await?;
    asker.ask(Question::Shutdown).await?;
    if asker.is_own() {
        eprintln!("sheaf: no router runs on {}; there is nothing to stop", target.data.display());
    } else {
        eprintln!("sheaf: the router is stopping");
    }
    asker.close().await?;
    Ok(0)
}

async fn jobs(asker: &mut Asker) -> Result<Vec<JobInfo>> {
    match asker.ask(Question::Jobs).await? {
        Answer::Jobs(jobs) => Ok(jobs),
        _ => bail!("the answer is to another question"),
    }
}

/// The job that is meant by `last`, an id, the beginning of one, or a name (the newest of that name).
async fn find(asker: &mut Asker, meant: &str) -> Result<JobInfo> {
    let mut jobs = jobs(asker).await?;
    if meant == "last" {
        return jobs.pop().context("there are no jobs yet");
    }
    if let Some(id) = JobId::parse(meant) {
        let found = jobs.into_iter().find(|info| info.job == id);
        return found.with_context(|| format!("there is no job {meant}; see: sheaf job ls"));
    }
    let is_meant = |info: &JobInfo| info.name == meant || (meant.len() >= 4 && info.job.to_string().starts_with(meant));
    let found = jobs.into_iter().rev().find(is_meant);
    found.with_context(|| format!("there is no job {meant}; see: sheaf job ls"))
}

fn key(text: &str) -> Result<Key> {
    Key::parse(text)
        .with_context(|| format!("`{text}` is no key: it has 32 hex digits, as in the `key` of an output line"))
}

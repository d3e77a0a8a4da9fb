//! `sheaf run`: source, router, worker and sink in one process, or source and sink alone with a router elsewhere.

mod embedded;
mod job;

use std::path::Path;

use anyhow::{Context, Result};
use sheaf_client::{Interrupt, Prepared, Progress, SessionLine, Summary, run_job};
use sheaf_net::Target;
use sheaf_roles::client::Reason;
use sheaf_task::{JobId, Refusal};
use tokio::sync::watch;

use crate::args::{DATA_DEFAULT, RunArgs};
use crate::login::{insist_unused, target_of};
use crate::out;
use crate::progress::Display;
use crate::signals::{INTERRUPTED, Signals};

use embedded::Embedded;

/// Runs a job; the exit code says how it went, and so does the last line for a machine.
pub(crate) async fn run(args: RunArgs, json: bool) -> Result<u8> {
    let ended = run_to_end(args, json).await;
    if let Err(error) = &ended
        && json
    {
        let (reason, exit) = ("error", crate::REFUSED);
        out::line(serde_json::json!({ "reason": reason, "why": format!("{error:#}"), "exit": exit }))?;
    }
    ended
}

/// Whatever may be refused is, before the job's first byte is on disk.
async fn run_to_end(args: RunArgs, json: bool) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let config = job::job_of(&args)?;
    if args.join.is_none() {
        crate::program::work_of(&args.program)?;
    }
    let joined = match &args.join {
        Some(addr) => Some(target_of(addr, &args.login).await?),
        None => {
            insist_unused(&args.login)?;
            None
        }
    };
    let interrupt = Interrupt::default();
    let claimed = patiently(move || sheaf_client::claim(config), None, &mut signals).await??;
    let (embedded, target) = match joined {
        Some(target) => (None, target),
        None => {
            let embedded = Embedded::start(&args).await?;
            let target = embedded.target();
            (Some(embedded), target)
        }
    };
    let asked = interrupt.clone();
    let prepared = patiently(move || claimed.prepare(&asked), Some(&interrupt), &mut signals).await?;
    let drain = || embedded.iter().for_each(Embedded::drain);
    let ended = match prepared {
        Ok(prepared) => carry(prepared, target, &args, &interrupt, drain, &mut signals, json).await,
        Err(error) if error.is_interrupt() => {
            eprintln!("sheaf: {error}");
            Ok(INTERRUPTED)
        }
        Err(error) => Err(error.into()),
    };
    let stopped = match embedded {
        Some(embedded) => embedded.stop(&mut signals).await,
        None => Ok(()),
    };
    let code = ended?;
    stopped?;
    Ok(code)
}

/// Does what blocks, on a thread of its own. The first signal asks it to end, where it can be asked; else, and the second
/// time, it is not waited for: up to here every step can be cut off anywhere.
async fn patiently<T: Send + 'static>(
    act: impl FnOnce() -> T + Send + 'static,
    interrupt: Option<&Interrupt>,
    signals: &mut Signals,
) -> Result<T> {
    let mut acting = tokio::task::spawn_blocking(act);
    loop {
        tokio::select! {
            done = &mut acting => return done.context("a thread panicked"),
            () = signals.next() => match interrupt {
                Some(interrupt) if !interrupt.is_asked() => interrupt.ask(),
                Some(_) | None => std::process::exit(i32::from(INTERRUPTED)),
            },
        }
    }
}

/// Carries the job's rows until it ends, and says how it did.
async fn carry(
    prepared: Prepared,
    target: Target,
    args: &RunArgs,
    interrupt: &Interrupt,
    drain: impl Fn(),
    signals: &mut Signals,
    json: bool,
) -> Result<u8> {
    let (resumed, job) = (prepared.resumed(), prepared.record().job);
    if resumed > 0 && !json {
        let failed = match prepared.resumed_failed() {
            0 => String::new(),
            failed => format!(", {failed} of them failed"),
        };
        eprintln!("sheaf: resumed: {resumed} in the output{failed}");
    }
    let line = SessionLine::open(target, args.chaos.chaos).context("cannot read random numbers")?;
    let display = Display::new(json, prepared.service().to_owned());
    let (progress, seen) = watch::channel(Progress::default());
    let running = tokio::spawn(run_job(prepared, line, interrupt.clone(), progress));
    let summary = watch_job(running, interrupt, drain, signals, seen, display).await?;
    if json {
        out::line(audit_json(&summary))?;
    } else {
        say(&summary, job, args);
    }
    Ok(summary.exit_code())
}

type Running = tokio::task::JoinHandle<Result<Summary, sheaf_client::RunError>>;

/// Shows progress until the job ends. The first signal asks it to end, the second does not wait for it.
async fn watch_job(
    mut running: Running,
    interrupt: &Interrupt,
    drain: impl Fn(),
    signals: &mut Signals,
    mut seen: watch::Receiver<Progress>,
    mut display: Display,
) -> Result<Summary> {
    loop {
        tokio::select! {
            ended = &mut running => {
                display.clear();
                return Ok(ended.context("the job's task panicked; the same command resumes")??);
            }
            Ok(()) = seen.changed() => display.show(&seen.borrow_and_update().clone()),
            () = signals.next() => {
                if interrupt.is_asked() {
                    std::process::exit(i32::from(INTERRUPTED));
                }
                display.clear();
                eprintln!("sheaf: finishing what runs; the same command resumes (again to stop at once)");
                interrupt.ask();
                drain();
            }
        }
    }
}

fn say(summary: &Summary, job: JobId, args: &RunArgs) {
    eprintln!("sheaf: {summary}");
    match summary.exit_code() {
        0 => {}
        INTERRUPTED => eprintln!("sheaf: interrupted; repeat the command to resume"),
        3 => {
            if summary.ended.reason == Reason::TooManyFailures {
                eprintln!("sheaf: stopped for too many failures; mend what is wrong and repeat the command");
            }
            let (failed, out, at) = (summary.books().failed, args.out.display(), place(job, args));
            let rows = if failed == 1 { "row" } else { "rows" };
            eprintln!("sheaf: {failed} {rows} failed, and {out} says why");
            if summary.tasks_failed {
                eprintln!(
                    "sheaf: failures of a program: `sheaf failures {at}` lists them, `sheaf retry {at}` runs them again"
                );
            }
        }
        _ => eprintln!("sheaf: ended: {}", why(&summary.ended.reason)),
    }
}

/// The job as a command names it: by its id, since another may have become the last, and where it is.
fn place(job: JobId, args: &RunArgs) -> String {
    let place = match &args.join {
        Some(addr) => format!(" --join {addr}"),
        None if args.data == Path::new(DATA_DEFAULT) => String::new(),
        None => format!(" --data {}", args.data.display()),
    };
    format!("{}{place}", job.short())
}

fn audit_json(summary: &Summary) -> serde_json::Value {
    let (books, audit) = (summary.books(), &summary.ended.audit);
    serde_json::json!({
        "audit": {
            "submitted": books.submitted, "ok": books.ok, "failed": books.failed, "open": books.open,
            "lost": audit.lost, "repeated": audit.repeated, "cached": audit.cached, "resumed": audit.resumed,
        },
        "tokens": summary.tokens.map(|tokens| serde_json::json!({ "prompt": tokens.prompt, "completion": tokens.completion })),
        "ms": summary.ms, "exit": summary.exit_code(),
        "reason": reason(&summary.ended.reason), "why": why(&summary.ended.reason),
    })
}

/// Why the run ended, for machines: a word that stays.
fn reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::Complete => "complete",
        Reason::Interrupted => "interrupted",
        Reason::TooManyFailures => "too_many_failures",
        Reason::Refused(_) => "refused",
        Reason::Gap { .. } => "gap",
    }
}

/// The same for people, with what is to be done.
fn why(reason: &Reason) -> String {
    match reason {
        Reason::Complete => "every row has its outcome".to_owned(),
        Reason::Interrupted => "interrupted; repeat the command to resume".to_owned(),
        Reason::TooManyFailures => "too many rows failed; mend what is wrong and repeat the command".to_owned(),
        Reason::Gap { after, got } => format!(
            "after result {after} came {got}: the router left some out; repeat the command, it asks for them again"
        ),
        Reason::Refused(refusal) => format!("the router will not have this job: {}", refused(refusal)),
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Busy { .. } => "it is at one of its limits; repeat the command later".to_owned(),
        Refusal::TooLong { len, max } => format!("a name of {len} bytes is longer than {max}"),
        Refusal::UnknownJob => "it does not know the job; repeat the command".to_owned(),
        Refusal::Cancelled => "the job was cancelled; `--fresh` begins another on these rows".to_owned(),
        Refusal::OtherJob => {
            "it has the job with another service or revision, or it is another app's; `--fresh` begins another on these rows".to_owned()
        }
        Refusal::CursorAhead { last } => format!(
            "the sink has results after number {last}, the last that this router gave: its directory is an older copy, or \
             the job belongs to another router; join that one, or begin anew with `--fresh`"
        ),
        Refusal::Stopping => "it is shutting down; repeat the command once it runs again".to_owned(),
        Refusal::Superseded { incarnation } => format!("a later life ({incarnation}) is on record"),
        Refusal::Forbidden => {
            "this token does not grant it: running jobs takes one of `sheaf token create --role client --app APP`".to_owned()
        }
    }
}

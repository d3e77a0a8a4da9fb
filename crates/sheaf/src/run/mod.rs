//! `sheaf run`: source, router, worker and sink in one process, or source and sink alone with a router elsewhere.

mod embedded;
mod job;

use anyhow::{Context, Result};
use sheaf_client::{Interrupt, Progress, SessionLine, Summary, prepare, run_job};
use sheaf_net::Target;
use tokio::sync::watch;

use crate::args::RunArgs;
use crate::progress::Display;
use crate::signals::{INTERRUPTED, Signals};

use embedded::Embedded;

/// Runs a job; the exit code says how it went.
pub(crate) async fn run(args: RunArgs, json: bool) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let config = job::job_of(&args)?;
    if args.join.is_none() {
        // What is wrong with the program is said before anything is made on disk.
        crate::program::work_of(&args.program)?;
    }
    let target = match &args.join {
        Some(addr) => Some(Target::tcp(addr).await?),
        None => None,
    };
    let interrupt = Interrupt::default();
    let asked = interrupt.clone();
    let prepared =
        tokio::task::spawn_blocking(move || prepare(config, &asked)).await.context("a thread panicked")??;
    let resumed = prepared.resumed();
    if resumed > 0 && !json {
        eprintln!("sheaf: resumed: {resumed} finished");
    }
    let embedded = match target {
        Some(_) => None,
        None => Some(Embedded::start(&args).await?),
    };
    let target = target.or_else(|| embedded.as_ref().map(Embedded::target)).context("no router")?;
    let line = SessionLine::open(target, args.chaos.chaos).context("cannot read random numbers")?;
    let (progress, seen) = watch::channel(Progress::default());

    let running = tokio::spawn(run_job(prepared, line, interrupt.clone(), progress));
    let asked = || {
        interrupt.ask();
        if let Some(embedded) = &embedded {
            embedded.drain();
        }
    };
    let summary = watch_job(running, &interrupt, asked, &mut signals, seen, json).await;
    let ended = match embedded {
        Some(embedded) => embedded.stop(&mut signals).await,
        None => Ok(()),
    };
    let summary = summary?;
    let code = say(&summary, json);
    ended?;
    Ok(code)
}

type Running = tokio::task::JoinHandle<Result<Summary, sheaf_client::RunError>>;

/// Shows progress until the job ends. The first signal asks it to end, the second does not wait for it.
async fn watch_job(
    mut running: Running,
    interrupt: &Interrupt,
    ask: impl Fn(),
    signals: &mut Signals,
    mut seen: watch::Receiver<Progress>,
    json: bool,
) -> Result<Summary> {
    let mut display = Display::new(json);
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
                ask();
            }
        }
    }
}

fn say(summary: &Summary, json: bool) -> u8 {
    if json {
        println!("{}", audit_json(summary));
    } else {
        eprintln!("sheaf: {summary}");
        match summary.exit_code() {
            0 => {}
            INTERRUPTED => eprintln!("sheaf: interrupted; repeat the command to resume"),
            3 => eprintln!("sheaf: {} rows failed; see them with: sheaf failures last", summary.failed()),
            _ => eprintln!("sheaf: ended: {:?}", summary.ended.reason),
        }
    }
    summary.exit_code()
}

fn audit_json(summary: &Summary) -> serde_json::Value {
    let audit = &summary.ended.audit;
    serde_json::json!({
        "audit": {
            "submitted": audit.submitted, "ok": audit.ok, "failed": audit.failed, "open": audit.open,
            "lost": audit.lost, "repeated": audit.repeated, "cached": audit.cached, "resumed": audit.resumed,
        },
        "ms": summary.ms, "exit": summary.exit_code(),
    })
}

//! One process per attempt, the row in its arguments or on its standard input.
//!
//! Cancel and time-out send SIGKILL to the group at once: a program that wants to tidy up does it in the next attempt.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sheaf_task::{Assignment, BODY_BYTES_MAX, Class, Outcome};
use tokio::sync::oneshot;

use super::pipes::{self, Written};
use super::verdict::{self, Seen};
use crate::config::{Mode, ProgramConfig};
use crate::keeper::{Attended, End, Keeper, Program};

/// Once its first process has ended, how long a program's pipes may stay open before what came is taken as all.
const PIPES_LINGER: Duration = Duration::from_secs(1);

/// A program that ends sooner costs no registration of its pipes and no wake when they close: what it wrote is in them. One
/// that fills a pipe sooner waits that long, once.
const ATTEND_AFTER: Duration = Duration::from_millis(2);

/// Makes one attempt. `stop` ends it: the outcome is `cancelled` then.
pub(crate) async fn attempt(
    config: Arc<ProgramConfig>,
    keeper: Keeper,
    assignment: Assignment,
    stop: oneshot::Receiver<()>,
) -> Outcome {
    let name = config.base_name();
    if config.mode == Mode::Argument && assignment.body.contains(&0) {
        let message =
            format!("the row holds a NUL byte, which no argument of {name} can: let it read the row, with --stdin");
        return verdict::failed(Class::Rejected, message, Default::default());
    }
    let argv = config.argv_for(&assignment.body);
    let stdin = config.mode == Mode::Stdin;
    let spawned = keeper.spawn(&argv, config.memory.unwrap_or(0), stdin).await;
    let program = match spawned {
        Ok(program) => program,
        Err(error) => return not_started(&name, &error),
    };
    drop(argv);
    let id = program.id;
    let limit = Duration::from_millis(assignment.timeout_ms);
    let (ended, stopped) = {
        let mut running = std::pin::pin!(run(&keeper, program, &assignment.body));
        tokio::select! {
            biased;
            ended = &mut running => (ended, None),
            // A dropped sender is an executor that is being dropped.
            _ = stop => { keeper.kill(id).await; (running.await, Some(Class::Cancelled)) }
            () = sleep_unless_zero(limit) => { keeper.kill(id).await; (running.await, Some(Class::Timeout)) }
        }
    };
    let seen = match ended {
        Ok(Some(seen)) => seen,
        Ok(None) => {
            // Perhaps by the program's doing: a suspect is tried alone, and not for ever.
            let message = format!("the process that keeps {name} has died");
            return verdict::failed(Class::Crashed, message, Default::default());
        }
        Err(error) => return not_started(&name, &error),
    };
    match stopped {
        None => verdict::judge(&name, &config.retry_exit, seen),
        Some(class) => stopped_early(class, &name, limit, seen),
    }
}

fn not_started(name: &str, error: &io::Error) -> Outcome {
    verdict::not_started(name, error.raw_os_error().unwrap_or(0))
}

/// The program's life to its end; `None` when its keeper died. An error is ours: the system would not let its pipes be
/// waited for, so it was stopped.
async fn run(keeper: &Keeper, mut program: Program, body: &[u8]) -> io::Result<Option<Seen>> {
    let (mut written, mut end) = (Written::default(), None);
    program.stdin = program.stdin.take().and_then(|stdin| pipes::feed_short(stdin, body));
    if program.stdin.is_none() {
        tokio::select! {
            biased;
            told = &mut program.end => {
                let Ok(told) = told else { return Ok(None) };
                if pipes::settle(&mut program.stdout, &mut program.stderr, &mut written)? {
                    return Ok(Some(Seen::new(told, written)));
                }
                end = Some(told);
            }
            () = tokio::time::sleep(ATTEND_AFTER) => {}
        }
    }
    let program = keeper.attend(program).await?;
    let end = attend(keeper, program, end, body, &mut written).await;
    Ok(end.map(|end| Seen::new(end, written)))
}

/// Waits for the end, where it is not known, and for the pipes. A program that writes more than a result may hold is
/// killed.
async fn attend(
    keeper: &Keeper,
    program: Attended,
    end: Option<End>,
    body: &[u8],
    written: &mut Written,
) -> Option<End> {
    let Attended { id, stdin, mut stdout, mut stderr, end: told } = program;
    let gather = async {
        if pipes::gather(&mut stdout, &mut written.out, BODY_BYTES_MAX).await {
            keeper.kill(id).await;
        }
    };
    let mut io = std::pin::pin!(async {
        tokio::join!(pipes::feed(stdin, body), gather, pipes::follow(&mut stderr, &mut written.errors));
    });
    let mut end = std::pin::pin!(async {
        match end {
            Some(end) => Some(end),
            None => told.await.ok(),
        }
    });
    tokio::select! {
        () = &mut io => end.await,
        end = &mut end => {
            // Whatever escaped and holds a pipe is swept away, or ignored.
            if tokio::time::timeout(PIPES_LINGER, io).await.is_err() {
                tracing::warn!("something that a program left behind holds its pipes");
            }
            end
        }
    }
}

fn stopped_early(class: Class, name: &str, limit: Duration, seen: Seen) -> Outcome {
    let message = match class {
        Class::Timeout => format!("{name} took longer than {limit:?} and was stopped"),
        _ => format!("cancelled: {name} was stopped"),
    };
    let (exit_code, signal) = verdict::code_and_signal(seen.end);
    let evidence = sheaf_task::Evidence { exit_code, signal, stderr: seen.stderr, ..Default::default() };
    verdict::failed(class, message, evidence)
}

/// Sleeps; zero is for ever.
pub(super) async fn sleep_unless_zero(limit: Duration) {
    if limit.is_zero() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(limit).await;
}

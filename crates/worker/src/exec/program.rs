//! One process per attempt, the row in its arguments or on its standard input.
//!
//! Cancel and time-out send SIGKILL to the group at once: a program that wants to tidy up does it in the next attempt.

use std::sync::Arc;
use std::time::Duration;

use sheaf_task::{Assignment, BODY_BYTES_MAX, Class, Outcome};
use tokio::sync::oneshot;

use super::pipes::{self, Tail};
use super::verdict::{self, Seen};
use crate::config::{Mode, ProgramConfig};
use crate::keeper::{End, Keeper, Program};

/// Once its first process has ended, how long a program's pipes may stay open before what came is taken as all.
const PIPES_LINGER: Duration = Duration::from_secs(1);

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
    let mut program = match keeper.spawn(&argv, config.memory.unwrap_or(0), stdin).await {
        Ok(program) => program,
        Err(error) => return verdict::not_started(&name, error.raw_os_error().unwrap_or(0)),
    };
    drop(argv);
    let id = program.id;
    let (mut out, mut tail) = (Vec::new(), Tail::default());
    let limit = Duration::from_millis(assignment.timeout_ms);
    let (ended, stopped) = {
        let mut running = std::pin::pin!(run(&keeper, &mut program, &assignment.body, &mut out, &mut tail));
        tokio::select! {
            biased;
            ended = &mut running => (ended, None),
            // A dropped sender is an executor that is being dropped.
            _ = stop => { keeper.kill(id).await; (running.await, Some(Class::Cancelled)) }
            () = sleep_unless_zero(limit) => { keeper.kill(id).await; (running.await, Some(Class::Timeout)) }
        }
    };
    let Some(end) = ended else {
        // Perhaps by the program's doing: a suspect is tried alone, and not for ever.
        let message = format!("the process that keeps {name} has died");
        return verdict::failed(Class::Crashed, message, Default::default());
    };
    let seen = Seen { end, too_long: out.len() > BODY_BYTES_MAX, stdout: out, stderr: tail.bytes() };
    match stopped {
        None => verdict::judge(&name, &config.retry_exit, seen),
        Some(class) => stopped_early(class, &name, limit, seen),
    }
}

/// The program's life to its end; `None` when its keeper died. One that writes more than a result may hold is killed.
async fn run(keeper: &Keeper, program: &mut Program, body: &[u8], out: &mut Vec<u8>, tail: &mut Tail) -> Option<End> {
    let id = program.id;
    let stdin = program.stdin.take();
    let (stdout, stderr) = (&mut program.stdout, &mut program.stderr);
    let gather = async {
        if pipes::gather(stdout, out, BODY_BYTES_MAX).await {
            keeper.kill(id).await;
        }
    };
    let mut io = std::pin::pin!(async {
        tokio::join!(pipes::feed(stdin, body), gather, pipes::follow(stderr, tail));
    });
    let end = tokio::select! {
        () = &mut io => (&mut program.end).await,
        end = &mut program.end => {
            // Whatever escaped and holds a pipe is swept away, or ignored.
            if tokio::time::timeout(PIPES_LINGER, io).await.is_err() {
                tracing::warn!("something that a program left behind holds its pipes");
            }
            end
        }
    };
    end.ok()
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

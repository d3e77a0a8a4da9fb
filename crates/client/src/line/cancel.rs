//! Cancelling a job at its router, from outside of the run: what is open of it ends as cancelled, and what comes later is
//! refused.

use std::io;
use std::time::Duration;

use sheaf_net::Target;
use sheaf_roles::port::{ClientCommand, ClientReport};
use sheaf_session::How;
use sheaf_task::{Answer, JobId, Question, ToRouter};
use tokio::time::timeout;

use super::LAST_WORDS;
use crate::session::RouterSession;

/// How long a router may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of the only question.
const ASK: u64 = 1;

/// Cancels a job at the router at `target`, and returns how many rows of it were open; `None` where the router knows no
/// such job. Doing so again is harmless.
///
/// # Errors
/// The router does not answer in time: whether the job is cancelled is not known.
pub async fn cancel_job(target: Target, job: JobId) -> io::Result<Option<u64>> {
    let mut running = RouterSession::start(&target, None)?;
    let question = Question::CancelJob(job);
    let mut commands = vec![ClientCommand::Send { tag: None, message: ToRouter::Ask { id: ASK, question } }];
    let answer = timeout(PATIENCE, async {
        while let Some(reports) = running.exchange(&mut commands).await {
            for report in reports {
                if let ClientReport::Answer { id: ASK, answer } = report {
                    return Ok(answer);
                }
            }
        }
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    });
    let answer = answer.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    running.hang_up(Vec::new(), How::Drain, LAST_WORDS).await;
    Ok(match answer? {
        Answer::Done(rows) => Some(rows),
        _ => None,
    })
}

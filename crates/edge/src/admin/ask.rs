//! Questions of many to one router, on one session of this process. It deliberately knows no question.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sheaf_client::RouterSession;
use sheaf_net::{Backoff, Target};
use sheaf_roles::port::{ClientCommand, ClientReport};
use sheaf_session::How;
use sheaf_task::{Answer, Question, ToRouter};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::names::random;

/// How long a router may take to answer. It answers when what it says is on disk, so a stuck disk takes longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Questions that wait to be sent. Full: the next one waits for its turn.
const QUESTIONS_MAX: usize = 16;

/// There is no answer: the router has ended, or did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// What comes to a conversation.
#[derive(Debug)]
enum Turn {
    /// A question, and where its answer goes.
    Ask(Question, oneshot::Sender<Answer>),
    /// Hang up.
    Close,
}

/// A conversation with a router.
#[derive(Debug)]
pub(super) struct Asker {
    turns: mpsc::Sender<Turn>,
    /// Taken by whoever closes.
    talk: Mutex<Option<JoinHandle<()>>>,
}

impl Asker {
    /// Dials, and goes on dialling. A session that is over is followed by another.
    pub(super) fn open(target: Target) -> io::Result<Self> {
        let mut session = RouterSession::start(&target, None)?;
        let mut backoff = Backoff::new(random()?);
        let (turns, mut for_talk) = mpsc::channel(QUESTIONS_MAX);
        let talk = tokio::spawn(async move {
            loop {
                let is_closed = talk(&mut for_talk, &mut session).await;
                session.hang_up(Vec::new(), How::Now, PATIENCE).await;
                if is_closed {
                    return;
                }
                tokio::time::sleep(backoff.pause()).await;
                session = match RouterSession::start(&target, None) {
                    Ok(session) => session,
                    Err(error) => {
                        tracing::error!(%error, "the admin listener cannot ask the router any more");
                        return;
                    }
                };
            }
        });
        Ok(Self { turns, talk: Mutex::new(Some(talk)) })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, NoAnswer> {
        let (to, answer) = oneshot::channel();
        let asked = async {
            self.turns.send(Turn::Ask(question, to)).await.map_err(|_| NoAnswer)?;
            answer.await.map_err(|_| NoAnswer)
        };
        timeout(PATIENCE, asked).await.unwrap_or(Err(NoAnswer))
    }

    /// Hangs up: later questions have no answer.
    pub(super) async fn close(&self) {
        let talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(talk) = talk else { return };
        if self.turns.send(Turn::Close).await.is_err() {
            tracing::debug!("the conversation of the admin listener was over before");
        }
        if talk.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("the conversation of the admin listener panicked");
        }
    }
}

/// Until nobody can ask any more: true; or the session is over.
async fn talk(turns: &mut mpsc::Receiver<Turn>, session: &mut RouterSession) -> bool {
    let mut last = 0_u64;
    // As many as wait: who has lost patience leaves at the next question.
    let mut waiting = BTreeMap::<u64, oneshot::Sender<Answer>>::new();
    loop {
        tokio::select! {
            turn = turns.recv() => {
                let Some(Turn::Ask(question, to)) = turn else { return true };
                waiting.retain(|_, to| !to.is_closed());
                last += 1;
                waiting.insert(last, to);
                let ask = ClientCommand::Send { tag: None, message: ToRouter::Ask { id: last, question } };
                if !session.say(vec![ask]).await {
                    return false;
                }
            }
            told = session.told() => {
                let Some(told) = told else { return false };
                for report in told {
                    match report {
                        ClientReport::Answer { id, answer } => {
                            if let Some(to) = waiting.remove(&id) && to.send(answer).is_err() {
                                tracing::debug!("an answer came too late");
                            }
                        }
                        ClientReport::Over(why) => {
                            tracing::warn!(?why, "the router has ended the conversation of the admin listener");
                            return false;
                        }
                        ClientReport::Event { .. } | ClientReport::Piece { .. } => {}
                    }
                }
            }
        }
    }
}

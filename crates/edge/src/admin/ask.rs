//! Questions of many to one router, on one session of this process. It deliberately knows no question.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sheaf_net::{Backoff, Clock, Link, Source, Target};
use sheaf_roles::port::{ClientCommand, ClientPort, ClientReport, fit_dialer_config};
use sheaf_session::{Config, Depth, How, Session, SessionId, Side};
use sheaf_task::{Answer, Question, ToRouter};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

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
        let mut session = Running::start(&target)?;
        let (turns, mut for_talk) = mpsc::channel(QUESTIONS_MAX);
        let talk = tokio::spawn(async move {
            let mut backoff = Backoff::new(session.seed);
            loop {
                let is_closed = talk(&mut for_talk, &session.commands, &mut session.reports).await;
                session.end().await;
                if is_closed {
                    return;
                }
                tokio::time::sleep(backoff.pause()).await;
                session = match Running::start(&target) {
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

/// A session and its link.
struct Running {
    seed: u64,
    commands: mpsc::Sender<Vec<ClientCommand>>,
    reports: mpsc::Receiver<Vec<ClientReport>>,
    link: JoinHandle<ClientPort>,
}

impl Running {
    fn start(target: &Target) -> io::Result<Self> {
        let (seed, id) = (u64::from_le_bytes(random()?), random()?);
        let config = fit_dialer_config(Config { incarnation: 1, boot: seed, ..Config::default() }, Depth::Memory);
        let session = Session::new(config, Side::Dialer, SessionId(id), seed);
        let (commands, for_link) = mpsc::channel(4);
        let (from_link, reports) = mpsc::channel(4);
        let source = Source::Dial { target: target.clone(), seed };
        let link = Link::new(ClientPort::new(session), Clock::start(), source, for_link, from_link);
        Ok(Self { seed, commands, reports, link: tokio::spawn(link.run()) })
    }

    async fn end(self) {
        if self.commands.send(vec![ClientCommand::Close(How::Now)]).await.is_err() {
            tracing::debug!("the link has ended before the conversation");
        }
        drop((self.commands, self.reports));
        if timeout(PATIENCE, self.link).await.is_err() {
            tracing::debug!("the router did not say goodbye");
        }
    }
}

/// Until nobody can ask any more: true; or the session is over.
async fn talk(
    turns: &mut mpsc::Receiver<Turn>,
    commands: &mpsc::Sender<Vec<ClientCommand>>,
    reports: &mut mpsc::Receiver<Vec<ClientReport>>,
) -> bool {
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
                if commands.send(vec![ask]).await.is_err() {
                    return false;
                }
            }
            told = reports.recv() => {
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

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    sheaf_server::random(&mut bytes)?;
    Ok(bytes)
}

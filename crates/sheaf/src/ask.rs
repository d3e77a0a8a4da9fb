//! Asking a router: the running one at an address, or, where none runs on a data directory, one that is started on it
//! for the question.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sheaf_client::{LineError, RouterSession};
use sheaf_net::Target as NetTarget;
use sheaf_roles::port::{ClientCommand, ClientReport};
use sheaf_server::{Access, DataDir, Server, ServerConfig};
use sheaf_session::How;
use sheaf_task::{Answer, Question, ToRouter};
use tokio::time::timeout;

use crate::args::{DATA_DEFAULT, LISTEN_DEFAULT, Target};
use crate::login::{target_of, target_on};

/// How long a router may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// After so long without an answer it is said what is waited for, and looked whether anybody is there at all.
const LOOK: Duration = Duration::from_millis(500);

/// How long the router may take to hear the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A conversation with a router.
pub(crate) struct Asker {
    session: RouterSession,
    asked: u64,
    target: NetTarget,
    /// What was heard of it.
    heard: Heard,
    /// Where it is, for messages.
    place: String,
    /// Started for the question.
    own: Option<Server>,
}

/// What was heard of a router, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Nothing,
    /// It took up the conversation.
    Greeting,
    /// It answered: where it is silent later, it may be starting again.
    Answer,
}

impl Asker {
    /// Finds the router that is meant: at `--join`, the one that runs on the data directory, the data directory itself,
    /// or, where no directory was named, where routers listen by default.
    pub(crate) async fn find(target: &Target) -> Result<Self> {
        if let Some(addr) = &target.join {
            return Self::open(target_of(addr, &target.login).await?, addr.clone(), None);
        }
        if let Some(addr) = DataDir::running_addr(&target.data) {
            return Self::open(target_on(&target.data, &addr, &target.login).await?, addr, None);
        }
        if !target.data.join("identity").exists() {
            // A directory that was named is meant: the router of another, at the usual address, is not asked instead.
            if target.data != Path::new(DATA_DEFAULT) {
                bail!("{} is no data directory of a router (--data DIR)", target.data.display());
            }
            let net = target_of(LISTEN_DEFAULT, &target.login).await?;
            return Self::open(net, LISTEN_DEFAULT.to_owned(), None);
        }
        let server = Server::start(ServerConfig {
            data: target.data.clone(),
            listen: None,
            access: Access::default(),
            grace: Duration::from_secs(60),
            faults: None,
            limits: sheaf_server::Limits::default(),
        })
        .await?;
        let door = server.target();
        Self::open(door, target.data.display().to_string(), Some(server))
    }

    fn open(target: NetTarget, place: String, own: Option<Server>) -> Result<Self> {
        let session = RouterSession::start(&target, None).context("cannot read random numbers")?;
        Ok(Self { session, asked: 0, target, heard: Heard::Nothing, place, own })
    }

    /// Whether no router runs there, and one was started for the question only.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&mut self, question: Question) -> Result<Answer> {
        let answer = self.ask_if_granted(question).await?;
        answer.with_context(|| format!("the router at {} does not grant that to this token", self.place))
    }

    /// The same; `None`: it is not for this asker.
    pub(crate) async fn ask_if_granted(&mut self, question: Question) -> Result<Option<Answer>> {
        let answer = self.ask_anything(question).await?;
        Ok(Some(answer).filter(|answer| *answer != Answer::Forbidden))
    }

    async fn ask_anything(&mut self, question: Question) -> Result<Answer> {
        self.asked += 1;
        let id = self.asked;
        let ask = ClientCommand::Send { tag: None, message: ToRouter::Ask { id, question } };
        if !self.session.say(vec![ask]).await {
            bail!("the link has ended");
        }
        let until = Instant::now() + PATIENCE;
        let mut is_told = false;
        loop {
            if let Ok(answer) = timeout(LOOK, self.answer(id)).await {
                self.heard = Heard::Answer;
                return answer;
            }
            self.insist_listened().await?;
            if Instant::now() >= until {
                bail!("the router at {} does not answer: its own output may say why", self.place);
            }
            if !std::mem::replace(&mut is_told, true) {
                eprintln!("sheaf: waiting for the router at {} ({} s at most)", self.place, PATIENCE.as_secs());
            }
        }
    }

    /// Where nobody listens no answer will come, unless it did before: then the router may be starting again.
    async fn insist_listened(&self) -> Result<()> {
        let is_refused = match timeout(LOOK, self.target.knock()).await {
            Ok(Some(Err(error))) => error.kind() == ErrorKind::ConnectionRefused,
            Ok(Some(Ok(())) | None) | Err(_) => false,
        };
        match self.heard {
            Heard::Nothing if is_refused => bail!(
                "no router listens at {0}: start one with `sheaf up --listen {0}`, or say where it is (--join ADDR, --data DIR)",
                self.place
            ),
            Heard::Greeting if is_refused => {
                bail!("the router at {} has ended without an answer: its own output says why", self.place)
            }
            Heard::Nothing | Heard::Greeting | Heard::Answer => Ok(()),
        }
    }

    /// Cancel-safe: answers to other questions are of no use.
    async fn answer(&mut self, wanted: u64) -> Result<Answer> {
        loop {
            let reports = self.session.told().await.context("the link has ended")?;
            for report in reports {
                match report {
                    ClientReport::Answer { id, answer } if id == wanted => return Ok(answer),
                    ClientReport::Over(over) => return Err(LineError { place: self.place.clone(), over }.into()),
                    ClientReport::Answer { .. } | ClientReport::Event { .. } | ClientReport::Piece { .. } => {
                        self.heard = self.heard.max(Heard::Greeting);
                    }
                }
            }
        }
    }

    /// Hangs up, and stops the router that was started for the question.
    pub(crate) async fn close(self) -> Result<()> {
        let Self { session, own, .. } = self;
        session.hang_up(Vec::new(), How::Drain, LAST_WORDS).await;
        if let Some(server) = own {
            server.stopper().stop();
            server.ended().await?;
        }
        Ok(())
    }
}

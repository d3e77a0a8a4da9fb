//! Asking a router: the running one at an address, or, where none runs on a data directory, one that is started on it
//! for the question.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sheaf_net::{Clock, Link, Source, Target as NetTarget};
use sheaf_roles::port::{ClientCommand, ClientPort, ClientReport, fit_config};
use sheaf_server::{DataDir, Server, ServerConfig};
use sheaf_session::{Config, Depth, How, Session, SessionId, Side};
use sheaf_task::{Answer, Question, ToRouter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::args::{DATA_DEFAULT, LISTEN_DEFAULT, Target};

/// How long a router may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A conversation with a router.
pub(crate) struct Asker {
    commands: mpsc::Sender<Vec<ClientCommand>>,
    reports: mpsc::Receiver<Vec<ClientReport>>,
    link: JoinHandle<ClientPort>,
    asked: u64,
    /// Where it is, for messages.
    place: String,
    /// Started for the question.
    own: Option<Server>,
}

impl Asker {
    /// Finds the router that is meant: at `--join`, the one that runs on the data directory, the data directory itself,
    /// or, where no directory was named, where routers listen by default.
    pub(crate) async fn find(target: &Target) -> Result<Self> {
        let running = DataDir::running_addr(&target.data);
        if let Some(addr) = target.join.clone().or(running) {
            return Self::open(NetTarget::tcp(&addr).await?, addr, None);
        }
        if !target.data.join("identity").exists() {
            // A directory that was named is meant: the router of another, at the usual address, is not asked instead.
            if target.data != Path::new(DATA_DEFAULT) {
                bail!("{} is no data directory of a router (--data DIR)", target.data.display());
            }
            return Self::open(NetTarget::tcp(LISTEN_DEFAULT).await?, LISTEN_DEFAULT.to_owned(), None);
        }
        let server = Server::start(ServerConfig {
            data: target.data.clone(),
            listen: None,
            grace: Duration::from_secs(60),
            faults: None,
            limits: sheaf_server::Limits::default(),
        })
        .await?;
        let door = server.target();
        Self::open(door, target.data.display().to_string(), Some(server))
    }

    fn open(target: NetTarget, place: String, own: Option<Server>) -> Result<Self> {
        let seed = random_u64()?;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random_u64()?.to_le_bytes());
        id[8..].copy_from_slice(&random_u64()?.to_le_bytes());
        let config = fit_config(Config { incarnation: 1, boot: seed, ..Config::default() }, Depth::Memory);
        let port = ClientPort::new(Session::new(config, Side::Dialer, SessionId(id), seed));
        let (commands, for_link) = mpsc::channel(4);
        let (from_link, reports) = mpsc::channel(4);
        let link = Link::new(port, Clock::start(), Source::Dial { target, seed }, for_link, from_link);
        Ok(Self { commands, reports, link: tokio::spawn(link.run()), asked: 0, place, own })
    }

    /// Whether no router runs there, and one was started for the question only.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&mut self, question: Question) -> Result<Answer> {
        self.asked += 1;
        let id = self.asked;
        let ask = ClientCommand::Send { tag: None, message: ToRouter::Ask { id, question } };
        self.commands.send(vec![ask]).await.context("the link has ended")?;
        match tokio::time::timeout(PATIENCE, self.answer(id)).await {
            Ok(answer) => answer,
            Err(_) => {
                bail!("no router answers at {}: is `sheaf up` running there? (--join ADDR, --data DIR)", self.place)
            }
        }
    }

    async fn answer(&mut self, wanted: u64) -> Result<Answer> {
        loop {
            let reports = self.reports.recv().await.context("the link has ended")?;
            for report in reports {
                match report {
                    ClientReport::Answer { id, answer } if id == wanted => return Ok(answer),
                    ClientReport::Over(over) => bail!("the router at {} ended the conversation: {over:?}", self.place),
                    ClientReport::Answer { .. } | ClientReport::Event(_) => {}
                }
            }
        }
    }

    /// Hangs up, and stops the router that was started for the question.
    pub(crate) async fn close(self) -> Result<()> {
        let Self { commands, reports, link, own, .. } = self;
        if commands.send(vec![ClientCommand::Close(How::Drain)]).await.is_err() {
            tracing::debug!("the link has ended before the conversation");
        }
        drop(reports);
        if tokio::time::timeout(Duration::from_secs(1), link).await.is_err() {
            tracing::debug!("the router did not say goodbye");
        }
        if let Some(server) = own {
            server.stopper().stop();
            server.ended().await?;
        }
        Ok(())
    }
}

fn random_u64() -> Result<u64> {
    let mut bytes = [0; 8];
    sheaf_server::random(&mut bytes).context("cannot read random numbers")?;
    Ok(u64::from_le_bytes(bytes))
}

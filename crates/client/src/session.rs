//! A session of this process with a router, and the link that carries it: set up in one place, ended in one place.
//!
//! It deliberately knows no job and no question. Invariant: the link has an owner until it has ended; where a session is
//! dropped and not ended, its link is cut off.

use std::io::{self, Read};
use std::time::Duration;

use sheaf_net::{Clock, Link, Source, Target};
use sheaf_roles::port::{ClientCommand, ClientPort, ClientReport, fit_dialer_config};
use sheaf_session::{Config, Depth, Faults, How, Session, SessionId, Side};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Batches of commands and of reports between a session's owner and its link. The link always takes commands; reports wait.
const BATCHES: usize = 8;

/// A session with a router, on a link that dials until it is connected, and again whenever it is not.
pub struct RouterSession {
    commands: mpsc::Sender<Vec<ClientCommand>>,
    reports: mpsc::Receiver<Vec<ClientReport>>,
    link: Leaving,
}

/// The link of a session that was left: it ends by itself, as soon as what was said last is out.
pub struct Leaving(Option<JoinHandle<ClientPort>>);

impl RouterSession {
    /// Begins one. `faults` are injected into it.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn start(target: &Target, faults: Option<&Faults>) -> io::Result<Self> {
        let (mut id, mut seeds) = ([0; 16], [0; 24]);
        random(&mut id)?;
        random(&mut seeds)?;
        let [seed, boot, dial] = [0, 8, 16].map(|at| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&seeds[at..at + 8]);
            u64::from_le_bytes(bytes)
        });
        let config = fit_dialer_config(
            Config { boot, auth: target.auth(), faults: faults.cloned(), ..Config::default() },
            Depth::Memory,
        );
        let session = Session::new(config, Side::Dialer, SessionId(id), seed);
        let (commands, taken) = mpsc::channel(BATCHES);
        let (says, reports) = mpsc::channel(BATCHES);
        let source = Source::Dial { target: target.clone(), seed: dial };
        let link = Link::new(ClientPort::new(session), Clock::start(), source, taken, says);
        Ok(Self { commands, reports, link: Leaving(Some(tokio::spawn(link.run()))) })
    }

    /// Gives the link what it is to do. False: it has ended.
    pub async fn say(&self, commands: Vec<ClientCommand>) -> bool {
        self.commands.send(commands).await.is_ok()
    }

    /// What it tells; `None` when it has ended. Cancel-safe.
    pub async fn told(&mut self) -> Option<Vec<ClientReport>> {
        self.reports.recv().await
    }

    /// Gives the link what it is to do, or takes what it tells; `None` when it has ended. Cancel-safe.
    pub async fn exchange(&mut self, commands: &mut Vec<ClientCommand>) -> Option<Vec<ClientReport>> {
        tokio::select! {
            biased;
            permit = self.commands.reserve(), if !commands.is_empty() => {
                permit.ok()?.send(std::mem::take(commands));
                Some(Vec::new())
            }
            reports = self.reports.recv() => reports,
        }
    }

    /// Says these last words, gives the router so long to hear them, and waits until the link has ended.
    pub async fn hang_up(mut self, mut words: Vec<ClientCommand>, how: How, patience: Duration) {
        words.push(ClientCommand::Close(how));
        let is_over = |reports: &[ClientReport]| reports.iter().any(|report| matches!(report, ClientReport::Over(_)));
        let ended = async { while self.exchange(&mut words).await.is_some_and(|reports| !is_over(&reports)) {} };
        if timeout(patience, ended).await.is_err() {
            tracing::debug!("the router did not hear the last words in time");
        }
        self.leave().ended().await;
    }

    /// Says and hears no more: the link is to be waited for.
    pub fn leave(self) -> Leaving {
        self.link
    }
}

impl Leaving {
    /// Waits until it has ended, within the time that a link's last bytes are given. Cancel-safe.
    pub async fn ended(&mut self) {
        if let Some(link) = &mut self.0 {
            if let Err(error) = link.await {
                tracing::error!(%error, "the link to the router panicked");
            }
            self.0 = None;
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.abort();
        }
    }
}

/// Random bytes of the system.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

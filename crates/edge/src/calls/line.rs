//! The line of calls: one task owns the machine and its session with the router, and passes on what each says.
//!
//! A session that is over is followed by another; what was on its way is submitted again. Invariant: whoever waits is
//! told, or finds the line closed.

use std::collections::BTreeMap;
use std::io;

use sheaf_client::{Leaving, RouterSession};
use sheaf_net::{Backoff, Clock, Target};
use sheaf_roles::client::Event;
use sheaf_roles::port::{ClientCommand, ClientReport};
use sheaf_session::How;
use sheaf_task::{Answer, KeySecret, Piece, Question, ToRouter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, interval, sleep_until};

use super::jobs::is_left;
use super::limits::{CallLimits, OPENED_MAX};
use super::machine::Calls;
use super::types::{Input, NewCall, Output, Refused, Told, Waiter};
use crate::admit::Permit;
use crate::names::random;

/// What a call is told.
pub(crate) type Answered = oneshot::Receiver<Result<Told, Refused>>;

/// Commands that wait for the line. Full: their handlers wait.
const COMMANDS_MAX: usize = 1_024;
/// Commands taken at once.
const BATCH: usize = 256;
/// How often it is looked who waits no more.
const LOOK: Duration = Duration::from_secs(1);
/// How long the router may take to hear the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The question about what an earlier life of the door left. Others are counted from there.
const ASK_JOBS: u64 = 1;

enum Command {
    Call(Box<NewCall>, Caught),
    Ask(Question, oneshot::Sender<Answer>),
}

/// A way to the line, for handlers.
#[derive(Clone)]
pub(crate) struct Caller {
    commands: mpsc::Sender<Command>,
}

/// Whoever waits for a call, and its place at the gate, which it keeps until the call has ended.
struct Caught {
    tell: oneshot::Sender<Result<Told, Refused>>,
    /// Pieces of the answer, where they are wanted. Full: what follows is not shown, and comes with the answer.
    show: Option<mpsc::Sender<Piece>>,
    permit: Option<Permit>,
}

impl Caller {
    /// Makes a call; what becomes of it comes later, and pieces of its answer on `show`.
    pub(crate) async fn call(
        &self,
        call: NewCall,
        permit: Option<Permit>,
        show: Option<mpsc::Sender<Piece>>,
    ) -> Result<Answered, Refused> {
        let (tell, told) = oneshot::channel();
        let command = Command::Call(Box::new(call), Caught { tell, show, permit });
        self.commands.send(command).await.map_err(|_| Refused::Closing)?;
        Ok(told)
    }

    /// Asks the router.
    pub(crate) async fn ask(&self, question: Question) -> Result<Answer, Refused> {
        let (tell, told) = oneshot::channel();
        self.commands.send(Command::Ask(question, tell)).await.map_err(|_| Refused::Closing)?;
        told.await.map_err(|_| Refused::Closing)
    }
}

/// What a line needs to know.
pub(crate) struct LineConfig {
    pub target: Target,
    pub app: String,
    pub secret: KeySecret,
    pub limits: CallLimits,
}

/// A line, to be spawned. It ends when the last caller is dropped.
pub(crate) fn open(config: LineConfig) -> io::Result<(Caller, impl Future<Output = ()> + Send + 'static)> {
    let (commands, taken) = mpsc::channel(COMMANDS_MAX);
    let seed = random()?;
    let line = Line {
        machine: Calls::new(config.limits, config.app, config.secret),
        running: Some(RouterSession::start(&config.target, None)?),
        opened: 0,
        leaving: None,
        target: config.target,
        clock: Clock::start(),
        backoff: Backoff::new(seed),
        again_at: Instant::now(),
        commands: taken,
        waiting: BTreeMap::new(),
        asked: BTreeMap::new(),
        waiters: 0,
        questions: ASK_JOBS,
        has_looked: false,
    };
    Ok((Caller { commands }, line.run()))
}

struct Line {
    machine: Calls,
    target: Target,
    clock: Clock,
    running: Option<RouterSession>,
    /// Jobs that it opened.
    opened: u32,
    /// The link of the session before.
    leaving: Option<Leaving>,
    backoff: Backoff,
    /// When the next session may begin, while there is none.
    again_at: Instant,
    commands: mpsc::Receiver<Command>,
    waiting: BTreeMap<Waiter, Caught>,
    asked: BTreeMap<u64, oneshot::Sender<Answer>>,
    waiters: u64,
    questions: u64,
    /// It knows what an earlier life of the door left.
    has_looked: bool,
}

enum Woken {
    Commands(usize),
    Reports(Option<Vec<ClientReport>>),
    Look,
    Again,
}

impl Line {
    async fn run(mut self) {
        let mut look = interval(LOOK);
        let mut taken = Vec::with_capacity(BATCH);
        let mut said = Vec::new();
        self.look_around(&mut said);
        loop {
            self.drain(&mut said);
            if let Some(running) = &self.running
                && !said.is_empty()
                && !running.say(std::mem::take(&mut said)).await
            {
                self.hang_up();
            }
            if self.running.is_some() && self.opened > OPENED_MAX {
                self.renew().await;
            }
            let woken = tokio::select! {
                count = self.commands.recv_many(&mut taken, BATCH) => Woken::Commands(count),
                reports = next(&mut self.running) => Woken::Reports(reports),
                _ = look.tick() => Woken::Look,
                () = sleep_until(self.again_at), if self.running.is_none() => Woken::Again,
            };
            match woken {
                Woken::Commands(0) => break,
                Woken::Commands(_) => taken.drain(..).for_each(|command| self.on_command(command, &mut said)),
                Woken::Reports(None) => self.hang_up(),
                Woken::Reports(Some(reports)) => reports.into_iter().for_each(|report| self.on_report(report)),
                Woken::Look => self.look(),
                Woken::Again => {
                    self.begin_again().await;
                    self.look_around(&mut said);
                }
            }
        }
        self.close().await;
    }

    /// Asks what an earlier life of the door left, on each session until one answers.
    fn look_around(&self, said: &mut Vec<ClientCommand>) {
        if !self.has_looked {
            said.push(ask(ASK_JOBS, Question::Jobs));
        }
    }

    fn on_command(&mut self, command: Command, said: &mut Vec<ClientCommand>) {
        match command {
            Command::Call(call, caught) => {
                self.waiters += 1;
                let waiter = Waiter(self.waiters);
                self.waiting.insert(waiter, caught);
                self.machine.handle(self.clock.now(), Input::Call { waiter, call: *call });
            }
            // Without a session it is not asked; whoever asked finds its channel closed.
            Command::Ask(question, tell) if self.running.is_some() => {
                self.questions += 1;
                self.asked.insert(self.questions, tell);
                said.push(ask(self.questions, question));
            }
            Command::Ask(..) => {}
        }
    }

    fn on_report(&mut self, report: ClientReport) {
        let now = self.clock.now();
        match report {
            ClientReport::Event { job, event } => {
                if matches!(event, Event::Delivered { .. } | Event::Acknowledged(_)) {
                    self.backoff.reset();
                }
                self.machine.handle(now, Input::Router { job, event });
            }
            ClientReport::Piece { row, piece } => self.machine.handle(now, Input::Piece { row, piece }),
            ClientReport::Answer { id: ASK_JOBS, answer: Answer::Jobs(jobs) } => {
                self.has_looked = true;
                for job in jobs.iter().filter(|job| is_left(job)) {
                    self.machine.take_up(now, job.job, &job.name, &job.service);
                }
            }
            ClientReport::Answer { id, answer } => {
                if let Some(tell) = self.asked.remove(&id)
                    && tell.send(answer).is_err()
                {
                    tracing::debug!(id, "an answer that nobody waits for");
                }
            }
            ClientReport::Over(over) => {
                tracing::warn!(?over, "the door's session with the router is over; beginning another");
                self.hang_up();
            }
        }
    }

    /// Who waits no more, and what time it is.
    fn look(&mut self) {
        let now = self.clock.now();
        for (waiter, _) in self.waiting.iter().filter(|(_, caught)| caught.tell.is_closed()) {
            let waiter = *waiter;
            self.machine.handle(now, Input::Gone(waiter));
        }
        self.asked.retain(|_, tell| !tell.is_closed());
        self.machine.handle(now, Input::Tick);
    }

    /// What the machine wants done.
    fn drain(&mut self, said: &mut Vec<ClientCommand>) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Send { tag, message } => {
                    self.opened += u32::from(matches!(message, ToRouter::OpenJob(_)));
                    said.push(ClientCommand::Send { tag, message });
                }
                Output::Commit(ticket) => said.push(ClientCommand::Commit(ticket)),
                Output::Show { waiter, piece } => {
                    let caught = self.waiting.get_mut(&waiter);
                    if let Some(show) = caught.as_ref().and_then(|caught| caught.show.as_ref())
                        && show.try_send(piece).is_err()
                        && let Some(caught) = caught
                    {
                        caught.show = None;
                    }
                }
                Output::Tell { waiter, told } => {
                    let Some(Caught { tell, show: _, permit }) = self.waiting.remove(&waiter) else { continue };
                    if let (Some(permit), Ok(Told::Done(done))) = (permit, &told) {
                        permit.answered(done.ms);
                    }
                    if tell.send(told).is_err() {
                        tracing::trace!(?waiter, "told a client that is gone");
                    }
                }
            }
        }
        // What was meant for a session that is over is said again on the next.
        if self.running.is_none() {
            said.clear();
        }
    }

    /// Another session, though this one is sound.
    async fn renew(&mut self) {
        if let Some(running) = &self.running
            && !running.say(vec![ClientCommand::Close(How::Drain)]).await
        {
            tracing::debug!("the session had ended");
        }
        self.hang_up();
        self.again_at = Instant::now();
    }

    fn hang_up(&mut self) {
        if let Some(running) = self.running.take() {
            self.leaving = Some(running.leave());
        }
        self.again_at = Instant::now() + self.backoff.pause();
        self.asked.clear();
    }

    async fn begin_again(&mut self) {
        self.left().await;
        self.again_at = Instant::now() + self.backoff.pause();
        match RouterSession::start(&self.target, None) {
            Ok(running) => {
                (self.running, self.opened) = (Some(running), 0);
                self.machine.handle(self.clock.now(), Input::Router { job: None, event: Event::Lost });
            }
            Err(error) => tracing::warn!(%error, "cannot begin a session with the router"),
        }
    }

    async fn close(mut self) {
        if let Some(running) = self.running.take() {
            running.hang_up(Vec::new(), How::Drain, LAST_WORDS).await;
        }
        self.left().await;
    }

    /// The session before has left nothing behind.
    async fn left(&mut self) {
        if let Some(mut leaving) = self.leaving.take() {
            leaving.ended().await;
        }
    }
}

fn ask(id: u64, question: Question) -> ClientCommand {
    ClientCommand::Send { tag: None, message: ToRouter::Ask { id, question } }
}

async fn next(running: &mut Option<RouterSession>) -> Option<Vec<ClientReport>> {
    match running {
        Some(running) => running.told().await,
        None => std::future::pending().await,
    }
}

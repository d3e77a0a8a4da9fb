//! One long-lived program, restarted when it dies: its pipes, its clock, and the orders of the pool. What its lines and its
//! end mean for the tasks that it has is told by [`Flight`].
//!
//! Invariant: input is written and output read at the same time, so that neither side can wait for the other for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use sheaf_task::{Assignment, Fence};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::flight::Flight;
use super::life::Life;
use super::line;
use super::{Ended, tell};
use crate::config::ProgramConfig;
use crate::keeper::{End, KeeperSlot};

/// Wait before a program that died is started again: doubles with each death in a row that followed no answer.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);

/// What the pool tells one program.
pub(super) enum Order {
    Run(Assignment),
    Stop(Fence),
}

/// One program and the tasks that it has.
pub(super) struct Server {
    config: Arc<ProgramConfig>,
    keepers: KeeperSlot,
    report: mpsc::Sender<Ended>,
    flight: Flight,
    /// In a row, without an answer between.
    deaths: u32,
    start_after: Option<tokio::time::Instant>,
}

/// What woke the server.
enum Woken {
    Order(Option<Order>),
    Written(usize),
    WriteFailed,
    Output(usize),
    Errors(usize),
    End(Option<End>),
    Overdue,
    Mute,
    MayStart,
}

impl Server {
    pub(super) fn new(config: Arc<ProgramConfig>, keepers: KeeperSlot, report: mpsc::Sender<Ended>) -> Self {
        let flight = Flight::new(config.base_name());
        Self { config, keepers, report, flight, deaths: 0, start_after: None }
    }

    /// Runs until the pool lets go of it.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut life: Option<Life> = None;
        loop {
            for ended in self.flight.take_ended() {
                tell(&self.report, ended).await;
            }
            if life.is_none() && !self.flight.is_empty() && self.start_after.is_none() {
                life = self.begin().await;
                continue;
            }
            match self.wait(&mut orders, life.as_mut()).await {
                Woken::Order(None) => break,
                Woken::Order(Some(Order::Run(assignment))) => self.on_run(assignment, life.as_mut()),
                Woken::Order(Some(Order::Stop(fence))) => self.on_stop(fence, life.as_mut()).await,
                Woken::MayStart => self.start_after = None,
                Woken::Overdue => self.on_overdue(life.as_mut()).await,
                Woken::End(end) => {
                    if let Some(life) = life.take() {
                        self.on_death(life, end).await;
                    }
                }
                Woken::Written(n) => on_life(&mut life, |life| life.outgoing.advance(n)),
                Woken::WriteFailed => on_life(&mut life, |life| {
                    life.stdin = None;
                    life.on_closed();
                }),
                Woken::Errors(n) => on_life(&mut life, |life| life.tail.push(&life.errors[..n])),
                Woken::Output(0) => on_life(&mut life, |life| {
                    life.stdout_ended = true;
                    life.on_closed();
                }),
                Woken::Mute => {
                    if let Some(life) = life.as_mut() {
                        life.end().await;
                    }
                }
                Woken::Output(_) => {
                    if let Some(life) = life.as_mut() {
                        self.on_output(life).await;
                    }
                }
            }
        }
        if let Some(life) = life {
            life.leave().await;
        }
    }

    async fn wait(&self, orders: &mut mpsc::Receiver<Order>, life: Option<&mut Life>) -> Woken {
        let overdue = self.flight.deadline();
        let Some(life) = life else {
            return tokio::select! {
                order = orders.recv() => Woken::Order(order),
                () = until(self.start_after) => Woken::MayStart,
            };
        };
        let mute_until = life.mute_until();
        let Life { program, stdin, outgoing, incoming, errors, stdout_ended, .. } = life;
        let write = async {
            match stdin {
                Some(stdin) if !outgoing.is_empty() => stdin.write(outgoing).await,
                _ => std::future::pending().await,
            }
        };
        let read = async {
            if *stdout_ended {
                std::future::pending::<()>().await;
            }
            program.stdout.read_buf(incoming).await
        };
        tokio::select! {
            order = orders.recv() => Woken::Order(order),
            written = write => written.map_or(Woken::WriteFailed, Woken::Written),
            read = read => Woken::Output(read.unwrap_or_default()),
            Ok(n @ 1..) = program.stderr.read(errors) => Woken::Errors(n),
            end = &mut program.end => Woken::End(end.ok()),
            () = until(overdue.map(Into::into)) => Woken::Overdue,
            () = until(mute_until) => Woken::Mute,
        }
    }

    /// Starts the program and hands it every task that waits.
    async fn begin(&mut self) -> Option<Life> {
        let started = match self.keepers.live() {
            Ok(keeper) => {
                let memory = self.config.memory.unwrap_or(0);
                match keeper.spawn(&self.config.argv, memory, true).await {
                    Ok(program) => keeper.attend(program).await.map(|program| (keeper, program)),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match started {
            Ok((keeper, program)) => {
                let mut life = Life::new(keeper, program);
                self.flight.send_all(&mut life.outgoing);
                Some(life)
            }
            Err(error) => {
                self.on_not_started(error.raw_os_error().unwrap_or(0));
                None
            }
        }
    }

    fn on_run(&mut self, assignment: Assignment, life: Option<&mut Life>) {
        self.flight.on_run(assignment, life.filter(|life| !life.killed).map(|life| &mut life.outgoing));
    }

    async fn on_stop(&mut self, fence: Fence, life: Option<&mut Life>) {
        let known = self.flight.on_stop(fence, life.is_some());
        if let Some(life) = life
            && known
            && self.flight.is_empty()
        {
            life.kill().await;
        }
    }

    async fn on_overdue(&mut self, life: Option<&mut Life>) {
        self.flight.on_overdue();
        if let Some(life) = life {
            life.kill().await;
        }
    }

    /// Takes the whole lines out of what has been read.
    async fn on_output(&mut self, life: &mut Life) {
        let mut from = 0;
        while let Some(len) = life.incoming[from..].iter().position(|byte| *byte == b'\n') {
            let line = from..from + len;
            from = line.end + 1;
            if life.killed {
                continue;
            }
            let read = line::read(&life.incoming[line.clone()]);
            if self.flight.is_answered_by(&read) {
                self.deaths = 0;
            }
            if !self.flight.on_line(read, &mut life.strays) {
                let excerpt = excerpt(&life.incoming[line]);
                self.on_garbage(&excerpt, life).await;
            }
        }
        life.incoming.drain(..from);
        if life.incoming.len() > line::LINE_BYTES_MAX && !life.killed {
            if let Some(id) = line::id_in(&life.incoming) {
                self.flight.end(id, line::too_long());
                life.kill().await;
            } else {
                let excerpt = excerpt(&life.incoming);
                self.on_garbage(&excerpt, life).await;
            }
        }
        if life.killed {
            life.incoming.clear();
        }
    }

    /// Everything in flight is in doubt: the program is not to be trusted with its numbers.
    async fn on_garbage(&mut self, excerpt: &str, life: &mut Life) {
        tracing::warn!(
            program = self.config.base_name(),
            line = excerpt.len(),
            "a long-lived program wrote a line that answers nothing; it is restarted"
        );
        self.flight.on_garbage(excerpt);
        life.kill().await;
    }

    /// It has died: what it said before counts, then each task that it still had is a suspect.
    async fn on_death(&mut self, mut life: Life, end: Option<End>) {
        life.drain().await;
        self.on_output(&mut life).await;
        let pause = self.pause();
        // Where it had done well so far, the next one need not wait.
        self.start_after = (self.deaths > 1).then(|| tokio::time::Instant::now() + pause);
        match end {
            Some(End::Failed(errno)) => self.on_not_started(errno),
            end => self.flight.on_death(end, life.killed, &life.tail.bytes()),
        }
    }

    /// How long the next start waits, after one more death.
    fn pause(&mut self) -> Duration {
        let pause = RESTART_MIN.saturating_mul(1 << self.deaths.min(10)).min(RESTART_MAX);
        self.deaths += 1;
        pause
    }

    fn on_not_started(&mut self, errno: i32) {
        self.start_after = Some(tokio::time::Instant::now() + self.pause());
        self.flight.on_not_started(errno);
    }
}

fn on_life(life: &mut Option<Life>, act: impl FnOnce(&mut Life)) {
    if let Some(life) = life {
        act(life);
    }
}

async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn excerpt(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(EXCERPT_BYTES)]).into_owned()
}

/// Of a garbage line, as much goes into the failures.
const EXCERPT_BYTES: usize = 200;

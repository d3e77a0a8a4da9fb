//! One long-lived program: many tasks in flight, answers in any order, restarted when it dies.
//!
//! | what happens | what becomes of the tasks in flight |
//! |---|---|
//! | it dies | each is `crashed`: any of them may have killed it |
//! | it closes its input or output and lives on | the same, after a second |
//! | it leaves (exit code 0) | each is given to the next one; `crashed` when three have left with it |
//! | a task's time is over | that one is `timeout`; the program is killed, the others are given to the next one |
//! | a task is cancelled | killed if that was its only one; else its answer is awaited and thrown away |
//! | an answer that is none | that one is `garbage`; all are, and the program is killed, where it names none of them |
//! | it cannot be started | each is `error` |
//!
//! Invariant: input is written and output read at the same time, so that neither side can wait for the other for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Buf;
use sheaf_task::{Assignment, Class, Evidence, Fence, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::life::Life;
use super::line::{self, Line};
use super::verdict;
use super::{Ended, tell};
use crate::config::ProgramConfig;
use crate::keeper::{End, KeeperSlot};

/// Wait before a program that died is started again: doubles with each death in a row that followed no answer.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// Lines in a row that are no answers, before they count as garbage.
const STRAYS_MAX: u32 = 16;
/// Programs that may leave with exit code 0 while they have a task, before that task is a suspect.
const LEFT_MAX: u32 = 3;

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
    tasks: BTreeMap<u64, Task>,
    /// Cancelled while others were in flight: an answer to one of these is no garbage.
    forgotten: BTreeSet<u64>,
    ended: Vec<Ended>,
    next: u64,
    deaths: u32,
    start_after: Option<tokio::time::Instant>,
}

struct Task {
    assignment: Assignment,
    since: Instant,
    sent: bool,
    /// Programs that had it and left with exit code 0 before they answered.
    left: u32,
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
        Self {
            config,
            keepers,
            report,
            tasks: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            ended: Vec::new(),
            next: 1,
            deaths: 0,
            start_after: None,
        }
    }

    /// Runs until the pool lets go of it.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut life: Option<Life> = None;
        loop {
            for ended in self.ended.drain(..) {
                tell(&self.report, ended).await;
            }
            if life.is_none() && !self.tasks.is_empty() && self.start_after.is_none() {
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
        let overdue = self.tasks.values().filter(|task| task.sent).filter_map(Task::deadline).min();
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
                keeper.spawn(&self.config.argv, memory, true).await.map(|program| (keeper, program))
            }
            Err(error) => Err(error),
        };
        match started {
            Ok((keeper, program)) => {
                let mut life = Life::new(keeper, program);
                self.forgotten.clear();
                for (id, task) in &mut self.tasks {
                    task.send(*id, &mut life);
                }
                Some(life)
            }
            Err(error) => {
                self.on_not_started(error.raw_os_error().unwrap_or(0));
                None
            }
        }
    }

    fn on_run(&mut self, assignment: Assignment, life: Option<&mut Life>) {
        let mut task = Task { assignment, since: Instant::now(), sent: false, left: 0 };
        if std::str::from_utf8(&task.assignment.body).is_err() {
            let message = format!("the row is not UTF-8, and {} reads JSON lines", self.config.base_name());
            self.ended.push(task.end(verdict::failed(Class::Rejected, message, Evidence::default())));
            return;
        }
        let id = self.next;
        self.next += 1;
        if let Some(life) = life.filter(|life| !life.killed) {
            task.send(id, life);
        }
        self.tasks.insert(id, task);
    }

    async fn on_stop(&mut self, fence: Fence, life: Option<&mut Life>) {
        let Some(id) = self.tasks.iter().find(|(_, task)| task.assignment.fence == fence).map(|(id, _)| *id) else {
            return;
        };
        self.fail(id, Class::Cancelled, "cancelled while the program had it".to_owned());
        match life {
            Some(life) if self.tasks.is_empty() => life.kill().await,
            Some(_) => drop(self.forgotten.insert(id)),
            None => {}
        }
    }

    async fn on_overdue(&mut self, life: Option<&mut Life>) {
        let now = Instant::now();
        let overdue = |task: &Task| task.sent && task.deadline().is_some_and(|deadline| deadline <= now);
        let ids: Vec<u64> = self.tasks.iter().filter(|(_, task)| overdue(task)).map(|(id, _)| *id).collect();
        for id in ids {
            let limit = self.tasks.get(&id).map_or(0, |task| task.assignment.timeout_ms);
            let name = self.config.base_name();
            self.fail(id, Class::Timeout, format!("{name} took longer than {limit} ms and was stopped"));
        }
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
            if !self.on_line(read, &mut life.strays) {
                let excerpt = excerpt(&life.incoming[line]);
                self.on_garbage(&excerpt, life).await;
            }
        }
        life.incoming.drain(..from);
        if life.incoming.len() > line::LINE_BYTES_MAX && !life.killed {
            if let Some(id) = line::id_in(&life.incoming) {
                self.end(id, line::too_long());
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

    /// False when the line is garbage that cannot be laid to one task.
    fn on_line(&mut self, line: Line, strays: &mut u32) -> bool {
        match line {
            Line::Answer { id, outcome } if self.tasks.contains_key(&id) => {
                *strays = 0;
                self.deaths = 0;
                self.end(id, outcome);
                true
            }
            Line::Garbage { id: Some(id) } if self.tasks.contains_key(&id) => {
                let message = format!("{} answered with something that is no answer", self.config.base_name());
                self.fail(id, Class::Garbage, message);
                true
            }
            Line::Answer { id, .. } | Line::Garbage { id: Some(id) } => self.forgotten.remove(&id),
            Line::Garbage { id: None } => false,
            Line::Stray => {
                *strays += u32::from(!self.tasks.is_empty());
                *strays < STRAYS_MAX
            }
        }
    }

    /// Everything in flight is in doubt: the program is not to be trusted with its numbers.
    async fn on_garbage(&mut self, excerpt: &str, life: &mut Life) {
        let name = self.config.base_name();
        tracing::warn!(
            program = name,
            line = excerpt.len(),
            "a long-lived program wrote a line that answers nothing; it is restarted"
        );
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.fail(id, Class::Garbage, format!("{name} wrote a line that answers no task it has: {excerpt}"));
        }
        life.kill().await;
    }

    /// It has died: what it said before counts, then each task that it still had is a suspect.
    async fn on_death(&mut self, mut life: Life, end: Option<End>) {
        life.drain().await;
        self.on_output(&mut life).await;
        let pause = RESTART_MIN.saturating_mul(1 << self.deaths.min(10)).min(RESTART_MAX);
        self.deaths += 1;
        // Where it had done well so far, the next one need not wait.
        self.start_after = (self.deaths > 1).then(|| tokio::time::Instant::now() + pause);
        match end {
            Some(End::Failed(errno)) => return self.on_not_started(errno),
            Some(End::Exited(0)) if !life.killed => self.tasks.values_mut().for_each(|task| task.left += 1),
            // Its keeper has died, perhaps by its doing: that is a death too.
            Some(End::Exited(_) | End::Signaled(_)) | None if !life.killed => {
                self.tasks.values_mut().for_each(|task| task.left = LEFT_MAX);
            }
            // Killed for the sake of one task: the others are not to blame.
            Some(_) | None => {}
        }
        self.tasks.values_mut().for_each(|task| task.sent = false);
        self.blame(end, &life);
    }

    /// Every task that had its chances is a suspect.
    fn blame(&mut self, end: Option<End>, life: &Life) {
        let stderr = life.tail.bytes();
        let how = match end {
            Some(End::Exited(code)) => format!("exited with code {code}"),
            Some(End::Signaled(signal)) => format!("was ended by {}", verdict::signal_name(signal)),
            Some(End::Failed(errno)) => format!("could not be started (error {errno})"),
            None => "ended with the process that keeps it".to_owned(),
        };
        let message =
            format!("{} {how} while it had this task{}", self.config.base_name(), verdict::last_line(&stderr));
        let (exit_code, signal) = end.map_or((None, None), verdict::code_and_signal);
        let evidence = Evidence { exit_code, signal, stderr, ..Evidence::default() };
        let suspects = self.tasks.iter().filter(|(_, task)| task.left >= LEFT_MAX).map(|(id, _)| *id);
        for id in suspects.collect::<Vec<_>>() {
            self.end(id, verdict::failed(Class::Crashed, message.clone(), evidence.clone()));
        }
    }

    fn on_not_started(&mut self, errno: i32) {
        let pause = RESTART_MIN.saturating_mul(1 << self.deaths.min(10)).min(RESTART_MAX);
        self.deaths += 1;
        self.start_after = Some(tokio::time::Instant::now() + pause);
        let name = self.config.base_name();
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.end(id, verdict::not_started(&name, errno));
        }
    }

    fn fail(&mut self, id: u64, class: Class, message: String) {
        self.end(id, verdict::failed(class, message, Evidence::default()));
    }

    fn end(&mut self, id: u64, outcome: Outcome) {
        if let Some(task) = self.tasks.remove(&id) {
            self.ended.push(task.end(outcome));
        }
    }
}

impl Task {
    fn send(&mut self, id: u64, life: &mut Life) {
        self.since = Instant::now();
        self.sent = true;
        // Checked when it came.
        let body = String::from_utf8_lossy(&self.assignment.body);
        life.outgoing.extend_from_slice(&line::write(id, &body));
    }

    fn deadline(&self) -> Option<Instant> {
        let limit = self.assignment.timeout_ms;
        (limit > 0).then(|| self.since + Duration::from_millis(limit))
    }

    fn end(&self, outcome: Outcome) -> Ended {
        Ended { fence: self.assignment.fence, outcome, ms: self.since.elapsed().as_millis() as u64 }
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

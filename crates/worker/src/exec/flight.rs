//! The tasks that one long-lived program has, in any order, and what becomes of them. It knows no process and no pipe.
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
//! Invariant: a task that came in comes out once, with an outcome, whatever the program says or does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sheaf_task::{Assignment, Class, Evidence, Fence, Outcome};

use super::Ended;
use super::line::{self, Line};
use super::verdict;
use crate::keeper::End;

/// Lines in a row that are no answers, before they count as garbage.
const STRAYS_MAX: u32 = 16;
/// Programs that may leave with exit code 0 while they have a task, before that task is a suspect.
const LEFT_MAX: u32 = 3;

pub(super) struct Flight {
    /// The program's name, for messages.
    name: String,
    tasks: BTreeMap<u64, Task>,
    /// Cancelled while others were in flight: an answer to one of these is no garbage.
    forgotten: BTreeSet<u64>,
    ended: Vec<Ended>,
    next: u64,
}

struct Task {
    assignment: Assignment,
    since: Instant,
    sent: bool,
    /// Programs that had it and left with exit code 0 before they answered.
    left: u32,
}

impl Flight {
    pub(super) fn new(name: String) -> Self {
        Self { name, tasks: BTreeMap::new(), forgotten: BTreeSet::new(), ended: Vec::new(), next: 1 }
    }

    /// No task waits for the program, or for a start of it.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The tasks that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// When the first task has been with the program for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tasks.values().filter(|task| task.sent).filter_map(Task::deadline).min()
    }

    /// True if the line answers a task that is in flight.
    pub(super) fn is_answered_by(&self, line: &Line) -> bool {
        matches!(line, Line::Answer { id, .. } if self.tasks.contains_key(id))
    }

    /// Takes a task, and writes it for the program where one runs.
    pub(super) fn on_run(&mut self, assignment: Assignment, outgoing: Option<&mut BytesMut>) {
        let mut task = Task { assignment, since: Instant::now(), sent: false, left: 0 };
        if std::str::from_utf8(&task.assignment.body).is_err() {
            let message = format!("the row is not UTF-8, and {} reads JSON lines", self.name);
            self.ended.push(task.end(verdict::failed(Class::Rejected, message, Evidence::default())));
            return;
        }
        let id = self.next;
        self.next += 1;
        if let Some(outgoing) = outgoing {
            task.send(id, outgoing);
        }
        self.tasks.insert(id, task);
    }

    /// Writes every task for a program that has just started.
    pub(super) fn send_all(&mut self, outgoing: &mut BytesMut) {
        self.forgotten.clear();
        for (id, task) in &mut self.tasks {
            task.send(*id, outgoing);
        }
    }

    /// Ends a task; false if it is not here. A program that lives may still answer it.
    pub(super) fn on_stop(&mut self, fence: Fence, lives: bool) -> bool {
        let Some(id) = self.tasks.iter().find(|(_, task)| task.assignment.fence == fence).map(|(id, _)| *id) else {
            return false;
        };
        self.fail(id, Class::Cancelled, "cancelled while the program had it".to_owned());
        if lives && !self.tasks.is_empty() {
            self.forgotten.insert(id);
        }
        true
    }

    /// Ends the tasks whose time is over.
    pub(super) fn on_overdue(&mut self) {
        let now = Instant::now();
        let overdue = |task: &Task| task.sent && task.deadline().is_some_and(|deadline| deadline <= now);
        let ids: Vec<u64> = self.tasks.iter().filter(|(_, task)| overdue(task)).map(|(id, _)| *id).collect();
        for id in ids {
            let limit = self.tasks.get(&id).map_or(0, |task| task.assignment.timeout_ms);
            self.fail(id, Class::Timeout, format!("{} took longer than {limit} ms and was stopped", self.name));
        }
    }

    /// False when the line is garbage that cannot be laid to one task.
    pub(super) fn on_line(&mut self, line: Line, strays: &mut u32) -> bool {
        match line {
            Line::Answer { id, outcome } if self.tasks.contains_key(&id) => {
                *strays = 0;
                self.end(id, outcome);
                true
            }
            Line::Garbage { id: Some(id) } if self.tasks.contains_key(&id) => {
                let message = format!("{} answered with something that is no answer", self.name);
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

    /// Ends everything: a line named no task that the program has.
    pub(super) fn on_garbage(&mut self, excerpt: &str) {
        let message = format!("{} wrote a line that answers no task it has: {excerpt}", self.name);
        self.end_all(&verdict::failed(Class::Garbage, message, Evidence::default()));
    }

    /// The program has died; `None`: with its keeper, perhaps by its doing. Where it was killed for the sake of one task,
    /// the others are not to blame.
    pub(super) fn on_death(&mut self, end: Option<End>, killed: bool, stderr: &Bytes) {
        for task in self.tasks.values_mut() {
            task.sent = false;
            match end {
                Some(End::Exited(0)) if !killed => task.left += 1,
                Some(End::Exited(_) | End::Signaled(_)) | None if !killed => task.left = LEFT_MAX,
                Some(_) | None => {}
            }
        }
        self.blame(end, stderr);
    }

    /// It could not be started.
    pub(super) fn on_not_started(&mut self, errno: i32) {
        self.end_all(&verdict::not_started(&self.name, errno));
    }

    /// Every task that had its chances is a suspect.
    fn blame(&mut self, end: Option<End>, stderr: &Bytes) {
        let how = match end {
            Some(End::Exited(code)) => format!("exited with code {code}"),
            Some(End::Signaled(signal)) => format!("was ended by {}", verdict::signal_name(signal)),
            Some(End::Failed(errno)) => format!("could not be started (error {errno})"),
            None => "ended with the process that keeps it".to_owned(),
        };
        let message = format!("{} {how} while it had this task{}", self.name, verdict::last_line(stderr));
        let (exit_code, signal) = end.map_or((None, None), verdict::code_and_signal);
        let evidence = Evidence { exit_code, signal, stderr: stderr.clone(), ..Evidence::default() };
        let suspects = self.tasks.iter().filter(|(_, task)| task.left >= LEFT_MAX).map(|(id, _)| *id);
        for id in suspects.collect::<Vec<_>>() {
            self.end(id, verdict::failed(Class::Crashed, message.clone(), evidence.clone()));
        }
    }

    fn end_all(&mut self, outcome: &Outcome) {
        for task in std::mem::take(&mut self.tasks).into_values() {
            self.ended.push(task.end(outcome.clone()));
        }
    }

    fn fail(&mut self, id: u64, class: Class, message: String) {
        self.end(id, verdict::failed(class, message, Evidence::default()));
    }

    /// Ends a task with this outcome.
    pub(super) fn end(&mut self, id: u64, outcome: Outcome) {
        if let Some(task) = self.tasks.remove(&id) {
            self.ended.push(task.end(outcome));
        }
    }
}

impl Task {
    fn send(&mut self, id: u64, outgoing: &mut BytesMut) {
        self.since = Instant::now();
        self.sent = true;
        // Checked when it came.
        let body = String::from_utf8_lossy(&self.assignment.body);
        outgoing.extend_from_slice(&line::write(id, &body));
    }

    fn deadline(&self) -> Option<Instant> {
        let limit = self.assignment.timeout_ms;
        (limit > 0).then(|| self.since + Duration::from_millis(limit))
    }

    fn end(&self, outcome: Outcome) -> Ended {
        Ended::new(self.assignment.fence, outcome, self.since.elapsed().as_millis() as u64)
    }
}

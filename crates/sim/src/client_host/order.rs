//! What an operator asks in a client's name: stop its job, run its failures again, say how it stands. It is asked again
//! in each life until it is answered, as somebody would repeat a command.

use sheaf_roles::port::ClientCommand;
use sheaf_session::Endpoint;
use sheaf_task::{Answer, FailureRow, JobId, JobInfo, Question, ToRouter};

use super::ClientHost;
use super::LAST_WORDS;
use crate::env::Env;
use crate::plan::{Order, Who};

/// Failures of one answer.
const FAILURES: u32 = 3;
/// Orders without an answer: more than any plan has.
const ORDERS_MAX: usize = 64;

impl ClientHost {
    /// Somebody asks.
    pub(crate) fn order(&mut self, env: &mut Env, order: Order) {
        self.asked += 1;
        self.orders.push_back((self.asked, order));
        assert!(self.orders.len() <= ORDERS_MAX, "a plan has few orders");
        self.may_replace |= order == Order::Retry;
        match order {
            Order::Cancel => {
                self.is_cancelled = true;
                env.ledger.orders.on_cancel(self.job());
            }
            Order::Retry => {
                self.is_cancelled = false;
                env.ledger.orders.on_retry(self.job());
            }
            Order::Look => {}
        }
        if self.is_done && self.run.is_none() {
            self.come_back(env);
        } else if self.run.is_some() {
            self.ask(env, self.asked, order);
            self.drive(env);
        }
    }

    /// The command is run once more: what was retried is to be written.
    pub(super) fn come_back(&mut self, env: &mut Env) {
        (self.is_done, self.has_retried) = (false, false);
        self.gave_up = false;
        self.start(env);
    }

    /// Asks what no life before this one had an answer to, in the order in which it was asked.
    pub(super) fn ask_again(&mut self, env: &mut Env) {
        for (id, order) in self.orders.clone() {
            self.ask(env, id, order);
        }
    }

    fn ask(&mut self, env: &mut Env, id: u64, order: Order) {
        let (job, now) = (self.job(), env.now());
        let Some(run) = &mut self.run else { return };
        let question = match order {
            Order::Cancel => Question::CancelJob(job),
            Order::Retry => Question::Retry { job, keys: Vec::new() },
            Order::Look => Question::Jobs,
        };
        let mut questions = vec![question];
        if order == Order::Look {
            questions.push(Question::Failures { job, after: 0, limit: FAILURES });
        }
        for question in questions {
            let message = ToRouter::Ask { id, question };
            env.tell(Who::Client(self.number), |story| story.says(&message));
            run.port.command(now, ClientCommand::Send { tag: None, message });
        }
    }

    pub(super) fn on_answer(&mut self, env: &mut Env, id: u64, answer: Answer) {
        env.tell(Who::Client(self.number), |_| Some(format!("<- answer {}", name(&answer))));
        let asked = self.orders.iter().position(|(asked, _)| *asked == id);
        let order = asked.and_then(|at| self.orders.remove(at)).map(|(_, order)| order);
        let wrong = match (order, answer) {
            (_, Answer::Jobs(jobs)) => jobs.iter().find_map(wrong_counts),
            (_, Answer::Failures(rows)) => rows.iter().find_map(|row| self.wrong_failure(row)),
            (Some(Order::Cancel), Answer::Done(_)) => env.ledger.orders.on_cancel_told(self.job()),
            (Some(Order::Retry), Answer::Done(count)) => {
                if !self.orders.iter().any(|(_, other)| *other == Order::Retry) {
                    env.ledger.orders.on_retry_told(self.job());
                }
                self.has_retried |= count > 0;
                if let Some(run) = self.run.as_mut().filter(|_| self.is_done && count > 0) {
                    run.leaves = Some(env.now() + LAST_WORDS);
                }
                None
            }
            // Of a job that is not there yet.
            (_, Answer::Done(_) | Answer::NotFound) => None,
            (
                _,
                answer @ (Answer::Workers(_)
                | Answer::Task(_)
                | Answer::Stopping
                | Answer::Stats(_)
                | Answer::Forbidden),
            ) => Some(format!("nobody asked for {answer:?}")),
        };
        if let Some(wrong) = wrong {
            env.ledger.violate(format!("client {}: {wrong}", self.number));
        }
    }

    /// It comes only for what is left of its job.
    pub(super) fn collects(&self) -> bool {
        self.is_cancelled && self.oddities.collectors.contains(&self.number)
    }

    /// Nothing starts it again.
    pub(crate) fn rests(&self) -> bool {
        self.is_done && !self.has_more()
    }

    /// Whether somebody has to run the command again after its end.
    pub(super) fn has_more(&self) -> bool {
        self.has_retried || !self.orders.is_empty()
    }

    pub(super) fn job(&self) -> JobId {
        JobId([self.number as u8 + 1; 16])
    }

    fn wrong_failure(&self, failed: &FailureRow) -> Option<String> {
        let is_its = |source: &&super::SourceRow| source.row == failed.row && source.body == failed.body;
        let source = self.source.iter().find(is_its);
        source.is_none().then(|| format!("no row of it is the failure {failed:?}"))
    }
}

fn wrong_counts(job: &JobInfo) -> Option<String> {
    let counts = &job.counts;
    let is_right = counts.submitted == counts.ok + counts.failed + counts.open && counts.settled <= counts.last_number;
    (!is_right).then(|| format!("a job cannot stand like this: {job:?}"))
}

fn name(answer: &Answer) -> String {
    match answer {
        Answer::Jobs(jobs) => format!("{} jobs", jobs.len()),
        Answer::Failures(rows) => format!("{} failures", rows.len()),
        Answer::Done(count) => format!("done, {count} rows"),
        Answer::NotFound => "not found".to_owned(),
        Answer::Workers(_) | Answer::Task(_) | Answer::Stopping | Answer::Stats(_) | Answer::Forbidden => {
            format!("{answer:?}")
        }
    }
}

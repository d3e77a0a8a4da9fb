//! A client without files: the real client machine on a real session, rows that are made as they are asked for, a sink
//! that checks each answer and forgets it. What is left to measure is the way between the processes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use sheaf_client::{Line, SessionLine};
use sheaf_net::{Alarm, Clock, Target};
use sheaf_roles::client::{Client, Config, Event, Kept, Output, Reason, ScannedRow, Tag, WriteRow};
use sheaf_task::{JobId, JobOptions, JobSpec, Order, Outcome, RowId, ToRouter};

/// Without any progress for so long, a run is given up.
const STALLED: Duration = Duration::from_secs(60);

/// What to send.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub tasks: u64,
    /// Bytes of a body.
    pub body: usize,
    /// Tasks on their way at once.
    pub window: u64,
    /// Rows of different seeds differ; those of one seed are the same in every job.
    pub seed: u64,
    /// End when the router has acknowledged all, not when all are answered.
    pub submit_only: bool,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// From the first row to the end.
    pub time: Duration,
    /// When each further row was acknowledged: (rows so far, since the start).
    pub acknowledged: Vec<(u64, Duration)>,
    /// With a window of one: from a row to its answer, microseconds.
    pub latencies: Vec<f64>,
    /// Answered without execution.
    pub cached: u64,
}

impl Seen {
    /// When so many rows were acknowledged, as if those of one acknowledgement had come evenly.
    pub(super) fn when(&self, rows: u64) -> Duration {
        let next = self.acknowledged.partition_point(|(acknowledged, _)| *acknowledged < rows);
        let (before, from) = next.checked_sub(1).map_or((0, Duration::ZERO), |last| self.acknowledged[last]);
        let Some((after, to)) = self.acknowledged.get(next).copied() else { return from };
        from + (to - from).mul_f64((rows - before) as f64 / (after - before) as f64)
    }
}

/// Runs a job against the router at `join`; an error if any answer is wrong, missing or comes twice.
pub(super) async fn run(join: &str, load: Load) -> Result<Seen> {
    let line = SessionLine::open(Target::tcp(join).await?, None).context("cannot read random numbers")?;
    let mut id = [0; 16];
    sheaf_server::random(&mut id).context("cannot read random numbers")?;
    let machine = Client::new(Config { spec: spec(JobId(id)), failures_max: Some(0), collects: false });
    let clock = Clock::start();
    let rows = Rows { seed: load.seed, body: load.body };
    let mut run = Run {
        machine,
        line,
        clock,
        alarm: Alarm::default(),
        began: None,
        asked_at: Instant::now(),
        rows,
        wanted: None,
        scanned: 0,
        done: 0,
        sent: VecDeque::new(),
        submitted: 0,
        seen: Seen::default(),
        load,
    };
    let ended = run.drive().await;
    run.line.close().await;
    ended?;
    Ok(run.seen)
}

fn spec(job: JobId) -> JobSpec {
    JobSpec {
        job,
        name: "bench".to_owned(),
        service: super::SERVICE.to_owned(),
        revision: String::new(),
        nonce: Bytes::new(),
        cursor: 0,
        cursor_router: None,
        options: JobOptions { timeout_ms: 0, retries: 0, order: Order::Fifo, weight: 1, rate_millihertz: 0 },
    }
}

/// Rows by number.
#[derive(Clone, Copy, Debug)]
struct Rows {
    seed: u64,
    body: usize,
}

impl Rows {
    /// So many rows from this number on, their bodies in one buffer.
    fn page(self, from: u64, rows: u64) -> Vec<ScannedRow> {
        let mut buffer = BytesMut::zeroed(self.body * rows as usize);
        (from..from + rows)
            .map(|number| {
                let mut body = buffer.split_to(self.body);
                self.write(number, &mut body);
                ScannedRow { number, row: row_id(number), sample: 0, body: Ok(body.freeze()) }
            })
            .collect()
    }

    /// The seed and the number, then filler.
    fn write(self, number: u64, body: &mut [u8]) {
        body.fill(b'x');
        body[..8].copy_from_slice(&self.seed.to_be_bytes());
        body[8..16].copy_from_slice(&number.to_be_bytes());
    }
}

/// Without order, as the digests are that name real rows.
fn row_id(number: u64) -> RowId {
    RowId(u128::from(number).wrapping_mul(SCATTER).to_be_bytes())
}

/// Odd, so that no two numbers share a product.
const SCATTER: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

struct Run {
    machine: Client,
    line: SessionLine,
    clock: Clock,
    alarm: Alarm,
    load: Load,
    rows: Rows,
    /// When the first row was handed over.
    began: Option<Instant>,
    /// When the last ones were.
    asked_at: Instant,
    /// The machine wants so many rows.
    wanted: Option<u64>,
    scanned: u64,
    done: u64,
    /// Rows of each message that the router has not acknowledged.
    sent: VecDeque<(Tag, u64)>,
    /// Rows that it has.
    submitted: u64,
    seen: Seen,
}

impl Run {
    async fn drive(&mut self) -> Result<()> {
        while !self.drain()? {
            if self.load.submit_only && self.submitted == self.load.tasks {
                break;
            }
            let event = match self.scan() {
                Some(event) => event,
                None => self.wait().await?,
            };
            if let Event::Acknowledged(tag) = &event {
                self.on_acknowledged(*tag);
            }
            self.machine.handle(self.clock.now(), event);
        }
        self.seen.time = self.elapsed();
        self.seen.cached = self.machine.audit().cached;
        Ok(())
    }

    async fn wait(&mut self) -> Result<Event> {
        let deadline = self.machine.deadline();
        tokio::select! {
            event = self.line.next() => Ok(event?),
            () = self.alarm.wait(self.clock, deadline) => Ok(Event::Tick),
            () = tokio::time::sleep(STALLED) => bail!(
                "no progress for {} s: {} of {} tasks acknowledged, {} answered",
                STALLED.as_secs(), self.submitted, self.load.tasks, self.done
            ),
        }
    }

    /// The rows that the machine waits for, as far as the window has room for them.
    fn scan(&mut self) -> Option<Event> {
        let left = self.load.tasks - self.scanned;
        let room = self.load.window - (self.scanned - self.done);
        let rows = self.wanted?.min(left).min(room);
        if rows == 0 && left > 0 {
            return None;
        }
        self.wanted = None;
        if left == 0 {
            return Some(Event::SourceEnd);
        }
        let page = self.rows.page(self.scanned + 1, rows);
        self.scanned += rows;
        self.asked_at = Instant::now();
        self.began.get_or_insert(self.asked_at);
        Some(Event::Scanned { rows: page, kept: Kept::default() })
    }

    /// Does what the machine wants done; true when it is over.
    fn drain(&mut self) -> Result<bool> {
        while let Some(output) = self.machine.poll(self.clock.now()) {
            match output {
                Output::Read { rows, .. } => self.wanted = Some(rows as u64),
                Output::Rewind => bail!("the router lost rows that it had acknowledged"),
                Output::Send { tag, message } => {
                    if let (Some(tag), ToRouter::Submit { rows, .. }) = (tag, &message) {
                        self.sent.push_back((tag, rows.len() as u64));
                    }
                    self.line.send(tag, message);
                }
                Output::Commit(ticket) => self.line.commit(ticket),
                Output::Write { id, rows, .. } => {
                    self.take(&rows)?;
                    self.machine.handle(self.clock.now(), Event::Written(id));
                }
                Output::Done(ended) => {
                    ensure!(ended.reason == Reason::Complete, "the job ended early: {:?}", ended.reason);
                    let (audit, tasks) = (ended.audit, self.load.tasks);
                    ensure!(audit.ok == tasks && audit.repeated == 0, "{tasks} tasks, but {audit:?}");
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn take(&mut self, rows: &[WriteRow]) -> Result<()> {
        let mut expected = vec![0; self.load.body];
        for row in rows {
            self.rows.write(row.number, &mut expected);
            let is_right = matches!(&row.outcome, Outcome::Ok(body) if body[..] == expected[..]);
            ensure!(is_right, "a wrong answer to row {}: {:?}", row.number, row.outcome);
        }
        self.done += rows.len() as u64;
        if self.load.window == 1 {
            self.seen.latencies.extend(rows.iter().map(|_| self.asked_at.elapsed().as_secs_f64() * 1e6));
        }
        Ok(())
    }

    fn on_acknowledged(&mut self, upto: Tag) {
        while self.sent.front().is_some_and(|(tag, _)| *tag <= upto)
            && let Some((_, rows)) = self.sent.pop_front()
        {
            self.submitted += rows;
        }
        self.seen.acknowledged.push((self.submitted, self.elapsed()));
    }

    fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_between_two_acknowledgements_come_evenly() {
        let second = Duration::from_secs(1);
        let seen = Seen { acknowledged: vec![(10, second), (30, 2 * second)], ..Seen::default() };
        assert_eq!([5, 10, 20, 30].map(|rows| seen.when(rows)), [second / 2, second, second * 3 / 2, 2 * second]);
    }

    #[test]
    fn rows_differ_by_seed_and_number() {
        let page = |seed| Rows { seed, body: 16 }.page(1, 2);
        let bodies: std::collections::BTreeSet<_> =
            [page(1), page(2)].concat().into_iter().map(|row| row.body.unwrap_or_default()).collect();
        assert_eq!(bodies.len(), 4);
        assert_eq!(page(1), page(1));
    }
}

//! Records to their wire forms, straight from memory: field numbers are those of `wire`, which reads them.

use sheaf_task::put::{Put, Writer};
use sheaf_task::{Class, Evidence, Failure, JobCounts, JobOptions, Key, Order, Outcome, RowId, Upstream};

use super::event::Lsn;
use super::record::{Delivery, Ended, Finished, JobNo, Opened, Record, Registered};

impl Put for Record {
    fn put(&self, to: &mut Writer) {
        match self {
            Record::Opened(opened) => opened.put(to),
            Record::Submitted(s) => row(to, s.key, s.job, s.row, &s.body),
            Record::Joined(j) => row(to, j.key, j.job, j.row, &[]),
            Record::Cached(c) => older(to, c.key, c.ok, c.len, c.finished, &c.delivery),
            Record::Withdrawn(w) => older(to, w.key, false, w.body_len, w.submitted, &w.delivery),
            Record::Retried(r) => older(to, r.key, false, r.body_len, r.submitted, &r.delivery),
            Record::Ended(ended) => ended.put(to),
            Record::Finished(finished) => finished.put(to),
            Record::Registered(registered) => registered.put(to),
            Record::Left { worker } => id(to, 1, worker.0),
            Record::Settled { job, counts } => standing(to, *job, counts),
            Record::Scanned { job } | Record::Cancelled { job } | Record::Resumed { job } => to.uint(1, job.0),
            Record::Unlisted { job, number } => {
                to.uint(1, job.0);
                to.uint(9, *number);
            }
            Record::JobLeft { job, last } => {
                to.uint(1, job.0);
                to.uint(9, last.0);
            }
            Record::Heard { session, receipt } => {
                id(to, 1, session.0);
                to.bytes(2, receipt.to_bytes());
            }
            Record::Forgotten { session } => id(to, 1, session.0),
        }
    }
}

/// A message of two `fixed64` halves, the big end first, in one piece: there are three of them in every task's life.
fn id(to: &mut Writer, field: u32, bytes: [u8; 16]) {
    let value = u128::from_be_bytes(bytes);
    let mut halves = [0; 18];
    (halves[0], halves[9]) = (HALF_HI, HALF_LO);
    halves[1..9].copy_from_slice(&((value >> 64) as u64).to_le_bytes());
    halves[10..].copy_from_slice(&(value as u64).to_le_bytes());
    to.given(field, halves);
}

/// Fields 1 and 2, each with the wire type of eight fixed bytes.
const HALF_HI: u8 = 1 << 3 | 1;
const HALF_LO: u8 = 2 << 3 | 1;

fn row(to: &mut Writer, key: Key, job: JobNo, row: RowId, body: &[u8]) {
    id(to, 1, key.0);
    to.uint(2, job.0);
    id(to, 3, row.0);
    to.bytes(15, body);
}

fn older(to: &mut Writer, key: Key, ok: bool, len: u32, lsn: Lsn, delivery: &Delivery) {
    id(to, 1, key.0);
    to.uint(2, ok);
    to.uint(3, len);
    to.uint(4, lsn.0);
    to.message(5, delivery);
}

impl Put for Delivery {
    fn put(&self, to: &mut Writer) {
        to.uint(1, self.job.0);
        id(to, 2, self.row.0);
        to.uint(3, self.number);
    }
}

impl Put for Opened {
    fn put(&self, to: &mut Writer) {
        let JobOptions { timeout_ms, retries, order, weight, rate_millihertz } = self.options;
        to.uint(1, self.no.0);
        id(to, 2, self.job.0);
        to.bytes(3, &self.name);
        to.bytes(4, &self.service);
        to.bytes(5, &self.revision);
        to.bytes(6, &self.nonce);
        to.uint(7, timeout_ms);
        to.uint(8, retries);
        to.uint(9, order_number(order));
        to.uint(10, weight);
        to.uint(11, rate_millihertz);
        to.bytes(12, &self.app);
    }
}

fn order_number(order: Order) -> u32 {
    match order {
        Order::Auto => 0,
        Order::Fifo => 1,
        Order::Shortest => 2,
    }
}

impl Put for Ended {
    fn put(&self, to: &mut Writer) {
        let Ended { key, job, class, attempt: (epoch, attempt), suspect, counts } = *self;
        id(to, 1, key.0);
        to.uint(2, class.map_or(0, class_number));
        to.uint(3, suspect);
        to.uint(4, counts);
        to.uint(5, job.0);
        to.uint(6, epoch);
        to.uint(7, attempt);
    }
}

/// Its place in `Class::ALL`, from 1.
fn class_number(class: Class) -> u32 {
    Class::ALL.iter().position(|known| *known == class).map_or(0, |at| at as u32 + 1)
}

impl Put for Finished {
    fn put(&self, to: &mut Writer) {
        id(to, 1, self.key.0);
        to.uint(2, self.submitted.0);
        to.uint(3, self.body_len);
        to.uint(4, self.attempts);
        to.bytes(5, &self.worker);
        to.uint(6, self.ms);
        to.each(7, &self.deliveries);
        match &self.outcome {
            Outcome::Ok(body) => to.bytes(15, body),
            Outcome::Failed(failed) => to.nested(8, |to| failure(to, failed)),
        }
    }
}

fn failure(to: &mut Writer, failure: &Failure) {
    let Evidence { exit_code, signal, stderr, worker, deaths, upstream } = &*failure.evidence;
    to.uint(1, class_number(failure.class));
    to.bytes(2, &failure.message);
    to.sint(3, *exit_code);
    to.sint(4, *signal);
    to.bytes(5, stderr);
    to.bytes(6, worker);
    to.uint(7, *deaths);
    if let Some(upstream) = upstream {
        to.nested(8, |to| said(to, upstream));
    }
}

fn said(to: &mut Writer, upstream: &Upstream) {
    let Upstream { status, message, kind, param, code } = upstream;
    to.uint(1, *status);
    to.bytes(2, message);
    to.bytes(3, kind);
    to.bytes(4, param);
    to.bytes(5, code);
}

impl Put for Registered {
    fn put(&self, to: &mut Writer) {
        id(to, 1, self.worker.0);
        to.uint(2, self.incarnation);
        to.bytes(3, &self.name);
        self.services.iter().for_each(|service| to.given(4, service));
    }
}

/// Where a job stood; `running` and `unserved` are not kept.
fn standing(to: &mut Writer, job: JobNo, counts: &JobCounts) {
    let JobCounts { submitted, ok, failed, open, running: _, cached, retried, last_number, settled, unserved: _ } =
        *counts;
    to.uint(1, job.0);
    to.uint(2, settled);
    to.uint(3, submitted);
    to.uint(4, ok);
    to.uint(5, failed);
    to.uint(6, open);
    to.uint(7, cached);
    to.uint(8, retried);
    to.uint(9, last_number);
}

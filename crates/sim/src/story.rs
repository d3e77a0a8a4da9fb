//! A run as somebody would tell it: who said what to whom, what reached the disk, what was executed, what a sink has.
//! One line an event, with bodies in place of ids. It knows no packet, acknowledgement of a packet, or timer.
//!
//! Tasks go by their bodies; an attempt is `body#epoch.attempt`, the second of equal rows `body~1`.

use std::collections::BTreeMap;

use sheaf_roles::router::record::{Delivery, Ended, Finished};
use sheaf_roles::router::{DeliverItem, Event, Inbound, KeyedRow, Outbound, PeerId, Record};
use sheaf_roles::{client, worker};
use sheaf_session::Micros;
use sheaf_task::{
    Assignment, Class, Fence, Key, Outcome, Registration, ResultItem, RowId, ToClient, ToRouter, ToWorker,
};

use crate::plan::Who;

/// The lines so far, and the names of what is in them.
#[derive(Debug, Default)]
pub(crate) struct Story {
    lines: Vec<String>,
    tasks: BTreeMap<Key, String>,
    rows: BTreeMap<RowId, String>,
}

impl Story {
    pub(crate) fn add(&mut self, now: Micros, who: Who, text: &str) {
        let who = match who {
            Who::Router => "router".to_owned(),
            Who::Worker(_) | Who::Client(_) => who.to_string(),
        };
        self.lines.push(format!("{:>10.1} {who:<8} {text}", now.0 as f64 / 1e3));
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// What a client or a worker says.
    pub(crate) fn says(&mut self, message: &ToRouter) -> Option<String> {
        let text = match message {
            ToRouter::OpenJob(spec) => format!("open job, cursor {}", spec.cursor),
            ToRouter::Submit { cursor, rows, .. } => {
                rows.iter().for_each(|row| self.name_row(row.row, &row.body));
                format!("submit{}, cursor {cursor}", self.rows(rows.iter().map(|row| row.row)))
            }
            ToRouter::Scanned { .. } => "scanned".to_owned(),
            ToRouter::Ask { question, .. } => format!("ask {question:?}"),
            ToRouter::Register(registration) => self.registration(registration),
            ToRouter::Results(items) => self.results(items),
            ToRouter::Recalled(fences) => format!("recalled{}", self.fences(fences)),
            ToRouter::Leave => "leave".to_owned(),
            ToRouter::Watch { .. } => "watch".to_owned(),
            ToRouter::Piece(piece) => format!("a piece at {}", piece.at),
        };
        Some(format!("-> {text}"))
    }

    /// What a client reads.
    pub(crate) fn client_event(&self, event: &client::Event) -> Option<String> {
        use client::Event;
        Some(match event {
            Event::Up => "has a connection".to_owned(),
            Event::Down => "has none".to_owned(),
            Event::Lost => "sends again what is not finished".to_owned(),
            Event::Opened { cursor, .. } => format!("<- opened, cursor {cursor}"),
            Event::JobRefused(refusal) => format!("<- job refused: {refusal:?}"),
            Event::RowsRefused { rows, refusal } => {
                format!("<- refused{}: {refusal:?}", self.rows(rows.iter().copied()))
            }
            Event::Delivered { rows, .. } => {
                let rows = rows.iter().map(|row| format!(" {}:{}", row.number, self.row(row.row)));
                format!("<- deliver{}", rows.collect::<String>())
            }
            Event::Acknowledged(_)
            | Event::Scanned { .. }
            | Event::SourceEnd
            | Event::Progress(_)
            | Event::Written(_)
            | Event::Interrupt
            | Event::Tick => return None,
        })
    }

    /// What a worker reads.
    pub(crate) fn worker_event(&self, event: &worker::Event) -> Option<String> {
        use worker::Event;
        Some(match event {
            Event::Up => "has a connection".to_owned(),
            Event::Down => "has none".to_owned(),
            Event::Assigned(items) => format!("<- assign{}", self.attempts(items)),
            Event::Recall(fences) => format!("<- recall{}", self.fences(fences)),
            Event::Cancel(fences) => format!("<- cancel{}", self.fences(fences)),
            Event::Registered { incarnation, keep, drop, .. } => {
                format!("<- {}", self.registered(*incarnation, keep, drop))
            }
            Event::Refused(refusal) => format!("<- refused: {refusal:?}"),
            Event::Acknowledged(fences) => format!("<- acknowledged{}", self.fences(fences)),
            Event::Finished { .. } | Event::Piece(_) | Event::CapacityChanged(_) | Event::Stop | Event::Tick => {
                return None;
            }
        })
    }

    /// What a worker does and says.
    pub(crate) fn worker_output(&mut self, output: &worker::Output) -> Option<String> {
        use worker::Output;
        match output {
            Output::Start(items) => Some(format!("executes{}", self.attempts(items))),
            Output::Kill(fence) => Some(format!("kills{}", self.fences(&[*fence]))),
            Output::Send(message) => self.says(message),
            Output::Announce(_) | Output::DeathsReported | Output::Refused(_) | Output::Done => None,
        }
    }

    /// What the router is told and a reader wants to know.
    pub(crate) fn router_event(&mut self, event: &Event, peer_name: impl Fn(PeerId) -> String) -> Option<String> {
        match event {
            Event::PeerUp { peer } => Some(format!("{} is there", peer_name(*peer))),
            Event::PeerDown { peer } => Some(format!("{} is away", peer_name(*peer))),
            Event::PeerGone { peer } => Some(format!("{} is gone", peer_name(*peer))),
            Event::Message { peer, inbound, .. } => Some(format!("<- {}: {}", peer_name(*peer), self.inbound(inbound))),
            Event::Unreadable { lsn, .. } => Some(format!("record {} cannot be read", lsn.0)),
            Event::Disk(disk) => Some(format!("disk: {disk:?}")),
            Event::Stop => Some("stops".to_owned()),
            Event::Heard { .. }
            | Event::Announce { .. }
            | Event::Acked { .. }
            | Event::Durable(_)
            | Event::Sealed { .. }
            | Event::Tick => None,
        }
    }

    /// What the router says.
    pub(crate) fn outbound(&self, message: &Outbound) -> String {
        match message {
            Outbound::Client(message) | Outbound::Opened { message, .. } => self.to_client(message),
            Outbound::Worker(message) => self.to_worker(message),
            Outbound::Assign { items, .. } => {
                let fences: Vec<Fence> = items.iter().map(|item| item.fence).collect();
                format!(
                    "assign{}{}",
                    self.fences(&fences),
                    if items.iter().any(|one| one.alone) { ", alone" } else { "" }
                )
            }
            Outbound::Deliver { items, .. } => {
                let numbers = items.iter().map(|item: &DeliverItem| format!(" {}", item.number)).collect::<String>();
                format!("deliver{numbers}")
            }
            Outbound::Failures { .. } => "failures".to_owned(),
            Outbound::Task { .. } => "task".to_owned(),
        }
    }

    fn registered(&self, incarnation: u64, keep: &[Fence], drop: &[Fence]) -> String {
        format!("registered life {incarnation}{}{}", self.listed(", keep", keep), self.listed(", drop", drop))
    }

    fn attempts(&self, items: &[Assignment]) -> String {
        let fences: Vec<Fence> = items.iter().map(|item| item.fence).collect();
        self.fences(&fences)
    }

    /// The records of one commit that say something of rows, tasks, jobs or workers.
    pub(crate) fn records<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Option<String> {
        let told: Vec<String> = records.filter_map(|record| self.record(record)).collect();
        (!told.is_empty()).then(|| format!("on disk: {}", told.join("; ")))
    }

    fn to_worker(&self, message: &ToWorker) -> String {
        match message {
            ToWorker::Registered { incarnation, keep, drop, .. } => self.registered(*incarnation, keep, drop),
            ToWorker::Assign(items) => format!("assign{}", self.attempts(items)),
            ToWorker::Recall(fences) => format!("recall{}", self.fences(fences)),
            ToWorker::Cancel(fences) => format!("cancel{}", self.fences(fences)),
            ToWorker::Refused(refusal) => format!("refused: {refusal:?}"),
        }
    }

    fn listed(&self, what: &str, fences: &[Fence]) -> String {
        if fences.is_empty() { String::new() } else { format!("{what}{}", self.fences(fences)) }
    }

    fn fences(&self, fences: &[Fence]) -> String {
        fences.iter().map(|fence| format!(" {}#{}.{}", self.task(fence.key), fence.epoch, fence.attempt)).collect()
    }

    pub(crate) fn rows(&self, rows: impl Iterator<Item = RowId>) -> String {
        rows.map(|row| format!(" {}", self.row(row))).collect()
    }

    fn to_client(&self, message: &ToClient) -> String {
        match message {
            ToClient::JobOpened { cursor, counts, .. } => {
                format!("opened, cursor {cursor}: {} ok, {} failed, {} open", counts.ok, counts.failed, counts.open)
            }
            ToClient::JobRefused { refusal, .. } => format!("job refused: {refusal:?}"),
            ToClient::Deliver { rows, .. } => {
                let rows = rows.iter().map(|row| format!(" {}:{}", row.number, self.row(row.row)));
                format!("deliver{}", rows.collect::<String>())
            }
            ToClient::Refused { rows, refusal, .. } => {
                format!("refused{}: {refusal:?}", self.rows(rows.iter().copied()))
            }
            ToClient::Answer { .. } => "answer".to_owned(),
            ToClient::Piece { row, piece, .. } => format!("a piece of {} at {}", self.row(*row), piece.at),
        }
    }

    fn inbound(&mut self, inbound: &Inbound) -> String {
        match inbound {
            Inbound::OpenJob { spec, app: _ } => format!("open job, cursor {}", spec.cursor),
            Inbound::Submit { cursor, rows, .. } => {
                rows.iter().for_each(|row| self.name_task(row));
                format!("submit{}, cursor {cursor}", self.rows(rows.iter().map(|row| row.row)))
            }
            Inbound::Scanned { .. } => "scanned".to_owned(),
            Inbound::Ask { question, .. } => format!("ask {question:?}"),
            Inbound::Register(registration) => self.registration(registration),
            Inbound::Results(items) => self.results(items),
            Inbound::Recalled(fences) => format!("recalled{}", self.fences(fences)),
            Inbound::Leave => "leave".to_owned(),
            Inbound::Watch { .. } => "watch".to_owned(),
            Inbound::Piece(piece) => format!("a piece at {}", piece.at),
        }
    }

    fn registration(&self, registration: &Registration) -> String {
        let Registration { incarnation, holding, died_with, .. } = registration;
        let (holding, died) = (self.listed(", holding", holding), self.listed(", died with", died_with));
        format!("register life {incarnation}{holding}{died}")
    }

    fn results(&self, items: &[ResultItem]) -> String {
        let item = |item: &ResultItem| format!("{} {}", self.fences(&[item.fence]), ending(&item.outcome));
        format!("results{}", items.iter().map(item).collect::<Vec<_>>().join(","))
    }

    fn record(&self, record: &Record) -> Option<String> {
        Some(match record {
            Record::Opened(opened) => format!("job {} opened", opened.no.0),
            Record::Submitted(one) => format!("{} submitted", self.task(one.key)),
            Record::Joined(one) => format!("{} joins {}", self.row(one.row), self.task(one.key)),
            Record::Cached(one) => {
                format!("{} answered by the old {}", self.delivery(&one.delivery), self.task(one.key))
            }
            Record::Ended(one) => self.ended(one),
            Record::Finished(one) => self.finished(one),
            Record::Withdrawn(one) => format!("{} withdrawn", self.delivery(&one.delivery)),
            Record::Retried(one) => format!("{} to be retried", self.row(one.delivery.row)),
            Record::Registered(one) => format!("{} registered in life {}", one.name, one.incarnation),
            Record::Left { worker } => format!("w{} left", worker.0[0].wrapping_sub(1)),
            Record::Settled { counts, job } => format!("job {} settled up to {}", job.0, counts.settled),
            Record::Cancelled { job } => format!("job {} cancelled", job.0),
            Record::Resumed { job } => format!("job {} resumed", job.0),
            Record::JobLeft { job, .. } => format!("job {} left", job.0),
            Record::Scanned { job } => format!("job {} scanned", job.0),
            Record::Heard { .. } | Record::Forgotten { .. } | Record::Unlisted { .. } => return None,
        })
    }

    fn ended(&self, ended: &Ended) -> String {
        let suspect = if ended.suspect { ", a suspect" } else { "" };
        match ended.class {
            None => format!("{} lost with its worker{suspect}", self.task(ended.key)),
            Some(class) => {
                let (epoch, attempt) = ended.attempt;
                format!("{}#{epoch}.{attempt} ended, {}{suspect}", self.task(ended.key), Class::name(class))
            }
        }
    }

    fn finished(&self, finished: &Finished) -> String {
        let to = finished.deliveries.iter().map(|one| format!(" {}", self.delivery(one))).collect::<String>();
        format!("{} {} by {} as{to}", self.task(finished.key), ending(&finished.outcome), finished.worker)
    }

    fn delivery(&self, delivery: &Delivery) -> String {
        format!("{}:{}", delivery.number, self.row(delivery.row))
    }

    fn name_task(&mut self, row: &KeyedRow) {
        self.name_row(row.row, &row.body);
        self.tasks.entry(row.key).or_insert_with(|| numbered(&row.body, row.sample));
    }

    fn name_row(&mut self, row: RowId, body: &[u8]) {
        let ordinal = u32::from_le_bytes([row.0[9], row.0[10], row.0[11], row.0[12]]);
        self.rows.entry(row).or_insert_with(|| numbered(body, ordinal));
    }

    fn task(&self, key: Key) -> String {
        self.tasks.get(&key).cloned().unwrap_or_else(|| "?".to_owned())
    }

    fn row(&self, row: RowId) -> String {
        self.rows.get(&row).cloned().unwrap_or_else(|| "?".to_owned())
    }
}

fn ending(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(_) => "ok".to_owned(),
        Outcome::Failed(failure) => format!("failed ({})", failure.class.name()),
    }
}

/// The beginning of a body, and which of equal ones it is.
fn numbered(body: &[u8], ordinal: u32) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(NAME_CHARS).collect();
    if ordinal == 0 { text } else { format!("{text}~{ordinal}") }
}

/// So much of a body tells it from others.
const NAME_CHARS: usize = 12;

//! Stories: commands to a world, and the trace of what it answers.

use std::fmt::Write;

use bytes::Bytes;
use sheaf_session::Micros;
use sheaf_task::{
    Capacity, Class, Evidence, Failure, Fence, JobId, JobOptions, JobSpec, Key, Order, Outcome, Piece, Question,
    Registration, ResultItem, RouterId, RowId, ToClient, ToWorker, Tokens,
};

use super::super::record::{Delivery, Record, owners_of};
use super::super::*;
use super::world::{World, id, name, worker_id};

/// Runs the commands of a story; returns it with the traces that they gave.
pub(super) fn run(story: &str) -> String {
    let mut out = String::new();
    let mut script = Script { world: World::new(Limits::default()), manual: false };
    for line in story.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut outputs = script.command(line);
        if !script.manual {
            outputs.extend(script.world.sync());
        }
        for output in outputs {
            writeln!(out, "  {}", script.show(&output)).unwrap();
        }
        script.world.check_replay();
    }
    out
}

struct Script {
    world: World,
    /// The disk syncs only on `sync`.
    manual: bool,
}

/// A command's words: plain ones, and `name=value`.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let (named, plain): (Vec<_>, Vec<_>) = line.split_whitespace().partition(|word| word.contains('='));
        Self { plain, named: named.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).map_or(default, |value| value.parse().unwrap())
    }

    fn list(&self, name: &str) -> Vec<&'a str> {
        self.text(name).map_or(Vec::new(), |value| value.split(',').collect())
    }
}

impl Script {
    fn command(&mut self, line: &str) -> Vec<Output> {
        let words = Words::new(line);
        let (verb, args) = words.plain.split_first().unwrap();
        match *verb {
            "limits" => {
                let limits = Limits {
                    tasks_open_max: words.number("tasks", 1_000) as u32,
                    jobs_max: words.number("jobs", 10) as u32,
                    unsettled_max: words.number("unsettled", 1_000),
                    workers_max: words.number("workers", 10) as u32,
                    failures_max: words.number("failures", 10) as u32,
                    slice_max: words.number("slice", 4_096) as u32,
                    deliver_messages_max: words.number("deliver", 16) as u32,
                    ..Limits::default()
                };
                self.world = World::new(limits);
                Vec::new()
            }
            "manual" => {
                self.manual = true;
                Vec::new()
            }
            "sync" => self.world.sync(),
            "up" | "down" | "gone" | "heard" => self.peer_event(verb, args[0]),
            "open" => self.open(args, &words),
            "submit" => self.submit(args, &words),
            "scanned" => {
                let job = JobId(id(args[1]));
                self.world.message(args[0], Inbound::Scanned { job })
            }
            "register" => self.register(args, &words),
            "announce" => {
                let peer = self.world.peer(args[0]);
                self.world.handle(Event::Announce { peer, capacity: capacity(&words) })
            }
            "ok" | "fail" => self.results(verb, args, &words),
            "recalled" => {
                let fences = args[1..].iter().map(|text| self.fence(text)).collect();
                self.world.message(args[0], Inbound::Recalled(fences))
            }
            "leave" => self.world.message(args[0], Inbound::Leave),
            "watch" => self.world.message(args[0], Inbound::Watch { job: JobId(id(args[1])) }),
            "piece" => self.piece(args, &words),
            "ack" => {
                let peer = self.world.peer(args[0]);
                let upto = args.get(1).map_or(u64::MAX, |tag| tag.parse().unwrap());
                self.world.handle(Event::Acked { peer, upto: Tag(upto) })
            }
            "ask" => self.ask(args, &words),
            "tick" => self.tick(seconds(args[0])),
            "sleep" => {
                self.world.now = self.world.now + seconds(args[0]);
                self.world.handle(Event::Tick)
            }
            "seal" => self.seal(),
            "disk" => {
                let disk = if args[0] == "full" { Disk::Full } else { Disk::Room };
                self.world.handle(Event::Disk(disk))
            }
            "unreadable" => self.unreadable(args),
            "restart" => self.world.restart(),
            "lose" => self.lose(args[0].parse().unwrap()),
            "compact" => {
                self.world.compact(self.world.durable);
                Vec::new()
            }
            "stop" => self.world.handle(Event::Stop),
            unknown => panic!("no such command: {unknown}"),
        }
    }

    /// The next life of the router finds this record damaged.
    fn lose(&mut self, lost: u64) -> Vec<Output> {
        self.world.journal.retain(|(lsn, _)| lsn.0 != lost);
        self.world.restart()
    }

    /// `LSN`: as a body; `LSN result JOB_NO NUMBER`; `LSN failure BODY`.
    fn unreadable(&mut self, args: &[&str]) -> Vec<Output> {
        let number = |at: usize| args[at].parse::<u64>().unwrap();
        let wanted = match args.get(1).copied() {
            None => Wanted::Body,
            Some("result") => Wanted::Result { job: JobNo(number(2) as u32), number: number(3) },
            Some("failure") => Wanted::Failure { body: Lsn(number(2)) },
            Some(unknown) => panic!("no such want: {unknown}"),
        };
        self.world.handle(Event::Unreadable { lsn: Lsn(number(0)), wanted })
    }

    fn seal(&mut self) -> Vec<Output> {
        let (upto, generation) = (self.world.durable, Generation(self.world.sealed.1.0 + 1));
        self.world.sealed = (upto, generation);
        let mut outputs = self.world.handle(Event::Sealed { upto, generation });
        outputs.extend(self.world.handle(Event::Tick));
        outputs
    }

    fn peer_event(&mut self, verb: &str, name: &str) -> Vec<Output> {
        let peer = self.world.peer(name);
        let at = self.world.now;
        match verb {
            "up" => self.world.handle(Event::PeerUp { peer }),
            "down" => self.world.handle(Event::PeerDown { peer }),
            "heard" => self.world.handle(Event::Heard { peer, at }),
            _ => {
                let outputs = self.world.handle(Event::PeerGone { peer });
                self.world.forget_peer(name);
                outputs
            }
        }
    }

    fn open(&mut self, args: &[&str], words: &Words<'_>) -> Vec<Output> {
        let order = match words.text("order") {
            Some("fifo") => Order::Fifo,
            Some("shortest") => Order::Shortest,
            _ => Order::Auto,
        };
        let options = JobOptions {
            timeout_ms: words.number("timeout", 0),
            retries: words.number("retries", 3) as u32,
            order,
            weight: words.number("weight", 1) as u32,
            rate_millihertz: words.number("rate", 0),
        };
        let spec = JobSpec {
            job: JobId(id(args[1])),
            name: args[1].to_owned(),
            service: args[2].to_owned(),
            revision: words.text("revision").unwrap_or("").to_owned(),
            nonce: Bytes::new(),
            cursor: words.number("cursor", 0),
            cursor_router: Some(RouterId(id(words.text("router").unwrap_or("router")))),
            options,
        };
        self.world.message(args[0], Inbound::OpenJob { spec, app: words.text("app").unwrap_or("").to_owned() })
    }

    /// Rows `a`, `a:200` (a body of 200 bytes) or `a@k` (row a with the key of k).
    fn submit(&mut self, args: &[&str], words: &Words<'_>) -> Vec<Output> {
        let generation = Generation(words.number("generation", self.world.sealed.1.0));
        let row = |text: &&str| {
            let (text, len) = text.split_once(':').unwrap_or((text, "10"));
            let (row, key) = text.split_once('@').unwrap_or((text, text));
            let mut row = self.world.row(args[1], row, key, len.parse().unwrap());
            // Before the first seal the index is empty.
            row.prior = row.prior.filter(|_| generation != Generation(0));
            row
        };
        let rows = args[2..].iter().map(row).collect::<Vec<_>>();
        let cursor = words.number("cursor", 0);
        self.world.message(args[0], Inbound::Submit { job: JobId(id(args[1])), cursor, rows, generation })
    }

    fn register(&mut self, args: &[&str], words: &Words<'_>) -> Vec<Output> {
        let fences = |name: &str| words.list(name).iter().map(|text| self.fence(text)).collect();
        let registration = Registration {
            worker: worker_id(args[1]),
            incarnation: words.number("life", 1),
            name: args[1].to_owned(),
            services: args[2..].iter().map(|service| (*service).to_owned()).collect(),
            capacity: capacity(words),
            holding: fences("holding"),
            died_with: fences("died"),
        };
        self.world.message(args[0], Inbound::Register(registration))
    }

    fn piece(&mut self, args: &[&str], words: &Words<'_>) -> Vec<Output> {
        let (fence, bytes) = (self.fence(args[1]), Bytes::from_static(b"data"));
        self.world.message(args[0], Inbound::Piece(Piece { fence, at: words.number("at", 0), bytes }))
    }

    fn results(&mut self, verb: &str, args: &[&str], words: &Words<'_>) -> Vec<Output> {
        let outcome = |fence: &Fence| match verb {
            "ok" => Outcome::Ok(Bytes::from(format!("answer of {}", name(&fence.key.0)))),
            _ => {
                let class = Class::ALL.into_iter().find(|class| Some(class.name()) == words.text("class"));
                Outcome::Failed(Failure::new(class.unwrap(), "no"))
            }
        };
        let ms = words.number("ms", 10);
        let item = |text: &&str| {
            let fence = self.fence(text);
            ResultItem { fence, outcome: outcome(&fence), ms, tokens: Tokens { prompt: 2, completion: 1 } }
        };
        let items = args[1..].iter().map(item).collect();
        self.world.message(args[0], Inbound::Results(items))
    }

    /// `a#2`: the second attempt at a in this epoch; `a#1.2`: in epoch 1.
    fn fence(&self, text: &str) -> Fence {
        let (key, attempt) = text.split_once('#').unwrap();
        let (epoch, attempt) = match attempt.split_once('.') {
            Some((epoch, attempt)) => (epoch.parse().unwrap(), attempt),
            None => (self.world.epoch, attempt),
        };
        let ordinal = attempt.parse::<usize>().unwrap();
        let key = Key(id(key));
        Fence { key, epoch, attempt: self.world.attempts[&(epoch, key)][ordinal - 1] }
    }

    fn ask(&mut self, args: &[&str], words: &Words<'_>) -> Vec<Output> {
        let job = |at: usize| JobId(id(args[at]));
        let question = match args[1] {
            "jobs" => Question::Jobs,
            "workers" => Question::Workers,
            "stats" => Question::Stats,
            "cancel" => Question::CancelJob(job(2)),
            "withdraw" => Question::Withdraw {
                job: job(2),
                rows: args[3..].iter().map(|key| (Key(id(key)), RowId(id(key)))).collect(),
            },
            "task" => Question::Task(Key(id(args[2]))),
            "failures" => Question::Failures { job: job(2), after: 0, limit: 100 },
            "retry" => Question::Retry { job: job(2), keys: args[3..].iter().map(|key| Key(id(key))).collect() },
            _ => Question::Shutdown,
        };
        let prior = args.get(2).and_then(|key| self.world.row("", "", key, 0).prior);
        let owners = args.get(2).map_or(Vec::new(), |key| owners_of(Key(id(key)), &self.world.sealed_records()));
        let view = words.text("view").map_or(View::All, |app| View::App(app.into()));
        self.world.message(args[0], Inbound::Ask { id: 7, question, prior, owners, view })
    }

    /// Time passes, with a tick each second and at each deadline.
    fn tick(&mut self, time: Micros) -> Vec<Output> {
        let end = self.world.now + time;
        let mut outputs = Vec::new();
        loop {
            outputs.extend(self.world.handle(Event::Tick));
            if !self.manual {
                outputs.extend(self.world.sync());
            }
            let due = self.world.router.deadline();
            if self.world.now >= end && due > end {
                return outputs;
            }
            self.world.now = due.max(self.world.now).min(end);
        }
    }

    fn show(&self, output: &Output) -> String {
        match output {
            Output::Append { lsn, record } => format!("append {} {}", lsn.0, show_record(record)),
            Output::Commit { peer, place } => format!("commit {} {}", self.world.peer_name(*peer), place.seq),
            Output::Send { peer, lane: _, tag, message } => {
                let tag = if *tag == Tag::NONE { String::new() } else { format!("#{}", tag.0) };
                format!("to {}{tag}: {}", self.world.peer_name(*peer), self.show_message(message))
            }
            Output::Relook { peer, .. } => format!("relook {}", self.world.peer_name(*peer)),
            Output::Signal { peer, counts } => format!("signal {}: {counts:?}", self.world.peer_name(*peer)),
            Output::Lost(lsn) => format!("lost {}", lsn.0),
            Output::Stopped => "stopped".to_owned(),
        }
    }

    fn show_message(&self, message: &Outbound) -> String {
        match message {
            Outbound::Assign { service, items } => {
                let item = |item: &AssignItem| {
                    let alone = if item.alone { " alone" } else { "" };
                    format!(" {}@{}{alone}", self.show_fence(&item.fence), item.body.0)
                };
                format!("assign {service}{}", items.iter().map(item).collect::<String>())
            }
            Outbound::Deliver { job, items, .. } => {
                let item = |item: &DeliverItem| format!(" {}@{}", item.number, item.record.0);
                format!("deliver {}{}", name(&job.0), items.iter().map(item).collect::<String>())
            }
            Outbound::Opened { message, .. } | Outbound::Client(message) => show_to_client(message),
            Outbound::Worker(message) => self.show_to_worker(message),
            Outbound::Failures { items, .. } => {
                let item = |item: &FailureItem| {
                    format!(" {}:{}@{} body@{}", item.number, name(&item.row.0), item.finished.0, item.body.0)
                };
                format!("failures{}", items.iter().map(item).collect::<String>())
            }
            Outbound::Task { finished, .. } => format!("task finished@{}", finished.0),
        }
    }

    fn show_to_worker(&self, message: &ToWorker) -> String {
        let list =
            |fences: &[Fence]| fences.iter().map(|fence| format!(" {}", self.show_fence(fence))).collect::<String>();
        match message {
            ToWorker::Registered { incarnation: _, router: _, keep, drop } => {
                format!("registered keep{} drop{}", list(keep), list(drop))
            }
            ToWorker::Recall(fences) => format!("recall{}", list(fences)),
            ToWorker::Cancel(fences) => format!("cancel{}", list(fences)),
            ToWorker::Refused(refusal) => format!("refused {refusal:?}"),
            ToWorker::Assign(_) => panic!("assignments go as references"),
        }
    }

    fn show_fence(&self, fence: &Fence) -> String {
        let key = name(&fence.key.0);
        let attempts = &self.world.attempts[&(fence.epoch, fence.key)];
        let ordinal = attempts.iter().position(|attempt| *attempt == fence.attempt).unwrap() + 1;
        if fence.epoch == self.world.epoch {
            format!("{key}#{ordinal}")
        } else {
            format!("{key}#{}.{ordinal}", fence.epoch)
        }
    }
}

fn show_to_client(message: &ToClient) -> String {
    match message {
        ToClient::JobOpened { job, cursor, counts, .. } => format!(
            "opened {} cursor {cursor}: {} = {} ok + {} failed + {} open",
            name(&job.0),
            counts.submitted,
            counts.ok,
            counts.failed,
            counts.open
        ),
        ToClient::JobRefused { job, refusal } => format!("job {} refused {refusal:?}", name(&job.0)),
        ToClient::Refused { job, rows, refusal } => {
            let rows = rows.iter().map(|row| format!(" {}", name(&row.0))).collect::<String>();
            format!("rows of {} refused {refusal:?}:{rows}", name(&job.0))
        }
        ToClient::Piece { job, row, piece } => {
            format!("piece of {} of {} at {}", name(&row.0), name(&job.0), piece.at)
        }
        ToClient::Answer { answer, .. } => format!("{answer:?}"),
        ToClient::Deliver { .. } => panic!("deliveries go as references"),
    }
}

fn show_delivery(delivery: &Delivery) -> String {
    format!("{}:{} to job {}", delivery.number, name(&delivery.row.0), delivery.job.0)
}

fn show_record(record: &Record) -> String {
    match record {
        Record::Opened(opened) => format!("Opened {} as {}", opened.name, opened.no.0),
        Record::Submitted(s) => format!("Submitted {} row {} job {}", name(&s.key.0), name(&s.row.0), s.job.0),
        Record::Joined(j) => format!("Joined {} row {} job {}", name(&j.key.0), name(&j.row.0), j.job.0),
        Record::Cached(c) => {
            let ok = if c.ok { "ok" } else { "failed" };
            format!("Cached {} {ok}@{} {}", name(&c.key.0), c.finished.0, show_delivery(&c.delivery))
        }
        Record::Ended(e) => {
            let class = e.class.map_or("lost", Class::name);
            let suspect = if e.suspect { " suspect" } else { "" };
            format!("Ended {} {class}{suspect}", name(&e.key.0))
        }
        Record::Finished(f) => {
            let outcome = match &f.outcome {
                Outcome::Ok(_) => "ok".to_owned(),
                Outcome::Failed(failure) => {
                    let Evidence { deaths, worker, .. } = &*failure.evidence;
                    let at = if worker.is_empty() { String::new() } else { format!(" at {worker}") };
                    format!("{} deaths {deaths}{at}", failure.class.name())
                }
            };
            let deliveries = f.deliveries.iter().map(|one| format!(", {}", show_delivery(one))).collect::<String>();
            format!("Finished {} {outcome} attempts {} by {}{deliveries}", name(&f.key.0), f.attempts, f.worker)
        }
        Record::Withdrawn(w) => format!("Withdrawn {} {}", name(&w.key.0), show_delivery(&w.delivery)),
        Record::Retried(r) => format!("Retried {} {}", name(&r.key.0), show_delivery(&r.delivery)),
        Record::Registered(r) => format!("Registered {} life {}", r.name, r.incarnation),
        Record::Left { worker } => format!("Left {}", name(&worker.0)),
        Record::Settled { job, counts } => format!("Settled job {} {}", job.0, counts.settled),
        Record::Scanned { job } => format!("Scanned job {}", job.0),
        Record::Cancelled { job } => format!("Cancelled job {}", job.0),
        Record::Unlisted { job, number } => format!("Unlisted {number} of job {}", job.0),
        Record::Resumed { job } => format!("Resumed job {}", job.0),
        Record::JobLeft { job, last } => format!("JobLeft job {} of {}", job.0, last.0),
        Record::Heard { .. } => "Heard".to_owned(),
        Record::Forgotten { .. } => "Forgotten".to_owned(),
    }
}

fn capacity(words: &Words<'_>) -> Capacity {
    Capacity {
        batch: words.number("batch", 1) as u32,
        depth: words.number("depth", 0) as u32,
        bytes: words.number("bytes", 0),
    }
}

fn seconds(text: &str) -> Micros {
    match text.strip_suffix("ms") {
        Some(ms) => Micros::from_ms(ms.parse().unwrap()),
        None => Micros::from_secs(text.trim_end_matches('s').parse().unwrap()),
    }
}

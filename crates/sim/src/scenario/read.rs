//! A plan from text, line by line. What is not said is as in a quiet cluster: no chaos, short delays, a patient router.

use std::fmt;

use bytes::Bytes;
use sheaf_session::{Faults, Micros};

use super::write::LEFT;
use crate::network::Weather;
use crate::oddities::Oddities;
use crate::plan::{Break, ClientPlan, Order, Plan, STEPS_MAX, Who, WorkerPlan};

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// Which, from 1.
    pub line: usize,
    /// Why.
    pub reason: Reason,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is known by this word here.
    Unknown(String),
    /// The line ends where this is expected.
    Lacks(&'static str),
    /// No number.
    NotANumber(String),
    /// No time: digits and `us`, `ms` or `s`.
    NotATime(String),
    /// A worker or client of this number is not in the plan.
    NoSuch(Who),
    /// There is no client, or no worker.
    NoCluster,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.reason {
            Reason::Unknown(word) => write!(f, "`{word}` means nothing here"),
            Reason::Lacks(what) => write!(f, "{what} is missing"),
            Reason::NotANumber(word) => write!(f, "`{word}` is no number"),
            Reason::NotATime(word) => write!(f, "`{word}` is no time: 50us, 120ms, 3s"),
            Reason::NoSuch(who) => write!(f, "there is no {who}"),
            Reason::NoCluster => write!(f, "a plan has a worker and a client"),
        }
    }
}

impl std::error::Error for ScenarioError {}

/// The plan that the lines describe; empty ones and `#` comments are passed over.
pub(super) fn plan(text: &str) -> Result<Plan, ScenarioError> {
    let mut plan = quiet();
    let mut last = 0;
    for (number, line) in text.lines().enumerate() {
        last = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = Words(line.split_whitespace());
        let read = one_line(&mut plan, &mut words).and_then(|()| words.end());
        read.map_err(|reason| ScenarioError { line: last, reason })?;
    }
    check(&plan).map_err(|reason| ScenarioError { line: last, reason })?;
    finish(&mut plan);
    Ok(plan)
}

fn quiet() -> Plan {
    Plan {
        seed: 0,
        clients: Vec::new(),
        workers: Vec::new(),
        grace: Micros::from_secs(5),
        weather: Weather { delay_min: Micros::from_ms(1), delay_max: Micros::from_ms(1) },
        faults: None,
        sync_max: Micros::from_ms(5),
        breaks: Vec::new(),
        oddities: Oddities::default(),
        is_steady: false,
        steps_max: STEPS_MAX,
    }
}

/// What follows from the lines together.
fn finish(plan: &mut Plan) {
    let seed = plan.seed;
    if let Some(faults) = &mut plan.faults {
        faults.seed = seed;
    }
    plan.oddities.has_clone = plan.workers.iter().any(|worker| worker.clone_of.is_some());
    let is_old = |one: &Break| matches!(one, Break::Restore { who: Who::Worker(_), .. });
    plan.oddities.has_old_spool = plan.breaks.iter().any(|(_, one)| is_old(one));
    let is_old = |one: &Break| matches!(one, Break::Restore { who: Who::Router, .. });
    plan.oddities.has_old_journal = plan.breaks.iter().any(|(_, one)| is_old(one));
    plan.breaks.sort_by_key(|(at, _)| *at);
}

fn check(plan: &Plan) -> Result<(), Reason> {
    if plan.clients.is_empty() || plan.workers.is_empty() {
        return Err(Reason::NoCluster);
    }
    let copies = plan.workers.iter().filter_map(|worker| worker.clone_of.map(Who::Worker));
    for who in plan.breaks.iter().map(|(_, one)| one.who()).chain(copies) {
        let is_there = match who {
            Who::Router => true,
            Who::Worker(number) => number < plan.workers.len(),
            Who::Client(number) => number < plan.clients.len(),
        };
        if !is_there {
            return Err(Reason::NoSuch(who));
        }
    }
    Ok(())
}

fn one_line(plan: &mut Plan, words: &mut Words<'_>) -> Result<(), Reason> {
    match words.next("a word")? {
        "seed" => plan.seed = words.number()?,
        "steady" => plan.is_steady = true,
        "steps" => plan.steps_max = words.number()?,
        "grace" => plan.grace = words.time()?,
        "sync" => plan.sync_max = words.time()?,
        "delay" => {
            plan.weather.delay_min = words.time()?;
            words.expect("to")?;
            plan.weather.delay_max = words.time()?;
        }
        "window" => plan.oddities.window = Some(words.number()?),
        "sink" => plan.oddities.slow_sink = Some(words.time()?),
        "chaos" => plan.faults = Some(faults(words)?),
        "segments" => plan.oddities.small_segments = Some(segments(words)?),
        "worker" => {
            let worker = worker(words, plan.workers.len(), &mut plan.oddities)?;
            plan.workers.push(worker);
        }
        "client" => {
            let client = client(words, plan.clients.len(), &mut plan.oddities)?;
            plan.clients.push(client);
        }
        "at" => plan.breaks.push((words.time()?, broken(words)?)),
        other => return Err(Reason::Unknown(other.to_owned())),
    }
    Ok(())
}

fn faults(words: &mut Words<'_>) -> Result<Faults, Reason> {
    let mut faults = Faults { drop: 0.0, dup: 0.0, reorder: 0.0, delay: 0.0, seed: 0 };
    while let Some(word) = words.0.next() {
        match word {
            "drop" => faults.drop = words.parsed()?,
            "dup" => faults.dup = words.parsed()?,
            "reorder" => faults.reorder = words.parsed()?,
            "delay" => faults.delay = words.parsed()?,
            other => return Err(Reason::Unknown(other.to_owned())),
        }
    }
    Ok(faults)
}

fn segments(words: &mut Words<'_>) -> Result<(u32, Option<Micros>), Reason> {
    let bytes = words.parsed()?;
    match words.0.next() {
        None => Ok((bytes, None)),
        Some("retention") => Ok((bytes, Some(words.time()?))),
        Some(other) => Err(Reason::Unknown(other.to_owned())),
    }
}

fn worker(words: &mut Words<'_>, number: usize, oddities: &mut Oddities) -> Result<WorkerPlan, Reason> {
    let mut worker = WorkerPlan {
        batch: 1,
        depth: 0,
        slow: Micros::from_ms(100),
        has_spool: true,
        starts: Micros(10),
        clone_of: None,
    };
    while let Some(word) = words.0.next() {
        match word {
            "batch" => worker.batch = words.parsed()?,
            "depth" => worker.depth = words.parsed()?,
            "time" => worker.slow = words.time()?,
            "starts" => worker.starts = words.time()?,
            "liar" => oddities.liars.push(number),
            "no-spool" => worker.has_spool = false,
            "copy-of" => worker.clone_of = Some(words.parsed()?),
            other => return Err(Reason::Unknown(other.to_owned())),
        }
    }
    Ok(worker)
}

fn client(words: &mut Words<'_>, number: usize, oddities: &mut Oddities) -> Result<ClientPlan, Reason> {
    let mut client = ClientPlan { rows: Vec::new(), share: false, starts: Micros::from_ms(20) };
    while let Some(word) = words.0.next() {
        match word {
            "starts" => client.starts = words.time()?,
            "fresh" => oddities.fresh.push(number),
            "collects" => oddities.collectors.push(number),
            "within" => oddities.in_time = Some((number, words.time()?)),
            "share" => client.share = true,
            "rows" => client.rows = words.0.by_ref().map(body).collect::<Result<_, _>>()?,
            other => return Err(Reason::Unknown(other.to_owned())),
        }
    }
    Ok(client)
}

/// `abc`, or `abc*400`: the last character so many times.
fn body(word: &str) -> Result<Bytes, Reason> {
    let Some((start, count)) = word.split_once('*') else { return Ok(Bytes::from(word.to_owned())) };
    let count: usize = count.parse().map_err(|_| Reason::NotANumber(count.to_owned()))?;
    let last = start.chars().last().ok_or(Reason::Lacks("the character before `*`"))?;
    let stem = &start[..start.len() - last.len_utf8()];
    Ok(Bytes::from(format!("{stem}{}", last.to_string().repeat(count))))
}

fn broken(words: &mut Words<'_>) -> Result<Break, Reason> {
    Ok(match words.next("what breaks")? {
        "kill" => Break::Crash { who: words.who()?, down: words.long()?, power: None },
        "power-off" => {
            let (who, down) = (words.who()?, words.long()?);
            words.expect("keeps")?;
            let name = words.next("what the disk keeps")?;
            let left = LEFT.iter().find(|(other, _)| *other == name).map(|(_, left)| *left);
            Break::Crash { who, down, power: Some(left.ok_or_else(|| Reason::Unknown(name.to_owned()))?) }
        }
        "cut" => Break::Cut(words.who()?),
        "deafen" => match words.who()? {
            Who::Router => {
                words.expect("to")?;
                Break::Deafen { who: words.who()?, host_end: false }
            }
            who @ (Who::Worker(_) | Who::Client(_)) => Break::Deafen { who, host_end: true },
        },
        "part" => Break::Part { who: words.who()?, time: words.long()? },
        "leave" => Break::Leave { who: words.who()?, away: words.long()? },
        "stop" => Break::Freeze { who: words.who()?, time: words.long()? },
        "cancel" => Break::Order { who: words.who()?, order: Order::Cancel },
        "retry" => Break::Order { who: words.who()?, order: Order::Retry },
        "look" => Break::Order { who: words.who()?, order: Order::Look },
        "copy-disk" => Break::BackUp(words.who()?),
        "restore" => Break::Restore { who: words.who()?, down: words.long()? },
        other => return Err(Reason::Unknown(other.to_owned())),
    })
}

/// What is left of a line.
struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self, what: &'static str) -> Result<&'a str, Reason> {
        self.0.next().ok_or(Reason::Lacks(what))
    }

    fn expect(&mut self, word: &'static str) -> Result<(), Reason> {
        let found = self.next(word)?;
        if found == word { Ok(()) } else { Err(Reason::Unknown(found.to_owned())) }
    }

    fn end(&mut self) -> Result<(), Reason> {
        self.0.next().map_or(Ok(()), |word| Err(Reason::Unknown(word.to_owned())))
    }

    fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, Reason> {
        let word = self.next("a number")?;
        word.parse().map_err(|_| Reason::NotANumber(word.to_owned()))
    }

    fn number(&mut self) -> Result<u64, Reason> {
        self.parsed()
    }

    fn time(&mut self) -> Result<Micros, Reason> {
        let word = self.next("a time")?;
        let is_digit = |one: char| one.is_ascii_digit();
        let (digits, unit) = word.split_at(word.len() - word.trim_start_matches(is_digit).len());
        let us = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            _ => return Err(Reason::NotATime(word.to_owned())),
        };
        let count: Option<u64> = digits.parse().ok();
        count.and_then(|count| count.checked_mul(us)).map(Micros).ok_or_else(|| Reason::NotATime(word.to_owned()))
    }

    /// `for TIME`.
    fn long(&mut self) -> Result<Micros, Reason> {
        self.expect("for")?;
        self.time()
    }

    fn who(&mut self) -> Result<Who, Reason> {
        match self.next("a process")? {
            "router" => Ok(Who::Router),
            "worker" => Ok(Who::Worker(self.parsed()?)),
            "client" => Ok(Who::Client(self.parsed()?)),
            other => Err(Reason::Unknown(other.to_owned())),
        }
    }
}

//! One target in this process: the corpus, then inputs made from it, from the inputs that behaved anew, and from words.
//!
//! Before an input runs it is written to a file: where the process dies, the parent finds there what killed it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};
use sheaf_session::Rng;

use crate::args::{Args, Span};
use crate::corpus;
use crate::guard::{self, Guard, RSS_MAX};
use crate::mutate::{self, Stock};
use crate::target::{Shape, Spec};

/// Inputs that behaved anew and are kept; above it a random one of them makes room.
const POOL_MAX: usize = 2_048;
/// Inputs between two looks at the memory.
const LOOK: usize = 256;
/// Failures of different kinds after which a run stops.
const FAILURES_MAX: usize = 8;
/// Runs spent on making a failing input smaller.
const TRIES: u32 = 4_000;
/// Address space of the process: an allocation without a bound dies here, instead of the machine.
const SPACE_MAX: u64 = 2 << 30;
/// An input that has not ended by then never will.
const HANG: Duration = Duration::from_secs(10);
/// The exit code for it.
pub(crate) const HUNG: i32 = 86;

/// The input now running.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// Runs the target that is named; returns how many kinds of failure there were.
pub(crate) fn run(args: &Args) -> Result<usize> {
    let spec = args.target.context("no target")?;
    setrlimit(Resource::As, Rlimit { current: Some(SPACE_MAX), maximum: Some(SPACE_MAX) })?;
    let scratch = tempfile::tempdir_in(fast_dir())?;
    let last = File::create(corpus::failures()?.join(format!("{}.last", spec.name)))?;
    let mut fuzzer = Fuzzer {
        spec,
        guard: Guard::new(spec, scratch.path().to_owned()),
        last,
        shapes: BTreeSet::new(),
        pool: Vec::new(),
        recent: Vec::new(),
        kinds: BTreeSet::new(),
        ran: 0,
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let watchdog = scope.spawn(watch);
        let done = fuzzer.all(args);
        RUNNING.store(OVER, Ordering::Relaxed);
        watchdog.thread().unpark();
        done
    })?;
    let (ran, seconds) = (fuzzer.ran, began.elapsed().as_secs_f64());
    println!(
        "{:<8} {ran:>9} inputs in {seconds:>6.1} s, {:>6.0}/s, {} shapes, peak {} MiB, {} failures",
        spec.name,
        ran as f64 / seconds,
        fuzzer.shapes.len(),
        guard::peak().unwrap_or(0) >> 10,
        fuzzer.kinds.len()
    );
    Ok(fuzzer.kinds.len())
}

/// A directory in memory where there is one: the targets write small files.
fn fast_dir() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

const OVER: u64 = u64::MAX;

/// Ends the process when one input runs on and on.
fn watch() {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let running = RUNNING.load(Ordering::Relaxed);
        if running == OVER {
            return;
        }
        if running != seen {
            (seen, since) = (running, Instant::now());
        } else if since.elapsed() > HANG {
            std::process::exit(HUNG);
        }
        thread::park_timeout(HANG / 10);
    }
}

struct Fuzzer {
    spec: &'static Spec,
    guard: Guard,
    last: File,
    shapes: BTreeSet<Shape>,
    pool: Vec<Vec<u8>>,
    /// What ran since the memory was looked at.
    recent: Vec<Vec<u8>>,
    kinds: BTreeSet<String>,
    ran: u64,
}

impl Fuzzer {
    fn all(&mut self, args: &Args) -> Result<()> {
        if let Some(path) = &args.input {
            let input = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            return self.one(input);
        }
        for (_, input) in corpus::load(self.spec)? {
            self.one(input.clone())?;
            self.pool.push(input);
        }
        let mut rng = Rng::new(args.seed ^ u64::from(crc32c::crc32c(self.spec.name.as_bytes())));
        let (until, began) = (args.span, Instant::now());
        let mut made = 0;
        while self.kinds.len() < FAILURES_MAX && !is_over(until, made, began) {
            made += 1;
            let input = mutate::fresh(&mut rng, &Stock { pool: &self.pool, words: self.spec.words });
            let known = self.shapes.len();
            self.one(input.clone())?;
            if self.shapes.len() > known {
                self.adopt(&mut rng, input);
            }
        }
        self.look()
    }

    fn adopt(&mut self, rng: &mut Rng, input: Vec<u8>) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(input);
        } else {
            let place = rng.below(POOL_MAX as u64) as usize;
            self.pool[place] = input;
        }
    }

    fn one(&mut self, input: Vec<u8>) -> Result<()> {
        self.ran += 1;
        RUNNING.store(self.ran, Ordering::Relaxed);
        note(&self.last, &input)?;
        match self.guard.run(&input) {
            Ok(shape) => {
                self.shapes.insert(shape);
            }
            Err(says) => self.found(&input, &says)?,
        }
        self.recent.push(input);
        if self.recent.len() >= LOOK { self.look() } else { Ok(()) }
    }

    /// Once for each kind of failure: makes the input small and keeps it.
    fn found(&mut self, input: &[u8], says: &str) -> Result<()> {
        let kind = guard::kind(says).to_owned();
        if !self.kinds.insert(kind.clone()) {
            return Ok(());
        }
        let (guard, last, ran) = (&mut self.guard, &self.last, &mut self.ran);
        let tries = if kind.starts_with("slow") { TRIES / 100 } else { TRIES };
        let least = mutate::minimise(input, tries, &mut |less| {
            *ran += 1;
            RUNNING.store(*ran, Ordering::Relaxed);
            note(last, less).is_ok() && guard.run(less).is_err_and(|says| guard::kind(&says) == kind)
        });
        let says = self.guard.run(&least).err().unwrap_or_else(|| says.to_owned());
        corpus::keep(self.spec, &least, &says)
    }

    /// Looks at the memory, and for whoever took it.
    fn look(&mut self) -> Result<()> {
        let recent = std::mem::take(&mut self.recent);
        if guard::peak().is_none_or(|peak| peak <= RSS_MAX) {
            return Ok(());
        }
        let mut worst = (0, Vec::new());
        for input in recent {
            if !guard::reset_peak() {
                break;
            }
            // What is wrong with it otherwise was said when it ran first.
            drop(self.guard.run(&input));
            let peak = guard::peak().unwrap_or(0);
            if peak > worst.0 {
                worst = (peak, input);
            }
        }
        guard::reset_peak();
        self.found(&worst.1, &format!("memory: {} MiB", worst.0 >> 10))
    }
}

fn is_over(span: Span, made: u64, began: Instant) -> bool {
    match span {
        Span::Inputs(inputs) => made >= inputs,
        Span::Time(time) => made.is_multiple_of(64) && began.elapsed() >= time,
    }
}

/// Layout: `len u32le | bytes`; what lies behind is of earlier inputs.
fn note(last: &File, input: &[u8]) -> std::io::Result<()> {
    let mut bytes = (input.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(input);
    last.write_all_at(&bytes, 0)
}

/// The input that a process ran last.
pub(crate) fn last_of(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.get(..u32::from_le_bytes(*len) as usize)
}

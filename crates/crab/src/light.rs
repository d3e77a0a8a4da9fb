//! `--jellyfish N`: a traffic light from the pressure that the machine is under. Green runs up to N programs at once,
//! yellow one, red none until it clears.
//!
//! Pressure is the share of the last ten seconds in which somebody waited (PSI): of the whole machine, and of the control
//! group that crab is in. A kernel without PSI is judged by its load and its free memory.

use std::fs;
use std::time::{Duration, Instant};

/// A colour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Colour {
    Green,
    Yellow,
    Red,
}

/// The light. Looks at most twice a second.
pub(crate) struct Light {
    programs: usize,
    watches: bool,
    sources: Vec<Source>,
    seen: Option<(Instant, Colour)>,
}

/// A file of pressure, and from how many per cent on it is yellow and red. Whole per cents: code for fractions is large.
struct Source {
    path: String,
    yellow: u64,
    red: u64,
}

/// How long a colour is believed, and how long one sleeps at red.
pub(crate) const GLANCE: Duration = Duration::from_millis(500);

/// Waiting for a processor only makes things slow; waiting for memory is the beginning of the end.
const CPU: (&str, u64, u64) = ("cpu", 50, 90);
const MEMORY: (&str, u64, u64) = ("memory", 5, 20);

impl Light {
    /// A light for up to `programs` at once. `None`: always one, and nothing is looked at.
    pub(crate) fn new(programs: Option<usize>) -> Self {
        let watches = programs.is_some();
        let sources = if watches { sources() } else { Vec::new() };
        Self { programs: programs.unwrap_or(1), watches, sources, seen: None }
    }

    /// How many programs may run now.
    pub(crate) fn allows(&mut self) -> usize {
        match self.colour() {
            Colour::Green => self.programs,
            Colour::Yellow => 1,
            Colour::Red => 0,
        }
    }

    /// Whether a new glance may allow more than `running`.
    pub(crate) fn may_clear(&self, running: usize) -> bool {
        self.watches && running < self.programs
    }

    fn colour(&mut self) -> Colour {
        if !self.watches {
            return Colour::Green;
        }
        match self.seen {
            Some((when, colour)) if when.elapsed() < GLANCE => colour,
            _ => {
                let colour = self.sources.iter().filter_map(Source::colour).max().unwrap_or_else(by_load);
                self.seen = Some((Instant::now(), colour));
                colour
            }
        }
    }
}

impl Source {
    fn colour(&self) -> Option<Colour> {
        let share = some_avg10(&fs::read_to_string(&self.path).ok()?)?;
        Some(judge(share, self.yellow, self.red))
    }
}

fn judge(value: u64, yellow: u64, red: u64) -> Colour {
    if value >= red {
        Colour::Red
    } else if value >= yellow {
        Colour::Yellow
    } else {
        Colour::Green
    }
}

/// The machine's files and those of our control group, as far as they are there.
fn sources() -> Vec<Source> {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let of = |(name, yellow, red): (&str, u64, u64)| {
        let paths = [format!("/proc/pressure/{name}"), format!("/sys/fs/cgroup/{group}/{name}.pressure")];
        paths.map(|path| Source { path, yellow, red })
    };
    let all = of(CPU).into_iter().chain(of(MEMORY));
    all.filter(|source| source.colour().is_some()).collect()
}

/// `some avg10=1.53 avg60=…`: whole per cents.
fn some_avg10(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    whole(line)
}

/// The number at the start, without its fraction.
fn whole(text: &str) -> Option<u64> {
    text.trim_ascii_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Load for each processor, and the share of memory in use. What cannot be read is green: it is no reason to stop.
fn by_load() -> Colour {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let is_processor = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let processors = read("/proc/stat").lines().filter(is_processor).count().max(1) as u64;
    let load = 100 * whole(&read("/proc/loadavg")).unwrap_or_default() / processors;
    let memory = used_percent(&read("/proc/meminfo")).unwrap_or_default();
    judge(load, 150, 300).max(judge(memory, 90, 95))
}

fn used_percent(meminfo: &str) -> Option<u64> {
    let field = |name: &str| whole(meminfo.lines().find_map(|line| line.strip_prefix(name))?);
    Some(100 - (100 * field("MemAvailable:")?).checked_div(field("MemTotal:")?)?.min(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_from_the_first_number_of_some() {
        assert_eq!(some_avg10("some avg10=55.90 avg60=1.00 total=3\nfull avg10=99.00 avg60=0"), Some(55));
        assert_eq!(some_avg10("nonsense"), None);
    }

    #[test]
    fn memory_counts_what_is_available_and_not_what_is_free() {
        assert_eq!(used_percent("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 250 kB\n"), Some(75));
    }

    #[test]
    fn a_colour_begins_at_its_limit() {
        assert_eq!([4, 5, 20].map(|value| judge(value, 5, 20)), [Colour::Green, Colour::Yellow, Colour::Red]);
    }

    #[test]
    fn without_a_jellyfish_it_is_one_program_under_any_pressure() {
        let mut light = Light::new(None);
        assert_eq!((light.allows(), light.may_clear(1)), (1, false));
    }
}

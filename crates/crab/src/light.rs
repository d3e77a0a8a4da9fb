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

/// A file of pressure, and from how many per cent on it is yellow and red.
struct Source {
    path: String,
    yellow: f64,
    red: f64,
}

/// How long a colour is believed, and how long one sleeps at red.
pub(crate) const GLANCE: Duration = Duration::from_millis(500);

/// Waiting for a processor only makes things slow; waiting for memory is the beginning of the end.
const CPU: (&str, f64, f64) = ("cpu", 50.0, 90.0);
const MEMORY: (&str, f64, f64) = ("memory", 5.0, 20.0);

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

fn judge(value: f64, yellow: f64, red: f64) -> Colour {
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
    let of = |(name, yellow, red): (&str, f64, f64)| {
        let paths = [format!("/proc/pressure/{name}"), format!("/sys/fs/cgroup/{group}/{name}.pressure")];
        paths.map(|path| Source { path, yellow, red })
    };
    let all = of(CPU).into_iter().chain(of(MEMORY));
    all.filter(|source| source.colour().is_some()).collect()
}

/// `some avg10=1.53 avg60=…`: per cent.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Load for each processor, and the share of memory that is free. What cannot be read is green: crab is no reason to stop.
fn by_load() -> Colour {
    let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| used_percent(&text));
    judge(load.unwrap_or(0.0) / processors, 1.5, 3.0).max(judge(memory.unwrap_or(0.0), 90.0, 95.0))
}

fn used_percent(meminfo: &str) -> Option<f64> {
    let field = |name: &str| -> Option<f64> {
        meminfo.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(100.0 - 100.0 * field("MemAvailable:")? / field("MemTotal:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_from_the_first_number_of_some() {
        assert_eq!(some_avg10("some avg10=55.90 avg60=1.00 total=3\nfull avg10=99.00 avg60=0"), Some(55.9));
        assert_eq!(some_avg10("nonsense"), None);
    }

    #[test]
    fn memory_counts_what_is_available_and_not_what_is_free() {
        assert_eq!(used_percent("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 250 kB\n"), Some(75.0));
    }

    #[test]
    fn a_colour_begins_at_its_limit() {
        assert_eq!([4.9, 5.0, 20.0].map(|value| judge(value, 5.0, 20.0)), [Colour::Green, Colour::Yellow, Colour::Red]);
    }

    #[test]
    fn without_a_jellyfish_it_is_one_program_under_any_pressure() {
        let mut light = Light::new(None);
        assert_eq!((light.allows(), light.may_clear(1)), (1, false));
    }
}

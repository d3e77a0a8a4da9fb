//! Runs one input and judges it: panic, time, memory, and what the target's own oracle says.
//!
//! A slow input is run again before it counts, and then by the processor's time, because the machine has other work; memory is looked at every so many
//! inputs, and who took it is found by running those again one by one.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::target::{Shape, Spec, Target};

/// No input may take longer.
pub(crate) const TIME_MAX: Duration = Duration::from_millis(100);
/// The process may never have more in memory, in KiB.
pub(crate) const RSS_MAX: u64 = 64 << 10;
/// Runs again of an input that was slow: it counts only if all are.
const RETRIES: u32 = 4;

/// The last panic's place and words: the hook has them, `catch_unwind` has not.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// A target that can be run again after it panicked.
pub(crate) struct Guard {
    spec: &'static Spec,
    dir: PathBuf,
    target: Box<dyn Target>,
}

impl Guard {
    pub(crate) fn new(spec: &'static Spec, dir: PathBuf) -> Self {
        std::panic::set_hook(Box::new(|info| {
            if let Ok(mut place) = PANIC.lock() {
                *place = info.to_string().replace('\n', " ");
            }
        }));
        let target = (spec.make)(&dir);
        Self { spec, dir, target }
    }

    /// Runs an input.
    ///
    /// # Errors
    /// What was wrong with it.
    pub(crate) fn run(&mut self, input: &[u8]) -> Result<Shape, String> {
        let (shape, took) = self.once(input)?;
        if took <= TIME_MAX {
            return Ok(shape);
        }
        for _ in 0..RETRIES {
            let before = processor_time();
            let (_, took) = self.once(input)?;
            let used = processor_time().zip(before).map_or(took, |(after, before)| after.saturating_sub(before));
            if used <= TIME_MAX {
                return Ok(shape);
            }
        }
        Err(format!("slow: {} ms", took.as_millis()))
    }

    fn once(&mut self, input: &[u8]) -> Result<(Shape, Duration), String> {
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| self.target.run(input))) {
            Ok(judged) => judged.map(|shape| (shape, began.elapsed())),
            Err(_) => {
                // It stands as the panic left it.
                self.target = (self.spec.make)(&self.dir);
                let place = PANIC.lock().map(|place| place.clone()).unwrap_or_default();
                Err(format!("panic: {place}"))
            }
        }
    }
}

/// How long this thread had a processor; `None` where the system does not say.
fn processor_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The most memory that this process ever had, in KiB; `None` where the system does not say.
pub(crate) fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Forgets the peak. False where the system cannot.
pub(crate) fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Which fault a sentence tells of, so that a smaller input fails for the same one: its words before the first number.
pub(crate) fn kind(says: &str) -> &str {
    let end = says.find(" at ").and_then(|at| says[at + 4..].find(' ').map(|len| at + 4 + len));
    if says.starts_with("panic:") { &says[..end.unwrap_or(says.len())] } else { says.split(':').next().unwrap_or(says) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_known_by_its_place_or_its_first_words() {
        assert_eq!(kind("panic: panicked at a.rs:1:2: index 7"), "panic: panicked at a.rs:1:2:");
        assert_eq!(kind("other bytes: record 7"), "other bytes");
    }
}

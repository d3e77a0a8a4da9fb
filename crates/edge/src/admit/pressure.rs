//! Whether memory is short: what the kernel says of stalls (PSI), and of the control group that this process is in.
//!
//! Where a kernel tells nothing, nothing is short. Read at most once a second, never on the way of a request.

use std::fs;
use std::path::Path;

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    #[default]
    None,
    /// Nothing new is let in.
    Some,
    /// No connection is accepted.
    Full,
}

/// As it is now.
pub(crate) fn read() -> Pressure {
    let stalls = fs::read_to_string("/proc/pressure/memory").map_or(Pressure::None, |text| of_stalls(&text));
    stalls.max(of_group(Path::new("/sys/fs/cgroup")))
}

/// The share of the last ten seconds in which tasks stood still for want of memory: some of them, or all.
fn of_stalls(text: &str) -> Pressure {
    let share = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse::<f64>().ok()
    };
    let (some, full) = (share("some ").unwrap_or(0.0), share("full ").unwrap_or(0.0));
    if full >= FULL_STALLS {
        Pressure::Full
    } else if some >= SOME_STALLS {
        Pressure::Some
    } else {
        Pressure::None
    }
}

/// How much of what the control group may have is in use, without what the kernel can take back.
fn of_group(group: &Path) -> Pressure {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let (Some(max), Some(current)) = (number("memory.max"), number("memory.current")) else { return Pressure::None };
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    of_share(current.saturating_sub(cached.unwrap_or(0)), max)
}

fn of_share(used: u64, max: u64) -> Pressure {
    let share = used as f64 / max.max(1) as f64;
    if share >= FULL_SHARE {
        Pressure::Full
    } else if share >= SOME_SHARE {
        Pressure::Some
    } else {
        Pressure::None
    }
}

/// Percent of time.
const SOME_STALLS: f64 = 20.0;
const FULL_STALLS: f64 = 20.0;
/// Parts of one.
const SOME_SHARE: f64 = 0.92;
const FULL_SHARE: f64 = 0.97;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_read_as_the_kernel_writes_them() {
        let text = |some: &str, full: &str| {
            format!(
                "some avg10={some} avg60=0.00 avg300=0.00 total=1\nfull avg10={full} avg60=99.00 avg300=0.00 total=1\n"
            )
        };
        assert_eq!(of_stalls(&text("0.00", "0.00")), Pressure::None);
        assert_eq!(of_stalls(&text("25.50", "3.00")), Pressure::Some);
        assert_eq!(of_stalls(&text("60.00", "31.00")), Pressure::Full);
        assert_eq!(of_stalls("what is this"), Pressure::None);
    }

    #[test]
    fn a_group_near_its_limit_is_short() {
        assert_eq!(of_group(Path::new("/nonexistent")), Pressure::None);
        assert_eq!(
            [of_share(50, 100), of_share(93, 100), of_share(98, 100)],
            [Pressure::None, Pressure::Some, Pressure::Full]
        );
    }
}

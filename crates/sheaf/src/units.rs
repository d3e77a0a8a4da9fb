//! Quantities as people write them: durations `15m`, sizes `64MiB`, rates `40/s`, chaos `drop=0.1,dup=0.05`.
//!
//! Each parser returns its error as text: clap shows it behind the flag's name and the value given.

use std::time::Duration;

use sheaf_session::Faults;

/// Reads `90`, `90s`, `1.5m`, `500ms`, `2h`, `1d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("`{unit}` is no unit of time: use ms, s, m, h or d, as in 15m")),
    };
    let seconds = positive(number)? * scale;
    Duration::try_from_secs_f64(seconds).map_err(|_| "that is longer than can be counted".to_owned())
}

/// Reads a duration that can be a worker's grace.
pub(crate) fn grace(text: &str) -> Result<Duration, String> {
    let grace = duration(text)?;
    let least = Duration::from_micros(sheaf_roles::port::GRACE_MIN.0);
    if grace < least {
        return Err(format!("workers are heard once a second: a grace is at least {} s", least.as_secs()));
    }
    Ok(grace)
}

/// Reads `64MiB`, `64M`, `1GiB`, `512k`, `1000`; a bare number is bytes, and prefixes are powers of 1,024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let scale: u64 = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(format!("`{unit}` is no unit of size: use KiB, MiB or GiB, as in 64MiB")),
    };
    let bytes = positive(number)? * scale as f64;
    if bytes > u64::MAX as f64 {
        return Err("that is larger than can be counted".to_owned());
    }
    Ok(bytes as u64)
}

/// Reads how long a token may be good for.
pub(crate) fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime < Duration::from_secs(1) {
        return Err("a token is good for a second at least".to_owned());
    }
    Ok(lifetime)
}

/// Reads how long a call may wait for a worker.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration(text)?;
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(600));
    if (least..=most).contains(&wait) { Ok(wait) } else { Err("a call may wait from 1ms to 10m".to_owned()) }
}

/// Reads how many connections a listener takes at once.
pub(crate) fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(connections @ 1..=CONNECTIONS_MAX) => Ok(connections),
        Ok(_) | Err(_) => Err(format!("a listener takes 1 to {CONNECTIONS_MAX} connections at once")),
    }
}

/// Each holds a file handle and up to 16 KiB.
const CONNECTIONS_MAX: usize = 1_000_000;

/// Reads a size that a file of the journal can have.
pub(crate) fn segment(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes >= 64 << 10 => Ok(bytes),
        _ => Err("a file of the journal has from 64KiB up to, but not, 4GiB".to_owned()),
    }
}

/// Reads `40/s`, `100/m`, `5000/h`; a bare number is per second. The result is tasks per 1,000 seconds.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("`/{unit}` is no rate: use /s, /m or /h, as in 40/s")),
    };
    let millihertz = positive(number)? * 1_000.0 / seconds;
    if !(1.0..=1e15).contains(&millihertz) {
        return Err("a rate is at least one task in 1,000 seconds, as in 4/h".to_owned());
    }
    Ok(millihertz.round() as u64)
}

/// Reads `drop=0.1,dup=0.05,reorder=0.1,delay=0.1,seed=7`: chances from 0 to 1 (1 excluded), and a seed.
pub(crate) fn chaos(text: &str) -> Result<Faults, String> {
    let mut faults = Faults::default();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let Some((name, value)) = part.trim().split_once('=') else {
            return Err(format!("`{part}` lacks a value: write it as drop=0.1"));
        };
        if name == "seed" {
            faults.seed = value.parse().map_err(|_| format!("seed `{value}` is no whole number"))?;
            continue;
        }
        let fault = match name {
            "drop" => &mut faults.drop,
            "dup" => &mut faults.dup,
            "reorder" => &mut faults.reorder,
            "delay" => &mut faults.delay,
            _ => return Err(format!("`{name}` is no fault: there are drop, dup, reorder, delay and seed")),
        };
        let chance = value.parse::<f64>().map_err(|_| format!("{name} `{value}` is no number"))?;
        if !(0.0..1.0).contains(&chance) {
            return Err(format!("{name}={value}: a chance is from 0 up to, but not, 1"));
        }
        *fault = chance;
    }
    Ok(faults)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..at].trim(), text[at..].trim())
}

fn positive(number: &str) -> Result<f64, String> {
    match number.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err(format!("`{number}` is no positive number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert!(duration("5 parsecs").is_err());
        assert!(duration("-1s").is_err());
        assert!(duration("1e300d").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("512k"), Ok(512 << 10));
        assert_eq!(size("12"), Ok(12));
        assert!(size("12 apples").is_err());
        assert_eq!(segment("64KiB"), Ok(64 << 10));
        assert!(segment("63KiB").is_err() && segment("4GiB").is_err());
    }

    #[test]
    fn rates() {
        assert_eq!(rate("40/s"), Ok(40_000));
        assert_eq!(rate("6/m"), Ok(100));
        assert!(rate("0/s").is_err());
        assert!(rate("1/fortnight").is_err());
    }

    #[test]
    fn chaos_names_what_is_wrong() {
        assert_eq!(chaos("drop=0.1, dup=0.05").map(|f| (f.drop, f.dup)), Ok((0.1, 0.05)));
        assert!(chaos("drop=1").is_err());
        assert!(chaos("gremlins=0.1").is_err());
        assert!(chaos("drop").is_err());
    }
}

//! What people write on the command line: `kind u8 | text`. The binary has no library, so its parsers are compiled in.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use sheaf_worker::keeper::KeeperCommand;
use sheaf_worker::{Mode, Work};

use crate::target::{Shape, Spec, Target, scale};

#[allow(dead_code, reason = "which of the binary's parsers are fuzzed is decided here, not there")]
#[path = "../../../sheaf/src/units.rs"]
mod units;

pub(crate) const SPEC: Spec = Spec {
    name: "words",
    share: 15,
    words: &[
        b"ms",
        b"min",
        b"KiB",
        b"GiB",
        b"1e300",
        b"-0",
        b"inf",
        b"nan",
        b"drop=",
        b"dup=",
        b"seed=",
        b",",
        b"/s",
        b"/h",
        b"0.1",
        b"{}",
        b"builtin:echo",
        b"18446744073709551615",
    ],
    make: |_: &Path| Box::new(Words),
    examples,
};

struct Words;

impl Target for Words {
    fn run(&mut self, input: &[u8]) -> Result<Shape, String> {
        let Some((kind, bytes)) = input.split_first() else { return Ok(Shape::default()) };
        let text = String::from_utf8_lossy(bytes);
        let kind = kind % 6;
        let shape = match kind {
            0 => duration(&text)?,
            1 => size(&text)?,
            2 => rate(&text)?,
            3 => chaos(&text)?,
            4 => outcome(units::grace(&text).map(|grace| grace.as_secs())),
            _ => command(bytes),
        };
        Ok(Shape::of((kind, shape)))
    }
}

/// A value's magnitude, or where its error begins to differ.
fn outcome(result: Result<u64, String>) -> (bool, u32) {
    match result {
        Ok(value) => (true, scale(value as usize)),
        // Texts quote what was given: what is not quoted tells the errors apart.
        Err(text) => (false, text.rsplit('`').next().map_or(0, |tail| tail.len() as u32)),
    }
}

fn duration(text: &str) -> Result<(bool, u32), String> {
    let parsed = units::duration(text);
    if let Ok(span) = parsed {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        if ms < 1 << 50 && units::duration(&format!("{ms}ms")).map(|again| again.as_millis()) != Ok(u128::from(ms)) {
            return Err(format!("a duration does not come back: {text:?}, {ms} ms"));
        }
    }
    Ok(outcome(parsed.map(|span| span.as_secs())))
}

fn size(text: &str) -> Result<(bool, u32), String> {
    let parsed = units::size(text);
    if let Ok(bytes) = parsed
        && bytes < 1 << 50
        && units::size(&bytes.to_string()) != Ok(bytes)
    {
        return Err(format!("a size does not come back: {text:?}, {bytes}"));
    }
    Ok(outcome(parsed))
}

fn rate(text: &str) -> Result<(bool, u32), String> {
    let parsed = units::rate(text);
    match parsed {
        Ok(0) => Err(format!("a rate of nothing: {text:?}")),
        Ok(_) | Err(_) => Ok(outcome(parsed)),
    }
}

fn chaos(text: &str) -> Result<(bool, u32), String> {
    let parsed = units::chaos(text);
    if let Ok(faults) = parsed {
        let chances = [faults.drop, faults.dup, faults.reorder, faults.delay];
        if chances.iter().any(|chance| !(0.0..1.0).contains(chance)) {
            return Err(format!("a chance beyond 0 to 1: {text:?}, {faults:?}"));
        }
    }
    Ok(outcome(parsed.map(|faults| (faults.drop * 8.0) as u64)))
}

/// Words apart by zeros, as argv has them. The first is looked for on the disk; it is none that is there.
fn command(bytes: &[u8]) -> (bool, u32) {
    let argv: Vec<OsString> = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    let keeper = KeeperCommand { program: "keeper".into(), args: Vec::new() };
    let mode = if bytes.len().is_multiple_of(2) { Mode::Argument } else { Mode::Stdin };
    let work = Work::parse(argv, mode, vec![75], None, keeper);
    outcome(work.map(|_| 1).map_err(|error| error.to_string()))
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let texts: [(u8, &[u8]); 13] = [
        (0, b"15m"),
        (0, b"1.5h"),
        (0, b"500 ms"),
        (1, b"64MiB"),
        (1, b"512k"),
        (1, b"1.5GiB"),
        (2, b"40/s"),
        (2, b"5000/h"),
        (3, b"drop=0.1, dup=0.05,reorder=0.1,delay=0.2,seed=7"),
        (4, b"10s"),
        (5, b"/bin/true\0-x\0{}"),
        (5, b"builtin:echo"),
        (5, b"no-such-program\0a{}b"),
    ];
    let all = texts.iter().enumerate();
    all.map(|(at, (kind, text))| (format!("text-{at:02}"), [&[*kind], *text].concat())).collect()
}

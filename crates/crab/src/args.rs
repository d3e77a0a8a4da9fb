//! The command line: what may be said, and errors that say what to do. Nothing is done here.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// What somebody wants.
#[derive(Debug)]
pub(crate) enum Wish {
    Serve(Box<Config>),
    Print(&'static str),
}

/// Everything that can be set. Each number is a bound.
#[derive(Debug)]
pub(crate) struct Config {
    /// There is one when parsing is done.
    pub(crate) listen: Option<SocketAddr>,
    /// Certificate chain and key: both, or plain HTTP, on loopback only.
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Requests that wait; as many again may be with the handler.
    pub(crate) queue: usize,
    /// Bytes of the bodies that wait.
    pub(crate) queue_bytes: usize,
    /// Least time from one start of the program to the next.
    pub(crate) pace: Duration,
    /// Longest run of the program.
    pub(crate) timeout: Duration,
    pub(crate) body_max: usize,
    pub(crate) output_max: usize,
    /// Connections that are being read at once, and of one address.
    pub(crate) readers: usize,
    pub(crate) per_address: usize,
    /// Programs at once while the light is green. `None`: one, whatever the pressure.
    pub(crate) jellyfish: Option<usize>,
    pub(crate) program: Vec<OsString>,
}

const HELP: &str = "\
crab: one heavy program as an HTTPS endpoint that cannot be overloaded

  crab --listen 127.0.0.1:8080 -- wc -c
  crab --listen 0.0.0.0:8443 --cert cert.pem --key key.pem -- ./model --prompt {}
  crab --listen 0.0.0.0:8443 --cert cert.pem --key key.pem --jellyfish 4 --timeout 10m -- python3 infer.py

  curl --data-binary @input https://host:8443/     the program gets the body, you get its standard output
  curl 'https://host:8443/?some%20text'            the same with the query as input
  curl https://host:8443/health                    answered without the program

The input takes the place of {} in the program's arguments; without a {} it is its standard input. The program runs once
for each request, first come, first served, one at a time.
It ends with 0: 200. 65 (bad data): 400. 75 (try again): 503. Anything else, or a signal: 500 with the last line that it
wrote to standard error. Too long: 504. Too much output: 502. It cannot be started: 503.
When the queue is full, nothing is accepted until the handler takes it.

  --listen ADDRESS:PORT   where to listen
  --cert FILE --key FILE  certificate chain and private key, PEM; without them plain HTTP, on loopback only
  --queue N               requests that wait, complete and in memory                    [500]
  --queue-bytes SIZE      what their bodies may take together                           [64MiB]
  --pace TIME             least time from one start of the program to the next          [0ms]
  --timeout TIME          longest run; then the program and what it started is killed   [60s]
  --body-max SIZE         largest body                                                  [1MiB]
  --output-max SIZE       largest output                                                [16MiB]
  --readers N             connections that are read at the same time                    [16]
  --per-address N         and of one address; 0: half of the readers                    [0]
  --jellyfish N           a light from the machine's pressure: green runs up to N programs at once, yellow one, red none
  --help, --version

TIME is 250ms, 60s, 15m, 2h. SIZE is 4096, 64KiB, 1MiB, 2GiB.
";

/// Longest queue that may be asked for, most readers, most programs at once: each is a thread or a descriptor.
const QUEUE_MAX: usize = 100_000;
const MANY_MAX: usize = 1_000;
/// Longest of all times: a year, in milliseconds.
const TIME_MAX: u64 = 365 * 24 * 3_600_000;

/// A word of the command line that cannot be, and what to say instead.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) OsString, pub(crate) &'static str);

/// Reads the command line.
///
/// # Errors
/// What is wrong, and what to say instead.
pub(crate) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Wish, Fault> {
    let mut config = Config::default();
    while let Some(word) = words.next() {
        match word.to_str().unwrap_or_default() {
            "--help" | "-h" => return Ok(Wish::Print(HELP)),
            "--version" | "-V" => return Ok(Wish::Print(concat!("crab ", env!("CARGO_PKG_VERSION"), "\n"))),
            "--" => {
                config.program = words.collect();
                break;
            }
            name => {
                let Some(value) = words.next() else { return Err(Fault(word, "it needs a value")) };
                if let Err(why) = config.set(name, &value) {
                    return Err(Fault(if why == UNKNOWN { word } else { value }, why));
                }
            }
        }
    }
    match config.contradiction() {
        None => Ok(Wish::Serve(Box::new(config))),
        Some((word, why)) => Err(Fault(word.into(), why)),
    }
}

const UNKNOWN: &str = "there is no such option; the program stands after --";

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: None,
            cert: None,
            key: None,
            queue: 500,
            queue_bytes: 64 << 20,
            pace: Duration::ZERO,
            timeout: Duration::from_secs(60),
            body_max: 1 << 20,
            output_max: 16 << 20,
            readers: 16,
            per_address: 0,
            jellyfish: None,
            program: Vec::new(),
        }
    }
}

impl Config {
    fn set(&mut self, name: &str, value: &OsStr) -> Result<(), &'static str> {
        let text = value.to_str().unwrap_or_default();
        match name {
            "--listen" => {
                let address = text.parse().map_err(|_| "an address and a port, as in 0.0.0.0:8443 or [::]:8443")?;
                self.listen = Some(address);
            }
            "--cert" => self.cert = Some(value.into()),
            "--key" => self.key = Some(value.into()),
            "--queue" => self.queue = count(text, 1..=QUEUE_MAX)?,
            "--queue-bytes" => self.queue_bytes = size(text)?,
            "--pace" => self.pace = time(text)?,
            "--timeout" => self.timeout = time(text)?,
            "--body-max" => self.body_max = size(text)?,
            "--output-max" => self.output_max = size(text)?,
            "--readers" => self.readers = count(text, 1..=MANY_MAX)?,
            "--per-address" => self.per_address = count(text, 0..=MANY_MAX)?,
            "--jellyfish" => self.jellyfish = Some(count(text, 1..=MANY_MAX)?),
            _ => return Err(UNKNOWN),
        }
        Ok(())
    }

    /// What is missing, or cannot be together.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        Some(match (&self.listen, &self.cert, &self.key) {
            (None, _, _) => ("--listen", "is missing, as in --listen 127.0.0.1:8080"),
            (_, Some(_), None) => ("--cert", "needs --key"),
            (_, None, Some(_)) => ("--key", "needs --cert"),
            (Some(listen), None, None) if !listen.ip().is_loopback() => {
                ("--listen", "beyond loopback it takes HTTPS: add --cert FILE --key FILE")
            }
            _ if self.program.is_empty() => ("--", "the program is missing: -- PROGRAM ARGS"),
            _ if self.timeout.is_zero() => ("--timeout", "no program ends in no time"),
            _ => return None,
        })
    }
}

fn count(text: &str, range: RangeInclusive<usize>) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or("a number: --queue from 1 to 100000, the others up to 1000")
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

fn time(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let time = number.parse().ok().and_then(|number: u64| number.checked_mul(milliseconds));
    let time = time.filter(|time| milliseconds > 0 && *time <= TIME_MAX);
    time.map(Duration::from_millis).ok_or("a time, as in 250ms, 60s, 15m or 2h")
}

fn size(text: &str) -> Result<usize, &'static str> {
    let (number, unit) = split(text);
    let bytes = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let size = number.parse().ok().and_then(|number: usize| number.checked_mul(bytes)).filter(|_| bytes > 0);
    size.ok_or("a size, as in 4096, 64KiB, 1MiB or 2GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Config, Fault> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Wish::Serve(config) => Ok(*config),
            Wish::Print(text) => Err(Fault(OsString::new(), text)),
        }
    }

    #[test]
    fn a_whole_command_line() {
        let line =
            "--listen [::1]:1 --queue 7 --pace 250ms --timeout 15m --body-max 64KiB --jellyfish 4 -- a --queue {}";
        let config = parsed(line).unwrap();
        assert_eq!((config.queue, config.body_max, config.jellyfish), (7, 65536, Some(4)));
        assert_eq!((config.pace.as_millis(), config.timeout.as_secs()), (250, 900));
        assert_eq!(config.program, ["a", "--queue", "{}"]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let lines = [
            "",
            "--listen 127.0.0.1:1",
            "--listen 127.0.0.1:1 --",
            "--listen localhost:1 -- a",
            "--listen 0.0.0.0:1 -- a",
            "--listen 0.0.0.0:1 --cert c -- a",
            "--listen 127.0.0.1:1 --key k -- a",
            "--listen 127.0.0.1:1 --queue 0 -- a",
            "--listen 127.0.0.1:1 --queue -- a",
            "--listen 127.0.0.1:1 --pace 5 -- a",
            "--listen 127.0.0.1:1 --timeout 0s -- a",
            "--listen 127.0.0.1:1 --timeout 99999999999999999999h -- a",
            "--listen 127.0.0.1:1 --body-max 99999999999999GiB -- a",
            "--listen 127.0.0.1:1 --tea -- a",
            "--listen 127.0.0.1:1 a",
            "--listen 127.0.0.1:1 --queue=7 -- a",
            "--listen 127.0.0.1:1 --pace 5d -- a",
            "--listen 127.0.0.1:1 --body-max 5MB -- a",
        ];
        for line in lines {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}

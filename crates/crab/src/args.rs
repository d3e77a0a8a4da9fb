//! The command line: what may be said, and errors that say what to do. Nothing is done here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What somebody wants.
#[derive(Debug)]
pub(crate) enum Wish {
    Serve(Box<Config>),
    Print(String),
}

/// Everything that can be set. Each number is a bound.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    /// Certificate chain and key; without them it is plain HTTP, on loopback only.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
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
const READERS_MAX: usize = 1_000;
const PROGRAMS_MAX: usize = 1_000;
/// Longest of all times: a year.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads the command line.
///
/// # Errors
/// What is wrong, and what to say instead.
pub(crate) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Wish, String> {
    let mut config = Config::default();
    let (mut listen, mut cert, mut key) = (None, None, None);
    while let Some(word) = words.next() {
        let word = word.into_string().map_err(|word| format!("{} is no option", word.display()))?;
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (word, None),
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Wish::Print(HELP.to_owned())),
            "--version" | "-V" => return Ok(Wish::Print(concat!("crab ", env!("CARGO_PKG_VERSION"), "\n").to_owned())),
            "--" => {
                config.program = words.collect();
                break;
            }
            _ if !name.starts_with("--") => return Err(format!("the program stands after `--`: -- {name} …")),
            _ => {}
        }
        if !OPTIONS.contains(&name.as_str()) {
            return Err(format!("there is no option {name}"));
        }
        let value = inline.or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--cert" => cert = Some(PathBuf::from(value)),
            "--key" => key = Some(PathBuf::from(value)),
            _ => {
                let text = value.to_str().ok_or_else(|| format!("{name}: {} is no text", value.display()))?;
                config.set(&name, text, &mut listen).map_err(|why| format!("{name} {text}: {why}"))?;
            }
        }
    }
    config.finish(listen, cert, key).map(|config| Wish::Serve(Box::new(config)))
}

/// Those that take a value.
const OPTIONS: [&str; 12] = [
    "--listen",
    "--cert",
    "--key",
    "--queue",
    "--queue-bytes",
    "--pace",
    "--timeout",
    "--body-max",
    "--output-max",
    "--readers",
    "--per-address",
    "--jellyfish",
];

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
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
    fn set(&mut self, name: &str, text: &str, listen: &mut Option<SocketAddr>) -> Result<(), String> {
        match name {
            "--listen" => {
                *listen = Some(text.parse().map_err(|_| "an address and a port, as in 0.0.0.0:8443 or [::]:8443")?);
            }
            "--queue" => self.queue = count(text, 1, QUEUE_MAX)?,
            "--queue-bytes" => self.queue_bytes = size(text)?,
            "--pace" => self.pace = time(text)?,
            "--timeout" => self.timeout = time(text)?,
            "--body-max" => self.body_max = size(text)?,
            "--output-max" => self.output_max = size(text)?,
            "--readers" => self.readers = count(text, 1, READERS_MAX)?,
            "--per-address" => self.per_address = count(text, 0, READERS_MAX)?,
            _ => self.jellyfish = Some(count(text, 1, PROGRAMS_MAX)?),
        }
        Ok(())
    }

    fn finish(
        mut self,
        listen: Option<SocketAddr>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Self, String> {
        self.listen = listen.ok_or("--listen is missing, as in --listen 127.0.0.1:8080")?;
        self.tls = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err("--cert needs --key".to_owned()),
            (None, Some(_)) => return Err("--key needs --cert".to_owned()),
        };
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            let listen = self.listen;
            return Err(format!("{listen} is not loopback, so it takes HTTPS: add --cert FILE --key FILE"));
        }
        if self.program.is_empty() {
            return Err("the program is missing: -- PROGRAM ARGS".to_owned());
        }
        if self.timeout.is_zero() {
            return Err("--timeout 0 lets no program run".to_owned());
        }
        Ok(self)
    }
}

fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("a number from {least} to {most}")),
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let whole = number.parse::<u64>().ok().zip(milliseconds).and_then(|(number, unit)| number.checked_mul(unit));
    let time = whole.map(Duration::from_millis).filter(|time| *time <= TIME_MAX);
    time.ok_or_else(|| "a time, as in 250ms, 60s, 15m or 2h".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let shift: Option<u32> = match unit {
        "" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = number.parse::<usize>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a size, as in 4096, 64KiB, 1MiB or 2GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Config, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Wish::Serve(config) => Ok(*config),
            Wish::Print(text) => Err(text),
        }
    }

    #[test]
    fn a_whole_command_line() {
        let line =
            "--listen [::1]:1 --queue=7 --pace 250ms --timeout 15m --body-max 64KiB --jellyfish 4 -- a --queue {}";
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
        ];
        for line in lines {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}

//! A real crab on a port of its own, and clients that say any bytes to it.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything. Far more than it takes, even on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A supervisor with its server. Dropped, both are gone.
pub(crate) struct Crab {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

/// An answer, as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Crab {
    /// `options` as one types them, then a program of the shell.
    pub(crate) fn start(options: &str, script: &str) -> Self {
        Self::start_with(options, &["sh", "-c", script], "", &[])
    }

    /// Any program; `before` is said to the shell first, and `env` is added to the environment.
    pub(crate) fn start_with(options: &str, program: &[&str], before: &str, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_crab")]);
        command.args(["--listen", "127.0.0.1:0"]).args(options.split_whitespace()).arg("--").args(program);
        let mut child = command.envs(env.iter().copied()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("crab ended before it listened").unwrap();
            if let Some((_, port)) = line.split_once("on port ") {
                break port.parse().unwrap();
            }
        };
        thread::spawn(move || lines.for_each(|line| eprintln!("{}", line.unwrap())));
        Self { child, port }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Says `bytes`, and hears all that comes. None: closed without an answer.
    pub(crate) fn say(&self, bytes: &[u8]) -> Option<Reply> {
        let mut stream = self.connect();
        // It may have been refused and closed before all was said.
        let _ = stream.write_all(bytes);
        hear(&mut stream)
    }

    pub(crate) fn post(&self, body: &[u8]) -> Reply {
        self.say(&post(body)).expect("no answer")
    }

    /// As the next good client, which may try again: until there is an answer.
    pub(crate) fn post_until_answered(&self, body: &[u8]) -> Reply {
        let start = Instant::now();
        loop {
            if let Some(reply) = self.say(&post(body)) {
                return reply;
            }
            assert!(start.elapsed() < PATIENCE, "never answered again");
        }
    }

    /// The server process.
    pub(crate) fn server(&self) -> u32 {
        let mut server = None;
        until("there is a server", || {
            server = children(self.child.id()).first().copied();
            server.is_some()
        });
        server.expect("it was there")
    }
}

impl Drop for Crab {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = (self.child.kill(), self.child.wait());
    }
}

pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    [format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// Reads to the end, and takes apart what came. The length must be right.
pub(crate) fn hear(stream: &mut impl Read) -> Option<Reply> {
    let mut bytes = Vec::new();
    // A reset after the answer takes nothing from it.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length: usize = head.split_once("Content-Length: ").unwrap().1.split("\r\n").next().unwrap().parse().unwrap();
    let body = bytes.split_off(end + 4);
    assert!(body.len() == length || body.is_empty(), "{head}\n{} bytes", body.len());
    Some(Reply { status: head[9..12].parse().unwrap(), head, body })
}

/// Processes whose parent is that one.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Whether it runs; a zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Asks again and again until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

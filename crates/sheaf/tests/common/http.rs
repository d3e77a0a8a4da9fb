//! A client of the front door, in a few lines over `std::net`, and a router with such a door.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Process, Sandbox, wait_until};

/// Longest time for one answer: generous, for slow machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a door is.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) addr: String,
    /// The address that workers join.
    pub(crate) router: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A router with a door, each on a free port.
pub(crate) fn door(s: &Sandbox, extra: &[&str]) -> (Process, Door) {
    let (process, router) = s.router(&[&["--http=127.0.0.1:0"], extra].concat());
    opened(process, router, 1)
}

/// The same at the router's old address, after it was killed.
pub(crate) fn door_at(s: &Sandbox, router: &str, extra: &[&str]) -> (Process, Door) {
    let process = s.router_at(router, &[&["--http=127.0.0.1:0"], extra].concat());
    opened(process, router.to_owned(), 2)
}

/// The address stands in what the router says, once for each of its lives.
fn opened(process: Process, router: String, lives: usize) -> (Process, Door) {
    let mut found = Vec::new();
    wait_until("the door is open", || {
        let log = process.log();
        let parts = log.split("http://").skip(1).filter_map(|rest| Some(rest.split_once("/v1")?.0.to_owned()));
        found = parts.collect();
        found.len() >= lives
    });
    let addr = found.pop().expect("an address");
    (process, Door { addr, router })
}

impl Door {
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).expect("the door listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes())
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.ask(&request(path, headers, body))
    }

    /// Sends it, and leaves the answer to be read or not.
    pub(crate) fn send(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&request(path, headers, body)).expect("the door takes it");
        stream
    }
    /// Sends these bytes, and reads one answer.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Answer {
        let all = self.exchange(bytes);
        let mut answers = answers(&all);
        assert_eq!(answers.len(), 1, "one answer: {}", String::from_utf8_lossy(&all));
        answers.remove(0)
    }

    /// Sends these bytes, and reads until the door closes.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // A door that has refused may not take the rest.
        let sent = stream.write_all(bytes);
        let mut all = Vec::new();
        match stream.read_to_end(&mut all) {
            Ok(_) => {}
            Err(error) => assert!(!all.is_empty(), "no answer: {error} (sent: {sent:?})"),
        }
        all
    }
}

/// A POST of this, after which the connection ends.
fn request(path: &str, headers: &[(&str, &str)], body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The answers in a connection's bytes, each framed by what its own head says.
pub(crate) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        let rest = first.strip_prefix("HTTP/1.1 ").or(first.strip_prefix("HTTP/1.0 "));
        let status = rest.and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {first}"));
        let field =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        let headers: Vec<(String, String)> = lines.filter_map(field).collect();
        let says = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        bytes = &bytes[end + 4..];
        let body = match (says("content-length"), says("transfer-encoding")) {
            (Some(len), _) => {
                let len = len.parse::<usize>().expect("a length").min(bytes.len());
                let body = bytes[..len].to_vec();
                bytes = &bytes[len..];
                body
            }
            (None, Some(_)) => unchunked(&mut bytes),
            (None, None) => Vec::new(),
        };
        answers.push(Answer { status, headers, body });
    }
    assert!(bytes.is_empty(), "left over: {}", String::from_utf8_lossy(bytes));
    answers
}

fn unchunked(bytes: &mut &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(&String::from_utf8_lossy(&bytes[..end]), 16).expect("a size");
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        *bytes = &bytes[end + 4 + size..];
        if size == 0 {
            return body;
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Of an error, whose four fields must all be there.
    pub(crate) fn code(&self) -> Value {
        let error = &self.json()["error"];
        for field in ["message", "type", "param", "code"] {
            assert!(error.get(field).is_some(), "no {field}: {self:?}");
        }
        error["code"].clone()
    }
}

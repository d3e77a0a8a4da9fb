//! A client of the front door, made by hand of bytes: it knows what HTTP looks like and nothing of Sheaf.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Process, Sandbox, wait_until};

/// How long the door may be silent before a test fails.
const SILENCE: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body of a success.
    pub(crate) fn good(&self) -> Value {
        let value = self.json();
        assert_eq!(self.status, 200, "{value}");
        value
    }

    /// Insists on an error with all that clients look for; returns its code.
    pub(crate) fn refused(&self, status: u16) -> Value {
        let value = self.json();
        assert_eq!(self.status, status, "{value}");
        let error = value["error"].as_object().expect("an error");
        for field in ["message", "type", "param", "code"] {
            assert!(error.contains_key(field), "{value}");
        }
        error["code"].clone()
    }
}

/// A router with a front door, and what asks it.
pub(crate) struct Door {
    pub(crate) addr: String,
    pub(crate) router: String,
    pub(crate) process: Process,
    options: Vec<String>,
}

fn free() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    format!("127.0.0.1:{port}")
}

fn start(s: &Sandbox, router: &str, addr: &str, options: &[String]) -> Process {
    let http = format!("--http={addr}");
    let args: Vec<&str> = [&*http, "--grace", "30s"].into_iter().chain(options.iter().map(String::as_str)).collect();
    let process = s.router_at(router, &args);
    wait_until("the door is open", || TcpStream::connect(addr).is_ok());
    process
}

impl Door {
    pub(crate) fn open(s: &Sandbox) -> Self {
        Self::open_with(s, &[])
    }

    pub(crate) fn open_with(s: &Sandbox, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (addr, router) = (free(), free());
        let process = start(s, &router, &addr, &options);
        let door = Self { addr, router, process, options };
        door.get("/v1/files").good();
        door
    }

    /// `kill -9`, and the same command again.
    pub(crate) fn killed(&mut self, s: &Sandbox) {
        self.process.kill9();
        self.process = start(s, &self.router, &self.addr, &self.options);
        // It listens before it has looked around; what it answers it has.
        self.get("/v1/files").good();
    }

    pub(crate) fn worker(&self, s: &Sandbox, service: &str, extra: &[&str]) -> Process {
        let args = ["worker", "--join", &self.router, "--service", service, "--name", service, "--data", service];
        s.start(service, &[&args[..], extra].concat())
    }

    /// Sends a head, and leaves the rest to the test.
    pub(crate) fn begin(&self, method: &str, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.addr).expect("the door is open");
        stream.set_read_timeout(Some(SILENCE)).expect("a socket");
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).expect("the door reads");
        stream
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let headers = format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len());
        let mut stream = self.begin(method, path, &headers);
        stream.write_all(body).expect("the door reads");
        read_answer(stream)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "text/plain", b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "text/plain", b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string().as_bytes())
    }

    pub(crate) fn post_form(&self, boundary: &str, form: &[u8]) -> Answer {
        self.send("POST", "/v1/files", &format!("multipart/form-data; boundary={boundary}"), form)
    }

    /// Uploads lines; returns the file's name.
    pub(crate) fn upload(&self, content: &str) -> String {
        let file =
            self.post_form("b", &form(&[("purpose", None, "batch"), ("file", Some("in.jsonl"), content)])).good();
        assert_eq!((&file["bytes"], &file["status"]), (&json!(content.len()), &json!("processed")));
        file["id"].as_str().expect("an id").to_owned()
    }

    /// Creates a batch; returns its name.
    pub(crate) fn create(&self, file: &str, endpoint: &str, window: &str) -> String {
        let asked = json!({"input_file_id": file, "endpoint": endpoint, "completion_window": window});
        let batch = self.post("/v1/batches", &asked).good();
        assert_eq!((&batch["object"], &batch["status"]), (&json!("batch"), &json!("validating")));
        batch["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) fn batch(&self, id: &str) -> Value {
        self.get(&format!("/v1/batches/{id}")).good()
    }

    /// Waits until a batch is over, and insists on how.
    pub(crate) fn over(&self, id: &str, status: &str) -> Value {
        let mut batch = Value::Null;
        wait_until("the batch is over", || {
            batch = self.batch(id);
            ["completed", "failed", "expired", "cancelled"].iter().any(|status| batch["status"] == *status)
        });
        assert_eq!(batch["status"], status, "{batch}");
        batch
    }

    /// Waits until so many lines of a batch are done.
    pub(crate) fn done(&self, id: &str, lines: u64) {
        wait_until("lines are done", || self.batch(id)["request_counts"]["completed"].as_u64() >= Some(lines));
    }

    /// The lines of a file; none where there is no file.
    pub(crate) fn lines(&self, file: &Value) -> Vec<Value> {
        let Some(id) = file.as_str() else { return Vec::new() };
        let content = self.get(&format!("/v1/files/{id}/content"));
        assert_eq!(content.status, 200);
        let text = String::from_utf8(content.body).expect("UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Fields of a form with the boundary `b`: name, file name, content.
pub(crate) fn form(fields: &[(&str, Option<&str>, &str)]) -> Vec<u8> {
    let mut form = String::new();
    for (name, filename, content) in fields {
        let filename = filename.map_or(String::new(), |filename| format!("; filename=\"{filename}\""));
        form += &format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"{filename}\r\n\r\n{content}\r\n");
    }
    (form + "--b--\r\n").into_bytes()
}

pub(crate) fn read_answer(stream: TcpStream) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    let (mut len, mut has_id) = (None, false);
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        has_id |= name == "x-request-id";
        if name == "content-length" {
            len = value.parse().ok();
        }
    }
    assert!(has_id, "every answer has a request id");
    let mut body = vec![0; len.expect("every answer has a length")];
    reader.read_exact(&mut body).expect("a whole answer");
    Answer { status, body }
}

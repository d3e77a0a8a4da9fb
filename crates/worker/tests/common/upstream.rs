//! An HTTP server that answers as it is told, well or badly, and remembers what it was asked. It shares no code with the
//! client under test: HTTP/1.1 by hand over `std::net`.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which of all requests, from 1.
    pub number: usize,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A whole reply.
    Full { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// The connection is closed before a byte of the reply.
    HangUp,
    /// Fewer bytes than the reply's own head promises.
    Truncated(&'static str),
    /// A stream of events: each as it is sent here, until the sender is dropped.
    Events(Arc<Mutex<std::sync::mpsc::Receiver<String>>>),
    /// Nothing, for as long as the client waits.
    Silence,
    /// No HTTP.
    Noise,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Reply::Full { status, headers: Vec::new(), body: body.into() }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        if let Reply::Full { headers, .. } = &mut self {
            headers.push((name, value.to_string()));
        }
        self
    }
}

/// A server on a free port, for as long as the test's process lives.
#[derive(Clone)]
pub struct Upstream {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    connections: usize,
    /// With the server at this moment, and at most so far.
    inside: usize,
    inside_max: usize,
}

impl Upstream {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    pub fn on(listener: TcpListener, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let upstream = Self { addr: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, answer) = (upstream.seen.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.lock().unwrap().connections += 1;
                let (seen, answer) = (seen.clone(), answer.clone());
                // A client that goes away is nothing to a server.
                thread::spawn(move || drop(serve(stream, &seen, &*answer)));
            }
        });
        upstream
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Most requests that were inside at once.
    pub fn inside_max(&self) -> usize {
        self.seen.lock().unwrap().inside_max
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Seen>, answer: &dyn Fn(&Request) -> Reply) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(mut request) = read(&mut reader)? {
        {
            let mut seen = seen.lock().unwrap();
            request.number = seen.requests.len() + 1;
            seen.requests.push(request.clone());
            seen.inside += 1;
            seen.inside_max = seen.inside_max.max(seen.inside);
        }
        let reply = answer(&request);
        seen.lock().unwrap().inside -= 1;
        if !write(&stream, &mut reader, reply)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { number: 0, method, path, headers, body: String::from_utf8_lossy(&body).into_owned() }))
}

/// False when the connection is over.
fn write(mut stream: &TcpStream, reader: &mut BufReader<TcpStream>, reply: Reply) -> std::io::Result<bool> {
    match reply {
        Reply::Full { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            stream.write_all(head.as_bytes())?;
            stream.write_all(b"\r\n")?;
            stream.write_all(&body)?;
            return Ok(true);
        }
        Reply::HangUp => {}
        Reply::Truncated(part) => {
            stream.write_all(format!("HTTP/1.1 200 X\r\ncontent-length: 9999\r\n\r\n{part}").as_bytes())?;
        }
        Reply::Events(events) => {
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
            let events = events.lock().unwrap();
            while let Ok(event) = events.recv() {
                stream.write_all(event.as_bytes())?;
            }
        }
        // Until the client hangs up.
        Reply::Silence => drop(reader.read(&mut [0])?),
        Reply::Noise => stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")?,
    }
    stream.shutdown(std::net::Shutdown::Both)?;
    Ok(false)
}

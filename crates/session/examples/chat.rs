//! A chat of two that survives `kill -9` of either: each line that was reported `stored` appears exactly once on the
//! other side.
//!
//!     cargo run -p sheaf-session --example chat -- listen 127.0.0.1:4498 /tmp/alice
//!     cargo run -p sheaf-session --example chat -- dial   127.0.0.1:4498 /tmp/bob
//!     cargo run -p sheaf-session --example chat -- show /tmp/alice
//!
//! Each side keeps one log file. It holds the session's records and, with its receipt in the same frame, each line that
//! came: so a line and the fact that it was received become durable together, and `show` prints each of them once.
//!
//! ```text
//!   frame: len u32le | crc32c u32le | tag u8 | payload          crc over tag and payload, len counts them
//!   tag 0: session record      tag 1: receipt (64 bytes) | line
//! ```
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "an example is a shell")]

mod shell;

use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Write};
use std::path::Path;

use bytes::Bytes;
use sheaf_session::{
    Body, Config, Delivery, Depth, Event, Input, Kind, Lane, Micros, Outgoing, Place, Receipt, Record, Session,
    SessionId, Side, State, Ticket,
};

const RECORD: u8 = 0;
const LINE: u8 = 1;

struct Chat {
    log: File,
    /// Frames not yet written.
    batch: Vec<u8>,
    ticket: Option<Ticket>,
    received: Vec<(Place, Bytes)>,
    eof: bool,
}

impl Chat {
    fn append(&mut self, tag: u8, parts: &[&[u8]]) {
        let mut frame = vec![tag];
        parts.iter().for_each(|part| frame.extend_from_slice(part));
        self.batch.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        self.batch.extend_from_slice(&crc32c::crc32c(&frame).to_le_bytes());
        self.batch.extend_from_slice(&frame);
    }

    /// After an error nothing is known of the disk any more: the process stops, and the next one reads what is there.
    fn sync(&mut self) {
        let written = self.log.write_all(&std::mem::take(&mut self.batch)).and_then(|()| self.log.sync_data());
        if let Err(error) = written {
            eprintln!("the log cannot be written: {error}");
            std::process::exit(1);
        }
    }
}

impl shell::App for Chat {
    fn persist(&mut self, ticket: Ticket, record: Record) {
        self.append(RECORD, &[&record.to_bytes()]);
        self.ticket = Some(ticket);
    }

    fn deliver(&mut self, _: &mut Session, _: Micros, delivery: Delivery) {
        let receipt = delivery.receipt.map_or([0; 64], |receipt| receipt.to_bytes());
        self.append(LINE, &[&receipt, &delivery.body]);
        self.received.push((delivery.place, delivery.body));
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Stored(id) => println!("stored {}", id.n),
            Event::Acked { upto, .. } => println!("received {}", upto.n),
            Event::Up { .. } => println!("up"),
            Event::Down => println!("down"),
            other => println!("{other:?}"),
        }
    }

    fn line(&mut self, session: &mut Session, now: Micros, line: Option<String>) {
        let Some(line) = line else {
            self.eof = true;
            return;
        };
        let body = Body::Inline(Bytes::from(line));
        let message = Outgoing { lane: Lane::Bulk, kind: Kind::Data, app: 0, of: None, body };
        if let Err(full) = session.send(now, message) {
            eprintln!("not sent: {full}");
        }
    }

    fn settle(&mut self, session: &mut Session, now: Micros) -> bool {
        if self.batch.is_empty() {
            return false;
        }
        self.sync();
        if let Some(ticket) = self.ticket.take() {
            session.feed(now, Input::Persisted(ticket)).unwrap_or_else(|fatal| eprintln!("{fatal}"));
        }
        for (place, line) in self.received.drain(..) {
            session.commit(now, place);
            println!("> {}", String::from_utf8_lossy(&line));
        }
        true
    }

    /// Without more lines to come the process may go once its own are received; the session stays on disk.
    fn is_done(&self, session: &Session) -> bool {
        self.eof && session.status().unacked == [0, 0]
    }
}

/// Reads a log up to its first torn frame; gives how many bytes are sound.
fn replay(path: &Path, mut each: impl FnMut(u8, Bytes)) -> Result<u64> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let bytes = Bytes::from(bytes);
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 8) {
        let word = |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
        let end = at + 8 + word(0) as usize;
        let Some(frame) = bytes.get(at + 8..end).filter(|frame| !frame.is_empty()) else { break };
        if crc32c::crc32c(frame) != word(4) {
            break;
        }
        each(frame[0], bytes.slice(at + 9..end));
        at = end;
    }
    Ok(at as u64)
}

fn chat(side: Side, address: &str, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join("chat.log");
    let mut state = State::new(SessionId(*b"sheaf-chat-demo!"));
    let sound = replay(&path, |tag, payload| match tag {
        RECORD => match Record::from_bytes(payload) {
            Ok(record) => state.apply(record),
            Err(error) => eprintln!("{error}"),
        },
        _ => {
            if let Some(receipt) = payload.get(..64).and_then(Receipt::from_bytes) {
                state.received(receipt);
            }
        }
    })?;
    let log = OpenOptions::new().append(true).create(true).open(&path)?;
    log.set_len(sound)?;
    let mut chat = Chat { log, batch: Vec::new(), ticket: None, received: Vec::new(), eof: false };
    let incarnation = state.incarnation + 1;
    chat.append(RECORD, &[&Record::start(incarnation).to_bytes()]);
    chat.sync();
    let config = Config { depth_tx: [Depth::Disk; 2], incarnation, boot: shell::nonce(), ..Config::default() };
    let session = Session::recover(config, side, shell::nonce(), state);
    shell::Shell::new(session, side, address, true)?.run(&mut chat);
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["listen", address, directory] => chat(Side::Listener, address, Path::new(directory)),
        ["dial", address, directory] => chat(Side::Dialer, address, Path::new(directory)),
        ["show", directory] => replay(&Path::new(directory).join("chat.log"), |tag, payload| {
            if tag == LINE {
                println!("{}", String::from_utf8_lossy(payload.get(64..).unwrap_or_default()));
            }
        })
        .map(|_| ()),
        _ => {
            eprintln!("usage: chat listen|dial ADDRESS DIRECTORY | chat show DIRECTORY");
            std::process::exit(2);
        }
    }
}

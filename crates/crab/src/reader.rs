//! A reader: a disposable thread that makes a complete request of a connection, or answers that it is none.
//!
//! It ends by itself, for every read has a deadline, and rings then.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::accept::Request;
use crate::answer::Short;
use crate::args::Config;
use crate::bell::{AtEnd, Rope};
use crate::body;
use crate::conn::{Conn, Timed};
use crate::head::{self, Framing, Head, Method};
use crate::plant;
use crate::program;
use crate::tls::Acceptor;

/// What readers need to know.
pub(crate) struct Door {
    pub(crate) tls: Option<Acceptor>,
    pub(crate) body_max: usize,
    /// The input becomes an argument, which the kernel bounds and which holds no NUL.
    pub(crate) takes_argument: bool,
}

/// Bytes of stack: a TLS handshake and a head need a fraction of it.
const STACK: usize = 256 << 10;
/// First byte of everything that speaks TLS.
const TLS_HANDSHAKE: u8 = 0x16;

impl Door {
    /// Reads the certificate, if there is one.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let tls = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => Some(Acceptor::new(cert, key)?),
            _ => None,
        };
        Ok(Self { tls, body_max: config.body_max, takes_argument: program::takes_argument(&config.program) })
    }
}

/// Reads one connection in a thread of its own, which rings with its place at its end.
///
/// # Errors
/// When there is no thread to be had; then the connection is closed.
pub(crate) fn start(
    stream: TcpStream,
    door: Arc<Door>,
    rope: Rope,
    place: u32,
) -> io::Result<JoinHandle<Option<Request>>> {
    thread::Builder::new().stack_size(STACK).spawn(move || {
        let _told = AtEnd(rope, place);
        admit(stream, &door)
    })
}

fn admit(stream: TcpStream, door: &Door) -> Option<Request> {
    plant::panic_here("reader");
    // Without this a small answer waits for an acknowledgement; a socket that refuses is only slower.
    let _ = stream.set_nodelay(true);
    let conn = greet(Timed::new(stream).ok()?, door)?;
    let mut source = BufReader::new(conn);
    // What two parsers may frame differently is answered and closed; only one request is taken of a connection.
    let head = match head::read(&mut source).and_then(|head| head::parse(&head)) {
        Ok(head) => head,
        Err(answer) => {
            answer.send(source.into_inner(), false);
            return None;
        }
    };
    match input(&head, door, &mut source) {
        Ok(input) => Some(Request { conn: source.into_inner(), input }),
        Err(answer) => {
            answer.send(source.into_inner(), head.method == Method::Head);
            None
        }
    }
}

/// Shakes hands. Who speaks plain HTTP to TLS is told so.
fn greet(socket: Timed, door: &Door) -> Option<Conn> {
    let Some(acceptor) = &door.tls else { return Some(Conn::plain(socket)) };
    if socket.first_byte().ok()? != TLS_HANDSHAKE {
        Short(400, "this port speaks HTTPS: https://…").send(Conn::plain(socket), false);
        return None;
    }
    acceptor.accept(socket).ok().map(Conn::tls)
}

/// What the program gets.
///
/// # Errors
/// With the answer to everything that is no request for the program: refusals, and health.
fn input(head: &Head, door: &Door, source: &mut BufReader<Conn>) -> Result<Vec<u8>, Short> {
    let is_empty = matches!(head.framing, Framing::None | Framing::Length(0));
    let input = match (head.method, &head.query) {
        (Method::Get | Method::Head, _) if !is_empty => return Err(Short(400, "GET has no body here: POST it")),
        (Method::Get | Method::Head, None) if head.path == "/health" => return Err(Short(200, "ok")),
        (Method::Get, Some(query)) => body::decode_query(query)?,
        (Method::Get, None) => return Err(Short(400, "GET has no query: /?what+the+program+gets")),
        (Method::Head | Method::Other, _) => return Err(Short(405, "POST a body, or GET with a query")),
        (Method::Post, _) if head.framing == Framing::None => {
            return Err(Short(411, "POST needs a Content-Length, or chunks"));
        }
        (Method::Post, _) => posted(head, door, source)?,
    };
    if door.takes_argument {
        check_argument(&input)?;
    }
    Ok(input)
}

fn posted(head: &Head, door: &Door, source: &mut BufReader<Conn>) -> Result<Vec<u8>, Short> {
    if let Framing::Length(length) = head.framing
        && length > door.body_max
    {
        return Err(body::TOO_LARGE);
    }
    source.get_mut().begin_transfer();
    if head.expects_continue && source.buffer().is_empty() {
        let conn = source.get_mut();
        let said = conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").and_then(|()| conn.flush());
        said.map_err(|error| body::broken(&error))?;
    }
    body::read(source, head.framing, door.body_max)
}

fn check_argument(input: &[u8]) -> Result<(), Short> {
    if input.len() > program::ARGUMENT_MAX {
        return Err(body::TOO_LARGE);
    }
    if input.contains(&0) {
        return Err(Short(400, "the input becomes an argument of the program, which cannot hold NUL"));
    }
    Ok(())
}

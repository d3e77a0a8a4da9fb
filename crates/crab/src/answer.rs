//! What crab says to a client: a status, a few headers, a body. One answer to a connection, and it says so.

use std::io::{self, Write};

use crate::conn::Conn;

/// An answer of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short(pub(crate) u16, pub(crate) &'static str);

/// Any answer.
pub(crate) struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Short {
    /// Writes it, without the body for HEAD, and closes the connection.
    pub(crate) fn send(self, conn: Conn, head_only: bool) {
        Answer::text(self.0, self.1.as_bytes()).send(conn, head_only);
    }
}

impl Answer {
    /// Output of the program, as it is.
    pub(crate) fn output(body: Vec<u8>) -> Self {
        Self { status: 200, body }
    }

    /// One line of text.
    pub(crate) fn text(status: u16, text: &[u8]) -> Self {
        Self { status, body: [text, b"\n"].concat() }
    }

    /// Writes it, without the body for HEAD, and closes the connection.
    pub(crate) fn send(&self, mut conn: Conn, head_only: bool) {
        conn.begin_transfer();
        // A client that does not take its answer has done without it.
        if self.write(&mut conn, head_only).is_ok() {
            conn.close();
        }
    }

    fn write(&self, out: &mut impl Write, head_only: bool) -> io::Result<()> {
        let Self { status, body } = self;
        let allow = if *status == 405 { "Allow: GET, POST\r\n" } else { "" };
        let kind =
            if std::str::from_utf8(body).is_ok() { "text/plain; charset=utf-8" } else { "application/octet-stream" };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            reason(*status),
            body.len()
        );
        // One write for a small answer: one packet, one TLS record.
        let mut first = head.into_bytes();
        let body = if head_only { [].as_slice() } else { body };
        let (start, rest) = body.split_at(body.len().min(FIRST_WRITE.saturating_sub(first.len())));
        first.extend_from_slice(start);
        out.write_all(&first)?;
        out.write_all(rest)?;
        out.flush()
    }
}

/// Most bytes of the write that has the head.
const FIRST_WRITE: usize = 16 << 10;

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: &Answer, head_only: bool) -> String {
        let mut out = Vec::new();
        answer.write(&mut out, head_only).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn the_length_is_that_of_the_body_and_head_has_none() {
        let answer = Answer::output(vec![b'x'; 100_000]);
        let (head, body) = (written(&answer, true), written(&answer, false));
        assert!(head.contains("Content-Length: 100000\r\n") && head.ends_with("\r\n\r\n"));
        assert_eq!(body.len(), head.len() + 100_000);
    }

    #[test]
    fn bytes_that_are_no_text_are_not_called_text() {
        assert!(written(&Answer::output(vec![0xff]), true).contains("octet-stream"));
        assert!(written(&Answer::output("ü".into()), true).contains("text/plain"));
    }
}

//! The head of a request: read line by line with bounds, parsed by `httparse`, and then judged strictly. Whatever two
//! parsers could frame differently is refused, and the connection closed.

use std::io::{BufRead, Read};

use crate::answer::Short;
use crate::body;

/// Longest head, and most header lines.
const HEAD_MAX: u64 = 16 << 10;
const HEADERS_MAX: usize = 64;

/// What matters of a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: String,
    /// As it was sent, without the `?`.
    pub(crate) query: Option<String>,
    pub(crate) framing: Framing,
    /// The client waits for a word before it sends the body.
    pub(crate) expects_continue: bool,
}

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// Where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// Reads up to the empty line. Every line ends with CRLF, and CR and LF stand nowhere else.
///
/// # Errors
/// With the answer to a head that is too long, too slow, or no head.
pub(crate) fn read(source: &mut impl BufRead) -> Result<Vec<u8>, Short> {
    let mut head = Vec::new();
    let mut source = source.take(HEAD_MAX);
    loop {
        let start = head.len();
        source.read_until(b'\n', &mut head).map_err(|error| body::broken(&error))?;
        let line = head.get(start..).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\n") else {
            let is_long = source.limit() == 0;
            return Err(if is_long { TOO_LARGE } else { Short(400, "the request ends in the middle of its head") });
        };
        match line.strip_suffix(b"\r") {
            Some([]) => return Ok(head),
            Some(line) if !line.contains(&b'\r') && !line.contains(&0) => {}
            _ => return Err(Short(400, "a line of the head does not end with CRLF, or holds CR or NUL")),
        }
    }
}

/// Judges a head.
///
/// # Errors
/// With the answer to one that is wrong, ambiguous or not supported.
pub(crate) fn parse(head: &[u8]) -> Result<Head, Short> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Short(400, "the head is incomplete")),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(httparse::Error::Version) => return Err(Short(505, "HTTP/1.1 is spoken here")),
        Err(_) => return Err(Short(400, "the head is wrong")),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Short(400, "the head is incomplete"));
    };
    let fields = Fields(request.headers);
    fields.check_host(version)?;
    let (path, query) = split_target(target)?;
    Ok(Head {
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            _ => Method::Other,
        },
        path,
        query,
        framing: fields.framing(version)?,
        expects_continue: fields.expects_continue(version)?,
    })
}

const TOO_LARGE: Short = Short(431, "the head has more than 16 KiB or 64 lines");

/// `/path?query` or `http://host/path?query`.
fn split_target(target: &str) -> Result<(String, Option<String>), Short> {
    let absolute = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    let origin = absolute.map_or(target, |rest| rest.find(['/', '?']).map_or("/", |at| rest.split_at(at).1));
    if !origin.starts_with(['/', '?']) || origin.contains('#') || !origin.is_ascii() {
        return Err(Short(400, "the target is no path"));
    }
    Ok(match origin.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (origin.to_owned(), None),
    })
}

/// The header lines.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl Fields<'_> {
    /// The one value of a header that may stand there once.
    fn only(&self, name: &str) -> Result<Option<&str>, Short> {
        let mut all = self.0.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(one), None) => match std::str::from_utf8(one.value) {
                Ok(value) if value.is_ascii() => Ok(Some(value.trim_matches([' ', '\t']))),
                _ => Err(Short(400, "a header that matters is not ASCII")),
            },
            (Some(_), Some(_)) => Err(Short(400, "a header that matters stands there more than once")),
        }
    }

    fn check_host(&self, version: u8) -> Result<(), Short> {
        match self.only("Host")? {
            None if version == 1 => Err(Short(400, "Host is missing")),
            Some(host) if host.contains([' ', '\t', '/', '@', ',', '?', '#']) => Err(Short(400, "Host is wrong")),
            _ => Ok(()),
        }
    }

    fn framing(&self, version: u8) -> Result<Framing, Short> {
        match (self.only("Transfer-Encoding")?, self.only("Content-Length")?) {
            (None, None) => Ok(Framing::None),
            (None, Some(length)) => {
                let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                match length.parse() {
                    Ok(length) if is_number => Ok(Framing::Length(length)),
                    Err(_) if is_number => Err(Short(413, "Content-Length is beyond all bounds")),
                    _ => Err(Short(400, "Content-Length is no number")),
                }
            }
            (Some(_), Some(_)) => Err(Short(400, "Content-Length and Transfer-Encoding contradict each other")),
            (Some(_), None) if version == 0 => Err(Short(400, "HTTP/1.0 knows no Transfer-Encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(_), None) => Err(Short(501, "the only Transfer-Encoding known here is chunked")),
        }
    }

    fn expects_continue(&self, version: u8) -> Result<bool, Short> {
        match self.only("Expect")? {
            Some(what) if what.eq_ignore_ascii_case("100-continue") => Ok(version == 1),
            Some(_) => Err(Short(417, "the only expectation known here is 100-continue")),
            None => Ok(false),
        }
    }
}

#[cfg(test)]
#[path = "head/tests.rs"]
mod tests;

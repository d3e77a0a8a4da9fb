//! The body of a request: by length or in chunks, bounded in both, and the text of a query.

use std::io::{self, BufRead, ErrorKind, Read};

use crate::answer::Short;
use crate::head::Framing;

/// Longest line with the size of a chunk, and all that may follow the last chunk.
const CHUNK_LINE_MAX: u64 = 256;
const TRAILERS_MAX: u64 = 4096;
/// A body grows by what has arrived, not by what was announced.
const GROW: usize = 64 << 10;

/// Reads the body.
///
/// # Errors
/// With the answer to one that is too large, too slow, cut off, or in wrong chunks.
pub(crate) fn read(source: &mut impl BufRead, framing: Framing, max: usize) -> Result<Vec<u8>, Short> {
    let mut body = Vec::new();
    match framing {
        Framing::None => {}
        Framing::Length(length) if length > max => return Err(TOO_LARGE),
        Framing::Length(length) => extend(source, &mut body, length)?,
        Framing::Chunked => {
            while let size @ 1.. = chunk_size(source)? {
                if size > max - body.len() {
                    return Err(TOO_LARGE);
                }
                extend(source, &mut body, size)?;
                if !line(source, 2)?.is_empty() {
                    return Err(Short(400, "a chunk is longer than its size"));
                }
            }
            skip_trailers(source)?;
        }
    }
    Ok(body)
}

/// The answer when bytes do not come.
pub(crate) fn broken(error: &io::Error) -> Short {
    match error.kind() {
        ErrorKind::TimedOut => Short(408, "the request came too slowly"),
        _ => Short(400, "the request was cut off"),
    }
}

/// The answer to a body over its bound.
pub(crate) const TOO_LARGE: Short = Short(413, "the input is larger than it may be here");

fn extend(source: &mut impl BufRead, body: &mut Vec<u8>, mut length: usize) -> Result<(), Short> {
    while length > 0 {
        let step = length.min(GROW);
        let got = source.take(step as u64).read_to_end(body).map_err(|error| broken(&error))?;
        if got < step {
            return Err(Short(400, "the body is shorter than its length"));
        }
        length -= step;
    }
    Ok(())
}

/// A line without its CRLF.
fn line(source: &mut impl BufRead, max: u64) -> Result<Vec<u8>, Short> {
    let mut line = Vec::new();
    source.take(max).read_until(b'\n', &mut line).map_err(|error| broken(&error))?;
    match line.strip_suffix(b"\r\n") {
        Some(text) if !text.contains(&b'\r') => Ok(text.to_vec()),
        _ => Err(Short(400, "the chunks are wrong: a line too long or without CRLF")),
    }
}

/// `1f;extension`: hexadecimal digits and nothing else before the end or the semicolon.
fn chunk_size(source: &mut impl BufRead) -> Result<usize, Short> {
    let line = line(source, CHUNK_LINE_MAX)?;
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let size =
        std::str::from_utf8(digits).ok().filter(|_| is_hex).and_then(|text| usize::from_str_radix(text, 16).ok());
    size.ok_or(Short(400, "the size of a chunk is no hexadecimal number"))
}

fn skip_trailers(source: &mut impl BufRead) -> Result<(), Short> {
    let mut left = TRAILERS_MAX;
    loop {
        let trailer = line(source, left)?;
        if trailer.is_empty() {
            return Ok(());
        }
        left = left.saturating_sub(trailer.len() as u64 + 2);
    }
}

/// The text that a query says: `%41` is A, and `+` is a space.
///
/// # Errors
/// With the answer to a `%` that two hexadecimal digits do not follow.
pub(crate) fn decode_query(query: &str) -> Result<Vec<u8>, Short> {
    let mut text = Vec::with_capacity(query.len());
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let value = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or(Short(400, "a % in the query without two hexadecimal digits"))?
            }
            _ => byte,
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked(bytes: &str) -> Result<String, u16> {
        let body = read(&mut bytes.as_bytes(), Framing::Chunked, 10);
        body.map(|body| String::from_utf8(body).unwrap()).map_err(|answer| answer.0)
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(chunked("0\r\n\r\n"), Ok(String::new()));
        assert_eq!(chunked("3\r\nabc\r\n02;x=\"y\"\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"), Ok("abcde".into()));
        assert_eq!(chunked("A\r\n0123456789\r\n0\r\n\r\n"), Ok("0123456789".into()));
    }

    #[test]
    fn wrong_chunks_are_refused() {
        let wrong = [
            "",
            "3\r\nabc",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "\r\n",
            "-1\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "g\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "0\r\n",
            "0\r\n\n",
            "10000000000000000\r\n",
            "3\r\r\nabc\r\n0\r\n\r\n",
            "3;a\rb\r\nabc\r\n0\r\n\r\n",
        ];
        for bytes in wrong {
            assert_eq!(chunked(bytes), Err(400), "{bytes:?}");
        }
        assert_eq!(chunked(&format!("3;{}\r\nabc\r\n", "x".repeat(300))), Err(400));
        assert_eq!(chunked(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(1000))), Err(400));
    }

    #[test]
    fn a_body_is_bounded_before_it_is_read() {
        assert_eq!(chunked("b\r\n"), Err(413));
        assert_eq!(chunked("9\r\n123456789\r\n2\r\n"), Err(413));
        assert_eq!(chunked("ffffffffffffffff\r\n"), Err(413));
        assert_eq!(read(&mut [].as_slice(), Framing::Length(11), 10).unwrap_err().0, 413);
        assert_eq!(read(&mut b"abc".as_slice(), Framing::Length(4), 10).unwrap_err().0, 400);
        assert_eq!(read(&mut b"abcd".as_slice(), Framing::Length(3), 10).unwrap(), b"abc");
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(decode_query("a+b%2B%c3%BC=1&x").unwrap(), "a b+ü=1&x".as_bytes());
        for wrong in ["%", "%4", "%zz", "%+1"] {
            assert_eq!(decode_query(wrong).unwrap_err().0, 400, "{wrong}");
        }
    }
}

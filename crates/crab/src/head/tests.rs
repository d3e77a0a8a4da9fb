//! Heads that are right, and heads that two parsers could read differently.

use super::*;

fn parsed(text: &str) -> Result<Head, u16> {
    read(&mut text.as_bytes()).and_then(|head| parse(&head)).map_err(|answer| answer.0)
}

fn with(lines: &str) -> Result<Head, u16> {
    parsed(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
}

#[test]
fn a_head_is_what_it_says() {
    let head = parsed("GET /a?b=%41?c HTTP/1.1\r\nHost: a:1\r\n\r\n").unwrap();
    assert_eq!((head.method, head.path.as_str(), head.query.as_deref()), (Method::Get, "/a", Some("b=%41?c")));
    assert_eq!(head.framing, Framing::None);
    let head = parsed("GET http://a/health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(head.path, "/health");
    assert!(parsed("GET / HTTP/1.0\r\n\r\n").is_ok());
}

#[test]
fn bodies_are_framed_in_one_way_only() {
    assert_eq!(with("Content-Length: 10\r\n").unwrap().framing, Framing::Length(10));
    assert_eq!(with("content-length:\t010 \r\n").unwrap().framing, Framing::Length(10));
    assert_eq!(with("TRANSFER-ENCODING: Chunked\r\n").unwrap().framing, Framing::Chunked);
    let refused = [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x1\r\n", 400),
        ("Content-Length: 1 1\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: \u{661}\r\n", 400),
        ("Content-Length: 99999999999999999999\r\n", 413),
        ("Content-Length : 1\r\n", 400),
        (" Content-Length: 1\r\n", 400),
        ("X: y\r\n Content-Length: 1\r\n", 400),
        ("X: y\r\n\tz\r\n", 400),
        ("Content-Length: 1\n", 400),
        ("X: a\rContent-Length: 1\r\n", 400),
        ("X: a\0b\r\n", 400),
        (": x\r\n", 400),
        ("X\r\n", 400),
        ("X(y): z\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: \u{b}chunked\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Expect: tea\r\n", 417),
    ];
    for (lines, status) in refused {
        assert_eq!(with(lines), Err(status), "{lines:?}");
    }
    assert_eq!(parsed("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
}

#[test]
fn request_lines_are_strict() {
    let refused = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 505),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n", 400),
        ("\r\n\r\n", 400),
        ("", 400),
    ];
    for (text, status) in refused {
        assert_eq!(parsed(text).map(|_| ()), Err(status), "{text:?}");
    }
}

#[test]
fn a_head_is_bounded() {
    assert_eq!(with(&format!("X: {}\r\n", "y".repeat(20_000))), Err(431));
    assert_eq!(with(&"X: y\r\n".repeat(100)), Err(431));
    assert_eq!(parsed(&"x".repeat(20_000)), Err(431));
}

//! Requests that are no requests, or two at once: whatever comes, the door sees the same requests as any server that is in
//! front of it, answers each with a short error or not at all, and goes on for everybody else.
//!
//! Each smuggling payload carries a second request, for `/smuggled`, that only a server which misreads the first would see.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::collections::BTreeSet;
use std::io::{Read, Write};

use common::Sandbox;
use http::{Door, answers, door};

/// The statuses of all answers to these bytes. `is_half`: the client then says that no more will come; to the door, that
/// is a client that has gone.
fn statuses(door: &Door, bytes: &[u8], is_half: bool) -> Vec<u16> {
    let mut stream = door.connect();
    // What is no request may be cut off before all of it is sent.
    let sent = stream.write_all(bytes);
    let ended = if is_half { stream.shutdown(std::net::Shutdown::Write) } else { Ok(()) };
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{sent:?} {ended:?}");
    }
    let all = answers(&all);
    let mut ids = BTreeSet::new();
    for answer in &all {
        assert!(answer.body_text().len() < 1_000, "a short answer: {answer:?}");
        if answer.status != 100 {
            assert!(ids.insert(answer.header("x-request-id").map(str::to_owned)), "a name of its own: {answer:?}");
            assert!(!ids.contains(&None), "{answer:?}");
        }
        if answer.status >= 400 {
            answer.code();
        }
    }
    all.iter().map(|answer| answer.status).collect()
}

/// A POST with these fields and this rest.
fn post(fields: &str, rest: &str) -> Vec<u8> {
    format!("POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{rest}").into_bytes()
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What it is, what comes, and the statuses of the answers that may be: any one of the lists.
type Case = (&'static str, Vec<u8>, &'static [&'static [u16]]);

const HOST: &str = "Host: localhost\r\nConnection: close\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const JSON: &str = "{\"model\":\"m\"}";
/// It is told so, or cut off.
const BAD: &[&[u16]] = &[&[400], &[]];
/// It is told so.
const TOLD: &[&[u16]] = &[&[400]];

fn get(line: &str, fields: &str) -> Vec<u8> {
    format!("{line}\r\n{fields}\r\n").into_bytes()
}

/// Requests that are sound, whatever they ask for.
fn sound() -> Vec<Case> {
    let first = "Host: localhost\r\n";
    vec![
        ("a plain request", get("GET /v1/models HTTP/1.1", HOST), &[&[200]]),
        ("an empty line before it", get("\r\nGET /v1/models HTTP/1.1", HOST), &[&[200]]),
        ("HTTP/1.0 without a host", get("GET /v1/models HTTP/1.0", ""), &[&[200]]),
        ("absolute form", get("GET http://door/v1/models HTTP/1.1", HOST), &[&[200]]),
        (
            "two in one piece",
            [get("GET /v1/models HTTP/1.1", first), get("GET /v1/models HTTP/1.1", HOST)].concat(),
            &[&[200, 200]],
        ),
        ("a body in chunks", post(CHUNKED, &format!("d\r\n{JSON}\r\n0\r\n\r\n")), &[&[404]]),
        ("a body in chunks with an extension", post(CHUNKED, &format!("d;a=b\r\n{JSON}\r\n0\r\n\r\n")), &[&[404]]),
        (
            "it waits for a word before its body",
            post("Connection: close\r\nExpect: 100-continue\r\nContent-Length: 13\r\n", JSON),
            &[&[100, 404]],
        ),
        ("an unknown path", get("GET /smuggled HTTP/1.1", HOST), &[&[404]]),
        ("a path that climbs", get("GET /v1/../../etc/passwd HTTP/1.1", HOST), &[&[404]]),
        ("a method that it has not", get("DELETE /v1/models HTTP/1.1", HOST), &[&[405]]),
        ("a tunnel", get("CONNECT door:443 HTTP/1.1", HOST), &[&[404], &[405], &[400]]),
        ("all of it", get("OPTIONS * HTTP/1.1", HOST), &[&[404], &[405], &[400]]),
    ]
}

/// Heads that are none.
fn bad_heads() -> Vec<Case> {
    vec![
        ("no host", get("GET /v1/models HTTP/1.1", ""), BAD),
        ("two hosts", get("GET /v1/models HTTP/1.1", "Host: a\r\nHost: b\r\n"), BAD),
        ("no version", get("GET /v1/models", HOST), BAD),
        ("a version of another protocol", get("GET /v1/models HTTP/9.9", HOST), BAD),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), BAD),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[&[]]),
        (
            "nonsense behind a request",
            [get("GET /v1/models HTTP/1.1", "Host: localhost\r\n"), b"G<T / HTTP/1.1\r\n\r\n".to_vec()].concat(),
            &[&[200, 400]],
        ),
        ("a name with a space in it", get("GET /v1/models HTTP/1.1", "Host: localhost\r\na b: c\r\n"), BAD),
        ("a space before the colon", get("GET /v1/models HTTP/1.1", "Host : door\r\n"), TOLD),
        ("a name without a colon", get("GET /v1/models HTTP/1.1", "Host: localhost\r\nnothing\r\n"), TOLD),
        ("a folded line", get("GET /v1/models HTTP/1.1", "Host: localhost\r\na: b\r\n c\r\n"), BAD),
        ("a NUL in a value", get("GET /v1/models HTTP/1.1", "Host: localhost\r\na: b\0c\r\n"), BAD),
        ("a NUL in the path", get("GET /v1/\0models HTTP/1.1", HOST), BAD),
        ("a CR in a value", get("GET /v1/models HTTP/1.1", "Host: localhost\r\na: b\rc\r\n"), BAD),
        ("a space in the path", get("GET /v1/ models HTTP/1.1", HOST), BAD),
        ("a method that is no word", get("G<T /v1/models HTTP/1.1", HOST), TOLD),
        (
            "a megabyte of head",
            get("GET /v1/models HTTP/1.1", &format!("Host: localhost\r\na: {}\r\n", "x".repeat(1 << 20))),
            &[&[431], &[400], &[]],
        ),
        (
            "very many fields",
            get("GET /v1/models HTTP/1.1", &format!("Host: localhost\r\n{}", "a: b\r\n".repeat(2_000))),
            &[&[431], &[400], &[]],
        ),
        (
            "a path of a megabyte",
            get(&format!("GET /{} HTTP/1.1", "x".repeat(1 << 20)), HOST),
            &[&[414], &[431], &[400], &[]],
        ),
        ("half a request", b"GET /v1/mod".to_vec(), BAD),
        ("half a body", post("Content-Length: 50\r\n", JSON), &[&[400], &[]]),
    ]
}

/// Bodies that may be seen to end in two places.
fn bad_frames() -> Vec<Case> {
    vec![
        ("a negative length", post("Content-Length: -1\r\n", SMUGGLED), BAD),
        ("a length with a sign", post("Content-Length: +13\r\n", &format!("{JSON}{SMUGGLED}")), BAD),
        ("a length that is no number", post("Content-Length: 0x0d\r\n", &format!("{JSON}{SMUGGLED}")), TOLD),
        ("a length beyond all numbers", post("Content-Length: 99999999999999999999\r\n", SMUGGLED), BAD),
        ("two lengths", post("Content-Length: 13\r\nContent-Length: 0\r\n", &format!("{JSON}{SMUGGLED}")), TOLD),
        ("two lengths in a list", post("Content-Length: 13, 0\r\n", &format!("{JSON}{SMUGGLED}")), BAD),
        (
            "a length, then chunks",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
            BAD,
        ),
        (
            "chunks, then a length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
            BAD,
        ),
        (
            "chunks that are not the last coding",
            post("Transfer-Encoding: chunked, gzip\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
            BAD,
        ),
        ("a coding that is like chunks", post("Transfer-Encoding: xchunked\r\n", &format!("0\r\n\r\n{SMUGGLED}")), BAD),
        (
            "a coding behind a vertical tab",
            post("Transfer-Encoding:\x0bchunked\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
            BAD,
        ),
        (
            "chunks in HTTP/1.0",
            format!("POST /v1/embeddings HTTP/1.0\r\n{CHUNKED}\r\n0\r\n\r\n{SMUGGLED}").into_bytes(),
            BAD,
        ),
        ("a chunk's size that is none", post(CHUNKED, &format!("xyz\r\n{JSON}\r\n0\r\n\r\n{SMUGGLED}")), BAD),
        ("a chunk's size with a sign", post(CHUNKED, &format!("+d\r\n{JSON}\r\n0\r\n\r\n{SMUGGLED}")), BAD),
        (
            "a chunk's size beyond all numbers",
            post(CHUNKED, &format!("ffffffffffffffffff\r\n{JSON}\r\n0\r\n\r\n{SMUGGLED}")),
            BAD,
        ),
        ("a chunk longer than it says", post(CHUNKED, &format!("5\r\n{JSON}\r\n0\r\n\r\n{SMUGGLED}")), BAD),
        ("a chunk that ends with LF alone", post(CHUNKED, &format!("d\n{JSON}\n0\n\n{SMUGGLED}")), BAD),
        (
            "an endless extension of a chunk",
            post(CHUNKED, &format!("d;{}\r\n{JSON}\r\n0\r\n\r\n", "x".repeat(1 << 20))),
            BAD,
        ),
        ("endless trailers", post(CHUNKED, &format!("d\r\n{JSON}\r\n0\r\n{}\r\n", "a: b\r\n".repeat(200_000))), BAD),
        (
            "behind chunks nothing more is read",
            post(CHUNKED, &format!("d\r\n{JSON}\r\n0\r\n\r\n{SMUGGLED}")),
            &[&[404]],
        ),
    ]
}

#[test]
fn whatever_comes_is_read_in_one_way_only() {
    let s = Sandbox::new();
    let (mut router, door) = door(&s, &[]);
    let mut wrong = Vec::new();
    for (name, bytes, allowed) in [sound(), bad_heads(), bad_frames()].concat() {
        let got = statuses(&door, &bytes, name.starts_with("half"));
        if !allowed.contains(&got.as_slice()) {
            wrong.push(format!("{name}: {got:?}, not one of {allowed:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(door.get("/v1/models").status, 200, "it goes on for everybody else");
    assert!(router.child.try_wait().expect("own child").is_none());
    assert!(!router.log().contains("panicked"), "{}", router.log());
}

#[test]
fn a_body_that_is_too_long_is_refused_and_the_refusal_arrives() {
    let s = Sandbox::new();
    let (_router, door) = door(&s, &[]);
    let long = 2 << 20;
    let said = door.ask(&post(&format!("Content-Length: {long}\r\n"), &"x".repeat(long)));
    assert_eq!((said.status, said.code()), (413, "request_too_large".into()), "{said:?}");
    let chunk = format!("{long:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(long));
    let unsaid = door.ask(&post("Transfer-Encoding: chunked\r\n", &chunk));
    assert_eq!(unsaid.status, 413, "{unsaid:?}");
}

#[test]
fn who_sends_too_slowly_is_cut_off() {
    let s = Sandbox::new();
    let (_router, door) = door(&s, &[]);
    let starts: [&[u8]; 3] = [b"", b"GET /v1/models HTTP/1.1\r\nHost: lo", &post("Content-Length: 13\r\n", "{")];
    let slow = starts.map(|start| {
        let mut stream = door.connect();
        stream.write_all(start).expect("a socket");
        std::thread::spawn(move || {
            let mut all = Vec::new();
            // It ends: with an answer or without one, and long before this test's patience does.
            stream.read_to_end(&mut all).map(|_| all)
        })
    });
    for (at, slow) in slow.into_iter().enumerate() {
        let said = slow.join().expect("no panic").expect("the door hangs up");
        let statuses: Vec<u16> = answers(&said).iter().map(|answer| answer.status).collect();
        assert!(statuses.is_empty() || statuses == [408], "{at}: {statuses:?}");
    }
}

#[test]
fn a_refused_request_is_heard_out_so_that_no_reset_overtakes_the_answer() {
    let s = Sandbox::new();
    let (_router, door) = door(&s, &[]);
    let head = "POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n";
    let mut stream = door.connect();
    stream.write_all(&[head.as_bytes(), &[b'x'; 60_000]].concat()).expect("it fits into the sockets' buffers");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the end of the stream, and no reset");
    let statuses: Vec<u16> = answers(&all).iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [404]);
}

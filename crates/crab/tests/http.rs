//! What a client gets for what it says: programs, methods, framing, refusals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::Write;

use common::{Crab, hear};

#[test]
fn the_program_gets_the_body_and_the_client_its_output() {
    let crab = Crab::start("", "tr a-z A-Z");
    let reply = crab.post("grüße".as_bytes());
    assert_eq!((reply.status, reply.body.as_slice()), (200, "GRüßE".as_bytes()));
    assert!(reply.head.contains("Connection: close"), "{}", reply.head);
    assert_eq!(crab.say(b"GET /any?a%20b+c HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().body, b"A B C");
    assert_eq!(crab.post(b"").body, b"");
    let large = vec![b'x'; 1 << 20];
    assert_eq!(crab.post(&large).body, vec![b'X'; 1 << 20]);
}

#[test]
fn the_input_takes_the_place_of_braces() {
    let crab = Crab::start_with("", &["printf", "%s|%s", "<{}{}>", "{}"], "", &[]);
    assert_eq!(crab.post(b"a b").body, b"<a ba b>|a b");
    assert_eq!(crab.say(b"GET /?$(x)%3b HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().body, b"<$(x);$(x);>|$(x);");
    assert_eq!(crab.post(b"a\0b").status, 400);
    assert_eq!(crab.post(&vec![b'x'; 200_000]).status, 413);
}

#[test]
fn the_exit_becomes_the_status() {
    let crab = Crab::start("", "read code; echo out; echo noise >&2; echo the reason >&2; exit $code");
    for (code, status, body) in [
        ("0", 200, "out\n"),
        ("1", 500, "exit 1: the reason\n"),
        ("65", 400, "the reason\n"),
        ("75", 503, "the reason\n"),
    ] {
        let reply = crab.post(format!("{code}\n").as_bytes());
        assert_eq!((reply.status, String::from_utf8_lossy(&reply.body).as_ref()), (status, body));
    }
}

#[test]
fn a_program_that_is_there_no_more_is_an_answer() {
    let path = std::env::temp_dir().join(format!("crab-{}", std::process::id()));
    std::fs::write(&path, "#!/bin/sh\ncat\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let crab = Crab::start_with("", &[path.to_str().unwrap()], "", &[]);
    assert_eq!(crab.post(b"x").status, 200);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(crab.post(b"x").status, 503);
}

/// What is said, and the status that comes back. The program repeats its input; a refusal never reaches it.
#[test]
fn requests_are_framed_in_one_way_or_refused() {
    let crab = Crab::start("--body-max 10", "cat");
    let cases: [(&str, u16, &str); 31] = [
        ("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200, "ok\n"),
        ("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", 200, ""),
        ("GET /health HTTP/1.0\r\n\r\n", 200, "ok\n"),
        ("GET http://a/health HTTP/1.1\r\nHost: a\r\n\r\n", 200, "ok\n"),
        ("GET /?x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, "x"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200, "abc"),
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 200, "abc"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, "abc"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", 200, ""),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\naGET /?b HTTP/1.1\r\nHost: a\r\n\r\n", 200, "a"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "*"),
        ("GET /?%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "*"),
        ("GET /?x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\ny", 400, "*"),
        ("HEAD /?x HTTP/1.1\r\nHost: a\r\n\r\n", 405, ""),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 405, "*"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 411, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n01234567890", 413, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n", 413, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", 400, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 3\r\n\r\nabc", 400, "*"),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc", 400, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "*"),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 0\r\n\r\n", 417, "*"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "*"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "*"),
        ("\u{16}\u{3}\u{1} hello\r\n\r\n", 400, "*"),
    ];
    for (said, status, body) in cases {
        let reply = crab.say(said.as_bytes()).unwrap_or_else(|| panic!("no answer to {said:?}"));
        assert_eq!(reply.status, status, "{said:?}");
        assert!(body == "*" || reply.body == body.as_bytes(), "{said:?}: {reply:?}");
    }
}

#[test]
fn who_waits_for_a_word_before_the_body_gets_it() {
    let crab = Crab::start("", "cat");
    let mut stream = crab.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
    let mut word = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    assert_eq!(hear(&mut stream).unwrap().body, b"abc");
    // One that is refused is not told to go on.
    let refused =
        crab.say(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n").unwrap();
    assert_eq!(refused.status, 413);
}

/// And it never says that it listens.
#[test]
fn what_cannot_work_ends_with_code_2() {
    let here = ["--listen", "127.0.0.1:0"];
    let wrong: [&[&str]; 8] = [
        &[],
        &["--tea"],
        &["--listen", "0.0.0.0:0", "--", "cat"],
        &["--listen", "192.0.2.1:0", "--cert", "tests/data/cert.pem", "--key", "tests/data/key.pem", "--", "cat"],
        &[&here[..], &["--cert", "Cargo.toml", "--key", "Cargo.toml", "--", "cat"]].concat(),
        &[&here[..], &["--cert", "tests/data/cert.pem", "--key", "tests/data/cert.pem", "--", "cat"]].concat(),
        &[&here[..], &["--", "there-is-no-such-program"]].concat(),
        &[&here[..], &["--", "./Cargo.toml"]].concat(),
    ];
    for line in wrong {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_crab")).args(line).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.is_empty()), (Some(2), false), "{line:?}");
        assert!(!said.contains("listening"), "{line:?}: {said}");
    }
}

#[cfg(feature = "headers")]
mod https {
    use openssl::ssl::{SslConnector, SslMethod, SslVersion};

    use super::*;
    use crate::common::post;

    const FILES: &str = "--cert tests/data/cert.pem --key tests/data/key.pem";

    #[test]
    fn both_versions_of_tls_carry_large_bodies_both_ways() {
        let crab = Crab::start(FILES, "tr a-z A-Z");
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
            builder.set_ca_file("tests/data/cert.pem").unwrap();
            builder.set_max_proto_version(Some(version)).unwrap();
            let connector = builder.build();
            for length in [0, 1, 300_000] {
                let mut stream = connector.connect("localhost", crab.connect()).unwrap();
                stream.write_all(&post(&vec![b'x'; length])).unwrap();
                assert_eq!(hear(&mut stream).unwrap().body, vec![b'X'; length], "{version:?}");
            }
        }
        assert_eq!(crab.say(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().status, 400, "plain HTTP is told so");
    }
}

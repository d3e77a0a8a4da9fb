//! Servers that are called over HTTP, as they behave and misbehave: the outcome of a row, and how many rows they get.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;
#[path = "common/upstream.rs"]
mod upstream;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, assignment, eventually, failed, fence, ok};
use sheaf_task::{Assignment, BODY_BYTES_MAX, Class};
use sheaf_worker::{Backend, BackendUrl, Work};
use upstream::{Reply, Request, Upstream};

/// Longer than a moment, and short enough to wait for.
const HOLD: Duration = Duration::from_millis(700);

fn bench(url: &str, batch: u32) -> Bench {
    let backend = Backend { hold: HOLD, ..Backend::new(BackendUrl::parse(url).unwrap()) };
    Bench::of(Work::Web(backend), batch)
}

/// A server with this answer, and an executor that calls it.
fn calling(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Upstream, Bench) {
    let upstream = Upstream::start(answer);
    let bench = bench(&upstream.url("/run"), 4);
    (upstream, bench)
}

fn within(mut assignment: Assignment, ms: u64) -> Assignment {
    assignment.timeout_ms = ms;
    assignment
}

/// The class of one row's failure where every request gets this reply, and how many requests there were.
#[track_caller]
fn class_of(reply: Reply, class: Class) -> usize {
    let (upstream, mut bench) = calling(move |_| reply.clone());
    let failure = failed(bench.run(within(assignment(1, "row"), 20_000)), class);
    assert!(failure.message.contains(&upstream.addr.to_string()), "it says who: {}", failure.message);
    bench.close();
    upstream.requests().len()
}

#[test]
fn a_row_is_posted_and_the_reply_is_its_answer() {
    let (upstream, mut bench) = calling(|request| Reply::ok(format!("got {}", request.body)));
    for n in 1..=20 {
        assert_eq!(ok(bench.run(assignment(n, format!("row {n}")))), format!("got row {n}"));
    }
    let seen = upstream.requests();
    let (first, key) = (&seen[0], fence(1).key.to_string());
    assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/run"));
    assert_eq!(first.headers["idempotency-key"], key);
    assert_eq!(first.headers["content-type"], "text/plain; charset=utf-8");
    // One more where the next row is there before the client has put the connection back.
    assert!(upstream.connections() < seen.len() / 2, "connections are kept: {}", upstream.connections());
    assert_eq!(ok(bench.run(assignment(21, &b""[..]))), "got ");
    bench.close();
}

#[test]
fn rows_run_side_by_side_and_no_more_than_the_batch() {
    // Nobody is answered before four are there.
    let barrier = std::sync::Barrier::new(4);
    let (upstream, mut bench) = calling(move |_| {
        barrier.wait();
        Reply::ok("")
    });
    (0..24).for_each(|n| bench.start(assignment(n, "x")));
    assert_eq!(bench.ends(24).len(), 24);
    assert_eq!(upstream.inside_max(), 4);
    bench.close();
}

#[test]
fn each_misbehaviour_has_its_class() {
    for status in [400, 401, 404, 409, 413, 422] {
        assert_eq!(class_of(Reply::new(status, "no\n"), Class::Rejected), 1);
    }
    for status in [500, 502, 504] {
        assert_eq!(class_of(Reply::new(status, "oops"), Class::Error), 1);
    }
    class_of(Reply::new(302, "").with("location", "http://elsewhere/"), Class::Error);
    class_of(Reply::Truncated("half"), Class::Error);
    class_of(Reply::Noise, Class::Error);
    class_of(Reply::HangUp, Class::Error);
    class_of(Reply::ok(vec![b'x'; BODY_BYTES_MAX + 1]), Class::Rejected);
}

#[test]
fn a_whole_result_may_be_as_long_as_any() {
    let (_upstream, mut bench) = calling(|_| Reply::ok(vec![b'x'; BODY_BYTES_MAX]));
    assert_eq!(ok(bench.run(assignment(1, ""))).len(), BODY_BYTES_MAX);
    bench.close();
}

#[test]
fn who_never_answers_is_late() {
    let (_upstream, mut bench) = calling(|_| Reply::Silence);
    failed(bench.run(within(assignment(1, "row"), 50)), Class::Timeout);
    bench.close();
}

#[test]
fn a_row_waits_for_a_server_under_pressure_and_is_sent_again() {
    for status in [408, 425, 429, 503] {
        let (upstream, mut bench) =
            calling(move |request| if request.number < 2 { Reply::new(status, "later") } else { Reply::ok("done") });
        assert_eq!(ok(bench.run(assignment(1, "row"))), "done");
        assert_eq!(upstream.requests().len(), 2);
        bench.close();
    }
}

#[test]
fn a_wait_that_is_asked_for_is_kept() {
    let (_upstream, mut bench) = calling(|request| match request.number {
        1 => Reply::new(429, "").with("retry-after", "0.3"),
        _ => Reply::ok("done"),
    });
    bench.start(assignment(1, "row"));
    let ended = bench.ends(1).remove(0);
    assert!(ended.ms >= 300, "{} ms", ended.ms);
    ok(ended.outcome);
    bench.close();
}

#[test]
fn who_asks_for_too_long_a_wait_gives_the_row_back() {
    for reply in [Reply::new(503, "down").with("retry-after", "30"), Reply::new(429, "")] {
        class_of(reply, Class::Error);
    }
}

#[test]
fn rows_that_waited_too_long_are_given_back_together() {
    let (upstream, mut bench) = calling(|_| Reply::new(429, ""));
    (0..4).for_each(|n| bench.start(assignment(n, "x")));
    bench.ends(4).into_iter().for_each(|ended| drop(failed(ended.outcome, Class::Error)));
    // Four at first, then two; that the backend is pressed still is no news to the other two.
    assert!(upstream.requests().len() <= 6, "{}", upstream.requests().len());
    bench.close();
}

#[test]
fn pressure_shrinks_what_is_taken_and_it_grows_back() {
    let (upstream, mut bench) =
        calling(|request| if request.number <= 4 { Reply::new(429, "") } else { Reply::ok("done") });
    (0..4).for_each(|n| bench.start(assignment(n, "x")));
    let mut said = Vec::new();
    let mut ended = Vec::new();
    while ended.len() < 4 {
        let executor = bench.executor.as_mut().unwrap();
        bench.runtime.block_on(executor.ended(&mut ended));
        said.extend(executor.take_batch());
    }
    assert_eq!(said[..2], [0, 2], "{said:?}");
    ended.into_iter().for_each(|ended| assert_eq!(ok(ended.outcome), "done"));
    for n in 4..40 {
        bench.run(assignment(n, "x"));
        said.extend(bench.executor.as_mut().unwrap().take_batch());
    }
    assert_eq!(said[said.len() - 2..], [3, 4], "{said:?}");
    assert_eq!(upstream.requests().len(), 44);
    bench.close();
}

#[test]
fn a_server_that_is_away_is_waited_for_and_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let mut bench = bench(&format!("http://{addr}/"), 4);
    bench.start(assignment(1, "row"));
    let executor = bench.executor.as_mut().unwrap();
    let mut ended = Vec::new();
    bench.runtime.block_on(executor.ended(&mut ended));
    assert_eq!((ended.len(), executor.take_batch()), (0, Some(0)), "nothing is wanted while it is away");
    let _upstream = Upstream::on(TcpListener::bind(addr).unwrap(), |_| Reply::ok("back"));
    assert_eq!(ok(bench.ends(1).remove(0).outcome), "back");
    bench.close();
}

#[test]
fn a_server_that_stays_away_is_an_error() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut bench = bench(&format!("http://{addr}/"), 4);
    failed(bench.run(assignment(1, "row")), Class::Error);
    bench.close();
}

/// A server with a certificate of its own making, which it returns: one request a connection, each answered `sealed`.
fn sealed() -> (std::net::SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (pem, chain) = (made.cert.pem(), vec![made.cert.der().clone()]);
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(versions.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(session, stream);
            let mut request = [0; 4_096];
            // A client that trusts nobody hangs up here.
            let Ok(1..) = tls.read(&mut request) else { continue };
            tls.write_all(b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 6\r\n\r\nsealed").unwrap();
        }
    });
    (addr, pem)
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let (addr, pem) = sealed();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let url = BackendUrl::parse(&format!("https://localhost:{}/", addr.port())).unwrap();
    let backend = Backend { ca: Some(ca.clone()), hold: HOLD, ..Backend::new(url.clone()) };
    let mut trusting = Bench::of(Work::Web(backend.clone()), 1);
    assert_eq!(ok(trusting.run(assignment(1, "row"))), "sealed");
    trusting.close();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, other.cert.pem()).unwrap();
    let mut wary = Bench::of(Work::Web(backend.clone()), 1);
    failed(wary.run(assignment(1, "row")), Class::Error);
    wary.close();
    std::fs::write(&ca, "no certificate").unwrap();
    assert!(Work::Web(backend).check().is_err());
}

#[test]
fn cancelled_rows_end_at_once_wherever_they_are() {
    let (upstream, mut bench) = calling(|_| Reply::Silence);
    (0..8).for_each(|n| bench.start(assignment(n, "x")));
    {
        let _entered = bench.runtime.enter();
        let executor = bench.executor.as_mut().unwrap();
        let mut ended = Vec::new();
        bench.runtime.block_on(async {
            tokio::select! {
                () = executor.ended(&mut ended) => panic!("{ended:?}"),
                () = async { while upstream.requests().len() < 4 { tokio::task::yield_now().await } } => {}
            }
        });
    }
    (0..8).for_each(|n| bench.kill(n));
    for ended in bench.ends(8) {
        failed(ended.outcome, Class::Cancelled);
    }
    eventually("all is over", || upstream.requests().len() == 4);
    bench.close();
}

//! What a listener bears from those who are no peers, and what is refused before anything is sent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::{Caller, Hall, PATIENCE};
use sheaf_net::limits::{GREETING, STRANGERS_MAX};
use sheaf_net::{Listener, NetError, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

async fn stranger(addr: SocketAddr, says: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(says).await.unwrap();
    stream
}

/// Reads until the other side hangs up, politely or not.
async fn shown_out(mut stream: TcpStream) {
    let mut rest = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection stays open") {
        Ok(_) => assert!(rest.is_empty(), "it was answered"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn garbage_is_shown_out_and_hurts_nobody() {
    let hall = Hall::open(Some("127.0.0.1:0"), None).await;
    let addr = hall.addr.unwrap();
    let mut caller = Caller::dial(hall.target.clone(), 1, None);
    caller.hear_up().await;
    let longest = vec![0xff; 100_000];
    let small_packet = [8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    for says in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &longest, &small_packet, &[0; 64]] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            // It may be shown out before it has said it all.
            if stream.write_all(says).await.is_ok() {
                shown_out(stream).await;
            }
        }
    }
    caller.say([Bytes::from_static(b"still here")]).await;
    assert_eq!(caller.message().await, "still here");
    caller.close().await;
    hall.stop().await;
}

/// What a dialer of session `id` says first.
async fn greeting(id: u8) -> Vec<u8> {
    let ear = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::dial(Target::Tcp(ear.local_addr().unwrap()), id, None);
    let mut hello = vec![0; 8];
    let (mut overheard, _) = ear.accept().await.unwrap();
    overheard.read_exact(&mut hello).await.unwrap();
    let len = u32::from_le_bytes(hello[..4].try_into().unwrap()) as usize;
    hello.resize(8 + len, 0);
    overheard.read_exact(&mut hello[8..]).await.unwrap();
    drop(caller);
    hello
}

#[tokio::test]
async fn the_silent_cannot_keep_everyone_else_out() {
    let listener = Listener::bind(Some("127.0.0.1:0")).await.unwrap();
    let addr = listener.addr().unwrap();
    let door = Target::InProcess(listener.door());
    let (arrived, mut arrivals) = mpsc::channel(1);
    let serve = tokio::spawn(listener.serve(arrived));
    let mut silent = Vec::new();
    for _ in 0..STRANGERS_MAX {
        silent.push(stranger(addr, &[]).await);
    }
    let far = stranger(addr, &greeting(2).await).await;
    // Dialers of the own process have places of their own, and so they come before the silent have run out of time.
    let near = Caller::dial(door, 1, None);
    let arrival = timeout(GREETING / 2, arrivals.recv()).await.expect("kept out").unwrap();
    assert_eq!(arrival.session.0, [1; 16]);
    // Over TCP a place is free as soon as one of them goes.
    silent.pop();
    let arrival = timeout(GREETING / 2, arrivals.recv()).await.expect("kept out").unwrap();
    assert_eq!(arrival.session.0, [2; 16]);
    drop((near, far, arrivals));
    timeout(PATIENCE, serve).await.expect("the listener hangs").unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_silent_are_shown_out_in_time() {
    let listener = Listener::bind(Some("127.0.0.1:0")).await.unwrap();
    let addr = listener.addr().unwrap();
    let (arrived, arrivals) = mpsc::channel(1);
    let serve = tokio::spawn(listener.serve(arrived));
    let start = tokio::time::Instant::now();
    // Half a packet is silence too.
    let streams = [stranger(addr, &[]).await, stranger(addr, &[200, 0, 0]).await];
    for mut stream in streams {
        // No timeout here: with time standing still it might come before the listener's.
        assert_eq!(stream.read(&mut [0; 8]).await.map_err(|error| error.kind()).unwrap_or(0), 0);
    }
    assert!(start.elapsed() >= GREETING && start.elapsed() < GREETING + Duration::from_secs(5));
    drop(arrivals);
    serve.await.unwrap();
}

#[tokio::test]
async fn a_greeting_may_come_byte_by_byte() {
    let listener = Listener::bind(Some("127.0.0.1:0")).await.unwrap();
    let addr = listener.addr().unwrap();
    let (arrived, mut arrivals) = mpsc::channel(1);
    let serve = tokio::spawn(listener.serve(arrived));
    let hello = greeting(5).await;
    let mut stream = stranger(addr, &[]).await;
    stream.set_nodelay(true).unwrap();
    for byte in &hello {
        stream.write_all(&[*byte]).await.unwrap();
    }
    let arrival = timeout(PATIENCE, arrivals.recv()).await.expect("nobody arrives").unwrap();
    assert_eq!(arrival.session.0, [5; 16]);
    assert_eq!(arrival.incoming.read, hello);
    drop(arrivals);
    serve.await.unwrap();
}

#[tokio::test]
async fn plain_tcp_stays_on_this_machine() {
    for addr in ["0.0.0.0:0", "192.0.2.1:4477", "[::]:0", "[2001:db8::1]:4477"] {
        let error = Listener::bind(Some(addr)).await.unwrap_err();
        assert!(matches!(&error, NetError::NotLoopback { addr: named } if named == addr), "{error:?}");
        let error = Target::tcp(addr).await.unwrap_err();
        assert!(matches!(&error, NetError::NotLoopback { addr: named } if named == addr), "{error:?}");
    }
    for addr in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999"] {
        assert!(matches!(Listener::bind(Some(addr)).await, Err(NetError::Address { .. })), "{addr}");
        assert!(matches!(Target::tcp(addr).await, Err(NetError::Address { .. })), "{addr}");
    }
}

#[tokio::test]
async fn localhost_means_the_same_to_both_sides() {
    let listener = Listener::bind(Some("localhost:0")).await.unwrap();
    let addr = listener.addr().unwrap();
    assert!(addr.ip().is_loopback());
    let Target::Tcp(dialled) = Target::tcp(&format!("localhost:{}", addr.port())).await.unwrap() else {
        panic!("another kind of target");
    };
    assert_eq!(dialled, addr);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let listener = Listener::bind(Some("127.0.0.1:0")).await.unwrap();
    let addr = listener.addr().unwrap().to_string();
    let error = Listener::bind(Some(&addr)).await.unwrap_err();
    assert!(matches!(&error, NetError::InUse { addr: named } if *named == addr), "{error:?}");
}

//! What a link promises its embedder: whatever happens to connections, each message arrives once and in order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;

use bytes::Bytes;
use common::{Caller, Hall, Heard, config};
use sheaf_session::{Config, Faults, Refusal};

const LOOPBACK: Option<&str> = Some("127.0.0.1:0");

fn body(n: usize) -> Bytes {
    // Of many lengths, some longer than a read.
    let len = if n % 50 == 7 { 200_000 } else { n % 300 };
    let mut body = n.to_le_bytes().to_vec();
    body.resize(8 + len, n as u8);
    body.into()
}

async fn exchange(caller: &mut Caller, numbers: std::ops::Range<usize>) {
    caller.say(numbers.clone().map(body)).await;
    for n in numbers {
        assert!(caller.message().await == body(n), "message {n}");
    }
}

#[tokio::test]
async fn everything_comes_back_once_and_in_order_over_tcp_and_within_the_process() {
    for addr in [LOOPBACK, None] {
        let hall = Hall::open(addr, None).await;
        let mut caller = Caller::dial(hall.target.clone(), 1, None);
        assert!(!caller.hear_up().await);
        exchange(&mut caller, 0..2_000).await;
        caller.close().await;
        hall.stop().await;
    }
}

#[tokio::test]
async fn a_chaotic_link_gives_the_same() {
    for addr in [LOOPBACK, None] {
        let faults = Some(Faults { drop: 0.1, dup: 0.05, reorder: 0.1, delay: 0.05, seed: 11 });
        let hall = Hall::open(addr, faults).await;
        let mut caller = Caller::dial(hall.target.clone(), 1, faults);
        exchange(&mut caller, 0..300).await;
        caller.close().await;
        hall.stop().await;
    }
}

#[tokio::test]
async fn sessions_are_kept_apart() {
    let hall = Hall::open(LOOPBACK, None).await;
    let mut callers: Vec<_> = (1..=20).map(|id| Caller::dial(hall.target.clone(), id, None)).collect();
    for (n, caller) in callers.iter().enumerate() {
        caller.say([body(n)]).await;
    }
    for (n, caller) in callers.iter_mut().enumerate() {
        assert_eq!(caller.message().await, body(n));
    }
    for caller in callers {
        caller.close().await;
    }
    hall.stop().await;
}

#[tokio::test]
async fn a_dialer_outlives_its_listener_and_goes_on_where_it_was() {
    let hall = Hall::open(LOOPBACK, None).await;
    let addr = hall.addr.unwrap().to_string();
    let mut caller = Caller::dial(hall.target.clone(), 1, None);
    exchange(&mut caller, 0..100).await;
    let mut sessions = hall.stop().await;
    for round in 1..4 {
        // What is said while nobody listens waits.
        caller.say((round * 100..round * 100 + 50).map(body)).await;
        while caller.hear().await != Heard::Down {}
        let hall = Hall::resume(Some(&addr), sessions).await;
        assert!(caller.hear_up().await, "the session goes on");
        for n in round * 100..round * 100 + 50 {
            assert!(caller.message().await == body(n), "message {n}");
        }
        exchange(&mut caller, round * 100 + 50..round * 100 + 100).await;
        sessions = hall.stop().await;
    }
    let hall = Hall::resume(Some(&addr), sessions).await;
    caller.close().await;
    hall.stop().await;
}

#[tokio::test]
async fn a_dialer_waits_for_a_listener_that_is_not_there_yet() {
    let hall = Hall::open(LOOPBACK, None).await;
    let (addr, target) = (hall.addr.unwrap().to_string(), hall.target.clone());
    let sessions = hall.stop().await;
    let mut caller = Caller::dial(target, 1, None);
    caller.say([body(1)]).await;
    let hall = Hall::resume(Some(&addr), sessions).await;
    assert_eq!(caller.message().await, body(1));
    caller.close().await;
    hall.stop().await;
}

#[tokio::test]
async fn a_dialer_that_is_told_to_stop_stops_connected_or_not() {
    let hall = Hall::open(LOOPBACK, None).await;
    let mut connected = Caller::dial(hall.target.clone(), 1, None);
    connected.hear_up().await;
    let target = hall.target.clone();
    for round in 0..2 {
        let caller = if round == 0 { connected } else { Caller::dial(target.clone(), 2, None) };
        connected = Caller::dial(target.clone(), 3, None);
        drop(caller.say);
        tokio::time::timeout(common::PATIENCE, caller.link).await.expect("it goes on").unwrap();
    }
    hall.stop().await;
}

#[tokio::test]
async fn a_second_connection_of_a_session_takes_over_from_the_first() {
    let hall = Hall::open(LOOPBACK, None).await;
    let mut first = Caller::dial(hall.target.clone(), 1, None);
    exchange(&mut first, 0..10).await;
    // The same process dials again before its old connection is known to be dead.
    let mut second = Caller::dial(hall.target.clone(), 1, None);
    second.hear_up().await;
    assert_eq!(first.hear().await, Heard::Down);
    drop((first, second));
    hall.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_dialer_does_not_end_the_conversation_of_the_first() {
    let hall = Hall::open(LOOPBACK, None).await;
    let mut first = Caller::dial_as(hall.target.clone(), 1, Config { boot: 1, incarnation: 2, ..config(None) });
    exchange(&mut first, 0..10).await;
    for (copy, why) in [
        (Config { boot: 2, incarnation: 2, ..config(None) }, Refusal::Clone),
        (Config { boot: 3, incarnation: 1, ..config(None) }, Refusal::Fenced),
    ] {
        let mut copy = Caller::dial_as(hall.target.clone(), 1, copy);
        assert_eq!(copy.hear().await, Heard::Refused(why));
        first.say([body(10)]).await;
        assert_eq!(first.hear().await, Heard::Message(body(10)), "on the same connection");
        drop(copy.say);
    }
    first.close().await;
    hall.stop().await;
}

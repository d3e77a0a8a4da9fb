//! The hottest functions of the pure crates, each run over prepared input: `cargo xtask hot` counts the instructions and the
//! allocations that they cost a task. A count is the same in every run on every load; times are not taken here.
//!
//! Each module has one function named `measured`, never inlined: only what happens in it is counted.

#![allow(clippy::expect_used, reason = "a measuring program: whatever goes wrong ends it")]

mod append;
mod decode;
mod feed;
mod route;

use std::process::ExitCode;

use bytes::Bytes;

/// Tasks in one batch: a full message.
const BATCH: u64 = 256;

/// Batches that are counted.
const BATCHES: u64 = 16;

/// Bytes of a body and of a result.
const BODY: usize = 200;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let tasks = match name.as_str() {
        "feed" => feed::run(),
        "route" => route::run(),
        "append" => append::run(),
        "decode" => decode::run(),
        _ => {
            eprintln!("hot: say which: feed, route, append or decode");
            return ExitCode::FAILURE;
        }
    };
    println!("{tasks}");
    ExitCode::SUCCESS
}

/// A body that no other number has.
fn body(number: u64) -> Bytes {
    let mut bytes = vec![b'x'; BODY];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

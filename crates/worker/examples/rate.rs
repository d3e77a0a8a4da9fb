//! How many attempts a second an executor makes on this machine:
//!
//!     cargo run --release -p sheaf-worker --example rate -- 5000 16 /bin/true {}
//!     cargo run --release -p sheaf-worker --example rate -- 1000000 256 builtin:echo

use std::error::Error;
use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use bytes::Bytes;
use sheaf_task::{Assignment, Capacity, Fence, Key};
use sheaf_worker::keeper::{self, KeeperCommand};
use sheaf_worker::{Executor, Mode, RETRY_EXIT_DEFAULT, Work};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let first = args.next().ok_or("usage: rate ATTEMPTS BATCH PROGRAM ARGS {}")?;
    if first == "__keep" {
        return Ok(keeper::main());
    }
    let attempts: u32 = first.to_string_lossy().parse()?;
    let batch: u32 = args.next().ok_or("no batch given")?.to_string_lossy().parse()?;
    let argv: Vec<OsString> = args.collect();
    let keeper = KeeperCommand { program: std::env::current_exe()?, args: vec!["__keep".into()] };
    let work = Work::parse(argv.clone(), Mode::Argument, RETRY_EXIT_DEFAULT.to_vec(), None, keeper)?;
    tokio::runtime::Runtime::new()?.block_on(measure(&work, attempts, batch))?;
    if matches!(work, Work::Program(_)) {
        direct(&argv, attempts.min(2_000))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(work: &Work, attempts: u32, batch: u32) -> Result<(), Box<dyn Error>> {
    let mut executor = Executor::start_up(work, Capacity { batch, depth: 0, bytes: 0 })?;
    let since = Instant::now();
    let (mut started, mut ended, mut failed) = (0, 0, 0);
    let mut ends = Vec::new();
    while ended < attempts {
        while started < attempts && started - ended < batch {
            started += 1;
            executor.start(assignment(started));
        }
        executor.ended(&mut ends).await;
        failed += ends.iter().filter(|ended| !ended.outcome.is_ok()).count();
        ended += ends.drain(..).count() as u32;
    }
    let rate = f64::from(attempts) / since.elapsed().as_secs_f64();
    println!("{attempts} attempts, {batch} at once: {rate:.0}/s, {failed} failed");
    executor.close().await;
    Ok(())
}

/// The same program by the standard library's own means, one after another.
fn direct(argv: &[OsString], times: u32) -> std::io::Result<()> {
    let since = Instant::now();
    for _ in 0..times {
        Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).output()?;
    }
    println!("directly, one at a time: {:.0}/s", f64::from(times) / since.elapsed().as_secs_f64());
    Ok(())
}

fn assignment(n: u32) -> Assignment {
    let fence = Fence { key: Key([0; 16]), epoch: 1, attempt: n };
    let body = Bytes::from_static(&[b'x'; 200]);
    Assignment { fence, service: "".into(), timeout_ms: 0, alone: false, body }
}

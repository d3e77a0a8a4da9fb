//! What this machine can do at best, without Sheaf: the measure beside each figure.
//!
//! The broker of the floor does the least that any durable router must: it takes frames over loopback TCP, appends and
//! syncs them, hands them to a worker, appends and syncs the answers, hands them back. It forgets nothing and knows nothing.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::process::Ground;
use super::report::{Figure, percentile};

/// Bytes of one batch: what a group commit holds.
const BATCH: usize = 64 << 10;

/// A frame's length, before its bytes.
const HEADER: usize = 4;

/// How long a small measure goes on.
const SPAN: Duration = Duration::from_secs(1);

/// What to say where a floor could not be measured.
pub(super) fn failed_in(dir: &Path) -> String {
    format!("cannot measure the floor in {} (--dir names another place)", dir.display())
}

/// All that the floor has to tell.
pub(super) fn measure(dir: &Path) -> Result<Vec<Figure>> {
    let ground = Ground::new(dir)?;
    let [p50, p99] = sync_pair(&ground, 1_000)?;
    Ok(vec![
        Figure::new("append + fdatasync by 64 KiB", append_rate(&ground, 0)? / 1e6, "MB/s"),
        Figure::new("two fdatasyncs, p50", p50, "us"),
        Figure::new("two fdatasyncs, p99", p99, "us"),
        Figure::new("frames of 200 bytes echoed over TCP", echo_rate(1_000_000, 200)?, "/s"),
        Figure::new("one frame echoed over TCP, p50", echo_latency(5_000, 200)?, "us"),
        Figure::new("broker, 200 bytes there and back", broker_rate(&ground, 500_000, 200)?, "/s"),
        Figure::new("processes", spawn_rate()?, "/s"),
    ])
}

/// Bytes a second that can be made durable, of so many at least: disks lend speed for the first ones.
pub(super) fn append_rate(ground: &Ground, least: usize) -> Result<f64> {
    let mut file = create(ground, "append")?;
    let (batch, since, mut bytes) = (vec![b'x'; BATCH], Instant::now(), 0);
    while bytes < least || since.elapsed() < SPAN {
        append(&mut file, &batch)?;
        bytes += batch.len();
    }
    Ok(bytes as f64 / since.elapsed().as_secs_f64())
}

/// Microseconds of two small appends, each synced, one after the other: p50 and p99. No durable answer can come sooner.
pub(super) fn sync_pair(ground: &Ground, times: usize) -> Result<[f64; 2]> {
    let mut file = create(ground, "sync")?;
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let since = Instant::now();
        append(&mut file, &[b'x'; 256])?;
        append(&mut file, &[b'x'; 256])?;
        took.push(since.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    Ok([percentile(&took, 0.5), percentile(&took, 0.99)])
}

/// Frames a second that go through two sockets, in batches.
pub(super) fn echo_rate(frames: usize, body: usize) -> Result<f64> {
    let (near, far) = connection()?;
    let echo = spawn(move || relay(&far, &far, None))?;
    let since = Instant::now();
    pour(&near, frames, body)?;
    join(echo)?;
    Ok(frames as f64 / since.elapsed().as_secs_f64())
}

/// Microseconds from a frame to its echo, one at a time: p50.
pub(super) fn echo_latency(times: usize, body: usize) -> Result<f64> {
    let (near, far) = connection()?;
    let echo = spawn(move || relay(&far, &far, None))?;
    let p50 = ping(near, times, body)?;
    join(echo)?;
    Ok(p50)
}

/// Frames a second through a broker that makes each durable on its way there and on its way back.
pub(super) fn broker_rate(ground: &Ground, frames: usize, body: usize) -> Result<f64> {
    let (client, threads) = broker(ground)?;
    let since = Instant::now();
    let poured = pour(&client, frames, body);
    let rate = frames as f64 / since.elapsed().as_secs_f64();
    drop(client);
    join_all(threads)?;
    poured.map(|()| rate)
}

/// Microseconds of one frame through that broker, one at a time: p50.
pub(super) fn broker_latency(ground: &Ground, times: usize, body: usize) -> Result<f64> {
    let (client, threads) = broker(ground)?;
    let p50 = ping(client, times, body);
    join_all(threads)?;
    p50
}

/// The end that is its client's, and what it consists of.
fn broker(ground: &Ground) -> Result<(TcpStream, [Work<()>; 3])> {
    let ((client, from_client), (to_worker, worker)) = (connection()?, connection()?);
    let (there, back) = (create(ground, "there")?, create(ground, "back")?);
    let (to_client, from_worker) = (from_client.try_clone()?, to_worker.try_clone()?);
    let threads = [
        spawn(move || relay(&from_client, &to_worker, Some(there)))?,
        spawn(move || relay(&worker, &worker, None))?,
        spawn(move || relay(&from_worker, &to_client, Some(back)))?,
    ];
    Ok((client, threads))
}

/// Sends a frame and waits until it is back, again and again: p50 of that in microseconds.
fn ping(mut stream: TcpStream, times: usize, body: usize) -> Result<f64> {
    let (mut frame, mut took) = (vec![b'x'; HEADER + body], Vec::with_capacity(times));
    for _ in 0..times {
        let since = Instant::now();
        stream.write_all(&frame)?;
        stream.read_exact(&mut frame)?;
        took.push(since.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    Ok(percentile(&took, 0.5))
}

/// Processes a second that can be started and waited for, one after another on each processor.
pub(super) fn spawn_rate() -> Result<f64> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let since = Instant::now();
    let run = move || -> std::io::Result<u64> {
        let mut count = 0;
        while since.elapsed() < SPAN {
            Command::new("true").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
            count += 1;
        }
        Ok(count)
    };
    let threads = (0..processors).map(|_| spawn(run)).collect::<Result<Vec<_>>>()?;
    let mut count = 0;
    for thread in threads {
        count += join(thread)?;
    }
    Ok(count as f64 / since.elapsed().as_secs_f64())
}

/// Sends frames and takes as many back, at once.
fn pour(stream: &TcpStream, frames: usize, body: usize) -> Result<()> {
    let (mut write, mut read) = (stream.try_clone()?, stream.try_clone()?);
    let len = frames * (HEADER + body);
    let writer = spawn(move || -> std::io::Result<()> {
        let mut frame = (body as u32).to_le_bytes().to_vec();
        frame.resize(HEADER + body, b'x');
        let batch = frame.repeat((BATCH / frame.len()).max(1));
        let mut left = len;
        while left > 0 {
            let part = batch.len().min(left);
            write.write_all(&batch[..part])?;
            left -= part;
        }
        write.shutdown(Shutdown::Write)
    })?;
    let taken = take_back(&mut read, len);
    join(writer)?;
    taken
}

fn take_back(read: &mut TcpStream, mut left: usize) -> Result<()> {
    let mut buffer = vec![0; BATCH];
    while left > 0 {
        let count = read.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "the echo ended early");
        left -= count;
    }
    Ok(())
}

/// Hands on what comes until there is no more; with a file, only what is durable. Where that fails nobody waits at either end.
fn relay(from: &TcpStream, to: &TcpStream, file: Option<File>) -> std::io::Result<()> {
    let outcome = hand_on(from, to, file);
    if outcome.is_err() {
        for end in [from, to] {
            if let Err(error) = end.shutdown(Shutdown::Both) {
                tracing::debug!(%error, "this end was gone already");
            }
        }
    }
    outcome
}

fn hand_on(mut from: &TcpStream, mut to: &TcpStream, mut file: Option<File>) -> std::io::Result<()> {
    let mut buffer = vec![0; BATCH];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return to.shutdown(Shutdown::Write);
        }
        if let Some(file) = &mut file {
            append(file, &buffer[..read])?;
        }
        to.write_all(&buffer[..read])?;
    }
}

fn append(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)?;
    file.sync_data()
}

fn create(ground: &Ground, name: &str) -> Result<File> {
    let path = ground.path(name);
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let far = listener.accept()?.0;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

type Work<T> = JoinHandle<std::io::Result<T>>;

fn spawn<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<Work<T>> {
    std::thread::Builder::new().spawn(work).context("cannot start a thread")
}

fn join<T>(thread: Work<T>) -> Result<T> {
    Ok(thread.join().map_err(|_| anyhow!("a thread panicked"))??)
}

/// The error is the reason why one of them ended, rather than what its neighbours met by that.
fn join_all(threads: impl IntoIterator<Item = Work<()>>) -> Result<()> {
    let is_of_a_neighbour = |error: &anyhow::Error| {
        let kind = error.downcast_ref().map(std::io::Error::kind);
        matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected))
    };
    let errors = threads.into_iter().filter_map(|thread| join(thread).err());
    errors.min_by_key(is_of_a_neighbour).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_disk_that_is_full_ends_the_floor_with_its_reason() {
        for file in ["there", "back"] {
            let dir = tempfile::tempdir().unwrap();
            let ground = Ground::new(dir.path()).unwrap();
            std::os::unix::fs::symlink("/dev/full", ground.path(file)).unwrap();
            let error = broker_rate(&ground, 5_000, 20_000).unwrap_err();
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            assert_eq!(kind, Some(ErrorKind::StorageFull), "{error:#}");
        }
    }
}

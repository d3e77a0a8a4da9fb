//! Errors of system calls, injected by strace, and its log read back. It knows nothing of Sheaf.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// Words that start a program whose `nth` sync of each thread fails with EIO. With `-D` the program itself is the child,
/// so its exit code and its death are its own.
pub(crate) fn failing_sync(nth: u64, log: &Path) -> Vec<String> {
    let inject = format!("inject=fdatasync,fsync:error=EIO:when={nth}");
    let words =
        ["strace", "-D", "-f", "-y", "-ttt", "--seccomp-bpf", "-e", "trace=fdatasync,fsync", "-e", &inject, "-o"];
    words.iter().map(|word| (*word).to_owned()).chain([log.display().to_string()]).collect()
}

/// A sync that was begun.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sync {
    /// Unix time.
    pub at: Duration,
    /// What was synced.
    pub path: String,
    /// It was made to fail.
    pub failed: bool,
}

/// Every sync in a log, in order of beginning.
pub(crate) fn read(log: &Path) -> anyhow::Result<Vec<Sync>> {
    let text = match std::fs::read_to_string(log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.context("strace's log")?,
    };
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Sync> {
    text.lines().filter_map(sync).collect()
}

/// `PID TIME fdatasync(FD</path>) = -1 EIO (Input/output error) (INJECTED)`
fn sync(line: &str) -> Option<Sync> {
    let mut words = line.split_whitespace();
    let (_, at, rest) = (words.next()?, words.next()?, line.split_once("sync(")?.1);
    let path = rest.split_once('<')?.1.split_once('>')?.0.to_owned();
    Some(Sync { at: Duration::from_secs_f64(at.parse().ok()?), path, failed: line.ends_with("(INJECTED)") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_read() {
        let text = "7 1700000000.250000 fdatasync(9</a/1.seg>) = 0\n\
                    7 1700000000.300000 +++ exited with 1 +++\n\
                    8 1700000000.500000 fsync(3</a> <unfinished ...>\n\
                    7 1700000001.000000 fdatasync(9</a/1.seg>) = -1 EIO (Input/output error) (INJECTED)\n";
        let syncs = parse(text);
        let paths: Vec<_> = syncs.iter().map(|sync| (sync.path.as_str(), sync.failed)).collect();
        assert_eq!(paths, [("/a/1.seg", false), ("/a", false), ("/a/1.seg", true)]);
        assert_eq!(syncs[0].at, Duration::from_millis(1_700_000_000_250));
    }
}

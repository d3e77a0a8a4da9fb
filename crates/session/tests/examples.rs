//! Both examples as processes: the echo ends from inside, the chat survives `kill -9` of either side in mid-chat.
#![allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods, reason = "a test of processes")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Cargo builds the examples with the tests of a package, beside them (not with `--test NAME`).
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples").join(name)
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(name: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new(example(name));
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Process { child, stdin, stdout }
    }

    /// Reads on until a line that begins so; gives it.
    fn until(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        while !line.starts_with(beginning) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended before it said {beginning:?}");
        }
        line.trim_end().to_owned()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn echo_ends_from_inside_the_conversation() {
    let mut server = Process::start("echo", &["server", "127.0.0.1:0"]);
    let address = server.until("listening on ").split_off("listening on ".len());
    let mut client = Process::start("echo", &["client", &address, "one", "two", "three"]);
    for word in ["one", "two", "three", "ended"] {
        client.until(word);
    }
    assert!(client.child.wait().unwrap().success());
    server.until("ended");
    assert!(server.child.wait().unwrap().success());
}

fn show(directory: &Path) -> Vec<String> {
    let output = Command::new(example("chat")).arg("show").arg(directory).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Types lines and waits until each is stored.
fn type_lines(process: &mut Process, from: u64, to: u64) {
    for n in from..=to {
        writeln!(process.stdin, "line {n}").unwrap();
        process.until(&format!("stored {n}"));
    }
}

#[test]
fn chat_survives_kill_of_either_side() {
    let root = tempfile::tempdir().unwrap();
    let (alice, bob) = (root.path().join("alice"), root.path().join("bob"));
    let (alice_dir, bob_dir) = (alice.to_str().unwrap(), bob.to_str().unwrap());
    let mut listener = Process::start("chat", &["listen", "127.0.0.1:0", alice_dir]);
    let address = listener.until("listening on ").split_off("listening on ".len());
    let mut dialer = Process::start("chat", &["dial", &address, bob_dir]);
    dialer.until("up");

    type_lines(&mut dialer, 1, 20);
    type_lines(&mut listener, 1, 10);
    // The dialer dies with lines under way, the listener before it has all of them.
    dialer.kill();
    type_lines(&mut listener, 11, 20);
    let mut dialer = Process::start("chat", &["dial", &address, bob_dir]);
    type_lines(&mut dialer, 21, 40);
    listener.kill();
    type_lines(&mut dialer, 41, 50);
    let mut listener = Process::start("chat", &["listen", &address, alice_dir]);
    type_lines(&mut listener, 21, 30);
    dialer.until("received 50");
    listener.until("received 30");

    let lines = |count: u64| (1..=count).map(|n| format!("line {n}")).collect::<Vec<_>>();
    assert_eq!(show(&alice), lines(50));
    assert_eq!(show(&bob), lines(30));
}

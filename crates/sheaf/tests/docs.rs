//! Runs what the documents tell users to type. Each block fenced as `sh` in README.md and `docs/` is a script: it runs in a
//! directory of its own that holds nothing but `examples/`, with the built `sheaf` on the path. A block behind a line
//! `<!-- not run: reason -->` is not run; the subcommands and flags in it must exist all the same.
//!
//! Knows nothing of what the commands print: a block passes by its exit code.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What stands before a block that is not run.
const NOT_RUN: &str = "<!-- not run: ";
/// How a fresh clone says `sheaf`.
const FROM_SOURCE: &str = "cargo run --release --";
/// Longest time for one block.
const PATIENCE: Duration = Duration::from_secs(300);
/// Some error codes that the README asks for do not exist, and their rows fail: this is what `sheaf run` exits with then.
const SOME_FAILED: i32 = 3;

/// A block of commands.
struct Block {
    /// File and line of its fence.
    place: String,
    /// Why it is not run.
    not_run: Option<String>,
    /// As `sh` gets it.
    script: String,
}

impl Block {
    fn may_exit(&self, status: ExitStatus) -> bool {
        let last = self.script.trim_end().lines().next_back().unwrap_or_default();
        status.code() == Some(0) || (last.contains("rustc --explain") && status.code() == Some(SOME_FAILED))
    }
}

#[test]
fn every_block_runs() {
    let mut failures = Vec::new();
    for block in documents() {
        match &block.not_run {
            Some(why) => eprintln!("{}: not run: {why}", block.place),
            None => failures.extend(run(&block).err()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_command_and_flag_exists() {
    let wrong: Vec<String> = documents().iter().flat_map(wrong_names).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_bad_block_is_found() {
    let text = "a\n```sh\nsheaf run --tea -- cat --milk\nfalse\n```\nb\n<!-- not run: it is a test -->\n```sh\n\
                VAR=1 sheaf job brew last &&\n  sheaf doctor --limits | cat\nsheaf up \\\n  --sugar\n```\n```text\nsheaf tea\n```\n";
    let blocks = blocks("x.md", text);
    assert_eq!(blocks.iter().map(|b| b.place.as_str()).collect::<Vec<_>>(), ["x.md:2", "x.md:8"]);
    assert_eq!(blocks[1].not_run.as_deref(), Some("it is a test"));
    assert_eq!(wrong_names(&blocks[0]), ["x.md:2: `sheaf run` has no flag --tea"]);
    assert_eq!(
        wrong_names(&blocks[1]),
        ["x.md:8: there is no `sheaf job brew`", "x.md:8: `sheaf up` has no flag --sugar"]
    );
    assert!(run(&blocks[0]).is_err_and(|said| said.contains("x.md:2")));
}

#[test]
fn exit_code_3_is_for_the_error_codes_only() {
    let failed = ExitStatus::from_raw(SOME_FAILED << 8);
    let block = |script: &str| blocks("x.md", &format!("```sh\n{script}\n```")).remove(0);
    assert!(block("cargo run --release -- run --in a --out b -- rustc --explain {}").may_exit(failed));
    assert!(!block("sheaf run --in a --out b -- rustc --explain {}\ncat b").may_exit(failed));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The blocks of all documents that promise something to users.
fn documents() -> Vec<Block> {
    let mut files = vec!["README.md".to_owned()];
    let docs = fs::read_dir(root().join("docs")).expect("docs/ exists");
    let names = docs.map(|entry| entry.expect("a readable directory").file_name().to_string_lossy().into_owned());
    files.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    files.sort();
    let read = |file: &String| fs::read_to_string(root().join(file)).expect("a readable document");
    let found: Vec<Block> = files.iter().flat_map(|file| blocks(file, &read(file))).collect();
    assert!(found.iter().filter(|block| block.not_run.is_none()).count() >= 5, "the extractor finds too little");
    found
}

fn blocks(file: &str, text: &str) -> Vec<Block> {
    let (mut found, mut before, mut open) = (Vec::new(), "", None::<(bool, Block)>);
    for (index, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take().filter(|(is_sh, _)| *is_sh).map(|(_, block)| block)),
            (Some(language), None) => {
                let reason = before.strip_prefix(NOT_RUN).map(|rest| rest.trim_end_matches("-->").trim().to_owned());
                let place = format!("{file}:{}", index + 1);
                open = Some((language.trim() == "sh", Block { place, not_run: reason, script: String::new() }));
            }
            (None, Some((_, block))) => block.script += &(line.replace(FROM_SOURCE, "sheaf") + "\n"),
            (None, None) => before = line,
        }
    }
    found
}

/// Runs a block; the error says where it stands and what it printed.
fn run(block: &Block) -> Result<(), String> {
    let sandbox = tempfile::tempdir().expect("a temporary directory");
    let (work, log) = (sandbox.path().join("work"), sandbox.path().join("log"));
    copy(&root().join("examples"), &work.join("examples"));
    let bin = Path::new(env!("CARGO_BIN_EXE_sheaf")).parent().expect("a file stands in a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let log_file = fs::File::create(&log).expect("writable sandbox");
    let mut command = Command::new("sh");
    command.args(["-ec", &block.script]).current_dir(&work).env("PATH", path).process_group(0).stdin(Stdio::null());
    command.stdout(log_file.try_clone().expect("a second handle")).stderr(log_file);
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHEAF_")).for_each(|(name, _)| {
        command.env_remove(name);
    });
    let ended = finish(command);
    let said = fs::read_to_string(&log).unwrap_or_default();
    match ended {
        Some(status) if block.may_exit(status) => Ok(()),
        Some(status) => Err(format!("{}: {status}\n{}\n{said}", block.place, block.script)),
        None => Err(format!("{}: not done after {PATIENCE:?}\n{}\n{said}", block.place, block.script)),
    }
}

/// The end of a command, or nothing if it had to be killed, with all that it started.
fn finish(mut command: Command) -> Option<ExitStatus> {
    let mut child = command.spawn().expect("sh exists");
    let start = Instant::now();
    loop {
        let status = child.try_wait().expect("own child");
        if status.is_some() {
            return status;
        }
        if start.elapsed() > PATIENCE {
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", "--", &group]).status().expect("kill exists");
            child.wait().expect("own child");
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable sandbox");
    for entry in fs::read_dir(from).expect("examples/ exists") {
        let entry = entry.expect("a readable directory");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("writable sandbox");
        }
    }
}

/// Subcommands and long flags of `sheaf` that its own help does not know.
fn wrong_names(block: &Block) -> Vec<String> {
    let script = block.script.replace("\\\n", " ");
    let commands = script.split(['\n', ';', '|', '&']);
    commands.filter_map(wrong_name).map(|says| format!("{}: {says}", block.place)).collect()
}

/// The first wrong name in one simple command, if it calls `sheaf` at all.
fn wrong_name(command: &str) -> Option<String> {
    let is_assignment = |word: &str| word.contains('=') && !word.starts_with('-');
    let mut words = command.split_whitespace().skip_while(|word| is_assignment(word)).take_while(|word| *word != "--");
    if words.next() != Some("sheaf") {
        return None;
    }
    let mut words = words.peekable();
    let (mut path, mut page) = (Vec::new(), help(&[]));
    while page.contains("\nCommands:\n") {
        let Some(word) = words.next_if(|word| !word.starts_with('-')) else { break };
        path.push(word);
        if !page.lines().any(|line| line.starts_with("  ") && line.split_whitespace().next() == Some(word)) {
            return Some(format!("there is no `sheaf {}`", path.join(" ")));
        }
        page = help(&path);
    }
    let known = |flag: &str| page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == flag);
    let flags = words.filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap_or(word));
    let unknown = flags.into_iter().find(|flag| !known(flag))?;
    Some(format!("`sheaf {}` has no flag {unknown}", path.join(" ")))
}

fn help(path: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sheaf")).args(path).arg("--help").output().expect("sheaf starts");
    assert!(output.status.success(), "sheaf {} --help", path.join(" "));
    let page = String::from_utf8(output.stdout).expect("help is text");
    // Examples may name what does not exist: only what clap lists counts.
    page.split_once("\nUsage:").map_or(String::new(), |(_, listed)| listed.to_owned())
}

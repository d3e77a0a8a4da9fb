//! The embeddings server of `examples/minilm-server`: its own tests with a model of random weights; and, where
//! `SHEAF_TEST_MINILM=1` asks for it, `docs/embeddings.md` as it stands, with the real model (232 MB) and its fixed ports.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Sandbox, registry, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_server_and_its_loading_code_hold_with_a_tiny_model() {
    let packages = ["numpy==2.4.6", "safetensors==0.8.0", "tokenizers==0.23.3"];
    let Some(packages) = registry::python_alone(&packages) else { return };
    let mut python = Command::new("python3");
    python.args(["-B", "-m", "unittest"]).env("PYTHONPATH", packages).env_remove("MINILM");
    let output = python.current_dir(root().join("examples/minilm-server")).output().expect("python3");
    let said = text(&output);
    assert!(output.status.success() && said.contains("OK"), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

#[test]
fn the_document_of_embeddings_does_what_it_says() {
    if std::env::var("SHEAF_TEST_MINILM").as_deref() != Ok("1") {
        eprintln!("SKIPPED: SHEAF_TEST_MINILM=1 runs docs/embeddings.md with the real model, which is 232 MB");
        return;
    }
    let page = std::fs::read_to_string(root().join("docs/embeddings.md")).expect("the document");
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().expect("a block ends"));
    let script = blocks.collect::<Vec<_>>().join("\n");
    let sandbox = Sandbox::new();
    std::os::unix::fs::symlink(root().join("examples"), sandbox.path("examples")).expect("a link");
    let bin = Path::new(env!("CARGO_BIN_EXE_sheaf")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // Whatever goes wrong, nothing that it started stays.
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null; true' EXIT\n{script}");
    let mut shell = Command::new("bash");
    shell.args(["-ec", &script]).current_dir(sandbox.path("")).env("PATH", path).stdin(Stdio::null());
    let log = std::fs::File::create(sandbox.path("log")).expect("writable sandbox");
    let status = shell.stdout(log.try_clone().expect("a second handle")).stderr(log).status().expect("bash");
    let said = sandbox.read("log");
    assert!(status.success() && said.contains("stopped by `sheaf shutdown`"), "{said}");
    let attempts = said.lines().find_map(|line| line.strip_prefix("sheaf_attempts_total ")).expect("the metrics");
    let done = sandbox.output("vectors.jsonl");
    assert!(attempts.parse::<usize>().expect("a number") >= done.len(), "{said}");
    assert!(done.values().all(|row| row["status"] == "ok"), "{said}");
    eprintln!("{said}");
}

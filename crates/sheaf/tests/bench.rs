//! `sheaf bench` on small amounts: every measure runs its whole way and tells all of its figures. How large they are is
//! no test's business.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::Sandbox;
use serde_json::Value;

fn figures(args: &[&str]) -> Vec<(String, f64)> {
    let sandbox = Sandbox::new();
    let output = sandbox.command(&[&["--json", "bench"], args].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!sandbox.path(".sheaf-bench").exists(), "the runs' directory stays behind");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["bench"], args[0]);
    let figures = report["figures"].as_array().unwrap();
    let figure = |value: &Value| (value["name"].as_str().unwrap().to_owned(), value["value"].as_f64().unwrap());
    figures.iter().map(figure).collect()
}

fn all_are_positive(figures: &[(String, f64)], at_least: usize) {
    assert!(figures.len() >= at_least, "{figures:?}");
    assert!(figures.iter().all(|(_, value)| *value > 0.0), "{figures:?}");
}

#[test]
fn roundtrip() {
    let large = figures(&["roundtrip", "--tasks", "20", "--body", "300000"]);
    assert!(large[0].0 == "tasks" && large[0].1 > 0.0, "{large:?}");
    all_are_positive(&figures(&["roundtrip", "--tasks", "5000", "--workers", "2", "--batch", "64", "--runs", "2"]), 4);
}

#[test]
fn latency() {
    let figures = figures(&["latency", "--tasks", "50"]);
    all_are_positive(&figures, 3);
    assert!(figures.is_sorted_by(|(_, a), (_, b)| a <= b), "percentiles rise: {figures:?}");
}

#[test]
fn backlog() {
    let figures = figures(&["backlog", "--tasks", "5000"]);
    all_are_positive(&figures, 7);
    let (_, disk) = figures.iter().find(|(name, _)| name == "on disk, a task").unwrap();
    assert!(*disk > 200.0, "bodies of 200 bytes are on disk: {disk}");
}

#[test]
fn fan() {
    all_are_positive(&figures(&["fan", "--tasks", "2000", "--connections", "1,20"]), 2);
    all_are_positive(&figures(&["fan", "--tasks", "2000", "--connections", "1,20", "--batch", "3"]), 2);
}

#[test]
fn jobs() {
    all_are_positive(&figures(&["jobs", "--jobs", "20"]), 2);
}

#[test]
fn cached() {
    let figures = figures(&["cached", "--tasks", "3000"]);
    assert_eq!(figures[2].1, 3_000.0, "every task of the second job: {figures:?}");
}

#[test]
fn session() {
    all_are_positive(&figures(&["session", "--messages", "3000"]), 6);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "");
    let output = sandbox.command(&["bench", "latency", "--dir", "file/x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("file/x"));
}

//! Every scenario of `testdata/scenarios`, whole stories compared. `UPDATE=1` records them anew.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test is a shell, and fails by panic")]

use std::path::{Path, PathBuf};

use sheaf_sim::Scenario;

/// Longer stories are not read.
const LINES_MAX: usize = 150;

fn files() -> Vec<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Scenario {
    let text = std::fs::read_to_string(path).unwrap();
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first line in which two stories differ, with what is before it.
fn difference(expected: &str, story: &str) -> String {
    let (mut expected, mut story) = (expected.lines(), story.lines());
    let mut number = 1;
    loop {
        match (expected.next(), story.next()) {
            (Some(was), Some(is)) if was == is => number += 1,
            (was, is) => return format!("line {number} of the story\n  was {was:?}\n  is  {is:?}"),
        }
    }
}

#[test]
fn every_scenario_goes_as_it_is_told() {
    let is_update = std::env::var_os("UPDATE").is_some();
    let mut failures = Vec::new();
    for path in files() {
        let scenario = read(&path);
        let (story, outcome) = scenario.play(None);
        if !outcome.violations.is_empty() {
            failures.push(format!("{}: {:?}", path.display(), outcome.violations));
        }
        if !scenario.head().starts_with("# ") || story.lines().count() > LINES_MAX {
            failures.push(format!("{}: begins with its story in words, and ends in one sitting", path.display()));
        }
        if story == scenario.expected {
            continue;
        }
        if is_update {
            std::fs::write(&path, scenario.with_story(&story)).unwrap();
        } else {
            failures.push(format!("{}: {}", path.display(), difference(&scenario.expected, &story)));
        }
    }
    assert!(failures.is_empty(), "UPDATE=1 records anew what has changed on purpose:\n{}", failures.join("\n"));
}

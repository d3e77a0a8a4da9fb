//! Documents promise only what is there: commands are run by a test, named files and functions exist, nothing is left to fill in.
//!
//! A block fenced as `sh` is run by `crates/sheaf/tests/docs.rs` in an empty directory, unless the line before it is
//! `<!-- not run: reason -->`; names of subcommands and flags are checked there in both cases.

use super::finding::Finding;
use super::token;
use super::tree::{TextFile, Tree};

const RULE: &str = "documents";

/// The test that runs the commands.
const RUNNER: &str = "crates/sheaf/tests/docs.rs";

/// What stands before a block that the test does not run.
const NOT_RUN: &str = "<!-- not run: ";

/// A place that somebody has yet to write. In two parts, or this file would be a finding.
const UNWRITTEN: [&str; 2] = ["TO ", "FILL"];

const CHORES: [&str; 7] = ["ci", "tidy", "sim", "torture", "fuzz", "crab", "bench"];
const MAP: &str = "ARCHITECTURE.md";
const MAP_LINES_MAX: usize = 250;

/// A fenced block: the line of its fence (from 1), its language, the line before it, its lines.
struct Block<'a> {
    line: usize,
    language: &'a str,
    before: &'a str,
    lines: Vec<&'a str>,
}

/// All of the above, for every Markdown file.
pub(crate) fn documents(tree: &Tree) -> Vec<Finding> {
    let documents = tree.texts.iter().filter(|file| file.path.ends_with(".md"));
    documents
        .flat_map(|file| commands(tree, file).into_iter().chain(names(tree, file)).chain(unwritten(file)))
        .collect()
}

fn commands(tree: &Tree, file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for block in blocks(&file.text) {
        let mut fail = |says: String| findings.push(Finding::fail(RULE, &file.path, block.line, says));
        if block.language.is_empty() {
            fail("a block without a language: sh for commands, text for the rest".into());
        }
        if block.language != "sh" && block.lines.iter().any(|line| is_command(line)) {
            fail("commands outside an `sh` block are run by no test".into());
        }
        if block.language == "sh" && !block.before.starts_with(NOT_RUN) && tree.text(RUNNER).is_none() {
            fail(format!("no test runs this block: {RUNNER} is missing"));
        }
        let chores = block.lines.iter().filter_map(|line| line.trim().strip_prefix("cargo xtask "));
        let unknown = chores.filter_map(|rest| rest.split_whitespace().next()).find(|chore| !CHORES.contains(chore));
        if let Some(chore) = unknown {
            fail(format!("there is no `cargo xtask {chore}`"));
        }
    }
    findings
}

fn is_command(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches("$ ");
    ["sheaf run ", "sheaf up", "sheaf worker ", "cargo run ", "cargo xtask "]
        .iter()
        .any(|start| line.starts_with(start))
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let (mut before, mut open) = ("", None::<Block<'_>>);
    for (index, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => {
                open = Some(Block { line: index + 1, language: language.trim(), before, lines: vec![] })
            }
            (None, Some(mut block)) => {
                block.lines.push(line);
                open = Some(block);
            }
            (None, None) => before = line,
        }
    }
    blocks
}

/// `` `crates/…` `` names a file or directory that exists; with `#name`, one that defines a function of that name.
fn names(tree: &Tree, file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let words = line.split('`').skip(1).step_by(2).filter(|word| is_path(word));
        let wrong = words.filter_map(|word| wrong_name(tree, word));
        findings.extend(wrong.map(|says| Finding::fail(RULE, &file.path, index + 1, says)));
    }
    findings
}

fn is_path(word: &str) -> bool {
    ["crates/", "docs/", "examples/", ".ci/"].iter().any(|start| word.starts_with(start))
        && !word.contains([' ', '*', '<'])
}

fn wrong_name(tree: &Tree, word: &str) -> Option<String> {
    let (path, function) = word.split_once('#').map_or((word, None), |(path, function)| (path, Some(function)));
    let directory = format!("{}/", path.trim_end_matches('/'));
    if !tree.texts.iter().any(|text| text.path == path || text.path.starts_with(&directory)) {
        return Some(format!("`{path}` does not exist"));
    }
    let function = function?;
    let pattern = format!("fn {function}");
    let file = tree.rust.iter().find(|file| file.path == path);
    let defined = file.is_some_and(|file| token::find(&file.tokens, &pattern).next().is_some());
    (!defined).then(|| format!("`{path}` defines no function `{function}`"))
}

fn unwritten(file: &TextFile) -> Vec<Finding> {
    let mark = UNWRITTEN.concat();
    let lines = file.text.lines().enumerate().filter(|(_, line)| line.contains(&mark));
    let mut findings: Vec<Finding> =
        lines.map(|(index, _)| Finding::fail(RULE, &file.path, index + 1, "left to be written")).collect();
    let count = file.text.lines().count();
    if file.path == MAP && count > MAP_LINES_MAX {
        findings.push(Finding::fail(RULE, MAP, count, format!("{count} lines; a map has {MAP_LINES_MAX} at most")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        documents(&Tree::of(files)).into_iter().map(|finding| format!("{}: {}", finding.line, finding.says)).collect()
    }

    #[test]
    fn commands_are_run_or_say_why_not() {
        let text = "x\n```sh\nsheaf up\n```\n<!-- not run: it does not end -->\n```sh\nsheaf up\n```\n";
        assert_eq!(
            found(&[("README.md", text)]),
            ["2: no test runs this block: crates/sheaf/tests/docs.rs is missing"]
        );
        assert_eq!(found(&[("README.md", text), (RUNNER, "")]), [""; 0]);
    }

    #[test]
    fn commands_do_not_hide_in_other_blocks() {
        let text = "```text\n$ sheaf run --in a\n```\n```\nb\n```\n";
        let expected = [
            "1: commands outside an `sh` block are run by no test",
            "4: a block without a language: sh for commands, text for the rest",
        ];
        assert_eq!(found(&[("docs/a.md", text)]), expected);
    }

    #[test]
    fn chores_exist() {
        let text = "```sh\ncargo xtask polish\n```\n";
        assert_eq!(found(&[("README.md", text), (RUNNER, "")]), ["1: there is no `cargo xtask polish`"]);
    }

    #[test]
    fn named_files_and_functions_exist() {
        let text = "see `crates/net/src/a.rs#dial`, `crates/net`, `crates/gone` and `crates/net/src/a.rs#hang_up`";
        let expected = ["1: `crates/gone` does not exist", "1: `crates/net/src/a.rs` defines no function `hang_up`"];
        assert_eq!(found(&[("ARCHITECTURE.md", text), ("crates/net/src/a.rs", "fn dial() {}")]), expected);
    }

    #[test]
    fn nothing_is_left_to_be_written_and_the_map_is_short() {
        let text = format!("{}: names\n{}", UNWRITTEN.concat(), "\n".repeat(250));
        let expected = ["1: left to be written", "251: 251 lines; a map has 250 at most"];
        assert_eq!(found(&[("ARCHITECTURE.md", &text)]), expected);
    }
}

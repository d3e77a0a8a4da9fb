//! `cargo xtask tidy`: what clippy does not know about this project. A rule is a function from the tree to findings.
//!
//! Invariant: rules read, and never write. A finding that cannot be mended at once goes into the baseline with a reason.

mod comments;
mod dead;
mod docs;
mod enums;
mod finding;
mod graph;
mod phrases;
mod purity;
mod sizes;
mod token;
mod tree;

use std::time::Instant;

use anyhow::bail;

use crate::workspace;
use finding::Finding;
use tree::Tree;

/// The rules. Each has a test that shows it at work on a planted violation.
const RULES: [fn(&Tree) -> Vec<Finding>; 14] = [
    graph::crate_graph,
    purity::pure_clippy,
    purity::pure_libraries,
    purity::pure_source,
    sizes::files,
    sizes::items,
    phrases::phrases,
    phrases::dropped_results,
    comments::allows,
    comments::machine_paths,
    dead::dead_pub,
    enums::stringly_errors,
    enums::wildcards,
    docs::documents,
];

/// Runs every rule on the checkout and prints what it found.
///
/// # Errors
/// When a file cannot be read, or a finding is left that neither passes nor stands in the baseline.
pub(crate) fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    let tree = Tree::read(&workspace::root())?;
    let baseline = finding::parse_baseline(tree.text(finding::BASELINE).unwrap_or_default())?;
    let findings = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    let mut left = finding::ratchet(findings, &baseline);
    left.sort_by(|one, other| (one.fails, &one.path, one.line).cmp(&(other.fails, &other.path, other.line)));
    for finding in &left {
        let kind = if finding.fails { "error" } else { "note" };
        eprintln!("{kind}[{}] {}:{}: {}", finding.rule, finding.path, finding.line, finding.says);
    }
    let failures = left.iter().filter(|finding| finding.fails).count();
    let (files, took) = (tree.texts.len(), started.elapsed().as_secs_f64());
    if failures > 0 {
        bail!("tidy: {failures} failures in {files} files ({took:.1} s)");
    }
    eprintln!("tidy: {files} files in order, {} notes, {} known findings ({took:.1} s)", left.len(), baseline.len());
    Ok(())
}

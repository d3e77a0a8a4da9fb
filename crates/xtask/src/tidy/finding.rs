//! What a rule found, and the baseline that lets a known finding stand until it is mended.
//!
//! Invariant: numbers of the baseline only go down. A smaller finding than the baseline admits is a failure too: lower it.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

/// One finding. `weight` is what the baseline compares: lines for sizes, 1 for everything else.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) weight: usize,
    pub(crate) fails: bool,
    pub(crate) says: String,
}

impl Finding {
    /// A failure.
    pub(crate) fn fail(rule: &'static str, path: &str, line: usize, says: impl Into<String>) -> Self {
        Self { rule, path: path.to_owned(), line, weight: 1, fails: true, says: says.into() }
    }

    /// Something to think about, which passes.
    pub(crate) fn warn(rule: &'static str, path: &str, line: usize, says: impl Into<String>) -> Self {
        Self { fails: false, ..Self::fail(rule, path, line, says) }
    }
}

/// What is admitted: (rule, path) → sum of weights.
pub(crate) type Baseline = BTreeMap<(String, String), usize>;

/// Where the baseline is kept.
pub(crate) const BASELINE: &str = "crates/xtask/tidy-baseline.txt";

/// Reads lines `rule path number`; `#` begins a comment.
///
/// # Errors
/// When a line is none of these.
pub(crate) fn parse_baseline(text: &str) -> anyhow::Result<Baseline> {
    let mut baseline = Baseline::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        ensure!(words.len() == 3, "{BASELINE}: `{line}` is not `rule path number`");
        let number = words[2].parse().with_context(|| format!("{BASELINE}: `{line}`"))?;
        baseline.insert((words[0].to_owned(), words[1].to_owned()), number);
    }
    Ok(baseline)
}

/// Drops the failures that the baseline admits, and adds one for each number of it that could be lower.
pub(crate) fn ratchet(findings: Vec<Finding>, baseline: &Baseline) -> Vec<Finding> {
    let mut sums = Baseline::new();
    for finding in findings.iter().filter(|finding| finding.fails) {
        *sums.entry((finding.rule.to_owned(), finding.path.clone())).or_default() += finding.weight;
    }
    let admitted = |finding: &Finding| {
        let key = (finding.rule.to_owned(), finding.path.clone());
        finding.fails && sums.get(&key) <= baseline.get(&key)
    };
    let mut left: Vec<Finding> = findings.into_iter().filter(|finding| !admitted(finding)).collect();
    for (key, number) in baseline {
        let now = sums.get(key).copied().unwrap_or_default();
        if now < *number {
            let says = format!("`{} {} {number}` may go down to {now}", key.0, key.1);
            left.push(Finding::fail("baseline", BASELINE, 0, says));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(lines: usize) -> Vec<Finding> {
        vec![Finding { weight: lines, ..Finding::fail("file-size", "a.rs", 1, "long") }]
    }

    fn rules(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn numbers_only_go_down() {
        let baseline = parse_baseline("# known\nfile-size a.rs 1200 # splits next week\n").unwrap();
        assert_eq!(rules(&ratchet(long(1200), &baseline)), [""; 0]);
        assert_eq!(rules(&ratchet(long(1201), &baseline)), ["file-size"]);
        assert_eq!(rules(&ratchet(long(1100), &baseline)), ["baseline"]);
        assert_eq!(rules(&ratchet(vec![], &baseline)), ["baseline"]);
    }

    #[test]
    fn an_unreadable_line_is_an_error() {
        assert!(parse_baseline("file-size a.rs").is_err());
        assert!(parse_baseline("file-size a.rs many").is_err());
    }
}

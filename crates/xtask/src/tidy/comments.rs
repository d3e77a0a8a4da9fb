//! What must be said, and what must not: reasons of lint levels, and paths of the machine that built it.

use super::finding::Finding;
use super::token;
use super::tree::{RustFile, TextFile, Tree};

/// `#[allow(…)]` without a reason. `#[expect(…, reason = "…")]` also says when it is no longer needed.
pub(crate) fn allows(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().flat_map(|file| levels(file, "allow").into_iter().chain(levels(file, "expect"))).collect()
}

fn levels(file: &RustFile, level: &str) -> Vec<Finding> {
    let opens = format!("[ {level} (");
    let hits = token::find(&file.tokens, &opens).filter(|index| !has_reason(file, *index)).collect::<Vec<_>>();
    let says = format!("`{level}` of a lint without a reason: expect(.., reason = \"..\")");
    hits.into_iter()
        .map(|index| Finding::fail("lint-level", &file.path, file.tokens[index].line, says.clone()))
        .collect()
}

fn has_reason(file: &RustFile, start: usize) -> bool {
    let depth = file.tokens[start].depth;
    let attribute = file.tokens[start + 1..].iter().take_while(|token| token.depth > depth);
    attribute.into_iter().any(|token| token.text == "reason")
}

/// Roots of absolute paths that exist on a build machine only. In two parts, or this file would be a finding.
const MACHINE_ROOTS: [(&str, &str); 3] = [("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/")];

/// No text names a directory of the machine that built it.
pub(crate) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    tree.texts.iter().flat_map(paths).collect()
}

fn paths(file: &TextFile) -> Vec<Finding> {
    let roots: Vec<String> = MACHINE_ROOTS.iter().map(|(one, other)| format!("{one}{other}")).collect();
    let lines = file.text.lines().enumerate();
    let hits = lines.filter(|(_, line)| roots.iter().any(|root| has_path(line, root)));
    hits.map(|(index, _)| Finding::fail("machine-path", &file.path, index + 1, "a path of a build machine")).collect()
}

/// A root counts where a path begins: `x/work/y` is another directory.
fn has_path(line: &str, root: &str) -> bool {
    let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}'));
    line.match_indices(root).any(|(at, _)| begins(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_lint_level_has_a_reason() {
        let text = "#![allow(dead_code)]\n#[expect(clippy::unwrap_used, reason = \"set above\")]\nfn f() {}\n#[expect(dead_code)]\nfn g() {}";
        assert_eq!(lines(&allows(&Tree::of(&[("crates/net/src/a.rs", text)]))), [1, 4]);
    }

    #[test]
    fn methods_named_expect_are_no_lint_levels() {
        assert_eq!(allows(&Tree::of(&[("crates/net/src/a.rs", "fn f() { a.expect(b); [allow(c)]; }")])).len(), 1);
    }

    #[test]
    fn paths_of_build_machines_are_found_in_any_text() {
        let root: String = MACHINE_ROOTS[0].0.to_owned() + MACHINE_ROOTS[0].1;
        let text = format!("see {root}main\nsee crates{root}main\n");
        assert_eq!(lines(&machine_paths(&Tree::of(&[("docs/a.md", &text)]))), [1]);
    }
}

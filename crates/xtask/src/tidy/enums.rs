//! Enums: errors that a caller can branch on, and matches that a new variant breaks.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use super::finding::Finding;
use super::graph;
use super::tree::Tree;

/// Names of a field that holds only words.
const WORDS: [&str; 7] = ["message", "msg", "text", "detail", "error", "what", "description"];

/// Variants of an error enum that hold only a `String`: a caller cannot branch on text.
pub(crate) fn stringly_errors(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        let mut enums = Enums::default();
        enums.visit_file(&file.syntax);
        for item in enums.found.iter().filter(|item| item.ident.to_string().ends_with("Error")) {
            for variant in item.variants.iter().filter(|variant| is_stringly(&variant.fields)) {
                let says = format!("`{}::{}` holds only words: give it data to branch on", item.ident, variant.ident);
                findings.push(Finding::fail("stringly-error", &file.path, variant.ident.span().start().line, says));
            }
        }
    }
    findings
}

fn is_stringly(fields: &syn::Fields) -> bool {
    let mut all = fields.iter();
    let (Some(field), None) = (all.next(), all.next()) else { return false };
    let wordy = field.ident.as_ref().is_none_or(|name| WORDS.iter().any(|word| name == word));
    let text = matches!(&field.ty, syn::Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "String"));
    wordy && text
}

/// `_ =>` in a pure crate's match on an enum of this workspace: the compiler must name each place that a new variant touches.
pub(crate) fn wildcards(tree: &Tree) -> Vec<Finding> {
    let table = graph::table(tree);
    let files = || {
        tree.rust.iter().filter(|file| file.is_library() && table.get(file.crate_name()).is_some_and(|row| row.pure))
    };
    let mut enums = Enums::default();
    files().for_each(|file| enums.visit_file(&file.syntax));
    let own: BTreeSet<String> = enums.found.iter().map(|item| item.ident.to_string()).collect();
    let mut findings = Vec::new();
    for file in files() {
        let mut matches = Matches { own: &own, lines: Vec::new() };
        matches.visit_file(&file.syntax);
        let in_test = |line: usize| file.tokens.iter().any(|token| token.line == line && token.test);
        let lines = matches.lines.into_iter().filter(|line| !in_test(*line));
        let says = "`_ =>` on an enum of our own: name the variants";
        findings.extend(lines.map(|line| Finding::fail("wildcard", &file.path, line, says)));
    }
    findings
}

#[derive(Default)]
struct Enums {
    found: Vec<syn::ItemEnum>,
}

impl<'ast> Visit<'ast> for Enums {
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.found.push(item.clone());
    }
}

struct Matches<'a> {
    own: &'a BTreeSet<String>,
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for Matches<'_> {
    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        let ours = item.arms.iter().any(|arm| names_own(&arm.pat, self.own));
        let wild = item.arms.iter().filter(|arm| arm.guard.is_none()).find_map(|arm| match &arm.pat {
            syn::Pat::Wild(wild) => Some(wild.underscore_token.spans[0].start().line),
            _ => None,
        });
        self.lines.extend(wild.filter(|_| ours));
        visit::visit_expr_match(self, item);
    }
}

/// Whether the pattern itself (not one inside it) is `Enum::Variant` of an enum of ours.
fn names_own(pattern: &syn::Pat, own: &BTreeSet<String>) -> bool {
    let path = match pattern {
        syn::Pat::Path(path) => &path.path,
        syn::Pat::TupleStruct(tuple) => &tuple.path,
        syn::Pat::Struct(of) => &of.path,
        syn::Pat::Or(or) => return or.cases.iter().any(|case| names_own(case, own)),
        syn::Pat::Reference(to) => return names_own(&to.pat, own),
        _ => return false,
    };
    let count = path.segments.len();
    count >= 2 && own.contains(&path.segments[count - 2].ident.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn an_error_of_words_alone_is_found() {
        let text = "enum ReadError {\n Io(std::io::Error),\n Other(String),\n Odd { message: String },\n Column { name: String },\n Field(&'static str),\n}\nenum Word { Any(String) }";
        assert_eq!(lines(&stringly_errors(&Tree::of(&[("crates/net/src/a.rs", text)]))), [3, 4]);
    }

    #[test]
    fn wildcards_on_our_enums_are_found_in_pure_crates() {
        let table = ("ARCHITECTURE.md", "| crate | colour | imports |\n|---|---|---|\n| task | pure | — |\n");
        let text = "enum Lane { Urgent, Bulk }\nfn f(l: Lane) { match l { Lane::Urgent => (),\n _ => () } }\nfn g(n: u8) { match n { 1 => (),\n _ => () } }";
        let found = wildcards(&Tree::of(&[table, ("crates/task/src/a.rs", text), ("crates/net/src/a.rs", text)]));
        assert_eq!(lines(&found), [3]);
    }
}

//! Sizes: a file of 500 lines asks a question, one of 1,000 is a defect; so is a function of more than 70.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::finding::Finding;
use super::token;
use super::tree::{RustFile, Tree};

const FILE_ASKS: usize = 500;
const FILE_MAX: usize = 1_000;
const FUNCTION_MAX: usize = 70;
const FIELDS_ASK: usize = 15;
const INLINE_TESTS_ASK: usize = 150;

/// Files over their limit.
pub(crate) fn files(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().filter(|file| file.lines.len() > FILE_ASKS).map(file_size).collect()
}

fn file_size(file: &RustFile) -> Finding {
    let lines = file.lines.len();
    let fails = lines > FILE_MAX;
    let says = format!("{lines} lines: more than one idea?");
    Finding { weight: lines, fails, ..Finding::fail("file-size", &file.path, 1, says) }
}

/// Functions over their limit; structs of many fields and long inline tests are named.
pub(crate) fn items(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        let mut visitor = Items { path: &file.path, findings: &mut findings };
        visitor.visit_file(&file.syntax);
    }
    findings
}

struct Items<'a> {
    path: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Items<'_> {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let lines = block.brace_token.span.close().start().line + 1 - first;
        if lines > FUNCTION_MAX {
            let says = format!("`{}` has {lines} lines, {FUNCTION_MAX} at most", signature.ident);
            self.findings.push(Finding { weight: lines, ..Finding::fail("function-size", self.path, first, says) });
        }
    }
}

impl<'ast> Visit<'ast> for Items<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let (fields, line) = (item.fields.len(), item.ident.span().start().line);
        if fields > FIELDS_ASK {
            let says = format!("struct `{}` has {fields} fields: is it one thing?", item.ident);
            self.findings.push(Finding::warn("struct-fields", self.path, line, says));
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let span = item.span();
        let lines = span.end().line + 1 - span.start().line;
        if item.content.is_some() && token::is_test(&item.attrs) && lines > INLINE_TESTS_ASK {
            let says = format!("{lines} lines of inline tests: a sibling tests.rs reads better");
            self.findings.push(Finding::warn("inline-tests", self.path, span.start().line, says));
        }
        visit::visit_item_mod(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, rule: fn(&Tree) -> Vec<Finding>) -> Vec<(&'static str, usize, bool)> {
        let tree = Tree::of(&[("crates/net/src/a.rs", text)]);
        rule(&tree).iter().map(|finding| (finding.rule, finding.weight, finding.fails)).collect()
    }

    #[test]
    fn long_files_ask_and_longer_ones_fail() {
        assert_eq!(found(&"\n".repeat(500), files), []);
        assert_eq!(found(&"\n".repeat(501), files), [("file-size", 501, false)]);
        assert_eq!(found(&"\n".repeat(1_001), files), [("file-size", 1_001, true)]);
    }

    #[test]
    fn long_functions_fail_wherever_they_stand() {
        let body = |lines: usize| format!("fn f() {{{}}}", "\n".repeat(lines - 1));
        assert_eq!(found(&body(70), items), []);
        assert_eq!(found(&body(71), items), [("function-size", 71, true)]);
        assert_eq!(found(&format!("impl S {{ {} }}", body(71)), items), [("function-size", 71, true)]);
        assert_eq!(found(&format!("trait T {{ {} }}", body(71)), items), [("function-size", 71, true)]);
    }

    #[test]
    fn wide_structs_and_long_inline_tests_are_named() {
        let fields: String = (0..16).map(|n| format!("f{n}: u8,")).collect();
        assert_eq!(found(&format!("struct S {{ {fields} }}"), items), [("struct-fields", 1, false)]);
        let tests = format!("#[cfg(test)]\nmod tests {{{}}}", "\n".repeat(150));
        assert_eq!(found(&tests, items), [("inline-tests", 1, false)]);
    }
}

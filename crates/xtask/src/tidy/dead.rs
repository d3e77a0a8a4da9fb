//! Dead `pub`: public functions, types and constants whose name nothing uses. The compiler does not see these in a library.
//!
//! It compares names, not meanings: a name that something else bears, too, is never found. What it finds is dead.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};

use super::finding::Finding;
use super::tree::{RustFile, Tree};

/// Public items of libraries whose name occurs only where it is defined and passed on by `use`.
pub(crate) fn dead_pub(tree: &Tree) -> Vec<Finding> {
    let mut occurs: BTreeMap<&str, usize> = BTreeMap::new();
    for token in tree.rust.iter().flat_map(|file| &file.tokens) {
        *occurs.entry(token.text.as_str()).or_default() += 1;
    }
    let mut named = Named::default();
    let mut defined = Vec::new();
    for file in &tree.rust {
        named.visit_file(&file.syntax);
        let fresh = std::mem::take(&mut named.public);
        defined.extend(fresh.into_iter().filter(|_| file.is_library()).map(|(name, line)| (file, name, line)));
    }
    let dead = defined.iter().filter(|(_, name, _)| occurs.get(name.as_str()) <= named.explained.get(name));
    dead.map(|(file, name, line)| fail(file, *line, name)).collect()
}

fn fail(file: &RustFile, line: usize, name: &str) -> Finding {
    Finding::fail("dead-pub", &file.path, line, format!("nothing uses public `{name}`"))
}

/// What a visit finds: public definitions, and for each name how often it occurs as a definition or in a `use`.
#[derive(Default)]
struct Named {
    public: Vec<(String, usize)>,
    explained: BTreeMap<String, usize>,
}

impl Named {
    fn define(&mut self, visibility: &syn::Visibility, ident: &syn::Ident) {
        if matches!(visibility, syn::Visibility::Public(_)) {
            self.public.push((ident.to_string(), ident.span().start().line));
            self.explain(ident);
        }
    }

    fn explain(&mut self, ident: &syn::Ident) {
        *self.explained.entry(ident.to_string()).or_default() += 1;
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.define(&item.vis, &item.sig.ident);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.define(&item.vis, &item.sig.ident);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.define(&item.vis, &item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.define(&item.vis, &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.define(&item.vis, &item.ident);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.define(&item.vis, &item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.define(&item.vis, &item.ident);
    }

    fn visit_use_name(&mut self, item: &'ast syn::UseName) {
        self.explain(&item.ident);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<usize> {
        dead_pub(&Tree::of(files)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_is_only_defined_and_passed_on_is_dead() {
        let item = ("crates/net/src/a.rs", "pub struct Door;\nimpl Door {\n    pub fn open() {}\n    fn shut() {}\n}");
        let lib = ("crates/net/src/lib.rs", "pub use a::Door;");
        assert_eq!(found(&[item, lib]), [3]);
        assert_eq!(
            found(&[("crates/net/src/a.rs", "pub const N: u8 = 1;"), ("crates/net/src/lib.rs", "pub use a::N;")]),
            [1]
        );
    }

    #[test]
    fn a_use_anywhere_is_a_use() {
        let item = ("crates/net/src/a.rs", "pub fn open() {}");
        assert_eq!(found(&[item, ("crates/sheaf/tests/a.rs", "fn f() { assert!(net::open()) }")]), [0; 0]);
        assert_eq!(found(&[("crates/net/tests/common/mod.rs", "pub fn open() {}")]), [0; 0]);
    }
}

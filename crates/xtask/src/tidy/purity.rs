//! Purity: a crate that the table calls pure has no clock, thread, socket, file, shared state or hash-map order.
//!
//! Clippy enforces part of this by type; here are the doors that it does not guard, and that its own file is in place.

use super::finding::Finding;
use super::graph;
use super::token;
use super::tree::{RustFile, Tree};

/// Modules and types that a pure crate's source may not name (tokens apart by spaces).
const FORBIDDEN: [(&str, &str); 17] = [
    ("std : : net", "sockets belong to shells"),
    ("std : : fs", "disk is an argument"),
    ("std : : thread", "a machine has no threads"),
    ("std : : process", "processes belong to shells"),
    ("std : : env", "configuration is an argument"),
    ("thread_local !", "state is a field"),
    ("tokio", "machines stay outside the runtime"),
    ("Instant", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("HashMap", "its order is random: BTreeMap, or hashbrown::HashTable without iteration"),
    ("HashSet", "its order is random: BTreeSet"),
    ("Arc", "a machine shares nothing"),
    ("Mutex", "a machine has one owner"),
    ("RwLock", "a machine has one owner"),
    ("OnceLock", "state is a field"),
    ("LazyLock", "state is a field"),
    ("println !", "effects go out as values"),
];

/// Libraries that touch the world, and so no dependency of a pure crate.
const IMPURE: [&str; 12] =
    ["tokio", "rustix", "nix", "libc", "mio", "rand", "getrandom", "rusqlite", "tracing", "socket2", "chrono", "time"];

/// Each pure crate has a clippy.toml of its own, and all of these are one text.
pub(crate) fn pure_clippy(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut model: Option<&str> = None;
    for name in pure(tree) {
        let path = format!("crates/{name}/clippy.toml");
        match (tree.text(&path), model) {
            (None, _) => findings.push(fail(&path, 0, "a pure crate needs it, or the root's lax one holds".into())),
            (Some(text), None) => model = Some(text),
            (Some(text), Some(first)) if text != first => {
                findings.push(fail(&path, 0, "differs from the other pure crates' clippy.toml".into()));
            }
            (Some(_), Some(_)) => {}
        }
    }
    findings
}

/// No pure crate depends on a library that touches the world. Its tests may.
pub(crate) fn pure_libraries(tree: &Tree) -> Vec<Finding> {
    let pure = pure(tree);
    let crates = tree.crates.iter().filter(|one| pure.contains(&one.name));
    let edges =
        crates.flat_map(|one| one.edges.iter().filter(|edge| !edge.dev && !edge.own).map(move |edge| (one, edge)));
    let bad = edges.filter(|(_, edge)| IMPURE.contains(&edge.to.as_str()));
    bad.map(|(one, edge)| fail(&format!("crates/{}/Cargo.toml", one.name), 0, format!("`{}` is impure", edge.to)))
        .collect()
}

/// No source of a pure crate names what it must not know. Its tests, examples and `src/bin` may: they are shells.
pub(crate) fn pure_source(tree: &Tree) -> Vec<Finding> {
    let pure = pure(tree);
    let files = tree.rust.iter().filter(|file| file.is_library() && pure.iter().any(|name| name == file.crate_name()));
    files.flat_map(source).collect()
}

fn source(file: &RustFile) -> Vec<Finding> {
    let hits = FORBIDDEN.iter().flat_map(|(pattern, why)| {
        token::find(&file.tokens, pattern).map(move |index| (&file.tokens[index], pattern.replace(' ', ""), why))
    });
    hits.filter(|(token, ..)| !token.test)
        .map(|(token, name, why)| fail(&file.path, token.line, format!("`{name}` in a pure crate: {why}")))
        .collect()
}

fn pure(tree: &Tree) -> Vec<String> {
    graph::table(tree).into_iter().filter(|(_, row)| row.pure).map(|(name, _)| name).collect()
}

fn fail(path: &str, line: usize, says: String) -> Finding {
    Finding::fail("purity", path, line, says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Crate, Edge};

    const TABLE: (&str, &str) = (
        "ARCHITECTURE.md",
        "| crate | colour | imports |\n|---|---|---|\n| task | pure | — |\n| sim | pure | — |\n| net | shell | — |\n",
    );

    fn lines(findings: &[Finding]) -> Vec<(&str, usize)> {
        findings.iter().map(|finding| (finding.path.as_str(), finding.line)).collect()
    }

    #[test]
    fn the_world_is_seen_in_sources_of_pure_crates_only() {
        let text = "use std::net::TcpStream;\nfn f() { std::fs::remove_file(\"std::fs\") }\n// std::thread\n";
        let tree = Tree::of(&[
            TABLE,
            ("crates/task/src/a.rs", text),
            ("crates/net/src/a.rs", text),
            ("crates/sim/src/bin/sim.rs", text),
        ]);
        assert_eq!(lines(&pure_source(&tree)), [("crates/task/src/a.rs", 1), ("crates/task/src/a.rs", 2)]);
    }

    #[test]
    fn tests_may_use_hash_maps() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n";
        assert_eq!(pure_source(&Tree::of(&[TABLE, ("crates/task/src/a.rs", text)])), []);
    }

    #[test]
    fn each_pure_crate_has_the_same_clippy_file() {
        let tree = Tree::of(&[TABLE, ("crates/task/clippy.toml", "a = 1"), ("crates/sim/clippy.toml", "a = 2")]);
        assert_eq!(lines(&pure_clippy(&tree)), [("crates/task/clippy.toml", 0)]);
        let tree = Tree::of(&[TABLE, ("crates/task/clippy.toml", "a = 1")]);
        assert_eq!(lines(&pure_clippy(&tree)), [("crates/sim/clippy.toml", 0)]);
    }

    #[test]
    fn impure_libraries_stay_out() {
        let edge = |to: &str, dev| Edge { to: to.into(), own: false, dev };
        let task =
            Crate { name: "task".into(), edges: vec![edge("tokio", false), edge("rand", true)], ..Crate::default() };
        let tree = Tree { crates: vec![task], ..Tree::of(&[TABLE]) };
        assert_eq!(lines(&pure_libraries(&tree)), [("crates/task/Cargo.toml", 0)]);
    }
}

//! The crate graph: what cargo says against the table in ARCHITECTURE.md. The two must be equal, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;
use super::tree::Tree;
use crate::workspace::Crate;

const RULE: &str = "crate-graph";
const MAP: &str = "ARCHITECTURE.md";

/// The first cells of the table's head: tidy finds the table by them.
const HEAD: &str = "| crate | colour | imports |";

/// One row of the table.
pub(crate) struct Row {
    pub(crate) pure: bool,
    imports: BTreeSet<String>,
    line: usize,
}

/// The table: crate → row. Empty when there is none.
pub(crate) fn table(tree: &Tree) -> BTreeMap<String, Row> {
    let text = tree.text(MAP).unwrap_or_default();
    let lines = text.lines().enumerate().skip_while(|(_, line)| !line.starts_with(HEAD));
    lines.skip(2).take_while(|(_, line)| line.starts_with('|')).filter_map(row).collect()
}

/// `| roles | pure | task, session | … |`; `—` imports nothing.
fn row((index, line): (usize, &str)) -> Option<(String, Row)> {
    let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    let [_, name, colour, imports, ..] = cells.as_slice() else { return None };
    let imports = imports.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "—")).map(str::to_owned);
    Some(((*name).to_owned(), Row { pure: *colour == "pure", imports: imports.collect(), line: index + 1 }))
}

/// Every crate is in the table with exactly the edges that it has. A pure crate's tests use pure crates only.
pub(crate) fn crate_graph(tree: &Tree) -> Vec<Finding> {
    let table = table(tree);
    let missing = table.keys().filter(|name| !tree.crates.iter().any(|one| one.name == **name));
    let says = |name| format!("the table names crate `{name}`, which does not exist");
    let mut findings: Vec<Finding> = missing.map(|name| fail(table[name].line, says(name))).collect();
    for one in &tree.crates {
        match table.get(&one.name) {
            None => findings.push(fail(0, format!("crate `{}` is not in the table", one.name))),
            Some(row) => findings.extend(edges(one, row, &table)),
        }
    }
    findings
}

fn edges(one: &Crate, row: &Row, table: &BTreeMap<String, Row>) -> Vec<Finding> {
    let own = || one.edges.iter().filter(|edge| edge.own);
    let has: BTreeSet<String> = own().filter(|edge| !edge.dev).map(|edge| edge.to.clone()).collect();
    let name = &one.name;
    let new =
        has.difference(&row.imports).map(|to| format!("{name} → {to} is not in the table: a new edge is a decision"));
    let gone = row.imports.difference(&has).map(|to| format!("the table has {name} → {to}, Cargo.toml has not"));
    let impure = own()
        .filter(|edge| row.pure && edge.dev && table.get(&edge.to).is_some_and(|to| !to.pure))
        .map(|edge| format!("the tests of pure {name} depend on shell {}", edge.to));
    new.chain(gone).chain(impure).map(|says| fail(row.line, says)).collect()
}

fn fail(line: usize, says: String) -> Finding {
    Finding::fail(RULE, MAP, line, says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Edge;

    const TABLE: &str = "\
# Map
| crate | colour | imports | what |
|---|---|---|---|
| task | pure | — | keys |
| roles | pure | task | machines |
| net | shell | — | carriers |
";

    fn krate(name: &str, edges: &[(&str, bool)]) -> Crate {
        let edges = edges.iter().map(|(to, dev)| Edge { to: (*to).into(), own: true, dev: *dev }).collect();
        Crate { name: name.into(), edges, ..Crate::default() }
    }

    fn found(crates: Vec<Crate>) -> Vec<String> {
        let tree = Tree { crates, ..Tree::of(&[(MAP, TABLE)]) };
        crate_graph(&tree).into_iter().map(|finding| format!("{}: {}", finding.line, finding.says)).collect()
    }

    #[test]
    fn what_agrees_passes() {
        let roles = krate("roles", &[("task", false), ("task", true)]);
        assert_eq!(found(vec![krate("task", &[]), roles, krate("net", &[("task", true)])]), [""; 0]);
    }

    #[test]
    fn edges_and_crates_must_agree_both_ways() {
        let found = found(vec![krate("task", &[("net", false)]), krate("roles", &[("net", true)]), krate("edge", &[])]);
        let expected = [
            "6: the table names crate `net`, which does not exist",
            "4: task → net is not in the table: a new edge is a decision",
            "5: the table has roles → task, Cargo.toml has not",
            "5: the tests of pure roles depend on shell net",
            "0: crate `edge` is not in the table",
        ];
        assert_eq!(found, expected);
    }
}

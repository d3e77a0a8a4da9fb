//! Phrases that this code does without, and the results that it does not drop in silence.

use super::finding::Finding;
use super::token::{self, Token};
use super::tree::{RustFile, Tree};

/// Where a phrase is a finding.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Anywhere,
    Tests,
}

/// Phrases as tokens apart by spaces.
const PHRASES: [(&str, Place, &str); 8] = [
    ("# [ ignore", Place::Anywhere, "an ignored test proves nothing: mend it or delete it"),
    ("todo !", Place::Anywhere, "not finished"),
    ("unimplemented !", Place::Anywhere, "not finished"),
    ("unbounded_channel", Place::Anywhere, "every queue has a limit and a behaviour when full"),
    ("mpsc : : channel ( )", Place::Anywhere, "unbounded: every queue has a limit and a behaviour when full"),
    ("thread : : sleep", Place::Tests, "a test waits for an event, never for time"),
    ("time : : sleep", Place::Tests, "a test waits for an event, never for time"),
    ("time : : sleep_until", Place::Tests, "a test waits for an event, never for time"),
];

/// Each phrase wherever it stands, macro bodies included.
pub(crate) fn phrases(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        for (pattern, place, why) in PHRASES {
            let hits = token::find(&file.tokens, pattern).map(|index| &file.tokens[index]);
            let hits = hits.filter(|token| place == Place::Anywhere || token.test);
            findings.extend(hits.map(|token| fail(file, token, format!("`{}`: {why}", pattern.replace(' ', "")))));
        }
    }
    findings
}

/// `let _ = call(…)` without a comment that says why, and statements that end in `.ok();` or the like.
pub(crate) fn dropped_results(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().flat_map(|file| unexplained_lets(file).into_iter().chain(dropped(file))).collect()
}

fn unexplained_lets(file: &RustFile) -> Vec<Finding> {
    let hits = token::find(&file.tokens, "let _ =").filter(|index| calls_something(&file.tokens[*index..]));
    let hits = hits.map(|index| &file.tokens[index]).filter(|token| !file.is_explained(token.line));
    hits.map(|token| fail(file, token, "`let _ =` drops a result: say why in a comment, or handle it".to_owned()))
        .collect()
}

/// Whether the statement that begins here holds a call.
fn calls_something(tokens: &[Token]) -> bool {
    let Some(first) = tokens.first() else { return false };
    tokens.iter().take_while(|token| token.depth > first.depth || token.text != ";").any(|token| token.text == "(")
}

/// `call().ok();` as a statement of its own. `let x = call().ok();` is a conversion and stays.
fn dropped(file: &RustFile) -> Vec<Finding> {
    let hits =
        token::find(&file.tokens, ". ok ( ) ;").filter(|index| !is_used(&file.tokens[..*index], &file.tokens[*index]));
    let hits = hits.map(|index| &file.tokens[index]);
    hits.map(|token| fail(file, token, "`.ok();` drops an error in silence".to_owned())).collect()
}

/// Whether the expression before `end` is bound, returned or an argument.
fn is_used(before: &[Token], end: &Token) -> bool {
    let statement = before.iter().rev().take_while(|token| {
        token.depth > end.depth || (token.depth == end.depth && !matches!(token.text.as_str(), ";" | "," | "}"))
    });
    let mut here = statement.filter(|token| token.depth == end.depth);
    here.any(|token| matches!(token.text.as_str(), "=" | "let" | "return" | "break"))
}

fn fail(file: &RustFile, token: &Token, says: String) -> Finding {
    Finding::fail("phrase", &file.path, token.line, says)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: fn(&Tree) -> Vec<Finding>, text: &str) -> Vec<usize> {
        rule(&Tree::of(&[("crates/net/src/a.rs", text)])).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unfinished_and_unbounded_code_is_found() {
        for line in ["todo!()", "unimplemented!(\"later\")", "unbounded_channel::<u8>()", "std::sync::mpsc::channel()"]
        {
            assert_eq!(found(phrases, &format!("fn f() {{\n    {line};\n}}")), [2], "{line}");
        }
        assert_eq!(found(phrases, "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), [2]);
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        assert_eq!(found(phrases, "// todo!()\nfn f() -> &'static str { \"todo!()\" }"), [0; 0]);
    }

    #[test]
    fn sleep_is_found_in_tests_and_inside_macros() {
        let text =
            "fn f() { std::thread::sleep(d) }\n#[cfg(test)]\nmod tests {\nfn g() { m! { tokio::time::sleep(d) } }\n}";
        assert_eq!(found(phrases, text), [4]);
    }

    #[test]
    fn results_are_not_dropped_in_silence() {
        assert_eq!(found(dropped_results, "fn f() {\n    let _ = send(x);\n}"), [2]);
        assert_eq!(
            found(
                dropped_results,
                "fn f() {\n    // The peer is gone: nobody is left to tell.\n    let _ = send(x);\n}"
            ),
            [0; 0]
        );
        assert_eq!(found(dropped_results, "fn f() {\n    a.b(c)\n        .ok();\n}"), [3]);
        assert_eq!(
            found(dropped_results, "fn f() {\n    let x = a.b(|y| y.z()).ok();\n    self.x = b().ok();\n}"),
            [0; 0]
        );
    }
}

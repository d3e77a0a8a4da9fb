//! What was executed, told by the programs themselves: each appends a line when it begins and one before it answers.
//!
//! ```text
//! line   b|e  digest of the input  pid  token        one write(2) on O_APPEND, so lines never mix
//! answer digest token                                wrong bytes and borrowed answers are seen
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// Executions of one input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Executions {
    /// Tokens of those that began, in the order of their lines.
    pub begun: Vec<String>,
    /// Tokens of those that came to their answer.
    pub ended: Vec<String>,
}

/// Every line that there is, by digest.
pub(crate) type Ledger = BTreeMap<String, Executions>;

/// What identifies a body.
pub(crate) fn digest(body: &[u8]) -> String {
    blake3::hash(body).to_hex().as_str()[..24].to_owned()
}

/// Reads a ledger; one that is not there yet is empty. A line cut short (its writer was killed) says nothing.
pub(crate) fn read(path: &Path) -> anyhow::Result<Ledger> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut ledger = Ledger::new();
    for line in String::from_utf8_lossy(&bytes).split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [phase, digest, _pid, token] = words[..] else { continue };
        let of = ledger.entry(digest.to_owned()).or_default();
        if phase == "b" { &mut of.begun } else { &mut of.ended }.push(token.to_owned());
    }
    Ok(ledger)
}

/// Appends one line.
pub(crate) fn append(path: &Path, phase: char, digest: &str, token: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let line = format!("{phase} {digest} {} {token}\n", std::process::id());
    let written = file.write(line.as_bytes())?;
    anyhow::ensure!(written == line.len(), "the ledger took half a line");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_says_nothing() {
        let path = std::env::temp_dir().join(format!("torture-ledger-{}", std::process::id()));
        std::fs::write(&path, "b aa 1 t1\ne aa 1 t1\nb aa 2 t2\nb bb 3 t").unwrap();
        let ledger = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let of_aa = Executions { begun: vec!["t1".into(), "t2".into()], ended: vec!["t1".into()] };
        assert_eq!(ledger, Ledger::from([("aa".to_owned(), of_aa)]));
    }
}

//! The program that workers run, this very binary again: `torture program LEDGER PAUSE_MS`, its row on standard input.
//!
//! It appends to the ledger, waits, appends again and answers `DIGEST TOKEN`. It knows nothing of Sheaf. A row that
//! begins with `poison:` makes it misbehave as the word says (`crates/torture/src/program/bad.rs`).

pub(crate) mod bad;

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::ledger;

/// Runs once.
pub(crate) fn main(args: &[String]) -> anyhow::Result<()> {
    let [path, pause] = args else { anyhow::bail!("torture program LEDGER PAUSE_MS") };
    let mut body = Vec::new();
    std::io::stdin().lock().read_to_end(&mut body)?;
    let (path, digest, token) = (Path::new(path), ledger::digest(&body), token()?);
    ledger::append(path, 'b', &digest, &token)?;
    std::thread::sleep(Duration::from_millis(pause.parse().context("PAUSE_MS")?));
    if let Some(word) = bad::word(&body) {
        let answers = bad::misbehave(word, path)?;
        if !answers {
            return ledger::append(path, 'e', &digest, &token);
        }
    }
    ledger::append(path, 'e', &digest, &token)?;
    let mut out = std::io::stdout().lock();
    write!(out, "{digest} {token}")?;
    out.flush()?;
    Ok(())
}

/// Sixty-four random bits: no two executions share one.
fn token() -> anyhow::Result<String> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}

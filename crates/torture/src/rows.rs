//! The rows of a round, made from its seed: each body occurs once, so an execution and a sink row can be told to it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::ledger::digest;
use crate::seed::Rng;

/// Rows and their digests, by number from 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    bodies: Vec<String>,
    digests: Vec<String>,
}

impl Rows {
    /// So many rows of about so many bytes. `name` keeps those of two jobs apart.
    pub(crate) fn make(rng: &mut Rng, name: &str, count: u64, bytes: usize) -> Self {
        let mut rows = Self::default();
        for number in 1..=count {
            let mut body = format!("{name}-{number}-{:016x}", rng.next());
            while body.len() < bytes {
                body.push_str(&format!("{:016x}", rng.next()));
            }
            rows.push(body);
        }
        rows
    }

    /// Appends one row.
    pub(crate) fn push(&mut self, body: String) {
        self.digests.push(digest(body.as_bytes()));
        self.bodies.push(body);
    }

    pub(crate) fn count(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// Digest by row number.
    pub(crate) fn digests(&self) -> BTreeMap<u64, &str> {
        (1..).zip(self.digests.iter().map(String::as_str)).collect()
    }

    /// As a text file: a row a line.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text: String = self.bodies.iter().flat_map(|body| [body.as_str(), "\n"]).collect();
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

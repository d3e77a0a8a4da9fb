//! What happened, as a hash that two runs of a seed must share, and as text where someone wants to read it.

use sheaf_session::Micros;

/// What is kept of a run beside its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Nothing.
    Nothing,
    /// Every event and output of every machine.
    All,
    /// What somebody would tell of it.
    Story,
}

/// A running hash over every line, and the lines themselves where they are kept.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps its lines only if asked: they cost far more than the hash.
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep.then(Vec::new) }
    }

    /// Adds a line. The text is made only where it is kept; `facts` always enter the hash.
    pub(crate) fn note(&mut self, now: Micros, facts: &[u64], text: impl FnOnce() -> String) {
        self.mix(now.0);
        for fact in facts {
            self.mix(*fact);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {}", now.0 as f64 / 1e6, text()));
        }
    }

    /// The hash so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, where they were kept.
    pub(crate) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// A fact made of bytes.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hash = Trace::new(false);
    hash.mix(bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.mix(u64::from_le_bytes(word));
    }
    hash.hash()
}

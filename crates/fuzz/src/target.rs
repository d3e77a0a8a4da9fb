//! What is fuzzed: the list of targets, and what each must offer. It knows no way of making inputs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::targets::{journal, records, rows, session, task, words};

/// Something that reads bytes, with all that can be checked of how it does.
pub(crate) trait Target {
    /// Runs one input.
    ///
    /// # Errors
    /// What was wrong: a sentence that begins the same for the same fault.
    fn run(&mut self, input: &[u8]) -> Result<Shape, String>;
}

/// What a run looked like from outside, as a number: an input with a shape not seen before is kept and changed further.
/// It stands in for coverage, which the stable toolchain gives to `unsafe` code only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape(pub(crate) u64);

impl Shape {
    /// The shape of something hashable. Use coarse things: kinds, variants, logarithms of counts.
    pub(crate) fn of(thing: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        thing.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// How many bits a count has: coarse enough for a shape.
pub(crate) fn scale(count: usize) -> u32 {
    usize::BITS - count.leading_zeros()
}

/// A target by name.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Its part of the inputs of a run over all targets, of a hundred.
    pub(crate) share: u64,
    /// Words of its format.
    pub(crate) words: &'static [&'static [u8]],
    /// Makes it; the directory is its own.
    pub(crate) make: fn(&Path) -> Box<dyn Target>,
    /// Inputs made from real messages, segments and rows: what the corpus begins with.
    pub(crate) examples: fn() -> Vec<(String, Vec<u8>)>,
}

/// All targets.
pub(crate) static ALL: [Spec; 6] = [session::SPEC, task::SPEC, records::SPEC, journal::SPEC, rows::SPEC, words::SPEC];

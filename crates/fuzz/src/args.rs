//! What the command line says. It knows the names of the targets and nothing else of them.

use std::path::PathBuf;
use std::time::Duration;

use crate::target::{self, Spec};

pub(crate) const USAGE: &str = "\
usage: fuzz [--target NAME] [--inputs N | --minutes M] [--seed S]   a run over all targets, or one
       fuzz --target NAME --input FILE                              one input, from a file
       fuzz --examples [--target NAME]                              write anew the corpus' examples";

/// Inputs of a run that does not say how many: what CI runs.
const INPUTS: u64 = 1_000_000;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Start a child for each target and gather what they find.
    Parent,
    /// Fuzz one target in this process.
    Child,
    /// Write the examples into the corpus.
    Examples,
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// So many inputs, the corpus not counted.
    Inputs(u64),
    /// So long.
    Time(Duration),
}

/// The command line.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    pub(crate) target: Option<&'static Spec>,
    pub(crate) span: Span,
    pub(crate) seed: u64,
    pub(crate) input: Option<PathBuf>,
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Args {
    /// Reads the words behind the program's name.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self { mode: Mode::Parent, target: None, span: Span::Inputs(INPUTS), seed: 0, input: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} lacks its value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is no whole number"));
            match word.as_str() {
                "--target" => args.target = Some(named(&value()?)?),
                "--inputs" => args.span = Span::Inputs(number(value()?)?),
                "--minutes" => args.span = Span::Time(Duration::from_secs(number(value()?)?.saturating_mul(60))),
                "--seed" => args.seed = number(value()?)?,
                "--input" => args.input = Some(value()?.into()),
                "--examples" => args.mode = Mode::Examples,
                // For the parent's use.
                "--child" => args.mode = Mode::Child,
                _ => return Err(format!("`{word}` is unknown")),
            }
        }
        if args.target.is_none() && (args.input.is_some() || args.mode == Mode::Child) {
            return Err("--input needs --target".to_owned());
        }
        Ok(args)
    }

    /// The targets that are meant.
    pub(crate) fn targets(&self) -> Vec<&'static Spec> {
        self.target.map_or_else(|| target::ALL.iter().collect(), |one| vec![one])
    }
}

fn named(name: &str) -> Result<&'static Spec, String> {
    let names: Vec<&str> = target::ALL.iter().map(|spec| spec.name).collect();
    let found = target::ALL.iter().find(|spec| spec.name == name);
    found.ok_or_else(|| format!("`{name}` is no target: there are {}", names.join(", ")))
}

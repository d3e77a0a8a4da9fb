//! Inputs that are kept: the corpus in the repository, and failures beside the build. It knows no target's format.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::args::Args;
use crate::target::Spec;

/// The corpus of a target: examples made from real bytes, and inputs that once failed.
pub(crate) fn dir(spec: &Spec) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(spec.name)
}

/// Its inputs with their paths, by name.
pub(crate) fn load(spec: &Spec) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let dir = dir(spec);
    let entries = fs::read_dir(&dir).with_context(|| format!("the corpus {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort_unstable();
    paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path.clone(), bytes)).context("the corpus")).collect()
}

/// Writes anew the examples; inputs that once failed stay.
pub(crate) fn write_examples(args: &Args) -> Result<()> {
    for spec in args.targets() {
        let dir = dir(spec);
        fs::create_dir_all(&dir)?;
        for (name, bytes) in (spec.examples)() {
            fs::write(dir.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Where failures are kept, and where each target's last input lies while it runs.
pub(crate) fn failures() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = target.join("fuzz");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Keeps a failing input and says what repeats it.
pub(crate) fn keep(spec: &Spec, input: &[u8], says: &str) -> Result<()> {
    let path = failures()?.join(format!("{}-{:08x}.bin", spec.name, crc32c::crc32c(input)));
    fs::write(&path, input)?;
    println!("{}: {says}", spec.name);
    println!("    {} bytes, kept as {}", input.len(), path.display());
    println!("    repeat with: cargo xtask fuzz --target {} --input {}", spec.name, path.display());
    Ok(())
}

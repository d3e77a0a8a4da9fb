//! `cargo xtask bench peers`: builds `sheaf` and the programs that drive other queues in release, and hands over the
//! arguments. Knows no peer.

use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::workspace;

/// A workspace of its own, so that what it depends on is no matter of ours.
const MANIFEST: &str = "bench/peers/Cargo.toml";

/// Where its build, the servers' data and programs are, below the target directory.
const PLACE: &str = "peers";

/// Builds both, and measures.
///
/// # Errors
/// When something does not build, an option is unknown, or a measure fails.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let Some((_, rest)) = args.split_first().filter(|(what, _)| *what == "peers") else {
        bail!("say `cargo xtask bench peers`; what Sheaf alone can do tells `sheaf bench`");
    };
    let target = workspace::target_dir()?;
    let place = target.join(PLACE);
    build(&["build", "--quiet", "--release", "--package", "sheaf"])?;
    let own = place.to_string_lossy();
    build(&["build", "--quiet", "--release", "--locked", "--manifest-path", MANIFEST, "--target-dir", &own])?;
    let binary = |name: &str| format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let mut peers = Command::new(place.join("release").join(binary("peers")));
    peers.arg("--sheaf").arg(target.join("release").join(binary("sheaf")));
    peers.arg("--tools").arg(place.join("tools"));
    if !rest.iter().any(|one| one.starts_with("--dir")) {
        peers.arg("--dir").arg(place.join("data"));
    }
    let status = peers.args(rest).status().context("the programs do not start")?;
    ensure!(status.success(), "bench peers: {status}");
    Ok(())
}

fn build(argv: &[&str]) -> anyhow::Result<()> {
    let built = workspace::cargo().args(argv).status().context("cargo build")?;
    ensure!(built.success(), "cargo {}: {built}", argv.join(" "));
    Ok(())
}

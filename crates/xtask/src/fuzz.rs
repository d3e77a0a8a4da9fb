//! `cargo xtask fuzz`: hands its arguments to the fuzzer's binary, built in its own profile. Knows only how to build it.

use anyhow::{Context, ensure};

use crate::workspace;

/// What cargo is asked: the profile is a release that stops at broken invariants.
const ARGV: [&str; 9] = ["run", "--quiet", "--profile", "fuzz", "--package", "sheaf-fuzz", "--bin", "fuzz", "--"];

/// Runs the fuzzer.
///
/// # Errors
/// When it does not build, an option is unknown, or something was found.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let status = workspace::cargo().args(ARGV).args(args).status().context("cargo run")?;
    ensure!(status.success(), "cargo {} {}: {status}", ARGV.join(" "), args.join(" "));
    Ok(())
}

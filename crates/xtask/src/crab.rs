//! `cargo xtask crab`: what a commit must pass in `crates/crab`, which is a workspace of its own, how large crab is, and whether
//! Sheaf gets on with it.
//!
//! Its tests need the headers of OpenSSL. Where they are missing and cannot be installed, crab is checked with rustls instead, and
//! it is said that nobody checked the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::workspace;

/// Largest release binary with OpenSSL, in bytes: the promise of crab.
const SIZE_MAX: u64 = 450_000;
const DIRECTORY: &str = "crates/crab";
const WITH_RUSTLS: &str = "--no-default-features --features rustls";

/// Format, clippy, tests, and the size.
///
/// # Errors
/// At the first that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    let target = workspace::target_dir()?.join("crab");
    cargo("fmt --all -- --check")?;
    if has_headers() || install_headers() {
        check(&target, "--features plant,headers")?;
        let size = size(&target, "")?;
        check_behind_sheaf(&target)?;
        ensure!(size <= SIZE_MAX, "crab with OpenSSL has {size} bytes, {SIZE_MAX} at most");
        eprintln!("crab with OpenSSL: {size} bytes of {SIZE_MAX}; with rustls: {}", size_with_rustls(&target)?);
    } else {
        check(&target, "--no-default-features --features rustls,plant")?;
        let rustls = size_with_rustls(&target)?;
        eprintln!("crab with rustls: {rustls} bytes");
        eprintln!("LEFT OUT: crab with OpenSSL, for its headers are missing: apt-get install libssl-dev pkg-config");
    }
    Ok(())
}

fn check(target: &Path, features: &str) -> anyhow::Result<()> {
    let target = target.display();
    cargo(&format!("clippy --locked --workspace --target-dir {target} --all-targets {features} -- -D warnings"))?;
    cargo(&format!("test --locked --workspace --target-dir {target} {features}"))
}

/// A job over two crabs, one of which is killed.
fn check_behind_sheaf(target: &Path) -> anyhow::Result<()> {
    let built = workspace::cargo().args(["build", "--locked", "--quiet", "-p", "sheaf"]).status()?;
    ensure!(built.success(), "cargo build -p sheaf: {built}");
    let mut script = Command::new("sh");
    script.arg(workspace::root().join(DIRECTORY).join("two.sh"));
    script.arg(workspace::target_dir()?.join("debug/sheaf")).arg(target.join("release/crab"));
    let status = script.status()?;
    ensure!(status.success(), "{DIRECTORY}/two.sh: {status}");
    Ok(())
}

fn size_with_rustls(target: &Path) -> anyhow::Result<u64> {
    size(&target.join("rustls"), WITH_RUSTLS)
}

fn size(target: &Path, features: &str) -> anyhow::Result<u64> {
    cargo(&format!("build --locked --release --target-dir {} {features}", target.display()))?;
    let binary = target.join("release/crab");
    Ok(fs::metadata(&binary).with_context(|| binary.display().to_string())?.len())
}

/// Cargo in crab's directory, where its own configuration holds. Paths in `line` have no spaces, or it fails and says so.
fn cargo(line: &str) -> anyhow::Result<()> {
    let directory: PathBuf = workspace::root().join(DIRECTORY);
    let status = workspace::cargo().current_dir(directory).args(line.split_whitespace()).status()?;
    if !status.success() {
        bail!("in {DIRECTORY}: cargo {line}: {status}");
    }
    Ok(())
}

fn has_headers() -> bool {
    succeeds(Command::new("pkg-config").args(["--exists", "openssl"]))
}

/// Only root installs anything, and only where there is `apt-get`.
fn install_headers() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
        && succeeds(Command::new("apt-get").args([
            "install",
            "-y",
            "--no-install-recommends",
            "libssl-dev",
            "pkg-config",
        ]))
        && has_headers()
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

//! `cargo xtask torture`: builds `sheaf` and the torturer in release, and hands over the arguments. Knows no family.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::workspace;

/// Builds both, and tortures.
///
/// # Errors
/// When something does not build, an option is unknown, or a family fails.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    check(args)?;
    let build = ["build", "--quiet", "--release", "--package", "sheaf", "--package", "sheaf-torture"];
    let built = workspace::cargo().args(build).status().context("cargo build")?;
    ensure!(built.success(), "cargo {}: {built}", build.join(" "));
    let release = workspace::target_dir()?.join("release");
    let binary = |name: &str| -> PathBuf { release.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)) };
    let mut torture = Command::new(binary("torture"));
    torture.arg("--sheaf").arg(binary("sheaf")).args(args);
    let status = torture.status().context("the torturer does not start")?;
    ensure!(status.success(), "torture: {status}");
    Ok(())
}

fn check(args: &[String]) -> anyhow::Result<()> {
    let mut left = args.iter().map(String::as_str);
    while let Some(option) = left.next() {
        let known = ["--family", "--seed", "--minutes", "--cycles", "--rounds", "--dir"].contains(&option);
        ensure!(
            known && left.next().is_some(),
            "`{option}`: say --family F, --seed S, --minutes M, --cycles N, --rounds N or --dir DIR"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_half_options_are_refused() {
        let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        assert!(check(&words("--family kill --cycles 200 --seed 7")).is_ok());
        assert!(check(&words("--famly kill")).is_err());
        assert!(check(&words("--minutes")).is_err());
    }
}

//! `cargo xtask sim`: hands its arguments to the simulator's binary, built in release. Knows only how to build it.

use anyhow::{Context, ensure};

use crate::workspace;

const PACKAGE: &str = "sheaf-sim";
const BINARY: &str = "sim";
const MUTATIONS: &str = "mutations";

/// Whether there is a simulator to run.
///
/// # Errors
/// When cargo does not describe the workspace.
pub(crate) fn exists() -> anyhow::Result<bool> {
    let crates = workspace::crates()?;
    Ok(crates.iter().any(|one| one.package == PACKAGE && one.binaries.iter().any(|name| name == BINARY)))
}

/// Runs the simulator.
///
/// # Errors
/// When there is none, an option is unknown, it does not build, or a seed fails.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    ensure!(exists()?, "there is no simulator yet: binary `{BINARY}` of package {PACKAGE}");
    let argv = arguments(args)?;
    let status = workspace::cargo().args(&argv).status().context("cargo run")?;
    ensure!(status.success(), "cargo {}: {status}", argv.join(" "));
    Ok(())
}

/// The arguments of cargo. Mutations are compiled in only where one is asked for.
fn arguments(args: &[String]) -> anyhow::Result<Vec<String>> {
    check(args)?;
    let mut argv = vec!["run", "--quiet", "--release", "--package", PACKAGE, "--bin", BINARY];
    if args.iter().any(|arg| arg == "--mutate") {
        argv.extend(["--features", MUTATIONS]);
    }
    argv.push("--");
    Ok(argv.into_iter().map(str::to_owned).chain(args.iter().cloned()).collect())
}

fn check(args: &[String]) -> anyhow::Result<()> {
    let mut left = args.iter().map(String::as_str);
    while let Some(option) = left.next() {
        let known = match option {
            "--trace" | "--as-scenario" => true,
            "--seeds" | "--first" | "--seed" | "--mutate" | "--scenario" => left.next().is_some(),
            _ => false,
        };
        ensure!(
            known,
            "`{option}`: say --seeds N, --first S, --seed S, --scenario NAME|PATH, --as-scenario, --mutate NAME|list or --trace"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_mutation_is_compiled_in_only_when_asked_for() {
        let plain = arguments(&words("--seeds 10 --seed 7")).unwrap().join(" ");
        assert_eq!(plain, "run --quiet --release --package sheaf-sim --bin sim -- --seeds 10 --seed 7");
        let mutated = arguments(&words("--seeds 10 --mutate no-fence")).unwrap().join(" ");
        assert!(mutated.contains("--features mutations -- --seeds 10 --mutate no-fence"), "{mutated}");
    }

    #[test]
    fn unknown_and_half_options_are_refused() {
        assert!(arguments(&words("--sedes 10")).is_err());
        assert!(arguments(&words("--seeds")).is_err());
        assert!(arguments(&words("--first")).is_err());
        assert!(arguments(&words("--first 1000 --seeds 10")).is_ok());
        assert!(arguments(&words("--seed 7 --trace")).is_ok());
        assert!(arguments(&words("--seed 7 --as-scenario")).is_ok());
        assert!(arguments(&words("--scenario")).is_err());
    }
}

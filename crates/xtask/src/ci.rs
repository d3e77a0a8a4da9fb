//! `cargo xtask ci`: what a commit must pass, as a list of commands. Stops at the first failure and says how to repeat it.
//!
//! Steps are ordered by what they cost, so that a slip of the pen is found in seconds. They need nothing but Rust; crab also wants OpenSSL, and says so.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::workspace::{self, Crate};
use crate::{hot, sim, tidy};

/// Clusters that CI simulates: a minute or two of one core.
const SEEDS: &str = "2000";

/// One step: a command, or why it is left out.
struct Step {
    name: &'static str,
    action: Action,
}

/// What is on this machine besides Rust; without it the step is done otherwise, or left out and said to be.
#[derive(Clone, Copy, Default)]
struct Tools {
    nextest: bool,
    deny: bool,
    counter: bool,
}

enum Action {
    Cargo { env: Option<(&'static str, &'static str)>, args: Vec<String> },
    Tidy,
    Skip(&'static str),
}

/// Runs every step.
///
/// # Errors
/// At the first step that fails, with the command that repeats it.
pub(crate) fn run() -> anyhow::Result<()> {
    let tools = Tools { nextest: has("nextest"), deny: has("deny"), counter: hot::has_counter() };
    let steps = steps(&workspace::crates()?, tools, sim::exists()?);
    let mut done = Vec::new();
    for step in &steps {
        eprintln!("\n── {} ── {}", step.name, step.action.shown());
        let started = Instant::now();
        let result = step.action.run();
        let took = started.elapsed();
        eprintln!("── {}: {} in {:.1} s", step.name, if result.is_ok() { "ok" } else { "FAILED" }, took.as_secs_f64());
        if let Err(error) = result {
            bail!("{} failed: {error:#}\nrepeat it with: {}", step.name, step.action.shown());
        }
        done.push((step, took));
    }
    summarize(&done);
    Ok(())
}

fn steps(crates: &[Crate], tools: Tools, simulator: bool) -> Vec<Step> {
    let clippy = "clippy --workspace --all-targets -- -D warnings";
    vec![
        Step::cargo("format", "fmt --all -- --check"),
        Step { name: "tidy", action: Action::Tidy },
        Step::cargo("clippy", clippy),
        clippy_mutations(crates),
        Step::cargo("tests", test_command(tools.nextest)),
        Step::cargo("doc tests", "test --workspace --doc"),
        simulated_seeds(simulator),
        counted_instructions(tools.counter),
        Step::cargo("fuzz", "xtask fuzz"),
        Step::cargo("torture", "xtask torture"),
        Step::cargo("crab", "xtask crab"),
        dependencies(tools.deny),
        Step {
            name: "docs",
            action: Action::Cargo {
                env: Some(("RUSTDOCFLAGS", "-D warnings")),
                args: words("doc --workspace --no-deps --document-private-items"),
            },
        },
    ]
}

/// Code that is compiled only with a rule removed is linted too, or it rots.
fn clippy_mutations(crates: &[Crate]) -> Step {
    let with = crates.iter().filter(|one| one.features.iter().any(|feature| feature == "mutations"));
    let names: Vec<&str> = with.map(|one| one.package.as_str()).collect();
    if names.is_empty() {
        return Step { name: "clippy with mutations", action: Action::Skip("no crate has a feature `mutations` yet") };
    }
    let packages: String = names.iter().map(|name| format!(" -p {name}")).collect();
    let features: Vec<String> = names.iter().map(|name| format!("{name}/mutations")).collect();
    let line = format!("clippy{packages} --features {} --all-targets -- -D warnings", features.join(","));
    Step::cargo("clippy with mutations", &line)
}

fn test_command(nextest: bool) -> &'static str {
    if nextest { "nextest run --workspace" } else { "test --workspace --lib --bins --tests --examples" }
}

fn simulated_seeds(simulator: bool) -> Step {
    let action = if simulator {
        Action::Cargo { env: None, args: words(&format!("xtask sim --seeds {SEEDS}")) }
    } else {
        Action::Skip("there is no simulator yet: crates/sim/src/bin/sim.rs")
    };
    Step { name: "simulated seeds", action }
}

/// A count says the same on every load, so it may fail a build; a time would not.
fn counted_instructions(counter: bool) -> Step {
    let name = "counted instructions";
    if counter {
        return Step::cargo(name, "xtask hot");
    }
    Step { name, action: Action::Skip("valgrind is not installed: nobody counts what the hottest functions cost") }
}

/// What we depend on, as far as that can be judged without a network: advisories are not.
fn dependencies(deny: bool) -> Step {
    let name = "dependencies";
    if deny {
        return Step::cargo(name, "deny --offline check bans licenses sources");
    }
    Step { name, action: Action::Skip("cargo-deny is not installed: `cargo install cargo-deny --locked`") }
}

fn has(tool: &str) -> bool {
    let mut probe = workspace::cargo();
    probe.args([tool, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn summarize(done: &[(&Step, Duration)]) {
    eprintln!();
    for (step, took) in done {
        let verdict = if let Action::Skip(why) = step.action { format!("LEFT OUT: {why}") } else { "ok".to_owned() };
        eprintln!("{:>7.1} s  {:<22} {verdict}", took.as_secs_f64(), step.name);
    }
    let total: Duration = done.iter().map(|(_, took)| *took).sum();
    eprintln!("{:>7.1} s  all", total.as_secs_f64());
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

impl Step {
    fn cargo(name: &'static str, line: &str) -> Self {
        Self { name, action: Action::Cargo { env: None, args: words(line) } }
    }
}

impl Action {
    /// The command as one types it.
    fn shown(&self) -> String {
        match self {
            Action::Cargo { env: None, args } => format!("cargo {}", args.join(" ")),
            Action::Cargo { env: Some((name, value)), args } => format!("{name}='{value}' cargo {}", args.join(" ")),
            Action::Tidy => "cargo xtask tidy".to_owned(),
            Action::Skip(why) => format!("LEFT OUT: {why}"),
        }
    }

    fn run(&self) -> anyhow::Result<()> {
        match self {
            Action::Tidy => tidy::run(),
            Action::Skip(_) => Ok(()),
            Action::Cargo { env, args } => cargo(*env, args),
        }
    }
}

fn cargo(env: Option<(&str, &str)>, args: &[String]) -> anyhow::Result<()> {
    let status = workspace::cargo().args(args).envs(env).status().context("cargo does not start")?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(crates: &[Crate], tools: Tools, simulator: bool) -> Vec<String> {
        steps(crates, tools, simulator).iter().map(|step| step.action.shown()).collect()
    }

    #[test]
    fn mutations_are_linted_in_the_crates_that_have_them() {
        let roles = Crate { package: "sheaf-roles".into(), features: vec!["mutations".into()], ..Crate::default() };
        let net = Crate { package: "sheaf-net".into(), ..Crate::default() };
        let line = "cargo clippy -p sheaf-roles --features sheaf-roles/mutations --all-targets -- -D warnings";
        assert!(shown(&[roles, net], Tools::default(), true).contains(&line.to_owned()));
    }

    #[test]
    fn a_missing_simulator_is_said_loudly_and_a_present_one_is_run() {
        assert!(
            shown(&[], Tools::default(), false).iter().any(|line| line.starts_with("LEFT OUT: there is no simulator"))
        );
        assert!(shown(&[], Tools::default(), true).contains(&"cargo xtask sim --seeds 2000".to_owned()));
    }

    #[test]
    fn nextest_is_no_condition() {
        assert!(shown(&[], Tools::default(), true).iter().any(|line| line.starts_with("cargo test --workspace --lib")));
    }

    #[test]
    fn a_missing_judge_of_dependencies_is_said_loudly_and_a_present_one_is_asked() {
        let with = Tools { deny: true, ..Tools::default() };
        let is_missing = |line: &String| line.starts_with("LEFT OUT: cargo-deny");
        assert!(shown(&[], Tools::default(), true).iter().any(is_missing));
        assert!(shown(&[], with, true).iter().any(|line| line.starts_with("cargo deny")));
    }
}

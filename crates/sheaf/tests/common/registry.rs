//! Packages of other languages, installed once from their registries into cargo's directory for tests' files. Where an
//! interpreter or a registry is out of reach there is none, and the test says so and ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory that holds these Python packages (for PYTHONPATH), exactly these versions.
pub(crate) fn python(packages: &[&str]) -> Option<PathBuf> {
    has("python3")?;
    install("python", packages, |dir| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target"])
            .arg(dir);
        pip.args(packages);
        pip
    })
}

/// The same, of packages whose dependencies are all named: nothing else comes with them.
pub(crate) fn python_alone(packages: &[&str]) -> Option<PathBuf> {
    has("python3")?;
    install("python-alone", packages, |dir| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]).arg(dir);
        pip.args(packages);
        pip
    })
}

/// The directory that holds `node_modules` with these packages.
pub(crate) fn node(packages: &[&str]) -> Option<PathBuf> {
    has("node")?;
    install("node", packages, |dir| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
            .arg(dir)
            .args(packages);
        npm
    })
}

/// Whether there is such a program; says so where there is none.
pub(crate) fn has(program: &str) -> Option<()> {
    let probe = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if probe.is_ok_and(|status| status.success()) {
        return Some(());
    }
    eprintln!("SKIPPED: {program} is not installed");
    None
}

fn install(language: &str, packages: &[&str], command: impl FnOnce(&Path) -> Command) -> Option<PathBuf> {
    let name: String = packages.join("+").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{language}-{name}"));
    if place.exists() {
        return Some(place);
    }
    // Its name is only given to what is complete: tests run side by side, and are interrupted.
    let part = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let output = command(part.path()).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            let made = part.keep();
            if fs::rename(&made, &place).is_err() {
                assert!(place.exists(), "cannot keep {}", place.display());
                fs::remove_dir_all(made).expect("own directory");
            }
            Some(place)
        }
        Ok(output) => {
            eprintln!("SKIPPED: cannot install {packages:?}:\n{}", super::text(&output));
            None
        }
        Err(error) => {
            eprintln!("SKIPPED: cannot install {packages:?}: {error}");
            None
        }
    }
}

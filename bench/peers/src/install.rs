//! Whether the servers are there, and their installation where it was asked for. Names no place that packages come from:
//! `apt-get` and `pip` know theirs.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::peer::{Package, Profile, program};

/// What is missing of a peer, and how to get it.
///
/// # Errors
/// When it was to be installed, and that failed.
pub(crate) fn missing(profile: &Profile, tools: &Path, install: bool) -> Result<Option<String>> {
    let absent = |name: &&&str| program(name, tools).is_none();
    if install && profile.programs.iter().any(|name| absent(&name)) {
        fetch(profile.package, tools).with_context(|| format!("cannot install {}", profile.name))?;
    }
    let left = profile.programs.iter().find(absent);
    Ok(left.map(|name| format!("`{name}` is not installed; {}", advice(profile.package))))
}

fn advice(package: Package) -> String {
    match package {
        Package::Debian(name) => format!("as root `apt-get install {name}`, or add --install"),
        Package::Python(name) => format!("`pip install {name}`, or add --install"),
    }
}

fn fetch(package: Package, tools: &Path) -> Result<()> {
    let mut command = match package {
        Package::Debian(name) => {
            let mut command = Command::new("apt-get");
            command.args(["install", "--yes", "--no-install-recommends", name]);
            // At this run level no service that is installed gets started: we start our own.
            command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
            command
        }
        Package::Python(name) => {
            let mut command = Command::new("python3");
            command.args(["-m", "pip", "install", "--no-deps", "--target"]).arg(tools).arg(name);
            command
        }
    };
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

//! The workspace as cargo describes it: its crates, their edges and features. Reads no source.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// One crate of the workspace. `name` is the name of its directory under `crates/`: `task`, not `sheaf-task`.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) package: String,
    pub(crate) edges: Vec<Edge>,
    pub(crate) features: Vec<String>,
    pub(crate) binaries: Vec<String>,
}

/// A dependency. `to` is a directory name for a crate of the workspace, else a package name.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) to: String,
    pub(crate) own: bool,
    pub(crate) dev: bool,
}

/// The root of the checkout: where the workspace's `Cargo.toml` is.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cargo that runs us, at the root, with nothing on its standard input.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Asks cargo for the crates of the workspace. Needs no network.
///
/// # Errors
/// When cargo fails, or answers in an unknown shape.
pub(crate) fn crates() -> anyhow::Result<Vec<Crate>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages.iter().map(parse).collect()
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo fails, or answers in an unknown shape.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(metadata()?["target_directory"].as_str().context("target_directory")?))
}

fn metadata() -> anyhow::Result<Value> {
    let args = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let output = cargo().args(args).output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn parse(package: &Value) -> anyhow::Result<Crate> {
    let manifest = package["manifest_path"].as_str().context("manifest_path")?;
    let dependencies = package["dependencies"].as_array().context("dependencies")?;
    let targets = package["targets"].as_array().context("targets")?;
    Ok(Crate {
        name: directory(Path::new(manifest).parent()).context("manifest_path")?,
        package: package["name"].as_str().context("name")?.to_owned(),
        edges: dependencies.iter().map(edge).collect::<anyhow::Result<_>>()?,
        features: package["features"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default(),
        binaries: targets.iter().filter(|target| is_binary(target)).filter_map(name_of).collect(),
    })
}

fn edge(dependency: &Value) -> anyhow::Result<Edge> {
    let path = dependency["path"].as_str();
    let name = name_of(dependency).context("a dependency without a name")?;
    Ok(Edge {
        to: path.and_then(|path| directory(Some(Path::new(path)))).unwrap_or(name),
        own: path.is_some(),
        dev: dependency["kind"].as_str() == Some("dev"),
    })
}

fn is_binary(target: &Value) -> bool {
    target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"))
}

fn name_of(value: &Value) -> Option<String> {
    value["name"].as_str().map(str::to_owned)
}

fn directory(path: Option<&Path>) -> Option<String> {
    Some(path?.file_name()?.to_str()?.to_owned())
}

//! Sheaf itself, by its own `sheaf bench … --json`: the same measures, and the floor beside them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::drive::Load;
use crate::table::{Backlog, Latency, Roundtrip};

/// Figures of one `sheaf bench`, by name.
struct Figures(Value);

impl Figures {
    fn measure(sheaf: &Path, dir: &Path, what: &str, load: Load) -> Result<Self> {
        let mut command = Command::new(sheaf);
        command.args(["--json", "bench", what, "--tasks", &load.tasks.to_string(), "--body", &load.body.to_string()]);
        let output = command.arg("--dir").arg(dir).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot start {}", sheaf.display()))?;
        ensure!(output.status.success(), "sheaf bench {what}: {}", output.status);
        Ok(Self(serde_json::from_slice(&output.stdout).context("sheaf bench --json")?))
    }

    fn figure(&self, name: &str, field: &str) -> Result<f64> {
        let figures = self.0["figures"].as_array().context("no figures")?;
        let figure = figures.iter().find(|figure| figure["name"] == name);
        figure.and_then(|figure| figure[field].as_f64()).with_context(|| format!("no {field} of {name:?}"))
    }

    fn value(&self, name: &str) -> Result<f64> {
        self.figure(name, "value")
    }
}

const CPU: &str = "router CPU for 1,000 tasks";

pub(crate) fn roundtrip(sheaf: &Path, dir: &Path, load: Load) -> Result<Roundtrip> {
    let figures = Figures::measure(sheaf, dir, "roundtrip", load)?;
    Ok(Roundtrip {
        rate: figures.value("tasks")?,
        cpu_ms: figures.value(CPU)?,
        written: figures.value("written by the router, a task")?,
        floor: Some(figures.figure("tasks", "floor")?),
    })
}

pub(crate) fn latency(sheaf: &Path, dir: &Path, load: Load) -> Result<Latency> {
    let figures = Figures::measure(sheaf, dir, "latency", load)?;
    Ok(Latency { p50: figures.value("p50")?, p99: figures.value("p99")? })
}

/// Its memory is the most that it ever had, not what it had at the end, as of the others.
pub(crate) fn backlog(sheaf: &Path, dir: &Path, load: Load) -> Result<Backlog> {
    let figures = Figures::measure(sheaf, dir, "backlog", load)?;
    Ok(Backlog {
        rate: figures.value("submitted")?,
        cpu_ms: figures.value(CPU)?,
        tasks: load.tasks as f64,
        memory: figures.value("router memory at most")? * 1e6,
        disk: figures.value("on disk, a task")?,
        floor: Some(figures.figure("submitted", "floor")?),
    })
}

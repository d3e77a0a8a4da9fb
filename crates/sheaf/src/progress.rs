//! How far a run is: a bar on a terminal, plain lines otherwise, JSON lines for machines. All of it on standard error.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use sheaf_client::{Phase, Progress};

/// Shows progress as it comes.
pub(crate) struct Display {
    how: How,
    /// What the job's rows ask for.
    service: String,
}

enum How {
    /// On a terminal.
    Bar(ProgressBar),
    /// A line now and then.
    Lines {
        /// The last one.
        last: Option<Instant>,
    },
    /// The same as JSON.
    Json {
        /// The last one.
        last: Option<Instant>,
    },
}

/// Between two plain lines.
const LINES_EVERY: Duration = Duration::from_secs(5);

impl Display {
    /// As fits where standard error goes.
    pub(crate) fn new(json: bool, service: String) -> Self {
        let how = if json {
            How::Json { last: None }
        } else if stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            let style =
                ProgressStyle::with_template("{wide_bar} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            How::Bar(bar.with_style(style))
        } else {
            How::Lines { last: None }
        };
        Self { how, service }
    }

    /// Shows this, unless something was shown a moment ago.
    pub(crate) fn show(&mut self, progress: &Progress) {
        match &mut self.how {
            How::Bar(bar) => {
                match progress.rows {
                    Some(rows) => bar.set_length(rows),
                    None => bar.unset_length(),
                }
                bar.set_position(progress.done);
                bar.set_message(line(progress, &self.service));
            }
            How::Lines { last } => {
                if is_due(last) {
                    eprintln!("sheaf: {}", line(progress, &self.service));
                }
            }
            How::Json { last } => {
                if is_due(last) {
                    eprintln!("{}", as_json(progress, &self.service));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

fn is_due(last: &mut Option<Instant>) -> bool {
    // The first line only after a while: a short job says its audit line and nothing else.
    let since = last.get_or_insert_with(Instant::now);
    let due = since.elapsed() >= LINES_EVERY;
    if due {
        *since = Instant::now();
    }
    due
}

/// What nothing can go on without; `None` where it can.
fn waits_for(p: &Progress, service: &str) -> Option<String> {
    let is_waiting = p.phase == Phase::Running && p.connected && p.running == 0 && p.unserved > 0;
    is_waiting.then(|| nobody_offers(service))
}

/// Why rows of this service wait, where no worker is there for it.
pub(crate) fn nobody_offers(service: &str) -> String {
    format!("no worker offers `{service}`")
}

fn line(p: &Progress, service: &str) -> String {
    let total = p.rows.map_or_else(|| format!("{}+", p.scanned), |rows| rows.to_string());
    let mut text = format!("{} of {total} rows, {:.1} rows/s", p.done, p.rate);
    if let Some((best, worst)) = p.eta {
        text += &format!(", {} left", range(best, worst));
    }
    for (count, word) in [(p.running, "in flight"), (p.failed, "failed"), (p.cached, "cached")] {
        if count > 0 {
            text += &format!(", {count} {word}");
        }
    }
    match p.phase {
        Phase::Reconciling => text += ", comparing with what is there",
        Phase::Draining => text += ", finishing what runs",
        Phase::Finishing => text += ", finishing the output",
        Phase::Running if !p.connected => text += ", waiting for the router",
        Phase::Running => {}
    }
    if let Some(why) = waits_for(p, service) {
        text += &format!(", waiting: {why}");
    }
    text
}

fn range(best: u64, worst: u64) -> String {
    let (best, worst) = (span(best), span(worst));
    if best == worst { best } else { format!("{best} to {worst}") }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

fn as_json(p: &Progress, service: &str) -> serde_json::Value {
    json!({
        "progress": {
            "rows": p.rows, "scanned": p.scanned, "done": p.done, "failed": p.failed, "resumed": p.resumed,
            "cached": p.cached, "running": p.running, "rate": p.rate, "connected": p.connected,
            "waiting": waits_for(p, service),
            "eta_s": p.eta.map(|(best, worst)| [best, worst]),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_there_is_to_say() {
        let progress = Progress {
            phase: Phase::Running,
            rows: Some(100),
            done: 40,
            failed: 1,
            running: 4,
            connected: true,
            rate: 2.5,
            eta: Some((24, 240)),
            ..Progress::default()
        };
        assert_eq!(line(&progress, "tag"), "40 of 100 rows, 2.5 rows/s, 24 s to 4 min left, 4 in flight, 1 failed");
    }

    #[test]
    fn says_that_nobody_is_there_to_work_and_only_then() {
        let waits = |running, unserved| {
            let progress =
                Progress { phase: Phase::Running, connected: true, running, unserved, ..Progress::default() };
            (line(&progress, "tag").contains("`tag`"), as_json(&progress, "tag")["progress"]["waiting"].is_string())
        };
        assert_eq!(waits(0, 2), (true, true));
        assert_eq!(waits(0, 0), (false, false));
        assert_eq!(waits(1, 2), (false, false));
    }
}

//! How far a run is: a bar on a terminal, plain lines otherwise, JSON lines for machines. All of it on standard error.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use sheaf_client::{Phase, Progress};

/// Shows progress as it comes.
pub(crate) enum Display {
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
    pub(crate) fn new(json: bool) -> Self {
        if json {
            Display::Json { last: None }
        } else if stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            let style =
                ProgressStyle::with_template("{wide_bar} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            Display::Bar(bar.with_style(style))
        } else {
            Display::Lines { last: None }
        }
    }

    /// Shows this, unless something was shown a moment ago.
    pub(crate) fn show(&mut self, progress: &Progress) {
        match self {
            Display::Bar(bar) => {
                match progress.rows {
                    Some(rows) => bar.set_length(rows),
                    None => bar.unset_length(),
                }
                bar.set_position(progress.done);
                bar.set_message(line(progress));
            }
            Display::Lines { last } => {
                if is_due(last) {
                    eprintln!("sheaf: {}", line(progress));
                }
            }
            Display::Json { last } => {
                if is_due(last) {
                    eprintln!("{}", as_json(progress));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Display::Bar(bar) = self {
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

fn line(p: &Progress) -> String {
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

fn as_json(p: &Progress) -> serde_json::Value {
    json!({
        "progress": {
            "rows": p.rows, "scanned": p.scanned, "done": p.done, "failed": p.failed, "resumed": p.resumed,
            "cached": p.cached, "running": p.running, "rate": p.rate, "connected": p.connected,
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
        assert_eq!(line(&progress), "40 of 100 rows, 2.5 rows/s, 24 s to 4 min left, 4 in flight, 1 failed");
    }
}

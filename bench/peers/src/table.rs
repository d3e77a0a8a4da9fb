//! What was measured, medians of several runs, and the tables that are shown.

/// The peer that others are compared with.
pub(crate) const REFERENCE: &str = "Redis streams, always";

/// What stands where nothing was measured.
const NOTHING: &str = "–";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Roundtrip {
    /// Tasks a second.
    pub(crate) rate: f64,
    /// The server's processor time for 1,000 tasks, milliseconds.
    pub(crate) cpu_ms: f64,
    /// Bytes that the server wrote, a task.
    pub(crate) written: f64,
    /// The rate of a bare broker, where it was measured.
    pub(crate) floor: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backlog {
    /// Tasks a second.
    pub(crate) rate: f64,
    /// The server's processor time for 1,000 tasks, milliseconds.
    pub(crate) cpu_ms: f64,
    /// How many were submitted.
    pub(crate) tasks: f64,
    /// The server's memory, bytes.
    pub(crate) memory: f64,
    /// Bytes of its files, a task.
    pub(crate) disk: f64,
    /// The rate of bare appends, where it was measured.
    pub(crate) floor: Option<f64>,
}

/// One run of all three.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) roundtrip: Option<Roundtrip>,
    pub(crate) latency: Option<Latency>,
    pub(crate) backlog: Option<Backlog>,
    /// What a small append and its sync took just before each measure, microseconds: how fast the disk was at that time.
    pub(crate) sync_us: Vec<f64>,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) synced: bool,
    pub(crate) runs: Vec<Run>,
    /// Why nothing was measured.
    pub(crate) missing: Option<String>,
}

impl Row {
    fn roundtrip(&self, of: fn(&Roundtrip) -> f64) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| run.roundtrip.as_ref()).map(of).collect())
    }

    fn latency(&self, of: fn(&Latency) -> f64) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| run.latency.as_ref()).map(of).collect())
    }

    fn backlog(&self, of: fn(&Backlog) -> f64) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| run.backlog.as_ref()).map(of).collect())
    }
}

/// All rows as Markdown, those that are missing below.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let reference = rows.iter().find(|row| row.name == REFERENCE).and_then(|row| row.roundtrip(|run| run.rate));
    let floors = rows.iter().flat_map(|row| &row.runs).filter_map(|run| run.roundtrip?.floor).collect();
    let floor = median(floors);
    let head = [
        "",
        "synced",
        "roundtrip /s",
        "to Redis",
        "to floor",
        "CPU ms/1,000",
        "written B",
        "p50 µs",
        "p99 µs",
        "backlog /s",
        "memory MB",
        "disk B",
        "a sync µs",
    ];
    let mut lines = vec![line(head.map(str::to_owned)), line(head.map(|_| "---".to_owned()))];
    for row in rows.iter().filter(|row| row.missing.is_none()) {
        let rate = row.roundtrip(|run| run.rate);
        let ratio = |to: Option<f64>| rate.zip(to).map(|(rate, to)| rate / to);
        let synced = if row.synced { "yes" } else { "NO" };
        lines.push(line([
            row.name.clone(),
            synced.to_owned(),
            whole(rate),
            fraction(ratio(reference)),
            fraction(ratio(floor)),
            fraction(row.roundtrip(|run| run.cpu_ms)),
            whole(row.roundtrip(|run| run.written)),
            whole(row.latency(|run| run.p50)),
            whole(row.latency(|run| run.p99)),
            whole(row.backlog(|run| run.rate)),
            fraction(row.backlog(|run| run.memory / 1e6)),
            whole(row.backlog(|run| run.disk)),
            whole(median(row.runs.iter().flat_map(|run| run.sync_us.iter().copied()).collect())),
        ]));
    }
    for row in rows {
        lines.extend(row.missing.as_ref().map(|why| format!("\nNOT MEASURED: {}: {why}", row.name)));
    }
    lines.join("\n")
}

fn line<const N: usize>(cells: [String; N]) -> String {
    format!("| {} |", cells.join(" | "))
}

fn whole(value: Option<f64>) -> String {
    value.map_or(NOTHING.to_owned(), |value| thousands(&format!("{value:.0}")))
}

fn fraction(value: Option<f64>) -> String {
    value.map_or(NOTHING.to_owned(), |value| if value < 100.0 { format!("{value:.2}") } else { whole(Some(value)) })
}

/// Three digits together.
fn thousands(digits: &str) -> String {
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Programs a second, by who starts them.
pub(crate) fn programs(rates: &[(&str, f64)]) -> String {
    let mut lines = vec![line(["", "programs /s"].map(str::to_owned)), line(["---"; 2].map(str::to_owned))];
    lines.extend(rates.iter().map(|(name, rate)| line([(*name).to_owned(), whole(Some(*rate))])));
    lines.join("\n")
}

/// The value that as many lie above as below; the upper of two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Of sorted values, the one that a share `p` of them does not exceed. At least one value.
pub(crate) fn percentile(sorted: &[f64], p: f64) -> f64 {
    let rank = (sorted.len() as f64 * p).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, rates: &[f64], floor: Option<f64>) -> Row {
        let run = |rate: &f64| Run {
            roundtrip: Some(Roundtrip { rate: *rate, cpu_ms: 1.0, written: 400.0, floor }),
            ..Run::default()
        };
        Row { name: name.to_owned(), synced: true, runs: rates.iter().map(run).collect(), missing: None }
    }

    #[test]
    fn ratios_are_those_of_medians() {
        let rows = [row("Sheaf", &[900.0, 3_000.0, 1_200.0], Some(6_000.0)), row(REFERENCE, &[600.0], None)];
        let table = markdown(&rows);
        let lines: Vec<&str> = table.lines().collect();
        let cells = lines.iter().map(|line| line.split('|').count()).collect::<Vec<_>>();
        assert_eq!(cells, [cells[0]; 4], "{table}");
        assert!(lines[2].starts_with("| Sheaf | yes | 1,200 | 2.00 | 0.20 | 1.00 | 400 | – |"), "{table}");
        assert!(lines[3].contains("| 600 | 1.00 | 0.10 |"), "{table}");
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let row = Row { missing: Some("no such program".to_owned()), ..row("Other", &[], None) };
        assert!(markdown(&[row]).contains("NOT MEASURED: Other: no such program"));
    }
}

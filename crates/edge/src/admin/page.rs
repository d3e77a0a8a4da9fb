//! Prometheus' text format. Written by hand: every number is read at the time of the scrape from whoever counts it, so a
//! registry would be a second copy of all of them.
//!
//! Invariants: the samples of a family stand together, under its help and its type; a name is said once.

use std::fmt::{Display, Write};

/// A page of metrics.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Page {
    /// The text.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// One number that only grows. Its name ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, Kind::Counter);
        self.sample(name, &[], value);
    }

    /// One number.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, Kind::Gauge);
        self.sample(name, &[], value);
    }

    /// Numbers that only grow, told apart by a label.
    pub(super) fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        of: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, Kind::Counter);
        of.into_iter().for_each(|(value, count)| self.sample(name, &[(label, value)], count));
    }

    /// Numbers that only grow, told apart by two labels.
    pub(super) fn counters_by<'a>(
        &mut self,
        name: &str,
        help: &str,
        of: impl IntoIterator<Item = ([(&'a str, &'a str); 2], u64)>,
    ) {
        self.head(name, help, Kind::Counter);
        of.into_iter().for_each(|(labels, count)| self.sample(name, &labels, count));
    }

    /// Numbers told apart by a label.
    pub(super) fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        of: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, Kind::Gauge);
        of.into_iter().for_each(|(value, count)| self.sample(name, &[(label, value)], count));
    }

    /// Counts by powers of two of `unit`: number n is of what is at most 2ⁿ units, the last one of whatever is larger.
    /// Those below `first` are told together.
    pub(super) fn histogram(&mut self, name: &str, help: &str, first: usize, (unit, counts, sum): (f64, &[u64], u64)) {
        self.head(name, help, Kind::Histogram);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        let Some((_, ends)) = counts.split_last() else { return };
        for (power, count) in ends.iter().enumerate() {
            below += count;
            if power >= first {
                let end = ((1_u64 << power) as f64 * unit).to_string();
                self.sample(&bucket, &[("le", &end)], below);
            }
        }
        let all = counts.iter().sum::<u64>();
        self.sample(&bucket, &[("le", "+Inf")], all);
        self.sample(&format!("{name}_sum"), &[], sum as f64 * unit);
        self.sample(&format!("{name}_count"), &[], all);
    }

    fn head(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One sample of the family that was begun last.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        #[expect(clippy::expect_used, reason = "text in memory takes what is written to it")]
        writeln!(self.0, "{line}").expect("a String grows");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_upwards() {
        let mut page = Page::default();
        page.histogram("x_seconds", "How long.", 1, (0.001, &[1, 2, 3, 4], 25));
        let expected = "# HELP x_seconds How long.\n# TYPE x_seconds histogram\n\
            x_seconds_bucket{le=\"0.002\"} 3\nx_seconds_bucket{le=\"0.004\"} 6\nx_seconds_bucket{le=\"+Inf\"} 10\n\
            x_seconds_sum 0.025\nx_seconds_count 10\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn whatever_a_worker_is_called_it_stays_in_its_quotes() {
        let mut page = Page::default();
        page.gauges("x", "Names.", "worker", [("a\"} 1\nb\\", 2)]);
        assert_eq!(page.into_text(), "# HELP x Names.\n# TYPE x gauge\nx{worker=\"a\\\"} 1\\nb\\\\\"} 2\n");
    }
}

//! Figures, the median of several runs, and how they are shown.

use serde_json::json;

/// One thing measured.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// The same without Sheaf, measured in the same run.
    pub floor: Option<f64>,
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, floor: None }
    }

    pub(super) fn against(self, floor: f64) -> Self {
        Self { floor: Some(floor), ..self }
    }
}

/// The median of each figure. Every run yields the same figures in the same order, but for those that the system did not
/// tell.
pub(super) fn medians(runs: &[Vec<Figure>]) -> Vec<Figure> {
    let Some(first) = runs.first() else { return Vec::new() };
    let median_of = |figure: &Figure| {
        let same = || runs.iter().flatten().filter(|other| other.name == figure.name);
        Figure {
            value: median(same().map(|other| other.value).collect()),
            floor: figure.floor.map(|_| median(same().filter_map(|other| other.floor).collect())),
            ..figure.clone()
        }
    };
    first.iter().map(median_of).collect()
}

/// The value that as many lie above as below; the upper of two. At least one value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Of sorted values, the one that a share `p` of them does not exceed. At least one value.
pub(super) fn percentile(sorted: &[f64], p: f64) -> f64 {
    let rank = (sorted.len() as f64 * p).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// A line a figure.
pub(super) fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let line = |figure: &Figure| {
        let floor = figure.floor.map_or_else(String::new, |floor| {
            format!("   floor {:>12}   ratio {:.3}", number(floor), figure.value / floor)
        });
        format!("{:width$}  {:>12} {:<8}{floor}", figure.name, number(figure.value), figure.unit).trim_end().to_owned()
    };
    figures.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The same for machines.
pub(super) fn as_json(bench: &str, runs: u32, figures: &[Figure]) -> serde_json::Value {
    let figure = |figure: &Figure| {
        json!({
            "name": figure.name, "value": figure.value, "unit": figure.unit, "floor": figure.floor,
            "ratio": figure.floor.map(|floor| figure.value / floor),
        })
    };
    json!({ "bench": bench, "runs": runs, "figures": figures.iter().map(figure).collect::<Vec<_>>() })
}

/// Three digits that count, and thousands apart.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read() {
        assert_eq!(number(0.267), "0.27");
        assert_eq!(number(999.7), "1,000");
        assert_eq!(number(137_042.3), "137,042");
    }

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let run = |a: f64, b: f64| vec![Figure::new("a", a, "s"), Figure::new("b", b, "s").against(2.0 * b)];
        let medians = medians(&[run(1.0, 9.0), run(3.0, 7.0), run(2.0, 8.0)]);
        assert_eq!((medians[0].value, medians[1].value, medians[1].floor), (2.0, 8.0, Some(16.0)));
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 0.999, 1.0].map(|p| percentile(&values, p)), [500.0, 990.0, 999.0, 1_000.0]);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
    }
}

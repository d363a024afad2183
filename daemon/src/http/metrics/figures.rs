//! The text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;

use comity::METER_BOUNDS_US;

/// Families of figures, each with its lines together as the format wants.
#[derive(Default)]
pub(super) struct Figures {
    families: BTreeMap<&'static str, String>,
}

impl Figures {
    fn family(&mut self, name: &'static str, kind: &str, about: &str) -> &mut String {
        let header = || format!("# HELP {name} {about}\n# TYPE {name} {kind}\n");
        self.families.entry(name).or_insert_with(header)
    }

    /// One figure.
    pub(super) fn one(
        &mut self,
        name: &'static str,
        kind: &str,
        about: &str,
        labels: &[(&str, String)],
        value: u64,
    ) {
        let labels = rendered(labels);
        let _ = writeln!(self.family(name, kind, about), "{name}{labels} {value}");
    }

    /// Durations by class, as [`comity::Histogram`] has them, and their sum in microseconds.
    pub(super) fn histogram(&mut self, name: &'static str, about: &str, (counts, sum_us): (&[u64], u64)) {
        let family = self.family(name, "histogram", about);
        let mut below = 0;
        for (count, bound_us) in counts.iter().zip(METER_BOUNDS_US) {
            below += count;
            let _ = writeln!(family, "{name}_bucket{{le=\"{}\"}} {below}", bound_us as f64 / 1e6);
        }
        let all: u64 = counts.iter().sum();
        let _ = writeln!(family, "{name}_bucket{{le=\"+Inf\"}} {all}");
        let _ = writeln!(family, "{name}_sum {}\n{name}_count {all}", sum_us as f64 / 1e6);
    }

    pub(super) fn finish(self) -> String {
        self.families.into_values().collect()
    }
}

fn rendered(labels: &[(&str, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let one = |(name, value): &(&str, String)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    format!("{{{}}}", labels.iter().map(one).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_the_text_format() {
        let mut figures = Figures::default();
        figures.one("b", "gauge", "About b", &[("x", "a\"\\\n".to_owned())], 2);
        figures.histogram("a", "About a", (&[1, 0, 2], 1_500_000));
        figures.one("b", "gauge", "About b", &[], 3);
        let text = figures.finish();
        assert!(
            text.starts_with("# HELP a About a\n# TYPE a histogram\na_bucket{le=\"0.00005\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("a_bucket{le=\"+Inf\"} 3\na_sum 1.5\na_count 3\n"), "{text}");
        assert!(text.ends_with("# TYPE b gauge\nb{x=\"a\\\"\\\\\\n\"} 2\nb 3\n"), "{text}");
    }
}

//! The Prometheus text exposition format, read.

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Over the text of a scrape.
    pub fn new(text: String) -> Self {
        Self { text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The sum of all series of a name whose labels contain every given one; `None` when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut total = None;
        for line in self.text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            if series_name != name || !has_all(series_labels, labels) {
                continue;
            }
            *total.get_or_insert(0.0) += value.parse::<f64>().unwrap_or(f64::NAN);
        }
        total
    }

    /// As [`Metrics::sum`], with 0 for no series.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels).unwrap_or(0.0)
    }

    /// The names that have a `# TYPE` line, with the type.
    pub fn families(&self) -> Vec<(&str, &str)> {
        self.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
    }

    /// Whether the name has a `# HELP` line that says something.
    pub fn has_help(&self, name: &str) -> bool {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
            .any(|(n, help)| n == name && !help.trim().is_empty())
    }

    /// Number of series of a name.
    pub fn series(&self, name: &str) -> usize {
        self.text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).count()
    }
}

fn has_all(series_labels: &str, wanted: &[(&str, &str)]) -> bool {
    let inside = series_labels.trim_end_matches('}');
    wanted.iter().all(|(key, value)| {
        let pair = format!("{key}=\"{value}\"");
        inside.match_indices(&pair).any(|(at, _)| at == 0 || inside.as_bytes()[at - 1] == b',')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_their_labels() {
        let m = Metrics::new(
            "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\n\
             a_total{ax=\"1\"} 100\nb 1\n"
                .to_owned(),
        );
        assert_eq!(m.sum("a_total", &[("x", "1")]), Some(7.0));
        assert_eq!(m.sum("a_total", &[("x", "1"), ("y", "3")]), Some(4.0));
        assert_eq!(m.sum("b", &[]), Some(1.0));
        assert_eq!(m.sum("c", &[]), None);
        assert_eq!(m.families(), [("a_total", "counter")]);
        assert!(m.has_help("a_total") && !m.has_help("b"));
        assert_eq!(m.series("a_total"), 3);
    }
}

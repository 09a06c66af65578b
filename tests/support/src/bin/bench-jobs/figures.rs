//! Durations, and what they come to.

use std::fmt;
use std::time::Duration;

/// Durations that were measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<Duration>);

impl Figures {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// The smallest that so many of a hundred do not exceed (nearest rank).
    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Median and longest.
    pub(crate) fn ends(&self) -> String {
        format!("{} ms, {} ms", millis(self.percentile(50)), millis(self.percentile(100)))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms, {} ms", millis(self.percentile(50)), millis(self.percentile(99)))
    }
}

/// Milliseconds, with tenths where they say something.
fn millis(took: Duration) -> String {
    let millis = took.as_secs_f64() * 1000.0;
    if millis < 20.0 { format!("{millis:.1}") } else { format!("{millis:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut figures = Figures::default();
        (1..=200).rev().for_each(|ms| figures.add(Duration::from_millis(ms)));
        assert_eq!(figures.percentile(50), Duration::from_millis(100));
        assert_eq!(figures.percentile(99), Duration::from_millis(198));
        assert_eq!(figures.percentile(100), Duration::from_millis(200));
        assert_eq!(figures.to_string(), "100 ms, 198 ms");
        assert_eq!(Figures::default().ends(), "0.0 ms, 0.0 ms");
    }
}

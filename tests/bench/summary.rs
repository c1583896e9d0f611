//! From samples to the numbers that are printed: percentiles, and the ratio of a metric between a size and ten times it.

use std::time::Duration;

use crate::delivery::Verdict;

/// Durations of single operations. All are kept (a run has some ten thousand), so percentiles are exact.
#[derive(Debug, Default, Clone)]
pub struct Latencies {
    samples: Vec<Duration>,
}

impl Latencies {
    /// Adds one operation.
    pub fn push(&mut self, sample: Duration) {
        self.samples.push(sample);
    }

    /// Adds all operations of another collection.
    pub fn merge(&mut self, other: Self) {
        self.samples.extend(other.samples);
    }

    /// How many operations were measured.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// The smallest sample that at least `percent` per cent of the samples do not exceed (nearest rank);
    /// `None` without samples. With few samples a high percentile is the largest sample.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

/// One number of a run. The name ends with its unit, as in `latency_p50_ms`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Name in JSON; the table prints it with spaces.
    pub name: String,
    /// The value in the unit that the name ends with.
    pub value: f64,
}

/// What a scenario measured at one size.
#[derive(Debug, Default)]
pub struct Run {
    /// What the scenario counts: messages, rooms, members, waiting syncs.
    pub size: usize,
    /// In the order in which they are printed.
    pub metrics: Vec<Metric>,
    /// Whether all that was acknowledged was also delivered.
    pub verdict: Verdict,
    /// Why the first of the requests to send that failed did so.
    pub first_failure: Option<String>,
}

impl Run {
    /// A run of this size that has measured nothing yet.
    pub fn new(size: usize) -> Self {
        Self { size, ..Self::default() }
    }

    /// Adds a number.
    pub fn metric(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.push(Metric { name: name.into(), value });
    }

    /// Adds a number that may not have been measurable.
    pub fn metric_if(&mut self, name: impl Into<String>, value: Option<f64>) {
        if let Some(value) = value {
            self.metric(name, value);
        }
    }

    /// Adds the median and the 99th percentile, `<prefix>_p50_ms` and `<prefix>_p99_ms`.
    pub fn latencies(&mut self, prefix: &str, latencies: &Latencies) {
        for percent in [50.0, 99.0] {
            let value = latencies.percentile(percent).map(milliseconds);
            self.metric_if(format!("{prefix}_p{percent}_ms"), value);
        }
    }
}

/// A metric at both sizes. Either side may be missing.
#[derive(Debug, PartialEq)]
pub struct Comparison<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// Its value at the size N.
    pub small: Option<f64>,
    /// Its value at the size 10 N.
    pub large: Option<f64>,
}

impl Comparison<'_> {
    /// How often the small value fits in the large one; `None` if there is nothing to divide by.
    pub fn ratio(&self) -> Option<f64> {
        let ratio = self.large? / self.small?;
        ratio.is_finite().then_some(ratio)
    }
}

/// Pairs the metrics of two runs by name, in the order of the first, then those that only the second has.
pub fn compare<'a>(small: &'a Run, large: &'a Run) -> Vec<Comparison<'a>> {
    let value = |run: &Run, name: &str| run.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value);
    let only_large = large.metrics.iter().filter(|metric| value(small, &metric.name).is_none());
    small
        .metrics
        .iter()
        .chain(only_large)
        .map(|metric| Comparison { name: &metric.name, small: value(small, &metric.name), large: value(large, &metric.name) })
        .collect()
}

/// A duration in milliseconds, with fraction.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn latencies(milliseconds: impl IntoIterator<Item = u64>) -> Latencies {
        Latencies { samples: milliseconds.into_iter().map(Duration::from_millis).collect() }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let hundred = latencies((1..=100).rev());
        assert_eq!(hundred.percentile(50.0), Some(Duration::from_millis(50)));
        assert_eq!(hundred.percentile(99.0), Some(Duration::from_millis(99)));
        assert_eq!(hundred.percentile(100.0), Some(Duration::from_millis(100)));
        assert_eq!(hundred.percentile(0.0), Some(Duration::from_millis(1)));
    }

    #[test]
    fn few_samples_still_have_percentiles() {
        assert_eq!(latencies([]).percentile(50.0), None);
        assert_eq!(latencies([7]).percentile(50.0), Some(Duration::from_millis(7)));
        assert_eq!(latencies([7]).percentile(99.0), Some(Duration::from_millis(7)));
        assert_eq!(latencies([1, 2, 3]).percentile(50.0), Some(Duration::from_millis(2)));
        assert_eq!(latencies([1, 2, 3]).percentile(99.0), Some(Duration::from_millis(3)));
    }

    #[test]
    fn merged_samples_count_alike() {
        let mut one = latencies([1, 2]);
        one.merge(latencies([3, 4]));
        one.push(Duration::from_millis(5));
        assert_eq!(one.len(), 5);
        assert_eq!(one.percentile(50.0), Some(Duration::from_millis(3)));
    }

    #[test]
    fn latencies_become_two_metrics() {
        let mut run = Run::new(1);
        run.latencies("latency", &latencies([2, 4]));
        let names: Vec<_> = run.metrics.iter().map(|metric| (metric.name.as_str(), metric.value)).collect();
        assert_eq!(names, [("latency_p50_ms", 2.0), ("latency_p99_ms", 4.0)]);
    }

    #[test]
    fn metrics_are_paired_by_name_and_divided() {
        let (mut small, mut large) = (Run::new(10), Run::new(100));
        small.metric("both", 2.0);
        small.metric("zero", 0.0);
        small.metric("only_small", 1.0);
        large.metric("only_large", 1.0);
        large.metric("zero", 3.0);
        large.metric("both", 5.0);
        let compared: Vec<_> = compare(&small, &large).iter().map(|row| (row.name.to_owned(), row.ratio())).collect();
        assert_eq!(
            compared,
            [
                ("both".to_owned(), Some(2.5)),
                ("zero".to_owned(), None),
                ("only_small".to_owned(), None),
                ("only_large".to_owned(), None)
            ]
        );
    }
}

//! What repeats come to: medians, spreads and percentiles.

use std::time::Duration;

/// How often each thing is measured when nothing else is said; alternating with what it is compared to.
pub(crate) const REPEATS: usize = 5;

/// One thing that was measured several times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The middle one, the upper of two; 0 of none.
    pub(crate) fn median(&self) -> f64 {
        percentile(&self.0, 50)
    }

    /// The smallest; 0 of none.
    pub(crate) fn min(&self) -> f64 {
        percentile(&self.0, 0)
    }

    /// The largest; 0 of none.
    pub(crate) fn max(&self) -> f64 {
        percentile(&self.0, 100)
    }

    /// Each divided by what was measured beside it in the same repeat.
    pub(crate) fn over(&self, beside: &Self) -> Self {
        let ratio = |(of, by): (&f64, &f64)| if *by > 0.0 { of / by } else { 0.0 };
        Self(self.0.iter().zip(&beside.0).map(ratio).collect())
    }
}

/// How long each of many things took in one repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Microseconds that so many of a hundred did not exceed.
    pub(crate) fn percentile_us(&self, of_hundred: usize) -> f64 {
        percentile(&self.0, of_hundred)
    }
}

/// The smallest sample that so many of a hundred do not exceed; 0 of none. O(n log n).
fn percentile(samples: &[f64], of_hundred: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len() * of_hundred / 100;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_one_of_the_samples_and_a_ratio_is_taken_in_each_repeat() {
        let (ours, theirs) = (Samples(vec![10.0, 30.0, 20.0]), Samples(vec![20.0, 10.0, 10.0]));
        assert_eq!((ours.median(), ours.min(), ours.max()), (20.0, 10.0, 30.0));
        assert_eq!(ours.over(&theirs), Samples(vec![0.5, 3.0, 2.0]));
        assert_eq!(Samples::default().median(), 0.0);
    }

    #[test]
    fn the_hundredth_percentile_is_the_longest() {
        let mut times = Times::default();
        (1..=100).for_each(|us| times.push(Duration::from_micros(us)));
        assert_eq!((times.percentile_us(99), times.percentile_us(100)), (100.0, 100.0));
        assert_eq!((times.percentile_us(50), times.len()), (51.0, 100));
    }
}

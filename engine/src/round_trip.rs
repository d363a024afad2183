//! How long a peer takes to answer, learnt from what is said anyway, and how long it is waited for.

use std::time::Duration;

use crate::limits::{GRAFT_AFTER, GRAFT_AFTER_MAX, GRAFT_AFTER_MIN};

/// The time between saying something to a peer and hearing what follows from it. Falls at once to what is measured,
/// and rises slowly (Jacobson and Karels, *Congestion avoidance and control*, 1988, has the slow half): an answer can be
/// late for many reasons and early for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip(Option<Duration>);

impl RoundTrip {
    /// An answer came so long after what it answers. What the peer syncs before it answers is part of that.
    pub(crate) fn note(&mut self, sample: Duration) {
        self.0 = Some(match self.0 {
            Some(known) if known < sample => known + (sample - known) / 8,
            Some(_) | None => sample,
        });
    }

    /// The peer was not waited for any longer, so that it will not be known how long it would have taken: it may be
    /// farther away than it seemed. The next answer that is waited for corrects this.
    pub(crate) fn note_impatience(&mut self) {
        let known = self.0.unwrap_or(GRAFT_AFTER).max(GRAFT_AFTER_MIN / 2);
        self.0 = Some((2 * known).min(GRAFT_AFTER_MAX));
    }

    pub(crate) fn estimate(self) -> Option<Duration> {
        self.0
    }

    /// How long a peer from which a lane is received may leave something out that another has: as long as it can be
    /// on its way, and half as much again. Whoever delays its answers gains no more than the most.
    pub(crate) fn patience(self) -> Duration {
        self.0.map_or(GRAFT_AFTER, |known| (known * 3 / 2).clamp(GRAFT_AFTER_MIN, GRAFT_AFTER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples_ms: &[u64]) -> RoundTrip {
        let mut round_trip = RoundTrip::default();
        samples_ms.iter().for_each(|ms| round_trip.note(Duration::from_millis(*ms)));
        round_trip
    }

    #[test]
    fn patience_scales_with_the_distance_within_its_limits() {
        assert_eq!(after(&[]).patience(), GRAFT_AFTER);
        assert_eq!(after(&[1]).patience(), GRAFT_AFTER_MIN);
        assert_eq!(after(&[200]).patience(), Duration::from_millis(300));
        assert_eq!(after(&[3_600_000]).patience(), GRAFT_AFTER_MAX);
    }

    #[test]
    fn whoever_is_not_waited_for_is_given_more_time_until_it_answers() {
        let mut round_trip = after(&[1]);
        let patience: Vec<u64> = (0..10)
            .map(|_| {
                round_trip.note_impatience();
                round_trip.patience().as_millis() as u64
            })
            .collect();
        assert_eq!(patience[..4], [60, 120, 240, 480]);
        assert_eq!(patience[9], GRAFT_AFTER_MAX.as_millis() as u64);
        round_trip.note(Duration::from_millis(1));
        assert_eq!(round_trip.patience(), GRAFT_AFTER_MIN);
    }

    #[test]
    fn one_late_answer_counts_little_and_one_early_answer_all() {
        assert_eq!(after(&[100, 900]).estimate(), Some(Duration::from_millis(200)));
        assert_eq!(after(&[900, 100]).estimate(), Some(Duration::from_millis(100)));
    }
}

//! How fast something went in the last seconds, and how long the rest takes at that pace.

use std::time::Duration;

use comity_crdts::canary;

/// Seconds that count.
const SECONDS: u64 = 8;
/// What took less is taken to have taken this long.
const WINDOW_MIN: Duration = Duration::from_millis(100);

/// A count of each of the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    slots: [u64; SECONDS as usize],
    /// The second that the newest slot counts.
    newest: u64,
    /// When something was counted first, after nothing had been for long.
    since: Option<Duration>,
}

impl Rate {
    /// So many more. O(1).
    pub(crate) fn note(&mut self, now: Duration, count: u64) {
        self.turn(now);
        self.since.get_or_insert(now);
        let slot = &mut self.slots[(self.newest % SECONDS) as usize];
        *slot = slot.saturating_add(count);
    }

    /// Forgets what is too long ago.
    fn turn(&mut self, now: Duration) {
        let second = now.as_secs();
        let passed = second.saturating_sub(self.newest);
        if passed >= SECONDS {
            *self = Self::default();
        } else {
            (1..=passed).for_each(|step| self.slots[((self.newest + step) % SECONDS) as usize] = 0);
        }
        self.newest = self.newest.max(second);
        if self.slots.iter().all(|slot| *slot == 0) {
            self.since = None;
        }
    }

    /// How long `left` more take, in milliseconds, at the pace of the last seconds; `None` when there was none.
    pub(crate) fn time_for_ms(mut self, now: Duration, left: u64) -> Option<u64> {
        if left == 0 && !canary!(EstimateNeverEnds) {
            return Some(0);
        }
        self.turn(now);
        let counted: u64 = self.slots.iter().fold(0, |sum, slot| sum.saturating_add(*slot));
        let since = self.since.filter(|_| counted > 0)?;
        let slots = Duration::from_secs(SECONDS - 1) + Duration::from_nanos(u64::from(now.subsec_nanos()));
        let window = now.saturating_sub(since).min(slots).max(WINDOW_MIN);
        let ms = u128::from(left) * window.as_millis() / u128::from(counted);
        Some(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_pace_says() {
        let at = Duration::from_millis;
        let mut rate = Rate::default();
        assert_eq!(rate.time_for_ms(at(5_000), 10), None, "nothing moves");
        for tenth in 0..50 {
            rate.note(at(10_000 + tenth * 100), 20);
        }
        // 200 a second.
        let estimate = rate.time_for_ms(at(15_000), 1_000).unwrap();
        assert!((4_900..=5_100).contains(&estimate), "{estimate}");
        assert_eq!(rate.time_for_ms(at(15_000), 0), Some(0));
        let estimate = rate.time_for_ms(at(18_000), 1_000).unwrap();
        assert!(estimate > 5_500, "it has stopped: {estimate}");
        assert_eq!(rate.time_for_ms(at(30_000), 1_000), None, "what was long ago does not count");
    }

    #[test]
    fn a_pace_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        for second in 0..100 {
            rate.note(Duration::from_secs(second), if second < 50 { 1_000 } else { 10 });
        }
        let estimate = rate.time_for_ms(Duration::from_millis(99_999), 100).unwrap();
        assert!((9_000..=11_000).contains(&estimate), "{estimate}");
    }
}

//! Hybrid logical clocks with clamping.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canary;

/// A hybrid logical clock stamp: 48 bits of milliseconds since the Unix epoch, 16 bits of counter.
/// (Kulkarni et al., *Logical Physical Clocks*, 2014.) Stamps only arbitrate between concurrent writes;
/// no invariant depends on them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hlc(u64);

impl Hlc {
    /// Before every other stamp.
    pub const ZERO: Self = Self(0);

    /// The stamp at `millis` (cut to 48 bits) with `counter`.
    pub fn new(millis: u64, counter: u16) -> Self {
        Self((millis.min((1 << 48) - 1) << 16) | u64::from(counter))
    }

    /// The stamp with these 64 bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The stamp's 64 bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The counter within the millisecond.
    pub fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The next stamp: the counter goes up, and its overflow advances the time by one millisecond. The
    /// largest stamp is its own successor.
    #[must_use]
    pub fn succ(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.millis(), self.counter())
    }
}

/// The clock of one space at one replica. Strictly increasing, and never dragged more than a bound ahead
/// of the wall clock by what others say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A clock that will only issue stamps above `floor`.
    pub fn with_floor(floor: Hlc) -> Self {
        Self { last: floor }
    }

    /// The last stamp issued or absorbed.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// Issues the stamp of a local event; greater than every stamp issued or absorbed before.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        let wall = Hlc::new(wall_ms, 0);
        self.last = if canary!(ClockFollowsWall) { wall } else { self.last.succ().max(wall) };
        self.last
    }

    /// Absorbs a stamp received from elsewhere, but follows it no further than `ahead_ms_max` beyond the
    /// wall clock, so that a clock set to the far future stays its owner's problem.
    pub fn observe(&mut self, remote: Hlc, wall_ms: u64, ahead_ms_max: u64) {
        let ceiling = Hlc::new(wall_ms.saturating_add(ahead_ms_max), u16::MAX);
        self.last = self.last.max(remote.min(ceiling));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AHEAD_MS_MAX: u64 = 500;

    proptest! {
        #[test]
        fn stamps_order_by_time_then_counter(a in (0..1_u64 << 48, any::<u16>()), b in (0..1_u64 << 48, any::<u16>())) {
            let (first, second) = (Hlc::new(a.0, a.1), Hlc::new(b.0, b.1));
            prop_assert_eq!((first.millis(), first.counter()), a);
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
            prop_assert_eq!(Hlc::from_bits(first.bits()), first);
        }

        /// `None` is a local event, `Some` a stamp that arrives; wall clocks jump about.
        #[test]
        fn every_tick_is_later_than_all_before_and_ahead_of_the_wall_by_the_bound_at_most(
            events in prop::collection::vec((0..2_000_u64, prop::option::of(0..1_u64 << 48)), 1..40),
        ) {
            let mut clock = Clock::default();
            let mut wall_max = 0;
            for (wall, remote) in events {
                wall_max = wall_max.max(wall);
                let before = clock.last();
                match remote {
                    None => prop_assert!(clock.tick(wall) > before),
                    Some(millis) => {
                        clock.observe(Hlc::new(millis, 0), wall, AHEAD_MS_MAX);
                        prop_assert!(clock.last() >= before);
                        prop_assert!(clock.last() >= Hlc::new(millis.min(wall + AHEAD_MS_MAX), 0));
                    }
                }
                // A millisecond more for the counter's overflow.
                prop_assert!(clock.last().millis() <= wall_max + AHEAD_MS_MAX + 1);
            }
        }
    }

    #[test]
    fn the_clock_starts_above_its_floor_and_time_is_cut_to_48_bits() {
        let floor = Hlc::new(9, 9);
        assert!(Clock::with_floor(floor).tick(1) > floor);
        assert_eq!(Hlc::new(u64::MAX, 0).millis(), (1 << 48) - 1);
        assert_eq!(Hlc::from_bits(u64::MAX).succ(), Hlc::from_bits(u64::MAX));
    }

    #[test]
    fn ticks_increase_strictly_even_when_the_wall_clock_goes_back() {
        let mut clock = Clock::default();
        let first = clock.tick(1_000);
        let second = clock.tick(10);
        assert!(second > first);
        assert_eq!(second.millis(), 1_000);
    }

    #[test]
    fn a_far_future_stamp_is_followed_no_further_than_the_bound() {
        let mut clock = Clock::default();
        clock.observe(Hlc::new(10_000_000, 0), 1_000, 500);
        assert_eq!(clock.last().millis(), 1_500);
        assert!(clock.tick(1_000).millis() <= 1_501);
    }

    #[test]
    fn counter_overflow_advances_the_millisecond() {
        assert_eq!(Hlc::new(5, u16::MAX).succ(), Hlc::new(6, 0));
    }
}

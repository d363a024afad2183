//! Counters that go up and down.

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::COUNTER_BITS_MAX;

/// A counter: the sum of every delta applied. Delivery is exactly once, so no per-replica columns are
/// needed. (A PN-counter: Shapiro et al., *A Comprehensive Study of Convergent and Commutative Replicated
/// Data Types*, 2011.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PnCounter {
    total: i128,
}

/// Why a delta cannot be added. The caller's fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("adding {delta} to {total} leaves the range of a counter, which is below 2^{bits_max} either way")]
pub struct CounterRange {
    /// The total before.
    pub total: i128,
    /// The refused delta.
    pub delta: i64,
    /// The limit, [`COUNTER_BITS_MAX`].
    pub bits_max: u32,
}

impl PnCounter {
    /// A counter at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sum of all deltas applied.
    pub fn total(&self) -> i128 {
        self.total
    }

    /// Adds a delta that was accepted at its writer. Wraps, because saturation would not commute; the
    /// writers' check keeps totals far from where that could be seen.
    pub fn apply(&mut self, delta: i64) {
        self.total = self.total.wrapping_add(i128::from(delta));
    }

    /// Checks, before writing, that the sum stays within ±2^[`COUNTER_BITS_MAX`], both excluded.
    ///
    /// # Errors
    /// [`CounterRange`].
    pub fn check_add(&self, delta: i64) -> Result<(), CounterRange> {
        check_range(self.total, delta)
    }

    /// Appends the canonical encoding: 16 bytes, big-endian, two's complement.
    pub fn encode(&self, out: &mut Writer) {
        out.bytes(&self.total.to_be_bytes());
    }

    /// Reads what [`PnCounter::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { total: i128::from_be_bytes(reader.array("counter")?) })
    }
}

/// Checks that `total` and `delta` sum up to less than ±2^[`COUNTER_BITS_MAX`].
pub(crate) fn check_range(total: i128, delta: i64) -> Result<(), CounterRange> {
    let sum = total.checked_add(i128::from(delta));
    if sum.is_some_and(|sum| sum.unsigned_abs() < 1 << COUNTER_BITS_MAX) {
        Ok(())
    } else {
        Err(CounterRange { total, delta, bits_max: COUNTER_BITS_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_that_would_leave_the_range_is_refused_and_its_neighbour_accepted() {
        let edge = (1_i128 << COUNTER_BITS_MAX) - 1;
        assert!(PnCounter { total: edge - 1 }.check_add(1).is_ok());
        assert!(PnCounter { total: 1 - edge }.check_add(-1).is_ok());
        assert!(PnCounter { total: edge }.check_add(-1).is_ok());
        let refused = CounterRange { total: edge, delta: 1, bits_max: COUNTER_BITS_MAX };
        assert_eq!(PnCounter { total: edge }.check_add(1), Err(refused));
        assert!(PnCounter { total: -edge }.check_add(-1).is_err());
        assert!(PnCounter { total: i128::MAX }.check_add(1).is_err());
        assert!(PnCounter { total: i128::MIN }.check_add(-1).is_err());
    }

    #[test]
    fn sums_commute_even_where_they_wrap() {
        let mut up_first = PnCounter { total: i128::MAX };
        let mut down_first = up_first;
        up_first.apply(5);
        up_first.apply(-7);
        down_first.apply(-7);
        down_first.apply(5);
        assert_eq!(up_first, down_first);
    }
}

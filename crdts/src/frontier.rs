//! Frontiers: version vectors over lanes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::LaneId;

/// A version vector over lanes: for each lane, the contiguous prefix 1..=n that is meant. Lanes at 0 are
/// not stored, so equal frontiers are equal values. Operations cost O(log lanes) unless said otherwise.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frontier(BTreeMap<LaneId, u64>);

impl Frontier {
    /// The frontier that covers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The prefix covered in `lane`; 0 when none.
    pub fn at(&self, lane: &LaneId) -> u64 {
        self.0.get(lane).copied().unwrap_or(0)
    }

    /// Raises `lane` to `lsn`; lower values change nothing.
    pub fn advance(&mut self, lane: LaneId, lsn: u64) {
        if lsn > 0 {
            let entry = self.0.entry(lane).or_insert(0);
            *entry = (*entry).max(lsn);
        }
    }

    /// Raises every lane to `other`'s prefix. O(other).
    pub fn merge(&mut self, other: &Self) {
        for (lane, lsn) in other.iter() {
            self.advance(lane, lsn);
        }
    }

    /// Whether everything in `other` is covered here. O(other).
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(lane, lsn)| self.at(&lane) >= lsn)
    }

    /// The first lane, in lane order, in which `other` is ahead, with the prefix it needs.
    pub fn first_missing(&self, other: &Self) -> Option<(LaneId, u64)> {
        other.iter().find(|(lane, lsn)| self.at(lane) < *lsn)
    }

    /// Lanes in which this frontier is ahead of `base`, in lane order. O(lanes).
    pub fn ahead_of<'a>(&'a self, base: &'a Self) -> impl Iterator<Item = (LaneId, u64)> + 'a {
        self.iter().filter(|(lane, lsn)| base.at(lane) < *lsn)
    }

    /// Every lane with its prefix, in lane order.
    pub fn iter(&self) -> impl Iterator<Item = (LaneId, u64)> + '_ {
        self.0.iter().map(|(lane, lsn)| (*lane, *lsn))
    }

    /// The number of lanes with a prefix above 0.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of entries `self` has beyond `base`, summed over lanes; lanes where `base` is ahead
    /// count nothing. O(lanes).
    pub fn distance_from(&self, base: &Self) -> u64 {
        self.iter().map(|(lane, lsn)| lsn.saturating_sub(base.at(&lane))).sum()
    }
}

impl FromIterator<(LaneId, u64)> for Frontier {
    fn from_iter<I: IntoIterator<Item = (LaneId, u64)>>(lanes: I) -> Self {
        let mut frontier = Self::new();
        for (lane, lsn) in lanes {
            frontier.advance(lane, lsn);
        }
        frontier
    }
}

impl fmt::Debug for Frontier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::OriginId;

    fn frontiers() -> impl Strategy<Value = Frontier> {
        prop::collection::vec((0..5_u8, 0..6_u64), 0..6)
            .prop_map(|lanes| lanes.into_iter().map(|(name, lsn)| (lane(name), lsn)).collect())
    }

    fn lane(byte: u8) -> LaneId {
        OriginId([byte; 16])
    }

    fn merged(a: &Frontier, b: &Frontier) -> Frontier {
        let mut merged = a.clone();
        merged.merge(b);
        merged
    }

    proptest! {
        #[test]
        fn merging_is_the_least_upper_bound(a in frontiers(), b in frontiers(), c in frontiers()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(&merged(&a, &a), &a);
            let both = merged(&a, &b);
            prop_assert!(both.covers(&a) && both.covers(&b));
            prop_assert!(!(c.covers(&a) && c.covers(&b)) || c.covers(&both));
        }

        #[test]
        fn covering_is_a_partial_order_and_the_other_questions_agree_with_it(a in frontiers(), b in frontiers()) {
            prop_assert_eq!(a.covers(&b) && b.covers(&a), a == b);
            prop_assert_eq!(a.covers(&b), merged(&a, &b) == a);
            prop_assert_eq!(a.covers(&b), a.first_missing(&b).is_none());
            prop_assert_eq!(a.covers(&b), b.ahead_of(&a).next().is_none());
            prop_assert_eq!(a.covers(&b), b.distance_from(&a) == 0);
            if let Some((lane, lsn)) = a.first_missing(&b) {
                prop_assert!(a.at(&lane) < lsn && b.at(&lane) == lsn);
            }
        }
    }

    #[test]
    fn a_lane_at_zero_is_no_lane_and_prefixes_never_shrink() {
        let mut frontier = Frontier::new();
        frontier.advance(lane(1), 0);
        assert_eq!((frontier.len(), &frontier), (0, &Frontier::new()));
        frontier.advance(lane(1), 3);
        frontier.advance(lane(1), 2);
        assert_eq!(frontier.at(&lane(1)), 3);
    }
}

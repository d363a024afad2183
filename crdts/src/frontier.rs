//! Frontiers: version vectors over lanes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::LaneId;

/// A version vector over lanes: for each lane, the contiguous prefix 1..=n that is meant. Lanes at 0 are
/// not stored, so equal frontiers are equal values. Operations cost O(log lanes) unless said otherwise.
///
/// Sorted pairs in one piece of memory: there are at most [`LANES_MAX`](crate::limits::LANES_MAX) of them, and
/// most of what is done with a frontier is to copy it or to walk two of them side by side.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "BTreeMap<LaneId, u64>")]
pub struct Frontier(Vec<(LaneId, u64)>);

impl Frontier {
    /// The frontier that covers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The prefix covered in `lane`; 0 when none.
    pub fn at(&self, lane: &LaneId) -> u64 {
        self.place(lane).map_or(0, |place| self.0[place].1)
    }

    /// Raises `lane` to `lsn`; lower values change nothing. O(lanes) for a lane at 0 that is not the last.
    pub fn advance(&mut self, lane: LaneId, lsn: u64) {
        match self.place(&lane) {
            Ok(place) => self.0[place].1 = self.0[place].1.max(lsn),
            Err(place) if lsn > 0 => self.0.insert(place, (lane, lsn)),
            Err(_) => {}
        }
    }

    /// Raises every lane to `other`'s prefix. O(lanes of both) while `other` has no lane that is at 0 here.
    pub fn merge(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        let mut place = 0;
        for (lane, lsn) in other.iter() {
            while self.0.get(place).is_some_and(|(here, _)| *here < lane) {
                place += 1;
            }
            match self.0.get_mut(place) {
                Some((here, prefix)) if *here == lane => *prefix = (*prefix).max(lsn),
                _ => self.0.insert(place, (lane, lsn)),
            }
        }
    }

    /// Whether everything in `other` is covered here. O(lanes of both).
    pub fn covers(&self, other: &Self) -> bool {
        self.first_missing(other).is_none()
    }

    /// The first lane, in lane order, in which `other` is ahead, with the prefix it needs. O(lanes of both).
    pub fn first_missing(&self, other: &Self) -> Option<(LaneId, u64)> {
        other.beside(self).find(|(_, lsn, here)| here < lsn).map(|(lane, lsn, _)| (lane, lsn))
    }

    /// Lanes in which this frontier is ahead of `base`, in lane order. O(lanes of both).
    pub fn ahead_of<'a>(&'a self, base: &'a Self) -> impl Iterator<Item = (LaneId, u64)> + 'a {
        self.beside(base).filter(|(_, lsn, there)| there < lsn).map(|(lane, lsn, _)| (lane, lsn))
    }

    /// Every lane with its prefix, in lane order.
    pub fn iter(&self) -> impl Iterator<Item = (LaneId, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Every lane with its prefix here and in `other`, in lane order. O(lanes of both).
    fn beside<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (LaneId, u64, u64)> + 'a {
        let mut others = other.iter().peekable();
        self.iter().map(move |(lane, lsn)| {
            while others.next_if(|(there, _)| *there < lane).is_some() {}
            (lane, lsn, others.peek().filter(|(there, _)| *there == lane).map_or(0, |(_, lsn)| *lsn))
        })
    }

    /// Where a lane is, or where it would have to be put.
    fn place(&self, lane: &LaneId) -> Result<usize, usize> {
        self.0.binary_search_by(|(here, _)| here.cmp(lane))
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
    /// count nothing. Stays at the greatest number when there are more, as a token may claim. O(lanes of both).
    pub fn distance_from(&self, base: &Self) -> u64 {
        self.beside(base).fold(0, |sum: u64, (_, lsn, there)| sum.saturating_add(lsn.saturating_sub(there)))
    }
}

impl From<BTreeMap<LaneId, u64>> for Frontier {
    fn from(lanes: BTreeMap<LaneId, u64>) -> Self {
        Self(lanes.into_iter().filter(|(_, lsn)| *lsn > 0).collect())
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
        fn a_frontier_is_a_map_from_lanes_to_prefixes(
            a in prop::collection::vec((0..9_u8, 0..6_u64), 0..20),
            b in prop::collection::vec((0..9_u8, 0..6_u64), 0..20),
        ) {
            let map = |lanes: &[(u8, u64)]| {
                let mut map = BTreeMap::new();
                for (name, lsn) in lanes.iter().filter(|(_, lsn)| *lsn > 0) {
                    let prefix: &mut u64 = map.entry(lane(*name)).or_default();
                    *prefix = (*prefix).max(*lsn);
                }
                map
            };
            let frontier = |lanes: &[(u8, u64)]| -> Frontier {
                lanes.iter().map(|(name, lsn)| (lane(*name), *lsn)).collect()
            };
            let both = merged(&frontier(&a), &frontier(&b));
            prop_assert!(both.iter().eq(map(&[a.clone(), b.clone()].concat())));
            prop_assert_eq!(Frontier::from(map(&a)), frontier(&a));
            for name in 0..9 {
                prop_assert_eq!(frontier(&a).at(&lane(name)), map(&a).get(&lane(name)).copied().unwrap_or(0));
            }
        }

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
    fn distances_beyond_all_numbers_are_the_greatest_number() {
        let far: Frontier = [(lane(1), u64::MAX), (lane(2), u64::MAX)].into_iter().collect();
        assert_eq!(far.distance_from(&Frontier::new()), u64::MAX);
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

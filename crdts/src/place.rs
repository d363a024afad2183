//! Places of operations, and what their authors had seen.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Reader, Writer};
use crate::dot::Dot;
use crate::frontier::Frontier;
use crate::id::{LaneId, OriginId};

/// Where an operation stands: its dot, and the lane position that carries it. Ordered by the dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The operation.
    pub dot: Dot,
    /// The lane in which its change set stands.
    pub lane: LaneId,
    /// Its change set's position in that lane, from 1; below 2^63, because positions are counted one by one.
    pub lsn: u64,
}

impl Place {
    /// Whether the operation is among those that `cut` covers. Where the cut is one that every replica is
    /// known to have reached, that makes it stable: whatever arrives after the cut was reached everywhere
    /// was made by somebody who had applied it.
    pub fn is_within(&self, cut: &Frontier) -> bool {
        cut.at(&self.lane) >= self.lsn
    }

    /// Appends the canonical encoding: the dot; a varint of twice the position, one more when the lane is
    /// not the origin's own; then, only if so, 16 bytes of lane.
    ///
    /// # Panics
    /// When the position is 2^63 or more.
    pub fn encode(&self, out: &mut Writer) {
        assert!(self.lsn < 1 << 63, "lane positions are counted one by one");
        let is_foreign = self.lane != self.dot.origin;
        self.dot.encode(out);
        out.varint(self.lsn << 1 | u64::from(is_foreign));
        if is_foreign {
            out.bytes(&self.lane.0);
        }
    }

    /// Reads what [`Place::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a place.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let dot = Dot::decode(reader)?;
        let bits = reader.varint("lane position")?;
        let is_foreign = bits & 1 == 1;
        let lane = if is_foreign { OriginId(reader.array("lane")?) } else { dot.origin };
        if is_foreign && lane == dot.origin {
            return Err(DecodeError::NotCanonical { what: "lane" });
        }
        Ok(Self { dot, lane, lsn: bits >> 1 })
    }
}

/// An operation as its receivers know it: where it stands, and what its author had applied when making it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The operation.
    pub dot: Dot,
    /// What its author had applied, without the author's own lane.
    pub frontier: &'a Frontier,
    /// The lane in which its change set stands.
    pub lane: LaneId,
    /// Its change set's position in that lane, from 1.
    pub lsn: u64,
}

impl Context<'_> {
    /// Where the operation stands.
    pub fn place(&self) -> Place {
        Place { dot: self.dot, lane: self.lane, lsn: self.lsn }
    }

    /// Whether the author had applied the operation at `place`, which is one on the same object. Authors
    /// have applied what they made before, an earlier operation of the same change set included, and
    /// whatever stands before in a lane of their own. O(log lanes).
    pub fn sees(&self, place: &Place) -> bool {
        if place.dot.origin == self.dot.origin {
            return (place.dot.seq, place.dot.index) < (self.dot.seq, self.dot.index);
        }
        let is_own_lane = place.lane == self.dot.origin && place.lane == self.lane;
        is_own_lane && place.lsn < self.lsn || self.frontier.at(&place.lane) >= place.lsn
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(byte: u8) -> OriginId {
        OriginId([byte; 16])
    }

    fn place(by: u8, seq: u64, lane: u8, lsn: u64) -> Place {
        Place { dot: Dot { origin: origin(by), seq, index: 0 }, lane: origin(lane), lsn }
    }

    fn encoded(place: &Place) -> Vec<u8> {
        let mut out = Writer::new();
        place.encode(&mut out);
        out.finish()
    }

    proptest! {
        #[test]
        fn places_round_trip(by in 0..3_u8, seq: u64, index: u16, lane in 0..3_u8, lsn in 0..1_u64 << 63) {
            let mut place = place(by, seq, lane, lsn);
            place.dot.index = index;
            let bytes = encoded(&place);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Place::decode(&mut reader), Ok(place));
            prop_assert_eq!(reader.finish("place"), Ok(()));
        }

        #[test]
        fn whatever_decodes_re_encodes_to_the_same_bytes(
            by in 0..2_u8,
            middle in prop::collection::vec(any::<u8>(), 3..6),
            lane in 0..2_u8,
        ) {
            let bytes = [vec![by; 16], middle, vec![lane; 16]].concat();
            let mut reader = Reader::new(&bytes);
            if let Ok(place) = Place::decode(&mut reader) {
                prop_assert_eq!(encoded(&place), &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }

    #[test]
    fn a_place_in_its_origins_own_lane_does_not_name_the_lane() {
        assert_eq!(encoded(&place(1, 1, 1, 5)).len(), 16 + 1 + 1 + 1);
        let mut foreign = encoded(&place(1, 1, 2, 5));
        assert_eq!(foreign.len(), 16 + 1 + 1 + 1 + 16);
        foreign[19..].fill(1);
        let refused = Place::decode(&mut Reader::new(&foreign));
        assert_eq!(refused, Err(DecodeError::NotCanonical { what: "lane" }));
    }

    #[test]
    fn an_author_has_seen_what_it_made_before_and_what_its_frontier_covers() {
        let frontier = Frontier::from_iter([(origin(2), 7)]);
        let dot = Dot { origin: origin(1), seq: 4, index: 2 };
        let x = Context { dot, frontier: &frontier, lane: origin(1), lsn: 9 };
        assert_eq!(x.place(), Place { dot, lane: origin(1), lsn: 9 });
        let own = |seq, index| Place { dot: Dot { seq, index, ..dot }, lane: origin(1), lsn: 2 * seq };
        assert!(x.sees(&own(3, 9)) && x.sees(&own(4, 1)));
        assert!(!x.sees(&own(4, 2)) && !x.sees(&own(4, 3)) && !x.sees(&own(5, 0)));
        assert!(x.sees(&place(2, 3, 2, 7)) && !x.sees(&place(2, 3, 2, 8)));
        assert!(!x.sees(&place(3, 1, 3, 1)));
        assert!(x.sees(&place(3, 1, 2, 6)), "admitted to a lane of which the author has the position");
    }

    /// The context leaves the author's own lane out, and others' change sets may stand there.
    #[test]
    fn the_owner_of_a_lane_has_seen_whatever_stands_before_in_it_and_a_guest_has_not() {
        let frontier = Frontier::from_iter([(origin(2), 7)]);
        let dot = Dot { origin: origin(1), seq: 4, index: 0 };
        let owner = Context { dot, frontier: &frontier, lane: origin(1), lsn: 9 };
        assert!(owner.sees(&place(3, 1, 1, 8)));
        assert!(!owner.sees(&place(3, 2, 1, 10)));
        let guest = Context { dot, frontier: &frontier, lane: origin(2), lsn: 9 };
        assert!(guest.sees(&place(3, 1, 2, 7)));
        assert!(!guest.sees(&place(3, 2, 2, 8)));
    }

    #[test]
    fn a_place_is_within_a_cut_that_has_come_as_far_in_its_lane() {
        let cut = Frontier::from_iter([(origin(2), 7)]);
        assert!(place(1, 1, 2, 7).is_within(&cut));
        assert!(!place(1, 1, 2, 8).is_within(&cut));
        assert!(!place(2, 1, 1, 1).is_within(&cut));
    }
}

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

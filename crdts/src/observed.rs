//! What the author of a reset had observed, as intervals.

use std::collections::BTreeMap;

use crate::codec::{DecodeError, Reader, Writer};
use crate::dot::Dot;
use crate::id::OriginId;
use crate::limits::CONTEXT_DOTS_MAX;

/// What a reset of an object takes away: for each origin the greatest sequence number among the live dots
/// that its author had observed. Whoever has observed a change set has observed every earlier one of that
/// origin, so the interval up to there holds nothing that was not observed.
///
/// Change sets are told apart, operations within one are not: a reset covers what precedes it in its own
/// change set, and what follows it there is applied after it, so the two never meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Observed(Vec<(OriginId, u64)>);

impl FromIterator<(OriginId, u64)> for Observed {
    /// The greater number counts where an origin comes twice; 0 names nothing.
    fn from_iter<I: IntoIterator<Item = (OriginId, u64)>>(pairs: I) -> Self {
        let mut last: BTreeMap<OriginId, u64> = BTreeMap::new();
        for (origin, seq) in pairs.into_iter().filter(|(_, seq)| *seq > 0) {
            let held = last.entry(origin).or_insert(0);
            *held = (*held).max(seq);
        }
        Self(last.into_iter().collect())
    }
}

impl Observed {
    /// The intervals that end at the latest of `dots` of each origin. Dots with sequence number 0, which no
    /// change set has, are passed over. O(dots · log origins).
    pub fn from_dots(dots: impl Iterator<Item = Dot>) -> Self {
        let mut latest = BTreeMap::new();
        for dot in dots.filter(|dot| dot.seq > 0) {
            let seq = latest.entry(dot.origin).or_insert(0);
            *seq = dot.seq.max(*seq);
        }
        Self(latest.into_iter().collect())
    }

    /// Whether `dot` lies within an interval. O(log origins).
    pub fn covers(&self, dot: &Dot) -> bool {
        let found = self.0.binary_search_by_key(&dot.origin, |(origin, _)| *origin);
        found.is_ok_and(|position| dot.seq <= self.0[position].1)
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of origins.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each origin with the end of its interval, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (OriginId, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Appends the canonical encoding: the number of origins, then each with its sequence number as a
    /// varint, ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.0.len() as u64);
        for (origin, seq) in &self.0 {
            out.bytes(&origin.0);
            out.varint(*seq);
        }
    }

    /// Reads what [`Observed::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of at most [`CONTEXT_DOTS_MAX`]
    /// intervals.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut intervals = Vec::new();
        for _ in 0..reader.count(CONTEXT_DOTS_MAX, "observed intervals")? {
            let origin = OriginId(reader.array("observed origin")?);
            let seq = reader.varint("observed sequence number")?;
            if seq == 0 || intervals.last().is_some_and(|(last, _)| *last >= origin) {
                return Err(DecodeError::NotCanonical { what: "observed intervals" });
            }
            intervals.push((origin, seq));
        }
        Ok(Self(intervals))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dot(origin: u8, seq: u64, index: u16) -> Dot {
        Dot { origin: OriginId([origin; 16]), seq, index }
    }

    fn encoded(intervals: &[(u8, u64)]) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(intervals.len() as u64);
        for (origin, seq) in intervals {
            out.bytes(&[*origin; 16]);
            out.varint(*seq);
        }
        out.finish()
    }

    proptest! {
        #[test]
        fn intervals_cover_up_to_the_latest_dot_of_each_origin_and_round_trip(
            dots in prop::collection::vec((0..4_u8, 0..9_u64, 0..3_u16), 0..9),
            other in (0..4_u8, 1..9_u64, 0..3_u16),
        ) {
            let dots: Vec<Dot> = dots.into_iter().map(|(origin, seq, index)| dot(origin, seq, index)).collect();
            let other = dot(other.0, other.1, other.2);
            let observed = Observed::from_dots(dots.iter().copied());
            let covered = dots.iter().any(|dot| dot.origin == other.origin && dot.seq >= other.seq);
            prop_assert_eq!(observed.covers(&other), covered);
            prop_assert_eq!(observed.is_empty(), dots.iter().all(|dot| dot.seq == 0));
            prop_assert_eq!(observed.len(), observed.iter().count());
            let mut out = Writer::new();
            observed.encode(&mut out);
            let bytes = out.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Observed::decode(&mut reader), Ok(observed));
            prop_assert_eq!(reader.finish("observed"), Ok(()));
        }

        #[test]
        fn whatever_decodes_re_encodes_to_the_same_bytes(bytes in prop::collection::vec(0..3_u8, 0..60)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(observed) = Observed::decode(&mut reader) {
                let mut out = Writer::new();
                observed.encode(&mut out);
                prop_assert_eq!(out.as_slice(), &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }

    #[test]
    fn intervals_out_of_order_or_empty_or_too_many_do_not_decode() {
        let decode = |intervals: &[(u8, u64)]| Observed::decode(&mut Reader::new(&encoded(intervals)));
        let disorder = Err(DecodeError::NotCanonical { what: "observed intervals" });
        assert_eq!(decode(&[(1, 9), (2, 1)]).map(|observed| observed.len()), Ok(2));
        assert_eq!(decode(&[(2, 1), (1, 9)]), disorder);
        assert_eq!(decode(&[(1, 1), (1, 9)]), disorder);
        assert_eq!(decode(&[(1, 0)]), disorder);
        let mut out = Writer::new();
        out.varint(CONTEXT_DOTS_MAX as u64 + 1);
        let refused = Observed::decode(&mut Reader::new(out.as_slice()));
        assert!(matches!(refused, Err(DecodeError::OverLimit { .. })));
    }
}

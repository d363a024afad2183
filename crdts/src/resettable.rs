//! Counters that can be reset.

use std::collections::BTreeMap;

use crate::codec::{DecodeError, Reader, Writer};
use crate::counter::{CounterRange, check_range};
use crate::dot::Dot;
use crate::frontier::Frontier;
use crate::id::OriginId;
use crate::place::{Context, Place};

/// Where an origin's additions have got to: change set number and index within it. No addition is at (0, 0).
pub type Step = (u64, u16);

/// What a reset takes away of one origin's additions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResetColumn {
    /// Whose additions.
    pub origin: OriginId,
    /// The last of them.
    pub through: Step,
    /// The sum of those that no reset known to the author had taken away before.
    pub sum: i128,
}

impl ResetColumn {
    /// Appends the canonical encoding: 16 bytes of origin, the step as two varints, the sum as a zigzag
    /// varint.
    pub fn encode(&self, out: &mut Writer) {
        out.bytes(&self.origin.0);
        encode_step(self.through, out);
        out.varint_wide_signed(self.sum);
    }

    /// Reads what [`ResetColumn::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a column.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let origin = OriginId(reader.array("reset origin")?);
        let through = decode_step(reader)?;
        Ok(Self { origin, through, sum: reader.varint_wide_signed("reset sum")? })
    }
}

/// A counter whose resets take away exactly the additions that their authors had seen, concurrent resets
/// too: its value is the sum of the additions that no reset has in its past.
///
/// Of each origin's additions it keeps the running sum, and that sum at each point up to which a reset has
/// taken them away; what counts is what came after the last point. Of the family of Weidner and Almeida, *An
/// Oblivious Observed-Reset Embeddable Replicated Counter*, 2022: resets name positions and sums, never single
/// additions, so the size does not grow with the number of additions. Unlike theirs, sums are relative to
/// what the author of a reset saw reset before, so resets need causal delivery and not only order per origin.
///
/// Points stay until [`ResettableCounter::compact`] finds that every replica knows of the reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResettableCounter {
    columns: BTreeMap<OriginId, Column>,
}

/// The additions of one origin. Sums are of additions since `start`, and wrap.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Column {
    /// The point up to which additions were reset and forgotten.
    start: Step,
    /// The latest addition.
    tip: Step,
    sum: i128,
    /// For each reset that is not forgotten, where it ends and the sum up to there. In honest executions
    /// points that end at the same step have the same sum.
    points: BTreeMap<(Step, Place), i128>,
}

impl Column {
    /// The sum of the additions that are not reset, if there are any.
    fn window(&self) -> Option<i128> {
        let last = self.points.last_key_value();
        let (at, base) = last.map_or((self.start, 0), |((at, _), sum)| (*at, *sum));
        (self.tip > at).then(|| self.sum.wrapping_sub(base))
    }

    /// Applies a reset. `sum` counts from the last point that its author had seen, which causal delivery has
    /// brought here; if it was forgotten here, it is the start.
    fn reset(&mut self, x: &Context<'_>, through: Step, sum: i128) {
        let seen = self.points.iter().rev().find(|((_, by), _)| x.sees(by));
        let (at, base) = seen.map_or((self.start, 0), |((at, _), sum)| (*at, *sum));
        if through > at {
            self.points.insert((through, x.place()), base.wrapping_add(sum));
        }
    }

    /// Forgets the points up to the last one that is stable. Whoever makes a reset from here on has seen it,
    /// so none of the points before can be the last that its author saw. A point that ends at the same step
    /// stays if it stands after it.
    fn compact(&mut self, cut: &Frontier) {
        let stable = self.points.iter().rev().find(|((_, by), _)| by.is_within(cut));
        let Some((&(at, by), &base)) = stable else {
            return;
        };
        self.points = self.points.split_off(&(at, by));
        self.points.remove(&(at, by));
        self.points.values_mut().for_each(|sum| *sum = sum.wrapping_sub(base));
        self.sum = self.sum.wrapping_sub(base);
        self.start = at;
    }

    /// Whether a column that starts anew would do the same from here on.
    fn is_spent(&self) -> bool {
        self.points.is_empty() && self.tip == self.start && self.sum == 0
    }

    fn encode(&self, out: &mut Writer) {
        encode_step(self.start, out);
        encode_step(self.tip, out);
        out.varint_wide_signed(self.sum);
        out.varint(self.points.len() as u64);
        for ((at, by), sum) in &self.points {
            encode_step(*at, out);
            by.encode(out);
            out.varint_wide_signed(*sum);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = decode_step(reader)?;
        let tip = decode_step(reader)?;
        let sum = reader.varint_wide_signed("column sum")?;
        let mut points = BTreeMap::new();
        for _ in 0..reader.count(usize::MAX, "points")? {
            let point = (decode_step(reader)?, Place::decode(reader)?);
            // A point at the start is one of a reset made at the same time as the one that was forgotten.
            if point.0 < start || points.last_key_value().is_some_and(|(last, _)| *last >= point) {
                return Err(DecodeError::NotCanonical { what: "points" });
            }
            points.insert(point, reader.varint_wide_signed("point sum")?);
        }
        Ok(Self { start, tip, sum, points })
    }
}

impl ResettableCounter {
    /// A counter at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an addition that was accepted at its writer. Wraps, as [`crate::PnCounter::apply`] does.
    pub fn add(&mut self, dot: Dot, delta: i64) {
        let column = self.columns.entry(dot.origin).or_default();
        column.sum = column.sum.wrapping_add(i128::from(delta));
        column.tip = column.tip.max((dot.seq, dot.index));
    }

    /// What a reset made here takes away, ascending by origin; empty when there is nothing to take.
    /// O(origins).
    pub fn observed(&self) -> Vec<ResetColumn> {
        let column = |(origin, sum, column): (OriginId, i128, &Column)| {
            let through = column.tip;
            ResetColumn { origin, through, sum }
        };
        self.live().map(column).collect()
    }

    /// Applies a reset. O(columns named · points · log lanes).
    ///
    /// What a dishonest author names is taken at its word: additions that it cannot have seen are taken away
    /// when they arrive, wherever the reset is applied, and a column that it names is there afterwards. What
    /// is not beyond what its author had seen reset before names nothing. So replicas that have applied the
    /// same agree, whatever it says.
    pub fn reset(&mut self, x: &Context<'_>, columns: &[ResetColumn]) {
        for ResetColumn { origin, through, sum } in columns.iter().filter(|column| column.through > (0, 0)) {
            self.columns.entry(*origin).or_default().reset(x, *through, *sum);
        }
    }

    /// The sum of the additions that no reset has taken away. O(origins).
    pub fn value(&self) -> i128 {
        self.live().fold(0, |value, (_, sum, _)| value.wrapping_add(sum))
    }

    /// Whether there is any addition that no reset has taken away; also if they sum up to 0. O(origins).
    pub fn is_live(&self) -> bool {
        self.live().next().is_some()
    }

    /// Whether the counter can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Checks, before writing, that the value stays within ±2^[`crate::limits::COUNTER_BITS_MAX`], both
    /// excluded.
    ///
    /// # Errors
    /// [`CounterRange`].
    pub fn check_add(&self, delta: i64) -> Result<(), CounterRange> {
        check_range(self.value(), delta)
    }

    /// Forgets what no operation still to come can need. Every replica must be known to have reached `cut`.
    /// What is shown does not change, now or later. O(points).
    pub fn compact(&mut self, cut: &Frontier) {
        self.columns.retain(|_, column| {
            column.compact(cut);
            !column.is_spent()
        });
    }

    /// Appends what replicas that have applied the same agree on, whatever each has compacted: for each origin
    /// with additions that are not reset, ascending, 16 bytes of origin, its latest addition as two varints,
    /// and their sum in 16 bytes, big-endian.
    pub fn digest_into(&self, out: &mut Writer) {
        for (origin, sum, column) in self.live() {
            out.bytes(&origin.0);
            encode_step(column.tip, out);
            out.bytes(&sum.to_be_bytes());
        }
    }

    /// Appends the canonical encoding: the number of columns, then each with its origin, ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.columns.len() as u64);
        for (origin, column) in &self.columns {
            out.bytes(&origin.0);
            column.encode(out);
        }
    }

    /// Reads what [`ResettableCounter::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a counter.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut columns = BTreeMap::new();
        for _ in 0..reader.count(usize::MAX, "columns")? {
            let origin = OriginId(reader.array("column origin")?);
            let column = Column::decode(reader)?;
            if column.is_spent() || columns.last_key_value().is_some_and(|(last, _)| *last >= origin) {
                return Err(DecodeError::NotCanonical { what: "columns" });
            }
            columns.insert(origin, column);
        }
        Ok(Self { columns })
    }

    /// The origins with additions that are not reset, ascending, and the sums of those.
    fn live(&self) -> impl Iterator<Item = (OriginId, i128, &Column)> {
        self.columns.iter().filter_map(|(origin, column)| Some((*origin, column.window()?, column)))
    }
}

fn encode_step((seq, index): Step, out: &mut Writer) {
    out.varint(seq);
    out.varint(u64::from(index));
}

fn decode_step(reader: &mut Reader<'_>) -> Result<Step, DecodeError> {
    let seq = reader.varint("step sequence number")?;
    Ok((seq, reader.varint_max(u64::from(u16::MAX), "step index")? as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_when_one_of_two_concurrent_resets_is_forgotten_can_be_read_back() {
        let origins = [1, 2, 3].map(|name| OriginId([name; 16]));
        let mut counter = ResettableCounter::new();
        counter.add(Dot { origin: origins[0], seq: 1, index: 0 }, 5);
        let observed = counter.observed();
        let seen: Frontier = [(origins[0], 1)].into_iter().collect();
        for origin in &origins[1..] {
            let dot = Dot { origin: *origin, seq: 1, index: 0 };
            counter.reset(&Context { dot, frontier: &seen, lane: *origin, lsn: 1 }, &observed);
        }
        for first in &origins[1..] {
            let mut left = counter.clone();
            left.compact(&[(origins[0], 1), (*first, 1)].into_iter().collect());
            assert_ne!(left, counter);
            let mut out = Writer::new();
            left.encode(&mut out);
            assert_eq!(ResettableCounter::decode(&mut Reader::new(out.as_slice())), Ok(left.clone()));
            left.compact(&origins.iter().map(|origin| (*origin, 1)).collect());
            assert!(left.is_empty() || left == ResettableCounter::new());
        }
    }
}

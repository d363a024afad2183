//! Multi-value registers.

use std::collections::BTreeMap;

use crate::canary;
use crate::codec::{DecodeError, Reader, Writer};
use crate::dot::Dot;
use crate::hlc::Hlc;
use crate::limits::VALUE_BYTES_MAX;
use crate::observed::Observed;
use crate::value::Value;

/// One value of a register, with the stamp of its write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sibling {
    /// When it was written; arbitrates between concurrent writes and nothing else.
    pub hlc: Hlc,
    /// What was written.
    pub value: Value,
}

/// A register that keeps every value no later write has observed, almost always one. The same information
/// as a dotted version vector set (Almeida et al., *Scalable and Accurate Causality Tracking for Eventually
/// Consistent Stores*, 2014) without a vector per register. Its siblings never exceed the writes that are
/// mutually concurrent. Operations cost O(log siblings) per dot named.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MvRegister {
    siblings: BTreeMap<Dot, Sibling>,
}

impl MvRegister {
    /// A register without a value.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a write: the sibling takes the place of what its author had observed. Returns what it
    /// removed, in dot order.
    pub fn set(&mut self, dot: Dot, sibling: Sibling, observed: &[Dot]) -> Vec<(Dot, Sibling)> {
        let removed = self.reset(observed);
        self.siblings.insert(dot, sibling);
        if canary!(SiblingPruned) && self.siblings.len() > 2 {
            self.siblings.pop_first();
        }
        removed
    }

    /// Applies a reset: what its author had observed goes, concurrent writes stay. Returns what it removed,
    /// in dot order.
    pub fn reset(&mut self, observed: &[Dot]) -> Vec<(Dot, Sibling)> {
        let observed = observed.iter().skip(usize::from(canary!(SiblingKept)));
        let mut removed: Vec<_> = observed.filter_map(|dot| self.siblings.remove_entry(dot)).collect();
        removed.sort_unstable_by_key(|(dot, _)| *dot);
        removed
    }

    /// As [`MvRegister::reset`], with intervals for dots. O(siblings · log origins).
    pub fn clear(&mut self, observed: &Observed) -> Vec<(Dot, Sibling)> {
        let named: Vec<Dot> = self.siblings.keys().filter(|dot| observed.covers(dot)).copied().collect();
        named.iter().filter_map(|dot| self.siblings.remove_entry(dot)).collect()
    }

    /// The siblings in dot order.
    pub fn siblings(&self) -> impl Iterator<Item = (&Dot, &Sibling)> {
        self.siblings.iter()
    }

    /// The sibling written at `dot`, if it is there.
    pub fn sibling(&self, dot: &Dot) -> Option<&Sibling> {
        self.siblings.get(dot)
    }

    /// Whether the register has no value.
    pub fn is_empty(&self) -> bool {
        self.siblings.is_empty()
    }

    /// The number of siblings.
    pub fn len(&self) -> usize {
        self.siblings.len()
    }

    /// The siblings' dots, ascending: what a write made here observes. O(siblings).
    pub fn dots(&self) -> Vec<Dot> {
        self.siblings.keys().copied().collect()
    }

    /// The stamp for a write made here at `now`: later than every stamp it replaces, so that it wins over
    /// what its author saw even if an earlier author's clock was ahead. O(siblings).
    pub fn stamp(&self, now: Hlc) -> Hlc {
        self.siblings.values().map(|sibling| sibling.hlc.succ()).fold(now, Hlc::max)
    }

    /// Appends the canonical encoding: the number of siblings, then dot, stamp and value of each, ascending
    /// by dot.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.siblings.len() as u64);
        for (dot, sibling) in &self.siblings {
            dot.encode(out);
            out.bytes(&sibling.hlc.bits().to_be_bytes());
            sibling.value.encode(out);
        }
    }

    /// Reads what [`MvRegister::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a register, or a value in it is
    /// longer than [`VALUE_BYTES_MAX`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut siblings = BTreeMap::new();
        for _ in 0..reader.count(usize::MAX, "siblings")? {
            let dot = Dot::decode(reader)?;
            if siblings.last_key_value().is_some_and(|(last, _)| *last >= dot) {
                return Err(DecodeError::NotCanonical { what: "siblings" });
            }
            let hlc = Hlc::from_bits(u64::from_be_bytes(reader.array("stamp")?));
            let value = Value::decode(reader, VALUE_BYTES_MAX)?;
            siblings.insert(dot, Sibling { hlc, value });
        }
        Ok(Self { siblings })
    }
}

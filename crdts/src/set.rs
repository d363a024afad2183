//! Add-wins sets without tombstones.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use crate::canary;
use crate::codec::{DecodeError, Reader, Writer};
use crate::dot::Dot;
use crate::limits::ELEMENT_BYTES_MAX;
use crate::observed::Observed;
use crate::value::Value;

/// One row of an add-wins set: the live dots of one element. The element is present while any is left.
/// Several dots live only while their adds are mutually concurrent, and the next add or remove that has
/// observed them leaves at most one. Operations cost O(log dots) per dot named.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementDots(BTreeSet<Dot>);

impl ElementDots {
    /// The row of an element that is absent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an add: `dot` replaces the dots its author had observed.
    pub fn add(&mut self, dot: Dot, observed: &[Dot]) {
        self.remove(observed);
        self.0.insert(dot);
    }

    /// Applies a remove: the dots its author had observed go, concurrent ones stay.
    pub fn remove(&mut self, observed: &[Dot]) {
        let forgotten = usize::from(canary!(RemoveForgetsDot) && observed.len() > 1);
        for dot in observed.iter().skip(forgotten) {
            self.0.remove(dot);
        }
    }

    /// Applies a reset: the dots its author had observed go, concurrent ones stay. O(dots · log origins).
    pub fn clear(&mut self, observed: &Observed) {
        self.0.retain(|dot| !observed.covers(dot));
    }

    /// Whether the element is in the set.
    pub fn is_present(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the row can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of live dots.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `dot` is live.
    pub fn contains(&self, dot: &Dot) -> bool {
        self.0.contains(dot)
    }

    /// The live dots, ascending.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().copied()
    }

    /// As [`ElementDots::dots`].
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.dots()
    }

    /// Appends the canonical encoding: the number of dots, then the dots ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.0.len() as u64);
        for dot in &self.0 {
            dot.encode(out);
        }
    }

    /// Reads what [`ElementDots::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a row.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut dots = BTreeSet::new();
        for _ in 0..reader.count(usize::MAX, "element dots")? {
            let dot = Dot::decode(reader)?;
            if dots.last().is_some_and(|last| *last >= dot) {
                return Err(DecodeError::NotCanonical { what: "element dots" });
            }
            dots.insert(dot);
        }
        Ok(Self(dots))
    }
}

impl FromIterator<Dot> for ElementDots {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        Self(dots.into_iter().collect())
    }
}

/// An add-wins set in memory: an element is present if some add of it is not followed, in causal order, by
/// a remove of it. (The optimised OR-set without tombstones: Bieniusa et al., *An Optimized Conflict-free
/// Replicated Set*, 2012.) Absent elements take no space.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AwSet {
    elements: BTreeMap<Value, ElementDots>,
}

impl AwSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an add of `element` by an author that had observed `observed` of its dots.
    pub fn add(&mut self, element: Value, dot: Dot, observed: &[Dot]) {
        self.elements.entry(element).or_default().add(dot, observed);
    }

    /// Applies a remove of `element`; removing what is not there changes nothing.
    pub fn remove(&mut self, element: &Value, observed: &[Dot]) {
        if let Some(row) = self.elements.get_mut(element) {
            row.remove(observed);
            if row.is_empty() {
                self.elements.remove(element);
            }
        }
    }

    /// Applies a clear, or a reset, by an author that had observed `observed` in the whole set.
    /// O(elements · log dots).
    pub fn clear(&mut self, observed: &[Dot]) {
        let observed: BTreeSet<Dot> = observed.iter().copied().collect();
        self.elements.retain(|_, row| {
            row.0.retain(|dot| !observed.contains(dot));
            row.is_present()
        });
    }

    /// As [`AwSet::clear`], with intervals for dots. O(dots · log origins).
    pub fn clear_observed(&mut self, observed: &Observed) {
        self.elements.retain(|_, row| {
            row.clear(observed);
            row.is_present()
        });
    }

    /// Whether `element` is present.
    pub fn contains(&self, element: &Value) -> bool {
        self.elements.contains_key(element)
    }

    /// The live dots of `element`, ascending: what an add or remove of it written here observes.
    pub fn observed(&self, element: &Value) -> Vec<Dot> {
        self.elements.get(element).map(|row| row.dots().collect()).unwrap_or_default()
    }

    /// Every live dot: what a clear written here observes. O(elements).
    pub fn dots(&self) -> Vec<Dot> {
        self.elements.values().flat_map(ElementDots::dots).collect()
    }

    /// The elements in canonical order, each with its row.
    pub fn iter(&self) -> btree_map::Iter<'_, Value, ElementDots> {
        self.elements.iter()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether the set has no element.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Appends the canonical encoding: the number of elements, then each element with its row, ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.elements.len() as u64);
        for (element, row) in &self.elements {
            element.encode(out);
            row.encode(out);
        }
    }

    /// Reads what [`AwSet::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a set.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut elements = BTreeMap::new();
        for _ in 0..reader.count(usize::MAX, "set")? {
            let element = Value::decode(reader, ELEMENT_BYTES_MAX)?;
            if elements.last_key_value().is_some_and(|(last, _)| *last >= element) {
                return Err(DecodeError::NotCanonical { what: "set" });
            }
            let row = ElementDots::decode(reader)?;
            if row.is_empty() {
                return Err(DecodeError::NotCanonical { what: "set" });
            }
            elements.insert(element, row);
        }
        Ok(Self { elements })
    }
}

impl<'a> IntoIterator for &'a AwSet {
    type Item = (&'a Value, &'a ElementDots);
    type IntoIter = btree_map::Iter<'a, Value, ElementDots>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

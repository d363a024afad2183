//! Flags: sets of one element.

use crate::codec::{DecodeError, Reader, Writer};
use crate::dot::Dot;
use crate::frontier::Frontier;
use crate::observed::Observed;
use crate::place::{Context, Place};
use crate::remove_wins::RwRow;
use crate::set::ElementDots;

/// A flag that is enabled when somebody enabled it concurrently with who disabled it; the one row of an
/// add-wins set. Disabled at first, and without metadata while disabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EwFlag(ElementDots);

impl EwFlag {
    /// A flag that is disabled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an enabling: `dot` replaces the dots its author had observed.
    pub fn enable(&mut self, dot: Dot, observed: &[Dot]) {
        self.0.add(dot, observed);
    }

    /// Applies a disabling: the dots its author had observed go, concurrent ones stay.
    pub fn disable(&mut self, observed: &[Dot]) {
        self.0.remove(observed);
    }

    /// Applies a reset: the same as a disabling, with intervals for dots.
    pub fn clear(&mut self, observed: &Observed) {
        self.0.clear(observed);
    }

    /// Whether the flag is enabled.
    pub fn is_enabled(&self) -> bool {
        self.0.is_present()
    }

    /// Whether the flag can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The live dots, ascending: what an operation made here observes.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.dots()
    }

    /// Appends the canonical encoding, that of [`ElementDots`].
    pub fn encode(&self, out: &mut Writer) {
        self.0.encode(out);
    }

    /// Reads what [`EwFlag::encode`] wrote.
    ///
    /// # Errors
    /// As [`ElementDots::decode`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        ElementDots::decode(reader).map(Self)
    }
}

/// A flag that is disabled when somebody disabled it concurrently with who enabled it; the one row of a
/// remove-wins set. Disabled at first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DwFlag(RwRow);

impl DwFlag {
    /// A flag that is disabled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an enabling: it undoes the disablings its author had applied, and no others.
    pub fn enable(&mut self, x: &Context<'_>) {
        self.0.add(x);
    }

    /// Applies a disabling, of a disabled flag too: it wins over enablings its author had not seen.
    pub fn disable(&mut self, x: &Context<'_>) {
        self.0.remove(x);
    }

    /// Whether the flag is enabled.
    pub fn is_enabled(&self) -> bool {
        self.0.is_member()
    }

    /// Whether the flag can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The places of the disablings that are not undone, ascending.
    pub fn tokens(&self) -> impl Iterator<Item = Place> + '_ {
        self.0.tokens()
    }

    /// Forgets what no operation to come can need, see [`RwRow::compact`].
    pub fn compact(&mut self, cut: &Frontier) {
        self.0.compact(cut);
    }

    /// Appends the canonical encoding, that of [`RwRow`].
    pub fn encode(&self, out: &mut Writer) {
        self.0.encode(out);
    }

    /// Reads what [`DwFlag::encode`] wrote.
    ///
    /// # Errors
    /// As [`RwRow::decode`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        RwRow::decode(reader).map(Self)
    }
}

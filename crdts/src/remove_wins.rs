//! Remove-wins sets.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{DecodeError, Reader, Writer};
use crate::frontier::Frontier;
use crate::limits::ELEMENT_BYTES_MAX;
use crate::place::{Context, Place};
use crate::value::Value;

/// One row of a remove-wins set: whether the element was ever added, and a token for each remove that no
/// later add or remove has observed. The element is a member if it was added and no token is left.
///
/// What an operation has observed is decided by its context and named nowhere in it, so that it takes
/// effect wherever a token is still kept, even if its author had compacted it away. Operations cost
/// O(tokens · log lanes).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RwRow {
    present: bool,
    tokens: BTreeSet<Place>,
}

impl RwRow {
    /// The row of an element nothing is known of.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an add: it undoes the removes that its author had applied, and no others.
    pub fn add(&mut self, x: &Context<'_>) {
        self.present = true;
        self.tokens.retain(|token| !x.sees(token));
    }

    /// Applies a remove, of an absent element too, because it wins over adds that its author had not seen.
    /// Its token takes the place of those that its author had applied.
    pub fn remove(&mut self, x: &Context<'_>) {
        self.tokens.retain(|token| !x.sees(token));
        self.tokens.insert(x.place());
    }

    /// Whether the element is in the set.
    pub fn is_member(&self) -> bool {
        self.present && self.tokens.is_empty()
    }

    /// Whether the row can be forgotten.
    pub fn is_empty(&self) -> bool {
        !self.present && self.tokens.is_empty()
    }

    /// The tokens, ascending.
    pub fn tokens(&self) -> impl Iterator<Item = Place> + '_ {
        self.tokens.iter().copied()
    }

    /// Forgets the row if there are tokens and every one is within `cut`, which every replica must be known
    /// to have reached: any add still to come will have observed them all. What is shown does not change,
    /// now or later.
    pub fn compact(&mut self, cut: &Frontier) {
        if !self.tokens.is_empty() && self.tokens.iter().all(|token| token.is_within(cut)) {
            *self = Self::default();
        }
    }

    /// Appends the canonical encoding: a byte, 1 if the element was added; the number of tokens; the tokens
    /// ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.u8(u8::from(self.present));
        out.varint(self.tokens.len() as u64);
        for token in &self.tokens {
            token.encode(out);
        }
    }

    /// Reads what [`RwRow::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a row.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let present = reader.varint_max(1, "presence")? == 1;
        let mut tokens = BTreeSet::new();
        for _ in 0..reader.count(usize::MAX, "tokens")? {
            let token = Place::decode(reader)?;
            if tokens.last().is_some_and(|last| *last >= token) {
                return Err(DecodeError::NotCanonical { what: "tokens" });
            }
            tokens.insert(token);
        }
        Ok(Self { present, tokens })
    }
}

/// A remove-wins set in memory: an element is a member if it was added, and every remove of it is followed,
/// in causal order, by some add of it. (The remove-wins set of Bieniusa et al., *Brief Announcement:
/// Semantics of Eventually Consistent Replicated Sets*, 2012, in the reading in which several concurrent adds
/// may together undo several concurrent removes.) A removed element takes space until [`RwSet::compact`]
/// finds that every replica knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RwSet {
    rows: BTreeMap<Value, RwRow>,
}

impl RwSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an add of `element`.
    pub fn add(&mut self, element: Value, x: &Context<'_>) {
        self.rows.entry(element).or_default().add(x);
    }

    /// Applies a remove of `element`, which need not be a member.
    pub fn remove(&mut self, element: Value, x: &Context<'_>) {
        self.rows.entry(element).or_default().remove(x);
    }

    /// Whether `element` is a member.
    pub fn contains(&self, element: &Value) -> bool {
        self.rows.get(element).is_some_and(RwRow::is_member)
    }

    /// The members in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.rows.iter().filter(|(_, row)| row.is_member()).map(|(element, _)| element)
    }

    /// Every row in canonical order, those of removed elements too.
    pub fn rows(&self) -> impl Iterator<Item = (&Value, &RwRow)> {
        self.rows.iter()
    }

    /// The number of members. O(rows).
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether the set has no member. O(rows).
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Compacts every row, see [`RwRow::compact`].
    pub fn compact(&mut self, cut: &Frontier) {
        self.rows.retain(|_, row| {
            row.compact(cut);
            !row.is_empty()
        });
    }

    /// Appends the canonical encoding: the number of rows, then each element with its row, ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.rows.len() as u64);
        for (element, row) in &self.rows {
            element.encode(out);
            row.encode(out);
        }
    }

    /// Reads what [`RwSet::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a set.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut rows = BTreeMap::new();
        for _ in 0..reader.count(usize::MAX, "set")? {
            let element = Value::decode(reader, ELEMENT_BYTES_MAX)?;
            if rows.last_key_value().is_some_and(|(last, _)| *last >= element) {
                return Err(DecodeError::NotCanonical { what: "set" });
            }
            let row = RwRow::decode(reader)?;
            if row.is_empty() {
                return Err(DecodeError::NotCanonical { what: "set" });
            }
            rows.insert(element, row);
        }
        Ok(Self { rows })
    }
}

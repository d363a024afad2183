//! The conflict inbox and the journal: what people may have to decide, and what was set aside.

mod events;

use comity_crdts::{Dot, Kind, Policy, Value};
use comity_engine::{
    Conflict, JournalEntry, JournalTotals, Location, Matter, Replayed, StoreError, Tx, TxError,
};

use crate::error::ResolveError;
use crate::space::Space;
use crate::write::Transact;

pub use events::{ConflictEvent, ConflictEvents};

/// How a conflict is resolved.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Choice {
    /// Of several values, keep the one with this dot.
    Sibling(Dot),
    /// In place of several values, write this one.
    Value(Value),
    /// Of several kinds under one key of a map, keep this one.
    Kind(Kind),
}

impl From<Dot> for Choice {
    fn from(dot: Dot) -> Self {
        Self::Sibling(dot)
    }
}

impl From<Value> for Choice {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl From<&str> for Choice {
    fn from(text: &str) -> Self {
        Self::Value(text.into())
    }
}

impl From<Kind> for Choice {
    fn from(kind: Kind) -> Self {
        Self::Kind(kind)
    }
}

pub(crate) fn resolve(tx: &mut Tx<'_>, conflict: &Conflict, choice: Choice) -> Result<(), TxError> {
    let location = &conflict.location;
    let other = |rule| Err(TxError::refuse(ResolveError::OtherMatter { location: location.clone(), rule }));
    match (&conflict.matter, choice) {
        (Matter::Siblings { .. }, Choice::Value(value)) => {
            tx.register_resolve_at(location, value, &conflict.seen())
        }
        (Matter::Siblings { siblings, .. }, Choice::Sibling(dot)) => {
            let Some(chosen) = siblings.iter().find(|sibling| sibling.dot == dot) else {
                let location = location.clone();
                return Err(TxError::refuse(ResolveError::NoSibling { location, dot }));
            };
            tx.register_resolve_at(location, chosen.value.clone(), &conflict.seen())
        }
        (Matter::Siblings { .. }, Choice::Kind(_)) => other("values are in conflict: choose one of them"),
        (Matter::Kinds { kinds, state }, Choice::Kind(chosen)) => {
            if !kinds.contains(&chosen) {
                let (location, kinds) = (location.clone(), kinds.clone());
                return Err(TxError::refuse(ResolveError::NoKind { location, chosen, kinds }));
            }
            if tx.kinds_at(location)?.1 != *state {
                return Err(TxError::refuse(ResolveError::Changed { location: location.clone() }));
            }
            let rest: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != chosen).collect();
            tx.remove_kinds_at(location, &rest)
        }
        (Matter::Kinds { .. }, _) => other("kinds are in conflict: choose one of them"),
        (_, _) => other("this version cannot resolve it"),
    }
}

impl Space {
    /// The conflict inbox in the newest durable state: at most `limit` conflicts after the place `after`, in the
    /// order of their places. See [`View::conflicts`](crate::View::conflicts).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn conflicts(&self, after: Option<&Location>, limit: usize) -> Result<Vec<Conflict>, StoreError> {
        self.view()?.conflicts(after, limit)
    }

    /// Resolves a conflict as it was seen: by one of its values, by another value, or by one of its kinds.
    ///
    /// The values that the conflict shows are replaced, however long ago it was read, and no others: what was written
    /// since stays beside the choice, as a conflict once more. Values that somebody replaced meanwhile stay replaced.
    /// Of several kinds, what is under the others is removed, and goes into the journal; when any of them was changed
    /// since, nothing is, and the resolution is refused.
    ///
    /// Refused with a [`ResolveError`] as the source when the choice is none in this conflict, or what several kinds hold
    /// has changed.
    pub fn resolve(&self, conflict: &Conflict, choice: impl Into<Choice>) -> Transact {
        let (conflict, choice) = (conflict.clone(), choice.into());
        self.transact(move |tx| tx.resolve(&conflict, choice))
    }

    /// Writes what is in the journal again: an ordinary write. A value replaces every value visible here, and puts what
    /// it replaces into the journal if there were several. An element is added, a flag enabled, the sum of a counter added.
    /// Of a document that was removed while others edited it, the document is made equal to what it was with all edits that the
    /// same removal set aside; what one of its name holds by now stays in its history. That reads every entry of the
    /// space, on the core's thread.
    ///
    /// Refused with [`TxError::NotRestorable`] for a change that a document refused, and where the log does not hold any
    /// more what an edit builds on.
    pub fn restore(&self, entry: &JournalEntry) -> Transact {
        let entry = entry.clone();
        self.transact(move |tx| tx.restore(&entry))
    }

    /// The oldest `limit` entries of the journal: what was set aside, with why.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        self.view()?.journal(limit)
    }

    /// The oldest `limit` journal entries of one place. See [`View::journal_of`](crate::View::journal_of).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal_of(&self, location: &Location, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        self.view()?.journal_of(location, limit)
    }

    /// How much the journal holds, and how much of it was forgotten.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal_totals(&self) -> Result<JournalTotals, StoreError> {
        self.view()?.journal_totals()
    }

    /// What a policy would have shown of each conflict in the oldest `limit` journal entries. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn replay(&self, policy: &Policy, limit: usize) -> Result<Vec<Replayed>, StoreError> {
        self.view()?.replay(policy, limit)
    }
}

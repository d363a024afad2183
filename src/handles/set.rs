//! Sets.

use comity_crdts::{Kind, Value};
use comity_engine::{Location, ReadError, Tx, TxError, set_contains_at, set_elements_at, set_len_at};

use crate::handles::{Object, TxObject, ViewObject};
use crate::write::Transact;

/// A set of values, each at most 4 KiB encoded. Of two that add and remove an element at the same time, one wins:
/// adding for a set from [`Space::set`](crate::Space::set), removing for one from
/// [`Space::remove_wins_set`](crate::Space::remove_wins_set). The latter needs a replica that others have heard of,
/// see [`Space::confirmed`](crate::Space::confirmed).
#[derive(Clone)]
pub struct Set(pub(crate) Object);

pub(crate) fn insert(tx: &mut Tx<'_>, at: &Location, element: Value) -> Result<(), TxError> {
    match at.object.kind() {
        Kind::RwSet => tx.rw_set_add_at(at, element),
        _ => tx.set_add_at(at, element),
    }
}

pub(crate) fn remove(tx: &mut Tx<'_>, at: &Location, element: Value) -> Result<(), TxError> {
    match at.object.kind() {
        Kind::RwSet => tx.rw_set_remove_at(at, element),
        _ => tx.set_remove_at(at, element),
    }
}

impl Set {
    /// Adds an element.
    pub fn insert(&self, element: impl Into<Value>) -> Transact {
        let element = element.into();
        self.0.write(move |tx, at| insert(tx, at, element))
    }

    /// Removes an element. In an add-wins set an addition made elsewhere at the same time survives.
    pub fn remove(&self, element: impl Into<Value>) -> Transact {
        let element = element.into();
        self.0.write(move |tx, at| remove(tx, at, element))
    }

    /// Removes every element that is known here. One operation for an add-wins set; one for each element of a
    /// remove-wins set.
    pub fn clear(&self) -> Transact {
        self.0.remove()
    }

    /// Whether the newest durable state holds the element. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contains(&self, element: impl Into<Value>) -> Result<bool, ReadError> {
        let element = element.into();
        self.0.read(|read, space, at| set_contains_at(read, space, at, &element))
    }

    /// The number of elements in the newest durable state. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        self.0.read(set_len_at)
    }

    /// Whether the newest durable state holds no element. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }

    /// The elements of the newest durable state, in canonical order. O(n); [`SetReader::elements`] pages.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn elements(&self) -> Result<Vec<Value>, ReadError> {
        self.0.read(|read, space, at| set_elements_at(read, space, at, None, usize::MAX))
    }
}

/// A set inside a transaction.
pub struct TxSet<'o, 'a>(pub(crate) TxObject<'o, 'a>);

impl TxSet<'_, '_> {
    /// As [`Set::insert`].
    ///
    /// # Errors
    /// [`TxError`] when a name or the element is out of limits; for remove-wins sets also when nobody has heard
    /// of this replica yet.
    pub fn insert(&mut self, element: impl Into<Value>) -> Result<(), TxError> {
        self.0.write(|tx, at| insert(tx, at, element.into()))
    }

    /// As [`Set::remove`].
    ///
    /// # Errors
    /// As [`TxSet::insert`].
    pub fn remove(&mut self, element: impl Into<Value>) -> Result<(), TxError> {
        self.0.write(|tx, at| remove(tx, at, element.into()))
    }

    /// As [`Set::clear`].
    ///
    /// # Errors
    /// As [`TxSet::insert`], and when too many writers added what is there.
    pub fn clear(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// Whether the element is in the set. O(log n).
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn contains(&self, element: impl Into<Value>) -> Result<bool, TxError> {
        let element = element.into();
        self.0.read(|read, space, at| set_contains_at(read, space, at, &element))
    }

    /// The number of elements. O(log n).
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn len(&self) -> Result<u64, TxError> {
        self.0.read(set_len_at)
    }

    /// Whether there is no element. O(log n).
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn is_empty(&self) -> Result<bool, TxError> {
        Ok(self.len()? == 0)
    }

    /// At most `limit` elements after `after`, in canonical order. O(log n + elements).
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn elements(&self, after: Option<&Value>, limit: usize) -> Result<Vec<Value>, TxError> {
        self.0.read(|read, space, at| set_elements_at(read, space, at, after, limit))
    }
}

/// A set in a view.
#[derive(Clone)]
pub struct SetReader<'v>(pub(crate) ViewObject<'v>);

impl SetReader<'_> {
    /// Whether the set holds an element. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contains(&self, element: impl Into<Value>) -> Result<bool, ReadError> {
        let element = element.into();
        self.0.read(|read, space, at| set_contains_at(read, space, at, &element))
    }

    /// The number of elements. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        self.0.read(set_len_at)
    }

    /// Whether there is no element. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }

    /// At most `limit` elements after `after`, in canonical order. O(log n + elements).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn elements(&self, after: Option<&Value>, limit: usize) -> Result<Vec<Value>, ReadError> {
        self.0.read(|read, space, at| set_elements_at(read, space, at, after, limit))
    }
}

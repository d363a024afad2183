//! Counters.

use comity_engine::{ReadError, TxError, counter_at};

use crate::handles::{Object, TxObject};
use crate::write::Transact;

/// A counter: what everybody added, added up. Between -2^120 and 2^120.
#[derive(Clone)]
pub struct Counter(pub(crate) Object);

impl Counter {
    /// Adds; negative numbers take away.
    pub fn add(&self, delta: i64) -> Transact {
        self.0.write(move |tx, at| tx.counter_add_at(at, delta))
    }

    /// Takes back every addition that is known here, so that the counter is at 0 unless others add to it at the same
    /// time. Needs a replica that others have heard of, see [`Space::confirmed`](crate::Space::confirmed).
    pub fn remove(&self) -> Transact {
        self.0.remove()
    }

    /// The newest durable value; 0 when nothing was ever added.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn value(&self) -> Result<i128, ReadError> {
        self.0.read(counter_at)
    }
}

/// A counter inside a transaction.
pub struct TxCounter<'o, 'a>(pub(crate) TxObject<'o, 'a>);

impl TxCounter<'_, '_> {
    /// As [`Counter::add`].
    ///
    /// # Errors
    /// [`TxError`] when a name or the resulting value is out of range.
    pub fn add(&mut self, delta: i64) -> Result<(), TxError> {
        self.0.write(|tx, at| tx.counter_add_at(at, delta))
    }

    /// As [`Counter::remove`].
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits, or nobody has heard of this replica yet.
    pub fn remove(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// The value.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn value(&self) -> Result<i128, TxError> {
        self.0.read(counter_at)
    }
}

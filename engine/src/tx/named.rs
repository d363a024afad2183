//! The commonest operations, on objects by their names.

use comity_crdts::{Dot, Kind, ObjectAddress, Value};

use crate::conflicts::Location;
use crate::tx::{Tx, TxError};

fn at(kind: Kind, collection: &str, key: &str) -> Result<Location, TxError> {
    Ok(ObjectAddress::new(kind, collection, key)?.into())
}

impl Tx<'_> {
    /// As [`Tx::counter_add_at`].
    ///
    /// # Errors
    /// [`TxError`] when the name or the resulting value is out of range.
    pub fn counter_add(&mut self, collection: &str, key: &str, delta: i64) -> Result<(), TxError> {
        self.counter_add_at(&at(Kind::Counter, collection, key)?, delta)
    }

    /// As [`Tx::set_add_at`].
    ///
    /// # Errors
    /// [`TxError`] when the name or the element is out of limits.
    pub fn set_add(&mut self, collection: &str, key: &str, element: Value) -> Result<(), TxError> {
        self.set_add_at(&at(Kind::Set, collection, key)?, element)
    }

    /// As [`Tx::set_remove_at`].
    ///
    /// # Errors
    /// [`TxError`] when the name or the element is out of limits.
    pub fn set_remove(&mut self, collection: &str, key: &str, element: Value) -> Result<(), TxError> {
        self.set_remove_at(&at(Kind::Set, collection, key)?, element)
    }

    /// As [`Tx::register_write_at`].
    ///
    /// # Errors
    /// [`TxError`] when the name or the value is out of limits.
    pub fn register_write(&mut self, collection: &str, key: &str, value: Value) -> Result<(), TxError> {
        self.register_write_at(&at(Kind::Register, collection, key)?, value)
    }

    /// As [`Tx::register_resolve_at`].
    ///
    /// # Errors
    /// [`TxError`] when the name or the value is out of limits.
    pub fn register_resolve(
        &mut self,
        collection: &str,
        key: &str,
        value: Value,
        seen: &[Dot],
    ) -> Result<(), TxError> {
        self.register_resolve_at(&at(Kind::Register, collection, key)?, value, seen)
    }

    /// As [`Tx::register_clear_at`].
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits.
    pub fn register_clear(&mut self, collection: &str, key: &str) -> Result<(), TxError> {
        self.register_clear_at(&at(Kind::Register, collection, key)?)
    }
}

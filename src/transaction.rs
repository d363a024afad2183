//! Typed access to objects inside a transaction.

use comity_crdts::automerge::transaction::Transaction as DocumentEdit;
use comity_crdts::{Document, Dot, MvRegister, Value};
use comity_engine::{Listing, Tx, TxError};

/// An open transaction. Reads see the newest state applied here and the transaction's own writes.
pub struct Transaction<'t, 'a> {
    tx: &'t mut Tx<'a>,
}

impl<'t, 'a> Transaction<'t, 'a> {
    pub(crate) fn new(tx: &'t mut Tx<'a>) -> Self {
        Self { tx }
    }

    /// A counter.
    pub fn counter<'o>(&'o mut self, collection: &'o str, key: &'o str) -> TxCounter<'o, 'a> {
        TxCounter { tx: self.tx, collection, key }
    }

    /// An add-wins set.
    pub fn set<'o>(&'o mut self, collection: &'o str, key: &'o str) -> TxSet<'o, 'a> {
        TxSet { tx: self.tx, collection, key }
    }

    /// A register.
    pub fn register<'o>(&'o mut self, collection: &'o str, key: &'o str) -> TxRegister<'o, 'a> {
        TxRegister { tx: self.tx, collection, key }
    }

    /// A document.
    pub fn document<'o>(&'o mut self, collection: &'o str, key: &'o str) -> TxDocument<'o, 'a> {
        TxDocument { tx: self.tx, collection, key }
    }

    /// The keys of objects that hold something.
    ///
    /// # Errors
    /// [`TxError`] when the collection's name is out of limits or storage fails.
    pub fn list(&self, listing: Listing<'_>) -> Result<Vec<String>, TxError> {
        self.tx.list(listing)
    }
}

/// A counter inside a transaction.
pub struct TxCounter<'o, 'a> {
    tx: &'o mut Tx<'a>,
    collection: &'o str,
    key: &'o str,
}

impl TxCounter<'_, '_> {
    /// Adds.
    ///
    /// # Errors
    /// [`TxError`] when a name or the resulting value is out of range.
    pub fn add(&mut self, delta: i64) -> Result<(), TxError> {
        self.tx.counter_add(self.collection, self.key, delta)
    }

    /// The value.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn value(&self) -> Result<i128, TxError> {
        Ok(comity_engine::counter(self.tx.state(), &self.tx.space(), self.collection, self.key)?)
    }
}

/// An add-wins set inside a transaction.
pub struct TxSet<'o, 'a> {
    tx: &'o mut Tx<'a>,
    collection: &'o str,
    key: &'o str,
}

impl TxSet<'_, '_> {
    /// Adds an element.
    ///
    /// # Errors
    /// [`TxError`] when a name or the element is out of limits.
    pub fn insert(&mut self, element: impl Into<Value>) -> Result<(), TxError> {
        self.tx.set_add(self.collection, self.key, element.into())
    }

    /// Removes an element as it is known here.
    ///
    /// # Errors
    /// [`TxError`] when a name or the element is out of limits.
    pub fn remove(&mut self, element: impl Into<Value>) -> Result<(), TxError> {
        self.tx.set_remove(self.collection, self.key, element.into())
    }

    /// Whether the element is in the set.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn contains(&self, element: impl Into<Value>) -> Result<bool, TxError> {
        let (space, address) = (self.tx.space(), (self.collection, self.key));
        Ok(comity_engine::set_contains(self.tx.state(), &space, address, &element.into())?)
    }
}

/// A register inside a transaction.
pub struct TxRegister<'o, 'a> {
    tx: &'o mut Tx<'a>,
    collection: &'o str,
    key: &'o str,
}

impl TxRegister<'_, '_> {
    /// Writes, replacing every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when a name or the value is out of limits.
    pub fn write(&mut self, value: impl Into<Value>) -> Result<(), TxError> {
        self.tx.register_write(self.collection, self.key, value.into())
    }

    /// Writes, replacing only the siblings named.
    ///
    /// # Errors
    /// [`TxError`] when a name or the value is out of limits.
    pub fn resolve(&mut self, value: impl Into<Value>, seen: &[Dot]) -> Result<(), TxError> {
        self.tx.register_resolve(self.collection, self.key, value.into(), seen)
    }

    /// Empties the register of every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits.
    pub fn clear(&mut self) -> Result<(), TxError> {
        self.tx.register_clear(self.collection, self.key)
    }

    /// The register with all its siblings.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn read(&self) -> Result<MvRegister, TxError> {
        Ok(comity_engine::register(self.tx.state(), &self.tx.space(), self.collection, self.key)?)
    }
}

/// A document inside a transaction.
pub struct TxDocument<'o, 'a> {
    tx: &'o mut Tx<'a>,
    collection: &'o str,
    key: &'o str,
}

impl TxDocument<'_, '_> {
    /// Edits the document; what the closure does is one Automerge change.
    ///
    /// # Errors
    /// What the closure returns, and [`TxError`] when the edit is out of limits or refused.
    pub fn edit<R>(
        &mut self,
        edit: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, TxError>,
    ) -> Result<R, TxError> {
        self.tx.document_edit(self.collection, self.key, edit)
    }

    /// Edits the version that `heads` name; what was done since is merged with the edit.
    ///
    /// # Errors
    /// As [`TxDocument::edit`], and when the document does not hold the version.
    pub fn edit_at<R>(
        &mut self,
        heads: &[[u8; 32]],
        edit: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, TxError>,
    ) -> Result<R, TxError> {
        self.tx.document_edit_at(self.collection, self.key, heads, edit)
    }

    /// The document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn read(&mut self) -> Result<&Document, TxError> {
        self.tx.document(self.collection, self.key)
    }
}

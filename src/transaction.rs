//! Typed access to objects inside a transaction.

use std::sync::Arc;

use comity_crdts::{Kind, Policy, PolicyRegistry, check_collection};
use comity_engine::{Conflict, JournalEntry, Listing, Tx, TxError, policy_of};

use crate::handles::{TxBoundedCounter, TxCounter, TxDocument, TxFlag, TxMap, TxObject, TxRegister, TxSet};
use crate::inbox::{Choice, resolve};
use crate::place::Place;

/// An open transaction. Reads see the newest state applied here and the transaction's own writes.
pub struct Transaction<'t, 'a> {
    pub(crate) tx: &'t mut Tx<'a>,
    registry: &'t Arc<PolicyRegistry>,
}

impl<'t, 'a> Transaction<'t, 'a> {
    pub(crate) fn new(tx: &'t mut Tx<'a>, registry: &'t Arc<PolicyRegistry>) -> Self {
        Self { tx, registry }
    }

    fn object(&mut self, kind: Kind, collection: &str, key: &str) -> TxObject<'_, 'a> {
        let place = Place::new(kind, collection, key);
        TxObject { tx: &mut *self.tx, registry: self.registry, place }
    }

    /// A counter.
    pub fn counter(&mut self, collection: &str, key: &str) -> TxCounter<'_, 'a> {
        TxCounter(self.object(Kind::Counter, collection, key))
    }

    /// A bounded counter.
    pub fn bounded_counter(&mut self, collection: &str, key: &str) -> TxBoundedCounter<'_, 'a> {
        TxBoundedCounter(self.object(Kind::BoundedCounter, collection, key))
    }

    /// An add-wins set.
    pub fn set(&mut self, collection: &str, key: &str) -> TxSet<'_, 'a> {
        TxSet(self.object(Kind::Set, collection, key))
    }

    /// A remove-wins set.
    pub fn remove_wins_set(&mut self, collection: &str, key: &str) -> TxSet<'_, 'a> {
        TxSet(self.object(Kind::RwSet, collection, key))
    }

    /// An enable-wins flag.
    pub fn flag(&mut self, collection: &str, key: &str) -> TxFlag<'_, 'a> {
        TxFlag(self.object(Kind::Flag, collection, key))
    }

    /// A disable-wins flag.
    pub fn disable_wins_flag(&mut self, collection: &str, key: &str) -> TxFlag<'_, 'a> {
        TxFlag(self.object(Kind::DwFlag, collection, key))
    }

    /// A register.
    pub fn register(&mut self, collection: &str, key: &str) -> TxRegister<'_, 'a> {
        TxRegister(self.object(Kind::Register, collection, key))
    }

    /// A map.
    pub fn map(&mut self, collection: &str, key: &str) -> TxMap<'_, 'a> {
        TxMap(self.object(Kind::Map, collection, key))
    }

    /// A document.
    pub fn document(&mut self, collection: &str, key: &str) -> TxDocument<'_, 'a> {
        TxDocument(self.object(Kind::Document, collection, key))
    }

    /// The keys of objects that hold something.
    ///
    /// # Errors
    /// [`TxError`] when the collection's name is out of limits or storage fails.
    pub fn list(&self, listing: Listing<'_>) -> Result<Vec<String>, TxError> {
        self.tx.list(listing)
    }

    /// Sets the policy under which the registers of a collection are read, at every replica.
    ///
    /// # Errors
    /// [`TxError`] when the collection's name is out of limits.
    pub fn set_policy(&mut self, collection: &str, policy: &Policy) -> Result<(), TxError> {
        self.tx.set_policy(collection, policy)
    }

    /// The policy of a collection.
    ///
    /// # Errors
    /// [`TxError`] when the collection's name is out of limits or storage fails.
    pub fn policy(&self, collection: &str) -> Result<Policy, TxError> {
        check_collection(collection)?;
        Ok(policy_of(self.tx.state(), &self.tx.space(), collection)?)
    }

    /// As [`Space::resolve`](crate::Space::resolve).
    ///
    /// # Errors
    /// [`TxError`] when the value is out of limits; a [`ResolveError`](crate::ResolveError) when the choice is none
    /// in this conflict.
    pub fn resolve(&mut self, conflict: &Conflict, choice: impl Into<Choice>) -> Result<(), TxError> {
        resolve(self.tx, conflict, choice.into())
    }

    /// As [`Space::restore`](crate::Space::restore).
    ///
    /// # Errors
    /// As there; [`TxError`] when a limit is exceeded.
    pub fn restore(&mut self, entry: &JournalEntry) -> Result<(), TxError> {
        self.tx.restore(entry)
    }
}

//! Registers, and what they show under a policy.

use std::sync::Arc;

use comity_crdts::{Dot, MvRegister, Policy, PolicyRegistry, RegisterView, SpaceId, Value};
use comity_engine::{Location, ReadError, StateRead, TxError, policy_of, register_at};

use crate::error::ContentError;
use crate::handles::{Object, TxObject};
use crate::write::Transact;

/// A register: the last value written, and every value that was written at the same time as it. What of these a
/// reader is shown is for a [`Policy`] to say; the register's collection has one, and last-writer-wins otherwise.
#[derive(Clone)]
pub struct Register(pub(crate) Object);

impl Register {
    /// Writes, replacing every value visible here.
    pub fn write(&self, value: impl Into<Value>) -> Transact {
        let value = value.into();
        self.0.write(move |tx, at| tx.register_write_at(at, value))
    }

    /// Resolves a conflict: replaces the siblings that were seen, and only those. What was written since stays
    /// beside the new value. [`Space::resolve`](crate::Space::resolve) does it for a conflict from the inbox.
    pub fn resolve(&self, value: impl Into<Value>, seen: &[Dot]) -> Transact {
        let (value, seen) = (value.into(), seen.to_vec());
        self.0.write(move |tx, at| tx.register_resolve_at(at, value, &seen))
    }

    /// Empties the register of every value visible here.
    pub fn clear(&self) -> Transact {
        self.0.remove()
    }

    /// As [`Register::clear`]: an empty register is none.
    pub fn remove(&self) -> Transact {
        self.0.remove()
    }

    /// The newest durable state, to be read under a policy.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self) -> Result<RegisterReader, ReadError> {
        let registry = self.0.space.registry();
        self.0.read(|read, space, at| RegisterReader::load(read, space, at, registry))
    }

    /// The newest durable value under the collection's policy; `None` when the register is empty.
    ///
    /// # Errors
    /// [`ContentError`]; `Undecided` when the policy shows several.
    pub fn value(&self) -> Result<Option<Value>, ContentError> {
        self.read()?.value()
    }
}

/// A register inside a transaction.
pub struct TxRegister<'o, 'a>(pub(crate) TxObject<'o, 'a>);

impl TxRegister<'_, '_> {
    /// Writes, replacing every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when a name or the value is out of limits.
    pub fn write(&mut self, value: impl Into<Value>) -> Result<(), TxError> {
        self.0.write(|tx, at| tx.register_write_at(at, value.into()))
    }

    /// Writes, replacing only the siblings named.
    ///
    /// # Errors
    /// [`TxError`] when a name or the value is out of limits.
    pub fn resolve(&mut self, value: impl Into<Value>, seen: &[Dot]) -> Result<(), TxError> {
        self.0.write(|tx, at| tx.register_resolve_at(at, value.into(), seen))
    }

    /// Empties the register of every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits.
    pub fn clear(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// As [`TxRegister::clear`].
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits.
    pub fn remove(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// The register with all its siblings, to be read under a policy.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn read(&self) -> Result<RegisterReader, TxError> {
        self.0.read(|read, space, at| RegisterReader::load(read, space, at, self.0.registry))
    }

    /// The value under the collection's policy; `None` when the register is empty.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits, storage fails, or the policy shows several values.
    pub fn value(&self) -> Result<Option<Value>, TxError> {
        Ok(self.read()?.value()?)
    }
}

/// A register that was read, with its collection's policy. Reading changes nothing.
#[derive(Clone, Debug)]
pub struct RegisterReader {
    location: Location,
    register: MvRegister,
    policy: Policy,
    registry: Arc<PolicyRegistry>,
}

impl RegisterReader {
    pub(crate) fn load(
        read: &dyn StateRead,
        space: &SpaceId,
        at: &Location,
        registry: &Arc<PolicyRegistry>,
    ) -> Result<Self, ReadError> {
        let register = register_at(read, space, at)?;
        let policy = policy_of(read, space, at.object.collection())?;
        Ok(Self { location: at.clone(), register, policy, registry: Arc::clone(registry) })
    }

    /// The one value that the collection's policy shows; `None` when the register is empty.
    ///
    /// # Errors
    /// [`ContentError::Undecided`] when it shows several.
    pub fn value(&self) -> Result<Option<Value>, ContentError> {
        match self.shown() {
            RegisterView::Absent => Ok(None),
            RegisterView::Value(value) => Ok(Some(value)),
            RegisterView::Siblings(siblings) => Err(ContentError::Undecided {
                location: self.location.clone(),
                siblings: siblings.len(),
                policy: self.policy.clone(),
            }),
        }
    }

    /// What the collection's policy shows: nothing, a value, or siblings.
    pub fn shown(&self) -> RegisterView {
        self.under(&self.policy)
    }

    /// What another policy shows. One of the application's own is found when it was registered as this replica
    /// was opened, and shows all siblings otherwise.
    pub fn under(&self, policy: &Policy) -> RegisterView {
        policy.view_with(&self.register, &self.registry)
    }

    /// The one value that last-writer-wins shows, or `None` when the register is empty.
    pub fn latest(&self) -> Option<Value> {
        match Policy::Lww.view(&self.register) {
            RegisterView::Value(value) => Some(value),
            RegisterView::Absent | RegisterView::Siblings(_) => None,
        }
    }

    /// Every concurrent value, with the dot by which a resolution names it.
    pub fn siblings(&self) -> Vec<(Dot, Value)> {
        self.register.siblings().map(|(dot, sibling)| (*dot, sibling.value.clone())).collect()
    }

    /// The policy of the register's collection.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where the register is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The register itself.
    pub fn register(&self) -> &MvRegister {
        &self.register
    }
}

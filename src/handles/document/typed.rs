//! Documents as an application's own types, by autosurgeon.

use autosurgeon::{Hydrate, Reconcile};
use comity_engine::TxError;

use crate::error::DocumentReadError;
use crate::handles::{DocumentHandle, TxDocument};
use crate::write::Transact;

impl DocumentHandle {
    /// Makes the document equal to a value, by as few operations as autosurgeon finds. What the type does not name
    /// stays. A `String` is written as a whole, the last writer wins; what several write is an [`autosurgeon::Text`].
    pub fn reconcile<T: Reconcile + Send + 'static>(&self, value: T) -> Transact {
        self.edit(move |document| autosurgeon::reconcile(document, &value).map_err(TxError::refuse))
    }

    /// The newest durable state as a value. O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`]; also when the document is not the data that is asked for.
    pub fn hydrate<T: Hydrate>(&self) -> Result<T, DocumentReadError> {
        let document = self.read()?;
        let location = self.0.place.at().map_err(|error| DocumentReadError::Read(error.into()))?;
        autosurgeon::hydrate(document.automerge())
            .map_err(|source| DocumentReadError::Typed { location, source })
    }
}

impl TxDocument<'_, '_> {
    /// As [`DocumentHandle::reconcile`].
    ///
    /// # Errors
    /// [`TxError::Refused`] with a [`ReconcileError`](autosurgeon::ReconcileError), and as [`TxDocument::edit`].
    pub fn reconcile<T: Reconcile>(&mut self, value: &T) -> Result<(), TxError> {
        self.edit(|document| autosurgeon::reconcile(document, value).map_err(TxError::refuse))
    }

    /// As [`DocumentHandle::hydrate`], of the document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError::Refused`] with a [`HydrateError`](autosurgeon::HydrateError), and as [`TxDocument::read`].
    pub fn hydrate<T: Hydrate>(&mut self) -> Result<T, TxError> {
        autosurgeon::hydrate(self.read()?.automerge()).map_err(TxError::refuse)
    }
}

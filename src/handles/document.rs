//! Automerge documents.

use std::sync::Arc;

use comity_crdts::automerge::transaction::Transaction as DocumentEdit;
use comity_crdts::{AddressError, Document, Kind, ObjectAddress};
use comity_engine::{ReadError, TxError};

use crate::follow::DocumentFeed;
use crate::handles::{Object, TxObject};
use crate::write::Transact;

/// An Automerge document.
#[derive(Clone)]
pub struct DocumentHandle(pub(crate) Object);

impl DocumentHandle {
    /// Edits the document through automerge's transaction API. What the closure does is one change; an
    /// error in it leaves the document as it was.
    pub fn edit<R: Send + 'static>(
        &self,
        edit: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, TxError> + Send + 'static,
    ) -> Transact<R> {
        self.0.write(move |tx, at| tx.document_edit(at.object.collection(), at.object.key(), edit))
    }

    /// Removes the document. What others do to it at the same time goes too; it is in the journal then.
    pub fn remove(&self) -> Transact {
        self.0.remove()
    }

    /// The newest durable state; as [`View::document`](crate::View::document).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self) -> Result<Arc<Document>, ReadError> {
        self.0.space.view()?.document(&self.0.place.collection, &self.0.place.key)
    }

    /// Follows the document: its newest durable state, and then what changes, as it becomes visible.
    ///
    /// # Errors
    /// [`AddressError`] when a name is out of limits.
    pub fn follow(&self) -> Result<DocumentFeed, AddressError> {
        let address = ObjectAddress::new(Kind::Document, &self.0.place.collection, &self.0.place.key)?;
        Ok(DocumentFeed::new(&self.0.space, address))
    }
}

/// A document inside a transaction.
pub struct TxDocument<'o, 'a>(pub(crate) TxObject<'o, 'a>);

impl TxDocument<'_, '_> {
    /// Edits the document; what the closure does is one Automerge change.
    ///
    /// # Errors
    /// What the closure returns, and [`TxError`] when the edit is out of limits or refused.
    pub fn edit<R>(
        &mut self,
        edit: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, TxError>,
    ) -> Result<R, TxError> {
        self.0.tx.document_edit(&self.0.place.collection, &self.0.place.key, edit)
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
        self.0.tx.document_edit_at(&self.0.place.collection, &self.0.place.key, heads, edit)
    }

    /// As [`DocumentHandle::remove`].
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn remove(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// The document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn read(&mut self) -> Result<&Document, TxError> {
        self.0.tx.document(&self.0.place.collection, &self.0.place.key)
    }
}

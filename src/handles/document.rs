//! Automerge documents.

mod history;
mod import;
mod json;
mod text;
#[cfg(feature = "autosurgeon")]
mod typed;

use std::sync::Arc;

use comity_crdts::automerge::transaction::Transaction as DocumentEdit;
use comity_crdts::{AddressError, Document, JsonError, Kind, ObjectAddress};
use comity_engine::{Location, ReadError, Tx, TxError};

use crate::error::DocumentReadError;
use crate::follow::DocumentFeed;
use crate::handles::{Object, TxObject};
use crate::write::Transact;

pub use history::DocumentAt;

/// An Automerge document.
///
/// What is in it is named by JSON Pointers (RFC 6901): `""` is the whole document, which is a map, `/tasks/0/title`
/// something in it. Writing by pointer makes as few operations as it can, in one change; what it does not change,
/// others may change at the same time. JSON is described at [`json`](crate::json), with the tags for what it lacks.
/// Positions in texts are Unicode code points.
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

    /// Edits the version that `heads` name; what was done since is merged with the edit. Each such edit may cost the
    /// document one more author, so it is for edits that were begun on an old version, not for every edit. Refused
    /// when the document does not hold the version.
    pub fn edit_at<R: Send + 'static>(
        &self,
        heads: &[[u8; 32]],
        edit: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, TxError> + Send + 'static,
    ) -> Transact<R> {
        let heads = heads.to_vec();
        self.0.write(move |tx, at| tx.document_edit_at(at.object.collection(), at.object.key(), &heads, edit))
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

    /// One edit by pointers.
    fn change<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, JsonError> + Send + 'static,
    ) -> Transact<R> {
        self.0.write(move |tx, at| change_in(tx, at, change))
    }

    /// What is read of the newest durable state.
    fn look<R>(&self, look: impl FnOnce(&Document) -> Result<R, JsonError>) -> Result<R, DocumentReadError> {
        look(&*self.read()?).map_err(|source| self.read_error(source))
    }

    fn read_error(&self, source: JsonError) -> DocumentReadError {
        match self.0.place.at() {
            Ok(location) => DocumentReadError::Json { location, source },
            Err(error) => DocumentReadError::Read(error.into()),
        }
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

/// A document inside a transaction. Reads see what the transaction did.
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

    fn change<R>(
        &mut self,
        change: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, JsonError>,
    ) -> Result<R, TxError> {
        self.0.write(|tx, at| change_in(tx, at, change))
    }

    fn look<R>(&mut self, look: impl FnOnce(&Document) -> Result<R, JsonError>) -> Result<R, TxError> {
        let object = self.0.place.at()?;
        look(self.read()?).map_err(|source| TxError::Json { object, source })
    }
}

fn change_in<R>(
    tx: &mut Tx<'_>,
    at: &Location,
    change: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, JsonError>,
) -> Result<R, TxError> {
    tx.document_edit(at.object.collection(), at.object.key(), |document| {
        change(document).map_err(|source| TxError::Json { object: at.clone(), source })
    })
}

//! The history of documents.

use std::sync::Arc;

use comity_crdts::json::{self, JsonForm};
use comity_crdts::{Document, DocumentPatch, DocumentVersion, JsonError, text, versions};
use comity_engine::{ReadError, TxError};
use serde_json::Value;

use crate::error::DocumentReadError;
use crate::handles::{DocumentHandle, TxDocument};
use crate::write::Transact;

impl DocumentHandle {
    /// The changes that no other builds on, ascending: the name of the newest durable version. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn heads(&self) -> Result<Vec<[u8; 32]>, ReadError> {
        let place = &self.0.place;
        self.0.space.view()?.document_heads(&place.collection, &place.key)
    }

    /// At most `limit` versions, newest first, after the version `before` when it is given: the hash of the last one of
    /// a page asks for the next. The same order at every replica. O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`]; also when `before` is not in the history.
    pub fn versions(
        &self,
        before: Option<&[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<DocumentVersion>, DocumentReadError> {
        self.look(|document| versions::list(document.automerge(), before, limit))
    }

    /// The version that `heads` name, for reading. O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`]; also when the document does not hold the version.
    pub fn at(&self, heads: &[[u8; 32]]) -> Result<DocumentAt, DocumentReadError> {
        let document = self.read()?;
        match heads.iter().find(|head| !document.has(head)) {
            Some(head) => Err(self.read_error(JsonError::UnknownVersion { head: *head })),
            None => Ok(DocumentAt { document, heads: heads.to_vec(), of: self.clone() }),
        }
    }

    /// What leads from the version `from` to the version `to`, which may be older; no heads name the empty document.
    /// O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`]; also when the document does not hold a version.
    pub fn diff(&self, from: &[[u8; 32]], to: &[[u8; 32]]) -> Result<Vec<DocumentPatch>, DocumentReadError> {
        self.look(|document| versions::diff(document.automerge(), from, to))
    }

    /// Makes the document equal to an old version by a new edit, as [`json::restore`](crate::json::restore) does: what
    /// came after stays in the history, and what others write at the same time is merged.
    pub fn restore(&self, heads: &[[u8; 32]]) -> Transact {
        let heads = heads.to_vec();
        self.change(move |document| json::restore(document, &heads))
    }
}

impl TxDocument<'_, '_> {
    /// As [`DocumentHandle::restore`].
    ///
    /// # Errors
    /// [`TxError::Json`] when the document does not hold the version, and as [`TxDocument::edit`].
    pub fn restore(&mut self, heads: &[[u8; 32]]) -> Result<(), TxError> {
        self.change(|document| json::restore(document, heads))
    }
}

/// A document as it was, by [`DocumentHandle::at`].
#[derive(Clone)]
pub struct DocumentAt {
    document: Arc<Document>,
    heads: Vec<[u8; 32]>,
    of: DocumentHandle,
}

impl DocumentAt {
    /// The changes that name the version.
    pub fn heads(&self) -> &[[u8; 32]] {
        &self.heads
    }

    /// What was at a pointer, tagged where JSON lacks something; `None` when nothing was. O(document).
    ///
    /// # Errors
    /// [`DocumentReadError`].
    pub fn get_json(&self, pointer: &str) -> Result<Option<Value>, DocumentReadError> {
        json::read_at(self.document.automerge(), &self.heads, pointer, JsonForm::Tagged)
            .map_err(|source| self.of.read_error(source))
    }

    /// The text that was at a pointer; `None` when nothing was. O(document).
    ///
    /// # Errors
    /// [`DocumentReadError`].
    pub fn text(&self, pointer: &str) -> Result<Option<String>, DocumentReadError> {
        text::read_at(self.document.automerge(), &self.heads, pointer)
            .map_err(|source| self.of.read_error(source))
    }
}

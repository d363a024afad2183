//! Texts in documents.

use std::ops::Range;

use comity_crdts::automerge::marks::ExpandMark;
use comity_crdts::{DocumentMark, text};
use comity_engine::TxError;

use crate::error::DocumentReadError;
use crate::handles::{DocumentHandle, TxDocument};
use crate::write::Transact;

impl DocumentHandle {
    /// The text at a pointer in the newest durable state; `None` when nothing is there. O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`].
    pub fn text(&self, pointer: &str) -> Result<Option<String>, DocumentReadError> {
        self.look(|document| text::read(document.automerge(), pointer))
    }

    /// Replaces `delete` code points of the text at a pointer, from `position` on, by `insert`.
    ///
    /// The position is one of the text as it is when the write is made, which others may have changed since it was
    /// read here. Where that matters, take a [`DocumentHandle::cursor`] and ask for its position in the transaction.
    pub fn splice(&self, pointer: &str, position: usize, delete: usize, insert: &str) -> Transact {
        let (pointer, insert) = (pointer.to_owned(), insert.to_owned());
        self.change(move |document| text::splice(document, &pointer, position, delete, &insert))
    }

    /// A name for a place in the text at a pointer that moves with it, see [`text::cursor`](crate::text::cursor).
    /// Every replica that has the text understands it. O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`].
    pub fn cursor(&self, pointer: &str, position: usize) -> Result<Vec<u8>, DocumentReadError> {
        self.look(|document| text::cursor(document.automerge(), pointer, position))
    }

    /// Where a cursor is in the newest durable state. O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`]; also when the cursor is of an edit that is not here yet.
    pub fn position(&self, cursor: &[u8]) -> Result<usize, DocumentReadError> {
        self.look(|document| text::position(document.automerge(), cursor))
    }

    /// Sets a mark on a range of the text at a pointer: a link, a comment, bold. `expand` says on which sides it takes
    /// in what is inserted at its edges.
    pub fn mark(&self, pointer: &str, mark: DocumentMark, expand: ExpandMark) -> Transact {
        let pointer = pointer.to_owned();
        self.change(move |document| text::mark(document, &pointer, &mark, expand))
    }

    /// Removes the marks of a name from a range of the text at a pointer.
    pub fn unmark(&self, pointer: &str, range: Range<usize>, name: &str) -> Transact {
        let (pointer, name) = (pointer.to_owned(), name.to_owned());
        self.change(move |document| text::unmark(document, &pointer, range, &name))
    }

    /// The marks of the text at a pointer, by where they start, in the newest durable state. O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`].
    pub fn marks(&self, pointer: &str) -> Result<Vec<DocumentMark>, DocumentReadError> {
        self.look(|document| text::marks(document.automerge(), pointer))
    }
}

impl TxDocument<'_, '_> {
    /// As [`DocumentHandle::text`], of the document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`].
    pub fn text(&mut self, pointer: &str) -> Result<Option<String>, TxError> {
        self.look(|document| text::read(document.automerge(), pointer))
    }

    /// As [`DocumentHandle::splice`].
    ///
    /// # Errors
    /// [`TxError::Json`] when no text is there, or it ends before that; and as [`TxDocument::edit`].
    pub fn splice(
        &mut self,
        pointer: &str,
        position: usize,
        delete: usize,
        insert: &str,
    ) -> Result<(), TxError> {
        self.change(|document| text::splice(document, pointer, position, delete, insert))
    }

    /// As [`DocumentHandle::cursor`], of the document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`].
    pub fn cursor(&mut self, pointer: &str, position: usize) -> Result<Vec<u8>, TxError> {
        self.look(|document| text::cursor(document.automerge(), pointer, position))
    }

    /// As [`DocumentHandle::position`], in the document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`].
    pub fn position(&mut self, cursor: &[u8]) -> Result<usize, TxError> {
        self.look(|document| text::position(document.automerge(), cursor))
    }

    /// As [`DocumentHandle::mark`].
    ///
    /// # Errors
    /// [`TxError::Json`] when no text is there, the range is empty or not within it, or the value is none for a mark;
    /// and as [`TxDocument::edit`].
    pub fn mark(&mut self, pointer: &str, mark: &DocumentMark, expand: ExpandMark) -> Result<(), TxError> {
        self.change(|document| text::mark(document, pointer, mark, expand))
    }

    /// As [`DocumentHandle::unmark`].
    ///
    /// # Errors
    /// As [`TxDocument::mark`].
    pub fn unmark(&mut self, pointer: &str, range: Range<usize>, name: &str) -> Result<(), TxError> {
        self.change(|document| text::unmark(document, pointer, range, name))
    }

    /// As [`DocumentHandle::marks`], in the document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`].
    pub fn marks(&mut self, pointer: &str) -> Result<Vec<DocumentMark>, TxError> {
        self.look(|document| text::marks(document.automerge(), pointer))
    }
}

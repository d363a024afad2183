//! Documents as JSON.

use comity_crdts::json::{self, JsonForm};
use comity_crdts::text;
use comity_engine::TxError;
use serde_json::Value;

use crate::error::DocumentReadError;
use crate::handles::{DocumentHandle, TxDocument};
use crate::write::Transact;

impl DocumentHandle {
    /// What is at a pointer in the newest durable state, tagged where JSON lacks something; `None` when nothing is.
    /// Without tags, or of a document that was read already, by [`json::read`](crate::json::read). O(history).
    ///
    /// # Errors
    /// [`DocumentReadError`].
    pub fn get_json(&self, pointer: &str) -> Result<Option<Value>, DocumentReadError> {
        self.look(|document| json::read(document.automerge(), pointer, JsonForm::Tagged))
    }

    /// Makes what is at a pointer equal to a value, as [`json::put`](crate::json::put) does: only what differs is
    /// written, what is absent is deleted, strings are collaborative text.
    pub fn put_json(&self, pointer: &str, value: Value) -> Transact {
        let pointer = pointer.to_owned();
        self.change(move |document| json::put(document, &pointer, &value))
    }

    /// Applies a merge patch (RFC 7396) to what is at a pointer: maps are merged, null removes a key, anything else
    /// takes the place of what is there.
    pub fn merge_patch(&self, pointer: &str, value: Value) -> Transact {
        let pointer = pointer.to_owned();
        self.change(move |document| json::merge_patch(document, &pointer, &value))
    }

    /// Applies a JSON patch (RFC 6902), all of it or nothing. What is moved or copied is a new object: what others do
    /// to the old one at the same time stays with the old one.
    pub fn patch(&self, operations: Value) -> Transact {
        self.change(move |document| json::patch(document, &operations))
    }

    /// Adds to the counter at a pointer; what others add at the same time is added too. It is put there by
    /// [`DocumentHandle::put_json`] of `{"$counter": 0}`, by one replica: of two put there at the same time, one is
    /// shown.
    pub fn increment(&self, pointer: &str, by: i64) -> Transact {
        let pointer = pointer.to_owned();
        self.change(move |document| text::increment(document, &pointer, by))
    }
}

impl TxDocument<'_, '_> {
    /// As [`DocumentHandle::get_json`], of the document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`].
    pub fn get_json(&mut self, pointer: &str) -> Result<Option<Value>, TxError> {
        self.look(|document| json::read(document.automerge(), pointer, JsonForm::Tagged))
    }

    /// As [`DocumentHandle::put_json`].
    ///
    /// # Errors
    /// [`TxError::Json`] when it cannot be put there, and as [`TxDocument::edit`].
    pub fn put_json(&mut self, pointer: &str, value: &Value) -> Result<(), TxError> {
        self.change(|document| json::put(document, pointer, value))
    }

    /// As [`DocumentHandle::merge_patch`].
    ///
    /// # Errors
    /// As [`TxDocument::put_json`].
    pub fn merge_patch(&mut self, pointer: &str, value: &Value) -> Result<(), TxError> {
        self.change(|document| json::merge_patch(document, pointer, value))
    }

    /// As [`DocumentHandle::patch`].
    ///
    /// # Errors
    /// As [`TxDocument::put_json`]; nothing of the patch is kept then.
    pub fn patch(&mut self, operations: &Value) -> Result<(), TxError> {
        self.change(|document| json::patch(document, operations))
    }

    /// As [`DocumentHandle::increment`].
    ///
    /// # Errors
    /// [`TxError::Json`] when no counter is there, and as [`TxDocument::edit`].
    pub fn increment(&mut self, pointer: &str, by: i64) -> Result<(), TxError> {
        self.change(|document| text::increment(document, pointer, by))
    }
}

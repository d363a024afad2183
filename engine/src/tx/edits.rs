//! Editing documents in a transaction.

use comity_crdts::limits::CONTEXT_DOTS_MAX;
use comity_crdts::{Document, EditError, Kind, ObjectAddress, ObjectId, RawChange, automerge};

use crate::apply::actor;
use crate::conflicts::Location;
use crate::documents::{flush, store_changes};
use crate::op::Op;
use crate::rows::Object;
use crate::site::Site;
use crate::space::Space;
use crate::tx::{Tx, TxError};

impl Tx<'_> {
    /// Edits a document through automerge's transaction API. What the closure does is one automerge change.
    ///
    /// # Errors
    /// What the closure returns; otherwise [`TxError`] when the name is out of limits, the edit is too large,
    /// or the document refuses it. Nothing of the edit is kept then.
    pub fn document_edit<R, E: From<TxError>>(
        &mut self,
        collection: &str,
        key: &str,
        edit: impl FnOnce(&mut automerge::transaction::Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let seconds = (self.hlc.millis() / 1_000) as i64;
        self.edit_with(collection, key, |document| document.edit(seconds, edit))
    }

    /// As [`Tx::document_edit`], on the version that `heads` name instead of the newest.
    ///
    /// # Errors
    /// As [`Tx::document_edit`], and when the document does not hold the version.
    pub fn document_edit_at<R, E: From<TxError>>(
        &mut self,
        collection: &str,
        key: &str,
        heads: &[[u8; 32]],
        edit: impl FnOnce(&mut automerge::transaction::Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let seconds = (self.hlc.millis() / 1_000) as i64;
        self.edit_with(collection, key, |document| document.edit_at(heads, seconds, edit))
    }

    fn edit_with<R, E: From<TxError>>(
        &mut self,
        collection: &str,
        key: &str,
        edit: impl FnOnce(&mut Document) -> Result<(R, Option<RawChange>), EditError<E>>,
    ) -> Result<R, E> {
        let address = ObjectAddress::new(Kind::Document, collection, key).map_err(TxError::from)?;
        let site = Site::top(&self.space.id, &address);
        let id = site.id;
        let group = self.group(&address)?;
        let actor = actor(&self.incarnation.origin, &self.incarnation.nonce);
        self.edited.insert(id);
        let document = self.space.documents.load(&self.work, &id, actor).map_err(TxError::from)?;
        let (result, change) = match edit(document) {
            Ok(done) => done,
            Err(error) => {
                let poisoned = matches!(error, EditError::Panicked | EditError::Document(_));
                let error = edit_error(&address, error);
                if poisoned {
                    // Its memory may hold half an edit; the rows hold what was committed, but not what this
                    // transaction did before, so the transaction cannot go on with the document.
                    self.space.documents.evict(&id);
                }
                return Err(error);
            }
        };
        let Some(change) = change else { return Ok(result) };
        let heads = document.heads();
        let value_bytes = match self.check_size(change.bytes().len()) {
            Ok(value_bytes) => value_bytes,
            Err(error) => {
                // Its memory holds the edit, which is not kept.
                self.space.documents.evict(&id);
                return Err(error.into());
            }
        };
        let changes = std::iter::once(&change);
        store_changes(&mut self.work, &mut self.effects, &site, heads, changes).map_err(TxError::from)?;
        self.space.documents.grew(&id, change.bytes().len() as u64);
        self.groups[group].ops.push(Op::DocumentChange(change));
        self.ops += 1;
        self.value_bytes = value_bytes;
        Ok(result)
    }

    /// A document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits or storage fails.
    pub fn document(&mut self, collection: &str, key: &str) -> Result<&Document, TxError> {
        let address = ObjectAddress::new(Kind::Document, collection, key)?;
        let id = ObjectId::derive(&self.space.id, &address);
        let actor = actor(&self.incarnation.origin, &self.incarnation.nonce);
        Ok(self.space.documents.load(&self.work, &id, actor)?)
    }

    /// Removes a document for good: what others do to it at the same time goes too, into their journals and this
    /// one's. Nothing happens when there is none.
    pub(super) fn remove_document(&mut self, at: &Location) -> Result<(), TxError> {
        let Object::Document(header) = self.load(at, Kind::Document)? else { return Ok(()) };
        if header.changes == 0 {
            return Ok(());
        }
        let heads = header.heads;
        if heads.len() > CONTEXT_DOTS_MAX {
            let (object, dots) = (at.clone(), heads.len());
            return Err(TxError::TooManySiblings { object, dots, dots_max: CONTEXT_DOTS_MAX });
        }
        self.edited.insert(ObjectId::derive(&self.space.id, &at.object));
        self.push(at, Op::DocumentRemove { heads })?;
        let actor = actor(&self.incarnation.origin, &self.incarnation.nonce);
        let Space { documents, id, .. } = &mut *self.space;
        Ok(flush(documents, &mut self.work, &mut self.effects, id, actor)?)
    }
}

fn edit_error<E: From<TxError>>(address: &ObjectAddress, error: EditError<E>) -> E {
    let object = address.clone().into();
    match error {
        EditError::Refused(error) => error,
        EditError::Panicked => TxError::EditPanicked { object }.into(),
        EditError::TooLarge { what, value, value_max } => {
            TxError::EditTooLarge { object, what, value, value_max }.into()
        }
        EditError::Document(source) => TxError::Document { object, source }.into(),
    }
}

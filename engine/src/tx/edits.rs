//! Editing documents in a transaction.

use std::collections::BTreeMap;

use comity_crdts::limits::{CHANGE_SET_OPS_MAX, CONTEXT_DOTS_MAX};
use comity_crdts::{Document, DocumentError, EditError, Kind, ObjectAddress, ObjectId, RawChange, automerge};

use crate::apply::actor;
use crate::conflicts::Location;
use crate::documents::{DocumentPlace, flush, store_edit};
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
        let group = self.group(&address)?;
        let document = self.load_document(&address)?;
        let (result, change) = match edit(document) {
            Ok(done) => done,
            Err(error) => {
                if matches!(error, EditError::Document(DocumentError::Poisoned { .. })) {
                    self.lose(&address);
                }
                return Err(edit_error(&address, error));
            }
        };
        let Some(change) = change else { return Ok(result) };
        let value_bytes = match self.check_size(change.bytes().len()) {
            Ok(value_bytes) => value_bytes,
            Err(error) => {
                // Its memory holds the edit, which is not kept.
                self.lose(&address);
                return Err(error.into());
            }
        };
        self.store_edit(&address, &change).map_err(TxError::from)?;
        self.groups[group].ops.push(Op::DocumentChange(change));
        self.ops += 1;
        self.value_bytes = value_bytes;
        Ok(result)
    }

    /// Adds changes that somebody else made, in any order: what an Automerge program supplies. All of them are checked
    /// against the document, and none is kept unless all can be. Returns how many were not there yet.
    ///
    /// # Errors
    /// [`TxError`] when a change is refused, with why, or the limits of a transaction are exceeded.
    pub fn document_import(
        &mut self,
        collection: &str,
        key: &str,
        changes: &[RawChange],
    ) -> Result<usize, TxError> {
        let address = ObjectAddress::new(Kind::Document, collection, key)?;
        let group = self.group(&address)?;
        let outcome = match self.load_document(&address)?.apply(changes) {
            Ok(outcome) => outcome,
            Err(source) => return Err(self.not_imported(&address, source)),
        };
        if let Some((_, source)) = outcome.refused.into_iter().next() {
            return Err(self.not_imported(&address, source));
        }
        let by_hash: BTreeMap<[u8; 32], &RawChange> = changes.iter().map(|c| (c.hash(), c)).collect();
        let fresh = outcome.applied.iter().filter_map(|hash| by_hash.get(hash).copied());
        let mut count = 0;
        for change in fresh {
            let stored = self.import_one(&address, group, change);
            if let Err(error) = stored {
                self.lose(&address);
                return Err(error);
            }
            count += 1;
        }
        Ok(count)
    }

    fn not_imported(&mut self, address: &ObjectAddress, source: DocumentError) -> TxError {
        self.lose(address);
        TxError::Document { object: address.clone().into(), source }
    }

    fn import_one(
        &mut self,
        address: &ObjectAddress,
        group: usize,
        change: &RawChange,
    ) -> Result<(), TxError> {
        if self.ops >= CHANGE_SET_OPS_MAX {
            return Err(TxError::TooManyOps { ops_max: CHANGE_SET_OPS_MAX });
        }
        let value_bytes = self.check_size(change.bytes().len())?;
        self.store_edit(address, change)?;
        self.groups[group].ops.push(Op::DocumentChange(change.clone()));
        self.ops += 1;
        self.value_bytes = value_bytes;
        Ok(())
    }

    fn load_document(&mut self, address: &ObjectAddress) -> Result<&mut Document, TxError> {
        self.check_known(&Location::from(address.clone()))?;
        let site = Site::top(&self.space.id, address);
        if self.lost.contains(&site.id) {
            let reason = "what this transaction did to it could not be made again".to_owned();
            let (object, source) = (address.clone().into(), DocumentError::Poisoned { reason });
            return Err(TxError::Document { object, source });
        }
        let actor = actor(&self.incarnation.origin, &self.incarnation.nonce);
        let Space { documents, id, .. } = &mut *self.space;
        let place = DocumentPlace { space: id, address, site: &site };
        Ok(documents.load(&self.work, &place, actor, &self.edited)?)
    }

    /// Drops a document whose memory is not what the transaction did, and makes it again where the transaction did
    /// something to it before, which nothing else holds yet.
    fn lose(&mut self, address: &ObjectAddress) {
        let site = Site::top(&self.space.id, address);
        self.space.documents.evict(&site.id);
        if self.edited.contains(&site.id) && self.remake(address, &site).is_err() {
            self.lost.insert(site.id);
        }
    }

    /// Makes a document again from what is committed and what the transaction did to it.
    fn remake(&mut self, address: &ObjectAddress, site: &Site) -> Result<(), TxError> {
        let ops = self.group_of(address).map_or(&[][..], |group| &self.groups[group].ops);
        let removal = ops.iter().rposition(|op| matches!(op, Op::DocumentRemove { .. }));
        let made = &ops[removal.map_or(0, |removal| removal + 1)..];
        let changes = made.iter().filter_map(|op| match op {
            Op::DocumentChange(change) => Some(change.clone()),
            _ => None,
        });
        let changes: Vec<RawChange> = changes.collect();
        let actor = actor(&self.incarnation.origin, &self.incarnation.nonce);
        let Space { documents, id, .. } = &mut *self.space;
        let place = DocumentPlace { space: id, address, site };
        let before = (removal.is_none()).then(|| self.work.below());
        Ok(documents.remake(&self.work, &place, (before, &changes), actor, &self.edited)?)
    }

    fn store_edit(
        &mut self,
        address: &ObjectAddress,
        change: &RawChange,
    ) -> Result<(), crate::store::StoreError> {
        let site = Site::top(&self.space.id, address);
        self.edited.insert(site.id);
        let own = self.incarnation.origin;
        let at = (own, self.space.frontier.at(&own) + 1);
        let Space { documents, id, .. } = &mut *self.space;
        let place = DocumentPlace { space: id, address, site: &site };
        store_edit(documents, &mut self.work, &mut self.effects, place, (change, at))
    }

    /// A document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits or storage fails.
    pub fn document(&mut self, collection: &str, key: &str) -> Result<&Document, TxError> {
        let address = ObjectAddress::new(Kind::Document, collection, key)?;
        Ok(self.load_document(&address)?)
    }

    /// Removes a document for good: what others do to it at the same time goes too, into their journals and this
    /// one's. Nothing happens when there is none.
    pub(super) fn remove_document(&mut self, at: &Location) -> Result<(), TxError> {
        let Object::Document(header) = self.load(at, Kind::Document)? else { return Ok(()) };
        if header.changes == 0 {
            return Ok(());
        }
        let heads = header.head_hashes();
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

//! What the rules ask about a document's admitted changes, answered from rows; the document itself is loaded only
//! for what is older than its tail.

use std::cell::RefCell;
use std::collections::BTreeSet;

use comity_crdts::{Admitted, DocumentError, LatestChange, RawChange, admit};

use crate::documents::tail::{QuarantineRow, decode_latest, tail_change};
use crate::documents::{DocumentCache, DocumentPlace};
use crate::keys;
use crate::rows::DocumentHeader;
use crate::space::decode;
use crate::store::{LogRead, StoreError};

/// A document's admitted changes.
pub(crate) struct AdmittedRows<'a> {
    pub(crate) read: &'a dyn LogRead,
    pub(crate) place: &'a DocumentPlace<'a>,
    pub(crate) header: &'a DocumentHeader,
    pub(crate) cache: RefCell<&'a mut DocumentCache>,
    pub(crate) actor: [u8; 16],
}

impl AdmittedRows<'_> {
    /// Whether a change may join; `None` when it is there already.
    pub(crate) fn verdict(
        &self,
        change: &RawChange,
    ) -> Result<Option<Result<(), DocumentError>>, StoreError> {
        let latest = self.latest(change.actor())?;
        // Only a change whose number was used can be there.
        let is_used = latest.is_some_and(|latest| latest.seq >= change.seq());
        if is_used && self.max_op(&change.hash())?.is_some() {
            return Ok(None);
        }
        admit(self, change).map(Some)
    }

    fn quarantined(&self, change: &[u8; 32]) -> Result<Option<QuarantineRow>, StoreError> {
        let key = keys::quarantined(self.place.space, &self.place.site.id, change);
        self.read.get(&key)?.map(|bytes| decode("quarantine row", &bytes)).transpose()
    }
}

impl Admitted for AdmittedRows<'_> {
    type Error = StoreError;

    fn max_op(&self, change: &[u8; 32]) -> Result<Option<u64>, StoreError> {
        if let Some(max_op) = self.header.heads.get(change) {
            return Ok(Some(*max_op));
        }
        let mut cache = self.cache.borrow_mut();
        if let Some(row) = cache.tail_row(self.read, self.place, self.header, change)? {
            return Ok(Some(row.max_op));
        }
        if let Some(row) = self.quarantined(change)? {
            return Ok(Some(row.max_op));
        }
        if self.header.snapshot.number == 0 {
            return Ok(None);
        }
        Ok(cache.load(self.read, self.place, self.actor, &BTreeSet::new())?.max_op(change))
    }

    fn deps(&self, change: &[u8; 32]) -> Result<Vec<[u8; 32]>, StoreError> {
        let mut cache = self.cache.borrow_mut();
        if let Some(row) = cache.tail_row(self.read, self.place, self.header, change)? {
            // As it was brought, because the library may have refused it.
            return Ok(tail_change(self.read, self.place, row.index)?.change.deps().collect());
        }
        if let Some(row) = self.quarantined(change)? {
            return Ok(row.deps);
        }
        Ok(cache.load(self.read, self.place, self.actor, &BTreeSet::new())?.deps(change))
    }

    fn latest(&self, actor: &[u8]) -> Result<Option<LatestChange>, StoreError> {
        let row = self.read.get(&keys::document_actor(&self.place.site.id, actor))?;
        row.map(|bytes| decode_latest(&bytes)).transpose()
    }
}

//! Changes that other Automerge programs made.

use comity_crdts::{ChunkLimits, RawChange, in_causal_order};
use comity_engine::TxError;

use crate::error::ImportError;
use crate::handles::{DocumentHandle, TxDocument};

/// What one transaction takes of an import: raw bytes, and changes.
const PART_BYTES: usize = 256 * 1024;
const PART_CHANGES: usize = 1_000;

impl DocumentHandle {
    /// Adds what an Automerge program saved or sent: whole documents and changes, compressed or not, one after the other.
    /// Everything is unpacked and counted within `limits`, and checked, before any of it is kept. What is there already is left out.
    /// Returns how many changes were not.
    ///
    /// Large imports are several change sets, in causal order: after an error, or when this is dropped before its end, the first
    /// of them may be there. Importing the same again goes on.
    ///
    /// # Errors
    /// [`ImportError`].
    pub async fn import(&self, bytes: &[u8], limits: &ChunkLimits) -> Result<usize, ImportError> {
        let location = self.0.place.at()?;
        let changes = RawChange::read_chunks(bytes, limits);
        let changes = changes.map_err(|source| ImportError::Refused { location, source })?;
        let mut count = 0;
        for part in parts(in_causal_order(&changes)) {
            let write = self
                .0
                .write(move |tx, at| tx.document_import(at.object.collection(), at.object.key(), &part));
            count += write.await?.value;
        }
        Ok(count)
    }
}

impl TxDocument<'_, '_> {
    /// Adds changes that somebody else made, in any order, and all of them or none. Returns how many were not there yet.
    ///
    /// # Errors
    /// [`TxError`] when one is refused or limits are exceeded.
    pub fn import(&mut self, changes: &[RawChange]) -> Result<usize, TxError> {
        self.0.tx.document_import(&self.0.place.collection, &self.0.place.key, changes)
    }
}

/// As many changes as one transaction takes, and so on.
fn parts(changes: Vec<RawChange>) -> Vec<Vec<RawChange>> {
    let mut parts: Vec<Vec<RawChange>> = Vec::new();
    let mut bytes = 0;
    for change in changes {
        bytes += change.bytes().len();
        match parts.last_mut() {
            Some(part) if bytes <= PART_BYTES && part.len() < PART_CHANGES => part.push(change),
            _ => {
                bytes = change.bytes().len();
                parts.push(vec![change]);
            }
        }
    }
    parts
}

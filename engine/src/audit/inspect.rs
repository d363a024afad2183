//! One object, checked against itself, and the digest of its state: of everything that replicas which have applied the same
//! operations on it must agree about, whatever they have forgotten.

use comity_crdts::{ObjectAddress, ObjectId, SpaceId, Writer, canary};

use crate::documents::{DocumentPlace, decode_latest, load, quarantine_of, tail_rows};
use crate::hash::hash;
use crate::keys;
use crate::rows::{DocumentHeader, Object, Parts, Share, element_row_share, rw_element_row_share};
use crate::site::Site;
use crate::store::{LogRead, Row, StoreError, each_row};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// The digest of the state; 0 where there is none.
    pub(crate) digest: u128,
    /// What is wrong with its rows, the first of it. The digest is then that of nothing that anybody else could have, or of the
    /// parts as they are there.
    pub(crate) fault: Option<String>,
    /// Rows that were read.
    pub(crate) rows: usize,
}

struct Inspector<'a> {
    read: &'a dyn LogRead,
    space: &'a SpaceId,
    address: &'a ObjectAddress,
    found: Inspected,
}

/// Checks the object with this header row, with all its parts. O(object).
///
/// # Errors
/// [`StoreError`] when storage fails; rows that cannot be read are no failure, but a fault that is found.
pub(crate) fn inspect(
    read: &dyn LogRead,
    space: &SpaceId,
    address: &ObjectAddress,
    header: &[u8],
) -> Result<Inspected, StoreError> {
    let mut inspector = Inspector { read, space, address, found: Inspected::default() };
    let share = inspector.object(&Site::top(space, address), header)?;
    inspector.found.digest = share.digest;
    Ok(inspector.found)
}

impl Inspector<'_> {
    fn fault(&mut self, detail: impl Into<String>) {
        self.found.fault.get_or_insert_with(|| detail.into());
    }

    /// What was read, or a fault.
    fn readable<R>(&mut self, read: Result<R, StoreError>) -> Result<Option<R>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(StoreError::Corrupt { detail }) => {
                self.fault(detail);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn object(&mut self, site: &Site, bytes: &[u8]) -> Result<Share, StoreError> {
        self.found.rows += 1;
        let Some(object) = self.readable(Object::from_bytes(site.kind, bytes))? else {
            return Ok(unreadable(&site.id, bytes));
        };
        let object = match object {
            Object::Set(said) => Object::Set(self.elements(site, said, element_row_share)?),
            Object::RwSet(said) => Object::RwSet(self.elements(site, said, rw_element_row_share)?),
            Object::Map(said) => Object::Map(self.fields(site, said)?),
            Object::Document(header) => return self.document(site, header),
            object => object,
        };
        Ok(object.share(&site.id))
    }

    fn elements(
        &mut self,
        site: &Site,
        said: Parts,
        share: impl Fn(&ObjectId, &[u8], &[u8]) -> Result<Share, StoreError>,
    ) -> Result<Parts, StoreError> {
        let mut found = Parts::default();
        self.each_row(keys::elements(&site.id), |inspector, (key, bytes)| {
            let share = share(&site.id, keys::element_bytes(&key), &bytes);
            let share = inspector.readable(share)?.unwrap_or_else(|| unreadable(&site.id, &bytes));
            found.exchange(Share::default(), share);
            Ok(())
        })?;
        Ok(self.compare(said, found))
    }

    fn fields(&mut self, site: &Site, said: Parts) -> Result<Parts, StoreError> {
        let mut found = Parts::default();
        self.each_row(keys::fields(&site.id), |inspector, (key, bytes)| {
            let Some((name, kind)) = keys::field_parts(&key) else {
                inspector.fault("the key of something nested in it is none");
                return Ok(());
            };
            // It counts itself.
            inspector.found.rows -= 1;
            let share = inspector.object(&site.nested(name, kind), &bytes)?;
            found.exchange(Share::default(), share);
            Ok(())
        })?;
        Ok(self.compare(said, found))
    }

    fn compare(&mut self, said: Parts, found: Parts) -> Parts {
        if canary!(PartsNotInspected) {
            return said;
        }
        if let Some(detail) = said.fault(&found) {
            self.fault(detail);
        }
        found
    }

    /// A document counts with its heads and the removals that no other removal has seen. All of it is loaded.
    fn document(&mut self, site: &Site, header: DocumentHeader) -> Result<Share, StoreError> {
        if header.changes > 0 {
            let checked = self.check_document(site, &header);
            self.readable(checked)?;
        }
        let removals = header.removals.clone();
        let share = Object::Document(header).share(&site.id);
        if removals.is_empty() {
            return Ok(share);
        }
        let mut out = Writer::new();
        out.bytes(&share.digest.to_be_bytes());
        removals.iter().for_each(|place| place.encode(&mut out));
        Ok(Share { is_present: share.is_present, digest: digest(&site.id, out.as_slice()) })
    }

    fn check_document(&mut self, site: &Site, header: &DocumentHeader) -> Result<(), StoreError> {
        let place = DocumentPlace { space: self.space, address: self.address, site };
        let (document, refused) = load(self.read, &place, header, [0; 16])?;
        self.found.rows += header.changes as usize;
        if refused > 0 || !quarantine_of(self.read, self.space, &site.id)?.is_empty() {
            // Of what was refused nothing is in what is loaded.
            return Ok(());
        }
        if document.heads() != header.head_hashes() || document.change_count() as u64 != header.changes {
            self.fault("what is loaded is another version than its header names");
        }
        if header.heads.iter().any(|(head, max_op)| document.max_op(head) != Some(*max_op)) {
            self.fault("its header counts the operations of a head wrongly");
        }
        let tail = tail_rows(self.read, &site.id, &(header.snapshot.through..header.changes))?;
        if tail.iter().any(|row| document.max_op(&row.change) != Some(row.max_op)) {
            self.fault("a row of its tail counts the operations of a change wrongly");
        }
        let mut actors = 0;
        self.each_row(keys::document_actors(&site.id), |inspector, (key, bytes)| {
            actors += 1;
            let latest = decode_latest(&bytes)?;
            if document.latest(&key[1 + 16..]) != Some(latest) {
                inspector.fault("the latest change of an actor is another one");
            }
            Ok(())
        })?;
        if actors != document.actor_count() {
            self.fault("an actor has no row");
        }
        Ok(())
    }

    /// Does something with every row of a range, and counts them. O(rows).
    fn each_row(
        &mut self,
        range: (Vec<u8>, Vec<u8>),
        mut visit: impl FnMut(&mut Self, Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        each_row(self.read, range, |row| {
            self.found.rows += 1;
            visit(self, row)
        })
    }
}

/// The share of something that cannot be read: that of nothing else.
fn unreadable(id: &ObjectId, bytes: &[u8]) -> Share {
    Share { is_present: true, digest: digest(id, bytes) }
}

fn digest(id: &ObjectId, state: &[u8]) -> u128 {
    u128::from_be_bytes(hash("comity 2026 audited state\0", &[&id.0, state]).half())
}

//! Tables of origins and objects that grow while entries are written, so that an entry names them by a
//! short reference. Writer and reader grow theirs in step.

use std::collections::BTreeMap;

use comity_crdts::{DecodeError, Kind, ObjectAddress, OriginId, Reader, Writer};

use crate::elision::Elision;

/// References a dictionary may hold; its writer starts a fresh one well before.
pub(crate) const DICTIONARY_REFERENCES_MAX: usize = 16_384;
/// A writer starts afresh at the next run once a dictionary holds this many references.
pub(crate) const DICTIONARY_REFERENCES_FRESH: usize = 2_048;

/// A table of origins and one of objects. Reference 0 introduces a new name; n is the n-th introduced. And,
/// for runs, what was changed in documents last.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    origins: Table<OriginId>,
    objects: Table<ObjectAddress>,
    /// The stored form leaves nothing out.
    elision: Option<Elision>,
    spent: bool,
}

impl Dictionary {
    /// From here on document changes are written without what is known of those before. `actor` is asked
    /// once, for whom the lane's owner edits as.
    pub(crate) fn elide(&mut self, actor: impl FnOnce() -> [u8; 16]) {
        self.elision.get_or_insert_with(|| Elision::new(actor()));
    }

    /// What is known of document changes, if they are written without it.
    pub(crate) fn elision(&mut self) -> Option<&mut Elision> {
        self.elision.as_mut()
    }

    /// Makes the writer start a fresh dictionary before its next run.
    pub(crate) fn spend(&mut self) {
        self.spent = true;
    }

    /// Whether the writer should start a fresh dictionary before its next run.
    pub(crate) fn is_full(&self) -> bool {
        self.spent || self.origins.len() + self.objects.len() >= DICTIONARY_REFERENCES_FRESH
    }

    pub(crate) fn write_origin(&mut self, origin: &OriginId, out: &mut Writer) {
        if let Some(reference) = self.origins.reference(origin) {
            return out.varint(reference);
        }
        out.varint(0);
        out.bytes(&origin.0);
        self.origins.push(*origin);
    }

    pub(crate) fn read_origin(&mut self, reader: &mut Reader<'_>) -> Result<OriginId, DecodeError> {
        let reference = reader.varint_max(self.origins.len() as u64, "origin reference")?;
        if let Some(index) = reference.checked_sub(1) {
            return Ok(self.origins.names[index as usize]);
        }
        let origin = OriginId(reader.array("origin")?);
        self.check_room()?;
        if self.origins.reference(&origin).is_some() {
            return Err(DecodeError::NotCanonical { what: "origin reference" });
        }
        self.origins.push(origin);
        Ok(origin)
    }

    /// Writes a reference to an object, and returns it.
    pub(crate) fn write_object(&mut self, address: &ObjectAddress, out: &mut Writer) -> u64 {
        if let Some(reference) = self.objects.reference(address) {
            out.varint(reference);
            return reference;
        }
        out.varint(0);
        out.u8(address.kind().tag());
        if address.kind() != Kind::Members {
            out.blob(address.collection().as_bytes());
            out.blob(address.key().as_bytes());
        }
        self.objects.push(address.clone());
        self.objects.len() as u64
    }

    /// Reads a reference to an object; and the object.
    pub(crate) fn read_object(
        &mut self,
        reader: &mut Reader<'_>,
        collection_bytes_max: usize,
        key_bytes_max: usize,
    ) -> Result<(u64, ObjectAddress), DecodeError> {
        let reference = reader.varint_max(self.objects.len() as u64, "object reference")?;
        if let Some(index) = reference.checked_sub(1) {
            return Ok((reference, self.objects.names[index as usize].clone()));
        }
        let tag = reader.u8("kind")?;
        let address = match Kind::from_tag(tag) {
            None => return Err(DecodeError::UnknownTag { what: "kind", tag: u64::from(tag) }),
            Some(Kind::Members) => ObjectAddress::members(),
            Some(kind) => {
                let collection = reader.text(collection_bytes_max, "collection name")?;
                let key = reader.text(key_bytes_max, "key")?;
                ObjectAddress::new(kind, collection, key).map_err(|_| DecodeError::Invalid {
                    what: "object address",
                    rule: "names are non-empty, without NUL",
                })?
            }
        };
        self.check_room()?;
        if self.objects.reference(&address).is_some() {
            return Err(DecodeError::NotCanonical { what: "object reference" });
        }
        self.objects.push(address.clone());
        Ok((self.objects.len() as u64, address))
    }

    fn check_room(&self) -> Result<(), DecodeError> {
        let references = self.origins.len() + self.objects.len();
        if references >= DICTIONARY_REFERENCES_MAX {
            return Err(DecodeError::OverLimit {
                what: "dictionary references",
                value: references as u64 + 1,
                value_max: DICTIONARY_REFERENCES_MAX as u64,
            });
        }
        Ok(())
    }
}

/// Names, and which of them is where. Most dictionaries serve one entry: they have a handful of names, which
/// are looked through, and no index.
#[derive(Clone, Debug)]
struct Table<T> {
    names: Vec<T>,
    /// The names after the first [`UNINDEXED_MAX`].
    refs: BTreeMap<T, u64>,
}

/// Looking through this many names takes no longer than an index does.
const UNINDEXED_MAX: usize = 8;

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { names: Vec::new(), refs: BTreeMap::new() }
    }
}

impl<T: Clone + Ord> Table<T> {
    fn len(&self) -> usize {
        self.names.len()
    }

    /// The reference of a name that is there. O(log names).
    fn reference(&self, name: &T) -> Option<u64> {
        let first = self.names.iter().take(UNINDEXED_MAX).position(|known| known == name);
        first.map(|index| index as u64 + 1).or_else(|| self.refs.get(name).copied())
    }

    /// Adds a name that is not there.
    fn push(&mut self, name: T) {
        if self.names.len() >= UNINDEXED_MAX {
            self.refs.insert(name.clone(), self.names.len() as u64 + 1);
        }
        self.names.push(name);
    }
}

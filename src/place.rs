//! Where an object is, as its handle was asked for.

use std::sync::Arc;

use comity_crdts::{AddressError, Kind, ObjectAddress};
use comity_engine::Location;

/// The names that lead to an object. They are checked when the object is used, so that asking for a handle never
/// fails.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What is there.
    pub(crate) kind: Kind,
    pub(crate) collection: Arc<str>,
    pub(crate) key: Arc<str>,
    /// The keys that lead on through maps.
    path: Vec<String>,
}

impl Place {
    pub(crate) fn new(kind: Kind, collection: &str, key: &str) -> Self {
        Self { kind, collection: collection.into(), key: key.into(), path: Vec::new() }
    }

    /// What the map at this place holds under a key.
    pub(crate) fn nested(&self, key: &str, kind: Kind) -> Self {
        let mut nested = Self { kind, ..self.clone() };
        nested.path.push(key.to_owned());
        nested
    }

    /// The location.
    ///
    /// # Errors
    /// [`AddressError`] when the collection or the key is out of limits. Keys of maps are checked by whoever
    /// writes there; nothing is found under those that are none.
    pub(crate) fn at(&self) -> Result<Location, AddressError> {
        let kind = if self.path.is_empty() { self.kind } else { Kind::Map };
        let object = ObjectAddress::new(kind, &self.collection, &self.key)?;
        Ok(Location { object, path: self.path.clone() })
    }
}

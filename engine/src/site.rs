//! Where objects are: at an address of the space, or nested in a map under a key.

use comity_crdts::{Kind, ObjectAddress, ObjectId, SpaceId};

use crate::keys;
use crate::rows::{Object, Share};
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// The place of one object: the row that holds its header, and the id under which its parts are.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) row: Vec<u8>,
    pub(crate) id: ObjectId,
    pub(crate) kind: Kind,
}

impl Site {
    /// An object of the space.
    pub(crate) fn top(space: &SpaceId, address: &ObjectAddress) -> Self {
        let (row, id) = (keys::object(space, address), ObjectId::derive(space, address));
        Self { row, id, kind: address.kind() }
    }

    /// What the map at this place holds under a key.
    pub(crate) fn nested(&self, key: &str, kind: Kind) -> Self {
        Self { row: keys::field(&self.id, key, kind), id: self.id.nested(key, kind), kind }
    }

    /// What a path of keys leads to; all but the last lead through maps.
    pub(crate) fn at_path(&self, path: &[impl AsRef<str>], kind: Kind) -> Self {
        let Some((last, maps)) = path.split_last() else { return self.clone() };
        let within = maps.iter().fold(self.clone(), |map, key| map.nested(key.as_ref(), Kind::Map));
        within.nested(last.as_ref(), kind)
    }

    /// The object's header, or its bottom.
    pub(crate) fn load(&self, read: &dyn StateRead) -> Result<Object, StoreError> {
        match read.get(&self.row)? {
            Some(bytes) => Object::from_bytes(self.kind, &bytes),
            None => self.bottom(),
        }
    }

    /// As [`Site::load`], and the object's share of what contains it.
    pub(crate) fn load_with_share(&self, read: &dyn StateRead) -> Result<(Object, Share), StoreError> {
        let Some(bytes) = read.get(&self.row)? else { return Ok((self.bottom()?, Share::default())) };
        let object = Object::from_bytes(self.kind, &bytes)?;
        let share = object.share_by(&self.id, &bytes);
        Ok((object, share))
    }

    fn bottom(&self) -> Result<Object, StoreError> {
        let bottom = Object::bottom(self.kind);
        bottom.ok_or_else(|| StoreError::Corrupt { detail: format!("{} has no header row", self.kind) })
    }

    /// As [`Site::store`], but the header of a map or a remove-wins set stays as long as it has parts, of which none need
    /// be there for readers: who looks for parts starts at headers. Returns the object's share of what contains it.
    pub(crate) fn store_holder(&self, work: &mut Work<'_>, object: &Object) -> Result<Share, StoreError> {
        let parts = match object {
            Object::Map(_) => Some(keys::fields(&self.id)),
            Object::RwSet(_) => Some(keys::elements(&self.id)),
            _ => None,
        };
        let row = object.to_bytes();
        let share = object.share_by(&self.id, &row);
        let is_held = match parts.filter(|_| object.is_bottom()) {
            Some((from, until)) => !work.scan(&from, &until, 1)?.is_empty(),
            None => !object.is_bottom(),
        };
        if is_held {
            work.put(self.row.clone(), row);
        } else {
            work.delete(self.row.clone());
        }
        Ok(share)
    }

    /// Writes the object's header.
    pub(crate) fn store(&self, work: &mut Work<'_>, object: &Object) {
        if object.is_bottom() {
            work.delete(self.row.clone());
        } else {
            work.put(self.row.clone(), object.to_bytes());
        }
    }
}

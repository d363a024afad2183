//! Objects: what sets and maps say of their parts, what the digest says of all, and which registers are in conflict.

use comity_crdts::{Kind, ObjectAddress, ObjectId};

use super::{Matters, Walk};
use crate::conflicts::{Location, kinds_under};
use crate::held::{HeldRows, address_of, is_held};
use crate::keys;
use crate::members::Roster;
use crate::read::stored_document;
use crate::rows::{Object, Parts, Share, element_row_share, held_share, member_digest, rw_element_row_share};
use crate::site::Site;
use crate::space::{Progress, decode};
use crate::store::StoreError;

/// Where an object is, as faults name it.
struct At<'a> {
    address: &'a ObjectAddress,
    path: Vec<String>,
}

impl At<'_> {
    fn name(&self) -> String {
        Location { object: self.address.clone(), path: self.path.clone() }.to_string()
    }
}

impl Walk<'_> {
    /// Walks every object, and compares the digest of all with the one that is kept.
    pub(super) fn objects(&mut self) -> Result<(), StoreError> {
        let (space, mut digest) = (self.space, 0_u128);
        self.each_row(keys::all_objects(&space), |walk, (key, bytes)| {
            let address = keys::object_parts(&key)
                .and_then(|(kind, collection, name)| ObjectAddress::new(kind, collection, name).ok());
            let Some(address) = address else {
                walk.fault(Matters::Row, "an object's row", "its key names no object");
                return Ok(());
            };
            let id = ObjectId::derive(&space, &address);
            let at = At { address: &address, path: Vec::new() };
            let share = walk.object(&at, &Site::top(&space, &address), &bytes)?;
            if !is_held(walk.read, &space, &address)? {
                digest = digest.wrapping_add(share.map_or(0, |share| share.digest));
            }
            if address.kind() == Kind::Document && share.is_some_and(|share| share.is_present) {
                walk.document(&address, &id)?;
            }
            Ok(())
        })?;
        digest = digest.wrapping_add(self.held()?);
        let roster = Roster::load(self.read, &space);
        self.readable("the member list", roster)?;
        self.each_row(keys::members(&space), |_, (key, bytes)| {
            let replica = key.last_chunk().map(|bytes| comity_crdts::ReplicaId(*bytes));
            digest = digest.wrapping_add(replica.map_or(0, |replica| member_digest(&replica, &bytes)));
            Ok(())
        })?;
        let progress = self.read.get(&keys::progress(&space))?;
        let progress = progress.and_then(|bytes| decode::<Progress>("progress row", &bytes).ok());
        let kept = progress.unwrap_or_default().digest.0;
        if digest != kept {
            let detail = format!("the objects come to {digest:032x}, and {kept:032x} is kept");
            self.fault(Matters::Digest, "the digest of the state", detail);
        }
        Ok(())
    }

    /// Walks what is held. Returns what it adds to the digest.
    fn held(&mut self) -> Result<u128, StoreError> {
        let (space, mut digest) = (self.space, 0_u128);
        let mut found = HeldRows::default();
        self.each_row(keys::held_changes(&space), |walk, (key, bytes)| {
            let taken = found.change(key.get(17..).unwrap_or_default(), &bytes);
            walk.readable("a change set of which something is held", taken).map(drop)
        })?;
        self.each_row(keys::all_held(&space), |walk, (key, bytes)| {
            let name =
                address_of(&key).map_or_else(|_| "a held row".to_owned(), |(address, _)| address.to_string());
            let id = walk.readable(name, found.ops(&space, &key, &bytes))?.flatten();
            digest = digest.wrapping_add(id.map_or(0, |id| held_share(&id)));
            Ok(())
        })?;
        self.readable("what is held", found.finish())?;
        Ok(digest)
    }

    /// Checks one object and what is nested in it. Returns its share of what contains it.
    fn object(&mut self, at: &At<'_>, site: &Site, bytes: &[u8]) -> Result<Option<Share>, StoreError> {
        let Some(object) = self.readable(at.name(), Object::from_bytes(site.kind, bytes))? else {
            return Ok(None);
        };
        self.verified.objects += 1;
        match &object {
            Object::Set(parts) => self.elements(at, site, parts, element_row_share)?,
            Object::RwSet(parts) => self.elements(at, site, parts, rw_element_row_share)?,
            Object::Map(parts) => self.fields(at, site, parts)?,
            Object::Document(header) => {
                let (snapshot, all) = (header.snapshot, (header.changes, header.bytes));
                if snapshot.through > all.0 || snapshot.raw_bytes > all.1 {
                    self.fault(
                        Matters::Document,
                        at.name(),
                        "its header says that more is saved than there is",
                    );
                    return Ok(None);
                }
            }
            Object::Register(register) if at.address.kind() != Kind::Settings => {
                let is_noted = self.is_conflict_noted(at, keys::CONFLICT_SIBLINGS)?;
                if is_noted != (register.len() > 1) {
                    let detail =
                        format!("{} values are there, and noted as a conflict: {is_noted}", register.len());
                    self.fault(Matters::Conflicts, at.name(), detail);
                }
            }
            _ => {}
        }
        Ok(Some(object.share(&site.id)))
    }

    fn elements(
        &mut self,
        at: &At<'_>,
        site: &Site,
        parts: &Parts,
        share: impl Fn(&ObjectId, &[u8], &[u8]) -> Result<Share, StoreError>,
    ) -> Result<(), StoreError> {
        let mut found = Parts::default();
        self.each_row(keys::elements(&site.id), |walk, (key, bytes)| {
            walk.verified.elements += 1;
            let share = walk.readable(at.name(), share(&site.id, keys::element_bytes(&key), &bytes))?;
            found.exchange(Share::default(), share.unwrap_or_default());
            Ok(())
        })?;
        self.compare(at, parts, &found);
        Ok(())
    }

    fn fields(&mut self, at: &At<'_>, site: &Site, parts: &Parts) -> Result<(), StoreError> {
        let mut found = Parts::default();
        self.each_row(keys::fields(&site.id), |walk, (key, bytes)| {
            let named = keys::field_parts(&key).map(|(name, kind)| (name.to_owned(), kind));
            let Some((name, kind)) = named else {
                walk.fault(Matters::Row, at.name(), "the key of something nested in it is none");
                return Ok(());
            };
            let nested_site = site.nested(&name, kind);
            let nested = At { address: at.address, path: [at.path.as_slice(), &[name]].concat() };
            let share = walk.object(&nested, &nested_site, &bytes)?;
            found.exchange(Share::default(), share.unwrap_or_default());
            walk.kinds(&nested, site)
        })?;
        self.compare(at, parts, &found);
        Ok(())
    }

    fn kinds(&mut self, nested: &At<'_>, map: &Site) -> Result<(), StoreError> {
        let Some(name) = nested.path.last() else { return Ok(()) };
        let kinds = kinds_under(self.read, map, name);
        let Some(kinds) = self.readable(nested.name(), kinds)? else { return Ok(()) };
        let is_noted = self.is_conflict_noted(nested, keys::CONFLICT_KINDS)?;
        if is_noted != (kinds.len() > 1) {
            let detail = format!("{} kinds are there, and noted as a conflict: {is_noted}", kinds.len());
            self.fault(Matters::Conflicts, nested.name(), detail);
        }
        Ok(())
    }

    fn is_conflict_noted(&self, at: &At<'_>, what: u8) -> Result<bool, StoreError> {
        Ok(self.read.get(&keys::conflict(&self.space, at.address, &at.path, what))?.is_some())
    }

    fn compare(&mut self, at: &At<'_>, said: &Parts, found: &Parts) {
        if let Some(detail) = said.fault(found) {
            self.fault(Matters::Digest, at.name(), detail);
        }
    }

    /// Loads a document, as whoever reads it does, and compares its heads with those that are kept.
    fn document(&mut self, address: &ObjectAddress, id: &ObjectId) -> Result<(), StoreError> {
        self.verified.documents += 1;
        let loaded = stored_document(self.read, &self.space, address);
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(StoreError::Corrupt { detail }) => {
                self.fault(Matters::Document, Location::from(address.clone()), detail);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Changes that the document library refused are among the heads that are kept, and not in what is loaded.
        let (from, until) = keys::quarantine_of(&self.space, id);
        if !self.read.scan(&from, &until, 1)?.is_empty() {
            return Ok(());
        }
        let kept = match Site::top(&self.space, address).load(self.read) {
            Ok(Object::Document(header)) => Some(header.head_hashes()),
            _ => None,
        };
        if kept.is_some_and(|kept| kept != loaded.heads()) {
            let detail = "what is loaded is another version than its header names";
            self.fault(Matters::Document, Location::from(address.clone()), detail);
        }
        Ok(())
    }
}

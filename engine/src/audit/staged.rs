//! Entries that cannot be applied because a row that they change cannot be read. They wait until what they are on was looked
//! into, instead of stopping the replica; only when that does not help it stops.

use std::collections::BTreeSet;

use comity_crdts::{ObjectAddress, SpaceId};

use crate::change::Body;
use crate::engine::Engine;
use crate::limits::AUDIT_SUSPECTED_MAX;
use crate::space::Space;
use crate::store::StoreError;

impl Engine {
    /// Applying what is staged found a row that cannot be read. Has all objects looked into that it may be of.
    ///
    /// # Errors
    /// That error, when they were looked into before.
    pub(crate) fn suspect_staged(&mut self, id: SpaceId, error: StoreError) -> Result<(), StoreError> {
        let was_looked_into = self.audits.unreadable.contains(&id) && !self.audits.is_looking_into(&id);
        if !matches!(error, StoreError::Corrupt { .. }) || was_looked_into {
            return Err(error);
        }
        let Some(space) = self.spaces.get_mut(&id) else { return Err(error) };
        // What the batch did to documents is not so.
        space.documents.clear();
        if self.audits.unreadable.insert(id) {
            for object in space.next_objects() {
                self.suspect(id, object);
            }
        }
        self.look_into_suspects();
        Ok(())
    }
}

impl Space {
    /// The objects that the first staged entries of all lanes are on, as many as are looked into together.
    fn next_objects(&self) -> BTreeSet<ObjectAddress> {
        let mut objects = BTreeSet::new();
        let deepest = self.lanes.values().map(|lane| lane.staged.len()).max().unwrap_or(0);
        for depth in 0..deepest {
            for staged in self.lanes.values().filter_map(|lane| lane.staged.get(depth)) {
                let Body::Change(change) = &staged.entry.body else { continue };
                objects.extend(change.groups.iter().map(|group| group.address.clone()));
                if objects.len() >= AUDIT_SUSPECTED_MAX {
                    return objects;
                }
            }
        }
        objects
    }
}

//! Deleting what is held of a space, a step at a time. The space's own row goes first and a mark comes in its place, in
//! one batch, so that a crash leaves either the space or a deletion to be continued.

use std::time::Duration;

use comity_crdts::{Kind, LaneId, ObjectAddress, SpaceId};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Timer};
use crate::io::{CommandError, Notice, Now, Output, Reply, RequestId};
use crate::keys;
use crate::limits::DELETE_ROWS_MAX;
use crate::rows::damaged;
use crate::site::Site;
use crate::space::{LaneRow, decode, encode};
use crate::store::{LaneSpan, StateRead, Store, StoreError};
use crate::work::Work;

/// How far the deletion of a space has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deletion {
    /// The last entry that was removed of the first lane there still is.
    through: u64,
}

/// The space whose deletion some facts begin, if they do, for tests that watch what a disk holds.
pub fn deleted(facts: &[crate::store::Put]) -> Option<SpaceId> {
    let begins = |put: &&crate::store::Put| put.0.first() == Some(&0x06) && put.1.is_some();
    let (key, _) = facts.iter().find(begins)?;
    Some(SpaceId(key.get(1..17)?.try_into().ok()?))
}

/// A step's work, and how much of it is left to be done in this step.
struct Step<'a, 'w> {
    work: &'a mut Work<'w>,
    left: usize,
}

impl Engine {
    pub(crate) fn load_deletions(&mut self, store: &dyn StateRead) -> Result<(), StoreError> {
        let (from, until) = keys::deletions();
        for (key, bytes) in store.scan(&from, &until, usize::MAX)? {
            let space = key.get(1..17).and_then(|bytes| bytes.try_into().ok());
            let space = SpaceId(space.ok_or_else(|| damaged("deletion row", &"its key is not one"))?);
            self.deletions.insert(space, decode("deletion row", &bytes)?);
            self.timers.insert((Duration::ZERO, Timer::Delete(space)));
        }
        Ok(())
    }

    pub(crate) fn delete_space(
        &mut self,
        now: &Now,
        request: RequestId,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        if !self.spaces.contains_key(&id) {
            return Err(CommandError::UnknownSpace(id));
        }
        let mut work = Work::over(&*store);
        work.delete_fact(keys::space(&id));
        for (_, hash) in self.invitations.keys().filter(|(space, _)| *space == id) {
            work.delete_fact(keys::invitation(&id, hash));
        }
        work.put_fact(keys::deletion(&id), encode(&Deletion::default()));
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        self.end_space(id);
        self.end_waits_in(now, id);
        self.spaces.remove(&id);
        self.segments.forget(&id);
        self.count_trusted(id);
        self.commons.touch(id);
        self.invitations.retain(|(space, _), _| *space != id);
        self.deletions.insert(id, Deletion::default());
        self.timers.insert((now.monotonic, Timer::Delete(id)));
        self.push(Output::Notify(Notice::TrustChanged));
        self.await_facts(now, request, Reply::Deleted(id));
        self.request_sync();
        Ok(())
    }

    /// Removes some more of a space that is being deleted.
    pub(crate) fn delete_step(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(mut deletion) = self.deletions.get(&id).copied().filter(|_| self.failed.is_none()) else {
            return Ok(());
        };
        // Unless this step ends it, or fails: then it is tried again.
        self.timers.insert((now.monotonic + Duration::from_millis(1), Timer::Delete(id)));
        let mut work = Work::over(&*store);
        let mut step = Step { work: &mut work, left: DELETE_ROWS_MAX };
        let is_done = step.remove(&id, &mut deletion)?;
        match is_done {
            true => work.delete_fact(keys::deletion(&id)),
            false => work.put_fact(keys::deletion(&id), encode(&deletion)),
        }
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        if is_done {
            self.deletions.remove(&id);
            self.timers.retain(|(_, timer)| *timer != Timer::Delete(id));
        } else {
            self.deletions.insert(id, deletion);
        }
        self.request_sync();
        Ok(())
    }
}

impl Step<'_, '_> {
    /// Returns whether nothing is left of the space.
    fn remove(&mut self, id: &SpaceId, deletion: &mut Deletion) -> Result<bool, StoreError> {
        // Rows that others lead to go before those that lead to them.
        if !(self.remove_unstable(id)? && self.remove_objects(id)? && self.remove_lanes(id, deletion)?) {
            return Ok(false);
        }
        for (from, until) in keys::of_space(id) {
            if !self.remove_range(&from, &until)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes rows in order, as many as may be. Returns whether none is left.
    fn remove_range(&mut self, from: &[u8], until: &[u8]) -> Result<bool, StoreError> {
        let rows = self.work.scan(from, until, self.left)?;
        self.left -= rows.len();
        for (key, _) in rows {
            self.work.delete_fact(key);
        }
        Ok(self.left > 0)
    }

    /// Rows that are left of what was removed while somebody had not heard of it.
    fn remove_unstable(&mut self, id: &SpaceId) -> Result<bool, StoreError> {
        let (from, until) = keys::unstable(id);
        let rows = self.work.scan(&from, &until, self.left)?;
        self.left -= rows.len();
        for (key, _) in rows {
            // The header of an object is still needed to find what it leads to.
            let target = keys::unstable_target(&key);
            if !keys::is_object(target) {
                self.work.delete_fact(target.to_vec());
            }
            self.work.delete_fact(key);
        }
        Ok(self.left > 0)
    }

    fn remove_objects(&mut self, id: &SpaceId) -> Result<bool, StoreError> {
        let (from, until) = keys::all_objects(id);
        while self.left > 0 {
            let Some((key, _)) = self.work.scan(&from, &until, 1)?.pop() else { return Ok(true) };
            let address = address_of(&key).ok_or_else(|| damaged("object row", &"its key is not one"))?;
            if !self.remove_parts(&Site::top(id, &address), address.kind())? {
                return Ok(false);
            }
            self.left -= 1;
            self.work.delete_fact(key);
        }
        Ok(false)
    }

    /// Removes what an object consists of besides its row.
    fn remove_parts(&mut self, site: &Site, kind: Kind) -> Result<bool, StoreError> {
        match kind {
            Kind::Set | Kind::RwSet => {
                let (from, until) = keys::elements(&site.id);
                self.remove_range(&from, &until)
            }
            Kind::Document => {
                let ranges = [
                    keys::document_tail(&site.id, 0),
                    keys::document_actors(&site.id),
                    keys::document_snapshots(&site.id),
                ];
                for (from, until) in ranges {
                    if !self.remove_range(&from, &until)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Kind::Map => self.remove_fields(site),
            // All other kinds are in their row.
            _ => Ok(true),
        }
    }

    fn remove_fields(&mut self, map: &Site) -> Result<bool, StoreError> {
        let (from, until) = keys::fields(&map.id);
        while self.left > 0 {
            let Some((row, _)) = self.work.scan(&from, &until, 1)?.pop() else { return Ok(true) };
            let parts = keys::field_parts(&row).ok_or_else(|| damaged("map row", &"its key is none"));
            let (key, kind) = parts?;
            if !self.remove_parts(&map.nested(key, kind), kind)? {
                return Ok(false);
            }
            self.left -= 1;
            self.work.delete_fact(row.clone());
        }
        Ok(false)
    }

    fn remove_lanes(&mut self, id: &SpaceId, deletion: &mut Deletion) -> Result<bool, StoreError> {
        let (from, until) = keys::lanes(id);
        while self.left > 0 {
            let Some((key, bytes)) = self.work.scan(&from, &until, 1)?.pop() else { return Ok(true) };
            let row: LaneRow = decode("lane row", &bytes)?;
            let lane = row.owner.lane(id);
            if !self.remove_entries((id, lane), (&row, deletion)) {
                return Ok(false);
            }
            let (first, end) = keys::heads_from(id, &lane, 0);
            if !self.remove_range(&first, &end)? {
                return Ok(false);
            }
            self.left -= 1;
            self.work.delete_fact(keys::announced(id, &lane));
            self.work.delete_fact(keys::floor(id, &lane));
            self.work.delete_fact(key);
            deletion.through = 0;
        }
        Ok(false)
    }

    fn remove_entries(
        &mut self,
        (id, lane): (&SpaceId, LaneId),
        (row, deletion): (&LaneRow, &mut Deletion),
    ) -> bool {
        let last = row.tip.lsn.min(deletion.through + self.left as u64);
        let count = last - deletion.through;
        self.work.drop_entries(LaneSpan { space: *id, lane, first: deletion.through + 1, count });
        self.left -= count as usize;
        deletion.through = last;
        self.left > 0
    }
}

/// The object that a row is the header of.
fn address_of(row: &[u8]) -> Option<ObjectAddress> {
    let kind = Kind::from_tag(*row.get(17)?)?;
    if kind == Kind::Members {
        return Some(ObjectAddress::members());
    }
    let mut names = row.get(18..)?.splitn(2, |byte| *byte == 0);
    let (collection, key) = (names.next()?, names.next()?);
    ObjectAddress::new(kind, std::str::from_utf8(collection).ok()?, std::str::from_utf8(key).ok()?).ok()
}

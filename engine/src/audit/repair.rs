//! Objects that were found to be wrong are put right: one batch takes their rows away, puts those in their place that the log
//! of record made in a view, and applies what was applied since.

use comity_crdts::{Frontier, Kind, ObjectAddress, ObjectId, SpaceId, canary};

use crate::audit::fetch::Unkept;
use crate::audit::members::is_member_list;
use crate::audit::rebuild::{
    Outcome, Rebuilt, Replay, Wrong, clear, header_share, holders, object_rows, state_of,
};
use crate::audit::reports::{Repair, cut, keep};
use crate::audit::{AuditEvent, Unresolved};
use crate::documents::DocumentCache;
use crate::engine::Engine;
use crate::io::{Notice, Now, Output};
use crate::keys;
use crate::limits::{AUDIT_CATCH_UP_MAX, AUDIT_RETRY};
use crate::rows::Object;
use crate::settings::is_region;
use crate::site::Site;
use crate::space::{Space, encode};
use crate::status::StateDigest;
use crate::store::{StateRead, Store, StoreError};
use crate::work::Work;

impl Engine {
    /// Suspects were made again over a view.
    pub(super) fn on_rebuilt(
        &mut self,
        now: &Now,
        (id, objects): (SpaceId, Vec<ObjectAddress>),
        result: Result<Option<Box<Rebuilt>>, StoreError>,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        self.audits.is_rebuilding = false;
        if self.audits.unreadable.contains(&id) {
            self.dirty.insert(id);
        }
        let repaired = match result {
            Ok(Some(rebuilt)) if self.audits.repairs == self.audits.repairs_rebuilt => {
                if objects.is_empty() {
                    self.name_found(id, &rebuilt);
                }
                self.judge(now, id, *rebuilt, store)
            }
            Ok(Some(_)) => Ok(objects),
            // Views expire, states are replaced, the thread that reads has much to do.
            Ok(None) | Err(_) => Ok(objects),
        };
        let (again, failed) = match repaired {
            Ok(again) => (again, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        if !again.is_empty() || !self.audits.suspects.is_empty() {
            again.into_iter().for_each(|object| self.suspect(id, object));
            self.wake_audit(now, id, AUDIT_RETRY);
        }
        failed
    }

    /// What was found although nobody suspected it is named.
    fn name_found(&mut self, id: SpaceId, rebuilt: &Rebuilt) {
        for (object, _) in &rebuilt.outcomes {
            self.audits.status_mut(id).damaged += 1;
            let (object, detail) =
                (object.clone(), "its rows do not come to the digest that is kept".to_owned());
            self.tell(AuditEvent::Damaged { space: id, object, detail });
        }
    }

    /// Takes note of what became of suspects. Returns those that are to be looked into again.
    pub(super) fn judge(
        &mut self,
        now: &Now,
        id: SpaceId,
        mut rebuilt: Rebuilt,
        store: &mut dyn Store,
    ) -> Result<Vec<ObjectAddress>, StoreError> {
        if rebuilt.outcomes.is_empty() && rebuilt.shares != rebuilt.digest && self.audits.is_clean {
            self.correct_digest(id, &rebuilt, store)?;
        }
        let mut wrong = Vec::new();
        for (object, outcome) in std::mem::take(&mut rebuilt.outcomes) {
            match outcome {
                Outcome::Sound => {
                    self.audits.status_mut(id).upheld += 1;
                    self.tell(AuditEvent::Upheld { space: id, object });
                }
                Outcome::Unresolved(why) => match &rebuilt.stand {
                    Some(stand) if why == Unresolved::NotKept => {
                        let (place, stand) = (rebuilt.place, stand.clone());
                        self.audits.unkept.push_back(Unkept { space: id, object, place, stand });
                    }
                    _ => self.leave_unresolved(id, object, why),
                },
                Outcome::Wrong(found) => wrong.push((object, found)),
            }
        }
        self.fetch_next(now);
        if wrong.is_empty() {
            return Ok(Vec::new());
        }
        self.hear_again(id);
        self.audits.unreadable.remove(&id);
        let objects = wrong.iter().map(|(object, _)| object.clone()).collect();
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else {
            return Ok(Vec::new());
        };
        let behind = space.progress.applied.saturating_sub(rebuilt.place);
        let may_be_forgotten =
            |wrong: &Wrong| wrong.forgotten.is_empty() || space.cut.covers(&wrong.forgotten);
        let is_fit = wrong.iter().all(|(_, wrong)| may_be_forgotten(wrong));
        if space.kept != rebuilt.kept || behind > AUDIT_CATCH_UP_MAX || !is_fit {
            return Ok(objects);
        }
        let done = match space.replace(now, &rebuilt, wrong, store) {
            Ok(done) => done,
            Err(StoreError::NoSpace | StoreError::Overloaded) => return Ok(objects),
            Err(error) => return Err(error),
        };
        self.committed = done.position;
        self.audits.repairs += 1;
        self.audits.unsynced = Some((done.position, id));
        self.read_again(now, id);
        self.request_sync();
        self.dirty.insert(id);
        for Repair { object, was, is, .. } in done.repairs {
            self.audits.status_mut(id).repaired += 1;
            if is_region(&object) {
                self.reload_regions(id, store)?;
            }
            if is_member_list(&object) {
                self.reload_members(id, store)?;
            }
            let event = AuditEvent::Repaired { space: id, object, was, is };
            if canary!(RepairToldEarly) {
                self.tell(event);
            } else {
                self.audits.untold.push(event);
            }
        }
        Ok(Vec::new())
    }

    /// All objects are what others have, and do not come to the digest that is kept: something was wrong for a while, was changed,
    /// and is gone.
    fn correct_digest(
        &mut self,
        id: SpaceId,
        rebuilt: &Rebuilt,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        if space.kept.installs != rebuilt.kept.installs {
            return Ok(());
        }
        let mut progress = space.progress;
        progress.digest.0 = progress.digest.0.wrapping_add(rebuilt.shares).wrapping_sub(rebuilt.digest);
        let mut work = Work::over(&*store);
        space.put_progress(&mut work, &progress);
        let batch = work.into_batch();
        let position = store.commit(batch)?;
        space.progress = progress;
        self.committed = position;
        self.audits.repairs += 1;
        self.audits.unsynced = Some((position, id));
        self.request_sync();
        Ok(())
    }

    pub(super) fn leave_unresolved(&mut self, id: SpaceId, object: ObjectAddress, why: Unresolved) {
        self.audits.status_mut(id).unresolved += 1;
        if self.audits.unreadable.contains(&id) {
            self.dirty.insert(id);
        }
        self.tell(AuditEvent::Unresolved { space: id, object, why });
    }

    pub(super) fn tell(&mut self, event: AuditEvent) {
        self.push(Output::Notify(Notice::Audit(event)));
    }
}

/// The documents of which more is in the log now than ought to be.
fn long_documents(
    read: &dyn StateRead,
    space: &SpaceId,
    repairs: &[Repair],
    cache: &DocumentCache,
) -> Result<Vec<ObjectAddress>, StoreError> {
    let documents =
        repairs.iter().map(|repair| &repair.object).filter(|object| object.kind() == Kind::Document);
    let mut long = Vec::new();
    for object in documents {
        if let Object::Document(header) = Site::top(space, object).load(read)?
            && cache.is_due(&header)
        {
            long.push(object.clone());
        }
    }
    Ok(long)
}

/// Removes every part of an object of no matter which kind.
fn clear_parts_of(work: &mut Work<'_>, id: &ObjectId) -> Result<(), StoreError> {
    for prefix in 0x31..=0x35 {
        let (from, until) = keys::within(&keys::part(prefix, id, &[]));
        for (key, _) in work.scan(&from, &until, usize::MAX)? {
            work.delete(key);
        }
    }
    Ok(())
}

/// What replacing came to.
struct Replaced {
    position: crate::store::Position,
    repairs: Vec<Repair>,
}

impl Space {
    /// Puts objects right, in one batch.
    fn replace(
        &mut self,
        now: &Now,
        rebuilt: &Rebuilt,
        wrong: Vec<(ObjectAddress, Wrong)>,
        store: &mut dyn Store,
    ) -> Result<Replaced, StoreError> {
        let id = self.id;
        let mut work = Work::over(&*store);
        let mut replay = Replay::new(&*store, &id, self.extensions)?;
        // The digest that was kept may have been changed by what was wrong: it is told anew from what all objects come to.
        let mut digest = rebuilt.shares.wrapping_add(self.progress.digest.0).wrapping_sub(rebuilt.digest);
        let (mut found, mut unstable) = (Vec::new(), Frontier::new());
        let mut forgotten = self.forgotten.clone();
        for (object, Wrong { detail, was, rows, forgotten: in_rows }) in wrong {
            forgotten.merge(&in_rows);
            digest = digest.wrapping_sub(header_share(&work, &id, &object)?);
            let replaced = object_rows(&*store, &id, &object)?;
            let mut room = usize::MAX;
            clear(&mut work, &id, &object, &mut room)?;
            // What is nested may still be there although nothing leads to it any more.
            for holder in holders(&id, &object, &rows) {
                clear_parts_of(&mut work, &holder)?;
            }
            for (key, value) in rows {
                if let Some((lane, lsn)) = keys::unstable_place(&key).filter(|_| key.first() == Some(&0x37)) {
                    unstable.advance(lane, lsn);
                }
                if let Some(value) = value {
                    work.put(key, value);
                }
            }
            replay.objects.insert(object.clone());
            found.push((object, detail, was, cut(replaced)));
        }
        replay.run(&mut work, (rebuilt.place + 1, self.progress.applied), usize::MAX)?;
        unstable.merge(&replay.effects.unstable);
        let mut repairs = Vec::new();
        for (object, detail, was, (replaced, replaced_bytes)) in found {
            digest = digest.wrapping_add(header_share(&work, &id, &object)?);
            let is = StateDigest(state_of(&work, &id, &object)?.digest);
            let (at_ms, was) = (now.wall_ms, StateDigest(was));
            repairs.push(Repair { object, at_ms, detail, was, is, replaced, replaced_bytes });
        }
        keep(&mut work, &id, repairs.clone())?;
        let mut progress = self.progress;
        progress.digest = StateDigest(digest);
        self.put_progress(&mut work, &progress);
        if forgotten != self.forgotten {
            work.put(keys::forgotten(&id), encode(&forgotten));
        }
        let batch = work.into_batch();
        let position = store.commit(batch)?;
        self.forgotten = forgotten;
        self.progress = progress;
        self.documents.clear();
        self.unstable.merge(&unstable);
        self.compactable = true;
        let long = long_documents(&*store, &id, &repairs, &self.documents)?;
        self.documents.unsettled.extend(long);
        Ok(Replaced { position, repairs })
    }
}

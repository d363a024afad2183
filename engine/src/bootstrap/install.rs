//! Installing: a snapshot that was verified takes the place of the state, in bounded steps that go on where they were after
//! a crash. Until it is done nothing of the space can be read or written.
//!
//! 1. *Clear*: the rows that the snapshot has anew are removed.
//! 2. *Put*: its pieces become rows, each in the batch in which it is unstaged. What says where lanes and members are is kept
//!    aside.
//! 3. *Sort*: entries of the log that are in the snapshot are let go of; the others are noted, in the order in which they
//!    were applied here.
//! 4. In one batch the lanes move to where the snapshot has them, and so do their floors.
//! 5. *Extras*: what was noted is applied again, as if it had come now.
//! 6. Once all that is durable the space goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, ObjectId, OriginId, SpaceId, canary};
use serde::{Deserialize, Serialize};

use crate::bootstrap::piece::{rows_of, unpack};
use crate::bootstrap::rows::{clear_parts, delete_row, put_aside, put_lane, put_row};
use crate::bootstrap::staged::{StagedPiece, staged_rows};
use crate::bootstrap::walk::{OBJECTS, Path};
use crate::bootstrap::{Mark, Offer, SnapshotEnd, mark};
use crate::change::{Body, ChangeSet, LaneEntry, LaneTip, decode_stored};
use crate::changes::{entry, places};
use crate::engine::{Engine, Timer};
use crate::io::{Class, Notice, Now, Output, SessionId};
use crate::journal::record_lost;
use crate::keys;
use crate::limits::{INSTALL_BATCHES_MAX, INSTALL_BYTES_MAX, INSTALL_ROWS_MAX, SYNC_RETRY};
use crate::message::{Message, SnapshotStop};
use crate::retention::{Kept, kept};
use crate::rows::damaged;
use crate::run::RUN_ENTRIES_MAX;
use crate::space::{LaneRow, Progress, Space, SpaceRow, Staged, decode, encode};
use crate::status::Freeze;
use crate::store::{LaneSpan, Position, StateRead, Store, StoreError};
use crate::work::Work;

/// What is to be done next. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Clear,
    Put,
    Sort,
    Extras,
}

/// A snapshot that is taking the place of the state.
#[derive(Debug)]
pub(crate) struct Installing {
    pub(crate) offer: Offer,
    stage: Stage,
    /// To be told when it is over.
    source: Option<(SessionId, u32)>,
    /// Rows that were put.
    pub(crate) rows: u64,
    /// All is done as of this position, and becomes visible once that is durable.
    done: Option<Position>,
}

fn change_of(entry: LaneEntry) -> Option<ChangeSet> {
    match entry.body {
        Body::Change(change) => Some(change),
        Body::Checkpoint(_) => None,
    }
}

impl Installing {
    pub(crate) fn load(read: &dyn StateRead, space: &SpaceId) -> Result<Option<Self>, StoreError> {
        let mark = mark(read, space)?;
        Ok(mark.map(|Mark { offer, stage }| Self { offer, stage, source: None, rows: 0, done: None }))
    }
}

/// The lanes of a space that a batch moves to where a snapshot has them, if it is one that does: for tools that follow
/// what a store is given.
pub fn flipped(facts: &[crate::store::Put]) -> Option<(SpaceId, Frontier)> {
    let has_kept = facts.iter().any(|(key, _)| key.first() == Some(&0x26));
    let marks = facts.iter().filter(|(key, _)| has_kept && key.first() == Some(&0x51));
    marks
        .filter_map(|(key, value)| {
            let mark: Mark = decode("mark of an installation", value.as_ref()?).ok()?;
            let space = SpaceId(key.get(1..17)?.try_into().ok()?);
            (mark.stage == Stage::Extras).then_some((space, mark.offer.frontier))
        })
        .next()
}

fn put_mark(work: &mut Work<'_>, id: &SpaceId, offer: &Offer, stage: Stage) {
    work.put_fact(keys::install_mark(id), encode(&Mark { offer: offer.clone(), stage }));
}

impl Space {
    /// Whether an entry was made here since this replica started, in a lane of which a snapshot has more: the store had been
    /// rolled back then, and what the snapshot has under the number is something else.
    fn is_other_branch(&self, (lane, lsn): (&LaneId, u64), offer: &Offer) -> bool {
        let Some((own, started_at)) = self.started_at.as_deref() else { return false };
        own == lane && lsn > *started_at && offer.frontier.at(lane) > self.frontier.at(lane)
    }
}

impl Engine {
    /// Begins to replace the state of a space.
    pub(super) fn begin_install(
        &mut self,
        now: &Now,
        id: SpaceId,
        offer: Offer,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let source = self.pass_source(&id);
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let mut work = Work::over(&*store);
        put_mark(&mut work, &id, &offer, Stage::Clear);
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        space.lanes.values_mut().for_each(|lane| lane.drop_staged());
        space.documents.clear();
        space.bootstrap = None;
        let installing = Installing { offer, stage: Stage::Clear, source, rows: 0, done: None };
        space.installing = Some(Box::new(installing));
        for lane in space.parents.keys().chain(space.ranges.keys()).copied().collect::<Vec<_>>() {
            self.drop_parent(id, lane);
        }
        self.segments.forget(&id);
        self.timers.insert((now.monotonic, Timer::Install(id)));
        self.request_sync();
        Ok(())
    }

    /// Something was synced: an installation goes on, or is over in the same moment in which readers see that it is.
    pub(crate) fn tend_install(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        match self.spaces.get(&id).and_then(|space| space.installing.as_deref()) {
            Some(Installing { done: Some(done), .. }) if *done <= self.synced => {
                self.end_install(now, id, store)
            }
            Some(Installing { done: None, .. }) => {
                self.timers.insert((now.monotonic, Timer::Install(id)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Does the next step, unless much that was done waits for the disk.
    pub(crate) fn install_step(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let waiting = self.committed.0 - self.synced.0;
        let Some(installing) = self.spaces.get(&id).and_then(|space| space.installing.as_ref()) else {
            return Ok(());
        };
        if self.failed.is_some() {
            return Ok(());
        }
        if installing.done.is_some() {
            return Ok(());
        }
        if waiting > INSTALL_BATCHES_MAX {
            self.request_sync();
            return Ok(());
        }
        let result = match installing.stage {
            Stage::Clear => self.clear_step(id, store),
            Stage::Put => self.put_step(id, store),
            Stage::Sort => self.sort_step(now, id, store),
            Stage::Extras => self.extras_step(now, id, store),
        };
        let again = if result.is_err() { SYNC_RETRY } else { Duration::from_micros(1) };
        self.timers.insert((now.monotonic + again, Timer::Install(id)));
        self.request_sync();
        result
    }

    /// Commits a step, and goes on to the next stage if it was the last of its own.
    fn commit_step(
        &mut self,
        id: SpaceId,
        batch: crate::store::Batch,
        next: Option<Stage>,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        self.committed = store.commit(batch)?;
        let installing = self.spaces.get_mut(&id).and_then(|space| space.installing.as_mut());
        if let (Some(installing), Some(next)) = (installing, next) {
            installing.stage = next;
        }
        Ok(())
    }

    fn clear_step(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(installing) = self.spaces.get(&id).and_then(|space| space.installing.as_ref()) else {
            return Ok(());
        };
        let mut work = Work::over(&*store);
        let mut room = INSTALL_ROWS_MAX;
        let additions = [keys::ADDITIONS, keys::ADDITIONS_BY_ENTRY];
        for section in [keys::HELD_CHANGES, keys::HELD, 0x37, 0x38, 0x39, 0x53].into_iter().chain(additions) {
            let (from, until) = keys::within(&keys::with_space(section, &id));
            for (key, _) in work.scan(&from, &until, room)? {
                room -= 1;
                delete_row(&mut work, key);
            }
        }
        let (from, until) = keys::within(&keys::with_space(OBJECTS, &id));
        while room > 0 {
            let Some((key, _)) = work.scan(&from, &until, 1)?.pop() else { break };
            let path = Path::parse(&key[17..]).ok_or_else(|| damaged("object row", &"its key is none"))?;
            let object = ObjectId::derive(&id, &path.address);
            if clear_parts(&mut work, &object, path.address.kind(), &mut room)? {
                work.delete(key);
                room = room.saturating_sub(1);
            }
        }
        let next = (room > 0).then_some(Stage::Put);
        if let Some(next) = next {
            put_mark(&mut work, &id, &installing.offer, next);
        }
        let batch = work.into_batch();
        self.commit_step(id, batch, next, store)
    }

    fn put_step(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(installing) = self.spaces.get_mut(&id).and_then(|space| space.installing.as_mut()) else {
            return Ok(());
        };
        let mut work = Work::over(&*store);
        let (from, until) = keys::staged_pieces(&id);
        let Some((key, piece)) = work.scan(&from, &until, 1)?.pop() else {
            put_mark(&mut work, &id, &installing.offer, Stage::Sort);
            let batch = work.into_batch();
            return self.commit_step(id, batch, Some(Stage::Sort), store);
        };
        let piece: StagedPiece = decode("staged piece", &piece)?;
        let until = keys::staged_until(&key).to_vec();
        let rows = unpack(&staged_rows(&work, &id, &until)?).map_err(|error| damaged("piece", &error))?;
        installing.rows += piece.rows;
        let installs = u64::from(kept(&work, &id)?.installs) + 1;
        for row in rows_of(&piece.from, &until, &rows) {
            let (walk_key, value) = row.map_err(|error| damaged("piece", &error))?;
            put_row(&mut work, &id, (&walk_key, value.to_vec()), installs)?;
        }
        work.delete_fact(keys::staged_rows(&id, &until));
        work.delete_fact(key);
        let batch = work.into_batch();
        self.commit_step(id, batch, None, store)
    }

    fn sort_step(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get(&id) else { return Ok(()) };
        let Some(installing) = &space.installing else { return Ok(()) };
        let (from, until) = keys::within(&keys::with_space(0x12, &id));
        let rows = store.scan(&from, &until, INSTALL_ROWS_MAX)?;
        let places_of = |rows: &[crate::store::Row]| {
            let place =
                |row: &crate::store::Row| row.0.last_chunk::<8>().map(|place| u64::from_be_bytes(*place));
            rows.first().and_then(place).zip(rows.last().and_then(place))
        };
        let Some((first, last)) = places_of(&rows) else { return self.flip(now, id, store) };
        let mut work = Work::over(&*store);
        for (place, (lane, lsn)) in places(&*store, &id, first, last)? {
            work.delete(keys::apply_log(&id, place));
            if lsn <= installing.offer.frontier.at(&lane) || canary!(ExtrasForgotten) {
                if space.is_other_branch((&lane, lsn), &installing.offer) {
                    let found = entry(&*store, &id, (lane, lsn))?;
                    if let Some(change) = found.and_then(|(_, entry)| change_of(entry)) {
                        record_lost(&mut work, &id, &change)?;
                    }
                }
                work.drop_entries(LaneSpan { space: id, lane, first: lsn, count: 1 });
            } else {
                work.put_fact(keys::extra(&id, place), [lane.0.as_slice(), &lsn.to_be_bytes()].concat());
            }
        }
        let batch = work.into_batch();
        self.commit_step(id, batch, None, store)
    }

    /// The lanes move to where the snapshot has them.
    fn flip(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get(&id) else { return Ok(()) };
        let Some(installing) = &space.installing else { return Ok(()) };
        let offer = installing.offer.clone();
        let mut work = Work::over(&*store);
        let lanes = put_aside(&mut work, &id)?;
        for (lane_id, lane) in &space.lanes {
            if !lanes.contains_key(lane_id) {
                let tip = LaneTip::start(&id, lane_id);
                let row =
                    LaneRow { tip, changed: 0, head: 0, head_entries: 0, head_bytes: 0, ..lane.row.clone() };
                work.put(keys::lane(&id, lane_id), encode(&row));
            }
        }
        for (lane_id, part) in &lanes {
            let frozen = space.lanes.get(lane_id).and_then(|lane| lane.row.frozen.clone());
            put_lane(&mut work, (&id, lane_id), part, frozen)?;
        }
        let Progress { clock_floor, confirmed, .. } = space.progress;
        let (applied, digest, log_bytes) = (offer.applied, offer.digest, 0);
        space.put_progress(&mut work, &Progress { applied, digest, log_bytes, clock_floor, confirmed });
        let kept = Kept { dropped: offer.applied, installs: space.kept.installs + 1 };
        work.put_fact(keys::kept(&id), encode(&kept));
        put_mark(&mut work, &id, &offer, Stage::Extras);
        let written = space.own_lane().map(|own| (own, space.frontier.at(&own)));
        let batch = work.into_batch();
        self.commit_step(id, batch, Some(Stage::Extras), store)?;
        self.reload_space(id, store)?;
        if written.is_some_and(|(own, written)| offer.frontier.at(&own) > written) {
            // This store was rolled back.
            self.renounce(id, store)?;
        }
        self.timers.insert((now.monotonic, Timer::Install(id)));
        Ok(())
    }

    /// Reads a space back from its rows, and goes on with what is known of peers.
    fn reload_space(&mut self, id: SpaceId, store: &dyn StateRead) -> Result<(), StoreError> {
        let row = store.get(&keys::space(&id))?.ok_or_else(|| damaged("space row", &"it is missing"))?;
        let row: SpaceRow = decode("space row", &row)?;
        let loaded = self.load_space(store, (id, row))?;
        let Some(held) = self.spaces.get_mut(&id) else { return Ok(()) };
        let old = std::mem::replace(&mut **held, loaded);
        held.durable =
            old.durable.iter().map(|(lane, lsn)| (lane, lsn.min(held.frontier.at(&lane)))).collect();
        held.clock = old.clock;
        held.started_at = old.started_at;
        held.sessions = old.sessions;
        held.peer_durable = old.peer_durable;
        held.fresh = old.fresh;
        held.wants_confirmation = old.wants_confirmation;
        held.has_greeted = old.has_greeted;
        held.region_said = old.region_said;
        held.installing = old.installing;
        held.is_shortened = true;
        held.move_cut();
        Ok(())
    }

    fn extras_step(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let (from, until) = keys::extras(&id);
        let rows = store.scan(&from, &until, INSTALL_ROWS_MAX)?;
        if rows.is_empty() {
            return self.finish_extras(id, store);
        }
        let (mut taken, mut lost, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (key, value) in rows {
            if bytes >= INSTALL_BYTES_MAX {
                break;
            }
            let place = value.split_first_chunk::<16>();
            let place = place
                .and_then(|(lane, lsn)| Some((OriginId(*lane), u64::from_be_bytes(lsn.try_into().ok()?))));
            let (lane, lsn) = place.ok_or_else(|| damaged("extra row", &"it names no entry"))?;
            taken.push(key);
            match self.stage_extra(now, (id, lane, lsn), store)? {
                Some(length) => bytes += length,
                None => lost.push(LaneSpan { space: id, lane, first: lsn, count: 1 }),
            }
        }
        let mut changes = Vec::new();
        for span in &lost {
            let entry = entry(&*store, &id, (span.lane, span.first))?;
            changes.extend(entry.and_then(|(_, entry)| change_of(entry)));
        }
        self.commit_delivery(now, id, store, |work| {
            taken.into_iter().for_each(|key| work.delete_fact(key));
            lost.into_iter().for_each(|span| work.drop_entries(span));
            changes.iter().try_for_each(|change| record_lost(work, &id, change))
        })
    }

    /// Stages an entry that is kept here and not in the snapshot; `None` when its lane is another one than there, and is
    /// frozen.
    fn stage_extra(
        &mut self,
        now: &Now,
        (id, lane_id, lsn): (SpaceId, LaneId, u64),
        store: &mut dyn Store,
    ) -> Result<Option<usize>, StoreError> {
        let stored = store.lane_entry(&id, &lane_id, lsn)?;
        let stored = stored.ok_or_else(|| damaged("log of record", &"an entry that is kept is missing"))?;
        let Some(lane) = self.spaces.get(&id).and_then(|space| space.lanes.get(&lane_id)) else {
            return Ok(None);
        };
        let before = lane.staged_tip();
        if before.lsn + 1 != lsn {
            // One before it was lost.
            return Ok(None);
        }
        let (hash, mut entry) =
            decode_stored(&id, &lane_id, &stored).map_err(|error| damaged("lane entry", &error))?;
        if let Body::Change(change) = &mut entry.body {
            change.prev = before.change_hash;
        }
        let (after, link) = before.after_linked(&id, &entry);
        let why = if after.hash == hash {
            self.late_extra(id, &lane_id, (&entry, &after)).then_some(Freeze::Late { lsn })
        } else {
            Some(Freeze::Fork { lsn })
        };
        if let Some(why) = why {
            let is_frozen = lane.row.frozen.is_some();
            if !is_frozen {
                self.freeze(id, lane_id, why, store)?;
            }
            return Ok(None);
        }
        let Some(lane) = self.spaces.get_mut(&id).and_then(|space| space.lanes.get_mut(&lane_id)) else {
            return Ok(None);
        };
        let length = stored.len();
        lane.staged_bytes += length;
        lane.staged.push_back(Staged { entry, after, stored, link, proof: None, received: now.monotonic });
        Ok(Some(length))
    }

    fn late_extra(&self, id: SpaceId, lane: &LaneId, (entry, after): (&LaneEntry, &LaneTip)) -> bool {
        let Some(space) = self.spaces.get(&id) else { return false };
        space.still_forgotten(lane, &[(entry.clone(), after.clone())]).is_some()
    }

    /// Everything was applied again. What cannot be, because it comes after something that was lost, is let go of.
    fn finish_extras(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let mut work = Work::over(&*store);
        let mut own_is_lost = false;
        let own = space.own_lane();
        for (lane_id, lane) in &mut space.lanes {
            if let Some(first) = lane.staged.front().map(|staged| staged.after.lsn) {
                let count = lane.staged.len() as u64;
                work.drop_entries(LaneSpan { space: id, lane: *lane_id, first, count });
                for staged in &lane.staged {
                    if let Body::Change(change) = &staged.entry.body {
                        record_lost(&mut work, &id, change)?;
                    }
                }
                lane.drop_staged();
                own_is_lost |= own == Some(*lane_id);
            }
            // The newest head within what is there; those beyond it are of entries that were lost.
            let (from, until) = keys::heads_from(&id, lane_id, lane.floor.lsn);
            let (mut newest, mut beyond) = (0, Vec::new());
            for (key, _) in work.scan(&from, &until, usize::MAX)? {
                let lsn = key.last_chunk::<8>().map_or(0, |lsn| u64::from_be_bytes(*lsn));
                if lsn <= lane.row.tip.lsn {
                    newest = lsn;
                } else {
                    beyond.push(key);
                }
            }
            beyond.into_iter().for_each(|key| work.delete_fact(key));
            lane.row.head = newest;
            (lane.row.head_entries, lane.row.head_bytes) = (RUN_ENTRIES_MAX as u64, 0);
            work.put(keys::lane(&id, lane_id), encode(&lane.row));
        }
        work.delete_fact(keys::install_mark(&id));
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        if let Some(installing) = &mut space.installing {
            installing.done = Some(self.committed);
        }
        if own_is_lost {
            self.renounce(id, store)?;
        }
        Ok(())
    }

    /// All of it is durable: the space goes on.
    fn end_install(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let source = self.spaces.get(&id).and_then(|space| space.installing.as_ref()?.source);
        self.reload_space(id, store)?;
        // Who takes part came with it.
        self.restore_standing(id, store)?;
        self.enforce_members(id);
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        space.installing = None;
        space.durable = space.frontier.clone();
        space.review.extend(space.lanes.keys());
        let peers: BTreeSet<SessionId> = space.sessions.iter().copied().collect();
        let lanes = |session: &SessionId| {
            let part = self.sessions.get(session).and_then(|session| session.spaces.get(&id));
            part.map(|part| part.peer_have.iter().map(|(lane, _)| lane).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let known: Vec<LaneId> = peers.iter().flat_map(lanes).collect();
        let admitted = self.sessions.iter().filter(|(_, session)| space.admits(&session.peer));
        self.to_open.extend(admitted.map(|(session, _)| (*session, id)));
        space.review.extend(known);
        for session in self.sessions.values_mut() {
            if let Some(part) = session.spaces.get_mut(&id) {
                // Whoever was refused meanwhile asks again when it hears what is here.
                part.told = Frontier::new();
            }
        }
        if let Some((session, number)) = source.filter(|(session, _)| self.sessions.contains_key(session)) {
            let stop = SnapshotStop { number, why: SnapshotEnd::Done };
            self.send(session, Class::Control, &Message::SnapshotStop(stop));
        }
        let replica = self.replica;
        if let Some(space) = self.spaces.get_mut(&id)
            && space.members.contains_key(&replica)
            && space.row.invitation.take().is_some()
        {
            let mut work = Work::over(&*store);
            space.put_row(&mut work);
            let batch = work.into_batch();
            self.committed = store.commit(batch)?;
        }
        self.push(Output::Notify(Notice::Installed { space: id }));
        self.push(Output::Notify(Notice::TrustChanged));
        self.timers.insert((now.monotonic, Timer::Compact(id)));
        self.dirty.insert(id);
        self.resolve_tokens(id);
        self.resolve_fresh(now, id);
        self.resolve_remote(id);
        self.serve_all(id);
        Ok(())
    }
}

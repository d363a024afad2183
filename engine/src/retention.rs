//! Retention: how long entries of the log are kept once everybody has them.
//!
//! Entries are let go of in the order in which they were applied here, so that one number tells up to where. Each lane
//! has a *floor*, where it stood after the last entry that is not kept; who stands there or later can be served, who
//! stands before it is told that it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::{LaneId, ObjectAddress, OriginId, SpaceId, canary};
use serde::{Deserialize, Serialize};

use crate::change::{Body, LaneEntry, LaneTip, decode_stored};
use crate::changes::places;
use crate::documents::carry_tail;
use crate::engine::{Engine, Timer};
use crate::io::Now;
use crate::keys;
use crate::limits::{DROP_BYTES_MAX, DROP_HELD_MAX, DROP_RETRY, DROP_ROWS_MAX};
use crate::op::Op;
use crate::rows::damaged;
use crate::space::{Progress, Space, decode, encode};
use crate::store::{LaneSpan, LogRead, StateRead, Store, StoreError};
use crate::work::Work;

/// How long a replica keeps entries of the log that the owners of all lanes have announced to have applied. What somebody
/// has not announced is kept in any case, and so is for a while what a connected peer is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries older than this by their stamps are let go of.
    pub age: Duration,
    /// Of a space, entries beyond so many bytes in stored form are let go of sooner, the oldest first.
    pub bytes_max: u64,
    /// How long after something was applied this replica announces how far it has come, so that others can let go of it.
    pub announce_after: Duration,
}

impl Retention {
    /// Nothing is let go of, here or because of what is announced from here.
    pub const OFF: Self = Self { age: Duration::MAX, bytes_max: u64::MAX, announce_after: Duration::MAX };

    /// Seven days, however much that is, announced after ten minutes.
    pub const USUAL: Self = Self {
        age: Duration::from_secs(7 * 24 * 60 * 60),
        bytes_max: u64::MAX,
        announce_after: Duration::from_secs(10 * 60),
    };

    fn is_on(&self) -> bool {
        self.age < Duration::MAX || self.bytes_max < u64::MAX
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::USUAL
    }
}

/// What of the order of applying is not there any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The last place whose entry is not kept; 0 for none.
    pub(crate) dropped: u64,
    /// How often a snapshot took the place of the state, after which places count anew.
    pub(crate) installs: u32,
}

/// What of the order of applying is not there any more in the state that is read.
pub(crate) fn kept(read: &dyn StateRead, space: &SpaceId) -> Result<Kept, StoreError> {
    let row = read.get(&keys::kept(space))?;
    row.map_or_else(|| Ok(Kept::default()), |bytes| decode("row of what is kept", &bytes))
}

/// The floor of a lane.
pub(crate) fn floor_of(
    read: &dyn StateRead,
    space: &SpaceId,
    lane: &LaneId,
) -> Result<Option<LaneTip>, StoreError> {
    read.get(&keys::floor(space, lane))?.map(|bytes| decode("floor row", &bytes)).transpose()
}

/// Up to which entry a lane is not kept. O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails or the row is damaged.
pub fn lane_floor(read: &dyn StateRead, space: &SpaceId, lane: &LaneId) -> Result<u64, StoreError> {
    Ok(floor_of(read, space, lane)?.map_or(0, |floor| floor.lsn))
}

/// How long forgetting may take before entries are let go of.
const COMPACT_FIRST: Duration = Duration::from_millis(1);

/// Why the entry at a place stays.
enum Stays {
    /// Not everybody has announced to have applied it.
    Needed,
    /// It is to be kept for so many milliseconds more.
    Young(u64),
    /// Somebody is being sent it.
    Held,
}

/// Entries that one step lets go of.
struct Drops {
    floors: BTreeMap<LaneId, LaneTip>,
    spans: BTreeMap<LaneId, LaneSpan>,
    documents: BTreeSet<ObjectAddress>,
    kept: Kept,
    bytes: u64,
}

impl Drops {
    fn take(&mut self, id: &SpaceId, (lane, lsn): (LaneId, u64), entry: &LaneEntry, after: LaneTip) {
        let span = LaneSpan { space: *id, lane, first: lsn, count: 0 };
        self.spans.entry(lane).or_insert(span).count += 1;
        self.floors.insert(lane, after);
        self.kept.dropped += 1;
        if let Body::Change(change) = &entry.body {
            let changed =
                change.groups.iter().filter(|g| g.ops.iter().any(|op| matches!(op, Op::DocumentChange(_))));
            self.documents.extend(changed.map(|group| group.address.clone()));
        }
    }

    /// Puts it into a batch. What documents still need of the entries goes into their own rows.
    fn put(&self, work: &mut Work<'_>, space: &Space, progress: &Progress) -> Result<(), StoreError> {
        let id = &space.id;
        for address in &self.documents {
            carry_tail(work, id, address, |lane, lsn| {
                self.floors.get(lane).is_some_and(|floor| lsn <= floor.lsn)
            })?;
        }
        for place in space.kept.dropped + 1..=self.kept.dropped {
            work.delete(keys::apply_log(id, place));
        }
        for (lane, floor) in &self.floors {
            work.put_fact(keys::floor(id, lane), encode(floor));
            let newest = space.lanes.get(lane).map_or(0, |lane| lane.row.head);
            let (from, until) = keys::heads_through(id, lane, floor.lsn);
            for (key, _) in work.scan(&from, &until, usize::MAX)? {
                if key != keys::head(id, lane, newest) {
                    work.delete_fact(key);
                }
            }
        }
        for span in self.spans.values() {
            work.drop_entries(*span);
        }
        work.put_fact(keys::kept(id), encode(&self.kept));
        space.put_progress(work, progress);
        Ok(())
    }
}

impl Space {
    /// Whether somebody could let go of entries if this replica announced how far it has come.
    pub(crate) fn wants_dropping(&self, own: Option<&LaneId>) -> bool {
        let Some(own) = own.and_then(|own| self.lanes.get(own)).filter(|lane| lane.row.tip.lsn > 0) else {
            return false;
        };
        self.lanes
            .iter()
            .any(|(id, lane)| lane.row.changed > lane.floor.lsn && lane.row.changed > own.announced.at(id))
    }
}

/// The next entries in the order of applying that need not be kept, and why the one after them is.
struct Gathering<'a> {
    space: &'a Space,
    retention: &'a Retention,
    /// Up to where each lane was sent to those who are being sent it.
    held: &'a BTreeMap<LaneId, u64>,
    /// No later place is let go of.
    place_max: u64,
    wall_ms: u64,
}

impl Gathering<'_> {
    fn gather(&self, store: &dyn LogRead) -> Result<(Drops, Option<Stays>), StoreError> {
        let id = &self.space.id;
        let (floors, spans, documents) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut drops = Drops { floors, spans, documents, kept: self.space.kept, bytes: 0 };
        let first = drops.kept.dropped + 1;
        for (place, (lane, lsn)) in places(store, id, first, first + DROP_ROWS_MAX - 1)? {
            if place != drops.kept.dropped + 1 {
                return Err(damaged("order of applying", &format!("place {place} follows a gap")));
            }
            if drops.bytes >= DROP_BYTES_MAX {
                return Ok((drops, None));
            }
            let bytes = store.lane_entry(id, &lane, lsn)?;
            let bytes = bytes.ok_or_else(|| damaged("log of record", &"an entry that is kept is missing"))?;
            let (hash, mut entry) =
                decode_stored(id, &lane, &bytes).map_err(|error| damaged("lane entry", &error))?;
            if let Some(stays) = self.stays((place, lane, lsn), &entry, drops.bytes) {
                return Ok((drops, Some(stays)));
            }
            let known = self.space.lanes.get(&lane).map(|lane| &lane.floor);
            let before = drops.floors.get(&lane).or(known);
            let before = before.filter(|before| before.lsn + 1 == lsn);
            let before = before.ok_or_else(|| damaged("lane", &"its floor is not before its first entry"))?;
            if let Body::Change(change) = &mut entry.body {
                change.prev = before.change_hash;
            }
            let after = before.after(id, &entry);
            if after.hash != hash {
                return Err(damaged("lane entry", &"it does not follow the one before it"));
            }
            drops.bytes += bytes.len() as u64;
            drops.take(id, (lane, lsn), &entry, after);
        }
        let is_last = drops.kept.dropped - self.space.kept.dropped < DROP_ROWS_MAX;
        Ok((drops, is_last.then_some(Stays::Needed)))
    }

    /// Why an entry stays, if it does. `dropped` bytes are let go of before it.
    fn stays(
        &self,
        (place, lane, lsn): (u64, LaneId, u64),
        entry: &LaneEntry,
        dropped: u64,
    ) -> Option<Stays> {
        let space = self.space;
        let is_stable = space.cut.at(&lane) >= lsn || canary!(FloorBeyondCut);
        if !is_stable || space.durable.at(&lane) < lsn {
            return Some(Stays::Needed);
        }
        let bytes = space.progress.log_bytes.saturating_sub(dropped);
        let age_ms = u64::try_from(self.retention.age.as_millis()).unwrap_or(u64::MAX);
        let until_ms = entry.at.millis().saturating_add(age_ms);
        if bytes <= self.retention.bytes_max && until_ms > self.wall_ms {
            return Some(Stays::Young(until_ms - self.wall_ms));
        }
        let is_held = place > self.place_max || self.held.get(&lane).is_some_and(|sent| lsn > *sent);
        is_held.then_some(Stays::Held)
    }
}

impl Engine {
    /// Plans announcements for the sake of dropping, and the dropping.
    pub(crate) fn plan_dropping(&mut self, now: &Now, id: SpaceId, is_confirmed: bool) {
        let retention = self.retention;
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let own: Option<OriginId> = space.own_lane();
        if is_confirmed && space.drop_announce_due.is_none() && space.wants_dropping(own.as_ref()) {
            space.drop_announce_due = now.monotonic.checked_add(retention.announce_after);
            if let Some(due) = space.drop_announce_due {
                self.timers.insert((due, Timer::Announce(id)));
            }
        }
        if space.droppable && retention.is_on() {
            space.droppable = false;
            space.drop_due = Some(now.monotonic);
            self.timers.insert((now.monotonic, Timer::Drop(id)));
        }
    }

    /// Lets go of the next entries that need not be kept, a step at a time.
    pub(crate) fn drop_old(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let retention = self.retention;
        let held = self.sent_to_subscribers(now, &id);
        let place_max = self.place_held(now, &id);
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        if self.failed.is_some() || space.is_blocked() || space.drop_due.is_none_or(|due| due > now.monotonic)
        {
            return Ok(());
        }
        if space.compactable {
            // What the entries added is to be forgotten first, and they tell what that was.
            let later = now.monotonic + COMPACT_FIRST;
            (space.compacting, space.drop_due) = (true, Some(later));
            self.timers.insert((now.monotonic, Timer::Compact(id)));
            self.timers.insert((later, Timer::Drop(id)));
            return Ok(());
        }
        space.drop_due = None;
        let gathering =
            Gathering { space, retention: &retention, held: &held, place_max, wall_ms: now.wall_ms };
        let (drops, stays) = gathering.gather(&*store)?;
        if drops.kept != space.kept {
            let mut progress = space.progress;
            progress.log_bytes = progress.log_bytes.saturating_sub(drops.bytes);
            let mut work = Work::over(&*store);
            drops.put(&mut work, space, &progress)?;
            let batch = work.into_batch();
            self.committed = store.commit(batch)?;
            (space.progress, space.kept) = (progress, drops.kept);
            for (lane, floor) in drops.floors {
                if let Some(lane) = space.lanes.get_mut(&lane) {
                    lane.floor = floor;
                }
            }
        }
        let again = match stays {
            // The cut says when.
            Some(Stays::Needed) => None,
            Some(Stays::Young(ms)) => now.monotonic.checked_add(Duration::from_millis(ms)),
            Some(Stays::Held) => Some(now.monotonic + DROP_RETRY),
            // Whatever else is due comes first.
            None => Some(now.monotonic + Duration::from_micros(1)),
        };
        if let Some(again) = again {
            space.drop_due = Some(again);
            self.timers.insert((again, Timer::Drop(id)));
        }
        self.request_sync();
        Ok(())
    }

    /// Up to where lanes of a space were sent to those who are being sent them. Who has not moved for long holds up
    /// nobody.
    fn sent_to_subscribers(&self, now: &Now, id: &SpaceId) -> BTreeMap<LaneId, u64> {
        let mut held: BTreeMap<LaneId, u64> = BTreeMap::new();
        for session in self.sessions.values() {
            let of_space = session.outgoing.values().filter(|outgoing| outgoing.space == *id);
            for outgoing in of_space.filter(|outgoing| outgoing.moved + DROP_HELD_MAX > now.monotonic) {
                let sent = held.entry(outgoing.lane).or_insert(u64::MAX);
                *sent = outgoing.sent.lsn.min(*sent);
            }
        }
        held
    }
}

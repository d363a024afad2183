//! What is held: operations of later versions, and everything that was done after them to the same objects.
//!
//! An operation that is not known cannot be carried out, and what comes after it may build on it. So from the first of them on
//! all that is done to its object is kept, in the order of applying, with all that carrying it out takes: the log need not be
//! kept for it. Such an object can be neither read nor written, and counts in the state's digest by that alone, so that
//! replicas which have applied the same and know the same have equal digests. When the store is opened by who knows the
//! operations, they are carried out, and the object is as it is everywhere.
//!
//! As long as anything of a space is held, nothing of it is forgotten: what is carried out later is judged by what its author
//! had seen, like all else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::limits::CHANGE_SET_OPS_MAX;
use comity_crdts::{
    DecodeError, Dot, Frontier, Hlc, LaneId, ObjectAddress, ObjectId, OriginId, Reader, ReplicaId, SpaceId,
    Writer, canary,
};
use serde::{Deserialize, Serialize};

use crate::apply::{Application, Effects};
use crate::dictionary::Dictionary;
use crate::documents::flush;
use crate::engine::{Engine, Timer};
use crate::extension::Extensions;
use crate::io::{Notice, Now, Output};
use crate::keys;
use crate::limits::{HELD_BYTES_RELEASED, HELD_ROWS_RELEASED, SYNC_RETRY};
use crate::op::Op;
use crate::options::ROWS_VERSION_EXTENDED;
use crate::read::Listing;
use crate::rows::{Object, damaged, held_share};
use crate::site::Site;
use crate::space::{Space, decode, encode};
use crate::store::{StateRead, Store, StoreError, each_row};
use crate::work::Work;
/// A change set of which something is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldChange {
    author: ReplicaId,
    origin: OriginId,
    seq: u64,
    context: Frontier,
    at: Hlc,
    /// The entry that brought it.
    place: (LaneId, u64),
    /// Objects of which it is held.
    pub(crate) objects: u32,
}

/// What a change set does to an object that is held.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeldOps {
    /// The index of the first of the operations among those of the change set on the object.
    first: u16,
    ops: Vec<Op>,
}

impl HeldOps {
    fn to_bytes(&self, at: Hlc) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(u64::from(self.first));
        out.varint(self.ops.len() as u64);
        let mut dictionary = Dictionary::default();
        self.ops.iter().for_each(|op| op.encode((at, 0), &mut out, &mut dictionary));
        out.finish()
    }

    fn decode(at: Hlc, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let first = reader.varint_max(u64::from(u16::MAX), "first operation")? as u16;
        let count = reader.count(CHANGE_SET_OPS_MAX, "operations")?;
        let mut dictionary = Dictionary::default();
        let mut ops = Vec::new();
        for _ in 0..count {
            ops.push(Op::decode((at, 0), &mut reader, &mut dictionary)?);
        }
        reader.finish("held operations")?;
        if ops.is_empty() || usize::from(first) + ops.len() > CHANGE_SET_OPS_MAX {
            return Err(DecodeError::Invalid { what: "held operations", rule: "are some of a change set" });
        }
        Ok(Self { first, ops })
    }
}

/// The object and the place in the key of a row of what is held.
pub(crate) fn address_of(key: &[u8]) -> Result<(ObjectAddress, u64), StoreError> {
    let parts = keys::held_parts(key).and_then(|(kind, collection, name, place)| {
        Some((ObjectAddress::new(kind, collection, name).ok()?, place))
    });
    parts.ok_or_else(|| damaged("held row", &"its key is none"))
}

/// Reads what is held of an object by one change set.
pub(crate) fn decode_held(
    read: &dyn StateRead,
    space: &SpaceId,
    (address, place): (&ObjectAddress, u64),
    bytes: &[u8],
) -> Result<(HeldChange, HeldOps), StoreError> {
    let change = read.get(&keys::held_change(space, place))?;
    let change = change.ok_or_else(|| damaged("held row", &"its change set is missing"))?;
    let change: HeldChange = decode("held change set", &change)?;
    let ops = HeldOps::decode(change.at, bytes).map_err(|error| damaged("held row", &error))?;
    if !ops.ops.iter().all(|op| op.is_for(address.kind())) {
        return Err(damaged("held row", &"an operation is not of its object's kind"));
    }
    Ok((change, ops))
}

/// Whether something of an object is held, so that what it holds is known only in part. O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails.
pub fn is_held(read: &dyn StateRead, space: &SpaceId, address: &ObjectAddress) -> Result<bool, StoreError> {
    Ok(held_from(read, space, address)?.is_some())
}

/// The place from which on what is done to an object is held; `None` when nothing is. O(log n).
pub(crate) fn held_from(
    read: &dyn StateRead,
    space: &SpaceId,
    address: &ObjectAddress,
) -> Result<Option<u64>, StoreError> {
    let (from, until) = keys::held_of(space, address);
    let first = read.scan(&from, &until, 1)?.pop();
    first.map(|(key, _)| Ok(address_of(&key)?.1)).transpose()
}

/// Whether anything of a space is held. O(log n).
pub(crate) fn is_any_held(read: &dyn StateRead, space: &SpaceId) -> Result<bool, StoreError> {
    let (from, until) = keys::held_changes(space);
    Ok(!read.scan(&from, &until, 1)?.is_empty())
}

/// How many change sets of a space are held in part or whole. O(those).
pub(crate) fn count(read: &dyn StateRead, space: &SpaceId) -> Result<u64, StoreError> {
    let mut count = 0;
    each_row(read, keys::held_changes(space), |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// At most `limit` objects of a space after `after` of which something is held: what was done to them is known to this
/// replica only in part. O(objects · log n).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn held_objects(
    read: &dyn StateRead,
    space: &SpaceId,
    after: Option<&ObjectAddress>,
    limit: usize,
) -> Result<Vec<ObjectAddress>, StoreError> {
    let (mut from, until) = keys::all_held(space);
    if let Some(after) = after {
        from = keys::held_of(space, after).1;
    }
    let mut objects = Vec::new();
    while objects.len() < limit {
        let Some((key, _)) = read.scan(&from, &until, 1)?.pop() else { break };
        let (address, _) = address_of(&key)?;
        from = keys::held_of(space, &address).1;
        objects.push(address);
    }
    Ok(objects)
}

/// The keys of objects that a listing names and of which something is held, at most as many as it wants. O(keys · log n).
pub(crate) fn held_keys(
    read: &dyn StateRead,
    space: &SpaceId,
    listing: Listing<'_>,
) -> Result<Vec<String>, StoreError> {
    let Listing { kind, collection, prefix, after, limit } = listing;
    let (mut from, until) = keys::held_among(space, kind, collection, prefix, after);
    let mut found = Vec::new();
    while found.len() < limit {
        let Some((key, _)) = read.scan(&from, &until, 1)?.pop() else { break };
        let (address, _) = address_of(&key)?;
        from = keys::held_of(space, &address).1;
        found.push(address.key().to_owned());
    }
    Ok(found)
}

/// What the header of an object says, as its share of the state's digest.
fn share_of(read: &dyn StateRead, site: &Site) -> Result<u128, StoreError> {
    let header = read.get(&site.row)?.map(|bytes| Object::from_bytes(site.kind, &bytes)).transpose()?;
    Ok(header.map_or(0, |object| object.share(&site.id).digest))
}

impl Application<'_> {
    /// Whether operations on an object have to wait, because one of them or one before them is not known.
    pub(crate) fn must_wait(
        &self,
        read: &dyn StateRead,
        is_any_held: bool,
        (address, ops): (&ObjectAddress, &[(Dot, &Op)]),
    ) -> Result<bool, StoreError> {
        let is_known = ops.iter().all(|(_, op)| self.extensions.knows(address.kind(), op));
        let is_after = || Ok(is_any_held && !canary!(HeldOvertaken) && is_held(read, self.space, address)?);
        if is_known { is_after() } else { Ok(true) }
    }

    /// Holds operations on an object.
    pub(crate) fn hold(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        (address, ops): (&ObjectAddress, &[(Dot, &Op)]),
    ) -> Result<(), StoreError> {
        let Some((dot, _)) = ops.first() else { return Ok(()) };
        if !is_held(work, self.space, address)? {
            let site = Site::top(self.space, address);
            let (before, after) = (share_of(work, &site)?, held_share(&site.id));
            effects.digest = effects.digest.wrapping_sub(before).wrapping_add(after);
        }
        let key = keys::held_change(self.space, self.number);
        let mut change = match work.get(&key)? {
            Some(bytes) => decode("held change set", &bytes)?,
            None => {
                effects.held += 1;
                let (author, context) = (*self.author, self.context.clone());
                let (origin, seq, at, place) = (dot.origin, dot.seq, self.at, self.place);
                HeldChange { author, origin, seq, context, at, place, objects: 0 }
            }
        };
        change.objects += 1;
        work.put(key, encode(&change));
        let held = HeldOps { first: dot.index, ops: ops.iter().map(|(_, op)| (*op).clone()).collect() };
        work.put(keys::held(self.space, address, self.number), held.to_bytes(self.at));
        note_extended(work);
        Ok(())
    }
}

/// From this batch on the rows are of the version that has extensions: builds from before it do not open them.
pub(crate) fn note_extended(work: &mut Work<'_>) {
    work.put_fact(keys::ROWS_VERSION.to_vec(), vec![ROWS_VERSION_EXTENDED]);
}

/// What is carried out of what is held, in the order of the objects.
struct Release<'a> {
    space: &'a SpaceId,
    extensions: Extensions,
    /// From this key on.
    from: Vec<u8>,
    /// Of which nothing is held any more.
    objects: Vec<ObjectAddress>,
}

impl Release<'_> {
    /// Carries out what is known of it, a bounded part of it at a time. Whether that was all.
    fn step(&mut self, work: &mut Work<'_>, effects: &mut Effects) -> Result<bool, StoreError> {
        let (_, until) = keys::all_held(self.space);
        let (mut rows, mut bytes) = (0, 0);
        while rows < HELD_ROWS_RELEASED && bytes < HELD_BYTES_RELEASED {
            let Some((key, row)) = work.scan(&self.from, &until, 1)?.pop() else { return Ok(true) };
            (rows, bytes) = (rows + 1, bytes + row.len());
            let (address, place) = address_of(&key)?;
            let (change, held) = decode_held(work, self.space, (&address, place), &row)?;
            if held.ops.iter().all(|op| self.extensions.knows(address.kind(), op)) {
                self.release(work, effects, (&address, place), (change, &held))?;
                self.from = key;
            } else {
                self.from = keys::held_of(self.space, &address).1;
            }
        }
        Ok(false)
    }

    fn release(
        &mut self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        (address, place): (&ObjectAddress, u64),
        (mut change, held): (HeldChange, &HeldOps),
    ) -> Result<(), StoreError> {
        work.delete(keys::held(self.space, address, place));
        change.objects = change.objects.saturating_sub(1);
        let key = keys::held_change(self.space, place);
        if change.objects == 0 {
            effects.held -= 1;
            work.delete(key);
        } else {
            work.put(key, encode(&change));
        }
        let application = Application {
            space: self.space,
            author: &change.author,
            context: &change.context,
            place: change.place,
            at: change.at,
            number: place,
            extensions: self.extensions,
            is_any_held: false,
            is_late: true,
        };
        let digest = effects.digest;
        let dot = |index: usize| Dot {
            origin: change.origin,
            seq: change.seq,
            index: held.first.saturating_add(index as u16),
        };
        let ops: Vec<_> = held.ops.iter().enumerate().map(|(index, op)| (dot(index), op)).collect();
        if !canary!(HeldDropped) {
            application.carry_out(work, effects, address, &ops)?;
        }
        effects.digest = digest;
        if !is_held(work, self.space, address)? {
            let site = Site::top(self.space, address);
            let after = share_of(work, &site)?;
            effects.digest = digest.wrapping_sub(held_share(&site.id)).wrapping_add(after);
            self.objects.push(address.clone());
        }
        Ok(())
    }
}

impl Engine {
    /// Plans to carry out what is held and was not known when it came.
    pub(crate) fn plan_release(&mut self, now: &Now, id: SpaceId) {
        let extensions = self.extensions;
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return };
        if space.held > 0 && !extensions.are_none() && space.release_from.is_none() && !space.is_released {
            space.release_from = Some(keys::all_held(&id).0);
            self.timers.insert((now.monotonic, Timer::Release(id)));
        }
    }

    /// Carries out what is held and is known now, a step at a time.
    pub(crate) fn release(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let extensions = self.extensions;
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let Some(from) = space.release_from.clone().filter(|_| self.failed.is_none()) else { return Ok(()) };
        let again = (now.monotonic + SYNC_RETRY, Timer::Release(id));
        self.timers.insert(again);
        let mut release = Release { space: &id, extensions, from, objects: Vec::new() };
        let mut work = Work::over(&*store);
        let mut effects = Effects::default();
        let is_over = release.step(&mut work, &mut effects)?;
        let actor = space.actor();
        flush(&mut space.documents, &mut work, &mut effects, &id, actor)?;
        let mut progress = space.progress;
        progress.digest.0 = progress.digest.0.wrapping_add(effects.digest);
        space.put_progress(&mut work, &progress);
        let batch = work.into_batch();
        let (from, objects) = (release.from, release.objects);
        self.committed = match store.commit(batch) {
            Ok(position) => position,
            Err(error) => {
                space.documents.clear();
                return Err(error);
            }
        };
        space.progress = progress;
        space.hear(BTreeMap::new(), &effects);
        // What could be forgotten meanwhile can be now.
        space.compactable = true;
        (space.release_from, space.is_released) = ((!is_over).then_some(from), is_over);
        self.timers.remove(&again);
        if !is_over {
            // Whatever else is due comes first.
            self.timers.insert((now.monotonic + Duration::from_micros(1), Timer::Release(id)));
        }
        if !objects.is_empty() {
            self.push(Output::Notify(Notice::Released { space: id, objects }));
        }
        self.dirty.insert(id);
        self.request_sync();
        Ok(())
    }
}

impl Space {
    /// Whether nothing may be forgotten, because something is held.
    pub(crate) fn holds(&self) -> bool {
        self.held > 0 && !canary!(HeldNotConsidered)
    }
}

/// Checks rows of what is held that come from elsewhere, in the order in which they are walked: change sets first.
#[derive(Debug, Default)]
pub(crate) struct HeldRows {
    /// When each change set was made, and of how many objects it is still to come.
    changes: BTreeMap<u64, (Hlc, u32)>,
    /// The objects of which something is held.
    pub(crate) objects: BTreeSet<ObjectId>,
}

impl HeldRows {
    /// Takes a change set, by the place in its key.
    pub(crate) fn change(&mut self, tail: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let place = tail.try_into().map(u64::from_be_bytes);
        let place = place.map_err(|_| damaged("held change set", &"its key is none"))?;
        let change: HeldChange = decode("held change set", value)?;
        self.changes.insert(place, (change.at, change.objects));
        Ok(())
    }

    /// Takes what is held of an object; returns the object's id the first time.
    pub(crate) fn ops(
        &mut self,
        space: &SpaceId,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<ObjectId>, StoreError> {
        let (address, place) = address_of(key)?;
        let change = self.changes.get_mut(&place).filter(|(_, objects)| *objects > 0);
        let (at, objects) = change.ok_or_else(|| damaged("held row", &"its change set is missing"))?;
        let held = HeldOps::decode(*at, value).map_err(|error| damaged("held row", &error))?;
        if !held.ops.iter().all(|op| op.is_for(address.kind())) {
            return Err(damaged("held row", &"an operation is not of its object's kind"));
        }
        *objects -= 1;
        let id = ObjectId::derive(space, &address);
        Ok(self.objects.insert(id).then_some(id))
    }

    /// All have come.
    pub(crate) fn finish(&self) -> Result<(), StoreError> {
        let is_whole = self.changes.values().all(|(_, objects)| *objects == 0);
        if is_whole {
            Ok(())
        } else {
            Err(damaged("held change set", &"not all that is held of it is there"))
        }
    }
}

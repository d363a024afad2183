//! Objects made again from the log of record, as if they had never been there. The entries in it are those that their
//! authors signed, so what they come to is right, whatever rows and peers say.

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::{Dot, Frontier, LaneId, ObjectAddress, ObjectId, ReplicaId, SpaceId, canary};

use crate::apply::{Application, Effects};
use crate::audit::Unresolved;
use crate::audit::inspect::{Inspected, inspect};
use crate::audit::is_apart;
use crate::audit::members::{
    begin_members, inspect_members, is_member_list, is_member_row, member_rows, member_rows_of, members_share,
};
use crate::audit::stretch::{Stand, root};
use crate::bootstrap::{STEPS_MAX, clear_parts};
use crate::change::Body;
use crate::changes::{entry, places};
use crate::documents::{DocumentCache, flush};
use crate::extension::Extensions;
use crate::keys;
use crate::options::TailLimits;
use crate::read::frontier;
use crate::retention::{Kept, kept};
use crate::rows::{Object, damaged};
use crate::site::Site;
use crate::space::{LaneRow, Progress, decode};
use crate::status::StateDigest;
use crate::store::{LogRead, Put, Row, StateRead, StoreError};
use crate::work::Work;

/// Places of the order of applying that are read in one go.
const PLACES_AT_ONCE: u64 = 1_024;
/// Rows of objects that are made again together.
pub(crate) const ROWS_MAX: usize = 16 * 1024;
/// Their bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Headers that are read in one go.
const HEADERS_AT_ONCE: usize = 256;

/// What objects come to by the log, at one place of the order of applying.
#[derive(Debug)]
pub struct Rebuilt {
    /// The last place that is in it.
    pub(crate) place: u64,
    pub(crate) kept: Kept,
    /// The digest of the state that is kept with it.
    pub(crate) digest: u128,
    /// What the headers of all objects, and the members, come to; 0 when nothing is wrong.
    pub(crate) shares: u128,
    /// Where the view stands, when something was not kept of which it could be made.
    pub(crate) stand: Option<Stand>,
    pub(crate) outcomes: Vec<(ObjectAddress, Outcome)>,
}

/// What became of one object.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is what the log makes of it.
    Sound,
    /// It is not.
    Wrong(Wrong),
    /// That cannot be told.
    Unresolved(Unresolved),
}

/// An object that is not what the log makes of it.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// What is wrong with its rows, where they contradict themselves.
    pub(crate) detail: Option<String>,
    /// The digest of its state as it is.
    pub(crate) was: u128,
    /// The rows that it ought to have.
    pub(crate) rows: Vec<Put>,
    /// What may be forgotten in them, where they are a peer's.
    pub(crate) forgotten: Frontier,
}

/// Makes objects again, and compares them with what is there; none of them to see whether all come to the digest that is kept,
/// and, if not, whether that is because of the member list. `None` while the state is being replaced. O(log); for none O(objects)
/// where nothing is wrong.
pub(crate) fn rebuild(
    view: &dyn LogRead,
    space: &SpaceId,
    objects: &[ObjectAddress],
    extensions: Extensions,
) -> Result<Option<Rebuilt>, StoreError> {
    if is_apart(view, space)? {
        return Ok(None);
    }
    let progress = match view.get(&keys::progress(space))? {
        Some(bytes) => decode::<Progress>("progress row", &bytes)?,
        None => return Ok(None),
    };
    let (place, kept) = (progress.applied, kept(view, space)?);
    let digest = progress.digest.0;
    if kept.dropped > 0 {
        let (shares, stand) = (shares(view, space)?, stand(view, space)?);
        let outcomes = by_digest(view, space, objects, shares == digest)?;
        return Ok(Some(Rebuilt { place, kept, digest, shares, stand, outcomes }));
    }
    let mut outcomes = by_log(view, space, objects, (place, extensions))?;
    let is_wrong = |(_, outcome): &(ObjectAddress, Outcome)| matches!(outcome, Outcome::Wrong(_));
    let is_asked = objects.is_empty() || outcomes.iter().any(is_wrong);
    let shares = if is_asked { shares(view, space)? } else { 0 };
    if objects.is_empty() && shares != digest {
        // Who lacks a member talks to nobody who has it. Nothing says that this is what is wrong, so else nothing is told of it.
        outcomes = by_log(view, space, &[ObjectAddress::members()], (place, extensions))?;
        outcomes.retain(is_wrong);
    }
    Ok(Some(Rebuilt { place, kept, digest, shares, stand: None, outcomes }))
}

/// Where the log is shortened: objects whose rows do not contradict themselves are what was written here, if all objects
/// together come to the digest that is kept.
fn by_digest(
    view: &dyn LogRead,
    space: &SpaceId,
    objects: &[ObjectAddress],
    is_kept: bool,
) -> Result<Vec<(ObjectAddress, Outcome)>, StoreError> {
    let outcome = |object: &ObjectAddress| {
        let is_sound = is_kept && state_of(view, space, object)?.fault.is_none();
        let outcome = if is_sound { Outcome::Sound } else { Outcome::Unresolved(Unresolved::NotKept) };
        Ok((object.clone(), outcome))
    };
    objects.iter().map(outcome).collect()
}

/// Where a view stands, for who is to send rows.
fn stand(view: &dyn LogRead, space: &SpaceId) -> Result<Option<Stand>, StoreError> {
    let frontier = frontier(view, space)?;
    let root = root(view, space, &frontier)?;
    Ok(root.map(|root| Stand { frontier, root }))
}

fn all_unresolved(objects: &[ObjectAddress], why: Unresolved) -> Vec<(ObjectAddress, Outcome)> {
    objects.iter().map(|object| (object.clone(), Outcome::Unresolved(why))).collect()
}

fn by_log(
    view: &dyn LogRead,
    space: &SpaceId,
    objects: &[ObjectAddress],
    (place, extensions): (u64, Extensions),
) -> Result<Vec<(ObjectAddress, Outcome)>, StoreError> {
    let mut replay = Replay::new(view, space, extensions)?;
    let blank = Blank(view);
    let mut work = Work::over(if canary!(RemadeOverOld) { view } else { &blank });
    let mut outcomes = Vec::new();
    for object in objects {
        if is_small(view, space, object)? {
            replay.objects.insert(object.clone());
        } else {
            outcomes.push((object.clone(), Outcome::Unresolved(Unresolved::TooLarge)));
        }
    }
    let begun =
        if replay.objects.iter().any(is_member_list) { begin_members(&mut work, space) } else { Ok(()) };
    let replayed = match begun.and_then(|()| replay.run(&mut work, (1, place), 4 * ROWS_MAX)) {
        Ok(is_whole) => is_whole.then_some(()).ok_or(Unresolved::TooLarge),
        Err(StoreError::Corrupt { .. }) => Err(Unresolved::LogDamaged),
        Err(error) => return Err(error),
    };
    if let Err(why) = replayed {
        let left: Vec<_> = replay.objects.into_iter().collect();
        outcomes.extend(all_unresolved(&left, why));
        return Ok(outcomes);
    }
    let mut judged = Vec::new();
    for object in replay.objects {
        let (was, is) = (state_of(view, space, &object)?, state_of(&work, space, &object)?);
        judged.push((object, was, is));
    }
    let rows = work.into_batch().state;
    for (object, was, is) in judged {
        if was.fault.is_none() && was.digest == is.digest {
            outcomes.push((object, Outcome::Sound));
            continue;
        }
        let rows = rows_of(space, &object, &rows);
        let bytes: usize =
            rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let outcome = if bytes > BYTES_MAX {
            Outcome::Unresolved(Unresolved::TooLarge)
        } else {
            Outcome::Wrong(Wrong { detail: was.fault, was: was.digest, rows, forgotten: Frontier::new() })
        };
        outcomes.push((object, outcome));
    }
    Ok(outcomes)
}

/// What is read without any rows of objects and members, as if none had ever been written.
pub(crate) struct Blank<'a>(pub(crate) &'a dyn LogRead);

impl Blank<'_> {
    fn hides(key: &[u8]) -> bool {
        matches!(key.first(), Some(0x30..=0x35 | 0x37 | 0x38)) || is_member_row(key)
    }
}

impl StateRead for Blank<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if Self::hides(key) { Ok(None) } else { self.0.get(key) }
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        if Self::hides(from) { Ok(Vec::new()) } else { self.0.scan(from, until, limit) }
    }
}

impl LogRead for Blank<'_> {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.lane_entry(space, lane, lsn)
    }
}

/// Whether an object has no more rows than are held in memory for this.
pub(crate) fn is_small(
    view: &dyn LogRead,
    space: &SpaceId,
    object: &ObjectAddress,
) -> Result<bool, StoreError> {
    let mut room = ROWS_MAX;
    clear(&mut Work::over(view), space, object, &mut room)
}

/// The ids of an object and of what is nested in it, by its rows.
pub(crate) fn holders(space: &SpaceId, object: &ObjectAddress, rows: &[Put]) -> BTreeSet<ObjectId> {
    let mut holders = BTreeSet::from([Site::top(space, object).id]);
    // The order of ids says nothing of what is nested in what, so it is looked for as often as maps nest.
    for _ in 0..STEPS_MAX {
        let known = holders.len();
        for (key, _) in rows.iter().filter(|(key, _)| key.first() == Some(&0x32)) {
            let map = key.get(1..17).and_then(|id| id.try_into().ok()).map(ObjectId);
            if let (Some(map), Some((name, kind))) = (map, keys::field_parts(key))
                && holders.contains(&map)
            {
                holders.insert(map.nested(name, kind));
            }
        }
        if holders.len() == known {
            break;
        }
    }
    holders
}

/// Of the rows that a batch makes those of one object. Of rows that come
/// from elsewhere none that are nested deeper than maps nest. O(rows).
pub(crate) fn rows_of(space: &SpaceId, object: &ObjectAddress, rows: &[Put]) -> Vec<Put> {
    if is_member_list(object) {
        return member_rows_of(space, rows);
    }
    let holders = holders(space, object, rows);
    let header = keys::object(space, object);
    let conflicts = keys::conflicts_of(space, object).0;
    let is_part = |key: &[u8]| {
        let id = key.get(1..17).and_then(|id| id.try_into().ok()).map(ObjectId);
        matches!(key.first(), Some(0x31..=0x35)) && id.is_some_and(|id| holders.contains(&id))
    };
    let is_its = |key: &[u8]| match key.first() {
        Some(0x37) => {
            let target = keys::unstable_target(key);
            target == header || is_part(target)
        }
        _ => key == header || is_part(key) || key.starts_with(&conflicts),
    };
    rows.iter().filter(|(key, value)| value.is_some() && is_its(key)).cloned().collect()
}

/// Every row of an object, for tools that look at them and tests that spoil them. O(object).
///
/// # Errors
/// [`StoreError`] when storage fails.
pub fn object_rows(
    read: &dyn LogRead,
    space: &SpaceId,
    object: &ObjectAddress,
) -> Result<Vec<Row>, StoreError> {
    let (mut work, mut room) = (Work::over(read), usize::MAX);
    clear(&mut work, space, object, &mut room)?;
    let mut rows = Vec::new();
    for (key, _) in work.into_batch().state {
        rows.extend(read.get(&key)?.map(|value| (key, value)));
    }
    Ok(rows)
}

/// The digest of one object's state, and what is wrong with its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectDigest {
    /// Of everything that replicas which have applied the same operations on it agree about, whatever they have forgotten; zero
    /// where it holds nothing.
    pub state: StateDigest,
    /// What is wrong with its rows, the first of it, if they contradict themselves.
    pub fault: Option<String>,
}

/// Checks one object against itself, and digests its state. O(object).
///
/// # Errors
/// [`StoreError`] when storage fails; rows that cannot be read are no failure, but a fault that is told.
pub fn object_digest(
    read: &dyn LogRead,
    space: &SpaceId,
    object: &ObjectAddress,
) -> Result<ObjectDigest, StoreError> {
    let Inspected { digest, fault, .. } = state_of(read, space, object)?;
    Ok(ObjectDigest { state: StateDigest(digest), fault })
}

/// The state of an object as it is in what is read.
pub(crate) fn state_of(
    read: &dyn LogRead,
    space: &SpaceId,
    object: &ObjectAddress,
) -> Result<Inspected, StoreError> {
    if is_member_list(object) {
        return inspect_members(read, space);
    }
    match read.get(&keys::object(space, object))? {
        Some(header) => inspect(read, space, object, &header),
        None => Ok(Inspected::default()),
    }
}

/// The share of an object of the digest of the space, by its header, 0 where that cannot be read; that of the member list by
/// its rows.
pub(crate) fn header_share(
    read: &dyn StateRead,
    space: &SpaceId,
    object: &ObjectAddress,
) -> Result<u128, StoreError> {
    if is_member_list(object) {
        return members_share(read, space);
    }
    let Some(header) = read.get(&keys::object(space, object))? else { return Ok(0) };
    Ok(share(&ObjectId::derive(space, object), object, &header))
}

fn share(id: &ObjectId, object: &ObjectAddress, header: &[u8]) -> u128 {
    Object::from_bytes(object.kind(), header).map_or(0, |object| object.share(id).digest)
}

/// What all headers, and the members, come to. O(objects).
pub(crate) fn shares(read: &dyn StateRead, space: &SpaceId) -> Result<u128, StoreError> {
    let mut shares = 0_u128;
    let (mut from, until) = keys::all_objects(space);
    loop {
        let rows = read.scan(&from, &until, HEADERS_AT_ONCE)?;
        for (key, header) in &rows {
            let parts = keys::object_parts(key)
                .and_then(|(kind, collection, key)| ObjectAddress::new(kind, collection, key).ok());
            let object = parts.ok_or_else(|| damaged("object row", &"its key is none"))?;
            shares = shares.wrapping_add(share(&ObjectId::derive(space, &object), &object, header));
        }
        match rows.last() {
            Some((last, _)) if rows.len() == HEADERS_AT_ONCE => from = [last.as_slice(), &[0]].concat(),
            _ => break,
        }
    }
    Ok(shares.wrapping_add(members_share(read, space)?))
}

/// Removes every row of an object, if they are no more than there is room for.
pub(crate) fn clear(
    work: &mut Work<'_>,
    space: &SpaceId,
    object: &ObjectAddress,
    room: &mut usize,
) -> Result<bool, StoreError> {
    if is_member_list(object) {
        let rows = member_rows(work, space)?;
        *room = room.saturating_sub(rows.len());
        rows.into_iter().for_each(|(key, _)| work.delete(key));
        return Ok(*room > 0);
    }
    let site = Site::top(space, object);
    if !clear_parts(work, &site.id, object.kind(), room)? {
        return Ok(false);
    }
    let (from, until) = keys::conflicts_of(space, object);
    for (key, _) in work.scan(&from, &until, *room)? {
        work.delete(key);
        *room -= 1;
    }
    work.delete(site.row);
    Ok(*room > 0)
}

/// Applies what entries do to some objects, and nothing else of them.
pub(crate) struct Replay<'a> {
    log: &'a dyn LogRead,
    space: &'a SpaceId,
    owners: BTreeMap<LaneId, ReplicaId>,
    pub(crate) objects: BTreeSet<ObjectAddress>,
    /// Of entries up to here what they did is there.
    pub(crate) beyond: Frontier,
    documents: DocumentCache,
    pub(crate) effects: Effects,
    extensions: Extensions,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(
        log: &'a dyn LogRead,
        space: &'a SpaceId,
        extensions: Extensions,
    ) -> Result<Self, StoreError> {
        let mut owners = BTreeMap::new();
        let (from, until) = keys::lanes(space);
        for (_, bytes) in log.scan(&from, &until, usize::MAX)? {
            let owner = decode::<LaneRow>("lane row", &bytes)?.owner;
            owners.insert(owner.lane(space), owner.replica);
        }
        let (objects, beyond) = (BTreeSet::new(), Frontier::new());
        let documents = DocumentCache::new(TailLimits::USUAL);
        Ok(Self { log, space, owners, objects, beyond, documents, effects: Effects::default(), extensions })
    }

    /// Applies the entries at some places of the order of applying. Returns whether it went through all of them without
    /// changing many more than so many rows.
    pub(crate) fn run(
        &mut self,
        work: &mut Work<'_>,
        (first, last): (u64, u64),
        rows_max: usize,
    ) -> Result<bool, StoreError> {
        let mut next = first;
        while next <= last && !self.objects.is_empty() {
            let until = last.min(next + PLACES_AT_ONCE - 1);
            let places = places(self.log, self.space, next, until)?;
            if places.len() as u64 != until - next + 1 {
                return Err(damaged("apply log", &"a place of it is missing"));
            }
            for (number, (lane, lsn)) in places {
                if self.beyond.at(&lane) < lsn {
                    self.entry(work, number, (lane, lsn))?;
                }
            }
            flush(&mut self.documents, work, &mut self.effects, self.space, [0; 16])?;
            if work.changed() > rows_max {
                return Ok(false);
            }
            next = until + 1;
        }
        Ok(true)
    }

    fn entry(&mut self, work: &mut Work<'_>, number: u64, place: (LaneId, u64)) -> Result<(), StoreError> {
        let (lane, lsn) = place;
        let gone =
            || damaged("log of record", &format!("entry {lsn} of lane {lane} is applied and not kept"));
        let (_, entry) = entry(self.log, self.space, place)?.ok_or_else(gone)?;
        let Body::Change(change) = entry.body else { return Ok(()) };
        let author = self.owners.get(&lane).ok_or_else(gone)?;
        let (space, context) = (self.space, &change.context);
        let application = Application {
            space,
            author,
            context,
            place,
            at: change.hlc,
            number,
            extensions: self.extensions,
            // Where something is, nothing is made again.
            is_any_held: false,
            is_late: false,
        };
        for group in change.groups.iter().filter(|group| self.objects.contains(&group.address)) {
            let dot = |index: usize| Dot { origin: change.origin, seq: change.seq, index: index as u16 };
            let ops: Vec<_> = group.ops.iter().enumerate().map(|(index, op)| (dot(index), op)).collect();
            application.apply_all(work, &mut self.effects, &group.address, &ops)?;
        }
        Ok(())
    }
}

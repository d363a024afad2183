//! The conflict inbox: registers that hold several siblings, and map keys that hold several kinds, found
//! without looking at everything.

use std::fmt;

use comity_crdts::{
    Dot, Hlc, Kind, ObjectAddress, Policy, PolicyRegistry, RegisterView, ReplicaId, SpaceId, Value,
};
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::read::author_of;
use crate::rows::{Object, damaged};
use crate::settings::{policy_of, region_of};
use crate::site::Site;
use crate::space::{decode, encode};
use crate::status::StateDigest;
use crate::store::{StateRead, StoreError};
use crate::work::Work;

use keys::{CONFLICT_KINDS as KINDS, CONFLICT_SIBLINGS as SIBLINGS};

/// An object, or something nested in a map.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The object of the space.
    pub object: ObjectAddress,
    /// The keys that lead on from there, through maps; empty for the object itself.
    pub path: Vec<String>,
}

impl From<ObjectAddress> for Location {
    fn from(object: ObjectAddress) -> Self {
        Self { object, path: Vec::new() }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        self.path.iter().try_for_each(|key| write!(f, " › {key}"))
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Something in a space that people may have to decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// Where it is.
    pub location: Location,
    /// What it is.
    pub matter: Matter,
}

/// What is in conflict.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Matter {
    /// A register holds several values, and its collection's policy shows them all.
    Siblings {
        /// The policy.
        policy: Policy,
        /// The values, in dot order.
        siblings: Vec<SiblingReport>,
    },
    /// A key of a map leads to objects of several kinds.
    Kinds {
        /// The kinds.
        kinds: Vec<Kind>,
        /// What they hold: equal only where they hold the same.
        state: StateDigest,
    },
}

/// One of several values.
#[derive(Clone, Debug, PartialEq)]
pub struct SiblingReport {
    /// What a resolution names it by.
    pub dot: Dot,
    /// The value.
    pub value: Value,
    /// When it was written.
    pub hlc: Hlc,
    /// Who wrote it; `None` when the lane it came in is not known here any more.
    pub author: Option<ReplicaId>,
    /// The author's region, if it said one.
    pub region: Option<String>,
}

impl Conflict {
    /// The dots that were seen: what a resolution is to replace, and nothing that came later.
    pub fn seen(&self) -> Vec<Dot> {
        match &self.matter {
            Matter::Siblings { siblings, .. } => siblings.iter().map(|sibling| sibling.dot).collect(),
            Matter::Kinds { .. } => Vec::new(),
        }
    }
}

/// A location as rows hold it.
#[derive(Serialize, Deserialize)]
pub(crate) struct LocationRow {
    kind: Kind,
    collection: String,
    key: String,
    path: Vec<String>,
}

impl LocationRow {
    pub(crate) fn new(object: &ObjectAddress, path: &[String]) -> Self {
        Self {
            kind: object.kind(),
            collection: object.collection().to_owned(),
            key: object.key().to_owned(),
            path: path.to_vec(),
        }
    }

    /// The location in a row of what is named.
    pub(crate) fn location(self, what: &str) -> Result<Location, StoreError> {
        let object = ObjectAddress::new(self.kind, &self.collection, &self.key);
        let object = object.map_err(|error| damaged(what, &error))?;
        Ok(Location { object, path: self.path })
    }
}

fn put_row(work: &mut Work<'_>, space: &SpaceId, (object, path): (&ObjectAddress, &[String]), what: u8) {
    work.put(keys::conflict(space, object, path, what), encode(&LocationRow::new(object, path)));
}

/// Notes how many siblings a register held and holds.
pub(crate) fn note_siblings(
    work: &mut Work<'_>,
    space: &SpaceId,
    (object, path): (&ObjectAddress, &[String]),
    (held, holds): (usize, usize),
) {
    if object.kind() == Kind::Settings {
        return;
    }
    if holds > 1 && held < 2 {
        put_row(work, space, (object, path), SIBLINGS);
    } else if holds < 2 && held > 1 {
        work.delete(keys::conflict(space, object, path, SIBLINGS));
    }
}

/// Notes whether a key of a map, at the end of `path`, leads to several kinds. O(kinds).
pub(crate) fn note_kinds(
    work: &mut Work<'_>,
    space: &SpaceId,
    (object, path): (&ObjectAddress, &[String]),
    map: &Site,
) -> Result<(), StoreError> {
    let Some(key) = path.last() else { return Ok(()) };
    if kinds_under(work, map, key)?.len() > 1 {
        put_row(work, space, (object, path), KINDS);
    } else {
        work.delete(keys::conflict(space, object, path, KINDS));
    }
    Ok(())
}

/// Notes every conflict in an object anew, of which none is noted. O(object).
pub(crate) fn note_all(
    work: &mut Work<'_>,
    space: &SpaceId,
    object: &ObjectAddress,
) -> Result<(), StoreError> {
    note_within(work, space, (object, &mut Vec::new()), &Site::top(space, object))
}

fn note_within(
    work: &mut Work<'_>,
    space: &SpaceId,
    (object, path): (&ObjectAddress, &mut Vec<String>),
    site: &Site,
) -> Result<(), StoreError> {
    match site.load(work)? {
        Object::Register(register) => note_siblings(work, space, (object, path), (0, register.len())),
        Object::Map(_) => {
            let (from, until) = keys::fields(&site.id);
            for (row, _) in work.scan(&from, &until, usize::MAX)? {
                let parts = keys::field_parts(&row);
                let (key, kind) = parts.ok_or_else(|| damaged("map row", &"its key is none"))?;
                path.push(key.to_owned());
                note_kinds(work, space, (object, path), site)?;
                note_within(work, space, (object, path), &site.nested(key, kind))?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

/// The kinds that a map holds under a key. O(kinds).
pub(crate) fn kinds_under(read: &dyn StateRead, map: &Site, key: &str) -> Result<Vec<Kind>, StoreError> {
    Ok(kinds_with_state(read, map, key)?.0)
}

/// The kinds that a map holds under a key, and the digest of what they hold. O(kinds).
pub(crate) fn kinds_with_state(
    read: &dyn StateRead,
    map: &Site,
    key: &str,
) -> Result<(Vec<Kind>, StateDigest), StoreError> {
    let (from, until) = keys::fields_of(&map.id, key);
    let (mut kinds, mut state) = (Vec::new(), 0_u128);
    for (row, bytes) in read.scan(&from, &until, usize::MAX)? {
        let (_, kind) = keys::field_parts(&row).ok_or_else(|| damaged("map row", &"its key is none"))?;
        let object = Object::from_bytes(kind, &bytes)?;
        if object.is_present() {
            kinds.push(kind);
            state = state.wrapping_add(object.share_by(&map.nested(key, kind).id, &bytes).digest);
        }
    }
    Ok((kinds, StateDigest(state)))
}

/// Conflicts of a space, in the order of their objects, after `after`, at most `limit`. A register is one when its
/// collection's policy shows siblings now. O(registers with several siblings).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn conflicts(
    read: &dyn StateRead,
    space: &SpaceId,
    registry: &PolicyRegistry,
    after: Option<&Location>,
    limit: usize,
) -> Result<Vec<Conflict>, StoreError> {
    let (mut from, until) = keys::conflicts(space);
    if let Some(after) = after {
        from = keys::conflict(space, &after.object, &after.path, u8::MAX);
    }
    let mut found = Vec::new();
    while found.len() < limit {
        let rows = read.scan(&from, &until, limit)?;
        for (_, bytes) in &rows {
            let location = decode_location(bytes)?;
            // Where several kinds meet and one is a register with siblings there are two rows.
            if found.last().is_none_or(|last: &Conflict| last.location != location) {
                found.extend(conflict_at(read, space, registry, &location)?);
            }
        }
        let Some((last, _)) = rows.last().filter(|_| rows.len() == limit) else { break };
        from.clone_from(last);
        from.push(0);
    }
    found.truncate(limit);
    Ok(found)
}

fn decode_location(bytes: &[u8]) -> Result<Location, StoreError> {
    decode::<LocationRow>("conflict row", bytes)?.location("conflict row")
}

/// The conflict in one place, if there is one. O(siblings).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn conflict_at(
    read: &dyn StateRead,
    space: &SpaceId,
    registry: &PolicyRegistry,
    location: &Location,
) -> Result<Option<Conflict>, StoreError> {
    let top = Site::top(space, &location.object);
    if let Some((key, maps)) = location.path.split_last() {
        let (kinds, state) = kinds_with_state(read, &top.at_path(maps, Kind::Map), key)?;
        if kinds.len() > 1 {
            let matter = Matter::Kinds { kinds, state };
            return Ok(Some(Conflict { location: location.clone(), matter }));
        }
    }
    let kind = if location.path.is_empty() { location.object.kind() } else { Kind::Register };
    let Object::Register(register) = top.at_path(&location.path, kind).load(read)? else { return Ok(None) };
    let policy = policy_of(read, space, location.object.collection())?;
    let RegisterView::Siblings(siblings) = policy.view_with(&register, registry) else { return Ok(None) };
    let mut reports = Vec::new();
    for (dot, sibling) in siblings {
        let author = author_of(read, space, &dot.origin)?;
        let region = author.map(|author| region_of(read, space, &author)).transpose()?.flatten();
        reports.push(SiblingReport { dot, value: sibling.value, hlc: sibling.hlc, author, region });
    }
    let matter = Matter::Siblings { policy, siblings: reports };
    Ok(Some(Conflict { location: location.clone(), matter }))
}

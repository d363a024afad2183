//! Typed reads over the state: the same for a transaction, a view and a test.

use comity_crdts::limits::ELEMENT_BYTES_MAX;
use comity_crdts::{
    AddressError, BoundedCounter, Document, Frontier, Kind, MvRegister, ObjectAddress, OriginId, ReplicaId,
    SpaceId, Value, check_collection,
};

use crate::apply::{load_element, load_rw_element};
use crate::conflicts::{Location, kinds_under};
use crate::documents::{DocumentPlace, load};
use crate::held::{held_keys, is_held};
use crate::keys;
use crate::members::{Roster, View};
use crate::op::Role;
use crate::rows::{Object, damaged, decode_rw_element};
use crate::site::Site;
use crate::space::{LaneRow, decode};
use crate::store::{LogRead, StateRead, StoreError};

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The caller's address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The location cannot hold an object of the kind that was asked for.
    #[error("{location} holds no {kind}")]
    Kind {
        /// The location.
        location: Location,
        /// What was to be read.
        kind: Kind,
    },
    /// Something was done to the object that this build does not know: what it holds is known only in part. It can be
    /// read at a replica of a newer build, and here after an upgrade.
    #[error("{location}: an operation on it is of a version that this build does not know")]
    Held {
        /// The location.
        location: Location,
    },
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is at a location, read as an object of this kind.
fn load_at(read: &dyn StateRead, space: &SpaceId, at: &Location, kind: Kind) -> Result<Object, ReadError> {
    Ok(site_at(read, space, at, kind)?.load(read)?)
}

/// Refuses to read an object of which something is held.
pub(crate) fn check_known(read: &dyn StateRead, space: &SpaceId, at: &Location) -> Result<(), ReadError> {
    if is_held(read, space, &at.object)? {
        return Err(ReadError::Held { location: at.clone() });
    }
    Ok(())
}

fn site_at(read: &dyn StateRead, space: &SpaceId, at: &Location, kind: Kind) -> Result<Site, ReadError> {
    let fits = if at.path.is_empty() { at.object.kind() == kind } else { at.object.kind() == Kind::Map };
    if !fits {
        return Err(ReadError::Kind { location: at.clone(), kind });
    }
    check_known(read, space, at)?;
    Ok(Site::top(space, &at.object).at_path(&at.path, kind))
}

/// A counter's value; 0 when nothing was ever added.
///
/// # Errors
/// [`ReadError`].
pub fn counter(
    read: &dyn StateRead,
    space: &SpaceId,
    collection: &str,
    key: &str,
) -> Result<i128, ReadError> {
    counter_at(read, space, &ObjectAddress::new(Kind::Counter, collection, key)?.into())
}

/// As [`counter`], anywhere.
///
/// # Errors
/// [`ReadError`].
pub fn counter_at(read: &dyn StateRead, space: &SpaceId, at: &Location) -> Result<i128, ReadError> {
    Ok(match load_at(read, space, at, Kind::Counter)? {
        Object::Counter(counter) => counter.value(),
        _ => 0,
    })
}

/// A bounded counter, with everybody's rights to it.
///
/// # Errors
/// [`ReadError`].
pub fn bounded_counter(
    read: &dyn StateRead,
    space: &SpaceId,
    collection: &str,
    key: &str,
) -> Result<BoundedCounter, ReadError> {
    let address = ObjectAddress::new(Kind::BoundedCounter, collection, key)?;
    Ok(match load_at(read, space, &address.into(), Kind::BoundedCounter)? {
        Object::Bounded(counter) => counter,
        _ => BoundedCounter::default(),
    })
}

/// Whether an enable-wins or a disable-wins flag is enabled; flags nobody touched are not.
///
/// # Errors
/// [`ReadError`].
pub fn flag_at(read: &dyn StateRead, space: &SpaceId, at: &Location) -> Result<bool, ReadError> {
    let kind = if at.object.kind() == Kind::DwFlag { Kind::DwFlag } else { Kind::Flag };
    Ok(load_at(read, space, at, kind)?.is_present())
}

/// A register with all its siblings; apply a policy to see what a reader sees.
///
/// # Errors
/// [`ReadError`].
pub fn register(
    read: &dyn StateRead,
    space: &SpaceId,
    collection: &str,
    key: &str,
) -> Result<MvRegister, ReadError> {
    register_at(read, space, &ObjectAddress::new(Kind::Register, collection, key)?.into())
}

/// As [`register`], anywhere.
///
/// # Errors
/// [`ReadError`].
pub fn register_at(read: &dyn StateRead, space: &SpaceId, at: &Location) -> Result<MvRegister, ReadError> {
    Ok(match load_at(read, space, at, Kind::Register)? {
        Object::Register(register) => register,
        _ => MvRegister::default(),
    })
}

/// Whether a set holds an element. O(log n).
///
/// # Errors
/// [`ReadError`].
pub fn set_contains(
    read: &dyn StateRead,
    space: &SpaceId,
    (collection, key): (&str, &str),
    element: &Value,
) -> Result<bool, ReadError> {
    set_contains_at(read, space, &ObjectAddress::new(Kind::Set, collection, key)?.into(), element)
}

/// As [`set_contains`], for add-wins sets anywhere and for remove-wins sets.
///
/// # Errors
/// [`ReadError`].
pub fn set_contains_at(
    read: &dyn StateRead,
    space: &SpaceId,
    at: &Location,
    element: &Value,
) -> Result<bool, ReadError> {
    let kind = set_kind(at);
    let row = keys::element(&site_at(read, space, at, kind)?.id, &element.to_bytes());
    Ok(match kind {
        Kind::RwSet => load_rw_element(read, &row)?.is_member(),
        _ => load_element(read, &row)?.is_present(),
    })
}

fn set_kind(at: &Location) -> Kind {
    if at.object.kind() == Kind::RwSet { Kind::RwSet } else { Kind::Set }
}

/// The number of elements in a set. O(log n).
///
/// # Errors
/// [`ReadError`].
pub fn set_len(read: &dyn StateRead, space: &SpaceId, collection: &str, key: &str) -> Result<u64, ReadError> {
    set_len_at(read, space, &ObjectAddress::new(Kind::Set, collection, key)?.into())
}

/// As [`set_len`], for add-wins sets anywhere and for remove-wins sets.
///
/// # Errors
/// [`ReadError`].
pub fn set_len_at(read: &dyn StateRead, space: &SpaceId, at: &Location) -> Result<u64, ReadError> {
    Ok(match load_at(read, space, at, set_kind(at))? {
        Object::Set(parts) | Object::RwSet(parts) => parts.count,
        _ => 0,
    })
}

/// At most `limit` elements of a set after `after`, in canonical order. O(log n + elements).
///
/// # Errors
/// [`ReadError`].
pub fn set_elements(
    read: &dyn StateRead,
    space: &SpaceId,
    (collection, key): (&str, &str),
    after: Option<&Value>,
    limit: usize,
) -> Result<Vec<Value>, ReadError> {
    set_elements_at(read, space, &ObjectAddress::new(Kind::Set, collection, key)?.into(), after, limit)
}

/// As [`set_elements`], for add-wins sets anywhere and for remove-wins sets; of these also O(removals that are
/// not stable yet).
///
/// # Errors
/// [`ReadError`].
pub fn set_elements_at(
    read: &dyn StateRead,
    space: &SpaceId,
    at: &Location,
    after: Option<&Value>,
    limit: usize,
) -> Result<Vec<Value>, ReadError> {
    let kind = set_kind(at);
    let id = site_at(read, space, at, kind)?.id;
    let (mut from, until) = keys::elements(&id);
    if let Some(after) = after {
        from = keys::element(&id, &after.to_bytes());
        from.push(0);
    }
    let is_shown = |bytes: &[u8]| match kind {
        Kind::RwSet => decode_rw_element(bytes).map(|row| row.is_member()),
        _ => Ok(true),
    };
    let rows = shown(read, (from, &until), limit, is_shown)?;
    let decode = |row: &[u8]| {
        Value::from_bytes(keys::element_bytes(row), ELEMENT_BYTES_MAX)
            .map_err(|error| ReadError::Store(damaged("element row", &error)))
    };
    rows.iter().map(|row| decode(row)).collect()
}

/// The keys of at most `limit` rows that show something.
fn shown(
    read: &dyn StateRead,
    (mut from, until): (Vec<u8>, &[u8]),
    limit: usize,
    is_shown: impl Fn(&[u8]) -> Result<bool, StoreError>,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut found = Vec::new();
    loop {
        let wanted = limit - found.len();
        let rows = read.scan(&from, until, wanted)?;
        let is_last = rows.len() < wanted || wanted == 0;
        for (key, bytes) in rows {
            from.clone_from(&key);
            if is_shown(&bytes)? {
                found.push(key);
            }
        }
        from.push(0);
        if is_last || found.len() == limit {
            return Ok(found);
        }
    }
}

/// At most `limit` keys of a map after `after`, each with the kinds of what it leads to: usually one, several
/// where concurrent writers differed. O(log n + keys).
///
/// # Errors
/// [`ReadError`].
pub fn map_keys(
    read: &dyn StateRead,
    space: &SpaceId,
    at: &Location,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Vec<Kind>)>, ReadError> {
    let map = site_at(read, space, at, Kind::Map)?;
    let (mut from, until) = keys::fields(&map.id);
    if let Some(after) = after {
        from = keys::fields_of(&map.id, after).1;
    }
    let mut found: Vec<(String, Vec<Kind>)> = Vec::new();
    while found.len() < limit {
        // Every key has a row for each kind, and one more tells where the last one ends.
        let wanted = limit.saturating_sub(found.len()).saturating_add(1);
        let rows = read.scan(&from, &until, wanted)?;
        let Some((last, _)) = rows.last() else { break };
        let (key, _) = keys::field_parts(last).ok_or_else(|| damaged("map row", &"its key is none"))?;
        let (key, is_end) = (key.to_owned(), rows.len() < wanted);
        let mut names: Vec<String> = Vec::new();
        for (row, _) in &rows {
            let (name, _) = keys::field_parts(row).ok_or_else(|| damaged("map row", &"its key is none"))?;
            if names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
        }
        for name in names {
            let kinds = kinds_under(read, &map, &name)?;
            if !kinds.is_empty() && found.len() < limit {
                found.push((name, kinds));
            }
        }
        if is_end {
            break;
        }
        from = keys::fields_of(&map.id, &key).1;
    }
    Ok(found)
}

/// The number of keys in a map, a key counted once for each kind it leads to. O(log n).
///
/// # Errors
/// [`ReadError`].
pub fn map_len(read: &dyn StateRead, space: &SpaceId, at: &Location) -> Result<u64, ReadError> {
    Ok(match load_at(read, space, at, Kind::Map)? {
        Object::Map(parts) => parts.count,
        _ => 0,
    })
}

/// Whose lane this is; `None` when it is not known here. O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails or the row is damaged.
pub(crate) fn author_of(
    read: &dyn StateRead,
    space: &SpaceId,
    origin: &OriginId,
) -> Result<Option<ReplicaId>, StoreError> {
    let Some(bytes) = read.get(&keys::lane(space, origin))? else { return Ok(None) };
    let row: LaneRow = decode("lane row", &bytes)?;
    Ok(Some(row.owner.replica))
}

/// A document, loaded for reading. O(history).
///
/// # Errors
/// [`ReadError`].
pub fn document(
    read: &dyn LogRead,
    space: &SpaceId,
    collection: &str,
    key: &str,
) -> Result<Document, ReadError> {
    let address = ObjectAddress::new(Kind::Document, collection, key)?;
    check_known(read, space, &address.clone().into())?;
    Ok(stored_document(read, space, &address)?)
}

/// A document as its rows have it, also where something of it is held.
pub(crate) fn stored_document(
    read: &dyn LogRead,
    space: &SpaceId,
    address: &ObjectAddress,
) -> Result<Document, StoreError> {
    let site = Site::top(space, address);
    let place = DocumentPlace { space, address, site: &site };
    // Nothing is written through a document that was loaded for reading, so its actor never shows.
    Ok(load(read, &place, &place.header(read)?, [0; 16])?.0)
}

/// A document's heads, sorted, without loading it. O(log n).
///
/// # Errors
/// [`ReadError`].
pub fn document_heads(
    read: &dyn StateRead,
    space: &SpaceId,
    collection: &str,
    key: &str,
) -> Result<Vec<[u8; 32]>, ReadError> {
    let address = ObjectAddress::new(Kind::Document, collection, key)?;
    Ok(match load_at(read, space, &address.into(), Kind::Document)? {
        Object::Document(header) => header.head_hashes(),
        _ => Vec::new(),
    })
}

/// Which objects [`list`] names.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// Of this kind,
    pub kind: Kind,
    /// in this collection,
    pub collection: &'a str,
    /// whose keys start with this (empty for all),
    pub prefix: &'a str,
    /// that come after this key,
    pub after: Option<&'a str>,
    /// at most so many.
    pub limit: usize,
}

/// The keys of objects that hold something, or of which something is held, in byte order. O(log n + keys).
///
/// # Errors
/// [`ReadError`].
pub fn list(read: &dyn StateRead, space: &SpaceId, listing: Listing<'_>) -> Result<Vec<String>, ReadError> {
    check_collection(listing.collection)?;
    let Listing { kind, collection, prefix, after, limit } = listing;
    let (from, until) = keys::objects(space, kind, collection, prefix, after);
    let is_shown = |bytes: &[u8]| match kind {
        Kind::Members => Ok(true),
        kind => Object::from_bytes(kind, bytes).map(|object| object.is_present()),
    };
    let rows = shown(read, (from, &until), limit, is_shown)?;
    let key = |row: &[u8]| {
        String::from_utf8(keys::object_key(row, collection).to_vec())
            .map_err(|error| ReadError::Store(damaged("object key", &error)))
    };
    let mut keys = rows.iter().map(|row| key(row)).collect::<Result<Vec<_>, _>>()?;
    let held = held_keys(read, space, listing)?;
    if !held.is_empty() {
        keys.extend(held);
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(limit);
    }
    Ok(keys)
}

/// How far each lane of a space has come in the state that is read: what a client that reads it has seen.
/// O(lanes).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn frontier(read: &dyn StateRead, space: &SpaceId) -> Result<Frontier, StoreError> {
    let (from, until) = keys::lanes(space);
    let mut frontier = Frontier::new();
    for (_, bytes) in read.scan(&from, &until, usize::MAX)? {
        let row: LaneRow = decode("lane row", &bytes)?;
        if row.tip.lsn > 0 {
            frontier.advance(row.owner.lane(space), row.tip.lsn);
        }
    }
    Ok(frontier)
}

/// The members of a space with their roles. O(what was ever said about members).
///
/// # Errors
/// [`ReadError`].
pub fn members(read: &dyn StateRead, space: &SpaceId) -> Result<Vec<(ReplicaId, Role)>, ReadError> {
    let roles = Roster::load(read, space)?.roles(View::Everything);
    Ok(roles.iter().map(|(replica, role)| (*replica, *role)).collect())
}

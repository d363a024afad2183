//! Typed reads over the state: the same for a transaction, a view and a test.

use comity_crdts::limits::ELEMENT_BYTES_MAX;
use comity_crdts::{
    AddressError, Document, Frontier, Kind, MvRegister, ObjectAddress, ObjectId, ReplicaId, SpaceId, Value,
    check_collection,
};

use crate::apply::{load_element, load_object};
use crate::documents::read_document;
use crate::keys;
use crate::members::Member;
use crate::op::Role;
use crate::rows::{Object, damaged};
use crate::space::{LaneRow, decode};
use crate::store::{StateRead, StoreError};

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The caller's address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    let address = ObjectAddress::new(Kind::Counter, collection, key)?;
    Ok(match load_object(read, space, &address)? {
        Object::Counter(counter) => counter.total(),
        _ => 0,
    })
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
    let address = ObjectAddress::new(Kind::Register, collection, key)?;
    Ok(match load_object(read, space, &address)? {
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
    let id = ObjectId::derive(space, &ObjectAddress::new(Kind::Set, collection, key)?);
    Ok(load_element(read, &keys::element(&id, &element.to_bytes()))?.is_present())
}

/// The number of elements in a set. O(log n).
///
/// # Errors
/// [`ReadError`].
pub fn set_len(read: &dyn StateRead, space: &SpaceId, collection: &str, key: &str) -> Result<u64, ReadError> {
    let address = ObjectAddress::new(Kind::Set, collection, key)?;
    Ok(match load_object(read, space, &address)? {
        Object::Set(set) => set.elements,
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
    let id = ObjectId::derive(space, &ObjectAddress::new(Kind::Set, collection, key)?);
    let (mut from, until) = keys::elements(&id);
    if let Some(after) = after {
        from = keys::element(&id, &after.to_bytes());
        from.push(0);
    }
    let rows = read.scan(&from, &until, limit)?;
    let decode = |row: &[u8]| {
        Value::from_bytes(keys::element_bytes(row), ELEMENT_BYTES_MAX)
            .map_err(|error| ReadError::Store(damaged("element row", &error)))
    };
    rows.iter().map(|(row, _)| decode(row)).collect()
}

/// A document, loaded for reading. O(history).
///
/// # Errors
/// [`ReadError`].
pub fn document(
    read: &dyn StateRead,
    space: &SpaceId,
    collection: &str,
    key: &str,
) -> Result<Document, ReadError> {
    let id = ObjectId::derive(space, &ObjectAddress::new(Kind::Document, collection, key)?);
    // Nothing is written through a document that was loaded for reading, so its actor never shows.
    Ok(read_document(read, &id, [0; 16])?.0)
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
    Ok(match load_object(read, space, &address)? {
        Object::Document(header) => header.heads,
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

/// The keys of objects that hold something, in byte order. O(log n + keys).
///
/// # Errors
/// [`ReadError`].
pub fn list(read: &dyn StateRead, space: &SpaceId, listing: Listing<'_>) -> Result<Vec<String>, ReadError> {
    check_collection(listing.collection)?;
    let Listing { kind, collection, prefix, after, limit } = listing;
    let (from, until) = keys::objects(space, kind, collection, prefix, after);
    let rows = read.scan(&from, &until, limit)?;
    let key = |row: &[u8]| {
        String::from_utf8(keys::object_key(row, collection).to_vec())
            .map_err(|error| ReadError::Store(damaged("object key", &error)))
    };
    rows.iter().map(|(row, _)| key(row)).collect()
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

/// The members of a space with their roles. O(members).
///
/// # Errors
/// [`ReadError`].
pub fn members(read: &dyn StateRead, space: &SpaceId) -> Result<Vec<(ReplicaId, Role)>, ReadError> {
    let (from, until) = keys::members(space);
    let rows = read.scan(&from, &until, usize::MAX)?;
    let decode = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let replica = key.get(17..49).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let replica = replica.ok_or_else(|| damaged("member row", &"its key is not one"))?;
        Ok((ReplicaId(replica), Member::from_bytes(value)?.role))
    };
    rows.iter().map(decode).collect()
}

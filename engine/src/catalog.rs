//! What there is: spaces at this replica, and collections in a space, listed by page.

use comity_crdts::{Kind, SpaceId, check_collection};

use crate::keys;
use crate::read::ReadError;
use crate::rows::{Object, damaged};
use crate::space::{SpaceRow, decode};
use crate::store::{StateRead, StoreError};

/// Objects looked at in one read while the first of a collection that holds something is sought.
const PRESENT_PAGE_ROWS: usize = 64;

/// The name of a space at this replica, empty until the founder's record arrived; `None` when it is not held here.
/// O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails or the row is damaged.
pub fn space_name(read: &dyn StateRead, space: &SpaceId) -> Result<Option<String>, StoreError> {
    let row = read.get(&keys::space(space))?;
    row.map(|bytes| decode::<SpaceRow>("space row", &bytes).map(|row| row.name)).transpose()
}

/// At most `limit` spaces of this replica after the space `after`, in the order of their ids, with their names.
/// O(log n + spaces).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn spaces(
    read: &dyn StateRead,
    after: Option<&SpaceId>,
    limit: usize,
) -> Result<Vec<(SpaceId, String)>, StoreError> {
    let (mut from, until) = keys::spaces();
    if let Some(after) = after {
        from = keys::space(after);
        from.push(0);
    }
    let space = |(key, bytes): (Vec<u8>, Vec<u8>)| {
        let id = key.get(1..).and_then(|id| id.try_into().ok());
        let id = id.ok_or_else(|| damaged("space row", &"its key is none"))?;
        Ok((SpaceId(id), decode::<SpaceRow>("space row", &bytes)?.name))
    };
    read.scan(&from, &until, limit)?.into_iter().map(space).collect()
}

/// At most `limit` collections after `after` in which an object of this kind holds something, or something of one is held, in byte order.
/// O(collections · log n), and O(objects) for those of a collection that hold nothing any more.
///
/// # Errors
/// [`ReadError`] when `after` is no name of a collection or storage fails.
pub fn collections(
    read: &dyn StateRead,
    space: &SpaceId,
    kind: Kind,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, ReadError> {
    after.map_or(Ok(()), check_collection)?;
    let (mut from, until) = keys::collections(space, kind, after);
    let mut found = Vec::new();
    while found.len() < limit {
        let (held_from, held_until) = (keys::as_held(&from), keys::as_held(&until));
        let of_objects = read.scan(&from, &until, 1)?.pop().map(|(row, _)| row);
        let of_held = read.scan(&held_from, &held_until, 1)?.pop().map(|(row, _)| row);
        let name = |row: &Vec<u8>| keys::object_collection(row).map(<[u8]>::to_vec);
        // Both are in byte order of the names.
        let Some(next) = [&of_objects, &of_held].into_iter().flatten().filter_map(name).min() else { break };
        let is_held = of_held.as_ref().and_then(name).as_ref() == Some(&next);
        let collection = String::from_utf8(next);
        let collection = collection.map_err(|_| damaged("object row", &"its key names no collection"))?;
        if is_held || holds_something(read, space, kind, &collection)? {
            found.push(collection.clone());
        }
        from = keys::collections(space, kind, Some(&collection)).0;
    }
    Ok(found)
}

fn holds_something(
    read: &dyn StateRead,
    space: &SpaceId,
    kind: Kind,
    collection: &str,
) -> Result<bool, StoreError> {
    let (mut from, until) = keys::objects(space, kind, collection, "", None);
    loop {
        let rows = read.scan(&from, &until, PRESENT_PAGE_ROWS)?;
        for (_, bytes) in &rows {
            if Object::from_bytes(kind, bytes)?.is_present() {
                return Ok(true);
            }
        }
        let Some((last, _)) = rows.last().filter(|_| rows.len() == PRESENT_PAGE_ROWS) else {
            return Ok(false);
        };
        from.clone_from(last);
        from.push(0);
    }
}

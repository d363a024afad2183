//! JSON merge patches (RFC 7396).

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, Value as Held};
use serde_json::{Map, Value};

use super::node::{Node, within};
use super::pointer::{Pointer, Slot};
use super::scalar::{self, Tagged};
use super::update::put_slot;
use super::{JsonError, check_depth};

/// Merges a patch into the root, which no patch but a map can replace.
pub(super) fn merge_root(tx: &mut Transaction<'_>, patch: &Value) -> Result<(), JsonError> {
    let at = &mut Pointer::default();
    let Value::Object(object) = patch else { return Err(JsonError::Root) };
    let Tagged::Map(entries) = scalar::untag(object, at)? else { return Err(JsonError::Root) };
    merge_map(tx, &ROOT, entries, at)
}

/// Merges a patch into the map `map`, which is at `at`.
fn merge_map(
    tx: &mut Transaction<'_>,
    map: &ObjId,
    patch: &Map<String, Value>,
    at: &mut Pointer,
) -> Result<(), JsonError> {
    check_depth(at)?;
    for (key, value) in patch {
        let slot =
            Slot { object: map.clone(), object_type: ObjType::Map, prop: Prop::Map(key.clone()), length: 0 };
        within(at, key, |at| {
            if value.is_null() {
                return match tx.get(map, key.as_str())? {
                    Some(_) => Ok(tx.delete(map, key.as_str())?),
                    None => Ok(()),
                };
            }
            merge_slot(tx, &slot, value, at)
        })?;
    }
    Ok(())
}

/// Merges a patch into whatever is in a place.
pub(super) fn merge_slot(
    tx: &mut Transaction<'_>,
    slot: &Slot,
    patch: &Value,
    at: &mut Pointer,
) -> Result<(), JsonError> {
    if let Value::Object(object) = patch
        && let Tagged::Map(entries) = scalar::untag(object, at)?
    {
        if let Some((Held::Object(ObjType::Map | ObjType::Table), map)) =
            tx.get(&slot.object, slot.prop.clone())?
        {
            return merge_map(tx, &map, entries, at);
        }
        let merged = Node::from_json(&without_nulls(patch, at)?, at)?;
        return put_slot(tx, slot, &merged, at);
    }
    let wanted = Node::from_json(patch, at)?;
    put_slot(tx, slot, &wanted, at)
}

/// What a patch makes of nothing: itself, without the keys it would remove. Lists are values and stay as they are.
fn without_nulls(patch: &Value, at: &mut Pointer) -> Result<Value, JsonError> {
    check_depth(at)?;
    let Value::Object(object) = patch else { return Ok(patch.clone()) };
    let Tagged::Map(entries) = scalar::untag(object, at)? else { return Ok(patch.clone()) };
    let mut kept = Map::new();
    for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
        kept.insert(key.clone(), within(at, key, |at| without_nulls(value, at))?);
    }
    Ok(scalar::escaped(kept))
}

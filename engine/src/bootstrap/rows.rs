//! The rows of a snapshot as they take the place of those that are there.

use std::collections::BTreeMap;

use comity_crdts::{Kind, LaneId, ObjectId, SpaceId, canary};

use crate::bootstrap::walk::{LanePart, OBJECTS, Path, parts_of};
use crate::held::note_extended;
use crate::journal::record_row;
use crate::keys;
use crate::operations::restore_operation;
use crate::rows::{Object, damaged};
use crate::run::RUN_ENTRIES_MAX;
use crate::space::{LaneRow, decode, encode};
use crate::status::Freeze;
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// Rows of lanes, announcements and the like are facts here and state there; either way they go.
pub(super) fn delete_row(work: &mut Work<'_>, key: Vec<u8>) {
    if key.first() == Some(&0x53) {
        work.delete_fact(key);
    } else {
        work.delete(key);
    }
}

/// Removes parts of an object, as long as there is room. Whether all are gone.
pub(crate) fn clear_parts(
    work: &mut Work<'_>,
    id: &ObjectId,
    kind: Kind,
    room: &mut usize,
) -> Result<bool, StoreError> {
    for prefix in parts_of(kind) {
        let (from, until) = keys::within(&keys::part(*prefix, id, &[]));
        loop {
            if *room == 0 {
                return Ok(false);
            }
            let rows = work.scan(&from, &until, (*room).min(64))?;
            if rows.is_empty() {
                break;
            }
            for (key, _) in rows {
                if let Some((name, kind)) = keys::field_parts(&key).filter(|_| key[0] == 0x32)
                    && !clear_parts(work, &id.nested(name, kind), kind, room)?
                {
                    return Ok(false);
                }
                work.delete(key);
                *room = room.saturating_sub(1);
            }
        }
    }
    Ok(true)
}

/// Puts a row of a snapshot where it belongs, or aside.
pub(super) fn put_row(
    work: &mut Work<'_>,
    id: &SpaceId,
    (walk_key, value): (&[u8], Vec<u8>),
    installs: u64,
) -> Result<(), StoreError> {
    let (section, tail) = (walk_key[0], &walk_key[1..]);
    match section {
        OBJECTS => {
            let path = Path::parse(tail).ok_or_else(|| damaged("walk key", &"it leads nowhere"))?;
            let (row, _) = path.row(id).ok_or_else(|| damaged("walk key", &"it leads nowhere"))?;
            if matches!(path.address.kind(), Kind::Extension(_)) {
                note_extended(work);
            }
            let is_document = path.steps.is_empty() && path.address.kind() == Kind::Document;
            let value = if is_document { renumbered(&value, installs)? } else { value };
            work.put(row, value);
        }
        keys::HELD_CHANGES | keys::HELD => {
            note_extended(work);
            work.put([keys::with_space(section, id).as_slice(), tail].concat(), value);
        }
        0x37..=0x39 => work.put([keys::with_space(section, id).as_slice(), tail].concat(), value),
        0x40 if canary!(JournalNotCarried) => {}
        0x40 => record_row(work, id, [keys::with_space(section, id).as_slice(), tail].concat(), value)?,
        0x4b => {
            let operation = tail.try_into().map_err(|_| damaged("operation row", &"its key is none"))?;
            restore_operation(work, id, &operation, &value)?;
        }
        _ => work.put_fact(keys::set_aside_row(id, walk_key), value),
    }
    Ok(())
}

/// A document's header, so that nobody takes it for a later version of what was here: what is remembered of that has
/// another order of changes.
fn renumbered(value: &[u8], installs: u64) -> Result<Vec<u8>, StoreError> {
    let Object::Document(mut header) = Object::from_bytes(Kind::Document, value)? else {
        return Ok(value.to_vec());
    };
    header.generation = (header.generation & u64::from(u32::MAX)) | (installs << 32);
    Ok(Object::Document(header).to_bytes())
}

/// Puts what was kept aside where it belongs, in the place of what was there; returns the lanes.
pub(super) fn put_aside(work: &mut Work<'_>, id: &SpaceId) -> Result<BTreeMap<LaneId, LanePart>, StoreError> {
    for section in [0x23, 0x24, 0x36] {
        let (from, until) = keys::within(&keys::with_space(section, id));
        for (key, _) in work.scan(&from, &until, usize::MAX)? {
            work.delete(key);
        }
    }
    let mut lanes = BTreeMap::new();
    let (from, until) = keys::set_aside(id);
    for (key, value) in work.scan(&from, &until, usize::MAX)? {
        let (section, tail) = (key.get(17).copied().unwrap_or(0), key.get(18..).unwrap_or_default());
        if section == 0x21 {
            let part: LanePart = decode("lane of a snapshot", &value)?;
            lanes.insert(part.owner.lane(id), part);
        } else {
            work.put([keys::with_space(section, id).as_slice(), tail].concat(), value);
        }
        work.delete_fact(key);
    }
    Ok(lanes)
}

/// Puts the rows of a lane as a snapshot has it.
pub(super) fn put_lane(
    work: &mut Work<'_>,
    (id, lane): (&SpaceId, &LaneId),
    part: &LanePart,
    frozen: Option<Freeze>,
) -> Result<(), StoreError> {
    let tip = part.tip.clone();
    let (from, until) = keys::heads_through(id, lane, tip.lsn);
    for (key, _) in work.scan(&from, &until, usize::MAX)? {
        work.delete_fact(key);
    }
    let head = if part.proof.is_some() { tip.lsn } else { 0 };
    if let Some(proof) = &part.proof {
        work.put_fact(keys::head(id, lane, tip.lsn), proof.clone());
    }
    work.put_fact(keys::floor(id, lane), encode(&tip));
    let row = LaneRow {
        owner: part.owner,
        tip,
        frozen: frozen.or_else(|| part.frozen.clone()),
        changed: part.changed,
        head,
        head_entries: RUN_ENTRIES_MAX as u64,
        head_bytes: 0,
    };
    work.put(keys::lane(id, lane), encode(&row));
    Ok(())
}

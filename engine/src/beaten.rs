//! Additions that removals beat. In a remove-wins set and a disable-wins flag a removal also takes away what its author
//! had not seen; the journal keeps that. Where the removal is known first, the addition itself shows it. Where the
//! addition is, it is remembered here, beside the row that it is in, until somebody replaces it or everybody is known
//! to have seen it. None of this is part of the space's state: it is neither compared nor handed to others.

use comity_crdts::{Context, Frontier, Hlc, LaneId, Place, Reader, SpaceId, Writer, canary};

use crate::change::{Body, LaneEntry};
use crate::changes::entry;
use crate::extension::Extensions;
use crate::keys;
use crate::recall::{adds_to, each_op};
use crate::rows::damaged;
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// An addition that not everybody is known to have seen, and that no later operation on its row has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addition {
    pub(crate) place: Place,
    /// The stamp of its change set.
    pub(crate) at: Hlc,
}

fn encode_additions(additions: &[Addition]) -> Vec<u8> {
    let mut out = Writer::new();
    for Addition { place, at } in additions {
        place.encode(&mut out);
        out.bytes(&at.bits().to_be_bytes());
    }
    out.finish()
}

/// The additions to a row, as they are stored.
pub(crate) fn decode_additions(bytes: &[u8]) -> Result<Vec<Addition>, StoreError> {
    let mut reader = Reader::new(bytes);
    let mut additions = Vec::new();
    while reader.remaining() > 0 {
        let place = Place::decode(&mut reader).map_err(|error| damaged("additions", &error))?;
        let at = reader.array("stamp").map_err(|error| damaged("additions", &error))?;
        additions.push(Addition { place, at: Hlc::from_bits(u64::from_be_bytes(at)) });
    }
    Ok(additions)
}

fn additions(work: &Work<'_>, key: &[u8]) -> Result<Vec<Addition>, StoreError> {
    work.get(key)?.map_or_else(|| Ok(Vec::new()), |bytes| decode_additions(&bytes))
}

/// Remembers an addition that put something into a row, in the place of those that its author had seen.
pub(crate) fn remember(
    work: &mut Work<'_>,
    space: &SpaceId,
    row: &[u8],
    (x, at): (&Context<'_>, Hlc),
) -> Result<(), StoreError> {
    let key = keys::additions(space, row);
    let mut additions = additions(work, &key)?;
    additions.retain(|addition| !x.sees(&addition.place));
    additions.push(Addition { place: x.place(), at });
    work.put(key, encode_additions(&additions));
    work.put(keys::adding_entry(space, (x.lane, x.lsn)), Vec::new());
    Ok(())
}

/// Remembers additions to a row that were forgotten, as if they had not been.
pub(crate) fn remember_again(work: &mut Work<'_>, space: &SpaceId, row: &[u8], additions: &[Addition]) {
    if additions.is_empty() {
        return;
    }
    for Addition { place, .. } in additions {
        work.put(keys::adding_entry(space, (place.lane, place.lsn)), Vec::new());
    }
    work.put(keys::additions(space, row), encode_additions(additions));
}

/// Forgets the additions to a row, and returns those that the author of a removal had not seen.
pub(crate) fn beaten(
    work: &mut Work<'_>,
    space: &SpaceId,
    row: &[u8],
    x: &Context<'_>,
) -> Result<Vec<Addition>, StoreError> {
    let key = keys::additions(space, row);
    let mut additions = additions(work, &key)?;
    if !additions.is_empty() {
        work.delete(key);
    }
    additions.retain(|addition| !x.sees(&addition.place));
    if canary!(AdditionNotJournalled) {
        additions.clear();
    }
    Ok(additions)
}

/// Forgets the additions of entries within the cut: whatever is still to come was made by somebody who has seen them. Goes
/// on until `rows_max` operations were looked at; returns how many were. The entries ought to be kept until then.
pub(crate) fn forget(
    work: &mut Work<'_>,
    space: &SpaceId,
    (cut, extensions): (&Frontier, Extensions),
    rows_max: usize,
) -> Result<usize, StoreError> {
    let (mut looked, mut is_any_gone) = (0, false);
    'lanes: for (lane, lsn) in cut.iter() {
        let (from, until) = keys::adding_entries_through(space, &lane, lsn);
        for (key, _) in work.scan(&from, &until, rows_max)? {
            if looked >= rows_max {
                break 'lanes;
            }
            let place = keys::unstable_place(&key).ok_or_else(|| damaged("addition", &"its key is none"))?;
            let mut rows = Vec::new();
            match entry(work, space, place)? {
                Some((_, LaneEntry { body: Body::Change(change), .. })) => {
                    each_op(extensions, &change, |_, address, op| rows.extend(adds_to(space, address, op)));
                }
                Some(_) => {}
                None => is_any_gone = true,
            }
            looked += 1 + rows.len();
            for row in rows {
                forget_in(work, space, &row, place)?;
            }
            work.delete(key);
        }
    }
    if is_any_gone {
        forget_all(work, space, cut)?;
    }
    Ok(looked)
}

/// Forgets every addition within the cut, where entries do not tell which those are. O(additions).
fn forget_all(work: &mut Work<'_>, space: &SpaceId, cut: &Frontier) -> Result<(), StoreError> {
    let (from, until) = keys::all_additions(space);
    for (key, bytes) in work.scan(&from, &until, usize::MAX)? {
        let mut additions = decode_additions(&bytes)?;
        additions.retain(|addition| !addition.place.is_within(cut));
        if additions.is_empty() {
            work.delete(key);
        } else {
            work.put(key, encode_additions(&additions));
        }
    }
    Ok(())
}

fn forget_in(
    work: &mut Work<'_>,
    space: &SpaceId,
    row: &[u8],
    place: (LaneId, u64),
) -> Result<(), StoreError> {
    let key = keys::additions(space, row);
    let mut additions = additions(work, &key)?;
    let count = additions.len();
    additions.retain(|addition| (addition.place.lane, addition.place.lsn) != place);
    match additions.len() {
        same if same == count => {}
        0 => work.delete(key),
        _ => work.put(key, encode_additions(&additions)),
    }
    Ok(())
}

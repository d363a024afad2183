//! Additions that removals beat. In a remove-wins set and a disable-wins flag a removal also takes away what its author
//! had not seen; the journal keeps that. Where the removal is known first, the addition itself shows it. Where the
//! addition is, it is remembered here, beside the row that it is in, until somebody replaces it or everybody is known
//! to have seen it. None of this is part of the space's state: it is neither compared nor handed to others.

use comity_crdts::{Context, Frontier, Hlc, Place, SpaceId, canary};
use serde::{Deserialize, Serialize};

use crate::keys;
use crate::rows::damaged;
use crate::space::{decode, encode};
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// An addition that not everybody is known to have seen, and that no later operation on its row has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addition {
    pub(crate) place: Place,
    /// The stamp of its change set.
    pub(crate) at: Hlc,
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
    let passed = additions.extract_if(.., |addition| x.sees(&addition.place));
    passed.for_each(|passed| work.delete(keys::addition(space, (passed.place.lane, passed.place.lsn), row)));
    additions.push(Addition { place: x.place(), at });
    work.put(key, encode(&additions));
    work.put(keys::addition(space, (x.lane, x.lsn), row), Vec::new());
    Ok(())
}

/// Remembers additions to a row that were forgotten, as if they had not been.
pub(crate) fn remember_again(work: &mut Work<'_>, space: &SpaceId, row: &[u8], additions: &[Addition]) {
    if additions.is_empty() {
        return;
    }
    for Addition { place, .. } in additions {
        work.put(keys::addition(space, (place.lane, place.lsn), row), Vec::new());
    }
    work.put(keys::additions(space, row), encode(&additions));
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
    for Addition { place, .. } in &additions {
        work.delete(keys::addition(space, (place.lane, place.lsn), row));
    }
    additions.retain(|addition| !x.sees(&addition.place));
    if canary!(AdditionNotJournalled) {
        additions.clear();
    }
    Ok(additions)
}

/// Forgets the additions within the cut, at most `rows_max` of them: whatever is still to come was made by somebody who
/// has seen them. Returns how many were looked at.
pub(crate) fn forget(
    work: &mut Work<'_>,
    space: &SpaceId,
    cut: &Frontier,
    rows_max: usize,
) -> Result<usize, StoreError> {
    let mut left = rows_max;
    for (lane, lsn) in cut.iter() {
        let (from, until) = keys::additions_through(space, &lane, lsn);
        let rows = work.scan(&from, &until, left)?;
        left -= rows.len();
        for (key, _) in rows {
            forget_in(work, space, &key)?;
            work.delete(key);
        }
        if left == 0 {
            break;
        }
    }
    Ok(rows_max - left)
}

fn forget_in(work: &mut Work<'_>, space: &SpaceId, key: &[u8]) -> Result<(), StoreError> {
    let (place, row) = keys::addition_parts(key).ok_or_else(|| damaged("addition", &"its key is none"))?;
    let key = keys::additions(space, row);
    let mut additions = additions(work, &key)?;
    additions.retain(|addition| (addition.place.lane, addition.place.lsn) != place);
    if additions.is_empty() {
        work.delete(key);
    } else {
        work.put(key, encode(&additions));
    }
    Ok(())
}

/// The additions to a row, as they are stored.
pub(crate) fn decode_additions(bytes: &[u8]) -> Result<Vec<Addition>, StoreError> {
    decode("additions", bytes)
}

//! Consecutive entries of a lane as they are read from the log to be sent, and what proves them.

use std::collections::BTreeMap;

use comity_crdts::{LaneId, SpaceId};
use ed25519_dalek::SigningKey;

use crate::change::{Body, LaneEntry, LaneOwner, LaneTip, decode_stored};
use crate::dictionary::Dictionary;
use crate::hash::Hash;
use crate::head::{self, HeadSignature};
use crate::keys;
use crate::limits::{RUN_BYTES_MAX, RUN_BYTES_TARGET};
use crate::proof::Proof;
use crate::rows::damaged;
use crate::run::{RUN_ENTRIES_MAX, encode_run};
use crate::space::Lane;
use crate::store::{Store, StoreError};

/// The signature over an own lane; the last one is remembered, because every subscriber wants it.
fn sign_once(
    key: &SigningKey,
    (space, lane_id): (&SpaceId, &LaneId),
    lane: &mut Lane,
    (lsn, hash): (u64, Hash),
) -> HeadSignature {
    if let Some((_, signature)) = lane.signed.filter(|(signed, _)| *signed == lsn) {
        return signature;
    }
    let signature = head::sign(key, space, lane_id, lsn, &hash);
    lane.signed = Some((lsn, signature));
    signature
}

/// Consecutive entries of a lane as read from the log.
pub(crate) struct Stretch {
    pub(crate) entries: Vec<(LaneEntry, LaneTip)>,
    /// Of each entry in stored form.
    sizes: Vec<usize>,
}

impl Stretch {
    fn push(
        &mut self,
        (space, lane): (&SpaceId, &LaneId),
        from: &LaneTip,
        (lsn, bytes): (u64, &[u8]),
    ) -> Result<(), StoreError> {
        let before = self.entries.last().map_or(from, |(_, tip)| tip);
        let next = decode_row(space, lane, before, (lsn, bytes))?;
        self.entries.push(next);
        self.sizes.push(bytes.len());
        Ok(())
    }

    /// Shortens or lengthens it so that it ends at an entry.
    fn end_at(
        &mut self,
        store: &dyn Store,
        (space, lane): (&SpaceId, &LaneId),
        from: &LaneTip,
        lsn: u64,
    ) -> Result<(), StoreError> {
        self.entries.truncate((lsn - from.lsn) as usize);
        self.sizes.truncate((lsn - from.lsn) as usize);
        while self.reached(from) < lsn {
            let next = self.reached(from) + 1;
            let bytes = store.lane_entry(space, lane, next)?;
            let bytes = bytes.ok_or_else(|| damaged("lane", &"an applied entry is missing"))?;
            self.push((space, lane), from, (next, &bytes))?;
        }
        Ok(())
    }

    /// In stored form.
    pub(crate) fn bytes(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// As a run.
    pub(crate) fn encode(
        &self,
        (lane_id, owner): (&LaneId, &LaneOwner),
        before: &LaneTip,
        proof: &Proof,
        dictionary: &mut Dictionary,
    ) -> Vec<u8> {
        if self.bytes() > RUN_BYTES_MAX / 2 {
            // References into a long dictionary can be longer than those of the stored form, up to twice.
            dictionary.spend();
        }
        encode_run(lane_id, owner, before, &self.entries, proof, dictionary)
    }

    /// The latest version that one of the entries needs.
    pub(crate) fn version(&self) -> u16 {
        self.entries.iter().map(|(entry, _)| entry.version()).max().unwrap_or(0)
    }

    fn reached(&self, from: &LaneTip) -> u64 {
        from.lsn + self.entries.len() as u64
    }

    /// The first entry that cannot be said in a version.
    pub(crate) fn first_beyond(&self, version: u16) -> Option<u64> {
        self.entries.iter().find(|(entry, _)| entry.version() > version).map(|(_, tip)| tip.lsn)
    }
}

/// About one run of entries; `rounded` if it is to end at a round number where more follows.
fn read_stretch(
    store: &dyn Store,
    (space, lane): (&SpaceId, &LaneId),
    Reach { from, until }: Reach<'_>,
    rounded: bool,
) -> Result<Stretch, StoreError> {
    let mut rows = store.lane_entries(space, lane, from.lsn + 1, RUN_BYTES_TARGET)?;
    rows.truncate(RUN_ENTRIES_MAX.min((until - from.lsn) as usize));
    let reached = from.lsn + rows.len() as u64;
    if rounded && (from.lsn + 1..until).contains(&reached) {
        rows.truncate((roundest(from.lsn, reached) - from.lsn) as usize);
    }
    let mut stretch = Stretch { entries: Vec::new(), sizes: Vec::new() };
    for (lsn, bytes) in rows {
        stretch.push((space, lane), from, (lsn, &bytes))?;
    }
    Ok(stretch)
}

/// The number after one and up to another that ends in most zero bits: the bits that they share, and the next one.
fn roundest(after: u64, until: u64) -> u64 {
    until & (u64::MAX << (after ^ until).ilog2())
}

/// What is to be read of a lane: entries after one position, none beyond another.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) from: &'a LaneTip,
    pub(crate) until: u64,
}

/// About one run of entries, and what proves the last of them; `None` when nothing in reach can be proved. `key` is given
/// for an own lane.
pub(crate) fn read_proved(
    store: &dyn Store,
    (space, lane_id): (&SpaceId, &LaneId),
    lane: &mut Lane,
    key: Option<&SigningKey>,
    reach: Reach<'_>,
) -> Result<Option<(Stretch, Proof)>, StoreError> {
    // Where owners sign at round numbers, copies can serve parts that end where others would have them end.
    let stretch = read_stretch(store, (space, lane_id), reach, key.is_some())?;
    let Some(key) = key else { return cut_at_head(store, (space, lane_id), lane, reach, stretch) };
    let last = stretch.entries.last().map(|(_, tip)| (tip.lsn, tip.hash));
    Ok(last.map(|last| (stretch, sign_once(key, (space, lane_id), lane, last).into())))
}

/// Shortens or lengthens a stretch of a copied lane so that it ends where the lane can be proved; `None` when
/// no such place is known in reach.
fn cut_at_head(
    store: &dyn Store,
    (space, lane_id): (&SpaceId, &LaneId),
    lane: &Lane,
    reach: Reach<'_>,
    mut stretch: Stretch,
) -> Result<Option<(Stretch, Proof)>, StoreError> {
    let Reach { from, until } = reach;
    let reached = stretch.reached(from);
    let (first, end) = keys::heads_from(space, lane_id, from.lsn + 1);
    let mut heads: BTreeMap<u64, Proof> = lane.heads.iter().cloned().collect();
    for (key, value) in store.scan(&first, &end, HEADS_IN_REACH)? {
        let lsn = key.last_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        heads.insert(lsn, Proof::from_bytes(&value).map_err(|error| damaged("head", &error))?);
    }
    let mut usable = heads.range(from.lsn + 1..=until);
    let fits =
        |(lsn, proof): &(&u64, &Proof)| (**lsn - from.lsn) as usize + proof.links.len() <= RUN_ENTRIES_MAX;
    let within = heads.range(from.lsn + 1..=until.min(reached.max(from.lsn + 1))).rev().find(fits);
    let Some((lsn, proof)) = within.or_else(|| usable.next()) else { return Ok(None) };
    stretch.end_at(store, (space, lane_id), from, *lsn)?;
    Ok(Some((stretch, proof.clone())))
}

/// Kept heads that can lie within one run. Any two neighbouring gaps between them are together longer than
/// one run, so three would do.
const HEADS_IN_REACH: usize = 8;

fn decode_row(
    space: &SpaceId,
    lane: &LaneId,
    before: &LaneTip,
    (lsn, bytes): (u64, &[u8]),
) -> Result<(LaneEntry, LaneTip), StoreError> {
    let (hash, entry) = decode_stored(space, lane, bytes).map_err(|error| damaged("lane entry", &error))?;
    let (seq, hlc) = match &entry.body {
        Body::Change(change) => (change.seq, change.hlc),
        Body::Checkpoint(_) => (before.seq, before.hlc),
    };
    let (admitted, at, change_hash) = (entry.admitted.clone(), entry.at, before.change_hash);
    Ok((entry, LaneTip { lsn, hash, admitted, at, seq, change_hash, hlc }))
}

/// The chain hash after an entry where the lane's row or its floor tells.
pub(crate) fn known_hash(lane: &Lane, lsn: u64) -> Option<Hash> {
    let known = [&lane.row.tip, &lane.floor];
    known.into_iter().find(|tip| tip.lsn == lsn).map(|tip| tip.hash)
}

/// The chain hash after an entry that is durable and kept, or the last one that is not kept.
pub(crate) fn durable_hash(
    store: &dyn Store,
    space: &SpaceId,
    (lane_id, lane): (&LaneId, &Lane),
    lsn: u64,
) -> Result<Hash, StoreError> {
    match known_hash(lane, lsn) {
        Some(hash) => Ok(hash),
        None => stored_hash(store, space, lane_id, lsn)?
            .ok_or_else(|| damaged("lane", &"a durable entry is missing")),
    }
}

pub(crate) fn stored_hash(
    store: &dyn Store,
    space: &SpaceId,
    lane: &LaneId,
    lsn: u64,
) -> Result<Option<Hash>, StoreError> {
    let row = store.lane_entry(space, lane, lsn)?;
    row.map(|bytes| decode_stored(space, lane, &bytes).map(|(hash, _)| hash))
        .transpose()
        .map_err(|error| damaged("lane entry", &error))
}

/// Where a lane stood after an entry that is kept, as far as encoding the next one needs to know.
pub(crate) fn stored_tip(
    store: &dyn Store,
    (space, lane): (&SpaceId, &LaneId),
    floor: &LaneTip,
    lsn: u64,
) -> Result<LaneTip, StoreError> {
    let read = |lsn: u64| {
        let bytes = store.lane_entry(space, lane, lsn)?;
        bytes.ok_or_else(|| damaged("lane", &"an entry that is kept is missing"))
    };
    let (entry, mut tip) = decode_row(space, lane, floor, (lsn, &read(lsn)?))?;
    // Entries that are not change sets carry no number: the last one that is does, or the floor.
    let (mut body, mut at) = (entry.body, lsn);
    while matches!(body, Body::Checkpoint(_)) && at > floor.lsn + 1 {
        at -= 1;
        body = decode_stored(space, lane, &read(at)?).map_err(|error| damaged("lane entry", &error))?.1.body;
        if let Body::Change(change) = &body {
            tip.seq = change.seq;
        }
    }
    Ok(tip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roundest_number_ends_in_most_zeros() {
        for after in 0..130_u64 {
            for until in after + 1..200 {
                let found = (after + 1..=until).max_by_key(|number| number.trailing_zeros());
                assert_eq!(Some(roundest(after, until)), found, "after {after} up to {until}");
            }
        }
    }
}

//! Lanes: every entry, the chain of hashes over them, the signatures, and the order of applying.

use std::collections::BTreeMap;

use comity_crdts::{Frontier, LaneId, OriginId};

use super::{Matters, Walk};
use crate::change::{Body, LaneTip, decode_stored};
use crate::head::verify;
use crate::keys;
use crate::retention::{floor_of, kept};
use crate::space::{LaneRow, Progress, decode};
use crate::store::{PAGE_ROWS, StoreError};

impl Walk<'_> {
    /// Walks every lane; returns from where its entries are kept, and how far it is.
    pub(super) fn lanes(&mut self) -> Result<(Frontier, Frontier), StoreError> {
        let (mut floors, mut frontier) = (Frontier::new(), Frontier::new());
        let space = self.space;
        self.each_row(keys::lanes(&space), |walk, (key, bytes)| {
            let Some(row) = walk.readable("a lane's row", decode::<LaneRow>("lane row", &bytes))? else {
                return Ok(());
            };
            let lane = row.owner.lane(&space);
            if key != keys::lane(&space, &lane) {
                walk.fault(Matters::Row, format!("lane {lane}"), "its row is under another lane's key");
            }
            walk.verified.lanes += 1;
            frontier.advance(lane, row.tip.lsn);
            let floor = floor_of(walk.read, &space, &lane);
            let Some(floor) = walk.readable(format!("the floor of lane {lane}"), floor)? else {
                return Ok(());
            };
            floors.advance(lane, floor.as_ref().map_or(0, |floor| floor.lsn));
            walk.lane(&lane, &row, floor)
        })?;
        Ok((floors, frontier))
    }

    /// Walks the entries of a lane that are kept, which are those after its floor.
    fn lane(&mut self, lane: &LaneId, row: &LaneRow, floor: Option<LaneTip>) -> Result<(), StoreError> {
        let place = format!("lane {lane}");
        let mut tip = floor.unwrap_or_else(|| LaneTip::start(&self.space, lane));
        let mut heads = self.heads(lane, tip.lsn)?;
        if let Some(signature) = heads.remove(&tip.lsn) {
            self.signature(&place, row, (lane, &tip), &signature);
        }
        for lsn in tip.lsn + 1..=row.tip.lsn {
            self.looked_at(1);
            let Some(bytes) = self.read.lane_entry(&self.space, lane, lsn)? else {
                self.fault(Matters::Chain, &place, format!("entry {lsn} of {} is missing", row.tip.lsn));
                return Ok(());
            };
            let (hash, mut entry) = match decode_stored(&self.space, lane, &bytes) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.fault(Matters::Chain, &place, format!("entry {lsn} cannot be read: {error}"));
                    return Ok(());
                }
            };
            // Of the owner's own change sets, the one before is known from the lane, so it is not stored.
            if let Body::Change(change) = &mut entry.body
                && change.origin == *lane
            {
                change.prev = tip.change_hash;
            }
            tip = tip.after(&self.space, &entry);
            self.verified.entries += 1;
            if tip.hash != hash {
                self.fault(Matters::Chain, &place, format!("entry {lsn} is not the one that was hashed"));
                return Ok(());
            }
            if let Some(signature) = heads.remove(&lsn) {
                self.signature(&place, row, (lane, &tip), &signature);
                if heads.is_empty() {
                    heads = self.heads(lane, lsn + 1)?;
                }
            }
        }
        if tip != row.tip {
            self.fault(Matters::Chain, &place, "its row says that it ends with another entry");
        }
        if row.head > 0 && self.read.get(&keys::head(&self.space, lane, row.head))?.is_none() {
            let detail = format!("the owner's signature over entry {} is missing", row.head);
            self.fault(Matters::Signature, &place, detail);
        }
        if let Some(lsn) = heads.keys().next() {
            let detail = format!("a signature is kept over entry {lsn}, which is not there");
            self.fault(Matters::Signature, &place, detail);
        }
        Ok(())
    }

    /// Checks the owner's signature over where a lane stood.
    fn signature(&mut self, place: &str, row: &LaneRow, (lane, tip): (&LaneId, &LaneTip), signature: &[u8]) {
        self.verified.signatures += 1;
        let (owner, head) = (&row.owner.replica, (tip.lsn, &tip.hash));
        let signature = signature.try_into().ok();
        if !signature.is_some_and(|signature| verify(owner, &self.space, lane, head, &signature)) {
            let detail = format!("the owner's signature over entry {} does not verify", tip.lsn);
            self.fault(Matters::Signature, place, detail);
        }
    }

    /// A page of the kept heads of a lane.
    fn heads(&mut self, lane: &LaneId, from: u64) -> Result<BTreeMap<u64, Vec<u8>>, StoreError> {
        let (from, until) = keys::heads_from(&self.space, lane, from);
        let rows = self.read.scan(&from, &until, PAGE_ROWS)?;
        self.looked_at(rows.len() as u64);
        let lsn = |key: &[u8]| key.last_chunk().map(|bits| u64::from_be_bytes(*bits));
        Ok(rows.into_iter().filter_map(|(key, signature)| Some((lsn(&key)?, signature))).collect())
    }

    /// Checks that the order of applying names each entry that is kept once, each lane's in its order.
    pub(super) fn order(&mut self, floors: Frontier, frontier: &Frontier) -> Result<(), StoreError> {
        let space = self.space;
        let kept = kept(self.read, &space);
        let Some(kept) = self.readable("what is kept of the order of applying", kept)? else { return Ok(()) };
        let progress = match self.read.get(&keys::progress(&space))? {
            Some(bytes) => {
                self.readable("the space's progress", decode::<Progress>("progress row", &bytes))?
            }
            None => Some(Progress::default()),
        };
        let Some(progress) = progress else { return Ok(()) };
        let (mut place, mut at) = (kept.dropped, floors);
        self.each_row(keys::apply_log_range(&space, 0, u64::MAX - 1), |walk, (key, bytes)| {
            place += 1;
            let named = key.last_chunk().map(|bits| u64::from_be_bytes(*bits));
            if named != Some(place) {
                walk.fault(
                    Matters::Order,
                    format!("place {place}"),
                    format!("the next row is of place {named:?}"),
                );
                place = named.unwrap_or(place);
            }
            let lane = bytes.first_chunk().map(|lane| OriginId(*lane));
            let lsn = bytes.last_chunk().map(|bits| u64::from_be_bytes(*bits));
            let (Some(lane), Some(lsn)) = (lane, lsn) else {
                walk.fault(Matters::Row, format!("place {place}"), "the row names no entry");
                return Ok(());
            };
            if lsn != at.at(&lane) + 1 {
                let detail = format!("entry {lsn} of lane {lane} follows its entry {}", at.at(&lane));
                walk.fault(Matters::Order, format!("place {place}"), detail);
            }
            at.advance(lane, lsn);
            Ok(())
        })?;
        if place != progress.applied {
            let detail = format!("it ends with entry {place}, and {} were applied", progress.applied);
            self.fault(Matters::Order, "the order of applying", detail);
        }
        if at != *frontier {
            self.fault(Matters::Order, "the order of applying", "it ends elsewhere than the lanes do");
        }
        Ok(())
    }
}

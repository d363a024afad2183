//! The own lane: how a replica's own entries, change sets and announcements alike, become rows and then so.

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{Frontier, Hlc, LaneId, Nonce, OriginId, ReplicaId, SpaceId};

use crate::change::LaneOwner;
use crate::keys;
use crate::space::{InstanceToken, Lane, LaneRow, Progress, Space, SpaceRow, encode};
use crate::store::LaneRecord;
use crate::work::Work;

/// This replica's incarnation in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) origin: OriginId,
    pub(crate) nonce: Nonce,
}

impl Incarnation {
    pub(crate) fn new(space: &SpaceId, replica: &ReplicaId, nonce: Nonce) -> Self {
        Self { origin: OriginId::derive(space, replica, &nonce), nonce }
    }
}

/// An entry of the own lane that is in a batch, and what is so once the batch is committed.
pub(crate) struct OwnEntry {
    pub(crate) incarnation: Incarnation,
    /// The lane's row after it.
    pub(crate) row: LaneRow,
    /// Its length in stored form.
    bytes: usize,
    progress: Progress,
    /// When the incarnation was minted for it.
    space_row: Option<SpaceRow>,
}

/// Appends an entry to the log, in its place in the order of applying.
pub(crate) fn append_entry(work: &mut Work<'_>, applied: u64, record: LaneRecord) {
    put_place(work, (&record.space, applied), (record.lane, record.lsn));
    work.append(record);
}

/// Gives an entry its place in the order of applying.
pub(crate) fn put_place(work: &mut Work<'_>, (space, applied): (&SpaceId, u64), (lane, lsn): (LaneId, u64)) {
    work.put_unread(keys::apply_log(space, applied), [lane.0.as_slice(), &lsn.to_be_bytes()].concat());
}

impl Space {
    /// Whether a lane is there, or there is room for it.
    pub(crate) fn has_room_for(&self, lane: &LaneId) -> bool {
        self.lanes.contains_key(lane) || self.lanes.len() < LANES_MAX
    }

    /// The row of the lane of an incarnation, which it may not have started yet.
    pub(crate) fn own_row(&self, replica: ReplicaId, incarnation: Incarnation) -> LaneRow {
        let started = self.lanes.get(&incarnation.origin).map(|lane| lane.row.clone());
        let owner = LaneOwner { replica, nonce: incarnation.nonce };
        started.unwrap_or_else(|| Lane::new(&self.id, owner).row)
    }

    /// What is applied of the other lanes: what an entry made now admits.
    pub(crate) fn applied_of_others(&self, own: &LaneId) -> Frontier {
        self.frontier.iter().filter(|(lane, _)| lane != own).collect()
    }

    /// Puts the entry that `row` ends with into a batch. `minted_in` is the directory when the incarnation is a
    /// fresh one; `digest` is what the entry adds to the state's, and no stamp up to `clock_floor` is issued again.
    pub(crate) fn put_own(
        &self,
        work: &mut Work<'_>,
        (incarnation, minted_in): (Incarnation, Option<InstanceToken>),
        (row, stored): (LaneRow, Vec<u8>),
        (digest, clock_floor): (u128, Hlc),
    ) -> OwnEntry {
        let mut progress = self.progress;
        progress.applied += 1;
        progress.digest.0 = progress.digest.0.wrapping_add(digest);
        progress.log_bytes += stored.len() as u64;
        progress.clock_floor = clock_floor;
        let (lane, bytes) = (incarnation.origin, stored.len());
        let record = LaneRecord { space: self.id, lane, lsn: row.tip.lsn, bytes: stored };
        append_entry(work, progress.applied, record);
        work.put(keys::lane(&self.id, &lane), encode(&row));
        self.put_progress(work, &progress);
        let space_row = minted_in.map(|instance| {
            let incarnation = Some((incarnation.nonce, instance));
            SpaceRow { incarnation, ..self.row.clone() }
        });
        if let Some(space_row) = &space_row {
            work.put_fact(keys::space(&self.id), encode(space_row));
        }
        OwnEntry { incarnation, row, bytes, progress, space_row }
    }

    /// The batch with an own entry is committed: what it says is now so.
    pub(crate) fn take_own(&mut self, own: OwnEntry) {
        let OwnEntry { incarnation, row, bytes, progress, space_row } = own;
        if let Some(space_row) = space_row {
            self.row = space_row;
            self.incarnation = Some(incarnation);
        }
        self.frontier.advance(incarnation.origin, row.tip.lsn);
        let lane =
            self.lanes.get_or_insert_with(incarnation.origin, || Box::new(Lane::new(&self.id, row.owner)));
        lane.marks.note(row.tip.lsn, row.tip.at.millis(), bytes);
        lane.row = row;
        self.progress = progress;
    }
}

//! Delivery: staged entries are applied in lane order, each after everything it depends on, a whole batch
//! at a time.

use std::collections::BTreeMap;

use comity_crdts::{Dot, Frontier, LaneId, ObjectAddress, SpaceId, canary};

use crate::apply::{Application, Effects};
use crate::change::Body;
use crate::documents::flush;
use crate::engine::Engine;
use crate::io::{Applied, Now};
use crate::keys;
use crate::limits::{
    APPLY_BYTES_TARGET, HEAD_SPACING_BYTES, PART_HEAD_SPACING_BYTES, RUN_BYTES_TARGET, UNSYNCED_BYTES_MAX,
};
use crate::operations::{made_at, note_operation};
use crate::own::{append_entry, put_place};
use crate::proof::Proof;
use crate::run::RUN_ENTRIES_MAX;
use crate::segments::round_entries;
use crate::settings::is_region;
use crate::space::{Lane, LaneRow, Progress, Space, Staged, encode};
use crate::store::{Batch, LaneRecord, Store, StoreError};
use crate::work::Work;

/// What a batch of deliveries has come to; nothing of it is in the space before the batch is committed.
struct Delivery {
    frontier: Frontier,
    rows: BTreeMap<LaneId, LaneRow>,
    /// How many staged entries of each lane are applied.
    taken: BTreeMap<LaneId, usize>,
    effects: Effects,
    events: Vec<Applied>,
    applied: u64,
    log_bytes: u64,
    clock: comity_crdts::Clock,
    announced: BTreeMap<LaneId, Frontier>,
    /// Of each lane, what was applied since its last head: entries, and their bytes in stored form.
    unproved: BTreeMap<LaneId, (u64, u64)>,
    /// Parts of runs that were applied, with what proves them.
    parts: BTreeMap<LaneId, (u64, Proof)>,
    /// Whether the entries are in the log already.
    is_again: bool,
    /// What was applied, in stored form.
    bytes: usize,
    /// It was enough for one batch: more may be ready.
    is_full: bool,
}

impl Engine {
    /// Applies the staged entries whose turn has come, in one batch of limited size. While a sync is under way few of them
    /// wait for its end, because they could not be durable sooner anyway and gain from going together; and so does what
    /// would make the next sync long, because whoever writes meanwhile waits for it too.
    pub(crate) fn apply_ready(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let staged_bytes: usize = space.lanes.values().map(|lane| lane.staged_bytes).sum();
        if space.lanes.values().all(|lane| lane.staged.is_empty()) {
            return Ok(());
        }
        let goes_on = if staged_bytes < RUN_BYTES_TARGET {
            // It gains nothing from waiting beside a batch that goes with the next sync anyway; and it might wait for ever,
            // because after each sync whoever is looked at first starts the next one.
            (APPLY_BYTES_TARGET..2 * UNSYNCED_BYTES_MAX).contains(&self.unsynced_bytes)
        } else {
            staged_bytes >= APPLY_BYTES_TARGET && self.unsynced_bytes < UNSYNCED_BYTES_MAX
        };
        if self.sync_in_flight && !goes_on {
            self.postponed.insert(id);
            return Ok(());
        }
        let mut work = Work::over(&*store);
        let finished = match space.deliver(now, &mut work, false) {
            Ok(delivery) if delivery.taken.is_empty() => return Ok(()),
            Ok(delivery) => space.finish_delivery(work, delivery),
            Err(error) => Err(error),
        };
        let (batch, delivery, progress) = match finished {
            Ok(finished) => finished,
            Err(error) => return self.suspect_staged(id, error),
        };
        let position = match store.commit(batch) {
            Ok(position) => position,
            Err(error) => {
                space.documents.clear();
                return Err(error);
            }
        };
        let (arrived, bytes) = (delivery.applied - space.progress.applied, delivery.bytes);
        if delivery.is_full {
            self.postponed.insert(id);
        }
        space.lag.arrived.note(now.monotonic, arrived);
        let (frontier, mut delivery) = space.take_delivery(delivery, progress);
        let says_region = delivery.events.iter().any(|event| event.objects.iter().any(is_region));
        if canary!(EventLost) {
            delivery.events.truncate(1);
        }
        self.note_commit(position, id, frontier, delivery.events);
        self.note_unsynced(bytes);
        if says_region {
            self.reload_regions(id, store)?;
        }
        if delivery.effects.members_changed {
            self.reload_members(id, store)?;
            self.forget_redeemed(id, store)?;
        }
        Ok(())
    }

    /// Applies what is staged of a space whose state was replaced, in the batch of what `with` does; tells nobody, because it
    /// was told of before.
    pub(crate) fn commit_delivery(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
        with: impl FnOnce(&mut Work<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let mut work = Work::over(&*store);
        with(&mut work)?;
        let delivery = space.deliver(now, &mut work, true)?;
        let (batch, delivery, progress) = space.finish_delivery(work, delivery)?;
        self.committed = match store.commit(batch) {
            Ok(position) => position,
            Err(error) => {
                // They are staged again.
                space.documents.clear();
                space.lanes.values_mut().for_each(|lane| lane.drop_staged());
                return Err(error);
            }
        };
        space.take_delivery(delivery, progress);
        Ok(())
    }

    /// Once this replica sees itself among the members, its invitation has done its work.
    fn forget_redeemed(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let replica = self.replica;
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        if space.row.invitation.is_some() && space.members.contains_key(&replica) {
            space.row.invitation = None;
            let mut work = Work::over(&*store);
            space.put_row(&mut work);
            let batch = work.into_batch();
            self.committed = store.commit(batch)?;
        }
        Ok(())
    }
}

impl Space {
    /// Completes the batch of a delivery.
    fn finish_delivery(
        &mut self,
        mut work: Work<'_>,
        mut delivery: Delivery,
    ) -> Result<(Batch, Delivery, Progress), StoreError> {
        let (id, actor) = (self.id, self.actor());
        flush(&mut self.documents, &mut work, &mut delivery.effects, &id, actor)?;
        let mut progress = self.progress;
        (progress.applied, progress.log_bytes) = (delivery.applied, delivery.log_bytes);
        if canary!(DigestOfArrival) {
            progress.digest.0 = progress.digest.0.rotate_left(1);
        }
        progress.digest.0 = progress.digest.0.wrapping_add(delivery.effects.digest);
        progress.clock_floor = delivery.clock.last();
        self.put_progress(&mut work, &progress);
        for (lane, row) in &delivery.rows {
            work.put(keys::lane(&id, lane), encode(row));
        }
        Ok((work.into_batch(), delivery, progress))
    }

    /// The batch is committed: what it says is now so. Returns what is applied.
    fn take_delivery(&mut self, mut delivery: Delivery, progress: Progress) -> (Frontier, Delivery) {
        self.progress = progress;
        self.clock = delivery.clock;
        let frontier = delivery.frontier.clone();
        let (rows, announced) = (std::mem::take(&mut delivery.rows), std::mem::take(&mut delivery.announced));
        self.take(frontier.clone(), rows, &delivery.taken, std::mem::take(&mut delivery.parts));
        let is_over = |lane: &LaneId| self.lanes.get(lane).is_some_and(|lane| !self.counts(lane));
        if delivery.taken.keys().any(is_over) {
            // It held the cut back while it waited.
            self.move_cut();
        }
        self.hear(announced, &delivery.effects);
        (frontier, delivery)
    }

    /// Walks the lanes until no staged entry is ready, or enough for one batch is applied. What little others have sent
    /// goes before what a lane is catching up on.
    fn deliver(&self, now: &Now, work: &mut Work<'_>, is_again: bool) -> Result<Delivery, StoreError> {
        let mut delivery = Delivery {
            frontier: self.frontier.clone(),
            rows: BTreeMap::new(),
            taken: BTreeMap::new(),
            effects: Effects::default(),
            events: Vec::new(),
            applied: self.progress.applied,
            log_bytes: self.progress.log_bytes,
            clock: self.clock,
            announced: BTreeMap::new(),
            unproved: BTreeMap::new(),
            parts: BTreeMap::new(),
            is_again,
            bytes: 0,
            is_full: false,
        };
        let mut lanes: Vec<_> = self.lanes.iter().filter(|(_, lane)| !lane.staged.is_empty()).collect();
        lanes.sort_by_key(|(_, lane)| lane.staged_bytes);
        loop {
            let mut progressed = false;
            for (lane_id, lane) in &lanes {
                let mut taken = delivery.taken.get(lane_id).copied().unwrap_or(0);
                let before = taken;
                while let Some(staged) = lane.staged.get(taken).filter(|_| !delivery.is_full) {
                    let (frontier, needed) = (&delivery.frontier, &staged.entry.admitted);
                    let is_ready = if canary!(DependencySkipped) {
                        needed.iter().skip(1).all(|(lane, lsn)| frontier.at(&lane) >= lsn)
                    } else {
                        frontier.covers(needed)
                    };
                    if !is_ready {
                        break;
                    }
                    self.deliver_entry(now, work, &mut delivery, lane_id, staged)?;
                    taken += 1;
                    // The end of a run, which is proved.
                    delivery.is_full =
                        !is_again && delivery.bytes >= APPLY_BYTES_TARGET && staged.proof.is_some();
                }
                if taken > before {
                    delivery.taken.insert(**lane_id, taken);
                    progressed = true;
                }
            }
            if !progressed || delivery.is_full {
                self.prove_parts(work, &mut delivery);
                return Ok(delivery);
            }
        }
    }

    fn deliver_entry(
        &self,
        now: &Now,
        work: &mut Work<'_>,
        delivery: &mut Delivery,
        lane_id: &LaneId,
        staged: &Staged,
    ) -> Result<(), StoreError> {
        let row = delivery.rows.entry(*lane_id).or_insert_with(|| self.lanes[lane_id].row.clone());
        assert_eq!(staged.after.lsn, row.tip.lsn + 1, "O1: entries of a lane are applied in order");
        row.tip = staged.after.clone();
        delivery.frontier.advance(*lane_id, staged.after.lsn);
        delivery.applied += 1;
        delivery.log_bytes += staged.stored.len() as u64;
        delivery.bytes += staged.stored.len();
        if delivery.is_again {
            put_place(work, (&self.id, delivery.applied), (*lane_id, staged.after.lsn));
        } else {
            let bytes = staged.stored.clone();
            let record = LaneRecord { space: self.id, lane: *lane_id, lsn: staged.after.lsn, bytes };
            append_entry(work, delivery.applied, record);
        }
        let unproved = delivery.unproved.entry(*lane_id).or_default();
        *unproved = (unproved.0 + 1, unproved.1 + staged.stored.len() as u64);
        if let Some(proof) = &staged.proof {
            keep_head(work, (&self.id, lane_id, self.segment_entries), row, (proof, *unproved));
            *unproved = (0, 0);
        }
        let change = match &staged.entry.body {
            Body::Change(change) => change,
            Body::Checkpoint(announced) => {
                work.put(keys::announced(&self.id, lane_id), encode(announced));
                delivery.announced.insert(*lane_id, announced.clone());
                if announced.is_empty() {
                    // Whoever has announced to know of the lane at all has answered.
                    delivery.effects.unstable.advance(*lane_id, 1);
                    delivery.effects.greeted = true;
                }
                return Ok(());
            }
        };
        row.changed = staged.after.lsn;
        delivery.clock.observe(change.hlc, now.wall_ms, CLOCK_AHEAD_MS_MAX);
        let author = row.owner.replica;
        let place = (*lane_id, staged.after.lsn);
        let (space, context) = (&self.id, &change.context);
        let application = Application {
            space,
            author: &author,
            context,
            place,
            at: change.hlc,
            number: delivery.applied,
            extensions: self.extensions,
            is_any_held: self.held > 0,
            is_late: false,
        };
        let twice = canary!(AppliedTwice) && delivery.applied > self.progress.applied + 1;
        let left_out = usize::from(canary!(HalfChangeSet) && change.groups.len() > 1);
        let groups = &change.groups[..change.groups.len() - left_out];
        for group in groups.iter().chain(groups.iter().filter(|_| twice)) {
            let dot = |index: usize| Dot { origin: change.origin, seq: change.seq, index: index as u16 };
            let ops: Vec<_> = group.ops.iter().enumerate().map(|(index, op)| (dot(index), op)).collect();
            application.apply_all(work, &mut delivery.effects, &group.address, &ops)?;
        }
        if let Some(operation) = &change.operation
            && let Some(at_ms) = made_at(change.hlc, now.wall_ms)
        {
            note_operation(work, &mut delivery.effects, &self.id, operation, (place, at_ms))?;
        }
        let objects: Vec<ObjectAddress> = change.groups.iter().map(|group| group.address.clone()).collect();
        let frontier = delivery.frontier.clone();
        delivery.events.push(Applied { space: self.id, author, hlc: change.hlc, objects, frontier });
        Ok(())
    }

    /// Keeps a head where only a part of a run was applied: what the rest waits for may never come, and others may
    /// need the part.
    fn prove_parts(&self, work: &mut Work<'_>, delivery: &mut Delivery) {
        if canary!(PartNotProved) {
            return;
        }
        for (lane_id, unproved) in delivery.unproved.iter().filter(|(_, unproved)| unproved.0 > 0) {
            let (Some(lane), Some(row)) = (self.lanes.get(lane_id), delivery.rows.get_mut(lane_id)) else {
                continue;
            };
            let Some(proof) = lane.proof_of_part(delivery.taken.get(lane_id).copied().unwrap_or(0)) else {
                continue;
            };
            keep_head(work, (&self.id, lane_id, self.segment_entries), row, (&proof, *unproved));
            delivery.parts.insert(*lane_id, (row.tip.lsn, proof));
        }
    }

    /// The batch is committed: what it says is now so.
    fn take(
        &mut self,
        frontier: Frontier,
        rows: BTreeMap<LaneId, LaneRow>,
        taken: &BTreeMap<LaneId, usize>,
        mut parts: BTreeMap<LaneId, (u64, Proof)>,
    ) {
        self.frontier = frontier;
        for (lane_id, row) in rows {
            let Some(lane) = self.lanes.get_mut(&lane_id) else { continue };
            lane.row = row;
            for staged in lane.staged.drain(..taken.get(&lane_id).copied().unwrap_or(0)) {
                lane.staged_bytes -= staged.bytes();
                lane.marks.note(staged.after.lsn, staged.after.at.millis(), staged.stored.len());
                lane.heads.extend(staged.proof.map(|proof| (staged.after.lsn, proof)));
            }
            lane.heads.extend(parts.remove(&lane_id));
            self.review.insert(lane_id);
        }
    }
}

/// How far a received stamp may pull the local clock ahead of the wall clock.
const CLOCK_AHEAD_MS_MAX: u64 = 500;

/// Keeps the newest head of a lane, and older ones as far apart as one run reaches, so that a copy of the
/// lane can be served in runs of bounded size, and those where parts may be asked to end. `since` is what came after the head
/// before, entries and bytes.
fn keep_head(
    work: &mut Work<'_>,
    (space, lane, segment_entries): (&SpaceId, &LaneId, u64),
    row: &mut LaneRow,
    (proof, since): (&Proof, (u64, u64)),
) {
    let (entries, bytes) = (row.head_entries + since.0, row.head_bytes + since.1);
    let reach = entries + proof.links.len() as u64;
    let apart = round_entries(PART_HEAD_SPACING_BYTES, bytes / entries.max(1), segment_entries);
    let ends_part = row.head.is_multiple_of(apart);
    if row.head > 0 && !ends_part && bytes <= HEAD_SPACING_BYTES && reach <= RUN_ENTRIES_MAX as u64 {
        work.delete_fact(keys::head(space, lane, row.head));
        (row.head_entries, row.head_bytes) = (entries, bytes);
    } else {
        (row.head_entries, row.head_bytes) = since;
    }
    row.head = row.tip.lsn;
    work.put_fact(keys::head(space, lane, row.head), proof.to_bytes());
}

impl Lane {
    /// What proves the lane up to the last of the first `taken` staged entries, which is not the last of its run.
    fn proof_of_part(&self, taken: usize) -> Option<Proof> {
        let mut links = Vec::new();
        for staged in self.staged.range(taken..) {
            links.push(staged.link);
            if let Some(proof) = &staged.proof {
                links.extend_from_slice(&proof.links);
                return Some(Proof { links, signature: proof.signature });
            }
        }
        None
    }
}

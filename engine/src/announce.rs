//! Announcements: every writer says in its lane how far it has applied the others' lanes. What all of them have
//! applied is the cut; what only matters to operations that have not seen it can be forgotten. Announcements count in
//! lane order, so the cut follows from what is applied here, and nothing that comes later in these lanes was made without
//! having seen it. See `docs/wire.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, OriginId, ReplicaId, SpaceId, canary};

use crate::apply::Effects;
use crate::beaten;
use crate::change::{Body, LaneEntry, encode_stored};
use crate::engine::{Engine, Timer};
use crate::io::{CommandError, Now, Reply, RequestId};
use crate::journal::prune;
use crate::keys;
use crate::limits::{ANNOUNCE_AFTER, COMPACT_ROWS_MAX};
use crate::operations::prune_operations;
use crate::own::Incarnation;
use crate::space::{Lane, Space, encode};
use crate::store::{Store, StoreError};
use crate::unstable::compact;
use crate::work::Work;

/// Whoever is new is answered this soon.
const ANSWER_AFTER: Duration = Duration::from_millis(10);
/// Who is not confirmed answers this late, if nobody else has.
const STAND_IN_AFTER: Duration = Duration::from_secs(2);

impl Space {
    /// Whether everything that anybody has forgotten without having heard of this incarnation was seen here. The
    /// founder's first incarnation is older than anything. Another one is confirmed once a writer that is
    /// confirmed itself is known to have heard of it: whoever forgot something without having heard of either
    /// had that writer's word for it, given before. Failing that, once entries are applied of everybody who takes
    /// part, made by somebody who had heard of it; where nobody else does, there is nobody who could forget.
    /// O(lanes · members) until then.
    pub(crate) fn is_confirmed(&self, origin: &OriginId, replica: &ReplicaId) -> bool {
        self.progress.confirmed == Some(*origin)
            || self.speaks(origin)
            || self.is_vouched_for(origin)
            || self.is_known_to_all(origin, replica)
            || canary!(UnconfirmedRemoves)
    }

    /// The founder's first incarnation.
    fn first_lane(&self) -> Option<LaneId> {
        self.row.founder.map(|founder| OriginId::derive(&self.id, &founder.replica, &founder.nonce))
    }

    /// Whether the author of a lane was confirmed when it made the last entry that is applied here. Nobody
    /// announces anything before that.
    fn speaks(&self, lane: &LaneId) -> bool {
        self.lanes.get(lane).is_some_and(|lane| !lane.announced.is_empty())
            || self.first_lane() == Some(*lane)
    }

    /// Whether a writer that is confirmed itself has heard of an incarnation.
    fn is_vouched_for(&self, origin: &OriginId) -> bool {
        self.lanes.iter().any(|(id, lane)| lane.row.tip.admitted.at(origin) > 0 && self.speaks(id))
    }

    /// Whether every other replica that writes, as far as is known here, has written since it heard of an
    /// incarnation. What peers say of themselves outside their lanes would not do: it overtakes what they serve. It may be
    /// wrong: a replica may run twice, and others may have joined of whom nobody knows here. See `recall`.
    fn is_known_to_all(&self, origin: &OriginId, replica: &ReplicaId) -> bool {
        let has_heard = |other: &ReplicaId| {
            let mut own = self.lanes.values().filter(|lane| lane.row.owner.replica == *other);
            own.any(|lane| lane.row.tip.admitted.at(origin) > 0)
        };
        let owners = self.lanes.values().filter(|lane| self.counts(lane)).map(|lane| &lane.row.owner.replica);
        let mut others = self.writers().chain(owners).filter(|other| *other != replica);
        self.members.contains_key(replica) && others.all(has_heard)
    }

    /// Whether somebody has greeted whom nobody can answer who is confirmed, as far as is known here, and whom this
    /// replica has not answered either.
    fn owes_answer(&self, own: Option<&LaneId>, replica: &ReplicaId) -> bool {
        let answered = own.and_then(|own| self.lanes.get(own)).map(|lane| &lane.row.tip.admitted);
        let is_owed = |id: &LaneId, lane: &Lane| {
            let greets = self.unstable.at(id) > 0 && !self.speaks(id) && self.counts(lane);
            greets
                && lane.row.owner.replica != *replica
                && answered.is_none_or(|admitted| admitted.at(id) == 0)
                && !self.is_vouched_for(id)
        };
        self.writes(replica) && self.lanes.iter().any(|(id, lane)| is_owed(id, lane))
    }

    /// Whether this replica has something to say: how far it has come, or that it has heard of who greets.
    fn has_to_announce(&self, own: Option<&LaneId>, is_confirmed: bool, replica: &ReplicaId) -> bool {
        if !is_confirmed {
            return self.owes_answer(own, replica);
        }
        let lane = own.and_then(|own| self.lanes.get(own)).filter(|lane| lane.row.tip.lsn > 0);
        lane.is_some_and(|lane| !lane.announced.covers(&self.unstable))
    }

    /// Moves the cut to what every lane's owner has announced. A lane counts from its first entry that is staged on,
    /// so nothing is forgotten from then on that its owner has not announced to have seen. Lanes of replicas that do not
    /// write any more count only while something of theirs waits to be applied: `recall` looks after what comes late.
    pub(crate) fn move_cut(&mut self) {
        let mut lanes = self.lanes.values().filter(|lane| lane.staged_tip().lsn > 0 && self.counts(lane));
        let Some(first) = lanes.next() else { return };
        let mut cut = first.announced.clone();
        for lane in lanes {
            cut = cut.iter().map(|(of, lsn)| (of, lsn.min(lane.announced.at(&of)))).collect();
        }
        if canary!(CutOfOne) {
            cut = self.frontier.clone();
        }
        self.compactable |= !self.cut.covers(&cut);
        self.droppable |= !self.cut.covers(&cut);
        self.cut = cut;
    }

    /// Takes in what a batch brought besides rows.
    pub(crate) fn hear(&mut self, announced: BTreeMap<LaneId, Frontier>, effects: &Effects) {
        let moved = !announced.is_empty();
        for (lane, announced) in announced {
            if let Some(lane) = self.lanes.get_mut(&lane) {
                if lane.staged.is_empty() {
                    lane.announced_staged = announced.clone();
                }
                lane.announced = announced;
            }
        }
        self.unstable.merge(&effects.unstable);
        self.greeted |= effects.greeted;
        self.prunable |= effects.journalled;
        self.forget_ids_ms = self.forget_ids_ms.min(effects.forget_ids_ms.unwrap_or(u64::MAX));
        self.quarantined = self.quarantined.saturating_sub(effects.released);
        self.held = self.held.saturating_add_signed(effects.held);
        self.has_later_kinds |= effects.has_later_kinds;
        if moved {
            self.move_cut();
        }
    }

    /// Owners of lanes that have not announced to have applied what could be forgotten.
    pub(crate) fn stalled_by(&self) -> Vec<ReplicaId> {
        let stalls =
            |lane: &Lane| lane.row.tip.lsn > 0 && self.counts(lane) && !lane.announced.covers(&self.unstable);
        let mut owners: Vec<ReplicaId> =
            self.lanes.values().filter(|lane| stalls(lane)).map(|lane| lane.row.owner.replica).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

impl Engine {
    /// Looks after what is to be announced, confirmed and forgotten in a space.
    pub(crate) fn tend(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let replica = self.replica;
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let own = space.own_lane();
        let is_confirmed = own.is_some_and(|own| space.is_confirmed(&own, &replica));
        let may_write = space.standing(&replica).may_write();
        if is_confirmed {
            (space.wants_confirmation, space.progress.confirmed) = (false, own);
        } else if own.is_some() && !(space.unstable.is_empty() && space.forgotten.is_empty()) {
            space.wants_confirmation = true;
        }
        let wants_greeting =
            may_write && space.wants_confirmation && (own.is_none() || space.has_greeted != own);
        let has_to_announce = may_write && space.has_to_announce(own.as_ref(), is_confirmed, &replica);
        if has_to_announce && !canary!(AnnouncementForgotten) {
            let after = match (is_confirmed, space.greeted) {
                (true, true) => ANSWER_AFTER,
                (true, false) => ANNOUNCE_AFTER,
                (false, _) => STAND_IN_AFTER,
            };
            let due = now.monotonic + after;
            if space.announce_due.is_none_or(|at| due < at) {
                space.announce_due = Some(due);
                self.timers.insert((due, Timer::Announce(id)));
            }
        }
        space.prunable |= space.forget_ids_ms <= now.wall_ms;
        if (space.compactable || space.prunable) && !space.compacting {
            space.compacting = true;
            self.timers.insert((now.monotonic, Timer::Compact(id)));
        }
        self.plan_release(now, id);
        self.plan_dropping(now, id, is_confirmed);
        if is_confirmed {
            self.resolve_confirmations(id);
        }
        if wants_greeting {
            self.append_announcement(now, id, Frontier::new(), store)?;
            if let Some(space) = self.spaces.get_mut(&id) {
                space.has_greeted = space.own_lane();
            }
        }
        Ok(())
    }

    /// Announces how far this replica has come, if somebody can make use of it. One that is not confirmed answers
    /// greetings that nobody else answers: it has nothing to announce, but that it has heard of who greets.
    pub(crate) fn announce(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let replica = self.replica;
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let is_over = |due: &mut Option<Duration>| due.take_if(|due| *due <= now.monotonic).is_some();
        let is_over_for_dropping = is_over(&mut space.drop_announce_due);
        if space.announce_due.is_some_and(|due| due > now.monotonic) && !is_over_for_dropping {
            return Ok(());
        }
        if is_over(&mut space.announce_due) {
            space.greeted = false;
        }
        let own = space.own_lane();
        let is_confirmed = own.is_some_and(|own| space.is_confirmed(&own, &replica));
        let is_due = space.standing(&replica).may_write()
            && (space.has_to_announce(own.as_ref(), is_confirmed, &replica)
                || (is_over_for_dropping && is_confirmed && space.wants_dropping(own.as_ref())));
        if self.failed.is_some() || !is_due {
            return Ok(());
        }
        let frontier = if is_confirmed { space.frontier.clone() } else { Frontier::new() };
        self.append_announcement(now, id, frontier, store)
    }

    /// Appends an announcement to the own lane, which it may start.
    pub(crate) fn append_announcement(
        &mut self,
        now: &Now,
        id: SpaceId,
        frontier: Frontier,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let (replica, instance) = (self.replica, self.instance);
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let minted_in = space.incarnation.is_none().then_some(instance);
        let incarnation = space.incarnation.unwrap_or_else(|| Incarnation::new(&id, &replica, now.fresh));
        let own = incarnation.origin;
        if !space.has_room_for(&own) {
            return Ok(());
        }
        let mut row = space.own_row(replica, incarnation);
        let mut clock = space.clock;
        let at = clock.tick(now.wall_ms).max(row.tip.at);
        let admitted = space.applied_of_others(&own);
        let entry = LaneEntry { admitted, at, body: Body::Checkpoint(frontier.clone()) };
        row.tip = row.tip.after(&id, &entry);
        let stored = encode_stored(&own, &row.tip.hash, &entry, 0);
        let mut work = Work::over(&*store);
        work.put(keys::announced(&id, &own), encode(&frontier));
        let entry = space.put_own(&mut work, (incarnation, minted_in), (row, stored), (0, clock.last()));
        let batch = work.into_batch();
        let position = store.commit(batch)?;
        space.take_own(entry);
        space.clock = clock;
        if minted_in.is_some() {
            // Loaded documents carry the actor of the incarnation they were loaded in.
            space.documents.clear();
        }
        let mut effects = Effects::default();
        if frontier.is_empty() {
            // It is answered by its author too, once it is confirmed: then nobody waits for it any more.
            effects.unstable.advance(own, 1);
        }
        space.hear(BTreeMap::from([(own, frontier)]), &effects);
        let frontier = space.frontier.clone();
        self.note_commit(position, id, frontier, Vec::new());
        Ok(())
    }

    /// Forgets what the cut allows and what the journal has no room for, a step at a time.
    pub(crate) fn compact(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let (limits, extensions) = (self.journal, self.extensions);
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        space.compacting = false;
        if space.is_blocked() {
            return Ok(());
        }
        if self.failed.is_some() || !(space.compactable || space.prunable) {
            return Ok(());
        }
        let mut work = Work::over(&*store);
        // What is held is judged by what its author had seen, and is not carried out yet.
        let (mut is_more, mut rows, mut additions) = (false, 0, 0);
        if !space.holds() {
            (is_more, rows) = compact(&mut work, &id, &space.cut, COMPACT_ROWS_MAX)?;
            additions = beaten::forget(&mut work, &id, (&space.cut, extensions), COMPACT_ROWS_MAX)?;
            is_more |= additions >= COMPACT_ROWS_MAX;
        }
        let mut additions_forgotten = space.additions_forgotten.clone();
        if additions > 0 && !additions_forgotten.covers(&space.cut) {
            additions_forgotten.merge(&space.cut);
            work.put(keys::additions_forgotten(&id), encode(&additions_forgotten));
        }
        let mut forgotten = space.forgotten.clone();
        if rows > 0 && !forgotten.covers(&space.cut) {
            forgotten.merge(&space.cut);
            work.put(keys::forgotten(&id), encode(&forgotten));
        }
        let is_more_pruned = prune(&mut work, &id, (&limits, now.wall_ms), COMPACT_ROWS_MAX)?;
        let (is_more_ids, forget_ids_ms) = prune_operations(&mut work, &id, now.wall_ms, COMPACT_ROWS_MAX)?;
        let is_more_pruned = is_more_pruned || is_more_ids;
        let batch = work.into_batch();
        if !batch.is_empty() {
            self.committed = store.commit(batch)?;
        }
        space.forgotten = forgotten;
        space.additions_forgotten = additions_forgotten;
        space.forget_ids_ms = forget_ids_ms;
        (space.compactable, space.prunable) = (is_more, is_more_pruned);
        if is_more || is_more_pruned {
            // Whatever else is due comes first.
            space.compacting = true;
            self.timers.insert((now.monotonic + Duration::from_micros(1), Timer::Compact(id)));
        }
        self.request_sync();
        Ok(())
    }

    pub(crate) fn await_confirmation(
        &mut self,
        now: &Now,
        request: RequestId,
        id: SpaceId,
        within: Duration,
    ) -> Result<(), CommandError> {
        let space = self.spaces.get_mut(&id).ok_or(CommandError::UnknownSpace(id))?;
        let standing = space.standing(&self.replica);
        if !standing.may_write() {
            return Err(CommandError::NotWriter { space: id, standing });
        }
        space.wants_confirmation = true;
        let deadline = now.monotonic.saturating_add(within);
        self.waits.confirmations.insert(request, (id, deadline));
        self.timers.insert((deadline, Timer::Wait(request)));
        self.dirty.insert(id);
        Ok(())
    }

    fn resolve_confirmations(&mut self, id: SpaceId) {
        let waits = self.waits.confirmations.iter().filter(|(_, (space, _))| *space == id);
        for request in waits.map(|(request, _)| *request).collect::<Vec<_>>() {
            if let Some((_, deadline)) = self.waits.confirmations.remove(&request) {
                self.timers.remove(&(deadline, Timer::Wait(request)));
                self.reply(request, Ok(Reply::Confirmed));
            }
        }
    }
}

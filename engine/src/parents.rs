//! From whom each lane is received: its owner while that works, otherwise whoever has more.

use std::time::Duration;

use comity_crdts::{LaneId, SpaceId, canary};

use crate::engine::{Engine, Timer};
use crate::hash::Hash;
use crate::io::{Class, Now, SessionId};
use crate::limits::{GRAFT_DOUBLINGS_MAX, RETURN_AFTER, STAGED_BYTES_SUBSCRIBE};
use crate::message::{Message, Subscribe, Unsubscribe};
use crate::session::Session;
use crate::space::{Parent, Space, Stuck};

/// A peer that could be the parent of a lane.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) session: SessionId,
    is_owner: bool,
    pub(crate) has: u64,
}

impl Space {
    /// A lane moved: it is not stuck.
    pub(crate) fn note_progress(&mut self, lane: LaneId, now: Duration) {
        if let Some(lag) = self.lagging.get_mut(&lane) {
            lag.since = now;
        }
    }

    /// Every lane for which time alone can call for another parent is to be considered.
    pub(crate) fn review_parents(&mut self) {
        self.review_due = None;
        self.review.extend(self.parents.keys().chain(self.ranges.keys()));
    }
}

impl Engine {
    /// Chooses parents for the lanes that something has happened to.
    pub(crate) fn choose_parents(&mut self, now: &Now, id: SpaceId) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        if space.is_blocked() || space.is_receiving() || space.row.founder.is_none() {
            // All are considered once the state is there.
            return;
        }
        for lane in std::mem::take(&mut space.review) {
            self.choose_parent(now, id, lane);
        }
    }

    fn choose_parent(&mut self, now: &Now, id: SpaceId, lane_id: LaneId) {
        let candidates = self.candidates(id, lane_id);
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let lane = space.lanes.get(&lane_id);
        let frozen = lane.is_some_and(|lane| lane.row.frozen.is_some());
        if space.own_lane() == Some(lane_id) || space.strangers.contains(&lane_id) || frozen {
            return;
        }
        let have = lane.map_or(0, |lane| lane.staged_tip().lsn);
        if self.tend_ranges(now, (id, lane_id), &candidates, have) {
            return;
        }
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let lane = space.lanes.get(&lane_id);
        let staged_bytes = lane.map_or(0, |lane| lane.staged_bytes);
        let is_waiting = lane.is_some_and(|lane| !lane.staged.is_empty());
        let Some(parent) = space.parents.get(&lane_id).copied() else {
            let best = candidates.iter().filter(|c| c.has >= have).max_by_key(|c| (c.is_owner, c.has));
            if let Some(best) = best.filter(|best| !best.is_owner)
                && self.awaits_offer(now, (id, lane_id), best.has > have)
            {
                return;
            }
            let Some(space) = self.spaces.get_mut(&id) else { return };
            space.lagging.remove(&lane_id);
            if let Some(best) = best.filter(|_| staged_bytes <= STAGED_BYTES_SUBSCRIBE) {
                self.subscribe(now, id, lane_id, best.session);
                // Somebody else may have more.
                self.choose_parent(now, id, lane_id);
            }
            return;
        };
        if is_waiting {
            // The parent has done its part; what is missing comes in another lane.
            return space.note_progress(lane_id, now.monotonic);
        }
        let ahead = candidates.iter().filter(|c| c.has > have);
        let Some(ahead) = ahead.filter(|c| c.session != parent.session).max_by_key(|c| c.has).copied() else {
            space.lagging.remove(&lane_id);
            return self.return_to_owner(now, (id, lane_id), &candidates, (parent, have));
        };
        let patience = self.patience(parent.session);
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let lag = space.lagging.entry(lane_id).or_insert(Stuck { since: now.monotonic, grafts: 0 });
        let due = lag.since + patience * (1 << lag.grafts);
        if due <= now.monotonic && !canary!(DeadlineRepeated) {
            *lag = Stuck { since: now.monotonic, grafts: GRAFT_DOUBLINGS_MAX.min(lag.grafts + 1) };
            if canary!(GraftForgotten) {
                return;
            }
            if let Some(late) = self.sessions.get_mut(&parent.session) {
                late.round_trip.note_impatience();
            }
            return self.move_lane(now, id, lane_id, ahead.session);
        }
        self.review_at(id, due);
        self.return_to_owner(now, (id, lane_id), &candidates, (parent, have));
    }

    /// Whether a lane is left to its owner for some more time, because that is about to offer it.
    fn awaits_offer(&mut self, now: &Now, (id, lane_id): (SpaceId, LaneId), is_behind: bool) -> bool {
        let Some(owner) = self.owner_to_offer(id, lane_id) else { return false };
        if !is_behind {
            return true;
        }
        let patience = self.patience(owner);
        let Some(space) = self.spaces.get_mut(&id) else { return false };
        let lag = space.lagging.entry(lane_id).or_insert(Stuck { since: now.monotonic, grafts: 0 });
        let due = lag.since + patience;
        let awaits = due > now.monotonic;
        if awaits {
            self.review_at(id, due);
        }
        awaits
    }

    /// How long a peer may leave out what another has. One whose distance is not known is taken to be as far away as the
    /// farthest other one.
    pub(crate) fn patience(&self, parent: SessionId) -> Duration {
        let of = |session: &Session| session.round_trip;
        let known = self.sessions.get(&parent).map(of).filter(|known| known.estimate().is_some());
        let farthest = || self.sessions.values().map(of).max_by_key(|known| known.estimate());
        known.or_else(farthest).unwrap_or_default().patience()
    }

    /// Goes back to the owner once the present parent has been used for a while.
    fn return_to_owner(
        &mut self,
        now: &Now,
        (id, lane): (SpaceId, LaneId),
        candidates: &[Candidate],
        (parent, have): (Parent, u64),
    ) {
        if self.owner_to_offer(id, lane).is_some_and(|owner| owner != parent.session) {
            let due = parent.since + RETURN_AFTER;
            return if due <= now.monotonic { self.drop_parent(id, lane) } else { self.review_at(id, due) };
        }
        let mut owners = candidates.iter().filter(|candidate| candidate.is_owner);
        let from_owner = owners.clone().any(|owner| owner.session == parent.session);
        if from_owner && !canary!(ResubscribedForEver) {
            return;
        }
        let Some(owner) = owners.find(|owner| owner.has >= have).copied() else { return };
        let lag = self.spaces.get(&id).and_then(|space| space.lagging.get(&lane));
        let due = parent.since + RETURN_AFTER * (1 << lag.map_or(0, |lag| lag.grafts));
        if due <= now.monotonic {
            return self.move_lane(now, id, lane, owner.session);
        }
        self.review_at(id, due);
    }

    /// One timer per space: when it is due, every parent is considered again.
    pub(crate) fn review_at(&mut self, id: SpaceId, due: Duration) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        if space.review_due.is_none_or(|planned| due < planned) {
            space.review_due = Some(due);
            self.timers.insert((due, Timer::Parents(id)));
        }
    }

    fn candidates(&self, id: SpaceId, lane_id: LaneId) -> Vec<Candidate> {
        let Some(space) = self.spaces.get(&id) else { return Vec::new() };
        let lane = space.lanes.get(&lane_id);
        let owner = lane.map(|lane| lane.row.owner.replica);
        let stands_at = lane.map_or(0, |lane| lane.staged_tip().lsn);
        let candidate = |session_id: &SessionId| {
            let session = self.sessions.get(session_id)?;
            let part = session.spaces.get(&id)?;
            let has = part.peer_have.at(&lane_id);
            if part.peer_floors.at(&lane_id) > stands_at {
                return None;
            }
            let is_owner = owner == Some(session.peer);
            (has > 0 || is_owner).then_some(Candidate { session: *session_id, is_owner, has })
        };
        space.sessions.iter().filter_map(candidate).collect()
    }

    fn move_lane(&mut self, now: &Now, id: SpaceId, lane: LaneId, to: SessionId) {
        self.drop_parent(id, lane);
        self.subscribe(now, id, lane, to);
    }

    fn subscribe(&mut self, now: &Now, id: SpaceId, lane_id: LaneId, session_id: SessionId) {
        let (Some(space), Some(session)) = (self.spaces.get_mut(&id), self.sessions.get_mut(&session_id))
        else {
            return;
        };
        let (from, hash) = match space.lanes.get(&lane_id) {
            Some(lane) => (lane.staged_tip().lsn + 1, lane.staged_tip().hash),
            None => (1, Hash::default()),
        };
        let has_more = session.spaces.get(&id).is_some_and(|part| part.peer_have.at(&lane_id) >= from);
        let subscription = session.subscribe(id, lane_id, has_more.then_some(now.monotonic));
        space.parents.insert(lane_id, Parent { session: session_id, subscription, since: now.monotonic });
        let subscribe = Subscribe { space: id, subscription, lane: lane_id, from, hash: hash.prefix() };
        self.send(session_id, Class::Control, &Message::Subscribe(subscribe));
    }

    /// Ends the subscription through which a lane is received.
    pub(crate) fn drop_parent(&mut self, id: SpaceId, lane: LaneId) {
        self.drop_ranges(id, lane);
        let Some(parent) = self.spaces.get_mut(&id).and_then(|space| space.parents.remove(&lane)) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&parent.session) {
            session.end_incoming(parent.subscription);
            let unsubscribe = Unsubscribe { subscription: parent.subscription, refused: false };
            if canary!(UnsubscribeForgotten) {
                return;
            }
            self.send(parent.session, Class::Control, &Message::Unsubscribe(unsubscribe));
        }
    }

    /// Ends the subscription to a lane on one session, if that is where it is received from.
    pub(crate) fn unsubscribe(&mut self, session: SessionId, id: SpaceId, lane: LaneId) {
        let Some(space) = self.spaces.get(&id) else { return };
        let is_parent = space.parents.get(&lane).is_some_and(|parent| parent.session == session);
        if is_parent || space.ranges.contains_key(&lane) {
            self.drop_parent(id, lane);
        }
    }
}

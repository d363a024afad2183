//! From whom each lane is received: its owner while that works, otherwise whoever has more.

use std::time::Duration;

use comity_crdts::{LaneId, SpaceId};

use crate::engine::{Engine, Timer};
use crate::hash::Hash;
use crate::io::{Class, Now, SessionId};
use crate::limits::{GRAFT_AFTER, RETURN_AFTER};
use crate::message::{Message, Subscribe, Unsubscribe};
use crate::space::{Parent, Space};

/// A peer that could be the parent of a lane.
#[derive(Clone, Copy)]
struct Candidate {
    session: SessionId,
    is_owner: bool,
    has: u64,
}

impl Space {
    /// A lane moved: it is not stuck.
    pub(crate) fn note_progress(&mut self, lane: LaneId, now: Duration) {
        if let Some(since) = self.lagging.get_mut(&lane) {
            *since = now;
        }
    }
}

impl Engine {
    /// Chooses parents for every lane of a space that anyone connected has named.
    pub(crate) fn choose_parents(&mut self, now: &Now, id: SpaceId) {
        let Some(space) = self.spaces.get(&id) else { return };
        let mut lanes: std::collections::BTreeSet<LaneId> = space.lanes.keys().copied().collect();
        for session in self.sessions.values().filter(|session| session.is_open(&id)) {
            lanes.extend(
                session.spaces.get(&id).into_iter().flat_map(|part| part.peer_have.iter()).map(|(l, _)| l),
            );
        }
        for lane in lanes {
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
        let best = candidates.iter().filter(|c| c.has >= have).max_by_key(|c| (c.is_owner, c.has)).copied();
        let Some(parent) = space.parents.get(&lane_id).copied() else {
            if let Some(best) = best {
                self.subscribe(now, id, lane_id, best.session);
            }
            return;
        };
        let owner = candidates.iter().find(|c| c.is_owner && c.has >= have).copied();
        let from_owner = candidates.iter().any(|c| c.is_owner && c.session == parent.session);
        let Some(ahead) = candidates.iter().filter(|c| c.has > have).max_by_key(|c| c.has).copied() else {
            space.lagging.remove(&lane_id);
            return self.return_to_owner(now, (id, lane_id), owner.filter(|_| !from_owner), parent);
        };
        let since = *space.lagging.entry(lane_id).or_insert(now.monotonic);
        let due = since + GRAFT_AFTER;
        if ahead.session != parent.session && due <= now.monotonic {
            space.lagging.insert(lane_id, now.monotonic);
            return self.move_lane(now, id, lane_id, ahead.session);
        }
        if ahead.session != parent.session {
            self.timers.insert((due, Timer::Parents(id)));
        }
        self.return_to_owner(now, (id, lane_id), owner.filter(|_| !from_owner), parent);
    }

    /// Goes back to the owner once the present parent has been used for a while.
    fn return_to_owner(
        &mut self,
        now: &Now,
        (id, lane): (SpaceId, LaneId),
        owner: Option<Candidate>,
        parent: Parent,
    ) {
        let Some(owner) = owner else { return };
        let due = parent.since + RETURN_AFTER;
        if due <= now.monotonic {
            return self.move_lane(now, id, lane, owner.session);
        }
        self.timers.insert((due, Timer::Parents(id)));
    }

    fn candidates(&self, id: SpaceId, lane_id: LaneId) -> Vec<Candidate> {
        let owner =
            self.spaces.get(&id).and_then(|s| s.lanes.get(&lane_id)).map(|lane| lane.row.owner.replica);
        let open = self.sessions.iter().filter(|(_, session)| session.is_open(&id));
        open.filter_map(|(session_id, session)| {
            let has = session.spaces.get(&id)?.peer_have.at(&lane_id);
            let is_owner = owner == Some(session.peer);
            (has > 0 || is_owner).then_some(Candidate { session: *session_id, is_owner, has })
        })
        .collect()
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
        let subscription = session.subscribe(id, lane_id);
        space.parents.insert(lane_id, Parent { session: session_id, subscription, since: now.monotonic });
        let subscribe = Subscribe { space: id, subscription, lane: lane_id, from, hash: hash.prefix() };
        self.send(session_id, Class::Control, &Message::Subscribe(subscribe));
    }

    /// Ends the subscription through which a lane is received.
    pub(crate) fn drop_parent(&mut self, id: SpaceId, lane: LaneId) {
        let Some(parent) = self.spaces.get_mut(&id).and_then(|space| space.parents.remove(&lane)) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&parent.session) {
            session.incoming.remove(&parent.subscription);
            let unsubscribe = Unsubscribe { subscription: parent.subscription, refused: false };
            self.send(parent.session, Class::Control, &Message::Unsubscribe(unsubscribe));
        }
    }

    /// Ends the subscription to a lane on one session, if that is where it is received from.
    pub(crate) fn unsubscribe(&mut self, session: SessionId, id: SpaceId, lane: LaneId) {
        let parent = self.spaces.get(&id).and_then(|space| space.parents.get(&lane));
        if parent.is_some_and(|parent| parent.session == session) {
            self.drop_parent(id, lane);
        }
    }
}

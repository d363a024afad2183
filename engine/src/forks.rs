//! Forks: two contents under one number, by a clone, a restored copy or a liar. What a peer merely says
//! starts an exchange of evidence; a lane is frozen on its owner's signature only. The exception is the own
//! lane: it is given up on a peer's word that it was longer once, because going on could make the fork.

use comity_crdts::{LaneId, SpaceId, canary};

use crate::engine::Engine;
use crate::head::sign;
use crate::io::{Class, CloseReason, Notice, Output, SessionId};
use crate::keys;
use crate::message::{Head, Message, OpenLane};
use crate::proof::Proof;
use crate::receive::Refusal;
use crate::rows::damaged;
use crate::space::Lane;
use crate::status::Freeze;
use crate::store::{Store, StoreError};
use crate::work::Work;

impl Engine {
    /// Compares a lane with what a peer says of it. Where it holds something else, it is shown a signature.
    pub(crate) fn compare_lane(
        &mut self,
        session: SessionId,
        id: SpaceId,
        said: &OpenLane,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let Some(lane) = space.lanes.get(&said.lane) else { return Ok(()) };
        if said.lsn == 0 {
            return Ok(());
        }
        if matches!(lane.row.frozen, Some(Freeze::Fork { .. })) {
            // The peer may be on either branch and may not know of the other.
            return self.send_head(session, id, said.lane, said.lsn, store);
        }
        if said.lsn <= lane.row.tip.lsn {
            let ours = self.lane_hash(id, said.lane, said.lsn, store)?;
            if ours.is_some_and(|ours| ours.prefix() != said.hash) {
                self.send_head(session, id, said.lane, said.lsn, store)?;
            }
        } else if lane.row.owner.replica == self.replica {
            let (is_own, tip) = (space.own_lane() == Some(said.lane), lane.row.tip.lsn);
            if is_own {
                self.renounce(id, store)?;
            }
            // This store was rolled back. What it wrote since may contradict what the peer holds, and the
            // peer need not have a signature that shows it.
            self.send_head(session, id, said.lane, tip, store)?;
        }
        Ok(())
    }

    /// Shows who doubted a lane what is held of it, now that it is durable.
    pub(crate) fn show_doubted(&mut self, id: SpaceId, store: &dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let mut shown = Vec::new();
        for (lane_id, lane) in &mut space.lanes {
            if space.durable.at(lane_id) == lane.row.tip.lsn {
                shown.extend(
                    std::mem::take(&mut lane.doubted_by).into_iter().map(|session| (session, *lane_id)),
                );
            }
        }
        for (session, lane) in
            shown.into_iter().filter(|(session, _)| self.sessions.contains_key(session)).collect::<Vec<_>>()
        {
            self.send_head(session, id, lane, u64::MAX, store)?;
        }
        Ok(())
    }

    /// Shows a peer the newest signature over a lane up to `lsn`, if there is one.
    pub(crate) fn send_head(
        &mut self,
        session: SessionId,
        id: SpaceId,
        lane_id: LaneId,
        lsn: u64,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let Some((lsn, proof)) = self.newest_head(id, lane_id, lsn, store)? else { return Ok(()) };
        let Some(hash) = self.lane_hash(id, lane_id, lsn, store)? else { return Ok(()) };
        let head = Head { space: id, lane: lane_id, lsn, hash, proof };
        self.send(session, Class::Control, &Message::Head(head));
        Ok(())
    }

    fn newest_head(
        &mut self,
        id: SpaceId,
        lane_id: LaneId,
        lsn: u64,
        store: &dyn Store,
    ) -> Result<Option<(u64, Proof)>, StoreError> {
        let replica = self.replica;
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return Ok(None) };
        let until = lsn.min(space.durable.at(&lane_id));
        let Some(lane) = space.lanes.get(&lane_id).filter(|_| until > 0) else { return Ok(None) };
        if lane.row.owner.replica == replica {
            let hash = self.lane_hash(id, lane_id, until, store)?;
            return Ok(hash.map(|hash| (until, sign(&self.key, &id, &lane_id, until, &hash).into())));
        }
        let recent = lane.heads.iter().rev().find(|(lsn, _)| *lsn <= until).cloned();
        if recent.is_some() || lane.row.head > until {
            return Ok(recent);
        }
        let kept = store.get(&keys::head(&id, &lane_id, lane.row.head))?;
        let proof = kept.map(|bytes| Proof::from_bytes(&bytes)).transpose();
        let proof = proof.map_err(|error| damaged("head", &error))?;
        Ok(proof.map(|proof| (lane.row.head, proof)))
    }

    /// A peer shows a signature over a lane: when it contradicts what is held here, the owner has signed
    /// two contents.
    pub(crate) fn on_head(
        &mut self,
        session_id: SessionId,
        head: &Head,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&session_id) else { return Ok(()) };
        if !session.spaces.get(&head.space).is_some_and(|part| part.opened_by_peer) {
            return Err(CloseReason::Unexpected.into());
        }
        let lane = self.spaces.get(&head.space).and_then(|space| space.lanes.get(&head.lane));
        let is_closed = |lane: &Lane| lane.row.frozen.is_some() || canary!(ForkIgnored);
        let Some(lane) = lane.filter(|lane| !is_closed(lane)) else { return Ok(()) };
        if head.lsn == 0 || head.lsn > lane.row.tip.lsn {
            return Ok(());
        }
        let owner = lane.row.owner.replica;
        if !head.proof.holds(&owner, &head.space, &head.lane, (head.lsn, &head.hash)) {
            return Err(CloseReason::Signature.into());
        }
        let ours = self.lane_hash(head.space, head.lane, head.lsn, store)?;
        if ours.is_some_and(|ours| ours != head.hash) {
            self.freeze(head.space, head.lane, Freeze::Fork { lsn: head.lsn }, store)?;
            self.send_head(session_id, head.space, head.lane, head.lsn, store)?;
        }
        Ok(())
    }

    /// A peer holds more of the own lane than is here: this store was rolled back. The lane is left to what
    /// peers hold of it, and the next write starts a fresh one.
    pub(crate) fn renounce(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        space.review.extend(space.own_lane());
        space.incarnation = None;
        space.row.incarnation = None;
        let mut work = Work::over(store);
        space.put_row(&mut work);
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        self.dirty.insert(id);
        self.request_sync();
        Ok(())
    }

    /// Stops following a lane, durably. The own lane is left for a fresh incarnation.
    pub(crate) fn freeze(
        &mut self,
        id: SpaceId,
        lane_id: LaneId,
        why: Freeze,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        if space.own_lane() == Some(lane_id) {
            space.incarnation = None;
        }
        self.rouse(id);
        self.commons.touch(id);
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let Some(lane) = space.lanes.get_mut(&lane_id) else { return Ok(()) };
        lane.row.frozen = Some(why.clone());
        if matches!(why, Freeze::Fork { .. }) {
            lane.drop_staged();
        }
        let mut work = Work::over(store);
        work.put_fact(keys::lane(&id, &lane_id), crate::space::encode(&lane.row));
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        self.drop_parent(id, lane_id);
        self.push(Output::Notify(Notice::Frozen { space: id, lane: lane_id, why }));
        self.request_sync();
        Ok(())
    }
}

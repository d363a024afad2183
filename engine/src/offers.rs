//! Where a space was quiet, whoever writes in it knows where the peer stands, and sends its own lane from there without
//! being asked, as if the peer had subscribed: the first write arrives after one way, as later ones do.

use std::collections::BTreeSet;

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{LaneId, SpaceId};

use crate::engine::Engine;
use crate::io::{Class, CloseReason, Now, SessionId};
use crate::limits::STAGED_BYTES_SUBSCRIBE;
use crate::message::{Message, Subscribe, Unsubscribe};
use crate::receive::Refusal;
use crate::send::Standing;
use crate::session::{Outgoing, PeerSpace, Session};
use crate::space::{Parent, Space};
use crate::store::{Store, StoreError};

/// Set in the numbers of subscriptions that who sends the data made; the other ones are their receivers'.
pub(crate) const OFFERED: u32 = 1 << 31;

impl Space {
    /// Whether a lane can be received from an entry on, from a peer that is its owner as far as is known.
    fn can_take(&self, offer: &Subscribe, peer: &comity_crdts::ReplicaId) -> bool {
        let is_free = !self.is_blocked() && !self.is_receiving() && self.own_lane() != Some(offer.lane);
        let goes_on = match self.lanes.get(&offer.lane) {
            Some(lane) => {
                let tip = lane.staged_tip();
                let fits = tip.lsn + 1 == offer.from && (tip.lsn == 0 || tip.hash.prefix() == offer.hash);
                let has_room = lane.staged_bytes <= STAGED_BYTES_SUBSCRIBE;
                fits && has_room && lane.row.frozen.is_none() && lane.row.owner.replica == *peer
            }
            None => {
                offer.from == 1 && self.parents.len() < LANES_MAX && !self.strangers.contains(&offer.lane)
            }
        };
        is_free && goes_on
    }
}

impl Engine {
    /// Offers a peer the own lane of a space that was quiet, if there is something new in it. Comes before `Open`.
    pub(crate) fn offer_own_lane(
        &mut self,
        now: &Now,
        session_id: SessionId,
        id: SpaceId,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let (Some(session), Some(space)) = (self.sessions.get(&session_id), self.spaces.get(&id)) else {
            return Ok(());
        };
        let (Some(part), Some(lane)) = (session.spaces.get(&id), space.own_lane()) else { return Ok(()) };
        let has = part.peer_have.at(&lane);
        // A peer that has opened the space may have the lane from others and say so before it hears of the offer.
        let was_quiet = part.roused && !part.opened_by_peer;
        if space.durable.at(&lane) <= has || !was_quiet {
            return Ok(());
        }
        let Some(hash) = self.hash_to_offer(id, lane, has, store)? else { return Ok(()) };
        let Some(next) = self.sessions.get(&session_id).map(|session| session.next_offer) else {
            return Ok(());
        };
        let subscription = OFFERED | next;
        let offer = Subscribe { space: id, subscription, lane, from: has + 1, hash };
        let Standing::At(sent) = self.standing(&offer, store)? else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        session.next_offer += 1;
        // Until the peer has acknowledged something, it may not have heard of the offer yet.
        let outgoing = Outgoing::new((id, lane), sent, now.monotonic, Class::Control);
        self.begin_serving(session_id, subscription, outgoing);
        self.send(session_id, Class::Control, &Message::Offer(offer));
        Ok(())
    }

    /// The session on which the owner of a lane stood as this replica does and has not opened the space since: what is new in
    /// its lane it offers.
    pub(crate) fn owner_to_offer(&self, id: SpaceId, lane: LaneId) -> Option<SessionId> {
        let owner = self.spaces.get(&id)?.lanes.get(&lane)?.row.owner.replica;
        let is_to_come = |session: &Session| {
            let is_roused = |part: &PeerSpace| part.roused && !part.opened_by_peer;
            session.peer == owner
                && session.spaces.get(&id).map_or_else(|| self.agrees(session, &id), is_roused)
        };
        self.sessions.iter().find(|(_, session)| is_to_come(session)).map(|(number, _)| *number)
    }

    /// The lanes that other peers than a session's are to offer.
    pub(crate) fn lanes_to_be_offered(&self, session_id: SessionId, id: SpaceId) -> BTreeSet<LaneId> {
        let Some(space) = self.spaces.get(&id) else { return BTreeSet::new() };
        let is_left = |lane: &LaneId| self.owner_to_offer(id, *lane).is_some_and(|owner| owner != session_id);
        space.lanes.keys().copied().filter(is_left).collect()
    }

    fn hash_to_offer(
        &self,
        id: SpaceId,
        lane: LaneId,
        has: u64,
        store: &dyn Store,
    ) -> Result<Option<[u8; 8]>, StoreError> {
        if has == 0 {
            return Ok(Some([0; 8]));
        }
        Ok(self.lane_hash(id, lane, has, store)?.map(|hash| hash.prefix()))
    }

    /// A peer sends its lane without being asked.
    pub(crate) fn on_offer(
        &mut self,
        now: &Now,
        session_id: SessionId,
        offer: &Subscribe,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if offer.subscription != OFFERED | session.offers_heard || offer.from == 0 {
            return Err(CloseReason::Unexpected.into());
        }
        session.offers_heard += 1;
        let (id, lane, peer) = (offer.space, offer.lane, session.peer);
        let Some(session) = self.sessions.get(&session_id) else { return Ok(()) };
        let was_quiet = self.agrees(session, &id);
        let is_known = was_quiet || session.spaces.get(&id).is_some_and(|part| part.opened_by_us);
        let space = self.spaces.get(&id).filter(|space| is_known && space.can_take(offer, &peer));
        if space.is_none() {
            // It is not told why, so that it is the same for a space that it may not see.
            let declined = Unsubscribe { subscription: offer.subscription, refused: false };
            self.send(session_id, Class::Control, &Message::Unsubscribe(declined));
            return Ok(());
        }
        if was_quiet {
            self.note_roused(session_id, id);
        }
        self.drop_parent(id, lane);
        let (Some(session), Some(space)) = (self.sessions.get_mut(&session_id), self.spaces.get_mut(&id))
        else {
            return Ok(());
        };
        session.receive(offer.subscription, id, lane, None);
        let (subscription, since) = (offer.subscription, now.monotonic);
        space.parents.insert(lane, Parent { session: session_id, subscription, since });
        Ok(())
    }
}

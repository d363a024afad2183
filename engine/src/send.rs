//! Sending: greetings, frontiers, runs to subscribers, acknowledgements.

use std::hash::BuildHasher;

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{LaneId, ReplicaId, SpaceId, canary};

use crate::bootstrap::SnapshotTask;
use crate::change::LaneTip;
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Timer};
use crate::excerpt::{Reach, durable_hash, known_hash, read_proved, stored_hash, stored_tip};
use crate::hash::Hash;
use crate::io::{Class, CloseReason, Now, Output, SessionId};
use crate::limits::{FRAME_BYTES_MAX, HAVE_INTERVAL};
use crate::message::{
    DATA_HEADER_BYTES_MAX, Data, Gone, Have, Join, Message, Open, OpenLane, Subscribe, Unsubscribe,
};
use crate::segments::SealedRun;
use crate::session::{Outgoing, Session};
use crate::space::Parent;
use crate::store::{Store, StoreError};
use crate::version::WITH_DIGESTS;

impl Engine {
    pub(crate) fn send(&mut self, session: SessionId, class: Class, message: &Message<'_>) {
        let frame = message.encode();
        self.push(Output::SendFrame { session, class, frame });
    }

    pub(crate) fn on_session_opened(
        &mut self,
        now: &Now,
        session: SessionId,
        peer: ReplicaId,
        store: &mut dyn Store,
    ) {
        if self.failed.is_some() {
            return self.push(Output::CloseSession { session, reason: CloseReason::Storage });
        }
        self.sessions.insert(session, Session::new(peer, self.versions.min));
        self.send(session, Class::Control, &Message::Hello(self.hello(now)));
        let said = if self.versions.max < WITH_DIGESTS {
            self.open_shared(now, session, store)
        } else {
            self.say_shared(now, session, peer, store)
        };
        if let Err(error) = said {
            self.on_store_error(now, error);
        }
    }

    pub(crate) fn on_session_closed(&mut self, session: SessionId) {
        let Some(ended) = self.sessions.remove(&session) else { return };
        for number in ended.served.into_keys() {
            self.push(Output::Snapshot(SnapshotTask::Close { session, number }));
        }
        for (id, _) in ended.spaces {
            self.forget_session(session, id);
        }
    }

    /// Nothing of the space comes over this session any more.
    pub(crate) fn forget_session(&mut self, session: SessionId, id: SpaceId) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        space.sessions.remove(&session);
        let lost = space.parents.iter().filter(|(_, parent)| parent.session == session);
        space.review.extend(lost.map(|(lane, _)| *lane));
        space.parents.retain(|_, parent| parent.session != session);
        space.lose_parts(session);
        self.dirty.insert(id);
        self.resolve_room(id);
        self.plan_lag_look(id);
        self.end_pass(session, id);
    }

    /// Once both sides have opened a space, it is served and its lanes may change parents.
    pub(crate) fn note_open(&mut self, session_id: SessionId, id: SpaceId) {
        let (Some(session), Some(space)) = (self.sessions.get(&session_id), self.spaces.get_mut(&id)) else {
            return;
        };
        let Some(part) = session.spaces.get(&id).filter(|part| part.opened_by_us && part.opened_by_peer)
        else {
            return;
        };
        space.sessions.insert(session_id);
        space.review.extend(space.lanes.keys());
        space.review.extend(part.peer_have.iter().map(|(lane, _)| lane));
        self.dirty.insert(id);
        self.to_serve.insert((id, session_id));
        // Rights can be asked for now.
        self.pursue_rights_soon(id);
    }

    /// Opens a space on a session: says where this replica stands, and subscribes to every lane that has no
    /// parent, or whose owner the peer is.
    pub(crate) fn open_space(
        &mut self,
        now: &Now,
        session_id: SessionId,
        id: SpaceId,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let is_ready = self.spaces.get(&id).is_some_and(|space| !space.is_blocked());
        if !is_ready || session.space_mut(&id).opened_by_us {
            return Ok(());
        }
        self.renew_opening(session_id, id);
        for lane in self.lanes_to_move(session_id, id) {
            self.drop_parent(id, lane);
        }
        let left_to_owners = self.lanes_to_be_offered(session_id, id);
        let (Some(session), Some(space)) = (self.sessions.get_mut(&session_id), self.spaces.get_mut(&id))
        else {
            return Ok(());
        };
        let join = space.row.invitation.filter(|(inviter, _)| *inviter == session.peer);
        let mut lanes = Vec::new();
        for (lane_id, lane) in &space.lanes {
            let lsn = space.durable.at(lane_id);
            let had = || space.peer_durable.get(&session.peer).map_or(0, |had| had.at(lane_id));
            if canary!(PeerFrontierCached) && had() >= lsn {
                continue;
            }
            let hash = durable_hash(store, &id, (lane_id, lane), lsn)?;
            let is_received = space.parents.contains_key(lane_id) || space.ranges.contains_key(lane_id);
            let is_free = !is_received && !left_to_owners.contains(lane_id);
            let wanted = is_free && space.can_follow(lane_id);
            let subscription = wanted.then(|| {
                let subscription = session.subscribe(id, *lane_id, None);
                let parent = Parent { session: session_id, subscription, since: now.monotonic };
                space.parents.insert(*lane_id, parent);
                subscription
            });
            lanes.push(OpenLane { lane: *lane_id, lsn, hash: hash.prefix(), subscription });
        }
        let part = session.space_mut(&id);
        part.opened_by_us = true;
        part.named_by_us = lanes.iter().map(|lane| lane.lane).collect();
        part.told = space.durable.clone();
        (part.join_sent, part.join_denied) = (join.map(|(_, secret)| secret), false);
        let (space_ref, needs_genesis) = (part.own_ref, space.row.founder.is_none());
        if let Some((_, secret)) = join {
            self.send(session_id, Class::Control, &Message::Join(Join { space: id, secret }));
        }
        self.offer_own_lane(now, session_id, id, store)?;
        let open = Open { space_ref, space: id, needs_genesis, lanes };
        self.send(session_id, Class::Control, &Message::Open(open));
        self.note_open(session_id, id);
        Ok(())
    }

    /// Lanes of the peer that are received from somebody else and can be subscribed to in `Open`.
    fn lanes_to_move(&self, session_id: SessionId, id: SpaceId) -> Vec<LaneId> {
        let (Some(session), Some(space)) = (self.sessions.get(&session_id), self.spaces.get(&id)) else {
            return Vec::new();
        };
        let from_owner = |parent: &Parent| {
            self.sessions.get(&parent.session).is_some_and(|current| current.peer == session.peer)
        };
        let moved = space.parents.iter().filter(|(lane, parent)| {
            let owned = space.lanes.get(lane).is_some_and(|lane| lane.row.owner.replica == session.peer);
            owned && space.can_follow(lane) && !from_owner(parent)
        });
        moved.map(|(lane, _)| *lane).collect()
    }

    /// Starts to serve a lane to a peer, from where the peer stands.
    pub(crate) fn on_subscribe(
        &mut self,
        now: &Now,
        session_id: SessionId,
        subscribe: &Subscribe,
        store: &mut dyn Store,
    ) -> Result<(), crate::receive::Refusal> {
        let Some(session) = self.sessions.get(&session_id) else { return Ok(()) };
        if !session.can_be_asked(&subscribe.space, subscribe.subscription) || subscribe.from == 0 {
            return Err(CloseReason::Unexpected.into());
        }
        if session.serving_space(&subscribe.space).count() >= LANES_MAX {
            return Err(CloseReason::TooMany.into());
        }
        let (standing, subscription) = (self.standing(subscribe, store)?, subscribe.subscription);
        let is_elsewhere = matches!(standing, Standing::Elsewhere);
        if let Some(sent) = self.answer_standing(session_id, subscription, standing) {
            let place = (subscribe.space, subscribe.lane);
            let outgoing = Outgoing::new(place, sent, now.monotonic, Class::Live);
            self.begin_serving(session_id, subscription, outgoing);
        } else if is_elsewhere {
            self.send_head(session_id, subscribe.space, subscribe.lane, subscribe.from - 1, store)?;
        }
        Ok(())
    }

    /// From where a subscription is served; `None` when it cannot be, which the peer is told.
    pub(crate) fn answer_standing(
        &mut self,
        session: SessionId,
        subscription: u32,
        standing: Standing,
    ) -> Option<LaneTip> {
        match standing {
            Standing::At(sent) => return Some(sent),
            Standing::Gone(floor) => {
                self.send(session, Class::Control, &Message::Gone(Gone { subscription, floor }));
            }
            Standing::Unknown | Standing::Elsewhere => self.refuse(session, subscription),
        }
        None
    }

    pub(crate) fn begin_serving(&mut self, session_id: SessionId, subscription: u32, outgoing: Outgoing) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        self.to_serve.insert((outgoing.space, session_id));
        session.serve(subscription, outgoing);
    }

    /// Where the subscriber stands in the lane. A frozen lane is served as far as it goes: other lanes build
    /// on it.
    pub(crate) fn standing(&self, subscribe: &Subscribe, store: &dyn Store) -> Result<Standing, StoreError> {
        let standing = self.tip_at((subscribe.space, subscribe.lane), subscribe.from - 1, store)?;
        Ok(match standing {
            Standing::At(tip)
                if tip.lsn > 0 && tip.hash.prefix() != subscribe.hash && !canary!(SubscribedWithoutHash) =>
            {
                Standing::Elsewhere
            }
            standing => standing,
        })
    }

    /// Where a lane stood here after an entry.
    pub(crate) fn tip_at(
        &self,
        (id, lane_id): (SpaceId, LaneId),
        lsn: u64,
        store: &dyn Store,
    ) -> Result<Standing, StoreError> {
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else {
            return Ok(Standing::Unknown);
        };
        let Some(lane) = space.lanes.get(&lane_id).filter(|_| lsn <= space.durable.at(&lane_id)) else {
            return Ok(Standing::Unknown);
        };
        if lsn < lane.floor.lsn {
            return Ok(Standing::Gone(lane.floor.lsn));
        }
        if lsn == 0 {
            return Ok(Standing::At(LaneTip::start(&id, &lane_id)));
        }
        let tip = if lsn == lane.floor.lsn {
            lane.floor.clone()
        } else {
            stored_tip(store, (&id, &lane_id), &lane.floor, lsn)?
        };
        Ok(Standing::At(tip))
    }

    /// Tells a peer that a subscription cannot be served.
    pub(crate) fn refuse(&mut self, session: SessionId, subscription: u32) {
        let refusal = Unsubscribe { subscription, refused: true };
        self.send(session, Class::Control, &Message::Unsubscribe(refusal));
    }

    /// The chain hash of a lane after an entry that is applied here, if it is kept.
    pub(crate) fn lane_hash(
        &self,
        id: SpaceId,
        lane_id: LaneId,
        lsn: u64,
        store: &dyn Store,
    ) -> Result<Option<Hash>, StoreError> {
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return Ok(None) };
        let lane = space.lanes.get(&lane_id);
        match lane.and_then(|lane| known_hash(lane, lsn)) {
            Some(hash) => Ok(Some(hash)),
            None => stored_hash(store, &id, &lane_id, lsn),
        }
    }

    /// What is durable in a space moved: every session is served.
    pub(crate) fn serve_all(&mut self, id: SpaceId) {
        let Some(space) = self.spaces.get(&id) else { return };
        let roused: Vec<SessionId> = self.roused_sessions(&id).collect();
        self.to_serve.extend(space.sessions.iter().copied().chain(roused).map(|session| (id, session)));
    }

    /// Sends a peer what it lacks of the lanes it subscribed to, as far as windows allow, and tells it what
    /// is held here of the others.
    pub(crate) fn serve(
        &mut self,
        now: &Now,
        session_id: SessionId,
        id: SpaceId,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        // What was offered is sent before the peer has opened the space.
        let Some(session) = self.sessions.get(&session_id) else { return Ok(()) };
        let is_open = session.is_open(&id);
        let mut subscriptions: Vec<u32> = session.serving_space(&id).collect();
        if canary!(HashMapOrder) {
            let keyed = |subscription: &u32| std::hash::RandomState::new().hash_one(subscription);
            subscriptions.sort_by_cached_key(keyed);
        }
        for subscription in subscriptions {
            while self.send_run(now, session_id, subscription, store)? {}
        }
        if is_open {
            self.plan_have(now, session_id, id);
        }
        Ok(())
    }

    /// Sends the next run of one subscription; `false` when there is none or the window is full.
    fn send_run(
        &mut self,
        now: &Now,
        session_id: SessionId,
        subscription: u32,
        store: &dyn Store,
    ) -> Result<bool, StoreError> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(false) };
        let Some(outgoing) = session.outgoing.get(&subscription) else { return Ok(false) };
        if session.is_offered_too(subscription, outgoing) {
            return Ok(false);
        }
        let Some(space) = self.spaces.get_mut(&outgoing.space).filter(|space| !space.is_blocked()) else {
            return Ok(false);
        };
        let (id, lane_id) = (outgoing.space, outgoing.lane);
        let known = if canary!(SentBeforeSync) { &space.frontier } else { &space.durable };
        let durable = known.at(&lane_id);
        let is_stopped = outgoing.stops_at == Some(outgoing.sent.lsn + 1);
        let reach = outgoing.until.map_or(durable, |until| until.min(durable));
        if outgoing.sent.lsn >= reach || is_stopped || !session.has_room(outgoing) {
            return Ok(false);
        }
        let Some(lane) = space.lanes.get_mut(&lane_id) else { return Ok(false) };
        if outgoing.sent.lsn < lane.floor.lsn {
            // It has not taken anything for so long that it did not count any more.
            let gone = Gone { subscription, floor: lane.floor.lsn };
            session.end_outgoing(subscription);
            self.send(session_id, Class::Control, &Message::Gone(gone));
            return Ok(false);
        }
        let from = outgoing.sent.clone();
        let segment = self.segments.end_after(from.lsn);
        let is_sealed = segment <= reach && (outgoing.is_sealed || self.segments.begin_after(from.lsn));
        if is_sealed {
            let (version, reach) = (session.version(), Reach { from: &from, until: segment });
            let sealed = self.sealed_run(now, (&id, &lane_id), reach, store)?;
            if let Some(run) = sealed.filter(|run| run.version <= version) {
                return Ok(self.send_sealed(now, (session_id, subscription), (from.lsn, durable), &run));
            }
        }
        // What lies before a segment that is whole does not reach into it.
        let until = segment.min(reach);
        let reach = Reach { from: &from, until };
        self.send_single(now, (session_id, subscription), (reach, durable), store)
    }

    /// Sends the run that everybody is sent there.
    fn send_sealed(
        &mut self,
        now: &Now,
        (session_id, subscription): (SessionId, u32),
        (after, durable): (u64, u64),
        run: &SealedRun,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return false };
        let Some(outgoing) = session.outgoing.get_mut(&subscription) else { return false };
        outgoing.is_sealed = true;
        // The subscription's own names are not those that the receiver has now.
        if !canary!(SealedNamesKept) {
            outgoing.dictionary = Dictionary::default();
            outgoing.dictionary.spend();
        }
        outgoing.stops_at = None;
        let sent = (run.last.clone(), run.weight);
        self.send_encoded(now, (session_id, subscription), (after + 1, false, durable), sent, &run.bytes);
        true
    }

    /// Encodes a run for one subscription, and sends it.
    fn send_single(
        &mut self,
        now: &Now,
        (session_id, subscription): (SessionId, u32),
        (reach, durable): (Reach<'_>, u64),
        store: &dyn Store,
    ) -> Result<bool, StoreError> {
        let from = reach.from;
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(false) };
        let Some(outgoing) = session.outgoing.get(&subscription) else { return Ok(false) };
        let (id, lane_id, version) = (outgoing.space, outgoing.lane, session.version());
        let Some(lane) = self.spaces.get_mut(&id).and_then(|space| space.lanes.get_mut(&lane_id)) else {
            return Ok(false);
        };
        let is_ours = lane.row.owner.replica == self.replica;
        let goes_to = outgoing.until.unwrap_or(durable);
        let (mut until, mut stops_at) = (reach.until, None);
        let run = loop {
            if until <= from.lsn {
                break None;
            }
            let reach = Reach { until, ..reach };
            let run = read_proved(store, (&id, &lane_id), lane, is_ours.then_some(&self.key), reach)?;
            match run.as_ref().and_then(|(stretch, _)| stretch.first_beyond(version)) {
                // Where the segment's end cannot be proved, a run goes beyond it.
                None if run.is_none() && stops_at.is_none() && until < goes_to => until = goes_to,
                None => break run,
                Some(lsn) => (until, stops_at) = (lsn - 1, Some(lsn)),
            }
        };
        let Some(outgoing) = session.outgoing.get_mut(&subscription) else { return Ok(false) };
        let Some((stretch, proof)) = run else {
            // Nothing before what cannot be said can be proved.
            outgoing.stops_at = stops_at.map(|_| from.lsn + 1);
            if outgoing.until.is_some() {
                // Nor can a part be sent that cannot be proved: somebody else is asked.
                session.end_outgoing(subscription);
                self.refuse(session_id, subscription);
            }
            return Ok(false);
        };
        (outgoing.stops_at, outgoing.is_sealed) = (stops_at, false);
        let bytes = stretch.encode((&lane_id, &lane.row.owner), from, &proof, &mut outgoing.dictionary);
        let weight = stretch.bytes();
        let Some((_, last)) = stretch.entries.into_iter().next_back() else { return Ok(false) };
        let about = (from.lsn + 1, is_ours && self.waits.awaits(&lane_id), durable);
        self.send_encoded(now, (session_id, subscription), about, (last, weight), &bytes);
        Ok(true)
    }

    /// Sends a run: its first entry, whether a writer waits for it, up to where the lane is durable; its end, and its entries'
    /// bytes in stored form.
    fn send_encoded(
        &mut self,
        now: &Now,
        (session_id, subscription): (SessionId, u32),
        (first, awaited, durable): (u64, bool, u64),
        (last, weight): (LaneTip, usize),
        run: &[u8],
    ) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(outgoing) = session.outgoing.get_mut(&subscription) else { return };
        let class = outgoing.choose_class(subscription, last.lsn >= durable);
        outgoing.moved = now.monotonic;
        session.note_sent(now.monotonic, subscription, (last, weight));
        self.send_pieces((session_id, class), subscription, (first, awaited), run);
    }

    fn send_pieces(
        &mut self,
        (session, class): (SessionId, Class),
        subscription: u32,
        (first, awaited): (u64, bool),
        run: &[u8],
    ) {
        let outgoing = self.sessions.get(&session).and_then(|session| session.outgoing.get(&subscription));
        let ends = outgoing.is_some_and(|outgoing| outgoing.until == Some(outgoing.sent.lsn));
        let mut pieces = run.chunks(FRAME_BYTES_MAX - DATA_HEADER_BYTES_MAX).peekable();
        while let Some(bytes) = pieces.next() {
            let more = pieces.peek().is_some();
            let data = Data { subscription, more, awaited, ends, first, bytes };
            self.send(session, class, &Message::Data(data));
        }
    }

    /// Decides when to tell a peer what is held here: at once when it waits for it or has not been told for
    /// a while, and otherwise together with what follows shortly.
    fn plan_have(&mut self, now: &Now, session_id: SessionId, id: SpaceId) {
        let (Some(session), Some(space)) = (self.sessions.get(&session_id), self.spaces.get(&id)) else {
            return;
        };
        let Some(part) = session.spaces.get(&id) else { return };
        if canary!(HaveNeverSent) {
            return;
        }
        let known = if canary!(HaveBeforeSync) { &space.frontier } else { &space.durable };
        let news = known.ahead_of(&part.told).filter(|(lane, lsn)| !session.shows(&id, lane, *lsn));
        // A lane the peer has not heard of cannot reach it before it has: that is no matter for later.
        let Some(unheard) = news.map(|(lane, _)| part.told.at(&lane) == 0).max() else { return };
        let due = match part.have_sent_at {
            Some(at) if !part.have_awaited && !unheard => at + HAVE_INTERVAL,
            _ => now.monotonic,
        };
        if due <= now.monotonic {
            self.send_have(now, session_id, id);
        } else {
            self.timers.insert((due, Timer::Have(session_id, id)));
        }
    }

    /// Tells a peer how far this replica is durable in every lane, as far as the peer does not see that from what it receives.
    pub(crate) fn send_have(&mut self, now: &Now, session_id: SessionId, id: SpaceId) {
        let (Some(session), Some(space)) = (self.sessions.get_mut(&session_id), self.spaces.get(&id)) else {
            return;
        };
        if !session.is_open(&id) {
            return;
        }
        let Some(part) = session.spaces.get(&id) else { return };
        let known = if canary!(HaveBeforeSync) { &space.frontier } else { &space.durable };
        let news = known.ahead_of(&part.told).filter(|(lane, lsn)| !session.shows(&id, lane, *lsn));
        let news: Vec<(LaneId, u64)> = news.collect();
        let part = session.space_mut(&id);
        let mut lanes = Vec::new();
        for (lane, lsn) in news {
            part.told.advance(lane, lsn);
            lanes.push((part.name(lane), lsn));
        }
        if lanes.is_empty() {
            return;
        }
        part.have_sent_at = Some(now.monotonic);
        part.have_awaited = false;
        let have = Have { space_ref: part.own_ref, lanes };
        self.send(session_id, Class::Control, &Message::Have(have));
    }
}

/// Where a subscriber stands in a lane, seen from here.
pub(crate) enum Standing {
    /// At a position from which the lane can be served.
    At(LaneTip),
    /// Before what is kept here: up to this entry it is not.
    Gone(u64),
    /// Beyond what is held here.
    Unknown,
    /// At a position that holds something else here.
    Elsewhere,
}

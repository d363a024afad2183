//! Sending: greetings, frontiers, runs to subscribers, acknowledgements.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{LaneId, ReplicaId, SpaceId, canary};
use ed25519_dalek::SigningKey;

use crate::bootstrap::SnapshotTask;
use crate::change::{Body, LaneEntry, LaneTip, decode_stored};
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Timer};
use crate::hash::Hash;
use crate::head::{self, HeadSignature};
use crate::io::{Class, CloseReason, Now, Output, SessionId};
use crate::keys;
use crate::limits::{FRAME_BYTES_MAX, HAVE_INTERVAL, RUN_BYTES_MAX, RUN_BYTES_TARGET};
use crate::message::{
    DATA_HEADER_BYTES_MAX, Data, Gone, Have, Join, Message, Open, OpenLane, Subscribe, Unsubscribe,
};
use crate::offers::OFFERED;
use crate::proof::Proof;
use crate::rows::damaged;
use crate::run::{RUN_ENTRIES_MAX, encode_run};
use crate::session::{Outgoing, Session};
use crate::space::{Lane, Parent};
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
            let is_free = !space.parents.contains_key(lane_id) && !left_to_owners.contains(lane_id);
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
        if !session.spaces.get(&subscribe.space).is_some_and(|part| part.opened_by_peer)
            || subscribe.from == 0
            || subscribe.subscription & OFFERED != 0
        {
            return Err(CloseReason::Unexpected.into());
        }
        if session.outgoing.contains_key(&subscribe.subscription) {
            return Err(CloseReason::Unexpected.into());
        }
        if session.serving_space(&subscribe.space).count() >= LANES_MAX {
            return Err(CloseReason::TooMany.into());
        }
        let sent = match self.standing(subscribe, store)? {
            Standing::At(sent) => sent,
            Standing::Gone(floor) => {
                let gone = Gone { subscription: subscribe.subscription, floor };
                self.send(session_id, Class::Control, &Message::Gone(gone));
                return Ok(());
            }
            refused => {
                let refusal = Unsubscribe { subscription: subscribe.subscription, refused: true };
                self.send(session_id, Class::Control, &Message::Unsubscribe(refusal));
                if let Standing::Elsewhere = refused {
                    self.send_head(session_id, subscribe.space, subscribe.lane, subscribe.from - 1, store)?;
                }
                return Ok(());
            }
        };
        if let Some(session) = self.sessions.get_mut(&session_id) {
            let outgoing = Outgoing {
                space: subscribe.space,
                lane: subscribe.lane,
                dictionary: Dictionary::default(),
                start: sent.lsn,
                sent,
                in_flight: VecDeque::new(),
                in_flight_bytes: 0,
                moved: now.monotonic,
                class: Class::Live,
                stops_at: None,
            };
            session.serve(subscribe.subscription, outgoing);
            self.to_serve.insert((subscribe.space, session_id));
        }
        Ok(())
    }

    /// Where the subscriber stands in the lane. A frozen lane is served as far as it goes: other lanes build
    /// on it.
    pub(crate) fn standing(&self, subscribe: &Subscribe, store: &dyn Store) -> Result<Standing, StoreError> {
        let (id, lane_id, lsn) = (subscribe.space, subscribe.lane, subscribe.from - 1);
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
        let is_same = tip.hash.prefix() == subscribe.hash || canary!(SubscribedWithoutHash);
        Ok(if is_same { Standing::At(tip) } else { Standing::Elsewhere })
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
        if outgoing.sent.lsn >= durable || is_stopped || !session.has_room(outgoing) {
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
        let is_ours = lane.row.owner.replica == self.replica;
        let (from, version) = (outgoing.sent.clone(), session.version());
        let (mut until, mut stops_at) = (durable, None);
        let run = loop {
            if until <= from.lsn {
                break None;
            }
            let stretch = read_stretch(store, &id, &lane_id, &from, until)?;
            let run = if is_ours {
                let last = stretch.entries.last().map(|(_, tip)| (tip.lsn, tip.hash));
                let signature = last.map(|last| sign_once(&self.key, (&id, &lane_id), lane, last));
                signature.map(|signature| (stretch, signature.into()))
            } else {
                cut_at_head(store, (&id, &lane_id), lane, (&from, until), stretch)?
            };
            match run.as_ref().and_then(|(stretch, _)| stretch.first_beyond(version)) {
                None => break run,
                Some(lsn) => (until, stops_at) = (lsn - 1, Some(lsn)),
            }
        };
        let Some(outgoing) = session.outgoing.get_mut(&subscription) else { return Ok(false) };
        let Some((stretch, proof)) = run else {
            // Nothing before what cannot be said can be proved.
            outgoing.stops_at = stops_at.map(|_| from.lsn + 1);
            return Ok(false);
        };
        outgoing.stops_at = stops_at;
        // Nothing unacknowledged means that nothing can be overtaken: the moment to change streams. A lane
        // is live when one run brings it to the tip.
        let reaches_tip = stretch.entries.last().is_some_and(|(_, tip)| tip.lsn >= durable);
        if outgoing.in_flight.is_empty() {
            let is_unheard = subscription & OFFERED != 0 && outgoing.sent.lsn == outgoing.start;
            outgoing.class = match reaches_tip {
                _ if is_unheard => Class::Control,
                true => Class::Live,
                false => Class::CatchUp,
            };
        }
        let weight = stretch.sizes.iter().sum();
        if weight > RUN_BYTES_MAX / 2 {
            // References into a long dictionary can be longer than those of the stored form, up to twice.
            outgoing.dictionary.spend();
        }
        let (owner, entries) = (&lane.row.owner, stretch.entries);
        let bytes = encode_run(&lane_id, owner, &from, &entries, &proof, &mut outgoing.dictionary);
        let class = outgoing.class;
        outgoing.moved = now.monotonic;
        if let Some((_, last)) = entries.into_iter().next_back() {
            session.note_sent(now.monotonic, subscription, (last, weight));
        }
        let awaited = is_ours && self.waits.awaits(&lane_id);
        self.send_pieces(session_id, class, subscription, (from.lsn + 1, awaited), &bytes);
        Ok(true)
    }

    fn send_pieces(
        &mut self,
        session: SessionId,
        class: Class,
        subscription: u32,
        (first, awaited): (u64, bool),
        run: &[u8],
    ) {
        let mut pieces = run.chunks(FRAME_BYTES_MAX - DATA_HEADER_BYTES_MAX).peekable();
        while let Some(bytes) = pieces.next() {
            let more = pieces.peek().is_some();
            let data = Data { subscription, more, awaited, first, bytes };
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
struct Stretch {
    entries: Vec<(LaneEntry, LaneTip)>,
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

    fn reached(&self, from: &LaneTip) -> u64 {
        from.lsn + self.entries.len() as u64
    }

    /// The first entry that cannot be said in a version.
    fn first_beyond(&self, version: u16) -> Option<u64> {
        self.entries.iter().find(|(entry, _)| entry.version() > version).map(|(_, tip)| tip.lsn)
    }
}

/// Entries after `from`, about one run of them, none beyond `until`.
fn read_stretch(
    store: &dyn Store,
    space: &SpaceId,
    lane: &LaneId,
    from: &LaneTip,
    until: u64,
) -> Result<Stretch, StoreError> {
    let rows = store.lane_entries(space, lane, from.lsn + 1, RUN_BYTES_TARGET)?;
    let rows = rows.into_iter().take_while(|(lsn, _)| *lsn <= until).take(RUN_ENTRIES_MAX);
    let mut stretch = Stretch { entries: Vec::new(), sizes: Vec::new() };
    for (lsn, bytes) in rows {
        stretch.push((space, lane), from, (lsn, &bytes))?;
    }
    Ok(stretch)
}

/// Shortens or lengthens a stretch of a copied lane so that it ends where the lane can be proved; `None` when
/// no such place is known in reach.
fn cut_at_head(
    store: &dyn Store,
    (space, lane_id): (&SpaceId, &LaneId),
    lane: &Lane,
    (from, until): (&LaneTip, u64),
    mut stretch: Stretch,
) -> Result<Option<(Stretch, Proof)>, StoreError> {
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
    let keep = (lsn - from.lsn) as usize;
    stretch.entries.truncate(keep);
    stretch.sizes.truncate(keep);
    while stretch.reached(from) < *lsn {
        let next = stretch.reached(from) + 1;
        let bytes = store.lane_entry(space, lane_id, next)?;
        let bytes = bytes.ok_or_else(|| damaged("lane", &"an applied entry is missing"))?;
        stretch.push((space, lane_id), from, (next, &bytes))?;
    }
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
fn known_hash(lane: &Lane, lsn: u64) -> Option<Hash> {
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

fn stored_hash(
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
fn stored_tip(
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

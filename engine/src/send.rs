//! Sending: greetings, frontiers, runs to subscribers, acknowledgements.

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{LaneId, ReplicaId, SpaceId};

use crate::change::{Body, LaneEntry, LaneTip, decode_stored};
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Timer};
use crate::hash::Hash;
use crate::head::{self, HeadSignature};
use crate::io::{Class, Now, Output, SessionId};
use crate::keys;
use crate::limits::{
    CATCH_UP_WINDOW_BYTES, FRAME_BYTES_MAX, HAVE_INTERVAL, LIVE_WINDOW_BYTES, RUN_BYTES_MAX,
    RUN_BYTES_TARGET, SESSION_WINDOW_BYTES, SESSION_WINDOW_RUNS,
};
use crate::message::{
    DATA_HEADER_BYTES_MAX, Data, Have, Hello, Join, LaneRef, Message, Open, OpenLane, PROTOCOL_VERSION,
    Subscribe, Unsubscribe,
};
use crate::rows::damaged;
use crate::run::{RUN_ENTRIES_MAX, encode_run};
use crate::session::{Outgoing, Session};
use crate::space::Parent;
use crate::status::Freeze;
use crate::store::{Store, StoreError};

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
        self.sessions.insert(session, Session::new(peer));
        let hello =
            Hello { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION, wall_ms: now.wall_ms };
        self.send(session, Class::Control, &Message::Hello(hello));
        let shared: Vec<SpaceId> =
            self.spaces.values().filter(|space| space.admits(&peer)).map(|space| space.id).collect();
        for space in shared {
            if let Err(error) = self.open_space(now, session, space, store) {
                self.failed = Some(error);
                return;
            }
        }
    }

    pub(crate) fn on_session_closed(&mut self, session: SessionId) {
        let Some(ended) = self.sessions.remove(&session) else { return };
        for (id, _) in ended.spaces {
            if let Some(space) = self.spaces.get_mut(&id) {
                space.parents.retain(|_, parent| parent.session != session);
                self.dirty.insert(id);
            }
        }
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
        let (Some(session), Some(space)) = (self.sessions.get_mut(&session_id), self.spaces.get_mut(&id))
        else {
            return Ok(());
        };
        if session.space_mut(&id).opened_by_us {
            return Ok(());
        }
        let join = space.row.invitation.filter(|(inviter, _)| *inviter == session.peer);
        let mut lanes = Vec::new();
        for (lane_id, lane) in &space.lanes {
            let lsn = space.durable.at(lane_id);
            let hash = if lsn == lane.row.tip.lsn {
                lane.row.tip.hash
            } else {
                stored_hash(store, &id, lane_id, lsn)?.unwrap_or_else(|| LaneTip::start(&id, lane_id).hash)
            };
            let wanted = space.own_lane() != Some(*lane_id)
                && lane.row.frozen.is_none()
                && lane.staged_tip().lsn == lsn
                && !space.parents.contains_key(lane_id);
            let subscription = wanted.then(|| {
                let subscription = session.subscribe(id, *lane_id);
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
        let (space_ref, needs_genesis) = (part.own_ref, space.row.founder.is_none());
        if let Some((_, secret)) = join {
            self.send(session_id, Class::Control, &Message::Join(Join { space: id, secret }));
        }
        let open = Open { space_ref, space: id, needs_genesis, lanes };
        self.send(session_id, Class::Control, &Message::Open(open));
        Ok(())
    }

    /// Starts to serve a lane to a peer, from where the peer stands.
    pub(crate) fn on_subscribe(
        &mut self,
        session_id: SessionId,
        subscribe: &Subscribe,
        store: &mut dyn Store,
    ) -> Result<(), crate::receive::Refusal> {
        use crate::io::CloseReason;
        let Some(session) = self.sessions.get(&session_id) else { return Ok(()) };
        if !session.spaces.get(&subscribe.space).is_some_and(|part| part.opened_by_peer)
            || subscribe.from == 0
        {
            return Err(CloseReason::Unexpected.into());
        }
        if session.outgoing.contains_key(&subscribe.subscription) {
            return Err(CloseReason::Unexpected.into());
        }
        if session.outgoing.values().filter(|out| out.space == subscribe.space).count() >= LANES_MAX {
            return Err(CloseReason::TooMany.into());
        }
        let Some(sent) = self.standing(subscribe, store)? else {
            let refusal = Unsubscribe { subscription: subscribe.subscription, refused: true };
            self.send(session_id, Class::Control, &Message::Unsubscribe(refusal));
            return Ok(());
        };
        if let Some(session) = self.sessions.get_mut(&session_id) {
            let outgoing = Outgoing {
                space: subscribe.space,
                lane: subscribe.lane,
                dictionary: Dictionary::default(),
                sent,
                in_flight: std::collections::VecDeque::new(),
                in_flight_bytes: 0,
                class: Class::Live,
            };
            session.outgoing.insert(subscribe.subscription, outgoing);
            self.dirty.insert(subscribe.space);
        }
        Ok(())
    }

    /// Where the subscriber stands in the lane, or `None` when this replica cannot serve it from there.
    fn standing(
        &mut self,
        subscribe: &Subscribe,
        store: &mut dyn Store,
    ) -> Result<Option<LaneTip>, StoreError> {
        let (id, lane_id, lsn) = (subscribe.space, subscribe.lane, subscribe.from - 1);
        let Some(space) = self.spaces.get(&id) else { return Ok(None) };
        let Some(lane) = space.lanes.get(&lane_id) else { return Ok(None) };
        if lane.row.frozen.is_some() || lsn > space.durable.at(&lane_id) {
            return Ok(None);
        }
        if lsn == 0 {
            return Ok(Some(LaneTip::start(&id, &lane_id)));
        }
        let Some(tip) = stored_tip(store, &id, &lane_id, lsn)? else { return Ok(None) };
        if tip.hash.prefix() != subscribe.hash {
            self.freeze(id, lane_id, Freeze::Fork { lsn }, store)?;
            return Ok(None);
        }
        Ok(Some(tip))
    }

    /// The chain hash of a lane after an entry that is applied here.
    pub(crate) fn lane_hash(
        &self,
        id: SpaceId,
        lane_id: LaneId,
        lsn: u64,
        store: &dyn Store,
    ) -> Result<Option<Hash>, StoreError> {
        let tip = self.spaces.get(&id).and_then(|space| space.lanes.get(&lane_id)).map(|lane| &lane.row.tip);
        match tip {
            Some(tip) if tip.lsn == lsn => Ok(Some(tip.hash)),
            _ => stored_hash(store, &id, &lane_id, lsn),
        }
    }

    /// Sends every subscriber of a space what it lacks, as far as windows allow, and tells every peer what
    /// is held here.
    pub(crate) fn serve_subscribers(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        for session_id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get(&session_id) else { continue };
            if !session.is_open(&id) {
                continue;
            }
            let of_space = session.outgoing.iter().filter(|(_, outgoing)| outgoing.space == id);
            for subscription in of_space.map(|(subscription, _)| *subscription).collect::<Vec<_>>() {
                while self.send_run(session_id, subscription, store)? {}
            }
            self.plan_have(now, session_id, id);
        }
        Ok(())
    }

    /// Sends the next run of one subscription; `false` when there is none or the window is full.
    fn send_run(
        &mut self,
        session_id: SessionId,
        subscription: u32,
        store: &dyn Store,
    ) -> Result<bool, StoreError> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(false) };
        let Some(outgoing) = session.outgoing.get_mut(&subscription) else { return Ok(false) };
        let Some(space) = self.spaces.get_mut(&outgoing.space) else { return Ok(false) };
        let (id, lane_id) = (outgoing.space, outgoing.lane);
        let durable = space.durable.at(&lane_id);
        let window = if outgoing.class == Class::Live { LIVE_WINDOW_BYTES } else { CATCH_UP_WINDOW_BYTES };
        if outgoing.sent.lsn >= durable
            || outgoing.in_flight_bytes >= window
            || session.in_flight_bytes >= SESSION_WINDOW_BYTES
            || session.in_flight_runs >= SESSION_WINDOW_RUNS
        {
            return Ok(false);
        }
        let Some(lane) = space.lanes.get_mut(&lane_id) else { return Ok(false) };
        let is_ours = lane.row.owner.replica == self.replica;
        let from = &outgoing.sent;
        let Some((entries, signature)) = (if is_ours {
            let entries = read_run(store, &id, &lane_id, from, durable)?;
            entries.last().map(|(_, tip)| tip.clone()).map(|last| {
                let signed = lane.signed.filter(|(lsn, _)| *lsn == last.lsn);
                let signature = signed.map_or_else(
                    || head::sign(&self.key, &id, &lane_id, last.lsn, &last.hash),
                    |(_, sig)| sig,
                );
                lane.signed = Some((last.lsn, signature));
                (entries, signature)
            })
        } else {
            read_signed_run(store, &id, &lane_id, from, durable)?
        }) else {
            return Ok(false);
        };
        // Nothing unacknowledged means that nothing can be overtaken: the moment to change streams. A lane
        // is live when one run brings it to the tip.
        let reaches_tip = entries.last().is_some_and(|(_, tip)| tip.lsn >= durable);
        if outgoing.in_flight.is_empty() {
            outgoing.class = if reaches_tip { Class::Live } else { Class::CatchUp };
        }
        let dictionary = &mut outgoing.dictionary;
        let bytes = encode_run(&lane_id, &lane.row.owner, from, &entries, &signature, dictionary);
        let first = from.lsn + 1;
        let class = outgoing.class;
        if let Some((_, last)) = entries.into_iter().next_back() {
            outgoing.in_flight.push_back((last.lsn, bytes.len()));
            outgoing.sent = last;
        }
        outgoing.in_flight_bytes += bytes.len();
        session.in_flight_bytes += bytes.len();
        session.in_flight_runs += 1;
        let awaited = is_ours && self.waits.awaits(&lane_id);
        self.send_pieces(session_id, class, subscription, (first, awaited), &bytes);
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
        if !space.durable.ahead_of(&part.told).any(|(lane, _)| !session.serves(&id, &lane)) {
            return;
        }
        let due = match part.have_sent_at {
            Some(at) if !part.have_awaited => at + HAVE_INTERVAL,
            _ => now.monotonic,
        };
        if due <= now.monotonic {
            self.send_have(now, session_id, id);
        } else {
            self.timers.insert((due, Timer::Have(session_id, id)));
        }
    }

    /// Tells a peer how far this replica is durable in every lane that the peer does not receive from it.
    pub(crate) fn send_have(&mut self, now: &Now, session_id: SessionId, id: SpaceId) {
        let (Some(session), Some(space)) = (self.sessions.get_mut(&session_id), self.spaces.get(&id)) else {
            return;
        };
        if !session.is_open(&id) {
            return;
        }
        let told = &session.space_mut(&id).told.clone();
        let news = space.durable.ahead_of(told).filter(|(lane, _)| !session.serves(&id, lane));
        let news: Vec<(LaneId, u64)> = news.collect();
        let part = session.space_mut(&id);
        let mut lanes = Vec::new();
        for (lane, lsn) in news {
            part.told.advance(lane, lsn);
            let place = part.named_by_us.iter().position(|named| *named == lane);
            lanes.push(match place {
                Some(place) => (LaneRef::Known(place as u32), lsn),
                None => {
                    part.named_by_us.push(lane);
                    (LaneRef::New(lane), lsn)
                }
            });
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

type Entries = Vec<(LaneEntry, LaneTip)>;

/// Entries after `from`, about one run of them, none beyond `until`.
fn read_run(
    store: &dyn Store,
    space: &SpaceId,
    lane: &LaneId,
    from: &LaneTip,
    until: u64,
) -> Result<Entries, StoreError> {
    let rows = store.lane_entries(space, lane, from.lsn + 1, RUN_BYTES_TARGET)?;
    let rows = rows.into_iter().take_while(|(lsn, _)| *lsn <= until).take(RUN_ENTRIES_MAX);
    let mut entries: Entries = Vec::new();
    for (lsn, bytes) in rows {
        let before = entries.last().map_or(from, |(_, tip)| tip);
        let next = decode_row(space, lane, before, (lsn, &bytes))?;
        entries.push(next);
    }
    Ok(entries)
}

/// Entries after `from` that end at a head the owner signed and this replica kept.
fn read_signed_run(
    store: &dyn Store,
    space: &SpaceId,
    lane: &LaneId,
    from: &LaneTip,
    until: u64,
) -> Result<Option<(Entries, HeadSignature)>, StoreError> {
    let mut entries = read_run(store, space, lane, from, until)?;
    let reached = entries.last().map_or(from.lsn, |(_, tip)| tip.lsn);
    let (first, end) = keys::heads_from(space, lane, from.lsn + 1);
    let mut best = None;
    for (key, value) in store.scan(&first, &end, RUN_ENTRIES_MAX)? {
        let lsn = key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or(u64::MAX);
        if lsn > until || (lsn > reached && best.is_some()) {
            break;
        }
        let signature = HeadSignature::try_from(value.as_slice());
        best = Some((lsn, signature.map_err(|_| damaged("signed head", &"it has not 64 bytes"))?));
        if lsn > reached {
            break;
        }
    }
    let Some((lsn, signature)) = best else { return Ok(None) };
    entries.truncate((lsn - from.lsn) as usize);
    while entries.last().map_or(from.lsn, |(_, tip)| tip.lsn) < lsn {
        let before = entries.last().map_or(from, |(_, tip)| tip);
        let next = store.lane_entry(space, lane, before.lsn + 1)?;
        let bytes = next.ok_or_else(|| damaged("lane", &"an applied entry is missing"))?;
        let next = decode_row(space, lane, before, (before.lsn + 1, &bytes))?;
        entries.push(next);
    }
    debug_assert!(entries.len() <= RUN_ENTRIES_MAX || RUN_BYTES_MAX > 0, "heads are kept close enough");
    Ok(Some((entries, signature)))
}

fn decode_row(
    space: &SpaceId,
    lane: &LaneId,
    before: &LaneTip,
    (lsn, bytes): (u64, &[u8]),
) -> Result<(LaneEntry, LaneTip), StoreError> {
    let (hash, entry) = decode_stored(space, lane, bytes).map_err(|error| damaged("lane entry", &error))?;
    let mut tip = before.clone();
    tip.lsn = lsn;
    tip.hash = hash;
    tip.admitted = entry.admitted.clone();
    tip.at = entry.at;
    if let Body::Change(change) = &entry.body {
        tip.seq = change.seq;
        tip.hlc = change.hlc;
    }
    Ok((entry, tip))
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

/// Where a lane stood after an entry, as far as encoding the next one needs to know.
fn stored_tip(
    store: &dyn Store,
    space: &SpaceId,
    lane: &LaneId,
    lsn: u64,
) -> Result<Option<LaneTip>, StoreError> {
    let mut tip = LaneTip::start(space, lane);
    let Some(bytes) = store.lane_entry(space, lane, lsn)? else { return Ok(None) };
    let (entry, after) = decode_row(space, lane, &tip, (lsn, &bytes))?;
    tip = after;
    // Entries that are not change sets carry no number: look for the last one that is.
    let (mut body, mut at) = (entry.body, lsn);
    while matches!(body, Body::Checkpoint(_)) && at > 1 {
        at -= 1;
        let Some(bytes) = store.lane_entry(space, lane, at)? else { break };
        body = decode_stored(space, lane, &bytes).map_err(|error| damaged("lane entry", &error))?.1.body;
        if let Body::Change(change) = &body {
            tip.seq = change.seq;
        }
    }
    Ok(Some(tip))
}

//! What the core knows of one connection. Nothing here outlives it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, OriginId, ReplicaId, SpaceId, canary};

use crate::audit::SessionAudit;
use crate::bootstrap::Served;
use crate::change::LaneTip;
use crate::dictionary::Dictionary;
use crate::engine::Engine;
use crate::io::{Class, SessionId};
use crate::lag::Rate;
use crate::limits::{
    CATCH_UP_WINDOW_BYTES, CATCH_UP_WINDOW_BYTES_4, LIVE_WINDOW_BYTES, RANGE_WINDOW_BYTES,
    SESSION_WINDOW_BYTES, SESSION_WINDOW_RUNS,
};
use crate::message::{Knows, LaneRef, Message};
use crate::offers::OFFERED;
use crate::quiet::{Comparison, Said};
use crate::round_trip::RoundTrip;
use crate::space::Parent;
use crate::version::WITH_WIDE_WINDOWS;

/// A lane this replica receives on the session.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) space: SpaceId,
    pub(crate) lane: LaneId,
    pub(crate) dictionary: Dictionary,
    /// The pieces of a run that is not complete yet, with its first entry.
    pub(crate) partial: Option<(u64, Vec<u8>)>,
    pub(crate) course: Course,
    /// When the lane was asked for, until the first answer, if the peer had something to send then.
    pub(crate) asked: Option<Duration>,
}

/// How a lane is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Entry by entry, from where it stands.
    Stream,
    /// As a part, of which more is to come.
    Part,
    /// As a part, all of which is here.
    WholePart,
}

/// A run that the peer has not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    /// Its last entry.
    last: u64,
    /// In stored form.
    bytes: usize,
    sent: Duration,
}

/// A lane this replica sends on the session: a cursor, not a queue.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) space: SpaceId,
    pub(crate) lane: LaneId,
    pub(crate) dictionary: Dictionary,
    /// Where the peer stood when it asked.
    pub(crate) start: u64,
    /// Where the peer stands once all that was sent has arrived.
    pub(crate) sent: LaneTip,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) in_flight_bytes: usize,
    /// When it was made, or last went on.
    pub(crate) moved: Duration,
    pub(crate) class: Class,
    /// The entry that cannot be said in the session's version: the lane goes no further on it.
    pub(crate) stops_at: Option<u64>,
    /// What was sent last is the same for everybody, and so what follows in its segment can be.
    pub(crate) is_sealed: bool,
    /// The last entry that is sent, if the subscription ends.
    pub(crate) until: Option<u64>,
}

impl Outgoing {
    /// A subscriber stands at an entry of a lane.
    pub(crate) fn new((space, lane): (SpaceId, LaneId), sent: LaneTip, now: Duration, class: Class) -> Self {
        Self {
            space,
            lane,
            dictionary: Dictionary::default(),
            start: sent.lsn,
            sent,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            moved: now,
            class,
            stops_at: None,
            is_sealed: false,
            until: None,
        }
    }

    /// On which stream the next run goes. Nothing unacknowledged means that nothing can be overtaken: the moment to change
    /// streams. A lane is live when one run brings it to the tip.
    pub(crate) fn choose_class(&mut self, subscription: u32, reaches_tip: bool) -> Class {
        if self.in_flight.is_empty() {
            let is_unheard = subscription & OFFERED != 0 && self.sent.lsn == self.start;
            self.class = match reaches_tip {
                _ if is_unheard => Class::Control,
                _ if self.until.is_some() => Class::CatchUp,
                true => Class::Live,
                false => Class::CatchUp,
            };
        }
        self.class
    }
}

/// One space on one session.
#[derive(Debug, Default)]
pub(crate) struct PeerSpace {
    /// The number by which this side names the space.
    pub(crate) own_ref: u32,
    pub(crate) opened_by_us: bool,
    pub(crate) opened_by_peer: bool,
    /// It was quiet until something happened, and the peer has not refused it since.
    pub(crate) roused: bool,
    /// Lanes this side has named, in order; `Have` refers to them by place.
    pub(crate) named_by_us: Vec<LaneId>,
    pub(crate) named_by_peer: Vec<LaneId>,
    /// What the peer holds durably, as it said in this session.
    pub(crate) peer_have: Frontier,
    /// Up to where the peer does not keep lanes, as it said in this session.
    pub(crate) peer_floors: Frontier,
    /// What the peer was told is held here.
    pub(crate) told: Frontier,
    pub(crate) have_sent_at: Option<Duration>,
    /// The peer waits for an acknowledgement.
    pub(crate) have_awaited: bool,
    /// The invitation's secret that was presented, and whether it was denied; the opening after it is
    /// answered separately.
    pub(crate) join_sent: Option<[u8; 16]>,
    pub(crate) join_denied: bool,
    /// The peer was asked where it stands, and has not answered: the question's number, and when it was asked.
    pub(crate) asked: Option<(u32, Duration)>,
    /// Entries that the peer came to hold durably.
    pub(crate) acked: Rate,
}

impl PeerSpace {
    /// How a lane is named to the peer: by its place, or by its id the first time.
    pub(crate) fn name(&mut self, lane: LaneId) -> LaneRef {
        match self.named_by_us.iter().position(|named| *named == lane) {
            Some(place) => LaneRef::Known(place as u32),
            None => {
                self.named_by_us.push(lane);
                LaneRef::New(lane)
            }
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: ReplicaId,
    pub(crate) greeted: bool,
    /// The version that both sides speak, once the peer has greeted.
    pub(crate) negotiated: Option<u16>,
    /// The lowest version that this side speaks.
    version_min: u16,
    /// There is no version that both speak.
    pub(crate) is_refused: bool,
    /// What the peer knows of later versions, if it said so.
    pub(crate) knows: Option<Knows>,
    /// What this side said that it shares with the peer.
    pub(crate) said: Said,
    pub(crate) comparison: Comparison,
    pub(crate) spaces: BTreeMap<SpaceId, PeerSpace>,
    /// Spaces that were closed on this session and not opened by the peer since: what it says of them is stale.
    pub(crate) withdrawn: BTreeSet<SpaceId>,
    /// How many openings of each space may still come that the peer made before it heard that it was closed here.
    pub(crate) crossing: BTreeMap<SpaceId, u32>,
    /// The peer's numbers for spaces.
    pub(crate) peer_refs: BTreeMap<u32, SpaceId>,
    pub(crate) incoming: BTreeMap<u32, Incoming>,
    /// The subscriptions in `incoming` by space.
    receiving: BTreeSet<(SpaceId, u32)>,
    pub(crate) outgoing: BTreeMap<u32, Outgoing>,
    /// The subscriptions in `outgoing` by space and lane.
    serving: BTreeSet<(SpaceId, LaneId, u32)>,
    pub(crate) next_space_ref: u32,
    pub(crate) next_subscription: u32,
    /// Of the subscriptions that this side made for what it sends, and that the peer made.
    pub(crate) next_offer: u32,
    pub(crate) offers_heard: u32,
    pub(crate) next_question: u32,
    pub(crate) next_snapshot: u32,
    /// Snapshots that the peer is being sent, by its numbers.
    pub(crate) served: BTreeMap<u32, Served>,
    pub(crate) audit: SessionAudit,
    pub(crate) in_flight_bytes: usize,
    pub(crate) in_flight_runs: usize,
    pub(crate) round_trip: RoundTrip,
    /// Bytes of runs that came, and of those that were wanted when they had come.
    pub(crate) received_bytes: u64,
    pub(crate) needed_bytes: u64,
}

impl Session {
    pub(crate) fn new(peer: ReplicaId, version_min: u16) -> Self {
        Self {
            peer,
            greeted: false,
            negotiated: None,
            version_min,
            is_refused: false,
            knows: None,
            said: Said::default(),
            comparison: Comparison::default(),
            spaces: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            crossing: BTreeMap::new(),
            peer_refs: BTreeMap::new(),
            incoming: BTreeMap::new(),
            receiving: BTreeSet::new(),
            outgoing: BTreeMap::new(),
            serving: BTreeSet::new(),
            next_space_ref: 0,
            next_subscription: 0,
            next_offer: 0,
            offers_heard: 0,
            next_question: 0,
            next_snapshot: 0,
            served: BTreeMap::new(),
            audit: SessionAudit::default(),
            in_flight_bytes: 0,
            in_flight_runs: 0,
            round_trip: RoundTrip::default(),
            received_bytes: 0,
            needed_bytes: 0,
        }
    }

    /// The protocol version of what is sent: that which both sides speak, and until the peer has greeted the lowest one that
    /// is spoken here.
    pub(crate) fn version(&self) -> u16 {
        self.negotiated.unwrap_or(self.version_min)
    }

    /// Lanes of which the next entry cannot be said in the session's version.
    pub(crate) fn stopped_lanes(&self) -> u64 {
        let is_stopped = |outgoing: &&Outgoing| outgoing.stops_at == Some(outgoing.sent.lsn + 1);
        self.outgoing.values().filter(is_stopped).count() as u64
    }

    /// The session's part in a space, numbered on first use.
    pub(crate) fn space_mut(&mut self, space: &SpaceId) -> &mut PeerSpace {
        let next = &mut self.next_space_ref;
        self.spaces.entry(*space).or_insert_with(|| {
            let own_ref = *next;
            *next += 1;
            PeerSpace { own_ref, ..PeerSpace::default() }
        })
    }

    /// Whether a message is about a space that was closed here before the peer knew.
    pub(crate) fn is_stale(&self, message: &Message<'_>) -> bool {
        let by_ref = |space_ref: u32| self.peer_refs.get(&space_ref).copied();
        let space = match message {
            Message::Subscribe(subscribe) | Message::Offer(subscribe) => Some(subscribe.space),
            Message::Range(range) => Some(range.space),
            Message::Head(head) => Some(head.space),
            Message::RightsRequest(request) => Some(request.space),
            Message::FrontierRequest(request) => Some(request.space),
            Message::SnapshotAsk(ask) => Some(ask.space),
            Message::AuditAsk(ask) => Some(ask.space),
            Message::AuditFetch(fetch) => Some(fetch.space),
            Message::AuditSuspect(suspect) => Some(suspect.space),
            Message::Have(have) => by_ref(have.space_ref),
            Message::FrontierAnswer(answer) => by_ref(answer.space_ref),
            // The first three may come before the space is open; the others name subscriptions and snapshots, which are
            // over.
            Message::Join(_)
            | Message::Genesis(_)
            | Message::Open(_)
            | Message::Hello(_)
            | Message::Knows(_)
            | Message::Shared(_)
            | Message::Heard
            | Message::Branches(_)
            | Message::Leaves(_)
            | Message::Denied(_)
            | Message::Removed(_)
            | Message::Unsubscribe(_)
            | Message::Gone(_)
            | Message::Limit(_)
            | Message::Limited(_)
            | Message::SnapshotOffer(_)
            | Message::SnapshotRead(_)
            | Message::SnapshotSame(_)
            | Message::SnapshotPiece(_)
            | Message::SnapshotStop(_)
            | Message::AuditReply(_)
            | Message::AuditRows(_)
            | Message::Data(_)
            | Message::Skippable(_) => None,
        };
        space.is_some_and(|space| self.withdrawn.contains(&space))
    }

    /// Whether both sides have opened the space.
    pub(crate) fn is_open(&self, space: &SpaceId) -> bool {
        self.spaces.get(space).is_some_and(|part| part.opened_by_us && part.opened_by_peer)
    }

    /// The peer's subscriptions to a lane; more than one only when it asks for the lane twice. O(log n).
    pub(crate) fn serving_lane(&self, space: &SpaceId, lane: &LaneId) -> impl Iterator<Item = u32> + '_ {
        self.serving.range((*space, *lane, 0)..=(*space, *lane, u32::MAX)).map(|(_, _, number)| *number)
    }

    /// The peer's subscriptions to lanes of a space.
    pub(crate) fn serving_space(&self, space: &SpaceId) -> impl Iterator<Item = u32> + '_ {
        let (first, last) = (OriginId([0; 16]), OriginId([0xff; 16]));
        self.serving.range((*space, first, 0)..=(*space, last, u32::MAX)).map(|(_, _, number)| *number)
    }

    /// Ends the peer's subscriptions to lanes of a space.
    pub(crate) fn end_outgoing_of(&mut self, space: &SpaceId) {
        for subscription in self.serving_space(space).collect::<Vec<_>>() {
            self.end_outgoing(subscription);
        }
    }

    /// Whether the peer learns from what it receives that a lane is held here up to `lsn`: not of what it had before.
    pub(crate) fn shows(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> bool {
        let mut serving = self.serving_lane(space, lane).filter_map(|number| self.outgoing.get(&number));
        serving.any(|outgoing| outgoing.start < lsn && outgoing.until.is_none_or(|until| lsn <= until))
    }

    /// Starts to serve a lane.
    pub(crate) fn serve(&mut self, subscription: u32, outgoing: Outgoing) {
        self.serving.insert((outgoing.space, outgoing.lane, subscription));
        self.outgoing.insert(subscription, outgoing);
    }

    /// Names a subscription. `asked` is when, if the peer is known to have something to send.
    pub(crate) fn subscribe(&mut self, space: SpaceId, lane: LaneId, asked: Option<Duration>) -> u32 {
        let subscription = self.next_subscription;
        self.next_subscription += 1;
        self.receive(subscription, space, lane, asked);
        subscription
    }

    /// A lane is received on a subscription from now on.
    pub(crate) fn receive(
        &mut self,
        subscription: u32,
        space: SpaceId,
        lane: LaneId,
        asked: Option<Duration>,
    ) {
        let incoming = Incoming {
            space,
            lane,
            dictionary: Dictionary::default(),
            partial: None,
            course: Course::Stream,
            asked,
        };
        self.incoming.insert(subscription, incoming);
        self.receiving.insert((space, subscription));
    }

    /// Parts of lanes that the peer was asked for and has not sent as wholes. O(subscriptions).
    pub(crate) fn parts_awaited(&self) -> usize {
        self.incoming.values().filter(|incoming| incoming.course == Course::Part).count()
    }

    /// Whether the peer may make a subscription of this number to a lane of a space.
    pub(crate) fn can_be_asked(&self, space: &SpaceId, subscription: u32) -> bool {
        self.spaces.get(space).is_some_and(|part| part.opened_by_peer)
            && subscription & OFFERED == 0
            && !self.outgoing.contains_key(&subscription)
    }

    /// Whether there was a subscription of a number, which may be over.
    pub(crate) fn knew(&self, subscription: u32) -> bool {
        let number = subscription & !OFFERED;
        let made = if subscription & OFFERED == 0 { self.next_subscription } else { self.offers_heard };
        number < made
    }

    /// Nothing is received on a subscription any more.
    pub(crate) fn end_incoming(&mut self, subscription: u32) -> Option<Incoming> {
        let ended = self.incoming.remove(&subscription)?;
        self.receiving.remove(&(ended.space, subscription));
        Some(ended)
    }

    /// Nothing is received of a space any more.
    pub(crate) fn end_incoming_of(&mut self, space: &SpaceId) {
        for subscription in self.receiving_of(space) {
            self.end_incoming(subscription);
        }
    }

    fn receiving_of(&self, space: &SpaceId) -> Vec<u32> {
        let of_space = self.receiving.range((*space, 0)..=(*space, u32::MAX));
        of_space.map(|(_, subscription)| *subscription).collect()
    }

    /// The peer opened the space after this side had asked for lanes in opening it: of those that it has more of, the
    /// first answer tells how far away it is.
    pub(crate) fn note_asked(
        &mut self,
        id: &SpaceId,
        parents: &BTreeMap<LaneId, Parent>,
        durable: &Frontier,
    ) {
        let receiving = self.receiving_of(id);
        let Some(part) = self.spaces.get(id) else { return };
        // What is offered was not asked for.
        for subscription in receiving.into_iter().filter(|subscription| subscription & OFFERED == 0) {
            let Some(incoming) = self.incoming.get_mut(&subscription) else { continue };
            let has_more = part.peer_have.at(&incoming.lane) > durable.at(&incoming.lane);
            incoming.asked = parents.get(&incoming.lane).filter(|_| has_more).map(|parent| parent.since);
        }
    }

    /// Whether the peer asked for a lane before it heard that it is offered: it ends one of the two when it has.
    pub(crate) fn is_offered_too(&self, subscription: u32, outgoing: &Outgoing) -> bool {
        let mut serving = self.serving_lane(&outgoing.space, &outgoing.lane);
        subscription & OFFERED == 0 && serving.any(|other| other & OFFERED != 0)
    }

    /// Whether windows allow another run. A lane that has nothing under way always may send one: what all
    /// the others wait for may be in it.
    pub(crate) fn has_room(&self, outgoing: &Outgoing) -> bool {
        let is_behind = outgoing.class == Class::CatchUp;
        let window = match (is_behind, self.version() < WITH_WIDE_WINDOWS) {
            _ if outgoing.until.is_some() => RANGE_WINDOW_BYTES,
            (false, _) => LIVE_WINDOW_BYTES,
            (true, true) => CATCH_UP_WINDOW_BYTES_4,
            (true, false) => CATCH_UP_WINDOW_BYTES,
        };
        let session_has_room =
            self.in_flight_bytes < SESSION_WINDOW_BYTES && self.in_flight_runs < SESSION_WINDOW_RUNS;
        outgoing.in_flight.is_empty() || (outgoing.in_flight_bytes < window && session_has_room)
    }

    /// A run that ends at `last` was sent.
    pub(crate) fn note_sent(&mut self, sent: Duration, subscription: u32, (last, bytes): (LaneTip, usize)) {
        let Some(outgoing) = self.outgoing.get_mut(&subscription) else { return };
        outgoing.in_flight.push_back(InFlight { last: last.lsn, bytes, sent });
        outgoing.in_flight_bytes += bytes;
        outgoing.sent = last;
        self.in_flight_bytes += bytes;
        self.in_flight_runs += 1;
    }

    /// Takes back what the window counted for a subscription that ends.
    pub(crate) fn end_outgoing(&mut self, subscription: u32) {
        if let Some(ended) = self.outgoing.remove(&subscription) {
            self.in_flight_bytes -= ended.in_flight_bytes;
            self.in_flight_runs -= ended.in_flight.len();
            self.serving.remove(&(ended.space, ended.lane, subscription));
        }
    }

    /// The peer acknowledged `lane` up to `lsn`.
    pub(crate) fn acknowledge(&mut self, now: Duration, space: &SpaceId, lane: &LaneId, lsn: u64) {
        if canary!(WindowNeverOpens) {
            return;
        }
        for subscription in self.serving_lane(space, lane).collect::<Vec<_>>() {
            let Some(outgoing) = self.outgoing.get_mut(&subscription) else { continue };
            let mut newest = None;
            while let Some(InFlight { bytes, sent, .. }) =
                outgoing.in_flight.front().copied().filter(|run| run.last <= lsn)
            {
                newest = Some(sent);
                outgoing.in_flight.pop_front();
                outgoing.in_flight_bytes -= bytes;
                self.in_flight_bytes -= bytes;
                self.in_flight_runs -= 1;
            }
            if let Some(sent) = newest {
                self.round_trip.note(now.saturating_sub(sent));
                self.end_if_complete(subscription);
            }
        }
    }
}

impl Engine {
    /// Whether a peer has opened a space on a later connection already: what it says on this one is older.
    pub(crate) fn is_overtaken(&self, session_id: SessionId, id: &SpaceId) -> bool {
        let Some(peer) = self.sessions.get(&session_id).map(|session| session.peer) else { return false };
        let later = self.sessions.range((Bound::Excluded(session_id), Bound::Unbounded));
        let has_opened = |session: &Session| session.spaces.get(id).is_some_and(|part| part.opened_by_peer);
        later.into_iter().any(|(_, session)| session.peer == peer && has_opened(session))
    }
}

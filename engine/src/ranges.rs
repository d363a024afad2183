//! Catching up from several peers at once: a lane that is far behind is asked for in parts, of whoever has it.
//! Parts arrive in any order. Each waits as it came until the lane has reached it, and is checked then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use comity_crdts::{LaneId, SpaceId, canary};

use crate::engine::Engine;
use crate::io::{Class, CloseReason, Notice, Now, Output, SessionId};
use crate::lag::ENTRY_BYTES_GUESS;
use crate::limits::{
    PART_BYTES_TARGET, PARTS_ASKED_MAX, PARTS_MAX, PARTS_OF_SESSION_MAX, PARTS_SERVED_MAX, RANGE_PARTS_MIN,
    RANGE_STAGED_BYTES, RANGE_WINDOW_BYTES, RUN_BYTES_MAX,
};
use crate::message::{Limit, Limited, Message, Range, Unsubscribe};
use crate::parents::Candidate;
use crate::receive::Refusal;
use crate::segments::{end_of_part, round_entries};
use crate::send::Standing;
use crate::session::{Course, Outgoing, Session};
use crate::space::Space;
use crate::store::{Store, StoreError};
use crate::version::WITH_RANGES;

/// A lane that is received in parts.
#[derive(Debug, Default)]
pub(crate) struct Ranged {
    /// Where the subscription ends that the lane was received by before, once its sender has said so.
    stream_ends: Option<u64>,
    /// The first entry that nobody was asked for; not known until then.
    next: Option<u64>,
    /// In the order of the lane, without gaps.
    parts: VecDeque<Part>,
    /// The least time that a part took.
    quickest: Option<Duration>,
}

/// Entries that one peer is asked for.
#[derive(Debug)]
struct Part {
    from: u64,
    until: u64,
    /// Nobody, when who was asked is gone.
    holder: Option<Holder>,
}

/// Who was asked for a part, and what came of it.
#[derive(Debug)]
struct Holder {
    session: SessionId,
    subscription: u32,
    asked: Duration,
    /// When something came last.
    moved: Duration,
    runs: VecDeque<WaitingRun>,
    bytes: usize,
    is_whole: bool,
}

/// A run that waits until its lane has come to it.
#[derive(Debug)]
struct WaitingRun {
    /// Its first entry.
    first: u64,
    /// Its sender waits for an acknowledgement.
    awaited: bool,
    bytes: Vec<u8>,
}

/// A run whose turn has come, and where it came from.
struct DueRun {
    session: SessionId,
    subscription: u32,
    run: WaitingRun,
}

impl Ranged {
    /// From whom the lane goes on.
    pub(crate) fn source(&self) -> Option<SessionId> {
        self.parts.front()?.holder.as_ref().map(|holder| holder.session)
    }

    /// Parts that somebody is asked for.
    pub(crate) fn held(&self) -> usize {
        self.parts.iter().filter(|part| part.holder.is_some()).count()
    }

    fn holder_mut(&mut self, session: SessionId, subscription: u32) -> Option<&mut Holder> {
        let mut holders = self.parts.iter_mut().filter_map(|part| part.holder.as_mut());
        holders.find(|holder| (holder.session, holder.subscription) == (session, subscription))
    }

    /// A peer does not send a part any more, or any. Returns by which subscriptions those were to come.
    pub(crate) fn lose(&mut self, session: SessionId, subscription: Option<u32>) -> Vec<u32> {
        let is_of = |holder: &mut Holder| {
            holder.session == session && subscription.is_none_or(|number| number == holder.subscription)
        };
        let lost = self.parts.iter_mut().filter_map(|part| part.holder.take_if(is_of));
        lost.map(|holder| holder.subscription).collect()
    }

    /// What was to come by the subscription before and did not is a part as well.
    fn join(&mut self, have: u64) {
        let first = self.parts.front().map(|part| part.from).or(self.next);
        match first {
            None => self.next = Some(have + 1),
            Some(first) if first <= have && self.parts.is_empty() => self.next = Some(have + 1),
            Some(first) if first > have + 1 => {
                self.parts.push_front(Part { from: have + 1, until: first - 1, holder: None });
            }
            Some(_) => {}
        }
    }

    /// Parts that a session is asked for and has not sent as a whole.
    fn outstanding(&self, session: SessionId) -> usize {
        let holders = self.parts.iter().filter_map(|part| part.holder.as_ref());
        holders.filter(|holder| holder.session == session && !holder.is_whole).count()
    }

    /// The next entries to ask for: a part that nobody sends, or the next whole one that somebody has.
    fn to_ask(&self, has: u64, entries: u64) -> Option<(u64, u64)> {
        if let Some(part) = self.parts.iter().find(|part| part.holder.is_none()) {
            if canary!(PartForgotten) {
                return None;
            }
            return Some((part.from, part.until));
        }
        let next = self.next.filter(|_| self.parts.len() < PARTS_MAX)?;
        let end = end_of_part(next - 1, entries);
        (end <= has).then_some((next, end))
    }
}

impl Space {
    /// A session does not send parts of any lane any more.
    pub(crate) fn lose_parts(&mut self, session: SessionId) {
        self.unfit.retain(|(_, of)| *of != session);
        for (lane, ranged) in &mut self.ranges {
            if !ranged.lose(session, None).is_empty() {
                self.review.insert(*lane);
            }
        }
    }

    /// A peer does not send a part, and is not asked for others.
    pub(crate) fn lose_part(&mut self, (lane, session): (LaneId, SessionId), subscription: u32) {
        if let Some(ranged) = self.ranges.get_mut(&lane)
            && !ranged.lose(session, Some(subscription)).is_empty()
        {
            self.unfit.insert((lane, session));
            self.review.insert(lane);
        }
    }
}

impl Engine {
    /// Sees to a lane that is, or is to be, received in parts. Returns whether that is all that is to be done for it.
    pub(crate) fn tend_ranges(
        &mut self,
        now: &Now,
        (id, lane): (SpaceId, LaneId),
        candidates: &[Candidate],
        have: u64,
    ) -> bool {
        let Some(space) = self.spaces.get_mut(&id) else { return true };
        let parent = space.parents.get(&lane).copied();
        let Some(ranged) = space.ranges.get_mut(&lane) else {
            return self.begin_ranges(now, (id, lane), candidates, have);
        };
        match (parent, ranged.stream_ends) {
            (None, _) => ranged.join(have),
            // It has not said yet where it ends.
            (Some(_), None) => return false,
            (Some(_), Some(_)) => {}
        }
        self.ask_parts(now, (id, lane), candidates);
        if parent.is_some() {
            return false;
        }
        self.take_from_slow(now, (id, lane), candidates);
        if self.is_over((id, lane), candidates) && !canary!(PartForgotten) {
            self.drop_ranges(id, lane);
            return false;
        }
        true
    }

    /// Whether there is no part any more that the lane goes on with, and nobody who could be asked for it.
    fn is_over(&self, (id, lane): (SpaceId, LaneId), candidates: &[Candidate]) -> bool {
        let Some(space) = self.spaces.get(&id) else { return false };
        let Some(ranged) = space.ranges.get(&lane) else { return false };
        let Some(part) = ranged.parts.front() else { return true };
        part.holder.is_none()
            && !candidates.iter().any(|candidate| self.can_send_parts(space, lane, candidate, part.until))
    }

    /// Whether a peer can be asked for parts of a lane up to an entry.
    fn can_send_parts(&self, space: &Space, lane: LaneId, candidate: &Candidate, until: u64) -> bool {
        let session = self.sessions.get(&candidate.session);
        candidate.has >= until
            && !space.unfit.contains(&(lane, candidate.session))
            && session.is_some_and(|session| session.version() >= WITH_RANGES)
    }

    /// Begins to receive a lane in parts, if two peers at least have much of it that is missing here.
    fn begin_ranges(
        &mut self,
        now: &Now,
        (id, lane): (SpaceId, LaneId),
        candidates: &[Candidate],
        have: u64,
    ) -> bool {
        let entries = self.part_entries(&id, &lane);
        let until = end_of_part(have, entries);
        let far = until.saturating_add(entries * RANGE_PARTS_MIN);
        let Some(space) = self.spaces.get(&id) else { return false };
        let can_help = |candidate: &&Candidate| self.can_send_parts(space, lane, candidate, far);
        let helpers: Vec<SessionId> = candidates.iter().filter(can_help).map(|c| c.session).collect();
        let peers: BTreeSet<_> = helpers
            .iter()
            .filter_map(|number| self.sessions.get(number))
            .map(|session| session.peer)
            .collect();
        if peers.len() < 2 {
            return false;
        }
        let Some(space) = self.spaces.get_mut(&id) else { return false };
        let Some(parent) = space.parents.get(&lane).copied() else {
            let ranged = Ranged { next: Some(have + 1), ..Ranged::default() };
            space.ranges.insert(lane, ranged);
            return self.tend_ranges(now, (id, lane), candidates, have);
        };
        if helpers.contains(&parent.session) {
            space.ranges.insert(lane, Ranged::default());
            let limit = Limit { subscription: parent.subscription, until };
            self.send(parent.session, Class::Control, &Message::Limit(limit));
        }
        false
    }

    /// How many entries a part of a lane has.
    fn part_entries(&self, id: &SpaceId, lane: &LaneId) -> u64 {
        let lane = self.spaces.get(id).and_then(|space| space.lanes.get(lane));
        let mean = lane.map_or(ENTRY_BYTES_GUESS, |lane| lane.mean_bytes());
        round_entries(PART_BYTES_TARGET, mean, self.segments.entries())
    }

    /// Asks for parts, two at a time of each peer, of who has least to send first.
    fn ask_parts(&mut self, now: &Now, (id, lane): (SpaceId, LaneId), candidates: &[Candidate]) {
        let has = candidates.iter().map(|candidate| candidate.has).max().unwrap_or(0);
        let entries = self.part_entries(&id, &lane);
        loop {
            let Some(space) = self.spaces.get(&id) else { return };
            let Some(ranged) = space.ranges.get(&lane) else { return };
            let Some((from, until)) = ranged.to_ask(has, entries) else { return };
            let streams = space.parents.get(&lane).map(|parent| parent.session);
            let load = |candidate: &Candidate| {
                ranged.outstanding(candidate.session) + usize::from(streams == Some(candidate.session))
            };
            let can = |candidate: &&Candidate| {
                let session = self.sessions.get(&candidate.session);
                self.can_send_parts(space, lane, candidate, until)
                    && load(candidate) < PARTS_OF_SESSION_MAX
                    && session.is_some_and(|session| session.parts_awaited() < PARTS_ASKED_MAX)
            };
            let best =
                candidates.iter().filter(can).min_by_key(|candidate| (load(candidate), candidate.session));
            let Some(best) = best.map(|candidate| candidate.session) else { return };
            self.ask_part(now, (id, lane), best, (from, until));
        }
    }

    fn ask_part(
        &mut self,
        now: &Now,
        (id, lane): (SpaceId, LaneId),
        session_id: SessionId,
        (from, until): (u64, u64),
    ) {
        let (Some(session), Some(space)) = (self.sessions.get_mut(&session_id), self.spaces.get_mut(&id))
        else {
            return;
        };
        // What the lane has reached of it in the meantime is not needed.
        let have = space.lanes.get(&lane).map_or(0, |lane| lane.staged_tip().lsn);
        let from = from.max(have + 1);
        let Some(ranged) = space.ranges.get_mut(&lane) else { return };
        let subscription = session.subscribe(id, lane, Some(now.monotonic));
        if let Some(incoming) = session.incoming.get_mut(&subscription) {
            incoming.course = Course::Part;
        }
        let holder = Holder {
            session: session_id,
            subscription,
            asked: now.monotonic,
            moved: now.monotonic,
            runs: VecDeque::new(),
            bytes: 0,
            is_whole: false,
        };
        match ranged.parts.iter_mut().find(|part| part.until == until) {
            Some(part) => (part.from, part.holder) = (from, Some(holder)),
            None => {
                ranged.parts.push_back(Part { from, until, holder: Some(holder) });
                ranged.next = Some(until + 1);
            }
        }
        let range = Range { space: id, subscription, lane, from, until };
        self.send(session_id, Class::Control, &Message::Range(range));
    }

    /// The part that the lane goes on with is asked of somebody else, if who has it sends nothing, or takes much longer than
    /// others did, while somebody has nothing to do.
    fn take_from_slow(&mut self, now: &Now, (id, lane): (SpaceId, LaneId), candidates: &[Candidate]) {
        let Some(space) = self.spaces.get(&id) else { return };
        let Some(ranged) = space.ranges.get(&lane) else { return };
        let Some(part) = ranged.parts.front() else { return };
        let Some(holder) = part.holder.as_ref().filter(|holder| !holder.is_whole) else { return };
        let is_idle = |candidate: &Candidate| {
            candidate.session != holder.session
                && self.can_send_parts(space, lane, candidate, part.until)
                && ranged.outstanding(candidate.session) == 0
        };
        if !candidates.iter().any(is_idle) {
            return;
        }
        let patience = self.patience(holder.session);
        let stuck = holder.moved + 2 * patience;
        let late = ranged.quickest.map(|quickest| holder.asked + patience.max(4 * quickest));
        let due = late.map_or(stuck, |late| late.min(stuck));
        let (session_id, subscription) = (holder.session, holder.subscription);
        if due > now.monotonic {
            return self.review_at(id, due);
        }
        let Some(space) = self.spaces.get_mut(&id) else { return };
        space.lose_part((lane, session_id), subscription);
        self.end_part(session_id, subscription);
        self.ask_parts(now, (id, lane), candidates);
    }

    /// What a peer was asked for as a part is not wanted any more.
    fn end_part(&mut self, session_id: SessionId, subscription: u32) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        if session.end_incoming(subscription).is_some() {
            let unsubscribe = Unsubscribe { subscription, refused: false };
            self.send(session_id, Class::Control, &Message::Unsubscribe(unsubscribe));
        }
    }

    /// A lane is not received in parts any more.
    pub(crate) fn drop_ranges(&mut self, id: SpaceId, lane: LaneId) {
        let Some(ranged) = self.spaces.get_mut(&id).and_then(|space| space.ranges.remove(&lane)) else {
            return;
        };
        for holder in ranged.parts.into_iter().filter_map(|part| part.holder) {
            self.end_part(holder.session, holder.subscription);
        }
    }

    /// The sender of a subscription says where it ends.
    pub(crate) fn on_limited(&mut self, session_id: SessionId, limited: &Limited) {
        let Some(session) = self.sessions.get(&session_id) else { return };
        let Some(incoming) = session.incoming.get(&limited.subscription) else { return };
        let (id, lane) = (incoming.space, incoming.lane);
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let is_parent = space.parents.get(&lane).is_some_and(|parent| {
            (parent.session, parent.subscription) == (session_id, limited.subscription)
        });
        let Some(ranged) = space.ranges.get_mut(&lane).filter(|_| is_parent) else { return };
        if ranged.stream_ends.is_none() {
            (ranged.stream_ends, ranged.next) = (Some(limited.last), Some(limited.last.saturating_add(1)));
            space.review.insert(lane);
            self.dirty.insert(id);
        }
    }

    /// A run of a part came: it waits for its turn.
    pub(crate) fn keep_run(
        &mut self,
        now: &Now,
        (session_id, subscription): (SessionId, u32),
        (id, lane): (SpaceId, LaneId),
        (first, awaited, is_last): (u64, bool, bool),
        bytes: Vec<u8>,
    ) -> Result<(), Refusal> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let Some(ranged) = space.ranges.get_mut(&lane) else { return Ok(()) };
        let Some(holder) = ranged.holder_mut(session_id, subscription) else { return Ok(()) };
        if holder.is_whole {
            return Err(CloseReason::LaneOrder.into());
        }
        holder.bytes += bytes.len();
        if holder.bytes > RANGE_WINDOW_BYTES + 2 * RUN_BYTES_MAX {
            return Err(CloseReason::Window.into());
        }
        holder.moved = now.monotonic;
        holder.runs.push_back(WaitingRun { first, awaited, bytes });
        if is_last {
            holder.is_whole = true;
            let took = now.monotonic.saturating_sub(holder.asked);
            ranged.quickest = Some(ranged.quickest.map_or(took, |quickest| quickest.min(took)));
            let session = self.sessions.get_mut(&session_id);
            if let Some(incoming) = session.and_then(|session| session.incoming.get_mut(&subscription)) {
                incoming.course = Course::WholePart;
            }
        }
        space.review.insert(lane);
        self.dirty.insert(id);
        Ok(())
    }

    /// Something of a part came that is not a whole run yet.
    pub(crate) fn note_part_moved(&mut self, now: &Now, session: SessionId, subscription: u32) {
        let Some(incoming) = self.sessions.get(&session).and_then(|s| s.incoming.get(&subscription)) else {
            return;
        };
        let (id, lane) = (incoming.space, incoming.lane);
        let ranged = self.spaces.get_mut(&id).and_then(|space| space.ranges.get_mut(&lane));
        if let Some(holder) = ranged.and_then(|ranged| ranged.holder_mut(session, subscription)) {
            holder.moved = now.monotonic;
        }
    }

    /// Takes in what waits and has its turn, in all lanes of a space that are received in parts.
    pub(crate) fn advance_ranges(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        for lane in space.ranges.keys().copied().collect::<Vec<_>>() {
            while let Some(DueRun { session, subscription, run }) = self.next_run(id, lane) {
                let about = (run.first, run.awaited);
                match self.accept_run(now, (session, subscription), about, &run.bytes, store) {
                    Ok(()) => {}
                    Err(Refusal::Close(CloseReason::Signature | CloseReason::Malformed)) => {
                        self.spurn(session, (id, lane));
                    }
                    Err(Refusal::Close(reason)) => self.close(session, reason),
                    Err(Refusal::Store(error)) => {
                        // What it was is asked for again.
                        self.close(session, CloseReason::Storage);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// A part does not go on from where the lane stands. Unlike a subscription a part is asked for without saying what is held
    /// here, so who sent it may be on the other branch of a fork. Once all are unfit, one of them is subscribed to, which
    /// brings that to light; it is no reason to end a connection, and each can cause it once.
    fn spurn(&mut self, session_id: SessionId, (id, lane): (SpaceId, LaneId)) {
        let Some(peer) = self.sessions.get(&session_id).map(|session| session.peer) else { return };
        let Some(space) = self.spaces.get_mut(&id) else { return };
        space.unfit.insert((lane, session_id));
        space.review.insert(lane);
        let lost =
            space.ranges.get_mut(&lane).map(|ranged| ranged.lose(session_id, None)).unwrap_or_default();
        for subscription in lost {
            self.end_part(session_id, subscription);
        }
        self.dirty.insert(id);
        self.push(Output::Notify(Notice::PartUnfit { space: id, lane, peer }));
    }

    /// The run that a lane goes on with, if it is here and there is room for it. Ends what the lane has come past.
    fn next_run(&mut self, id: SpaceId, lane_id: LaneId) -> Option<DueRun> {
        loop {
            let space = self.spaces.get_mut(&id)?;
            let lane = space.lanes.get(&lane_id);
            let (have, staged) = lane.map_or((0, 0), |lane| (lane.staged_tip().lsn, lane.staged_bytes));
            let ranged = space.ranges.get_mut(&lane_id)?;
            if let Some(parent) = space.parents.get(&lane_id).copied() {
                ranged.stream_ends.filter(|ends| *ends <= have)?;
                space.parents.remove(&lane_id);
                space.lagging.remove(&lane_id);
                space.review.insert(lane_id);
                self.sessions.get_mut(&parent.session)?.end_incoming(parent.subscription);
                continue;
            }
            let part = ranged.parts.front_mut()?;
            if part.until <= have {
                let passed = ranged.parts.pop_front()?;
                let is_beyond = passed.until < have;
                space.review.insert(lane_id);
                self.dirty.insert(id);
                if let Some(holder) = passed.holder {
                    self.end_passed(&holder);
                }
                if is_beyond {
                    // Somebody sent more than was asked for: what waits does not fit any more.
                    self.drop_ranges(id, lane_id);
                }
                continue;
            }
            let holder = part.holder.as_mut()?;
            if canary!(PartOutOfTurn) && holder.runs.is_empty() {
                let mut holders = ranged.parts.iter_mut().filter_map(|part| part.holder.as_mut());
                let early = holders.find(|holder| !holder.runs.is_empty())?;
                let (session, subscription) = (early.session, early.subscription);
                return Some(DueRun { session, subscription, run: early.runs.pop_front()? });
            }
            if staged > RANGE_STAGED_BYTES || part.from > have + 1 {
                return None;
            }
            let run = holder.runs.pop_front()?;
            holder.bytes -= run.bytes.len();
            return Some(DueRun { session: holder.session, subscription: holder.subscription, run });
        }
    }

    /// A part is here as a whole; who sent it knows.
    fn end_passed(&mut self, holder: &Holder) {
        if !holder.is_whole {
            return self.end_part(holder.session, holder.subscription);
        }
        if let Some(session) = self.sessions.get_mut(&holder.session) {
            session.end_incoming(holder.subscription);
        }
    }

    /// A peer asks for a part of a lane.
    pub(crate) fn on_range(
        &mut self,
        now: &Now,
        session_id: SessionId,
        range: &Range,
        store: &dyn Store,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&session_id) else { return Ok(()) };
        if !session.can_be_asked(&range.space, range.subscription)
            || range.from == 0
            || range.until < range.from
        {
            return Err(CloseReason::Unexpected.into());
        }
        let (id, lane, subscription) = (range.space, range.lane, range.subscription);
        let served = session.outgoing.values().filter(|outgoing| outgoing.until.is_some()).count();
        let durable = self.spaces.get(&id).map_or(0, |space| space.durable.at(&lane));
        let standing = if durable >= range.until && served < PARTS_SERVED_MAX {
            self.tip_at((id, lane), range.from - 1, store)?
        } else {
            Standing::Unknown
        };
        let Some(sent) = self.answer_standing(session_id, subscription, standing) else { return Ok(()) };
        let mut outgoing = Outgoing::new((id, lane), sent, now.monotonic, Class::CatchUp);
        outgoing.until = Some(range.until);
        self.begin_serving(session_id, subscription, outgoing);
        Ok(())
    }

    /// A subscription is to end.
    pub(crate) fn on_limit(&mut self, session_id: SessionId, limit: &Limit) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(outgoing) = session.outgoing.get_mut(&limit.subscription) else { return };
        if outgoing.until.is_some() {
            return;
        }
        let durable = self.spaces.get(&outgoing.space).map_or(0, |space| space.durable.at(&outgoing.lane));
        let sent = outgoing.sent.lsn;
        let last = if (sent..=durable).contains(&limit.until) { limit.until } else { sent };
        outgoing.until = Some(last);
        let (id, subscription) = (outgoing.space, limit.subscription);
        session.end_if_complete(subscription);
        self.to_serve.insert((id, session_id));
        self.send(session_id, Class::Control, &Message::Limited(Limited { subscription, last }));
    }
}

impl Session {
    /// Nothing more is sent on a subscription, and all that was is acknowledged.
    pub(crate) fn end_if_complete(&mut self, subscription: u32) {
        let is_complete = |outgoing: &Outgoing| {
            outgoing.until.is_some_and(|until| outgoing.sent.lsn >= until) && outgoing.in_flight.is_empty()
        };
        if self.outgoing.get(&subscription).is_some_and(is_complete) {
            self.end_outgoing(subscription);
        }
    }
}

/// Lanes that are received in parts.
pub(crate) type Ranges = BTreeMap<LaneId, Ranged>;

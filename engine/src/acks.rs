//! Who waits for what: local syncs, acknowledgements by other replicas, tokens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, OriginId, ReplicaId, SpaceId, canary};

use crate::engine::{Engine, Timer};
use crate::fresh::FreshWaits;
use crate::io::{Acknowledgement, CommandError, Durability, Now, Reply, RequestId};
use crate::options::WriteOptions;
use crate::rights::RightsWait;
use crate::space::Space;
use crate::store::{Position, StoreError};
use crate::throttle::RoomWaits;
use crate::token::Token;

/// A write whose acknowledgement is awaited.
#[derive(Clone, Debug)]
struct Write {
    request: RequestId,
    space: SpaceId,
    /// Its place in its lane; `None` when the transaction changed nothing.
    place: Option<(LaneId, u64)>,
    /// What was applied once it was.
    frontier: Frontier,
    durability: Durability,
    deadline: Duration,
    deduplicated: bool,
}

/// What a write that is awaited came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Its place in its lane; `None` when the transaction changed nothing.
    pub(crate) place: Option<(LaneId, u64)>,
    /// What was applied once it was.
    pub(crate) frontier: Frontier,
    /// It was made before.
    pub(crate) deduplicated: bool,
}

#[derive(Clone, Debug)]
enum Local {
    Write(Write),
    Facts(RequestId, Reply),
}

#[derive(Clone, Debug)]
struct TokenWait {
    request: RequestId,
    token: Token,
    deadline: Duration,
}

/// Where a write stands in its lane, and who waits for it: more than one when it is repeated.
type Place = (SpaceId, LaneId, u64, RequestId);

/// Everything that is awaited.
#[derive(Default)]
pub(crate) struct Waits {
    local: VecDeque<(Position, Local)>,
    remote: BTreeMap<Place, Write>,
    places: BTreeMap<RequestId, Place>,
    tokens: BTreeMap<SpaceId, Vec<TokenWait>>,
    token_spaces: BTreeMap<RequestId, SpaceId>,
    pub(crate) confirmations: BTreeMap<RequestId, (SpaceId, Duration)>,
    pub(crate) rights: BTreeMap<RequestId, RightsWait>,
    pub(crate) fresh: FreshWaits,
    pub(crate) room: RoomWaits,
    /// How many writes of a lane wait for other replicas, synced here or not.
    awaited: BTreeMap<LaneId, usize>,
}

impl Waits {
    /// Whether a write in `lane` waits for another replica. O(log n).
    pub(crate) fn awaits(&self, lane: &LaneId) -> bool {
        self.awaited.contains_key(lane)
    }

    /// The spaces in which others are waited for.
    pub(crate) fn spaces(&self) -> BTreeSet<SpaceId> {
        let places = self.places.values().map(|place| place.0);
        let others = self.rights.values().map(|wait| wait.space).chain(self.room.values().map(|wait| wait.0));
        places.chain(others).chain(self.fresh.values().map(|wait| wait.space)).collect()
    }

    fn count(&mut self, write: &Write) {
        if let Some((lane, _)) = write.place.filter(|_| write.durability != Durability::Local) {
            *self.awaited.entry(lane).or_insert(0) += 1;
        }
    }

    /// The write is answered.
    fn discount(&mut self, write: &Write) {
        let Some((lane, _)) = write.place.filter(|_| write.durability != Durability::Local) else { return };
        if let Some(count) = self.awaited.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(&lane);
            }
        }
    }

    /// A write that is not durable here yet is not to wait for others any more once it is.
    fn cancel_local(&mut self, request: RequestId) {
        let of_request = |local: &&mut (Position, Local)| matches!(&local.1, Local::Write(write) if write.request == request);
        let Some((_, Local::Write(write))) = self.local.iter_mut().find(of_request) else { return };
        let cancelled = std::mem::replace(&mut write.durability, Durability::Local);
        let cancelled = Write { durability: cancelled, ..write.clone() };
        self.discount(&cancelled);
    }

    fn take_remote(&mut self, request: RequestId) -> Option<Write> {
        self.places.remove(&request).and_then(|place| self.remote.remove(&place))
    }

    fn take_token(&mut self, request: RequestId) -> Option<TokenWait> {
        let space = self.token_spaces.remove(&request)?;
        let waits = self.tokens.get_mut(&space)?;
        let index = waits.iter().position(|wait| wait.request == request)?;
        let wait = waits.swap_remove(index);
        if waits.is_empty() {
            self.tokens.remove(&space);
        }
        Some(wait)
    }
}

impl Engine {
    pub(crate) fn await_write(&mut self, now: &Now, space: SpaceId, options: WriteOptions, written: Written) {
        let Written { place, frontier, deduplicated } = written;
        let WriteOptions { request, durability, within, .. } = options;
        let deadline = now.monotonic.saturating_add(within);
        let write = Write { request, space, place, frontier, durability, deadline, deduplicated };
        self.waits.count(&write);
        let position = if canary!(AckBeforeSync) { self.synced } else { self.committed };
        self.waits.local.push_back((position, Local::Write(write)));
        if self.synced >= position {
            self.resolve_synced(now);
        }
    }

    pub(crate) fn await_facts(&mut self, now: &Now, request: RequestId, reply: Reply) {
        self.waits.local.push_back((self.committed, Local::Facts(request, reply)));
        if self.synced >= self.committed {
            self.resolve_synced(now);
        }
    }

    /// Answers what waited for a sync, and passes on what waits for other replicas.
    pub(crate) fn resolve_synced(&mut self, now: &Now) {
        while self.waits.local.front().is_some_and(|(position, _)| *position <= self.synced) {
            match self.waits.local.pop_front() {
                Some((_, Local::Facts(request, reply))) => self.reply(request, Ok(reply)),
                Some((_, Local::Write(write))) => self.resolve_write(now, write),
                None => break,
            }
        }
    }

    fn resolve_write(&mut self, now: &Now, write: Write) {
        let Some(space) = self.spaces.get(&write.space) else {
            self.waits.discount(&write);
            return self.reply(write.request, Err(CommandError::SpaceDeleted(write.space)));
        };
        let answer = self.acknowledgement(space, &write);
        match write.place.filter(|_| !answer.reached && write.deadline > now.monotonic) {
            None => {
                self.waits.discount(&write);
                self.reply(write.request, Ok(Reply::Acknowledged(answer)));
            }
            Some((lane, lsn)) => {
                let place = (write.space, lane, lsn, write.request);
                self.timers.insert((write.deadline, Timer::Wait(write.request)));
                self.waits.places.insert(write.request, place);
                self.waits.remote.insert(place, write);
                // Somebody may have it already.
                self.rouse(place.0);
            }
        }
    }

    /// What is known of the durability of a write that is durable here. O(members).
    fn acknowledgement(&self, space: &Space, write: &Write) -> Acknowledgement {
        let token = Token { space: write.space, frontier: write.frontier.clone() };
        let Some(place) = write.place else {
            // Nothing was changed, so there is nothing that anybody could lack.
            let (replicas, regions) = (Vec::new(), Vec::new());
            let (counted, needed, remote, deduplicated) = (0, 0, 0, write.deduplicated);
            return Acknowledgement {
                token,
                remote,
                replicas,
                regions,
                counted,
                needed,
                deduplicated,
                reached: true,
            };
        };
        let tally = self.tally(space, place, &write.durability);
        let mut replicas: Vec<ReplicaId> = space.holders(place).copied().collect();
        replicas.retain(|replica| *replica != self.replica);
        Acknowledgement {
            token,
            remote: space.remote_count(place),
            replicas,
            regions: self.regions_holding(space, place).into_iter().map(str::to_owned).collect(),
            counted: tally.counted,
            needed: tally.needed,
            deduplicated: write.deduplicated,
            reached: tally.is_reached(),
        }
    }

    /// A peer reported what it holds durably. O(writes that it may have decided).
    pub(crate) fn resolve_remote(&mut self, space_id: SpaceId) {
        let Some(space) = self.spaces.get(&space_id) else { return };
        let remote = &self.waits.remote;
        let mut answers = Vec::new();
        let mut lane = OriginId([0; 16]);
        let last = RequestId(u64::MAX);
        let end = (space_id, OriginId([0xff; 16]), u64::MAX, last);
        // Few lanes: the one written to, those that were given up since, and those of writes that were repeated here.
        while let Some(((_, next, _, _), _)) = remote.range((space_id, lane, u64::MAX, last)..=end).next() {
            lane = *next;
            let of_lane = remote.range((space_id, lane, 0, RequestId(0))..=(space_id, lane, u64::MAX, last));
            for ((_, _, lsn, request), write) in of_lane {
                // What nobody has yet, nobody has more of.
                if space.remote_count((lane, *lsn)) == 0 {
                    break;
                }
                if self.tally(space, (lane, *lsn), &write.durability).is_reached() {
                    answers.push((*request, self.acknowledgement(space, write)));
                }
            }
        }
        for (request, acknowledgement) in answers {
            self.answer_remote(request, acknowledgement);
        }
    }

    fn answer_remote(&mut self, request: RequestId, acknowledgement: Acknowledgement) {
        let Some(write) = self.waits.take_remote(request) else { return };
        self.timers.remove(&(write.deadline, Timer::Wait(request)));
        self.waits.discount(&write);
        self.reply(request, Ok(Reply::Acknowledged(acknowledgement)));
    }

    pub(crate) fn await_token(
        &mut self,
        now: &Now,
        request: RequestId,
        token: Token,
        within: Duration,
    ) -> Result<(), CommandError> {
        if !self.spaces.contains_key(&token.space) {
            return Err(CommandError::UnknownSpace(token.space));
        }
        let (space, deadline) = (token.space, now.monotonic.saturating_add(within));
        self.timers.insert((deadline, Timer::Wait(request)));
        self.waits.token_spaces.insert(request, space);
        self.waits.tokens.entry(space).or_default().push(TokenWait { request, token, deadline });
        self.resolve_tokens(space);
        Ok(())
    }

    /// Answers who waits for what is durable in a space now. O(tokens awaited in it).
    pub(crate) fn resolve_tokens(&mut self, id: SpaceId) {
        let (Some(space), Some(waits)) = (self.spaces.get(&id), self.waits.tokens.get(&id)) else { return };
        let known = if canary!(TokenBeforeSync) { &space.frontier } else { &space.durable };
        let is_here = |wanted: &Frontier| {
            if canary!(TokenPartReached) {
                return wanted.iter().next().is_none_or(|(lane, lsn)| known.at(&lane) >= lsn);
            }
            known.covers(wanted)
        };
        let here = waits.iter().filter(|wait| is_here(&wait.token.frontier));
        for request in here.map(|wait| wait.request).collect::<Vec<_>>() {
            if let Some(wait) = self.waits.take_token(request) {
                self.timers.remove(&(wait.deadline, Timer::Wait(request)));
                self.reply(request, Ok(Reply::Reached));
            }
        }
    }

    /// The time given to a wait is over.
    pub(crate) fn expire_wait(&mut self, now: &Now, request: RequestId) {
        let write = self.waits.places.get(&request).and_then(|place| self.waits.remote.get(place));
        let space = write.and_then(|write| self.spaces.get(&write.space));
        if let (Some(write), Some(space)) = (write, space) {
            let acknowledgement = self.acknowledgement(space, write);
            return self.answer_remote(request, acknowledgement);
        }
        if let Some((space, _)) = self.waits.confirmations.remove(&request) {
            return self.reply(request, Err(CommandError::Unconfirmed(space)));
        }
        if let Some(id) = self.take_room(request) {
            return self.expire_room(request, id);
        }
        if let Some(wait) = self.take_fresh(request) {
            let error = self.not_fresh(now, &wait);
            return self.reply(request, Err(error));
        }
        if let Some(wait) = self.waits.take_token(request) {
            let durable = self.spaces.get(&wait.token.space).map(|space| &space.durable);
            let missing = durable.map_or(0, |durable| wait.token.frontier.distance_from(durable));
            self.reply(request, Err(CommandError::Stale { missing }));
        }
    }

    /// Nobody waits for an answer any more.
    pub(crate) fn cancel(&mut self, request: RequestId) {
        let timer = Timer::Wait(request);
        if let Some(write) = self.waits.take_remote(request) {
            self.timers.remove(&(write.deadline, timer));
            return self.waits.discount(&write);
        }
        if let Some((_, deadline)) = self.waits.confirmations.remove(&request) {
            self.timers.remove(&(deadline, timer));
        } else if let Some(wait) = self.waits.take_token(request) {
            self.timers.remove(&(wait.deadline, timer));
        } else if self.take_room(request).is_none()
            && self.take_fresh(request).is_none()
            && self.waits.rights.remove(&request).is_none()
        {
            self.waits.cancel_local(request);
        }
    }

    /// Nothing more is accepted from anybody: what waits for others is answered as it stands.
    pub(crate) fn end_waits(&mut self, now: &Now, error: &StoreError) {
        self.fail_waits(error);
        for request in self.waits.places.keys().copied().collect::<Vec<_>>() {
            self.expire_wait(now, request);
        }
        let others = self.waits.confirmations.keys().chain(self.waits.rights.keys());
        let others = others.chain(self.waits.fresh.keys()).chain(self.waits.room.keys());
        for request in others.copied().collect::<Vec<_>>() {
            self.take_room(request);
            self.waits.confirmations.remove(&request);
            self.waits.rights.remove(&request);
            self.take_fresh(request);
            self.reply(request, Err(error.clone().into()));
        }
        for request in self.waits.token_spaces.keys().copied().collect::<Vec<_>>() {
            if let Some(wait) = self.waits.take_token(request) {
                self.timers.remove(&(wait.deadline, Timer::Wait(request)));
                self.reply(request, Err(error.clone().into()));
            }
        }
    }

    /// A space is deleted here: who waits for others in it is answered as things stand.
    pub(crate) fn end_waits_in(&mut self, now: &Now, id: SpaceId) {
        let writes = self.waits.places.iter().filter(|(_, place)| place.0 == id);
        for request in writes.map(|(request, _)| *request).collect::<Vec<_>>() {
            self.expire_wait(now, request);
        }
        let confirmations = self.waits.confirmations.iter().filter(|(_, (space, _))| *space == id);
        let rights = self.waits.rights.iter().filter(|(_, wait)| wait.space == id);
        let fresh = self.waits.fresh.iter().filter(|(_, wait)| wait.space == id);
        let tokens = self.waits.token_spaces.iter().filter(|(_, space)| **space == id);
        let mut requests: Vec<RequestId> = confirmations.map(|(request, _)| *request).collect();
        requests.extend(rights.map(|(request, _)| *request));
        requests.extend(fresh.map(|(request, _)| *request));
        requests.extend(tokens.map(|(request, _)| *request));
        for request in requests {
            self.cancel(request);
            self.reply(request, Err(CommandError::SpaceDeleted(id)));
        }
    }

    /// A sync failed: whether what waited for it is durable is not known.
    pub(crate) fn fail_waits(&mut self, error: &StoreError) {
        for (_, local) in std::mem::take(&mut self.waits.local) {
            let request = match local {
                Local::Facts(request, _) => request,
                Local::Write(write) => {
                    self.waits.discount(&write);
                    write.request
                }
            };
            self.reply(request, Err(error.clone().into()));
        }
    }
}

//! Who waits for what: local syncs, acknowledgements by other replicas, tokens.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, OriginId, SpaceId, canary};

use crate::engine::{Engine, Timer};
use crate::io::{Acknowledgement, CommandError, Durability, Now, Reply, RequestId};
use crate::options::WriteOptions;
use crate::rights::RightsWait;
use crate::space::Space;
use crate::store::{Position, StoreError};
use crate::token::Token;

/// A write whose acknowledgement is awaited.
#[derive(Clone, Debug)]
struct Write {
    request: RequestId,
    space: SpaceId,
    /// Its place in the own lane; `None` when the transaction changed nothing.
    place: Option<(LaneId, u64)>,
    /// What was applied once it was.
    frontier: Frontier,
    durability: Durability,
    deadline: Duration,
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

/// Where a write stands in its lane.
type Place = (SpaceId, LaneId, u64);

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
    /// How many writes of a lane wait for other replicas, synced here or not.
    awaited: BTreeMap<LaneId, usize>,
}

impl Waits {
    /// Whether a write in `lane` waits for another replica. O(log n).
    pub(crate) fn awaits(&self, lane: &LaneId) -> bool {
        self.awaited.contains_key(lane)
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

/// How many other replicas reported the write durable.
fn remote_count(space: &Space, write: &Write) -> u32 {
    let Some((lane, lsn)) = write.place else { return 0 };
    let others = space.peer_durable.values().filter(|durable| durable.at(&lane) >= lsn).count() as u32;
    if canary!(RemoteCountsItself) { others + 1 } else { others }
}

fn acknowledged(space: &Space, write: &Write) -> (bool, Acknowledgement) {
    let remote = remote_count(space, write);
    let reached = match write.durability {
        Durability::Local => true,
        Durability::Remote(needed) => write.place.is_none() || remote >= needed,
    };
    let token = Token { space: write.space, frontier: write.frontier.clone() };
    (reached, Acknowledgement { token, remote, reached })
}

impl Engine {
    pub(crate) fn await_write(
        &mut self,
        now: &Now,
        space: SpaceId,
        options: WriteOptions,
        place: Option<(LaneId, u64)>,
    ) {
        let frontier = self.spaces.get(&space).map(|space| space.frontier.clone()).unwrap_or_default();
        let WriteOptions { request, durability, within } = options;
        let deadline = now.monotonic.saturating_add(within);
        let write = Write { request, space, place, frontier, durability, deadline };
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
        let answer = self.spaces.get(&write.space).map(|space| acknowledged(space, &write));
        let Some((reached, acknowledgement)) = answer else { return };
        match write.place.filter(|_| !reached && write.deadline > now.monotonic) {
            None => {
                self.waits.discount(&write);
                self.reply(write.request, Ok(Reply::Acknowledged(acknowledgement)));
            }
            Some((lane, lsn)) => {
                let place = (write.space, lane, lsn);
                self.timers.insert((write.deadline, Timer::Wait(write.request)));
                self.waits.places.insert(write.request, place);
                self.waits.remote.insert(place, write);
            }
        }
    }

    /// A peer reported what it holds durably. O(writes that it may have decided).
    pub(crate) fn resolve_remote(&mut self, space_id: SpaceId) {
        let Some(space) = self.spaces.get(&space_id) else { return };
        let remote = &self.waits.remote;
        let mut answers = Vec::new();
        let mut lane = OriginId([0; 16]);
        let end = (space_id, OriginId([0xff; 16]), u64::MAX);
        // Few lanes: the one written to, and those that were given up since.
        while let Some(((_, next, _), _)) = remote.range((space_id, lane, u64::MAX)..=end).next() {
            lane = *next;
            let of_lane = remote.range((space_id, lane, 0)..=(space_id, lane, u64::MAX));
            let known = of_lane.map(|(_, write)| (write.request, acknowledged(space, write)));
            // What nobody has yet, nobody has more of.
            let known = known.take_while(|(_, (_, acknowledgement))| acknowledgement.remote > 0);
            let reached = known.filter(|(_, (reached, _))| *reached);
            answers.extend(reached.map(|(request, (_, acknowledgement))| (request, acknowledgement)));
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
    pub(crate) fn expire_wait(&mut self, request: RequestId) {
        let write = self.waits.places.get(&request).and_then(|place| self.waits.remote.get(place));
        let space = write.and_then(|write| self.spaces.get(&write.space));
        if let (Some(write), Some(space)) = (write, space) {
            let (_, acknowledgement) = acknowledged(space, write);
            return self.answer_remote(request, acknowledgement);
        }
        if let Some((space, _)) = self.waits.confirmations.remove(&request) {
            return self.reply(request, Err(CommandError::Unconfirmed(space)));
        }
        if let Some(wait) = self.waits.take_token(request) {
            let durable = self.spaces.get(&wait.token.space).map(|space| &space.durable);
            let missing = durable.map_or(0, |durable| wait.token.frontier.distance_from(durable));
            self.reply(request, Err(CommandError::Stale { missing }));
        }
    }

    /// Nothing more is accepted from anybody: what waits for others is answered as it stands.
    pub(crate) fn end_waits(&mut self, error: &StoreError) {
        self.fail_waits(error);
        for request in self.waits.places.keys().copied().collect::<Vec<_>>() {
            self.expire_wait(request);
        }
        let others = self.waits.confirmations.keys().chain(self.waits.rights.keys());
        for request in others.copied().collect::<Vec<_>>() {
            self.waits.confirmations.remove(&request);
            self.waits.rights.remove(&request);
            self.reply(request, Err(error.clone().into()));
        }
        for request in self.waits.token_spaces.keys().copied().collect::<Vec<_>>() {
            if let Some(wait) = self.waits.take_token(request) {
                self.timers.remove(&(wait.deadline, Timer::Wait(request)));
                self.reply(request, Err(error.clone().into()));
            }
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

//! Who waits for what: local syncs, acknowledgements by other replicas, tokens.

use std::collections::VecDeque;
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, SpaceId};

use crate::engine::{Engine, Timer, WriteOptions};
use crate::io::{Acknowledgement, CommandError, Durability, Now, Reply, RequestId};
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
}

/// Everything that is awaited.
#[derive(Default)]
pub(crate) struct Waits {
    local: VecDeque<(Position, Local)>,
    remote: Vec<Write>,
    tokens: Vec<TokenWait>,
}

impl Waits {
    /// Whether a write in `lane` waits for another replica.
    pub(crate) fn awaits(&self, lane: &LaneId) -> bool {
        let unsynced = self.local.iter().filter_map(|(_, local)| match local {
            Local::Write(write) if write.durability != Durability::Local => Some(write),
            _ => None,
        });
        self.remote.iter().chain(unsynced).any(|write| write.place.is_some_and(|(own, _)| own == *lane))
    }
}

/// How many other replicas reported the write durable.
fn remote_count(space: &Space, write: &Write) -> u32 {
    let Some((lane, lsn)) = write.place else { return 0 };
    space.peer_durable.values().filter(|durable| durable.at(&lane) >= lsn).count() as u32
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
        let deadline = now.monotonic + within;
        let write = Write { request, space, place, frontier, durability, deadline };
        self.waits.local.push_back((self.committed, Local::Write(write)));
        if self.synced >= self.committed {
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
        self.resolve_tokens();
    }

    fn resolve_write(&mut self, now: &Now, write: Write) {
        let Some(space) = self.spaces.get(&write.space) else { return };
        let (reached, acknowledgement) = acknowledged(space, &write);
        if reached || write.deadline <= now.monotonic {
            return self.reply(write.request, Ok(Reply::Acknowledged(acknowledgement)));
        }
        self.timers.insert((write.deadline, Timer::Wait(write.request)));
        self.waits.remote.push(write);
    }

    /// A peer reported what it holds durably.
    pub(crate) fn resolve_remote(&mut self, space_id: SpaceId) {
        let Some(space) = self.spaces.get(&space_id) else { return };
        let mut answers = Vec::new();
        self.waits.remote.retain(|write| {
            if write.space != space_id {
                return true;
            }
            let (reached, acknowledgement) = acknowledged(space, write);
            if reached {
                answers.push((write.request, acknowledgement));
            }
            !reached
        });
        for (request, acknowledgement) in answers {
            self.reply(request, Ok(Reply::Acknowledged(acknowledgement)));
        }
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
        self.timers.insert((now.monotonic + within, Timer::Wait(request)));
        self.waits.tokens.push(TokenWait { request, token });
        self.resolve_tokens();
        Ok(())
    }

    fn resolve_tokens(&mut self) {
        let mut reached = Vec::new();
        let spaces = &self.spaces;
        self.waits.tokens.retain(|wait| {
            let here = spaces.get(&wait.token.space).is_some_and(|s| s.durable.covers(&wait.token.frontier));
            if here {
                reached.push(wait.request);
            }
            !here
        });
        for request in reached {
            self.reply(request, Ok(Reply::Reached));
        }
    }

    /// The time given to a wait is over.
    pub(crate) fn expire_wait(&mut self, request: RequestId) {
        if let Some(index) = self.waits.remote.iter().position(|write| write.request == request) {
            let write = self.waits.remote.swap_remove(index);
            let Some(space) = self.spaces.get(&write.space) else { return };
            let (_, acknowledgement) = acknowledged(space, &write);
            return self.reply(request, Ok(Reply::Acknowledged(acknowledgement)));
        }
        if let Some(index) = self.waits.tokens.iter().position(|wait| wait.request == request) {
            let wait = self.waits.tokens.swap_remove(index);
            let durable = self.spaces.get(&wait.token.space).map(|space| &space.durable);
            let missing = durable.map_or(0, |durable| wait.token.frontier.distance_from(durable));
            self.reply(request, Err(CommandError::Stale { missing }));
        }
    }

    /// A sync failed: whether what waited for it is durable is not known.
    pub(crate) fn fail_waits(&mut self, error: &StoreError) {
        for (_, local) in std::mem::take(&mut self.waits.local) {
            let (Local::Write(Write { request, .. }) | Local::Facts(request, _)) = local;
            self.reply(request, Err(error.clone().into()));
        }
    }
}

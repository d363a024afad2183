//! Rights to bounded counters: who holds some, and how they come to who needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::{BoundedCounter, Frontier, Kind, ObjectAddress, OriginId, ReplicaId, SpaceId};

use crate::conflicts::Location;
use crate::engine::{Engine, Timer};
use crate::io::{Class, CloseReason, CommandError, Now, Reply, RequestId, SessionId};
use crate::limits::{RIGHTS_RETRY, RIGHTS_WAITS_MAX};
use crate::message::{Message, RightsRequest};
use crate::read::{ReadError, bounded_counter};
use crate::receive::Refusal;
use crate::rows::damaged;
use crate::space::Space;
use crate::store::{StateRead, Store, StoreError};
use crate::tx::{Tx, TxError};

/// Somebody here waits until enough rights are held.
#[derive(Clone, Debug)]
pub(crate) struct RightsWait {
    pub(crate) space: SpaceId,
    address: ObjectAddress,
    amount: u64,
    deadline: Duration,
    /// Peers that were asked. What some of them hold may be out of reach, in a lane that its owner has left.
    asked: BTreeSet<ReplicaId>,
}

/// The counter; `None` while something of it is held, so that nobody can lower it here.
fn load(
    read: &dyn StateRead,
    space: &SpaceId,
    address: &ObjectAddress,
) -> Result<Option<BoundedCounter>, StoreError> {
    match bounded_counter(read, space, address.collection(), address.key()) {
        Ok(counter) => Ok(Some(counter)),
        Err(ReadError::Held { .. }) => Ok(None),
        Err(error) => Err(damaged("bounded counter", &error)),
    }
}

/// The rights that this replica can use.
fn held(space: &Space, counter: &BoundedCounter) -> u64 {
    let rights = space.own_lane().map_or(0, |own| counter.rights(&own));
    u64::try_from(rights.max(0)).unwrap_or(u64::MAX)
}

impl Engine {
    pub(crate) fn acquire_rights(
        &mut self,
        now: &Now,
        request: RequestId,
        (id, collection, key): (SpaceId, &str, &str),
        (amount, within): (u64, Duration),
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        let space = self.spaces.get(&id).ok_or(CommandError::UnknownSpace(id))?;
        let standing = space.standing(&self.replica);
        if !standing.may_write() {
            return Err(CommandError::NotWriter { space: id, standing });
        }
        if space.is_blocked() {
            return Err(CommandError::Installing(id));
        }
        let address = ObjectAddress::new(Kind::BoundedCounter, collection, key)?;
        let counter = load(store, &id, &address)?;
        let counter = counter.ok_or_else(|| CommandError::Held { object: address.clone() })?;
        let (held, value) = (held(space, &counter), counter.value());
        if held >= amount {
            self.reply(request, Ok(Reply::RightsHeld(held)));
            return Ok(());
        }
        if self.waits.rights.len() >= RIGHTS_WAITS_MAX {
            return Err(CommandError::Rights { held, needed: amount, value });
        }
        if space.own_lane().is_none_or(|own| space.frontier.at(&own) == 0) {
            // Rights are handed to an origin that others know of.
            self.append_announcement(now, id, Frontier::new(), store)?;
        }
        let (deadline, asked) = (now.monotonic.saturating_add(within), BTreeSet::new());
        self.waits.rights.insert(request, RightsWait { space: id, address, amount, deadline, asked });
        self.rouse(id);
        self.pursue_rights(now, request, store);
        Ok(())
    }

    /// Asks for what a wait still lacks, or gives it up when its time is over.
    pub(crate) fn pursue_rights(&mut self, now: &Now, request: RequestId, store: &mut dyn Store) {
        let Some(wait) = self.waits.rights.get(&request).cloned() else { return };
        let Some(space) = self.spaces.get(&wait.space) else { return };
        if space.is_blocked() && now.monotonic < wait.deadline {
            let again = (now.monotonic + RIGHTS_RETRY).min(wait.deadline);
            self.timers.insert((again, Timer::Rights(request)));
            return;
        }
        let counter = match load(store, &wait.space, &wait.address) {
            Ok(Some(counter)) => counter,
            Ok(None) => {
                self.waits.rights.remove(&request);
                return self.reply(request, Err(CommandError::Held { object: wait.address }));
            }
            Err(error) => {
                self.waits.rights.remove(&request);
                return self.reply(request, Err(error.into()));
            }
        };
        let (held, value, needed) = (held(space, &counter), counter.value(), wait.amount);
        if now.monotonic >= wait.deadline || value < i128::from(needed) {
            // Nobody can hand over what nobody holds.
            self.waits.rights.remove(&request);
            return self.reply(request, Err(CommandError::Rights { held, needed, value }));
        }
        let (own, missing) = (space.own_lane(), needed.saturating_sub(held));
        let (mut asked, mut to_ask) = (wait.asked, BTreeMap::new());
        if own.is_some() {
            to_ask = self.whom_to_ask(space, &counter, (missing, &asked));
            if to_ask.is_empty() {
                // From the first on again.
                asked.clear();
                to_ask = self.whom_to_ask(space, &counter, (missing, &asked));
            }
        }
        for (peer, (session, amount)) in to_ask {
            let (space, collection, key) = (wait.space, wait.address.collection(), wait.address.key());
            let (collection, key) = (collection.to_owned(), key.to_owned());
            let Some(to) = own else { continue };
            let ask = RightsRequest { space, collection, key, to, amount };
            self.send(session, Class::Control, &Message::RightsRequest(ask));
            asked.insert(peer);
        }
        if let Some(wait) = self.waits.rights.get_mut(&request) {
            wait.asked = asked;
        }
        let again = (now.monotonic + RIGHTS_RETRY).min(wait.deadline);
        self.timers.insert((again, Timer::Rights(request)));
    }

    /// There is somebody else who can be asked.
    pub(crate) fn pursue_rights_soon(&mut self, id: SpaceId) {
        let soon = self.latest.monotonic;
        let waits = self.waits.rights.iter().filter(|(_, wait)| wait.space == id);
        self.timers.extend(waits.map(|(request, _)| (soon, Timer::Rights(*request))));
    }

    /// Connected peers that were not asked yet, those with the most rights first, as many as make up what is
    /// needed, each with how much.
    fn whom_to_ask(
        &self,
        space: &Space,
        counter: &BoundedCounter,
        (mut needed, asked): (u64, &BTreeSet<ReplicaId>),
    ) -> BTreeMap<ReplicaId, (SessionId, u64)> {
        let mut to_ask = BTreeMap::new();
        for (origin, rights) in counter.holders() {
            let Some(lane) = space.lanes.get(&origin) else { continue };
            let owner = lane.row.owner.replica;
            let amount = u64::try_from(rights).unwrap_or(u64::MAX).min(needed);
            let session = self.session_of(space, &owner).filter(|_| amount > 0 && !asked.contains(&owner));
            if let Some(session) = session {
                to_ask.entry(owner).or_insert((session, 0)).1 += amount;
                needed -= amount;
            }
        }
        to_ask
    }

    fn session_of(&self, space: &Space, peer: &ReplicaId) -> Option<SessionId> {
        let mut open = space.sessions.iter();
        open.find(|session| self.sessions.get(session).is_some_and(|s| s.peer == *peer)).copied()
    }

    /// A peer asks for rights: it gets what is held here, as a change set like any other.
    pub(crate) fn on_rights_request(
        &mut self,
        now: &Now,
        session: SessionId,
        asked: &RightsRequest,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let Some(part) = self.sessions.get(&session) else { return Ok(()) };
        let (peer, is_open) = (part.peer, part.is_open(&asked.space));
        if !is_open {
            return Err(CloseReason::Unexpected.into());
        }
        let Some(space) = self.spaces.get_mut(&asked.space).filter(|space| !space.is_blocked()) else {
            return Ok(());
        };
        // What is handed to a lane that is not followed is lost.
        let is_theirs = |to: &OriginId| {
            let lane = space.lanes.get(to).filter(|lane| lane.row.frozen.is_none());
            lane.is_some_and(|lane| lane.row.owner.replica == peer)
        };
        let Ok(address) = ObjectAddress::new(Kind::BoundedCounter, &asked.collection, &asked.key) else {
            return Err(CloseReason::Malformed.into());
        };
        if !is_theirs(&asked.to) || !space.writes(&peer) || !space.standing(&self.replica).may_write() {
            return Ok(());
        }
        let Some(counter) = load(store, &asked.space, &address)? else { return Ok(()) };
        let amount = held(space, &counter).min(asked.amount);
        if amount == 0 || space.own_lane() == Some(asked.to) {
            return Ok(());
        }
        let mut tx = Tx::begin(space, &*store, (self.replica, self.region.as_deref()), now);
        if tx.bounded_transfer_at(&Location::from(address), asked.to, amount).is_err() {
            tx.roll_back();
            return Ok(());
        }
        match tx.finish(&self.instance) {
            Ok(Some(finished)) => {
                self.commit_local(asked.space, finished, store)?;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(TxError::Store(error)) => Err(error.into()),
            Err(_) => Ok(()),
        }
    }

    /// Answers who has the rights now that it waited for.
    pub(crate) fn resolve_rights(&mut self, id: SpaceId, store: &dyn StateRead) -> Result<(), StoreError> {
        if self.waits.rights.is_empty() {
            return Ok(());
        }
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let mut reached = Vec::new();
        for (request, wait) in self.waits.rights.iter().filter(|(_, wait)| wait.space == id) {
            let Some(counter) = load(store, &id, &wait.address)? else { continue };
            let held = held(space, &counter);
            if held >= wait.amount {
                reached.push((*request, held));
            }
        }
        for (request, held) in reached {
            self.waits.rights.remove(&request);
            self.reply(request, Ok(Reply::RightsHeld(held)));
        }
        Ok(())
    }
}

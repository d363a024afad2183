//! Membership: who may see a space and who may write in it, and what becomes of sessions when that changes.

use comity_crdts::{ReplicaId, SpaceId, canary};

use crate::engine::{Engine, Timer};
use crate::io::{Class, CloseReason, CommandError, Notice, Now, Output, Reply, RequestId, SessionId};
use crate::keys;
use crate::limits::PART_AFTER;
use crate::members::Roster;
use crate::message::{Denied, Message, Removed};
use crate::op::Role;
use crate::retention::Retention;
use crate::space::{Lane, Leave, Space};
use crate::status::Standing;
use crate::store::{Position, StateRead, Store, StoreError};
use crate::tx::{Tx, TxError};
use crate::work::Work;

/// A former member is to be told so once what made it one is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Farewell {
    after: Position,
    session: SessionId,
    space: SpaceId,
}

impl Space {
    /// Whether `peer` may see this space: it is a member; or it is trusted and the member list, which may not have
    /// arrived, says nothing of it; or it is to let this replica in.
    pub(crate) fn admits(&self, peer: &ReplicaId) -> bool {
        let is_trusted = || self.row.pinned.contains(peer) && !self.roster.knows(peer);
        let lets_in = || self.row.invitation.is_some_and(|(inviter, _)| inviter == *peer);
        self.row.left != Some(Leave::Silent) && (self.members.contains_key(peer) || is_trusted() || lets_in())
    }

    /// How this replica takes part.
    pub(crate) fn standing(&self, replica: &ReplicaId) -> Standing {
        let promised = if self.row.follows { Role::Follower } else { Role::Writer };
        match self.members.get(replica) {
            _ if self.row.left.is_some() => Standing::Left,
            _ if self.row.removed_by.is_some() => Standing::Removed,
            Some(role) => Standing::Member(*role),
            None if self.roster.knows(replica) && self.row.invitation.is_none() => Standing::Removed,
            None => Standing::Joining(promised),
        }
    }

    /// Whether a replica is a member that writes.
    pub(crate) fn writes(&self, replica: &ReplicaId) -> bool {
        self.members.get(replica).is_some_and(|role| *role >= Role::Writer)
    }

    /// Whether what the owner of a lane has not seen has to be kept for it. Who does not write any more may still have
    /// something on its way that was made before; what that needs comes back from the log, so where the log is
    /// shortened it has to be kept.
    pub(crate) fn counts(&self, lane: &Lane) -> bool {
        let owner = &lane.row.owner.replica;
        let is_over = self.roster.knows(owner) && !self.writes(owner);
        !is_over || !lane.staged.is_empty() || self.is_shortened || canary!(RemovedStallCut)
    }

    /// Notes whether entries of the log are let go of, or were.
    pub(crate) fn note_shortening(&mut self, retention: &Retention) {
        let is_shortened = *retention != Retention::OFF || self.kept.dropped > 0 || self.kept.installs > 0;
        if self.is_shortened != is_shortened {
            self.is_shortened = is_shortened;
            self.move_cut();
        }
    }
}

impl Engine {
    /// Why this replica does not write in a space, if it does not, with a replica that does. O(members).
    pub(crate) fn refuse_write(&self, id: &SpaceId, store: &dyn StateRead) -> Result<(), TxError> {
        let Some(space) = self.spaces.get(id) else { return Ok(()) };
        let standing = space.standing(&self.replica);
        if standing.may_write() {
            return Ok(());
        }
        let present = self.present_peers(space);
        let connected = |peer: &ReplicaId| present.contains_key(peer);
        let mut best: Option<((bool, bool), ReplicaId, Option<String>)> = None;
        for writer in space.writers().filter(|writer| **writer != self.replica) {
            let address = store.get(&keys::peer_address(writer))?;
            let address = address.and_then(|bytes| String::from_utf8(bytes).ok());
            let rank = (connected(writer), address.is_some());
            if best.as_ref().is_none_or(|(of_best, ..)| rank > *of_best) {
                best = Some((rank, *writer, address));
            }
        }
        let (writer, address) = best.map_or((None, None), |(_, writer, address)| (Some(writer), address));
        Err(TxError::NotWriter { standing, writer, address })
    }

    /// Reads the member list again after it changed, and does what follows from it.
    pub(crate) fn reload_members(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let replica = self.replica;
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let before = space.roster.row(&replica);
        space.set_roster(Roster::load(store, &id)?);
        let is_restated = space.roster.row(&replica) != before;
        if !canary!(StrangerNotReviewed) {
            space.review.append(&mut space.strangers);
        }
        space.move_cut();
        if is_restated {
            self.restore_standing(id, store)?;
        }
        self.enforce_members(id);
        // Fewer may have to be heard of.
        self.resolve_remote(id);
        self.push(Output::Notify(Notice::TrustChanged));
        Ok(())
    }

    pub(crate) fn grant(
        &mut self,
        now: &Now,
        request: RequestId,
        (id, replica, role): (SpaceId, ReplicaId, Role),
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        let space = self.spaces.get(&id).ok_or(CommandError::UnknownSpace(id))?;
        if !is_admin(space, &self.replica) || !space.standing(&self.replica).may_write() {
            return Err(CommandError::NotAdmin(id));
        }
        self.change_members(now, id, store, |tx| tx.grant(replica, role))?;
        self.await_facts(now, request, Reply::MembersChanged);
        Ok(())
    }

    pub(crate) fn revoke(
        &mut self,
        now: &Now,
        request: RequestId,
        (id, replica): (SpaceId, ReplicaId),
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        let space = self.spaces.get(&id).ok_or(CommandError::UnknownSpace(id))?;
        let may_write = space.standing(&self.replica).may_write();
        if !may_write || !(is_admin(space, &self.replica) || replica == self.replica) {
            return Err(CommandError::NotAdmin(id));
        }
        self.change_members(now, id, store, |tx| tx.revoke(replica))?;
        self.await_facts(now, request, Reply::MembersChanged);
        Ok(())
    }

    /// A change set of this replica about members.
    fn change_members(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
        body: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>,
    ) -> Result<(), CommandError> {
        let space = self.spaces.get_mut(&id).ok_or(CommandError::UnknownSpace(id))?;
        let mut tx = Tx::begin(space, &*store, (self.replica, self.region.as_deref()), now);
        let refused = |error| CommandError::of_members(id, error);
        if let Err(error) = body(&mut tx) {
            tx.roll_back();
            return Err(refused(error));
        }
        if let Some(finished) = tx.finish(&self.instance).map_err(refused)? {
            self.commit_local(id, finished, store)?;
        }
        Ok(())
    }

    /// Takes no part in a space any more. A writer stays reachable for the others, so that they learn of it; all
    /// secrets of the space are forgotten.
    pub(crate) fn leave_space(
        &mut self,
        now: &Now,
        request: RequestId,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        let replica = self.replica;
        let space = self.spaces.get(&id).ok_or(CommandError::UnknownSpace(id))?;
        let tells = space.writes(&replica) && space.standing(&replica).may_write();
        if tells {
            self.change_members(now, id, store, |tx| tx.revoke(replica))?;
        }
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let before = space.row.clone();
        let leave = if tells { Leave::Told } else { Leave::Silent };
        (space.row.left, space.row.invitation) = (Some(leave), None);
        let mut work = Work::over(&*store);
        space.put_row(&mut work);
        for (_, hash) in self.invitations.keys().filter(|(space, _)| *space == id) {
            work.delete_fact(keys::invitation(&id, hash));
        }
        let batch = work.into_batch();
        match store.commit(batch) {
            Ok(position) => self.committed = position,
            Err(error) => {
                space.row = before;
                return Err(error.into());
            }
        }
        self.commons.touch(id);
        self.invitations.retain(|(space, _), _| *space != id);
        if !tells {
            self.end_space(id);
        }
        self.push(Output::Notify(Notice::TrustChanged));
        self.dirty.insert(id);
        self.await_facts(now, request, Reply::Left);
        self.request_sync();
        Ok(())
    }

    /// This replica does not serve a space any more: every peer that has it open is told what strangers are told.
    pub(crate) fn end_space(&mut self, id: SpaceId) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            if self.withdraw(session, id) {
                self.say_closed(session, id, &Message::Denied(Denied { space: id }));
            }
        }
    }

    /// The member list changed: spaces are opened for whom it lets in, and closed for whom it does not any more.
    /// Nothing is sent from here on to those; they are told once the change is durable.
    pub(crate) fn enforce_members(&mut self, id: SpaceId) {
        let Some(space) = self.spaces.get(&id) else { return };
        let (mut admitted, mut removed) = (Vec::new(), Vec::new());
        for (number, session) in &self.sessions {
            if space.admits(&session.peer) {
                admitted.push((*number, id));
            } else if session.spaces.contains_key(&id) || self.is_quiet(session, &id) {
                removed.push(*number);
            }
        }
        self.to_open.extend(admitted);
        if canary!(RevocationNotEnforced) {
            return;
        }
        for session in removed {
            self.withdraw(session, id);
            self.farewells.push_back(Farewell { after: self.committed, session, space: id });
        }
        self.drop_unneeded(id);
    }

    /// Of the lanes of former members only what remaining members have applied is still taken: what waits here may wait
    /// for what none of them has.
    fn drop_unneeded(&mut self, id: SpaceId) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let (roster, members) = (&space.roster, &space.members);
        let is_over = |owner: &ReplicaId| roster.knows(owner) && !members.contains_key(owner);
        let mut dropped = Vec::new();
        for (lane_id, lane) in &mut space.lanes {
            if !lane.staged.is_empty() && is_over(&lane.row.owner.replica) {
                lane.drop_staged();
                dropped.push(*lane_id);
            }
        }
        if dropped.is_empty() {
            return;
        }
        space.review.extend(&dropped);
        space.move_cut();
        for lane in dropped {
            // It goes on from where the lane stands now.
            self.drop_parent(id, lane);
        }
        self.dirty.insert(id);
    }

    /// Closes a space on a session, for both directions. What the peer sent of it before it knows is ignored. Returns
    /// whether it was open in any direction.
    pub(crate) fn withdraw(&mut self, session_id: SessionId, id: SpaceId) -> bool {
        let is_quiet = self.sessions.get(&session_id).is_some_and(|session| self.is_quiet(session, &id));
        let Some(session) = self.sessions.get_mut(&session_id) else { return false };
        let peer = session.peer;
        if session.spaces.remove(&id).is_none() && !is_quiet {
            return false;
        }
        session.end_outgoing_of(&id);
        session.end_incoming_of(&id);
        session.withdrawn.insert(id);
        self.to_serve.remove(&(id, session_id));
        self.end_served_of(session_id, id);
        self.forget_session(session_id, id);
        if let Some(space) = self.spaces.get_mut(&id) {
            space.peer_durable.remove(&peer);
            space.fresh.remove(&peer);
            for lane in space.lanes.values_mut() {
                lane.doubted_by.remove(&session_id);
            }
        }
        true
    }

    /// Tells former members that they are none, as far as what made them so is durable.
    pub(crate) fn say_farewells(&mut self, now: &Now) {
        while let Some(Farewell { session, space: id, .. }) =
            self.farewells.front().copied().filter(|farewell| farewell.after <= self.synced)
        {
            self.farewells.pop_front();
            let Some(peer) = self.sessions.get(&session).map(|session| session.peer) else { continue };
            let is_admitted = self.spaces.get(&id).is_some_and(|space| space.admits(&peer));
            if is_admitted {
                // Let in again meanwhile.
                self.say_closed(session, id, &Message::Denied(Denied { space: id }));
                continue;
            }
            self.say_closed(session, id, &Message::Removed(Removed { space: id }));
            if !self.shares(&peer) {
                self.timers.insert((now.monotonic + PART_AFTER, Timer::Part(session)));
            }
        }
    }

    /// A space is opened again on a session that lost it before the peer was told: what it opened is over.
    pub(crate) fn renew_opening(&mut self, session: SessionId, id: SpaceId) {
        let untold = |farewell: &Farewell| farewell.session == session && farewell.space == id;
        if self.farewells.iter().any(untold) {
            self.farewells.retain(|farewell| !untold(farewell));
            self.say_closed(session, id, &Message::Denied(Denied { space: id }));
        }
    }

    /// Tells a peer that a space is closed here on its session. It may have opened it meanwhile.
    fn say_closed(&mut self, session_id: SessionId, id: SpaceId, message: &Message) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            *session.crossing.entry(id).or_default() += 1;
        }
        self.send(session_id, Class::Control, message);
    }

    /// Takes an opening in the place of one that the peer made before it heard that the space was closed here, if there may be
    /// such a one: what that led to is over, for the peer, too. Returns whether it is so.
    pub(crate) fn open_anew(&mut self, session_id: SessionId, id: SpaceId) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return false };
        let Some(crossing) = session.crossing.get_mut(&id).filter(|crossing| **crossing > 0) else {
            return false;
        };
        *crossing -= 1;
        session.end_outgoing_of(&id);
        let part = session.space_mut(&id);
        (part.opened_by_peer, part.named_by_peer) = (false, Vec::new());
        self.end_served_of(session_id, id);
        true
    }

    /// What a peer that is not let into a space gets for asking: the same for what is forbidden and what is unknown,
    /// unless it was a member.
    pub(crate) fn turn_away(&mut self, now: &Now, session: SessionId, id: SpaceId) {
        let Some(peer) = self.sessions.get(&session).map(|session| session.peer) else { return };
        let space = self.spaces.get(&id).filter(|space| space.row.left != Some(Leave::Silent));
        if space.is_some_and(|space| space.roster.knows(&peer) && !space.members.contains_key(&peer)) {
            self.farewells.push_back(Farewell { after: self.committed, session, space: id });
            self.say_farewells(now);
            return;
        }
        self.send(session, Class::Control, &Message::Denied(Denied { space: id }));
    }

    /// Whether a peer may see any space.
    fn shares(&self, peer: &ReplicaId) -> bool {
        self.spaces.values().any(|space| space.admits(peer))
    }

    /// Ends a connection over which nothing is shared any more.
    pub(crate) fn part(&mut self, session: SessionId) {
        if self.sessions.get(&session).is_some_and(|session| session.is_refused) {
            return self.close(session, CloseReason::Version);
        }
        let is_over =
            |session: &crate::session::Session| session.spaces.is_empty() && !self.shares(&session.peer);
        if self.sessions.get(&session).is_some_and(is_over) {
            self.close(session, CloseReason::NotMember);
        }
    }

    /// A peer says that this replica is no member any more. An admin is believed: nothing is written then until one
    /// opens the space again, or the member list says more.
    pub(crate) fn on_removed(
        &mut self,
        session_id: SessionId,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get(&session_id) else { return Ok(()) };
        let peer = session.peer;
        let opened = session.spaces.get(&id).filter(|part| part.opened_by_us);
        let quiet = || self.is_quiet(session, &id).then_some(None);
        let Some(presented) = opened.map(|part| part.join_sent).or_else(quiet) else { return Ok(()) };
        self.withdraw(session_id, id);
        let replica = self.replica;
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        match space.row.invitation {
            Some((inviter, secret)) if inviter == peer && Some(secret) != presented => {
                self.to_open.insert((session_id, id));
            }
            Some(_) => {}
            None if is_admin(space, &peer) && space.members.contains_key(&replica) => {
                space.row.removed_by = Some(peer);
                self.put_space_row(id, store)?;
            }
            None => {}
        }
        self.push(Output::Notify(Notice::Removed { space: id, peer }));
        Ok(())
    }

    /// An admin serves this replica, or the member list says more of it: it is a member after all.
    pub(crate) fn restore_standing(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        if space.row.removed_by.take().is_some() {
            self.put_space_row(id, store)?;
        }
        Ok(())
    }

    fn put_space_row(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get(&id) else { return Ok(()) };
        let mut work = Work::over(&*store);
        space.put_row(&mut work);
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        self.commons.touch(id);
        self.request_sync();
        Ok(())
    }
}

/// Whether the member list makes a replica an admin.
pub(crate) fn is_admin(space: &Space, replica: &ReplicaId) -> bool {
    space.members.get(replica) == Some(&Role::Admin)
}

impl CommandError {
    /// Why a change set about members was refused.
    fn of_members(space: SpaceId, error: TxError) -> Self {
        match error {
            TxError::NotMember { replica } => Self::NotMember { space, replica },
            TxError::LastAdmin { replica } => Self::LastAdmin { space, replica },
            TxError::TooManyMembers { members_max } => Self::TooManyMembers { members_max },
            TxError::TooManyStatements { replica, statements_max } => {
                Self::TooManyStatements { replica, statements_max }
            }
            TxError::TooManyLanes { lanes, lanes_max } => Self::TooManyLanes { lanes, lanes_max },
            TxError::Store(error) => Self::Store(error),
            error => unreachable!("a statement about a member is refused with {error}"),
        }
    }
}

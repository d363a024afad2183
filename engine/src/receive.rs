//! Receiving: what peers say, checked before any of it is kept.

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{Frontier, Hlc, LaneId, OriginId, SpaceId, canary};

use crate::change::{Body, ChangeSet, LaneEntry, LaneTip};
use crate::engine::Engine;
use crate::hash::Hash;
use crate::io::{Class, CloseReason, Notice, Now, Output, SessionId};
use crate::keys;
use crate::limits::{PIECE_BYTES_PROGRESS, RUN_BYTES_MAX, SESSION_SPACES_MAX, STAGED_BYTES_MAX};
use crate::message::{
    Data, Denied, Genesis, Gone, Have, Join, LaneRef, Message, Open, Removed, SnapshotPiece, Subscribe,
    Unsubscribe,
};
use crate::op::{Op, Role};
use crate::proof::Proof;
use crate::run::{CheckedRun, Received, RunError, check_run};
use crate::session::Course;
use crate::space::{Founder, Lane, LaneRow, Staged, encode};
use crate::status::Freeze;
use crate::store::{Store, StoreError};
use crate::tx::TxError;
use crate::work::Work;

/// Why a message ends its session.
pub(crate) enum Refusal {
    Close(CloseReason),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason)
    }
}

impl Engine {
    pub(crate) fn on_frame(&mut self, now: &Now, session: SessionId, frame: &[u8], store: &mut dyn Store) {
        // A peer that speaks no common version may not know yet.
        if self.sessions.get(&session).is_none_or(|session| session.is_refused) {
            return;
        }
        let result = match Message::decode(frame) {
            Ok(message) => self.on_message(now, session, message, store),
            Err(_) => Err(CloseReason::Malformed.into()),
        };
        match result {
            Ok(()) => {}
            Err(Refusal::Close(reason)) => self.close(session, reason),
            Err(Refusal::Store(error)) => {
                // What the message asked for is lost; the next session asks again.
                self.close(session, CloseReason::Storage);
                self.on_store_error(now, error);
            }
        }
    }

    fn on_message(
        &mut self,
        now: &Now,
        session: SessionId,
        message: Message<'_>,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let greeted = self.sessions.get(&session).is_some_and(|session| session.greeted);
        match message {
            Message::Hello(hello) if !greeted => self.on_hello(now, session, &hello, store),
            Message::Skippable(_) => Ok(()),
            // Data may overtake the greeting, because streams are not ordered among themselves, but only data
            // of a subscription, which the peer received with this side's greeting.
            Message::Data(data) => self.on_data(now, session, &data, store),
            _ if !greeted => Err(CloseReason::Unexpected.into()),
            Message::Hello(_) => Err(CloseReason::Unexpected.into()),
            message if self.sessions.get(&session).is_some_and(|session| session.is_stale(&message)) => {
                Ok(())
            }
            Message::Knows(knows) => self.on_knows(session, &knows),
            Message::Shared(shared) => self.on_shared(now, session, &shared, store),
            Message::Heard => {
                self.on_heard(now, session);
                Ok(())
            }
            Message::Branches(branches) => self.on_branches(session, &branches, store),
            Message::Leaves(leaves) => self.on_leaves(now, session, &leaves, store),
            Message::Join(join) => self.on_join(now, session, &join, store),
            Message::Open(open) => self.on_open(now, session, open, store),
            Message::Genesis(genesis) => self.on_genesis(session, genesis, store),
            Message::Denied(Denied { space }) => {
                self.on_denied(session, space);
                Ok(())
            }
            Message::Removed(Removed { space }) => Ok(self.on_removed(session, space, store)?),
            Message::Subscribe(subscribe) => self.on_subscribe(now, session, &subscribe, store),
            Message::Range(range) => self.on_range(now, session, &range, store),
            Message::Limit(limit) => {
                self.on_limit(session, &limit);
                Ok(())
            }
            Message::Limited(limited) => {
                self.on_limited(session, &limited);
                Ok(())
            }
            Message::Offer(offer) => self.on_offer(now, session, &offer),
            Message::Unsubscribe(unsubscribe) => Ok(self.on_unsubscribe(session, &unsubscribe, store)?),
            Message::Gone(gone) => {
                self.on_gone(session, &gone);
                Ok(())
            }
            Message::Have(have) => self.on_have(now, session, &have, store),
            Message::Head(head) => self.on_head(session, &head, store),
            Message::RightsRequest(request) => self.on_rights_request(now, session, &request, store),
            Message::SnapshotAsk(ask) => self.on_snapshot_ask(now, session, &ask),
            Message::SnapshotRead(read) => self.on_snapshot_read(now, session, read),
            Message::SnapshotOffer(offer) => {
                self.on_snapshot_offer(now, session, (offer.number, offer.offer))
            }
            Message::SnapshotPiece(piece) => {
                let SnapshotPiece { number, more, bytes } = piece;
                self.on_snapshot_piece(now, session, (number, more, bytes), store)
            }
            Message::SnapshotSame(same) => self.on_snapshot_same(now, session, &same),
            Message::SnapshotStop(stop) => {
                self.on_snapshot_stop(now, session, &stop);
                Ok(())
            }
            Message::FrontierRequest(request) => self.on_frontier_request(session, &request),
            Message::FrontierAnswer(answer) => self.on_frontier_answer(now, session, &answer, store),
            Message::AuditAsk(ask) => self.on_audit_ask(session, ask),
            Message::AuditReply(reply) => {
                self.on_audit_reply(now, session, &reply);
                Ok(())
            }
            Message::AuditFetch(fetch) => self.on_audit_fetch(session, fetch),
            Message::AuditRows(rows) => {
                self.on_audit_rows(now, session, rows);
                Ok(())
            }
            Message::AuditSuspect(suspect) => self.on_audit_suspect(now, session, &suspect),
        }
    }

    fn on_join(
        &mut self,
        now: &Now,
        session: SessionId,
        join: &Join,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let Some(peer) = self.sessions.get(&session).map(|session| session.peer) else { return Ok(()) };
        let admitted = match self.redeem(now, peer, join, store) {
            Ok(admitted) => admitted,
            Err(TxError::Store(error)) => return Err(error.into()),
            Err(_) => false,
        };
        if admitted {
            self.open_space(now, session, join.space, store)?;
        } else {
            self.send(session, Class::Control, &Message::Denied(Denied { space: join.space }));
        }
        Ok(())
    }

    fn on_open(
        &mut self,
        now: &Now,
        session_id: SessionId,
        open: Open,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let is_overtaken = self.is_overtaken(session_id, &open.space);
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let peer = session.peer;
        let Some(space) =
            self.spaces.get_mut(&open.space).filter(|space| space.admits(&peer) || canary!(StrangerServed))
        else {
            if session.withdrawn.contains(&open.space) {
                // It was said before the peer heard of that, and so is more about it by this number.
                session.peer_refs.insert(open.space_ref, open.space);
            }
            self.turn_away(now, session_id, open.space);
            return Ok(());
        };
        let is_admin = space.members.get(&peer) == Some(&Role::Admin);
        if session.spaces.len() >= SESSION_SPACES_MAX || open.lanes.len() > LANES_MAX {
            return Err(CloseReason::TooMany.into());
        }
        let is_again = session.space_mut(&open.space).opened_by_peer;
        if is_again && !self.open_anew(session_id, open.space) {
            return Err(CloseReason::Unexpected.into());
        }
        let (Some(session), Some(space)) =
            (self.sessions.get_mut(&session_id), self.spaces.get_mut(&open.space))
        else {
            return Ok(());
        };
        let part = session.space_mut(&open.space);
        if open.lanes.iter().any(|lane| part.named_by_peer.contains(&lane.lane)) {
            return Err(CloseReason::Unexpected.into());
        }
        part.opened_by_peer = true;
        session.withdrawn.remove(&open.space);
        let part = session.space_mut(&open.space);
        part.named_by_peer = open.lanes.iter().map(|lane| lane.lane).collect();
        // Data that overtook this said more already.
        part.peer_have.merge(&open.lanes.iter().map(|lane| (lane.lane, lane.lsn)).collect());
        let part_have = part.peer_have.clone();
        if !is_overtaken {
            space.peer_durable.insert(peer, part_have.clone());
        }
        if session.peer_refs.insert(open.space_ref, open.space).is_some() {
            return Err(CloseReason::Unexpected.into());
        }
        for (lane, lsn) in part_have.iter() {
            space.note_told(now.monotonic, lane, lsn);
        }
        session.note_asked(&open.space, &space.parents, &space.durable);
        if let (true, Some(founder)) = (open.needs_genesis, space.row.founder) {
            let (creator, nonce) = (founder.replica, founder.nonce);
            let genesis = Genesis { space: open.space, creator, nonce, name: space.row.name.clone() };
            self.send(session_id, Class::Control, &Message::Genesis(genesis));
        }
        if is_admin {
            self.restore_standing(open.space, store)?;
        }
        self.open_space(now, session_id, open.space, store)?;
        self.note_open(session_id, open.space);
        for lane in &open.lanes {
            self.compare_lane(session_id, open.space, lane, store)?;
        }
        for lane in open.lanes {
            if let Some(subscription) = lane.subscription {
                let (lane, from, hash) = (lane.lane, lane.lsn.saturating_add(1), lane.hash);
                let subscribe = Subscribe { space: open.space, subscription, lane, from, hash };
                self.on_subscribe(now, session_id, &subscribe, store)?;
            }
        }
        self.resolve_remote(open.space);
        self.resolve_room(open.space);
        self.plan_lag_look(open.space);
        Ok(())
    }

    /// The peer will not serve a space, or not any more: it is as if it had not been opened, until the peer opens it or
    /// there is another invitation to present.
    fn on_denied(&mut self, session_id: SessionId, id: SpaceId) {
        let Some(peer) = self.sessions.get(&session_id).map(|session| session.peer) else { return };
        let is_quiet = self.sessions.get(&session_id).is_some_and(|session| self.is_quiet(session, &id));
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(part) = session.spaces.get_mut(&id).filter(|part| part.opened_by_us) else {
            if is_quiet {
                self.withdraw(session_id, id);
                self.push(Output::Notify(Notice::Denied { space: id, peer }));
            }
            return;
        };
        part.roused = false;
        if part.opened_by_peer {
            // It served the space until now.
            self.withdraw(session_id, id);
            return self.push(Output::Notify(Notice::Denied { space: id, peer }));
        }
        if part.join_sent.is_some() && !part.join_denied {
            part.join_denied = true;
            return;
        }
        part.opened_by_us = false;
        let presented = part.join_sent.take();
        session.end_incoming_of(&id);
        self.forget_session(session_id, id);
        let invitation = self.spaces.get(&id).and_then(|space| space.row.invitation);
        if invitation.is_some_and(|(inviter, secret)| inviter == peer && Some(secret) != presented) {
            self.to_open.insert((session_id, id));
        }
        self.push(Output::Notify(Notice::Denied { space: id, peer }));
    }

    fn on_genesis(
        &mut self,
        session: SessionId,
        genesis: Genesis,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let Some(peer) = self.sessions.get(&session).map(|session| session.peer) else { return Ok(()) };
        let Some(space) = self.spaces.get_mut(&genesis.space).filter(|space| !space.is_blocked()) else {
            return Ok(());
        };
        if space.row.founder.is_some() || !space.admits(&peer) {
            return Ok(());
        }
        let named = genesis.name.len() <= comity_crdts::limits::SPACE_NAME_BYTES_MAX;
        if SpaceId::derive(&genesis.creator, &genesis.nonce) != genesis.space || !named {
            return Err(CloseReason::Signature.into());
        }
        let founder = Founder { replica: genesis.creator, nonce: genesis.nonce };
        let before = (space.row.clone(), space.roster.clone(), space.progress);
        let mut work = Work::over(store);
        let mut effects = crate::apply::Effects::default();
        space.found(&mut work, &mut effects, founder, genesis.name);
        space.progress.digest.0 = space.progress.digest.0.wrapping_add(effects.digest);
        space.put_row(&mut work);
        space.put_progress(&mut work, &space.progress);
        let batch = work.into_batch();
        match store.commit(batch) {
            Ok(position) => self.committed = position,
            Err(error) => {
                // Grants are judged by the stored rows, which do not know the founder.
                let roster;
                (space.row, roster, space.progress) = before;
                space.set_roster(roster);
                return Err(error.into());
            }
        }
        space.review.append(&mut space.strangers);
        self.request_sync();
        self.dirty.insert(genesis.space);
        self.push(Output::Notify(Notice::TrustChanged));
        Ok(())
    }

    fn on_unsubscribe(
        &mut self,
        session_id: SessionId,
        message: &Unsubscribe,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if !message.refused {
            // The lane's position is news again for this peer.
            if let Some(ended) = session.outgoing.get(&message.subscription) {
                self.to_serve.insert((ended.space, session_id));
            }
            session.end_outgoing(message.subscription);
            return Ok(());
        }
        if let Some(incoming) = session.end_incoming(message.subscription)
            && let Some(space) = self.spaces.get_mut(&incoming.space)
        {
            let parent = space.parents.get(&incoming.lane);
            if parent.is_some_and(|p| p.session == session_id && p.subscription == message.subscription) {
                space.parents.remove(&incoming.lane);
            }
            if incoming.course != Course::Stream {
                space.lose_part((incoming.lane, session_id), message.subscription);
                self.dirty.insert(incoming.space);
                return Ok(());
            }
            // What the peer said it has, it cannot serve; another Have brings it back into consideration.
            let mut said = 0;
            if let Some(part) = session.spaces.get_mut(&incoming.space) {
                said = part.peer_have.at(&incoming.lane);
                let others = part.peer_have.iter().filter(|(lane, _)| *lane != incoming.lane);
                part.peer_have = others.collect::<Frontier>();
            }
            let durable = space.durable.at(&incoming.lane);
            if let Some(lane) = space.lanes.get_mut(&incoming.lane).filter(|lane| lane.row.tip.lsn > durable)
            {
                lane.doubted_by.insert(session_id);
            }
            space.review.insert(incoming.lane);
            self.dirty.insert(incoming.space);
            if said >= durable {
                // It has as much and yet does not go on from there.
                self.send_head(session_id, incoming.space, incoming.lane, durable, store)?;
            }
        }
        Ok(())
    }

    /// What a subscription needs is not kept at the peer any more. It is not asked again as long as this replica stands
    /// before that.
    fn on_gone(&mut self, session_id: SessionId, gone: &Gone) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(incoming) = session.end_incoming(gone.subscription) else { return };
        session.space_mut(&incoming.space).peer_floors.advance(incoming.lane, gone.floor);
        let Some(space) = self.spaces.get_mut(&incoming.space) else { return };
        let parent = space.parents.get(&incoming.lane);
        if parent.is_some_and(|p| p.session == session_id && p.subscription == gone.subscription) {
            space.parents.remove(&incoming.lane);
        }
        space.lose_part((incoming.lane, session_id), gone.subscription);
        space.review.insert(incoming.lane);
        self.dirty.insert(incoming.space);
    }

    fn on_have(
        &mut self,
        now: &Now,
        session_id: SessionId,
        have: &Have,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        self.take_have(now, session_id, (have.space_ref, &have.lanes), store)?;
        Ok(())
    }

    /// Takes in what a peer says it holds; returns that, and in which space.
    pub(crate) fn take_have(
        &mut self,
        now: &Now,
        session_id: SessionId,
        (space_ref, lanes): (u32, &[(LaneRef, u64)]),
        store: &mut dyn Store,
    ) -> Result<Option<(SpaceId, Frontier)>, Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(None) };
        let Some(id) = session.peer_refs.get(&space_ref).copied() else {
            return Err(CloseReason::Unexpected.into());
        };
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(None) };
        let peer = session.peer;
        let mut own = 0;
        let mut said = Frontier::new();
        for (lane, lsn) in lanes {
            let part = session.space_mut(&id);
            let lane = match lane {
                LaneRef::Known(place) => part.named_by_peer.get(*place as usize).copied(),
                LaneRef::New(lane) => {
                    part.named_by_peer.push(*lane);
                    Some(*lane)
                }
            };
            let lane = lane.ok_or(CloseReason::Unexpected)?;
            if part.named_by_peer.len() > LANES_MAX {
                return Err(CloseReason::TooMany.into());
            }
            said.advance(lane, *lsn);
            part.acked.note(now.monotonic, lsn.saturating_sub(part.peer_have.at(&lane)));
            part.peer_have.advance(lane, *lsn);
            session.acknowledge(now.monotonic, &id, &lane, *lsn);
            space.peer_durable.entry(peer).or_default().advance(lane, *lsn);
            space.note_told(now.monotonic, lane, *lsn);
            space.review.insert(lane);
            if space.own_lane() == Some(lane) {
                own = own.max(*lsn);
            }
        }
        let written = space.own_lane().map_or(0, |own| space.frontier.at(&own));
        if own > written {
            self.renounce(id, store)?;
        }
        self.resolve_remote(id);
        self.resolve_room(id);
        self.plan_lag_look(id);
        self.dirty.insert(id);
        self.to_serve.insert((id, session_id));
        Ok(Some((id, said)))
    }

    fn on_data(
        &mut self,
        now: &Now,
        session_id: SessionId,
        data: &Data<'_>,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        session.received_bytes += data.bytes.len() as u64;
        let Some(incoming) = session.incoming.get_mut(&data.subscription) else {
            // Data of a subscription that was ended may still be on its way.
            let ended = session.knew(data.subscription);
            return if ended { Ok(()) } else { Err(CloseReason::Unexpected.into()) };
        };
        if let Some(asked) = incoming.asked.take() {
            session.round_trip.note(now.monotonic.saturating_sub(asked));
        }
        let (first, mut run) = incoming.partial.take().unwrap_or((data.first, Vec::new()));
        if first != data.first || run.len() + data.bytes.len() > RUN_BYTES_MAX {
            return Err(CloseReason::Malformed.into());
        }
        let (place, subscription) = ((incoming.space, incoming.lane), data.subscription);
        let whole;
        let bytes = if run.is_empty() && !data.more && incoming.course == Course::Stream {
            data.bytes
        } else {
            run.extend_from_slice(data.bytes);
            if data.more {
                incoming.partial = Some((first, run));
                self.note_piece(now, (session_id, subscription), place, data.bytes.len());
                return Ok(());
            }
            if incoming.course != Course::Stream {
                let about = (first, data.awaited, data.ends);
                return self.keep_run(now, (session_id, subscription), place, about, run);
            }
            whole = run;
            whole.as_slice()
        };
        self.accept_run(now, (session_id, subscription), (first, data.awaited), bytes, store)
    }

    /// A run came that its lane goes on with: checks it, and keeps it until its entries' turn comes.
    pub(crate) fn accept_run(
        &mut self,
        now: &Now,
        (session_id, subscription): (SessionId, u32),
        (first, awaited): (u64, bool),
        bytes: &[u8],
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let Some(incoming) = session.incoming.get_mut(&subscription) else { return Ok(()) };
        let (id, lane_id) = (incoming.space, incoming.lane);
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        let start = LaneTip::start(&id, &lane_id);
        let (before, owner) = match space.lanes.get(&lane_id) {
            Some(lane) => (lane.staged_tip(), Some(lane.row.owner)),
            None => (&start, None),
        };
        if first != before.lsn + 1 {
            return Err(CloseReason::LaneOrder.into());
        }
        let run = check_run(&id, &lane_id, owner, before, &mut incoming.dictionary, bytes);
        let run = run.map_err(|error| match error {
            RunError::Decode(_) => CloseReason::Malformed,
            RunError::Signature | RunError::Owner => CloseReason::Signature,
        })?;
        // What overtook the greeting is in some version that both speak.
        let version = session.negotiated.unwrap_or(self.versions.max);
        if run.0.entries.iter().any(|(entry, _)| entry.version() > version) {
            return Err(CloseReason::Malformed.into());
        }
        session.needed_bytes += bytes.len() as u64;
        if let (Some(part), Some((_, last))) = (session.spaces.get_mut(&id), run.0.entries.last()) {
            part.have_awaited |= awaited;
            part.peer_have.advance(lane_id, last.lsn);
            // Nobody serves what is not durable there. Who receives a lane from here is told so in no other way.
            if let Some(space) = self.spaces.get_mut(&id) {
                space.peer_durable.entry(session.peer).or_default().advance(lane_id, last.lsn);
            }
            self.resolve_remote(id);
        }
        self.stage(now, session_id, (id, lane_id), run, store)
    }

    /// A piece of a long run came: its lane is not stuck.
    fn note_piece(
        &mut self,
        now: &Now,
        (session, subscription): (SessionId, u32),
        (id, lane): (SpaceId, LaneId),
        bytes: usize,
    ) {
        if let Some(space) = self.spaces.get_mut(&id).filter(|_| bytes >= PIECE_BYTES_PROGRESS) {
            space.note_progress(lane, now.monotonic);
            self.note_part_moved(now, session, subscription);
        }
    }

    /// Keeps a checked run until its entries' turn comes.
    fn stage(
        &mut self,
        now: &Now,
        session: SessionId,
        (id, lane_id): (SpaceId, LaneId),
        (run, received): (CheckedRun, Vec<Received>),
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        if !space.roster.may_own_lane(&run.owner.replica) {
            if space.strangers.len() >= LANES_MAX {
                space.strangers.clear();
                return Err(CloseReason::TooMany.into());
            }
            space.strangers.insert(lane_id);
            self.unsubscribe(session, id, lane_id);
            return Ok(());
        }
        if !space.lanes.contains_key(&lane_id) {
            if space.lanes.len() >= LANES_MAX {
                return Err(CloseReason::TooMany.into());
            }
            space.lanes.insert(lane_id, Box::new(Lane::new(&id, run.owner)));
        }
        space.note_progress(lane_id, now.monotonic);
        space.review.insert(lane_id);
        self.dirty.insert(id);
        let Some(lane) = space.lanes.get_mut(&lane_id) else { return Ok(()) };
        if lane.row.frozen.is_some() {
            return Ok(());
        }
        let bytes = received.iter().map(|entry| entry.stored.len()).sum::<usize>() + run.proof.bytes();
        if lane.staged_bytes + bytes > STAGED_BYTES_MAX {
            return Err(CloseReason::Window.into());
        }
        self.recall_for((id, lane_id), &run.entries, store)?;
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let Some(lane) = space.lanes.get_mut(&lane_id).filter(|lane| lane.row.frozen.is_none()) else {
            return Ok(());
        };
        let checked = lane.stage(now, &lane_id, (run, received));
        if canary!(FrontierBeforeEntries) {
            let row = LaneRow { tip: lane.staged_tip().clone(), ..lane.row.clone() };
            let mut work = Work::over(store);
            work.put(keys::lane(&id, &lane_id), encode(&row));
            let batch = work.into_batch();
            self.committed = store.commit(batch)?;
        }
        if !lane.announced.covers(&space.cut) {
            // What waits here was made by somebody who need not have seen all that was within the cut without it.
            space.move_cut();
        }
        if let Err(why) = checked {
            self.freeze(id, lane_id, why, store)?;
        }
        Ok(())
    }
}

impl Lane {
    /// Appends the entries of a run to those that wait, up to the first that breaks a rule.
    fn stage(
        &mut self,
        now: &Now,
        id: &LaneId,
        (run, received): (CheckedRun, Vec<Received>),
    ) -> Result<(), Freeze> {
        let first = self.staged_tip().lsn + 1;
        let last = run.entries.last().map_or(0, |(_, tip)| tip.lsn);
        let links: Vec<Hash> = received.iter().map(|entry| entry.link).collect();
        let mut proof = Some(run.proof);
        for ((entry, after), received) in run.entries.into_iter().zip(received) {
            let mut checked = check_entry(id, self, &entry);
            if canary!(ReceiverClockRefuses) && entry.at.millis() > now.wall_ms.saturating_add(60_000) {
                checked = Err("a stamp is not of the future");
            }
            if let Err(rule) = checked {
                let rest = &links[(after.lsn - first) as usize..];
                if let (Some(before), Some(proof)) =
                    (self.staged.back_mut().filter(|_| after.lsn > first), proof)
                {
                    // What is sound is applied, and others may need it.
                    let links = [rest, proof.links.as_slice()].concat();
                    self.staged_bytes += links.len() * size_of::<Hash>();
                    before.proof = Some(Proof { links, signature: proof.signature });
                }
                return Err(Freeze::Invalid { lsn: after.lsn, rule: rule.to_owned() });
            }
            if let Some(announced) = entry.announced() {
                self.announced_staged = announced.clone();
            }
            let proof = if after.lsn == last { proof.take() } else { None };
            let (stored, link, received) = (received.stored, received.link, now.monotonic);
            let staged = Staged { entry, after, stored, link, proof, received };
            self.staged_bytes += staged.bytes();
            self.staged.push_back(staged);
        }
        Ok(())
    }
}

/// The rules that every entry of a lane keeps and that its owner's signature does not prove.
fn check_entry(lane_id: &LaneId, lane: &Lane, entry: &LaneEntry) -> Result<(), &'static str> {
    let before = lane.staged_tip();
    let change = match &entry.body {
        Body::Change(change) => change,
        Body::Checkpoint(frontier) => return check_announcement(lane_id, lane, (frontier, &entry.admitted)),
    };
    if change.origin != *lane_id {
        return Err("a change set of another author in a space without edges");
    }
    if change.seq != before.seq + 1 {
        return Err("change sets are numbered without gaps");
    }
    if change.hlc <= before.hlc && before.hlc != Hlc::ZERO {
        return Err("stamps increase along an origin");
    }
    if !entry.admitted.covers(&change.context) {
        return Err("a change set is admitted after everything its author had seen");
    }
    if lane.announced_staged.iter().any(|(of, lsn)| of != *lane_id && change.context.at(&of) < lsn) {
        return Err("an author has seen what it has announced");
    }
    if change.groups.is_empty() {
        return Err("a change set does something");
    }
    if !change.groups.iter().flat_map(|group| &group.ops).all(|op| names_what_was_seen(change, op)) {
        return Err("an operation names what its author had seen");
    }
    Ok(())
}

/// Whether an operation names nothing that its author cannot have seen: replicas that have it already would take
/// it away, and others would get it later. A lane is at least as long as its owner's last number, so what comes soon
/// after what was seen still passes where the lane holds announcements too.
fn names_what_was_seen(change: &ChangeSet, op: &Op) -> bool {
    names_only(op, (&change.origin, change.seq), &change.context)
}

/// Whether an operation in change set `seq` of an origin names only what its author, who had seen `context`, may have.
pub(crate) fn names_only(op: &Op, (author, made): (&OriginId, u64), context: &Frontier) -> bool {
    let was_seen =
        |origin: &OriginId, seq: u64| seq <= if origin == author { made } else { context.at(origin) };
    match op {
        Op::CounterReset { columns } => {
            columns.iter().all(|column| was_seen(&column.origin, column.through.0))
        }
        Op::SetClear { observed } => observed.iter().all(|(origin, seq)| was_seen(&origin, seq)),
        Op::SetAdd { observed, .. }
        | Op::SetRemove { observed, .. }
        | Op::RegisterSet { observed, .. }
        | Op::RegisterReset { observed }
        | Op::FlagEnable { observed }
        | Op::FlagDisable { observed } => observed.iter().all(|dot| was_seen(&dot.origin, dot.seq)),
        Op::Nested { op, .. } => names_only(op, (author, made), context),
        Op::CounterAdd(_)
        | Op::DocumentChange(_)
        | Op::DocumentRemove { .. }
        | Op::Grant { .. }
        | Op::Revoke { .. }
        | Op::DwFlagEnable
        | Op::DwFlagDisable
        | Op::RwSetAdd { .. }
        | Op::RwSetRemove { .. }
        | Op::BoundedIncrement(_)
        | Op::BoundedDecrement(_)
        | Op::BoundedTransfer { .. }
        // Who knows what it says looks when it is carried out.
        | Op::Extension { .. } => true,
    }
}

fn check_announcement(
    lane_id: &LaneId,
    lane: &Lane,
    (frontier, admitted): (&Frontier, &Frontier),
) -> Result<(), &'static str> {
    if !frontier.covers(&lane.announced_staged) {
        return Err("announcements never take back");
    }
    let others: Frontier = frontier.iter().filter(|(of, _)| of != lane_id).collect();
    if !admitted.covers(&others) || frontier.at(lane_id) > lane.staged_tip().lsn {
        return Err("an announcement names what its author had applied");
    }
    Ok(())
}

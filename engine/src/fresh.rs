//! Reads that show what others have: how fresh this replica is towards each member, without trusting any clock. A
//! member that is asked at a moment answers with what is durable there, which is all that was durable there at that
//! moment and perhaps more. Once that is durable here too, this replica is as fresh towards that member as that moment.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use comity_crdts::{Frontier, ReplicaId, SpaceId, canary};

use crate::durability::majority;
use crate::engine::{Engine, Timer};
use crate::io::{Class, CloseReason, CommandError, Now, Reply, RequestId, SessionId, Whom};
use crate::limits::{FRESH_ANSWERS_MAX, FRESH_WAITS_MAX};
use crate::message::{FrontierAnswer, FrontierRequest, Message};
use crate::receive::Refusal;
use crate::space::Space;
use crate::status::Standing;
use crate::store::Store;

/// How fresh this replica is towards one member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
    /// Everything that was durable there at this moment is durable here.
    at: Option<Duration>,
    /// What it answered, with when it was asked, as far as that is not durable here yet; oldest first.
    answers: VecDeque<(Duration, Frontier)>,
}

impl Freshness {
    fn note(&mut self, durable: &Frontier) {
        let is_here = |wanted: &Frontier| durable.covers(wanted) || canary!(FreshBeforeArrival);
        while let Some((asked, _)) = self.answers.front().filter(|(_, wanted)| is_here(wanted)) {
            self.at = self.at.max(Some(*asked));
            self.answers.pop_front();
        }
    }
}

/// A read that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FreshWait {
    pub(crate) space: SpaceId,
    whom: Whom,
    /// What others had at this moment is to be here; negative is before anything.
    since: Option<Duration>,
    pub(crate) deadline: Duration,
}

/// Reads that wait, by request.
pub(crate) type FreshWaits = BTreeMap<RequestId, FreshWait>;

impl Space {
    /// The moment up to which everything that was durable at a peer is known to be durable here.
    pub(crate) fn fresh_at(&self, peer: &ReplicaId) -> Option<Duration> {
        self.fresh.get(peer).and_then(|fresh| fresh.at)
    }

    /// Whether everything that was durable at a member at a moment is durable here.
    fn is_fresh(&self, member: &ReplicaId, since: Option<Duration>) -> bool {
        let at = self.fresh_at(member);
        // What came before this replica was opened is known of nobody.
        at.is_some_and(|at| since.is_none_or(|since| at >= since))
    }

    /// Of how many members that write everything is here, and of how many that has to be so.
    fn fresh_tally(&self, wait: &FreshWait, own: &ReplicaId) -> (u32, u32) {
        let fresh = self.writers().filter(|member| *member == own || self.is_fresh(member, wait.since));
        let members = self.writers().count() as u32;
        let needed = match wait.whom {
            // Whose members are not known yet knows nothing of them.
            Whom::All => members.max(1),
            Whom::Majority if canary!(QuorumReadOfOne) => 1,
            Whom::Majority => majority(members),
        };
        (fresh.count() as u32, needed)
    }
}

impl Engine {
    pub(crate) fn await_fresh(
        &mut self,
        now: &Now,
        request: RequestId,
        (id, whom): (SpaceId, Whom),
        (max_age, within): (Duration, Duration),
    ) -> Result<(), CommandError> {
        let space = self.spaces.get(&id).ok_or(CommandError::UnknownSpace(id))?;
        let standing = space.standing(&self.replica);
        if matches!(standing, Standing::Left | Standing::Removed) {
            return Err(CommandError::NotFollowing { space: id, standing });
        }
        let deadline = now.monotonic.saturating_add(within);
        let wait = FreshWait { space: id, whom, since: now.monotonic.checked_sub(max_age), deadline };
        let (fresh, needed) = space.fresh_tally(&wait, &self.replica);
        if fresh >= needed {
            self.reply(request, Ok(Reply::Reached));
            return Ok(());
        }
        if self.waits.fresh.len() >= FRESH_WAITS_MAX {
            return Err(self.not_fresh(now, &wait));
        }
        self.waits.fresh.insert(request, wait);
        self.timers.insert((deadline, Timer::Wait(request)));
        self.rouse(id);
        self.ask_where(now, id);
        Ok(())
    }

    /// Asks every connected member where it stands of which some read has to know. One question to each is under way
    /// at a time, for all reads.
    pub(crate) fn ask_where(&mut self, now: &Now, id: SpaceId) {
        let Some(space) = self.spaces.get(&id) else { return };
        let waits = || self.waits.fresh.values().filter(|wait| wait.space == id);
        if waits().next().is_none() {
            return;
        }
        let mut to_ask = Vec::new();
        for session_id in &space.sessions {
            let Some(session) = self.sessions.get(session_id) else { continue };
            let under_way = session.spaces.get(&id).is_none_or(|part| part.asked.is_some());
            if under_way || !space.writers().any(|member| *member == session.peer) {
                continue;
            }
            let fresh = space.fresh.get(&session.peer);
            // Everything that is known of it, arrived or not.
            let known = fresh.and_then(|fresh| fresh.answers.back().map(|(asked, _)| *asked).or(fresh.at));
            let is_wanted = waits().any(|wait| known.is_none_or(|known| wait.since > Some(known)));
            let has_room = fresh.is_none_or(|fresh| fresh.answers.len() < FRESH_ANSWERS_MAX);
            if is_wanted && has_room {
                to_ask.push(*session_id);
            }
        }
        for session_id in to_ask {
            let Some(session) = self.sessions.get_mut(&session_id) else { continue };
            let number = session.next_question;
            session.next_question = number.wrapping_add(1);
            session.space_mut(&id).asked = Some((number, now.monotonic));
            let ask = FrontierRequest { space: id, number };
            self.send(session_id, Class::Control, &Message::FrontierRequest(ask));
        }
    }

    /// A peer asks where this replica stands.
    pub(crate) fn on_frontier_request(
        &mut self,
        session_id: SessionId,
        asked: &FrontierRequest,
    ) -> Result<(), Refusal> {
        let session = self.sessions.get_mut(&session_id).filter(|session| session.is_open(&asked.space));
        let (Some(session), Some(space)) = (session, self.spaces.get(&asked.space)) else {
            return Err(CloseReason::Unexpected.into());
        };
        let part = session.space_mut(&asked.space);
        let lanes = space.durable.iter().map(|(lane, lsn)| (part.name(lane), lsn)).collect();
        part.told.merge(&space.durable);
        let answer = FrontierAnswer { number: asked.number, space_ref: part.own_ref, lanes };
        self.send(session_id, Class::Control, &Message::FrontierAnswer(answer));
        Ok(())
    }

    /// A peer says where it stands, when it was asked.
    pub(crate) fn on_frontier_answer(
        &mut self,
        now: &Now,
        session_id: SessionId,
        answer: &FrontierAnswer,
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let lanes = (answer.space_ref, answer.lanes.as_slice());
        let Some((id, said)) = self.take_have(now, session_id, lanes, store)? else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let peer = session.peer;
        let asked = session.space_mut(&id).asked.take();
        let Some((_, at)) = asked.filter(|(number, _)| *number == answer.number) else {
            return Err(CloseReason::Unexpected.into());
        };
        session.round_trip.note(now.monotonic.saturating_sub(at));
        if let Some(space) = self.spaces.get_mut(&id) {
            space.fresh.entry(peer).or_default().answers.push_back((at, said));
        }
        self.resolve_fresh(now, id);
        Ok(())
    }

    /// Answers reads that are fresh now, and asks for what others still lack.
    pub(crate) fn resolve_fresh(&mut self, now: &Now, id: SpaceId) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        for fresh in space.fresh.values_mut() {
            fresh.note(&space.durable);
        }
        let Some(space) = self.spaces.get(&id).filter(|_| !self.waits.fresh.is_empty()) else { return };
        let is_fresh = |wait: &FreshWait| {
            let (fresh, needed) = space.fresh_tally(wait, &self.replica);
            wait.space == id && fresh >= needed
        };
        let reached = self.waits.fresh.iter().filter(|(_, wait)| is_fresh(wait));
        for request in reached.map(|(request, _)| *request).collect::<Vec<_>>() {
            if self.take_fresh(request).is_some() {
                self.reply(request, Ok(Reply::Reached));
            }
        }
        self.ask_where(now, id);
    }

    pub(crate) fn take_fresh(&mut self, request: RequestId) -> Option<FreshWait> {
        let wait = self.waits.fresh.remove(&request)?;
        self.timers.remove(&(wait.deadline, Timer::Wait(request)));
        Some(wait)
    }

    /// Why a read is not as fresh as it was to be.
    pub(crate) fn not_fresh(&self, now: &Now, wait: &FreshWait) -> CommandError {
        let Some(space) = self.spaces.get(&wait.space) else {
            return CommandError::UnknownSpace(wait.space);
        };
        if wait.whom == Whom::Majority {
            let (reached, needed) = space.fresh_tally(wait, &self.replica);
            return CommandError::NoQuorum { reached, needed };
        }
        let is_behind = |member: &&ReplicaId| **member != self.replica && !space.is_fresh(member, wait.since);
        let behind: Vec<ReplicaId> = space.writers().filter(is_behind).copied().collect();
        let at = |member| space.fresh.get(member).and_then(|fresh| fresh.at);
        let oldest = behind.iter().map(at).min().flatten();
        let by_ms = oldest.map(|oldest| now.monotonic.saturating_sub(oldest).as_millis() as u64);
        CommandError::NotFresh { by_ms, behind }
    }
}

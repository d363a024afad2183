//! Answering a peer that compares, and taking note of what it takes to be wrong here.

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_crdts::limits::LANES_MAX;

use crate::audit::AuditTask;
use crate::audit::compare::Comparison;
use crate::audit::stretch::{RANGES_MAX, object_at};
use crate::bootstrap::SnapshotTask;
use crate::engine::Engine;
use crate::io::{Class, CloseReason, Now, Output, SessionId};
use crate::limits::{AUDIT_KEY_BYTES_MAX, AUDIT_SUSPECTED_MAX, AUDIT_UNHEARD};
use crate::message::{AuditAsk, AuditReply, AuditSuspect, Message};
use crate::receive::Refusal;
use crate::store::StoreError;

/// What audits keep of a session.
#[derive(Debug, Default)]
pub(crate) struct SessionAudit {
    /// The number of the next question.
    pub(super) next: u32,
    /// What the peer asks, until as much is durable here as it had applied; a later question takes its place.
    parked: Option<Box<AuditAsk>>,
    /// A question of the peer's is being compared.
    is_comparing: bool,
    /// What the peer takes to be wrong here is looked into from then on: not for some time after it was, unless it turned
    /// out to be right.
    heard_from: Duration,
}

impl Engine {
    pub(crate) fn on_audit_ask(&mut self, session_id: SessionId, ask: AuditAsk) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if !session.is_open(&ask.space) {
            return Err(CloseReason::Unexpected.into());
        }
        let keys = ask.ranges.iter().map(|range| &range.until).chain([&ask.from]);
        let is_long = keys.map(Vec::len).max().is_some_and(|length| length > AUDIT_KEY_BYTES_MAX);
        if is_long || ask.ranges.len() > RANGES_MAX || ask.frontier.len() > LANES_MAX {
            return Err(CloseReason::TooMany.into());
        }
        session.audit.parked = Some(Box::new(ask));
        self.answer_audit(session_id);
        Ok(())
    }

    /// More is durable here: what waited for it is compared.
    pub(crate) fn answer_audits(&mut self, id: SpaceId) {
        let Some(space) = self.spaces.get(&id) else { return };
        let waits = |session: &&SessionId| {
            let session = self.sessions.get(session);
            session.is_some_and(|session| session.audit.parked.is_some())
        };
        for session in space.sessions.iter().filter(waits).copied().collect::<Vec<_>>() {
            self.answer_audit(session);
        }
    }

    fn answer_audit(&mut self, session_id: SessionId) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(ask) = session.audit.parked.take() else { return };
        let space = self.spaces.get(&ask.space).filter(|_| session.is_open(&ask.space));
        let Some(space) = space else { return };
        if session.audit.is_comparing || !space.durable.covers(&ask.frontier) {
            session.audit.parked = Some(ask);
            return;
        }
        if space.is_blocked() {
            let reply = AuditReply { number: ask.number, compared: 0, differ: Vec::new() };
            return self.send(session_id, Class::Control, &Message::AuditReply(reply));
        }
        session.audit.is_comparing = true;
        let task = AuditTask::Compare { session: session_id, ask };
        self.push(Output::Snapshot(SnapshotTask::Audit(task)));
    }

    pub(super) fn on_compared(
        &mut self,
        (session_id, number): (SessionId, u32),
        result: Result<Option<Box<Comparison>>, StoreError>,
    ) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        session.audit.is_comparing = false;
        let comparison = result.ok().flatten();
        let (compared, differ) =
            comparison.map_or((0, Vec::new()), |comparison| (comparison.compared, comparison.differ));
        let reply = AuditReply { number, compared, differ };
        self.send(session_id, Class::Control, &Message::AuditReply(reply));
        self.answer_audit(session_id);
    }

    /// A peer has other states of some objects. Whether they are wrong here is looked into, though not as often as it likes.
    pub(crate) fn on_audit_suspect(
        &mut self,
        now: &Now,
        session_id: SessionId,
        suspect: &AuditSuspect,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if !session.is_open(&suspect.space) {
            return Err(CloseReason::Unexpected.into());
        }
        let is_long = suspect.objects.iter().any(|key| key.len() > AUDIT_KEY_BYTES_MAX);
        if is_long || suspect.objects.len() > AUDIT_SUSPECTED_MAX {
            return Err(CloseReason::TooMany.into());
        }
        if now.monotonic < session.audit.heard_from {
            return Ok(());
        }
        session.audit.heard_from = now.monotonic + AUDIT_UNHEARD;
        let objects = suspect.objects.iter().filter_map(|key| object_at(&suspect.space, key));
        for object in objects.collect::<Vec<_>>() {
            self.suspect(suspect.space, object);
        }
        self.look_into_suspects();
        Ok(())
    }

    /// Peers were right about this replica: they are heard again.
    pub(super) fn hear_again(&mut self, id: SpaceId) {
        let sessions = self.sessions.values_mut().filter(|session| session.is_open(&id));
        sessions.for_each(|session| session.audit.heard_from = Duration::ZERO);
    }
}

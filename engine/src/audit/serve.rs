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
use crate::message::{AuditAsk, AuditFetch, AuditReply, AuditSuspect, Message};
use crate::receive::Refusal;
use crate::store::StoreError;

/// What audits keep of a session.
#[derive(Debug, Default)]
pub(crate) struct SessionAudit {
    /// The number of the next question.
    pub(super) next: u32,
    /// What the peer asks, until as much is durable here as it had applied; a later question takes its place.
    parked: Option<Box<AuditAsk>>,
    /// Rows that the peer asks for, likewise.
    parked_fetch: Option<Box<AuditFetch>>,
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

    /// A peer asks for the rows of an object.
    pub(crate) fn on_audit_fetch(&mut self, session_id: SessionId, fetch: AuditFetch) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if !session.is_open(&fetch.space) {
            return Err(CloseReason::Unexpected.into());
        }
        if fetch.object.len() > AUDIT_KEY_BYTES_MAX || fetch.frontier.len() > LANES_MAX {
            return Err(CloseReason::TooMany.into());
        }
        session.audit.parked_fetch = Some(Box::new(fetch));
        self.lend_rows(session_id);
        Ok(())
    }

    fn lend_rows(&mut self, session_id: SessionId) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(fetch) = session.audit.parked_fetch.take() else { return };
        let space = self.spaces.get(&fetch.space).filter(|_| session.is_open(&fetch.space));
        let Some(space) = space else { return };
        if session.audit.is_comparing || !space.durable.covers(&fetch.frontier) {
            session.audit.parked_fetch = Some(fetch);
            return;
        }
        session.audit.is_comparing = true;
        let task = AuditTask::Lend { session: session_id, fetch };
        self.push(Output::Snapshot(SnapshotTask::Audit(task)));
    }

    /// What was done over a view for a session is done. Whether the session is still there.
    pub(super) fn ended_comparing(&mut self, session_id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return false };
        session.audit.is_comparing = false;
        self.answer_audit(session_id);
        self.lend_rows(session_id);
        true
    }

    /// More is durable here: what waited for it is compared.
    pub(crate) fn answer_audits(&mut self, now: &Now, id: SpaceId) {
        self.check_lent(now.monotonic, id);
        let Some(space) = self.spaces.get(&id) else { return };
        let waits = |session: &&SessionId| {
            let session = self.sessions.get(session);
            session
                .is_some_and(|session| session.audit.parked.is_some() || session.audit.parked_fetch.is_some())
        };
        for session in space.sessions.iter().filter(waits).copied().collect::<Vec<_>>() {
            self.answer_audit(session);
            self.lend_rows(session);
        }
    }

    fn answer_audit(&mut self, session_id: SessionId) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let Some(ask) = session.audit.parked.take() else { return };
        let space = self.spaces.get(&ask.space).filter(|_| session.is_open(&ask.space));
        let Some(space) = space else { return };
        let is_old = self.audits.unsynced.is_some();
        if session.audit.is_comparing || is_old || !space.durable.covers(&ask.frontier) {
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
        if !self.ended_comparing(session_id) {
            return;
        }
        let comparison = result.ok().flatten();
        let (compared, differ) =
            comparison.map_or((0, Vec::new()), |comparison| (comparison.compared, comparison.differ));
        let reply = AuditReply { number, compared, differ };
        self.send(session_id, Class::Control, &Message::AuditReply(reply));
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

//! Having rows of an object sent by peers, one after the other, where it cannot be made again from the log of record.

use std::sync::Arc;
use std::time::Duration;

use comity_crdts::{ObjectAddress, ReplicaId, SpaceId};

use crate::audit::check::{Candidate, Lent, Unproved, bytes_of};
use crate::audit::rebuild::{Outcome, ROWS_MAX, Rebuilt};
use crate::audit::stretch::{Stand, key_of};
use crate::audit::{AuditTask, Unresolved};
use crate::bootstrap::SnapshotTask;
use crate::durability::majority;
use crate::engine::Engine;
use crate::io::{Class, Now, Output, SessionId};
use crate::limits::{AUDIT_ANSWER_MAX, AUDIT_READ_MAX, AUDIT_ROWS_BYTES_MAX, AUDIT_ROWS_FRAME_BYTES};
use crate::message::{AuditFetch, AuditRows, Message, RowsEnd};
use crate::store::{Store, StoreError};

/// An object that waits for rows of peers.
#[derive(Debug)]
pub(crate) struct Unkept {
    pub(super) space: SpaceId,
    pub(super) object: ObjectAddress,
    /// What was applied here when it was found to be not what is kept.
    pub(super) place: u64,
    pub(super) stand: Stand,
}

/// One for which peers are asked.
#[derive(Debug)]
pub(crate) struct Fetching {
    wanted: Unkept,
    /// Who was not asked yet.
    left: Vec<(ReplicaId, SessionId)>,
    step: Step,
    candidates: Vec<Candidate>,
    /// When it goes on, whatever has come by then.
    due: Duration,
}

#[derive(Debug)]
enum Step {
    Asking {
        peer: ReplicaId,
        session: SessionId,
        number: u32,
        lent: Lent,
        bytes: usize,
    },
    /// What came is of more than is durable here.
    Waiting,
    Checking,
}

/// What was checked is to be checked again.
fn fetching_again(fetching: &mut Option<Box<Fetching>>) {
    if let Some(fetching) = fetching {
        fetching.step = Step::Waiting;
    }
}

impl Fetching {
    pub(super) fn is_in(&self, id: &SpaceId) -> bool {
        self.wanted.space == *id
    }
}

impl Engine {
    /// Sends for rows of the next object that waits for some.
    pub(super) fn fetch_next(&mut self, now: &Now) {
        while self.audits.fetching.is_none()
            && let Some(wanted) = self.audits.unkept.pop_front()
        {
            let left = self.lenders(&wanted.space);
            let (step, candidates, due) = (Step::Waiting, Vec::new(), now.monotonic);
            self.audits.fetching = Some(Box::new(Fetching { wanted, left, step, candidates, due }));
            self.fetch_from_next(now);
        }
    }

    /// Members that write and are connected; what others hold counts for nobody.
    fn lenders(&self, id: &SpaceId) -> Vec<(ReplicaId, SessionId)> {
        let Some(space) = self.spaces.get(id) else { return Vec::new() };
        let peer = |session: &SessionId| Some((self.sessions.get(session)?.peer, *session));
        let mut peers: Vec<_> = space
            .sessions
            .iter()
            .filter_map(peer)
            .filter(|(peer, _)| space.writers().any(|writer| writer == peer))
            .collect();
        peers.dedup_by_key(|(peer, _)| *peer);
        peers
    }

    fn fetch_from_next(&mut self, now: &Now) {
        let Some(fetching) = &mut self.audits.fetching else { return };
        let asked = loop {
            let Some((peer, session_id)) = fetching.left.pop() else {
                return self.give_up_fetching(now);
            };
            if let Some(session) = self.sessions.get_mut(&session_id) {
                break (peer, session_id, session);
            }
        };
        let (peer, session_id, session) = asked;
        let number = session.audit.next;
        session.audit.next = number.wrapping_add(1);
        let Unkept { space, object, stand, .. } = &fetching.wanted;
        let fetch = AuditFetch {
            space: *space,
            number,
            object: key_of(space, object),
            frontier: stand.frontier.clone(),
            root: stand.root,
        };
        let (id, lent, bytes) = (*space, Lent::default(), 0);
        fetching.step = Step::Asking { peer, session: session_id, number, lent, bytes };
        fetching.due = now.monotonic + AUDIT_ANSWER_MAX;
        self.wake_audit(now, id, AUDIT_ANSWER_MAX);
        self.send(session_id, Class::Control, &Message::AuditFetch(fetch));
    }

    fn give_up_fetching(&mut self, now: &Now) {
        if let Some(Fetching { wanted, .. }) = self.audits.fetching.take().map(|fetching| *fetching) {
            self.leave_unresolved(wanted.space, wanted.object, Unresolved::NotKept);
        }
        self.fetch_next(now);
    }

    /// It is time to go on if nothing has come.
    pub(super) fn tend_fetching(&mut self, now: &Now) {
        let Some(fetching) = &self.audits.fetching else { return };
        if !self.spaces.contains_key(&fetching.wanted.space) {
            self.audits.fetching = None;
            return self.fetch_next(now);
        }
        if now.monotonic < fetching.due {
            return;
        }
        match fetching.step {
            Step::Asking { .. } => self.fetch_from_next(now),
            Step::Waiting | Step::Checking => self.give_up_fetching(now),
        }
    }

    /// A peer sends rows that it was asked for.
    pub(crate) fn on_audit_rows(&mut self, now: &Now, session_id: SessionId, rows: AuditRows) {
        let Some(fetching) = &mut self.audits.fetching else { return };
        let Step::Asking { peer, session, number, lent, bytes } = &mut fetching.step else { return };
        if (*session, *number) != (session_id, rows.number) {
            return;
        }
        *bytes += bytes_of(&rows.rows);
        lent.rows.extend(rows.rows);
        let is_too_much = *bytes > AUDIT_ROWS_BYTES_MAX || lent.rows.len() > 2 * ROWS_MAX;
        match rows.end {
            _ if is_too_much => self.fetch_from_next(now),
            RowsEnd::More => {}
            RowsEnd::Unavailable => self.fetch_from_next(now),
            RowsEnd::Complete { frontier, forgotten } => {
                let lent = Lent { rows: std::mem::take(&mut lent.rows), frontier, forgotten };
                fetching.candidates.push(Candidate { peer: *peer, lent });
                fetching.step = Step::Waiting;
                let id = fetching.wanted.space;
                self.check_lent(now.monotonic, id);
            }
        }
    }

    /// Has candidates checked once all of them is durable here.
    pub(super) fn check_lent(&mut self, now: Duration, id: SpaceId) {
        let (Some(fetching), Some(space)) = (&mut self.audits.fetching, self.spaces.get(&id)) else { return };
        let is_here = |candidate: &Candidate| space.durable.covers(&candidate.lent.frontier);
        let waits = matches!(fetching.step, Step::Waiting) && !fetching.candidates.is_empty();
        if self.audits.unsynced.is_some()
            || fetching.wanted.space != id
            || !waits
            || !fetching.candidates.iter().all(is_here)
        {
            return;
        }
        (fetching.step, fetching.due) = (Step::Checking, now + AUDIT_READ_MAX);
        self.audits.repairs_checked = self.audits.repairs;
        let needed = majority(space.writers().count() as u32) as usize;
        let unproved = Unproved {
            space: id,
            object: fetching.wanted.object.clone(),
            place: fetching.wanted.place,
            needed,
            extensions: self.extensions,
            candidates: Arc::new(fetching.candidates.clone()),
        };
        self.push(Output::Snapshot(SnapshotTask::Audit(AuditTask::Check(Box::new(unproved)))));
    }

    /// What peers sent was checked.
    pub(super) fn on_checked(
        &mut self,
        now: &Now,
        result: Result<Option<Box<Rebuilt>>, StoreError>,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let checking =
            self.audits.fetching.as_ref().filter(|fetching| matches!(fetching.step, Step::Checking));
        let Some(fetching) = checking else { return Ok(()) };
        let id = fetching.wanted.space;
        let Ok(Some(rebuilt)) = result else {
            self.give_up_fetching(now);
            return Ok(());
        };
        if self.audits.repairs != self.audits.repairs_checked {
            // Another object of the space was made again since; what its digest proves is told anew.
            fetching_again(&mut self.audits.fetching);
            self.check_lent(now.monotonic, id);
            return Ok(());
        }
        let is_open = rebuilt.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Unresolved(_)));
        if is_open {
            // Others may send the same, or what is proved.
            self.fetch_from_next(now);
            return Ok(());
        }
        self.audits.fetching = None;
        let again = self.judge(now, id, *rebuilt, store)?;
        for object in again {
            self.leave_unresolved(id, object, Unresolved::NotKept);
        }
        self.fetch_next(now);
        Ok(())
    }

    /// Sends rows that a peer asked for, in as many frames as they take.
    pub(super) fn on_lent(
        &mut self,
        (session_id, number): (SessionId, u32),
        result: Result<Option<Box<Lent>>, StoreError>,
    ) {
        if !self.ended_comparing(session_id) {
            return;
        }
        let Ok(Some(lent)) = result else {
            let end = RowsEnd::Unavailable;
            let rows = AuditRows { number, rows: Vec::new(), end };
            return self.send(session_id, Class::CatchUp, &Message::AuditRows(rows));
        };
        let Lent { rows, frontier, forgotten } = *lent;
        let (mut frame, mut bytes) = (Vec::new(), 0);
        for row in rows {
            bytes += row.0.len() + row.1.len();
            frame.push(row);
            if bytes > AUDIT_ROWS_FRAME_BYTES {
                let rows = AuditRows { number, rows: std::mem::take(&mut frame), end: RowsEnd::More };
                self.send(session_id, Class::CatchUp, &Message::AuditRows(rows));
                bytes = 0;
            }
        }
        let rows = AuditRows { number, rows: frame, end: RowsEnd::Complete { frontier, forgotten } };
        self.send(session_id, Class::CatchUp, &Message::AuditRows(rows));
    }
}

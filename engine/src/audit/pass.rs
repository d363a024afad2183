//! Passes in the core: when one begins, which peer it is held against, and what its answers mean. One pass is under way at
//! a time, whatever the number of spaces.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use comity_crdts::{ObjectAddress, ReplicaId, SpaceId};

use crate::audit::compare::AuditItem;
use crate::audit::fetch::{Fetching, Unkept};
use crate::audit::stretch::{Stretch, members_key, object_at};
use crate::audit::{AuditAnswer, AuditEvent, AuditLimits, AuditStatus, AuditTask};
use crate::bootstrap::SnapshotTask;
use crate::engine::{Engine, Timer};
use crate::hash::hash;
use crate::io::{Class, Notice, Now, Output, SessionId};
use crate::limits::{
    AUDIT_ANSWER_MAX, AUDIT_FIRST_MAX, AUDIT_READ_MAX, AUDIT_RETRY, AUDIT_ROUSE, AUDIT_SUSPECTED_MAX,
    AUDIT_SUSPECTS_MAX,
};
use crate::message::{AuditAsk, AuditReply, AuditSuspect, Message};
use crate::status::StateDigest;
use crate::store::{Position, Store, StoreError};

/// The audits of a replica.
#[derive(Debug)]
pub(crate) struct Audits {
    limits: AuditLimits,
    of: BTreeMap<SpaceId, SpaceAudit>,
    pass: Option<Pass>,
    /// Objects that may be wrong here, to be looked into.
    pub(super) suspects: VecDeque<(SpaceId, ObjectAddress)>,
    /// Some are being looked into.
    pub(super) is_rebuilding: bool,
    /// In the pass after which the digest that is kept is looked into everything was compared, and was the same.
    pub(super) is_clean: bool,
    /// How often something was made again, also when what is being looked into and what is being checked were read.
    pub(super) repairs: u64,
    pub(super) repairs_rebuilt: u64,
    pub(super) repairs_checked: u64,
    /// The last repair, until it is durable: views do not show it.
    pub(super) unsynced: Option<(Position, SpaceId)>,
    /// What was made again and is not durable yet: nobody is told of what no view shows.
    pub(super) untold: Vec<AuditEvent>,
    /// Objects that wait for rows of peers, and one for which peers are asked.
    pub(super) unkept: VecDeque<Unkept>,
    pub(super) fetching: Option<Box<Fetching>>,
    /// Spaces in which something cannot be applied because a row cannot be read, once that was looked into.
    pub(super) unreadable: BTreeSet<SpaceId>,
}

#[derive(Debug, Default)]
struct SpaceAudit {
    /// None while there is nothing to say.
    status: Option<Box<AuditStatus>>,
    /// There are passes.
    is_planned: bool,
    /// When the next one begins.
    due: Duration,
    /// Passes that were begun.
    begun: usize,
    /// Others were asked to open the space for the next one.
    is_roused: bool,
}

#[derive(Debug)]
struct Pass {
    space: SpaceId,
    /// All objects up to this key were looked at.
    after: Vec<u8>,
    /// With whom it is compared, the same for all of it while that is connected.
    peer: Option<ReplicaId>,
    step: Step,
    /// Everything so far was compared, and was the same.
    is_clean: bool,
    /// When it goes on, whatever has come by then.
    due: Duration,
}

#[derive(Debug)]
enum Step {
    Pausing,
    Reading,
    Asking { session: SessionId, number: u32, stretch: Box<Stretch> },
}

impl Audits {
    pub(crate) fn new(limits: AuditLimits) -> Self {
        let (of, suspects) = (BTreeMap::new(), VecDeque::new());
        let (untold, unkept, unreadable) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        let (pass, fetching, unsynced, is_rebuilding, is_clean) = (None, None, None, false, false);
        let (repairs, repairs_rebuilt, repairs_checked) = (0, 0, 0);
        Self {
            limits,
            of,
            pass,
            suspects,
            is_rebuilding,
            is_clean,
            repairs,
            repairs_rebuilt,
            repairs_checked,
            unsynced,
            untold,
            unkept,
            fetching,
            unreadable,
        }
    }

    pub(crate) fn status(&self, id: &SpaceId) -> AuditStatus {
        self.of.get(id).and_then(|audit| audit.status.as_deref()).copied().unwrap_or_default()
    }

    /// Whether something in a space may be made again soon.
    pub(super) fn is_looking_into(&self, id: &SpaceId) -> bool {
        let is_waiting =
            self.suspects.iter().any(|(of, _)| of == id) || self.unkept.iter().any(|of| of.space == *id);
        self.is_rebuilding || is_waiting || self.fetching.as_ref().is_some_and(|fetching| fetching.is_in(id))
    }

    pub(super) fn status_mut(&mut self, id: SpaceId) -> &mut AuditStatus {
        self.of.entry(id).or_default().status.get_or_insert_default()
    }
}

impl Engine {
    /// Sees to it that a space is audited. Where there are many, their first passes are spread over an hour.
    pub(crate) fn plan_audit(&mut self, now: &Now, id: SpaceId) {
        let Some(every) = self.audits.limits.every else { return };
        let audit = self.audits.of.entry(id).or_default();
        if std::mem::replace(&mut audit.is_planned, true) {
            return;
        }
        let draw = hash("comity 2026 audit\0", &[&id.0, &self.replica.0]);
        let share = f64::from(u16::from_be_bytes([draw.0[0], draw.0[1]])) / f64::from(u16::MAX);
        let due = now.monotonic + every.min(AUDIT_FIRST_MAX).mul_f64(share);
        audit.due = due;
        self.timers.insert((due, Timer::Audit(id)));
    }

    /// It is time for something in the audit of a space.
    pub(crate) fn tend_audit(&mut self, now: &Now, id: SpaceId) {
        self.look_into_suspects();
        self.tend_fetching(now);
        if let Some(pass) = &self.audits.pass
            && (now.monotonic >= pass.due + AUDIT_READ_MAX || !self.spaces.contains_key(&pass.space))
        {
            // Its space is gone, and its timers with it.
            self.audits.pass = None;
        }
        let Some(space) = self.spaces.get(&id) else {
            self.audits.of.remove(&id);
            return;
        };
        match &self.audits.pass {
            Some(pass) if pass.space == id && now.monotonic < pass.due => {}
            Some(pass) if pass.space == id => match pass.step {
                Step::Asking { .. } => {
                    self.audits.status_mut(id).unanswered += 1;
                    self.soil();
                    self.end_stretch(now);
                }
                Step::Pausing | Step::Reading => self.read_stretch(now),
            },
            Some(_) => self.wake_audit(now, id, self.audits.limits.pause),
            None => {
                let is_usable = !space.is_brought_up();
                let Some(audit) = self.audits.of.get_mut(&id) else { return };
                if !audit.is_planned || now.monotonic < audit.due {
                    return;
                }
                if !is_usable {
                    return self.wake_audit(now, id, AUDIT_READ_MAX);
                }
                let is_first_try = !std::mem::replace(&mut audit.is_roused, true);
                if is_first_try && self.audit_peer(&id).is_none() {
                    // Where all stand alike the space may not be open with anybody.
                    self.rouse(id);
                    return self.wake_audit(now, id, AUDIT_ROUSE);
                }
                let Some(audit) = self.audits.of.get_mut(&id) else { return };
                audit.is_roused = false;
                audit.begun += 1;
                let (after, peer) = (Vec::new(), None);
                let (step, is_clean, due) = (Step::Pausing, true, now.monotonic);
                self.audits.pass = Some(Pass { space: id, after, peer, step, is_clean, due });
                self.read_stretch(now);
            }
        }
    }

    pub(super) fn wake_audit(&mut self, now: &Now, id: SpaceId, after: Duration) {
        self.timers.insert((now.monotonic.saturating_add(after), Timer::Audit(id)));
    }

    /// The pass goes on to a step, which is given up after some time.
    fn enter(&mut self, now: &Now, step: Step, within: Duration) {
        let Some(pass) = &mut self.audits.pass else { return };
        (pass.step, pass.due) = (step, now.monotonic + within);
        let id = pass.space;
        self.wake_audit(now, id, within);
    }

    /// What was made again is durable: views show it from now on.
    pub(crate) fn audit_synced(&mut self, now: &Now) {
        let Some((position, id)) = self.audits.unsynced else { return };
        if position <= self.synced {
            self.audits.unsynced = None;
            for event in std::mem::take(&mut self.audits.untold) {
                self.tell(event);
            }
            self.look_into_suspects();
            self.answer_audits(now, id);
        }
    }

    /// Something was made again: what a stretch shows of it is not so any more.
    pub(super) fn read_again(&mut self, now: &Now, id: SpaceId) {
        let Some(pass) = self.audits.pass.as_mut().filter(|pass| pass.space == id) else { return };
        if let Step::Asking { stretch, .. } = &pass.step {
            pass.after.clone_from(&stretch.from);
        }
        self.enter(now, Step::Pausing, self.audits.limits.pause);
    }

    fn read_stretch(&mut self, now: &Now) {
        if self.audits.unsynced.is_some() {
            return self.enter(now, Step::Pausing, AUDIT_RETRY);
        }
        let Some(pass) = &self.audits.pass else { return };
        let (space, after) = (pass.space, pass.after.clone());
        self.push(Output::Snapshot(SnapshotTask::Audit(AuditTask::Read { space, after })));
        self.enter(now, Step::Reading, AUDIT_READ_MAX);
    }

    /// What was done over a view.
    pub(crate) fn on_audit_answer(
        &mut self,
        now: &Now,
        answer: AuditAnswer,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        match answer {
            AuditAnswer::Read { space, result } => {
                self.on_stretch(now, space, result);
                Ok(())
            }
            AuditAnswer::Compared { session, number, result } => {
                self.on_compared((session, number), result);
                Ok(())
            }
            AuditAnswer::Rebuilt { space, objects, result } => {
                self.on_rebuilt(now, (space, objects), result, store)
            }
            AuditAnswer::Lent { session, number, result } => {
                self.on_lent((session, number), result);
                Ok(())
            }
            AuditAnswer::Checked(result) => self.on_checked(now, result, store),
        }
    }

    fn on_stretch(&mut self, now: &Now, id: SpaceId, result: Result<Option<Box<Stretch>>, StoreError>) {
        let expected = self.audits.pass.as_ref().filter(|pass| pass.space == id);
        let Some(pass) = expected.filter(|pass| matches!(pass.step, Step::Reading)) else { return };
        let stretch = match result {
            Ok(Some(stretch)) if stretch.from == pass.after => stretch,
            // Tried again, after a rest.
            _ => return self.enter(now, Step::Pausing, self.audits.limits.pause.max(Duration::from_secs(1))),
        };
        let status = self.audits.status_mut(id);
        status.inspected += stretch.inspected;
        status.damaged += stretch.faults.len() as u64;
        for (object, detail) in &stretch.faults {
            let event = AuditEvent::Damaged { space: id, object: object.clone(), detail: detail.clone() };
            self.push(Output::Notify(Notice::Audit(event)));
            self.suspect(id, object.clone());
        }
        if !stretch.faults.is_empty() {
            self.soil();
        }
        self.look_into_suspects();
        self.show_stretch(now, id, stretch);
    }

    /// Shows a stretch to a peer, or goes on when there is none.
    fn show_stretch(&mut self, now: &Now, id: SpaceId, stretch: Box<Stretch>) {
        let Some((peer, session_id)) = self.audit_peer(&id) else {
            self.audits.status_mut(id).unanswered += 1;
            self.soil();
            self.skip_stretch(&stretch);
            return self.end_stretch(now);
        };
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let number = session.audit.next;
        session.audit.next = number.wrapping_add(1);
        let (frontier, root) = (stretch.stand.frontier.clone(), stretch.stand.root);
        let (from, ranges) = (stretch.from.clone(), stretch.ranges.clone());
        let ask = AuditAsk { space: id, number, frontier, root, from, ranges };
        self.send(session_id, Class::Control, &Message::AuditAsk(ask));
        self.skip_stretch(&stretch);
        if let Some(pass) = &mut self.audits.pass {
            pass.peer = Some(peer);
        }
        self.enter(now, Step::Asking { session: session_id, number, stretch }, AUDIT_ANSWER_MAX);
    }

    /// Whatever becomes of a stretch, the next one comes after it.
    fn skip_stretch(&mut self, stretch: &Stretch) {
        if let Some(pass) = &mut self.audits.pass {
            pass.after = stretch.ranges.last().map(|range| range.until.clone()).unwrap_or_default();
        }
    }

    /// Whom the pass is held against: each pass another one of those who are there.
    fn audit_peer(&self, id: &SpaceId) -> Option<(ReplicaId, SessionId)> {
        let space = self.spaces.get(id)?;
        let peers: BTreeMap<ReplicaId, SessionId> = space
            .sessions
            .iter()
            .filter_map(|session| Some((self.sessions.get(session)?.peer, *session)))
            .filter(|(peer, _)| space.members.contains_key(peer))
            .collect();
        let held = self.audits.pass.as_ref().and_then(|pass| pass.peer);
        if let Some((peer, session)) = held.and_then(|held| peers.get_key_value(&held)) {
            return Some((*peer, *session));
        }
        let begun = self.audits.of.get(id).map_or(0, |audit| audit.begun);
        let (peer, session) = peers.iter().nth(begun % peers.len().max(1))?;
        Some((*peer, *session))
    }

    /// Goes on to the next stretch, or ends the pass after the last one.
    fn end_stretch(&mut self, now: &Now) {
        let Some(pass) = &self.audits.pass else { return };
        let id = pass.space;
        if pass.after.first() != Some(&0xff) {
            return self.enter(now, Step::Pausing, self.audits.limits.pause);
        }
        let (is_clean, audits) = (pass.is_clean, &mut self.audits);
        let is_busy = !audits.suspects.is_empty() || audits.is_rebuilding || audits.unsynced.is_some();
        if !is_busy {
            // Where all objects are right the digest that is kept of them has to be.
            audits.is_clean = is_clean;
            self.rebuild(id, Vec::new());
        }
        self.audits.pass = None;
        let every = self.audits.limits.every.unwrap_or(Duration::MAX);
        let audit = self.audits.of.entry(id).or_default();
        audit.due = now.monotonic.saturating_add(every);
        let due = audit.due;
        let status = audit.status.get_or_insert_default();
        status.passes += 1;
        status.last_pass_ms = Some(now.wall_ms);
        self.timers.insert((due, Timer::Audit(id)));
    }

    /// A peer has compared what it was shown.
    pub(crate) fn on_audit_reply(&mut self, now: &Now, session_id: SessionId, reply: &AuditReply) {
        let Some(pass) = &mut self.audits.pass else { return };
        let id = pass.space;
        match &pass.step {
            Step::Asking { session, number, .. } if (*session, *number) == (session_id, reply.number) => {}
            _ => return,
        }
        let Step::Asking { stretch, .. } = std::mem::replace(&mut pass.step, Step::Pausing) else { return };
        let peer = pass.peer;
        let found = Differences::of(&id, &stretch, reply);
        let is_all = usize::from(reply.compared) >= stretch.ranges.len();
        if !is_all || found.is_partial || found.touched > 0 || !found.diverged.is_empty() {
            self.soil();
        }
        let status = self.audits.status_mut(id);
        status.compared += found.compared;
        status.touched += found.touched;
        status.unanswered += u64::from(!is_all);
        status.diverged += found.diverged.len() as u64;
        if let Some(peer) = peer {
            self.note_diverged((id, peer), session_id, found.diverged);
        }
        self.end_stretch(now);
    }

    fn note_diverged(
        &mut self,
        (id, peer): (SpaceId, ReplicaId),
        session: SessionId,
        diverged: Vec<Diverged>,
    ) {
        if diverged.is_empty() {
            return;
        }
        let objects = diverged.iter().map(|diverged| diverged.key.clone()).collect();
        self.send(session, Class::Control, &Message::AuditSuspect(AuditSuspect { space: id, objects }));
        for Diverged { key, own, theirs } in diverged {
            let Some(object) = object_at(&id, &key) else { continue };
            let (own, theirs) = (StateDigest(own), StateDigest(theirs));
            let event = AuditEvent::Diverged { space: id, object: object.clone(), peer, own, theirs };
            self.push(Output::Notify(Notice::Audit(event)));
            self.suspect(id, object);
        }
        self.look_into_suspects();
    }

    /// Notes an object that may be wrong here. Beyond what is kept of them the next pass finds them again.
    pub(super) fn suspect(&mut self, id: SpaceId, object: ObjectAddress) {
        let suspects = &mut self.audits.suspects;
        let suspect = (id, object);
        if suspects.len() < AUDIT_SUSPECTS_MAX && !suspects.contains(&suspect) {
            suspects.push_back(suspect);
        }
    }

    /// Has some suspects of one space made again from the log, unless others are.
    pub(crate) fn look_into_suspects(&mut self) {
        let audits = &mut self.audits;
        audits.suspects.retain(|(id, _)| self.spaces.contains_key(id));
        if audits.is_rebuilding || audits.unsynced.is_some() {
            return;
        }
        let Some(space) = audits.suspects.front().map(|(id, _)| *id) else { return };
        let mut objects = Vec::new();
        audits.suspects.retain(|(id, object)| {
            let is_taken = *id == space && objects.len() < AUDIT_SUSPECTED_MAX;
            if is_taken {
                objects.push(object.clone());
            }
            !is_taken
        });
        self.rebuild(space, objects);
    }

    /// Has objects made again from the log, in a view.
    fn rebuild(&mut self, space: SpaceId, objects: Vec<ObjectAddress>) {
        (self.audits.is_rebuilding, self.audits.repairs_rebuilt) = (true, self.audits.repairs);
        let task = AuditTask::Rebuild { space, objects, extensions: self.extensions };
        self.push(Output::Snapshot(SnapshotTask::Audit(task)));
    }

    /// Something in this pass could not be compared, or is not the same.
    fn soil(&mut self) {
        if let Some(pass) = &mut self.audits.pass {
            pass.is_clean = false;
        }
    }
}

/// An object of which a peer has another state.
#[derive(Debug, PartialEq, Eq)]
struct Diverged {
    key: Vec<u8>,
    own: u128,
    theirs: u128,
}

/// What an answer says about a stretch.
#[derive(Debug, Default)]
struct Differences {
    compared: u64,
    touched: u64,
    diverged: Vec<Diverged>,
    /// The peer does not know that the member list is compared.
    is_partial: bool,
}

impl Differences {
    /// What a peer says of objects that are in no range it compared, or twice, does not count.
    fn of(space: &SpaceId, stretch: &Stretch, reply: &AuditReply) -> Self {
        let (mut found, members_key) = (Self::default(), members_key(space));
        let mut after = stretch.from.as_slice();
        let said: BTreeMap<u8, &[AuditItem]> =
            reply.differ.iter().map(|(number, items)| (*number, items.as_slice())).collect();
        for (number, range) in (0..reply.compared).zip(&stretch.ranges) {
            match said.get(&number) {
                None => found.compared += range.count,
                // Everybody has a list who has any entries, so who has none is of a version that does not compare it.
                Some(items) if range.until == members_key && items.iter().all(|item| item.state == 0) => {
                    found.is_partial = true;
                }
                Some(items) => found.range((after, &range.until), &stretch.items, items),
            }
            after = &range.until;
        }
        found
    }

    fn range(&mut self, (after, until): (&[u8], &[u8]), own: &[(Vec<u8>, u128)], theirs: &[AuditItem]) {
        let is_within = |key: &[u8]| key > after && key <= until;
        let own = own.iter().filter(|(key, _)| is_within(key));
        let mut states: BTreeMap<&[u8], (u128, u128, u64)> =
            own.map(|(key, state)| (key.as_slice(), (*state, 0, 0))).collect();
        for item in theirs.iter().filter(|item| is_within(&item.key)) {
            let state = states.entry(&item.key).or_default();
            (state.1, state.2) = (item.state, item.ops);
        }
        for (key, (own, theirs, ops)) in states {
            if ops != 0 {
                self.touched += 1;
                continue;
            }
            self.compared += 1;
            if own != theirs && self.diverged.len() < AUDIT_SUSPECTED_MAX {
                self.diverged.push(Diverged { key: key.to_vec(), own, theirs });
            }
        }
    }
}

//! The receiving side: when a snapshot is needed, from whom it is taken, and the staging of its pieces.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use comity_crdts::{DecodeError, ReplicaId, SpaceId, canary};

use crate::bootstrap::piece::{Piece, bind, rows_of};
use crate::bootstrap::source::ReadRange;
use crate::bootstrap::staged::{StagedPiece, StagedPieces, staged};
use crate::bootstrap::verify::Verified;
use crate::bootstrap::walk::END;
use crate::bootstrap::{BootstrapPhase, Offer, SnapshotEnd, SnapshotTask};
use crate::engine::{Engine, Timer};
use crate::io::{Class, CloseReason, Now, Output, SessionId};
use crate::keys;
use crate::limits::{
    PIECE_BYTES_MAX, PIECES_ASKED_BYTES, PIECES_ASKED_FIRST, PIECES_ASKED_MAX, PIECES_ASKED_MAX_4,
    SNAPSHOT_RETRY,
};
use crate::message::{Message, SnapshotAsk, SnapshotRead, SnapshotSame, SnapshotStop};
use crate::receive::Refusal;
use crate::session::Session;
use crate::space::{Space, encode};
use crate::store::{Position, StateRead, Store, StoreError};
use crate::version::WITH_WIDE_WINDOWS;
use crate::work::Work;

/// A source that sends nothing for so long is given up.
const SNAPSHOT_STALL: Duration = Duration::from_secs(60);
/// How often that doubles at most.
const STALL_DOUBLINGS_MAX: u32 = 6;
/// What the lengths in a row of a piece take at most.
const ROW_LENGTHS_BYTES: u64 = 16;
/// Who lacks what is not kept here may get it.
const LACKING_FOR: Duration = Duration::from_secs(10);
/// Who offered what it did not send is not asked for so long.
const FAULTY_FOR: Duration = Duration::from_secs(60);

/// A range that was asked for.
#[derive(Clone, Debug)]
struct Asked {
    until: Option<Vec<u8>>,
    /// The receiver holds it as some state had it.
    is_staged: bool,
    /// Pieces that may still come where no end is named.
    pieces: u8,
}

/// A snapshot that is being received.
#[derive(Debug)]
struct Pass {
    session: SessionId,
    number: u32,
    offer: Option<Offer>,
    /// Up to this walk key everything is staged as the source has it.
    at: Vec<u8>,
    /// Up to this one it was asked for.
    asked_until: Vec<u8>,
    asked: VecDeque<Asked>,
    /// When something last came of it.
    moved: Duration,
    /// Frames of a piece that is not complete.
    partial: Vec<u8>,
    /// The longest piece that came, as it was sent.
    longest: usize,
    rows: u64,
    bytes: u64,
    /// All of it is staged as of this position, and is checked once that is durable.
    whole: Option<Position>,
    is_verifying: bool,
}

impl Pass {
    /// How many pieces are asked for at once, so that the source never has much more to send than is wanted.
    fn pieces_at_once(&self, asked_max: usize) -> usize {
        match self.longest {
            0 => PIECES_ASKED_FIRST,
            longest => (PIECES_ASKED_BYTES / longest).clamp(1, asked_max),
        }
    }
}

/// A space that is being brought up from a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Bootstrap {
    staged: StagedPieces,
    pass: Option<Pass>,
    /// When somebody is asked again.
    retry_due: Option<Duration>,
    /// Sources that offered what it did not turn out to be, or lack what is gone here, and until when they are not asked.
    refused: BTreeMap<ReplicaId, Duration>,
    pub(crate) fault: Option<String>,
    /// How often a pass was begun.
    pub(crate) passes: u32,
}

impl Bootstrap {
    pub(crate) fn load(read: &dyn StateRead, space: &SpaceId) -> Result<Option<Self>, StoreError> {
        let staged = staged(read, space)?;
        Ok((!staged.is_empty()).then(|| Self { staged, ..Self::default() }))
    }

    pub(crate) fn phase(&self) -> BootstrapPhase {
        match &self.pass {
            Some(pass) if pass.whole.is_some() => BootstrapPhase::Verifying,
            Some(pass) if pass.offer.is_some() => BootstrapPhase::Receiving,
            _ => BootstrapPhase::Waiting,
        }
    }

    pub(crate) fn source(&self) -> Option<SessionId> {
        self.pass.as_ref().map(|pass| pass.session)
    }

    /// Rows staged and rows offered, and their bytes.
    pub(crate) fn progress(&self) -> [(u64, u64); 2] {
        let offered = self.pass.as_ref().and_then(|pass| pass.offer.as_ref());
        let staged =
            self.staged.values().fold((0, 0), |sum, piece| (sum.0 + piece.rows, sum.1 + piece.bytes));
        let offered = offered.map_or((0, 0), |offer| (offer.rows, offer.bytes));
        [(staged.0, offered.0), (staged.1, offered.1)]
    }
}

impl Space {
    /// Whether a lane cannot be had from anybody who is connected, because all who have more do not keep what comes next;
    /// or whether so much is missing that the state is had sooner than the log.
    fn needs_snapshot(&self, engine: &Engine, entries_min: u64) -> bool {
        let parts = || {
            let sessions = self.sessions.iter().filter_map(|session| engine.sessions.get(session));
            sessions.filter_map(|session| session.spaces.get(&self.id))
        };
        let is_gone = |lane: &comity_crdts::LaneId| {
            let stands_at = self.lanes.get(lane).map_or(0, |lane| lane.staged_tip().lsn);
            let frozen = self.lanes.get(lane).is_some_and(|lane| lane.row.frozen.is_some());
            let keeps = |part: &&crate::session::PeerSpace| {
                part.peer_have.at(lane) > stands_at && part.peer_floors.at(lane) <= stands_at
            };
            let lacks = parts().any(|part| part.peer_floors.at(lane) > stands_at);
            lacks && !frozen && !self.strangers.contains(lane) && parts().find(keeps).is_none()
        };
        let lanes: BTreeSet<_> =
            parts().flat_map(|part| part.peer_floors.iter().map(|(lane, _)| lane)).collect();
        let is_far = || {
            self.frontier.is_empty()
                && parts().any(|part| part.peer_have.distance_from(&self.frontier) >= entries_min)
        };
        lanes.iter().any(is_gone) || is_far()
    }
}

impl Engine {
    /// Whether state may be taken over from a peer: from who let this replica in, and from members that write.
    fn is_trusted(&self, space: &Space, session: SessionId) -> bool {
        let Some(session) = self.sessions.get(&session) else { return false };
        space.row.pinned.contains(&session.peer) || space.writers().any(|member| *member == session.peer)
    }

    /// Sees to it that a space that needs a snapshot gets one.
    pub(crate) fn tend_bootstrap(
        &mut self,
        now: &Now,
        id: SpaceId,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return Ok(()) };
        if space.row.founder.is_none() {
            return Ok(());
        }
        let is_needed = space.needs_snapshot(self, self.bootstrap.entries_min);
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        if !is_needed {
            let is_idle = space.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.pass.is_none());
            if is_idle && self.is_caught_up(&id) {
                return self.give_up_staged(id, store);
            }
            self.pump(id);
            return Ok(());
        }
        let bootstrap = space.bootstrap.get_or_insert_default();
        self.brought_up.insert(id);
        if let Some(pass) = &bootstrap.pass {
            // Each time it is given twice as long: what is large takes long to be offered.
            let patience =
                SNAPSHOT_STALL * (1 << bootstrap.passes.saturating_sub(1).min(STALL_DOUBLINGS_MAX));
            if pass.whole.is_none() && pass.moved + patience <= now.monotonic {
                self.refuse_source(now, id, ("it does not go on".to_owned(), LACKING_FOR));
                return Ok(());
            }
            self.pump(id);
            return Ok(());
        }
        if bootstrap.retry_due.is_some_and(|due| due > now.monotonic) {
            return Ok(());
        }
        let space = &self.spaces[&id];
        let refused = space.bootstrap.as_ref().map(|bootstrap| &bootstrap.refused);
        let is_usable = |session: &&SessionId| {
            let peer = self.sessions.get(session).map(|session| session.peer);
            let until = refused.zip(peer).and_then(|(refused, peer)| refused.get(&peer));
            let has_failed = until.is_some_and(|until| *until > now.monotonic);
            self.is_trusted(space, **session) && !has_failed
        };
        // Whoever has most.
        let has = |session: &&SessionId| {
            let part = self.sessions.get(session).and_then(|session| session.spaces.get(&id));
            part.map_or(0, |part| part.peer_have.distance_from(&space.frontier))
        };
        let session = space.sessions.iter().filter(is_usable).max_by_key(has).copied();
        self.retry_bootstrap(now, id);
        let Some(session_id) = session else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let number = session.next_snapshot;
        session.next_snapshot = number.wrapping_add(1);
        self.send(session_id, Class::Control, &Message::SnapshotAsk(SnapshotAsk { space: id, number }));
        if let Some(bootstrap) = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.as_mut()) {
            bootstrap.passes += 1;
            bootstrap.pass = Some(Pass {
                session: session_id,
                number,
                offer: None,
                at: Vec::new(),
                asked_until: Vec::new(),
                asked: VecDeque::new(),
                moved: now.monotonic,
                partial: Vec::new(),
                longest: 0,
                rows: 0,
                bytes: 0,
                whole: None,
                is_verifying: false,
            });
        }
        Ok(())
    }

    /// Whether somebody is connected, and nobody who is has more.
    fn is_caught_up(&self, id: &SpaceId) -> bool {
        let Some(space) = self.spaces.get(id) else { return false };
        let parts = space.sessions.iter().filter_map(|session| self.sessions.get(session)?.spaces.get(id));
        let mut behind =
            parts.map(|part| part.peer_have.ahead_of(&space.durable).next().is_some()).peekable();
        behind.peek().is_some() && !behind.any(|behind| behind)
    }

    /// Whether something came of a pass is looked at now and then.
    pub(crate) fn watch_bootstrap(&mut self, now: &Now, id: SpaceId) {
        self.dirty.insert(id);
        if self.spaces.get(&id).is_some_and(|space| space.is_receiving()) {
            self.timers.insert((now.monotonic + SNAPSHOT_STALL / 4, Timer::Bootstrap(id)));
        }
    }

    /// Somebody is asked again after a while.
    fn retry_bootstrap(&mut self, now: &Now, id: SpaceId) {
        let due = now.monotonic + SNAPSHOT_RETRY;
        if let Some(bootstrap) = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.as_mut()) {
            bootstrap.retry_due = Some(due);
            self.timers.insert((due, Timer::Bootstrap(id)));
        }
    }

    /// What was staged is not needed any more: everything came another way.
    fn give_up_staged(&mut self, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let Some(bootstrap) = space.bootstrap.take() else { return Ok(()) };
        if bootstrap.staged.is_empty() {
            return Ok(());
        }
        let mut work = Work::over(&*store);
        for until in bootstrap.staged.keys() {
            work.delete_fact(keys::staged_piece(&id, until));
            work.delete_fact(keys::staged_rows(&id, until));
        }
        let batch = work.into_batch();
        match store.commit(batch) {
            Ok(position) => self.committed = position,
            Err(error) => {
                // It is still there.
                space.bootstrap = Some(bootstrap);
                return Err(error);
            }
        }
        self.request_sync();
        Ok(())
    }

    /// Nothing comes over a session any more.
    pub(crate) fn end_pass(&mut self, session: SessionId, id: SpaceId) {
        let Some(space) = self.spaces.get_mut(&id).filter(|space| !space.is_blocked()) else { return };
        let Some(bootstrap) = &mut space.bootstrap else { return };
        if bootstrap.pass.as_ref().is_some_and(|pass| pass.session == session && !pass.is_verifying) {
            bootstrap.pass = None;
            bootstrap.retry_due = None;
            self.dirty.insert(id);
        }
    }

    /// How many pieces may be asked for at once of the source of a space.
    fn pieces_asked_max(&self, id: SpaceId) -> usize {
        let pass = self.spaces.get(&id).and_then(|space| space.bootstrap.as_ref()?.pass.as_ref());
        let version = pass.and_then(|pass| self.sessions.get(&pass.session)).map(Session::version);
        if version < Some(WITH_WIDE_WINDOWS) { PIECES_ASKED_MAX_4 } else { PIECES_ASKED_MAX }
    }

    /// Asks for what comes next, as far as may be asked for at once; has what is whole checked.
    fn pump(&mut self, id: SpaceId) {
        let (synced, mut reads) = (self.synced, Vec::new());
        let asked_max = self.pieces_asked_max(id);
        let Some(bootstrap) = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.as_mut()) else {
            return;
        };
        let Some(pass) = &mut bootstrap.pass else { return };
        let Some(offer) = &pass.offer else { return };
        if let Some(whole) = pass.whole {
            if whole <= synced && !pass.is_verifying {
                pass.is_verifying = true;
                let offer = Box::new(offer.clone());
                self.push(Output::Snapshot(SnapshotTask::Verify { space: id, offer }));
            }
            return;
        }
        if canary!(PieceOfAnotherView) {
            // Whatever is staged is taken to be of this state.
            while let Some((until, _)) =
                bootstrap.staged.iter().find(|(_, piece)| piece.from == pass.asked_until)
            {
                (pass.at, pass.asked_until) = (until.clone(), until.clone());
            }
        }
        let at_once = pass.pieces_at_once(asked_max);
        while pass.asked.len() < asked_max && pass.asked_until != END {
            let from = pass.asked_until.clone();
            let next = bootstrap
                .staged
                .range::<[u8], _>((std::ops::Bound::Excluded(from.as_slice()), std::ops::Bound::Unbounded));
            let next = next.map(|(until, piece)| (until.clone(), piece)).next();
            let (until, hash, pieces) = match next {
                Some((until, piece)) if piece.from == from => (Some(until), Some(piece.hash), 0),
                Some((_, piece)) if piece.from > from => (Some(piece.from.clone()), None, 0),
                // One that begins before is of no use; what it has comes anew.
                Some((until, _)) => (Some(until), None, 0),
                // Where the next piece ends is only known once it is there.
                None if pass.asked.is_empty() => (None, None, at_once as u8),
                None => break,
            };
            let is_staged = hash.is_some();
            pass.asked_until = until.clone().unwrap_or_else(|| END.to_vec());
            pass.asked.push_back(Asked { until: until.clone(), is_staged, pieces });
            reads.push(SnapshotRead { number: pass.number, from, until, hash, pieces });
        }
        let session = pass.session;
        for read in reads {
            self.send(session, Class::Control, &Message::SnapshotRead(read));
        }
    }

    /// The pass under way of a snapshot that a session sends.
    fn pass_of(&mut self, session: SessionId, number: u32) -> Option<(SpaceId, &mut Bootstrap)> {
        let is_it = |bootstrap: &Bootstrap| {
            bootstrap.pass.as_ref().is_some_and(|pass| (pass.session, pass.number) == (session, number))
        };
        let held = |id: &&SpaceId| {
            self.spaces.get(id).and_then(|space| space.bootstrap.as_deref()).is_some_and(is_it)
        };
        let id = *self.brought_up.iter().find(held)?;
        Some((id, self.spaces.get_mut(&id)?.bootstrap.as_deref_mut()?))
    }

    /// A source offers what was asked for.
    pub(crate) fn on_snapshot_offer(
        &mut self,
        now: &Now,
        session: SessionId,
        (number, offer): (u32, Offer),
    ) -> Result<(), Refusal> {
        let Some((id, bootstrap)) = self.pass_of(session, number) else { return Ok(()) };
        let Some(pass) = bootstrap.pass.as_mut().filter(|pass| pass.offer.is_none()) else {
            return Err(CloseReason::Unexpected.into());
        };
        if offer.frontier.len() > comity_crdts::limits::LANES_MAX {
            return Err(CloseReason::TooMany.into());
        }
        (pass.offer, pass.moved) = (Some(offer.clone()), now.monotonic);
        if offer.bytes > self.bootstrap.bytes_max {
            self.refuse_source(now, id, ("it offers more than is allowed".to_owned(), FAULTY_FOR));
            return Ok(());
        }
        let Some(space) = self.spaces.get(&id) else { return Ok(()) };
        if let Some(why) = space.refuses(&offer) {
            self.refuse_source(now, id, (why.to_owned(), LACKING_FOR));
            return Ok(());
        }
        self.pump(id);
        Ok(())
    }

    /// A source turned out not to have what can be taken over; another one is asked.
    fn refuse_source(&mut self, now: &Now, id: SpaceId, (fault, time): (String, Duration)) {
        let Some(bootstrap) = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.as_mut()) else {
            return;
        };
        let Some(pass) = bootstrap.pass.take() else { return };
        bootstrap.fault = Some(fault);
        if let Some(session) = self.sessions.get(&pass.session) {
            bootstrap.refused.insert(session.peer, now.monotonic + time);
            let stop = SnapshotStop { number: pass.number, why: SnapshotEnd::Done };
            self.send(pass.session, Class::Control, &Message::SnapshotStop(stop));
        }
        self.retry_bootstrap(now, id);
    }

    /// A part of a piece came.
    pub(crate) fn on_snapshot_piece(
        &mut self,
        now: &Now,
        session: SessionId,
        (number, more, bytes): (u32, bool, &[u8]),
        store: &mut dyn Store,
    ) -> Result<(), Refusal> {
        let limit = self.bootstrap.bytes_max;
        let Some((id, bootstrap)) = self.pass_of(session, number) else { return Ok(()) };
        let Some(pass) = bootstrap.pass.as_mut() else { return Ok(()) };
        pass.moved = now.monotonic;
        if pass.asked.is_empty() || pass.partial.len() + bytes.len() > PIECE_BYTES_MAX {
            return Err(CloseReason::Unexpected.into());
        }
        pass.partial.extend_from_slice(bytes);
        if more {
            return Ok(());
        }
        pass.longest = pass.longest.max(pass.partial.len());
        let Some(offer) = &pass.offer else { return Err(CloseReason::Unexpected.into()) };
        let bytes = std::mem::take(&mut pass.partial);
        let piece = Piece::decode(offer, &bytes);
        let counted = piece.and_then(|(piece, packed)| {
            let rows = rows_of(&piece.from, &piece.until, &piece.rows);
            let count = rows.map(|row| row.map(|_| 1)).sum::<Result<u64, _>>()?;
            Ok((piece, packed, count))
        });
        let (piece, packed, count) = counted.map_err(|_: DecodeError| CloseReason::Malformed)?;
        let Some(asked) = pass.asked.front_mut() else { return Ok(()) };
        let is_beyond = asked.until.as_ref().is_some_and(|until| piece.until > *until);
        if piece.from != pass.at || is_beyond {
            return Err(CloseReason::Unexpected.into());
        }
        asked.pieces = asked.pieces.saturating_sub(1);
        let is_done = match &asked.until {
            Some(until) => piece.until == *until,
            None => asked.pieces == 0 || piece.until == END,
        };
        if is_done {
            if asked.until.is_none() {
                pass.asked_until = piece.until.clone();
            }
            pass.asked.pop_front();
        }
        (pass.rows, pass.bytes) = (pass.rows + count, pass.bytes + piece.rows.len() as u64);
        // Keys are shortened by more than lengths take, but for a few bytes of each row.
        let offered = pass.offer.as_ref().map_or((0, 0), |offer| (offer.rows, offer.bytes));
        let bytes_max = offered.1.saturating_add(offered.0.saturating_mul(ROW_LENGTHS_BYTES)).min(limit);
        if pass.rows > offered.0 || pass.bytes > bytes_max {
            return Err(CloseReason::Window.into());
        }
        self.stage_piece(id, piece, (packed, count), store)?;
        self.went_on(id);
        Ok(())
    }

    /// The source has the same as is staged.
    pub(crate) fn on_snapshot_same(
        &mut self,
        now: &Now,
        session: SessionId,
        same: &SnapshotSame,
    ) -> Result<(), Refusal> {
        let Some((id, bootstrap)) = self.pass_of(session, same.number) else { return Ok(()) };
        let staged = bootstrap.staged.get(&same.until).cloned();
        let Some(pass) = bootstrap.pass.as_mut() else { return Ok(()) };
        let asked = pass.asked.pop_front();
        let is_asked =
            asked.is_some_and(|asked| asked.is_staged && asked.until.as_ref() == Some(&same.until));
        let is_bound = |staged: &StagedPiece| {
            pass.offer.as_ref().is_some_and(|offer| bind(offer, &staged.hash) == same.check)
        };
        let staged = staged.filter(|staged| is_asked && staged.from == pass.at && is_bound(staged));
        let Some(staged) = staged else { return Err(CloseReason::Unexpected.into()) };
        pass.moved = now.monotonic;
        pass.at.clone_from(&same.until);
        (pass.rows, pass.bytes) = (pass.rows + staged.rows, pass.bytes + staged.bytes);
        self.went_on(id);
        Ok(())
    }

    /// Keeps a piece with its rows as they came, in the place of what was staged of the same rows.
    fn stage_piece(
        &mut self,
        id: SpaceId,
        piece: Piece,
        (packed, rows): (&[u8], u64),
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(bootstrap) = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.as_mut()) else {
            return Ok(());
        };
        let mut work = Work::over(&*store);
        let overlaps = |(_, staged): &(&Vec<u8>, &StagedPiece)| staged.from < piece.until;
        let after = (std::ops::Bound::Excluded(piece.from.clone()), std::ops::Bound::Unbounded);
        let old: Vec<Vec<u8>> =
            bootstrap.staged.range(after).take_while(overlaps).map(|(until, _)| until.clone()).collect();
        for until in &old {
            work.delete_fact(keys::staged_piece(&id, until));
            work.delete_fact(keys::staged_rows(&id, until));
        }
        let bytes = piece.rows.len() as u64;
        let staged = StagedPiece { from: piece.from.clone(), hash: piece.hash, rows, bytes };
        work.put_fact(keys::staged_piece(&id, &piece.until), encode(&staged));
        work.put_fact(keys::staged_rows(&id, &piece.until), packed.to_vec());
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        for until in old {
            bootstrap.staged.remove(&until);
        }
        bootstrap.staged.insert(piece.until.clone(), staged);
        if let Some(pass) = &mut bootstrap.pass {
            pass.at = piece.until;
        }
        self.request_sync();
        Ok(())
    }

    /// A range is staged as the source has it.
    fn went_on(&mut self, id: SpaceId) {
        let committed = self.committed;
        let Some(pass) = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.as_mut()?.pass.as_mut())
        else {
            return;
        };
        if pass.at == END && pass.whole.is_none() {
            pass.whole = Some(committed);
            self.dirty.insert(id);
        }
        self.pump(id);
    }

    /// A source ends a snapshot.
    pub(crate) fn on_snapshot_ended(
        &mut self,
        now: &Now,
        session: SessionId,
        (number, why): (u32, SnapshotEnd),
    ) {
        let Some((id, bootstrap)) = self.pass_of(session, number) else { return };
        if bootstrap.pass.as_ref().is_some_and(|pass| pass.is_verifying) {
            return;
        }
        let has_offered = bootstrap.pass.as_ref().is_some_and(|pass| pass.offer.is_some());
        if why == SnapshotEnd::Gone && !has_offered {
            // What it has cannot be told to this replica; somebody else's state can, or the log.
            self.refuse_source(now, id, ("it has no state for this replica".to_owned(), LACKING_FOR));
            if let Some(space) = self.spaces.get_mut(&id) {
                space.review_parents();
            }
            self.dirty.insert(id);
            return;
        }
        bootstrap.pass = None;
        self.retry_bootstrap(now, id);
    }

    /// What was staged has been checked.
    pub(crate) fn on_verified(
        &mut self,
        now: &Now,
        id: SpaceId,
        result: Result<Verified, StoreError>,
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let pass = space.bootstrap.as_ref().and_then(|bootstrap| bootstrap.pass.as_ref());
        let Some(pass) = pass.filter(|pass| pass.is_verifying) else { return Ok(()) };
        let offer = pass.offer.clone().unwrap_or_default();
        let refusal = space.refuses(&offer);
        let Some(pass) = space.bootstrap.as_mut().and_then(|bootstrap| bootstrap.pass.as_mut()) else {
            return Ok(());
        };
        match result {
            Ok(Verified { fault: None }) if refusal.is_some() => {
                // More was let go of here while it came, or the log brought what it has.
                pass.is_verifying = false;
                self.refuse_source(now, id, (refusal.unwrap_or_default().to_owned(), LACKING_FOR));
                Ok(())
            }
            Ok(Verified { fault: None }) => {
                let begun = self.begin_install(now, id, offer, store);
                let bootstrap = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.as_mut());
                if begun.is_err()
                    && let Some(pass) = bootstrap.and_then(|bootstrap| bootstrap.pass.as_mut())
                {
                    pass.is_verifying = false;
                    self.retry_bootstrap(now, id);
                }
                begun
            }
            Ok(Verified { fault: Some(fault) }) => {
                self.refuse_source(now, id, (fault, FAULTY_FOR));
                let taken = self.spaces.get_mut(&id).and_then(|space| space.bootstrap.take());
                let Some(bootstrap) = taken else { return Ok(()) };
                let (refused, passes, fault) =
                    (bootstrap.refused.clone(), bootstrap.passes, bootstrap.fault.clone());
                let retry_due = bootstrap.retry_due;
                if let Some(space) = self.spaces.get_mut(&id) {
                    space.bootstrap = Some(bootstrap);
                }
                self.give_up_staged(id, store)?;
                if let Some(space) = self.spaces.get_mut(&id) {
                    let fresh = Bootstrap { refused, passes, fault, retry_due, ..Bootstrap::default() };
                    space.bootstrap = Some(Box::new(fresh));
                }
                Ok(())
            }
            Err(_) => {
                // Whatever keeps the view from being read shows when the store is used.
                pass.is_verifying = false;
                self.retry_bootstrap(now, id);
                Ok(())
            }
        }
    }

    /// The session and number of a pass, to be told when it is over.
    pub(crate) fn pass_source(&self, id: &SpaceId) -> Option<(SessionId, u32)> {
        let pass = self.spaces.get(id)?.bootstrap.as_ref()?.pass.as_ref()?;
        Some((pass.session, pass.number))
    }
}

impl Space {
    /// Why a state is not taken over: something would be lost by it, or nothing gained.
    fn refuses(&self, offer: &Offer) -> Option<&'static str> {
        if self.lanes.iter().any(|(lane, held)| offer.frontier.at(lane) < held.floor.lsn) {
            return Some("it lacks what is not kept here any more");
        }
        self.frontier.covers(&offer.frontier).then_some("it has nothing that is not here")
    }
}

impl From<SnapshotRead> for ReadRange {
    fn from(read: SnapshotRead) -> Self {
        Self { from: read.from, until: read.until, hash: read.hash, pieces: read.pieces }
    }
}

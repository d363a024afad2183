//! The serving side in the core: who is served, and what is kept of the log for them meanwhile.

use std::time::Duration;

use comity_crdts::SpaceId;

use crate::bootstrap::source::Pieces;
use crate::bootstrap::{SnapshotAnswer, SnapshotEnd, SnapshotTask};
use crate::engine::Engine;
use crate::io::{Class, CloseReason, Now, Output, SessionId};
use crate::limits::{FRAME_BYTES_MAX, PIECES_ASKED_MAX, SNAPSHOT_IDLE_MAX, SNAPSHOTS_SERVED_MAX};
use crate::message::{
    Message, SNAPSHOT_HEADER_BYTES_MAX, SnapshotAsk, SnapshotOffer, SnapshotPiece, SnapshotRead,
    SnapshotSame, SnapshotStop,
};
use crate::receive::Refusal;
use crate::session::Session;
use crate::space::Space;
use crate::store::{Store, StoreError};
use crate::version::WITH_EXTENSIONS;

/// A snapshot that a peer is being sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) space: SpaceId,
    /// The last place of the order of applying that is in it, once that is known. Entries after it are kept meanwhile.
    pub(crate) place: u64,
    /// When it was last asked for something.
    used: Duration,
    /// Reads that are under way.
    reads: usize,
    /// Pieces that one of them may come to, where it names no end; there is one such read at a time.
    pieces: usize,
}

impl Space {
    /// Whether a peer can make something of the state: of what is held, and of all kinds there are.
    fn can_be_told(&self, session: &Session) -> bool {
        let knows_kinds = session.knows.as_ref().is_some_and(|knows| !knows.kinds.is_empty());
        (self.held == 0 || session.version() >= WITH_EXTENSIONS) && (!self.has_later_kinds || knows_kinds)
    }
}

impl Engine {
    /// The last place whose entry nobody needs who is being brought up from a snapshot.
    pub(crate) fn place_held(&self, now: &Now, id: &SpaceId) -> u64 {
        let served = self.sessions.values().flat_map(|session| session.served.values());
        let is_used = |served: &&Served| served.used + SNAPSHOT_IDLE_MAX > now.monotonic;
        served
            .filter(|served| served.space == *id)
            .filter(is_used)
            .map(|served| served.place)
            .min()
            .unwrap_or(u64::MAX)
    }

    pub(crate) fn on_snapshot_ask(
        &mut self,
        now: &Now,
        session_id: SessionId,
        ask: &SnapshotAsk,
    ) -> Result<(), Refusal> {
        let count = self.sessions.values().map(|session| session.served.len()).sum::<usize>();
        let blocked = self.spaces.get(&ask.space).is_none_or(|space| space.is_blocked());
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if !session.is_open(&ask.space) || session.served.contains_key(&ask.number) {
            return Err(CloseReason::Unexpected.into());
        }
        if count >= SNAPSHOTS_SERVED_MAX || blocked {
            self.stop_snapshot(session_id, ask.number, SnapshotEnd::Busy);
            return Ok(());
        }
        if !self.spaces.get(&ask.space).is_some_and(|space| space.can_be_told(session)) {
            self.stop_snapshot(session_id, ask.number, SnapshotEnd::Gone);
            return Ok(());
        }
        let place = self.spaces.get(&ask.space).map_or(0, |space| space.kept.dropped);
        session
            .served
            .insert(ask.number, Served { space: ask.space, place, used: now.monotonic, reads: 0, pieces: 0 });
        let (number, space) = (ask.number, ask.space);
        self.push(Output::Snapshot(SnapshotTask::Open { session: session_id, number, space }));
        Ok(())
    }

    fn stop_snapshot(&mut self, session: SessionId, number: u32, why: SnapshotEnd) {
        self.send(session, Class::Control, &Message::SnapshotStop(SnapshotStop { number, why }));
    }

    pub(crate) fn on_snapshot_read(
        &mut self,
        now: &Now,
        session_id: SessionId,
        read: SnapshotRead,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let number = read.number;
        let Some(served) = session.served.get_mut(&number) else {
            // It may have been ended from here meanwhile.
            self.stop_snapshot(session_id, number, SnapshotEnd::Gone);
            return Ok(());
        };
        (served.reads, served.used) = (served.reads + 1, now.monotonic);
        if read.until.is_none() {
            served.pieces += usize::from(read.pieces.max(1));
        }
        if served.reads > PIECES_ASKED_MAX || served.pieces > PIECES_ASKED_MAX {
            return Err(CloseReason::Window.into());
        }
        let range = read.into();
        self.push(Output::Snapshot(SnapshotTask::Read { session: session_id, number, range }));
        Ok(())
    }

    /// One end of a snapshot ends it.
    pub(crate) fn on_snapshot_stop(&mut self, now: &Now, session_id: SessionId, stop: &SnapshotStop) {
        match stop.why {
            SnapshotEnd::Done => self.end_served(session_id, stop.number),
            SnapshotEnd::Busy | SnapshotEnd::Gone => {
                self.on_snapshot_ended(now, session_id, (stop.number, stop.why));
            }
        }
    }

    /// A peer may not have anything of a space any more: snapshots that it reads end.
    pub(crate) fn end_served_of(&mut self, session: SessionId, id: SpaceId) {
        let served = self.sessions.get(&session).into_iter().flat_map(|session| &session.served);
        let of_space = served.filter(|(_, served)| served.space == id).map(|(number, _)| *number);
        for number in of_space.collect::<Vec<_>>() {
            self.end_served(session, number);
        }
    }

    fn end_served(&mut self, session_id: SessionId, number: u32) {
        let served = self.sessions.get_mut(&session_id).and_then(|session| session.served.remove(&number));
        if served.is_some() {
            self.push(Output::Snapshot(SnapshotTask::Close { session: session_id, number }));
        }
    }

    /// What the driver did for snapshots.
    pub(crate) fn on_snapshot_answer(&mut self, now: &Now, answer: SnapshotAnswer, store: &mut dyn Store) {
        match answer {
            SnapshotAnswer::Opened { session, number, offer } => {
                let held =
                    self.sessions.get_mut(&session).and_then(|session| session.served.get_mut(&number));
                let Some(served) = held else {
                    // The session ended meanwhile.
                    return self.push(Output::Snapshot(SnapshotTask::Close { session, number }));
                };
                if let Ok(Some(offer)) = offer {
                    served.place = offer.applied;
                    let offer = SnapshotOffer { number, offer: *offer };
                    return self.send(session, Class::Control, &Message::SnapshotOffer(offer));
                }
                self.end_served(session, number);
                self.stop_snapshot(session, number, SnapshotEnd::Busy);
            }
            SnapshotAnswer::Read { session, number, pieces } => self.on_pieces(session, number, pieces),
            SnapshotAnswer::Audit(answer) => {
                if let Err(error) = self.on_audit_answer(now, answer, store) {
                    self.on_store_error(now, error);
                }
            }
            SnapshotAnswer::Verified { space, result } => {
                if let Err(error) = self.on_verified(now, space, result, store) {
                    self.on_store_error(now, error);
                }
            }
        }
    }

    fn on_pieces(&mut self, session: SessionId, number: u32, pieces: Result<Option<Pieces>, StoreError>) {
        let held = self.sessions.get_mut(&session).and_then(|session| session.served.get_mut(&number));
        let Some(served) = held else { return };
        served.reads = served.reads.saturating_sub(1);
        if served.reads == 0 {
            served.pieces = 0;
        }
        match pieces {
            Ok(Some(Pieces::Same { until, check })) => {
                let same = SnapshotSame { number, until, check };
                self.send(session, Class::CatchUp, &Message::SnapshotSame(same));
            }
            Ok(Some(Pieces::Differ(pieces))) => {
                for piece in pieces {
                    let mut parts = piece.chunks(FRAME_BYTES_MAX - SNAPSHOT_HEADER_BYTES_MAX).peekable();
                    while let Some(bytes) = parts.next() {
                        let more = parts.peek().is_some();
                        let piece = SnapshotPiece { number, more, bytes };
                        self.send(session, Class::CatchUp, &Message::SnapshotPiece(piece));
                    }
                }
            }
            Ok(None) | Err(_) => {
                self.end_served(session, number);
                self.stop_snapshot(session, number, SnapshotEnd::Gone);
            }
        }
    }
}

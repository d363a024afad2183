//! The source of snapshots, outside the core: keeps views, and reads pieces from them. The driver runs it on a thread of
//! its own, a simulation wherever it wants.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use comity_crdts::SpaceId;

use crate::audit::{AuditAnswer, AuditTask};
use crate::bootstrap::piece::{PieceWriter, bind};
use crate::bootstrap::verify::{Verified, verify};
use crate::bootstrap::walk::{END, OBJECTS, Path, Walk};
use crate::bootstrap::{Offer, is_installing};
use crate::hash::Hash;
use crate::io::SessionId;
use crate::keys;
use crate::limits::{PIECE_BYTES_TARGET, SNAPSHOT_IDLE_MAX, SNAPSHOT_RETURN_MAX, SNAPSHOTS_SERVED_MAX};
use crate::space::{Progress, decode};
use crate::store::{LogRead, StoreError};

/// What the core wants done with snapshots, which may take long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotTask {
    /// Open a view, keep it, and say what it offers.
    Open {
        /// For whom.
        session: SessionId,
        /// The receiver's number for it.
        number: u32,
        /// The space.
        space: SpaceId,
    },
    /// Read some pieces from a view that is kept.
    Read {
        /// For whom.
        session: SessionId,
        /// The receiver's number for it.
        number: u32,
        /// What is asked for.
        range: ReadRange,
    },
    /// Let go of a view.
    Close {
        /// For whom it was kept.
        session: SessionId,
        /// The receiver's number for it.
        number: u32,
    },
    /// Check the pieces that are staged in a space, over a view of what is durable.
    Verify {
        /// The space.
        space: SpaceId,
        /// What they must come to.
        offer: Box<Offer>,
    },
    /// Something for an audit.
    Audit(AuditTask),
}

/// Rows that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// After this walk key; empty for the start.
    pub(crate) from: Vec<u8>,
    /// Up to this one, or as far as the pieces allowed reach.
    pub(crate) until: Option<Vec<u8>>,
    /// The hash of what the receiver holds of the range.
    pub(crate) hash: Option<Hash>,
    /// How many pieces, where no end is named.
    pub(crate) pieces: u8,
}

/// What became of a task.
#[derive(Debug)]
pub enum SnapshotAnswer {
    /// A view was opened, or not.
    Opened {
        /// For whom.
        session: SessionId,
        /// The receiver's number for it.
        number: u32,
        /// What it offers; `None` where the space cannot be offered now.
        offer: Result<Option<Box<Offer>>, StoreError>,
    },
    /// Pieces were read, or not.
    Read {
        /// For whom.
        session: SessionId,
        /// The receiver's number for it.
        number: u32,
        /// What is there; `None` when the view is gone, or what was asked for makes no sense.
        pieces: Result<Option<Pieces>, StoreError>,
    },
    /// Staged pieces were checked.
    Verified {
        /// The space.
        space: SpaceId,
        /// Whether they come to what was offered, or why not.
        result: Result<Verified, StoreError>,
    },
    /// What was done for an audit.
    Audit(AuditAnswer),
}

/// Pieces that were read.
#[derive(Debug, PartialEq, Eq)]
pub enum Pieces {
    /// The receiver holds the same.
    Same {
        /// Up to this walk key.
        until: Vec<u8>,
        /// Shows that this is said of the snapshot that was offered.
        check: Hash,
    },
    /// Pieces as they are sent, each with where it ends.
    Differ(Vec<Vec<u8>>),
}

/// A view, and what is offered of it.
struct Kept<V> {
    view: V,
    space: SpaceId,
    offer: Offer,
}

/// Views by what they are kept for, each with when it was used last.
type Views<K, V> = BTreeMap<K, (Arc<Kept<V>>, Duration)>;

/// Views that are kept for those who bootstrap from this replica.
pub struct SnapshotSource<V> {
    views: Views<(SessionId, u32), V>,
    /// The last one of each space: whoever was cut off comes back for it, and it takes long to go through all of it.
    latest: Views<SpaceId, V>,
    piece_bytes: usize,
}

impl SnapshotTask {
    /// The answer of who cannot do it now: peers are told to ask again.
    pub fn refused(self) -> Option<SnapshotAnswer> {
        match self {
            Self::Open { session, number, .. } => {
                Some(SnapshotAnswer::Opened { session, number, offer: Ok(None) })
            }
            Self::Read { session, number, .. } => {
                Some(SnapshotAnswer::Read { session, number, pieces: Ok(None) })
            }
            Self::Close { .. } => None,
            Self::Verify { space, .. } => {
                Some(SnapshotAnswer::Verified { space, result: Err(StoreError::Overloaded) })
            }
            Self::Audit(task) => Some(SnapshotAnswer::Audit(task.refused())),
        }
    }
}

impl<V> Default for SnapshotSource<V> {
    fn default() -> Self {
        Self::with_pieces_of(PIECE_BYTES_TARGET)
    }
}

impl<V> SnapshotSource<V> {
    /// One whose pieces hold about so many bytes of rows instead of 120 KiB.
    pub fn with_pieces_of(piece_bytes: usize) -> Self {
        Self { views: BTreeMap::new(), latest: BTreeMap::new(), piece_bytes }
    }
}

impl<V: LogRead> SnapshotSource<V> {
    /// Does what the core wants. `open` opens a view of what is durable, that lasts until it is dropped. O(rows) to verify, and to
    /// open unless the same was offered a moment ago; what is read otherwise. `now` is any clock that never goes back.
    pub fn handle(
        &mut self,
        now: Duration,
        task: SnapshotTask,
        open: impl FnOnce() -> Result<V, StoreError>,
    ) -> Option<SnapshotAnswer> {
        self.expire(now);
        match task {
            SnapshotTask::Open { session, number, space } => {
                let offer = self.open(now, (session, number), space, open);
                Some(SnapshotAnswer::Opened { session, number, offer })
            }
            SnapshotTask::Read { session, number, range } => {
                let piece_bytes = self.piece_bytes;
                let kept = self.views.get_mut(&(session, number)).filter(|_| is_sensible(&range));
                let pieces = kept.map_or(Ok(None), |(kept, used)| {
                    *used = now;
                    read_range(&kept.view, (&kept.space, &kept.offer), &range, piece_bytes).map(Some)
                });
                Some(SnapshotAnswer::Read { session, number, pieces })
            }
            SnapshotTask::Close { session, number } => {
                self.views.remove(&(session, number));
                None
            }
            SnapshotTask::Verify { space, offer } => {
                let result = open().and_then(|view| verify(&view, &space, &offer));
                Some(SnapshotAnswer::Verified { space, result })
            }
            SnapshotTask::Audit(task) => Some(SnapshotAnswer::Audit(task.run(open))),
        }
    }

    /// Lets go of views that nobody has read from for ten minutes, or that nobody came back for within half a minute.
    pub fn expire(&mut self, now: Duration) {
        self.views.retain(|_, (_, used)| *used + SNAPSHOT_IDLE_MAX > now);
        self.latest.retain(|_, (kept, used)| {
            if Arc::strong_count(kept) > 1 {
                *used = now;
            }
            *used + SNAPSHOT_RETURN_MAX > now
        });
    }

    fn open(
        &mut self,
        now: Duration,
        key: (SessionId, u32),
        space: SpaceId,
        open: impl FnOnce() -> Result<V, StoreError>,
    ) -> Result<Option<Box<Offer>>, StoreError> {
        if self.views.len() >= SNAPSHOTS_SERVED_MAX {
            return Ok(None);
        }
        let view = open()?;
        let Some(mut offer) = offer(&view, &space)? else { return Ok(None) };
        let latest = self.latest.get(&space).map(|(kept, _)| kept);
        let kept = match latest.filter(|kept| kept.offer.is_of_the_same(&offer)) {
            Some(kept) => Arc::clone(kept),
            None => {
                (offer.rows, offer.bytes) = amount(&view, &space)?;
                Arc::new(Kept { view, space, offer })
            }
        };
        let offer = kept.offer.clone();
        self.latest.insert(space, (Arc::clone(&kept), now));
        self.views.insert(key, (kept, now));
        Ok(Some(Box::new(offer)))
    }
}

/// What a state offers, but for how much that is.
fn offer(read: &dyn LogRead, space: &SpaceId) -> Result<Option<Offer>, StoreError> {
    let Some(progress) = read.get(&keys::progress(space))? else { return Ok(None) };
    if is_installing(read, space)? {
        return Ok(None);
    }
    let progress: Progress = decode("progress row", &progress)?;
    let frontier = crate::read::frontier(read, space)?;
    Ok(Some(Offer { applied: progress.applied, digest: progress.digest, frontier, rows: 0, bytes: 0 }))
}

/// How many rows there are, and their bytes. O(rows).
fn amount(read: &dyn LogRead, space: &SpaceId) -> Result<(u64, u64), StoreError> {
    let (mut rows, mut bytes) = (0, 0);
    let walk = Walk { read, space };
    let _ = walk.rows(&[], &mut |key, value| {
        rows += 1;
        bytes += (key.len() + value.len()) as u64;
        ControlFlow::Continue(())
    })?;
    Ok((rows, bytes))
}

/// Whether a range can be one of a walk.
fn is_sensible(range: &ReadRange) -> bool {
    let leads_somewhere = match range.from.split_first() {
        Some((&OBJECTS, path)) => Path::parse(path).is_some_and(|path| path.row(&SpaceId([0; 16])).is_some()),
        _ => true,
    };
    leads_somewhere && range.until.as_ref().is_none_or(|until| *until > range.from)
}

/// Reads what is asked for. O(its rows · log n).
fn read_range(
    read: &dyn LogRead,
    (space, offer): (&SpaceId, &Offer),
    range: &ReadRange,
    piece_bytes: usize,
) -> Result<Pieces, StoreError> {
    let pieces_max = if range.until.is_some() { usize::MAX } else { usize::from(range.pieces.max(1)) };
    let (mut pieces, mut from) = (Vec::new(), range.from.clone());
    let (mut writer, mut last) = (PieceWriter::default(), Vec::new());
    let walk = Walk { read, space };
    let until = range.until.as_deref().unwrap_or(END);
    let flow = walk.rows(&range.from, &mut |key, value| {
        if key > until {
            return ControlFlow::Break(());
        }
        if writer.len() >= piece_bytes {
            // Only now, so that the last piece ends where the range does.
            let full = std::mem::take(&mut writer);
            let start = std::mem::replace(&mut from, last.clone());
            pieces.push(full.finish(start, last.clone()));
            if pieces.len() >= pieces_max {
                return ControlFlow::Break(());
            }
        }
        writer.push(key, &value);
        last = key.to_vec();
        ControlFlow::Continue(())
    })?;
    if pieces.len() < pieces_max && (flow.is_continue() || range.until.is_some()) {
        let last = writer.finish(from, until.to_vec());
        if pieces.is_empty() && range.hash == Some(last.hash) {
            return Ok(Pieces::Same { check: bind(offer, &last.hash), until: last.until });
        }
        pieces.push(last);
    }
    Ok(Pieces::Differ(pieces.iter().map(|piece| piece.encode(offer)).collect()))
}

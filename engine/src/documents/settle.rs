//! Settling a document: its tail goes into a new snapshot, and what the library refuses into quarantine.
//!
//! Loading and saving take O(document), so they happen outside the core, over a view; the core takes what came out
//! as one more input, if the document is still the one that was settled.

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::{Document, DocumentError, Dot, ObjectAddress, RawChange, SpaceId};

use crate::apply::Effects;
use crate::conflicts::LocationRow;
use crate::documents::tail::{QuarantineRow, TailChange, TailRow, read_snapshot, tail_change, tail_rows};
use crate::documents::{DocumentPlace, Reached, read_tail};
use crate::engine::Engine;
use crate::io::{Now, Output};
use crate::journal::{ChangeAside, JournalReason, record_change};
use crate::keys;
use crate::options::TailLimits;
use crate::rows::{DocumentHeader, Object, SnapshotRow, damaged};
use crate::site::Site;
use crate::space::encode;
use crate::store::{LogRead, StateRead, Store, StoreError};
use crate::work::Work;

/// The part of what is in a snapshot, changes or raw bytes, that a tail must exceed: so loading reads little besides the
/// snapshot, and all snapshots of a document that grows together take a small multiple of what the last one takes.
const TAIL_PART: u64 = 8;
/// The bytes of one piece of a snapshot.
const PIECE_BYTES: usize = 64 * 1024;

/// Whether a document's tail has become long.
pub(crate) fn is_due(header: &DocumentHeader, limits: &TailLimits) -> bool {
    let SnapshotRow { through, raw_bytes, .. } = header.snapshot;
    header.changes - through > limits.changes.max(through / TAIL_PART)
        || header.bytes - raw_bytes > limits.bytes.max(raw_bytes / TAIL_PART)
}

/// What settling a document came to.
#[derive(Clone, Debug)]
pub struct Settled {
    space: SpaceId,
    address: ObjectAddress,
    reached: Reached,
    /// The number of the snapshot that it was made from.
    number: u64,
    raw_bytes: u64,
    /// What was saved, and loaded back.
    snapshot: Result<Vec<u8>, DocumentError>,
    refused: Vec<([u8; 32], DocumentError)>,
}

/// Settles a document as a view shows it; what [`Output::Settle`] asks for. O(document).
///
/// # Errors
/// [`StoreError`] when storage fails or the view has expired: nothing is lost, the document is settled later.
pub fn settle(
    read: &dyn LogRead,
    space: &SpaceId,
    address: &ObjectAddress,
) -> Result<Box<Settled>, StoreError> {
    let site = Site::top(space, address);
    let place = DocumentPlace { space, address, site: &site };
    let header = place.header(read)?;
    let before = read_snapshot(read, &site.id, &header)?;
    let tail: Vec<RawChange> = read_tail(read, &place, header.snapshot.through..header.changes)?;
    // Nothing is written through it, so its actor never shows.
    let loaded = Document::load(before.as_deref(), &tail, [0; 16]);
    let (document, applied) = loaded.map_err(|error| damaged("document", &error))?;
    Ok(Box::new(Settled {
        space: *space,
        address: address.clone(),
        reached: Reached::of(&header),
        number: header.snapshot.number,
        raw_bytes: header.bytes,
        snapshot: document.save(),
        refused: applied.refused,
    }))
}

impl Settled {
    /// The error of a document that cannot be saved; its changes stay where they are.
    pub fn error(&self) -> Option<&DocumentError> {
        self.snapshot.as_ref().err()
    }

    /// Puts it into the document's rows, if the document is still the one that was settled. Returns how many changes
    /// went into quarantine.
    fn put(self, work: &mut Work<'_>, effects: &mut Effects) -> Result<u64, StoreError> {
        let site = Site::top(&self.space, &self.address);
        let place = DocumentPlace { space: &self.space, address: &self.address, site: &site };
        let mut header = place.header(work)?;
        let is_same = header.generation == self.reached.generation && header.snapshot.number == self.number;
        if !is_same || header.changes < self.reached.changes {
            return Ok(0);
        }
        let mut quarantined = 0;
        let tail = header.snapshot.through..self.reached.changes;
        if !self.refused.is_empty() {
            let rows = tail_rows(work, &site.id, &tail)?;
            let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.change, row)).collect();
            for (change, error) in &self.refused {
                let Some(row) = rows.get(change) else { continue };
                quarantined += u64::from(quarantine(work, effects, &place, (row, error))?);
            }
        }
        let Ok(snapshot) = self.snapshot else { return Ok(quarantined) };
        let (from, until) = keys::document_snapshots(&site.id);
        for (key, _) in work.scan(&from, &until, usize::MAX)? {
            work.delete(key);
        }
        for index in tail {
            work.delete(keys::document_change(&site.id, index));
        }
        let number = self.number + 1;
        for (piece, bytes) in snapshot.chunks(PIECE_BYTES).enumerate() {
            work.put(keys::document_snapshot_piece(&site.id, number, piece as u32), bytes.to_vec());
        }
        let (through, bytes) = (self.reached.changes, snapshot.len() as u64);
        header.snapshot = SnapshotRow { number, through, bytes, raw_bytes: self.raw_bytes };
        site.store(work, &Object::Document(header));
        Ok(quarantined)
    }
}

/// Notes a change that the library refused. Returns whether that is new.
fn quarantine(
    work: &mut Work<'_>,
    effects: &mut Effects,
    place: &DocumentPlace<'_>,
    (row, error): (&TailRow, &DocumentError),
) -> Result<bool, StoreError> {
    let hash = &row.change;
    let key = keys::quarantined(place.space, &place.site.id, hash);
    if work.get(&key)?.is_some() {
        return Ok(false);
    }
    let TailChange { seq, op: index, written, change } = tail_change(work, place, row.index)?;
    let quarantined = QuarantineRow {
        object: LocationRow::new(place.address, &[]),
        lane: row.lane,
        lsn: row.lsn,
        max_op: row.max_op,
        deps: change.deps().collect(),
        reason: error.to_string(),
    };
    work.put(key, encode(&quarantined));
    let dot = Dot { origin: row.lane, seq, index };
    effects.journalled = true;
    let reason = JournalReason::ChangeRefused { detail: error.to_string() };
    let aside = ChangeAside { dot, written, change: change.bytes(), reason, by: dot, at: written };
    record_change(work, place.space, place.address, aside)?;
    Ok(true)
}

impl Engine {
    /// Has the next document settled that ought to be, one at a time.
    pub(crate) fn start_settling(&mut self) {
        if self.settling || self.failed.is_some() {
            return;
        }
        while let Some(space) = self.to_settle.first().copied() {
            let unsettled = self.spaces.get_mut(&space).map(|space| &mut space.documents.unsettled);
            if let Some(object) = unsettled.and_then(BTreeSet::pop_first) {
                self.settling = true;
                return self.push(Output::Settle { space, object });
            }
            self.to_settle.remove(&space);
        }
    }

    /// Somebody found that a document holds what the library refuses.
    pub(crate) fn on_unsettled(&mut self, id: SpaceId, object: ObjectAddress) {
        if let Some(space) = self.spaces.get_mut(&id) {
            space.documents.unsettled.insert(object);
            self.to_settle.insert(id);
        }
    }

    /// Takes what settling came to.
    pub(crate) fn on_settled(
        &mut self,
        now: &Now,
        result: Result<Box<Settled>, StoreError>,
        store: &mut dyn Store,
    ) {
        self.settling = false;
        // Whatever keeps the view from being read shows when the store is used.
        let Ok(settled) = result else { return };
        if let Err(error) = self.take_settled(*settled, store) {
            self.on_store_error(now, error);
        }
    }

    fn take_settled(&mut self, settled: Settled, store: &mut dyn Store) -> Result<(), StoreError> {
        let Some(space) = self.spaces.get_mut(&settled.space).filter(|space| !space.is_blocked()) else {
            return Ok(());
        };
        if settled.error().is_some() {
            space.documents.unsavable.insert(settled.address.clone(), settled.reached.changes);
        }
        let (mut work, mut effects) = (Work::over(&*store), Effects::default());
        let quarantined = settled.put(&mut work, &mut effects)?;
        let batch = work.into_batch();
        if !batch.is_empty() {
            self.committed = store.commit(batch)?;
            space.quarantined += quarantined;
            space.prunable |= effects.journalled;
            self.dirty.insert(space.id);
            self.request_sync();
        }
        Ok(())
    }
}

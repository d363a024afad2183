//! Documents: a snapshot each and the changes since, which are in the log; rows tell where.
//!
//! A change joins its document by rules over rows (`admit`), so a document that nobody reads or edits takes remote
//! changes without being loaded. Whoever needs the document applies what was admitted since. What the library then
//! refuses is quarantined: it stays admitted, which every replica decides alike, and nothing of it is shown.

mod admit;
mod apply;
mod lost;
mod reading;
mod settle;
mod tail;

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::{Document, ObjectAddress, ObjectId, RawChange, SpaceId, canary};

use crate::options::TailLimits;
use crate::rows::{DocumentHeader, Object, damaged};
use crate::site::Site;
use crate::store::{LogRead, StateRead, StoreError};

pub(crate) use apply::{flush, store_edit};
pub use lost::lost_document;
pub use reading::{DocumentPosition, DocumentReader, Followed, ReadDocument};
pub use settle::{Settled, settle};
use tail::TailRow;
pub(crate) use tail::{
    QuarantineRow, TailRow as DocumentTailRow, carried_tail_row, carry_tail, decode_latest, load,
    quarantine_of, read_tail, tail_rows,
};
pub use tail::{QuarantinedChange, quarantined};

/// What loaded documents may take, by estimate, per space; the least recently used go first.
const LOADED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A document with more changes than this in its tail is settled when it is dropped.
const EVICTED_TAIL_MAX: u64 = 32;

/// Documents of which it is remembered what their tails hold.
const TAILS_MAX: usize = 64;

/// Where a document is.
pub(crate) struct DocumentPlace<'a> {
    pub(crate) space: &'a SpaceId,
    pub(crate) address: &'a ObjectAddress,
    pub(crate) site: &'a Site,
}

impl DocumentPlace<'_> {
    pub(crate) fn header(&self, read: &dyn StateRead) -> Result<DocumentHeader, StoreError> {
        match self.site.load(read)? {
            Object::Document(header) => Ok(header),
            _ => Ok(DocumentHeader::default()),
        }
    }
}

/// How far into a document's admitted changes something has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) generation: u64,
    pub(crate) changes: u64,
}

impl Reached {
    pub(crate) fn of(header: &DocumentHeader) -> Self {
        Self { generation: header.generation, changes: header.changes }
    }

    /// Whether this is a later version of the same document.
    pub(crate) fn is_beyond(self, other: Self) -> bool {
        self.generation == other.generation && self.changes > other.changes
            || self.generation > other.generation
    }

    /// Whether what is between here and `header` is in the tail.
    pub(crate) fn can_go_on(self, header: &DocumentHeader) -> bool {
        let within = header.snapshot.through..=header.changes;
        self.generation == header.generation && within.contains(&self.changes)
    }
}

struct Loaded {
    address: ObjectAddress,
    /// The changes in its tail.
    tail: u64,
    document: Document,
    reached: Reached,
    bytes: u64,
    used: u64,
}

/// The changes in a document's tail, by hash.
struct TailIndex {
    reached: Reached,
    /// The changes before this one are in the snapshot, and not in here.
    through: u64,
    rows: BTreeMap<[u8; 32], TailRow>,
    used: u64,
}

/// The documents of one space that are loaded. Any of them can be dropped at any time: rows are the truth.
pub(crate) struct DocumentCache {
    loaded: BTreeMap<ObjectId, Loaded>,
    /// The loaded ones, the least recently used first.
    by_use: BTreeMap<u64, ObjectId>,
    /// What they take together.
    bytes: u64,
    tails: BTreeMap<ObjectId, TailIndex>,
    uses: u64,
    limits: TailLimits,
    /// Documents that ought to be settled: their tails are long, or hold what was refused.
    pub(crate) unsettled: BTreeSet<ObjectAddress>,
    /// Documents that could not be saved, with how many changes they had: they are tried again at twice as many.
    pub(crate) unsavable: BTreeMap<ObjectAddress, u64>,
}

impl DocumentCache {
    pub(crate) fn new(limits: TailLimits) -> Self {
        Self {
            loaded: BTreeMap::new(),
            by_use: BTreeMap::new(),
            bytes: 0,
            tails: BTreeMap::new(),
            uses: 0,
            limits,
            unsettled: BTreeSet::new(),
            unsavable: BTreeMap::new(),
        }
    }

    /// The document with everything admitted to it, loaded if need be: O(document) then, otherwise what applying the
    /// changes takes that came since. Documents in `keep` stay loaded.
    pub(crate) fn load(
        &mut self,
        read: &dyn LogRead,
        place: &DocumentPlace<'_>,
        actor: [u8; 16],
        keep: &BTreeSet<ObjectId>,
    ) -> Result<&mut Document, StoreError> {
        self.uses += 1;
        let (id, used) = (place.site.id, self.uses);
        let header = place.header(read)?;
        let held = self.remove(&id).filter(|held| held.reached.can_go_on(&header));
        let (mut document, reached, mut refused) = match held {
            Some(held) => (held.document, held.reached, 0),
            None => {
                let (document, refused) = load(read, place, &header, actor)?;
                (document, Reached::of(&header), refused)
            }
        };
        if reached.changes < header.changes {
            let changes = read_tail(read, place, reached.changes..header.changes)?;
            let outcome = document.apply(&changes).map_err(|error| damaged("document", &error))?;
            refused += outcome.refused.len();
        }
        if refused > 0 {
            self.unsettled.insert(place.address.clone());
        }
        let bytes = document.weight();
        self.make_room(bytes, keep);
        let (address, reached) = (place.address.clone(), Reached::of(&header));
        let tail = header.changes - header.snapshot.through;
        self.insert(id, Loaded { address, tail, document, reached, bytes, used });
        let loaded = self.loaded.get_mut(&id).expect("it was inserted above");
        Ok(&mut loaded.document)
    }

    /// Loads a document as it was in another state, if it was there, with changes that are not in the log yet. O(document).
    pub(crate) fn remake(
        &mut self,
        read: &dyn StateRead,
        place: &DocumentPlace<'_>,
        (before, changes): (Option<&dyn LogRead>, &[RawChange]),
        actor: [u8; 16],
        keep: &BTreeSet<ObjectId>,
    ) -> Result<(), StoreError> {
        let mut document = match before {
            Some(before) => load(before, place, &place.header(before)?, actor)?.0,
            None => Document::new(actor),
        };
        let outcome = document.apply(changes).map_err(|error| damaged("document", &error))?;
        if outcome.applied.len() < changes.len() {
            return Err(damaged("document", &"what was just done to it does not apply"));
        }
        self.uses += 1;
        let (header, bytes) = (place.header(read)?, document.weight());
        self.make_room(bytes, keep);
        let tail = header.changes - header.snapshot.through;
        let (address, reached, used) = (place.address.clone(), Reached::of(&header), self.uses);
        self.insert(place.site.id, Loaded { address, tail, document, reached, bytes, used });
        Ok(())
    }

    fn insert(&mut self, id: ObjectId, loaded: Loaded) {
        self.bytes += loaded.bytes;
        self.by_use.insert(loaded.used, id);
        self.loaded.insert(id, loaded);
    }

    fn remove(&mut self, id: &ObjectId) -> Option<Loaded> {
        let loaded = self.loaded.remove(id)?;
        self.bytes -= loaded.bytes;
        self.by_use.remove(&loaded.used);
        Some(loaded)
    }

    /// Whether a document with this header ought to be settled.
    pub(crate) fn is_due(&self, header: &DocumentHeader) -> bool {
        settle::is_due(header, &self.limits)
    }

    /// A document's tail has become long.
    fn note_long(&mut self, address: ObjectAddress, changes: u64) {
        if self.unsavable.get(&address).is_none_or(|failed| changes >= failed.saturating_mul(2)) {
            self.unsettled.insert(address);
        }
    }

    /// A loaded document holds one more change than its rows did.
    pub(crate) fn edited(&mut self, id: &ObjectId) {
        if let Some(loaded) = self.loaded.get_mut(id) {
            loaded.reached.changes += 1;
        }
    }

    /// Drops a document whose memory is ahead of its rows.
    pub(crate) fn evict(&mut self, id: &ObjectId) {
        self.remove(id);
        self.tails.remove(id);
    }

    /// Drops everything, as after a batch that was not committed or when the actor changes.
    pub(crate) fn clear(&mut self) {
        self.loaded.clear();
        self.by_use.clear();
        self.bytes = 0;
        self.tails.clear();
    }

    fn make_room(&mut self, incoming: u64, keep: &BTreeSet<ObjectId>) {
        while self.bytes + incoming > LOADED_BYTES_MAX {
            let oldest = self.by_use.values().find(|id| !keep.contains(id)).copied();
            let Some(oldest) = oldest.and_then(|oldest| self.remove(&oldest)) else { return };
            if oldest.tail > EVICTED_TAIL_MAX {
                // It will be loaded again, and that is to cost less.
                self.unsettled.insert(oldest.address);
            }
        }
    }

    /// Where a change in the tail stands.
    fn tail_row(
        &mut self,
        read: &dyn LogRead,
        place: &DocumentPlace<'_>,
        header: &DocumentHeader,
        change: &[u8; 32],
    ) -> Result<Option<TailRow>, StoreError> {
        self.uses += 1;
        let (id, used, reached) = (place.site.id, self.uses, Reached::of(header));
        if self.tails.get(&id).is_none_or(|tail| tail.reached != reached) {
            let rows = tail_rows(read, &id, &(header.snapshot.through..header.changes))?;
            let rows = rows.into_iter().map(|row| (row.change, row)).collect();
            if self.tails.len() >= TAILS_MAX {
                let oldest = self.tails.iter().min_by_key(|(_, tail)| tail.used).map(|(id, _)| *id);
                oldest.map(|oldest| self.tails.remove(&oldest));
            }
            self.tails.insert(id, TailIndex { reached, through: header.snapshot.through, rows, used });
        }
        let tail = self.tails.get_mut(&id).expect("the index was inserted above when it was absent");
        tail.used = used;
        if tail.through < header.snapshot.through && !canary!(TailKeptInMind) {
            // It was settled since, and settling takes rows away.
            tail.through = header.snapshot.through;
            tail.rows.retain(|_, row| row.index >= header.snapshot.through);
        }
        Ok(tail.rows.get(change).copied())
    }

    /// A change joined the tail.
    fn tail_grew(&mut self, id: &ObjectId, row: TailRow, reached: Reached) {
        let before = Reached { changes: reached.changes - 1, ..reached };
        if let Some(tail) = self.tails.get_mut(id).filter(|tail| tail.reached == before) {
            tail.reached = reached;
            tail.rows.insert(row.change, row);
        }
    }
}

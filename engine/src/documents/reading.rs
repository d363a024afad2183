//! Documents for reading: one instance of each, shared by all readers and kept up with the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use comity_crdts::automerge::Patch;
use comity_crdts::{Document, ObjectAddress, ObjectId, SpaceId};

use crate::documents::{DocumentPlace, Reached, load, read_tail};
use crate::rows::{DocumentHeader, damaged};
use crate::site::Site;
use crate::store::{LogRead, StoreError};

/// What documents kept for reading may take, by estimate; the least recently read go first.
const READ_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Patches that are kept of a document which is followed, for followers that are a little behind.
const RECENT_PATCHES_MAX: usize = 4_096;

/// In how many steps.
const RECENT_STEPS_MAX: usize = 64;

/// A document as a view shows it. Whoever holds on to it holds that version.
#[derive(Clone, Debug)]
pub struct ReadDocument {
    /// The document.
    pub document: Arc<Document>,
    /// Changes that were found just now to be refused by the document library.
    pub refused: usize,
}

/// A version of a document, for who follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentPosition(Reached);

/// A document and what changed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The document.
    pub read: ReadDocument,
    /// Which version that is.
    pub position: DocumentPosition,
    /// What changed, in order; `None` when that is not known any more.
    pub patches: Option<Vec<Patch>>,
}

/// The documents that are read at one replica. Threads share it.
#[derive(Default)]
pub struct DocumentReaders {
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_object: BTreeMap<ObjectId, Slot>,
    /// The least recently read first.
    by_use: BTreeMap<u64, ObjectId>,
    /// What they take together.
    bytes: u64,
    uses: u64,
}

#[derive(Default)]
struct Slot {
    held: Arc<Mutex<Option<Held>>>,
    bytes: u64,
    used: u64,
}

/// An instance and how far it has come.
struct Held {
    document: Arc<Document>,
    reached: Reached,
    /// Somebody wants to know what changes.
    is_followed: bool,
    recent: Recent,
}

/// What changed lately: each step from a version to the next.
#[derive(Clone, Default)]
struct Recent(VecDeque<(Reached, Arc<[Patch]>)>);

impl Recent {
    fn push(&mut self, from: Reached, patches: Vec<Patch>) {
        self.0.push_back((from, patches.into()));
        let mut held: usize = self.0.iter().map(|(_, patches)| patches.len()).sum();
        while self.0.len() > RECENT_STEPS_MAX || held > RECENT_PATCHES_MAX {
            held -= self.0.pop_front().map_or(0, |(_, patches)| patches.len());
        }
    }

    /// What changed from one version to the newest, if that is known.
    fn since(&self, from: Reached, to: Reached) -> Option<Vec<Patch>> {
        if from == to {
            return Some(Vec::new());
        }
        let first = self.0.iter().position(|(step, _)| *step == from)?;
        Some(self.0.range(first..).flat_map(|(_, patches)| patches.iter().cloned()).collect())
    }
}

/// A lock whose holder panicked protects nothing that could be half changed: what is held is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DocumentReaders {
    /// A document as `read` shows it. O(document) the first time; then what applying the changes takes that came
    /// since. A view older than what others have read is served on its own.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails or what it holds is damaged.
    pub fn read(
        &self,
        read: &dyn LogRead,
        space: &SpaceId,
        address: &ObjectAddress,
    ) -> Result<ReadDocument, StoreError> {
        Ok(self.advance(read, space, address, false)?.read)
    }

    /// As [`DocumentReaders::read`], with what changed since a position, if that is still known.
    ///
    /// # Errors
    /// As [`DocumentReaders::read`].
    pub fn follow(
        &self,
        read: &dyn LogRead,
        space: &SpaceId,
        address: &ObjectAddress,
        after: Option<DocumentPosition>,
    ) -> Result<Followed, StoreError> {
        let Advanced { read, reached, recent } = self.advance(read, space, address, true)?;
        let patches = after.and_then(|after| recent.since(after.0, reached));
        Ok(Followed { read, position: DocumentPosition(reached), patches })
    }

    fn advance(
        &self,
        read: &dyn LogRead,
        space: &SpaceId,
        address: &ObjectAddress,
        is_followed: bool,
    ) -> Result<Advanced, StoreError> {
        let site = Site::top(space, address);
        let place = DocumentPlace { space, address, site: &site };
        let header = place.header(read)?;
        let reached = Reached::of(&header);
        let slot = self.slot(&site.id);
        let mut held = lock(&slot);
        if held.as_ref().is_some_and(|held| held.reached.is_beyond(reached)) {
            drop(held);
            let (document, refused) = load(read, &place, &header, [0; 16])?;
            let read = ReadDocument { document: Arc::new(document), refused };
            return Ok(Advanced { read, reached, recent: Recent::default() });
        }
        let (mut now, refused) = match held.take() {
            Some(old) if old.reached.can_go_on(&header) => go_on(read, &place, &header, old)?,
            _ => {
                let (document, refused) = load(read, &place, &header, [0; 16])?;
                let (document, recent) = (Arc::new(document), Recent::default());
                (Held { document, reached, is_followed, recent }, refused)
            }
        };
        now.is_followed |= is_followed;
        let (document, recent) = (Arc::clone(&now.document), now.recent.clone());
        *held = Some(now);
        drop(held);
        self.weigh(&site.id, document.weight());
        Ok(Advanced { read: ReadDocument { document, refused }, reached, recent })
    }

    fn slot(&self, id: &ObjectId) -> Arc<Mutex<Option<Held>>> {
        let mut slots = lock(&self.slots);
        slots.uses += 1;
        let used = slots.uses;
        let slot = slots.remove(id).unwrap_or_default();
        let held = Arc::clone(&slot.held);
        slots.insert(*id, Slot { used, ..slot });
        held
    }

    /// Notes what a document takes, and drops others until there is room.
    fn weigh(&self, id: &ObjectId, bytes: u64) {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.remove(id) {
            slots.insert(*id, Slot { bytes, ..slot });
        }
        while slots.bytes > READ_BYTES_MAX && slots.by_object.len() > 1 {
            let Some(oldest) = slots.by_use.values().next().copied() else { return };
            slots.remove(&oldest);
        }
    }
}

impl Slots {
    fn insert(&mut self, id: ObjectId, slot: Slot) {
        self.bytes += slot.bytes;
        self.by_use.insert(slot.used, id);
        self.by_object.insert(id, slot);
    }

    fn remove(&mut self, id: &ObjectId) -> Option<Slot> {
        let slot = self.by_object.remove(id)?;
        self.bytes -= slot.bytes;
        self.by_use.remove(&slot.used);
        Some(slot)
    }
}

/// A document that was brought up to date.
struct Advanced {
    read: ReadDocument,
    reached: Reached,
    recent: Recent,
}

/// Applies what was admitted since; returns how many changes were refused, too.
fn go_on(
    read: &dyn LogRead,
    place: &DocumentPlace<'_>,
    header: &DocumentHeader,
    mut held: Held,
) -> Result<(Held, usize), StoreError> {
    if held.reached.changes == header.changes {
        return Ok((held, 0));
    }
    let changes = read_tail(read, place, held.reached.changes..header.changes)?;
    // Copied if somebody holds on to the version before.
    let document = Arc::make_mut(&mut held.document);
    let applied = if held.is_followed {
        let applied = document.apply_with_patches(&changes);
        applied.map(|(applied, patches)| {
            held.recent.push(held.reached, patches);
            applied
        })
    } else {
        document.apply(&changes)
    };
    let applied = applied.map_err(|error| damaged("document", &error))?;
    held.reached = Reached::of(header);
    Ok((held, applied.refused.len()))
}

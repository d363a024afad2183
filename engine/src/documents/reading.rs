//! Documents for reading: one instance of each, shared by all readers and kept up with the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use comity_crdts::automerge::Patch;
use comity_crdts::{Document, Kind, ObjectAddress, ObjectId, SpaceId};

use crate::documents::{DocumentPlace, Reached, load, read_tail};
use crate::read::ReadError;
use crate::rows::{DocumentHeader, damaged};
use crate::site::Site;
use crate::store::{LogRead, StoreError};

/// What documents kept for reading may take, by estimate; the least recently read go first.
const READ_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A document as a view shows it. Whoever holds on to it holds that version.
#[derive(Clone, Debug)]
pub struct ReadDocument {
    /// The document.
    pub document: Arc<Document>,
    /// Changes that were found just now to be refused by the document library.
    pub refused: usize,
}

/// The documents that are read at one replica. Threads share it.
#[derive(Default)]
pub struct DocumentReaders {
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_object: BTreeMap<ObjectId, Slot>,
    uses: u64,
}

struct Slot {
    held: Arc<Mutex<Option<Held>>>,
    bytes: u64,
    used: u64,
}

/// An instance and how far it has come.
struct Held {
    document: Arc<Document>,
    reached: Reached,
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
    /// [`ReadError`] when a name is out of limits, storage fails or what it holds is damaged.
    pub fn read(
        &self,
        read: &dyn LogRead,
        space: &SpaceId,
        collection: &str,
        key: &str,
    ) -> Result<ReadDocument, ReadError> {
        let address = ObjectAddress::new(Kind::Document, collection, key)?;
        Ok(self.advance(read, space, &address, false)?.0)
    }

    /// As [`DocumentReaders::read`], of a document that exists, with what changed since it was last read by anybody
    /// if that is known.
    fn advance(
        &self,
        read: &dyn LogRead,
        space: &SpaceId,
        address: &ObjectAddress,
        wants_patches: bool,
    ) -> Result<(ReadDocument, Option<Vec<Patch>>), StoreError> {
        let site = Site::top(space, address);
        let place = DocumentPlace { space, address, site: &site };
        let header = place.header(read)?;
        let slot = self.slot(&site.id);
        let mut held = lock(&slot);
        if let Some(ahead) = &*held
            && ahead.reached.generation == header.generation
            && ahead.reached.changes > header.changes
        {
            drop(held);
            let (document, refused) = load(read, &place, &header, [0; 16])?;
            return Ok((ReadDocument { document: Arc::new(document), refused }, None));
        }
        let (now, refused, patches) = match held.take() {
            Some(old) if old.reached.can_go_on(&header) => go_on(read, &place, &header, old, wants_patches)?,
            _ => {
                let (document, refused) = load(read, &place, &header, [0; 16])?;
                let held = Held { document: Arc::new(document), reached: Reached::of(&header) };
                (held, refused, None)
            }
        };
        let document = Arc::clone(&now.document);
        *held = Some(now);
        drop(held);
        self.weigh(&site.id, document.weight());
        Ok((ReadDocument { document, refused }, patches))
    }

    fn slot(&self, id: &ObjectId) -> Arc<Mutex<Option<Held>>> {
        let mut slots = lock(&self.slots);
        slots.uses += 1;
        let used = slots.uses;
        let fresh = || Slot { held: Arc::default(), bytes: 0, used };
        let slot = slots.by_object.entry(*id).or_insert_with(fresh);
        slot.used = used;
        Arc::clone(&slot.held)
    }

    /// Notes what a document takes, and drops others until there is room.
    fn weigh(&self, id: &ObjectId, bytes: u64) {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.by_object.get_mut(id) {
            slot.bytes = bytes;
        }
        let mut total: u64 = slots.by_object.values().map(|slot| slot.bytes).sum();
        while total > READ_BYTES_MAX && slots.by_object.len() > 1 {
            let oldest = slots.by_object.iter().min_by_key(|(_, slot)| slot.used).map(|(id, _)| *id);
            let Some(oldest) = oldest.and_then(|oldest| slots.by_object.remove(&oldest)) else { return };
            total -= oldest.bytes;
        }
    }
}

/// Applies what was admitted since.
fn go_on(
    read: &dyn LogRead,
    place: &DocumentPlace<'_>,
    header: &DocumentHeader,
    mut held: Held,
    wants_patches: bool,
) -> Result<(Held, usize, Option<Vec<Patch>>), StoreError> {
    if held.reached.changes == header.changes {
        return Ok((held, 0, Some(Vec::new())));
    }
    let changes = read_tail(read, place, held.reached.changes..header.changes)?;
    // Copied if somebody holds on to the version before.
    let document = Arc::make_mut(&mut held.document);
    let (applied, patches) = if wants_patches {
        document.apply_with_patches(&changes).map(|(applied, patches)| (applied, Some(patches)))
    } else {
        document.apply(&changes).map(|applied| (applied, None))
    }
    .map_err(|error| damaged("document", &error))?;
    held.reached = Reached::of(header);
    Ok((held, applied.refused.len(), patches))
}

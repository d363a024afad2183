//! Documents as they are read here, and the thread that settles them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc};

use comity_crdts::{Document, Kind, ObjectAddress, ObjectId, SpaceId};
use comity_engine::{DocumentPosition, DocumentReader, Followed, Input, ReadError, StoreError, settle};
use comity_store::{Reader, Snapshot};
use tokio::sync::mpsc;

use crate::core::{Event, tell};

/// What documents kept for reading may take, by estimate; the least recently read go first.
const READ_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The documents that are read at a replica.
pub(crate) struct Documents {
    slots: Mutex<Slots>,
    events: mpsc::WeakSender<Event>,
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
    reader: Arc<Mutex<DocumentReader>>,
    bytes: u64,
    used: u64,
}

/// A lock whose holder panicked protects nothing that could be half changed: what is held is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Documents {
    pub(crate) fn new(events: mpsc::WeakSender<Event>) -> Self {
        Self { slots: Mutex::default(), events }
    }

    pub(crate) fn read(
        &self,
        snapshot: &Snapshot,
        space: &SpaceId,
        collection: &str,
        key: &str,
    ) -> Result<Arc<Document>, ReadError> {
        let address = ObjectAddress::new(Kind::Document, collection, key)?;
        if comity_engine::is_held(snapshot, space, &address)? {
            return Err(ReadError::Held { location: address.into() });
        }
        let read = self.with(space, &address, |reader| reader.read(snapshot, space, &address))?;
        self.report(read.refused, space, &address);
        Ok(read.document)
    }

    pub(crate) fn follow(
        &self,
        snapshot: &Snapshot,
        space: &SpaceId,
        address: &ObjectAddress,
        after: Option<DocumentPosition>,
    ) -> Result<Followed, StoreError> {
        let followed = self.with(space, address, |reader| reader.follow(snapshot, space, address, after))?;
        self.report(followed.read.refused, space, address);
        Ok(followed)
    }

    /// Does something with the reader of a document, which others wait for meanwhile, and counts what it takes.
    fn with<R>(
        &self,
        space: &SpaceId,
        address: &ObjectAddress,
        what: impl FnOnce(&mut DocumentReader) -> R,
    ) -> R {
        let id = ObjectId::derive(space, address);
        let reader = lock(&self.slots).reader(id);
        let mut reader = lock(&reader);
        let done = what(&mut reader);
        let bytes = reader.weight();
        drop(reader);
        lock(&self.slots).weigh(id, bytes);
        done
    }

    /// Tells the core what a reader found.
    fn report(&self, refused: usize, space: &SpaceId, object: &ObjectAddress) {
        if refused > 0
            && let Some(events) = self.events.upgrade()
        {
            // When the core is too busy to be told, it finds out itself once the document is settled.
            let input = Input::Unsettled { space: *space, object: object.clone() };
            let _ = events.try_send(Event::Input(input));
        }
    }
}

impl Slots {
    fn reader(&mut self, id: ObjectId) -> Arc<Mutex<DocumentReader>> {
        self.uses += 1;
        let slot = self.remove(&id).unwrap_or_default();
        let reader = Arc::clone(&slot.reader);
        self.insert(id, Slot { used: self.uses, ..slot });
        reader
    }

    /// Notes what a document takes, and drops others until there is room.
    fn weigh(&mut self, id: ObjectId, bytes: u64) {
        if let Some(slot) = self.remove(&id) {
            self.insert(id, Slot { bytes, ..slot });
        }
        while self.bytes > READ_BYTES_MAX && self.by_object.len() > 1 {
            let Some(oldest) = self.by_use.values().next().copied() else { return };
            self.remove(&oldest);
        }
    }

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

/// Documents that wait to be settled: the core asks for one at a time.
pub(crate) const SETTLE_REQUESTS_MAX: usize = 1;

/// Settles documents until the core is gone.
pub(crate) fn run_settling(
    reader: &Reader,
    requests: &std_mpsc::Receiver<(SpaceId, ObjectAddress)>,
    events: &mpsc::WeakSender<Event>,
) {
    while let Ok((space, object)) = requests.recv() {
        let result = reader.snapshot().and_then(|snapshot| settle(&snapshot, &space, &object));
        match &result {
            Ok(settled) => {
                if let Some(error) = settled.error() {
                    tracing::error!(%space, %object, %error, "a document cannot be saved; its changes are kept");
                }
            }
            Err(error) => tracing::warn!(%space, %object, %error, "a document could not be settled for now"),
        }
        if !tell(events, Event::Input(Input::Settled { result })) {
            return;
        }
    }
}

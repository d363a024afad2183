//! Documents as they are read here, and the thread that settles them.

use std::sync::{Arc, mpsc as std_mpsc};

use comity_crdts::{Document, Kind, ObjectAddress, SpaceId};
use comity_engine::{DocumentPosition, DocumentReaders, Followed, Input, ReadError, StoreError, settle};
use comity_store::{Reader, Snapshot};
use tokio::sync::mpsc;

use crate::core::{Event, tell};

/// The documents that are read at a replica.
pub(crate) struct Documents {
    readers: DocumentReaders,
    events: mpsc::WeakSender<Event>,
}

impl Documents {
    pub(crate) fn new(events: mpsc::WeakSender<Event>) -> Self {
        Self { readers: DocumentReaders::default(), events }
    }

    pub(crate) fn read(
        &self,
        snapshot: &Snapshot,
        space: &SpaceId,
        collection: &str,
        key: &str,
    ) -> Result<Arc<Document>, ReadError> {
        let address = ObjectAddress::new(Kind::Document, collection, key)?;
        let read = self.readers.read(snapshot, space, &address)?;
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
        let followed = self.readers.follow(snapshot, space, address, after)?;
        self.report(followed.read.refused, space, address);
        Ok(followed)
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

//! Following a document.

use std::sync::Arc;
use std::time::{Duration, Instant};

use comity_crdts::{Document, DocumentPatch, ObjectAddress, SpaceId};
use comity_engine::{DocumentPosition, Followed, StoreError};
use comity_store::Reader;
use tokio::sync::watch;

use crate::documents::Documents;
use crate::error::WatchError;
use crate::space::Space;
use crate::watch::Visible;

/// A follower spends at most one part in this many of a core on bringing a document up to date.
const WORK_PART: u32 = 20;

/// However long that takes, it waits no longer than this between two updates.
const PAUSE_MAX: Duration = Duration::from_millis(80);

/// A version of a document, and how it came about.
#[derive(Clone, Debug)]
pub struct DocumentUpdate {
    /// The document. It is copied once there is a newer version while somebody holds this one.
    pub document: Arc<Document>,
    /// What changed since the update before; `None` when that is not known, or the document was removed in between:
    /// take the document as it is then. The first update has none.
    pub patches: Option<Vec<DocumentPatch>>,
}

/// The versions of a document, as they become visible. A slow follower is given the newest one, with all that changed
/// since the one before; nothing is queued for it.
///
/// Changes that come faster than the document can be brought up to date with a twentieth of a core are given together,
/// at most 80 ms after the first of them was visible.
pub struct DocumentFeed {
    reader: Reader,
    documents: Arc<Documents>,
    visible: watch::Receiver<Visible>,
    space: SpaceId,
    address: ObjectAddress,
    position: Option<DocumentPosition>,
    /// How often something had become visible in the space when the document was read.
    read_at: Option<u64>,
    /// No update comes before.
    not_before: Instant,
}

impl DocumentFeed {
    pub(crate) fn new(space: &Space, address: ObjectAddress) -> Self {
        let shared = &space.replica().shared;
        Self {
            reader: shared.reader.clone(),
            documents: Arc::clone(&shared.documents),
            visible: shared.visible.clone(),
            space: space.id(),
            address,
            position: None,
            read_at: None,
            not_before: Instant::now(),
        }
    }

    /// The document as it is the first time, and then the next version of it. Waits where there is none yet.
    ///
    /// Cancel safe. Must be called on a tokio runtime, whose threads for blocking work read from the disk.
    ///
    /// # Errors
    /// [`WatchError::Stopped`] when the replica was shut down; [`WatchError::Store`] when storage fails, or the space was
    /// deleted.
    pub async fn next(&mut self) -> Result<DocumentUpdate, WatchError> {
        loop {
            if self.position.is_some() {
                Visible::wait(&mut self.visible, &self.space, self.read_at).await?;
                tokio::time::sleep_until(self.not_before.into()).await;
            }
            let read_at = Some(self.visible.borrow_and_update().moves(&self.space));
            let started = Instant::now();
            let followed = self.advance().await?;
            let took = started.elapsed();
            (self.read_at, self.not_before) = (read_at, started + (took * WORK_PART).min(PAUSE_MAX));
            let is_new = self.position != Some(followed.position);
            self.position = Some(followed.position);
            if is_new {
                let document = followed.read.document;
                let patches =
                    followed.patches.map(|patches| DocumentPatch::list(document.automerge(), &patches));
                return Ok(DocumentUpdate { document, patches });
            }
        }
    }

    async fn advance(&self) -> Result<Followed, WatchError> {
        let failed = |error: StoreError| match self.visible.has_changed() {
            // A replica that is shut down closes its store.
            Err(_) => WatchError::Stopped,
            Ok(_) => WatchError::from(error),
        };
        let snapshot = self.reader.snapshot().map_err(failed)?;
        comity_engine::check_readable(&snapshot, &self.space).map_err(failed)?;
        let (documents, space) = (Arc::clone(&self.documents), self.space);
        let (address, position) = (self.address.clone(), self.position);
        let read =
            tokio::task::spawn_blocking(move || documents.follow(&snapshot, &space, &address, position))
                .await;
        match read {
            Ok(followed) => followed.map_err(failed),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down.
                Err(_) => Err(WatchError::Stopped),
            },
        }
    }
}

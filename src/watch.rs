//! Watching a space.

use std::sync::Arc;

use comity_crdts::SpaceId;
use comity_engine::{Applied, Notice};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::error::WatchError;

/// Change sets of one space in the order in which they became visible here.
pub struct Watch {
    notices: broadcast::Receiver<Arc<Notice>>,
    space: SpaceId,
}

impl Watch {
    pub(crate) fn new(notices: &broadcast::WeakSender<Arc<Notice>>, space: SpaceId) -> Self {
        let notices = match notices.upgrade() {
            Some(notices) => notices.subscribe(),
            // Nothing will come any more, and the watcher is told so.
            None => broadcast::channel(1).1,
        };
        Self { notices, space }
    }

    /// The next change set. A view taken afterwards shows it. Cancel safe.
    ///
    /// # Errors
    /// [`WatchError::Lagged`] when the watcher was too slow and missed some; it can go on.
    pub async fn next(&mut self) -> Result<Applied, WatchError> {
        loop {
            match self.notices.recv().await {
                Ok(notice) => match &*notice {
                    Notice::Applied(applied) if applied.space == self.space => return Ok(applied.clone()),
                    _ => {}
                },
                Err(RecvError::Lagged(missed)) => return Err(WatchError::Lagged { missed }),
                Err(RecvError::Closed) => return Err(WatchError::Stopped),
            }
        }
    }
}

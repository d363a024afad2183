//! Being told what audits find.

use comity_crdts::SpaceId;
use comity_engine::AuditEvent;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::error::AuditEventsError;
use crate::space::Space;

/// Events kept for who is slow to take them; beyond that the oldest are left out, and it is said how many.
pub const AUDIT_EVENTS_MAX: usize = 1_024;

/// What audits of a space find: objects whose rows are damaged here, objects of which a peer has another state although both
/// have applied the same operations on it, and what became of them. There is nothing to tell while nothing is wrong.
///
/// ```no_run
/// # async fn example(space: comity::Space) -> Result<(), Box<dyn std::error::Error>> {
/// use comity::AuditEvent;
///
/// let mut events = space.audit_events();
/// loop {
///     match events.next().await? {
///         AuditEvent::Diverged { object, peer, own, theirs, .. } => {
///             println!("{object} is {own} here and {theirs} at {peer}")
///         }
///         AuditEvent::Repaired { object, .. } => {
///             println!("{object} was made again: {:?}", space.view()?.repairs()?.last())
///         }
///         event => println!("{event:?}"),
///     }
/// }
/// # }
/// ```
pub struct AuditEvents {
    space: SpaceId,
    events: broadcast::Receiver<AuditEvent>,
}

impl AuditEvents {
    /// The next event; waits where there is none yet. Cancel safe.
    ///
    /// # Errors
    /// [`AuditEventsError`]; after `Missed` the next call goes on with the oldest event that is kept.
    pub async fn next(&mut self) -> Result<AuditEvent, AuditEventsError> {
        loop {
            match self.events.recv().await {
                Ok(event) if event.space() == self.space => return Ok(event),
                Ok(_) => {}
                Err(RecvError::Lagged(events)) => return Err(AuditEventsError::Missed { events }),
                Err(RecvError::Closed) => return Err(AuditEventsError::Stopped),
            }
        }
    }
}

impl Space {
    /// What audits find from now on. What they have come to is in [`Space::status`], and what was made again in
    /// [`View::repairs`](crate::View::repairs).
    pub fn audit_events(&self) -> AuditEvents {
        AuditEvents { space: self.id(), events: self.replica().shared.audit.resubscribe() }
    }
}

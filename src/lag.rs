//! Being told when replicas fall behind.

use comity_crdts::SpaceId;
use comity_engine::{CommandError, LagEvent};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::error::{LagEventsError, RequestError, WriteError};
use crate::space::Space;

/// Events kept for who is slow to take them; beyond that the oldest are left out, and it is said how many.
pub const LAG_EVENTS_MAX: usize = 1_024;

/// Who falls behind in a space, and who is not behind any more: this replica towards a peer, or a peer towards this
/// replica. There is something to tell only where [`OpenOptions::lag_limits`](crate::OpenOptions::lag_limits) were set.
///
/// ```no_run
/// # async fn example(space: comity::Space) -> Result<(), Box<dyn std::error::Error>> {
/// use comity::{LagChange, LagSide};
///
/// let mut events = space.lag_events();
/// loop {
///     let event = events.next().await?;
///     match (event.change, event.side) {
///         (LagChange::Exceeded, LagSide::There) => println!("{} lacks {:?}", event.peer, event.lag),
///         (LagChange::Exceeded, LagSide::Here) => println!("{:?} of {} is missing", event.lag, event.peer),
///         (LagChange::Recovered | LagChange::Disconnected, _) => println!("{} is over", event.peer),
///     }
/// }
/// # }
/// ```
pub struct LagEvents {
    space: SpaceId,
    events: broadcast::Receiver<LagEvent>,
}

impl LagEvents {
    /// The next event; waits where there is none yet. Cancel safe.
    ///
    /// # Errors
    /// [`LagEventsError`]; after `Missed` the next call goes on with the oldest event that is kept.
    pub async fn next(&mut self) -> Result<LagEvent, LagEventsError> {
        loop {
            match self.events.recv().await {
                Ok(event) if event.space == self.space => return Ok(event),
                Ok(_) => {}
                Err(RecvError::Lagged(events)) => return Err(LagEventsError::Missed { events }),
                Err(RecvError::Closed) => return Err(LagEventsError::Stopped),
            }
        }
    }
}

impl Space {
    /// Who falls behind from now on. What is so now is in [`Space::status`].
    pub fn lag_events(&self) -> LagEvents {
        LagEvents { space: self.id(), events: self.replica().shared.lag.resubscribe() }
    }
}

/// The error of a write that waited for others to follow.
pub(crate) fn not_written(error: RequestError) -> WriteError {
    match error {
        RequestError::Command(CommandError::Throttled(throttled)) => WriteError::Throttled(throttled),
        RequestError::Stopped => WriteError::Stopped,
        other => WriteError::Behind(other),
    }
}

//! Whether the daemon has caught up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comity::Status;
use tokio::sync::watch;

use crate::http::App;

/// Ready means: the replica answers, and of what connected peers are known to have, nothing is missing here when it
/// becomes ready, and no more than `ready.lag_max` change sets afterwards. Where a space has other members, a start
/// waits for the first of them to connect, for `ready.peers_ms_max` at most: a region that is cut off serves too.
pub(crate) struct Readiness {
    draining: watch::Receiver<bool>,
    was_ready: AtomicBool,
}

impl Readiness {
    pub(crate) fn new(draining: watch::Receiver<bool>) -> Self {
        Self { draining, was_ready: AtomicBool::new(false) }
    }

    /// What keeps it from being ready.
    pub(crate) async fn check(&self, app: &App) -> Result<(), String> {
        let status = app.replica.status().await.map_err(|error| error.to_string())?;
        self.judge(app, &status)
    }

    /// As [`Readiness::check`], of a report that is at hand.
    pub(crate) fn judge(&self, app: &App, status: &Status) -> Result<(), String> {
        if *self.draining.borrow() {
            return Err("the daemon is going down".to_owned());
        }
        app.replica.spaces_after(None, 1).map_err(|error| error.to_string())?;
        let was_ready = self.was_ready.load(Ordering::Relaxed);
        let patience = Duration::from_millis(app.config.ready.peers_ms_max);
        if !was_ready
            && status.sessions.is_empty()
            && app.started.elapsed() < patience
            && has_others(app, status)
        {
            return Err("no peer is connected yet".to_owned());
        }
        let lacks = lacks(status);
        let lacks_max = if was_ready { app.config.ready.lag_max } else { 0 };
        if lacks > lacks_max {
            return Err(format!("{lacks} change sets that connected peers have are not applied here"));
        }
        self.was_ready.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn has_others(app: &App, status: &Status) -> bool {
    let own = app.replica.id();
    status.spaces.iter().any(|space| {
        // A space that was joined has no members here until the first change sets arrive.
        space.members.is_empty() || space.members.iter().any(|(member, _)| *member != own)
    })
}

/// How many change sets of connected peers are missing. What is frozen does not come, so it does not count.
pub(crate) fn lacks(status: &Status) -> u64 {
    let lanes = status.spaces.iter().flat_map(|space| &space.lanes).filter(|lane| lane.frozen.is_none());
    lanes.map(|lane| lane.known.saturating_sub(lane.applied)).sum()
}

//! The thread that reads snapshots for those who bootstrap from this replica, and checks those that came here.

use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use comity_engine::{Input, SnapshotSource, SnapshotTask};
use comity_store::{KeptSnapshot, Reader};
use tokio::sync::mpsc;

use crate::core::{Event, tell};

/// What the thread is yet to do. The core bounds what peers may ask for at once; beyond that it is told that nothing can be
/// had now, and peers ask again.
pub(crate) const SNAPSHOT_TASKS_MAX: usize = 256;

/// How often views that nobody reads from are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Does what the core wants until the core is gone.
pub(crate) fn run_snapshots(
    reader: &Reader,
    tasks: &std_mpsc::Receiver<SnapshotTask>,
    events: &mpsc::WeakSender<Event>,
) {
    let started = Instant::now();
    let mut source = SnapshotSource::<KeptSnapshot>::default();
    loop {
        match tasks.recv_timeout(EXPIRE_EVERY) {
            Ok(task) => {
                let answer = source.handle(started.elapsed(), task, || reader.keep());
                if let Some(answer) = answer
                    && !tell(events, Event::Input(Input::Snapshot { answer }))
                {
                    return;
                }
            }
            Err(std_mpsc::RecvTimeoutError::Timeout) => source.expire(started.elapsed()),
            Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

//! How far everybody was behind during the last minutes, for whoever looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use comity::{Replica, ReplicaId, SpaceId, SpaceStatus, Status};
use tokio::sync::watch;

/// How far apart samples are.
pub(crate) const STEP: Duration = Duration::from_secs(5);

/// Samples kept for each member: ten minutes.
const SAMPLES_MAX: usize = 120;

/// Spaces of which samples are kept, those with the lowest ids.
const SPACES_MAX: usize = 64;

/// Members of a space of which samples are kept, those with the lowest ids.
const MEMBERS_MAX: usize = 64;

/// How many change sets somebody lacked at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// What the member is known to have and was missing here.
    pub(crate) here: u64,
    /// What is here and was missing there; `None` while it was not connected.
    pub(crate) there: Option<u64>,
}

type Samples = BTreeMap<ReplicaId, VecDeque<Sample>>;

/// The samples, by space and member.
#[derive(Default)]
pub(crate) struct History {
    spaces: Mutex<BTreeMap<SpaceId, Samples>>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SpaceId, Samples>> {
        // Samples are only drawn: one that is missing harms nobody.
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The samples of a space, the oldest first.
    pub(crate) fn of(&self, space: &SpaceId) -> BTreeMap<ReplicaId, VecDeque<Sample>> {
        self.lock().get(space).cloned().unwrap_or_default()
    }

    /// Takes samples until the daemon goes down.
    pub(super) async fn keep(&self, replica: &Replica, mut draining: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return,
                _ = ticks.tick() => {}
            }
            let Ok(status) = replica.status().await else { return };
            self.take(&replica.id(), &status);
        }
    }

    fn take(&self, own: &ReplicaId, status: &Status) {
        let mut spaces = self.lock();
        spaces.retain(|id, _| status.spaces.iter().any(|space| space.space == *id));
        for space in status.spaces.iter().take(SPACES_MAX) {
            let members = spaces.entry(space.space).or_default();
            members.retain(|member, _| space.members.iter().any(|(id, _)| id == member));
            let others = space.members.iter().map(|(member, _)| *member).filter(|member| member != own);
            for member in others.take(MEMBERS_MAX) {
                let samples = members.entry(member).or_default();
                if samples.len() == SAMPLES_MAX {
                    samples.pop_front();
                }
                samples.push_back(sample(space, &member));
            }
        }
    }
}

fn sample(space: &SpaceStatus, member: &ReplicaId) -> Sample {
    let lanes = space.lanes.iter().filter(|lane| lane.owner == *member);
    let here = lanes.map(|lane| lane.known.saturating_sub(lane.applied)).sum();
    let there = space.peers.iter().find(|(peer, _)| peer == member).map(|(_, lacks)| *lacks);
    Sample { here, there }
}

//! How far everybody was behind during the last minutes, for whoever looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use comity::{Replica, ReplicaId, SpaceId, SpaceStatus, Status};
use tokio::sync::watch;

/// How far apart samples are.
pub(crate) const STEP: Duration = Duration::from_secs(5);

/// Samples kept for each member: ten minutes.
const SAMPLES_MAX: usize = 120;

/// Spaces of which samples are kept. Where there are more, those that somebody asked for last.
const SPACES_MAX: usize = 64;

/// How long samples of a space are taken after somebody asked for them, where not all are.
const ASKED: Duration = Duration::from_secs(600);

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
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    spaces: BTreeMap<SpaceId, Samples>,
    /// The latest last.
    asked: VecDeque<(SpaceId, Instant)>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Samples are only drawn: one that is missing harms nobody.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The samples of a space, the oldest first.
    pub(crate) fn of(&self, space: &SpaceId) -> BTreeMap<ReplicaId, VecDeque<Sample>> {
        let mut inner = self.lock();
        inner.asked.retain(|(asked, _)| asked != space);
        if inner.asked.len() == SPACES_MAX {
            inner.asked.pop_front();
        }
        inner.asked.push_back((*space, Instant::now()));
        inner.spaces.get(space).cloned().unwrap_or_default()
    }

    /// Takes samples until the daemon goes down. One costs O(all spaces × lanes), so where there are many, none is taken
    /// while nobody looks.
    pub(super) async fn keep(&self, replica: &Replica, mut draining: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return,
                _ = ticks.tick() => {}
            }
            let Ok(spaces) = replica.spaces_after(None, SPACES_MAX + 1) else { continue };
            let are_many = spaces.len() > SPACES_MAX;
            if are_many && self.forget_old(Instant::now()) {
                continue;
            }
            let Ok(status) = replica.status().await else { return };
            self.lock().take(&replica.id(), &status, are_many);
        }
    }

    /// Forgets who asked long ago; whether nobody is left.
    fn forget_old(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        inner.asked.retain(|(_, asked)| now.duration_since(*asked) < ASKED);
        inner.asked.is_empty()
    }
}

impl Inner {
    fn take(&mut self, own: &ReplicaId, status: &Status, are_many: bool) {
        let Self { spaces, asked } = self;
        let wanted = |id: &SpaceId| !are_many || asked.iter().any(|(asked, _)| asked == id);
        spaces.retain(|id, _| wanted(id) && status.spaces.iter().any(|space| space.space == *id));
        for space in status.spaces.iter().filter(|space| wanted(&space.space)) {
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
    let there = space.peers.iter().find(|status| status.peer == *member).map(|status| status.behind.entries);
    Sample { here, there }
}

//! Slowing writers down whom others cannot follow. Off unless asked for, about local writes only, and about what is
//! written here only: what others write is never held up, nor is anything because of it.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::{SpaceId, canary};

use crate::engine::{Engine, Timer};
use crate::io::{CommandError, Now, Reply, RequestId};
use crate::lag::{Lag, LagLimits};
use crate::limits::ROOM_WAITS_MAX;

/// When local writes are slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// How much of what was written here somebody may lack and still be within the bound. Counted from the write, not
    /// from its sync.
    pub bound: LagLimits,
    /// So many connected members that write must be within the bound, the best ones count. With 1 a write waits while
    /// nobody follows; with as many as there are others it waits for the slowest.
    pub followers: u32,
    /// What of members that are not connected.
    pub away: Away,
}

/// What of members that are not connected, when there are fewer connected ones than must follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Away {
    /// They do not count: of those that are connected, all must be within the bound, and who is alone writes freely.
    #[default]
    Ignored,
    /// They count as beyond the bound: nothing is written without enough others.
    Counted,
}

/// A local write is not to be made now: too much of what was written here has not reached enough others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// How much the member lacks that would have to be within the bound; nothing when too few are connected.
    pub lag: Lag,
    /// The bound.
    pub bound: LagLimits,
    /// Members within it.
    pub within: u32,
    /// How many there must be.
    pub needed: u32,
}

/// Writes that wait until others have followed, by request.
pub(crate) type RoomWaits = BTreeMap<RequestId, (SpaceId, Duration)>;

impl Engine {
    /// Whether a local write in a space is to wait, and for how much. O(peers).
    pub fn throttled(&self, id: &SpaceId) -> Option<Throttled> {
        let throttle = self.throttle?;
        let space = self.spaces.get(id)?;
        let lane = space.own_lane();
        let made = lane.map_or(0, |lane| space.frontier.at(&lane));
        let lag_of = |peer| {
            let has = self.held_by(space, peer).zip(lane).map_or(0, |(has, lane)| has.at(&lane));
            lane.map_or_else(Lag::default, |lane| space.behind(&lane, (has, made), self.latest))
        };
        let peers = self.present_peers(space);
        let followers = peers.keys().filter(|peer| space.writers().any(|writer| writer == *peer));
        let mut lags: Vec<Lag> = followers.map(lag_of).collect();
        let needed = match throttle.away {
            Away::Ignored => throttle.followers.min(lags.len() as u32),
            Away::Counted => throttle.followers,
        };
        let within = lags.iter().filter(|lag| !throttle.bound.is_exceeded_by(lag)).count() as u32;
        if within >= needed {
            return None;
        }
        lags.sort_by_key(|lag| (throttle.bound.is_exceeded_by(lag), lag.entries, lag.bytes));
        let lag = lags.get(needed as usize - 1).copied().unwrap_or_default();
        Some(Throttled { lag, bound: throttle.bound, within, needed })
    }

    pub(crate) fn await_room(
        &mut self,
        now: &Now,
        request: RequestId,
        id: SpaceId,
        within: Duration,
    ) -> Result<(), CommandError> {
        if !self.spaces.contains_key(&id) {
            return Err(CommandError::UnknownSpace(id));
        }
        let Some(throttled) = self.throttled(&id) else {
            self.reply(request, Ok(Reply::Room));
            return Ok(());
        };
        if self.waits.room.len() >= ROOM_WAITS_MAX {
            return Err(CommandError::Throttled(throttled));
        }
        let deadline = now.monotonic.saturating_add(within);
        self.waits.room.insert(request, (id, deadline));
        if !canary!(ThrottledForEver) {
            self.timers.insert((deadline, Timer::Wait(request)));
        }
        Ok(())
    }

    /// Peers follow, or there are others: writes may be made again. O(peers + writes that wait).
    pub(crate) fn resolve_room(&mut self, id: SpaceId) {
        let is_of_space = |wait: &&(SpaceId, Duration)| wait.0 == id;
        if !self.waits.room.values().any(|wait| is_of_space(&wait)) || self.throttled(&id).is_some() {
            return;
        }
        if canary!(ThrottledForEver) {
            return;
        }
        let waits = self.waits.room.iter().filter(|(_, wait)| is_of_space(wait));
        for request in waits.map(|(request, _)| *request).collect::<Vec<_>>() {
            self.take_room(request);
            self.reply(request, Ok(Reply::Room));
        }
    }

    pub(crate) fn take_room(&mut self, request: RequestId) -> Option<SpaceId> {
        let (id, deadline) = self.waits.room.remove(&request)?;
        self.timers.remove(&(deadline, Timer::Wait(request)));
        Some(id)
    }

    /// The time to wait for others is over.
    pub(crate) fn expire_room(&mut self, request: RequestId, id: SpaceId) {
        let reply =
            self.throttled(&id).map_or(Ok(Reply::Room), |throttled| Err(CommandError::Throttled(throttled)));
        self.reply(request, reply);
    }
}

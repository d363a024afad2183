//! How far replicas are behind each other, as far as can be told from what peers say and without reading any log: in
//! entries, in bytes and in time. What is missed here, and what others miss of what is here.

pub(crate) mod alarm;
mod marks;
mod rate;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{LaneId, ReplicaId, SpaceId, canary};

use crate::space::{Lane, Space};

pub(crate) use marks::{Marks, Told};
pub(crate) use rate::Rate;

/// How far somebody is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Lane entries that are missing: change sets, and the announcements between them.
    pub entries: u64,
    /// Their bytes in stored form.
    pub bytes: u64,
    /// Whether `bytes` is estimated, from the sizes of neighbouring entries: of what has not arrived here, and of what
    /// is older than what this replica remembers the sizes of, they are not known.
    pub is_estimated: bool,
    /// How old the oldest missing entry is, milliseconds. Of an entry that is here, by its stamp and this replica's wall
    /// clock, so that clocks that disagree show in it; where the stamp is not remembered, by that of the nearest older
    /// entry, or of the newest one from before the replica was opened. Of an entry that is not here, how long ago a peer
    /// first said that it has it, which is less. `None` when nothing is missing.
    pub age_ms: Option<u64>,
}

impl Lag {
    pub(crate) fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.is_estimated |= other.is_estimated;
        self.age_ms = self.age_ms.max(other.age_ms);
    }

    /// Whether nothing is missing.
    pub fn is_none(&self) -> bool {
        self.entries == 0
    }
}

/// How much lag is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagLimits {
    /// Entries.
    pub entries: u64,
    /// Bytes in stored form, estimated or not.
    pub bytes: u64,
    /// The age of the oldest missing entry.
    pub age: Duration,
}

impl LagLimits {
    /// No lag is too much.
    pub const NONE: Self = Self { entries: u64::MAX, bytes: u64::MAX, age: Duration::MAX };

    /// Whether more is missing, in any respect.
    pub fn is_exceeded_by(&self, lag: &Lag) -> bool {
        let age = lag.age_ms.map_or(Duration::ZERO, Duration::from_millis);
        lag.entries > self.entries || lag.bytes > self.bytes || age > self.age
    }

    /// Half of each: what has exceeded the limits is back within them only then, so that it does not come and go.
    fn half(&self) -> Self {
        Self { entries: self.entries / 2, bytes: self.bytes / 2, age: self.age / 2 }
    }
}

/// Who is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LagSide {
    /// This replica lacks what the peer has.
    Here,
    /// The peer lacks what is here.
    There,
}

/// What became of a lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagChange {
    /// It has grown beyond the limits.
    Exceeded,
    /// It is within half of the limits again.
    Recovered,
    /// It was beyond the limits, and the peer is not connected any more: nothing is known of it.
    Disconnected,
}

/// A lag passed a limit, or came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagEvent {
    /// The space.
    pub space: SpaceId,
    /// The peer.
    pub peer: ReplicaId,
    /// Who is behind.
    pub side: LagSide,
    /// What became of it.
    pub change: LagChange,
    /// How much it is now; nothing when the peer is not connected.
    pub lag: Lag,
}

/// The moment of the last input, by both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) monotonic: Duration,
    pub(crate) wall_ms: u64,
}

impl Moment {
    fn since_ms(&self, earlier: Duration) -> u64 {
        self.monotonic.saturating_sub(earlier).as_millis() as u64
    }
}

/// What a space knows of lag besides its lanes.
#[derive(Debug, Default)]
pub(crate) struct LagState {
    /// What peers said they have and is not durable here.
    told: BTreeMap<LaneId, Told>,
    /// Entries applied that others made.
    pub(crate) arrived: Rate,
    /// Peers of which it was told that a limit is exceeded.
    exceeded: BTreeSet<(ReplicaId, LagSide)>,
    /// When limits are looked at.
    due: Option<Duration>,
}

impl Space {
    /// A peer said that it has a lane up to an entry. O(log lanes), amortized.
    pub(crate) fn note_told(&mut self, now: Duration, lane: LaneId, lsn: u64) {
        let durable = self.durable.at(&lane);
        if lsn > durable && (self.lag.told.len() < LANES_MAX || self.lag.told.contains_key(&lane)) {
            self.lag.told.entry(lane).or_default().note(now, lsn, durable);
        } else if let Some(told) = self.lag.told.get_mut(&lane)
            && !told.is_ahead_of(durable)
        {
            self.lag.told.remove(&lane);
        }
    }

    /// What somebody lacks who holds the first `has` entries of a lane, of the first `until` that are applied here.
    pub(crate) fn behind(&self, lane_id: &LaneId, (has, until): (u64, u64), now: Moment) -> Lag {
        let Some(lane) = self.lanes.get(lane_id).filter(|_| has < until) else { return Lag::default() };
        let (bytes, is_known) = lane.marks.bytes_between(has, until);
        let age_ms = now.wall_ms.saturating_sub(lane.marks.stamp_ms(has + 1));
        Lag { entries: until - has, bytes, is_estimated: !is_known, age_ms: Some(age_ms) }
    }

    /// What is not durable here of a lane of which somebody holds the first `has` entries. Lanes that are not followed
    /// lack nothing.
    pub(crate) fn ahead(&self, lane_id: &LaneId, has: u64, now: Moment) -> Lag {
        let durable = self.durable.at(lane_id);
        let lane = self.lanes.get(lane_id);
        let is_left = lane.is_some_and(|lane| lane.row.frozen.is_some())
            || self.own_lane() == Some(*lane_id)
            || self.strangers.contains(lane_id);
        if has <= durable || is_left {
            return Lag::default();
        }
        let mut lag = Lag { entries: has - durable, ..Lag::default() };
        if canary!(LagForgetsStaged) {
            let staged = lane.map_or(0, |lane| lane.staged_tip().lsn);
            lag.entries = has.saturating_sub(staged.max(durable));
        }
        let (bytes, is_known) = lane.map_or((0, false), |lane| lane.bytes_ahead(durable, has));
        let unknown = has - lane.map_or(0, |lane| lane.staged_tip().lsn).clamp(durable, has);
        let mean = lane.map_or(ENTRY_BYTES_GUESS, |lane| lane.marks.mean_bytes());
        lag.bytes = bytes.saturating_add(unknown.saturating_mul(mean));
        lag.is_estimated = !is_known || unknown > 0;
        let stamp_ms = lane.and_then(|lane| lane.stamp_ms_ahead(durable));
        let told = || self.lag.told.get(lane_id).and_then(|told| told.since(durable));
        lag.age_ms = Some(match stamp_ms {
            Some(stamp_ms) => now.wall_ms.saturating_sub(stamp_ms),
            None => told().map_or(0, |since| now.since_ms(since)),
        });
        lag
    }
}

/// An entry is taken to have so many bytes where no size of the lane is known.
pub(crate) const ENTRY_BYTES_GUESS: u64 = 256;

impl Lane {
    /// The bytes of entries after `durable`, up to `has`, that are here, applied or staged; whether they are known.
    fn bytes_ahead(&self, durable: u64, has: u64) -> (u64, bool) {
        let tip = self.row.tip.lsn;
        let (applied, is_known) =
            if durable < tip { self.marks.bytes_between(durable, tip.min(has)) } else { (0, true) };
        let (wanted, staged) = (has.saturating_sub(tip), self.staged.len() as u64);
        if wanted >= staged {
            return (applied + self.staged_bytes as u64, is_known);
        }
        (applied + self.staged_bytes as u64 * wanted / staged, false)
    }

    /// The stamp of the first entry that is not durable, if it is here.
    fn stamp_ms_ahead(&self, durable: u64) -> Option<u64> {
        if durable < self.row.tip.lsn {
            return Some(self.marks.stamp_ms(durable + 1));
        }
        self.staged.front().map(|staged| staged.after.at.millis())
    }
}

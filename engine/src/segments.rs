//! Sealed segments: stretches of lanes that are whole. The runs of one are encoded, packed and signed once, and are sent as
//! they are to whoever needs them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use comity_crdts::{LaneId, SpaceId};
use ed25519_dalek::SigningKey;

use crate::change::LaneTip;
use crate::dictionary::Dictionary;
use crate::engine::{Engine, Timer};
use crate::excerpt::{Reach, read_proved};
use crate::hash::Hash;
use crate::io::Now;
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_KEPT, SEGMENTS_BYTES_MAX};
use crate::space::Lane;
use crate::store::{Store, StoreError};

/// A run as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct SealedRun {
    /// Where the lane stands before it.
    before: (u64, Hash),
    pub(crate) last: LaneTip,
    /// Its entries in stored form.
    pub(crate) weight: usize,
    /// The lowest version in which it can be said.
    pub(crate) version: u16,
    pub(crate) bytes: Arc<[u8]>,
}

/// The runs of one segment, as far as they were asked for.
#[derive(Debug)]
struct Segment {
    runs: Vec<SealedRun>,
    /// As the last one leaves it.
    dictionary: Dictionary,
    bytes: usize,
    used: Duration,
}

/// A lane's segment, by the entry before its first.
type SegmentKey = (SpaceId, LaneId, u64);

/// The segments that were sent lately.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Entries in each: lanes are divided at multiples of it, everywhere alike.
    entries: u64,
    held: BTreeMap<SegmentKey, Segment>,
    /// What is held is looked at when the timer is due.
    is_timed: bool,
}

impl Segments {
    pub(crate) fn new(entries: u64) -> Self {
        Self { entries: entries.max(1), held: BTreeMap::new(), is_timed: false }
    }

    /// Whether a segment begins after entry `lsn`.
    pub(crate) fn begin_after(&self, lsn: u64) -> bool {
        lsn.is_multiple_of(self.entries)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The last entry of the segment that the entry after `lsn` is in.
    pub(crate) fn end_after(&self, lsn: u64) -> u64 {
        end_of_part(lsn, self.entries)
    }

    /// Nothing is kept of a space any more.
    pub(crate) fn forget(&mut self, space: &SpaceId) {
        self.held.retain(|(of, _, _), _| of != space);
    }

    fn forget_unused(&mut self, now: Duration) {
        self.held.retain(|_, segment| segment.used + SEGMENT_KEPT > now);
        self.is_timed = !self.held.is_empty();
    }

    /// Makes room by forgetting what was not used for the longest time. O(segments held), of which there are some dozens.
    fn bound(&mut self) {
        while self.held.values().map(|segment| segment.bytes).sum::<usize>() > SEGMENTS_BYTES_MAX {
            let oldest = self.held.iter().min_by_key(|(key, segment)| (segment.used, **key));
            let Some(key) = oldest.map(|(key, _)| *key) else { return };
            self.held.remove(&key);
        }
    }
}

/// How many entries of a mean length come to about so many bytes: a power of two, so that everybody divides a lane alike.
pub(crate) fn round_entries(bytes: u64, mean_bytes: u64, entries_max: u64) -> u64 {
    let entries = (bytes / mean_bytes.max(1)).max(1);
    (1 << entries.ilog2()).min(entries_max)
}

/// The last entry of the part that the entry after `lsn` is in, where lanes are divided at multiples of `entries`.
pub(crate) fn end_of_part(lsn: u64, entries: u64) -> u64 {
    (lsn / entries + 1).saturating_mul(entries)
}

/// A lane that is served, and how it is signed if it is an own one.
struct Served<'a> {
    space: &'a SpaceId,
    lane_id: &'a LaneId,
    lane: &'a mut Lane,
    key: Option<&'a SigningKey>,
}

impl Segment {
    fn new() -> Self {
        let mut dictionary = Dictionary::default();
        // Whoever is sent it may have had other runs before.
        dictionary.spend();
        Self { runs: Vec::new(), dictionary, bytes: 0, used: Duration::ZERO }
    }

    /// Encodes the run after `from`, which follows those that are here.
    fn encode_next(
        &mut self,
        store: &dyn Store,
        served: Served<'_>,
        reach: Reach<'_>,
    ) -> Result<Option<SealedRun>, StoreError> {
        let Served { space, lane_id, lane, key } = served;
        let Some((stretch, proof)) = read_proved(store, (space, lane_id), lane, key, reach)? else {
            return Ok(None);
        };
        let (before, owner) = (reach.from, &lane.row.owner);
        let (weight, version) = (stretch.bytes(), stretch.version());
        let bytes = stretch.encode((lane_id, owner), before, &proof, &mut self.dictionary);
        let Some((_, last)) = stretch.entries.into_iter().next_back() else { return Ok(None) };
        let run = SealedRun { before: (before.lsn, before.hash), last, weight, version, bytes: bytes.into() };
        self.bytes += run.bytes.len();
        self.runs.push(run.clone());
        Ok(Some(run))
    }
}

impl Segments {
    /// The next run of the segment that ends at `reach.until`, to be sent after `reach.from`: the same to everybody. `None` where it
    /// has to be encoded for this receiver alone: it does not begin where one of the segment's runs does, the segment is long,
    /// or it was forgotten meanwhile.
    fn next_run(
        &mut self,
        now: &Now,
        store: &dyn Store,
        served: Served<'_>,
        reach: Reach<'_>,
    ) -> Result<Option<SealedRun>, StoreError> {
        let start = reach.until - self.entries;
        let key = (*served.space, *served.lane_id, start);
        if reach.from.lsn == start {
            self.held.entry(key).or_insert_with(Segment::new);
        }
        let Some(segment) = self.held.get_mut(&key) else { return Ok(None) };
        segment.used = now.monotonic;
        let position = (reach.from.lsn, reach.from.hash);
        if let Some(run) = segment.runs.iter().find(|run| run.before == position) {
            return Ok(Some(run.clone()));
        }
        let follows = segment
            .runs
            .last()
            .map_or(reach.from.lsn == start, |run| (run.last.lsn, run.last.hash) == position);
        if !follows || segment.bytes > SEGMENT_BYTES_MAX {
            return Ok(None);
        }
        let run = segment.encode_next(store, served, reach)?;
        self.bound();
        Ok(run)
    }
}

impl Engine {
    /// The next run of a sealed segment after `from`, if what comes next is one; see [`Segments::next_run`].
    pub(crate) fn sealed_run(
        &mut self,
        now: &Now,
        (id, lane_id): (&SpaceId, &LaneId),
        reach: Reach<'_>,
        store: &dyn Store,
    ) -> Result<Option<SealedRun>, StoreError> {
        let Some(lane) = self.spaces.get_mut(id).and_then(|space| space.lanes.get_mut(lane_id)) else {
            return Ok(None);
        };
        let key = (lane.row.owner.replica == self.replica).then_some(&self.key);
        let served = Served { space: id, lane_id, lane, key };
        let run = self.segments.next_run(now, store, served, reach)?;
        if run.is_some() && !self.segments.is_timed {
            self.segments.is_timed = true;
            self.timers.insert((now.monotonic + SEGMENT_KEPT, Timer::Segments));
        }
        Ok(run)
    }

    pub(crate) fn forget_segments(&mut self, now: &Now) {
        self.segments.forget_unused(now.monotonic);
        if self.segments.is_timed {
            self.timers.insert((now.monotonic + SEGMENT_KEPT, Timer::Segments));
        }
    }
}

//! Reading changes: the change sets applied here that a reader has not seen, in the order of applying.
//!
//! The log of record is the queue. A reader is a cursor that costs nothing while it does not read, so one that
//! is slow, or away for a month, holds up nobody and loses nothing.
//!
//! The order of applying continues causality, and each of its places is one lane entry. So as many places are
//! taken as the lanes have entries together, and when `n` entries are not seen, the first of them is the `n`th
//! from the end that is not seen.

mod event;

use std::collections::BTreeMap;

use comity_crdts::{Frontier, Kind, LaneId, ObjectAddress, OriginId, ReplicaId, SpaceId};

use crate::bootstrap::check_readable;
use crate::change::{Body, ChangeSet, LaneEntry, decode_stored};
use crate::keys;
use crate::limits::{CHANGES_PAGE_BYTES, CHANGES_PAGE_ENTRIES, CHANGES_PAGE_ROWS};
use crate::read::frontier;
use crate::retention::{kept, lane_floor};
use crate::rows::damaged;
use crate::settings::region_of;
use crate::space::{LaneRow, Progress, decode};
use crate::store::{LogRead, StateRead, StoreError};

pub use event::{ChangeEvent, Did, ObjectChange};

/// Which changes a reader is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every change in the space.
    #[default]
    Space,
    /// Changes of the objects of every kind in one collection. The member list and settings are in none.
    Collection(String),
    /// Changes of one object.
    Object(ObjectAddress),
}

impl Scope {
    fn shows(&self, object: &ObjectAddress) -> bool {
        match self {
            Self::Space => true,
            Self::Collection(name) => {
                !matches!(object.kind(), Kind::Members | Kind::Settings) && object.collection() == name
            }
            Self::Object(address) => object == address,
        }
    }
}

/// How much one page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// Change sets; at least one.
    pub entries: usize,
    /// Lane entries that are read for it, bytes in stored form. The one that exceeds them is the page's last, so
    /// a page is at most one change set longer.
    pub bytes: usize,
}

impl Default for PageLimit {
    fn default() -> Self {
        Self { entries: CHANGES_PAGE_ENTRIES, bytes: CHANGES_PAGE_BYTES }
    }
}

/// Why changes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// A change set that the reader has not seen is not kept here any more. The cursor stays before it. Read the
    /// state, and go on with [`ChangeCursor::skip_to`] what that shows.
    #[error("the change set at place {place} of the order of applying is not kept any more")]
    Gone {
        /// Its place in the order in which this replica applied the space's entries, from 1.
        place: u64,
    },
    /// Storage failed. The cursor is where it was or further, with nothing left out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Some changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangePage {
    /// The next ones, in the order in which they were applied here. May be empty although more follow: when
    /// many entries that the reader has seen or its scope does not show had to be passed over.
    pub events: Vec<ChangeEvent>,
    /// Lane entries here that come after this page and that the reader has not seen, whatever its scope. Some of
    /// them may turn out to be seen when the reader came with more than was here.
    pub ahead: u64,
}

/// How far a reader of one space has come at one replica.
#[derive(Clone, Debug)]
pub struct ChangeCursor {
    space: SpaceId,
    scope: Scope,
    /// What the reader has seen; may be more than is here.
    seen: Frontier,
    place: Place,
    /// How often a snapshot had taken the place of the state when the place was found.
    installs: u32,
}

/// Where a cursor stands in the order of applying.
#[derive(Clone, Debug)]
enum Place {
    /// Not known yet.
    Unknown,
    /// On the way back from the end.
    Seeking(Seek),
    /// All entries up to this place are seen.
    After {
        place: u64,
        /// Entries beyond it that were seen when the place was found.
        seen_beyond: u64,
    },
}

#[derive(Clone, Debug)]
struct Seek {
    /// Where it began.
    end: u64,
    /// All places beyond this one were looked at.
    at: u64,
    /// Entries not seen, of those up to `end`.
    unseen: u64,
    /// How many of them are up to `at`.
    left: u64,
}

/// A page on the way.
struct Reading<'a> {
    read: &'a dyn LogRead,
    limit: PageLimit,
    /// The last place taken.
    end: u64,
    events: Vec<ChangeEvent>,
    bytes: usize,
    rows: usize,
    authors: BTreeMap<LaneId, (ReplicaId, Option<String>)>,
}

impl Reading<'_> {
    fn is_full(&self) -> bool {
        self.events.len() >= self.limit.entries.max(1)
            || self.bytes >= self.limit.bytes.max(1)
            || self.rows >= CHANGES_PAGE_ROWS
    }
}

impl ChangeCursor {
    /// Everything that `seen` does not cover. `seen` may come from any replica and name more than is here: what
    /// it names is left out when it arrives.
    pub fn after(space: SpaceId, seen: Frontier) -> Self {
        Self { space, scope: Scope::Space, seen, place: Place::Unknown, installs: 0 }
    }

    /// Everything after the state that is read. O(lanes²).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn after_state(read: &dyn StateRead, space: SpaceId) -> Result<Self, StoreError> {
        let (seen, place) = (frontier(read, &space)?, applied(read, &space)?);
        let (place, installs) = (Place::After { place, seen_beyond: 0 }, kept(read, &space)?.installs);
        Ok(Self { space, scope: Scope::Space, seen, place, installs })
    }

    /// Shows only what is in the scope from here on.
    #[must_use]
    pub fn within(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// The space.
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// What was seen before, and what was read or passed over since: what a later cursor goes on from.
    pub fn seen(&self) -> &Frontier {
        &self.seen
    }

    /// Takes it that the reader has seen this too.
    pub fn skip_to(&mut self, seen: &Frontier) {
        self.seen.merge(seen);
        self.place = Place::Unknown;
    }

    /// The next changes in the state that is read, which is that of the last call or a later one. Looks at 4,096
    /// rows and reads a page of entries at most, O(log n) each.
    ///
    /// The first calls look for the place, from the end back to the first entry that was not seen: one short row
    /// for each place passed, without reading the entry. That is left out when nothing was seen, or when an entry
    /// says by itself that exactly what was seen had been applied before: so it is for the token of a write that was
    /// made here, or of what came a few places later.
    ///
    /// # Errors
    /// [`ChangesError`].
    pub fn read(&mut self, read: &dyn LogRead, limit: PageLimit) -> Result<ChangePage, ChangesError> {
        match check_readable(read, &self.space) {
            // What is there is neither the one state nor the other.
            Err(StoreError::Installing(_)) => return Ok(ChangePage::default()),
            readable => readable?,
        }
        let installs = kept(read, &self.space)?.installs;
        if installs != self.installs {
            (self.installs, self.place) = (installs, Place::Unknown);
        }
        let end = applied(read, &self.space)?;
        let (events, authors) = (Vec::new(), BTreeMap::new());
        let mut reading = Reading { read, limit, end, events, bytes: 0, rows: 0, authors };
        match self.locate(&mut reading).and_then(|()| self.fill(&mut reading)) {
            // What was read comes first; the next call meets the error again.
            Err(error) if reading.events.is_empty() => Err(error),
            _ => Ok(ChangePage { events: reading.events, ahead: self.ahead(end) }),
        }
    }

    fn ahead(&self, end: u64) -> u64 {
        match &self.place {
            Place::Unknown => end,
            Place::Seeking(seek) => seek.unseen + end.saturating_sub(seek.end),
            Place::After { place, seen_beyond } => end.saturating_sub(*place).saturating_sub(*seen_beyond),
        }
    }

    fn has_seen(&self, (lane, lsn): &(LaneId, u64)) -> bool {
        self.seen.at(lane) >= *lsn
    }

    /// Finds the place, or comes closer to it.
    fn locate(&mut self, reading: &mut Reading<'_>) -> Result<(), ChangesError> {
        if let Place::Unknown = self.place {
            let unseen = frontier(reading.read, &self.space)?.distance_from(&self.seen);
            let end = reading.end;
            self.place = match self.prefix(reading.read, (end, unseen))? {
                Some(place) => Place::After { place, seen_beyond: 0 },
                None => Place::Seeking(Seek { end, at: end, unseen, left: unseen }),
            };
        }
        while let Place::Seeking(mut seek) = self.place.clone() {
            if seek.left == 0 {
                let seen_beyond = (seek.end - seek.at).saturating_sub(seek.unseen);
                self.place = Place::After { place: seek.at, seen_beyond };
            } else if reading.is_full() {
                return Ok(());
            } else {
                self.seek(reading, &mut seek)?;
                self.place = Place::Seeking(seek);
            }
        }
        Ok(())
    }

    /// Goes back by some rows, or to the first entry not seen.
    fn seek(&self, reading: &mut Reading<'_>, seek: &mut Seek) -> Result<(), ChangesError> {
        if seek.at == 0 {
            let detail = format!("the order of applying in space {} lacks entries of its lanes", self.space);
            return Err(StoreError::Corrupt { detail }.into());
        }
        let first = seek.at.saturating_sub(ROWS_AT_ONCE as u64) + 1;
        let rows = places(reading.read, &self.space, first, seek.at)?;
        reading.rows += rows.len();
        for (place, entry) in rows.iter().rev() {
            if *place != seek.at {
                break;
            }
            seek.at -= 1;
            seek.left -= u64::from(!self.has_seen(entry));
            if seek.left == 0 {
                return Ok(());
            }
        }
        if seek.at >= first { Err(ChangesError::Gone { place: seek.at }) } else { Ok(()) }
    }

    /// The place up to which exactly what was seen was applied, where that shows at once.
    ///
    /// Of what was seen, `end - unseen` entries are here, so it must be the place of that number. An entry comes
    /// after everything its author had applied. When that, the entry and those from there to the place are what was
    /// seen, they are as many as the places, so nothing else was applied up to there.
    fn prefix(&self, read: &dyn LogRead, (end, unseen): (u64, u64)) -> Result<Option<u64>, StoreError> {
        let place = end.saturating_sub(unseen);
        // A short way is as quickly gone.
        if place == 0 || unseen <= ROWS_AT_ONCE as u64 {
            return Ok((place == 0).then_some(0));
        }
        let mut later = Frontier::new();
        let first = place.saturating_sub(PREFIX_ENTRIES_MAX - 1).max(1);
        for (_, (lane, lsn)) in places(read, &self.space, first, place)?.into_iter().rev() {
            let Some((_, entry)) = entry(read, &self.space, (lane, lsn))? else { break };
            later.advance(lane, lsn);
            let mut applied = entry.admitted;
            applied.merge(&later);
            if applied == self.seen {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Takes entries from the place on until the page is full.
    fn fill(&mut self, reading: &mut Reading<'_>) -> Result<(), ChangesError> {
        while let Place::After { place, .. } = self.place {
            if place >= reading.end || reading.is_full() {
                break;
            }
            let last = reading.end.min(place.saturating_add(ROWS_AT_ONCE as u64));
            let rows = places(reading.read, &self.space, place + 1, last)?;
            for (expected, (place, at)) in (place + 1..=last).zip(&rows) {
                if expected != *place {
                    return Err(ChangesError::Gone { place: expected });
                }
                if reading.is_full() {
                    return Ok(());
                }
                self.take(reading, *at)?;
            }
            if (rows.len() as u64) < last - place {
                return Err(ChangesError::Gone { place: place + 1 + rows.len() as u64 });
            }
        }
        Ok(())
    }

    /// Takes one entry, and goes past it.
    fn take(&mut self, reading: &mut Reading<'_>, (lane, lsn): (LaneId, u64)) -> Result<(), ChangesError> {
        let Place::After { place, seen_beyond } = &mut self.place else { return Ok(()) };
        reading.rows += 1;
        if self.seen.at(&lane) >= lsn {
            *place += 1;
            *seen_beyond = seen_beyond.saturating_sub(1);
            return Ok(());
        }
        let found = entry(reading.read, &self.space, (lane, lsn))?;
        let Some((bytes, entry)) = found else { return Err(ChangesError::Gone { place: *place + 1 }) };
        let event = match entry.body {
            Body::Change(change) => self.event(reading, (lane, lsn), change)?,
            Body::Checkpoint(_) => None,
        };
        if let Place::After { place, .. } = &mut self.place {
            *place += 1;
        }
        self.seen.advance(lane, lsn);
        reading.bytes += bytes;
        if let Some(mut event) = event {
            event.frontier = self.seen.clone();
            reading.events.push(event);
        }
        Ok(())
    }

    /// What the scope shows of a change set.
    fn event(
        &self,
        reading: &mut Reading<'_>,
        (lane, lsn): (LaneId, u64),
        change: ChangeSet,
    ) -> Result<Option<ChangeEvent>, StoreError> {
        let ChangeSet { origin, seq, hlc, groups, .. } = change;
        let shown = groups.into_iter().filter(|group| self.scope.shows(&group.address));
        let changes: Vec<ObjectChange> = shown.map(ObjectChange::from).collect();
        if changes.is_empty() {
            return Ok(None);
        }
        let space = self.space;
        let (author, region) = match reading.authors.get(&lane) {
            Some(author) => author.clone(),
            None => {
                let author = author_of(reading.read, &space, &lane)?;
                reading.authors.insert(lane, author.clone());
                author
            }
        };
        let frontier = Frontier::new();
        Ok(Some(ChangeEvent { space, author, region, origin, seq, lane, lsn, hlc, changes, frontier }))
    }
}

/// Rows of the order of applying that are read in one go.
const ROWS_AT_ONCE: usize = 128;
/// Entries that are looked at to see what was applied up to a place.
const PREFIX_ENTRIES_MAX: u64 = 16;

/// How many entries of a space are applied in the state that is read.
fn applied(read: &dyn StateRead, space: &SpaceId) -> Result<u64, StoreError> {
    let row = read.get(&keys::progress(space))?;
    row.map_or(Ok(0), |bytes| Ok(decode::<Progress>("progress row", &bytes)?.applied))
}

/// A place in the order of applying, and the lane entry there.
pub(crate) type PlaceRow = (u64, (LaneId, u64));

/// The places `first..=last` that are kept, in order.
pub(crate) fn places(
    read: &dyn StateRead,
    space: &SpaceId,
    first: u64,
    last: u64,
) -> Result<Vec<PlaceRow>, StoreError> {
    let (from, until) = keys::apply_log_range(space, first, last);
    let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let place = u64::from_be_bytes(*key.last_chunk()?);
        let (lane, lsn) = value.split_first_chunk::<16>()?;
        Some((place, (OriginId(*lane), u64::from_be_bytes(lsn.try_into().ok()?))))
    };
    let rows = read.scan(&from, &until, usize::MAX)?;
    let parsed = rows.iter().map(|row| parse(row).ok_or_else(|| damaged("apply log", &"a row is not one")));
    parsed.collect()
}

/// A lane entry, with the length of its stored form.
pub(crate) fn entry(
    read: &dyn LogRead,
    space: &SpaceId,
    (lane, lsn): (LaneId, u64),
) -> Result<Option<(usize, LaneEntry)>, StoreError> {
    let Some(bytes) = read.lane_entry(space, &lane, lsn)? else { return Ok(None) };
    let decoded = decode_stored(space, &lane, &bytes).map_err(|error| damaged("lane entry", &error))?;
    Ok(Some((bytes.len(), decoded.1)))
}

/// Which entry of its lane the change set of an origin with this number is; `None` for one that is not here, or not kept any
/// more. O(log entries) reads.
///
/// # Errors
/// [`StoreError`] when storage fails or an entry is damaged.
pub fn position_of(
    read: &dyn LogRead,
    space: &SpaceId,
    (origin, seq): (&OriginId, u64),
) -> Result<Option<u64>, StoreError> {
    let Some(row) = read.get(&keys::lane(space, origin))? else { return Ok(None) };
    let tip = decode::<LaneRow>("lane row", &row)?.tip;
    let floor = lane_floor(read, space, origin)?;
    if seq > tip.seq {
        return Ok(None);
    }
    // The first entry that is, or comes after, the change set: not every entry is one, so they are not numbered alike.
    let (mut first, mut last) = (floor + 1, tip.lsn);
    while first < last {
        let middle = first + (last - first) / 2;
        if number_at(read, space, (origin, middle), floor)? < seq {
            first = middle + 1
        } else {
            last = middle
        }
    }
    let found = entry(read, space, (*origin, first))?;
    let is_it =
        found.is_some_and(|(_, entry)| matches!(entry.body, Body::Change(change) if change.seq == seq));
    Ok(is_it.then_some(first))
}

/// The number of the last change set up to an entry, of those that are kept; 0 when there is none.
fn number_at(
    read: &dyn LogRead,
    space: &SpaceId,
    (origin, lsn): (&OriginId, u64),
    floor: u64,
) -> Result<u64, StoreError> {
    for lsn in (floor + 1..=lsn).rev() {
        let found = entry(read, space, (*origin, lsn))?;
        let (_, found) = found.ok_or_else(|| damaged("lane", &"an entry that is kept is missing"))?;
        if let Body::Change(change) = found.body {
            return Ok(change.seq);
        }
    }
    Ok(0)
}

/// Who owns a lane, and in which region that is.
fn author_of(
    read: &dyn StateRead,
    space: &SpaceId,
    lane: &LaneId,
) -> Result<(ReplicaId, Option<String>), StoreError> {
    let row = read.get(&keys::lane(space, lane))?;
    let row = row.ok_or_else(|| damaged("lane row", &"a lane with entries has none"))?;
    let author = decode::<LaneRow>("lane row", &row)?.owner.replica;
    Ok((author, region_of(read, space, &author)?))
}

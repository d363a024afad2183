//! Objects that cannot be made again from the log of record, because it is shortened: a peer's rows take their place, if what
//! this replica itself keeps proves them.
//!
//! The digest of the whole state is kept and changed with every operation, so what all other objects come to tells which share the
//! object had. Rows with that share, whose parts have the sums that it says, are those that were here, whoever sends them. Where
//! operations were applied to what was wrong the kept digest is wrong too; then a majority of the members that write has to send the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use comity_crdts::{Frontier, Kind, ObjectAddress, ReplicaId, SpaceId};

use crate::audit::inspect::Inspected;
use crate::audit::members::is_member_list;
use crate::audit::rebuild::{
    Blank, Outcome, ROWS_MAX, Rebuilt, Replay, Wrong, header_share, is_small, object_rows, rows_of, shares,
    state_of,
};
use crate::audit::stretch::{object_at, root};
use crate::audit::{Unresolved, is_apart};
use crate::conflicts::note_all;
use crate::documents::carried_tail_row;
use crate::extension::Extensions;
use crate::keys;
use crate::limits::{AUDIT_ROW_BYTES_MAX, AUDIT_ROWS_BYTES_MAX};
use crate::message::AuditFetch;
use crate::read::frontier;
use crate::retention::kept;
use crate::rows::Object;
use crate::site::Site;
use crate::space::{Progress, decode};
use crate::store::{LogRead, Put, Row, StoreError};
use crate::unstable::check_unstable;
use crate::work::Work;

/// The rows of an object as somebody has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    pub(crate) rows: Vec<Row>,
    /// What was applied to it.
    pub(crate) frontier: Frontier,
    /// What may be forgotten in them.
    pub(crate) forgotten: Frontier,
}

/// The rows that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) peer: ReplicaId,
    pub(crate) lent: Lent,
}

/// What is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproved {
    pub(crate) space: SpaceId,
    pub(crate) object: ObjectAddress,
    /// The candidates have all that was applied here up to this place of the order of applying.
    pub(crate) place: u64,
    /// So many peers have to send the same where nothing is proved.
    pub(crate) needed: usize,
    /// What is known of later versions.
    pub(crate) extensions: Extensions,
    pub(crate) candidates: Arc<Vec<Candidate>>,
}

/// The rows of an object for a peer that has applied nothing that this replica has not. `None` when it has, or they are too many.
pub(crate) fn lend(view: &dyn LogRead, fetch: &AuditFetch) -> Result<Option<Lent>, StoreError> {
    let space = &fetch.space;
    let Some(object) = object_at(space, &fetch.object) else { return Ok(None) };
    if is_apart(view, space)? {
        return Ok(None);
    }
    let here = frontier(view, space)?;
    if !here.covers(&fetch.frontier) || root(view, space, &fetch.frontier)? != Some(fetch.root) {
        return Ok(None);
    }
    if !is_small(view, space, &object)? || state_of(view, space, &object)?.fault.is_some() {
        return Ok(None);
    }
    let mut rows = Vec::new();
    for (key, value) in object_rows(view, space, &object)? {
        let value = match key.first() {
            Some(0x33) => carried_tail_row(view, space, &object, (&key, value))?,
            _ => value,
        };
        rows.push((key, value));
    }
    rows.extend(unstable_of(view, space, &rows)?);
    let is_long = rows.iter().any(|(key, value)| key.len() + value.len() > AUDIT_ROW_BYTES_MAX);
    if is_long || bytes_of(&rows) > AUDIT_ROWS_BYTES_MAX {
        return Ok(None);
    }
    let forgotten = view.get(&keys::forgotten(space))?;
    let forgotten = forgotten.map(|bytes| decode("row of what is forgotten", &bytes)).transpose()?;
    Ok(Some(Lent { rows, frontier: here, forgotten: forgotten.unwrap_or_default() }))
}

pub(crate) fn bytes_of(rows: &[Row]) -> usize {
    rows.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// What can be forgotten in some rows. O(such rows of the space).
fn unstable_of(view: &dyn LogRead, space: &SpaceId, rows: &[Row]) -> Result<Vec<Row>, StoreError> {
    let (from, until) = keys::unstable(space);
    let of: std::collections::BTreeSet<&[u8]> = rows.iter().map(|(key, _)| key.as_slice()).collect();
    let noted = view.scan(&from, &until, usize::MAX)?;
    Ok(noted.into_iter().filter(|(key, _)| of.contains(keys::unstable_target(key))).collect())
}

/// Checks what peers sent. `None` when that cannot be done any more: entries since are not kept. O(objects).
pub(crate) fn check(view: &dyn LogRead, unproved: &Unproved) -> Result<Option<Rebuilt>, StoreError> {
    let (space, object) = (&unproved.space, &unproved.object);
    let Some(bytes) = view.get(&keys::progress(space))? else { return Ok(None) };
    let progress: Progress = decode("progress row", &bytes)?;
    let (place, kept) = (progress.applied, kept(view, space)?);
    if is_apart(view, space)? || kept.dropped > unproved.place || place < unproved.place {
        return Ok(None);
    }
    let shares = shares(view, space)?;
    let own_share = header_share(view, space, object)?;
    let proved = progress.digest.0.wrapping_sub(shares.wrapping_sub(own_share));
    let own = state_of(view, space, object)?;
    let outcome = if own.fault.is_none() && own_share == proved {
        Outcome::Sound
    } else {
        let mut found = Vec::new();
        for candidate in unproved.candidates.iter() {
            found.extend(Found::of(view, unproved, candidate, place)?);
        }
        choose(found, proved, unproved.needed, own)
    };
    let outcomes = vec![(object.clone(), outcome)];
    Ok(Some(Rebuilt { place, kept, digest: progress.digest.0, shares, stand: None, outcomes }))
}

/// A candidate with what was applied since.
struct Found {
    share: u128,
    state: Inspected,
    rows: Vec<Put>,
    forgotten: Frontier,
}

impl Found {
    /// `None` when the rows are not sound ones of the object.
    fn of(
        view: &dyn LogRead,
        unproved: &Unproved,
        candidate: &Candidate,
        place: u64,
    ) -> Result<Option<Self>, StoreError> {
        match Self::sound(view, unproved, candidate, place) {
            // Rows of a peer's that cannot be read are no fault of this store.
            Err(StoreError::Corrupt { .. }) => Ok(None),
            found => found,
        }
    }

    fn sound(
        view: &dyn LogRead,
        unproved: &Unproved,
        candidate: &Candidate,
        place: u64,
    ) -> Result<Option<Self>, StoreError> {
        let (space, object) = (&unproved.space, &unproved.object);
        let puts: Vec<Put> =
            candidate.lent.rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        let rows = rows_of(space, object, &puts);
        let is_fit = |(key, value): &Put| match (key.first(), value) {
            (Some(0x37), Some(value)) => key
                .get(17..)
                .and_then(|tail| tail.get(24..))
                .is_some_and(|row| check_unstable(space, row, value).is_ok()),
            // Conflicts are noted anew.
            (Some(0x38), _) => false,
            _ => true,
        };
        if rows.len() != puts.len() {
            return Ok(None);
        }
        let generation = next_generation(view, space, object)?;
        let blank = Blank(view);
        let mut work = Work::over(&blank);
        for (key, value) in rows.into_iter().filter(is_fit) {
            if let Some(value) = value {
                work.put(key, value);
            }
        }
        renumber(&mut work, space, object, generation)?;
        if !is_member_list(object) {
            note_all(&mut work, space, object)?;
        }
        if !frontier(view, space)?.covers(&candidate.lent.frontier) {
            return Ok(None);
        }
        let mut replay = Replay::new(view, space, unproved.extensions)?;
        replay.objects.insert(object.clone());
        replay.beyond = candidate.lent.frontier.clone();
        if !replay.run(&mut work, (unproved.place + 1, place), 4 * ROWS_MAX)? {
            return Ok(None);
        }
        let (share, state) = (header_share(&work, space, object)?, state_of(&work, space, object)?);
        if state.fault.is_some() {
            return Ok(None);
        }
        let rows = rows_of(space, object, &work.into_batch().state);
        Ok(Some(Self { share, state, rows, forgotten: candidate.lent.forgotten.clone() }))
    }
}

/// What is proved, or what a majority sends.
fn choose(found: Vec<Found>, proved: u128, needed: usize, own: Inspected) -> Outcome {
    let mut votes: BTreeMap<u128, usize> = BTreeMap::new();
    for found in &found {
        *votes.entry(found.state.digest).or_default() += 1;
    }
    let is_voted = |found: &Found| votes.get(&found.state.digest).is_some_and(|votes| *votes >= needed);
    let place = found.iter().position(|found| found.share == proved);
    let place = place.or_else(|| found.iter().position(is_voted));
    match place.and_then(|place| found.into_iter().nth(place)) {
        None => Outcome::Unresolved(Unresolved::NotKept),
        Some(found) if own.fault.is_none() && found.state.digest == own.digest => Outcome::Sound,
        Some(Found { rows, forgotten, .. }) => {
            Outcome::Wrong(Wrong { detail: own.fault, was: own.digest, rows, forgotten })
        }
    }
}

/// A generation of a document that is later than any that is remembered.
fn next_generation(view: &dyn LogRead, space: &SpaceId, object: &ObjectAddress) -> Result<u64, StoreError> {
    let header = view.get(&keys::object(space, object))?;
    let object = header.and_then(|header| Object::from_bytes(object.kind(), &header).ok());
    let held = match object {
        Some(Object::Document(header)) => header.generation >> 32,
        _ => u64::from(kept(view, space)?.installs),
    };
    Ok((held + 1).min(u64::from(u32::MAX)))
}

fn renumber(
    work: &mut Work<'_>,
    space: &SpaceId,
    object: &ObjectAddress,
    generation: u64,
) -> Result<(), StoreError> {
    if object.kind() != Kind::Document {
        return Ok(());
    }
    let site = Site::top(space, object);
    if let Object::Document(mut header) = site.load(work)? {
        header.generation = (header.generation & u64::from(u32::MAX)) | (generation << 32);
        site.store(work, &Object::Document(header));
    }
    Ok(())
}

//! The rules a change must keep to join a document, and the order in which changes are looked at.
//!
//! The rules are a function of the change and of what it depends on, so every replica comes to the same verdict,
//! whether or not it has the document loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use automerge::Change;

use super::Document;
use crate::raw_change::{DocumentError, RawChange};

type Hash = [u8; 32];

/// An actor's latest change in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatestChange {
    /// Its number among the actor's changes.
    pub seq: u64,
    /// The number of its last operation.
    pub max_op: u64,
    /// Its hash.
    pub hash: Hash,
}

impl LatestChange {
    /// What `change` is once it is its actor's latest.
    pub fn of(change: &RawChange) -> Self {
        Self { seq: change.seq(), max_op: change.max_op(), hash: change.hash() }
    }
}

/// What the rules ask about the changes of a document that were admitted before.
pub trait Admitted {
    /// Why a question could not be answered.
    type Error;

    /// The number of the last operation of an admitted change; `None` when there is no such change.
    ///
    /// # Errors
    /// When it could not be found out.
    fn max_op(&self, change: &Hash) -> Result<Option<u64>, Self::Error>;

    /// The changes that an admitted change depends on; nothing when there is no such change.
    ///
    /// # Errors
    /// When it could not be found out.
    fn deps(&self, change: &Hash) -> Result<Vec<Hash>, Self::Error>;

    /// The latest admitted change of an actor.
    ///
    /// # Errors
    /// When it could not be found out.
    fn latest(&self, actor: &[u8]) -> Result<Option<LatestChange>, Self::Error>;
}

/// Whether a change may join the changes admitted so far. Automerge panics on, or silently mangles, what breaks
/// the rules. O(change) and the questions: one for each dependency and actor, and a search among the changes that
/// are not older than its actor's previous one where it does not depend on that directly.
///
/// # Errors
/// The outer error when a question could not be answered; the inner one when the change is refused.
pub fn admit<A: Admitted>(known: &A, raw: &RawChange) -> Result<Result<(), DocumentError>, A::Error> {
    if let Err(error) = check_numbers(known, raw)? {
        return Ok(Err(error));
    }
    let change = match super::parse(raw) {
        Ok(change) => change,
        Err(error) => return Ok(Err(error)),
    };
    check_parsed(known, raw, &change)
}

/// The rules on numbers and dependencies.
fn check_numbers<A: Admitted>(known: &A, raw: &RawChange) -> Result<Result<(), DocumentError>, A::Error> {
    let mut max_op = 0;
    for dependency in raw.deps() {
        let Some(op) = known.max_op(&dependency)? else {
            return Ok(Err(DocumentError::MissingDependency { dependency }));
        };
        max_op = max_op.max(op);
    }
    let previous = known.latest(raw.actor())?;
    let seq_next = previous.map_or(1, |previous| previous.seq + 1);
    if raw.seq() > seq_next {
        return Ok(Err(DocumentError::SequenceGap { seq: raw.seq(), seq_next }));
    }
    if raw.seq() < seq_next {
        return Ok(Err(DocumentError::SequenceReused { seq: raw.seq() }));
    }
    if let Some(previous) = previous
        // Otherwise whether the change is acceptable would depend on the order of arrival.
        && !is_ancestor(known, &previous, raw)?
    {
        return Ok(Err(DocumentError::NotAfterOwnPrevious));
    }
    // Of a change without operations automerge stores the number of the last one alone.
    if raw.start_op() <= max_op || raw.ops() == 0 && raw.start_op() != max_op + 1 {
        return Ok(Err(DocumentError::StartOp { start_op: raw.start_op(), max_op }));
    }
    Ok(Ok(()))
}

/// The rules that need the parsed change.
pub(super) fn check_parsed<A: Admitted>(
    known: &A,
    raw: &RawChange,
    change: &Change,
) -> Result<Result<(), DocumentError>, A::Error> {
    if change.hash().0 != raw.hash() || change.len() as u64 != raw.ops() {
        return Ok(Err(DocumentError::NotReproduced));
    }
    if change.author().is_some() && raw.seq() != 1 {
        return Ok(Err(DocumentError::AuthorFooter));
    }
    for actor in change.other_actor_ids() {
        if known.latest(actor.to_bytes())?.is_none() {
            return Ok(Err(DocumentError::UnknownActor));
        }
    }
    Ok(Ok(()))
}

/// Whether `raw` depends on `previous`, directly or not. Operation numbers never decrease along a path, so
/// the search stays among changes that are not older than `previous`.
fn is_ancestor<A: Admitted>(known: &A, previous: &LatestChange, raw: &RawChange) -> Result<bool, A::Error> {
    let mut waiting: Vec<Hash> = raw.deps().collect();
    if waiting.contains(&previous.hash) {
        return Ok(true);
    }
    let mut seen = BTreeSet::new();
    while let Some(hash) = waiting.pop() {
        if hash == previous.hash {
            return Ok(true);
        }
        if seen.insert(hash) && known.max_op(&hash)?.is_some_and(|max_op| max_op >= previous.max_op) {
            waiting.extend(known.deps(&hash)?);
        }
    }
    Ok(false)
}

/// A document, or a document and a batch on top of it.
pub(super) struct Branch<'a> {
    base: &'a Document,
    changes: BTreeMap<Hash, &'a RawChange>,
    actors: BTreeMap<&'a [u8], LatestChange>,
}

impl<'a> Branch<'a> {
    pub(super) fn new(base: &'a Document) -> Self {
        Self { base, changes: BTreeMap::new(), actors: BTreeMap::new() }
    }

    /// Adds a change that was checked.
    pub(super) fn push(&mut self, raw: &'a RawChange) {
        self.actors.insert(raw.actor(), LatestChange::of(raw));
        self.changes.insert(raw.hash(), raw);
    }

    pub(super) fn check_numbers(&self, raw: &RawChange) -> Result<(), DocumentError> {
        let Ok(verdict) = check_numbers(self, raw);
        verdict
    }

    pub(super) fn check_parsed(&self, raw: &RawChange, change: &Change) -> Result<(), DocumentError> {
        let Ok(verdict) = check_parsed(self, raw, change);
        verdict
    }
}

impl Admitted for Branch<'_> {
    type Error = Infallible;

    fn max_op(&self, change: &Hash) -> Result<Option<u64>, Infallible> {
        Ok(self.changes.get(change).map(|raw| raw.max_op()).or_else(|| self.base.max_op(change)))
    }

    fn deps(&self, change: &Hash) -> Result<Vec<Hash>, Infallible> {
        Ok(self.changes.get(change).map_or_else(|| self.base.deps(change), |raw| raw.deps().collect()))
    }

    fn latest(&self, actor: &[u8]) -> Result<Option<LatestChange>, Infallible> {
        Ok(self.actors.get(actor).copied().or_else(|| self.base.latest(actor)))
    }
}

/// Changes in an order in which each comes after those of them that it depends on, and only once. O(changes · log changes).
pub fn in_causal_order(changes: &[RawChange]) -> Vec<RawChange> {
    causal_order(changes, |_| false, &mut Vec::new()).into_iter().cloned().collect()
}

/// The changes that `has` does not hold yet, each once, every one after those of them it depends on; otherwise in
/// the order given. O(changes · log changes).
pub(super) fn causal_order<'a>(
    changes: &'a [RawChange],
    has: impl Fn(&Hash) -> bool,
    known: &mut Vec<Hash>,
) -> Vec<&'a RawChange> {
    let mut fresh: BTreeMap<Hash, usize> = BTreeMap::new();
    // Usually every change comes after what it depends on, and there is nothing to sort.
    let mut is_ordered = true;
    for (position, raw) in changes.iter().enumerate() {
        if fresh.contains_key(&raw.hash()) || has(&raw.hash()) {
            known.push(raw.hash());
        } else {
            is_ordered &= raw.deps().all(|dep| fresh.contains_key(&dep) || has(&dep));
            fresh.insert(raw.hash(), position);
        }
    }
    if is_ordered {
        let mut positions: Vec<usize> = fresh.into_values().collect();
        positions.sort_unstable();
        return positions.into_iter().map(|position| &changes[position]).collect();
    }
    let mut waiting: BTreeMap<usize, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<Hash, Vec<usize>> = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for position in fresh.values().copied() {
        let deps: Vec<Hash> = changes[position].deps().filter(|dep| fresh.contains_key(dep)).collect();
        if deps.is_empty() {
            ready.insert(position);
        }
        waiting.insert(position, deps.len());
        deps.into_iter().for_each(|dep| dependents.entry(dep).or_default().push(position));
    }
    let mut ordered = Vec::with_capacity(fresh.len());
    while let Some(position) = ready.pop_first() {
        ordered.push(&changes[position]);
        for dependent in dependents.remove(&changes[position].hash()).unwrap_or_default() {
            let count = waiting.get_mut(&dependent).expect("every fresh change is waiting");
            *count -= 1;
            if *count == 0 {
                ready.insert(dependent);
            }
        }
    }
    ordered
}

//! The changes a document is made of, and the rules a change must keep to join them.

use std::collections::{BTreeMap, BTreeSet};

use automerge::Change;

use crate::raw_change::{DocumentError, RawChange};

type Hash = [u8; 32];

/// An actor's latest change.
#[derive(Clone, Copy, Debug)]
struct Latest {
    seq: u64,
    max_op: u64,
    hash: Hash,
}

/// What is read of a history, or of a history and a batch on top of it.
trait Known {
    fn find(&self, hash: &Hash) -> Option<&RawChange>;
    fn latest(&self, actor: &[u8]) -> Option<Latest>;
}

/// Every change applied, in the order of application.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    changes: Vec<RawChange>,
    index: BTreeMap<Hash, usize>,
    actors: BTreeMap<Vec<u8>, Latest>,
    heads: BTreeSet<Hash>,
}

impl History {
    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.index.contains_key(hash)
    }

    pub(super) fn change(&self, hash: &Hash) -> Option<&RawChange> {
        self.find(hash)
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RawChange> {
        self.changes.iter()
    }

    pub(super) fn heads(&self) -> Vec<Hash> {
        self.heads.iter().copied().collect()
    }

    pub(super) fn check(&self, raw: &RawChange) -> Result<(), DocumentError> {
        check(self, raw)
    }

    /// Takes in a change that was checked and applied.
    pub(super) fn push(&mut self, raw: RawChange) {
        for dep in raw.deps() {
            self.heads.remove(&dep);
        }
        self.heads.insert(raw.hash());
        self.actors.insert(raw.actor().to_owned(), latest(&raw));
        self.index.insert(raw.hash(), self.changes.len());
        self.changes.push(raw);
    }

    /// A history on top of this one for checking a batch.
    pub(super) fn branch(&self) -> Branch<'_> {
        Branch { base: self, changes: BTreeMap::new(), actors: BTreeMap::new() }
    }
}

impl Known for History {
    fn find(&self, hash: &Hash) -> Option<&RawChange> {
        self.index.get(hash).map(|position| &self.changes[*position])
    }

    fn latest(&self, actor: &[u8]) -> Option<Latest> {
        self.actors.get(actor).copied()
    }
}

/// A history plus changes that were checked and not yet applied.
pub(super) struct Branch<'a> {
    base: &'a History,
    changes: BTreeMap<Hash, &'a RawChange>,
    actors: BTreeMap<&'a [u8], Latest>,
}

impl<'a> Branch<'a> {
    pub(super) fn check(&self, raw: &RawChange) -> Result<(), DocumentError> {
        check(self, raw)
    }

    /// The rules that need the parsed change.
    pub(super) fn check_parsed(&self, raw: &RawChange, change: &Change) -> Result<(), DocumentError> {
        if change.hash().0 != raw.hash() || change.len() as u64 != raw.ops() {
            return Err(DocumentError::NotReproduced);
        }
        if change.author().is_some() && raw.seq() != 1 {
            return Err(DocumentError::AuthorFooter);
        }
        let unknown = |actor: &automerge::ActorId| self.latest(actor.to_bytes()).is_none();
        if change.other_actor_ids().iter().any(unknown) {
            return Err(DocumentError::UnknownActor);
        }
        Ok(())
    }

    pub(super) fn push(&mut self, raw: &'a RawChange) {
        self.actors.insert(raw.actor(), latest(raw));
        self.changes.insert(raw.hash(), raw);
    }
}

impl Known for Branch<'_> {
    fn find(&self, hash: &Hash) -> Option<&RawChange> {
        self.changes.get(hash).copied().or_else(|| self.base.find(hash))
    }

    fn latest(&self, actor: &[u8]) -> Option<Latest> {
        self.actors.get(actor).copied().or_else(|| self.base.latest(actor))
    }
}

fn latest(raw: &RawChange) -> Latest {
    Latest { seq: raw.seq(), max_op: raw.max_op(), hash: raw.hash() }
}

/// The rules on numbers and dependencies. Automerge panics on, or silently mangles, what breaks them.
fn check(known: &impl Known, raw: &RawChange) -> Result<(), DocumentError> {
    let mut max_op = 0;
    for dependency in raw.deps() {
        let change = known.find(&dependency).ok_or(DocumentError::MissingDependency { dependency })?;
        max_op = max_op.max(change.max_op());
    }
    let previous = known.latest(raw.actor());
    let seq_next = previous.map_or(1, |previous| previous.seq + 1);
    if raw.seq() > seq_next {
        return Err(DocumentError::SequenceGap { seq: raw.seq(), seq_next });
    }
    if raw.seq() < seq_next {
        return Err(DocumentError::SequenceReused { seq: raw.seq() });
    }
    if let Some(previous) = previous {
        // Otherwise whether the change is acceptable would depend on the order of arrival.
        if !is_ancestor(known, &previous, raw) {
            return Err(DocumentError::NotAfterOwnPrevious);
        }
    }
    if raw.start_op() <= max_op {
        return Err(DocumentError::StartOp { start_op: raw.start_op(), max_op });
    }
    Ok(())
}

/// Whether `raw` depends on `previous`, directly or not. Operation numbers never decrease along a path, so
/// the search stays among changes that are not older than `previous`.
fn is_ancestor(known: &impl Known, previous: &Latest, raw: &RawChange) -> bool {
    let mut waiting: Vec<Hash> = raw.deps().collect();
    if waiting.contains(&previous.hash) {
        return true;
    }
    let mut seen = BTreeSet::new();
    while let Some(hash) = waiting.pop() {
        if hash == previous.hash {
            return true;
        }
        if !seen.insert(hash) {
            continue;
        }
        if let Some(change) = known.find(&hash)
            && change.max_op() >= previous.max_op
        {
            waiting.extend(change.deps());
        }
    }
    false
}

/// The changes not yet in `history`, each once, every one after those of them it depends on; otherwise in
/// the order given. O(changes · log changes).
pub(super) fn causal_order<'a>(
    changes: &'a [RawChange],
    history: &History,
    known: &mut Vec<Hash>,
) -> Vec<&'a RawChange> {
    let mut fresh: BTreeMap<Hash, usize> = BTreeMap::new();
    for (position, raw) in changes.iter().enumerate() {
        if history.has(&raw.hash()) || fresh.contains_key(&raw.hash()) {
            known.push(raw.hash());
        } else {
            fresh.insert(raw.hash(), position);
        }
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

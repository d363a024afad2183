//! Automerge documents behind one guard.
//!
//! Automerge panics on some well-formed changes and accepts others that it cannot store. Here a change is
//! either applied in full or refused, whatever it contains: what can be checked beforehand is, every call
//! that takes foreign input runs under one guard, each applied change must come back out byte for byte, and
//! an instance that failed is replaced by the one before.

mod admission;
pub mod json;
mod patch;
mod replay;
pub mod text;
pub mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, AutomergeError, Change, ChangeHash, Patch, PatchLog, ReadDoc};

use crate::guard::guard;
use crate::limits::DOCUMENT_CHANGE_OPS_MAX;
use crate::raw_change::{DocumentError, RawChange, check_applied};
use admission::Branch;
use replay::{Replayed, continues, replay};

pub use admission::{Admitted, LatestChange, admit, in_causal_order};
pub use patch::{DocumentAction, DocumentMark, DocumentPatch};

/// About what Automerge takes for a document with one key.
const DOCUMENT_BYTES_MIN: u64 = 20 * 1024;

/// A batch of at most this many changes is looked through for changes that can be made again.
const REPLAY_CHANGES_MAX: usize = 256;

/// A replicated JSON-like document.
#[derive(Clone, Debug)]
pub struct Document {
    automerge: Automerge,
    actor: ActorId,
    /// The latest change of each actor, once somebody asked.
    actors: OnceLock<BTreeMap<Vec<u8>, LatestChange>>,
    /// Changes are made again where that is possible. Off once that went wrong.
    replays: bool,
    /// Why nothing can be done with this document any more, if so.
    poisoned: Option<String>,
}

/// What [`Document::apply`] did, by the changes' hashes. Each change given is in exactly one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Newly applied, dependencies before dependents.
    pub applied: Vec<[u8; 32]>,
    /// In the document before, or given more than once.
    pub known: Vec<[u8; 32]>,
    /// Refused, each with the reason; changes that depend on them are refused too.
    pub refused: Vec<([u8; 32], DocumentError)>,
}

/// Why an edit was not made. The document is as before, unless it is [`DocumentError::Poisoned`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError<E> {
    /// The edit itself returned an error.
    #[error("the edit was abandoned: {0}")]
    Refused(E),
    /// The edit panicked: the caller's bug, or Automerge's on what the caller asked of it.
    #[error("the edit panicked")]
    Panicked,
    /// The edit is too much for one change. Split it.
    #[error("{what}: {value} is above the limit of {value_max}")]
    TooLarge {
        /// What is limited.
        what: &'static str,
        /// The number reached.
        value: u64,
        /// The largest allowed.
        value_max: u64,
    },
    /// The document could not take the edit.
    #[error(transparent)]
    Document(DocumentError),
}

/// How a transaction ended, seen from outside the guard.
enum Outcome<R, E> {
    Committed(R, Option<ChangeHash>),
    RolledBack(EditError<E>),
}

/// Patches that are gathered, if they are wanted.
type Patches<'p> = Option<&'p mut Vec<Patch>>;

impl Document {
    /// An empty document whose edits are made as `actor`, which must belong to this one instance alone.
    pub fn new(actor: [u8; 16]) -> Self {
        Self::over(Automerge::new(), actor)
    }

    fn over(mut automerge: Automerge, actor: [u8; 16]) -> Self {
        let actor = ActorId::from(&actor[..]);
        automerge.set_actor(actor.clone());
        Self { automerge, actor, actors: OnceLock::new(), replays: true, poisoned: None }
    }

    /// The document that a snapshot holds, empty without one, and the changes made since. What cannot be applied of
    /// those is in [`Applied::refused`]. O(history).
    ///
    /// # Errors
    /// [`DocumentError`] when the snapshot cannot be loaded: what was stored is not what was saved.
    pub fn load(
        snapshot: Option<&[u8]>,
        changes: &[RawChange],
        actor: [u8; 16],
    ) -> Result<(Self, Applied), DocumentError> {
        let automerge = match snapshot {
            None => Automerge::new(),
            Some(bytes) => load_snapshot(bytes)?,
        };
        let mut document = Self::over(automerge, actor);
        let applied = document.apply(changes)?;
        Ok((document, applied))
    }

    /// All of the document in one piece of bytes, from which it was loaded back to see that it can be. Not the same
    /// bytes at every replica, nor twice. O(history).
    ///
    /// # Errors
    /// [`DocumentError`] when what was saved cannot be loaded: keep the changes.
    pub fn save(&self) -> Result<Vec<u8>, DocumentError> {
        self.check_usable()?;
        let bytes = guard(|| self.automerge.save()).map_err(|reason| DocumentError::Panicked { reason })?;
        let loaded = load_snapshot(&bytes)?;
        if sorted(loaded.get_heads()) == self.heads() { Ok(bytes) } else { Err(DocumentError::NotReproduced) }
    }

    /// Applies changes in any order. After `Ok` the document holds exactly what it held before plus `applied`.
    ///
    /// A change that depends on exactly what the document holds costs O(change · log document); any other, O(document)
    /// for all that are left. One that gets past the checks and then fails costs O(document · log batch) to find.
    ///
    /// # Errors
    /// [`DocumentError::Poisoned`] only; what is wrong with a change is in [`Applied::refused`].
    pub fn apply(&mut self, changes: &[RawChange]) -> Result<Applied, DocumentError> {
        self.apply_gathering(changes, None)
    }

    /// As [`Document::apply`], and what changed for a reader, in order.
    ///
    /// # Errors
    /// As [`Document::apply`].
    pub fn apply_with_patches(
        &mut self,
        changes: &[RawChange],
    ) -> Result<(Applied, Vec<Patch>), DocumentError> {
        let mut patches = Vec::new();
        let applied = self.apply_gathering(changes, Some(&mut patches))?;
        Ok((applied, patches))
    }

    fn apply_gathering(
        &mut self,
        changes: &[RawChange],
        mut patches: Patches<'_>,
    ) -> Result<Applied, DocumentError> {
        self.check_usable()?;
        let mut outcome = Applied::default();
        let mut ready = self.check(changes, &mut outcome);
        if ready.len() <= REPLAY_CHANGES_MAX {
            let made = self.make_again(&ready, &mut outcome, patches.as_deref_mut())?;
            ready.drain(..made);
        }
        self.apply_isolating(ready, &mut outcome, patches);
        Ok(outcome)
    }

    /// Runs `edit` on the current version and commits what it did as one change, stamped `time_seconds`
    /// since the Unix epoch. `None` when it did nothing.
    ///
    /// # Errors
    /// [`EditError`]; the document is then as before.
    pub fn edit<R, E>(
        &mut self,
        time_seconds: i64,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<(R, Option<RawChange>), EditError<E>> {
        self.edit_version(None, time_seconds, edit)
    }

    /// As [`Document::edit`], on the version `heads`: the edit is concurrent with whatever came after it.
    /// Each such edit may cost the document one more actor.
    ///
    /// # Errors
    /// [`EditError`]; [`DocumentError::UnknownHead`] within it when the version is not known here.
    pub fn edit_at<R, E>(
        &mut self,
        heads: &[[u8; 32]],
        time_seconds: i64,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<(R, Option<RawChange>), EditError<E>> {
        if let Some(head) = heads.iter().find(|head| !self.has(head)) {
            return Err(EditError::Document(DocumentError::UnknownHead { head: *head }));
        }
        let mut heads: Vec<ChangeHash> = heads.iter().copied().map(ChangeHash).collect();
        heads.sort_unstable();
        heads.dedup();
        self.edit_version(Some(&heads), time_seconds, edit)
    }

    /// The changes no other change depends on, ascending: the name of the current version.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        sorted(self.automerge.get_heads())
    }

    /// The document, for reading.
    pub fn automerge(&self) -> &Automerge {
        &self.automerge
    }

    /// Whether the change with this hash was applied.
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.max_op(hash).is_some()
    }

    /// The change with this hash. O(change · log document).
    pub fn change(&self, hash: &[u8; 32]) -> Option<RawChange> {
        let change = guard(|| self.automerge.get_change_by_hash(&ChangeHash(*hash))).ok()??;
        RawChange::parse(change.raw_bytes()).ok()
    }

    /// Every change applied, dependencies before dependents. O(history).
    pub fn changes(&self) -> Vec<RawChange> {
        self.changes_since(&[])
    }

    /// The changes that the version named by `heads` does not hold, dependencies before dependents. Heads that
    /// the document does not hold are taken for nothing. O(changes).
    pub fn changes_since(&self, heads: &[[u8; 32]]) -> Vec<RawChange> {
        let heads: Vec<ChangeHash> =
            heads.iter().filter(|head| self.has(head)).copied().map(ChangeHash).collect();
        let changes = guard(|| self.automerge.get_changes(&heads)).unwrap_or_default();
        changes.iter().filter_map(|change| RawChange::parse(change.raw_bytes()).ok()).collect()
    }

    /// The number of changes applied.
    pub fn change_count(&self) -> usize {
        self.automerge.stats().num_changes as usize
    }

    /// About how many bytes of memory the document takes.
    pub fn weight(&self) -> u64 {
        let stats = self.automerge.stats();
        let clocks = stats.num_changes / 16 * stats.num_actors * 4;
        DOCUMENT_BYTES_MIN + stats.num_ops * 24 + stats.num_changes * 300 + clocks
    }

    /// The number of the last operation of a change, if it was applied.
    pub fn max_op(&self, hash: &[u8; 32]) -> Option<u64> {
        self.automerge.get_change_meta_by_hash(&ChangeHash(*hash)).map(|meta| meta.max_op)
    }

    /// The changes that a change depends on; none if it was not applied.
    pub fn deps(&self, hash: &[u8; 32]) -> Vec<[u8; 32]> {
        let meta = self.automerge.get_change_meta_by_hash(&ChangeHash(*hash));
        meta.map_or_else(Vec::new, |meta| meta.deps.iter().map(|dep| dep.0).collect())
    }

    /// How many actors have changed the document. O(history) the first time.
    pub fn actor_count(&self) -> usize {
        self.actors().len()
    }

    /// The latest change of an actor. O(history) the first time.
    pub fn latest(&self, actor: &[u8]) -> Option<LatestChange> {
        self.actors().get(actor).copied()
    }

    fn actors(&self) -> &BTreeMap<Vec<u8>, LatestChange> {
        self.actors.get_or_init(|| {
            let mut actors: BTreeMap<Vec<u8>, LatestChange> = BTreeMap::new();
            for meta in self.automerge.get_changes_meta(&[]) {
                let latest = LatestChange { seq: meta.seq, max_op: meta.max_op, hash: meta.hash.0 };
                let known = actors.entry(meta.actor.to_bytes().to_vec()).or_insert(latest);
                if known.seq < latest.seq {
                    *known = latest;
                }
            }
            actors
        })
    }

    /// Takes note of a change that was applied.
    fn push(&mut self, raw: &RawChange) {
        if let Some(actors) = self.actors.get_mut() {
            actors.insert(raw.actor().to_vec(), LatestChange::of(raw));
        }
    }

    fn check_usable(&self) -> Result<(), DocumentError> {
        match &self.poisoned {
            Some(reason) => Err(DocumentError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Sorts out what can be told without Automerge's help, and returns the rest in causal order.
    fn check(&self, changes: &[RawChange], outcome: &mut Applied) -> Vec<(RawChange, Change)> {
        let mut tentative = Branch::new(self);
        let mut ready = Vec::new();
        for raw in admission::causal_order(changes, |hash| self.has(hash), &mut outcome.known) {
            let checked = tentative.check_numbers(raw).and_then(|()| parse(raw)).and_then(|change| {
                tentative.check_parsed(raw, &change)?;
                Ok(change)
            });
            match checked {
                Ok(change) => {
                    tentative.push(raw);
                    ready.push((raw.clone(), change));
                }
                Err(error) => outcome.refused.push((raw.hash(), error)),
            }
        }
        ready
    }

    /// Makes the first of these changes again, as many as that works for; returns how many those are.
    fn make_again(
        &mut self,
        changes: &[(RawChange, Change)],
        outcome: &mut Applied,
        mut patches: Patches<'_>,
    ) -> Result<usize, DocumentError> {
        for (made, (raw, change)) in changes.iter().enumerate() {
            let heads = self.automerge.get_heads();
            let previous = self.latest(raw.actor()).map(|latest| ChangeHash(latest.hash));
            if !self.replays || !continues(change, &heads, previous) {
                return Ok(made);
            }
            let log = if patches.is_some() { PatchLog::active() } else { PatchLog::inactive() };
            let automerge = &mut self.automerge;
            match guard(|| replay(automerge, change, log)) {
                Ok(Replayed::Done(mut log)) => {
                    if let Some(patches) = patches.as_deref_mut() {
                        patches.extend(guard(|| automerge.make_patches(&mut log)).unwrap_or_default());
                    }
                    self.push(raw);
                    outcome.applied.push(raw.hash());
                }
                Ok(Replayed::Unlike) => return Ok(made),
                Ok(Replayed::Different) | Err(_) => {
                    self.replays = false;
                    self.go_back(&heads)?;
                    return Ok(made);
                }
            }
        }
        Ok(changes.len())
    }

    /// Applies what can be applied of `batch`, halving it around whatever makes it fail.
    fn apply_isolating(
        &mut self,
        batch: Vec<(RawChange, Change)>,
        outcome: &mut Applied,
        mut patches: Patches<'_>,
    ) {
        let (raws, changes): (Vec<RawChange>, Vec<Change>) = batch.into_iter().unzip();
        let mut parts = vec![(raws, Some(changes))];
        let mut failed = BTreeSet::new();
        while let Some((mut raws, changes)) = parts.pop() {
            // What failed can only be depended on once the batch was split, and what is split is parsed again.
            raws.retain(|raw| {
                let Some(dependency) = raw.deps().find(|dep| failed.contains(dep)) else {
                    return true;
                };
                failed.insert(raw.hash());
                outcome.refused.push((raw.hash(), DocumentError::MissingDependency { dependency }));
                false
            });
            if raws.is_empty() {
                continue;
            }
            match self.apply_batch(&raws, changes, patches.as_deref_mut()) {
                Ok(()) => {
                    raws.iter().for_each(|raw| self.push(raw));
                    outcome.applied.extend(raws.iter().map(RawChange::hash));
                }
                Err(error) => {
                    if let [raw] = &raws[..] {
                        failed.insert(raw.hash());
                        outcome.refused.push((raw.hash(), error));
                    } else {
                        let later = raws.split_off(raws.len() / 2);
                        parts.push((later, None));
                        parts.push((raws, None));
                    }
                }
            }
        }
    }

    /// Applies a batch, parsed unless it is to be parsed again, and checks that all of it can be had back. On an error
    /// the document is as before.
    fn apply_batch(
        &mut self,
        raws: &[RawChange],
        changes: Option<Vec<Change>>,
        patches: Patches<'_>,
    ) -> Result<(), DocumentError> {
        let changes = changes.map_or_else(|| raws.iter().map(parse).collect(), Ok)?;
        let before = self.automerge.clone();
        let result = self.try_batch(raws, changes, patches);
        if result.is_err() {
            self.automerge = before;
        }
        result
    }

    fn try_batch(
        &mut self,
        raws: &[RawChange],
        changes: Vec<Change>,
        patches: Patches<'_>,
    ) -> Result<(), DocumentError> {
        let panicked = |reason| DocumentError::Panicked { reason };
        let heads = self.automerge.get_heads();
        let mut log = if patches.is_some() { PatchLog::active() } else { PatchLog::inactive() };
        let automerge = &mut self.automerge;
        guard(|| automerge.apply_changes_log_patches(changes, &mut log))
            .map_err(panicked)?
            .map_err(|error| refused(&error))?;
        // A panic on the way back out is one more way of not coming back out.
        let reproduced = guard(|| automerge.get_changes(&heads)).map_err(|_| DocumentError::NotReproduced)?;
        let reproduced: BTreeMap<[u8; 32], &Change> =
            reproduced.iter().map(|change| (change.hash().0, change)).collect();
        let is_there = |raw: &RawChange| {
            reproduced.get(&raw.hash()).is_some_and(|change| change.raw_bytes() == raw.bytes())
        };
        if reproduced.len() != raws.len() || !raws.iter().all(is_there) {
            return Err(DocumentError::NotReproduced);
        }
        check_applied(automerge, raws)?;
        if let Some(patches) = patches {
            patches.extend(guard(|| automerge.make_patches(&mut log)).map_err(panicked)?);
        }
        Ok(())
    }

    /// Replaces an instance that holds too much, or may be in any state, by one that holds the version `heads`.
    fn go_back(&mut self, heads: &[ChangeHash]) -> Result<(), DocumentError> {
        let wanted = sorted(heads.to_vec());
        let rebuilt = guard(|| {
            let earlier = self.automerge.fork_at(heads).map_err(|error| refused(&error))?;
            load_snapshot(&earlier.save())
        })
        .unwrap_or_else(|reason| Err(DocumentError::Panicked { reason }))
        .and_then(|earlier| {
            if sorted(earlier.get_heads()) == wanted {
                Ok(earlier)
            } else {
                Err(DocumentError::NotReproduced)
            }
        });
        self.actors = OnceLock::new();
        match rebuilt {
            Ok(mut earlier) => {
                earlier.set_actor(self.actor.clone());
                self.automerge = earlier;
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                self.automerge = Automerge::new();
                self.poisoned = Some(reason.clone());
                Err(DocumentError::Poisoned { reason })
            }
        }
    }

    fn edit_version<R, E>(
        &mut self,
        heads: Option<&[ChangeHash]>,
        time_seconds: i64,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<(R, Option<RawChange>), EditError<E>> {
        self.check_usable().map_err(EditError::Document)?;
        let before = self.automerge.get_heads();
        let automerge = &mut self.automerge;
        match guard(|| transact(automerge, heads, time_seconds, edit)) {
            Ok(Outcome::Committed(value, None)) => Ok((value, None)),
            Ok(Outcome::Committed(value, Some(hash))) => match self.committed(hash) {
                Ok(raw) => {
                    self.push(&raw);
                    Ok((value, Some(raw)))
                }
                Err(error) => {
                    self.go_back(&before).map_err(EditError::Document)?;
                    Err(too_large_or(error))
                }
            },
            Ok(Outcome::RolledBack(EditError::Panicked)) | Err(_) => {
                self.go_back(&before).map_err(EditError::Document)?;
                Err(EditError::Panicked)
            }
            Ok(Outcome::RolledBack(error)) => Err(error),
        }
    }

    /// The change just committed, held to the same limits as a foreign one.
    fn committed(&self, hash: ChangeHash) -> Result<RawChange, DocumentError> {
        let change = guard(|| self.automerge.get_change_by_hash(&hash))
            .map_err(|reason| DocumentError::Panicked { reason })?
            .ok_or(DocumentError::NotReproduced)?;
        let raw = RawChange::parse(change.raw_bytes())?;
        if raw.hash() != hash.0 || change.len() as u64 != raw.ops() {
            return Err(DocumentError::NotReproduced);
        }
        check_applied(&self.automerge, [&raw])?;
        Ok(raw)
    }
}

fn sorted(heads: Vec<ChangeHash>) -> Vec<[u8; 32]> {
    let mut heads: Vec<[u8; 32]> = heads.into_iter().map(|head| head.0).collect();
    heads.sort_unstable();
    heads
}

fn load_snapshot(bytes: &[u8]) -> Result<Automerge, DocumentError> {
    guard(|| Automerge::load(bytes))
        .map_err(|reason| DocumentError::Panicked { reason })?
        .map_err(|error| refused(&error))
}

/// Runs `edit` in a transaction and ends it one way or the other; nothing is left for `Drop` to roll back
/// while a panic unwinds, where a second panic would end the process.
fn transact<R, E>(
    automerge: &mut Automerge,
    heads: Option<&[ChangeHash]>,
    time_seconds: i64,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
) -> Outcome<R, E> {
    let mut transaction = match heads {
        None => automerge.transaction(),
        Some(heads) => automerge
            .transaction_at(PatchLog::inactive(), heads)
            .expect("an inactive patch log fits every document"),
    };
    let error = match guard(|| edit(&mut transaction)) {
        Err(_) => EditError::Panicked,
        Ok(Err(error)) => EditError::Refused(error),
        Ok(Ok(value)) => {
            let ops = transaction.pending_ops() as u64;
            if ops <= DOCUMENT_CHANGE_OPS_MAX {
                let options = CommitOptions::default().with_time(time_seconds);
                let (hash, _) = transaction.commit_with(options);
                return Outcome::Committed(value, hash);
            }
            EditError::TooLarge {
                what: "operations in a change",
                value: ops,
                value_max: DOCUMENT_CHANGE_OPS_MAX,
            }
        }
    };
    transaction.rollback();
    Outcome::RolledBack(error)
}

fn parse(raw: &RawChange) -> Result<Change, DocumentError> {
    guard(|| Change::try_from(raw.bytes()))
        .map_err(|reason| DocumentError::Panicked { reason })?
        .map_err(|error| DocumentError::Refused { reason: error.to_string() })
}

fn refused(error: &AutomergeError) -> DocumentError {
    DocumentError::Refused { reason: error.to_string() }
}

fn too_large_or<E>(error: DocumentError) -> EditError<E> {
    match error {
        DocumentError::OverLimit { what, value, value_max } => EditError::TooLarge { what, value, value_max },
        other => EditError::Document(other),
    }
}

#[cfg(test)]
mod tests;

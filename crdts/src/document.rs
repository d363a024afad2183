//! Automerge documents behind one guard.
//!
//! Automerge panics on some well-formed changes and accepts others that it cannot store. Here a change is
//! either applied in full or refused, whatever it contains: what can be checked beforehand is, every call
//! that takes foreign input runs under one guard, each applied change must come back out byte for byte, and
//! an instance that failed is replaced by one rebuilt from the changes applied before.

mod history;

use std::collections::BTreeSet;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, AutomergeError, Change, ChangeHash, PatchLog, ReadDoc};

use crate::guard::guard;
use crate::limits::DOCUMENT_CHANGE_OPS_MAX;
use crate::raw_change::{DocumentError, RawChange, check_applied};
use history::History;

/// A replicated JSON-like document. Holds every change ever applied twice, in Automerge's own form and as
/// its bytes: the second copy is what a failed instance is rebuilt from.
#[derive(Clone, Debug)]
pub struct Document {
    automerge: Automerge,
    actor: ActorId,
    history: History,
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

impl Document {
    /// An empty document whose edits are made as `actor`, which must belong to this one instance alone.
    pub fn new(actor: [u8; 16]) -> Self {
        let actor = ActorId::from(&actor[..]);
        let automerge = Automerge::new().with_actor(actor.clone());
        Self { automerge, actor, history: History::default(), poisoned: None }
    }

    /// The document made of `chunks`, one raw change each, every change after those it depends on.
    /// O(history).
    ///
    /// # Errors
    /// [`DocumentError`] when a change is refused or the whole cannot be applied: what was stored is not
    /// what was applied here.
    pub fn load(chunks: &[Vec<u8>], actor: [u8; 16]) -> Result<Self, DocumentError> {
        let mut document = Self::new(actor);
        for chunk in chunks {
            let raw = RawChange::parse(chunk)?;
            if !document.history.has(&raw.hash()) {
                document.history.check(&raw)?;
                document.history.push(raw);
            }
        }
        document.rebuild()?;
        Ok(document)
    }

    /// Applies changes in any order, as one batch. After `Ok` the document holds exactly what it held
    /// before plus `applied`. O(batch) plus what Automerge takes; a change that gets past the checks and
    /// then fails costs O(history) to undo, and O(log batch) times that to find.
    ///
    /// # Errors
    /// [`DocumentError::Poisoned`] only; what is wrong with a change is in [`Applied::refused`].
    pub fn apply(&mut self, changes: &[RawChange]) -> Result<Applied, DocumentError> {
        self.check_usable()?;
        let mut outcome = Applied::default();
        let ready = self.admit(changes, &mut outcome);
        self.apply_isolating(ready, &mut outcome)?;
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
        self.history.heads()
    }

    /// The document, for reading.
    pub fn automerge(&self) -> &Automerge {
        &self.automerge
    }

    /// Whether the change with this hash was applied. O(log changes).
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.history.has(hash)
    }

    /// The change with this hash. O(log changes).
    pub fn change(&self, hash: &[u8; 32]) -> Option<&RawChange> {
        self.history.change(hash)
    }

    /// Every change applied, dependencies before dependents; what [`Document::load`] takes.
    pub fn changes(&self) -> impl Iterator<Item = &RawChange> {
        self.history.iter()
    }

    /// The changes that the version named by `heads` does not hold, dependencies before dependents. Heads that
    /// the document does not hold are taken for nothing. O(history).
    pub fn changes_since(&self, heads: &[[u8; 32]]) -> Vec<RawChange> {
        let mut seen: BTreeSet<[u8; 32]> = heads.iter().copied().filter(|head| self.has(head)).collect();
        let mut next: Vec<[u8; 32]> = seen.iter().copied().collect();
        while let Some(hash) = next.pop() {
            let dependencies = self.change(&hash).into_iter().flat_map(RawChange::deps);
            next.extend(dependencies.filter(|dependency| seen.insert(*dependency)));
        }
        self.changes().filter(|change| !seen.contains(&change.hash())).cloned().collect()
    }

    /// The number of changes applied.
    pub fn change_count(&self) -> usize {
        self.history.len()
    }

    fn check_usable(&self) -> Result<(), DocumentError> {
        match &self.poisoned {
            Some(reason) => Err(DocumentError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Sorts out what can be told without Automerge's help, and returns the rest in causal order.
    fn admit(&self, changes: &[RawChange], outcome: &mut Applied) -> Vec<(RawChange, Change)> {
        let mut tentative = self.history.branch();
        let mut ready = Vec::new();
        for raw in history::causal_order(changes, &self.history, &mut outcome.known) {
            let checked = tentative.check(raw).and_then(|()| parse(raw)).and_then(|change| {
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

    /// Applies what can be applied of `batch`, halving it around whatever makes it fail.
    fn apply_isolating(
        &mut self,
        batch: Vec<(RawChange, Change)>,
        outcome: &mut Applied,
    ) -> Result<(), DocumentError> {
        let mut parts = vec![batch];
        let mut failed = BTreeSet::new();
        while let Some(mut part) = parts.pop() {
            part.retain(|(raw, _)| {
                let Some(dependency) = raw.deps().find(|dep| failed.contains(dep)) else {
                    return true;
                };
                failed.insert(raw.hash());
                outcome.refused.push((raw.hash(), DocumentError::MissingDependency { dependency }));
                false
            });
            if part.is_empty() {
                continue;
            }
            match self.apply_batch(&part) {
                Ok(()) => {
                    outcome.applied.extend(part.iter().map(|(raw, _)| raw.hash()));
                    part.into_iter().for_each(|(raw, _)| self.history.push(raw));
                }
                Err(error) => {
                    self.rebuild()?;
                    if let [(raw, _)] = &part[..] {
                        failed.insert(raw.hash());
                        outcome.refused.push((raw.hash(), error));
                    } else {
                        let later = part.split_off(part.len() / 2);
                        parts.push(later);
                        parts.push(part);
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies a batch and checks that all of it can be had back. On an error the instance is unusable.
    fn apply_batch(&mut self, batch: &[(RawChange, Change)]) -> Result<(), DocumentError> {
        let automerge = &mut self.automerge;
        guard(|| automerge.apply_changes(batch.iter().map(|(_, change)| change.clone())))
            .map_err(|reason| DocumentError::Panicked { reason })?
            .map_err(|error| refused(&error))?;
        let reproduced = |(raw, _): &(RawChange, Change)| {
            let change = automerge.get_change_by_hash(&ChangeHash(raw.hash()));
            change.is_some_and(|change| change.raw_bytes() == raw.bytes())
        };
        // A panic on the way back out is one more way of not coming back out.
        if guard(|| batch.iter().all(reproduced)) != Ok(true) {
            return Err(DocumentError::NotReproduced);
        }
        check_applied(automerge, batch.iter().map(|(raw, _)| raw))
    }

    /// Replaces the instance by one made from the history.
    fn rebuild(&mut self) -> Result<(), DocumentError> {
        let (actor, history) = (&self.actor, &self.history);
        let rebuilt = guard(|| {
            let mut automerge = Automerge::new().with_actor(actor.clone());
            let changes = history.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            automerge.apply_changes(changes).map_err(|error| refused(&error))?;
            automerge.set_actor(actor.clone());
            Ok(automerge)
        })
        .unwrap_or_else(|reason| Err(DocumentError::Panicked { reason }))
        .and_then(|automerge| {
            let mut heads: Vec<_> = automerge.get_heads().into_iter().map(|head| head.0).collect();
            heads.sort_unstable();
            if heads == history.heads() { Ok(automerge) } else { Err(DocumentError::NotReproduced) }
        });
        match rebuilt {
            Ok(automerge) => {
                self.automerge = automerge;
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                self.automerge = Automerge::new();
                self.history = History::default();
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
        let automerge = &mut self.automerge;
        match guard(|| transact(automerge, heads, time_seconds, edit)) {
            Ok(Outcome::Committed(value, None)) => Ok((value, None)),
            Ok(Outcome::Committed(value, Some(hash))) => match self.committed(hash) {
                Ok(raw) => {
                    self.history.push(raw.clone());
                    Ok((value, Some(raw)))
                }
                Err(error) => {
                    self.rebuild().map_err(EditError::Document)?;
                    Err(too_large_or(error))
                }
            },
            Ok(Outcome::RolledBack(EditError::Panicked)) | Err(_) => {
                self.rebuild().map_err(EditError::Document)?;
                Err(EditError::Panicked)
            }
            Ok(Outcome::RolledBack(error)) => Err(error),
        }
    }

    /// The change just committed, held to the same rules as a foreign one.
    fn committed(&self, hash: ChangeHash) -> Result<RawChange, DocumentError> {
        let change = guard(|| self.automerge.get_change_by_hash(&hash))
            .map_err(|reason| DocumentError::Panicked { reason })?
            .ok_or(DocumentError::NotReproduced)?;
        let raw = RawChange::parse(change.raw_bytes())?;
        self.history.check(&raw)?;
        self.history.branch().check_parsed(&raw, &change)?;
        check_applied(&self.automerge, [&raw])?;
        Ok(raw)
    }
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

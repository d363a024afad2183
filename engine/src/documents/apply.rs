//! What change sets do to the rows of documents.

use std::cell::RefCell;
use std::collections::BTreeMap;

use comity_crdts::automerge::ChangeHash;
use comity_crdts::{Dot, Hlc, LaneId, LatestChange, ObjectAddress, OriginId, RawChange, SpaceId};

use crate::apply::{Effects, PendingStep, PendingWork, actor};
use crate::documents::admit::AdmittedRows;
use crate::documents::tail::{TailChange, TailRow, encode_latest};
use crate::documents::{DocumentCache, DocumentPlace, Reached, load, settle};
use crate::held::is_held;
use crate::journal::{ChangeAside, JournalReason, record_change};
use crate::keys;
use crate::options::TailLimits;
use crate::rows::{DocumentHeader, Object, Share};
use crate::site::Site;
use crate::space::{LaneRow, decode};
use crate::store::{LogRead, StateRead, StoreError};
use crate::work::Work;

/// Applies what a batch does to documents. What the rules refuse goes to the journal; the rest goes on.
pub(crate) fn flush(
    cache: &mut DocumentCache,
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    actor: [u8; 16],
) -> Result<(), StoreError> {
    let mut by_document: BTreeMap<ObjectAddress, Vec<PendingStep>> = BTreeMap::new();
    for pending in std::mem::take(&mut effects.documents) {
        by_document.entry(pending.address.clone()).or_default().push(pending);
    }
    for (address, steps) in by_document {
        let site = Site::top(space, &address);
        let place = DocumentPlace { space, address: &address, site: &site };
        let mut editor = Editor::open(work, effects, place)?;
        for step in &steps {
            match &step.what {
                PendingWork::Change(change) => {
                    let context = step.context();
                    let removal = editor.header.removals.iter().find(|removal| !context.sees(removal));
                    match removal.map(|removal| removal.dot) {
                        Some(by) => editor.refuse((step, change), (JournalReason::DocumentRemoved, by))?,
                        None => editor.admit(cache, step, change, actor)?,
                    }
                }
                PendingWork::Remove(heads) => {
                    editor.remove(step, heads, actor)?;
                    cache.evict(&site.id);
                }
            }
        }
        if let Some(changes) = editor.close(&cache.limits)? {
            cache.note_long(address, changes);
        }
    }
    Ok(())
}

/// Adds a change that was just made here to its document's rows; it is going to be in the entry at `at`.
pub(crate) fn store_edit(
    cache: &mut DocumentCache,
    work: &mut Work<'_>,
    effects: &mut Effects,
    place: DocumentPlace<'_>,
    (change, at): (&RawChange, (LaneId, u64)),
) -> Result<(), StoreError> {
    let (id, address) = (place.site.id, place.address.clone());
    let mut editor = Editor::open(work, effects, place)?;
    let row = editor.push(change, at);
    let reached = Reached::of(&editor.header);
    let long = editor.close(&cache.limits)?;
    cache.tail_grew(&id, row, reached);
    cache.edited(&id);
    if let Some(changes) = long {
        cache.note_long(address, changes);
    }
    Ok(())
}

/// Stands for the lane of a change whose actor is nobody's here.
fn unknown_author(change: &RawChange) -> OriginId {
    let mut origin = [0; 16];
    origin.copy_from_slice(&change.hash()[..16]);
    OriginId(origin)
}

/// One document's rows while a batch changes them.
struct Editor<'e, 'w> {
    work: &'e mut Work<'w>,
    effects: &'e mut Effects,
    place: DocumentPlace<'e>,
    header: DocumentHeader,
    before: Share,
}

impl<'e, 'w> Editor<'e, 'w> {
    fn open(
        work: &'e mut Work<'w>,
        effects: &'e mut Effects,
        place: DocumentPlace<'e>,
    ) -> Result<Self, StoreError> {
        let header = place.header(work)?;
        let before = Object::Document(header.clone()).share(&place.site.id);
        Ok(Self { work, effects, place, header, before })
    }

    /// Keeps the space's digest in step. Returns how many changes there are when the tail has become long.
    fn close(self, limits: &TailLimits) -> Result<Option<u64>, StoreError> {
        let long = settle::is_due(&self.header, limits).then_some(self.header.changes);
        if is_held(self.work, self.place.space, self.place.address)? {
            // It counts by that alone.
            return Ok(long);
        }
        let share = Object::Document(self.header).share(&self.place.site.id);
        self.effects.digest = self.effects.digest.wrapping_sub(self.before.digest).wrapping_add(share.digest);
        Ok(long)
    }

    fn store_header(&mut self) {
        self.place.site.store(self.work, &Object::Document(self.header.clone()));
    }

    fn refuse(
        &mut self,
        (step, change): (&PendingStep, &RawChange),
        (reason, by): (JournalReason, Dot),
    ) -> Result<(), StoreError> {
        self.effects.journalled = true;
        let (dot, written, at) = (step.dot, step.at, step.at);
        let aside = ChangeAside { dot, written, change: change.bytes(), reason, by, at };
        record_change(self.work, self.place.space, self.place.address, aside)
    }

    /// Adds a change to the document if the rules allow it, and journals it otherwise.
    fn admit(
        &mut self,
        cache: &mut DocumentCache,
        step: &PendingStep,
        change: &RawChange,
        actor: [u8; 16],
    ) -> Result<(), StoreError> {
        if self.header.heads.contains_key(&change.hash()) {
            return Ok(());
        }
        let known = AdmittedRows {
            read: self.work,
            place: &self.place,
            header: &self.header,
            cache: RefCell::new(cache),
            actor,
        };
        let verdict = known.verdict(change)?;
        match verdict {
            None => Ok(()),
            Some(Ok(())) => {
                let row = self.push(change, step.place());
                let (lane, lsn) = step.place();
                if step.was_held && self.work.lane_entry(self.place.space, &lane, lsn)?.is_none() {
                    let (seq, op, written) = (step.dot.seq, step.dot.index, step.at);
                    let carried = TailChange { seq, op, written, change: change.clone() };
                    self.work.put(
                        keys::document_change(&self.place.site.id, row.index),
                        row.with_change(&carried),
                    );
                }
                cache.tail_grew(&self.place.site.id, row, Reached::of(&self.header));
                Ok(())
            }
            Some(Err(error)) => {
                let reason = JournalReason::ChangeRefused { detail: error.to_string() };
                self.refuse((step, change), (reason, step.dot))
            }
        }
    }

    /// Adds a change that is in the entry at `at`.
    fn push(&mut self, change: &RawChange, (lane, lsn): (LaneId, u64)) -> TailRow {
        let (id, header) = (self.place.site.id, &mut self.header);
        let row =
            TailRow { lane, lsn, change: change.hash(), max_op: change.max_op(), index: header.changes };
        self.work.put(keys::document_change(&id, header.changes), row.to_bytes());
        let latest = LatestChange::of(change);
        self.work.put(keys::document_actor(&id, change.actor()), encode_latest(&latest));
        for dependency in change.deps() {
            header.heads.remove(&dependency);
        }
        header.heads.insert(change.hash(), change.max_op());
        header.changes += 1;
        header.bytes += change.bytes().len() as u64;
        self.store_header();
        row
    }

    /// Journals the changes that the author of a removal had not seen.
    fn set_aside(&mut self, step: &PendingStep, heads: &[[u8; 32]], own: [u8; 16]) -> Result<(), StoreError> {
        let (document, _) = load(self.work, &self.place, &self.header, own)?;
        let authors = self.authors()?;
        self.effects.journalled = true;
        for change in document.changes_since(heads) {
            let known = <[u8; 16]>::try_from(change.actor()).ok().and_then(|actor| authors.get(&actor));
            let origin = known.copied().unwrap_or_else(|| unknown_author(&change));
            let meta = document.automerge().get_change_meta_by_hash(&ChangeHash(change.hash()));
            let seconds = meta.map_or(0, |meta| u64::try_from(meta.timestamp).unwrap_or(0));
            let aside = ChangeAside {
                dot: Dot { origin, seq: change.seq(), index: 0 },
                written: Hlc::new(seconds.saturating_mul(1_000), 0),
                change: change.bytes(),
                reason: JournalReason::DocumentRemoved,
                by: step.dot,
                at: step.at,
            };
            record_change(self.work, self.place.space, self.place.address, aside)?;
        }
        Ok(())
    }

    /// The lanes of the space by the actors under which their owners edit. O(lanes).
    fn authors(&self) -> Result<BTreeMap<[u8; 16], OriginId>, StoreError> {
        let (from, until) = keys::lanes(self.place.space);
        let mut authors = BTreeMap::new();
        for (_, bytes) in self.work.scan(&from, &until, usize::MAX)? {
            let row: LaneRow = decode("lane row", &bytes)?;
            let origin = row.owner.lane(self.place.space);
            authors.insert(actor(&origin, &row.owner.nonce), origin);
        }
        Ok(authors)
    }

    /// Removes the document; changes that the author of the removal had not seen go to the journal.
    fn remove(&mut self, step: &PendingStep, heads: &[[u8; 32]], own: [u8; 16]) -> Result<(), StoreError> {
        if self.header.head_hashes() != heads && self.header.changes > 0 {
            self.set_aside(step, heads, own)?;
        }
        let id = self.place.site.id;
        let parts = [
            keys::document_tail(&id, 0),
            keys::document_actors(&id),
            keys::document_snapshots(&id),
            keys::quarantine_of(self.place.space, &id),
        ];
        for (from, until) in parts {
            for (key, _) in self.work.scan(&from, &until, usize::MAX)? {
                self.effects.released += u64::from(key[0] == keys::QUARANTINE);
                self.work.delete(key);
            }
        }
        let (context, mut removals) = (step.context(), std::mem::take(&mut self.header.removals));
        removals.retain(|removal| !context.sees(removal));
        removals.insert(context.place());
        let generation = self.header.generation + 1;
        self.header = DocumentHeader { removals, generation, ..DocumentHeader::default() };
        self.store_header();
        Ok(())
    }
}

//! Loaded documents, and how batches of their changes become rows.

use std::collections::BTreeMap;

use comity_crdts::automerge::{ChangeHash, ReadDoc};
use comity_crdts::{Document, Dot, Hlc, ObjectAddress, ObjectId, OriginId, RawChange, SpaceId};

use crate::apply::{Effects, PendingStep, PendingWork, actor, store_object};
use crate::journal::{ChangeAside, JournalReason, record_change};
use crate::keys;
use crate::rows::{DocumentHeader, Object, damaged};
use crate::site::Site;
use crate::space::{LaneRow, decode};
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// Raw bytes of changes whose documents stay loaded, per space; the least recently used go first.
const LOADED_BYTES_MAX: u64 = 64 * 1024 * 1024;

struct Loaded {
    document: Document,
    bytes: u64,
    used: u64,
}

/// The documents of one space that are loaded. Any of them can be dropped at any time: rows are the truth.
#[derive(Default)]
pub(crate) struct DocumentCache {
    loaded: BTreeMap<ObjectId, Loaded>,
    uses: u64,
}

impl DocumentCache {
    /// The document, loaded if need be: O(history) then, O(log n) otherwise.
    pub(crate) fn load(
        &mut self,
        read: &dyn StateRead,
        id: &ObjectId,
        actor: [u8; 16],
    ) -> Result<&mut Document, StoreError> {
        self.uses += 1;
        if !self.loaded.contains_key(id) {
            let (document, bytes) = read_document(read, id, actor)?;
            self.make_room(bytes);
            self.loaded.insert(*id, Loaded { document, bytes, used: 0 });
        }
        let loaded = self.loaded.get_mut(id).expect("the document was inserted above when it was absent");
        loaded.used = self.uses;
        Ok(&mut loaded.document)
    }

    /// Drops a document whose memory is ahead of its rows.
    pub(crate) fn evict(&mut self, id: &ObjectId) {
        self.loaded.remove(id);
    }

    /// Drops everything, as after a batch that was not committed or when the actor changes.
    pub(crate) fn clear(&mut self) {
        self.loaded.clear();
    }

    /// Counts bytes added to a loaded document, and makes room for them.
    pub(crate) fn grew(&mut self, id: &ObjectId, bytes: u64) {
        if let Some(loaded) = self.loaded.get_mut(id) {
            loaded.bytes += bytes;
        }
        self.make_room(0);
    }

    fn make_room(&mut self, incoming: u64) {
        let mut total: u64 = incoming + self.loaded.values().map(|loaded| loaded.bytes).sum::<u64>();
        while total > LOADED_BYTES_MAX && self.loaded.len() > 1 {
            let oldest = self.loaded.iter().min_by_key(|(_, loaded)| loaded.used).map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            total -= self.loaded.remove(&oldest).map_or(0, |loaded| loaded.bytes);
        }
    }
}

/// Loads a document from its rows, without caching. O(history).
pub(crate) fn read_document(
    read: &dyn StateRead,
    id: &ObjectId,
    actor: [u8; 16],
) -> Result<(Document, u64), StoreError> {
    let (from, until) = keys::document_changes(id);
    let rows = read.scan(&from, &until, usize::MAX)?;
    let chunks: Vec<Vec<u8>> = rows.into_iter().map(|(_, bytes)| bytes).collect();
    let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let document = if chunks.is_empty() { Ok(Document::new(actor)) } else { Document::load(&chunks, actor) };
    Ok((document.map_err(|error| damaged("document", &error))?, bytes))
}

/// Adds changes that `document` already holds to its rows.
pub(crate) fn store_changes<'c>(
    work: &mut Work<'_>,
    effects: &mut Effects,
    site: &Site,
    heads: Vec<[u8; 32]>,
    changes: impl Iterator<Item = &'c RawChange>,
) -> Result<(), StoreError> {
    let object = site.load(work)?;
    let before = object.share(&site.id);
    let Object::Document(header) = object else { return Ok(()) };
    let mut after = DocumentHeader { heads, ..header };
    for change in changes {
        work.put(keys::document_change(&site.id, after.changes), change.bytes().to_vec());
        after.changes += 1;
        after.bytes += change.bytes().len() as u64;
    }
    store_object(work, effects, site, (before, &Object::Document(after)));
    Ok(())
}

/// Applies what a batch does to documents: changes of one document that follow each other in one call, because a
/// call costs O(document). What the library refuses goes to the journal; the rest goes on.
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
        let mut editor = Editor { cache, work, effects, space, site: Site::top(space, &address), actor };
        let mut changes = Vec::new();
        for step in &steps {
            match &step.what {
                PendingWork::Change(change) => {
                    if let Some(by) = editor.removal(step)? {
                        editor.refuse(&address, (step, change), (JournalReason::DocumentRemoved, by))?;
                    } else {
                        changes.push((step, change.clone()));
                    }
                }
                PendingWork::Remove(heads) => {
                    editor.apply(&address, &std::mem::take(&mut changes))?;
                    editor.remove(&address, step, heads)?;
                }
            }
        }
        editor.apply(&address, &changes)?;
    }
    Ok(())
}

/// Stands for the lane of a change whose actor is nobody's here.
fn unknown_author(change: &RawChange) -> OriginId {
    let mut origin = [0; 16];
    origin.copy_from_slice(&change.hash()[..16]);
    OriginId(origin)
}

/// One document while a batch changes it.
struct Editor<'e, 'w> {
    cache: &'e mut DocumentCache,
    work: &'e mut Work<'w>,
    effects: &'e mut Effects,
    space: &'e SpaceId,
    site: Site,
    actor: [u8; 16],
}

impl Editor<'_, '_> {
    fn header(&self) -> Result<DocumentHeader, StoreError> {
        match self.site.load(self.work)? {
            Object::Document(header) => Ok(header),
            _ => Ok(DocumentHeader::default()),
        }
    }

    /// A removal of the document that the author of a step had not seen.
    fn removal(&self, step: &PendingStep) -> Result<Option<Dot>, StoreError> {
        let (context, removals) = (step.context(), self.header()?.removals);
        Ok(removals.iter().find(|removal| !context.sees(removal)).map(|removal| removal.dot))
    }

    fn refuse(
        &mut self,
        address: &ObjectAddress,
        (step, change): (&PendingStep, &RawChange),
        (reason, by): (JournalReason, Dot),
    ) -> Result<(), StoreError> {
        self.effects.journalled = true;
        let (dot, written, at) = (step.dot, step.at, step.at);
        let aside = ChangeAside { dot, written, change: change.bytes(), reason, by, at };
        record_change(self.work, self.space, address, aside)
    }

    fn apply(
        &mut self,
        address: &ObjectAddress,
        steps: &[(&PendingStep, RawChange)],
    ) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        let id = self.site.id;
        let document = self.cache.load(self.work, &id, self.actor)?;
        let changes: Vec<RawChange> = steps.iter().map(|(_, change)| change.clone()).collect();
        let outcome = match document.apply(&changes) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.cache.evict(&id);
                return Err(damaged("document", &error));
            }
        };
        let heads = document.heads();
        let by_hash: BTreeMap<[u8; 32], &RawChange> = changes.iter().map(|c| (c.hash(), c)).collect();
        let applied: Vec<&RawChange> =
            outcome.applied.iter().filter_map(|hash| by_hash.get(hash).copied()).collect();
        let grown = applied.iter().map(|change| change.bytes().len() as u64).sum();
        store_changes(self.work, self.effects, &self.site, heads, applied.into_iter())?;
        self.cache.grew(&id, grown);
        for (hash, error) in outcome.refused {
            for (step, change) in steps.iter().filter(|(_, change)| change.hash() == hash) {
                let reason = JournalReason::ChangeRefused { detail: error.to_string() };
                self.refuse(address, (step, change), (reason, step.dot))?;
            }
        }
        Ok(())
    }

    /// Journals the changes that the author of a removal had not seen.
    fn set_aside(
        &mut self,
        address: &ObjectAddress,
        step: &PendingStep,
        heads: &[[u8; 32]],
    ) -> Result<(), StoreError> {
        let (document, _) = read_document(self.work, &self.site.id, self.actor)?;
        let authors = self.authors()?;
        self.effects.journalled = true;
        for change in document.changes_since(heads) {
            let known = <[u8; 16]>::try_from(change.actor()).ok().and_then(|actor| authors.get(&actor));
            let origin = known.copied().unwrap_or_else(|| unknown_author(&change));
            let meta = document.automerge().get_change_by_hash(&ChangeHash(change.hash()));
            let seconds = meta.map_or(0, |meta| u64::try_from(meta.timestamp()).unwrap_or(0));
            let aside = ChangeAside {
                dot: Dot { origin, seq: change.seq(), index: 0 },
                written: Hlc::new(seconds.saturating_mul(1_000), 0),
                change: change.bytes(),
                reason: JournalReason::DocumentRemoved,
                by: step.dot,
                at: step.at,
            };
            record_change(self.work, self.space, address, aside)?;
        }
        Ok(())
    }

    /// The lanes of the space by the actors under which their owners edit. O(lanes).
    fn authors(&self) -> Result<BTreeMap<[u8; 16], OriginId>, StoreError> {
        let (from, until) = keys::lanes(self.space);
        let mut authors = BTreeMap::new();
        for (_, bytes) in self.work.scan(&from, &until, usize::MAX)? {
            let row: LaneRow = decode("lane row", &bytes)?;
            let origin = row.owner.lane(self.space);
            authors.insert(actor(&origin, &row.owner.nonce), origin);
        }
        Ok(authors)
    }

    /// Removes the document; changes that the author of the removal had not seen go to the journal.
    fn remove(
        &mut self,
        address: &ObjectAddress,
        step: &PendingStep,
        heads: &[[u8; 32]],
    ) -> Result<(), StoreError> {
        let header = self.header()?;
        let before = Object::Document(header.clone()).share(&self.site.id);
        if header.heads != heads && header.changes > 0 {
            self.set_aside(address, step, heads)?;
        }
        for index in 0..header.changes {
            self.work.delete(keys::document_change(&self.site.id, index));
        }
        self.cache.evict(&self.site.id);
        let (context, mut removals) = (step.context(), header.removals);
        removals.retain(|removal| !context.sees(removal));
        removals.insert(context.place());
        let after = Object::Document(DocumentHeader { removals, ..DocumentHeader::default() });
        store_object(self.work, self.effects, &self.site, (before, &after));
        Ok(())
    }
}

//! Views: consistent reads of durable state.

use std::sync::Arc;

use comity_crdts::{
    BoundedCounter, Document, Frontier, Kind, ObjectAddress, Policy, PolicyRegistry, ReplicaId, SpaceId,
    check_collection,
};
use comity_engine::{
    Conflict, JournalEntry, JournalPlace, JournalTotals, Listing, Location, QuarantinedChange, ReadError,
    Repair, Replayed, StateRead, StoreError, Token, counter_at, flag_at, policy_of, register_at,
};
use comity_store::Snapshot;

use crate::documents::Documents;
use crate::handles::{MapReader, RegisterReader, SetReader, ViewObject, load_bounded};
use crate::place::Place;

/// The durable state of a space at one moment. It never changes, never shows part of a change set, and
/// expires after 30 s so that storage can be reclaimed; open another then.
pub struct View {
    snapshot: Snapshot,
    space: SpaceId,
    registry: Arc<PolicyRegistry>,
    documents: Arc<Documents>,
}

impl View {
    pub(crate) fn new(
        snapshot: Snapshot,
        space: SpaceId,
        (registry, documents): (&Arc<PolicyRegistry>, &Arc<Documents>),
    ) -> Self {
        Self { snapshot, space, registry: Arc::clone(registry), documents: Arc::clone(documents) }
    }

    pub(crate) fn registry(&self) -> &Arc<PolicyRegistry> {
        &self.registry
    }

    pub(crate) fn read<R>(
        &self,
        place: &Place,
        read: impl FnOnce(&dyn StateRead, &SpaceId, &Location) -> Result<R, ReadError>,
    ) -> Result<R, ReadError> {
        read(&self.snapshot, &self.space, &place.at()?)
    }

    fn object(&self, kind: Kind, collection: &str, key: &str) -> ViewObject<'_> {
        ViewObject { view: self, place: Place::new(kind, collection, key) }
    }

    /// Exactly what this view shows, as a token: whoever presents it elsewhere sees at least as much. O(lanes).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn token(&self) -> Result<Token, ReadError> {
        let frontier = comity_engine::frontier(&self.snapshot, &self.space)?;
        Ok(Token { space: self.space, frontier })
    }

    /// A counter's value; 0 when nothing was ever added.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn counter(&self, collection: &str, key: &str) -> Result<i128, ReadError> {
        self.object(Kind::Counter, collection, key).read(counter_at)
    }

    /// A bounded counter: its value, and who holds how many rights to it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn bounded_counter(&self, collection: &str, key: &str) -> Result<BoundedCounter, ReadError> {
        self.object(Kind::BoundedCounter, collection, key).read(load_bounded)
    }

    /// A register, to be read under a policy.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn register(&self, collection: &str, key: &str) -> Result<RegisterReader, ReadError> {
        let register = self.object(Kind::Register, collection, key);
        register.read(|read, space, at| RegisterReader::load(read, space, at, &self.registry))
    }

    /// An add-wins set.
    pub fn set(&self, collection: &str, key: &str) -> SetReader<'_> {
        SetReader(self.object(Kind::Set, collection, key))
    }

    /// A remove-wins set.
    pub fn remove_wins_set(&self, collection: &str, key: &str) -> SetReader<'_> {
        SetReader(self.object(Kind::RwSet, collection, key))
    }

    /// Whether an enable-wins flag is enabled.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn flag(&self, collection: &str, key: &str) -> Result<bool, ReadError> {
        self.object(Kind::Flag, collection, key).read(flag_at)
    }

    /// Whether a disable-wins flag is enabled.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn disable_wins_flag(&self, collection: &str, key: &str) -> Result<bool, ReadError> {
        self.object(Kind::DwFlag, collection, key).read(flag_at)
    }

    /// A map.
    pub fn map(&self, collection: &str, key: &str) -> MapReader<'_> {
        MapReader(self.object(Kind::Map, collection, key))
    }

    /// A document. All readers share one instance of it: the first one loads it, which takes O(document), later ones
    /// take what applying the changes takes that came since. Whoever holds on to it holds this version, and has it
    /// copied once there is a newer one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn document(&self, collection: &str, key: &str) -> Result<Arc<Document>, ReadError> {
        self.documents.read(&self.snapshot, &self.space, collection, key)
    }

    /// At most `limit` changes of documents that were admitted and that the document library then refused: who made
    /// them, and why they are not shown. They are in the journal, too.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn quarantined(&self, limit: usize) -> Result<Vec<QuarantinedChange>, StoreError> {
        comity_engine::quarantined(&self.snapshot, &self.space, limit)
    }

    /// What audits found to be wrong here and made again, oldest first: the last 32 objects, each with the rows that were there
    /// before.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn repairs(&self) -> Result<Vec<Repair>, StoreError> {
        comity_engine::repairs(&self.snapshot, &self.space)
    }

    /// A document's heads, sorted. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn document_heads(&self, collection: &str, key: &str) -> Result<Vec<[u8; 32]>, ReadError> {
        comity_engine::document_heads(&self.snapshot, &self.space, collection, key)
    }

    /// The keys of objects that hold something.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn list(&self, listing: Listing<'_>) -> Result<Vec<String>, ReadError> {
        comity_engine::list(&self.snapshot, &self.space, listing)
    }

    /// At most `limit` collections after `after` in which an object of this kind holds something, in byte order.
    /// O(collections · log n), and O(objects) for those of a collection that hold nothing any more.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn collections(
        &self,
        kind: Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, ReadError> {
        comity_engine::collections(&self.snapshot, &self.space, kind, after, limit)
    }

    /// The policy under which the registers of a collection are read; last-writer-wins where none was set. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn policy(&self, collection: &str) -> Result<Policy, ReadError> {
        check_collection(collection)?;
        Ok(policy_of(&self.snapshot, &self.space, collection)?)
    }

    /// As [`View::policy`], of a collection that is one.
    pub(crate) fn policy_of(&self, collection: &str) -> Result<Policy, StoreError> {
        policy_of(&self.snapshot, &self.space, collection)
    }

    /// The region that a replica says it is in; `None` until something arrived in which it says one. O(log n).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn region_of(&self, replica: &ReplicaId) -> Result<Option<String>, StoreError> {
        comity_engine::region_of(&self.snapshot, &self.space, replica)
    }

    /// Whether a register, if it is one, holds a value that is within a frontier. Where the log does not tell any more, it is
    /// taken not to.
    pub(crate) fn holds_value_of(&self, location: &Location, seen: &Frontier) -> Result<bool, StoreError> {
        let register = match register_at(&self.snapshot, &self.space, location) {
            Ok(register) => register,
            Err(ReadError::Store(error)) => return Err(error),
            // What it holds is not known.
            Err(ReadError::Held { .. }) => return Ok(false),
            // Its place was read from a change set that was applied.
            Err(error) => return Err(StoreError::Corrupt { detail: error.to_string() }),
        };
        for dot in register.dots() {
            let lsn = comity_engine::position_of(&self.snapshot, &self.space, (&dot.origin, dot.seq))?;
            if lsn.is_some_and(|lsn| lsn <= seen.at(&dot.origin)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// At most `limit` conflicts after the place `after`, in the order of their places: registers whose
    /// collection's policy shows several values, and keys of maps that lead to several kinds. O(registers with
    /// several values that are passed).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn conflicts(&self, after: Option<&Location>, limit: usize) -> Result<Vec<Conflict>, StoreError> {
        comity_engine::conflicts(&self.snapshot, &self.space, &self.registry, after, limit)
    }

    /// The conflict in one place, if there is one. O(siblings).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn conflict_at(&self, location: &Location) -> Result<Option<Conflict>, StoreError> {
        comity_engine::conflict_at(&self.snapshot, &self.space, &self.registry, location)
    }

    /// The oldest `limit` journal entries: what was set aside, with why. It is this replica's own record: what went before
    /// something else arrived here may have been set aside elsewhere, and the other way round. Settings are registers too.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        comity_engine::journal(&self.snapshot, &self.space, limit)
    }

    /// At most `limit` journal entries after the place `after`, oldest first, of one object where it is named, each with
    /// its place, which asks for the next page. O(entries · log n).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal_after(
        &self,
        object: Option<&ObjectAddress>,
        after: Option<&JournalPlace>,
        limit: usize,
    ) -> Result<Vec<(JournalPlace, JournalEntry)>, StoreError> {
        comity_engine::journal_after(&self.snapshot, &self.space, object, after, limit)
    }

    /// The oldest `limit` journal entries of one place and everything nested in it. O(entries) for an object;
    /// O(entries of the whole map) for a place in one.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal_of(&self, location: &Location, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        let (object, path) = (&location.object, &location.path);
        if path.is_empty() {
            return comity_engine::journal_of(&self.snapshot, &self.space, object, limit);
        }
        let mut entries = comity_engine::journal_of(&self.snapshot, &self.space, object, usize::MAX)?;
        entries.retain(|entry| entry.location.path.starts_with(path));
        entries.truncate(limit);
        Ok(entries)
    }

    /// How much the journal holds, and how much of it was forgotten.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal_totals(&self) -> Result<JournalTotals, StoreError> {
        comity_engine::journal_totals(&self.snapshot, &self.space)
    }

    /// What a policy would have shown of each conflict in the oldest `limit` journal entries, before it was decided.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn replay(&self, policy: &Policy, limit: usize) -> Result<Vec<Replayed>, StoreError> {
        comity_engine::replay(&self.snapshot, &self.space, (policy, &self.registry), limit)
    }
}

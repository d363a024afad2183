//! Local transactions: one atomic change set over any number of objects.

mod error;

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::limits::{
    CHANGE_SET_BYTES_MAX, CHANGE_SET_OBJECTS_MAX, CHANGE_SET_OPS_MAX, CONTEXT_DOTS_MAX, ELEMENT_BYTES_MAX,
    LANES_MAX, VALUE_BYTES_MAX,
};
use comity_crdts::{
    Document, Dot, EditError, Hlc, Kind, MvRegister, Nonce, ObjectAddress, ObjectId, RawChange, ReplicaId,
    SpaceId, Value, automerge, canary,
};

use crate::apply::{Application, Effects, actor, load_element, load_object};
use crate::change::{Body, ChangeSet, LaneEntry, LaneOwner, LaneTip, encode_stored};
use crate::documents::store_changes;
use crate::keys;
use crate::op::{Group, Op, Role};
use crate::read::{self, Listing};
use crate::rows::Object;
use crate::space::{Incarnation, Lane, Space};
use crate::store::{LaneRecord, StateRead, StoreError};
use crate::work::Work;

pub use error::TxError;

/// An open transaction on one space. Reads see the newest applied state and the transaction's own
/// operations. Everything it did becomes one change set, or nothing.
pub struct Tx<'a> {
    space: &'a mut Space,
    replica: ReplicaId,
    incarnation: Incarnation,
    minted: bool,
    work: Work<'a>,
    effects: Effects,
    groups: Vec<Group>,
    index: BTreeMap<ObjectAddress, usize>,
    edited: BTreeSet<ObjectId>,
    ops: usize,
    /// Of the values in the operations so far: a lower bound of the change set's size, so that a transaction
    /// that will be refused does not fill the memory first.
    value_bytes: usize,
    hlc: Hlc,
}

/// What a finished transaction hands to the engine.
pub(crate) struct Finished {
    pub(crate) batch: crate::store::Batch,
    pub(crate) incarnation: Incarnation,
    pub(crate) minted: bool,
    pub(crate) tip: LaneTip,
    pub(crate) progress: crate::space::Progress,
    pub(crate) space_row: Option<crate::space::SpaceRow>,
    pub(crate) objects: Vec<ObjectAddress>,
    pub(crate) members_changed: bool,
}

impl<'a> Tx<'a> {
    pub(crate) fn begin(
        space: &'a mut Space,
        below: &'a dyn StateRead,
        replica: ReplicaId,
        now: &crate::io::Now,
    ) -> Self {
        let hlc = space.clock.tick(now.wall_ms);
        let current = space.incarnation.filter(|_| !canary!(IncarnationPerWrite));
        let minted = current.is_none();
        let incarnation = current.unwrap_or_else(|| {
            let counted = Nonce([space.lanes.len() as u8; 16]);
            let nonce = if canary!(IncarnationCounted) { counted } else { now.fresh };
            let owner = LaneOwner { replica, nonce };
            Incarnation { origin: owner.lane(&space.id), nonce }
        });
        if minted {
            // Loaded documents carry the actor of the incarnation they were loaded in.
            space.documents.clear();
        }
        Self {
            space,
            replica,
            incarnation,
            minted,
            work: Work::over(below),
            effects: Effects::default(),
            groups: Vec::new(),
            index: BTreeMap::new(),
            edited: BTreeSet::new(),
            ops: 0,
            value_bytes: 0,
            hlc,
        }
    }

    /// The space the transaction is on.
    pub fn space(&self) -> SpaceId {
        self.space.id
    }

    /// The stamp of the transaction.
    pub fn hlc(&self) -> Hlc {
        self.hlc
    }

    /// The state the transaction sees, for the functions of the read API.
    pub fn state(&self) -> &dyn StateRead {
        &self.work
    }

    fn seq(&self) -> u64 {
        self.space.lanes.get(&self.incarnation.origin).map_or(0, |lane| lane.row.tip.seq) + 1
    }

    /// The group of an object, made when absent.
    fn group(&mut self, address: &ObjectAddress) -> Result<usize, TxError> {
        if self.ops >= CHANGE_SET_OPS_MAX {
            return Err(TxError::TooManyOps { ops_max: CHANGE_SET_OPS_MAX });
        }
        if let Some(index) = self.index.get(address) {
            return Ok(*index);
        }
        if self.groups.len() >= CHANGE_SET_OBJECTS_MAX {
            return Err(TxError::TooManyObjects { objects_max: CHANGE_SET_OBJECTS_MAX });
        }
        self.groups.push(Group { address: address.clone(), ops: Vec::new() });
        self.index.insert(address.clone(), self.groups.len() - 1);
        Ok(self.groups.len() - 1)
    }

    fn check_size(&self, added: usize) -> Result<usize, TxError> {
        let bytes = self.value_bytes + added;
        if bytes > CHANGE_SET_BYTES_MAX {
            return Err(TxError::TooLarge { bytes, bytes_max: CHANGE_SET_BYTES_MAX });
        }
        Ok(bytes)
    }

    fn apply(&mut self, address: &ObjectAddress, dot: Dot, op: &Op) -> Result<(), StoreError> {
        let lane = self.incarnation.origin;
        let application = Application {
            space: &self.space.id,
            author: &self.replica,
            context: &self.space.frontier,
            place: (lane, self.space.frontier.at(&lane) + 1),
            at: self.hlc,
        };
        application.apply(&mut self.work, &mut self.effects, address, dot, op)
    }

    fn push(&mut self, address: &ObjectAddress, op: Op) -> Result<(), TxError> {
        let value_bytes = self.check_size(op.value_bytes())?;
        let group = self.group(address)?;
        let index = self.groups[group].ops.len() as u16;
        let dot = Dot { origin: self.incarnation.origin, seq: self.seq(), index };
        self.apply(address, dot, &op)?;
        self.groups[group].ops.push(op);
        self.ops += 1;
        self.value_bytes = value_bytes;
        Ok(())
    }

    /// Adds to a counter. Additions to one counter in one transaction become one operation.
    ///
    /// # Errors
    /// [`TxError`] when the name or the resulting value is out of range.
    pub fn counter_add(&mut self, collection: &str, key: &str, delta: i64) -> Result<(), TxError> {
        let address = ObjectAddress::new(Kind::Counter, collection, key)?;
        if let Object::Counter(counter) = load_object(&self.work, &self.space.id, &address)? {
            let object = address.clone();
            counter.check_add(delta).map_err(|source| TxError::Counter { object, source })?;
        }
        let earlier = self.index.get(&address).map(|group| &self.groups[*group].ops[0]);
        if let Some(Op::CounterAdd(earlier)) = earlier
            && let Some(sum) = earlier.checked_add(delta)
        {
            let dot = Dot { origin: self.incarnation.origin, seq: self.seq(), index: 0 };
            let added = if canary!(CounterAddsTwice) { sum } else { delta };
            self.apply(&address, dot, &Op::CounterAdd(added))?;
            let group = self.index[&address];
            self.groups[group].ops[0] = Op::CounterAdd(sum);
            return Ok(());
        }
        self.push(&address, Op::CounterAdd(delta))
    }

    /// Adds an element to a set.
    ///
    /// # Errors
    /// [`TxError`] when the name or the element is out of limits.
    pub fn set_add(&mut self, collection: &str, key: &str, element: Value) -> Result<(), TxError> {
        let (address, observed) = self.observe_element(collection, key, &element)?;
        self.push(&address, Op::SetAdd { element, observed })
    }

    /// Removes an element from a set; nothing happens when it is not there.
    ///
    /// # Errors
    /// [`TxError`] when the name or the element is out of limits.
    pub fn set_remove(&mut self, collection: &str, key: &str, element: Value) -> Result<(), TxError> {
        let (address, observed) = self.observe_element(collection, key, &element)?;
        if observed.is_empty() {
            return Ok(());
        }
        self.push(&address, Op::SetRemove { element, observed })
    }

    fn observe_element(
        &self,
        collection: &str,
        key: &str,
        element: &Value,
    ) -> Result<(ObjectAddress, Vec<Dot>), TxError> {
        let address = ObjectAddress::new(Kind::Set, collection, key)?;
        element
            .check(ELEMENT_BYTES_MAX)
            .map_err(|source| TxError::Value { object: address.clone(), source })?;
        let id = ObjectId::derive(&self.space.id, &address);
        let dots = load_element(&self.work, &keys::element(&id, &element.to_bytes()))?;
        let observed = self.checked_dots(&address, dots.dots().collect())?;
        Ok((address, observed))
    }

    fn checked_dots(&self, address: &ObjectAddress, dots: Vec<Dot>) -> Result<Vec<Dot>, TxError> {
        if dots.len() > CONTEXT_DOTS_MAX {
            let (object, dots) = (address.clone(), dots.len());
            return Err(TxError::TooManySiblings { object, dots, dots_max: CONTEXT_DOTS_MAX });
        }
        Ok(dots)
    }

    fn load_register(&self, address: &ObjectAddress) -> Result<MvRegister, TxError> {
        match load_object(&self.work, &self.space.id, address)? {
            Object::Register(register) => Ok(register),
            _ => Ok(MvRegister::default()),
        }
    }

    /// Writes a register, replacing every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when the name or the value is out of limits.
    pub fn register_write(&mut self, collection: &str, key: &str, value: Value) -> Result<(), TxError> {
        let address = ObjectAddress::new(Kind::Register, collection, key)?;
        let register = self.load_register(&address)?;
        let observed = register.dots();
        self.register_set(&address, &register, value, observed)
    }

    /// Writes a register, replacing only the siblings the caller names: those it saw when it decided. A value
    /// written meanwhile stays.
    ///
    /// # Errors
    /// [`TxError`] when the name or the value is out of limits.
    pub fn register_resolve(
        &mut self,
        collection: &str,
        key: &str,
        value: Value,
        seen: &[Dot],
    ) -> Result<(), TxError> {
        let address = ObjectAddress::new(Kind::Register, collection, key)?;
        let register = self.load_register(&address)?;
        let observed = register.dots().into_iter().filter(|dot| seen.contains(dot)).collect();
        self.register_set(&address, &register, value, observed)
    }

    fn register_set(
        &mut self,
        address: &ObjectAddress,
        register: &MvRegister,
        value: Value,
        observed: Vec<Dot>,
    ) -> Result<(), TxError> {
        value.check(VALUE_BYTES_MAX).map_err(|source| TxError::Value { object: address.clone(), source })?;
        let observed = self.checked_dots(address, observed)?;
        let hlc = register.stamp(self.hlc);
        self.push(address, Op::RegisterSet { value, hlc, observed })
    }

    /// Empties a register of every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits.
    pub fn register_clear(&mut self, collection: &str, key: &str) -> Result<(), TxError> {
        let address = ObjectAddress::new(Kind::Register, collection, key)?;
        let observed = self.checked_dots(&address, self.load_register(&address)?.dots())?;
        if observed.is_empty() {
            return Ok(());
        }
        self.push(&address, Op::RegisterReset { observed })
    }

    /// Edits a document through automerge's transaction API. What the closure does is one automerge change.
    ///
    /// # Errors
    /// What the closure returns; otherwise [`TxError`] when the name is out of limits, the edit is too large,
    /// or the document refuses it. Nothing of the edit is kept then.
    pub fn document_edit<R, E: From<TxError>>(
        &mut self,
        collection: &str,
        key: &str,
        edit: impl FnOnce(&mut automerge::transaction::Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let seconds = (self.hlc.millis() / 1_000) as i64;
        self.edit_with(collection, key, |document| document.edit(seconds, edit))
    }

    /// As [`Tx::document_edit`], on the version that `heads` name instead of the newest.
    ///
    /// # Errors
    /// As [`Tx::document_edit`], and when the document does not hold the version.
    pub fn document_edit_at<R, E: From<TxError>>(
        &mut self,
        collection: &str,
        key: &str,
        heads: &[[u8; 32]],
        edit: impl FnOnce(&mut automerge::transaction::Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let seconds = (self.hlc.millis() / 1_000) as i64;
        self.edit_with(collection, key, |document| document.edit_at(heads, seconds, edit))
    }

    fn edit_with<R, E: From<TxError>>(
        &mut self,
        collection: &str,
        key: &str,
        edit: impl FnOnce(&mut Document) -> Result<(R, Option<RawChange>), EditError<E>>,
    ) -> Result<R, E> {
        let address = ObjectAddress::new(Kind::Document, collection, key).map_err(TxError::from)?;
        let id = ObjectId::derive(&self.space.id, &address);
        let group = self.group(&address)?;
        let actor = actor(&self.incarnation.origin, &self.incarnation.nonce);
        self.edited.insert(id);
        let document = self.space.documents.load(&self.work, &id, actor).map_err(TxError::from)?;
        let (result, change) = match edit(document) {
            Ok(done) => done,
            Err(error) => {
                let poisoned = matches!(error, EditError::Panicked | EditError::Document(_));
                let error = edit_error(&address, error);
                if poisoned {
                    // Its memory may hold half an edit; the rows hold what was committed, but not what this
                    // transaction did before, so the transaction cannot go on with the document.
                    self.space.documents.evict(&id);
                }
                return Err(error);
            }
        };
        let Some(change) = change else { return Ok(result) };
        let heads = document.heads();
        let value_bytes = match self.check_size(change.bytes().len()) {
            Ok(value_bytes) => value_bytes,
            Err(error) => {
                // Its memory holds the edit, which is not kept.
                self.space.documents.evict(&id);
                return Err(error.into());
            }
        };
        let changes = std::iter::once(&change);
        store_changes(&mut self.work, &mut self.effects, &self.space.id, &address, heads, changes)
            .map_err(TxError::from)?;
        self.space.documents.grew(&id, change.bytes().len() as u64);
        self.groups[group].ops.push(Op::DocumentChange(change));
        self.ops += 1;
        self.value_bytes = value_bytes;
        Ok(result)
    }

    /// A document as the transaction sees it.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits or storage fails.
    pub fn document(&mut self, collection: &str, key: &str) -> Result<&Document, TxError> {
        let address = ObjectAddress::new(Kind::Document, collection, key)?;
        let id = ObjectId::derive(&self.space.id, &address);
        let actor = actor(&self.incarnation.origin, &self.incarnation.nonce);
        Ok(self.space.documents.load(&self.work, &id, actor)?)
    }

    /// The keys of objects that hold something, as the transaction sees them.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits or storage fails.
    pub fn list(&self, listing: Listing<'_>) -> Result<Vec<String>, TxError> {
        Ok(read::list(&self.work, &self.space.id, listing)?)
    }

    pub(crate) fn grant(&mut self, replica: ReplicaId, role: Role) -> Result<(), TxError> {
        use comity_crdts::limits::MEMBERS_MAX;
        if self.space.members.len() >= MEMBERS_MAX {
            return Err(TxError::TooManyMembers { members_max: MEMBERS_MAX });
        }
        self.push(&ObjectAddress::members(), Op::Grant { replica, role })
    }

    pub(crate) fn work(&mut self) -> &mut Work<'a> {
        &mut self.work
    }

    /// Undoes everything. Documents that were edited are loaded again when next needed.
    pub(crate) fn roll_back(self) {
        for id in &self.edited {
            self.space.documents.evict(id);
        }
    }

    /// Makes the change set and everything that is committed with it; `None` when nothing was done.
    pub(crate) fn finish(
        mut self,
        instance: &crate::space::InstanceToken,
    ) -> Result<Option<Finished>, TxError> {
        // An edit that changed nothing leaves a group without operations behind.
        self.groups.retain(|group| !group.ops.is_empty());
        if self.groups.is_empty() {
            return Ok(None);
        }
        let lanes = self.space.lanes.len();
        if self.minted && lanes >= LANES_MAX {
            self.roll_back();
            return Err(TxError::TooManyLanes { lanes, lanes_max: LANES_MAX });
        }
        let origin = self.incarnation.origin;
        let fresh_lane =
            Lane::new(&self.space.id, LaneOwner { replica: self.replica, nonce: self.incarnation.nonce });
        let lane = self.space.lanes.get(&origin).unwrap_or(&fresh_lane);
        let before = &lane.row.tip;
        let context: comity_crdts::Frontier =
            self.space.frontier.iter().filter(|(lane, _)| *lane != origin).collect();
        let objects = self.groups.iter().map(|group| group.address.clone()).collect();
        let change = ChangeSet {
            origin,
            seq: before.seq + 1,
            prev: before.change_hash,
            context: context.clone(),
            hlc: self.hlc,
            groups: std::mem::take(&mut self.groups),
        };
        let entry = LaneEntry { admitted: context, at: self.hlc.max(before.at), body: Body::Change(change) };
        let tip = before.after(&self.space.id, &entry);
        let bytes = encode_stored(&self.space.id, &origin, &tip.hash, &entry);
        if bytes.len() > CHANGE_SET_BYTES_MAX {
            let bytes = bytes.len();
            self.roll_back();
            return Err(TxError::TooLarge { bytes, bytes_max: CHANGE_SET_BYTES_MAX });
        }
        let mut row = lane.row.clone();
        row.tip = tip.clone();
        let mut progress = self.space.progress;
        progress.applied += 1;
        progress.digest.0 = progress.digest.0.wrapping_add(self.effects.digest);
        progress.clock_floor = self.space.clock.last();
        self.work.append(LaneRecord { space: self.space.id, lane: origin, lsn: tip.lsn, bytes });
        self.work.put(keys::lane(&self.space.id, &origin), crate::space::encode(&row));
        let position = [origin.0.as_slice(), &tip.lsn.to_be_bytes()].concat();
        self.work.put(keys::apply_log(&self.space.id, progress.applied), position);
        self.space.put_progress(&mut self.work, &progress);
        let space_row = self.minted.then(|| {
            let mut row = self.space.row.clone();
            row.incarnation = Some((self.incarnation.nonce, *instance));
            row
        });
        if let Some(row) = &space_row {
            self.work.put_fact(keys::space(&self.space.id), crate::space::encode(row));
        }
        Ok(Some(Finished {
            incarnation: self.incarnation,
            minted: self.minted,
            tip,
            progress,
            space_row,
            objects,
            members_changed: self.effects.members_changed,
            batch: self.work.into_batch(),
        }))
    }
}

fn edit_error<E: From<TxError>>(address: &ObjectAddress, error: EditError<E>) -> E {
    let object = address.clone();
    match error {
        EditError::Refused(error) => error,
        EditError::Panicked => TxError::EditPanicked { object }.into(),
        EditError::TooLarge { what, value, value_max } => {
            TxError::EditTooLarge { object, what, value, value_max }.into()
        }
        EditError::Document(source) => TxError::Document { object, source }.into(),
    }
}

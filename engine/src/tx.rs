//! Local transactions: one atomic change set over any number of objects.

mod edits;
mod error;
mod members;
mod named;
mod objects;
mod removal;

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::limits::{CHANGE_SET_BYTES_MAX, CHANGE_SET_OBJECTS_MAX, CHANGE_SET_OPS_MAX, LANES_MAX};
use comity_crdts::{Dot, Hlc, Nonce, ObjectAddress, ObjectId, ReplicaId, SpaceId, canary};

use crate::apply::{Application, Effects};
use crate::change::{Body, ChangeSet, LaneEntry, encode_stored};
use crate::conflicts::Location;
#[cfg(feature = "future-operations")]
use crate::extension::{FUTURE_KIND, touch, wrapped};
use crate::held::is_held;
use crate::op::{Group, Op};
use crate::operations::{OperationId, made_at, note_operation};
use crate::own::{Incarnation, OwnEntry};
use crate::read::{self, Listing};
use crate::space::Space;
use crate::store::{LogRead, StoreError};
use crate::work::Work;

pub use error::{TransactError, TxError};

/// Looking through this many groups takes no longer than an index does, and most transactions have one.
const UNINDEXED_MAX: usize = 4;

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
    /// Of the objects whose groups come after the first [`UNINDEXED_MAX`].
    index: BTreeMap<ObjectAddress, usize>,
    edited: BTreeSet<ObjectId>,
    /// Documents whose edits so far are not in memory any more, and could not be made again.
    lost: BTreeSet<ObjectId>,
    ops: usize,
    /// Of the values in the operations so far: a lower bound of the change set's size, so that a transaction
    /// that will be refused does not fill the memory first.
    value_bytes: usize,
    hlc: Hlc,
    wall_ms: u64,
    operation: Option<OperationId>,
    /// Whether others have heard of this incarnation.
    is_confirmed: bool,
    /// Where this replica is, if it has not said so in this space yet.
    region: Option<String>,
    /// Why nothing more may be done, once there is a reason.
    refusal: Option<Box<dyn Fn() -> Option<TxError> + 'a>>,
    /// What is done is said in operations of the version that does not exist.
    #[cfg(feature = "future-operations")]
    is_future: bool,
}

/// What a finished transaction hands to the engine.
pub(crate) struct Finished {
    pub(crate) batch: crate::store::Batch,
    pub(crate) own: OwnEntry,
    pub(crate) objects: Vec<ObjectAddress>,
    pub(crate) effects: Effects,
    /// It is said where this replica is, or need not be.
    pub(crate) region_said: bool,
}

impl<'a> Tx<'a> {
    pub(crate) fn begin(
        space: &'a mut Space,
        below: &'a dyn LogRead,
        (replica, region): (ReplicaId, Option<&str>),
        now: &crate::io::Now,
    ) -> Self {
        let hlc = space.clock.tick(now.wall_ms);
        let current = space.incarnation.filter(|_| !canary!(IncarnationPerWrite));
        let minted = current.is_none();
        let incarnation = current.unwrap_or_else(|| {
            let counted = Nonce([space.lanes.len() as u8; 16]);
            let nonce = if canary!(IncarnationCounted) { counted } else { now.fresh };
            Incarnation::new(&space.id, &replica, nonce)
        });
        if minted {
            // Loaded documents carry the actor of the incarnation they were loaded in.
            space.documents.clear();
        }
        let is_confirmed = space.is_confirmed(&incarnation.origin, &replica);
        let region = region.filter(|_| !space.region_said).map(str::to_owned);
        Self {
            space,
            replica,
            incarnation,
            minted,
            work: Work::over_recent(below),
            effects: Effects::default(),
            groups: Vec::new(),
            index: BTreeMap::new(),
            edited: BTreeSet::new(),
            lost: BTreeSet::new(),
            ops: 0,
            value_bytes: 0,
            hlc,
            wall_ms: now.wall_ms,
            operation: None,
            is_confirmed,
            region,
            refusal: None,
            #[cfg(feature = "future-operations")]
            is_future: false,
        }
    }

    /// From here on, what is done to objects other than documents is said in operations of a version that does not exist, if
    /// this replica knows them and others have heard of it. Returns whether it is so.
    #[cfg(feature = "future-operations")]
    pub fn speak_of_the_future(&mut self) -> bool {
        self.is_future = self.is_confirmed && !self.space.extensions.are_none();
        self.is_future
    }

    /// Does something to an object of any kind that does nothing, as the version that does not exist has it.
    ///
    /// # Errors
    /// [`TxError`] when something of the object is held.
    #[cfg(feature = "future-operations")]
    pub fn future_touch(&mut self, at: &Location) -> Result<(), TxError> {
        self.push(at, touch())
    }

    /// Adds to a counter of a kind of the version that does not exist.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits, or something of the counter is held.
    #[cfg(feature = "future-operations")]
    pub fn future_counter_add(&mut self, collection: &str, key: &str, delta: i64) -> Result<(), TxError> {
        let at = Location::from(ObjectAddress::new(FUTURE_KIND, collection, key)?);
        self.check_confirmed(&at)?;
        self.push(&at, wrapped(Op::CounterAdd(delta), FUTURE_KIND, self.hlc))
    }

    /// Under which id the client asked for it.
    pub(crate) fn identify(&mut self, operation: Option<OperationId>) {
        self.operation = operation;
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
    pub fn state(&self) -> &dyn LogRead {
        &self.work
    }

    fn seq(&self) -> u64 {
        self.space.lanes.get(&self.incarnation.origin).map_or(0, |lane| lane.row.tip.seq) + 1
    }

    /// The group of an object, made when absent.
    fn group(&mut self, address: &ObjectAddress) -> Result<usize, TxError> {
        self.check_refusal()?;
        if self.ops >= CHANGE_SET_OPS_MAX {
            return Err(TxError::TooManyOps { ops_max: CHANGE_SET_OPS_MAX });
        }
        if let Some(index) = self.group_of(address) {
            return Ok(index);
        }
        if self.groups.len() >= CHANGE_SET_OBJECTS_MAX {
            return Err(TxError::TooManyObjects { objects_max: CHANGE_SET_OBJECTS_MAX });
        }
        let index = self.groups.len();
        self.groups.push(Group { address: address.clone(), ops: Vec::new() });
        if index >= UNINDEXED_MAX {
            self.index.insert(address.clone(), index);
        }
        Ok(index)
    }

    /// The group of an object, if there is one. O(log objects).
    fn group_of(&self, address: &ObjectAddress) -> Option<usize> {
        let first = self.groups.iter().take(UNINDEXED_MAX).position(|group| group.address == *address);
        first.or_else(|| self.index.get(address).copied())
    }

    /// From here on, operations are refused as soon as `refusal` says why. Reads are not.
    pub fn refuse_when(&mut self, refusal: impl Fn() -> Option<TxError> + 'a) {
        self.refusal = Some(Box::new(refusal));
    }

    /// Whether anything more may be done.
    fn check_refusal(&self) -> Result<(), TxError> {
        self.refusal.as_ref().and_then(|refusal| refusal()).map_or(Ok(()), Err)
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
            number: self.space.progress.applied + 1,
            extensions: self.space.extensions,
            is_any_held: self.space.held > 0,
            is_late: false,
        };
        application.apply(&mut self.work, &mut self.effects, address, dot, op)
    }

    fn check_confirmed(&mut self, at: &Location) -> Result<(), TxError> {
        if self.is_confirmed {
            return Ok(());
        }
        self.space.wants_confirmation = true;
        Err(TxError::Unconfirmed { object: at.clone() })
    }

    /// Refuses to read or write an object of which something is held: what it holds is not known.
    fn check_known(&self, at: &Location) -> Result<(), TxError> {
        if self.space.held > 0 && is_held(&self.work, &self.space.id, &at.object)? {
            return Err(TxError::Held { object: at.clone() });
        }
        Ok(())
    }

    fn push(&mut self, at: &Location, op: Op) -> Result<(), TxError> {
        if op.needs_confirmation() {
            self.check_confirmed(at)?;
        }
        self.check_known(at)?;
        let op = if at.path.is_empty() { op } else { Op::Nested { path: at.path.clone(), op: Box::new(op) } };
        #[cfg(feature = "future-operations")]
        let op = if self.is_future { wrapped(op, at.object.kind(), self.hlc) } else { op };
        let value_bytes = self.check_size(op.value_bytes())?;
        let group = self.group(&at.object)?;
        let index = self.groups[group].ops.len() as u16;
        let dot = Dot { origin: self.incarnation.origin, seq: self.seq(), index };
        self.apply(&at.object, dot, &op)?;
        self.groups[group].ops.push(op);
        self.ops += 1;
        self.value_bytes = value_bytes;
        Ok(())
    }

    /// The keys of objects that hold something, as the transaction sees them.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits or storage fails.
    pub fn list(&self, listing: Listing<'_>) -> Result<Vec<String>, TxError> {
        Ok(read::list(&self.work, &self.space.id, listing)?)
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
        if let Err(error) = self.say_region() {
            self.roll_back();
            return Err(error);
        }
        let origin = self.incarnation.origin;
        let lanes = self.space.lanes.len();
        if !self.space.has_room_for(&origin) {
            self.roll_back();
            return Err(TxError::TooManyLanes { lanes, lanes_max: LANES_MAX });
        }
        let mut row = self.space.own_row(self.replica, self.incarnation);
        let context = self.space.applied_of_others(&origin);
        let objects = self.groups.iter().map(|group| group.address.clone()).collect();
        let change = ChangeSet {
            origin,
            seq: row.tip.seq + 1,
            prev: row.tip.change_hash,
            context: context.clone(),
            hlc: self.hlc,
            operation: self.operation,
            groups: std::mem::take(&mut self.groups),
        };
        let entry = LaneEntry { admitted: context, at: self.hlc.max(row.tip.at), body: Body::Change(change) };
        row.tip = row.tip.after(&self.space.id, &entry);
        row.changed = row.tip.lsn;
        let bytes = encode_stored(&origin, &row.tip.hash, &entry, self.value_bytes);
        if bytes.len() > CHANGE_SET_BYTES_MAX {
            let bytes = bytes.len();
            self.roll_back();
            return Err(TxError::TooLarge { bytes, bytes_max: CHANGE_SET_BYTES_MAX });
        }
        let made_at = made_at(self.hlc, self.wall_ms);
        if let (Some(operation), Some(at_ms)) = (&self.operation, made_at) {
            let made = ((origin, row.tip.lsn), at_ms);
            let (work, effects) = (&mut self.work, &mut self.effects);
            if let Err(error) = note_operation(work, effects, &self.space.id, operation, made) {
                self.roll_back();
                return Err(error.into());
            }
        }
        let minted = (self.incarnation, self.minted.then_some(*instance));
        let stamps = (self.effects.digest, self.space.clock.last());
        let own = self.space.put_own(&mut self.work, minted, (row, bytes), stamps);
        Ok(Some(Finished {
            own,
            objects,
            effects: self.effects,
            region_said: self.region.is_none(),
            batch: self.work.into_batch(),
        }))
    }
}

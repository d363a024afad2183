//! What a transaction does to counters, sets, registers, flags and maps.

use comity_crdts::limits::{
    CHANGE_SET_OBJECTS_MAX, CHANGE_SET_OPS_MAX, CONTEXT_DOTS_MAX, ELEMENT_BYTES_MAX, KEY_BYTES_MAX,
    MAP_DEPTH_MAX, VALUE_BYTES_MAX,
};
use comity_crdts::{
    AddressError, BoundedCounter, Document, Dot, ElementDots, Kind, MvRegister, OriginId, Policy, ReplicaId,
    ResettableCounter, Value, canary, check_collection, json,
};

use crate::apply::load_element;
use crate::conflicts::Location;
use crate::documents::lost_document;
use crate::journal::{JournalEntry, JournalReason, SetAside, record_siblings};
use crate::keys;
use crate::op::Op;
use crate::rows::Object;
use crate::settings::{REGION_BYTES_MAX, policy_address, region_address, region_of};
use crate::site::Site;
use crate::tx::{Tx, TxError};

/// What is not of the kind that the journal says it is.
const NO_SUM: &str = "what the journal holds is no value of this kind";

impl Tx<'_> {
    /// The site of something of this kind.
    pub(super) fn site(&self, at: &Location, kind: Kind) -> Result<Site, TxError> {
        check_path(at, kind)?;
        self.check_known(at)?;
        Ok(Site::top(&self.space.id, &at.object).at_path(&at.path, kind))
    }

    pub(super) fn load(&self, at: &Location, kind: Kind) -> Result<Object, TxError> {
        Ok(self.site(at, kind)?.load(&self.work)?)
    }

    /// Adds to a counter. Additions to one counter that follow each other in one transaction become one
    /// operation.
    ///
    /// # Errors
    /// [`TxError`] when the name or the resulting value is out of range.
    pub fn counter_add_at(&mut self, at: &Location, delta: i64) -> Result<(), TxError> {
        let counter = self.load_counter(at)?;
        counter.check_add(delta).map_err(|source| TxError::Counter { object: at.clone(), source })?;
        let Some((group, index, sum)) = self.last_addition(at, delta) else {
            return self.push(at, Op::CounterAdd(delta));
        };
        let dot = Dot { origin: self.incarnation.origin, seq: self.seq(), index };
        let added = if canary!(CounterAddsTwice) { sum } else { delta };
        self.apply(&at.object, dot, &nested(at, Op::CounterAdd(added)))?;
        self.groups[group].ops[usize::from(index)] = nested(at, Op::CounterAdd(sum));
        Ok(())
    }

    /// The last operation on the object, if it is an addition to the same counter: its group, its index and
    /// what it adds together with `delta`.
    fn last_addition(&self, at: &Location, delta: i64) -> Option<(usize, u16, i64)> {
        let group = self.group_of(&at.object)?;
        let ops = &self.groups[group].ops;
        let earlier = match ops.last()? {
            Op::CounterAdd(earlier) if at.path.is_empty() => earlier,
            Op::Nested { path, op } if *path == at.path => match op.as_ref() {
                Op::CounterAdd(earlier) => earlier,
                _ => return None,
            },
            _ => return None,
        };
        Some((group, (ops.len() - 1) as u16, earlier.checked_add(delta)?))
    }

    pub(super) fn load_counter(&self, at: &Location) -> Result<ResettableCounter, TxError> {
        match self.load(at, Kind::Counter)? {
            Object::Counter(counter) => Ok(counter),
            _ => Ok(ResettableCounter::default()),
        }
    }

    /// Adds an element to a set.
    ///
    /// # Errors
    /// [`TxError`] when the name or the element is out of limits.
    pub fn set_add_at(&mut self, at: &Location, element: Value) -> Result<(), TxError> {
        let observed = self.observe_element(at, &element)?;
        self.push(at, Op::SetAdd { element, observed })
    }

    /// Removes an element from a set; nothing happens when it is not there.
    ///
    /// # Errors
    /// [`TxError`] when the name or the element is out of limits.
    pub fn set_remove_at(&mut self, at: &Location, element: Value) -> Result<(), TxError> {
        let observed = self.observe_element(at, &element)?;
        if observed.is_empty() {
            return Ok(());
        }
        self.push(at, Op::SetRemove { element, observed })
    }

    fn observe_element(&self, at: &Location, element: &Value) -> Result<Vec<Dot>, TxError> {
        let site = self.site(at, Kind::Set)?;
        check_element(at, element)?;
        let dots = load_element(&self.work, &keys::element(&site.id, &element.to_bytes()))?;
        checked_dots(at, dots.dots().collect())
    }

    /// Adds an element to a remove-wins set: it is in the set once every removal is known to whoever adds it.
    ///
    /// # Errors
    /// [`TxError`] when the name or the element is out of limits, or the incarnation is not confirmed.
    pub fn rw_set_add_at(&mut self, at: &Location, element: Value) -> Result<(), TxError> {
        self.site(at, Kind::RwSet)?;
        check_element(at, &element)?;
        self.push(at, Op::RwSetAdd { element })
    }

    /// Removes an element from a remove-wins set, also against additions made at the same time, and also when
    /// it is not there.
    ///
    /// # Errors
    /// As [`Tx::rw_set_add_at`].
    pub fn rw_set_remove_at(&mut self, at: &Location, element: Value) -> Result<(), TxError> {
        self.site(at, Kind::RwSet)?;
        check_element(at, &element)?;
        self.push(at, Op::RwSetRemove { element })
    }

    pub(super) fn load_register(&self, at: &Location) -> Result<MvRegister, TxError> {
        let kind = if at.object.kind() == Kind::Settings { Kind::Settings } else { Kind::Register };
        match self.load(at, kind)? {
            Object::Register(register) => Ok(register),
            _ => Ok(MvRegister::default()),
        }
    }

    /// Writes a register, replacing every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when the name or the value is out of limits.
    pub fn register_write_at(&mut self, at: &Location, value: Value) -> Result<(), TxError> {
        let register = self.load_register(at)?;
        let observed = register.dots();
        self.register_set(at, &register, value, observed)
    }

    /// Writes a register, replacing only the siblings the caller names: those it saw when it decided. A value
    /// written meanwhile stays.
    ///
    /// # Errors
    /// [`TxError`] when the name or the value is out of limits.
    pub fn register_resolve_at(&mut self, at: &Location, value: Value, seen: &[Dot]) -> Result<(), TxError> {
        let register = self.load_register(at)?;
        let observed: Vec<Dot> = register.dots().into_iter().filter(|dot| seen.contains(dot)).collect();
        let was_among_others = seen.len() > 1 && register.len() == 1 && observed.len() == 1;
        self.register_set(at, &register, value, observed)?;
        if was_among_others {
            // It is decided against one of several that were seen, also when the others have gone since.
            let group = self.group_of(&at.object).map_or(0, |group| self.groups[group].ops.len());
            let index = group.saturating_sub(1) as u16;
            let by = Dot { origin: self.incarnation.origin, seq: self.seq(), index };
            let siblings = register.siblings().map(|(dot, sibling)| (*dot, sibling.clone())).collect();
            let aside = SetAside { by, at: self.hlc, was_written: true, siblings };
            record_siblings(&mut self.work, &self.space.id, (&at.object, &at.path), aside)?;
            self.effects.journalled = true;
        }
        Ok(())
    }

    fn register_set(
        &mut self,
        at: &Location,
        register: &MvRegister,
        value: Value,
        observed: Vec<Dot>,
    ) -> Result<(), TxError> {
        value.check(VALUE_BYTES_MAX).map_err(|source| TxError::Value { object: at.clone(), source })?;
        let observed = checked_dots(at, observed)?;
        let hlc = register.stamp(self.hlc);
        self.push(at, Op::RegisterSet { value, hlc, observed })
    }

    /// Empties a register of every value visible here.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits.
    pub fn register_clear_at(&mut self, at: &Location) -> Result<(), TxError> {
        let observed = checked_dots(at, self.load_register(at)?.dots())?;
        if observed.is_empty() {
            return Ok(());
        }
        self.push(at, Op::RegisterReset { observed })
    }

    pub(super) fn load_flag(&self, at: &Location) -> Result<ElementDots, TxError> {
        match self.load(at, Kind::Flag)? {
            Object::Flag(dots) => Ok(dots),
            _ => Ok(ElementDots::default()),
        }
    }

    /// Enables an enable-wins flag.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits.
    pub fn flag_enable_at(&mut self, at: &Location) -> Result<(), TxError> {
        let observed = checked_dots(at, self.load_flag(at)?.dots().collect())?;
        self.push(at, Op::FlagEnable { observed })
    }

    /// Disables an enable-wins flag as it is known here; nothing happens when it is disabled.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits.
    pub fn flag_disable_at(&mut self, at: &Location) -> Result<(), TxError> {
        let observed = checked_dots(at, self.load_flag(at)?.dots().collect())?;
        if observed.is_empty() {
            return Ok(());
        }
        self.push(at, Op::FlagDisable { observed })
    }

    /// Enables a disable-wins flag, as far as its disablings are known here.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits, or the incarnation is not confirmed.
    pub fn dw_flag_enable_at(&mut self, at: &Location) -> Result<(), TxError> {
        self.site(at, Kind::DwFlag)?;
        self.push(at, Op::DwFlagEnable)
    }

    /// Disables a disable-wins flag, also against enablings made at the same time.
    ///
    /// # Errors
    /// As [`Tx::dw_flag_enable_at`].
    pub fn dw_flag_disable_at(&mut self, at: &Location) -> Result<(), TxError> {
        self.site(at, Kind::DwFlag)?;
        self.push(at, Op::DwFlagDisable)
    }

    pub(super) fn load_bounded(&self, at: &Location) -> Result<BoundedCounter, TxError> {
        match self.load(at, Kind::BoundedCounter)? {
            Object::Bounded(counter) => Ok(counter),
            _ => Ok(BoundedCounter::default()),
        }
    }

    /// The origin under which the transaction writes, which holds this replica's rights to bounded counters.
    pub fn origin(&self) -> OriginId {
        self.incarnation.origin
    }

    /// The origin under which a replica wrote last, as far as is known here, which is where rights that are handed
    /// to it belong; `None` when nothing it wrote has arrived. O(lanes).
    pub fn origin_of(&self, replica: &ReplicaId) -> Option<OriginId> {
        if *replica == self.replica {
            return Some(self.origin());
        }
        let lanes = self.space.lanes.iter().filter(|(_, lane)| lane.row.owner.replica == *replica);
        let written = lanes.filter(|(_, lane)| lane.row.tip.lsn > 0);
        written.max_by_key(|(origin, lane)| (lane.row.tip.at, **origin)).map(|(origin, _)| *origin)
    }

    /// Raises a bounded counter. This replica gets the rights to lower it again.
    ///
    /// # Errors
    /// [`TxError`] when the name or the resulting value is out of range.
    pub fn bounded_increment_at(&mut self, at: &Location, amount: u64) -> Result<(), TxError> {
        let counter = self.load_bounded(at)?;
        counter.check_increment(amount).map_err(|source| TxError::Bounded { object: at.clone(), source })?;
        self.push(at, Op::BoundedIncrement(amount))
    }

    /// Lowers a bounded counter by rights that this replica holds.
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits, or the rights are too few.
    pub fn bounded_decrement_at(&mut self, at: &Location, amount: u64) -> Result<(), TxError> {
        let (counter, origin) = (self.load_bounded(at)?, self.incarnation.origin);
        let checked = counter.check_decrement(origin, amount);
        if !canary!(RightsNotChecked) {
            checked.map_err(|source| TxError::Bounded { object: at.clone(), source })?;
        }
        self.push(at, Op::BoundedDecrement(amount))
    }

    /// Hands rights to another origin, which can lower the counter by them without asking anybody.
    ///
    /// # Errors
    /// As [`Tx::bounded_decrement_at`].
    pub fn bounded_transfer_at(&mut self, at: &Location, to: OriginId, amount: u64) -> Result<(), TxError> {
        let (counter, origin) = (self.load_bounded(at)?, self.incarnation.origin);
        let checked = counter.check_transfer(origin, to, amount);
        checked.map_err(|source| TxError::Bounded { object: at.clone(), source })?;
        self.push(at, Op::BoundedTransfer { to, amount })
    }

    /// Sets the policy under which the registers of a collection are read, at every replica. What is stored does
    /// not change.
    ///
    /// # Errors
    /// [`TxError`] when the collection's name is out of limits.
    pub fn set_policy(&mut self, collection: &str, policy: &Policy) -> Result<(), TxError> {
        check_collection(collection)?;
        let at = Location::from(policy_address(collection)?);
        self.register_write_at(&at, Value::Text(policy.name()))
    }

    /// Says where this replica is, if it has not yet. A transaction that has no room for it leaves it to the next.
    pub(super) fn say_region(&mut self) -> Result<(), TxError> {
        let Some(region) = self.region.clone() else { return Ok(()) };
        if region.is_empty() || region.len() > REGION_BYTES_MAX {
            let (bytes, bytes_max) = (region.len(), REGION_BYTES_MAX);
            return Err(TxError::Region { name: region.chars().take(24).collect(), bytes, bytes_max });
        }
        if region_of(&self.work, &self.space.id, &self.replica)?.as_ref() == Some(&region) {
            self.region = None;
        } else if self.ops < CHANGE_SET_OPS_MAX && self.groups.len() < CHANGE_SET_OBJECTS_MAX {
            let at = Location::from(region_address(&self.replica));
            self.register_write_at(&at, Value::Text(region))?;
            self.region = None;
        }
        Ok(())
    }

    /// Writes what is in the journal again: an ordinary write. A value replaces every value visible here; of a document that was
    /// removed, the document is made equal to what it was with all that the same removal set aside, and what is in one of
    /// its name by now stays in its history. That takes reading every entry of the space.
    ///
    /// # Errors
    /// [`TxError::NotRestorable`] for a change that a document refused, and for a removed document of which something is not in
    /// the log any more.
    pub fn restore(&mut self, entry: &JournalEntry) -> Result<(), TxError> {
        let (at, value) = (&entry.location, entry.value.clone());
        match entry.reason {
            JournalReason::SiblingReplaced | JournalReason::SiblingRemoved => {
                self.register_write_at(at, value)
            }
            JournalReason::RemovalWon if at.object.kind() == Kind::RwSet => self.rw_set_add_at(at, value),
            JournalReason::RemovalWon => self.dw_flag_enable_at(at),
            JournalReason::KindRemoved | JournalReason::BranchLost => self.restore_kind(entry),
            JournalReason::DocumentRemoved => {
                let lost = lost_document(self.state(), &self.space(), entry)?;
                let not_kept = "what the change builds on is not kept in the log any more";
                let lost =
                    lost.ok_or_else(|| TxError::NotRestorable { object: at.clone(), rule: not_kept })?;
                self.restore_document(at, &lost)
            }
            JournalReason::ChangeRefused { .. } => {
                let rule = "a change that the document refused is no value that can be written";
                Err(TxError::NotRestorable { object: at.clone(), rule })
            }
        }
    }

    /// Makes a document equal to another one.
    fn restore_document(&mut self, at: &Location, other: &Document) -> Result<(), TxError> {
        let (collection, key) = (at.object.collection(), at.object.key());
        self.document_edit(collection, key, |document| {
            json::copy(document, other.automerge())
                .map_err(|source| TxError::Json { object: at.clone(), source })
        })
    }

    /// Puts back what was under a key of a map that led to several kinds.
    fn restore_kind(&mut self, entry: &JournalEntry) -> Result<(), TxError> {
        let (at, value) = (&entry.location, &entry.value);
        match (entry.kind, value) {
            (Kind::Counter, Value::I64(sum)) => self.counter_add_at(at, *sum),
            (Kind::Counter, Value::Text(sum)) => {
                let mut left: i128 =
                    sum.parse().map_err(|_| TxError::NotRestorable { object: at.clone(), rule: NO_SUM })?;
                while left != 0 {
                    let part = left.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                    self.counter_add_at(at, part)?;
                    left -= i128::from(part);
                }
                Ok(())
            }
            (Kind::Set, element) => self.set_add_at(at, element.clone()),
            (Kind::RwSet, element) => self.rw_set_add_at(at, element.clone()),
            (Kind::DwFlag, _) => self.dw_flag_enable_at(at),
            (Kind::Flag, _) => self.flag_enable_at(at),
            (Kind::Register, value) => self.register_write_at(at, value.clone()),
            _ => Err(TxError::NotRestorable { object: at.clone(), rule: NO_SUM }),
        }
    }
}

/// The operation as it stands in a change set.
fn nested(at: &Location, op: Op) -> Op {
    if at.path.is_empty() { op } else { Op::Nested { path: at.path.clone(), op: Box::new(op) } }
}

/// Checks that a path leads to something of this kind, at every replica.
pub(crate) fn check_path(at: &Location, kind: Kind) -> Result<(), TxError> {
    let path = |rule| Err(TxError::Path { object: at.clone(), rule });
    if at.path.is_empty() {
        let fits = at.object.kind() == kind;
        return if fits { Ok(()) } else { path("the object is of another kind") };
    }
    if at.object.kind() != Kind::Map {
        return path("only maps hold other objects");
    }
    if at.path.len() > MAP_DEPTH_MAX {
        return path("maps nest four deep at most");
    }
    if at.path.iter().any(|key| key.is_empty() || key.contains('\0')) {
        return path("keys of maps are non-empty, without NUL");
    }
    if let Some(key) = at.path.iter().find(|key| key.len() > KEY_BYTES_MAX) {
        let (name, bytes) = (key.chars().take(24).collect(), key.len());
        return Err(AddressError::TooLong { part: "map key", name, bytes, bytes_max: KEY_BYTES_MAX }.into());
    }
    match kind {
        Kind::Counter | Kind::Set | Kind::Register | Kind::Flag | Kind::Map => Ok(()),
        _ => path("maps hold counters, sets, registers, flags and maps"),
    }
}

fn check_element(at: &Location, element: &Value) -> Result<(), TxError> {
    element.check(ELEMENT_BYTES_MAX).map_err(|source| TxError::Value { object: at.clone(), source })
}

pub(super) fn checked_dots(at: &Location, dots: Vec<Dot>) -> Result<Vec<Dot>, TxError> {
    if dots.len() > CONTEXT_DOTS_MAX {
        let (object, dots) = (at.clone(), dots.len());
        return Err(TxError::TooManySiblings { object, dots, dots_max: CONTEXT_DOTS_MAX });
    }
    Ok(dots)
}

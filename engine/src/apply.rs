//! What operations do to rows. The same code applies local operations as they are made and remote change
//! sets as they become ready.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::limits::ELEMENT_BYTES_MAX;
use comity_crdts::{
    Context, Dot, ElementDots, Frontier, Hlc, Kind, LaneId, MvRegister, ObjectAddress, ObjectId, RawChange,
    ReplicaId, RwRow, Sibling, SpaceId, Value, Writer, canary,
};

use crate::beaten::{beaten, remember};
use crate::conflicts::{note_kinds, note_siblings};
use crate::extension::{Extensions, Meaning};
use crate::hash::hash;
use crate::held::note_extended;
use crate::journal::{Discarded, SetAside, record_beaten, record_discarded, record_siblings};
use crate::keys;
use crate::members::{Place, Said, state};
use crate::op::{Op, Role};
use crate::rows::{
    Object, Parts, Share, damaged, decode_element, decode_rw_element, element_share, rw_element_share,
};
use crate::site::Site;
use crate::store::{StateRead, StoreError};
use crate::unstable::{Unstable, UnstableRow, note_unstable};
use crate::work::Work;

/// Something that is done to a document and waits for the end of the batch, where changes of one document go
/// in together.
#[derive(Clone, Debug)]
pub(crate) struct PendingStep {
    pub(crate) address: ObjectAddress,
    pub(crate) what: PendingWork,
    pub(crate) dot: Dot,
    pub(crate) at: Hlc,
    /// What its author had seen.
    context: Frontier,
    place: (LaneId, u64),
    /// It waited, so its entry need not be kept any more.
    pub(crate) was_held: bool,
}

impl PendingStep {
    pub(crate) fn context(&self) -> Context<'_> {
        Context { dot: self.dot, frontier: &self.context, lane: self.place.0, lsn: self.place.1 }
    }

    /// The entry that carries it.
    pub(crate) fn place(&self) -> (LaneId, u64) {
        self.place
    }
}

#[derive(Clone, Debug)]
pub(crate) enum PendingWork {
    Change(RawChange),
    /// Removal, with the heads that its author saw.
    Remove(Vec<[u8; 32]>),
}

/// What applying changed besides rows.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To be added, wrapping, to the space's state digest.
    pub(crate) digest: u128,
    pub(crate) documents: Vec<PendingStep>,
    pub(crate) members_changed: bool,
    /// Entries that left something behind that can be forgotten once they are stable.
    pub(crate) unstable: Frontier,
    /// The journal grew.
    pub(crate) journalled: bool,
    /// When operation ids that were noted can be forgotten, by the wall clock; 0 when there are too many.
    pub(crate) forget_ids_ms: Option<u64>,
    /// Changes that are no longer in quarantine, because their documents are gone.
    pub(crate) released: u64,
    /// Somebody new wants to hear that others have heard of it.
    pub(crate) greeted: bool,
    /// How many more change sets are held in part or whole than before.
    pub(crate) held: i64,
    /// An object of a later version's kind was changed.
    pub(crate) has_later_kinds: bool,
    /// Keys of maps that led to several kinds when the change set in this place began to remove what they lead to.
    several_kinds: (Option<(LaneId, u64)>, BTreeSet<Vec<u8>>),
}

/// The change set on its way into the state.
pub(crate) struct Application<'a> {
    pub(crate) space: &'a SpaceId,
    pub(crate) author: &'a ReplicaId,
    /// What its author had seen.
    pub(crate) context: &'a Frontier,
    /// The lane entry that carries it.
    pub(crate) place: (LaneId, u64),
    pub(crate) at: Hlc,
    /// Its number in the order of applying.
    pub(crate) number: u64,
    /// What is known of later versions' operations.
    pub(crate) extensions: Extensions,
    /// Whether something was held in the space before.
    pub(crate) is_any_held: bool,
    /// Whether it was held itself.
    pub(crate) is_late: bool,
}

/// Operations on one object, in their order.
struct Step<'a> {
    address: &'a ObjectAddress,
    path: &'a [String],
    ops: &'a [(Dot, &'a Op)],
}

/// An object within another: the path to it, and its kind.
type Within<'a> = (&'a [String], Kind);

/// What a step is done to.
struct Target<'t> {
    site: &'t Site,
    object: &'t mut Object,
    elements: Elements,
}

/// Elements of an add-wins set that a step has changed, with their shares before: rows are read and written once,
/// however many operations there are on an element.
#[derive(Default)]
struct Elements(BTreeMap<Vec<u8>, (ElementDots, Share)>);

impl Application<'_> {
    /// Applies one operation.
    pub(crate) fn apply(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        address: &ObjectAddress,
        dot: Dot,
        op: &Op,
    ) -> Result<(), StoreError> {
        self.apply_all(work, effects, address, &[(dot, op)])
    }

    /// Applies operations of one change set on one object and what is nested in it, or holds them: all of them where
    /// one is not known.
    pub(crate) fn apply_all(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        address: &ObjectAddress,
        ops: &[(Dot, &Op)],
    ) -> Result<(), StoreError> {
        if self.must_wait(work, self.is_any_held || effects.held > 0, (address, ops))? {
            return self.hold(work, effects, (address, ops));
        }
        self.carry_out(work, effects, address, ops)
    }

    /// Carries out operations that are all known.
    pub(crate) fn carry_out(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        address: &ObjectAddress,
        ops: &[(Dot, &Op)],
    ) -> Result<(), StoreError> {
        if !ops.iter().any(|(_, op)| matches!(op, Op::Extension { .. })) {
            return self.carry_out_plain(work, effects, address, ops);
        }
        note_extended(work);
        effects.has_later_kinds |= matches!(address.kind(), Kind::Extension(_));
        let mut meant = Vec::with_capacity(ops.len());
        for (dot, op) in ops {
            match self.extensions.meaning((self.at, self.context), address, (*dot, op)) {
                Meaning::Does(op) => meant.push((*dot, op)),
                Meaning::Nothing => {}
                Meaning::Unknown => unreachable!("what is not known is held"),
            }
        }
        let ops: Vec<(Dot, &Op)> = meant.iter().map(|(dot, op)| (*dot, op)).collect();
        self.carry_out_plain(work, effects, address, &ops)
    }

    /// What is done to the same nested object goes together, because each visit costs as much as it holds; different
    /// ones know nothing of each other.
    fn carry_out_plain(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        address: &ObjectAddress,
        ops: &[(Dot, &Op)],
    ) -> Result<(), StoreError> {
        if let [(dot, op)] = ops
            && let Some((path, op)) = on_rows(op)
        {
            let (site, ops) = (Site::top(self.space, address), [(*dot, op)]);
            return self.carry_out_at(work, effects, &Step { address, path, ops: &ops }, &site);
        }
        let mut nested: BTreeMap<Within<'_>, Vec<(Dot, &Op)>> = BTreeMap::new();
        for (dot, op) in ops {
            match *op {
                Op::DocumentChange(change) => {
                    effects.documents.push(self.pending(address, *dot, PendingWork::Change(change.clone())));
                }
                Op::DocumentRemove { heads } => {
                    effects.documents.push(self.pending(address, *dot, PendingWork::Remove(heads.clone())));
                }
                Op::Grant { replica, role } => {
                    self.state(work, effects, *dot, (replica, Some(*role)))?;
                }
                Op::Revoke { replica } => self.state(work, effects, *dot, (replica, None))?,
                op => {
                    let (path, op) = on_rows(op).expect("members and documents are looked after above");
                    nested.entry((path, op.kind())).or_default().push((*dot, op));
                }
            }
        }
        let site = Site::top(self.space, address);
        for ((path, _), ops) in &nested {
            self.carry_out_at(work, effects, &Step { address, path, ops }, &site)?;
        }
        Ok(())
    }

    /// Carries out a step on an object of the space.
    fn carry_out_at(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        step: &Step<'_>,
        site: &Site,
    ) -> Result<(), StoreError> {
        let (before, after) = self.apply_at(work, effects, step, (0, site))?;
        effects.digest = effects.digest.wrapping_sub(before.digest).wrapping_add(after.digest);
        Ok(())
    }

    /// Takes in what is said about a member.
    fn state(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        dot: Dot,
        (replica, role): (&ReplicaId, Option<Role>),
    ) -> Result<(), StoreError> {
        let (lane, lsn) = self.place;
        let place = Place { lane, lsn, index: dot.index };
        let said = Said { author: self.author, context: self.context, place, replica, role };
        state(work, effects, self.space, &said)
    }

    /// Applies a step to the object at a site, `depth` keys along the way. Returns the object's share before
    /// and after.
    fn apply_at(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        step: &Step<'_>,
        (depth, site): (usize, &Site),
    ) -> Result<(Share, Share), StoreError> {
        let (mut object, before) = site.load_with_share(work)?;
        match step.path.get(depth) {
            None => {
                let mut target = Target { site, object: &mut object, elements: Elements::default() };
                for (dot, op) in step.ops {
                    self.apply_to(work, effects, (step, *dot, op), &mut target)?;
                }
                target.store_elements(work);
            }
            Some(key) => {
                let last = step.ops.first().filter(|_| depth + 1 == step.path.len());
                let kind = last.map_or(Kind::Map, |(_, op)| op.kind());
                let (was, is) = self.apply_at(work, effects, step, (depth + 1, &site.nested(key, kind)))?;
                if let Object::Map(parts) = &mut object
                    && !(canary!(FieldNotCounted) && was.is_present && !is.is_present)
                {
                    parts.exchange(was, is);
                }
                if was.is_present != is.is_present {
                    note_kinds(work, self.space, (step.address, &step.path[..=depth]), site)?;
                }
            }
        }
        Ok((before, site.store_holder(work, &object)?))
    }

    fn pending(&self, address: &ObjectAddress, dot: Dot, what: PendingWork) -> PendingStep {
        let (address, context) = (address.clone(), self.context.clone());
        PendingStep { address, what, dot, at: self.at, context, place: self.place, was_held: self.is_late }
    }

    fn context(&self, dot: Dot) -> Context<'_> {
        Context { dot, frontier: self.context, lane: self.place.0, lsn: self.place.1 }
    }

    fn apply_to(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        (step, dot, op): (&Step<'_>, Dot, &Op),
        target: &mut Target<'_>,
    ) -> Result<(), StoreError> {
        let (site, origin) = (target.site, dot.origin);
        if let Op::SetClear { .. } = op {
            // The rows are what is cleared.
            target.store_elements(work);
        }
        if matches!(
            op,
            Op::CounterReset { .. } | Op::SetClear { .. } | Op::RegisterReset { .. } | Op::FlagDisable { .. }
        ) && self.meets_kinds(work, effects, step)?
        {
            self.discard(work, effects, (step, dot, op), target)?;
        }
        match (&mut *target.object, op) {
            (Object::Counter(counter), Op::CounterAdd(delta)) => counter.add(dot, *delta),
            (Object::Counter(counter), Op::CounterReset { columns }) => {
                counter.reset(&self.context(dot), columns);
                self.unstable(work, effects, step, (&site.row, Unstable::Counter));
            }
            (Object::Register(register), op) => self.write(work, effects, (step, dot), (register, op))?,
            (Object::Set(_), Op::SetAdd { element, observed }) => {
                target.elements.load(work, &site.id, element)?.add(dot, observed);
            }
            (Object::Set(_), Op::SetRemove { element, observed }) => {
                let dots = target.elements.load(work, &site.id, element)?;
                dots.remove(observed);
                if canary!(RemoveTakesConcurrent) {
                    *dots = ElementDots::default();
                }
            }
            (Object::Set(parts), Op::SetClear { observed }) => {
                clear_elements(work, parts, &site.id, |dots| dots.clear(observed))?;
            }
            (Object::Flag(dots), Op::FlagEnable { observed }) => dots.add(dot, observed),
            (Object::Flag(dots), Op::FlagDisable { observed }) => dots.remove(observed),
            (Object::DwFlag(row), Op::DwFlagEnable) => {
                row.add(&self.context(dot));
                let row = (&site.row[..], &*row);
                self.added(work, effects, (step, dot), row, &Value::Bool(true))?;
            }
            (Object::DwFlag(row), Op::DwFlagDisable) => {
                row.remove(&self.context(dot));
                self.unstable(work, effects, step, (&site.row, Unstable::Flag));
                self.removed(work, effects, (step, dot), &site.row, &Value::Bool(true))?;
            }
            (Object::RwSet(parts), Op::RwSetAdd { element }) => {
                let (key, row) =
                    update_rw_element(work, parts, &site.id, element, |row| row.add(&self.context(dot)))?;
                self.added(work, effects, (step, dot), (&key, &row), element)?;
            }
            (Object::RwSet(parts), Op::RwSetRemove { element })
                if !(canary!(AbsentRemovalForgotten) && parts.count == 0) =>
            {
                let (key, _) =
                    update_rw_element(work, parts, &site.id, element, |row| row.remove(&self.context(dot)))?;
                self.unstable(work, effects, step, (&key, Unstable::Element));
                self.removed(work, effects, (step, dot), &key, element)?;
            }
            (Object::Bounded(counter), Op::BoundedIncrement(amount)) => counter.increment(origin, *amount),
            (Object::Bounded(counter), Op::BoundedDecrement(amount)) => counter.decrement(origin, *amount),
            (Object::Bounded(counter), Op::BoundedTransfer { to, amount }) => {
                counter.transfer(origin, *to, *amount);
            }
            (Object::RwSet(_), Op::RwSetRemove { .. }) => {}
            // Decoding and the transaction both refuse an operation that is not of its object's kind.
            (object, op) => unreachable!("{op:?} reached {object:?}"),
        }
        Ok(())
    }

    /// Writes or resets a register, and keeps what that sets aside.
    fn write(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        (step, dot): (&Step<'_>, Dot),
        (register, op): (&mut MvRegister, &Op),
    ) -> Result<(), StoreError> {
        let held = register.len();
        let (named, removed) = match op {
            Op::RegisterSet { value, hlc, observed } => {
                let sibling = Sibling { hlc: *hlc, value: value.clone() };
                (observed.len(), register.set(dot, sibling, observed))
            }
            Op::RegisterReset { observed } => (observed.len(), register.reset(observed)),
            op => unreachable!("{op:?} reached a register"),
        };
        let location = (step.address, step.path);
        // Whoever named several made a decision between them, also when some have gone since.
        if held.max(named) > 1 && !removed.is_empty() {
            let by = matches!(op, Op::RegisterSet { .. });
            let aside = SetAside { by: dot, at: self.at, was_written: by, siblings: removed };
            record_siblings(work, self.space, location, aside)?;
            effects.journalled = true;
        }
        note_siblings(work, self.space, location, (held, register.len()));
        Ok(())
    }

    /// Whether some key on the way to what a step is done to leads to several kinds, or did when its change set began to
    /// remove some of them.
    fn meets_kinds(
        &self,
        work: &Work<'_>,
        effects: &mut Effects,
        step: &Step<'_>,
    ) -> Result<bool, StoreError> {
        if step.path.is_empty() {
            return Ok(false);
        }
        let (place, met) = &mut effects.several_kinds;
        if *place != Some(self.place) {
            met.clear();
            *place = Some(self.place);
        }
        for depth in 1..=step.path.len() {
            let key = keys::conflict(self.space, step.address, &step.path[..depth], keys::CONFLICT_KINDS);
            if met.contains(&key) {
                return Ok(true);
            }
            if work.get(&key)?.is_some() {
                met.insert(key);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Journals what an operation removes from under a key of a map that leads to several kinds.
    fn discard(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        (step, dot, op): (&Step<'_>, Dot, &Op),
        target: &Target<'_>,
    ) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        let mut note = |kind, dot, written, value| gone.push(Discarded { kind, dot, written, value });
        match (&*target.object, op) {
            (Object::Counter(counter), Op::CounterReset { columns }) => {
                let mut after = counter.clone();
                after.reset(&self.context(dot), columns);
                let sum = counter.value() - after.value();
                let value = i64::try_from(sum).map_or_else(|_| Value::Text(sum.to_string()), Value::I64);
                if sum != 0 {
                    note(Kind::Counter, dot, self.at, value);
                }
            }
            (Object::Set(_), Op::SetClear { observed }) => {
                let (from, until) = keys::elements(&target.site.id);
                for (key, bytes) in work.scan(&from, &until, usize::MAX)? {
                    let mut dots = decode_element(&bytes)?;
                    let first = dots.dots().next();
                    dots.clear(observed);
                    if let Some(first) = first.filter(|_| !dots.is_present()) {
                        let element = Value::from_bytes(keys::element_bytes(&key), ELEMENT_BYTES_MAX);
                        let element = element.map_err(|error| damaged("element row", &error))?;
                        note(Kind::Set, first, self.at, element);
                    }
                }
            }
            // Of several siblings each is journalled anyway.
            (Object::Register(register), Op::RegisterReset { observed }) if register.len() == 1 => {
                let removed = register.siblings().filter(|(dot, _)| observed.contains(dot));
                removed.for_each(|(dot, sibling)| {
                    note(Kind::Register, *dot, sibling.hlc, sibling.value.clone());
                });
            }
            (Object::Flag(dots), Op::FlagDisable { observed }) => {
                let first = dots.dots().next();
                let mut after = dots.clone();
                after.remove(observed);
                if let Some(first) = first.filter(|_| !after.is_present()) {
                    note(Kind::Flag, first, self.at, Value::Bool(true));
                }
            }
            _ => {}
        }
        effects.journalled |= !gone.is_empty();
        for discarded in &gone {
            record_discarded(work, self.space, (step.address, step.path), (dot, self.at), discarded)?;
        }
        Ok(())
    }

    /// Looks after an addition where removing wins: one that a removal has beaten already is journalled, any other
    /// remembered for as long as a removal may.
    fn added(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        (step, dot): (&Step<'_>, Dot),
        (key, row): (&[u8], &RwRow),
        value: &Value,
    ) -> Result<(), StoreError> {
        let Some(removal) = row.tokens().next() else {
            return remember(work, self.space, key, (&self.context(dot), self.at));
        };
        if canary!(AdditionNotJournalled) {
            return Ok(());
        }
        let (kind, value) = (step.address.kind(), value.clone());
        let addition = Discarded { kind, dot, written: self.at, value };
        record_beaten(work, self.space, step.address, (removal.dot, self.at), &addition)?;
        effects.journalled = true;
        Ok(())
    }

    /// Journals the additions that a removal beats.
    fn removed(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        (step, dot): (&Step<'_>, Dot),
        key: &[u8],
        value: &Value,
    ) -> Result<(), StoreError> {
        for addition in beaten(work, self.space, key, &self.context(dot))? {
            let (kind, value) = (step.address.kind(), value.clone());
            let addition = Discarded { kind, dot: addition.place.dot, written: addition.at, value };
            record_beaten(work, self.space, step.address, (dot, self.at), &addition)?;
            effects.journalled = true;
        }
        Ok(())
    }

    fn unstable(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        step: &Step<'_>,
        (row, what): (&[u8], Unstable),
    ) {
        let noted = UnstableRow { row, what, address: step.address, path: step.path };
        note_unstable(work, self.space, self.place, &noted);
        effects.unstable.advance(self.place.0, self.place.1);
    }
}

/// Where within its object an operation is done, and what it does there; `None` for what is not done to rows at once.
fn on_rows(op: &Op) -> Option<(&[String], &Op)> {
    match op {
        Op::DocumentChange(_) | Op::DocumentRemove { .. } | Op::Grant { .. } | Op::Revoke { .. } => None,
        Op::Nested { path, op } => Some((path, op)),
        op => Some((&[], op)),
    }
}

impl Elements {
    fn load(
        &mut self,
        read: &dyn StateRead,
        id: &ObjectId,
        element: &Value,
    ) -> Result<&mut ElementDots, StoreError> {
        let bytes = element.to_bytes();
        let (dots, _) = match self.0.entry(keys::element(id, &bytes)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let dots = load_element(read, entry.key())?;
                let before = element_share(id, &bytes, &dots);
                entry.insert((dots, before))
            }
        };
        Ok(dots)
    }
}

impl Target<'_> {
    /// Writes the elements that were changed, and counts them in the set's header.
    fn store_elements(&mut self, work: &mut Work<'_>) {
        let Object::Set(parts) = &mut *self.object else { return };
        for (key, (dots, before)) in std::mem::take(&mut self.elements.0) {
            parts.exchange(before, element_share(&self.site.id, keys::element_bytes(&key), &dots));
            store_element(work, key, &dots);
        }
    }
}

fn store_element(work: &mut Work<'_>, key: Vec<u8>, dots: &ElementDots) {
    if dots.is_present() {
        let mut out = Writer::new();
        dots.encode(&mut out);
        work.put(key, out.finish());
    } else {
        work.delete(key);
    }
}

/// Updates every element of a set. O(elements).
fn clear_elements(
    work: &mut Work<'_>,
    parts: &mut Parts,
    id: &ObjectId,
    update: impl Fn(&mut ElementDots),
) -> Result<(), StoreError> {
    let (from, until) = keys::elements(id);
    for (key, bytes) in work.scan(&from, &until, usize::MAX)? {
        let mut dots = decode_element(&bytes)?;
        let before = element_share(id, keys::element_bytes(&key), &dots);
        let held = dots.len();
        update(&mut dots);
        if dots.len() != held {
            parts.exchange(before, element_share(id, keys::element_bytes(&key), &dots));
            store_element(work, key, &dots);
        }
    }
    Ok(())
}

/// Updates an element of a remove-wins set. Returns its row, and the key of that.
fn update_rw_element(
    work: &mut Work<'_>,
    parts: &mut Parts,
    id: &ObjectId,
    element: &Value,
    update: impl FnOnce(&mut RwRow),
) -> Result<(Vec<u8>, RwRow), StoreError> {
    let bytes = element.to_bytes();
    let key = keys::element(id, &bytes);
    let mut row = load_rw_element(work, &key)?;
    let before = rw_element_share(id, &bytes, &row);
    update(&mut row);
    parts.exchange(before, rw_element_share(id, &bytes, &row));
    let mut out = Writer::new();
    row.encode(&mut out);
    work.put(key.clone(), out.finish());
    Ok((key, row))
}

/// The dots of an element, none when it has no row.
pub(crate) fn load_element(read: &dyn StateRead, key: &[u8]) -> Result<ElementDots, StoreError> {
    read.get(key)?.map_or_else(|| Ok(ElementDots::default()), |bytes| decode_element(&bytes))
}

/// The row of an element of a remove-wins set, empty when it has none.
pub(crate) fn load_rw_element(read: &dyn StateRead, key: &[u8]) -> Result<RwRow, StoreError> {
    read.get(key)?.map_or_else(|| Ok(RwRow::default()), |bytes| decode_rw_element(&bytes))
}

/// The actor id under which an incarnation edits documents.
pub(crate) fn actor(origin: &comity_crdts::OriginId, nonce: &comity_crdts::Nonce) -> [u8; 16] {
    hash("comity 2026 actor\0", &[&origin.0, &nonce.0]).half()
}

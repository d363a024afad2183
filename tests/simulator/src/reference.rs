//! The reference model: what readers must see, told in the simplest way from which writes are visible and
//! what each of them had seen. Shares no code with the engine.

use std::collections::BTreeMap;

use crate::plan::{Effect, Object};
use crate::truth::WriteRef;

/// One operation of one write.
pub(crate) type Mark = (WriteRef, u8);

/// What a write did: an effect that took place.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) effect: Effect,
    /// Of a resolution, the values that it replaced.
    pub(crate) over: Vec<Mark>,
}

impl From<Effect> for Deed {
    fn from(effect: Effect) -> Self {
        Self { effect, over: Vec::new() }
    }
}

impl Deed {
    pub(crate) fn object(&self) -> Object {
        self.effect.object()
    }
}

/// A sum that can be taken back.
#[derive(Clone, Debug, Default)]
struct Sum {
    total: i128,
    additions: Vec<(Mark, i32)>,
}

impl Sum {
    fn add(&mut self, mark: Mark, delta: i32) {
        self.total += i128::from(delta);
        self.additions.push((mark, delta));
    }

    fn reset(&mut self, seen: impl Fn(&Mark) -> bool) {
        self.additions.retain(|(mark, _)| !seen(mark));
        self.total = self.additions.iter().map(|(_, delta)| i128::from(*delta)).sum();
    }
}

/// Something that is there when it was put there and every removal was seen by somebody who put it there.
#[derive(Clone, Debug, Default)]
struct Strict {
    put: bool,
    /// Who put it there and was seen by nobody who did something to it since.
    last: Vec<Mark>,
    removals: Vec<Mark>,
}

impl Strict {
    /// Returns whether a removal has beaten it already.
    fn put(&mut self, mark: Mark, seen: impl Fn(&Mark) -> bool) -> Option<Mark> {
        self.put = true;
        self.removals.retain(|removal| !seen(removal));
        self.last.retain(|other| !seen(other));
        if !self.removals.is_empty() {
            return Some(mark);
        }
        self.last.push(mark);
        None
    }

    /// Returns who put it there and is beaten.
    fn remove(&mut self, mark: Mark, seen: impl Fn(&Mark) -> bool) -> Vec<Mark> {
        self.removals.push(mark);
        let mut beaten = std::mem::take(&mut self.last);
        beaten.retain(|other| !seen(other));
        beaten
    }

    fn is_there(&self) -> bool {
        self.put && self.removals.is_empty()
    }
}

/// What a map holds under a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nested {
    sum: Sum,
    values: Vec<Mark>,
    elements: BTreeMap<u16, Vec<Mark>>,
}

impl Nested {
    pub(crate) fn total(&self) -> i128 {
        self.sum.total
    }

    pub(crate) fn values(&self) -> &[Mark] {
        &self.values
    }

    pub(crate) fn elements(&self) -> Vec<u16> {
        self.elements.keys().copied().collect()
    }

    /// How many kinds there are of what others wrote.
    fn kinds_but_of(&self, write: WriteRef) -> usize {
        let is_other = |mark: &Mark| mark.0 != write;
        let sum = self.sum.additions.iter().any(|(mark, _)| is_other(mark));
        let elements = self.elements.values().flatten().any(is_other);
        usize::from(sum) + usize::from(self.values.iter().any(is_other)) + usize::from(elements)
    }

    /// Which of a counter, a map (with the register) and a set are there.
    pub(crate) fn kinds(&self) -> [bool; 3] {
        [!self.sum.additions.is_empty(), !self.values.is_empty(), !self.elements.is_empty()]
    }
}

/// Everything in one space as readers of one replica see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    counters: BTreeMap<u16, Sum>,
    sets: BTreeMap<u16, BTreeMap<u16, Vec<Mark>>>,
    registers: BTreeMap<u16, Vec<Mark>>,
    documents: BTreeMap<u16, Paper>,
    flags: BTreeMap<u16, Vec<Mark>>,
    dw_flags: BTreeMap<u16, Strict>,
    rw_sets: BTreeMap<u16, BTreeMap<u16, Strict>>,
    maps: BTreeMap<u16, BTreeMap<u16, Nested>>,
    bounded: BTreeMap<u16, i128>,
    policies: Vec<(Mark, u16)>,
    /// What went although it may have been the value that was shown, or was not seen by who made it go.
    aside: Vec<(Object, Mark)>,
}

/// A document: every edit of it, those of them that no other has seen, and its removals.
#[derive(Clone, Debug, Default)]
struct Paper {
    all: Vec<Mark>,
    last: Vec<Mark>,
    removals: Vec<Mark>,
}

fn put(marks: &mut Vec<Mark>, mark: Mark, seen: impl Fn(&Mark) -> bool) {
    marks.retain(|other| !seen(other));
    marks.push(mark);
}

/// Takes out what was seen. Returns that, if there was anything beside it, or is said to have been.
fn take_values(values: &mut Vec<Mark>, was_among_others: bool, seen: impl Fn(&Mark) -> bool) -> Vec<Mark> {
    let held = values.len();
    let gone = values.extract_if(.., |other| seen(other)).collect();
    if held > 1 || was_among_others { gone } else { Vec::new() }
}

fn take_out(elements: &mut BTreeMap<u16, Vec<Mark>>, seen: impl Fn(&Mark) -> bool) {
    elements.retain(|_, marks| {
        marks.retain(|other| !seen(other));
        !marks.is_empty()
    });
}

fn take_one(elements: &mut BTreeMap<u16, Vec<Mark>>, element: u16, seen: impl Fn(&Mark) -> bool) {
    if let Some(marks) = elements.get_mut(&element) {
        marks.retain(|other| !seen(other));
        if marks.is_empty() {
            elements.remove(&element);
        }
    }
}

impl Reference {
    /// Adds a write. `saw` tells whether its author had seen another write when making it.
    pub(crate) fn apply(&mut self, write: WriteRef, deeds: &[Deed], saw: impl Fn(WriteRef) -> bool) {
        for (index, deed) in deeds.iter().enumerate() {
            let mark = (write, index as u8);
            // What one transaction did before is seen by what it does after.
            let seen = |other: &Mark| if other.0 == write { other.1 < mark.1 } else { saw(other.0) };
            match deed.effect {
                Effect::Resolve { register } => {
                    self.assign(register, Some(mark), |other| deed.over.contains(other));
                }
                effect if !self.apply_within(mark, effect, &seen) => self.apply_one(mark, effect, &seen),
                _ => {}
            }
        }
    }

    fn apply_one(&mut self, mark: Mark, effect: Effect, seen: &impl Fn(&Mark) -> bool) {
        match effect {
            Effect::Add { counter, delta } => self.counters.entry(counter).or_default().add(mark, delta),
            Effect::Reset { counter } => self.counters.entry(counter).or_default().reset(seen),
            Effect::Insert { set, element } => {
                put(self.sets.entry(set).or_default().entry(element).or_default(), mark, seen);
            }
            Effect::Remove { set, element } => take_one(self.sets.entry(set).or_default(), element, seen),
            Effect::Empty { set } => take_out(self.sets.entry(set).or_default(), seen),
            Effect::Assign { register } => self.assign(register, Some(mark), seen),
            Effect::Clear { register } => self.assign(register, None, seen),
            Effect::Edit { document } => {
                let paper = self.documents.entry(document).or_default();
                if paper.removals.iter().all(seen) {
                    put(&mut paper.last, mark, seen);
                    paper.all.push(mark);
                } else {
                    self.aside.push((Object::Document(document), mark));
                }
            }
            Effect::Discard { document } => {
                let paper = self.documents.entry(document).or_default();
                paper.last = Vec::new();
                paper.removals.push(mark);
                let lost = std::mem::take(&mut paper.all).into_iter().filter(|edit| !seen(edit));
                self.aside.extend(lost.map(|edit| (Object::Document(document), edit)));
            }
            Effect::Enable { flag } => put(self.flags.entry(flag).or_default(), mark, seen),
            Effect::Disable { flag } => self.flags.entry(flag).or_default().retain(|other| !seen(other)),
            Effect::Permit { flag } => {
                let beaten = self.dw_flags.entry(flag).or_default().put(mark, seen);
                self.aside.extend(beaten.map(|put| (Object::DwFlag(flag), put)));
            }
            Effect::Forbid { flag } => {
                let beaten = self.dw_flags.entry(flag).or_default().remove(mark, seen);
                self.aside.extend(beaten.into_iter().map(|put| (Object::DwFlag(flag), put)));
            }
            Effect::Admit { set, element } => {
                let row = self.rw_sets.entry(set).or_default().entry(element).or_default();
                self.aside.extend(row.put(mark, seen).map(|put| (Object::RwElement(set, element), put)));
            }
            Effect::Ban { set, element } => {
                let row = self.rw_sets.entry(set).or_default().entry(element).or_default();
                let beaten = row.remove(mark, seen).into_iter();
                self.aside.extend(beaten.map(|put| (Object::RwElement(set, element), put)));
            }
            Effect::Raise { bounded, amount } => {
                *self.bounded.entry(bounded).or_default() += i128::from(amount);
            }
            Effect::Lower { bounded, amount } => {
                *self.bounded.entry(bounded).or_default() -= i128::from(amount);
            }
            Effect::Rule { policy } => {
                self.policies.retain(|(other, _)| !seen(other));
                self.policies.push((mark, policy));
            }
            _ => {}
        }
    }

    /// Puts a value into a register, if there is one, in the place of some that are there.
    fn assign(&mut self, register: u16, value: Option<Mark>, replaced: impl Fn(&Mark) -> bool) {
        let values = self.registers.entry(register).or_default();
        let gone = take_values(values, false, replaced);
        values.extend(value);
        self.aside.extend(gone.into_iter().map(|value| (Object::Register(register), value)));
    }

    /// What is done within maps. Returns whether it is.
    fn apply_within(&mut self, mark: Mark, effect: Effect, seen: &impl Fn(&Mark) -> bool) -> bool {
        let (map, key) = match effect {
            Effect::AddWithin { map, key, .. }
            | Effect::AssignWithin { map, key }
            | Effect::InsertWithin { map, key, .. }
            | Effect::RemoveWithin { map, key, .. }
            | Effect::Drop { map, key } => (map, key),
            _ => return false,
        };
        let nested = self.maps.entry(map).or_default().entry(key).or_default();
        match effect {
            Effect::AddWithin { delta, .. } => nested.sum.add(mark, delta),
            Effect::AssignWithin { .. } => {
                let gone = take_values(&mut nested.values, false, seen);
                nested.values.push(mark);
                self.aside.extend(gone.into_iter().map(|value| (Object::Key(map, key), value)));
            }
            Effect::InsertWithin { element, .. } => {
                put(nested.elements.entry(element).or_default(), mark, seen);
            }
            Effect::RemoveWithin { element, .. } => take_one(&mut nested.elements, element, seen),
            _ => {
                // What the same write put there nobody has seen beside anything.
                let several = nested.kinds_but_of(mark.0) > 1;
                nested.sum.reset(seen);
                take_out(&mut nested.elements, seen);
                let mut gone = take_values(&mut nested.values, several, seen);
                gone.retain(|value| value.0 != mark.0);
                self.aside.extend(gone.into_iter().map(|value| (Object::Key(map, key), value)));
            }
        }
        true
    }

    pub(crate) fn counter(&self, counter: u16) -> i128 {
        self.counters.get(&counter).map_or(0, |sum| sum.total)
    }

    pub(crate) fn contains(&self, set: u16, element: u16) -> bool {
        self.sets.get(&set).is_some_and(|elements| elements.contains_key(&element))
    }

    pub(crate) fn elements(&self, set: u16) -> usize {
        self.sets.get(&set).map_or(0, BTreeMap::len)
    }

    /// The values of a register that nothing visible has replaced.
    pub(crate) fn siblings(&self, register: u16) -> &[Mark] {
        self.registers.get(&register).map_or(&[], Vec::as_slice)
    }

    /// The edits of a document, and those that no other of them had seen.
    pub(crate) fn edits(&self, document: u16) -> (&[Mark], &[Mark]) {
        self.documents.get(&document).map_or((&[], &[]), |paper| (&paper.all, &paper.last))
    }

    pub(crate) fn is_enabled(&self, flag: u16) -> bool {
        self.flags.get(&flag).is_some_and(|marks| !marks.is_empty())
    }

    pub(crate) fn is_permitted(&self, flag: u16) -> bool {
        self.dw_flags.get(&flag).is_some_and(Strict::is_there)
    }

    pub(crate) fn is_admitted(&self, set: u16, element: u16) -> bool {
        self.rw_sets.get(&set).and_then(|set| set.get(&element)).is_some_and(Strict::is_there)
    }

    pub(crate) fn admitted(&self, set: u16) -> usize {
        self.rw_sets.get(&set).map_or(0, |set| set.values().filter(|element| element.is_there()).count())
    }

    pub(crate) fn nested(&self, map: u16, key: u16) -> Nested {
        self.maps.get(&map).and_then(|keys| keys.get(&key)).cloned().unwrap_or_default()
    }

    /// How many kinds the keys of a map lead to, all together.
    pub(crate) fn fields(&self, map: u16) -> usize {
        let keys = self.maps.get(&map).into_iter().flat_map(BTreeMap::values);
        keys.flat_map(Nested::kinds).filter(|is_there| *is_there).count()
    }

    pub(crate) fn bounded(&self, bounded: u16) -> i128 {
        self.bounded.get(&bounded).copied().unwrap_or(0)
    }

    /// The policies that somebody set last.
    pub(crate) fn policies(&self) -> Vec<u16> {
        self.policies.iter().map(|(_, policy)| *policy).collect()
    }

    /// What a replica that applied these writes in this order must have in its journal.
    pub(crate) fn aside(&self) -> &[(Object, Mark)] {
        &self.aside
    }

    /// Everything that was ever touched.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = Vec::new();
        let sets = self.sets.iter();
        objects.extend(sets.flat_map(|(set, elements)| elements.keys().map(|e| Object::Element(*set, *e))));
        let sets = self.rw_sets.iter();
        objects.extend(sets.flat_map(|(set, elements)| elements.keys().map(|e| Object::RwElement(*set, *e))));
        let maps = self.maps.iter();
        objects.extend(maps.flat_map(|(map, keys)| keys.keys().map(|key| Object::Key(*map, *key))));
        objects.extend(self.counters.keys().map(|counter| Object::Counter(*counter)));
        objects.extend(self.registers.keys().map(|register| Object::Register(*register)));
        objects.extend(self.documents.keys().map(|document| Object::Document(*document)));
        objects.extend(self.flags.keys().map(|flag| Object::Flag(*flag)));
        objects.extend(self.dw_flags.keys().map(|flag| Object::DwFlag(*flag)));
        objects.extend(self.bounded.keys().map(|bounded| Object::Bounded(*bounded)));
        if !self.policies.is_empty() {
            objects.push(Object::Policy);
        }
        objects
    }
}

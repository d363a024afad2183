//! The reference model: what readers must see, told in the simplest way from which writes are visible and
//! what each of them had seen. Shares no code with the engine.

use std::collections::BTreeMap;

use crate::plan::Object;
use crate::truth::WriteRef;

/// One operation of one write.
pub(crate) type Mark = (WriteRef, u8);

/// What a write did.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Add {
        counter: u16,
        delta: i32,
    },
    Insert {
        set: u16,
        element: u16,
    },
    Remove {
        set: u16,
        element: u16,
    },
    Assign {
        register: u16,
    },
    /// An assignment over the named values only.
    Resolve {
        register: u16,
        over: Vec<Mark>,
    },
    Clear {
        register: u16,
    },
    Edit {
        document: u16,
    },
}

impl Deed {
    pub(crate) fn object(&self) -> Object {
        match *self {
            Self::Add { counter, .. } => Object::Counter(counter),
            Self::Insert { set, element } | Self::Remove { set, element } => Object::Element(set, element),
            Self::Assign { register } | Self::Resolve { register, .. } | Self::Clear { register } => {
                Object::Register(register)
            }
            Self::Edit { document } => Object::Document(document),
        }
    }
}

/// Everything in one space as readers of one replica see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    counters: BTreeMap<u16, i128>,
    sets: BTreeMap<u16, BTreeMap<u16, Vec<Mark>>>,
    registers: BTreeMap<u16, Vec<Mark>>,
    /// Every edit of the document, and those of them that no other has seen.
    documents: BTreeMap<u16, (Vec<Mark>, Vec<Mark>)>,
}

impl Reference {
    /// Adds a write. `saw` tells whether its author had seen another write when making it.
    pub(crate) fn apply(&mut self, write: WriteRef, deeds: &[Deed], saw: impl Fn(WriteRef) -> bool) {
        for (index, deed) in deeds.iter().enumerate() {
            let mark = (write, index as u8);
            // What one transaction did before is seen by what it does after.
            let seen = |other: &Mark| if other.0 == write { other.1 < mark.1 } else { saw(other.0) };
            match deed {
                Deed::Add { counter, delta } => {
                    *self.counters.entry(*counter).or_insert(0) += i128::from(*delta);
                }
                Deed::Insert { set, element } => {
                    let marks = self.sets.entry(*set).or_default().entry(*element).or_default();
                    marks.retain(|other| !seen(other));
                    marks.push(mark);
                }
                Deed::Remove { set, element } => {
                    let elements = self.sets.entry(*set).or_default();
                    if let Some(marks) = elements.get_mut(element) {
                        marks.retain(|other| !seen(other));
                        if marks.is_empty() {
                            elements.remove(element);
                        }
                    }
                }
                Deed::Assign { register } => {
                    let values = self.registers.entry(*register).or_default();
                    values.retain(|other| !seen(other));
                    values.push(mark);
                }
                Deed::Resolve { register, over } => {
                    let values = self.registers.entry(*register).or_default();
                    values.retain(|other| !over.contains(other));
                    values.push(mark);
                }
                Deed::Clear { register } => {
                    self.registers.entry(*register).or_default().retain(|other| !seen(other));
                }
                Deed::Edit { document } => {
                    let (all, last) = self.documents.entry(*document).or_default();
                    last.retain(|other| !seen(other));
                    last.push(mark);
                    all.push(mark);
                }
            }
        }
    }

    pub(crate) fn counter(&self, counter: u16) -> i128 {
        self.counters.get(&counter).copied().unwrap_or(0)
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
        self.documents.get(&document).map_or((&[], &[]), |(all, last)| (all, last))
    }

    /// Everything that was ever touched.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let sets = self.sets.iter();
        let elements = sets.flat_map(|(set, elements)| elements.keys().map(|e| Object::Element(*set, *e)));
        let counters = self.counters.keys().map(|counter| Object::Counter(*counter));
        let registers = self.registers.keys().map(|register| Object::Register(*register));
        let documents = self.documents.keys().map(|document| Object::Document(*document));
        elements.chain(counters).chain(registers).chain(documents).collect()
    }
}

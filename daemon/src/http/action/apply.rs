//! Doing it, inside a transaction.

use comity::{
    Kind, Transaction, TxBoundedCounter, TxCounter, TxDocument, TxError, TxFlag, TxMap, TxRegister, TxSet,
};

use super::{BoundedStep, CounterStep, DocumentStep, FlagStep, MapStep, Nested, RegisterStep, SetStep, Step};

impl Step {
    /// Does it to an object of the kind that it was checked against.
    ///
    /// # Errors
    /// [`TxError`], which rolls the transaction back.
    pub(crate) fn apply(
        self,
        tx: &mut Transaction<'_, '_>,
        kind: Kind,
        (collection, key): (&str, &str),
    ) -> Result<(), TxError> {
        match self {
            Self::Counter(step) => counter(&mut tx.counter(collection, key), &step),
            Self::Bounded(step) => bounded(&mut tx.bounded_counter(collection, key), &step),
            Self::Set(step) if kind == Kind::RwSet => set(&mut tx.remove_wins_set(collection, key), step),
            Self::Set(step) => set(&mut tx.set(collection, key), step),
            Self::Flag(step) if kind == Kind::DwFlag => {
                flag(&mut tx.disable_wins_flag(collection, key), step)
            }
            Self::Flag(step) => flag(&mut tx.flag(collection, key), step),
            Self::Register(step) => register(&mut tx.register(collection, key), step),
            Self::Map(step) => map(&mut tx.map(collection, key), step),
            Self::Document(step) => document(&mut tx.document(collection, key), step),
        }
    }
}

fn counter(at: &mut TxCounter<'_, '_>, step: &CounterStep) -> Result<(), TxError> {
    match step {
        CounterStep::Add(by) => at.add(*by),
        CounterStep::Clear => at.remove(),
    }
}

fn bounded(at: &mut TxBoundedCounter<'_, '_>, step: &BoundedStep) -> Result<(), TxError> {
    match step {
        BoundedStep::Increase(by) => at.increase(*by),
        BoundedStep::Decrease(by) => at.decrease(*by),
        BoundedStep::Transfer(to, amount) => at.transfer(*to, *amount),
        BoundedStep::Clear => at.remove(),
    }
}

fn set(at: &mut TxSet<'_, '_>, step: SetStep) -> Result<(), TxError> {
    match step {
        SetStep::Insert(element) => at.insert(element),
        SetStep::Remove(element) => at.remove(element),
        SetStep::Clear => at.clear(),
    }
}

fn flag(at: &mut TxFlag<'_, '_>, step: FlagStep) -> Result<(), TxError> {
    match step {
        FlagStep::Enable => at.enable(),
        FlagStep::Disable => at.disable(),
        FlagStep::Clear => at.remove(),
    }
}

fn register(at: &mut TxRegister<'_, '_>, step: RegisterStep) -> Result<(), TxError> {
    match step {
        RegisterStep::Write(value) => at.write(value),
        RegisterStep::Resolve(value, seen) => at.resolve(value, &seen),
        RegisterStep::Clear => at.clear(),
    }
}

fn map(at: &mut TxMap<'_, '_>, step: MapStep) -> Result<(), TxError> {
    match step {
        MapStep::Within(path, nested) => within(at, &path, nested),
        MapStep::RemoveKey(path) => remove_key(at, &path),
        MapStep::Clear => at.clear(),
    }
}

fn within(at: &mut TxMap<'_, '_>, path: &[String], step: Nested) -> Result<(), TxError> {
    match path {
        // Paths are checked to hold a key before.
        [] => Ok(()),
        [key] => match step {
            Nested::Counter(step) => counter(&mut at.counter(key), &step),
            Nested::Set(step) => set(&mut at.set(key), step),
            Nested::Flag(step) => flag(&mut at.flag(key), step),
            Nested::Register(step) => register(&mut at.register(key), step),
            Nested::Map(step) => map(&mut at.map(key), *step),
        },
        [key, rest @ ..] => within(&mut at.map(key), rest, step),
    }
}

fn remove_key(at: &mut TxMap<'_, '_>, path: &[String]) -> Result<(), TxError> {
    match path {
        [] => Ok(()),
        [key] => at.remove(key),
        [key, rest @ ..] => remove_key(&mut at.map(key), rest),
    }
}

fn document(at: &mut TxDocument<'_, '_>, step: DocumentStep) -> Result<(), TxError> {
    match step {
        DocumentStep::Put(pointer, value) => at.put_json(&pointer, &value),
        DocumentStep::Merge(pointer, value) => at.merge_patch(&pointer, &value),
        DocumentStep::Patch(operations) => at.patch(&operations),
        DocumentStep::Increment(pointer, by) => at.increment(&pointer, by),
        DocumentStep::Splice { pointer, position, delete, insert } => {
            at.splice(&pointer, position, delete, &insert)
        }
        DocumentStep::Mark { pointer, mark, expand } => at.mark(&pointer, &mark, expand),
        DocumentStep::Unmark { pointer, name, start, end } => at.unmark(&pointer, start..end, &name),
        DocumentStep::Restore(heads) => at.restore(&heads),
        DocumentStep::Clear => at.remove(),
    }
}

//! Three paths that everything goes through, with fixed inputs and in one thread, for `.ci/instructions` to count
//! the instructions of. What is counted is what the functions whose names end in `_counted` do.

use comity_crdts::{Kind, ObjectAddress, SpaceId, Value};
use comity_engine::Location;

use crate::options::Options;
use crate::replicas::Replicas;
use crate::{Failure, Verdict};

/// Changes that are counted.
const CHANGES: u64 = 2_048;
/// Changes between two syncs.
const GROUP: u64 = 64;
/// Objects that the changes go to.
const OBJECTS: u64 = 256;
/// Elements that the set has before it is counted.
const ELEMENTS: u64 = 4_096;

/// Does what one path takes, with its preparations.
type Path = fn() -> Result<(), Failure>;

/// Does one of them. Option: `--path`, `commit`, `receive` or `add`; all of them otherwise.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let path: String = options.value("path", String::new())?;
    let paths: [(&str, Path); 3] = [("commit", commit), ("receive", receive), ("add", add)];
    let mut found = false;
    for (name, run) in paths {
        if path.is_empty() || path == name {
            run()?;
            println!("{name}: {CHANGES} changes");
            found = true;
        }
    }
    if found { Ok(Verdict::default()) } else { Err(format!("--path {path}: there is no such path").into()) }
}

/// A replica with a space where every object is there already.
fn prepared(count: u8) -> Result<(Replicas, SpaceId), Failure> {
    let mut replicas = Replicas::open(count)?;
    let space = replicas.found()?;
    (0..OBJECTS).try_for_each(|number| write(&mut replicas, space, number))?;
    replicas.settle()?;
    Ok((replicas, space))
}

fn write(replicas: &mut Replicas, space: SpaceId, number: u64) -> Result<(), Failure> {
    let object = ObjectAddress::new(Kind::Register, "measured", &format!("object-{:04}", number % OBJECTS))?;
    let value = Value::Text(format!("{number:016x}"));
    replicas.transact(space, |tx| tx.register_write_at(&Location::from(object), value))
}

/// Transactions of one small change, durable in groups, at a replica that is alone.
fn commit() -> Result<(), Failure> {
    let (mut replicas, space) = prepared(1)?;
    commit_counted(&mut replicas, space)
}

#[inline(never)]
fn commit_counted(replicas: &mut Replicas, space: SpaceId) -> Result<(), Failure> {
    for first in (0..CHANGES).step_by(GROUP as usize) {
        (first..first + GROUP).try_for_each(|number| write(replicas, space, number))?;
        replicas.settle()?;
    }
    Ok(())
}

/// Runs that one replica makes and another one decodes, checks and applies, with the syncs of both.
fn receive() -> Result<(), Failure> {
    let (mut replicas, space) = prepared(2)?;
    for first in (0..CHANGES).step_by(GROUP as usize) {
        (first..first + GROUP).try_for_each(|number| write(&mut replicas, space, number))?;
        receive_counted(&mut replicas)?;
    }
    Ok(())
}

#[inline(never)]
fn receive_counted(replicas: &mut Replicas) -> Result<(), Failure> {
    replicas.settle()
}

/// Elements that are added to a set that has many.
fn add() -> Result<(), Failure> {
    let (mut replicas, space) = prepared(1)?;
    let set = Location::from(ObjectAddress::new(Kind::Set, "measured", "set")?);
    let element = |number: u64| Value::Text(format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    for first in (0..ELEMENTS).step_by(GROUP as usize) {
        let mut numbers = first..first + GROUP;
        replicas.transact(space, |tx| numbers.try_for_each(|number| tx.set_add_at(&set, element(number))))?;
        replicas.settle()?;
    }
    add_counted(&mut replicas, space, &set, &element)
}

#[inline(never)]
fn add_counted(
    replicas: &mut Replicas,
    space: SpaceId,
    set: &Location,
    element: &dyn Fn(u64) -> Value,
) -> Result<(), Failure> {
    for first in (ELEMENTS..ELEMENTS + CHANGES).step_by(GROUP as usize) {
        for number in first..first + GROUP {
            replicas.transact(space, |tx| tx.set_add_at(set, element(number)))?;
        }
        replicas.settle()?;
    }
    Ok(())
}

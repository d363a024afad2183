//! Verifying finds nothing in what the core wrote, and finds every row and every entry that is taken away or changed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::automerge::ROOT;
use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::{Kind, LaneId, ObjectAddress, SpaceId, Value};
use comity_engine::{
    Fault, Location, LogRead, OperationId, Retention, Row, StateRead, StoreError, Tx, TxError, Verified,
    WriteOptions, verify,
};
use world::World;
use world::spec::{top, within};

type Entries = BTreeMap<(LaneId, u64), Vec<u8>>;

/// All that a store holds of one space, to be spoiled.
#[derive(Clone, Default)]
struct Rows {
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    log: Entries,
}

impl Rows {
    fn of(world: &World, node: usize, space: SpaceId) -> Self {
        let view = world.nodes[node].disk.view();
        let state = view.scan(&[], &[0xff], usize::MAX).unwrap().into_iter().collect();
        let mut log = Entries::new();
        for lane in world.status(node, space).lanes {
            for lsn in lane.floor + 1..=lane.applied {
                log.insert((lane.lane, lsn), view.lane_entry(&space, &lane.lane, lsn).unwrap().unwrap());
            }
        }
        Self { state, log }
    }

    fn faults(&self) -> (Vec<Fault>, Verified) {
        let mut faults = Vec::new();
        let verified = verify(self, |fault| faults.push(fault), |_| {}).unwrap();
        assert_eq!(verified.faults, faults.len() as u64);
        (faults, verified)
    }
}

impl StateRead for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state.get(key).cloned())
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= until {
            return Ok(Vec::new());
        }
        let rows = self.state.range(from.to_vec()..until.to_vec());
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl LogRead for Rows {
    fn lane_entry(&self, _: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.log.get(&(*lane, lsn)).cloned())
    }
}

fn register(key: &str) -> Location {
    ObjectAddress::new(Kind::Register, "r", key).unwrap().into()
}

fn some_of_every_kind(tx: &mut Tx<'_>, number: i64) -> Result<(), TxError> {
    tx.counter_add_at(&top(Kind::Counter), number)?;
    tx.set_add_at(&top(Kind::Set), Value::I64(number))?;
    tx.rw_set_add_at(&top(Kind::RwSet), Value::I64(number))?;
    tx.flag_enable_at(&top(Kind::Flag))?;
    tx.dw_flag_enable_at(&top(Kind::DwFlag))?;
    tx.bounded_increment_at(&top(Kind::BoundedCounter), 5)?;
    tx.register_write_at(&register("decided"), Value::I64(number))?;
    tx.register_write_at(&register("open"), Value::I64(number))?;
    tx.set_add_at(&within(&["a", "b"]), Value::I64(number))?;
    tx.register_write_at(&within(&["c"]), Value::I64(number))?;
    if number % 2 == 0 {
        tx.counter_add_at(&within(&["kinds"]), number)
    } else {
        tx.flag_enable_at(&within(&["kinds"]))
    }
}

/// Two writers who wrote everything at the same time, and decided one conflict, so that it is in the journal.
fn written() -> (World, SpaceId) {
    let (mut world, space) = World::mesh(2);
    // Only who was heard of may write to everything.
    for node in [1, 0] {
        world.add(node, space, 1);
        world.run();
    }
    world.disconnect_all(None);
    for node in 0..2 {
        world.write(node, space, move |tx| some_of_every_kind(tx, node as i64)).unwrap();
        for text in ["one", "two"] {
            let edit = move |tx: &mut Tx<'_>| {
                tx.document_edit("d", "doc", |doc| Ok(doc.put(ROOT, text, i64::try_from(node).unwrap())?))
            };
            world.write(node, space, edit).unwrap();
        }
    }
    world.connect(0, 1);
    world.run();
    world.write(0, space, |tx| tx.register_write_at(&register("decided"), Value::Null)).unwrap();
    let options = world.write_options(0);
    let options = WriteOptions { operation: Some(OperationId::named(b"once").unwrap()), ..options };
    world
        .write_as::<_, TxError>(0, space, options, |tx| tx.counter_add_at(&top(Kind::Counter), 1))
        .0
        .unwrap();
    world.run();
    (world, space)
}

#[test]
fn nothing_is_found_in_what_was_written() {
    let (world, space) = written();
    for node in 0..2 {
        let (faults, verified) = Rows::of(&world, node, space).faults();
        assert_eq!(faults, []);
        assert!(verified.entries > 6 && verified.signatures > 0 && verified.elements >= 6, "{verified:?}");
        assert_eq!((verified.spaces, verified.lanes, verified.documents, verified.journal), (1, 2, 1, 2));
    }
}

/// Rows that say nothing about others, by the first byte of their keys: the replica's key and the version of the rows,
/// addresses and invitations, what lanes announced and what is forgotten, what is unstable, documents' actors.
const ALONE: [u8; 8] = [0x00, 0x04, 0x05, 0x23, 0x24, 0x37, 0x34, 0x01];

#[test]
fn every_row_that_is_missing_is_found() {
    let (world, space) = written();
    let rows = Rows::of(&world, 1, space);
    let mut missed = Vec::new();
    // Additions are remembered until they are replaced, so one that is not need not be missing.
    for key in rows.state.keys().filter(|key| !ALONE.contains(&key[0]) && key[0] != 0x3a) {
        let mut spoiled = rows.clone();
        spoiled.state.remove(key);
        if spoiled.faults().0.is_empty() {
            missed.push(key.clone());
        }
    }
    assert_eq!(missed, Vec::<Vec<u8>>::new());
}

#[test]
fn every_bit_of_an_entry_counts() {
    let (world, space) = written();
    let rows = Rows::of(&world, 1, space);
    let (mut count, mut missed) = (0, Vec::new());
    for (at, bytes) in &rows.log {
        for index in 0..bytes.len() {
            let mut spoiled = rows.clone();
            spoiled.log.get_mut(at).unwrap()[index] ^= 1 << (index % 8);
            count += 1;
            if spoiled.faults().0.is_empty() {
                missed.push((*at, index));
            }
        }
        let mut spoiled = rows.clone();
        spoiled.log.remove(at);
        assert!(!spoiled.faults().0.is_empty(), "{at:?} is missing");
    }
    assert!(count > 1_000, "{count}");
    assert_eq!(missed, []);
}

#[test]
fn of_a_log_that_was_shortened_what_is_kept_is_checked_and_nothing_else_is_missed() {
    let (mut world, space) = World::mesh(2);
    for node in 0..2 {
        world.nodes[node].retention = Retention {
            age: Duration::from_secs(5),
            bytes_max: u64::MAX,
            announce_after: Duration::from_secs(2),
        };
        world.crash(node);
    }
    world.connect_all();
    for number in 0..40 {
        world.add(number % 2, space, 1);
        world.pass_for(1);
    }
    world.disconnect_all(None);
    (0..5).for_each(|_| world.add(1, space, 1));
    let rows = Rows::of(&world, 1, space);
    let (faults, verified) = rows.faults();
    assert_eq!(faults, []);
    assert!(rows.log.len() >= 5 && rows.log.len() < 40, "{}", rows.log.len());
    assert_eq!(verified.entries, rows.log.len() as u64);
    for at in rows.log.keys() {
        let mut spoiled = rows.clone();
        spoiled.log.remove(at);
        assert!(!spoiled.faults().0.is_empty(), "{at:?} is missing");
    }
    // What stands for the entries that are not kept: lanes' floors, and how many were let go of.
    for key in rows.state.keys().filter(|key| matches!(key[0], 0x25 | 0x26)) {
        let mut spoiled = rows.clone();
        spoiled.state.remove(key);
        assert!(!spoiled.faults().0.is_empty(), "{key:?} is missing");
    }
}

#[test]
fn it_tells_how_much_was_looked_at_and_that_is_about_all_there_is() {
    let (mut world, space) = World::mesh(1);
    for number in 0..6 {
        let many = move |tx: &mut Tx<'_>| {
            (0..500).try_for_each(|key| tx.counter_add("c", &format!("{number}-{key}"), 1))
        };
        world.write(0, space, many).unwrap();
    }
    let rows = Rows::of(&world, 0, space);
    let mut told = Vec::new();
    verify(&rows, |fault| panic!("{fault}"), |looked| told.push(looked)).unwrap();
    assert!(told.is_sorted() && told.len() >= 2, "{told:?}");
    let all = (rows.state.len() + rows.log.len()) as u64;
    assert!(told.last().is_some_and(|last| last * 2 > all && *last <= all), "{told:?} of {all}");
}

/// Changing a bit of a row of the state is found, but for the few that say nothing that anything else says as well:
/// how the journal tells it, when an operation was made, and how documents are saved.
#[test]
fn nearly_every_changed_bit_of_a_row_is_found() {
    const TOLD_ONCE: [u8; 4] = [0x40, 0x42, 0x4b, 0x35];
    let (world, space) = written();
    let rows = Rows::of(&world, 1, space);
    let (mut count, mut missed) = (0, Vec::new());
    for (key, bytes) in
        rows.state.iter().filter(|(key, _)| !ALONE.contains(&key[0]) && !TOLD_ONCE.contains(&key[0]))
    {
        for index in 0..bytes.len() {
            let mut spoiled = rows.clone();
            spoiled.state.get_mut(key).unwrap()[index] ^= 1 << (index % 8);
            count += 1;
            if spoiled.faults().0.is_empty() {
                missed.push((key.clone(), index));
            }
        }
    }
    assert!(count > 1_000, "{count}");
    let by_prefix = missed.iter().fold(BTreeMap::<u8, usize>::new(), |mut map, (key, _)| {
        *map.entry(key[0]).or_default() += 1;
        map
    });
    assert!(missed.len() * 20 < count, "{} of {count} were missed: {by_prefix:?}", missed.len());
}

//! A row that has another content than was written is found, named and made again, while everybody writes; and
//! nothing else is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{Kind, SpaceId};
use comity_engine::wire::{AuditAsk, AuditItem, AuditReply, AuditSuspect, Message, RangeDigest};
use comity_engine::{
    AuditEvent, CloseReason, Input, LogRead, Retention, Row, StateRead, StoreError, Unresolved,
    object_digest, repairs,
};
use world::World;
use world::audits::{SHORT, asked, assert_sound, audit, events, liar, something, write_on, written};
use world::spec::top;

/// Every row of objects that a replica has, but for those that say what may differ: tokens and what is forgotten.
fn object_rows(world: &World, node: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = world.nodes[node].disk.view().scan(&[0x30], &[0x36], usize::MAX).unwrap();
    rows.into_iter().filter(|(key, _)| !key.windows(5).any(|part| part == b"other")).collect()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong_while_everybody_writes() {
    let (mut world, space) = written(Retention::OFF);
    for round in 0..20 {
        for node in 0..3 {
            world.write(node, space, move |tx| something(tx, 100 + 3 * round + node as i64)).unwrap();
        }
        world.pass(Duration::from_millis(700));
    }
    for node in 0..3 {
        let audit = audit(&world, node, space);
        assert!(audit.passes >= 2 && audit.inspected > 20 && audit.compared > 10, "{audit:?}");
        assert_eq!((audit.damaged, audit.diverged, audit.repaired), (0, 0, 0), "{audit:?}");
        assert_eq!(events(&world, node), []);
    }
}

/// Of every row of every object a bit is changed, one row after the other: the first bit of its middle byte.
#[test]
fn a_changed_row_of_every_kind_is_found_named_and_made_again_while_everybody_writes() {
    let (mut world, space) = written(Retention::OFF);
    let (mut kinds, mut tried) = (std::collections::BTreeSet::new(), 0);
    for (number, (key, _)) in object_rows(&world, 1).into_iter().enumerate() {
        let Some(value) = world.nodes[1].disk.get(&key).unwrap() else { continue };
        let mut spoiled = value.clone();
        let middle = spoiled.len() / 2;
        spoiled[middle] ^= 1 << (number % 8);
        let before = events(&world, 1).len();
        world.rot(1, &key, Some(spoiled.clone()));
        world.nodes[1].notices.clear();
        world.connect_all();
        write_on(&mut world, space, 5);
        let is_as_it_was = world.nodes[1].disk.get(&key).unwrap() != Some(spoiled);
        let events = events(&world, 1);
        let repaired: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                AuditEvent::Repaired { object, .. } => Some(object.clone()),
                _ => None,
            })
            .collect();
        assert!(is_as_it_was && repaired.len() == 1, "row {key:02x?}: {value:02x?}: {events:?}, {before}");
        kinds.insert(repaired[0].kind());
        tried += 1;
        assert_sound(&world, space);
        let kept = repairs(&world.nodes[1].disk.view(), &space).unwrap();
        let kept = kept.last().unwrap();
        assert_eq!(kept.object, repaired[0]);
        assert!(kept.replaced.iter().any(|(replaced, _)| *replaced == key), "what was there is kept");
    }
    assert!(tried > 15, "{tried}");
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), {
        let mut all = Kind::APPLICATION.to_vec();
        all.sort_unstable();
        all
    });
    for node in [0, 2] {
        assert_eq!(audit(&world, node, space).repaired, 0, "who is right changes nothing");
    }
}

#[test]
fn a_row_that_is_gone_is_found_and_made_again() {
    let (mut world, space) = written(Retention::OFF);
    for (key, _) in object_rows(&world, 2) {
        if world.nodes[2].disk.get(&key).unwrap().is_none() {
            continue;
        }
        world.rot(2, &key, None);
        world.nodes[2].notices.clear();
        world.connect_all();
        write_on(&mut world, space, 5);
        assert!(world.nodes[2].disk.get(&key).unwrap().is_some(), "row {key:02x?}: {:?}", events(&world, 2));
        assert_sound(&world, space);
    }
}

#[test]
fn what_is_written_to_a_damaged_object_meanwhile_stays() {
    let (mut world, space) = written(Retention::OFF);
    let address = top(Kind::Counter).object;
    let (key, spoiled) = spoiled_header(&world, space, Kind::Counter);
    let sum = |world: &World, node: usize| {
        comity_engine::counter(&world.nodes[node].disk.view(), &space, "spec", "k").unwrap()
    };
    world.rot(1, &key, Some(spoiled));
    let right = sum(&world, 0);
    assert_ne!(sum(&world, 1), right, "readers see what has rotted");
    world.connect_all();
    for node in 0..3 {
        world.write(node, space, |tx| tx.counter_add_at(&top(Kind::Counter), 1)).unwrap();
    }
    write_on(&mut world, space, 5);
    for node in 0..3 {
        assert_eq!(sum(&world, node), right + 3);
    }
    let is_it =
        |event: &AuditEvent| matches!(event, AuditEvent::Repaired { object, .. } if *object == address);
    assert!(events(&world, 1).iter().any(is_it));
    assert_sound(&world, space);
}

/// As [`written`], with shortened logs.
fn shortened() -> (World, SpaceId) {
    let (mut world, space) = written(SHORT);
    write_on(&mut world, space, 3);
    for node in 0..3 {
        let lanes = world.status(node, space).lanes;
        assert!(lanes.iter().any(|lane| lane.floor > 0), "node {node} keeps its log");
    }
    (world, space)
}

/// The header row of the object of a kind that every test writes to, and the same with another bit.
fn spoiled_header(world: &World, space: SpaceId, kind: Kind) -> (Vec<u8>, Vec<u8>) {
    let rows = object_rows(world, 1);
    let (key, value) = rows.iter().find(|(key, _)| key[0] == 0x30 && key[17] == kind.tag()).unwrap();
    let view = world.nodes[1].disk.view();
    let object = top(kind).object;
    let before = object_digest(&view, &space, &object).unwrap();
    // Another value that can be read.
    let bits = (0..value.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    let spoiled = bits.map(|(at, bit)| {
        let mut spoiled = value.clone();
        spoiled[at] ^= 1 << bit;
        spoiled
    });
    let is_fit = |spoiled: &Vec<u8>| {
        let below = &view;
        let after = object_digest(&Spoiled { below, key, value: spoiled }, &space, &object).unwrap();
        after.fault.is_none() && after.state != before.state
    };
    (key.clone(), spoiled.rev().find(is_fit).expect("some bit says something"))
}

/// What is read with another value in one row.
struct Spoiled<'a, R> {
    below: &'a R,
    key: &'a [u8],
    value: &'a [u8],
}

impl<R: StateRead> StateRead for Spoiled<'_, R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if key == self.key { Ok(Some(self.value.to_vec())) } else { self.below.get(key) }
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.below.scan(from, until, limit)
    }
}

impl<R: LogRead> LogRead for Spoiled<'_, R> {
    fn lane_entry(
        &self,
        space: &SpaceId,
        lane: &comity_crdts::LaneId,
        lsn: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.below.lane_entry(space, lane, lsn)
    }
}

fn is_repaired(world: &World, kind: Kind) -> bool {
    let is_it =
        |event: &AuditEvent| matches!(event, AuditEvent::Repaired { object, .. } if object.kind() == kind);
    events(world, 1).iter().any(is_it)
}

#[test]
fn where_the_log_is_shortened_peers_send_rows_that_the_kept_digest_proves() {
    let (mut world, space) = shortened();
    for (key, _) in object_rows(&world, 1) {
        let Some(value) = world.nodes[1].disk.get(&key).unwrap() else { continue };
        let mut spoiled = value.clone();
        spoiled[value.len() / 2] ^= 1;
        world.rot(1, &key, Some(spoiled));
        world.nodes[1].notices.clear();
        world.connect_all();
        write_on(&mut world, space, 5);
        let events = events(&world, 1);
        let repaired = events.iter().any(|event| matches!(event, AuditEvent::Repaired { .. }));
        assert!(repaired, "row {key:02x?}: {value:02x?}: {events:?}");
        assert_sound(&world, space);
    }
}

#[test]
fn where_the_kept_digest_has_rotted_too_a_majority_is_believed() {
    let (mut world, space) = shortened();
    let (key, spoiled) = spoiled_header(&world, space, Kind::Counter);
    world.rot(1, &key, Some(spoiled));
    world.connect_all();
    // What is wrong is changed, and the digest with it.
    world.write(0, space, |tx| tx.counter_add_at(&top(Kind::Counter), 1)).unwrap();
    write_on(&mut world, space, 5);
    assert!(is_repaired(&world, Kind::Counter), "{:?}", events(&world, 1));
    assert_sound(&world, space);
}

/// Lets time pass; whatever rows anybody sends arrive with another content.
fn run_tampering(world: &mut World, time: Duration) -> usize {
    let (end, mut tampered) = (world.clock + time, 0);
    while world.clock < end {
        for session in world.sessions() {
            let queues = world.link_mut(session).wires.iter_mut().flat_map(|wire| wire.queues.values_mut());
            for frame in queues.flatten() {
                let Message::AuditRows(mut rows) = Message::decode(frame).unwrap() else { continue };
                for (_, value) in &mut rows.rows {
                    *value.last_mut().unwrap() ^= 4;
                    tampered += 1;
                }
                *frame = Message::AuditRows(rows).encode();
            }
        }
        if !world.step() {
            world.clock += Duration::from_millis(50);
            for node in 0..3 {
                world.input(node, Input::DeadlineReached);
            }
        }
    }
    tampered
}

#[test]
fn rows_that_are_neither_proved_nor_sent_by_a_majority_are_not_taken() {
    let (mut world, space) = shortened();
    let (key, spoiled) = spoiled_header(&world, space, Kind::Counter);
    world.rot(1, &key, Some(spoiled.clone()));
    world.disconnect_all(Some(2));
    world.connect(0, 1);
    assert!(run_tampering(&mut world, Duration::from_secs(30)) > 0, "rows are asked for");
    assert_eq!(world.nodes[1].disk.get(&key).unwrap(), Some(spoiled));
    let is_told =
        |event: &AuditEvent| matches!(event, AuditEvent::Unresolved { why: Unresolved::NotKept, .. });
    assert!(events(&world, 1).iter().any(is_told), "{:?}", events(&world, 1));
    // Once nobody tampers any more it is made again.
    world.connect_all();
    write_on(&mut world, space, 5);
    assert!(is_repaired(&world, Kind::Counter), "{:?}", events(&world, 1));
    assert_sound(&world, space);
}

#[test]
fn what_arrives_for_an_object_that_cannot_be_read_waits_until_it_is_made_again() {
    let (mut world, space) = written(Retention::OFF);
    for kind in [Kind::Counter, Kind::Document, Kind::Set] {
        let rows = object_rows(&world, 1);
        let (key, _) = rows.iter().find(|(key, _)| key[0] == 0x30 && key[17] == kind.tag()).unwrap();
        world.rot(1, key, Some(vec![0xff; 3]));
        world.nodes[1].notices.clear();
        world.connect_all();
        for node in [0, 2] {
            world.write(node, space, move |tx| something(tx, 5_000 + node as i64)).unwrap();
        }
        write_on(&mut world, space, 2);
        assert!(is_repaired(&world, kind), "{kind}: {:?}", events(&world, 1));
        assert_sound(&world, space);
    }
}

#[test]
fn a_peer_that_lies_about_states_changes_nothing() {
    let (mut world, space, _, session) = liar();
    let rows = object_rows(&world, 0);
    world.pass(Duration::from_secs(6));
    let ask = asked(&world, session).pop().expect("it is asked");
    let object = ask.ranges[1].until.clone();
    let key = [&[Kind::Counter.tag()], b"spec".as_slice(), &[0], b"k"].concat();
    assert_eq!((object, ask.ranges[1].count), (vec![0xff], 9));
    let items = vec![AuditItem { key: key.clone(), ops: 0, state: 7 }];
    let reply = AuditReply { number: ask.number, compared: 2, differ: vec![(1, items)] };
    world.inject(0, session, Message::AuditReply(reply).encode());
    let suspect = AuditSuspect { space, objects: vec![key; 3] };
    world.inject(0, session, Message::AuditSuspect(suspect).encode());
    world.run();
    let events = events(&world, 0);
    let count = |is_it: fn(&AuditEvent) -> bool| events.iter().filter(|event| is_it(event)).count();
    assert_eq!(count(|event| matches!(event, AuditEvent::Diverged { .. })), 9, "{events:?}");
    assert_eq!(count(|event| matches!(event, AuditEvent::Upheld { .. })), 10, "{events:?}");
    assert_eq!(audit(&world, 0, space).repaired, 0);
    assert_eq!(object_rows(&world, 0), rows);
    assert!(world.is_connected(session));
}

#[test]
fn questions_that_exceed_a_limit_end_the_session_and_others_are_answered() {
    let range = |until: Vec<u8>| RangeDigest { until, count: u64::MAX, state: u128::MAX };
    let frontier = comity_crdts::Frontier::new();
    let ask = |space, from: Vec<u8>, ranges| AuditAsk {
        space,
        number: 1,
        frontier: frontier.clone(),
        root: [0; 16],
        from,
        ranges,
    };
    let many = vec![range(vec![1]); 17];
    let long = vec![range(vec![1; 1_025])];
    for (from, ranges, closed) in [
        (Vec::new(), many, true),
        (Vec::new(), long, true),
        (vec![9; 2_000], Vec::new(), true),
        (Vec::new(), Vec::new(), false),
        (vec![0xff], vec![range(Vec::new()), range(vec![0])], false),
    ] {
        let (mut world, space, _, session) = liar();
        world.inject(0, session, Message::AuditAsk(ask(space, from, ranges)).encode());
        world.run();
        let reason = closed.then_some(CloseReason::TooMany);
        assert_eq!(world.close_reason(0, session), reason);
    }
    let (mut world, space, _, session) = liar();
    let suspect = AuditSuspect { space, objects: vec![vec![1]; 17] };
    world.inject(0, session, Message::AuditSuspect(suspect).encode());
    assert_eq!(world.close_reason(0, session), Some(CloseReason::TooMany));
}

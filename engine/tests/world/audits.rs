//! Audits, as tests see them: what replicas have written, what they say, and what they ask.

use std::time::Duration;

use comity_crdts::automerge::ROOT;
use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::{Kind, ObjectAddress, SpaceId, Value};
use comity_engine::wire::{AuditAsk, Message};
use comity_engine::{
    AuditEvent, AuditLimits, AuditStatus, Command, Notice, Retention, Role, SessionId, Tx, TxError, verify,
};

use super::World;
use super::ghost::{Ghost, hello};
use super::spec::{top, within};

pub(crate) const OFTEN: AuditLimits =
    AuditLimits { every: Some(Duration::from_secs(5)), pause: Duration::from_millis(10) };

/// Nothing is kept that everybody has announced.
pub(crate) const SHORT: Retention =
    Retention { bytes_max: 0, announce_after: Duration::from_millis(100), ..Retention::OFF };

pub(crate) fn register(key: &str) -> ObjectAddress {
    ObjectAddress::new(Kind::Register, "r", key).unwrap()
}

/// Something on an object of every kind.
pub(crate) fn something(tx: &mut Tx<'_>, number: i64) -> Result<(), TxError> {
    tx.counter_add_at(&top(Kind::Counter), number)?;
    tx.set_add_at(&top(Kind::Set), Value::I64(number))?;
    tx.rw_set_add_at(&top(Kind::RwSet), Value::I64(number))?;
    tx.flag_enable_at(&top(Kind::Flag))?;
    tx.dw_flag_enable_at(&top(Kind::DwFlag))?;
    tx.bounded_increment_at(&top(Kind::BoundedCounter), 5)?;
    tx.register_write_at(&register("k").into(), Value::I64(number))?;
    tx.set_add_at(&within(&["a", "b"]), Value::I64(number))?;
    tx.register_write_at(&within(&["c"]), Value::I64(number))?;
    tx.counter_add_at(&within(&["n"]), number)?;
    tx.document_edit::<_, TxError>("d", "doc", |doc| {
        doc.put(ROOT, number.to_string(), number).unwrap();
        Ok(())
    })
}

/// Three writers; each has written to objects of every kind, the last two at the same time.
pub(crate) fn written(retention: Retention) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(3);
    for node in 0..3 {
        world.nodes[node].audit = OFTEN;
        world.nodes[node].retention = retention;
        world.add(node, space, 1);
    }
    world.pass(Duration::from_secs(3));
    world.write(0, space, |tx| something(tx, 0)).unwrap();
    world.disconnect_all(None);
    for node in 1..3 {
        world.write(node, space, move |tx| something(tx, 10 * node as i64)).unwrap();
    }
    for node in 0..3 {
        world.crash(node);
    }
    world.connect_all();
    world.pass(Duration::from_secs(3));
    world.assert_converged(space);
    (world, space)
}

pub(crate) fn events(world: &World, node: usize) -> Vec<AuditEvent> {
    let audits = |notice: &Notice| match notice {
        Notice::Audit(event) => Some(event.clone()),
        _ => None,
    };
    world.nodes[node].notices.iter().filter_map(audits).collect()
}

pub(crate) fn audit(world: &World, node: usize, space: SpaceId) -> AuditStatus {
    world.status(node, space).audit
}

/// Lets time pass while everybody writes: to the same objects and to others.
pub(crate) fn write_on(world: &mut World, space: SpaceId, rounds: i64) {
    for round in 0..rounds {
        for node in 0..3 {
            let number = 1_000 + 10 * round + node as i64;
            world
                .write(node, space, move |tx| {
                    tx.register_write_at(&register(&format!("other-{node}")).into(), Value::I64(number))
                })
                .unwrap();
        }
        world.pass(Duration::from_millis(700));
    }
}

pub(crate) fn assert_sound(world: &World, space: SpaceId) {
    world.assert_converged(space);
    for node in 0..3 {
        if world.status(node, space).lanes.iter().any(|lane| lane.floor > 0) {
            continue;
        }
        let mut faults = Vec::new();
        verify(&world.nodes[node].disk.view(), |fault| faults.push(fault), |_| {}).unwrap();
        assert_eq!(faults, [], "node {node}");
    }
}

/// A ghost that is a writer, with the session on which it has opened the space.
pub(crate) fn liar() -> (World, SpaceId, Ghost, SessionId) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.write(0, space, |tx| something(tx, 1)).unwrap();
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    let (replica, role) = (ghost.replica(), Role::Writer);
    world.command(0, Command::Grant { space, replica, role }).unwrap();
    world.nodes[0].audit = OFTEN;
    world.crash(0);
    let session = world.connect_ghost(0, replica);
    world.inject(0, session, hello());
    let (session, _) = world.offer(0, session, &ghost);
    world.run();
    (world, space, ghost, session)
}

/// What a node has said on a session, decoded.
pub(crate) fn asked(world: &World, session: SessionId) -> Vec<AuditAsk> {
    let log = &world.link(session).sent(0).log;
    let ask = |frame: &Vec<u8>| match Message::decode(frame).unwrap() {
        Message::AuditAsk(ask) => Some(ask),
        _ => None,
    };
    log.iter().filter_map(|(_, frame)| ask(frame)).collect()
}

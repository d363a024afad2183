//! A row of the member list that has another content than was written is found, named and made again, as those of objects are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{ObjectAddress, ReplicaId, SpaceId};
use comity_engine::wire::{AuditAsk, AuditReply, Message, RangeDigest};
use comity_engine::{
    AuditEvent, Command, Engine, EngineOptions, Retention, Role, Row, StateRead, StoreError, repairs,
};
use world::World;
use world::audits::{OFTEN, SHORT, asked, assert_sound, audit, events, liar, write_on, written};

/// Every row of the member list that a replica has.
fn member_rows(world: &World, node: usize) -> Vec<Row> {
    world.nodes[node].disk.view().scan(&[0x36], &[0x37], usize::MAX).unwrap()
}

/// As [`written`], with two admins who have said several things about the same members.
fn listed(retention: Retention) -> (World, SpaceId) {
    let (mut world, space) = written(retention);
    let replica = world.replica(2);
    world.command(0, Command::Grant { space, replica, role: Role::Admin }).unwrap();
    world.pass(Duration::from_secs(1));
    for role in [Role::Follower, Role::Writer] {
        world.command(2, Command::Grant { space, replica: ReplicaId([7; 32]), role }).unwrap();
    }
    world.command(2, Command::Revoke { space, replica: ReplicaId([7; 32]) }).unwrap();
    world.pass(Duration::from_secs(1));
    world.assert_converged(space);
    (world, space)
}

/// A row of the member list of node 1 is spoiled, and the others go on.
fn spoil_member_row(world: &mut World, space: SpaceId, key: &[u8], spoiled: Option<&[u8]>) {
    let others_repaired = [0, 2].map(|node| audit(world, node, space).repaired);
    world.nodes.iter_mut().for_each(|node| node.notices.clear());
    world.rot(1, key, spoiled.map(<[u8]>::to_vec));
    world.connect_all();
    for number in 0..5 {
        for node in [0, 2] {
            world.write(node, space, |tx| tx.counter_add("stats", "likes", number)).unwrap();
        }
        world.pass(Duration::from_millis(700));
    }
    let told = [0, 1, 2].map(|node| events(world, node)).concat();
    let what = format!("row {key:02x?}: {spoiled:02x?}: {told:?}");
    assert!(told.iter().all(|event| *event.object() == ObjectAddress::members()), "{what}");
    let is_name =
        |event: &&AuditEvent| matches!(event, AuditEvent::Damaged { .. } | AuditEvent::Diverged { .. });
    assert!(told.iter().any(|event| is_name(&event)), "{what}");
    let is_repair = |event: &&AuditEvent| matches!(event, AuditEvent::Repaired { .. });
    assert_eq!(events(world, 1).iter().filter(is_repair).count(), 1, "{what}");
    assert_eq!(member_rows(world, 1), member_rows(world, 0), "{what}");
    assert_eq!([0, 2].map(|node| audit(world, node, space).repaired), others_repaired, "who is right stays");
    assert_sound(world, space);
}

/// Of every row a bit of its middle byte, and of the longest one of every byte.
#[test]
fn a_changed_row_of_the_member_list_is_found_named_and_made_again_while_others_write() {
    let (mut world, space) = listed(Retention::OFF);
    let rows = member_rows(&world, 1);
    assert_eq!(rows.len(), 4);
    let longest = rows.iter().map(|(_, value)| value.len()).max().unwrap();
    for (key, value) in rows {
        let middle = value.len() / 2;
        let all = if value.len() == longest { 0..value.len() } else { middle..middle + 1 };
        for at in all {
            let mut spoiled = value.clone();
            spoiled[at] ^= 1;
            spoil_member_row(&mut world, space, &key, Some(&spoiled));
        }
    }
    let kept = repairs(&world.nodes[1].disk.view(), &space).unwrap();
    assert!(kept.iter().all(|repair| repair.object == ObjectAddress::members() && repair.was != repair.is));
}

#[test]
fn a_row_of_the_member_list_that_is_gone_is_found_and_made_again() {
    let (mut world, space) = listed(Retention::OFF);
    for (key, _) in member_rows(&world, 1) {
        spoil_member_row(&mut world, space, &key, None);
        world.add(1, space, 1);
    }
}

#[test]
fn a_replica_that_turns_its_peers_away_for_want_of_a_row_finds_that_by_itself() {
    let (mut world, space) = World::mesh(2);
    world.nodes[0].audit = OFTEN;
    let rows = member_rows(&world, 0);
    for replica in [0, 1].map(|node| world.replica(node)) {
        let key = rows.iter().map(|(key, _)| key).find(|key| key.ends_with(&replica.0)).unwrap();
        world.nodes[0].notices.clear();
        world.rot(0, key, None);
        world.connect(0, 1);
        world.add(1, space, 1);
        world.pass(Duration::from_secs(12));
        assert_eq!(member_rows(&world, 0), rows);
        let told = events(&world, 0);
        let [AuditEvent::Damaged { object, .. }, AuditEvent::Repaired { .. }] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(*object, ObjectAddress::members());
        world.add(1, space, 1);
        world.assert_converged(space);
    }
}

#[test]
fn a_replica_whose_member_list_cannot_be_read_takes_it_from_the_log_when_it_starts() {
    let (mut world, space) = World::mesh(2);
    let rows = member_rows(&world, 0);
    for (key, _) in &rows {
        world.nodes[0].notices.clear();
        world.rot(0, key, Some(vec![0xff; 3]));
        assert_eq!(world.status(0, space).members, world.status(1, space).members);
        world.pass(Duration::from_secs(1));
        assert_eq!(member_rows(&world, 0), rows);
        let told = events(&world, 0);
        assert!(matches!(told[..], [AuditEvent::Damaged { .. }, AuditEvent::Repaired { .. }]), "{told:?}");
    }
    let audit = audit(&world, 0, space);
    assert_eq!((audit.damaged, audit.repaired, audit.passes), (1, 1, 0), "of the last start");
}

/// Who takes part is not guessed.
#[test]
fn a_replica_whose_member_list_can_neither_be_read_nor_made_again_does_not_start() {
    let (mut world, space) = listed(SHORT);
    write_on(&mut world, space, 3);
    let (key, _) = member_rows(&world, 1).swap_remove(0);
    let node = &mut world.nodes[1];
    node.disk.rot(&key, Some(vec![0xff; 3]));
    let error = Engine::open(&EngineOptions::new([9; 32], node.instance), &mut node.disk).err();
    assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{error:?}");
}

#[test]
fn what_is_said_of_members_while_a_row_cannot_be_read_waits_until_it_is_made_again() {
    let (mut world, space) = listed(Retention::OFF);
    for (number, (key, _)) in (8..).zip(member_rows(&world, 1)) {
        world.rot(1, &key, Some(vec![0xff; 3]));
        world.connect_all();
        let replica = ReplicaId([number; 32]);
        world.command(2, Command::Grant { space, replica, role: Role::Follower }).unwrap();
        write_on(&mut world, space, 2);
        assert_eq!(member_rows(&world, 1), member_rows(&world, 0));
        assert_sound(&world, space);
    }
    assert_eq!(audit(&world, 0, space).repaired + audit(&world, 2, space).repaired, 0);
}

#[test]
fn where_the_log_is_shortened_peers_send_the_rows_of_the_member_list() {
    let (mut world, space) = listed(SHORT);
    write_on(&mut world, space, 3);
    assert!(world.status(1, space).lanes.iter().all(|lane| lane.floor > 0));
    for (key, value) in member_rows(&world, 1) {
        let mut spoiled = value.clone();
        spoiled[value.len() / 2] ^= 1;
        spoil_member_row(&mut world, space, &key, Some(&spoiled));
    }
}

/// It has no such range, so it says that there is nothing in it, and its own ends elsewhere.
#[test]
fn of_a_peer_that_does_not_know_that_the_member_list_is_compared_nothing_is_said() {
    let (mut world, space, _, session) = liar();
    world.pass(Duration::from_secs(6));
    let ask = asked(&world, session).pop().expect("it is asked");
    let members = [&[0], b"comity".as_slice(), &[0], b"members"].concat();
    assert_eq!((&ask.ranges[0].until, ask.ranges[0].count), (&members, 1));
    let reply = AuditReply { number: ask.number, compared: 2, differ: vec![(0, Vec::new())] };
    world.inject(0, session, Message::AuditReply(reply).encode());
    world.run();
    assert_eq!((events(&world, 0), audit(&world, 0, space).compared), (Vec::new(), 9));
    let range = RangeDigest { until: vec![0xff], count: 9, state: 0 };
    let (frontier, root, from, number) = (ask.frontier.clone(), ask.root, Vec::new(), 1);
    let (space, ranges) = (ask.space, vec![range]);
    world.inject(
        0,
        session,
        Message::AuditAsk(AuditAsk { space, number, frontier, root, from, ranges }).encode(),
    );
    world.run();
    let log = &world.link(session).sent(0).log;
    let mut replies = log.iter().filter_map(|(_, frame)| match Message::decode(frame).unwrap() {
        Message::AuditReply(reply) => Some(reply),
        _ => None,
    });
    let reply = replies.next_back().expect("it is answered");
    assert_eq!((reply.compared, reply.differ.len(), reply.differ[0].1.len()), (1, 1, 9));
    assert!(reply.differ[0].1.iter().all(|item| item.key != members));
}

//! Spaces that both ends of a session hold alike are not opened on it until something happens in them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{Kind, ObjectAddress, SpaceId};
use comity_engine::wire::{Branch, Branches, Hello, Leaf, Leaves, Message, Shared, Subscribe, Unsubscribe};
use comity_engine::{
    Away, CloseReason, Command, Durability, LagLimits, Notice, Reply, Role, SessionId, Standing, Throttle,
    TransactError, TxError, Whom,
};
use world::World;
use world::ghost::Ghost;

/// So many bytes a reconnect may take in both directions, however many spaces are shared.
const BYTES_MAX: usize = 400;

/// Two nodes that share so many spaces, with something in each; not connected.
fn parted(spaces: usize) -> (World, Vec<SpaceId>) {
    let mut world = World::new(2);
    for node in 0..2 {
        world.nodes[node].open_at_once = 0;
        world.crash(node);
    }
    let ids: Vec<SpaceId> = (0..spaces).map(|_| world.create_space(0)).collect();
    for id in &ids {
        let secret = world.invite(0, *id, Role::Writer);
        world.prepare_join(0, 1, *id, secret);
    }
    let session = world.connect(1, 0);
    world.run();
    for id in &ids {
        world.add_unsent(1, *id, 1);
    }
    world.run();
    for id in &ids {
        world.assert_converged(*id);
    }
    world.disconnect(session);
    (world, ids)
}

fn reconnect(world: &mut World) -> SessionId {
    let session = world.connect(0, 1);
    world.run();
    session
}

/// How many frames of a kind went over a session in both directions.
fn count(world: &World, session: SessionId, kind: fn(&Message<'_>) -> bool) -> usize {
    let log = |node| world.link(session).sent(node).log.iter();
    log(0).chain(log(1)).filter(|(_, frame)| kind(&Message::decode(frame).unwrap())).count()
}

fn opens(world: &World, session: SessionId) -> usize {
    count(world, session, |message| matches!(message, Message::Open(_)))
}

fn bytes(world: &World, session: SessionId) -> usize {
    let (forth, back) = world.traffic(session);
    forth.bytes + back.bytes
}

#[test]
fn with_nothing_new_a_reconnect_costs_the_same_few_bytes_for_one_space_and_for_many() {
    for spaces in [1, 17, 200] {
        let (mut world, ids) = parted(spaces);
        let session = world.connect(0, 1);
        world.hop();
        world.hop();
        assert!(world.deliverable().is_empty(), "all is said after one round trip");
        world.run();
        assert_eq!(opens(&world, session), 0);
        assert!(bytes(&world, session) <= BYTES_MAX, "{} bytes", bytes(&world, session));
        let status = world.status(0, ids[0]);
        assert_eq!(status.peers.len(), 1, "who is connected takes part");
        assert!(status.peers[0].ahead.is_none() && status.peers[0].behind.is_none());
    }
}

#[test]
fn of_few_spaces_the_first_data_comes_after_one_round_trip() {
    let (mut world, ids) = parted(4);
    for node in 0..2 {
        world.nodes[node].open_at_once = 4;
        world.crash(node);
    }
    world.add(1, ids[2], 5);
    world.connect(0, 1);
    assert_eq!(world.hops_until_equal(ids[2], (0, 1)), 2);
}

#[test]
fn the_spaces_that_differ_are_found_and_no_others_are_opened() {
    for (spaces, ways) in [(10, 2), (40, 3), (300, 4)] {
        let (mut world, ids) = parted(spaces);
        world.add(0, ids[3], 10);
        world.add(1, ids[7], 100);
        let session = world.connect(0, 1);
        // Digests; nodes of the tree; lists; openings, and data.
        let hops = world.hops_until_equal(ids[3], (1, 0));
        assert!(hops <= ways + 2, "{hops} ways with {spaces} spaces");
        world.run();
        for id in &ids {
            world.assert_converged(*id);
        }
        assert_eq!(opens(&world, session), 4, "each side opens two");
        let walk = bytes(&world, session);
        assert!(walk < 9_000, "{walk} bytes with {spaces} spaces");
        // The others are still quiet, and go on as if they were open.
        world.add(0, ids[1], 7);
        assert_eq!(world.likes(1, ids[1]), 8);
        assert_eq!(opens(&world, session), 6);
        world.observer.forget_counts();
        world.add(1, ids[1], 7);
        assert_eq!(world.likes(0, ids[1]), 15);
        assert!(world.observer.copies.values().all(|copies| *copies == 1));
    }
}

#[test]
fn when_everything_differs_everything_comes() {
    let (mut world, ids) = parted(150);
    for id in &ids {
        world.add_unsent(0, *id, 1);
        world.add_unsent(1, *id, 1);
    }
    world.run();
    reconnect(&mut world);
    for id in &ids {
        world.assert_converged(*id);
        assert_eq!(world.likes(0, *id), 3);
    }
}

#[test]
fn a_space_that_moves_while_digests_are_on_their_way_is_opened() {
    let (mut world, ids) = parted(40);
    let session = world.connect(0, 1);
    world.add_without_time(0, ids[5], 10);
    world.run();
    world.assert_converged(ids[5]);
    assert_eq!(world.likes(1, ids[5]), 11);
    assert!(opens(&world, session) <= 4, "{} openings", opens(&world, session));
}

#[test]
fn a_write_in_a_quiet_space_is_acknowledged_by_the_peer() {
    let (mut world, ids) = parted(20);
    reconnect(&mut world);
    let (result, request) =
        world.write_with::<_, TxError>(0, ids[9], Durability::All, |tx| tx.counter_add("stats", "likes", 1));
    result.unwrap();
    world.run();
    let acknowledgement = world.acknowledgement(0, request).unwrap();
    assert!(acknowledgement.reached, "{acknowledgement:?}");
}

#[test]
fn a_write_in_a_quiet_space_arrives_after_one_way_and_once() {
    let (mut world, ids) = parted(20);
    reconnect(&mut world);
    world.observer.forget_counts();
    for (node, other) in [(0, 1), (1, 0)] {
        let space = ids[9 + node];
        for sum in 1..=3 {
            world.add_unsent(node, space, 1);
            world.sync(node);
            assert_eq!(world.hops_until_equal(space, (other, node)), 1, "write {sum} of node {node}");
        }
        world.run();
        world.assert_converged(space);
    }
    assert_eq!(world.observer.copies.len(), 6);
    assert!(world.observer.copies.values().all(|copies| *copies == 1));
}

#[test]
fn two_who_write_in_a_quiet_space_at_the_same_time_both_get_it() {
    let (mut world, ids) = parted(20);
    let session = reconnect(&mut world);
    for node in 0..2 {
        world.add_unsent(node, ids[3], 10);
        world.sync(node);
    }
    world.run();
    world.assert_converged(ids[3]);
    assert_eq!(world.likes(0, ids[3]), 21);
    assert_eq!(opens(&world, session), 2);
    for node in 0..2 {
        world.add_unsent(node, ids[3], 10);
        world.sync(node);
        assert_eq!(world.hops_until_equal(ids[3], (1 - node, node)), 1);
    }
}

#[test]
fn an_offer_comes_in_its_turn_and_of_the_own_lane_or_is_declined() {
    let (mut world, ids) = parted(20);
    let (space, lane) = (ids[0], world.own_lane(0, ids[0]));
    let offer = |subscription, from| {
        let offered = Subscribe { space, subscription, lane, from, hash: [0; 8] };
        Message::Offer(offered).encode()
    };
    for frame in [offer(0, 1), offer(1 << 31 | 1, 1), offer(1 << 31, 0)] {
        let (session, _) = ghostly(&mut world);
        world.inject(0, session, frame);
        assert_eq!(world.close_reason(0, session), Some(CloseReason::Unexpected));
    }
    let (session, _) = ghostly(&mut world);
    world.inject(0, session, offer(1 << 31, 1));
    world.run();
    let declined = |frame: &[u8]| {
        let unsubscribe = Unsubscribe { subscription: 1 << 31, refused: false };
        Message::decode(frame).unwrap() == Message::Unsubscribe(unsubscribe)
    };
    assert!(world.link(session).sent(0).log.iter().any(|(_, frame)| declined(frame)));
    // What comes of it all the same is ignored.
    world.inject(0, session, world::ghost::data(1 << 31, 1, b"run"));
    assert_eq!(world.close_reason(0, session), None);
    world.inject(0, session, world::ghost::data(1 << 31 | 1, 1, b"run"));
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Unexpected));
}

#[test]
fn a_write_that_waits_is_acknowledged_by_a_peer_that_comes_back_with_it() {
    let (mut world, ids) = parted(20);
    let session = reconnect(&mut world);
    let (result, request) = world
        .write_with::<_, TxError>(0, ids[9], Durability::Remote(1), |tx| tx.counter_add("stats", "likes", 1));
    result.unwrap();
    // It arrives, and the acknowledgement is lost.
    while world.likes(1, ids[9]) < 2 {
        assert!(world.step());
    }
    world.sync(1);
    world.disconnect(session);
    assert!(world.acknowledgement(0, request).is_none());
    reconnect(&mut world);
    assert!(world.acknowledgement(0, request).unwrap().reached);
}

#[test]
fn a_quorum_read_of_a_quiet_space_asks_the_peer() {
    let (mut world, ids) = parted(20);
    reconnect(&mut world);
    let (max_age, within) = (Duration::ZERO, Duration::from_secs(1));
    for whom in [Whom::Majority, Whom::All] {
        let read = Command::AwaitFresh { space: ids[4], whom, max_age, within };
        assert!(matches!(world.command(0, read), Ok(Reply::Reached)));
    }
}

#[test]
fn rights_in_a_quiet_space_are_asked_for_as_soon_as_it_is_open() {
    let (mut world, ids) = parted(20);
    let space = ids[2];
    let stock = ObjectAddress::new(Kind::BoundedCounter, "all", "stock").unwrap();
    world.write(0, space, |tx| tx.bounded_increment_at(&stock.clone().into(), 9)).unwrap();
    reconnect(&mut world);
    world.disconnect_all(None);
    let session = reconnect(&mut world);
    assert_eq!(opens(&world, session), 0);
    let (collection, key) = ("all".to_owned(), "stock".to_owned());
    let before = world.clock;
    let within = Duration::from_secs(1);
    let request = world.ask(1, Command::AcquireRights { space, collection, key, amount: 4, within });
    world.drain_steps();
    world.input(1, comity_engine::Input::DeadlineReached);
    world.drain_steps();
    assert!(matches!(world.nodes[1].replies.remove(&request), Some(Ok(Reply::RightsHeld(4)))));
    assert_eq!(world.clock, before, "without waiting for time to pass");
}

#[test]
fn a_quiet_peer_counts_for_writers_that_wait_for_others() {
    let (mut world, ids) = parted(20);
    let bound = LagLimits { entries: 1, ..LagLimits::NONE };
    world.nodes[0].throttle = Some(Throttle { bound, followers: 1, away: Away::Counted });
    world.crash(0);
    let write = |world: &mut World| {
        let (result, _) = world
            .write_with::<_, TxError>(0, ids[3], Durability::Local, |tx| tx.counter_add("stats", "likes", 1));
        result
    };
    assert!(matches!(write(&mut world), Err(TransactError::Throttled(_))), "nobody is there");
    reconnect(&mut world);
    write(&mut world).unwrap();
    world.sync(0);
    // The space is being opened: the peer is there as before.
    write(&mut world).err();
    world.run();
    write(&mut world).unwrap();
    world.run();
    world.assert_converged(ids[3]);
}

#[test]
fn a_member_that_is_removed_while_a_space_is_quiet_is_told_and_gets_nothing_more() {
    let (mut world, ids) = parted(20);
    let session = reconnect(&mut world);
    let (space, replica) = (ids[6], world.replica(1));
    world.command(0, Command::Revoke { space, replica }).unwrap();
    world.run();
    assert_eq!(count(&world, session, |message| matches!(message, Message::Removed(_))), 1);
    assert_eq!(world.status(1, space).standing, Standing::Removed);
    world.add(0, space, 50);
    assert_eq!(world.likes(1, space), 1);
    assert!(world.status(0, space).peers.is_empty());
    // And may come back.
    world.command(0, Command::Grant { space, replica, role: Role::Writer }).unwrap();
    world.run();
    assert_eq!(world.likes(1, space), 51);
}

#[test]
fn a_space_that_is_deleted_while_it_is_quiet_is_denied() {
    let (mut world, ids) = parted(20);
    let session = reconnect(&mut world);
    let space = ids[6];
    world.command(1, Command::DeleteSpace { space }).unwrap();
    world.run();
    let denied = |notice: &&Notice| matches!(notice, Notice::Denied { space: of, .. } if *of == space);
    assert_eq!(world.nodes[0].notices.iter().filter(denied).count(), 1);
    assert!(world.status(0, space).peers.is_empty());
    world.add(0, space, 1);
    assert_eq!(count(&world, session, |message| matches!(message, Message::Open(_))), 0);
    // On the next connection it is what the two differ in.
    world.disconnect(session);
    let session = reconnect(&mut world);
    assert_eq!(opens(&world, session), 1);
    assert_eq!(count(&world, session, |message| matches!(message, Message::Denied(_))), 1);
}

#[test]
fn a_restored_replica_is_found_out_by_its_digest() {
    let (mut world, ids) = parted(20);
    let backup = world.backup(1);
    world.add(1, ids[0], 10);
    let session = reconnect(&mut world);
    world.disconnect(session);
    let before = world.own_lane(1, ids[0]);
    world.restore(1, backup, world::INSTANCE);
    world.add(0, ids[0], 100);
    reconnect(&mut world);
    world.add(1, ids[0], 1_000);
    assert_ne!(world.own_lane(1, ids[0]), before, "it does not go on in the lane");
    assert_eq!([world.likes(0, ids[0]), world.likes(1, ids[0])], [1_111; 2]);
}

#[test]
fn who_speaks_the_version_before_is_sent_openings() {
    let (mut world, ids) = parted(20);
    let session = world.connect_ghost(0, world.replica(1));
    let before = Hello { version_min: 4, version_max: 4, wall_ms: 0 };
    world.inject(0, session, Message::Hello(before).encode());
    world.run();
    assert_eq!(opens(&world, session), ids.len());
    let shared = Message::Shared(Shared { spaces: 20, root: Some([0; 16]) });
    world.inject(0, session, shared.encode());
    assert_eq!(world.close_reason(0, session), None, "it is skipped, as by who does not know it");
}

/// A ghost in the name of node 1, greeted; with what node 0 said that it shares.
fn ghostly(world: &mut World) -> (SessionId, Shared) {
    let session = world.connect_ghost(0, world.replica(1));
    world.inject(0, session, world::ghost::hello());
    let log = &world.link(session).sent(0).log;
    let said = log.iter().find_map(|(_, frame)| match Message::decode(frame).unwrap() {
        Message::Shared(shared) => Some(shared),
        _ => None,
    });
    (session, said.unwrap())
}

fn list(from: u8, until: u8, spaces: Vec<(SpaceId, [u8; 16])>) -> Message<'static> {
    let ranges = vec![Leaf { from: SpaceId([from; 16]), until: SpaceId([until; 16]), spaces }];
    Message::Leaves(Leaves { more: false, ranges })
}

#[test]
fn a_walk_goes_its_way_or_ends_the_session() {
    let (mut world, _) = parted(40);
    let (one, two) = ((SpaceId([1; 16]), [1; 16]), (SpaceId([2; 16]), [2; 16]));
    let differs = Message::Shared(Shared { spaces: 40, root: Some([7; 16]) });
    let node = |number, present| Branch { number, present, digests: vec![[1; 16]] };
    let branches = |depth, nodes| Message::Branches(Branches { depth, nodes });
    let first = || branches(0, vec![node(0, 1)]);
    let (unexpected, malformed) = (CloseReason::Unexpected, CloseReason::Malformed);
    let cases: Vec<(Vec<Message<'_>>, CloseReason)> = vec![
        (vec![differs.clone(), differs.clone()], unexpected),
        (vec![first()], unexpected),
        (vec![differs.clone(), list(0, 255, Vec::new())], unexpected),
        (vec![differs.clone(), branches(1, Vec::new())], unexpected),
        (vec![differs.clone(), first(), first()], unexpected),
        (vec![differs.clone(), first(), branches(1, Vec::new())], unexpected),
        (vec![differs.clone(), branches(0, vec![node(0, 3)])], malformed),
        (vec![differs.clone(), branches(0, vec![node(1, 1)])], malformed),
        (vec![differs.clone(), branches(0, vec![node(0, 1), node(0, 1)])], malformed),
        (vec![differs.clone(), first(), list(0, 255, vec![two, one])], malformed),
        (vec![differs.clone(), first(), list(0, 1, vec![one, two])], malformed),
        (vec![differs.clone(), first(), list(2, 255, vec![one])], malformed),
        (vec![differs.clone(), first(), list(3, 1, vec![]), list(0, 255, vec![])], unexpected),
    ];
    for (case, (messages, reason)) in cases.iter().enumerate() {
        let (session, _) = ghostly(&mut world);
        for message in messages {
            assert_eq!(world.close_reason(0, session), None, "case {case}");
            world.inject(0, session, message.encode());
        }
        assert_eq!(world.close_reason(0, session), Some(*reason), "case {case}");
    }
}

#[test]
fn a_digest_is_over_what_its_receiver_may_see_and_nothing_else() {
    let (mut world, ids) = parted(20);
    let (session, before) = ghostly(&mut world);
    world.disconnect(session);
    for _ in 0..3 {
        let hidden = world.create_space(0);
        world.add(0, hidden, 1);
    }
    let (session, after) = ghostly(&mut world);
    assert_eq!(before, after);
    world.disconnect(session);
    world.add(0, ids[0], 1);
    assert_ne!(ghostly(&mut world).1, after);
    // Whoever is no member of any is told of none, whatever it shows.
    let stranger = Ghost::new(77, ids[0]);
    let session = world.connect_ghost(0, stranger.replica());
    world.inject(0, session, world::ghost::hello());
    let root = Some([1; 16]);
    world.inject(0, session, Message::Shared(Shared { spaces: 20, root }).encode());
    world.run();
    let said: Vec<_> = world.link(session).sent(0).log.iter().map(|(_, frame)| frame.clone()).collect();
    let said: Vec<Message<'_>> = said.iter().map(|frame| Message::decode(frame).unwrap()).collect();
    let [Message::Hello(_), Message::Shared(Shared { spaces: 0, root: None }), Message::Heard] = said[..]
    else {
        panic!("{said:?}")
    };
}

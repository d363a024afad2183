//! Stores that go back in time or exist twice: what a replica writes after that never carries a number that
//! other content has, or the lane is frozen at everyone who can prove it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::wire::{Head, Message, sign};
use comity_engine::{CloseReason, Freeze, Notice};
use world::disk::Disk;
use world::ghost::{Ghost, data, hello, open};
use world::{INSTANCE, World};

fn frozen(world: &World, node: usize, space: SpaceId, lane: LaneId) -> Option<Freeze> {
    let lanes = world.status(node, space).lanes;
    lanes.into_iter().find(|status| status.lane == lane).and_then(|status| status.frozen)
}

/// Three nodes; node 2 wrote 1, of which there is a backup, then 10 and 100, which all have.
fn with_backup() -> (World, SpaceId, world::disk::Backup) {
    let (mut world, space) = World::mesh(3);
    world.add(2, space, 1);
    let backup = world.backup(2);
    world.add(2, space, 10);
    world.add(2, space, 100);
    world.assert_converged(space);
    (world, space, backup)
}

#[test]
fn a_store_rolled_back_under_the_same_token_is_noticed_at_the_first_handshake() {
    let (mut world, space, backup) = with_backup();
    let old_lane = world.own_lane(2, space);
    world.restore(2, backup, INSTANCE);
    assert_eq!(world.likes(2, space), 1);
    world.connect(2, 0);
    world.connect(2, 1);
    world.run();
    assert_eq!(world.likes(2, space), 111, "what it forgot comes back from its peers");
    world.add(2, space, 1_000);
    assert_ne!(world.own_lane(2, space), old_lane, "it goes on under another name");
    for node in 0..3 {
        assert_eq!(world.likes(node, space), 1_111, "node {node}");
    }
    world.assert_converged(space);
}

#[test]
fn a_store_under_another_token_takes_a_new_name_before_its_first_write() {
    let (mut world, space, backup) = with_backup();
    let old_lane = world.own_lane(2, space);
    world.restore(2, backup, [2; 32]);
    // Nobody is there to say that anything is missing.
    world.add(2, space, 1_000);
    assert_ne!(world.own_lane(2, space), old_lane);
    world.connect(2, 0);
    world.connect(2, 1);
    world.run();
    world.add(2, space, 10_000);
    for node in 0..3 {
        assert_eq!(world.likes(node, space), 11_111, "node {node}");
    }
    world.assert_converged(space);
}

#[test]
fn a_restart_under_the_same_token_keeps_the_lane() {
    let (mut world, space, _) = with_backup();
    let lane = world.own_lane(2, space);
    world.crash(2);
    world.connect(2, 0);
    world.run();
    world.add(2, space, 1_000);
    assert_eq!(world.own_lane(2, space), lane);
    assert_eq!(world.likes(0, space), 1_111);
}

#[test]
fn a_store_rolled_back_is_noticed_when_the_peer_itself_learns_only_later() {
    let (mut world, space) = World::mesh(3);
    world.add(2, space, 1);
    let backup = world.backup(2);
    world.disconnect_all(Some(0));
    world.add(2, space, 10);
    assert_eq!((world.likes(0, space), world.likes(1, space)), (1, 11));
    world.restore(2, backup, INSTANCE);
    let old_lane = world.own_lane(2, space);
    // Node 0 knows nothing of what is missing, until node 1 tells it.
    world.connect(2, 0);
    world.run();
    world.connect(0, 1);
    world.run();
    world.add(2, space, 100);
    assert_ne!(world.own_lane(2, space), old_lane);
    for node in 0..3 {
        assert_eq!(world.likes(node, space), 111, "node {node}");
    }
    world.assert_converged(space);
}

#[test]
fn a_write_between_the_rollback_and_the_first_contact_freezes_the_lane_and_nothing_else() {
    let (mut world, space, backup) = with_backup();
    let lane = world.own_lane(2, space);
    world.restore(2, backup, INSTANCE);
    world.add(2, space, 5_000);
    world.connect(2, 0);
    world.connect(2, 1);
    world.run();
    assert_eq!(world.observer.forks, BTreeSet::new(), "the second content was shown to nobody");
    for node in [0, 1] {
        assert!(matches!(frozen(&world, node, space, lane), Some(Freeze::Fork { .. })), "node {node}");
    }
    world.add(2, space, 7);
    world.add(0, space, 20);
    assert_ne!(world.own_lane(2, space), lane);
    assert_eq!([0, 1].map(|node| world.likes(node, space)), [138, 138]);
    let notices = world.nodes[0].notices.iter();
    assert_eq!(notices.filter(|notice| matches!(notice, Notice::Frozen { .. })).count(), 1);
    // The verdict survives a restart.
    world.crash(0);
    assert!(matches!(frozen(&world, 0, space, lane), Some(Freeze::Fork { .. })));
}

/// Two running copies of node 2: itself and node 3. Nodes 0 and 2 hear each other, nodes 1 and 3 do.
/// `writes` says how often each copy writes.
fn cloned(writes: [usize; 2]) -> (World, SpaceId, LaneId) {
    let (mut world, space) = World::mesh(3);
    for node in 0..3 {
        world.add(node, space, 1);
    }
    let lane = world.own_lane(2, space);
    let copy = Disk::restored(world.backup(2));
    world.disconnect_all(None);
    let clone = world.add_node([99; 32], copy);
    assert_eq!((clone, world.replica(3)), (3, world.replica(2)));
    world.connect(0, 2);
    world.connect(1, 3);
    world.run();
    for (node, writes) in [2, 3].into_iter().zip(writes) {
        (0..writes).for_each(|_| world.add(node, space, 100 * node as i64));
    }
    (world, space, lane)
}

#[test]
fn a_clone_that_writes_gets_the_lane_frozen_at_everyone_who_sees_both_and_other_lanes_go_on() {
    let (mut world, space, lane) = cloned([1, 1]);
    assert_eq!([0, 1].map(|node| world.likes(node, space)), [203, 303]);
    world.connect(0, 1);
    world.run();
    for node in [0, 1] {
        assert!(matches!(frozen(&world, node, space, lane), Some(Freeze::Fork { .. })), "node {node}");
    }
    world.add(0, space, 10);
    world.add(1, space, 20);
    assert_eq!([0, 1].map(|node| world.likes(node, space)), [233, 333]);
}

#[test]
fn the_copies_themselves_learn_of_the_fork_and_go_on_under_new_names() {
    let (mut world, space, lane) = cloned([1, 1]);
    world.connect(0, 3);
    world.connect(1, 2);
    world.run();
    for node in 0..4 {
        assert!(matches!(frozen(&world, node, space, lane), Some(Freeze::Fork { .. })), "node {node}");
    }
    for node in [2, 3] {
        world.add(node, space, 1_000 * node as i64);
    }
    let lanes: BTreeSet<LaneId> = [2, 3].map(|node| world.own_lane(node, space)).into();
    assert_eq!(lanes.len(), 2, "each copy has a lane of its own");
    for (node, branch) in [(0, 203), (1, 303), (2, 203), (3, 303)] {
        assert_eq!(world.likes(node, space), branch + 5_000, "node {node}");
    }
}

#[test]
fn a_fork_with_branches_of_different_lengths_is_proved_to_whoever_holds_the_longer() {
    let (mut world, space, lane) = cloned([1, 3]);
    world.connect(0, 1);
    world.run();
    assert!(matches!(frozen(&world, 1, space, lane), Some(Freeze::Fork { .. })));
    world.add(0, space, 10);
    assert_eq!(world.likes(1, space), 3 + 900 + 10);
    // The shorter branch is convinced once it is as long, or meets the owner of the longer.
    world.connect(0, 3);
    world.run();
    assert!(matches!(frozen(&world, 0, space, lane), Some(Freeze::Fork { .. })));
}

#[test]
fn a_copy_that_only_reads_harms_nobody() {
    let (mut world, space, lane) = cloned([2, 0]);
    world.connect(0, 1);
    world.pass(Duration::from_secs(3));
    for node in 0..4 {
        assert_eq!(frozen(&world, node, space, lane), None, "node {node}");
        assert_eq!(world.likes(node, space), 403, "node {node}");
    }
    // Its own next write comes after it has seen that the lane went on without it.
    world.add(3, space, 1_000);
    assert_ne!(world.own_lane(3, space), lane);
    assert_eq!(world.observer.forks, BTreeSet::new());
}

#[test]
fn who_joins_after_a_fork_still_gets_everything_built_on_the_frozen_lane() {
    let (mut world, space, lane) = cloned([1, 1]);
    world.connect(0, 1);
    world.run();
    world.add(0, space, 10);
    let newcomer = world.add_node([50; 32], Disk::default());
    world.join(0, newcomer, space);
    assert_eq!(world.likes(newcomer, space), world.likes(0, space));
    let applied = |node| world.status(node, space).frontier.at(&lane);
    assert_eq!(applied(newcomer), applied(0));
}

/// A node, a ghost that is a member and has written 1 and 2 there, and a greeted session with it.
fn with_ghost() -> (World, SpaceId, Ghost, comity_engine::SessionId) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    ghost.add(2);
    let (session, subscription) = world.admit(0, &ghost);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 2)));
    world.run();
    assert_eq!(world.likes(0, space), 3);
    (world, space, ghost, session)
}

#[test]
fn a_hash_that_differs_is_no_proof() {
    let (mut world, space, ghost, _) = with_ghost();
    let before = world.untouched(0, space);
    let session = world.connect_ghost(0, ghost.replica());
    world.inject(0, session, hello());
    world.inject(0, session, open(space, &[(ghost.lane(), 2, [0xab; 8])]));
    world.run();
    assert!(world.is_connected(session));
    assert_eq!(world.untouched(0, space), before);
    let sent = &world.link(session).sent(0).log;
    let shown = sent.iter().filter_map(|(_, frame)| match Message::decode(frame).unwrap() {
        Message::Head(head) => Some(head),
        _ => None,
    });
    let tip = ghost.tip(2);
    let signature = sign(&ghost.key, &space, &ghost.lane(), 2, &tip.hash);
    let ours = Head { space, lane: ghost.lane(), lsn: 2, hash: tip.hash, proof: signature.into() };
    assert_eq!(shown.collect::<Vec<_>>(), [ours], "it is shown what the owner signed");
}

#[test]
fn a_head_counts_only_with_its_owners_signature_and_only_where_it_contradicts() {
    let (mut world, space, ghost, session) = with_ghost();
    let mut branch = Ghost { entries: ghost.entries[..1].to_vec(), ..ghost.clone() };
    branch.add(77);
    let head = |of: &Ghost, key: &Ghost| {
        let tip = of.tip(2);
        let signature = sign(&key.key, &space, &of.lane(), 2, &tip.hash);
        Message::Head(Head { space, lane: of.lane(), lsn: 2, hash: tip.hash, proof: signature.into() })
            .encode()
    };
    let before = world.untouched(0, space);
    world.inject(0, session, head(&ghost, &ghost));
    world.run();
    assert!(world.is_connected(session));
    world.inject(0, session, head(&branch, &Ghost::new(10, space)));
    world.run();
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Signature));
    assert_eq!(world.untouched(0, space), before);
    let (session, _) = (world.connect_ghost(0, ghost.replica()), ());
    world.inject(0, session, hello());
    world.inject(0, session, open(space, &[]));
    world.inject(0, session, head(&branch, &branch));
    world.run();
    assert_eq!(frozen(&world, 0, space, ghost.lane()), Some(Freeze::Fork { lsn: 2 }));
    assert_eq!(world.likes(0, space), 3, "what was applied stays");
}

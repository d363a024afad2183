//! Members that are removed, leave, come back and change their roles, and what becomes of what they write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::{Kind, ObjectAddress, SpaceId};
use comity_engine::wire::Message;
use comity_engine::{
    Acknowledgement, CloseReason, Command, CommandError, Durability, Notice, Reply, Role, Standing,
    TransactError, TxError, Whom,
};
use world::World;

fn say(world: &mut World, node: usize, command: Command) {
    let reply = world.command(node, command);
    assert!(matches!(reply, Ok(Reply::MembersChanged)), "{reply:?}");
}

fn grant(world: &mut World, node: usize, space: SpaceId, whom: usize, role: Role) {
    let replica = world.replica(whom);
    say(world, node, Command::Grant { space, replica, role });
}

fn revoke(world: &mut World, node: usize, space: SpaceId, whom: usize) {
    let replica = world.replica(whom);
    say(world, node, Command::Revoke { space, replica });
}

/// As [`World::join`], as a follower.
fn follow(world: &mut World, inviter: usize, node: usize, space: SpaceId) {
    let secret = Some(world.invite(inviter, space, Role::Follower));
    let inviter_id = world.replica(inviter);
    world.command(node, Command::FollowSpace { space, inviter: inviter_id, secret }).unwrap();
    world.connect(node, inviter);
    world.run();
}

fn standing(world: &World, node: usize, space: SpaceId) -> Standing {
    world.status(node, space).standing
}

/// The nodes hold the same of a space, and nothing waits.
fn assert_equal(world: &World, space: SpaceId, nodes: &[usize]) {
    let first = world.status(nodes[0], space);
    for node in nodes {
        let other = world.status(*node, space);
        assert_eq!(first.frontier, other.frontier, "node {node}");
        assert_eq!((first.digest, &first.members), (other.digest, &other.members), "node {node}");
        assert!(other.lanes.iter().all(|lane| lane.staged == 0), "node {node}");
    }
}

fn refused(world: &mut World, node: usize, space: SpaceId) -> TxError {
    match world.write(node, space, |tx| tx.counter_add("stats", "likes", 1)) {
        Err(TransactError::Tx(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_removed_member_is_cut_off_by_everybody_told_so_and_writes_no_more() {
    let (mut world, space) = World::mesh(3);
    world.add(2, space, 4);
    let sessions = [0, 1].map(|node| world.session_between(node, 2).unwrap());
    let removed = world.replica(2);
    let request = world.ask(0, Command::Revoke { space, replica: removed });
    // No time passes: frames and syncs only.
    world.drain_steps();
    assert!(matches!(world.nodes[0].replies.remove(&request), Some(Ok(Reply::MembersChanged))));
    for node in [0, 1] {
        let status = world.status(node, space);
        assert!(status.members.iter().all(|(member, _)| *member != removed));
        assert!(
            !status.peers.iter().any(|status| status.peer == removed),
            "the space is closed at node {node}"
        );
        let lane = status.lanes.iter().find(|lane| lane.owner == removed).unwrap();
        assert_eq!((lane.applied, lane.owner_role), (1, None), "what it wrote stays");
    }
    assert_eq!(standing(&world, 2, space), Standing::Removed);
    let told = |notice: &&Notice| matches!(notice, Notice::Removed { .. });
    assert_eq!(world.nodes[2].notices.iter().filter(told).count(), 2);
    let told = world.status(2, space);
    assert!(matches!(refused(&mut world, 2, space), TxError::NotWriter { standing: Standing::Removed, .. }));
    assert_eq!(world.likes(2, space), 4, "it keeps what it has");
    let before = world.clock;
    world.run();
    for (node, session) in [0, 1].into_iter().zip(sessions) {
        let closed = world.nodes[node].closed.iter().find(|(closed, _)| *closed == session);
        assert_eq!(closed.unwrap().1, CloseReason::NotMember, "node {node}");
    }
    assert!(world.clock - before < Duration::from_secs(3));
    world.add(0, space, 1);
    assert_equal(&world, space, &[0, 1]);
    assert_eq!(world.status(2, space).frontier, told.frontier, "nothing more reaches it");
}

#[test]
fn nothing_that_was_written_after_a_removal_reaches_who_was_removed() {
    let (mut world, space) = World::mesh(3);
    let session = world.session_between(1, 2).unwrap();
    world.disconnect(world.session_between(0, 2).unwrap());
    world.run();
    // The removal and a secret reach node 1 together; it serves node 2.
    let stalled = world.session_between(0, 1).unwrap();
    world.link_mut(stalled).stalled = true;
    let removed = world.replica(2);
    world.ask(0, Command::Revoke { space, replica: removed });
    world.drain_steps();
    world.add_without_time(0, space, 7);
    let sent = world.link(session).sent(1).log.len();
    world.link_mut(stalled).stalled = false;
    world.drain_steps();
    assert_eq!(world.likes(1, space), 7);
    let frames: Vec<Message<'_>> = world.link(session).sent(1).log[sent..]
        .iter()
        .map(|(_, frame)| Message::decode(frame).unwrap())
        .collect();
    assert!(matches!(frames.as_slice(), [Message::Removed(_)]), "{frames:?}");
}

#[test]
fn a_removal_that_is_not_durable_yet_is_told_to_nobody_but_served_to_nobody_either() {
    let (mut world, space) = World::mesh(2);
    let session = world.session_between(0, 1).unwrap();
    world.nodes[0].manual_sync = true;
    let sent = world.link(session).sent(0).log.len();
    let removed = world.replica(1);
    world.ask(0, Command::Revoke { space, replica: removed });
    world.add_without_time(1, space, 1);
    assert_eq!(world.link(session).sent(0).log.len(), sent);
    world.crash(0);
    world.nodes[0].manual_sync = false;
    world.connect(0, 1);
    world.run();
    assert_equal(&world, space, &[0, 1]);
    assert_eq!(standing(&world, 1, space), Standing::Member(Role::Writer), "it never happened");
}

#[test]
fn whatever_a_remaining_member_applied_of_a_removed_one_reaches_all_the_others_and_no_more() {
    let (mut world, space) = World::mesh(4);
    world.add(3, space, 1);
    // Node 3 still reaches node 2, which does not hear of the removal at first.
    world.disconnect_all(Some(3));
    world.disconnect_all(Some(2));
    world.connect(2, 3);
    world.run();
    revoke(&mut world, 0, space, 3);
    world.add(3, space, 10);
    world.add(3, space, 100);
    assert_eq!(world.likes(2, space), 111);
    for (a, b) in [(0, 2), (1, 2), (0, 3), (1, 3)] {
        world.connect(a, b);
    }
    world.run();
    assert_equal(&world, space, &[0, 1, 2]);
    assert_eq!(world.likes(0, space), 111);
    assert_eq!(standing(&world, 3, space), Standing::Removed);
    assert!(world.session_between(2, 3).is_none());
}

#[test]
fn what_a_removed_member_writes_unaware_stays_with_it_until_it_is_let_in_again() {
    let (mut world, space) = World::mesh(3);
    world.disconnect_all(Some(2));
    revoke(&mut world, 0, space, 2);
    world.add(2, space, 5);
    let session = world.connect(2, 1);
    world.run();
    assert_eq!(standing(&world, 2, space), Standing::Member(Role::Writer), "a writer's word is not enough");
    world.add(2, space, 5);
    assert_eq!(world.close_reason(1, session), Some(CloseReason::NotMember));
    world.connect(2, 0);
    world.run();
    assert_eq!(standing(&world, 2, space), Standing::Removed, "an admin's is");
    assert!(matches!(refused(&mut world, 2, space), TxError::NotWriter { .. }));
    world.crash(2);
    assert_eq!(standing(&world, 2, space), Standing::Removed, "also after a restart");
    assert_eq!((world.likes(0, space), world.likes(2, space)), (0, 10));
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, 2, space, secret);
    world.connect(2, 0);
    world.connect(2, 1);
    world.run();
    assert_equal(&world, space, &[0, 1, 2]);
    assert_eq!((world.likes(0, space), standing(&world, 2, space)), (10, Standing::Member(Role::Writer)));
    world.add(2, space, 1);
    assert_eq!(world.likes(1, space), 11);
}

#[test]
fn a_member_that_is_let_in_again_on_the_same_session_goes_on() {
    let (mut world, space) = World::mesh(2);
    let other = world.create_space(0);
    world.command(1, Command::JoinSpace { space: other, inviter: world.replica(0), secret: None }).unwrap();
    grant(&mut world, 0, other, 1, Role::Writer);
    world.add(1, other, 1);
    let session = world.session_between(0, 1).unwrap();
    for round in 1..=3 {
        revoke(&mut world, 0, space, 1);
        assert_eq!(standing(&world, 1, space), Standing::Removed);
        world.add(0, space, 1);
        world.add(1, other, 1);
        assert!(world.is_connected(session), "another space is shared over it");
        assert_eq!(world.likes(0, other), 1 + round);
        grant(&mut world, 0, space, 1, Role::Writer);
        world.add(1, space, 10);
        assert_eq!(standing(&world, 1, space), Standing::Member(Role::Writer));
        assert_equal(&world, space, &[0, 1]);
    }
    assert_eq!((world.likes(0, space), world.is_connected(session)), (33, true));
}

#[test]
fn a_member_that_is_let_in_again_before_its_removal_is_durable_is_not_told_of_it() {
    let (mut world, space) = World::mesh(2);
    let session = world.session_between(0, 1).unwrap();
    world.nodes[0].manual_sync = true;
    let replica = world.replica(1);
    world.ask(0, Command::Revoke { space, replica });
    world.drain_steps();
    world.add_without_time(1, space, 1);
    world.ask(0, Command::Grant { space, replica, role: Role::Writer });
    world.drain_steps();
    world.nodes[0].manual_sync = false;
    world.sync(0);
    world.add(1, space, 1);
    world.run();
    assert_equal(&world, space, &[0, 1]);
    assert_eq!((world.likes(0, space), world.is_connected(session)), (2, true));
    assert!(!world.nodes[1].notices.iter().any(|notice| matches!(notice, Notice::Removed { .. })));
}

#[test]
fn an_inviter_that_was_removed_is_trusted_no_longer_by_whom_it_let_in() {
    let mut world = World::new(3);
    let space = world.create_space(0);
    world.join(0, 1, space);
    grant(&mut world, 0, space, 1, Role::Admin);
    world.join(1, 2, space);
    world.connect(0, 2);
    world.run();
    revoke(&mut world, 0, space, 1);
    assert!(!world.status(2, space).peers.iter().any(|status| status.peer == world.replica(1)));
    assert!(world.session_between(1, 2).is_none());
}

#[test]
fn a_follower_reads_and_relays_refuses_writes_with_a_writer_s_address_and_can_be_promoted() {
    let mut world = World::new(3);
    let space = world.create_space(0);
    let leader = world.replica(0);
    world.command(1, Command::RememberPeer { replica: leader, address: "10.0.0.1:4433".to_owned() }).unwrap();
    // It refuses before it is let in, too.
    let secret = Some(world.invite(0, space, Role::Follower));
    world.command(1, Command::FollowSpace { space, inviter: leader, secret }).unwrap();
    assert!(matches!(refused(&mut world, 1, space), TxError::NotWriter { writer: None, .. }));
    world.connect(1, 0);
    world.join(0, 2, space);
    world.disconnect_all(None);
    world.connect(0, 1);
    world.connect(1, 2);
    world.run();
    world.add(0, space, 3);
    world.add(2, space, 4);
    assert_equal(&world, space, &[0, 1, 2]);
    assert_eq!(world.likes(1, space), 7);
    let error = refused(&mut world, 1, space);
    let TxError::NotWriter { standing: Standing::Member(Role::Follower), writer, address } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((*writer, address.as_deref()), (Some(leader), Some("10.0.0.1:4433")));
    assert!(error.to_string().contains("is a follower"), "{error}");
    assert_eq!(world.status(1, space).lanes.len(), 2, "it has no lane");
    let within = Duration::from_secs(1);
    let confirm = world.command(1, Command::AwaitConfirmation { space, within });
    assert!(matches!(confirm, Err(CommandError::NotWriter { .. })), "{confirm:?}");
    grant(&mut world, 0, space, 1, Role::Writer);
    world.add(1, space, 10);
    assert_equal(&world, space, &[0, 1, 2]);
    assert_eq!(world.likes(2, space), 17);
    grant(&mut world, 0, space, 1, Role::Follower);
    assert!(matches!(refused(&mut world, 1, space), TxError::NotWriter { .. }));
    assert_eq!(world.status(1, space).lanes.len(), 3, "what it wrote stays");
    world.add(0, space, 1);
    assert_equal(&world, space, &[0, 1, 2]);
}

#[test]
fn what_a_writer_wrote_before_it_heard_of_its_demotion_counts() {
    let (mut world, space) = World::mesh(3);
    world.disconnect_all(Some(2));
    grant(&mut world, 0, space, 2, Role::Follower);
    world.add(2, space, 5);
    world.connect(2, 0);
    world.connect(2, 1);
    world.run();
    assert_equal(&world, space, &[0, 1, 2]);
    assert_eq!((world.likes(1, space), standing(&world, 2, space)), (5, Standing::Member(Role::Follower)));
}

#[test]
fn a_lane_of_one_who_never_might_write_is_not_followed() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    // It joins as if it had been invited to write, and writes at once.
    let secret = world.invite(0, space, Role::Follower);
    world.prepare_join(0, 1, space, secret);
    world.add(1, space, 5);
    world.connect(1, 0);
    world.run();
    assert_eq!((world.likes(0, space), world.status(0, space).lanes.len()), (0, 1));
    assert_eq!(standing(&world, 1, space), Standing::Member(Role::Follower));
    grant(&mut world, 0, space, 1, Role::Writer);
    assert_equal(&world, space, &[0, 1]);
    assert_eq!(world.likes(0, space), 5, "it is, once it may");
}

fn durable(world: &mut World, node: usize, space: SpaceId, durability: Durability) -> Acknowledgement {
    let (result, request) =
        world.write_with::<_, TxError>(node, space, durability, |tx| tx.counter_add("stats", "likes", 1));
    result.unwrap();
    world.run();
    world.acknowledgement(node, request).unwrap()
}

#[test]
fn quorums_and_fresh_reads_are_about_those_who_write_and_follow_the_list() {
    let mut world = World::new(4);
    let space = world.create_space(0);
    for follower in [1, 2] {
        follow(&mut world, 0, follower, space);
    }
    let alone = durable(&mut world, 0, space, Durability::Quorum);
    assert_eq!((alone.counted, alone.needed, alone.remote), (1, 1, 0), "followers count in no quorum");
    let remote = durable(&mut world, 0, space, Durability::Remote(2));
    assert!(remote.reached, "but they hold writes");
    world.join(0, 3, space);
    let all = durable(&mut world, 0, space, Durability::All);
    assert_eq!((all.counted, all.needed, all.reached), (2, 2, true));
    // A write that waits for who is away is answered when that one is removed.
    world.disconnect_all(Some(3));
    let (result, request) =
        world.write_with::<_, TxError>(0, space, Durability::All, |tx| tx.counter_add("stats", "likes", 1));
    result.unwrap();
    world.drain_steps();
    assert!(world.acknowledgement(0, request).is_none());
    let (max_age, within) = (Duration::ZERO, Duration::from_secs(9));
    let read = world.ask(0, Command::AwaitFresh { space, whom: Whom::All, max_age, within });
    world.drain_steps();
    assert!(!world.nodes[0].replies.contains_key(&read));
    let removed = world.replica(3);
    world.ask(0, Command::Revoke { space, replica: removed });
    world.drain_steps();
    let answer = world.acknowledgement(0, request).unwrap();
    assert_eq!((answer.counted, answer.needed, answer.reached), (1, 1, true));
    assert!(matches!(world.nodes[0].replies.remove(&read), Some(Ok(Reply::Reached))));
}

#[test]
fn who_is_removed_or_demoted_keeps_nothing_from_being_forgotten() {
    let (mut world, space) = World::mesh(4);
    let removal = |world: &mut World, node: usize, key: &str| {
        let put = |tx: &mut comity_engine::Tx<'_>| {
            let set = ObjectAddress::new(Kind::RwSet, "s", key)?.into();
            tx.rw_set_add_at(&set, "x".into())?;
            tx.rw_set_remove_at(&set, "x".into())
        };
        world.write(node, space, put).unwrap();
    };
    world.pass(Duration::from_secs(3));
    for node in 0..4 {
        world.add(node, space, 1);
    }
    world.disconnect_all(Some(3));
    world.disconnect_all(Some(2));
    removal(&mut world, 0, "a");
    world.pass(Duration::from_secs(3));
    let rows = |world: &World, node: usize| {
        comity_engine::unstable_rows(&world.nodes[node].disk.view(), &space).unwrap()
    };
    assert!(rows(&world, 0) > 0);
    assert_eq!(world.status(0, space).stalled_by.len(), 2);
    revoke(&mut world, 0, space, 3);
    grant(&mut world, 0, space, 2, Role::Follower);
    world.pass(Duration::from_secs(3));
    for node in [0, 1] {
        assert_eq!(rows(&world, node), 0, "node {node}");
    }
    // Both come back with what they made without having seen the removal, and are taken in again.
    for node in [2, 3] {
        world.add(node, space, 1);
    }
    grant(&mut world, 0, space, 3, Role::Writer);
    grant(&mut world, 0, space, 2, Role::Writer);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        world.connect(a, b);
    }
    world.pass(Duration::from_secs(5));
    removal(&mut world, 3, "b");
    world.pass(Duration::from_secs(5));
    assert_equal(&world, space, &[0, 1, 2, 3]);
    for node in 0..4 {
        assert_eq!(rows(&world, node), 0, "node {node}");
    }
}

#[test]
fn the_last_admin_can_be_neither_removed_nor_demoted_nor_leave() {
    let (mut world, space) = World::mesh(2);
    let (replica, other) = (world.replica(0), world.replica(1));
    let last = CommandError::LastAdmin { space, replica };
    for command in [
        Command::Revoke { space, replica },
        Command::Grant { space, replica, role: Role::Writer },
        Command::LeaveSpace { space },
    ] {
        let before = world.status(0, space).frontier;
        assert_eq!(world.command(0, command).unwrap_err(), last);
        assert_eq!(world.status(0, space).frontier, before);
    }
    let denied = world.command(1, Command::Revoke { space, replica });
    assert_eq!(denied.unwrap_err(), CommandError::NotAdmin(space));
    let denied = world.command(1, Command::Grant { space, replica: other, role: Role::Admin });
    assert_eq!(denied.unwrap_err(), CommandError::NotAdmin(space));
    let stranger = comity_crdts::ReplicaId([9; 32]);
    let nobody = world.command(0, Command::Revoke { space, replica: stranger });
    assert_eq!(nobody.unwrap_err(), CommandError::NotMember { space, replica: stranger });
    let before = world.status(0, space).frontier;
    say(&mut world, 0, Command::Grant { space, replica: other, role: Role::Writer });
    assert_eq!(world.status(0, space).frontier, before, "what holds is not said again");
    grant(&mut world, 0, space, 1, Role::Admin);
    revoke(&mut world, 1, space, 0);
    assert_eq!(standing(&world, 1, space), Standing::Member(Role::Admin));
    assert_eq!(standing(&world, 0, space), Standing::Removed);
}

#[test]
fn admins_who_remove_each_other_while_cut_off_agree_on_who_is_left() {
    let (mut world, space) = World::mesh(3);
    grant(&mut world, 0, space, 1, Role::Admin);
    world.disconnect(world.session_between(0, 1).unwrap());
    world.disconnect_all(Some(2));
    let (first, second) = (world.replica(0), world.replica(1));
    for (node, replica) in [(0, second), (1, first)] {
        world.ask(node, Command::Revoke { space, replica });
        world.drain_steps();
    }
    for (a, b) in [(0, 2), (1, 2)] {
        world.connect(a, b);
    }
    world.run();
    let members = world.status(2, space).members;
    assert_eq!(members.iter().find(|(id, _)| *id == first), Some(&(first, Role::Admin)), "{members:?}");
    assert!(!members.iter().any(|(id, _)| *id == second));
    world.add(2, space, 1);
    world.connect(0, 2);
    world.run();
    assert_equal(&world, space, &[0, 2]);
    grant(&mut world, 0, space, 2, Role::Admin);
    let members = world.status(2, space).members;
    assert_eq!(members.iter().filter(|(_, role)| *role == Role::Admin).count(), 2, "{members:?}");
}

#[test]
fn who_leaves_tells_the_others_and_keeps_no_secret_and_can_be_let_in_again() {
    let (mut world, space) = World::mesh(3);
    grant(&mut world, 0, space, 2, Role::Admin);
    world.invite(2, space, Role::Writer);
    assert!(world.nodes[2].engine.trust().invitations_open);
    assert!(matches!(world.command(2, Command::LeaveSpace { space }), Ok(Reply::Left)));
    assert!(!world.nodes[2].engine.trust().invitations_open);
    assert_eq!(standing(&world, 2, space), Standing::Left);
    assert_equal(&world, space, &[0, 1]);
    assert_eq!(world.status(0, space).members.len(), 2);
    assert!(world.session_between(0, 2).is_none() && world.session_between(1, 2).is_none());
    world.crash(2);
    assert_eq!(standing(&world, 2, space), Standing::Left);
    assert!(matches!(refused(&mut world, 2, space), TxError::NotWriter { standing: Standing::Left, .. }));
    for whom in [Whom::All, Whom::Majority] {
        let (max_age, within) = (Duration::from_secs(5), Duration::from_secs(1));
        let fresh = world.command(2, Command::AwaitFresh { space, whom, max_age, within });
        let expected = CommandError::NotFollowing { space, standing: Standing::Left };
        assert!(matches!(&fresh, Err(error) if *error == expected), "{fresh:?}");
    }
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, 2, space, secret);
    world.connect(2, 0);
    world.run();
    world.add(2, space, 3);
    assert_equal(&world, space, &[0, 1, 2]);
}

#[test]
fn a_follower_that_leaves_just_stops() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    follow(&mut world, 0, 1, space);
    world.add(0, space, 1);
    assert!(matches!(world.command(1, Command::LeaveSpace { space }), Ok(Reply::Left)));
    world.add(0, space, 1);
    assert_eq!((world.likes(1, space), standing(&world, 1, space)), (1, Standing::Left));
    world.disconnect_all(None);
    world.connect(0, 1);
    world.run();
    assert_eq!(world.likes(1, space), 1);
    assert!(world.status(0, space).peers.is_empty() && world.status(1, space).peers.is_empty());
}

//! How a replica becomes a member, with everything that can come in between.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::wire::Message;
use comity_engine::{Class, Command, CommandError, Reply, Role};
use world::World;

/// A founder with something in the space, an invitation, and a joiner that knows of it.
fn prepared() -> (World, SpaceId) {
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.add(0, space, 5);
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, 1, space, secret);
    (world, space)
}

#[test]
fn a_joiner_presents_its_secret_first_and_learns_of_the_founder_before_anything_else() {
    let (mut world, space) = prepared();
    let session = world.connect(1, 0);
    world.run();
    let names = |node: usize| -> Vec<String> {
        let log = &world.link(session).sent(node).log;
        let name = |frame: &[u8]| format!("{:?}", Message::decode(frame).unwrap());
        log.iter().map(|(_, frame)| name(frame).split('(').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(1)[..4], ["Hello", "Shared", "Join", "Open"]);
    assert_eq!(names(0)[..5], ["Hello", "Shared", "Heard", "Open", "Genesis"]);
    let status = world.status(1, space);
    assert_eq!(status.name, "test");
    assert_eq!(status.members, world.status(0, space).members);
    assert_eq!(world.likes(1, space), 5);
    assert_eq!(world.nodes[1].engine.trust().peers.len(), 2);
    assert!(!world.nodes[0].engine.trust().invitations_open);
}

#[test]
fn what_a_joiner_writes_before_its_first_contact_counts_afterwards() {
    let (mut world, space) = prepared();
    world.add(1, space, 100);
    world.crash(1);
    world.add(1, space, 1_000);
    assert_eq!(world.likes(1, space), 1_100, "writing never waits for a peer");
    world.connect(1, 0);
    world.run();
    assert_eq!([world.likes(0, space), world.likes(1, space)], [1_105, 1_105]);
    world.assert_converged(space);
    world.crash(1);
    world.connect(0, 1);
    world.run();
    assert_eq!(world.denials(1), 0, "the invitation is not presented twice");
}

#[test]
fn an_invitation_outlives_a_restart_of_the_inviter() {
    let (mut world, space) = prepared();
    world.crash(0);
    assert!(world.nodes[0].engine.trust().invitations_open);
    world.connect(1, 0);
    world.run();
    assert_eq!(world.likes(1, space), 5);
}

#[test]
fn an_invitation_that_expired_is_forgotten_when_the_next_is_made() {
    let (mut world, space) = prepared();
    world.nodes[0].wall_ms += Duration::from_secs(60).as_millis() as u64;
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, 1, space, secret);
    world.connect(1, 0);
    world.run();
    assert_eq!(world.status(1, space).members.len(), 2);
    assert!(!world.nodes[0].engine.trust().invitations_open);
    world.crash(0);
    assert!(!world.nodes[0].engine.trust().invitations_open);
}

#[test]
fn joining_survives_a_crash_of_either_side_after_any_step() {
    for victim in [0, 1] {
        for at in 0..30 {
            for class_order in
                [[Class::Control, Class::Live, Class::CatchUp], [Class::Live, Class::CatchUp, Class::Control]]
            {
                let (mut world, space) = prepared();
                world.class_order = class_order;
                world.add(1, space, 100);
                world.connect(1, 0);
                for _ in 0..at {
                    world.step();
                }
                world.crash(victim);
                world.connect(1, 0);
                world.run();
                world.add(1, space, 1_000);
                world.assert_converged(space);
                assert_eq!(world.likes(0, space), 1_105, "node {victim} crashed after {at} steps");
                assert_eq!(world.status(0, space).members.len(), 2);
                assert!(world.nodes.iter().all(|node| node.closed.is_empty()));
            }
        }
    }
}

#[test]
fn after_a_denial_another_secret_is_presented_on_the_same_session() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.add(0, space, 5);
    world.prepare_join(0, 1, space, [0x11; 16]);
    let session = world.connect(1, 0);
    world.run();
    assert_eq!((world.denials(1), world.likes(1, space)), (1, 0), "one denial for one attempt");
    let secret = world.invite(0, space, Role::Writer);
    world.prepare_join(0, 1, space, secret);
    assert!(world.is_connected(session));
    assert_eq!(world.likes(1, space), 5);
    world.assert_converged(space);
}

#[test]
fn a_secret_given_while_the_denial_is_on_its_way_is_presented_too() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.prepare_join(0, 1, space, [0x11; 16]);
    let good = world.invite(0, space, Role::Writer);
    let inviter = world.replica(0);
    world.connect(1, 0);
    world.hop();
    world.ask(1, Command::JoinSpace { space, inviter, secret: Some(good) });
    world.run();
    assert_eq!(world.status(1, space).members.len(), 2);
}

#[test]
fn a_peer_that_learns_of_a_member_later_opens_the_space_on_the_session_that_is_there() {
    let mut world = World::new(3);
    let space = world.create_space(0);
    world.join(0, 1, space);
    let apart = world.session_between(0, 1).unwrap();
    world.disconnect(apart);
    world.join(0, 2, space);
    // Node 2 is a member already, but node 1 has not heard of it.
    world.connect(2, 1);
    world.run();
    assert_eq!(world.denials(2), 1);
    world.connect(0, 1);
    world.run();
    world.disconnect_all(Some(0));
    world.add(2, space, 10);
    world.add(1, space, 1);
    assert_eq!([1, 2].map(|node| world.likes(node, space)), [11, 11]);
}

#[test]
fn a_peer_that_denied_the_space_is_nobodys_parent() {
    let mut world = World::new(4);
    let space = world.create_space(0);
    world.join(0, 1, space);
    world.disconnect_all(None);
    world.join(0, 2, space);
    world.join(0, 3, space);
    world.add(3, space, 1);
    world.disconnect_all(Some(2));
    world.add(3, space, 10);
    // Node 1 has not heard of node 2, and node 2 asks it for everything.
    world.connect(2, 1);
    world.run();
    assert_eq!(world.denials(2), 1);
    world.connect(2, 0);
    assert_eq!(world.hops_until_equal(space, (2, 0)), 2);
}

#[test]
fn entries_that_overtake_the_founders_record_are_applied_once_it_is_there() {
    let (mut world, space) = prepared();
    world.class_order = [Class::Live, Class::CatchUp, Class::Control];
    world.add(1, space, 100);
    world.connect(1, 0);
    world.run();
    assert_eq!([0, 1].map(|node| world.likes(node, space)), [105, 105]);
    world.assert_converged(space);
}

#[test]
fn only_admins_invite_and_an_invited_admin_can() {
    let mut world = World::new(3);
    let space = world.create_space(0);
    world.join(0, 1, space);
    let invite = Command::Invite { space, role: Role::Writer, valid_for: Duration::from_secs(1) };
    assert_eq!(world.command(1, invite.clone()).unwrap_err(), CommandError::NotAdmin(space));
    let secret = world.invite(0, space, Role::Admin);
    world.prepare_join(0, 2, space, secret);
    world.connect(2, 0);
    world.run();
    assert!(matches!(world.command(2, invite), Ok(Reply::Invited(_))));
    let unknown = SpaceId([1; 16]);
    let invite = Command::Invite { space: unknown, role: Role::Writer, valid_for: Duration::from_secs(1) };
    assert_eq!(world.command(2, invite).unwrap_err(), CommandError::UnknownSpace(unknown));
}

#[test]
fn one_invitation_lets_one_replica_in_however_many_try_at_once() {
    let mut world = World::new(4);
    let space = world.create_space(0);
    let secret = world.invite(0, space, Role::Writer);
    for node in 1..4 {
        world.prepare_join(0, node, space, secret);
        world.connect(node, 0);
    }
    world.run();
    assert_eq!(world.status(0, space).members.len(), 2);
    assert_eq!((1..4).filter(|node| world.denials(*node) > 0).count(), 2);
}

#[test]
fn an_invitation_that_nobody_redeems_closes_the_door_again_when_its_time_is_over() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.invite(0, space, Role::Writer);
    assert!(world.nodes[0].engine.trust().invitations_open);
    world.nodes[0].wall_ms += 59_000;
    world.pass(Duration::from_secs(59));
    assert!(world.nodes[0].engine.trust().invitations_open, "not before");
    world.nodes[0].wall_ms += 2_000;
    world.pass(Duration::from_secs(2));
    assert!(!world.nodes[0].engine.trust().invitations_open);
    // A door that was open when the process ended is looked at again when it starts.
    world.invite(0, space, Role::Writer);
    world.nodes[0].wall_ms += 61_000;
    world.crash(0);
    world.pass(Duration::from_millis(1));
    assert!(!world.nodes[0].engine.trust().invitations_open);
}

#[test]
fn a_founder_that_was_restored_from_a_copy_lets_a_forgotten_member_in_again() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.add(0, space, 5);
    let backup = world.backup(0);
    world.join(0, 1, space);
    world.add(1, space, 1);
    world.restore(0, backup, [9; 32]);
    world.connect(1, 0);
    world.run();
    assert_eq!(world.status(0, space).members.len(), 1, "the founder knows nobody");
    world.join(0, 1, space);
    assert_eq!([world.likes(0, space), world.likes(1, space)], [6, 6]);
    world.assert_converged(space);
}

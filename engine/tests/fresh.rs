//! Reads that show what others have: how fresh, how that is known, and what is said when it is not.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::wire::{FrontierAnswer, FrontierRequest, LaneRef, Message};
use comity_engine::{CloseReason, Command, CommandError, Durability, Reply, RequestId, TxError, Whom};
use world::World;

const PATIENCE: Duration = Duration::from_millis(500);

fn read(world: &mut World, node: usize, space: SpaceId, whom: Whom, max_age: Duration) -> RequestId {
    world.ask(node, Command::AwaitFresh { space, whom, max_age, within: PATIENCE })
}

fn reply(world: &mut World, node: usize, request: RequestId) -> Option<Result<(), CommandError>> {
    let reply = world.nodes[node].replies.remove(&request)?;
    Some(reply.map(|reply| assert!(matches!(reply, Reply::Reached), "{reply:?}")))
}

/// Frames that a node has sent so far.
fn sent(world: &World) -> usize {
    world
        .sessions()
        .iter()
        .map(|session| world.link(*session))
        .map(|link| link.wires.iter().map(|wire| wire.log.len()).sum::<usize>())
        .sum()
}

#[test]
fn a_quorum_read_shows_what_was_acknowledged_by_a_quorum_elsewhere() {
    let (mut world, space) = World::mesh(3);
    // Node 2 gets nothing from node 0 any more, and node 1 has what it wrote.
    let session = world.session_between(0, 2).unwrap();
    world.link_mut(session).stalled = true;
    let late = world.session_between(1, 2).unwrap();
    world.link_mut(late).stalled = true;
    let (_, request) = world
        .write_with::<_, TxError>(0, space, Durability::Quorum, |tx| tx.counter_add("stats", "likes", 1));
    world.drain_steps();
    assert!(world.acknowledgement(0, request).unwrap().reached);
    assert_eq!(world.likes(2, space), 0);
    world.link_mut(late).stalled = false;
    let request = read(&mut world, 2, space, Whom::Majority, Duration::ZERO);
    world.run();
    assert_eq!(reply(&mut world, 2, request), Some(Ok(())));
    assert_eq!(world.likes(2, space), 1, "what was missing was pulled from who has it");
}

#[test]
fn a_quorum_read_waits_for_what_the_answers_name_to_be_durable_here() {
    let (mut world, space) = World::mesh(3);
    world.nodes[2].manual_sync = true;
    world.add(0, space, 1);
    let request = read(&mut world, 2, space, Whom::Majority, Duration::ZERO);
    world.drain_steps();
    assert_eq!(reply(&mut world, 2, request), None);
    world.sync(2);
    world.drain_steps();
    assert_eq!(reply(&mut world, 2, request), Some(Ok(())));
}

#[test]
fn without_a_majority_there_is_no_quorum_read() {
    let (mut world, space) = World::mesh(3);
    world.disconnect_all(Some(2));
    for (node, expected) in [(0, Ok(())), (2, Err(CommandError::NoQuorum { reached: 1, needed: 2 }))] {
        let request = read(&mut world, node, space, Whom::Majority, Duration::ZERO);
        world.run();
        assert_eq!(reply(&mut world, node, request), Some(expected));
        assert_eq!(world.nodes[node].engine.next_deadline(), None);
    }
    let (mut alone, space) = World::mesh(1);
    let request = read(&mut alone, 0, space, Whom::Majority, Duration::ZERO);
    assert_eq!(reply(&mut alone, 0, request), Some(Ok(())), "who is alone is a majority");
    let nowhere = SpaceId([7; 16]);
    let request = read(&mut alone, 0, nowhere, Whom::All, Duration::ZERO);
    assert_eq!(reply(&mut alone, 0, request), Some(Err(CommandError::UnknownSpace(nowhere))));
}

#[test]
fn a_fresh_read_shows_what_every_member_had_and_says_by_how_much_it_is_not_fresh_and_towards_whom() {
    let (mut world, space) = World::mesh(3);
    let away = world.replica(2);
    world.disconnect_all(Some(2));
    world.add(0, space, 1);
    let two = Duration::from_secs(2);
    let request = read(&mut world, 1, space, Whom::All, two);
    world.run();
    let unknown = CommandError::NotFresh { by_ms: None, behind: vec![away] };
    assert_eq!(reply(&mut world, 1, request), Some(Err(unknown)), "it was never heard of");
    world.connect(1, 2);
    world.run();
    let started = world.clock;
    let request = read(&mut world, 1, space, Whom::All, Duration::ZERO);
    world.run();
    assert_eq!(reply(&mut world, 1, request), Some(Ok(())));
    world.disconnect_all(Some(2));
    // For two seconds nobody need be asked again.
    let before = sent(&world);
    world.clock = started + two;
    let request = read(&mut world, 1, space, Whom::All, two);
    assert_eq!(reply(&mut world, 1, request), Some(Ok(())));
    assert_eq!(sent(&world), before);
    world.clock = started + two + Duration::from_millis(1);
    let request = read(&mut world, 1, space, Whom::All, two);
    world.run();
    let late = CommandError::NotFresh { by_ms: Some(2_501), behind: vec![away] };
    assert_eq!(reply(&mut world, 1, request), Some(Err(late)));
}

#[test]
fn a_stalled_link_does_not_look_fresh_and_who_comes_back_is_asked() {
    let (mut world, space) = World::mesh(2);
    let session = world.session_between(0, 1).unwrap();
    world.link_mut(session).stalled = true;
    world.add(0, space, 1);
    let request = read(&mut world, 1, space, Whom::All, Duration::from_secs(60));
    world.drain_steps();
    assert_eq!(reply(&mut world, 1, request), None);
    world.disconnect(session);
    world.drain_steps();
    world.connect(0, 1);
    world.drain_steps();
    assert_eq!(reply(&mut world, 1, request), Some(Ok(())));
    assert_eq!(world.likes(1, space), 1);
}

#[test]
fn reads_that_wait_at_the_same_time_share_their_questions() {
    let (mut world, space) = World::mesh(3);
    let before = sent(&world);
    let requests: Vec<_> = (0..100).map(|_| read(&mut world, 1, space, Whom::All, Duration::ZERO)).collect();
    world.drain_steps();
    for request in requests {
        assert_eq!(reply(&mut world, 1, request), Some(Ok(())));
    }
    assert_eq!(sent(&world) - before, 4, "a question to each of two, and their answers");
}

#[test]
fn a_question_asked_before_a_read_began_does_not_answer_it() {
    let (mut world, space) = World::mesh(2);
    let session = world.session_between(0, 1).unwrap();
    let early = read(&mut world, 1, space, Whom::Majority, Duration::ZERO);
    // The question arrives and is answered, and the answer is under way.
    world.hop();
    world.link_mut(session).stalled = true;
    let (written, request) =
        world.write_with::<_, TxError>(0, space, Durability::Local, |tx| tx.counter_add("stats", "likes", 1));
    written.unwrap();
    world.sync(0);
    assert!(world.acknowledgement(0, request).is_some());
    world.clock += Duration::from_millis(10);
    let late = read(&mut world, 1, space, Whom::Majority, Duration::ZERO);
    world.link_mut(session).stalled = false;
    let mut order = Vec::new();
    while world.step() {
        for (name, request) in [("early", early), ("late", late)] {
            if reply(&mut world, 1, request).is_some() {
                order.push((name, world.likes(1, space)));
            }
        }
    }
    assert_eq!(order.last(), Some(&("late", 1)), "{order:?}");
    assert_eq!(order.len(), 2);
}

#[test]
fn questions_out_of_place_and_answers_to_none_end_the_session() {
    for (frame, expected) in [
        (Message::FrontierRequest(FrontierRequest { space: SpaceId([3; 16]), number: 0 }), true),
        (Message::FrontierAnswer(FrontierAnswer { number: 0, space_ref: 0, lanes: Vec::new() }), true),
        (Message::FrontierAnswer(FrontierAnswer { number: 0, space_ref: 99, lanes: Vec::new() }), true),
        (
            Message::FrontierAnswer(FrontierAnswer {
                number: 0,
                space_ref: 0,
                lanes: vec![(LaneRef::Known(99), 1)],
            }),
            true,
        ),
    ] {
        let (mut world, _) = World::mesh(2);
        let session = world.session_between(0, 1).unwrap();
        world.inject(0, session, frame.encode());
        let closed = world.close_reason(0, session) == Some(CloseReason::Unexpected);
        assert_eq!(closed, expected, "{frame:?}");
    }
}

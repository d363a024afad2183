//! How far replicas are behind each other, what waits for what, who is told, and who waits for others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::SpaceId;
use comity_engine::{
    Away, Class, Command, CommandError, Input, Lag, LagChange, LagEvent, LagLimits, LagSide, LogRead, Notice,
    PeerStatus, Reply, Throttle, TransactError, TxError, WriteOptions,
};
use world::World;

/// What `node` says of `other`.
fn peer(world: &World, (node, other): (usize, usize), space: SpaceId) -> PeerStatus {
    let status = world.status(node, space);
    status.peers.into_iter().find(|peer| peer.peer == world.replica(other)).expect("they are connected")
}

fn stall(world: &mut World, (a, b): (usize, usize), stalled: bool) {
    let session = world.session_between(a, b).unwrap();
    world.link_mut(session).stalled = stalled;
}

/// Lets both clocks of everybody go on, and hands everybody their deadlines, without delivering anything.
fn tick(world: &mut World, time: Duration) {
    world.clock += time;
    for node in 0..world.nodes.len() {
        world.nodes[node].wall_ms += time.as_millis() as u64;
        world.input(node, Input::DeadlineReached);
    }
}

fn assert_level(world: &World, space: SpaceId) {
    for node in 0..world.nodes.len() {
        let status = world.status(node, space);
        assert_eq!((status.missing, status.catch_up_ms), (Lag::default(), Some(0)));
        for peer in status.peers {
            assert_eq!(
                (peer.behind, peer.ahead, peer.catch_up_ms),
                (Lag::default(), Lag::default(), Some(0))
            );
            assert!(peer.lanes.is_empty());
        }
    }
}

#[test]
fn what_a_peer_lacks_is_known_in_entries_bytes_and_time() {
    let (mut world, space) = World::mesh(2);
    (0..3).for_each(|_| world.add(0, space, 1));
    assert_level(&world, space);
    stall(&mut world, (0, 1), true);
    let lane = world.own_lane(0, space);
    let before = world.status(0, space).durable.at(&lane);
    for _ in 0..5 {
        world.add_without_time(0, space, 1);
        tick(&mut world, Duration::from_millis(100));
    }
    let stored = |lsn| world.nodes[0].disk.lane_entry(&space, &lane, lsn).unwrap().unwrap().len() as u64;
    let bytes = (before + 1..=before + 5).map(stored).sum();
    let known = Lag { entries: 5, bytes, is_estimated: false, age_ms: Some(500) };
    let there = peer(&world, (0, 1), space);
    assert_eq!((there.behind, there.ahead), (known, Lag::default()));
    assert_eq!(there.lanes.len(), 1);
    assert_eq!((there.lanes[0].lane, there.lanes[0].behind), (lane, known));
    assert!(there.round_trip_ms.is_some(), "it has answered before");
    // Nobody has told the other.
    assert_eq!(peer(&world, (1, 0), space).ahead, Lag::default());
    stall(&mut world, (0, 1), false);
    world.run();
    assert_level(&world, space);
}

#[test]
fn what_is_missing_here_is_counted_from_what_peers_say() {
    let (mut world, space) = World::mesh(3);
    (0..3).for_each(|node| world.add(node, space, 1));
    stall(&mut world, (0, 1), true);
    (0..4).for_each(|_| world.add_without_time(0, space, 1));
    // 1 has heard from 2 that there is more, and does not ask it yet.
    tick(&mut world, Duration::from_millis(20));
    world.drain_steps();
    let ahead = peer(&world, (1, 2), space).ahead;
    assert_eq!((ahead.entries, ahead.is_estimated), (4, true));
    assert!(ahead.bytes > 0 && ahead.age_ms.is_some_and(|age| age <= 20), "{ahead:?}");
    tick(&mut world, Duration::from_millis(10));
    let status = world.status(1, space);
    assert_eq!((status.missing.entries, status.catch_up_ms.is_some()), (4, true));
    assert_eq!(status.missing.age_ms, ahead.age_ms.map(|age| age + 10));
    // Of 0 nothing is known, because it cannot be heard.
    assert_eq!(peer(&world, (1, 0), space).ahead, Lag::default());
    world.run();
    assert_eq!(world.status(1, space).missing, Lag::default(), "2 was asked");
    stall(&mut world, (0, 1), false);
    world.run();
    assert_level(&world, space);
}

#[test]
fn an_entry_that_waits_counts_as_missing_and_it_is_said_for_what_and_who_has_that() {
    let (mut world, space) = World::mesh(3);
    (0..3).for_each(|node| world.add(node, space, 1));
    stall(&mut world, (0, 2), true);
    let (first, second) = (world.own_lane(0, space), world.own_lane(1, space));
    world.add_without_time(0, space, 10);
    world.add_without_time(1, space, 100);
    tick(&mut world, Duration::from_millis(5));
    let status = world.status(2, space);
    let lane = status.lanes.iter().find(|lane| lane.lane == second).unwrap();
    assert_eq!((lane.staged, lane.staged_bytes > 0), (1, true));
    let blocked = lane.blocked.clone().unwrap();
    assert_eq!((blocked.lane, blocked.lsn), (first, status.durable.at(&first) + 1));
    assert_eq!(blocked.since_ms, 5);
    assert_eq!(blocked.held_by, [world.replica(1)]);
    assert_eq!(blocked.asked, Some(world.replica(0)), "who cannot be heard");
    // The one that waits and the one it waits for.
    assert_eq!(status.missing.entries, 2);
    let lanes = peer(&world, (2, 1), space).lanes;
    let of_second = lanes.iter().find(|lag| lag.lane == second).unwrap().ahead;
    let (entries, bytes) = (of_second.entries, of_second.bytes);
    assert_eq!((entries, bytes, of_second.is_estimated), (1, lane.staged_bytes, false));
    world.run();
    let status = world.status(2, space);
    assert_eq!(status.missing, Lag::default());
    assert!(status.lanes.iter().all(|lane| lane.blocked.is_none()));
}

#[test]
fn the_estimate_of_catching_up_follows_the_pace_and_ends() {
    let (mut world, space) = World::mesh(2);
    world.add(0, space, 1);
    world.add(1, space, 1);
    let session = world.session_between(0, 1).unwrap();
    world.disconnect(session);
    (0..400).for_each(|_| world.add_unsent(0, space, 1));
    world.drain_steps();
    world.nodes[1].manual_sync = true;
    let session = world.connect(0, 1);
    // Only the greetings, and then 50 entries at a time once a second.
    world.drain_steps();
    assert_eq!(world.status(1, space).missing.entries, 400, "they are here, and not durable");
    assert_eq!(peer(&world, (0, 1), space).catch_up_ms, None, "it has said nothing since");
    world.sync(1);
    world.drain_steps();
    assert_eq!(world.status(1, space).missing.entries, 0);
    assert_eq!(world.status(1, space).catch_up_ms, Some(0));
    world.nodes[1].manual_sync = false;
    tick(&mut world, Duration::from_millis(100));
    world.run();
    // 1 has told 0 of 400 entries; of what comes now it tells nothing.
    world.link_mut(session).stalled = true;
    (0..100).for_each(|_| world.add_unsent(0, space, 1));
    world.drain_steps();
    let estimate = peer(&world, (0, 1), space).catch_up_ms.expect("there was a pace just now");
    assert!(estimate > 0 && estimate < 5_000, "{estimate} ms");
    tick(&mut world, Duration::from_secs(20));
    assert_eq!(peer(&world, (0, 1), space).catch_up_ms, None, "there is no pace any more");
    world.link_mut(session).stalled = false;
    world.run();
    assert_level(&world, space);
}

fn limits(entries: u64) -> LagLimits {
    LagLimits { entries, ..LagLimits::NONE }
}

/// Takes what a node was told of lag.
fn events(world: &mut World, node: usize) -> Vec<LagEvent> {
    let told = std::mem::take(&mut world.nodes[node].notices);
    let lag = |notice: Notice| if let Notice::Lag(event) = notice { Some(event) } else { None };
    told.into_iter().filter_map(lag).collect()
}

/// Two connected nodes, the first of which is opened with limits and a throttle.
fn limited(nodes: usize, lag: LagLimits, throttle: Option<Throttle>) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(nodes);
    (0..nodes).for_each(|node| world.add(node, space, 1));
    (world.nodes[0].lag, world.nodes[0].throttle) = (lag, throttle);
    world.crash(0);
    for node in 1..nodes {
        world.connect(0, node);
    }
    world.run();
    // A first write of the restarted core, so that it has a lane to be followed in.
    world.add(0, space, 1);
    world.run();
    assert_eq!(events(&mut world, 0), []);
    (world, space)
}

#[test]
fn a_lag_is_told_of_when_it_passes_the_limit_and_when_it_is_back_and_not_in_between() {
    let (mut world, space) = limited(2, limits(10), None);
    let told = |world: &mut World| {
        tick(world, Duration::from_millis(150));
        let told = events(world, 0);
        assert!(told.iter().all(|event| (event.space, event.peer) == (space, world.replica(1))));
        told.into_iter().map(|event| (event.side, event.change, event.lag.entries)).collect::<Vec<_>>()
    };
    stall(&mut world, (0, 1), true);
    (0..10).for_each(|_| world.add_without_time(0, space, 1));
    assert_eq!(told(&mut world), []);
    (0..2).for_each(|_| world.add_without_time(0, space, 1));
    assert_eq!(told(&mut world), [(LagSide::There, LagChange::Exceeded, 12)]);
    (0..5).for_each(|_| world.add_without_time(0, space, 1));
    assert_eq!(told(&mut world), [], "once");
    stall(&mut world, (0, 1), false);
    world.run();
    assert_eq!(told(&mut world), [(LagSide::There, LagChange::Recovered, 0)]);
    stall(&mut world, (0, 1), true);
    (0..11).for_each(|_| world.add_without_time(0, space, 1));
    assert_eq!(told(&mut world), [(LagSide::There, LagChange::Exceeded, 11)]);
    let session = world.session_between(0, 1).unwrap();
    world.disconnect(session);
    assert_eq!(told(&mut world), [(LagSide::There, LagChange::Disconnected, 0)]);
    world.run();
    assert_eq!(world.nodes[0].engine.next_deadline(), None, "nothing is looked at for ever");
}

#[test]
fn what_is_missing_here_and_what_is_old_are_told_of_too() {
    let age = LagLimits { age: Duration::from_secs(1), ..LagLimits::NONE };
    let (mut world, space) = limited(2, age, None);
    stall(&mut world, (0, 1), true);
    world.add_without_time(0, space, 1);
    tick(&mut world, Duration::from_millis(900));
    assert_eq!(events(&mut world, 0), []);
    // Nothing happens but that time passes.
    for _ in 0..3 {
        tick(&mut world, Duration::from_millis(110));
    }
    let told = events(&mut world, 0);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].side, told[0].change), (LagSide::There, LagChange::Exceeded));
    assert!(told[0].lag.age_ms.is_some_and(|age| age > 1_000));

    let (mut world, space) = limited(3, limits(3), None);
    stall(&mut world, (0, 1), true);
    (0..4).for_each(|_| world.add_without_time(1, space, 1));
    tick(&mut world, Duration::from_millis(20));
    // 0 hears of them from 2, and is not given them before it has asked.
    world.drain_steps();
    stall(&mut world, (0, 2), true);
    tick(&mut world, Duration::from_millis(120));
    let told = events(&mut world, 0);
    assert_eq!(
        told.iter().map(|event| (event.peer, event.side)).collect::<Vec<_>>(),
        [(world.replica(2), LagSide::Here)]
    );
    assert_eq!(told[0].lag.entries, 4);
}

fn throttle(entries: u64, followers: u32, away: Away) -> Option<Throttle> {
    Some(Throttle { bound: limits(entries), followers, away })
}

fn try_add(world: &mut World, space: SpaceId) -> Result<(), TransactError<TxError>> {
    let options = WriteOptions::new(world.request(0));
    let (result, _) = world.write_as(0, space, options, |tx| tx.counter_add("stats", "likes", 1));
    world.drain_steps();
    result
}

/// Writes until it is refused; returns how often that went well, and why no more.
fn fill(world: &mut World, space: SpaceId) -> (u64, comity_engine::Throttled) {
    for written in 0..100 {
        match try_add(world, space) {
            Ok(()) => {}
            Err(TransactError::Throttled(throttled)) => return (written, throttled),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("nothing holds it up");
}

#[test]
fn a_writer_whom_nobody_follows_is_held_up_and_goes_on_when_somebody_does() {
    let (mut world, space) = limited(2, LagLimits::NONE, throttle(3, 1, Away::Ignored));
    stall(&mut world, (0, 1), true);
    let (written, throttled) = fill(&mut world, space);
    assert_eq!((written, throttled.lag.entries), (4, 4), "the bound, and the one that exceeds it");
    assert_eq!((throttled.within, throttled.needed, throttled.bound), (0, 1, limits(3)));
    // What others write is not held up.
    let session = world.session_between(0, 1).unwrap();
    world.link_mut(session).stalled = false;
    let within = Duration::from_secs(1);
    world.link_mut(session).stalled = true;
    let waits = world.ask(0, Command::AwaitRoom { space, within });
    assert!(!world.nodes[0].replies.contains_key(&waits));
    let late = world.ask(0, Command::AwaitRoom { space, within: Duration::from_millis(10) });
    tick(&mut world, Duration::from_millis(11));
    let answer = world.nodes[0].replies.remove(&late).unwrap().unwrap_err();
    let CommandError::Throttled(refused) = answer else { panic!("{answer}") };
    assert_eq!(refused.lag.entries, 4);
    let given_up = world.ask(0, Command::AwaitRoom { space, within });
    world.input(0, Input::Cancelled { request: given_up });
    stall(&mut world, (0, 1), false);
    world.run();
    assert!(matches!(world.nodes[0].replies.remove(&waits), Some(Ok(Reply::Room))));
    assert!(!world.nodes[0].replies.contains_key(&given_up));
    try_add(&mut world, space).unwrap();
    world.run();
    assert_level(&world, space);
}

#[test]
fn remote_changes_are_taken_while_writers_are_held_up() {
    let (mut world, space) = limited(3, LagLimits::NONE, throttle(3, 2, Away::Ignored));
    stall(&mut world, (0, 1), true);
    let (written, throttled) = fill(&mut world, space);
    assert_eq!((written, throttled.within, throttled.needed), (4, 1, 2), "the slowest counts");
    let before = world.likes(0, space);
    (0..10).for_each(|_| world.add(2, space, 1));
    assert_eq!(world.likes(0, space), before + 10);
    // The one that cannot be heard directly follows through the other.
    assert!(world.likes(1, space) > before);
    assert!(
        matches!(try_add(&mut world, space), Err(TransactError::Throttled(_))),
        "as long as it does not say so"
    );

    let (mut world, space) = limited(3, LagLimits::NONE, throttle(3, 1, Away::Ignored));
    stall(&mut world, (0, 1), true);
    for _ in 0..20 {
        try_add(&mut world, space).unwrap();
        tick(&mut world, Duration::from_millis(20));
        world.drain_steps();
    }
}

#[test]
fn whoever_is_alone_writes_freely_unless_it_asked_not_to() {
    let alone = |away| {
        let (mut world, space) = limited(2, LagLimits::NONE, throttle(3, 1, away));
        let session = world.session_between(0, 1).unwrap();
        world.disconnect(session);
        (world, space)
    };
    let (mut world, space) = alone(Away::Ignored);
    (0..50).for_each(|_| try_add(&mut world, space).unwrap());
    let (mut world, space) = alone(Away::Counted);
    let Err(TransactError::Throttled(throttled)) = try_add(&mut world, space) else { panic!("it is alone") };
    assert_eq!((throttled.within, throttled.needed, throttled.lag), (0, 1, Lag::default()));
    let waits = world.ask(0, Command::AwaitRoom { space, within: Duration::from_secs(1) });
    world.connect(0, 1);
    world.run();
    assert!(matches!(world.nodes[0].replies.remove(&waits), Some(Ok(Reply::Room))));
    try_add(&mut world, space).unwrap();
}

#[test]
fn what_a_peer_has_sent_it_has_although_its_greeting_comes_later() {
    let (mut world, space) = World::mesh(2);
    (0..2).for_each(|node| world.add(node, space, 1));
    let session = world.session_between(0, 1).unwrap();
    world.disconnect(session);
    let session = world.connect(0, 1);
    // 0 hears what 1 wants, and writes; of what it says, the entry arrives before the greeting.
    while world.deliver(session, 1) {}
    world.add_unsent(0, space, 1);
    world.sync(0);
    world.class_order = [Class::Live, Class::CatchUp, Class::Control];
    while world.deliver(session, 0) {}
    world.run();
    assert_level(&world, space);
}

#[test]
fn a_peer_says_what_it_has_although_it_serves_the_lane_from_there_on() {
    let (mut world, space) = World::mesh(3);
    (0..3).for_each(|node| world.add(node, space, 1));
    stall(&mut world, (0, 2), true);
    for other in [0, 2] {
        if other == 2 {
            world.add_without_time(2, space, 1);
        }
        let session = world.session_between(1, other).unwrap();
        world.disconnect(session);
    }
    // Both greet each other, and 0 comes to hold what 1 has while the greetings are on their way.
    let session = world.connect(0, 1);
    world.link_mut(session).stalled = true;
    stall(&mut world, (0, 2), false);
    world.drain_steps();
    assert_eq!(world.status(0, space).frontier, world.status(1, space).frontier);
    world.link_mut(session).stalled = false;
    world.run();
    assert_level(&world, space);
}

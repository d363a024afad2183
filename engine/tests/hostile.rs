//! A peer that breaks the rules of the conversation: its session ends with the right reason or its request
//! is denied, nothing changes, and nobody panics. What it can do inside runs of entries is in
//! `hostile_runs.rs`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{Nonce, OriginId, ReplicaId, SpaceId};
use comity_engine::wire::{
    Data, Denied, Genesis, Have, Head, Hello, Join, LaneRef, Message, Open, OpenLane, PROTOCOL_VERSION,
    PROTOCOL_VERSION_MIN, Subscribe, Unsubscribe,
};
use comity_engine::{CloseReason, Command, Role, SessionId};
use proptest::prelude::*;
use world::World;
use world::ghost::{Ghost, data, hello, open};

/// A node that holds a space with something in it, and a ghost that is a member there.
fn victim() -> (World, SpaceId, Ghost) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.add(0, space, 5);
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    let (session, _) = world.admit(0, &ghost);
    world.disconnect(session);
    (world, space, ghost)
}

/// A session on which the ghost has greeted and opened the space.
fn greeted(world: &mut World, ghost: &Ghost) -> SessionId {
    let session = world.connect_ghost(0, ghost.replica());
    world.inject(0, session, hello());
    world.inject(0, session, open(ghost.space, &[]));
    world.run();
    session
}

/// The frames end the session with `reason` and change nothing.
fn assert_refused(
    world: &mut World,
    space: SpaceId,
    session: SessionId,
    frames: &[Vec<u8>],
    reason: CloseReason,
) {
    let before = world.untouched(0, space);
    for frame in frames {
        world.inject(0, session, frame.clone());
    }
    world.run();
    assert_eq!(world.close_reason(0, session), Some(reason), "{frames:02x?}");
    assert_eq!(world.untouched(0, space), before, "{frames:02x?}");
}

/// As [`assert_refused`], over a fresh session of a greeted member.
fn assert_member_refused(frame: &[u8], reason: CloseReason) {
    let (mut world, space, ghost) = victim();
    let session = greeted(&mut world, &ghost);
    assert_refused(&mut world, space, session, &[frame.to_vec()], reason);
    world.add(0, space, 1);
    assert_eq!(world.likes(0, space), 6, "the replica goes on");
}

/// What `node` 0 answered on a session, apart from its greeting.
fn answers(world: &World, session: SessionId) -> Vec<Message<'_>> {
    let frames = world.link(session).sent(0).log.iter();
    let messages = frames.map(|(_, frame)| Message::decode(frame).unwrap());
    messages
        .filter(|message| !matches!(message, Message::Hello(_) | Message::Shared(_) | Message::Heard))
        .collect()
}

/// One message of every type, as a member could send it.
fn one_of_each(space: SpaceId) -> Vec<Message<'static>> {
    let lane = OriginId([7; 16]);
    let open_lane = OpenLane { lane, lsn: 3, hash: [1; 8], subscription: Some(4) };
    vec![
        Message::Hello(Hello { version_min: 2, version_max: 2, wall_ms: 1_700_000_000_000 }),
        Message::Join(Join { space, secret: [3; 16] }),
        Message::Open(Open { space_ref: 2, space, needs_genesis: true, lanes: vec![open_lane] }),
        Message::Genesis(Genesis {
            space,
            creator: ReplicaId([1; 32]),
            nonce: Nonce([2; 16]),
            name: "space".to_owned(),
        }),
        Message::Denied(Denied { space }),
        Message::Subscribe(Subscribe { space, subscription: 6, lane, from: 1, hash: [0; 8] }),
        Message::Unsubscribe(Unsubscribe { subscription: 6, refused: false }),
        Message::Data(Data {
            subscription: 0,
            more: false,
            awaited: true,
            ends: false,
            first: 1,
            bytes: b"run",
        }),
        Message::Have(Have {
            space_ref: 0,
            lanes: vec![(LaneRef::New(lane), 300), (LaneRef::Known(0), 301)],
        }),
        Message::Head(Head { space, lane, lsn: 2, hash: ghost_hash(), proof: [5; 64].into() }),
    ]
}

fn ghost_hash() -> comity_engine::wire::Hash {
    Ghost::new(9, SpaceId([4; 16])).tip(0).hash
}

#[test]
fn somebody_unknown_is_denied_a_space_exactly_as_one_that_does_not_exist() {
    let (mut world, space, _) = victim();
    let stranger = Ghost::new(66, space);
    let before = world.untouched(0, space);
    let session = world.connect_ghost(0, stranger.replica());
    world.inject(0, session, hello());
    let unknown = SpaceId([0xaa; 16]);
    for space in [space, unknown] {
        world.inject(0, session, open(space, &[]));
    }
    world.run();
    let denied = |space| Message::Denied(Denied { space });
    assert_eq!(answers(&world, session), [denied(space), denied(unknown)]);
    assert_eq!(world.untouched(0, space), before);
    // Nor does anything else tell whether the space exists.
    let subscribe = |space| {
        Message::Subscribe(Subscribe { space, subscription: 0, lane: stranger.lane(), from: 1, hash: [0; 8] })
    };
    for space in [space, unknown] {
        let session = world.connect_ghost(0, stranger.replica());
        let frames = [hello(), subscribe(space).encode()];
        assert_refused(&mut world, stranger.space, session, &frames, CloseReason::Unexpected);
    }
}

#[test]
fn an_empty_frame_is_malformed() {
    assert_member_refused(&[], CloseReason::Malformed);
}

#[test]
fn every_message_cut_short_or_with_a_byte_too_many_is_malformed() {
    let (mut world, space, ghost) = victim();
    for message in one_of_each(space) {
        let frame = message.encode();
        let whole_run = matches!(message, Message::Data(_));
        for length in 0..frame.len() {
            // A shorter run is still a run; what it holds is checked against its signature.
            if whole_run && Message::decode(&frame[..length]).is_ok() {
                continue;
            }
            let session = greeted(&mut world, &ghost);
            let cut = frame[..length].to_vec();
            assert_refused(&mut world, space, session, &[cut], CloseReason::Malformed);
        }
        if !whole_run {
            let session = greeted(&mut world, &ghost);
            let longer = [frame.as_slice(), &[0]].concat();
            assert_refused(&mut world, space, session, &[longer], CloseReason::Malformed);
        }
    }
}

#[test]
fn an_unknown_message_is_malformed_unless_it_is_marked_as_skippable() {
    let (mut world, space, ghost) = victim();
    let known: Vec<u8> = one_of_each(space).iter().map(|message| message.encode()[0]).collect();
    for tag in (0..=0x7f_u8).filter(|tag| !known.contains(tag)) {
        let session = greeted(&mut world, &ghost);
        assert_refused(&mut world, space, session, &[vec![tag, 1, 2, 3]], CloseReason::Malformed);
    }
    let session = world.connect_ghost(0, ghost.replica());
    let before = world.untouched(0, space);
    // Some are known, and are skipped by who does not know them.
    let unknown = || (0x83..=0xff_u8).filter(|tag| !(0xc0..=0xc4).contains(tag));
    for tag in unknown() {
        world.inject(0, session, vec![tag, 1, 2, 3]);
    }
    world.inject(0, session, hello());
    for tag in unknown() {
        world.inject(0, session, vec![tag]);
    }
    assert!(world.is_connected(session));
    assert_eq!(world.untouched(0, space), before);
}

#[test]
fn only_the_one_canonical_encoding_of_a_message_is_accepted() {
    let long_version = vec![0x01, 0x81, 0x00, 0x01, 0x00];
    let long_subscription = vec![0x14, 0x80, 0x00, 0x00, 0x01];
    let long_first = vec![0x14, 0x00, 0x00, 0x81, 0x00];
    let unknown_flag = vec![0x14, 0x00, 0x08, 0x01];
    let not_a_bool = vec![0x13, 0x00, 0x02];
    let no_such_lane_ref = vec![0x18, 0x00, 0x01, 0x02, 0x00, 0x01];
    for frame in [long_version, long_subscription, long_first, unknown_flag, not_a_bool, no_such_lane_ref] {
        assert_member_refused(&frame, CloseReason::Malformed);
    }
}

#[test]
fn nothing_but_a_greeting_may_come_first() {
    let (mut world, space, ghost) = victim();
    for message in one_of_each(space) {
        if matches!(message, Message::Hello(_)) {
            continue;
        }
        // Data is let through for subscriptions that exist, because it may overtake the greeting.
        let frame = match message {
            Message::Data(data) => Message::Data(Data { subscription: 77, ..data }).encode(),
            message => message.encode(),
        };
        let session = world.connect_ghost(0, ghost.replica());
        assert_refused(&mut world, space, session, &[frame], CloseReason::Unexpected);
    }
}

#[test]
fn a_second_greeting_and_a_second_opening_are_unexpected() {
    let (mut world, space, ghost) = victim();
    let session = greeted(&mut world, &ghost);
    assert_refused(&mut world, space, session, &[hello()], CloseReason::Unexpected);
    let session = greeted(&mut world, &ghost);
    assert_refused(&mut world, space, session, &[open(space, &[])], CloseReason::Unexpected);
}

#[test]
fn one_number_cannot_stand_for_two_spaces() {
    let (mut world, space, ghost) = victim();
    let other = world.create_space(0);
    let guest = Ghost::new(9, other);
    let secret = world.invite(0, other, Role::Writer);
    let session = greeted(&mut world, &ghost);
    world.inject(0, session, Message::Join(Join { space: other, secret }).encode());
    world.run();
    assert_refused(&mut world, space, session, &[open(guest.space, &[])], CloseReason::Unexpected);
}

#[test]
fn a_session_without_a_common_version_ends() {
    let (mut world, space, ghost) = victim();
    let (below, above) = (PROTOCOL_VERSION_MIN - 1, PROTOCOL_VERSION + 1);
    for (version_min, version_max) in [(above, above + 5), (0, below), (0, 0), (1, 0), (u16::MAX, 0)] {
        let session = world.connect_ghost(0, ghost.replica());
        let hello = Message::Hello(Hello { version_min, version_max, wall_ms: 0 }).encode();
        world.inject(0, session, hello.clone());
        // It has time to read this side's greeting; what it says meanwhile is not looked at.
        world.inject(0, session, b"\x7f".to_vec());
        assert!(world.is_connected(session));
        world.pass(Duration::from_millis(250));
        assert_refused(&mut world, space, session, &[hello], CloseReason::Version);
    }
    let session = world.connect_ghost(0, ghost.replica());
    let newer = Message::Hello(Hello { version_min: 0, version_max: 900, wall_ms: u64::MAX }).encode();
    world.inject(0, session, newer);
    assert!(world.is_connected(session), "a wider range has this version in it");
}

#[test]
fn a_subscription_from_nowhere_or_under_a_number_in_use_is_unexpected() {
    let (mut world, space, ghost) = victim();
    let lane = world.own_lane(0, space);
    let ask = |subscription, from| {
        Message::Subscribe(Subscribe { space, subscription, lane, from, hash: [0; 8] }).encode()
    };
    let session = greeted(&mut world, &ghost);
    assert_refused(&mut world, space, session, &[ask(0, 0)], CloseReason::Unexpected);
    let session = greeted(&mut world, &ghost);
    assert_refused(&mut world, space, session, &[ask(0, 1), ask(0, 1)], CloseReason::Unexpected);
    // Neither may a space be read that was not opened.
    let session = world.connect_ghost(0, ghost.replica());
    assert_refused(&mut world, space, session, &[hello(), ask(0, 1)], CloseReason::Unexpected);
}

#[test]
fn a_subscription_that_cannot_be_served_is_refused_and_the_session_goes_on() {
    let (mut world, space, ghost) = victim();
    let own = world.own_lane(0, space);
    let count = world.status(0, space).durable.at(&own);
    let unknown = OriginId([0x55; 16]);
    let session = greeted(&mut world, &ghost);
    let before = world.untouched(0, space);
    let asked = [(own, count + 2), (own, u64::MAX), (unknown, 1), (unknown, 7), (own, count + 1)];
    for (subscription, (lane, from)) in (0..).zip(asked) {
        let subscribe = Subscribe { space, subscription, lane, from, hash: [0xee; 8] };
        world.inject(0, session, Message::Subscribe(subscribe).encode());
    }
    world.run();
    let refused: Vec<u32> = answers(&world, session)
        .iter()
        .filter_map(|message| match message {
            Message::Unsubscribe(Unsubscribe { subscription, refused: true }) => Some(*subscription),
            Message::Data(_) => panic!("nothing was to be served"),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [0, 1, 2, 3, 4]);
    assert!(world.is_connected(session));
    assert_eq!(world.untouched(0, space), before, "a wrong hash alone is no proof of a fork");
}

#[test]
fn have_with_a_number_or_a_place_that_was_never_named_is_unexpected() {
    let have = |space_ref, lanes| Message::Have(Have { space_ref, lanes }).encode();
    let place = |place| vec![(LaneRef::Known(place), 1)];
    for frame in [have(1, Vec::new()), have(u32::MAX, place(0)), have(0, place(0)), have(0, place(u32::MAX))]
    {
        assert_member_refused(&frame, CloseReason::Unexpected);
    }
}

#[test]
fn naming_more_lanes_than_a_space_may_have_ends_the_session() {
    let lane = |n: usize| {
        let mut id = [0xcc; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        OriginId(id)
    };
    let (mut world, space, ghost) = victim();
    let session = greeted(&mut world, &ghost);
    let lanes = (0..=LANES_MAX).map(|n| (LaneRef::New(lane(n)), 0)).collect();
    let have = Message::Have(Have { space_ref: 0, lanes }).encode();
    assert_refused(&mut world, space, session, &[have], CloseReason::TooMany);
    let session = world.connect_ghost(0, ghost.replica());
    let claims: Vec<_> = (0..=LANES_MAX).map(|n| (lane(n), 0, [0; 8])).collect();
    assert_refused(&mut world, space, session, &[hello(), open(space, &claims)], CloseReason::TooMany);
}

#[test]
fn a_genesis_that_names_another_founder_ends_the_session() {
    let mut world = World::new(1);
    let inviter = Ghost::new(9, SpaceId([0; 16]));
    let founder = (inviter.replica(), Nonce([8; 16]));
    let space = SpaceId::derive(&founder.0, &founder.1);
    let join = Command::JoinSpace { space, inviter: inviter.replica(), secret: None };
    world.command(0, join).unwrap();
    let genesis = |creator, nonce, name: &str| {
        Message::Genesis(Genesis { space, creator, nonce, name: name.to_owned() }).encode()
    };
    let (other, long) = (Ghost::new(10, space).replica(), "x".repeat(129));
    let false_ones = [
        genesis(other, founder.1, "space"),
        genesis(founder.0, Nonce([9; 16]), "space"),
        genesis(founder.0, founder.1, &long),
    ];
    for frame in false_ones {
        let session = world.connect_ghost(0, inviter.replica());
        assert_refused(&mut world, space, session, &[hello(), frame], CloseReason::Signature);
        assert!(world.status(0, space).members.is_empty());
    }
    let session = world.connect_ghost(0, inviter.replica());
    world.inject(0, session, hello());
    world.inject(0, session, genesis(founder.0, founder.1, "space"));
    world.run();
    assert_eq!(world.status(0, space).members, [(founder.0, Role::Admin)]);
    // Once it is known, nobody changes it.
    let before = world.untouched(0, space);
    world.inject(0, session, genesis(other, founder.1, "another"));
    world.run();
    assert_eq!((world.untouched(0, space), world.status(0, space).name.as_str()), (before, "space"));
}

#[test]
fn a_secret_that_is_wrong_used_or_too_old_lets_nobody_in() {
    let (mut world, space, _) = victim();
    let members = world.status(0, space).members.len();
    let secret = world.invite(0, space, Role::Writer);
    let try_secret = |world: &mut World, seed: u8, secret| {
        let stranger = Ghost::new(seed, space);
        let session = world.connect_ghost(0, stranger.replica());
        world.inject(0, session, hello());
        let before = world.untouched(0, space);
        world.inject(0, session, Message::Join(Join { space, secret }).encode());
        world.run();
        let denied = answers(world, session) == [Message::Denied(Denied { space })];
        assert!(world.is_connected(session));
        (denied, world.untouched(0, space) == before)
    };
    let mut wrong = secret;
    wrong[15] ^= 1;
    assert_eq!(try_secret(&mut world, 70, wrong), (true, true), "wrong");
    assert_eq!(try_secret(&mut world, 71, secret), (false, false), "right");
    assert_eq!(try_secret(&mut world, 72, secret), (true, true), "used");
    let late = world.invite(0, space, Role::Writer);
    world.nodes[0].wall_ms += Duration::from_secs(60).as_millis() as u64;
    assert_eq!(try_secret(&mut world, 73, late), (true, true), "too old");
    // A secret is good for its space only.
    let other = world.create_space(0);
    let elsewhere = world.invite(0, other, Role::Writer);
    assert_eq!(try_secret(&mut world, 74, elsewhere), (true, true), "of another space");
    assert_eq!(world.status(0, space).members.len(), members + 1);
}

#[test]
fn an_unsolicited_denial_closes_the_space_on_its_session_and_nothing_else() {
    let (mut world, space, ghost) = victim();
    let session = greeted(&mut world, &ghost);
    let before = world.untouched(0, space);
    for denied in [space, SpaceId([3; 16]), space] {
        world.inject(0, session, Message::Denied(Denied { space: denied }).encode());
    }
    world.run();
    assert_eq!((world.denials(0), world.untouched(0, space)), (1, before));
    assert!(world.is_connected(session));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn random_bytes_never_panic_and_change_nothing(
        frames in prop::collection::vec(
            (prop_oneof![Just(None), (0..10_usize).prop_map(Some)], prop::collection::vec(any::<u8>(), 0..60)),
            1..12,
        ),
    ) {
        let (mut world, space, ghost) = victim();
        let session = greeted(&mut world, &ghost);
        let before = world.untouched(0, space);
        for (kind, bytes) in frames {
            // Half of them start with the tag of a message that exists.
            let tag = kind.map(|kind| one_of_each(space)[kind].encode()[0]);
            let frame: Vec<u8> = tag.into_iter().chain(bytes).collect();
            let is_message = Message::decode(&frame).is_ok();
            let was_open = world.is_connected(session);
            world.inject(0, session, frame);
            prop_assert!(is_message || !was_open || world.close_reason(0, session) == Some(CloseReason::Malformed));
        }
        world.run();
        prop_assert_eq!(world.untouched(0, space), before);
    }
}

#[test]
fn data_of_a_subscription_that_was_never_made_is_unexpected() {
    assert_member_refused(&data(5, 1, b"whatever"), CloseReason::Unexpected);
}

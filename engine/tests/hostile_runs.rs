//! A peer that lies inside runs of lane entries: forged, altered, replayed, too much, or too large. Nothing of
//! such a run is kept.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use comity_crdts::limits::{
    COLLECTION_BYTES_MAX, CONTEXT_DOTS_MAX, ELEMENT_BYTES_MAX, KEY_BYTES_MAX, LANES_MAX, VALUE_BYTES_MAX,
};
use comity_crdts::{Dot, Hlc, Kind, Nonce, ObjectAddress, OriginId, ReplicaId, SpaceId, Value, Writer};
use comity_engine::wire::{
    Body, ChangeSet, Data, Dictionary, Group, Join, LaneEntry, LaneOwner, Message, Op, encode_run, sign,
};
use comity_engine::{CloseReason, Freeze, Role, SessionId};
use world::ghost::{Ghost, data, hello, likes, open};
use world::{World, noise};

/// A node with a ghost that is a member, and whose lane of two entries (1 and 2) the node wants.
fn victim() -> (World, SpaceId, Ghost) {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.add(0, space, 5);
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    ghost.add(2);
    let (session, _) = world.admit(0, &ghost);
    world.disconnect(session);
    (world, space, ghost)
}

/// A fresh session of a member on which the node has subscribed to the lane of `owner`.
fn wanted(world: &mut World, member: &Ghost, owner: &Ghost) -> (SessionId, u32) {
    let session = world.connect_ghost(0, member.replica());
    world.inject(0, session, hello());
    let claim = (owner.lane(), owner.entries.len() as u64, owner.tip(owner.entries.len()).hash.prefix());
    world.inject(0, session, open(member.space, &[claim]));
    world.run();
    (session, world.subscription(0, session, owner.lane()).expect("the lane is wanted"))
}

/// A run that claims to start the ghost's lane ends the session and leaves no trace.
fn assert_run_refused(run: &[u8], reason: CloseReason) {
    let (mut world, _, ghost) = victim();
    assert_refused_in(&mut world, &ghost, 1, run, reason);
}

fn assert_refused_in(world: &mut World, ghost: &Ghost, first: u64, run: &[u8], reason: CloseReason) {
    let (session, subscription) = wanted(world, ghost, ghost);
    let before = world.untouched(0, ghost.space);
    world.inject(0, session, data(subscription, first, run));
    world.run();
    assert_eq!(world.close_reason(0, session), Some(reason), "{run:02x?}");
    assert_eq!(world.untouched(0, ghost.space), before);
}

#[test]
fn an_honest_run_is_applied() {
    let (mut world, space, ghost) = victim();
    let (session, subscription) = wanted(&mut world, &ghost, &ghost);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 2)));
    world.run();
    assert_eq!(world.likes(0, space), 8);
    assert!(world.is_connected(session));
}

#[test]
fn a_run_signed_with_another_key_is_refused() {
    let (_, space, ghost) = victim();
    let other = Ghost::new(10, space);
    assert_run_refused(&ghost.run_signed(0, 2, &other.key), CloseReason::Signature);
}

#[test]
fn a_run_that_comes_again_or_leaves_a_gap_is_refused() {
    let (mut world, _, ghost) = victim();
    assert_refused_in(&mut world, &ghost, 2, &ghost.run(1, 2), CloseReason::LaneOrder);
    let (session, subscription) = wanted(&mut world, &ghost, &ghost);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 1)));
    world.run();
    let before = world.untouched(0, ghost.space);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 1)));
    world.run();
    assert_eq!(world.close_reason(0, session), Some(CloseReason::LaneOrder));
    assert_eq!(world.untouched(0, ghost.space), before);
    assert_eq!(world.likes(0, ghost.space), 6, "it counts once");
}

#[test]
fn a_run_that_is_valid_in_another_space_is_refused_in_this_one() {
    let (_, _, ghost) = victim();
    let mut elsewhere = Ghost { space: SpaceId([0x33; 16]), entries: Vec::new(), ..ghost };
    elsewhere.add(1);
    elsewhere.add(2);
    assert_run_refused(&elsewhere.run(0, 2), CloseReason::Signature);
}

#[test]
fn entries_of_another_lane_are_refused() {
    let (_, _, ghost) = victim();
    let owner = LaneOwner { nonce: Nonce([77; 16]), ..ghost.owner };
    let mut other_incarnation = Ghost { owner, entries: Vec::new(), ..ghost.clone() };
    other_incarnation.add(1);
    assert_run_refused(&other_incarnation.run(0, 1), CloseReason::Signature);
    let mut other_replica = Ghost::new(10, ghost.space);
    other_replica.add(1);
    assert_run_refused(&other_replica.run(0, 1), CloseReason::Signature);
}

#[test]
fn the_start_of_a_lane_must_name_the_owner_that_its_id_commits_to() {
    let (_, space, ghost) = victim();
    let run = |owner: &LaneOwner| {
        let last = ghost.tip(2);
        let signature = sign(&ghost.key, &space, &ghost.lane(), 2, &last.hash);
        let mut dictionary = Dictionary::default();
        encode_run(&ghost.lane(), owner, &ghost.tip(0), &ghost.entries, &signature.into(), &mut dictionary)
    };
    let thief = LaneOwner { replica: Ghost::new(10, space).replica(), ..ghost.owner };
    assert_run_refused(&run(&thief), CloseReason::Signature);
    let unnamed: Vec<u8> = [&[0_u8][..], &run(&ghost.owner)[1 + 32 + 16..]].concat();
    assert_run_refused(&unnamed, CloseReason::Malformed);
}

#[test]
fn entries_beyond_the_signed_one_are_refused_together_with_it() {
    let (_, space, ghost) = victim();
    let head = ghost.tip(1);
    let signature = sign(&ghost.key, &space, &ghost.lane(), head.lsn, &head.hash);
    let mut dictionary = Dictionary::default();
    let entries = &ghost.entries;
    let run =
        encode_run(&ghost.lane(), &ghost.owner, &ghost.tip(0), entries, &signature.into(), &mut dictionary);
    assert_run_refused(&run, CloseReason::Signature);
}

#[test]
fn no_single_byte_of_a_third_party_s_run_can_be_altered_by_a_relay() {
    let (mut world, space, relay) = victim();
    let mut author = Ghost::new(20, space);
    author.add(40);
    author.add(2);
    let (session, _) = world.admit(0, &author);
    world.disconnect(session);
    let run = author.run(0, 2);
    let before = world.untouched(0, space);
    for at in 0..run.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut altered = run.clone();
            altered[at] ^= flip;
            let (session, subscription) = wanted(&mut world, &relay, &author);
            world.inject(0, session, data(subscription, 1, &altered));
            world.run();
            let reason = world.close_reason(0, session);
            let expected = [Some(CloseReason::Signature), Some(CloseReason::Malformed)];
            assert!(expected.contains(&reason), "byte {at} ^ {flip:02x}: {reason:?}");
            assert_eq!(world.untouched(0, space), before);
        }
    }
    let (session, subscription) = wanted(&mut world, &relay, &author);
    world.inject(0, session, data(subscription, 1, &run));
    world.run();
    assert_eq!(world.likes(0, space), 47, "unaltered it is accepted from anybody");
}

#[test]
fn data_of_a_subscription_that_was_ended_is_ignored() {
    let (mut world, space, ghost) = victim();
    let (first, subscription) = wanted(&mut world, &ghost, &ghost);
    let refusal = Message::Unsubscribe(comity_engine::wire::Unsubscribe { subscription, refused: true });
    world.inject(0, first, refusal.encode());
    let before = world.untouched(0, space);
    world.inject(0, first, data(subscription, 1, &ghost.run(0, 2)));
    world.run();
    assert!(world.is_connected(first));
    assert_eq!(world.untouched(0, space), before);
}

/// An entry that waits for something that never comes, with a value of about `bytes`.
fn waiting(ghost: &Ghost, bytes: usize) -> LaneEntry {
    let mut entry = ghost.draft(vec![register(Value::Bytes(noise(7, bytes)))]);
    entry.admitted.advance(OriginId([0x44; 16]), 1);
    if let Body::Change(change) = &mut entry.body {
        change.context = entry.admitted.clone();
    }
    entry
}

fn register(value: Value) -> Group {
    let address = ObjectAddress::new(Kind::Register, "stats", "value").unwrap();
    Group { address, ops: vec![Op::RegisterSet { value, hlc: Hlc::new(1 << 47, 1), observed: Vec::new() }] }
}

#[test]
fn more_than_the_staging_window_holds_ends_the_session() {
    let (mut world, space, mut ghost) = victim();
    for _ in 0..200 {
        let entry = waiting(&ghost, 60_000);
        ghost.append(entry);
    }
    let (session, subscription) = wanted(&mut world, &ghost, &ghost);
    let (frontier, likes) = (world.status(0, space).frontier, world.likes(0, space));
    let mut sent = 0;
    for first in 2..202 {
        let run = ghost.run(first, first + 1);
        sent += run.len();
        let from = if first == 2 { ghost.run(0, 3) } else { run };
        world.inject(0, session, data(subscription, if first == 2 { 1 } else { first as u64 + 1 }, &from));
        if !world.is_connected(session) {
            break;
        }
    }
    world.run();
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Window));
    assert!((10_000_000..12_000_000).contains(&sent), "{sent} bytes were let in");
    // The two entries that wait for nothing were applied; nothing else was.
    assert_eq!(world.status(0, space).frontier.at(&ghost.lane()), 2);
    assert_eq!(world.likes(0, space), likes + 3);
    assert_eq!(world.status(0, space).frontier.len(), frontier.len() + 1);
}

#[test]
fn pieces_that_never_end_are_refused_at_the_limit_of_one_run() {
    let (mut world, space, ghost) = victim();
    let (session, subscription) = wanted(&mut world, &ghost, &ghost);
    let before = world.untouched(0, space);
    let piece = vec![0; 200_000];
    let message = Data { subscription, more: true, awaited: false, ends: false, first: 1, bytes: &piece };
    let mut pieces = 0;
    while world.is_connected(session) {
        world.inject(0, session, Message::Data(message.clone()).encode());
        pieces += 1;
    }
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Malformed));
    assert_eq!(pieces, (1024 + 256) * 1024 / 200_000 + 1);
    assert_eq!(world.untouched(0, space), before);
}

/// A run of one entry by the ghost, who starts its lane with these groups.
fn run_of(groups: Vec<Group>) -> Vec<u8> {
    let mut ghost = Ghost::new(9, victim().1);
    let entry = ghost.draft(groups);
    ghost.append(entry);
    ghost.run(0, 1)
}

fn set_of(elements: impl Iterator<Item = Op>) -> Group {
    Group { address: ObjectAddress::new(Kind::Set, "tags", "all").unwrap(), ops: elements.collect() }
}

#[test]
fn values_elements_and_contexts_beyond_their_limits_are_malformed() {
    let bytes = |bytes: usize| Value::Bytes(vec![0; bytes]);
    assert_run_refused(&run_of(vec![register(bytes(VALUE_BYTES_MAX))]), CloseReason::Malformed);
    let element = |bytes| Op::SetAdd { element: bytes, observed: Vec::new() };
    let element = set_of(std::iter::once(element(bytes(ELEMENT_BYTES_MAX))));
    assert_run_refused(&run_of(vec![element]), CloseReason::Malformed);
    let dot = |seq| Dot { origin: OriginId([5; 16]), seq, index: 0 };
    let observed = (1..=CONTEXT_DOTS_MAX as u64 + 1).map(dot).collect();
    let reset = Op::RegisterReset { observed };
    let address = ObjectAddress::new(Kind::Register, "stats", "value").unwrap();
    assert_run_refused(&run_of(vec![Group { address, ops: vec![reset] }]), CloseReason::Malformed);
    let mut deep = Value::Null;
    for _ in 0..40 {
        deep = Value::List(vec![deep]);
    }
    assert_run_refused(&run_of(vec![register(deep)]), CloseReason::Malformed);
}

#[test]
fn too_many_objects_or_operations_and_operations_of_another_kind_are_malformed() {
    let counter = |n: usize, ops: usize| Group {
        address: ObjectAddress::new(Kind::Counter, "c", &n.to_string()).unwrap(),
        ops: vec![Op::CounterAdd(1); ops],
    };
    let too_many_objects = (0..4_097).map(|n| counter(n, 1)).collect();
    assert_run_refused(&run_of(too_many_objects), CloseReason::Malformed);
    assert_run_refused(&run_of(vec![counter(0, 65_536)]), CloseReason::Malformed);
    assert_run_refused(&run_of(vec![counter(0, 40_000), counter(1, 40_000)]), CloseReason::Malformed);
    assert_run_refused(&run_of(vec![counter(0, 0)]), CloseReason::Malformed);
    assert_run_refused(&run_of(vec![counter(0, 1), counter(0, 1)]), CloseReason::Malformed);
    let wrong_kind = Group { ops: vec![Op::RegisterReset { observed: Vec::new() }], ..counter(0, 1) };
    assert_run_refused(&run_of(vec![wrong_kind]), CloseReason::Malformed);
}

#[test]
fn names_beyond_their_limits_are_malformed() {
    let run_with = |collection: &[u8], key: &[u8]| {
        let ghost = Ghost::new(9, victim().1);
        let mut out = Writer::new();
        out.u8(1);
        out.bytes(&ghost.owner.replica.0);
        out.bytes(&ghost.owner.nonce.0);
        // One entry: no flags, nothing admitted, a time, one group of a new object with one addition.
        for byte in [1, 0, 0, 5, 0, 1, 0, Kind::Counter.tag()] {
            out.u8(byte);
        }
        out.blob(collection);
        out.blob(key);
        out.varint(1);
        out.u8(1);
        out.varint_signed(3);
        out.bytes(&[0; 64]);
        out.finish()
    };
    let (collection, key) = ([b'c'; COLLECTION_BYTES_MAX + 1], [b'k'; KEY_BYTES_MAX + 1]);
    // With names within limits only the signature is wrong.
    assert_run_refused(&run_with(&collection[1..], &key[1..]), CloseReason::Signature);
    assert_run_refused(&run_with(&collection, b"key"), CloseReason::Malformed);
    assert_run_refused(&run_with(b"stats", &key), CloseReason::Malformed);
    assert_run_refused(&run_with(b"", b"key"), CloseReason::Malformed);
    assert_run_refused(&run_with(b"sta\0ts", b"key"), CloseReason::Malformed);
    assert_run_refused(&run_with(b"stats", &[0xff, 0xfe]), CloseReason::Malformed);
}

#[test]
fn a_few_bytes_that_stand_for_many_are_refused_before_they_are_unfolded() {
    let name = "n".repeat(KEY_BYTES_MAX - 5);
    let group = |n: usize| Group {
        address: ObjectAddress::new(
            Kind::Counter,
            &"c".repeat(COLLECTION_BYTES_MAX),
            &format!("{name}{n:05}"),
        )
        .unwrap(),
        ops: vec![Op::CounterAdd(1)],
    };
    // One entry with 600 long names, then entries that name them all again by reference.
    let mut ghost = Ghost::new(9, victim().1);
    for _ in 0..150 {
        let entry = ghost.draft((0..600).map(group).collect());
        ghost.append(entry);
    }
    let run = ghost.run(0, 150);
    assert!(run.len() < 1_000_000, "{} bytes", run.len());
    let pieces: Vec<&[u8]> = run.chunks(200_000).collect();
    let (mut world, space, ghost) = victim();
    let (session, subscription) = wanted(&mut world, &ghost, &ghost);
    let before = world.untouched(0, space);
    for (index, bytes) in pieces.iter().enumerate() {
        let more = index + 1 < pieces.len();
        let message = Data { subscription, more, awaited: false, ends: false, first: 1, bytes };
        world.inject(0, session, Message::Data(message).encode());
    }
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Malformed));
    assert_eq!(world.untouched(0, space), before);
}

#[test]
fn a_change_set_beyond_its_size_is_malformed() {
    let values = (0..20).map(|n| Group {
        address: ObjectAddress::new(Kind::Register, "r", &n.to_string()).unwrap(),
        ..register(Value::Bytes(vec![1; 60_000]))
    });
    let run = run_of(values.collect());
    let (mut world, space, ghost) = victim();
    let (session, subscription) = wanted(&mut world, &ghost, &ghost);
    let before = world.untouched(0, space);
    for bytes in run.chunks(200_000) {
        let more = bytes.len() == 200_000;
        let message = Data { subscription, more, awaited: false, ends: false, first: 1, bytes };
        world.inject(0, session, Message::Data(message).encode());
    }
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Malformed));
    assert_eq!(world.untouched(0, space), before);
}

/// The node freezes the ghost's lane at `lsn` because of the entry, and follows other lanes.
fn assert_freezes(lsn: u64, spoil: impl FnOnce(&mut LaneEntry, &mut ChangeSet)) {
    let (mut world, space, mut ghost) = victim();
    let mut entry = ghost.draft(vec![likes(100)]);
    let Body::Change(mut change) = entry.body.clone() else { unreachable!("a draft is a change set") };
    spoil(&mut entry, &mut change);
    entry.body = Body::Change(change);
    ghost.append(entry);
    let (session, subscription) = wanted(&mut world, &ghost, &ghost);
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 3)));
    world.run();
    let status = world.status(0, space);
    let lane = status.lanes.iter().find(|lane| lane.lane == ghost.lane()).unwrap();
    assert!(matches!(&lane.frozen, Some(Freeze::Invalid { lsn: at, .. }) if *at == lsn), "{:?}", lane.frozen);
    assert_eq!((lane.applied, world.likes(0, space)), (lsn - 1, 8), "what came before it counts");
    assert!(world.is_connected(session), "the lane is at fault, not the session");
    world.add(0, space, 1);
    assert_eq!(world.likes(0, space), 9);
}

#[test]
fn an_entry_that_breaks_a_rule_freezes_its_lane_and_nothing_else() {
    assert_freezes(3, |_, change| change.seq = 7);
    assert_freezes(3, |_, change| change.origin = OriginId([1; 16]));
    assert_freezes(3, |entry, change| {
        entry.at = entry.at.succ();
        change.hlc = Hlc::new(3, 3);
    });
    assert_freezes(3, |_, change| change.context.advance(OriginId([2; 16]), 4));
    assert_freezes(3, |_, change| change.groups.clear());
}

#[test]
fn entries_of_somebody_who_is_no_member_wait_until_an_admin_lets_it_in() {
    let (mut world, space, relay) = victim();
    let mut stranger = Ghost::new(30, space);
    stranger.add(100);
    let before = world.untouched(0, space);
    let (session, subscription) = wanted(&mut world, &relay, &stranger);
    world.inject(0, session, data(subscription, 1, &stranger.run(0, 1)));
    world.run();
    assert!(world.is_connected(session));
    assert_eq!(world.untouched(0, space), before);
    let (own, _) = world.admit(0, &stranger);
    world.disconnect(own);
    world.run();
    let again = world.subscription(0, session, stranger.lane()).unwrap();
    assert_ne!(again, subscription, "the lane is asked for once its owner is a member");
    world.inject(0, session, data(again, 1, &stranger.run(0, 1)));
    world.run();
    assert_eq!(world.likes(0, space), 105);
}

#[test]
fn lanes_of_strangers_are_counted() {
    let (mut world, space, relay) = victim();
    let before = world.untouched(0, space);
    let mut refused = 0;
    for round in 0..2_u8 {
        let strangers: Vec<Ghost> = (0..200_u8)
            .map(|n| {
                let owner = LaneOwner {
                    nonce: Nonce([n.wrapping_add(round * 100); 16]),
                    ..Ghost::new(40 + round, space).owner
                };
                let mut stranger = Ghost { owner, ..Ghost::new(40 + round, space) };
                stranger.add(1);
                stranger
            })
            .collect();
        let session = world.connect_ghost(0, relay.replica());
        world.inject(0, session, hello());
        let claims: Vec<_> = strangers.iter().map(|s| (s.lane(), 1, s.tip(1).hash.prefix())).collect();
        world.inject(0, session, open(space, &claims));
        for stranger in &strangers {
            if let Some(subscription) =
                world.is_connected(session).then(|| world.subscription(0, session, stranger.lane())).flatten()
            {
                world.inject(0, session, data(subscription, 1, &stranger.run(0, 1)));
            }
        }
        refused += usize::from(world.close_reason(0, session) == Some(CloseReason::TooMany));
    }
    assert_eq!(refused, 1, "{LANES_MAX} lanes of strangers at most are remembered");
    assert_eq!(world.untouched(0, space), before);
}

#[test]
fn a_grant_by_somebody_who_is_no_admin_has_no_effect_anywhere() {
    let mut world = World::new(2);
    let space = world.create_space(0);
    world.join(0, 1, space);
    let mut ghost = Ghost::new(9, space);
    let friend = ReplicaId([0x99; 32]);
    let grants = [(ghost.replica(), Role::Admin), (friend, Role::Writer)];
    let ops = grants.map(|(replica, role)| Op::Grant { replica, role }).to_vec();
    let entry = ghost.draft(vec![Group { address: ObjectAddress::members(), ops }]);
    ghost.append(entry);
    ghost.add(3);
    let (session, subscription) = world.admit(0, &ghost);
    world.run();
    let members = world.status(0, space).members;
    world.inject(0, session, data(subscription, 1, &ghost.run(0, 2)));
    world.run();
    for node in [0, 1] {
        assert_eq!(world.status(node, space).members, members, "node {node}");
        assert_eq!(world.likes(node, space), 3, "the rest of the lane counts");
    }
    assert!(!world.nodes[0].engine.trust().peers.contains(&friend));
    world.assert_converged(space);
    // Nor does it invite.
    let stranger = Ghost::new(31, space);
    let other = world.connect_ghost(1, stranger.replica());
    world.inject(1, other, hello());
    world.inject(1, other, Message::Join(Join { space, secret: [0; 16] }).encode());
    world.run();
    assert_eq!(world.status(1, space).members, members);
}

#[test]
fn a_run_without_entries_or_with_more_than_allowed_is_malformed() {
    let (_, space, ghost) = victim();
    let signature = sign(&ghost.key, &space, &ghost.lane(), 0, &ghost.tip(0).hash);
    let empty = encode_run(
        &ghost.lane(),
        &ghost.owner,
        &ghost.tip(0),
        &[],
        &signature.into(),
        &mut Dictionary::default(),
    );
    assert_run_refused(&empty, CloseReason::Malformed);
    let mut long = Ghost::new(9, space);
    for _ in 0..4_097 {
        long.add(1);
    }
    assert_run_refused(&long.run(0, 4_097), CloseReason::Malformed);
    let (mut world, _, _) = victim();
    let (session, subscription) = wanted(&mut world, &long, &long);
    world.inject(0, session, data(subscription, 1, &long.run(0, 4_096)));
    world.run();
    assert_eq!(world.likes(0, space), 5 + 4_096);
}

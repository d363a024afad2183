//! A part of a run that is applied, while the rest waits for what may never come, reaches everybody else.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use comity_crdts::SpaceId;
use comity_engine::wire::{Body, Dictionary, Hash, Proof, encode_run, sign};
use comity_engine::{CloseReason, Freeze};
use world::World;
use world::ghost::{Ghost, data, likes};

/// A lane of six entries that add 1 each, of which those from the second on have seen what nobody here has.
fn waiting(space: SpaceId) -> Ghost {
    let (mut lane, missing) = (Ghost::new(31, space), Ghost::new(30, space).lane());
    lane.add(1);
    for _ in 1..6 {
        let mut entry = lane.draft(vec![likes(1)]);
        entry.admitted.advance(missing, 1);
        if let Body::Change(change) = &mut entry.body {
            change.context = entry.admitted.clone();
        }
        lane.append(entry);
    }
    lane
}

/// Three members; the founder, which the second one is connected to, was sent all of a lane that is gone.
fn stuck(lane: impl Fn(SpaceId) -> Ghost) -> (World, SpaceId, Ghost) {
    let mut world = World::new(3);
    let space = world.create_space(0);
    world.join(0, 1, space);
    world.join(0, 2, space);
    world.disconnect_all(Some(2));
    let lane = lane(space);
    let (owner, number) = world.admit(0, &lane);
    world.inject(0, owner, data(number, 1, &lane.run(0, lane.entries.len())));
    world.run();
    world.disconnect(owner);
    world.run();
    (world, space, lane)
}

fn applied(world: &World, node: usize, lane: &Ghost) -> u64 {
    world.status(node, lane.space).frontier.at(&lane.lane())
}

fn staged(world: &World, node: usize, lane: &Ghost) -> u64 {
    let lanes = world.status(node, lane.space).lanes;
    lanes.iter().find(|of| of.lane == lane.lane()).unwrap().staged
}

/// Makes a run of a lane.
type Attempt<'a> = Box<dyn Fn(&Ghost) -> Vec<u8> + 'a>;

/// What links the entries after the first `from` up to the first `to`, and the signature over the last of them.
fn proof(lane: &Ghost, from: usize, to: usize) -> Proof {
    let link = |at: usize| lane.tip(at).after_linked(&lane.space, &lane.entries[at].0).1;
    let last = lane.tip(to);
    let signature = sign(&lane.key, &lane.space, &lane.lane(), last.lsn, &last.hash);
    Proof { links: (from..to).map(link).collect(), signature }
}

/// A run of the first `count` entries.
fn part(lane: &Ghost, count: usize, proof: &Proof) -> Vec<u8> {
    let (start, entries) = (lane.tip(0), &lane.entries[..count]);
    encode_run(&lane.lane(), &lane.owner, &start, entries, proof, &mut Dictionary::default())
}

#[test]
fn a_part_is_passed_on_by_who_has_the_whole_run_and_by_who_has_no_more_than_the_part() {
    let (mut world, _, lane) = stuck(waiting);
    assert_eq!((applied(&world, 0, &lane), staged(&world, 0, &lane)), (1, 5));
    assert_eq!(
        (applied(&world, 1, &lane), staged(&world, 1, &lane)),
        (1, 0),
        "who has the whole passes the part on"
    );
    world.disconnect_all(Some(0));
    world.connect(1, 2);
    world.run();
    assert_eq!((applied(&world, 2, &lane), staged(&world, 2, &lane)), (1, 0), "and so does who has the part");
    assert_eq!(world.likes(2, lane.space), 1);
}

#[test]
fn a_part_is_proved_by_what_is_on_the_disk() {
    let (mut world, _, lane) = stuck(waiting);
    world.disconnect_all(None);
    for node in [0, 1] {
        world.crash(node);
    }
    world.connect(0, 2);
    world.run();
    assert_eq!(applied(&world, 2, &lane), 1, "from who has lost the rest");
    let (mut world, _, lane) = stuck(waiting);
    world.disconnect_all(None);
    world.crash(1);
    world.connect(1, 2);
    world.run();
    assert_eq!(applied(&world, 2, &lane), 1, "from who never had it");
}

#[test]
fn the_rest_follows_the_part_once_what_it_waits_for_is_there() {
    let (mut world, space, lane) = stuck(waiting);
    world.connect(1, 2);
    world.run();
    let mut missing = Ghost::new(30, space);
    missing.add(1);
    let (session, number) = world.admit(0, &missing);
    world.inject(0, session, data(number, 1, &missing.run(0, 1)));
    world.run();
    for node in 0..3 {
        assert_eq!((applied(&world, node, &lane), staged(&world, node, &lane)), (6, 0));
        assert_eq!(world.likes(node, space), 7);
    }
    world.assert_converged(space);
}

#[test]
fn what_is_sound_of_a_run_reaches_others_although_the_rest_is_not() {
    let unsound = |space| {
        let mut lane = Ghost::new(31, space);
        lane.add(1);
        lane.add(1);
        let mut entry = lane.draft(vec![likes(1)]);
        if let Body::Change(change) = &mut entry.body {
            change.seq += 7;
        }
        lane.append(entry);
        lane.add(1);
        lane
    };
    let (mut world, space, lane) = stuck(unsound);
    world.connect(1, 2);
    world.run();
    for node in 0..3 {
        assert_eq!(applied(&world, node, &lane), 2, "replica {node}");
    }
    let frozen = world.status(0, space).lanes.into_iter().find_map(|lane| lane.frozen);
    assert!(matches!(frozen, Some(Freeze::Invalid { lsn: 3, .. })), "{frozen:?}");
}

#[test]
fn a_part_counts_only_with_the_links_that_lead_to_what_was_signed() {
    let honest = |lane: &Ghost| proof(lane, 2, 6);
    let other = |lane: &Ghost, change: &dyn Fn(&mut Proof)| {
        let mut proof = honest(lane);
        change(&mut proof);
        part(lane, 2, &proof)
    };
    let attempts: [(&str, Attempt<'_>, Option<CloseReason>); 7] = [
        ("sound", Box::new(|lane| part(lane, 2, &honest(lane))), None),
        (
            "a link changed",
            Box::new(|lane| other(lane, &|proof| proof.links[1].0[0] ^= 1)),
            Some(CloseReason::Signature),
        ),
        (
            "a link missing",
            Box::new(|lane| other(lane, &|proof| proof.links.truncate(3))),
            Some(CloseReason::Signature),
        ),
        (
            "links exchanged",
            Box::new(|lane| other(lane, &|proof| proof.links.swap(0, 1))),
            Some(CloseReason::Signature),
        ),
        ("an entry short", Box::new(|lane| part(lane, 1, &honest(lane))), Some(CloseReason::Signature)),
        (
            "more than a run holds",
            Box::new(|lane| other(lane, &|proof| proof.links.resize(4_095, Hash([7; 32])))),
            Some(CloseReason::Malformed),
        ),
        (
            "half a link",
            Box::new(|lane| {
                let mut run = part(lane, 2, &honest(lane));
                run.truncate(run.len() - 16);
                run
            }),
            Some(CloseReason::Malformed),
        ),
    ];
    for (what, run, refused) in attempts {
        let mut world = World::new(1);
        let space = world.create_space(0);
        let mut lane = Ghost::new(31, space);
        (0..6).for_each(|_| lane.add(1));
        let (session, number) = world.admit(0, &lane);
        world.inject(0, session, data(number, 1, &run(&lane)));
        world.run();
        assert_eq!(world.close_reason(0, session), refused, "{what}");
        assert_eq!(applied(&world, 0, &lane), if refused.is_some() { 0 } else { 2 }, "{what}");
    }
}

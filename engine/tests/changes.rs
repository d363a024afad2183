//! Reading changes: in the order of applying, each once, from wherever a reader was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use std::time::Duration;

use comity_crdts::automerge::ROOT;
use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::{Frontier, Kind, LaneId, ObjectAddress, SpaceId, Value};
use comity_engine::{
    ChangeCursor, ChangeEvent, ChangesError, Did, Durability, Input, LogRead, Notice, PageLimit, Role, Row,
    Scope, StateRead, StoreError, TxError,
};
use comity_store::MemorySnapshot;
use proptest::prelude::*;
use world::World;

/// Everything that a cursor still has to give, page by page.
fn rest(read: &dyn LogRead, cursor: &mut ChangeCursor, limit: PageLimit) -> Vec<ChangeEvent> {
    let mut events = Vec::new();
    loop {
        let page = cursor.read(read, limit).unwrap();
        assert!(page.events.len() <= limit.entries);
        events.extend(page.events);
        if page.ahead == 0 {
            return events;
        }
    }
}

fn after(read: &dyn LogRead, space: SpaceId, seen: &Frontier) -> Vec<ChangeEvent> {
    rest(read, &mut ChangeCursor::after(space, seen.clone()), PageLimit::default())
}

fn view(world: &World, node: usize) -> MemorySnapshot {
    world.nodes[node].disk.view()
}

fn durable(world: &World, node: usize, space: SpaceId) -> Frontier {
    comity_engine::frontier(&view(world, node), &space).unwrap()
}

fn places(events: &[ChangeEvent]) -> Vec<(LaneId, u64)> {
    events.iter().map(|event| (event.lane, event.lsn)).collect()
}

/// Holds what a reader who had seen `seen` is told at a node against what was applied there.
fn check(world: &World, node: usize, space: SpaceId, seen: &Frontier) {
    let all = after(&view(world, node), space, &Frontier::new());
    assert_eq!(all.len() as u64, durable(world, node, space).distance_from(&Frontier::new()));
    let expected: Vec<_> = places(&all).into_iter().filter(|(lane, lsn)| seen.at(lane) < *lsn).collect();
    let told = after(&view(world, node), space, seen);
    assert_eq!(places(&told), expected, "node {node} after {seen:?}");
    let mut frontier = seen.clone();
    for event in &told {
        frontier.advance(event.lane, event.lsn);
        assert_eq!(event.frontier, frontier);
    }
}

/// Node 0 and 1 of a mesh, each with a few writes that both have.
fn pair() -> (World, SpaceId) {
    let (mut world, space) = World::mesh(2);
    for round in 0..3 {
        world.add(round % 2, space, 1);
    }
    world.add(1, space, 1);
    (world, space)
}

/// Lets two nodes write without each other.
fn part(world: &mut World, space: SpaceId, counts: [usize; 2]) {
    world.disconnect_all(None);
    for (node, count) in counts.into_iter().enumerate() {
        (0..count).for_each(|_| world.add(node, space, 1));
    }
}

fn meet(world: &mut World) {
    world.connect(0, 1);
    world.run();
}

#[test]
fn an_event_says_who_did_what_to_which_object() {
    let (mut world, space) = World::mesh(2);
    let before = durable(&world, 1, space);
    let change = world.write(0, space, |tx| {
        tx.counter_add("stats", "likes", 3)?;
        tx.counter_add("stats", "likes", -1)?;
        tx.set_add("tags", "post", "a".into())?;
        tx.set_remove("tags", "post", "a".into())?;
        tx.register_write("profile", "name", "Ada".into())?;
        tx.document_edit("notes", "today", |doc| -> Result<(), TxError> {
            doc.put(ROOT, "x", 1)?;
            Ok(doc.put(ROOT, "y", 2)?)
        })?;
        Ok(tx.document("notes", "today")?.heads()[0])
    });
    let change = change.unwrap();
    let dots = comity_engine::register(&view(&world, 0), &space, "profile", "name").unwrap().dots();
    world.write(0, space, |tx| tx.register_write("profile", "name", "Bob".into())).unwrap();
    world.write(0, space, |tx| tx.register_clear("profile", "name")).unwrap();

    let events = after(&view(&world, 1), space, &before);
    let [first, second, third] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!((first.author, first.space, &first.region), (world.replica(0), space, &None));
    assert_eq!((first.lane, first.origin), (world.own_lane(0, space), world.own_lane(0, space)));
    assert_eq!((first.lsn + 1, first.seq + 1), (second.lsn, second.seq));
    assert!(first.hlc < second.hlc && second.hlc < third.hlc);
    let did = |kind, collection: &str, key: &str| {
        let address = ObjectAddress::new(kind, collection, key).unwrap();
        first.changes.iter().find(|change| change.object == address).unwrap().did.clone()
    };
    assert_eq!(first.changes.len(), 4);
    assert_eq!(did(Kind::Counter, "stats", "likes"), [Did::Added(2)]);
    assert_eq!(did(Kind::Set, "tags", "post"), [Did::Inserted("a".into()), Did::Removed("a".into())]);
    let written = Did::Written { value: "Ada".into(), hlc: first.hlc, replaced: vec![] };
    assert_eq!(did(Kind::Register, "profile", "name"), [written]);
    assert_eq!(did(Kind::Document, "notes", "today"), [Did::Edited { change, ops: 2 }]);
    assert!(matches!(dots[..], [dot] if (dot.origin, dot.seq, dot.index) == (first.origin, first.seq, 0)));
    let replaced = Did::Written { value: "Bob".into(), hlc: second.hlc, replaced: dots };
    assert_eq!(second.changes[0].did, [replaced]);
    assert!(matches!(&third.changes[0].did[..], [Did::Cleared { removed }] if removed.len() == 1));
    assert_eq!(third.token().frontier, durable(&world, 1, space));

    let joined = after(&view(&world, 1), space, &Frontier::new());
    let granted = Did::MemberGranted { replica: world.replica(1), role: Role::Writer };
    assert_eq!((joined[0].author, &joined[0].changes[0].did[..]), (world.replica(0), &[granted][..]));
}

#[test]
fn changes_are_those_that_were_announced_in_their_order() {
    let (mut world, space) = World::mesh(3);
    for node in 0..3 {
        world.nodes[node].notices.clear();
    }
    let before: Vec<Frontier> = (0..3).map(|node| durable(&world, node, space)).collect();
    for round in 0..40 {
        world.add_unsent(round * 7 % 3, space, 1);
        for _ in 0..round % 5 {
            world.step();
        }
    }
    world.run();
    for (node, before) in before.iter().enumerate() {
        let announced = world.nodes[node].notices.iter().filter_map(|notice| match notice {
            Notice::Applied(applied) => Some(applied.clone()),
            _ => None,
        });
        let told = after(&view(&world, node), space, before);
        assert_eq!(told.len(), 40);
        for (announced, told) in announced.zip(&told) {
            let objects: Vec<_> = told.changes.iter().map(|change| change.object.clone()).collect();
            assert_eq!((announced.author, announced.hlc), (told.author, told.hlc));
            assert_eq!((announced.objects, &announced.frontier), (objects, &told.frontier));
        }
    }
}

#[test]
fn pages_hold_what_they_may_and_leave_nothing_out() {
    let (mut world, space) = World::mesh(1);
    for number in 0..50_i64 {
        let text = "x".repeat(if number == 20 { 50_000 } else { 1_000 });
        world.write(0, space, |tx| tx.register_write("test", "text", Value::from(text))).unwrap();
    }
    let state = view(&world, 0);
    let whole = after(&state, space, &Frontier::new());
    assert_eq!(whole.len(), 50);
    for limit in [(1, usize::MAX), (7, usize::MAX), (usize::MAX, 10_000), (usize::MAX, 0), (49, 20_000)] {
        let limit = PageLimit { entries: limit.0, bytes: limit.1 };
        let mut cursor = ChangeCursor::after(space, Frontier::new());
        let (mut events, mut left) = (Vec::new(), 50);
        while left > 0 {
            let page = cursor.read(&state, limit).unwrap();
            let large = page.events.iter().filter(|event| event.seq == 21).count();
            let bytes = page.events.len() * 1_000 + large * 49_000;
            assert!((1..=limit.entries).contains(&page.events.len()));
            assert!(page.events.len() == 1 || bytes - large * 50_000 <= limit.bytes, "{bytes}");
            left -= page.events.len() as u64;
            assert_eq!(page.ahead, left);
            events.extend(page.events);
        }
        assert_eq!(events, whole);
        assert_eq!(cursor.read(&state, limit).unwrap().events, []);
    }
    let none = PageLimit { entries: 0, bytes: 0 };
    assert_eq!(ChangeCursor::after(space, Frontier::new()).read(&state, none).unwrap().events.len(), 1);
}

#[test]
fn every_token_taken_here_resumes_at_the_next_change() {
    let (mut world, space) = pair();
    for _ in 0..5 {
        part(&mut world, space, [40, 50]);
        meet(&mut world);
    }
    for node in 0..2 {
        let state = view(&world, node);
        let all = after(&state, space, &Frontier::new());
        for (index, event) in all.iter().enumerate().step_by(13) {
            let told = after(&state, space, &event.frontier);
            assert_eq!(told, all[index + 1..], "after change {index}");
        }
    }
}

#[test]
fn a_token_of_another_replica_gets_what_it_lacks_in_the_order_applied_here() {
    let (mut world, space) = pair();
    part(&mut world, space, [5, 3]);
    let foreign = durable(&world, 1, space);
    meet(&mut world);
    part(&mut world, space, [2, 4]);
    meet(&mut world);
    let missing = durable(&world, 0, space).distance_from(&foreign);
    assert_eq!(missing, 5 + 2 + 4);
    check(&world, 0, space, &foreign);
    let state = view(&world, 0);
    let mut cursor = ChangeCursor::after(space, foreign);
    let page = cursor.read(&state, PageLimit { entries: 1, bytes: usize::MAX }).unwrap();
    assert_eq!((page.events.len() as u64, page.ahead), (1, missing - 1), "the seen ones are not counted");
}

#[test]
fn what_a_token_names_beyond_what_is_here_is_left_out_when_it_comes() {
    let (mut world, space) = pair();
    part(&mut world, space, [1, 3]);
    let future = durable(&world, 1, space);
    let mut cursor = ChangeCursor::after(space, future.clone());
    let own = rest(&view(&world, 0), &mut cursor, PageLimit::default());
    assert_eq!(own.len(), 1, "what node 0 wrote alone");
    world.add(1, space, 1);
    meet(&mut world);
    let told = rest(&view(&world, 0), &mut cursor, PageLimit::default());
    assert_eq!(places(&told), [(world.own_lane(1, space), future.at(&world.own_lane(1, space)) + 1)]);
    assert_eq!(cursor.seen(), &durable(&world, 0, space));
    check(&world, 0, space, &future);
}

#[test]
fn a_cursor_goes_on_over_crashes_and_shows_nothing_that_could_be_lost() {
    let (mut world, space) = pair();
    let mut cursor = ChangeCursor::after_state(&view(&world, 0), space).unwrap();
    world.nodes[0].manual_sync = true;
    world.add(0, space, 1);
    assert_eq!(rest(&view(&world, 0), &mut cursor, PageLimit::default()), []);
    world.sync(0);
    let told = rest(&view(&world, 0), &mut cursor, PageLimit::default());
    assert_eq!(told.len(), 1);
    world.add(0, space, 1);
    world.crash(0);
    world.nodes[0].manual_sync = false;
    meet(&mut world);
    world.add(1, space, 1);
    world.add(0, space, 1);
    let resumed = after(&view(&world, 0), space, &told[0].frontier);
    assert_eq!(resumed, rest(&view(&world, 0), &mut cursor, PageLimit::default()));
    assert_eq!(
        resumed.iter().map(|event| event.author).collect::<Vec<_>>(),
        [world.replica(1), world.replica(0)]
    );
}

#[test]
fn a_reader_of_a_disk_that_was_put_back_is_told_nothing_twice() {
    let (mut world, space) = pair();
    let backup = world.backup(0);
    world.add(0, space, 1);
    world.add(1, space, 1);
    let seen = durable(&world, 0, space);
    world.restore(0, backup, [2; 32]);
    let mut cursor = ChangeCursor::after(space, seen.clone());
    assert_eq!(rest(&view(&world, 0), &mut cursor, PageLimit::default()), []);
    meet(&mut world);
    world.add(0, space, 1);
    let told = rest(&view(&world, 0), &mut cursor, PageLimit::default());
    assert_eq!(told.iter().map(|event| event.lane).collect::<Vec<_>>(), [world.own_lane(0, space)]);
    check(&world, 0, space, &seen);
}

#[test]
fn looking_far_back_is_done_in_short_calls() {
    let (mut world, space) = pair();
    part(&mut world, space, [0, 2]);
    let other = world.own_lane(1, space);
    let before = durable(&world, 1, space).at(&other) - 2;
    meet(&mut world);
    world.disconnect_all(None);
    (0..9_000).for_each(|_| world.add_unsent(0, space, 1));
    world.run();
    let state = view(&world, 0);
    let seen: Frontier = durable(&world, 0, space)
        .iter()
        .map(|(lane, lsn)| (lane, if lane == other { before } else { lsn }))
        .collect();
    let mut cursor = ChangeCursor::after(space, seen);
    let mut events = Vec::new();
    let mut calls = 0;
    loop {
        let page = cursor.read(&state, PageLimit::default()).unwrap();
        calls += 1;
        events.extend(page.events);
        assert_eq!(page.ahead, 2 - events.len() as u64);
        if page.ahead == 0 {
            break;
        }
    }
    assert_eq!(places(&events), [(other, before + 1), (other, before + 2)]);
    assert_eq!(calls, 3, "4,096 rows each");

    // An author's own token is found at once, however far back.
    let all = after(&state, space, &Frontier::new());
    let mut cursor = ChangeCursor::after(space, all[100].frontier.clone());
    let page = cursor.read(&Rows::of(&state, 400), PageLimit::default()).unwrap();
    assert_eq!(page.events, all[101..229]);
    assert_eq!(page.ahead as usize, all.len() - 229);
}

/// A state that may be read only so far.
struct Rows<'a> {
    below: &'a MemorySnapshot,
    left: std::cell::Cell<usize>,
}

impl<'a> Rows<'a> {
    fn of(below: &'a MemorySnapshot, rows: usize) -> Self {
        Self { below, left: std::cell::Cell::new(rows) }
    }

    fn count(&self, rows: usize) {
        self.left.set(self.left.get().checked_sub(rows).expect("no more rows are needed"));
    }
}

impl StateRead for Rows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.count(1);
        self.below.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.below.scan(from, until, limit)?;
        self.count(rows.len());
        Ok(rows)
    }
}

impl LogRead for Rows<'_> {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.below.lane_entry(space, lane, lsn)
    }
}

/// A state that keeps an entry no more, and its row in the order of applying neither where `row` is so.
struct Without<'a> {
    below: &'a MemorySnapshot,
    lane: LaneId,
    lsn: u64,
    row: bool,
}

impl StateRead for Without<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.below.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let place = [self.lane.0.as_slice(), &self.lsn.to_be_bytes()].concat();
        let mut rows = self.below.scan(from, until, limit)?;
        rows.retain(|(_, value)| !self.row || *value != place);
        Ok(rows)
    }
}

impl LogRead for Without<'_> {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let is_gone = (*lane, lsn) == (self.lane, self.lsn);
        if is_gone { Ok(None) } else { self.below.lane_entry(space, lane, lsn) }
    }
}

#[test]
fn what_is_not_kept_any_more_is_said_to_be_gone_until_it_is_skipped() {
    let (mut world, space) = pair();
    part(&mut world, space, [6, 6]);
    meet(&mut world);
    let state = view(&world, 0);
    let all = after(&state, space, &Frontier::new());
    let last = all.last().unwrap();
    for (index, lost) in all.iter().enumerate() {
        for row in [false, true] {
            let state = Without { below: &state, lane: lost.lane, lsn: lost.lsn, row };
            let gone = Err(ChangesError::Gone { place: index as u64 + 1 });
            let mut cursor = ChangeCursor::after(space, Frontier::new());
            let mut next = || cursor.read(&state, PageLimit::default());
            if index > 0 {
                let page = next().unwrap();
                assert_eq!((&page.events[..], page.ahead), (&all[..index], (all.len() - index) as u64));
            }
            assert_eq!((next(), next()), (gone.clone(), gone.clone()));
            // On the way back to what was not seen, only the order of applying is needed.
            let seen: Frontier = [(all[0].lane, all[0].lsn), (last.lane, last.lsn)].into_iter().collect();
            let told = ChangeCursor::after(space, seen.clone()).read(&state, PageLimit::default());
            let first = all.iter().position(|event| seen.at(&event.lane) < event.lsn).unwrap();
            if row && index > first {
                assert_eq!(told, gone);
            } else if seen.at(&lost.lane) < lost.lsn {
                assert!(if index == first { told == gone } else { told.unwrap().ahead > 0 });
            } else {
                assert_eq!(told.unwrap().ahead, 0);
            }
            cursor.skip_to(&lost.frontier);
            assert_eq!(rest(&state, &mut cursor, PageLimit::default()), all[index + 1..]);
        }
    }
}

#[test]
fn a_scope_shows_its_objects_and_passes_over_the_rest() {
    let (mut world, space) = World::mesh(2);
    let write = |world: &mut World, collection: &'static str, key: &'static str| {
        let body = |tx: &mut comity_engine::Tx<'_>| {
            tx.counter_add(collection, key, 1)?;
            tx.set_add(collection, key, 1.into())
        };
        world.write(0, space, body).unwrap();
    };
    write(&mut world, "a", "x");
    write(&mut world, "b", "x");
    write(&mut world, "a", "y");
    write(&mut world, "comity", "members");
    let both = |tx: &mut comity_engine::Tx<'_>| {
        tx.counter_add("a", "x", 5)?;
        tx.counter_add("b", "x", 5)
    };
    world.write(1, space, both).unwrap();
    write(&mut world, "b", "y");
    let shown = |scope: Scope| {
        let mut cursor = ChangeCursor::after(space, Frontier::new()).within(scope);
        let events = rest(&view(&world, 0), &mut cursor, PageLimit::default());
        assert_eq!(cursor.seen(), &durable(&world, 0, space), "what is passed over is seen");
        let objects = |event: &ChangeEvent| {
            event.changes.iter().map(|change| change.object.to_string()).collect::<Vec<_>>().join(" ")
        };
        events.iter().map(objects).collect::<Vec<_>>()
    };
    let collection = |name: &str| Scope::Collection(name.to_owned());
    assert_eq!(shown(collection("a")), ["counter a/x set a/x", "counter a/y set a/y", "counter a/x"]);
    assert_eq!(shown(collection("comity")), ["counter comity/members set comity/members"]);
    let object = |kind| Scope::Object(ObjectAddress::new(kind, "a", "x").unwrap());
    assert_eq!(shown(object(Kind::Counter)), ["counter a/x", "counter a/x"]);
    assert_eq!(shown(object(Kind::Set)), ["set a/x"]);
    assert_eq!(shown(object(Kind::Document)), [""; 0]);
    assert_eq!(shown(Scope::Object(ObjectAddress::members())).len(), 1);
    assert_eq!(shown(Scope::Space).len(), 7);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Write(usize),
    Step(usize),
    Sync(usize),
    Part,
    Meet(usize, usize),
    Crash(usize),
    Look(usize),
    Read(usize, usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let node = 0..3_usize;
    let event = prop_oneof![
        8 => node.clone().prop_map(Event::Write),
        8 => (1..8_usize).prop_map(Event::Step),
        4 => node.clone().prop_map(Event::Sync),
        1 => Just(Event::Part),
        4 => (node.clone(), node.clone()).prop_map(|(a, b)| Event::Meet(a, b)),
        1 => node.clone().prop_map(Event::Crash),
        3 => node.clone().prop_map(Event::Look),
        4 => (node, 1..9_usize).prop_map(|(node, entries)| Event::Read(node, entries)),
    ];
    prop::collection::vec(event, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_readers_are_told_everything_once_and_in_order(events in events()) {
        let (mut world, space) = World::mesh(3);
        let start: Vec<Frontier> = (0..3).map(|node| durable(&world, node, space)).collect();
        let mut cursors: Vec<_> =
            (0..3).map(|node| ChangeCursor::after_state(&view(&world, node), space).unwrap()).collect();
        let mut told: [Vec<ChangeEvent>; 3] = Default::default();
        let mut tokens = start.clone();
        for node in 0..3 {
            world.nodes[node].manual_sync = true;
        }
        for event in events {
            match event {
                Event::Write(node) => {
                    let write = |tx: &mut comity_engine::Tx<'_>| tx.counter_add("stats", "likes", 1);
                    world.write_with::<_, TxError>(node, space, Durability::Local, write).0.unwrap();
                }
                Event::Step(count) => (0..count).for_each(|_| _ = world.step()),
                Event::Sync(node) => world.sync(node),
                Event::Part => world.disconnect_all(None),
                Event::Meet(a, b) if a != b => _ = world.connect(a, b),
                Event::Meet(..) => {}
                Event::Crash(node) => world.crash(node),
                Event::Look(node) => tokens.push(durable(&world, node, space)),
                Event::Read(node, entries) => {
                    let limit = PageLimit { entries, bytes: usize::MAX };
                    told[node].extend(cursors[node].read(&view(&world, node), limit).unwrap().events);
                }
            }
        }
        for node in 0..3 {
            world.nodes[node].manual_sync = false;
            world.input(node, Input::DeadlineReached);
            world.sync(node);
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            world.connect(a, b);
        }
        world.pass(Duration::from_secs(3));
        world.assert_converged(space);
        for node in 0..3 {
            let state = view(&world, node);
            told[node].extend(rest(&state, &mut cursors[node], PageLimit::default()));
            prop_assert_eq!(&told[node], &after(&state, space, &start[node]));
            // Tokens of one replica, and what a client has seen of two.
            let mut both = start[node].clone();
            for token in &tokens {
                check(&world, node, space, token);
                both.merge(token);
                check(&world, node, space, &both);
            }
        }
    }
}

//! The journal, the conflict inbox, policies and regions: whatever is set aside can be read again, with who, when and
//! why, until limits say otherwise; how registers are read never changes what is stored.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{ROOT, ReadDoc};
use comity_crdts::{
    ConflictPolicy, CustomPolicy, Dot, Hlc, Kind, ObjectAddress, Policy, PolicyRegistry, RegisterView,
    Sibling, SpaceId, Value,
};
use comity_engine::{
    Conflict, JournalEntry, JournalLimits, JournalReason, JournalTotals, Location, Matter, TransactError, Tx,
    TxError,
};
use world::World;
use world::spec::{top, within};

fn register(key: &str) -> Location {
    ObjectAddress::new(Kind::Register, "r", key).unwrap().into()
}

/// Every node writes its number to a place without having heard of the others.
fn collide(world: &mut World, space: SpaceId, at: &Location) {
    world.disconnect_all(None);
    for node in 0..world.nodes.len() {
        world.write(node, space, |tx| tx.register_write_at(at, Value::I64(node as i64))).unwrap();
    }
    world.connect_all();
}

fn journal(world: &World, node: usize, space: SpaceId) -> Vec<JournalEntry> {
    let view = world.nodes[node].disk.view();
    let entries = comity_engine::journal(&view, &space, usize::MAX).unwrap();
    let totals = totals(world, node, space);
    assert_eq!(totals.entries, entries.len() as u64, "totals count what is there");
    for entry in &entries {
        let of_object = comity_engine::journal_of(&view, &space, &entry.location.object, usize::MAX).unwrap();
        assert!(of_object.contains(entry), "every entry is found by its object");
    }
    entries
}

fn totals(world: &World, node: usize, space: SpaceId) -> JournalTotals {
    comity_engine::journal_totals(&world.nodes[node].disk.view(), &space).unwrap()
}

fn siblings(world: &World, node: usize, space: SpaceId, at: &Location) -> Vec<(Dot, Sibling)> {
    let register = comity_engine::register_at(&world.nodes[node].disk.view(), &space, at).unwrap();
    register.siblings().map(|(dot, sibling)| (*dot, sibling.clone())).collect()
}

fn conflicts(world: &World, space: SpaceId) -> Vec<Conflict> {
    let view = world.nodes[0].disk.view();
    comity_engine::conflicts(&view, &space, &PolicyRegistry::new(), None, usize::MAX).unwrap()
}

fn set_policy(world: &mut World, space: SpaceId, policy: &Policy) {
    world.write(0, space, |tx| tx.set_policy("r", policy)).unwrap();
}

#[test]
fn what_one_of_several_was_replaced_is_journalled_with_who_when_and_by_whom() {
    let (mut world, space) = World::mesh(3);
    for node in 0..3 {
        world.nodes[node].wall_ms += 1_000 * node as u64;
    }
    let at = register("k");
    collide(&mut world, space, &at);
    let before = siblings(&world, 0, space, &at);
    assert_eq!(before.len(), 3);
    let stamp = world
        .write(1, space, |tx| {
            tx.register_write_at(&at, Value::from("decided"))?;
            Ok(tx.hlc())
        })
        .unwrap();
    for node in 0..3 {
        let entries = journal(&world, node, space);
        assert_eq!(entries.len(), 3);
        for (dot, sibling) in &before {
            let entry = entries.iter().find(|entry| entry.dot == *dot).unwrap();
            let Value::I64(author) = sibling.value else { panic!("{sibling:?}") };
            assert_eq!((&entry.location, &entry.value), (&at, &sibling.value));
            assert_eq!((entry.author, entry.written), (Some(world.replica(author as usize)), sibling.hlc));
            assert_eq!(entry.reason, JournalReason::SiblingReplaced);
            assert_eq!((entry.by_author, entry.at), (Some(world.replica(1)), stamp));
            assert_eq!(entry.by, siblings(&world, node, space, &at)[0].0);
        }
    }
}

#[test]
fn what_was_alone_is_not_journalled_when_it_is_replaced_or_removed() {
    let (mut world, space) = World::mesh(2);
    for number in 0..3 {
        world.write(number % 2, space, |tx| tx.register_write_at(&register("k"), Value::Null)).unwrap();
    }
    world.write(0, space, |tx| tx.register_clear_at(&register("k"))).unwrap();
    assert!(journal(&world, 1, space).is_empty());
    assert_eq!(totals(&world, 1, space), JournalTotals::default());
}

#[test]
fn a_resolution_journals_what_it_names_and_leaves_the_rest() {
    let (mut world, space) = World::mesh(3);
    let at = register("k");
    collide(&mut world, space, &at);
    let before = siblings(&world, 0, space, &at);
    let seen: Vec<Dot> = before[..2].iter().map(|(dot, _)| *dot).collect();
    world.write(2, space, |tx| tx.register_resolve_at(&at, Value::from("two of them"), &seen)).unwrap();
    let mut journalled: Vec<Dot> = journal(&world, 0, space).iter().map(|entry| entry.dot).collect();
    journalled.sort_unstable();
    assert_eq!(journalled, seen);
    let after = siblings(&world, 0, space, &at);
    assert_eq!(after.len(), 2);
    assert!(after.contains(&before[2]));
    // A resolution that names what is not there any more replaces nothing.
    world.write(1, space, |tx| tx.register_resolve_at(&at, Value::from("late"), &seen)).unwrap();
    assert_eq!(siblings(&world, 0, space, &at).len(), 3);
    assert_eq!(journal(&world, 0, space).len(), 2);
}

#[test]
fn what_is_removed_with_its_map_is_journalled_with_its_path() {
    let (mut world, space) = World::mesh(2);
    for at in [within(&["a", "b"]), within(&["c"]), register("k")] {
        collide(&mut world, space, &at);
    }
    world
        .write(1, space, |tx| {
            tx.remove_at(&top(Kind::Map))?;
            tx.remove_at(&register("k"))
        })
        .unwrap();
    let entries = journal(&world, 0, space);
    assert_eq!(entries.len(), 6);
    for (at, count) in [(within(&["a", "b"]), 2), (within(&["c"]), 2), (register("k"), 2)] {
        assert_eq!(entries.iter().filter(|entry| entry.location == at).count(), count, "{at}");
    }
    assert!(entries.iter().all(|entry| entry.reason == JournalReason::SiblingRemoved));
    let view = world.nodes[0].disk.view();
    let of_map = comity_engine::journal_of(&view, &space, &top(Kind::Map).object, 3).unwrap();
    assert_eq!(of_map.len(), 3);
    assert!(conflicts(&world, space).is_empty());
}

fn edit(world: &mut World, node: usize, space: SpaceId, key: &str) {
    world
        .write(node, space, |tx| {
            tx.document_edit::<_, TxError>("spec", "k", |doc| {
                doc.put(ROOT, key, 1_i64).unwrap();
                Ok(())
            })
        })
        .unwrap();
}

#[test]
fn every_change_to_a_document_that_was_removed_meanwhile_is_journalled_with_its_author() {
    let (mut world, space) = World::mesh(3);
    world.nodes[1].wall_ms += 60_000;
    edit(&mut world, 0, space, "before");
    world.disconnect_all(None);
    for key in ["one", "two", "three"] {
        edit(&mut world, 1, space, key);
    }
    edit(&mut world, 2, space, "four");
    world.write(0, space, |tx| tx.remove_at(&top(Kind::Document))).unwrap();
    world.connect_all();
    world.assert_converged(space);
    for node in 0..3 {
        let entries = journal(&world, node, space);
        assert_eq!(entries.len(), 4, "node {node}: {entries:?}");
        let by = |author: usize| {
            entries.iter().filter(|entry| entry.author == Some(world.replica(author))).collect::<Vec<_>>()
        };
        assert_eq!((by(1).len(), by(2).len()), (3, 1), "node {node}");
        for entry in &entries {
            assert_eq!(entry.reason, JournalReason::DocumentRemoved);
            assert_eq!(entry.by_author, Some(world.replica(0)), "node {node}: who removed it");
            assert!(matches!(entry.value, Value::Bytes(_)));
        }
        let written = |author: usize| by(author)[0].written.millis();
        assert!(written(1) >= written(2) + 59_000, "node {node}: when they were written");
    }
    // It can be made again, and nothing of before is there.
    edit(&mut world, 2, space, "after");
    world.assert_converged(space);
    let view = world.nodes[1].disk.view();
    let document = comity_engine::document(&view, &space, "spec", "k").unwrap();
    assert_eq!(document.automerge().keys(ROOT).collect::<Vec<_>>(), ["after"]);
}

#[test]
fn what_the_journal_holds_can_be_written_again() {
    let (mut world, space) = World::mesh(2);
    let nested = within(&["a", "b"]);
    collide(&mut world, space, &nested);
    world.write(0, space, |tx| tx.register_write_at(&nested, Value::from("decided"))).unwrap();
    let entries = journal(&world, 1, space);
    let entry = entries.iter().find(|entry| entry.value == Value::I64(0)).unwrap();
    world.write(1, space, |tx| tx.restore(entry)).unwrap();
    let shown = siblings(&world, 0, space, &nested);
    assert_eq!(shown.iter().map(|(_, s)| s.value.clone()).collect::<Vec<_>>(), [Value::I64(0)]);
    edit(&mut world, 0, space, "before");
    world.disconnect_all(None);
    edit(&mut world, 1, space, "lost");
    world.write(0, space, |tx| tx.remove_at(&top(Kind::Document))).unwrap();
    world.connect_all();
    let entries = journal(&world, 0, space);
    let change = entries.iter().find(|entry| entry.reason == JournalReason::DocumentRemoved).unwrap();
    world.write(0, space, |tx| tx.restore(change)).unwrap();
    for node in 0..2 {
        let document = comity_engine::document(&world.nodes[node].disk.view(), &space, "spec", "k").unwrap();
        assert_eq!(document.automerge().keys(ROOT).collect::<Vec<_>>(), ["before", "lost"], "node {node}");
    }
    let refused =
        JournalEntry { reason: JournalReason::ChangeRefused { detail: String::new() }, ..change.clone() };
    let refused = world.write(0, space, |tx| tx.restore(&refused));
    assert!(matches!(&refused, Err(TransactError::Refused(TxError::NotRestorable { object, .. }))
        if *object == change.location));
}

#[test]
fn entries_beyond_their_age_are_forgotten_when_the_next_comes_and_at_the_start() {
    let (mut world, space) = World::mesh(2);
    let limits = JournalLimits { age_ms_max: 10_000, ..JournalLimits::USUAL };
    for node in 0..2 {
        world.nodes[node].journal = limits;
        world.crash(node);
    }
    let decide = |world: &mut World, key: &str| {
        collide(world, space, &register(key));
        world.write(0, space, |tx| tx.register_write_at(&register(key), Value::Null)).unwrap();
        world.pass(Duration::from_secs(1));
    };
    let wait = |world: &mut World, ms: u64| world.nodes.iter_mut().for_each(|node| node.wall_ms += ms);
    decide(&mut world, "first");
    wait(&mut world, 9_000);
    decide(&mut world, "second");
    assert_eq!(journal(&world, 0, space).len(), 4);
    wait(&mut world, 9_000);
    decide(&mut world, "third");
    let keys = |world: &World, node: usize| {
        let entries = journal(world, node, space);
        entries.iter().map(|entry| entry.location.object.key().to_owned()).collect::<Vec<_>>()
    };
    for node in 0..2 {
        assert_eq!(keys(&world, node), ["second", "second", "third", "third"], "node {node}");
        assert_eq!(totals(&world, node, space).pruned, 2);
    }
    wait(&mut world, 9_000);
    world.crash(0);
    world.pass(Duration::from_secs(1));
    assert_eq!(keys(&world, 0), ["third", "third"]);
    assert_eq!(totals(&world, 0, space).pruned, 4);
    wait(&mut world, 9_000);
    world.crash(0);
    world.pass(Duration::from_secs(1));
    assert_eq!(totals(&world, 0, space), JournalTotals { entries: 0, bytes: 0, pruned: 6 });
}

#[test]
fn the_oldest_entries_make_room_for_new_ones() {
    let (mut world, space) = World::mesh(2);
    let limits = JournalLimits { bytes_max: 100_000, ..JournalLimits::USUAL };
    world.nodes[0].journal = limits;
    world.crash(0);
    let big = |number: usize| Value::Bytes(vec![number as u8; 1_000]);
    for number in 0..100_usize {
        let at = register(&format!("{number:03}"));
        world.disconnect_all(None);
        for node in 0..2 {
            world.write(node, space, |tx| tx.register_write_at(&at, big(number))).unwrap();
        }
        world.connect_all();
        world.write(1, space, |tx| tx.register_write_at(&at, Value::Null)).unwrap();
        let held = totals(&world, 0, space);
        assert!(held.bytes <= limits.bytes_max, "{held:?}");
        assert_eq!(held.entries + held.pruned, 2 * (number as u64 + 1));
    }
    let entries = journal(&world, 0, space);
    assert!(entries.len() > 60 && entries.len() < 100, "{}", entries.len());
    assert_eq!(entries.last().unwrap().value, big(99), "the newest stay");
    assert_eq!(journal(&world, 1, space).len(), 200, "each replica has limits of its own");
}

#[test]
fn past_conflicts_can_be_read_under_another_policy() {
    let (mut world, space) = World::mesh(3);
    for key in ["a", "b"] {
        collide(&mut world, space, &register(key));
        world.write(0, space, |tx| tx.register_write_at(&register(key), Value::from("decided"))).unwrap();
    }
    let digest = world.status(0, space).digest;
    let view = world.nodes[0].disk.view();
    let replay = |policy: &Policy, limit: usize| {
        comity_engine::replay(&view, &space, (policy, &PolicyRegistry::new()), limit).unwrap()
    };
    for (policy, chosen) in [(Policy::Min, 0), (Policy::Max, 2)] {
        let replayed = replay(&policy, usize::MAX);
        assert_eq!(replayed.len(), 2);
        for (decision, key) in replayed.iter().zip(["a", "b"]) {
            assert_eq!((&decision.location, decision.siblings.len()), (&register(key), 3));
            assert_eq!(decision.chosen, RegisterView::Value(Value::I64(chosen)));
        }
    }
    let RegisterView::Siblings(shown) = &replay(&Policy::Siblings, 6)[0].chosen else { panic!() };
    assert_eq!(shown.len(), 3);
    for limit in 1..=6 {
        for decision in replay(&Policy::Max, limit) {
            assert_eq!(decision.chosen, RegisterView::Value(Value::I64(2)), "of {limit} entries");
        }
    }
    assert!(replay(&Policy::Max, 0).is_empty());
    assert_eq!(world.status(0, space).digest, digest);
}

#[test]
fn conflicts_come_in_pages_and_only_where_the_policy_shows_siblings() {
    let (mut world, space) = World::mesh(2);
    let places: Vec<Location> = (0..5).map(|n| register(&format!("k{n}"))).collect();
    for at in &places {
        collide(&mut world, space, at);
    }
    assert!(conflicts(&world, space).is_empty(), "the last writer wins where nothing is said");
    set_policy(&mut world, space, &Policy::Siblings);
    let all = conflicts(&world, space);
    assert_eq!(all.iter().map(|conflict| conflict.location.clone()).collect::<Vec<_>>(), places);
    let view = world.nodes[0].disk.view();
    let registry = PolicyRegistry::new();
    for limit in 1..7 {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = comity_engine::conflicts(&view, &space, &registry, after.as_ref(), limit).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.location.clone());
            found.extend(page);
        }
        assert_eq!(found, all, "pages of {limit}");
    }
    let Matter::Siblings { policy, siblings } = &all[0].matter else { panic!("{all:?}") };
    assert_eq!((policy, siblings.len()), (&Policy::Siblings, 2));
    let authors: Vec<_> = siblings.iter().map(|report| report.author).collect();
    assert!(authors.contains(&Some(world.replica(0))) && authors.contains(&Some(world.replica(1))));
    let seen = all[0].seen();
    world.write(1, space, |tx| tx.register_resolve_at(&places[0], Value::Null, &seen)).unwrap();
    assert_eq!(conflicts(&world, space), all[1..]);
    let one = comity_engine::conflict_at(&world.nodes[0].disk.view(), &space, &registry, &places[0]).unwrap();
    assert_eq!(one, None);
}

#[test]
fn a_place_with_two_conflicts_is_named_once() {
    let (mut world, space) = World::mesh(2);
    world.write(0, space, |tx| tx.set_policy("spec", &Policy::Siblings)).unwrap();
    let at = within(&["a"]);
    collide(&mut world, space, &at);
    world.write(0, space, |tx| tx.counter_add_at(&at, 1)).unwrap();
    let found = conflicts(&world, space);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        matches!(&found[0].matter, Matter::Kinds { kinds, .. } if *kinds == [Kind::Counter, Kind::Register])
    );
    world.write(0, space, |tx| tx.counter_add_at(&within(&["b"]), 1)).unwrap();
    world.write(1, space, |tx| tx.flag_enable_at(&within(&["b"]))).unwrap();
    assert_eq!(conflicts(&world, space).len(), 2);
}

#[test]
fn policies_set_at_the_same_time_converge_and_change_nothing_that_is_stored() {
    let (mut world, space) = World::mesh(2);
    let at = register("k");
    collide(&mut world, space, &at);
    let before = siblings(&world, 0, space, &at);
    for (round, policies) in
        [[Policy::Min, Policy::Siblings], [Policy::Union, Policy::Max]].iter().enumerate()
    {
        world.disconnect_all(None);
        for (node, policy) in policies.iter().enumerate() {
            world.nodes[node].wall_ms += 1_000 * (round as u64 * 2 + node as u64);
            world.write(node, space, |tx| tx.set_policy("r", policy)).unwrap();
        }
        world.connect_all();
        world.assert_converged(space);
        for node in 0..2 {
            let view = world.nodes[node].disk.view();
            assert_eq!(comity_engine::policy_of(&view, &space, "r").unwrap(), policies[1], "node {node}");
            assert_eq!(comity_engine::policy_of(&view, &space, "other").unwrap(), Policy::Lww);
            assert_eq!(siblings(&world, node, space, &at), before);
        }
    }
    // What a policy adds to the digest does not depend on what it is about.
    let (mut empty, other) = World::mesh(2);
    assert_eq!(other, space, "the worlds differ by what is written in them");
    let share = |world: &mut World| {
        let before = world.status(0, space).digest.0;
        world.write(0, space, |tx| tx.set_policy("r", &Policy::First)).unwrap();
        world.crash(0);
        let after = world.status(0, space).digest.0;
        world.write(0, space, |tx| tx.remove_at(&policy_setting("r"))).unwrap();
        (before, after)
    };
    let (before, after) = share(&mut empty);
    assert_ne!(before, after);
    let view = empty.nodes[0].disk.view();
    assert_eq!(comity_engine::policy_of(&view, &space, "r").unwrap(), Policy::Lww);
    assert_eq!(empty.status(0, space).digest.0, before);
}

fn policy_setting(collection: &str) -> Location {
    ObjectAddress::new(Kind::Settings, "policy", collection).unwrap().into()
}

/// Prefers the longest text.
struct Longest;

impl ConflictPolicy for Longest {
    fn name(&self) -> &str {
        "longest"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&self, siblings: &[(Dot, Sibling)]) -> Option<Value> {
        let length = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
        siblings.iter().map(|(_, sibling)| &sibling.value).max_by_key(|value| length(value)).cloned()
    }
}

#[test]
fn what_names_no_known_policy_shows_siblings() {
    let (mut world, space) = World::mesh(2);
    collide(&mut world, space, &register("k"));
    let custom = CustomPolicy::new("longest", 1).unwrap();
    set_policy(&mut world, space, &Policy::Custom(custom.clone()));
    assert_eq!(conflicts(&world, space).len(), 1);
    let mut registry = PolicyRegistry::new();
    registry.register(Arc::new(Longest)).unwrap();
    let view = world.nodes[0].disk.view();
    assert!(comity_engine::conflicts(&view, &space, &registry, None, 10).unwrap().is_empty());
    let newer = Policy::Custom(CustomPolicy::new("longest", 2).unwrap());
    set_policy(&mut world, space, &newer);
    let view = world.nodes[0].disk.view();
    assert_eq!(comity_engine::conflicts(&view, &space, &registry, None, 10).unwrap().len(), 1);
    for nonsense in [Value::from("no such policy"), Value::I64(1), Value::Null, Value::from("")] {
        world.write(1, space, |tx| tx.register_write_at(&policy_setting("r"), nonsense.clone())).unwrap();
        let view = world.nodes[0].disk.view();
        assert_eq!(comity_engine::policy_of(&view, &space, "r").unwrap(), Policy::Siblings);
        assert_eq!(conflicts(&world, space).len(), 1);
    }
}

#[test]
fn siblings_are_reported_with_the_region_that_their_author_said_it_is_in() {
    let (mut world, space) = World::mesh(2);
    for (node, region) in [(0, "eu"), (1, "us")] {
        world.nodes[node].region = Some(region.to_owned());
        world.crash(node);
    }
    world.connect_all();
    set_policy(&mut world, space, &Policy::Siblings);
    collide(&mut world, space, &register("k"));
    let region = |world: &World, of: usize| {
        comity_engine::region_of(&world.nodes[0].disk.view(), &space, &world.replica(of)).unwrap()
    };
    assert_eq!((region(&world, 0).as_deref(), region(&world, 1).as_deref()), (Some("eu"), Some("us")));
    let Matter::Siblings { siblings, .. } = &conflicts(&world, space)[0].matter else { panic!() };
    for report in siblings {
        let expected = if report.author == Some(world.replica(0)) { "eu" } else { "us" };
        assert_eq!(report.region.as_deref(), Some(expected));
    }
    // Nobody says it for somebody else, and it is said again only when it is another.
    let name: String = world.replica(0).0.iter().map(|byte| format!("{byte:02x}")).collect();
    let setting: Location = ObjectAddress::new(Kind::Settings, "region", &name).unwrap().into();
    world.write(1, space, |tx| tx.register_write_at(&setting, Value::from("mars"))).unwrap();
    assert_eq!(region(&world, 0), None, "what it said was overwritten, and mars does not count");
    world.crash(0);
    world.add(0, space, 1);
    assert_eq!(region(&world, 0).as_deref(), Some("eu"));
    let before = world.status(0, space).digest;
    world.crash(0);
    world.write(0, space, |tx| tx.set_add("s", "k", Value::Null)).unwrap();
    world.write(0, space, |tx| tx.set_remove("s", "k", Value::Null)).unwrap();
    assert_eq!(world.status(0, space).digest, before);
    assert_eq!(region(&world, 0).as_deref(), Some("eu"));
}

#[test]
fn a_region_that_is_none_refuses_the_transaction_and_leaves_documents_as_they_were() {
    let (mut world, space) = World::mesh(2);
    edit(&mut world, 0, space, "before");
    world.nodes[0].region = Some("x".repeat(65));
    world.crash(0);
    let refused = world.write(0, space, |tx| {
        tx.document_edit::<_, TxError>("spec", "k", |doc| {
            doc.put(ROOT, "lost", 1_i64).unwrap();
            Ok(())
        })
    });
    assert!(matches!(refused, Err(TransactError::Tx(TxError::Region { bytes: 65, bytes_max: 64, .. }))));
    let keys =
        world.write(0, space, |tx| Ok(tx.document("spec", "k")?.automerge().keys(ROOT).collect::<Vec<_>>()));
    assert_eq!(keys.unwrap(), ["before"]);
}

#[test]
fn a_transaction_without_room_for_the_region_leaves_it_to_the_next() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    world.nodes[0].region = Some("eu".to_owned());
    world.crash(0);
    let fill = |tx: &mut Tx<'_>| {
        let count = comity_crdts::limits::CHANGE_SET_OBJECTS_MAX;
        (0..count).try_for_each(|n| tx.counter_add("c", &n.to_string(), 1))
    };
    let region = |world: &World| {
        comity_engine::region_of(&world.nodes[0].disk.view(), &space, &world.replica(0)).unwrap()
    };
    world.write(0, space, fill).unwrap();
    assert_eq!(region(&world), None);
    world.add(0, space, 1);
    assert_eq!(region(&world).as_deref(), Some("eu"));
}

#[test]
fn entries_are_in_the_order_of_their_decisions() {
    let (mut world, space) = World::mesh(2);
    let mut last = Hlc::ZERO;
    for key in ["z", "a", "m"] {
        collide(&mut world, space, &register(key));
        world.write(1, space, |tx| tx.register_clear_at(&register(key))).unwrap();
    }
    for entry in journal(&world, 0, space) {
        assert!(entry.at >= last && entry.at > entry.written);
        last = entry.at;
    }
    let view = world.nodes[0].disk.view();
    let first = comity_engine::journal(&view, &space, 1).unwrap();
    assert_eq!(first[0].location, register("z"));
}

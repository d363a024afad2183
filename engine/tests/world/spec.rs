//! What every replica must show of objects of every kind, told independently of the engine: from which operations
//! are visible, and which of them happened before which, everything else follows. Knows nothing of dots, tokens,
//! contexts and cuts.

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::automerge::transaction::Transactable;
use comity_crdts::automerge::{ROOT, ReadDoc};
use comity_crdts::{Kind, ObjectAddress, SpaceId, Value, Writer};
use comity_engine::{Durability, Listing, Location, LogRead, StateDigest, Tx, TxError};

use super::World;

/// The collection in which everything is.
pub(crate) const COLLECTION: &str = "spec";
/// The kinds that a map can hold, without maps.
pub(crate) const NESTABLE: [Kind; 4] = [Kind::Counter, Kind::Set, Kind::Register, Kind::Flag];

/// The one object of a kind.
pub(crate) fn top(kind: Kind) -> Location {
    ObjectAddress::new(kind, COLLECTION, "k").unwrap().into()
}

/// Something in the one map.
pub(crate) fn within(path: &[&str]) -> Location {
    let path = path.iter().map(|key| (*key).to_owned()).collect();
    Location { path, ..top(Kind::Map) }
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Count(Location, i64),
    Add(Location, u8),
    Take(Location, u8),
    /// What is written is the number of the operation.
    Write(Location),
    Enable(Location),
    Disable(Location),
    Remove(Location),
    RwAdd(u8),
    RwRemove(u8),
    DwEnable,
    DwDisable,
    Edit,
    Raise(u64),
    Lower(u64),
}

/// What an operation that was made means.
#[derive(Clone, Debug, PartialEq)]
enum Meaning {
    Counts(i64),
    Adds(u8),
    Takes(u8),
    Writes,
    Enables,
    Disables,
    /// Everything at and below its location.
    Removes,
    /// These elements of the remove-wins set, which its author saw in it.
    RwRemoves(BTreeSet<u8>),
    DwEnables,
    DwDisables,
    Edits,
    Changes(i128),
}

/// An operation that was made.
#[derive(Clone, Debug)]
struct Event {
    id: i64,
    /// The transaction that it is part of.
    write: i64,
    at: Location,
    meaning: Meaning,
}

/// Everything that was ever written.
#[derive(Default)]
pub(crate) struct Spec {
    events: Vec<Event>,
    /// Per transaction the transactions that its author had seen.
    seen: BTreeMap<i64, BTreeSet<i64>>,
    /// The digest where the same transactions are visible, and the same rights to the bounded counter were handed
    /// over.
    digests: BTreeMap<(BTreeSet<i64>, Vec<u8>), StateDigest>,
    writes: i64,
    /// How many deeds were refused because nobody had confirmed the incarnation.
    pub(crate) unconfirmed: usize,
}

/// The transactions that are visible: each adds itself to a set.
fn visible(read: &dyn LogRead, space: &SpaceId) -> BTreeSet<i64> {
    let elements = comity_engine::set_elements(read, space, ("writes", "all"), None, usize::MAX).unwrap();
    let number = |value: &Value| match value {
        Value::I64(number) => *number,
        other => panic!("{other:?}"),
    };
    elements.iter().map(number).collect()
}

fn do_it(tx: &mut Tx<'_>, deed: &Deed, id: i64) -> Result<(), TxError> {
    let element = |number: u8| Value::I64(i64::from(number));
    match deed {
        Deed::Count(at, delta) => tx.counter_add_at(at, *delta),
        Deed::Add(at, number) => tx.set_add_at(at, element(*number)),
        Deed::Take(at, number) => tx.set_remove_at(at, element(*number)),
        Deed::Write(at) => tx.register_write_at(at, Value::I64(id)),
        Deed::Enable(at) => tx.flag_enable_at(at),
        Deed::Disable(at) => tx.flag_disable_at(at),
        Deed::Remove(at) => tx.remove_at(at),
        Deed::RwAdd(number) => tx.rw_set_add_at(&top(Kind::RwSet), element(*number)),
        Deed::RwRemove(number) => tx.rw_set_remove_at(&top(Kind::RwSet), element(*number)),
        Deed::DwEnable => tx.dw_flag_enable_at(&top(Kind::DwFlag)),
        Deed::DwDisable => tx.dw_flag_disable_at(&top(Kind::DwFlag)),
        Deed::Edit => tx.document_edit::<_, TxError>(COLLECTION, "k", |document| {
            document.put(ROOT, id.to_string(), id).unwrap();
            Ok(())
        }),
        Deed::Raise(amount) => tx.bounded_increment_at(&top(Kind::BoundedCounter), *amount),
        Deed::Lower(amount) => tx.bounded_decrement_at(&top(Kind::BoundedCounter), *amount),
    }
}

impl Spec {
    /// One transaction at a node.
    pub(crate) fn write(&mut self, world: &mut World, node: usize, space: SpaceId, deeds: &[Deed]) {
        self.writes += 1;
        let write = self.writes;
        let (mut events, mut unconfirmed) = (Vec::new(), 0);
        let (result, _) = world.write_with::<_, TxError>(node, space, Durability::Local, |tx| {
            let seen = visible(tx.state(), &space);
            tx.set_add("writes", "all", Value::I64(write))?;
            let mut shown: Vec<Event> = self.shown(&seen).cloned().collect();
            self.seen.insert(write, seen);
            for (index, deed) in deeds.iter().enumerate() {
                let id = write * 100 + index as i64;
                match do_it(tx, deed, id) {
                    Ok(()) => {}
                    Err(TxError::Unconfirmed { .. }) => {
                        unconfirmed += 1;
                        continue;
                    }
                    Err(TxError::Bounded { .. }) if matches!(deed, Deed::Lower(_)) => continue,
                    Err(error) => return Err(error),
                }
                if let Some((at, meaning)) = self.meaning(&shown, deed) {
                    shown.push(Event { id, write, at, meaning });
                    events.extend(shown.last().cloned());
                }
            }
            Ok(())
        });
        result.unwrap();
        self.events.append(&mut events);
        self.unconfirmed += unconfirmed;
    }

    /// What a deed means to somebody who sees `shown`; `None` when it does nothing there.
    fn meaning(&self, shown: &[Event], deed: &Deed) -> Option<(Location, Meaning)> {
        let set = top(Kind::RwSet);
        Some(match deed {
            Deed::Count(at, delta) => (at.clone(), Meaning::Counts(*delta)),
            Deed::Add(at, number) => (at.clone(), Meaning::Adds(*number)),
            Deed::Take(at, number) => (at.clone(), Meaning::Takes(*number)),
            Deed::Write(at) => (at.clone(), Meaning::Writes),
            Deed::Enable(at) => (at.clone(), Meaning::Enables),
            Deed::Disable(at) => (at.clone(), Meaning::Disables),
            Deed::RwAdd(number) => (set, Meaning::Adds(*number)),
            Deed::RwRemove(number) => (set, Meaning::RwRemoves([*number].into())),
            Deed::DwEnable => (top(Kind::DwFlag), Meaning::DwEnables),
            Deed::DwDisable => (top(Kind::DwFlag), Meaning::DwDisables),
            Deed::Edit => (top(Kind::Document), Meaning::Edits),
            Deed::Raise(amount) => (top(Kind::BoundedCounter), Meaning::Changes(i128::from(*amount))),
            Deed::Lower(amount) => (top(Kind::BoundedCounter), Meaning::Changes(-i128::from(*amount))),
            Deed::Remove(at) => match at.object.kind() {
                Kind::RwSet => (set, Meaning::RwRemoves(self.rw_members(shown))),
                Kind::DwFlag if !self.dw_enabled(shown) => return None,
                Kind::DwFlag => (at.clone(), Meaning::DwDisables),
                Kind::Document if self.edits(shown).is_empty() => return None,
                _ => (at.clone(), Meaning::Removes),
            },
        })
    }

    fn shown(&self, visible: &BTreeSet<i64>) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| visible.contains(&event.write))
    }

    fn precedes(&self, earlier: &Event, later: &Event) -> bool {
        if earlier.write == later.write {
            return earlier.id < later.id;
        }
        self.seen[&later.write].contains(&earlier.write)
    }

    /// The events of a kind of meaning that no removal in `shown` follows, those of `later` included.
    fn live<'e>(
        &self,
        shown: &'e [Event],
        is_asked: impl Fn(&Event) -> bool,
        takes: impl Fn(&Event, &Event) -> bool,
    ) -> Vec<&'e Event> {
        let mut asked: Vec<&Event> = shown.iter().filter(|event| is_asked(event)).collect();
        let removes = |removal: &Event, event: &Event| {
            let is_above =
                removal.at.object == event.at.object && event.at.path.starts_with(&removal.at.path);
            (removal.meaning == Meaning::Removes && is_above) || takes(removal, event)
        };
        asked.retain(|event| !shown.iter().any(|other| removes(other, event) && self.precedes(event, other)));
        asked
    }

    fn counted(&self, shown: &[Event], at: &Location) -> Vec<i64> {
        let is_asked = |event: &Event| event.at == *at && matches!(event.meaning, Meaning::Counts(_));
        let delta = |event: &Event| match event.meaning {
            Meaning::Counts(delta) => delta,
            _ => 0,
        };
        self.live(shown, is_asked, |_, _| false).into_iter().map(delta).collect()
    }

    fn elements(&self, shown: &[Event], at: &Location) -> BTreeSet<u8> {
        let is_asked = |event: &Event| event.at == *at && matches!(event.meaning, Meaning::Adds(_));
        let takes = |taking: &Event, event: &Event| match (&taking.meaning, &event.meaning) {
            (Meaning::Takes(taken), Meaning::Adds(added)) => taking.at == *at && taken == added,
            _ => false,
        };
        let number = |event: &Event| match event.meaning {
            Meaning::Adds(number) => number,
            _ => 0,
        };
        self.live(shown, is_asked, takes).into_iter().map(number).collect()
    }

    fn siblings(&self, shown: &[Event], at: &Location) -> BTreeSet<i64> {
        let is_asked = |event: &Event| event.at == *at && event.meaning == Meaning::Writes;
        self.live(shown, is_asked, |other, _| is_asked(other)).into_iter().map(|event| event.id).collect()
    }

    fn enabled(&self, shown: &[Event], at: &Location) -> bool {
        let is_asked = |event: &Event| event.at == *at && event.meaning == Meaning::Enables;
        let takes = |other: &Event, _: &Event| other.at == *at && other.meaning == Meaning::Disables;
        !self.live(shown, is_asked, takes).is_empty()
    }

    /// What is there, and of what every removal precedes some addition.
    fn remove_wins(
        &self,
        shown: &[Event],
        adds: impl Fn(&Event) -> bool,
        removes: impl Fn(&Event) -> bool,
    ) -> bool {
        let additions: Vec<&Event> = shown.iter().filter(|event| adds(event)).collect();
        let is_undone = |removal: &Event| additions.iter().any(|event| self.precedes(removal, event));
        !additions.is_empty() && shown.iter().filter(|event| removes(event)).all(is_undone)
    }

    fn rw_members(&self, shown: &[Event]) -> BTreeSet<u8> {
        let set = top(Kind::RwSet);
        let is_member = |number: &u8| {
            let adds = |event: &Event| event.at == set && event.meaning == Meaning::Adds(*number);
            let removes = |event: &Event| match &event.meaning {
                Meaning::RwRemoves(numbers) => numbers.contains(number),
                _ => false,
            };
            self.remove_wins(shown, adds, removes)
        };
        (0..8).filter(is_member).collect()
    }

    fn dw_enabled(&self, shown: &[Event]) -> bool {
        let adds = |event: &Event| event.meaning == Meaning::DwEnables;
        self.remove_wins(shown, adds, |event| event.meaning == Meaning::DwDisables)
    }

    /// An edit is there when its author had seen every removal of the document.
    fn edits(&self, shown: &[Event]) -> BTreeSet<i64> {
        let removes =
            |event: &&Event| event.at.object.kind() == Kind::Document && event.meaning == Meaning::Removes;
        let removals: Vec<&Event> = shown.iter().filter(removes).collect();
        let is_there = |edit: &&Event| removals.iter().all(|removal| self.precedes(removal, edit));
        shown.iter().filter(|event| event.meaning == Meaning::Edits).filter(is_there).map(|e| e.id).collect()
    }

    /// Whether something is there, of this kind.
    fn is_present(&self, shown: &[Event], at: &Location, kind: Kind) -> bool {
        match kind {
            Kind::Counter => !self.counted(shown, at).is_empty(),
            Kind::Set => !self.elements(shown, at).is_empty(),
            Kind::Register => !self.siblings(shown, at).is_empty(),
            Kind::Flag => self.enabled(shown, at),
            Kind::DwFlag => self.dw_enabled(shown),
            Kind::RwSet => !self.rw_members(shown).is_empty(),
            Kind::Document => !self.edits(shown).is_empty(),
            Kind::BoundedCounter => {
                let change = |event: &Event| match event.meaning {
                    Meaning::Changes(amount) => amount,
                    _ => 0,
                };
                shown.iter().map(change).sum::<i128>() != 0
            }
            Kind::Map => !self.keys(shown, at).is_empty(),
            _ => false,
        }
    }

    /// The keys of a map with the kinds of what is there.
    fn keys(&self, shown: &[Event], at: &Location) -> BTreeMap<String, Vec<Kind>> {
        let below = |event: &&Event| event.at.object == at.object && event.at.path.len() > at.path.len();
        let below = shown.iter().filter(below).filter(|event| event.at.path.starts_with(&at.path));
        let names: BTreeSet<String> = below.map(|event| event.at.path[at.path.len()].clone()).collect();
        let kinds = |name: String| {
            let mut within = at.clone();
            within.path.push(name.clone());
            let kinds = NESTABLE.into_iter().chain([Kind::Map]);
            let kinds: Vec<Kind> = kinds.filter(|kind| self.is_present(shown, &within, *kind)).collect();
            (!kinds.is_empty()).then_some((name, kinds))
        };
        names.into_iter().filter_map(kinds).collect()
    }

    /// Holds what readers of a node see against the specification. Returns the visible transactions.
    pub(crate) fn check(&mut self, world: &World, node: usize, space: SpaceId) -> BTreeSet<i64> {
        let view = world.nodes[node].disk.view();
        let visible = visible(&view, &space);
        for write in &visible {
            assert!(self.seen[write].is_subset(&visible), "{write} is visible before what its author saw");
        }
        let shown: Vec<Event> = self.shown(&visible).cloned().collect();
        let mut places: BTreeSet<Location> = shown.iter().map(|event| event.at.clone()).collect();
        places.extend(Kind::APPLICATION.map(top));
        for at in &places {
            self.check_place(&view, &space, &shown, at);
        }
        visible
    }

    fn check_place(&self, view: &dyn LogRead, space: &SpaceId, shown: &[Event], at: &Location) {
        let kind = at.object.kind();
        let is = |asked: Kind| if at.path.is_empty() { kind == asked } else { kind == Kind::Map };
        if is(Kind::Counter) {
            let sum: i128 = self.counted(shown, at).into_iter().map(i128::from).sum();
            assert_eq!(comity_engine::counter_at(view, space, at).unwrap(), sum, "{at}");
        }
        if is(Kind::Set) {
            self.check_elements(view, space, at, &self.elements(shown, at));
        }
        if is(Kind::Register) {
            let register = comity_engine::register_at(view, space, at).unwrap();
            let number = |value: &Value| match value {
                Value::I64(number) => *number,
                other => panic!("{other:?}"),
            };
            let siblings: BTreeSet<i64> = register.siblings().map(|(_, s)| number(&s.value)).collect();
            assert_eq!(siblings, self.siblings(shown, at), "{at}");
        }
        if is(Kind::Flag) {
            assert_eq!(comity_engine::flag_at(view, space, at).unwrap(), self.enabled(shown, at), "{at}");
        }
        if is(Kind::Map) {
            let keys = comity_engine::map_keys(view, space, at, None, usize::MAX).unwrap();
            let count: usize = keys.iter().map(|(_, kinds)| kinds.len()).sum();
            assert_eq!(comity_engine::map_len(view, space, at).unwrap(), count as u64, "{at}");
            assert_eq!(keys.into_iter().collect::<BTreeMap<_, _>>(), self.keys(shown, at), "{at}");
        }
        match kind {
            Kind::RwSet => self.check_elements(view, space, at, &self.rw_members(shown)),
            Kind::DwFlag => {
                assert_eq!(comity_engine::flag_at(view, space, at).unwrap(), self.dw_enabled(shown));
            }
            Kind::Document => {
                let document = comity_engine::document(view, space, COLLECTION, "k").unwrap();
                let keys: BTreeSet<i64> =
                    document.automerge().keys(ROOT).map(|key| key.parse().unwrap()).collect();
                assert_eq!(keys, self.edits(shown));
            }
            Kind::BoundedCounter => {
                let counter = comity_engine::bounded_counter(view, space, COLLECTION, "k").unwrap();
                let change = |event: &Event| match event.meaning {
                    Meaning::Changes(amount) => amount,
                    _ => 0,
                };
                assert_eq!(counter.value(), shown.iter().map(change).sum::<i128>());
                assert!(counter.value() >= 0, "a bounded counter is at {}", counter.value());
                let rights: i128 = counter.holders().map(|(_, rights)| rights).sum();
                assert_eq!(rights, counter.value(), "rights are neither made nor lost, and nobody overdraws");
            }
            _ => {}
        }
        if at.path.is_empty() {
            let (prefix, after, limit) = ("", None, 5);
            let listing = Listing { kind, collection: COLLECTION, prefix, after, limit };
            let listed = comity_engine::list(view, space, listing).unwrap();
            assert_eq!(!listed.is_empty(), self.is_present(shown, at, kind), "{at} is listed");
        }
    }

    fn check_elements(&self, view: &dyn LogRead, space: &SpaceId, at: &Location, elements: &BTreeSet<u8>) {
        let shown = comity_engine::set_elements_at(view, space, at, None, usize::MAX).unwrap();
        let wanted: Vec<Value> = elements.iter().map(|number| Value::I64(i64::from(*number))).collect();
        assert_eq!(shown, wanted, "{at}");
        let count = comity_engine::set_len_at(view, space, at).unwrap();
        assert_eq!(count, elements.len() as u64, "{at}");
    }

    /// Where the same is applied, the digests are the same, whatever was compacted, at any time.
    pub(crate) fn check_digest(&mut self, world: &World, node: usize, space: SpaceId) {
        let visible = visible(&world.nodes[node].disk, &space);
        let mut rights = Writer::new();
        let counter =
            comity_engine::bounded_counter(&world.nodes[node].disk, &space, COLLECTION, "k").unwrap();
        counter.encode(&mut rights);
        let digest = world.status(node, space).digest;
        let first = *self.digests.entry((visible, rights.finish())).or_insert(digest);
        assert_eq!(first, digest, "node {node}");
    }

    /// Every replica shows the same.
    pub(crate) fn check_converged(&mut self, world: &World, space: SpaceId) {
        let first = self.check(world, 0, space);
        for node in 0..world.nodes.len() {
            assert_eq!(self.check(world, node, space), first, "node {node}");
            self.check_digest(world, node, space);
        }
        world.assert_converged(space);
    }
}

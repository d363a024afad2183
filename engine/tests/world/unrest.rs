//! Random schedules over the specification of all kinds: connections come and go, frames of different streams
//! overtake each other, syncs end late, processes crash, old copies of disks are put back.

use std::time::Duration;

use comity_crdts::{Kind, SpaceId};
use comity_engine::{Class, Command, Input};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::World;
use super::disk::Backup;
use super::spec::{COLLECTION, Deed, NESTABLE, Spec, top, within};
use comity_engine::Location;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write {
        node: usize,
        deeds: Vec<Deed>,
    },
    Deliver {
        pick: usize,
        count: usize,
    },
    Sync {
        node: usize,
    },
    Connect {
        a: usize,
        b: usize,
    },
    Disconnect {
        pick: usize,
    },
    Crash {
        node: usize,
    },
    Time {
        ms: u64,
    },
    Streams {
        order: usize,
    },
    Backup {
        node: usize,
    },
    Restore {
        node: usize,
    },
    /// Asks peers for rights to the bounded counter.
    Acquire {
        node: usize,
        amount: u64,
    },
}

fn deed_at(at: &Location, kind: Kind, number: u8) -> Deed {
    let at = at.clone();
    match (kind, number % 4) {
        (Kind::Counter, _) => Deed::Count(at, i64::from(number) - 3),
        (Kind::Set, 0) => Deed::Take(at, number / 4 % 3),
        (Kind::Set, _) => Deed::Add(at, number / 4 % 3),
        (Kind::Register, _) => Deed::Write(at),
        (_, 0 | 1) => Deed::Disable(at),
        (_, _) => Deed::Enable(at),
    }
}

/// What is done in the one map, at most three keys deep.
pub(crate) fn map_deeds() -> impl Strategy<Value = Deed> {
    let path = || prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..4);
    let kind = prop::sample::select(NESTABLE.to_vec());
    prop_oneof![
        8 => (path(), kind, 0..12_u8).prop_map(|(path, kind, number)| deed_at(&within(&path), kind, number)),
        3 => path().prop_map(|path| Deed::Remove(within(&path))),
        1 => Just(Deed::Remove(within(&[]))),
    ]
}

/// What is done to a bounded counter.
pub(crate) fn bounded_deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![2 => (1..9_u64).prop_map(Deed::Raise), 3 => (1..9_u64).prop_map(Deed::Lower)]
}

/// What is done to an object of any kind.
pub(crate) fn deeds_of_all_kinds() -> impl Strategy<Value = Deed> {
    let kind = prop::sample::select(NESTABLE.to_vec());
    let removable: Vec<Kind> =
        Kind::APPLICATION.into_iter().filter(|kind| *kind != Kind::BoundedCounter).collect();
    prop_oneof![
        4 => (kind, 0..12_u8).prop_map(|(kind, number)| deed_at(&top(kind), kind, number)),
        2 => (0..3_u8).prop_map(Deed::RwAdd),
        2 => (0..3_u8).prop_map(Deed::RwRemove),
        1 => Just(Deed::DwEnable),
        1 => Just(Deed::DwDisable),
        2 => Just(Deed::Edit),
        1 => (1..9_u64).prop_map(Deed::Raise),
        2 => (1..5_u64).prop_map(Deed::Lower),
        2 => map_deeds(),
        3 => prop::sample::select(removable).prop_map(|kind| Deed::Remove(top(kind))),
    ]
}

/// How much of what happens.
#[derive(Clone, Copy)]
pub(crate) struct Unrest {
    pub(crate) nodes_min: usize,
    pub(crate) nodes_max: usize,
    pub(crate) events_max: usize,
    /// Milliseconds that pass at a time.
    pub(crate) ms_max: u64,
    /// Whether old copies of disks are put back.
    pub(crate) restores: bool,
}

/// A number of nodes, and what happens to them.
pub(crate) fn schedules<D: Strategy<Value = Deed> + 'static>(
    unrest: Unrest,
    deeds: impl Fn() -> D,
) -> impl Strategy<Value = (usize, Vec<Event>)> {
    let restores = unrest.restores;
    let node = || 0..4_usize;
    let writes = (node(), prop::collection::vec(deeds(), 1..5));
    let event = prop_oneof![
        8 => writes.prop_map(|(node, deeds)| Event::Write { node, deeds }),
        10 => (0..64_usize, 1..9_usize).prop_map(|(pick, count)| Event::Deliver { pick, count }),
        6 => node().prop_map(|node| Event::Sync { node }),
        3 => (node(), node()).prop_map(|(a, b)| Event::Connect { a, b }),
        1 => (0..16_usize).prop_map(|pick| Event::Disconnect { pick }),
        1 => node().prop_map(|node| Event::Crash { node }),
        2 => (0..unrest.ms_max).prop_map(|ms| Event::Time { ms }),
        1 => (0..6_usize).prop_map(|order| Event::Streams { order }),
        1 => (node(), 1..9_u64).prop_map(|(node, amount)| Event::Acquire { node, amount }),
        1 => node().prop_map(move |node| if restores { Event::Backup { node } } else { Event::Sync { node } }),
        1 => node().prop_map(move |node| if restores { Event::Restore { node } } else { Event::Sync { node } }),
    ];
    (unrest.nodes_min..=unrest.nodes_max, prop::collection::vec(event, 1..unrest.events_max))
}

const ORDERS: [[Class; 3]; 6] = {
    use Class::{CatchUp, Control, Live};
    [
        [Control, Live, CatchUp],
        [Control, CatchUp, Live],
        [Live, Control, CatchUp],
        [Live, CatchUp, Control],
        [CatchUp, Control, Live],
        [CatchUp, Live, Control],
    ]
};

/// A world in which the schedule is at work.
struct Execution {
    world: World,
    spec: Spec,
    space: SpaceId,
    backups: Vec<Option<Backup>>,
    restored: u8,
}

impl Execution {
    fn happen(&mut self, event: &Event) {
        let Self { world, spec, space, .. } = self;
        let count = world.nodes.len();
        match event {
            Event::Write { node, deeds } => spec.write(world, node % count, *space, deeds),
            Event::Deliver { pick, count } => {
                for _ in 0..*count {
                    let ways = world.deliverable();
                    if let Some((session, side)) = ways.get(pick % ways.len().max(1)) {
                        world.deliver(*session, *side);
                    }
                }
            }
            Event::Sync { node } => {
                world.sync(node % count);
                spec.check(world, node % count, *space);
                spec.check_digest(world, node % count, *space);
            }
            Event::Connect { a, b } => {
                if a % count != b % count {
                    world.connect(a % count, b % count);
                }
            }
            Event::Disconnect { pick } => {
                let sessions = world.sessions();
                if let Some(session) = sessions.get(pick % sessions.len().max(1)) {
                    world.disconnect(*session);
                }
            }
            Event::Crash { node } => {
                world.crash(node % count);
                spec.check(world, node % count, *space);
                spec.check_digest(world, node % count, *space);
            }
            Event::Time { ms } => {
                world.clock += Duration::from_millis(*ms);
                for node in 0..count {
                    world.nodes[node].wall_ms += *ms;
                    world.input(node, Input::DeadlineReached);
                }
            }
            Event::Streams { order } => world.class_order = ORDERS[*order],
            Event::Backup { node } => self.backups[node % count] = Some(world.backup(node % count)),
            Event::Restore { node } => self.restore(node % count),
            Event::Acquire { node, amount } => {
                let (collection, key) = (COLLECTION.to_owned(), "k".to_owned());
                let (space, amount, within) = (*space, *amount, Duration::from_secs(1));
                world.ask(node % count, Command::AcquireRights { space, collection, key, amount, within });
            }
        }
    }

    fn restore(&mut self, node: usize) {
        if let Some(backup) = self.backups[node].clone() {
            self.restored += 1;
            self.world.restore(node, backup, [100 + self.restored; 32]);
            self.spec.check(&self.world, node, self.space);
        }
    }

    /// Ends the unrest: every node is reachable from every other.
    fn calm(&mut self) {
        let world = &mut self.world;
        for node in &mut world.nodes {
            node.manual_sync = false;
        }
        for node in 1..world.nodes.len() {
            world.connect(node - 1, node);
        }
        for _ in 0..3 {
            world.pass(Duration::from_secs(2));
        }
    }
}

/// Runs a schedule to its end, where all must show the same. Returns the world and the specification, to be asked
/// for more.
pub(crate) fn run((nodes, events): &(usize, Vec<Event>)) -> (World, Spec, SpaceId) {
    let mut world = World::new(*nodes);
    let space = world.create_space(0);
    for node in 1..*nodes {
        world.join(0, node, space);
    }
    let mut spec = Spec::default();
    for node in 1..*nodes {
        // Whoever has just joined may not remove everything yet.
        spec.write(&mut world, node, space, &[]);
        let confirmation = Command::AwaitConfirmation { space, within: Duration::from_secs(1) };
        world.command(node, confirmation).unwrap();
    }
    world.disconnect_all(None);
    for node in &mut world.nodes {
        node.manual_sync = true;
    }
    let backups = vec![None; *nodes];
    let mut execution = Execution { world, spec, space, backups, restored: 0 };
    for event in events {
        execution.happen(event);
    }
    execution.calm();
    let Execution { world, mut spec, .. } = execution;
    spec.check_converged(&world, space);
    for node in &world.nodes {
        assert!(node.closed.is_empty(), "honest peers close nothing: {:?}", node.closed);
    }
    for lane in world.status(0, space).lanes {
        assert!(lane.frozen.is_none(), "nobody forked: {lane:?}");
    }
    (world, spec, space)
}

/// So many schedules of a new seed each time; `COMITY_SCHEDULES` schedules of the seed `COMITY_SEED` when these are
/// set, which is a fixed set.
#[expect(clippy::disallowed_methods, reason = "a test is configured by its environment")]
pub(crate) fn config(schedules: u32) -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = number("COMITY_SCHEDULES").map_or(schedules, |cases| cases as u32);
    let rng_seed = number("COMITY_SEED").map_or(RngSeed::Random, RngSeed::Fixed);
    ProptestConfig { cases, rng_seed, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

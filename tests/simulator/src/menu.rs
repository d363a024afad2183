//! What a seed stands for: how many replicas, spaces and clients, which faults of the menu it has, and
//! every event. Swarm testing (Groce et al., 2012): each run has about half of the classes.

use crate::builds::{Mix, builds};
use crate::plan::{
    Auditing, Effect, Event, Fault, FaultClass, Freshness, Keeping, Plan, Planned, Read, Tampering,
    WallClock, Write, open_at_once, segment_entries,
};
use crate::random::{Dice, Domain};
use crate::topology::Topology;

/// How large a run may be.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Client operations at most.
    pub operations_max: u64,
    /// Replicas at most in one run of twenty; the others have 9 at most.
    pub nodes_max: u64,
    /// The shape of the network, if it is not the seed's own.
    pub topology: Option<Topology>,
    /// What is different between builds, if it is not the seed's own.
    pub mix: Option<Mix>,
}

impl Default for Scale {
    fn default() -> Self {
        Self { operations_max: 3_000, nodes_max: 16, topology: None, mix: None }
    }
}

/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;
/// Milliseconds in a century.
const CENTURY_MS: u64 = 36_525 * DAY_MS;

/// Names of things, few so that writers meet.
struct Names {
    counters: u64,
    sets: u64,
    elements: u64,
    registers: u64,
    /// None in most runs: documents cost more than everything else.
    documents: u64,
    flags: u64,
    maps: u64,
    keys: u64,
    bounded: u64,
}

/// The run that a seed stands for.
pub fn plan(seed: u64, scale: Scale) -> Plan {
    let mut dice = Dice::keyed(seed, Domain::Menu, 0, 0);
    let nodes = match dice.below(20) {
        0..4 => 2,
        4 => dice.between(9, scale.nodes_max.max(9)),
        _ => dice.between(3, 7),
    } as usize;
    let spaces = spaces(&mut dice, nodes);
    let topology = topology(&mut dice, seed);
    let topology = scale.topology.unwrap_or(topology);
    let links = topology.links(&mut dice, nodes);
    let mut plan = Plan {
        seed,
        nodes,
        spaces,
        topology,
        bare: false,
        throttle: None,
        calm: 0,
        links,
        latency_us: latency(&mut dice),
        sync_us: (dice.log_between(50, 5_000), 0),
        clocks: (0..nodes).map(|_| WallClock::default()).collect(),
        observed: dice.percent(15),
        sectors: false,
        signed: dice.percent(5),
        keeping: None,
        builds: None,
        auditing: auditing(seed),
        // Spaces here are few.
        open_at_once: if seed.is_multiple_of(3) { open_at_once() } else { 0 },
        // Lanes here have some hundred entries.
        segment_entries: [2, 8, 32, segment_entries()][seed as usize / 3 % 4],
        chaos_us: dice.log_between(2_000_000, 600_000_000),
        events: Vec::new(),
    };
    plan.sync_us.1 = plan.sync_us.0 * dice.between(1, 20);
    let classes: Vec<FaultClass> = FaultClass::ALL
        .into_iter()
        .filter(|class| *class != FaultClass::Members && has(&mut dice, *class))
        .collect();
    // A copy that knows only the old name of who lost everything would never meet anybody it trusts.
    let classes: Vec<FaultClass> = if classes.contains(&FaultClass::Clone) {
        classes.into_iter().filter(|class| *class != FaultClass::Wipe).collect()
    } else {
        classes
    };
    let copies = [FaultClass::Restore, FaultClass::Rollback, FaultClass::Clone, FaultClass::Wipe];
    // Copies are made of disks in memory only.
    let is_copied = classes.iter().any(|class| copies.contains(class));
    plan.sectors = !is_copied && (classes.contains(&FaultClass::Rot) || dice.percent(8));
    if classes.contains(&FaultClass::Clock) {
        plan.clocks.iter_mut().enumerate().for_each(|(node, clock)| *clock = wall_clock(seed, node));
    }
    if !classes.contains(&FaultClass::Rot) {
        plan.keeping = keeping(seed);
    }
    workload(&mut plan, scale);
    for class in classes {
        faults(&mut plan, class);
    }
    if !is_copied && !plan.has(FaultClass::Rot) && has_changing_members(seed) {
        faults(&mut plan, FaultClass::Members);
    }
    beside(&mut plan);
    plan.builds = builds(&plan, scale.mix);
    plan.events.sort_by_key(|planned| (planned.at_us, planned.id));
    plan
}

/// Whether a run has a class of faults: half of the runs have each, fewer the ones that take the run's
/// other guarantees away.
fn has(dice: &mut Dice, class: FaultClass) -> bool {
    dice.percent(match class {
        FaultClass::Reset | FaultClass::Stall | FaultClass::Cut | FaultClass::Crash | FaultClass::Pause => 50,
        FaultClass::Storage | FaultClass::Full | FaultClass::Clock => 30,
        FaultClass::Restore | FaultClass::Clone | FaultClass::Wipe => 20,
        FaultClass::Tamper => 15,
        FaultClass::Rollback => 5,
        FaultClass::Rot => 2,
        FaultClass::Members => 0,
    })
}

/// Whether members come and go, where no data is copied or lost: then who is a member is what the founder says.
fn has_changing_members(seed: u64) -> bool {
    Dice::keyed(seed, Domain::Menu, u64::MAX, 0).percent(40)
}

/// How long logs are kept, in about half of the runs. Draws from dice of its own, so that all else stays.
fn keeping(seed: u64) -> Option<Keeping> {
    let mut dice = Dice::keyed(seed, Domain::Menu, 0, 1);
    let keeping = Keeping {
        age_ms: dice.log_between(1, 60_000),
        bytes_max: if dice.percent(30) { dice.log_between(100, 100_000) } else { u64::MAX },
        announce_ms: dice.log_between(10, 5_000),
        entries_min: if dice.percent(30) { dice.log_between(5, 500) } else { 50_000 },
    };
    dice.percent(50).then_some(keeping)
}

/// How often states are compared, in three runs of ten. Draws from dice of its own, so that all else stays.
fn auditing(seed: u64) -> Option<Auditing> {
    let mut dice = Dice::keyed(seed, Domain::Menu, 0, 3);
    let auditing = Auditing { every_ms: dice.log_between(2_000, 60_000), rots: dice.between(0, 3) as u32 };
    dice.percent(30).then_some(auditing)
}

fn spaces(dice: &mut Dice, nodes: usize) -> Vec<Vec<usize>> {
    let mut spaces = vec![(0..nodes).collect::<Vec<_>>()];
    if dice.percent(40) {
        for _ in 0..dice.between(1, 3) {
            let founder = dice.index(nodes);
            let mut members = vec![founder];
            members.extend((0..nodes).filter(|node| *node != founder && dice.percent(60)));
            spaces.push(members);
        }
    }
    spaces
}

/// The shape of a run's network: all-to-all in one run of three, and each of the others in fewer.
fn topology(dice: &mut Dice, seed: u64) -> Topology {
    let drawn = match dice.below(6) {
        0 => Topology::Chain,
        1 => Topology::Star,
        2 => Topology::Ring,
        3 => Topology::Mixed,
        _ => Topology::All,
    };
    let is_tree = Dice::keyed(seed, Domain::Menu, 0, 1).percent(12);
    if is_tree { Topology::Tree } else { drawn }
}

/// What draws from dice of its own, so that all else stays as it is.
fn beside(plan: &mut Plan) {
    let mut dice = Dice::keyed(plan.seed, Domain::Menu, 0, 2);
    // Who has to be let in again needs its founder, and where a member goes others may have been linked by it only.
    let needs_more = plan.is_copied() || plan.has(FaultClass::Members);
    plan.bare = dice.percent(60) && !needs_more;
    plan.throttle = dice.percent(15).then(|| dice.log_between(1, 200));
    plan.calm = dice.between(20, 60) as u32;
    if plan.topology == Topology::Ring && dice.percent(50) {
        let (from, to) = plan.links[dice.index(plan.links.len())];
        let (at_us, ms) = (dice.below(plan.chaos_us), plan.chaos_us / 1_000);
        for (id, from, to) in [(BROKEN, from, to), (BROKEN + 1, to, from)] {
            plan.events.push(Planned { id, at_us, event: Event::Fault(Fault::Cut { from, to, ms }) });
        }
    }
}

/// The first event that breaks a ring.
const BROKEN: u32 = 2_900_000;

fn latency(dice: &mut Dice) -> (u64, u64) {
    let base = [100, 1_000, 20_000, 80_000, 250_000][dice.index(5)];
    (base, base / 4 * dice.between(0, 4))
}

fn wall_clock(seed: u64, node: usize) -> WallClock {
    let mut dice = Dice::keyed(seed, Domain::Fault, node as u64, 1_000);
    let offset = dice.log_between(1, CENTURY_MS).min(CENTURY_MS) as i64;
    let offset_ms = match dice.below(4) {
        0 | 1 => 0,
        2 => offset,
        // The clock cannot show a time before 1970.
        _ => -(offset.min(50 * 365 * DAY_MS as i64)),
    };
    WallClock { offset_ms, drift_ppm: dice.between(0, 400) as i64 - 200 }
}

/// What clients do: most stay at one replica, some move about.
fn workload(plan: &mut Plan, scale: Scale) {
    let mut dice = Dice::keyed(plan.seed, Domain::Workload, 0, 0);
    let operations = dice.log_between(20, scale.operations_max);
    let names = Names {
        counters: dice.between(1, 3),
        sets: dice.between(1, 3),
        elements: dice.log_between(1, 100),
        registers: dice.log_between(1, 60),
        documents: if dice.percent(20) { dice.between(1, 2) } else { 0 },
        flags: dice.between(1, 3),
        maps: dice.between(1, 2),
        keys: dice.log_between(1, 30),
        bounded: dice.between(1, 2),
    };
    let sessions = dice.between(2, 20);
    let bursts: Vec<u64> = (0..dice.between(1, 8)).map(|_| dice.below(plan.chaos_us)).collect();
    for index in 0..operations {
        let mut dice = Dice::keyed(plan.seed, Domain::Workload, 1, index);
        let space = dice.skewed(plan.spaces.len() as u64) as usize;
        let session = dice.percent(60).then(|| dice.below(sessions) as u16);
        let members = &plan.spaces[space];
        let node = match session {
            Some(session) if dice.percent(90) => members[usize::from(session) % members.len()],
            // One beyond the last is a clone, when there is one.
            _ if plan.nodes > 1 && dice.percent(5) => plan.nodes,
            _ => members[dice.index(members.len())],
        };
        let at_us = if dice.percent(70) {
            (bursts[dice.index(bursts.len())] + dice.below(200_000)).min(plan.chaos_us)
        } else {
            dice.below(plan.chaos_us)
        };
        let event = if dice.percent(35) {
            let objects = (0..dice.between(1, 3)).map(|_| effect(&mut dice, &names).object()).collect();
            Event::Read(Read { session, node, space, objects, fresh: None })
        } else {
            let count = if dice.percent(20) { dice.between(2, 6) } else { 1 };
            let effects: Vec<Effect> = (0..count).map(|_| effect(&mut dice, &names)).collect();
            let remote = if dice.percent(15) { dice.between(1, 3) as u32 } else { 0 };
            Event::Write(Write { session, node, space, remote, quorum: false, operation: None, effects })
        };
        let planned = Planned { id: index as u32 + 1, at_us, event };
        let repetitions = ask_for_more(plan, planned, index);
        plan.events.extend(repetitions);
    }
}

/// The first event that repeats another one.
const REPETITIONS: u32 = 2_000_000;

/// Lets some writes wait for a majority, some reads show what others have, and some clients repeat writes under an
/// operation id, whatever they were told. Draws from dice of its own, so that all else stays.
fn ask_for_more(plan: &Plan, mut planned: Planned, index: u64) -> Vec<Planned> {
    let mut dice = Dice::keyed(plan.seed, Domain::Workload, 2, index);
    let mut events = Vec::new();
    match &mut planned.event {
        Event::Read(read) if dice.percent(8) => {
            let whom = if dice.percent(50) { Freshness::All } else { Freshness::Majority };
            (read.fresh, read.session) = (Some(whom), None);
        }
        Event::Write(write) => {
            write.quorum = write.remote == 0 && dice.percent(8);
            if dice.percent(10) {
                write.operation = Some(planned.id);
                for repetition in 0..dice.between(1, 3) as u32 {
                    let mut again = write.clone();
                    if dice.percent(50) {
                        let members = &plan.spaces[write.space];
                        again.node = members[dice.index(members.len())];
                    }
                    let id = REPETITIONS + 4 * index as u32 + repetition;
                    let at_us = (planned.at_us + dice.log_between(1_000, 60_000_000)).min(plan.chaos_us);
                    events.push(Planned { id, at_us, event: Event::Write(again) });
                }
            }
        }
        Event::Read(_) | Event::Fault(_) => {}
    }
    events.push(planned);
    events
}

fn effect(dice: &mut Dice, names: &Names) -> Effect {
    let counter = dice.skewed(names.counters) as u16;
    let (set, element) = (dice.below(names.sets) as u16, dice.skewed(names.elements) as u16);
    let register = dice.skewed(names.registers) as u16;
    match dice.below(100) {
        0..12 => Effect::Add { counter, delta: dice.below(2_000) as i32 - 1_000 },
        12..14 => Effect::Reset { counter },
        14..24 => Effect::Insert { set, element },
        24..31 => Effect::Remove { set, element },
        31 => Effect::Empty { set },
        32..47 => Effect::Assign { register },
        47..52 => Effect::Resolve { register },
        52..55 => Effect::Clear { register },
        55..87 => newer_effect(dice, names),
        87..99 if names.documents > 0 => Effect::Edit { document: dice.below(names.documents) as u16 },
        99 if names.documents > 0 => Effect::Discard { document: dice.below(names.documents) as u16 },
        _ => Effect::Add { counter, delta: 1 },
    }
}

/// Flags, remove-wins sets, maps, bounded counters and policies.
fn newer_effect(dice: &mut Dice, names: &Names) -> Effect {
    let flag = dice.below(names.flags) as u16;
    let (set, element) = (dice.below(names.sets) as u16, dice.skewed(names.elements) as u16);
    let (map, key) = (dice.below(names.maps) as u16, dice.skewed(names.keys) as u16);
    let (bounded, amount) = (dice.below(names.bounded) as u16, dice.between(1, 20) as u16);
    match dice.below(32) {
        0..2 => Effect::Enable { flag },
        2..4 => Effect::Disable { flag },
        4..6 => Effect::Permit { flag },
        6 => Effect::Forbid { flag },
        7..10 => Effect::Admit { set, element },
        10..13 => Effect::Ban { set, element },
        13..16 => Effect::AddWithin { map, key, delta: dice.below(200) as i32 - 100 },
        16..19 => Effect::AssignWithin { map, key },
        19..21 => Effect::InsertWithin { map, key, element: element % 8 },
        21 => Effect::RemoveWithin { map, key, element: element % 8 },
        22..25 => Effect::Drop { map, key },
        25..28 => Effect::Raise { bounded, amount },
        28..31 => Effect::Lower { bounded, amount },
        _ => Effect::Rule { policy: dice.below(5) as u16 },
    }
}

/// Adds the faults of one class.
fn faults(plan: &mut Plan, class: FaultClass) {
    let mut dice = Dice::keyed(plan.seed, Domain::Fault, class as u64, 0);
    let seconds = plan.chaos_us / 1_000_000;
    let count = match class {
        FaultClass::Restore | FaultClass::Rollback => dice.between(1, 3),
        FaultClass::Clone | FaultClass::Wipe | FaultClass::Rot => dice.between(1, 2),
        _ => dice.log_between(1, 4 + 2 * plan.nodes as u64).min(4 + seconds),
    };
    for index in 0..count {
        let mut dice = Dice::keyed(plan.seed, Domain::Fault, class as u64, 1 + index);
        let at_us = dice.below(plan.chaos_us);
        let id = 1_000_000 + 10_000 * class as u32 + 2 * index as u32;
        for (offset, fault) in (0..).zip(faults_of(&mut dice, plan, class)) {
            // A copy is older than what it replaces.
            let earlier = if matches!(fault, Fault::Backup { .. }) { dice.below(at_us + 1) } else { 0 };
            let at_us = at_us - earlier;
            plan.events.push(Planned { id: id + offset, at_us, event: Event::Fault(fault) });
        }
    }
}

fn faults_of(dice: &mut Dice, plan: &Plan, class: FaultClass) -> Vec<Fault> {
    let node = dice.index(plan.nodes);
    let link = dice.index(plan.links.len());
    let (reverse, unnoticed) = (dice.percent(50), class == FaultClass::Rollback);
    let down_ms = dice.log_between(1, 120_000);
    vec![match class {
        FaultClass::Reset => Fault::Reset { link },
        FaultClass::Stall => Fault::Stall { link, reverse, ms: dice.log_between(100, 60_000) },
        FaultClass::Cut => return cuts(dice, plan),
        FaultClass::Crash => Fault::Crash { node, down_ms, noticed: reverse },
        FaultClass::Pause => Fault::Pause { node, ms: dice.log_between(1_000, 3_600_000) },
        FaultClass::Storage if reverse => Fault::FailSync { node },
        FaultClass::Storage => Fault::FailCommit { node },
        FaultClass::Full => Fault::Full { node, ms: dice.log_between(1_000, DAY_MS) },
        FaultClass::Restore | FaultClass::Rollback => {
            return vec![Fault::Backup { node }, Fault::Restore { node, down_ms, unnoticed }];
        }
        FaultClass::Clone => Fault::Clone { node },
        FaultClass::Wipe => Fault::Wipe { node, down_ms },
        FaultClass::Clock => {
            let delta = dice.log_between(1, CENTURY_MS) as i64;
            Fault::Step { node, delta_ms: if reverse { -delta } else { delta } }
        }
        FaultClass::Tamper => {
            use Tampering::{Drop, Flip, Repeat, Replay, Truncate};
            let how = [Drop, Flip, Repeat, Replay, Truncate][dice.index(5)];
            Fault::Tamper { link, reverse, how, ms: dice.log_between(100, 30_000) }
        }
        FaultClass::Rot => Fault::Rot { node, down_ms },
        FaultClass::Members => return member_faults(dice, plan),
    }]
}

/// A member is removed, let in again, demoted or leaves; never the founder.
fn member_faults(dice: &mut Dice, plan: &Plan) -> Vec<Fault> {
    let space = dice.index(plan.spaces.len());
    let others = &plan.spaces[space][1..];
    if others.is_empty() {
        return Vec::new();
    }
    let node = others[dice.index(others.len())];
    vec![match dice.below(20) {
        0..7 => Fault::Remove { space, node },
        7..14 => Fault::Reinstate { space, node },
        14..18 => Fault::Demote { space, node },
        // At the same time somebody else says something about it.
        _ => return vec![Fault::Demote { space, node }, Fault::Leave { space, node }],
    }]
}

/// A partition: one pair, one replica from all others, or two halves; one way or both.
fn cuts(dice: &mut Dice, plan: &Plan) -> Vec<Fault> {
    let ms = dice.log_between(100, DAY_MS);
    let both = dice.percent(50);
    let lonely = dice.index(plan.nodes);
    let half = dice.between(1, (plan.nodes as u64).max(2) - 1) as usize;
    let shape = dice.below(3);
    let separates = |a: usize, b: usize| match shape {
        0 => plan.links[lonely % plan.links.len()] == (a.min(b), a.max(b)),
        1 => (a == lonely) != (b == lonely),
        _ => (a < half) != (b < half),
    };
    let pairs = plan.links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
    let cut = pairs.filter(|(from, to)| separates(*from, *to) && (both || from < to));
    cut.map(|(from, to)| Fault::Cut { from, to, ms }).collect()
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_one_plan() {
        for seed in 0..200 {
            let text = |plan: &Plan| serde_json::to_string(plan).expect("a plan is plain data");
            let plan = plan(seed, Scale::default());
            assert_eq!(text(&plan), text(&super::plan(seed, Scale::default())));
            assert!(plan.spaces.iter().flatten().all(|node| *node < plan.nodes));
            assert!(plan.links.iter().all(|(a, b)| a < b && *b < plan.nodes));
            assert!(plan.events.iter().all(|planned| planned.at_us <= plan.chaos_us));
        }
    }

    #[test]
    fn every_class_of_faults_is_on_the_menu() {
        for class in FaultClass::ALL {
            assert!((0..500).any(|seed| plan(seed, Scale::default()).has(class)), "{class:?}");
        }
    }
}

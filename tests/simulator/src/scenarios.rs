//! Runs that tell one story each: a failure of the catalogue, with clients at work before, during and after.

use crate::oracle::Violation;
use crate::plan::{
    Effect, Event, Fault, Object, Plan, Planned, Read, Tampering, WallClock, Write, open_at_once,
    segment_entries,
};
use crate::run::{Outcome, run};
use crate::topology::Topology;

const DAY_MS: u64 = 86_400_000;

/// A mesh of replicas with one space, at which clients write and read once a second for a minute.
fn story(nodes: usize) -> Plan {
    let links = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect();
    let mut plan = Plan {
        seed: 7,
        nodes,
        spaces: vec![(0..nodes).collect()],
        topology: Topology::All,
        bare: false,
        throttle: None,
        calm: 30,
        links,
        latency_us: (20_000, 5_000),
        sync_us: (500, 3_000),
        clocks: vec![WallClock::default(); nodes],
        observed: true,
        sectors: false,
        signed: true,
        keeping: None,
        builds: None,
        auditing: None,
        open_at_once: open_at_once(),
        segment_entries: segment_entries(),
        chaos_us: 60_000_000,
        events: Vec::new(),
    };
    for second in 0..60 {
        for node in 0..nodes {
            let (id, at_us) =
                ((second * nodes + node) as u32 + 1, second as u64 * 1_000_000 + node as u64 * 70_000);
            let session = Some((id % 3) as u16);
            let effects = vec![
                Effect::Add { counter: 0, delta: 1 },
                Effect::Assign { register: (second % 3) as u16 },
                if id % 4 == 0 {
                    Effect::Remove { set: 0, element: 1 }
                } else {
                    Effect::Insert { set: 0, element: 1 }
                },
            ];
            let write = Write {
                session,
                node,
                space: 0,
                remote: u32::from(id % 7 == 0),
                quorum: false,
                operation: None,
                effects,
            };
            plan.events.push(Planned { id, at_us, event: Event::Write(write) });
            let objects = vec![Object::Counter(0), Object::Register(0), Object::Element(0, 1)];
            let read = Read { session, node, space: 0, objects, fresh: None };
            plan.events.push(Planned { id: 10_000 + id, at_us: at_us + 30_000, event: Event::Read(read) });
        }
    }
    plan
}

impl Plan {
    /// Something goes wrong at a second.
    fn with(mut self, second: u64, fault: Fault) -> Self {
        let id = 100_000 + self.events.len() as u32;
        self.events.push(Planned { id, at_us: second * 1_000_000 + 500_000, event: Event::Fault(fault) });
        self.events.sort_by_key(|planned| planned.at_us);
        self
    }

    /// Runs it; every rule must hold, and the clients must have got something done.
    fn holds(self) -> Outcome {
        let outcome = run(&self);
        assert_eq!(outcome.violation, None::<Violation>);
        assert!(outcome.tally.acknowledged > 60, "{:?}", outcome.tally);
        assert!(outcome.tally.comparisons > 200, "{:?}", outcome.tally);
        outcome
    }
}

#[test]
fn nothing_goes_wrong() {
    let plan = story(3);
    let of_calm = u64::from(plan.calm);
    let outcome = plan.holds();
    assert_eq!(outcome.tally.refused, 0);
    assert_eq!(outcome.tally.writes, 180 + of_calm);
}

#[test]
fn f01_a_replica_is_restored_from_a_copy_that_it_outlived() {
    let restore = Fault::Restore { node: 1, down_ms: 2_000, unnoticed: false };
    story(3).with(10, Fault::Backup { node: 1 }).with(40, restore).holds();
}

#[test]
fn f02_a_clone_writes_beside_its_original() {
    let mut plan = story(3).with(20, Fault::Clone { node: 2 });
    // The first clone gets the number after the last replica.
    for (index, planned) in plan.events.iter_mut().enumerate().filter(|(index, _)| index % 5 == 0) {
        if let (Event::Write(write), true) = (&mut planned.event, index > 130) {
            (write.node, write.session) = (3, None);
        }
    }
    plan.holds();
}

#[test]
fn f03_a_copy_put_back_unnoticed_forks_its_lane_and_somebody_says_so() {
    let restore = Fault::Restore { node: 1, down_ms: 100, unnoticed: true };
    let isolated = [(0, 1), (1, 0), (2, 1), (1, 2)].map(|(from, to)| Fault::Cut { from, to, ms: 20_000 });
    let plan = story(3).with(10, Fault::Backup { node: 1 }).with(30, restore);
    isolated.into_iter().fold(plan, |plan, cut| plan.with(29, cut)).holds();
}

#[test]
fn f07_a_wiped_replica_joins_again_and_gets_everything() {
    story(4).with(30, Fault::Wipe { node: 3, down_ms: 5_000 }).holds();
}

#[test]
fn f09_a_failed_sync_ends_the_process_and_nothing_acknowledged_is_missing() {
    let plan = (0..6)
        .fold(story(3), |plan, turn| plan.with(5 + 8 * turn, Fault::FailSync { node: turn as usize % 3 }));
    plan.holds();
}

#[test]
fn f10_power_cuts_tear_sectors() {
    let mut plan = story(3);
    plan.sectors = true;
    let crash =
        |turn: u64| Fault::Crash { node: turn as usize % 3, down_ms: 400, noticed: turn.is_multiple_of(2) };
    (0..12).fold(plan, |plan, turn| plan.with(4 + 4 * turn, crash(turn))).holds();
}

#[test]
fn f12_rot_below_what_was_durable_is_reported_and_healed_by_the_others() {
    let mut plan = story(3);
    plan.sectors = true;
    plan.with(20, Fault::Rot { node: 0, down_ms: 100 })
        .with(40, Fault::Rot { node: 2, down_ms: 100 })
        .holds();
}

#[test]
fn f13_a_full_disk_recovers_without_a_restart() {
    let outcome = story(3).with(10, Fault::Full { node: 1, ms: 25_000 }).holds();
    assert_eq!(outcome.tally.starts, 6, "each replica starts once, and once more in the end");
}

#[test]
fn f15_commits_fail() {
    (0..9)
        .fold(story(3), |plan, turn| plan.with(3 + 6 * turn, Fault::FailCommit { node: turn as usize % 3 }))
        .holds();
}

#[test]
fn f19_a_clock_a_century_ahead_poisons_nobody() {
    let mut plan = story(3);
    plan.clocks[1] = WallClock { offset_ms: 36_525 * DAY_MS as i64, drift_ppm: 200 };
    plan.with(30, Fault::Step { node: 1, delta_ms: -36_525 * DAY_MS as i64 }).holds();
}

#[test]
fn f21_a_clock_that_jumps_back_before_a_restart_repeats_no_stamp() {
    let crash = Fault::Crash { node: 0, down_ms: 10, noticed: true };
    story(2).with(20, Fault::Step { node: 0, delta_ms: -3_600_000 }).with(21, crash).holds();
}

#[test]
fn f22_a_replica_that_stood_still_for_ninety_days_brings_nothing_back() {
    let apart = [(0, 2), (2, 0), (1, 2), (2, 1)].map(|(from, to)| Fault::Cut { from, to, ms: 90 * DAY_MS });
    let mut plan = apart.into_iter().fold(story(3), |plan, cut| plan.with(20, cut));
    plan.chaos_us = 90 * DAY_MS * 1_000;
    let outcome = plan.holds();
    assert!(outcome.tally.virtual_us >= 90 * DAY_MS * 1_000);
}

#[test]
fn f25_connections_break_all_the_time_and_no_hole_stays() {
    (0..40)
        .fold(story(3), |plan, turn| plan.with(2 + turn, Fault::Reset { link: turn as usize % 3 }))
        .holds();
}

#[test]
fn f29_one_way_cuts_and_stalls_delay_and_reorder_streams() {
    let plan = story(3).with(5, Fault::Cut { from: 0, to: 1, ms: 20_000 });
    plan.with(30, Fault::Stall { link: 2, reverse: true, ms: 15_000 })
        .with(31, Fault::Pause { node: 0, ms: 40_000 })
        .holds();
}

#[test]
fn t5_a_peer_that_does_wrong_with_frames_harms_nobody_else() {
    use Tampering::{Drop, Flip, Repeat, Replay, Truncate};
    let hows = [Drop, Flip, Repeat, Replay, Truncate];
    let tamper = |how| Fault::Tamper { link: 0, reverse: true, how, ms: 8_000 };
    let plan =
        hows.into_iter().zip(0..).fold(story(3), |plan, (how, turn)| plan.with(5 + 10 * turn, tamper(how)));
    plan.holds();
}

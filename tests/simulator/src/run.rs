//! A run from its plan: preparations, unrest, a core that must converge alone, healing, and what must then
//! be so.

use crate::builds::Builds;
use crate::disk::Disk;
use crate::oracle::{Oracle, Violation};
use crate::plan::{FaultClass, Plan};
use crate::random::Domain;
use crate::world::{Happening, Log, Tally, World};

/// How long the preparations may take.
const PREPARE_US: u64 = 600_000_000;
/// How long converging may take once the network works: several rounds of the longest pause that replicas
/// make between trying one parent and the next.
const CONVERGE_US: u64 = 900_000_000;
/// How long replicas with a fork among them are given to find it.
const FORK_US: u64 = 120_000_000;
/// How long it takes until replicas have announced what they have applied and forgotten what they may.
const FORGET_US: u64 = 10_000_000;
/// How long replicas are listened to at the end.
const SILENCE_US: u64 = 3_600_000_000;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was done.
    pub tally: Tally,
    /// A checksum over everything that happened, in order.
    pub trace: u64,
    /// The first rule that was broken, if one was.
    pub violation: Option<Violation>,
}

/// Carries a plan out.
pub fn run(plan: &Plan) -> Outcome {
    run_telling(plan, None)
}

/// Carries a plan out and tells `log` of everything that happens, a line at a time.
pub fn run_logged(plan: &Plan, log: fn(&str)) -> Outcome {
    run_telling(plan, Some(log))
}

fn run_telling(plan: &Plan, log: Option<Log>) -> Outcome {
    #[cfg(feature = "stand-in-signatures")]
    comity_engine::wire::use_stand_in_signatures(!plan.signed);
    let mut world = World::new(plan.clone(), log);
    let violation = world.live().err();
    world.tally.virtual_us = world.now;
    world.tally.replica_us = world.now * world.nodes.len() as u64;
    Outcome { tally: world.tally, trace: world.trace, violation }
}

impl World {
    fn live(&mut self) -> Result<(), Violation> {
        self.found()?;
        self.unrest()?;
        self.converge_core()?;
        self.heal()?;
        self.audit()?;
        self.calm()?;
        self.audit()?;
        self.decay()?;
        // Nobody who still compares is ever silent.
        self.audits_over = true;
        self.is_upgraded = true;
        self.restart_all()?;
        self.audit()?;
        self.forget()?;
        self.listen()
    }

    fn found(&mut self) -> Result<(), Violation> {
        for clock in self.plan.clocks.clone() {
            let disk =
                if self.plan.sectors { Disk::of_sectors() } else { Ok(Disk::new(self.keeps_history())) };
            let disk = disk.map_err(|error| self.violation(Oracle::Robustness, error))?;
            self.add_node(clock, disk);
        }
        for node in 0..self.nodes.len() {
            self.start(node)?;
        }
        for (a, b) in self.plan.links.clone() {
            self.add_link(a, b);
        }
        for members in self.plan.spaces.clone() {
            for node in &members[1..] {
                self.add_link(members[0], *node);
            }
        }
        self.prepare(PREPARE_US)?;
        self.bare();
        self.origin = self.now;
        Ok(())
    }

    fn unrest(&mut self) -> Result<(), Violation> {
        for index in 0..self.plan.events.len() {
            let at = self.origin + self.plan.events[index].at_us;
            self.at(at, Happening::Planned(index));
        }
        self.run_until(self.origin + self.plan.chaos_us)
    }

    /// Some replicas get a working network among themselves and none to the others. They must converge.
    fn converge_core(&mut self) -> Result<(), Violation> {
        let mut dice = self.dice(Domain::Core, 0, 0);
        let core: Vec<usize> = (0..self.nodes.len()).filter(|_| dice.percent(60)).collect();
        let others: Vec<usize> = (0..self.nodes.len()).filter(|node| !core.contains(node)).collect();
        // Those who are connected through others only need not converge yet.
        let linked = |node: &usize| {
            let joins = |ends: &[usize; 2], other| *ends == [*node, other] || *ends == [other, *node];
            core.iter().all(|other| {
                other == node || self.links.iter().any(|link| !link.gone && joins(&link.ends, *other))
            })
        };
        // Who joined again may be known only to somebody who is not among them.
        // And nobody takes over a state from who does not write.
        let has_followers = self.plan.keeping.is_some() && self.plan.has(FaultClass::Members);
        // Nor do those converge who share no version, or cannot be told what is written.
        let are_apart =
            self.plan.builds.as_ref().is_some_and(|builds| builds.have_strangers() || builds.leave_behind());
        let is_unfit = are_apart || core.len() < 2 || self.plan.has(FaultClass::Wipe) || has_followers;
        if is_unfit || !core.iter().all(linked) {
            return Ok(());
        }
        self.heal_network();
        let far = self.now + 2 * CONVERGE_US;
        for a in &core {
            for b in &others {
                self.cut(*a, *b, far);
                self.cut(*b, *a, far);
            }
        }
        for node in &core {
            self.heal_node(*node)?;
        }
        self.converge(&core)
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.heal_network();
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for node in &all {
            self.heal_node(*node)?;
        }
        if self.plan.builds.as_ref().is_some_and(Builds::leave_behind) {
            // Who cannot be told what is written is upgraded.
            self.upgrade_all()?;
        }
        let until = self.now + CONVERGE_US;
        while self.enrolments.iter().any(|enrolment| !enrolment.done) {
            if !self.step(until)? {
                (0..self.truth.spaces.len()).for_each(|space| self.tell(|| self.states(space)));
                let open = self.enrolments.iter().find(|enrolment| !enrolment.done);
                let detail = format!("who lost everything was not let in again: {open:?}");
                return Err(self.violation(Oracle::Liveness, detail));
            }
        }
        self.converge(&all)
    }

    /// Runs until replicas hold the same and nothing is on its way. `O10`.
    pub(crate) fn converge(&mut self, nodes: &[usize]) -> Result<(), Violation> {
        let until = self.now + CONVERGE_US;
        if self.truth.spaces.iter().any(|space| space.forked) {
            // When they have done what they can is not known.
            self.run_until(self.now + FORK_US)?;
        }
        let are_releasing = |world: &Self| nodes.iter().any(|node| world.is_releasing(*node));
        while !(self.is_resting() && self.is_equal(nodes) && !are_releasing(self)) {
            if !self.step(until)? {
                if self.truth.spaces.iter().any(|space| space.forked) {
                    return Ok(());
                }
                let behind: Option<String> =
                    (0..self.truth.spaces.len()).find_map(|space| self.behind(space, nodes));
                let detail = format!("{}; {}", behind.unwrap_or_default(), self.unrest_left());
                return Err(self.violation(Oracle::Liveness, detail));
            }
        }
        Ok(())
    }

    fn restart_all(&mut self) -> Result<(), Violation> {
        for node in 0..self.nodes.len() {
            self.crash(node, 1_000 * (1 + node as u64), true)?;
        }
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.run_until(self.now + 1_000 * (2 + all.len() as u64))?;
        self.converge(&all)
    }

    /// Everybody announces what it has seen removed, and then nothing is left of it.
    fn forget(&mut self) -> Result<(), Violation> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.run_until(self.now + FORGET_US)?;
        self.converge(&all)?;
        self.run_until(self.now + FORGET_US)?;
        self.audit_forgotten()?;
        self.audit()
    }

    /// Nothing more is said once everything is said. `O10`.
    fn listen(&mut self) -> Result<(), Violation> {
        let frames = self.tally.frames;
        self.run_until(self.now + SILENCE_US)?;
        if self.tally.frames > frames && !self.truth.spaces.iter().any(|space| space.forked) {
            let detail =
                format!("{} frames in an hour in which nothing happened", self.tally.frames - frames);
            return Err(self.violation(Oracle::Liveness, detail));
        }
        self.audit_lag()
    }
}

//! Making a failing plan small: fewer classes of faults, fewer replicas and spaces, fewer events, shorter
//! times, no delays; after each step the run must still break the same rule.

use crate::oracle::Violation;
use crate::plan::{Event, Fault, FaultClass, Plan, WallClock, open_at_once, segment_entries};
use crate::run::run;

/// The smallest failing plan that was found, and how it fails. `runs_max` bounds the work.
pub fn shrink(plan: &Plan, violation: &Violation, runs_max: u32) -> (Plan, Violation) {
    let mut search = Search { best: plan.clone(), violation: violation.clone(), runs_left: runs_max };
    for class in FaultClass::ALL {
        search.keep_events(|event| !matches!(event, Event::Fault(fault) if fault.class() == class));
    }
    while search.remove_nodes() | search.remove_spaces() {}
    search.remove_events();
    search.simplify();
    search.remove_events();
    while search.remove_nodes() | search.remove_spaces() {}
    (search.best, search.violation)
}

struct Search {
    best: Plan,
    violation: Violation,
    runs_left: u32,
}

impl Search {
    /// Takes a plan for the best if it breaks the same rule.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        match run(&plan).violation {
            Some(violation) if violation.oracle == self.violation.oracle => {
                (self.best, self.violation) = (plan, violation);
                true
            }
            Some(_) | None => false,
        }
    }

    fn keep_events(&mut self, keep: impl Fn(&Event) -> bool) -> bool {
        let mut plan = self.best.clone();
        plan.events.retain(|planned| keep(&planned.event));
        plan.events.len() < self.best.events.len() && self.try_plan(plan)
    }

    fn remove_nodes(&mut self) -> bool {
        let count = self.best.nodes;
        (0..count).rev().any(|node| without_node(&self.best, node).is_some_and(|plan| self.try_plan(plan)))
    }

    fn remove_spaces(&mut self) -> bool {
        (1..self.best.spaces.len()).rev().any(|space| {
            let plan = without_space(&self.best, space);
            self.try_plan(plan)
        })
    }

    /// Delta debugging (Zeller and Hildebrandt, 2002): ever smaller pieces are left out.
    fn remove_events(&mut self) {
        let mut piece = self.best.events.len().div_ceil(2);
        while piece > 0 {
            let mut from = 0;
            while from < self.best.events.len() {
                let mut plan = self.best.clone();
                let end = (from + piece).min(plan.events.len());
                plan.events.drain(from..end);
                if !self.try_plan(plan) {
                    from += piece;
                }
            }
            piece /= 2;
        }
    }

    fn simplify(&mut self) {
        let steps: [fn(&mut Plan); 12] = [
            |plan| plan.latency_us = (100, 0),
            |plan| plan.sync_us = (50, 50),
            |plan| plan.clocks.fill(WallClock::default()),
            |plan| plan.observed = false,
            |plan| plan.signed = false,
            |plan| plan.calm = 0,
            |plan| plan.bare = false,
            |plan| plan.throttle = None,
            |plan| plan.builds = None,
            |plan| plan.open_at_once = open_at_once(),
            |plan| plan.segment_entries = segment_entries(),
            single_effects,
        ];
        for step in steps {
            let mut plan = self.best.clone();
            step(&mut plan);
            self.try_plan(plan);
        }
        while self.best.chaos_us > 1_000 {
            let mut plan = self.best.clone();
            plan.chaos_us /= 2;
            plan.events.iter_mut().for_each(|planned| planned.at_us /= 2);
            if !self.try_plan(plan) {
                break;
            }
        }
    }
}

/// Transactions of one operation each.
fn single_effects(plan: &mut Plan) {
    for planned in &mut plan.events {
        if let Event::Write(write) = &mut planned.event {
            write.effects.truncate(1);
        }
    }
}

/// The plan without a replica; `None` when the rest would not make one.
fn without_node(plan: &Plan, node: usize) -> Option<Plan> {
    if plan.nodes <= 2 || node >= plan.nodes {
        return None;
    }
    let place = |other: usize| other - usize::from(other > node);
    let mut small = plan.clone();
    small.nodes -= 1;
    small.clocks.remove(node);
    if let Some(builds) = &mut small.builds {
        builds.of.remove(node);
    }
    for members in &mut small.spaces {
        members.retain(|member| *member != node);
        members.iter_mut().for_each(|member| *member = place(*member));
    }
    let kept: Vec<usize> = (0..plan.links.len())
        .filter(|link| plan.links[*link].0 != node && plan.links[*link].1 != node)
        .collect();
    small.links = kept.iter().map(|link| (place(plan.links[*link].0), place(plan.links[*link].1))).collect();
    if small.links.is_empty() || small.spaces.iter().any(Vec::is_empty) {
        return None;
    }
    let link_place = |link: usize| kept.iter().position(|kept| *kept == link);
    small.events.retain_mut(|planned| match &mut planned.event {
        Event::Write(write) => renumber(&mut write.node, node),
        Event::Read(read) => renumber(&mut read.node, node),
        Event::Fault(fault) => {
            let kept = fault.link().is_none_or(|link| link_place(*link).map(|place| *link = place).is_some());
            kept && fault.nodes().into_iter().all(|number| renumber(number, node))
        }
    });
    Some(small)
}

/// Gives a replica its number among the others; `false` when it is the one that goes.
fn renumber(number: &mut usize, gone: usize) -> bool {
    let stays = *number != gone;
    *number -= usize::from(*number > gone);
    stays
}

fn without_space(plan: &Plan, space: usize) -> Plan {
    let mut small = plan.clone();
    small.spaces.remove(space);
    small.events.retain_mut(|planned| match &mut planned.event {
        Event::Write(write) => renumber(&mut write.space, space),
        Event::Read(read) => renumber(&mut read.space, space),
        Event::Fault(fault) => fault.space().is_none_or(|number| renumber(number, space)),
    });
    small
}

impl Fault {
    fn space(&mut self) -> Option<&mut usize> {
        match self {
            Self::Remove { space, .. }
            | Self::Reinstate { space, .. }
            | Self::Demote { space, .. }
            | Self::Leave { space, .. } => Some(space),
            _ => None,
        }
    }

    fn link(&mut self) -> Option<&mut usize> {
        match self {
            Self::Reset { link } | Self::Stall { link, .. } | Self::Tamper { link, .. } => Some(link),
            Self::Cut { .. }
            | Self::Crash { .. }
            | Self::Pause { .. }
            | Self::FailSync { .. }
            | Self::FailCommit { .. }
            | Self::Full { .. }
            | Self::Backup { .. }
            | Self::Restore { .. }
            | Self::Clone { .. }
            | Self::Wipe { .. }
            | Self::Step { .. }
            | Self::Rot { .. }
            | Self::Remove { .. }
            | Self::Reinstate { .. }
            | Self::Demote { .. }
            | Self::Leave { .. } => None,
        }
    }

    fn nodes(&mut self) -> Vec<&mut usize> {
        match self {
            Self::Reset { .. } | Self::Stall { .. } | Self::Tamper { .. } => Vec::new(),
            Self::Cut { from, to, .. } => vec![from, to],
            Self::Crash { node, .. }
            | Self::Pause { node, .. }
            | Self::FailSync { node }
            | Self::FailCommit { node }
            | Self::Full { node, .. }
            | Self::Backup { node }
            | Self::Restore { node, .. }
            | Self::Clone { node }
            | Self::Wipe { node, .. }
            | Self::Step { node, .. }
            | Self::Rot { node, .. }
            | Self::Remove { node, .. }
            | Self::Reinstate { node, .. }
            | Self::Demote { node, .. }
            | Self::Leave { node, .. } => vec![node],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::menu::{Scale, plan};

    #[test]
    fn what_is_left_of_a_plan_is_a_plan() {
        for seed in 0..60 {
            let whole = plan(seed, Scale { operations_max: 60, ..Scale::default() });
            for node in 0..whole.nodes {
                let Some(small) = without_node(&whole, node) else { continue };
                assert_eq!(small.clocks.len(), small.nodes);
                assert!(small.spaces.iter().flatten().all(|member| *member < small.nodes));
                assert!(small.links.iter().all(|(a, b)| a < b && *b < small.nodes));
                for planned in &small.events {
                    if let Event::Fault(mut fault) = planned.event {
                        assert!(fault.link().is_none_or(|link| *link < small.links.len()));
                        assert!(fault.nodes().into_iter().all(|node| *node < small.nodes));
                    }
                }
            }
        }
    }
}

//! Looking at everything at once: after every start, and when all is calm.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use comity_crdts::{Dot, Value};
use comity_engine::{JournalReason, LaneStatus, SpaceStatus};

use crate::builds::Build;
use crate::judge::name;
use crate::oracle::{Oracle, Violation};
use crate::plan::{FaultClass, Object};
use crate::truth::{Counts, WriteRef, merge};
use crate::world::World;

impl World {
    pub(crate) fn status(&self, node: usize, space: usize) -> Option<SpaceStatus> {
        let status = self.nodes[node].engine.as_ref()?.status();
        status.spaces.into_iter().find(|status| status.space == self.truth.ids[space])
    }

    /// A process started: what its core says it has is what its log has, and readers see that. `O11`, `O5`.
    pub(crate) fn audit_start(&mut self, node: usize) -> Result<(), Violation> {
        for space in 0..self.truth.spaces.len() {
            self.audit_prefix(node, space)?;
            self.audit_objects(node, space)?;
        }
        Ok(())
    }

    fn audit_prefix(&self, node: usize, space: usize) -> Result<(), Violation> {
        let status = self.status(node, space).filter(|_| !self.is_installing(node, space));
        let Some(status) = status else { return Ok(()) };
        let held = &self.nodes[node].held[space];
        let shown = comity_engine::frontier(self.nodes[node].disk.view().as_ref(), &self.truth.ids[space]);
        let shown = shown.map_err(|error| self.violation(Oracle::Prefix, error.to_string()))?;
        for (frontier, counts, what) in [
            (&status.frontier, &held.applied, "applied"),
            (&status.durable, &held.durable, "durable"),
            (&shown, &held.durable, "shown"),
        ] {
            for (lane, truth) in self.truth.spaces[space].lanes.iter().enumerate() {
                let (says, has) = (frontier.at(&truth.id), counts.get(lane).copied().unwrap_or(0));
                // What was made by who was put back unnoticed is another branch, and need not be part of a state that is taken
                // over.
                let may_lack =
                    (self.may_fork || self.truth.spaces[space].forked) && !held.installed.is_empty();
                if says != u64::from(has) && !(may_lack && says < u64::from(has)) {
                    let detail =
                        format!("replica {node} says {says} entries of a lane are {what}, and {has} are");
                    return Err(self.violation(Oracle::Prefix, detail));
                }
            }
        }
        Ok(())
    }

    fn audit_objects(&mut self, node: usize, space: usize) -> Result<(), Violation> {
        let objects = self.nodes[node].held[space].shown.objects();
        objects.into_iter().try_for_each(|object| self.compare(node, space, object))
    }

    /// What the members of a space that are among `nodes` hold together.
    fn union(&self, space: usize, nodes: &[usize]) -> Counts {
        let mut union = Counts::new();
        for node in self.taking_part(space).into_iter().filter(|node| nodes.contains(node)) {
            merge(&mut union, &self.nodes[node].held[space].applied);
        }
        union
    }

    /// Whether the members of every space that are among `nodes` hold the same, durably.
    pub(crate) fn is_equal(&self, nodes: &[usize]) -> bool {
        (0..self.truth.spaces.len()).all(|space| self.behind(space, nodes).is_none())
    }

    /// A replica that holds less than others, and how.
    pub(crate) fn behind(&self, space: usize, nodes: &[usize]) -> Option<String> {
        if self.truth.spaces[space].forked {
            return None;
        }
        let union = self.union(space, nodes);
        let members = self.taking_part(space).into_iter().filter(|node| nodes.contains(node));
        let equal = |counts: &Counts| {
            union.iter().enumerate().all(|(lane, count)| counts.get(lane).copied().unwrap_or(0) == *count)
        };
        members.into_iter().find_map(|node: usize| {
            let held = &self.nodes[node].held[space];
            let detail = || {
                self.tell(|| self.states(space));
                format!("replica {node} holds {:?} of space {space}, all hold {union:?}", held.durable)
            };
            (!equal(&held.applied) || !equal(&held.durable)).then(detail)
        })
    }

    /// Whether a replica wants the state of another one, and says why it takes over none.
    fn waits_in_vain(&self, node: usize, space: usize) -> bool {
        let bootstrap = self.status(node, space).and_then(|status| status.bootstrap);
        bootstrap.is_some_and(|bootstrap| bootstrap.passes > 8 && bootstrap.fault.is_some())
    }

    /// What every replica says of a space.
    pub(crate) fn states(&self, space: usize) -> String {
        let mut states = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let _ = write!(states, "\n  {number} is {:?}: ", node.replica);
            let Some(status) = self.status(number, space) else { continue };
            let _ = write!(
                states,
                "{:?}, {:?}, peers {:?}, members {:?}",
                status.digest, status.bootstrap, status.peers, status.members
            );
            for lane in status.lanes {
                let _ = write!(states, "\n    {lane:?}");
            }
        }
        states
    }

    /// All is calm: everything is where it must be, and looks the same.
    pub(crate) fn audit(&mut self) -> Result<(), Violation> {
        for space in 0..self.truth.spaces.len() {
            self.audit_losses(space)?;
            let all: Vec<usize> = self.members[space].iter().copied().collect();
            let members = self.taking_part(space);
            for node in &all {
                self.audit_prefix(*node, space)?;
                self.audit_objects(*node, space)?;
                self.audit_journal(*node, space)?;
                self.audit_carried_journal(*node, space)?;
                self.audit_set_aside(*node, space)?;
            }
            if self.truth.spaces[space].forked {
                self.audit_fork(space)?;
            } else {
                self.audit_equality(space, &members)?;
            }
        }
        Ok(())
    }

    /// Everything acknowledged whose disk was not lost is everywhere. `O5`.
    fn audit_losses(&self, space: usize) -> Result<(), Violation> {
        if self.truth.spaces[space].forked {
            return Ok(());
        }
        for truth in
            self.truth.spaces[space].lanes.iter().flat_map(|lane| &lane.entries).map(|(write, _)| write)
        {
            let write = self.truth.write(*truth);
            let lacks = |node: &&usize| self.nodes[**node].held[space].durable(write.lane) < write.lsn;
            if write.acknowledged
                && !write.destroyed
                // What was written by who was removed need not have reached anybody.
                && !self.is_over(space, write.lane)
                && let Some(node) = self.taking_part(space).iter().find(lacks)
            {
                let detail = format!("write {truth} was acknowledged and is not at replica {node}");
                return Err(self.violation(Oracle::Acknowledgement, detail));
            }
        }
        Ok(())
    }

    /// What a replica's own writes removed two or more at a time is in its journal.
    fn audit_journal(&self, node: usize, space: usize) -> Result<(), Violation> {
        let of_space = self.nodes[node].set_aside.iter().filter(|aside| aside.space == space);
        let kept = of_space.filter(|aside| {
            let write = self.truth.write(aside.write);
            let made = self.truth.spaces[space].lanes[write.lane].entries.get(write.lsn as usize - 1);
            // What a crash undid was never done.
            let is_made = made.is_some_and(|(made, _)| *made == aside.write);
            is_made && self.nodes[node].held[space].durable(write.lane) >= write.lsn
        });
        let must: Vec<i64> = kept.flat_map(|aside| aside.values.iter().copied()).collect();
        if must.is_empty() || self.truth.spaces[space].forked {
            return Ok(());
        }
        let view = self.nodes[node].disk.view();
        let journal = comity_engine::journal(view.as_ref(), &self.truth.ids[space], usize::MAX);
        let journal = journal.map_err(|error| self.violation(Oracle::Journal, error.to_string()))?;
        let is = |value: &i64| {
            journal.iter().any(|entry| matches!(entry.value, Value::I64(number) if number == *value))
        };
        match must.iter().find(|value| !is(value)) {
            None => Ok(()),
            Some(value) => {
                let detail =
                    format!("value {value} was set aside at replica {node} and is not in its journal");
                Err(self.violation(Oracle::Journal, detail))
            }
        }
    }

    /// What a space's journal at a replica has: each value with the operation that set it aside.
    fn journalled(&self, node: usize, space: usize) -> Result<BTreeSet<(i64, Dot)>, Violation> {
        let view = self.nodes[node].disk.view();
        let journal = comity_engine::journal(view.as_ref(), &self.truth.ids[space], usize::MAX);
        let journal = journal.map_err(|error| self.violation(Oracle::Journal, error.to_string()))?;
        let value = |entry: &comity_engine::JournalEntry| match entry.value {
            Value::I64(number) => Some((number, entry.by)),
            _ => None,
        };
        Ok(journal.iter().filter_map(value).collect())
    }

    /// What went in the order in which a replica applied everything is in its journal.
    fn audit_set_aside(&self, node: usize, space: usize) -> Result<(), Violation> {
        let held = &self.nodes[node].held[space];
        // What an operation does to a row that is not what was written need not be what it had to do.
        let may_miss = !held.installed.is_empty()
            || self.truth.spaces[space].forked
            || self.plan.builds.is_some()
            || self.tally.decayed > 0;
        let must: Vec<_> =
            held.shown.aside().iter().filter(|(object, _)| !self.is_recalled(*object)).collect();
        if may_miss || must.is_empty() {
            return Ok(());
        }
        let view = self.nodes[node].disk.view();
        let journal = comity_engine::journal(view.as_ref(), &self.truth.ids[space], usize::MAX);
        let journal = journal.map_err(|error| self.violation(Oracle::Journal, error.to_string()))?;
        let mut values = BTreeSet::new();
        let mut changes: BTreeMap<&str, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let mut additions = BTreeSet::new();
        for entry in &journal {
            let key = entry.location.object.key();
            match (&entry.reason, &entry.value) {
                (JournalReason::DocumentRemoved, Value::Bytes(change)) => {
                    changes.entry(key).or_default().insert(change.clone());
                }
                (JournalReason::RemovalWon, value) => {
                    additions.insert((key, value.clone(), self.write_of(space, &entry.dot)));
                }
                (_, Value::I64(number)) => {
                    values.insert((key, *number));
                }
                _ => {}
            }
        }
        let mut edits: BTreeMap<String, usize> = BTreeMap::new();
        for (object, (write, index)) in must {
            let key = name(*object);
            let is_there = match object {
                Object::Document(_) => {
                    let count = edits.entry(key.clone()).or_default();
                    *count += 1;
                    *count <= changes.get(key.as_str()).map_or(0, BTreeSet::len)
                }
                Object::RwElement(_, element) => {
                    additions.contains(&(key.as_str(), Value::I64((*element).into()), Some(*write)))
                }
                Object::DwFlag(_) => additions.contains(&(key.as_str(), Value::Bool(true), Some(*write))),
                _ => values.contains(&(key.as_str(), self.value(*write, *index))),
            };
            if !is_there {
                let detail = format!(
                    "what write {write} did to {key} is not shown at replica {node} and not in its journal"
                );
                return Err(self.violation(Oracle::Journal, detail));
            }
        }
        Ok(())
    }

    /// Whether what is known of additions to an object may be forgotten before everybody has seen them.
    fn is_recalled(&self, object: Object) -> bool {
        self.plan.is_copied() && matches!(object, Object::RwElement(..) | Object::DwFlag(_))
    }

    /// The write that made an operation.
    fn write_of(&self, space: usize, dot: &Dot) -> Option<WriteRef> {
        let truth = &self.truth.spaces[space];
        let lane = truth.numbers.get(&dot.origin).copied()?;
        let mut changes =
            truth.lanes[lane].entries.iter().filter(|(write, _)| !self.truth.write(*write).silent);
        changes.nth(dot.seq as usize - 1).map(|(write, _)| *write)
    }

    /// What everybody else has in the journal, of what came with a snapshot, came with its journal.
    fn audit_carried_journal(&self, node: usize, space: usize) -> Result<(), Violation> {
        let (truth, held) = (&self.truth.spaces[space], &self.nodes[node].held[space]);
        // What a source had that was put back since, or took over a state itself, nobody knows.
        let is_replaced =
            |other: &usize| *other != node && !self.nodes[*other].held[space].installed.is_empty();
        // Who holds something has not put aside yet what that replaces.
        let is_newest = |node: &crate::node::Node| node.build == Build::NEWEST;
        let are_old = self.plan.builds.is_some() && !self.nodes.iter().all(is_newest);
        let are_replaced = are_old || self.plan.is_copied() || self.members[space].iter().any(is_replaced);
        if held.installed.is_empty() || truth.forked || are_replaced {
            return Ok(());
        }
        let mut of_all: Option<BTreeSet<(i64, Dot)>> = None;
        // Former members too: one of them may have been the source, and have applied things in another order.
        for other in self.members[space].iter().copied().filter(|other| *other != node) {
            let journalled = self.journalled(other, space)?;
            of_all = Some(of_all.map_or(journalled.clone(), |all| &all & &journalled));
        }
        let is_carried = |(_, by): &&(i64, Dot)| {
            let Some(lane) = truth.numbers.get(&by.origin).copied() else { return false };
            let changes = truth.lanes[lane].entries.iter().zip(1..);
            let mut changes = changes.filter(|((write, _), _)| !self.truth.write(*write).silent);
            let lsn = changes.nth(by.seq as usize - 1).map_or(u32::MAX, |(_, lsn)| lsn);
            held.installed.get(lane).is_some_and(|count| *count >= lsn)
        };
        let own = self.journalled(node, space)?;
        let of_all = of_all.unwrap_or_default();
        match of_all.iter().filter(is_carried).find(|aside| !own.contains(aside)) {
            None => Ok(()),
            Some((value, _)) => {
                let detail = format!("value {value} is in every journal but that of replica {node}");
                Err(self.violation(Oracle::Journal, detail))
            }
        }
    }

    fn audit_equality(&self, space: usize, members: &[usize]) -> Result<(), Violation> {
        let mut first: Option<(usize, SpaceStatus)> = None;
        for node in members {
            let Some(status) = self.status(*node, space) else {
                let detail = format!("replica {node} does not hold space {space}");
                return Err(self.violation(Oracle::Convergence, detail));
            };
            if let Some(lane) = status
                .lanes
                .iter()
                .find(|lane| lane.staged > 0 && !self.is_orphan(space, lane) && lane.owner_role.is_some())
            {
                self.tell(|| self.states(space));
                let detail = format!("replica {node} keeps {} entries staged at rest", lane.staged);
                return Err(self.violation(Oracle::Bounds, detail));
            }
            let starts = self.nodes.iter().map(|node| node.boot as usize + 1).sum::<usize>();
            if status.lanes.len() > starts * 2 {
                let detail = format!("replica {node} has {} lanes of {starts} starts", status.lanes.len());
                return Err(self.violation(Oracle::Bounds, detail));
            }
            match &first {
                None => first = Some((*node, status)),
                Some((other, status_of_other)) => {
                    let same = (status.digest == status_of_other.digest
                        || self.may_differ(space, [(*node, &status), (*other, status_of_other)]))
                        && status.members == status_of_other.members;
                    if !same || status.frontier != status_of_other.frontier {
                        let detail = format!("replicas {other} and {node} differ in space {space}");
                        return Err(self.violation(Oracle::Convergence, detail));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the states of two replicas may differ that have applied the same: where one of them holds what the other
    /// has carried out, or took over from somebody who had.
    fn may_differ(&self, space: usize, pair: [(usize, &SpaceStatus); 2]) -> bool {
        let took_over = |node: usize| !self.nodes[node].held[space].installed.is_empty();
        let holds = pair.iter().any(|(_, status)| status.held > 0);
        let [knows, other_knows] = pair.map(|(node, _)| self.nodes[node].build.knows);
        holds
            && (knows
                || other_knows
                || pair.iter().any(|(node, _)| took_over(*node))
                || self.plan.is_copied())
    }

    /// What everybody has seen removed has left nothing behind, unless somebody's lane stands still.
    pub(crate) fn audit_forgotten(&self) -> Result<(), Violation> {
        if self.plan.keeping.is_some() && self.plan.has(FaultClass::Members) {
            // Where logs are shortened, who does not write any more holds it up.
            return Ok(());
        }
        let is_whole = |space: &usize| !self.truth.spaces[*space].forked;
        for space in (0..self.truth.spaces.len()).filter(is_whole) {
            for node in &self.taking_part(space) {
                let Some(status) = self.status(*node, space) else { continue };
                let rows =
                    comity_engine::unstable_rows(self.nodes[*node].disk.view().as_ref(), &status.space);
                let rows = rows.map_err(|error| self.violation(Oracle::Forgetting, error.to_string()))?;
                // Lanes that their owners left stay where they are.
                let is_left = |lane: &LaneStatus| {
                    lane.applied > 0
                        && lane.owner_role.is_some()
                        && !self.nodes.iter().any(|owner| {
                            let engine = owner.engine.as_ref().map(comity_engine::Engine::status);
                            let spaces = engine.map(|status| status.spaces).unwrap_or_default();
                            let own =
                                spaces.into_iter().filter(|own| own.space == status.space && own.confirmed);
                            own.flat_map(|own| own.lanes).any(|own| own.is_own && own.lane == lane.lane)
                        })
                };
                let is_stuck = |lane: &LaneStatus| lane.owner_role.is_none() && lane.staged > 0;
                if rows > 0 && !status.lanes.iter().any(|lane| is_left(lane) || is_stuck(lane)) {
                    self.tell(|| self.states(space));
                    let detail = format!(
                        "replica {node} keeps {rows} rows in space {space}; it waits for {:?}",
                        status.stalled_by
                    );
                    return Err(self.violation(Oracle::Forgetting, detail));
                }
            }
        }
        Ok(())
    }

    /// Whether what a lane has staged was lost by its author, with what it waits for.
    fn is_orphan(&self, space: usize, lane: &LaneStatus) -> bool {
        let truth = &self.truth.spaces[space];
        let number = truth.numbers.get(&lane.lane);
        let next = number.and_then(|number| truth.lanes[*number].entries.get(lane.applied as usize));
        next.is_some_and(|(write, _)| self.truth.write(*write).destroyed)
    }

    /// A lane with two contents is reported by somebody, unless one of them is gone: nothing is lost silently.
    fn audit_fork(&self, space: usize) -> Result<(), Violation> {
        let members: Vec<usize> = self.members[space].iter().copied().collect();
        let is_reported = self.plan.is_copied() && self.nodes.iter().any(|node| node.reported);
        // Where logs were shortened on both branches, neither can show the other what it holds, and both say what they lack.
        let waits = members.iter().any(|node| self.waits_in_vain(*node, space));
        if is_reported || waits || self.audit_equality(space, &members).is_ok() {
            return Ok(());
        }
        self.tell(|| self.states(space));
        Err(self.violation(Oracle::LossReport, format!("nobody reports the fork in space {space}")))
    }
}

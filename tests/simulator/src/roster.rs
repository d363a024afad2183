//! Members that come and go: what founders say about them and members about themselves, and who takes part by that.

use comity_engine::{Command, Input, RequestId, Role};

use crate::node::Waiting;
use crate::oracle::{Oracle, Violation};
use crate::plan::{Fault, FaultClass};
use crate::truth::WriteRef;
use crate::world::World;

/// Something that a founder said about a replica, or a replica about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement {
    space: usize,
    node: usize,
    write: WriteRef,
    /// Whether it removes the replica.
    removes: bool,
}

impl World {
    /// Has a founder remove a member, let it in again or demote it, or a member leave.
    pub(crate) fn change_members(&mut self, fault: Fault) -> Result<(), Violation> {
        let (space, node, who, role) = match fault {
            Fault::Remove { space, node } => (space, node, self.plan.spaces[space][0], None),
            Fault::Reinstate { space, node } => (space, node, self.plan.spaces[space][0], Some(Role::Writer)),
            Fault::Demote { space, node } => (space, node, self.plan.spaces[space][0], Some(Role::Follower)),
            Fault::Leave { space, node } => (space, node, node, None),
            _ => return Ok(()),
        };
        let is_ready = self.nodes[who].is_up() && self.nodes[who].paused_until <= self.now;
        let is_other = self.members[space].contains(&node) && node != self.plan.spaces[space][0];
        if !is_ready || !is_other || self.left.contains(&(space, node)) {
            return Ok(());
        }
        let (id, replica) = (self.truth.ids[space], self.nodes[node].replica);
        let command = match (fault, role) {
            (Fault::Leave { .. }, _) => Command::LeaveSpace { space: id },
            (_, Some(role)) => Command::Grant { space: id, replica, role },
            (_, None) => Command::Revoke { space: id, replica },
        };
        let request = RequestId(self.request(who, Waiting::Nothing));
        let made = self.truth.writes.len() as WriteRef;
        self.input(who, Input::Command { request, command })?;
        if matches!(fault, Fault::Leave { .. }) {
            self.left.insert((space, node));
        }
        // A core that was asked about members makes one change set at most.
        let said = (made..self.truth.writes.len() as WriteRef).find(|write| !self.truth.write(*write).silent);
        let statement = said.map(|write| Statement { space, node, write, removes: role.is_none() });
        self.statements.extend(statement);
        if role.is_some() {
            self.try_links_again(|ends| ends.contains(&node));
        }
        Ok(())
    }

    /// Whether a statement was made and is not lost.
    fn stands(&self, statement: &Statement) -> bool {
        let truth = self.truth.write(statement.write);
        let entries = &self.truth.spaces[statement.space].lanes[truth.lane].entries;
        entries.get(truth.lsn as usize - 1).is_some_and(|(write, _)| *write == statement.write)
    }

    /// Nothing of what was written by somebody who knew of a removal reaches who was removed. `O14`.
    pub(crate) fn judge_reach(&self, node: usize, space: usize, write: WriteRef) -> Result<(), Violation> {
        let is_about = |statement: &&Statement| (statement.space, statement.node) == (space, node);
        let Some(last) = self.statements.iter().rev().find(is_about).filter(|last| last.removes) else {
            return Ok(());
        };
        let truth = self.truth.write(write);
        let is_own = self.truth.spaces[space].lanes[truth.lane].owner == self.nodes[node].replica;
        let knew = write == last.write || self.truth.saw(truth, last.write);
        if knew && !is_own && self.stands(last) {
            let detail = format!(
                "write {write}, which follows the removal {} of replica {node} from space {space}, reaches it",
                last.write
            );
            return Err(self.violation(Oracle::Isolation, detail));
        }
        Ok(())
    }

    /// Who is to hold the same of a space in the end: all who may hold it, but those who have left or were removed, as
    /// the founder has it.
    pub(crate) fn taking_part(&self, space: usize) -> Vec<usize> {
        let all = self.members[space].iter().copied();
        if !self.plan.has(FaultClass::Members) {
            return all.collect();
        }
        let founder = self.plan.spaces[space][0];
        let view = self.nodes[founder].disk.view();
        let listed = comity_engine::members(view.as_ref(), &self.truth.ids[space]).unwrap_or_default();
        let is_listed = |node: &usize| {
            let replica = self.nodes[*node].replica;
            !self.left.contains(&(space, *node)) && listed.iter().any(|(member, _)| *member == replica)
        };
        all.filter(is_listed).collect()
    }

    /// Whether the owner of a lane takes no part in its space any more.
    pub(crate) fn is_over(&self, space: usize, lane: usize) -> bool {
        let maker = self.truth.spaces[space].lanes[lane].maker;
        self.plan.has(FaultClass::Members) && !self.taking_part(space).contains(&maker)
    }
}

//! Founding spaces and letting replicas in, as their owners would: ask for an invitation, use it, and ask
//! again when nothing came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Command, Input, RequestId, Role};

use crate::node::Waiting;
use crate::oracle::{Oracle, Violation};
use crate::random::Domain;
use crate::world::{Happening, World};

/// How long a replica waits to be let in before it asks again.
const AGAIN_US: u64 = 5_000_000;

/// A replica that is to become a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enrolment {
    pub(crate) node: usize,
    pub(crate) space: usize,
    founder: usize,
    pub(crate) done: bool,
}

impl World {
    /// Founds the spaces of the plan and lets everybody in; ends when all are members.
    pub(crate) fn prepare(&mut self, until: u64) -> Result<(), Violation> {
        for space in self.plan.spaces.clone() {
            let founder = space[0];
            let request = RequestId(self.request(founder, Waiting::Space));
            let founded = self.truth.ids.len();
            let command = Command::CreateSpace { name: format!("space {founded}") };
            let nonce = self.fresh(founder);
            self.input(founder, Input::Command { request, command })?;
            while self.truth.ids.len() == founded {
                if !self.step(until)? {
                    return Err(self.violation(Oracle::Liveness, format!("space {founded} was not founded")));
                }
            }
            let (id, replica) = (self.truth.ids[founded], self.nodes[founder].replica);
            self.truth.spaces[founded].first = Some(OriginId::derive(&id, &replica, &nonce));
            self.members.push(space.iter().copied().collect::<BTreeSet<usize>>());
            for node in &space[1..] {
                self.enrol_in(*node, founded);
            }
            for node in (0..self.nodes.len()).filter(|node| !space.contains(node)) {
                self.intrude(node, founded)?;
            }
        }
        while self.enrolments.iter().any(|enrolment| !enrolment.done) {
            if !self.step(until)? {
                return Err(self.violation(Oracle::Liveness, "not everybody was let in"));
            }
        }
        Ok(())
    }

    pub(crate) fn founded(&mut self, _node: usize, space: SpaceId) {
        self.truth.add_space(space);
        for node in &mut self.nodes {
            node.held.push(crate::truth::Held::default());
        }
    }

    /// A replica that nobody invited asks for a space, with a secret of its own making. `O14` sees what it gets.
    fn intrude(&mut self, node: usize, space: usize) -> Result<(), Violation> {
        let mut dice = self.dice(Domain::Menu, 1 + node as u64, space as u64);
        if !dice.percent(30) {
            return Ok(());
        }
        let inviter = self.nodes[self.plan.spaces[space][0]].replica;
        let request = RequestId(self.request(node, Waiting::Nothing));
        let command = Command::JoinSpace { space: self.truth.ids[space], inviter, secret: Some([0; 16]) };
        self.input(node, Input::Command { request, command })
    }

    fn enrol_in(&mut self, node: usize, space: usize) {
        let founder = self.plan.spaces[space][0];
        self.enrolments.push(Enrolment { node, space, founder, done: false });
        self.at(self.now, Happening::Enrol { enrolment: self.enrolments.len() - 1 });
    }

    /// A replica that lost everything joins again.
    pub(crate) fn enrol_again(&mut self, node: usize) {
        for space in 0..self.plan.spaces.len() {
            if self.plan.spaces[space].contains(&node) {
                self.add_link(self.plan.spaces[space][0], node);
                self.enrol_in(node, space);
            }
        }
    }

    /// Whether `node` is a member as `witness` sees it.
    fn is_member(&self, witness: usize, node: usize, space: usize) -> bool {
        let replica = self.nodes[node].replica;
        let members =
            comity_engine::members(self.nodes[witness].disk.view().as_ref(), &self.truth.ids[space]);
        members.is_ok_and(|members| members.iter().any(|(member, _)| *member == replica))
    }

    /// A founder may have forgotten whom it let in, and a member that it was.
    pub(crate) fn review_enrolments(&mut self, forgetful: usize) {
        for enrolment in 0..self.enrolments.len() {
            let of = &mut self.enrolments[enrolment];
            if (of.founder == forgetful || of.node == forgetful) && of.done {
                of.done = false;
                self.at(self.now + AGAIN_US, Happening::Enrol { enrolment });
            }
        }
    }

    /// Asks the founder for an invitation, unless the replica is in.
    pub(crate) fn enrol(&mut self, enrolment: usize) -> Result<(), Violation> {
        let Enrolment { node, space, founder, .. } = self.enrolments[enrolment];
        let is_up = self.nodes[node].is_up() && self.nodes[founder].is_up();
        if is_up && self.is_member(node, node, space) && self.is_member(founder, node, space) {
            self.enrolments[enrolment].done = true;
            return Ok(());
        }
        self.at(self.now + AGAIN_US, Happening::Enrol { enrolment });
        let usable = |node: usize| self.nodes[node].is_up() && self.nodes[node].paused_until <= self.now;
        if !usable(founder) || !usable(node) {
            return Ok(());
        }
        let request = RequestId(self.request(founder, Waiting::Invitation { enrolment }));
        let valid_for = Duration::from_secs(3_600);
        let command = Command::Invite { space: self.truth.ids[space], role: Role::Writer, valid_for };
        self.input(founder, Input::Command { request, command })
    }

    /// The founder made an invitation; the replica uses it.
    pub(crate) fn invited(&mut self, enrolment: usize, secret: [u8; 16]) -> Result<(), Violation> {
        let Enrolment { node, space, founder, .. } = self.enrolments[enrolment];
        let inviter = self.nodes[founder].replica;
        if !self.nodes[node].is_up() {
            return Ok(());
        }
        let request = RequestId(self.request(node, Waiting::Nothing));
        let space = self.truth.ids[space];
        let command = Command::JoinSpace { space, inviter, secret: Some(secret) };
        self.input(node, Input::Command { request, command })
    }
}

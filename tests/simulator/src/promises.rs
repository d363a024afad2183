//! What clients ask for beyond one replica: writes that are repeated under an operation id, and reads that show what
//! others have.

use std::collections::BTreeMap;

use comity_crdts::{Frontier, ReplicaId};
use comity_engine::{Acknowledgement, Command, Input, OperationId, RequestId, Role, Token, Whom};

use crate::clients::PATIENCE;
use crate::node::Waiting;
use crate::oracle::{Oracle, Violation};
use crate::plan::{Event, FaultClass, Freshness, Write};
use crate::truth::{Counts, WriteRef, covers};
use crate::world::{Happening, World};

/// What was done under one operation id.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Where it was tried first.
    node: usize,
    /// What the client was told of where it is, once it was told anything.
    token: Frontier,
    /// The change sets that were made under it.
    writes: Vec<WriteRef>,
}

/// Operations by their number.
pub(crate) type Operations = BTreeMap<u32, Operation>;

/// What each replica held durably when a read began.
pub(crate) type Before = Vec<(ReplicaId, Counts)>;

/// The id of an operation.
pub(crate) fn id_of(operation: u32) -> OperationId {
    OperationId::named(&operation.to_be_bytes()).expect("four bytes are a name")
}

impl World {
    /// What a client presents before it makes a write again: nothing where it tried first, and elsewhere what it was
    /// told then. `None` when it was told nothing: it does not try elsewhere.
    pub(crate) fn presented(&self, node: usize, operation: Option<u32>) -> Option<Frontier> {
        let known = operation.and_then(|operation| self.operations.get(&operation));
        match known {
            Some(known) if known.node != node && known.token.is_empty() => None,
            Some(known) if known.node != node => Some(known.token.clone()),
            _ => Some(Frontier::new()),
        }
    }

    /// Notes where an operation is tried.
    pub(crate) fn try_operation(&mut self, node: usize, write: &Write) {
        if let Some(operation) = write.operation {
            let first = Operation { node, token: Frontier::new(), writes: Vec::new() };
            self.operations.entry(operation).or_insert(first);
        }
    }

    /// Of the change sets made under an operation id, those that a replica holds.
    fn held_writes(&self, node: usize, space: usize, operation: u32) -> Vec<WriteRef> {
        let made = self.operations.get(&operation).map_or(&[][..], |operation| &operation.writes);
        let is_held = |write: &&WriteRef| {
            let truth = self.truth.write(**write);
            let entry = self.truth.spaces[space].lanes[truth.lane].entries.get(truth.lsn as usize - 1);
            // Who was put back unnoticed may have written something else in its place.
            let place = (space, truth.lane, truth.lsn.into());
            let has_two = self.truth.alternates.keys().any(|(s, lane, lsn, _)| (*s, *lane, *lsn) == place);
            let is_it = entry.is_some_and(|(there, _)| there == *write) && !has_two;
            is_it && self.nodes[node].held[space].applied(truth.lane) >= truth.lsn
        };
        made.iter().filter(is_held).copied().collect()
    }

    /// A write was made, perhaps under an operation id: the replica must not have held it before.
    pub(crate) fn note_made(
        &mut self,
        node: usize,
        write: &Write,
        own: Option<WriteRef>,
    ) -> Result<(), Violation> {
        let (Some(operation), Some(own)) = (write.operation, own) else { return Ok(()) };
        let place = |write: &WriteRef| (self.truth.write(*write).lane, self.truth.write(*write).lsn);
        // Who was put back unnoticed may write another entry in the place of the one it forgot.
        let mut before = self.held_writes(node, write.space, operation);
        before.retain(|before| place(before) != place(&own));
        // An id is remembered for a day by the wall clock, which jumps.
        if let Some(before) = before.first().filter(|_| !self.plan.has(FaultClass::Clock)) {
            let detail =
                format!("replica {node} makes write {own}, and has write {before} under the same id");
            return Err(self.violation(Oracle::Operations, detail));
        }
        if let Some(operation) = self.operations.get_mut(&operation) {
            operation.writes.push(own);
        }
        Ok(())
    }

    /// A write was not made because it had been: the replica must hold it. Returns it, if it is the only one.
    pub(crate) fn note_repeated(&self, node: usize, write: &Write) -> Result<Option<WriteRef>, Violation> {
        let Some(operation) = write.operation else {
            let detail = format!("replica {node} takes a write without an id for a repetition");
            return Err(self.violation(Oracle::Operations, detail));
        };
        let held = self.held_writes(node, write.space, operation);
        let may_fork = self.may_fork || self.plan.has(FaultClass::Clone);
        if held.is_empty() && !may_fork {
            let detail =
                format!("replica {node} says that operation {operation} was made, and has no such write");
            return Err(self.violation(Oracle::Operations, detail));
        }
        Ok(held.first().copied().filter(|_| held.len() == 1))
    }

    /// The client of an operation is told where it is, be it as durable as was asked for or not.
    pub(crate) fn told(&mut self, write: &Write, acknowledgement: &Acknowledgement) {
        let known = write.operation.and_then(|operation| self.operations.get_mut(&operation));
        if let Some(known) = known {
            known.token.merge(&acknowledgement.token.frontier);
        }
    }

    /// A quorum was reached: more than half of the members that the replica knows of must have had the write.
    pub(crate) fn check_quorum(
        &self,
        node: usize,
        write: (WriteRef, usize),
        acknowledgement: &Acknowledgement,
    ) -> Result<(), Violation> {
        let (write, space) = write;
        let truth = self.truth.write(write);
        let own = self.nodes[node].replica;
        let has = |member: &&ReplicaId| {
            let ever = self.truth.ever.get(&(space, **member)).and_then(|counts| counts.get(truth.lane));
            **member == own || ever.is_some_and(|count| *count >= truth.lsn)
        };
        let members = self.known_members(node, space);
        let holders = members.iter().filter(has).count();
        if acknowledgement.reached && 2 * holders <= members.len() && !self.may_lie {
            let detail =
                format!("write {write} is said to be at a majority: it is at {holders} of {}", members.len());
            return Err(self.violation(Oracle::Acknowledgement, detail));
        }
        Ok(())
    }

    /// The members that write, as a replica knows them.
    fn known_members(&self, node: usize, space: usize) -> Vec<ReplicaId> {
        let Some(engine) = &self.nodes[node].engine else { return Vec::new() };
        let statuses = engine.status().spaces;
        let status = statuses.iter().find(|status| status.space == self.truth.ids[space]);
        let writers = |status: &comity_engine::SpaceStatus| {
            let writes = status.members.iter().filter(|(_, role)| *role >= Role::Writer);
            writes.map(|(member, _)| *member).collect()
        };
        status.map_or_else(Vec::new, writers)
    }

    /// A client goes on that presents no token: at once, unless it reads what others have.
    pub(crate) fn go_on_fresh(&mut self, event: usize, node: usize, space: usize) -> Result<(), Violation> {
        let fresh = match &self.plan.events[event].event {
            Event::Read(read) => read.fresh,
            Event::Write(_) | Event::Fault(_) => None,
        };
        let whom = match fresh {
            Some(Freshness::All) => Whom::All,
            Some(Freshness::Majority) => Whom::Majority,
            None => return self.resume(event, node, &Counts::new()),
        };
        let held = self.nodes.iter().map(|node| (node.replica, node.held[space].durable.clone()));
        let before: Before = held.collect();
        let request = RequestId(self.request(node, Waiting::Fresh { event, before }));
        let (space, max_age) = (self.truth.ids[space], std::time::Duration::ZERO);
        self.input(
            node,
            Input::Command {
                request,
                command: Command::AwaitFresh { space, whom, max_age, within: PATIENCE },
            },
        )
    }

    /// A read is said to be fresh.
    pub(crate) fn is_fresh(&mut self, event: usize, node: usize, before: &Before) -> Result<(), Violation> {
        let Event::Read(read) = &self.plan.events[event].event else { return Ok(()) };
        let (space, fresh) = (read.space, read.fresh);
        let members = self.known_members(node, space);
        let own = (self.nodes[node].replica, &self.nodes[node].held[space].durable);
        let is_shown = |member: &&ReplicaId| {
            let mut held = before.iter().filter(|(replica, _)| replica == *member);
            **member == own.0 || held.all(|(_, held)| covers(own.1, held))
        };
        let shown = members.iter().filter(is_shown).count();
        let needed = if fresh == Some(Freshness::All) { members.len() } else { members.len() / 2 + 1 };
        use FaultClass::{Clone, Restore, Rollback, Rot, Wipe};
        // Whoever was put back to an earlier state answers for that.
        let goes_back = [Clone, Restore, Rollback, Rot, Wipe].into_iter().any(|class| self.plan.has(class));
        if shown < needed && !goes_back && !self.may_lie {
            let detail = format!("replica {node} shows what {shown} members had, of {needed}");
            return Err(self.violation(Oracle::Freshness, detail));
        }
        self.tally.fresh += 1;
        let boot = self.nodes[node].boot;
        self.at(self.now, Happening::Resume { event, node, boot, seen: Counts::new() });
        Ok(())
    }

    /// What a client presents with an event: its own token, and that of an operation that it tries elsewhere.
    pub(crate) fn token(&self, space: usize, own: Frontier, operation: &Frontier) -> Token {
        let mut frontier = own;
        frontier.merge(operation);
        Token { space: self.truth.ids[space], frontier }
    }
}

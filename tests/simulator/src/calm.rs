//! A stretch in which nothing goes wrong: what everybody writes reaches everybody in as few copies as the network
//! allows, and nobody is behind when it is over. And what replicas say of lag, held against the truth at any time.

use comity_crdts::ReplicaId;
use comity_engine::{Command, CommandError, Input, Lag, PeerStatus, RequestId, SpaceStatus};

use crate::clients::PATIENCE;
use crate::node::Waiting;
use crate::oracle::{Oracle, Violation};
use crate::plan::{Effect, Event, FaultClass, Planned, Write};
use crate::random::Domain;
use crate::world::{Happening, World};

/// How long until everybody has gone back to the parents that it likes best: the longest pause that replicas make.
const REST_US: u64 = 200_000_000;
/// The first event of a calm stretch.
const CALM_EVENTS: u32 = 3_000_000;
/// Writes of a calm stretch, this far apart at most.
const APART_US: u64 = 40_000;
/// Fewer bytes say nothing about copies.
const BYTES_MIN: u64 = 2_000;

/// What replicas received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Bytes of runs.
    pub received: u64,
    /// Of these, bytes of runs that were needed.
    pub needed: u64,
}

impl Copies {
    /// Adds another count.
    pub(crate) fn add(&mut self, other: Self) {
        self.received += other.received;
        self.needed += other.needed;
    }

    /// Copies received of each that was needed.
    pub fn per_needed(&self) -> f64 {
        self.received as f64 / self.needed.max(1) as f64
    }
}

impl World {
    /// Whether what replicas hold can only grow and is what they say.
    fn is_honest(&self) -> bool {
        !self.plan.is_copied() && !self.plan.has(FaultClass::Tamper)
    }

    /// Everybody writes while nothing goes wrong.
    pub(crate) fn calm(&mut self) -> Result<(), Violation> {
        if self.truth.spaces.iter().any(|space| space.forked) {
            return Ok(());
        }
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let far = self.now + 100 * REST_US;
        let broken = self.plan.breakable();
        if let Some((a, b)) = broken {
            self.cut(a, b, far);
            self.cut(b, a, far);
        }
        self.run_until(self.now + REST_US)?;
        self.converge(&all)?;
        self.audit_lag()?;
        let before = self.copies();
        let mut dice = self.dice(Domain::Workload, 3, 0);
        for index in 0..self.plan.calm {
            let space = dice.skewed(self.plan.spaces.len() as u64) as usize;
            let members = &self.plan.spaces[space];
            let node = members[dice.index(members.len())];
            let effects =
                vec![Effect::Add { counter: 0, delta: 1 }, Effect::Assign { register: index as u16 % 4 }];
            let (session, remote, quorum, operation) = (None, 0, false, None);
            let write = Write { session, node, space, remote, quorum, operation, effects };
            let (id, at_us) = (
                CALM_EVENTS + index,
                self.now - self.origin + dice.below(APART_US * u64::from(self.plan.calm)),
            );
            self.plan.events.push(Planned { id, at_us, event: Event::Write(write) });
            let event = self.plan.events.len() - 1;
            self.at(self.origin + at_us, Happening::Planned(event));
        }
        self.run_until(self.now + APART_US * u64::from(self.plan.calm))?;
        self.converge(&all)?;
        self.audit_copies(before)?;
        if broken.is_some() {
            self.heal_network();
            self.converge(&all)?;
        }
        Ok(())
    }

    /// What all replicas have received in their present sessions.
    fn copies(&self) -> Copies {
        let mut copies = Copies::default();
        for status in
            self.nodes.iter().filter_map(|node| node.engine.as_ref()).map(comity_engine::Engine::status)
        {
            for session in status.sessions {
                copies.add(Copies { received: session.received_bytes, needed: session.needed_bytes });
            }
        }
        copies
    }

    fn audit_copies(&mut self, before: Copies) -> Result<(), Violation> {
        let after = self.copies();
        let of_calm = Copies {
            received: after.received.saturating_sub(before.received),
            needed: after.needed.saturating_sub(before.needed),
        };
        let topology = self.plan.topology;
        self.tally.copies[topology as usize].add(of_calm);
        let (allowed, is) = (of_calm.needed * topology.copies_percent_max(), of_calm.received * 100);
        // Founders are linked with everybody besides.
        let allowed = if self.plan.is_bare() { allowed } else { allowed.max(of_calm.needed * 105) };
        // A copy of a replica is taken for the owner of its lanes, and may have them from others.
        let has_twin = self.plan.has(FaultClass::Clone);
        // What former members wrote is received from whoever has it.
        let has_former = self.plan.has(FaultClass::Members);
        if is > allowed && of_calm.needed > BYTES_MIN && !has_twin && !has_former {
            let detail = format!(
                "in calm {} bytes were received of {} that were needed, {}",
                of_calm.received,
                of_calm.needed,
                topology.name()
            );
            return Err(self.violation(Oracle::Copies, detail));
        }
        Ok(())
    }

    /// All is calm: nobody is behind anybody, and knows it, and nobody waits for others to follow.
    pub(crate) fn audit_lag(&self) -> Result<(), Violation> {
        for (number, node) in self.nodes.iter().enumerate() {
            if node.waiting.values().any(|waiting| matches!(waiting, Waiting::Room { .. })) {
                let detail = format!("a writer of replica {number} still waits for others to follow");
                return Err(self.violation(Oracle::Throttle, detail));
            }
        }
        // Of two processes with one key who hears one takes it for what the other holds as well.
        let is_whole = |space: &usize| !self.truth.spaces[*space].forked && !self.plan.has(FaultClass::Clone);
        for space in (0..self.truth.spaces.len()).filter(is_whole) {
            for node in &self.taking_part(space) {
                let Some(status) = self.status(*node, space) else { continue };
                let lags = status.peers.iter().flat_map(|peer| [peer.behind, peer.ahead]);
                if let Some(lag) = lags.chain([status.missing]).find(|lag| !lag.is_none()) {
                    self.tell(|| self.states(space));
                    let peers = &status.peers;
                    let detail =
                        format!("replica {node} says of space {space} at rest: {lag:?} of {peers:?}");
                    return Err(self.violation(Oracle::Lag, detail));
                }
                let estimates = status.peers.iter().map(|peer| peer.catch_up_ms).chain([status.catch_up_ms]);
                if let Some(estimate) = estimates.into_iter().find(|estimate| *estimate != Some(0)) {
                    let detail =
                        format!("replica {node} is said to catch up in {estimate:?}, and has caught up");
                    return Err(self.violation(Oracle::Lag, detail));
                }
            }
        }
        Ok(())
    }

    /// What a replica says of lag at any time. What it is told is late, so others lack no more than it says, and it lacks
    /// of others what it has heard of, which is no more than they have. What it has received and waits is missing too.
    pub(crate) fn check_lag(&mut self, node: usize, space: usize) -> Result<(), Violation> {
        let Some(status) = self.status(node, space).filter(|_| !self.truth.spaces[space].forked) else {
            return Ok(());
        };
        self.tally.lag_checks += 1;
        if !self.is_honest() {
            return Ok(());
        }
        self.check_staged(node, &status)?;
        for peer in &status.peers {
            let Some(other) = self.nodes.iter().position(|other| other.replica == peer.peer) else {
                continue;
            };
            let (here, there) = (&self.nodes[node].held[space], &self.nodes[other].held[space]);
            for (number, lane) in self.truth.spaces[space].lanes.iter().enumerate() {
                let (own, its) = (u64::from(here.durable(number)), u64::from(there.durable(number)));
                let (behind, ahead) = of_lane(peer, &lane.id);
                let (behind, ahead) = (behind.entries, ahead.entries);
                if behind < own.saturating_sub(its) || ahead > its.saturating_sub(own) {
                    let detail = format!(
                        "replica {node} says that {other} lacks {behind} and has {ahead} more; here are {own}, there {its}"
                    );
                    return Err(self.violation(Oracle::Lag, detail));
                }
            }
        }
        Ok(())
    }

    /// Whoever sent what waits here has it, so it is missing.
    fn check_staged(&self, node: usize, status: &SpaceStatus) -> Result<(), Violation> {
        for lane in status.lanes.iter().filter(|lane| lane.staged > 0 && lane.frozen.is_none()) {
            let parent: Option<ReplicaId> = lane.parent;
            let peer = parent.and_then(|parent| status.peers.iter().find(|peer| peer.peer == parent));
            let Some(said) = peer.map(|peer| of_lane(peer, &lane.lane).1.entries) else { continue };
            if said < lane.staged || status.missing.entries < lane.staged {
                let detail = format!(
                    "{} entries wait at replica {node}, and it says that it lacks {said} of who sent them, {} in all",
                    lane.staged, status.missing.entries
                );
                return Err(self.violation(Oracle::Lag, detail));
            }
        }
        Ok(())
    }

    /// A writer waits until others follow, if it must.
    pub(crate) fn await_room(&mut self, event: usize, node: usize, space: usize) -> Result<(), Violation> {
        let request = RequestId(self.request(node, Waiting::Room { event }));
        let (space, within) = (self.truth.ids[space], PATIENCE);
        self.input(node, Input::Command { request, command: Command::AwaitRoom { space, within } })
    }

    /// A writer is not to write, because too few follow: that must be so.
    pub(crate) fn held_up(&mut self, node: usize, error: &CommandError) -> Result<(), Violation> {
        self.tally.refused += 1;
        let CommandError::Throttled(throttled) = error else { return Ok(()) };
        self.tally.throttled += 1;
        if throttled.within >= throttled.needed || !throttled.bound.is_exceeded_by(&throttled.lag) {
            let detail = format!("replica {node} holds a writer up without need: {throttled:?}");
            return Err(self.violation(Oracle::Throttle, detail));
        }
        Ok(())
    }
}

/// What a peer lacks of a lane, and what this replica lacks of it.
fn of_lane(peer: &PeerStatus, lane: &comity_crdts::LaneId) -> (Lag, Lag) {
    let lag = peer.lanes.iter().find(|lag| lag.lane == *lane);
    lag.map_or_else(Default::default, |lag| (lag.behind, lag.ahead))
}

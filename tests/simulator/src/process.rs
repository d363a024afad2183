//! Processes and their disks: syncs, crashes, starts, copies.

use std::time::Duration;

use comity_engine::{
    AuditLimits, Away, Engine, EngineOptions, Input, LagLimits, LogRead, Retention, SnapshotSource,
    StoreError, Throttle,
};

use crate::disk::{Disk, History};
use crate::node::{Node, Waiting};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Event, Fault, FaultClass, WallClock};
use crate::random::Domain;
use crate::truth::Held;
use crate::world::{Happening, World};

/// How long a process takes to end after its storage failed.
const EXIT_US: u64 = 5_000;

/// Writers wait until one other has followed, if one is connected.
fn throttle(entries: u64) -> Throttle {
    let bound = LagLimits { entries, ..LagLimits::NONE };
    Throttle { bound, followers: 1, away: Away::Ignored }
}

impl World {
    pub(crate) fn add_node(&mut self, clock: WallClock, disk: Disk) -> usize {
        let number = self.nodes.len();
        let mut dice = self.dice(Domain::Fresh, number as u64, u64::MAX);
        let mut drawn = || {
            let mut bytes = [0; 32];
            bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&dice.roll().to_be_bytes()));
            bytes
        };
        let (key, instance) = (drawn(), drawn());
        self.nodes.push(Node::new(key, instance, clock, disk, self.truth.spaces.len()));
        number
    }

    /// Whether copies of disks will be made.
    pub(crate) fn keeps_history(&self) -> bool {
        self.plan.has(FaultClass::Restore)
            || self.plan.has(FaultClass::Rollback)
            || self.plan.has(FaultClass::Clone)
    }

    /// Starts a process over what is on its disk.
    pub(crate) fn start(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].is_up() {
            return Ok(());
        }
        let build = self.next_build(node);
        let target = &mut self.nodes[node];
        (target.build, target.starts) = (build, target.starts + 1);
        target.boot += 1;
        (target.wake, target.fail_sync) = (None, false);
        target.announcements.clear();
        let mut options = EngineOptions::new(target.key, target.instance);
        (options.versions, options.extensions) = (build.versions, build.extensions());
        // Wall clocks here jump by a century.
        options.journal.age_ms_max = u64::MAX;
        // Documents here have a few dozen changes.
        options.tail.changes = 8;
        options.open_at_once = self.plan.open_at_once;
        options.segment_entries = self.plan.segment_entries;
        options.throttle = self.plan.throttle.map(throttle);
        if let Some(keeping) = self.plan.keeping {
            options.retention = Retention {
                age: Duration::from_millis(keeping.age_ms),
                bytes_max: keeping.bytes_max,
                announce_after: Duration::from_millis(keeping.announce_ms),
            };
            options.bootstrap.entries_min = keeping.entries_min;
        }
        if let Some(auditing) = self.plan.auditing.filter(|_| !self.audits_over) {
            let every = Duration::from_millis(auditing.every_ms);
            options.audit = AuditLimits { every: Some(every), pause: Duration::from_millis(50) };
        }
        // Spaces here are small.
        let piece_bytes = 100 << (self.plan.seed % 8);
        (target.snapshots, target.snapshot_at) = (SnapshotSource::with_pieces_of(piece_bytes), 0);
        let engine = match Engine::open(&options, &mut target.disk) {
            Ok(engine) => engine,
            Err(error) => {
                let detail = format!("replica {node} does not open: {error}");
                return Err(self.violation(Oracle::Robustness, detail));
            }
        };
        target.replica = engine.replica();
        target.key = engine.secret_key();
        target.engine = Some(engine);
        self.tally.starts += 1;
        self.tell(|| format!("{node} starts"));
        self.drain(node)?;
        if self.decayed.as_ref().is_none_or(|decayed| decayed.node != node) {
            self.audit_start(node)?;
        }
        self.try_links_again(|ends| ends.contains(&node));
        Ok(())
    }

    /// A sync that began when `through` was the last batch ends.
    pub(crate) fn sync(&mut self, node: usize, through: u64) -> Result<(), Violation> {
        let full = self.nodes[node].full_until > self.now;
        let target = &mut self.nodes[node];
        let result = if std::mem::take(&mut target.fail_sync) {
            Err(target.disk.fail_sync())
        } else {
            target.disk.sync_through(through, full)
        };
        self.tell(|| format!("{node} synced through {through}: {result:?}"));
        let position = match result {
            Ok(position) => position,
            Err(error) => {
                if !matches!(error, StoreError::NoSpace | StoreError::Overloaded) {
                    self.end_soon(node);
                }
                return self.input(node, Input::Synced { result: Err(error) });
            }
        };
        self.harden(node)?;
        self.input(node, Input::Synced { result: Ok(position) })?;
        match self.nodes[node].announcements.front() {
            None => Ok(()),
            Some((space, write)) => {
                let detail = format!("replica {node} did not announce write {write} of space {space}");
                Err(self.violation(Oracle::Events, detail))
            }
        }
    }

    /// Storage failed: the process ends and is started again.
    pub(crate) fn end_soon(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        self.at(self.now + EXIT_US, Happening::Crash { node, boot, down_us: 1_000_000 });
    }

    /// Kills a process. Of what is not synced the disk may have got a part.
    pub(crate) fn crash(&mut self, node: usize, down_us: u64, noticed: bool) -> Result<(), Violation> {
        if !self.nodes[node].is_up() {
            return Ok(());
        }
        self.tell(|| format!("{node} is killed"));
        let mut dice = self.dice(Domain::Disk, node as u64, u64::from(self.nodes[node].boot) << 40);
        let target = &mut self.nodes[node];
        target.engine = None;
        target.boot += 1;
        target.waiting.clear();
        if let Err(error) = target.disk.crash(&mut dice) {
            return Err(self.violation(Oracle::LossReport, format!("replica {node}: {error}")));
        }
        let kept = target.disk.synced();
        for space in 0..self.truth.spaces.len() {
            let held = &mut self.nodes[node].held[space];
            held.harden(kept, &self.truth);
            let lost = held.lose_trail();
            self.truth.note_ever(space, self.nodes[node].replica, &self.nodes[node].held[space].durable);
            self.unmake(node, space, &lost)?;
        }
        self.disconnect(node, noticed);
        self.at(self.now + down_us, Happening::Start { node });
        Ok(())
    }

    /// Kills a process; while it is down, durable bytes of its log change.
    fn rot(&mut self, node: usize, down_us: u64) -> Result<(), Violation> {
        self.crash(node, down_us, true)?;
        let mut dice = self.dice(Domain::Disk, node as u64, u64::from(self.nodes[node].boot) << 41);
        let renewals = self.nodes[node].disk.renewals();
        let (lost, reported) = match self.nodes[node].disk.rot(&mut dice) {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.violation(Oracle::LossReport, format!("replica {node}: {error}"))),
        };
        if lost != reported {
            let detail = format!("replica {node} lost durable data: {lost}; it says so: {reported}");
            return Err(self.violation(Oracle::LossReport, detail));
        }
        if lost {
            self.nodes[node].reported = true;
            let held = self.held_now(node)?;
            self.replace_held(node, held);
            if self.nodes[node].disk.renewals() == renewals {
                let detail = format!("replica {node} lost durable data and goes on as if it had not");
                return Err(self.violation(Oracle::LossReport, detail));
            }
            self.renew_instance(node);
            self.review_enrolments(node);
        }
        Ok(())
    }

    /// What is on a disk, asked entry by entry.
    fn held_now(&self, node: usize) -> Result<Vec<Held>, Violation> {
        let mut held: Vec<Held> = self.truth.spaces.iter().map(|_| Held::default()).collect();
        for (space, truth) in self.truth.spaces.iter().enumerate() {
            let mut writes = Vec::new();
            for lane in &truth.lanes {
                let disk = &self.nodes[node].disk;
                let floor = comity_engine::lane_floor(disk, &self.truth.ids[space], &lane.id).unwrap_or(0);
                let is_there = |lsn: u64| {
                    if lsn <= floor {
                        return true;
                    }
                    let entry = self.nodes[node].disk.lane_entry(&self.truth.ids[space], &lane.id, lsn);
                    matches!(entry, Ok(Some(_)))
                };
                let there = lane.entries.iter().zip(1..).take_while(|(_, lsn)| is_there(*lsn));
                writes.extend(there.map(|((write, _), _)| *write));
            }
            // They are numbered in an order that respects what their authors had seen.
            writes.sort_unstable();
            for write in writes {
                held[space].apply(0, write, &self.truth);
            }
            held[space].harden(u64::MAX, &self.truth);
        }
        Ok(held)
    }

    /// Puts other data under a process that is down.
    fn replace_disk(&mut self, node: usize, disk: Disk, held: Vec<Held>) {
        self.nodes[node].disk = disk;
        self.replace_held(node, held);
    }

    /// A process holds something else than before; what only it held is lost.
    fn replace_held(&mut self, node: usize, held: Vec<Held>) {
        let before = std::mem::replace(&mut self.nodes[node].held, held);
        let now_here = &self.nodes[node].held;
        let mut gone = Vec::new();
        for (space, truth) in self.truth.spaces.iter().enumerate() {
            for (lane, entries) in truth.lanes.iter().enumerate() {
                let (first, end) = (now_here[space].durable(lane), before[space].durable(lane));
                let others =
                    self.nodes.iter().map(|other| other.held[space].durable(lane)).max().unwrap_or(0);
                let lost = (first.max(others)..end).filter_map(|index| entries.entries.get(index as usize));
                gone.extend(lost.map(|(write, _)| *write));
            }
        }
        for write in gone {
            self.truth.writes[write as usize].destroyed = true;
        }
    }

    /// A process will go on in lanes whose ends it forgot. What nobody has is as if it had never been made,
    /// unless it is on its way to somebody.
    fn forget_ends(&mut self, node: usize) {
        for (space, truth) in self.truth.spaces.iter_mut().enumerate() {
            for (lane, of_lane) in truth.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.maker == node) {
                let held =
                    self.nodes.iter().map(|node| node.held[space].applied(lane)).max().unwrap_or(0) as usize;
                let from = held.min(of_lane.entries.len());
                for (index, (write, checksum)) in of_lane.entries.drain(from..).enumerate() {
                    let alternate = (space, lane, (from + index + 1) as u64, checksum);
                    self.truth.alternates.insert(alternate, write);
                }
            }
        }
    }

    /// What a disk holds, from its log.
    fn held_of(&self, history: &History) -> Vec<Held> {
        let mut held: Vec<Held> = self.truth.spaces.iter().map(|_| Held::default()).collect();
        let mut flips = history.flips.iter().peekable();
        let mut flip_until = |batch: u64, held: &mut Vec<Held>| {
            while let Some(flip) = flips.next_if(|flip| flip.batch <= batch) {
                if let Some(space) = self.truth.space(&flip.space) {
                    held[space].flip(flip.batch, &self.counts(space, &flip.frontier), &self.truth, space);
                }
            }
        };
        for entry in &history.entries {
            flip_until(entry.batch, &mut held);
            if let Some((space, write)) = self.known(entry) {
                held[space].apply(entry.batch, write, &self.truth);
            }
        }
        flip_until(u64::MAX, &mut held);
        for held in &mut held {
            held.harden(u64::MAX, &self.truth);
        }
        held
    }

    fn restore(&mut self, node: usize, down_us: u64, unnoticed: bool) -> Result<(), Violation> {
        let Some(backup) = self.nodes[node].backup.take() else { return Ok(()) };
        self.crash(node, down_us, true)?;
        let (disk, entries) = Disk::restored(&backup);
        let held = self.held_of(&entries);
        self.replace_disk(node, disk, held);
        self.nodes[node].set_aside.clear();
        self.review_enrolments(node);
        if unnoticed {
            self.forget_ends(node);
        } else {
            self.renew_instance(node);
        }
        Ok(())
    }

    /// The directory is known to be another one than before.
    fn renew_instance(&mut self, node: usize) {
        let mut dice = self.dice(Domain::Fresh, node as u64, u64::from(self.nodes[node].boot) << 32);
        self.nodes[node].instance[..8].copy_from_slice(&dice.roll().to_be_bytes());
    }

    fn clone_node(&mut self, node: usize) -> Result<(), Violation> {
        let source = &self.nodes[node];
        let clock = source.clock;
        let Some(backup) = source.disk.backup() else { return Ok(()) };
        let neighbours = |space: &std::collections::BTreeSet<usize>| {
            let ends = self.links.iter().map(|link| link.ends).filter(|ends| ends.contains(&node));
            ends.flatten().any(|end| end != node && space.contains(&end))
        };
        if source.disk.synced() == 0
            || !self.members.iter().all(|space| !space.contains(&node) || neighbours(space))
        {
            // The two would never meet, not even through others.
            return Ok(());
        }
        let (disk, entries) = Disk::restored(&backup);
        let clone = self.add_node(clock, disk);
        self.nodes[clone].held = self.held_of(&entries);
        self.nodes[clone].key = self.nodes[node].key;
        self.nodes[clone].build = self.nodes[node].build;
        for members in &mut self.members {
            if members.contains(&node) {
                members.insert(clone);
            }
        }
        let ends: Vec<[usize; 2]> = self.links.iter().map(|link| link.ends).collect();
        for [a, b] in ends {
            if a == node && b != clone {
                self.add_link(clone, b);
            } else if b == node && a != clone {
                self.add_link(a, clone);
            }
        }
        self.start(clone)
    }

    /// Loses the data of a replica for good; it joins again as somebody else.
    fn wipe(&mut self, node: usize, down_us: u64) -> Result<(), Violation> {
        let founds = self.plan.spaces.iter().any(|members| members.first() == Some(&node));
        if founds || node >= self.nodes.len() {
            // Nobody could let it in again.
            return Ok(());
        }
        self.crash(node, down_us, true)?;
        let held = self.truth.spaces.iter().map(|_| Held::default()).collect();
        self.replace_disk(node, Disk::new(self.keeps_history()), held);
        let mut dice = self.dice(Domain::Fresh, node as u64, u64::from(self.nodes[node].boot) << 33);
        self.nodes[node].key[..8].copy_from_slice(&dice.roll().to_be_bytes());
        (self.nodes[node].backup, self.nodes[node].requests) = (None, 0);
        self.nodes[node].set_aside.clear();
        self.renew_instance(node);
        self.enrol_again(node);
        Ok(())
    }

    /// An event of the plan comes due.
    pub(crate) fn planned(&mut self, index: usize) -> Result<(), Violation> {
        let fault = match &self.plan.events[index].event {
            Event::Write(_) | Event::Read(_) => return self.client(index),
            Event::Fault(fault) => *fault,
        };
        if let Some(node) = fault.node()
            && node >= self.nodes.len()
        {
            return Ok(());
        }
        self.tally.faults += 1;
        self.tell(|| format!("{fault:?}"));
        self.go_wrong(fault)
    }

    fn go_wrong(&mut self, fault: Fault) -> Result<(), Violation> {
        let after = |ms: u64| self.now + 1_000 * ms;
        match fault {
            Fault::Reset { link } => self.reset(link),
            Fault::Stall { link, reverse, ms } => {
                self.links[link].stalled_until[usize::from(reverse)] = after(ms)
            }
            Fault::Cut { from, to, ms } => self.cut(from, to, after(ms)),
            Fault::Crash { node, down_ms, noticed } => return self.crash(node, 1_000 * down_ms, noticed),
            Fault::Pause { node, ms } => self.pause(node, after(ms)),
            Fault::FailSync { node } => self.nodes[node].fail_sync = true,
            Fault::FailCommit { node } => self.fail_commit(node),
            Fault::Full { node, ms } => self.nodes[node].full_until = after(ms),
            Fault::Backup { node } => self.nodes[node].backup = self.nodes[node].disk.backup(),
            Fault::Restore { node, down_ms, unnoticed } => {
                return self.restore(node, 1_000 * down_ms, unnoticed);
            }
            Fault::Clone { node } => return self.clone_node(node),
            Fault::Wipe { node, down_ms } => return self.wipe(node, 1_000 * down_ms),
            Fault::Step { node, delta_ms } => {
                let stepped = &mut self.nodes[node].stepped_ms;
                *stepped = stepped.saturating_add(delta_ms).clamp(i64::MIN / 4, i64::MAX / 4);
            }
            Fault::Tamper { link, reverse, how, ms } => {
                self.links[link].tampering[usize::from(reverse)] = Some((how, after(ms)));
            }
            Fault::Rot { node, down_ms } => return self.rot(node, 1_000 * down_ms),
            Fault::Remove { .. } | Fault::Reinstate { .. } | Fault::Demote { .. } | Fault::Leave { .. } => {
                return self.change_members(fault);
            }
        }
        Ok(())
    }

    fn pause(&mut self, node: usize, until: u64) {
        self.nodes[node].paused_until = until;
        self.at(until, Happening::GoOn { node });
        if until > self.now + 30_000_000 {
            self.give_up(node);
        }
    }

    /// What came due while a process stood still happens to it, unless it stands still for longer.
    pub(crate) fn go_on(&mut self, node: usize) {
        if self.nodes[node].paused_until <= self.now {
            for (order, deferred) in std::mem::take(&mut self.nodes[node].deferred) {
                self.resume_at_once(order, deferred);
            }
        }
    }

    /// The next commit fails: for good, or for want of room.
    fn fail_commit(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        let error = match self.dice(Domain::Disk, node as u64, self.now).below(3) {
            0 => StoreError::NoSpace,
            1 => StoreError::Overloaded,
            _ => {
                // What the core does about it must not depend on when it is ended.
                let boot = self.nodes[node].boot;
                self.at(self.now + 2_000_000, Happening::Crash { node, boot, down_us: 1_000_000 });
                StoreError::Failed { detail: "the disk said no".to_owned() }
            }
        };
        self.nodes[node].disk.fail_next_commit(error);
    }

    /// Ends the unrest for some replicas, and for the links between them.
    pub(crate) fn heal_node(&mut self, node: usize) -> Result<(), Violation> {
        let target = &mut self.nodes[node];
        (target.paused_until, target.full_until, target.fail_sync) = (0, 0, false);
        self.go_on(node);
        self.start(node)
    }

    /// The answers that a process still owes are void.
    pub(crate) fn waiting(&mut self, node: usize, request: u64) -> Option<Waiting> {
        self.nodes[node].waiting.remove(&request)
    }
}

impl Fault {
    /// The replica it concerns, if it is one.
    fn node(self) -> Option<usize> {
        match self {
            Self::Reset { .. } | Self::Stall { .. } | Self::Cut { .. } | Self::Tamper { .. } => None,
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
            | Self::Leave { node, .. } => Some(node),
        }
    }
}

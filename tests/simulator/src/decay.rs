//! Rows of the state that change by themselves, once all is calm: the audit has to find each, name it and make it
//! again, while others write. And what audits say at any other time: nothing.

use comity_crdts::{Kind, ObjectAddress, SpaceId};
use comity_engine::wire::object_rows;
use comity_engine::{AuditEvent, Listing, LogRead, ObjectDigest, Row, StateRead, StoreError, object_digest};

use crate::oracle::{Oracle, Violation};
use crate::plan::{Effect, Event, Planned, Write};
use crate::random::{Dice, Domain};
use crate::world::{Happening, World};

/// The first event of a stretch in which rows decay.
const DECAY_EVENTS: u32 = 3_500_000;
/// Writes of others meanwhile.
const WRITES: u64 = 12;
/// In which they come.
const WRITES_US: u64 = 60_000_000;
/// How long finding it may take beyond four passes.
const FIND_US: u64 = 240_000_000;
/// How often a bit is drawn until one says something that everybody must agree about.
const DRAWS: u32 = 40;

/// A row that is not what was written.
#[derive(Debug)]
pub(crate) struct Decayed {
    pub(crate) node: usize,
    space: SpaceId,
    object: ObjectAddress,
    /// As it was.
    row: Row,
    /// Whether the replica has everything from which it could make it again.
    is_whole: bool,
    named: bool,
    repaired: bool,
    unresolved: bool,
}

/// What is read with one row changed.
struct Spoiled<'a> {
    below: &'a dyn LogRead,
    row: Row,
}

impl StateRead for Spoiled<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if key == self.row.0 { Ok(Some(self.row.1.clone())) } else { self.below.get(key) }
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut rows = self.below.scan(from, until, limit)?;
        for row in rows.iter_mut().filter(|row| row.0 == self.row.0) {
            row.1.clone_from(&self.row.1);
        }
        Ok(rows)
    }
}

impl LogRead for Spoiled<'_> {
    fn lane_entry(
        &self,
        space: &SpaceId,
        lane: &comity_crdts::LaneId,
        lsn: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.below.lane_entry(space, lane, lsn)
    }
}

impl World {
    /// An audit says something. Where no row decays nothing is wrong, unless somebody lies.
    pub(crate) fn audited(&mut self, node: usize, event: &AuditEvent) -> Result<(), Violation> {
        self.tell(|| format!("{node}: {event:?}"));
        if self.may_lie {
            return Ok(());
        }
        let wrong = |detail: &str| format!("the audit of replica {node} says {event:?}, and {detail}");
        if let AuditEvent::Repaired { space, object, is, .. } = event {
            // Readers see what is durable: who is told reads it as it is now.
            let view = self.nodes[node].disk.view();
            let shown = comity_engine::repairs(view.as_ref(), space).unwrap_or_default();
            if !shown.iter().any(|repair| repair.object == *object && repair.is == *is) {
                return Err(self.violation(Oracle::Audit, wrong("no reader sees it")));
            }
        }
        let Some(decayed) = &mut self.decayed else {
            return match event {
                // It was named before, and looked into since.
                AuditEvent::Upheld { .. } => Ok(()),
                _ => Err(self.violation(Oracle::Audit, wrong("nothing is wrong"))),
            };
        };
        if *event.object() != decayed.object && !matches!(event, AuditEvent::Upheld { .. }) {
            let detail = wrong(&format!("it is {:?} that is wrong", decayed.object));
            return Err(self.violation(Oracle::Audit, detail));
        }
        match event {
            AuditEvent::Damaged { .. } | AuditEvent::Diverged { .. } => decayed.named = true,
            AuditEvent::Unresolved { .. } => decayed.unresolved |= node == decayed.node,
            AuditEvent::Repaired { .. } if node == decayed.node => decayed.repaired = true,
            AuditEvent::Repaired { .. } => {
                let detail = wrong("it was right there");
                return Err(self.violation(Oracle::Audit, detail));
            }
            _ => {}
        }
        Ok(())
    }

    /// Rows decay one after the other.
    pub(crate) fn decay(&mut self) -> Result<(), Violation> {
        let Some(auditing) = self.plan.auditing else { return Ok(()) };
        // A space of which something is held is not compared.
        if self.plan.builds.is_some() {
            return Ok(());
        }
        if self.may_lie || self.truth.spaces.iter().any(|space| space.forked) {
            return Ok(());
        }
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for number in 0..auditing.rots {
            let mut dice = self.dice(Domain::Fault, u64::from(number), u64::MAX);
            if !self.spoil(&mut dice)? {
                continue;
            }
            self.write_meanwhile(&mut dice, number);
            let (written, until) = (self.now + WRITES_US, self.now + FIND_US + 4_000 * auditing.every_ms);
            while !self.is_found() {
                if !self.step(until)? {
                    if self.is_overwritten()? {
                        break;
                    }
                    (0..self.truth.spaces.len()).for_each(|space| self.tell(|| self.states(space)));
                    let detail = format!("no audit has dealt with {:?}", self.decayed);
                    return Err(self.violation(Oracle::Audit, detail));
                }
            }
            self.run_until(written.max(self.now + 10_000_000))?;
            self.converge(&all)?;
            self.compare_made_again()?;
            self.tally.decayed += 1;
            self.put_back()?;
            self.converge(&all)?;
            self.audit()?;
        }
        Ok(())
    }

    fn is_found(&self) -> bool {
        self.decayed.as_ref().is_none_or(|decayed| {
            decayed.named && (decayed.repaired || (!decayed.is_whole && decayed.unresolved))
        })
    }

    /// Changes a bit of a row of an object, which changes the object; the process is down meanwhile.
    fn spoil(&mut self, dice: &mut Dice) -> Result<bool, Violation> {
        let space = dice.index(self.truth.spaces.len());
        let members = self.taking_part(space);
        if members.len() < 2 {
            return Ok(false);
        }
        let node = members[dice.index(members.len())];
        let Some(status) = self.status(node, space) else { return Ok(false) };
        let is_frozen =
            |status: &comity_engine::SpaceStatus| status.lanes.iter().any(|lane| lane.frozen.is_some());
        if status.peers.is_empty() || status.bootstrap.is_some() || is_frozen(&status) {
            return Ok(false);
        }
        let is_whole = status.lanes.iter().all(|lane| lane.floor == 0);
        let id = self.truth.ids[space];
        let Some((object, row, spoiled)) = self.draw_bit(node, (&id, is_whole), dice) else {
            return Ok(false);
        };
        self.crash(node, 1_000_000, true)?;
        let found = self.nodes[node].disk.get(&row.0);
        if !matches!(found, Ok(Some(value)) if value == row.1) {
            return Ok(false);
        }
        self.tell(|| format!("{node}: a bit of {object} changes: {spoiled:02x?}, not {:02x?}", row.1));
        self.nodes[node].disk.spoil((row.0.clone(), spoiled));
        let (named, repaired, unresolved) = (false, false, false);
        self.decayed = Some(Decayed { node, space: id, object, row, is_whole, named, repaired, unresolved });
        Ok(true)
    }

    /// An object, one of its rows, and the row with another bit, so that the object is another one. The list of members is
    /// among them where the log is whole: a replica that can neither read it nor make it again does not start.
    fn draw_bit(
        &self,
        node: usize,
        (space, is_whole): (&SpaceId, bool),
        dice: &mut Dice,
    ) -> Option<(ObjectAddress, Row, Vec<u8>)> {
        let view = self.nodes[node].disk.view();
        let mut objects = Vec::new();
        for kind in Kind::APPLICATION {
            for collection in comity_engine::collections(view.as_ref(), space, kind, None, 8).ok()? {
                let (prefix, after, limit) = ("", None, 64);
                let listing = Listing { kind, collection: &collection, prefix, after, limit };
                let keys = comity_engine::list(view.as_ref(), space, listing).ok()?;
                objects.extend(keys.iter().filter_map(|key| ObjectAddress::new(kind, &collection, key).ok()));
            }
        }
        if is_whole {
            objects.push(ObjectAddress::members());
        }
        for _ in 0..DRAWS {
            let object = objects.get(dice.index(objects.len().max(1)))?;
            let rows = object_rows(view.as_ref(), space, object).ok()?;
            let row = rows.get(dice.index(rows.len().max(1)))?;
            if row.1.is_empty() || !(0x30..=0x36).contains(&row.0[0]) {
                continue;
            }
            let mut spoiled = row.1.clone();
            let at = dice.index(spoiled.len());
            spoiled[at] ^= 1 << dice.below(8);
            let before = object_digest(view.as_ref(), space, object).ok()?;
            let below = view.as_ref();
            let after = Spoiled { below, row: (row.0.clone(), spoiled.clone()) };
            // Every bit of an element of an add-wins set counts, and only such are nested.
            let is_element = row.0[0] == 0x31 && matches!(object.kind(), Kind::Set | Kind::Map);
            if is_element || object_digest(&after, space, object).is_ok_and(|after| after != before) {
                return Some((object.clone(), row.clone(), spoiled));
            }
        }
        None
    }

    /// Others write, to what has decayed as well. Who has it would write what it does not have.
    fn write_meanwhile(&mut self, dice: &mut Dice, number: u32) {
        let Some(decayed) = &self.decayed else { return };
        let (node, Some(space)) = (decayed.node, self.truth.space(&decayed.space)) else { return };
        // Where it cannot be made again it is put back as it was.
        if !decayed.is_whole {
            return;
        }
        let others: Vec<usize> = self.taking_part(space).into_iter().filter(|other| *other != node).collect();
        for index in 0..WRITES {
            let node = others[dice.index(others.len())];
            let effects = vec![
                Effect::Add { counter: 0, delta: 1 },
                Effect::Insert { set: 0, element: index as u16 },
                Effect::Assign { register: index as u16 % 4 },
            ];
            let (session, remote, quorum, operation) = (None, 0, false, None);
            let write = Write { session, node, space, remote, quorum, operation, effects };
            let id = DECAY_EVENTS + 100 * number + index as u32;
            let at_us = self.now - self.origin + dice.below(WRITES_US);
            self.plan.events.push(Planned { id, at_us, event: Event::Write(write) });
            let event = self.plan.events.len() - 1;
            self.at(self.origin + at_us, Happening::Planned(event));
        }
    }

    /// What was made again is what others have.
    fn compare_made_again(&self) -> Result<(), Violation> {
        let Some(decayed) = self.decayed.as_ref().filter(|decayed| decayed.repaired) else { return Ok(()) };
        let found = self.digests(decayed)?;
        if found.iter().all(|digest| *digest == found[0]) {
            return Ok(());
        }
        Err(self.violation(Oracle::Audit, format!("{decayed:?} was made again, and there are {found:?}")))
    }

    /// Whether what others wrote took the place of what was wrong.
    fn is_overwritten(&self) -> Result<bool, Violation> {
        let Some(decayed) = &self.decayed else { return Ok(true) };
        let found = self.digests(decayed)?;
        Ok(decayed.is_whole && found.iter().all(|digest| *digest == found[0] && digest.fault.is_none()))
    }

    fn digests(&self, decayed: &Decayed) -> Result<Vec<ObjectDigest>, Violation> {
        let Some(space) = self.truth.space(&decayed.space) else { return Ok(Vec::new()) };
        let digest = |node: usize| {
            let view = self.nodes[node].disk.view();
            let digest = object_digest(view.as_ref(), &decayed.space, &decayed.object);
            digest.map_err(|error| self.violation(Oracle::Audit, error.to_string()))
        };
        self.taking_part(space).into_iter().map(digest).collect()
    }

    /// A row that could not be made again is put back.
    fn put_back(&mut self) -> Result<(), Violation> {
        let Some(decayed) = self.decayed.take() else { return Ok(()) };
        if decayed.is_whole && !decayed.repaired {
            self.tally.decayed -= 1;
            return Ok(());
        }
        if decayed.repaired {
            self.tally.lent += u64::from(!decayed.is_whole);
            return Ok(());
        }
        self.crash(decayed.node, 1_000_000, true)?;
        self.nodes[decayed.node].disk.spoil(decayed.row);
        self.run_until(self.now + 2_000_000)
    }
}

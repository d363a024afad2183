//! What really happened: every change set with what its author had applied, and what each replica holds,
//! told from the logs alone.

use std::collections::{BTreeMap, HashMap, VecDeque};

use comity_crdts::{Hlc, LaneId, ReplicaId, SpaceId};

use crate::reference::{Deed, Reference};

/// A change set, numbered in the order of their making.
pub(crate) type WriteRef = u32;

/// How many entries of each lane of a space, by the lane's number in the truth.
pub(crate) type Counts = Vec<u32>;

/// Whether `counts` has everything that `other` has.
pub(crate) fn covers(counts: &[u32], other: &[u32]) -> bool {
    other.iter().enumerate().all(|(lane, count)| counts.get(lane).copied().unwrap_or(0) >= *count)
}

/// Adds what `other` has.
pub(crate) fn merge(counts: &mut Counts, other: &[u32]) {
    if counts.len() < other.len() {
        counts.resize(other.len(), 0);
    }
    for (count, other) in counts.iter_mut().zip(other) {
        *count = (*count).max(*other);
    }
}

/// One change set.
#[derive(Debug)]
pub(crate) struct WriteTruth {
    pub(crate) lane: usize,
    /// Its number in the lane, from 1.
    pub(crate) lsn: u32,
    /// What its author had applied.
    pub(crate) seen: Counts,
    /// The event that asked for it; none for what cores write on their own, as when they let somebody in.
    pub(crate) event: Option<u32>,
    pub(crate) deeds: Vec<Deed>,
    /// Learnt from the first announcement.
    pub(crate) hlc: Option<Hlc>,
    pub(crate) acknowledged: bool,
    /// Whether the only disks that held it were lost.
    pub(crate) destroyed: bool,
    /// An announcement of how far its author had come, of which nobody is told.
    pub(crate) silent: bool,
}

/// One lane.
#[derive(Debug)]
pub(crate) struct LaneTruth {
    pub(crate) id: LaneId,
    pub(crate) owner: ReplicaId,
    /// The process that writes to it.
    pub(crate) maker: usize,
    /// Each change set and the checksum of its stored form.
    pub(crate) entries: Vec<(WriteRef, u64)>,
}

/// One space.
#[derive(Debug, Default)]
pub(crate) struct SpaceTruth {
    pub(crate) lanes: Vec<LaneTruth>,
    pub(crate) numbers: HashMap<LaneId, usize>,
    /// The lane that the founder was given when it founded the space.
    pub(crate) first: Option<LaneId>,
    /// Whether a lane got two contents where that was to be expected.
    pub(crate) forked: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) ids: Vec<SpaceId>,
    pub(crate) spaces: Vec<SpaceTruth>,
    pub(crate) writes: Vec<WriteTruth>,
    /// The most that was ever durable at each replica of each space.
    pub(crate) ever: BTreeMap<(usize, ReplicaId), Counts>,
    /// Entries of lanes with two contents, beside the first of each number.
    pub(crate) alternates: HashMap<(usize, usize, u64, u64), WriteRef>,
}

impl Truth {
    pub(crate) fn add_space(&mut self, id: SpaceId) {
        self.ids.push(id);
        self.spaces.push(SpaceTruth::default());
    }

    pub(crate) fn space(&self, id: &SpaceId) -> Option<usize> {
        self.ids.iter().position(|other| other == id)
    }

    pub(crate) fn write(&self, write: WriteRef) -> &WriteTruth {
        &self.writes[write as usize]
    }

    /// Whether the author of `write` had applied `other`, of the same space.
    pub(crate) fn saw(&self, write: &WriteTruth, other: WriteRef) -> bool {
        let other = self.write(other);
        write.seen.get(other.lane).is_some_and(|count| *count >= other.lsn)
    }

    /// A replica held this much, durably.
    pub(crate) fn note_ever(&mut self, space: usize, replica: ReplicaId, durable: &[u32]) {
        merge(self.ever.entry((space, replica)).or_default(), durable);
    }

    /// Makes a write visible in a reference.
    pub(crate) fn show(&self, reference: &mut Reference, write: WriteRef) {
        let truth = self.write(write);
        reference.apply(write, &truth.deeds, |other| self.saw(truth, other));
    }
}

/// A write that is applied and not durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trailing {
    pub(crate) batch: u64,
    pub(crate) write: WriteRef,
    /// It came with a snapshot: nobody is told of it by itself.
    pub(crate) is_installed: bool,
}

/// What one replica holds of one space.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Applied, durable or not.
    pub(crate) applied: Counts,
    /// Durable, and therefore visible to readers.
    pub(crate) durable: Counts,
    /// What is applied and not durable.
    pub(crate) trail: VecDeque<Trailing>,
    /// What readers must see.
    pub(crate) shown: Reference,
    /// What the last snapshot held that took the place of the state; nothing when none did.
    pub(crate) installed: Counts,
}

fn count(counts: &mut Counts, lane: usize) -> &mut u32 {
    if counts.len() <= lane {
        counts.resize(lane + 1, 0);
    }
    &mut counts[lane]
}

impl Held {
    pub(crate) fn applied(&self, lane: usize) -> u32 {
        self.applied.get(lane).copied().unwrap_or(0)
    }

    pub(crate) fn durable(&self, lane: usize) -> u32 {
        self.durable.get(lane).copied().unwrap_or(0)
    }

    /// A write was applied in a batch.
    pub(crate) fn apply(&mut self, batch: u64, write: WriteRef, truth: &Truth) {
        let of = truth.write(write);
        *count(&mut self.applied, of.lane) = of.lsn;
        self.trail.push_back(Trailing { batch, write, is_installed: false });
    }

    /// A snapshot with these counts took the place of the state; what was held besides stays.
    pub(crate) fn flip(&mut self, batch: u64, counts: &[u32], truth: &Truth, space: usize) {
        self.installed = counts.to_vec();
        let lanes = truth.spaces[space].lanes.iter().enumerate();
        let missing = lanes.flat_map(|(number, lane)| {
            let until = counts.get(number).copied().unwrap_or(0) as usize;
            let from = self.applied(number) as usize;
            lane.entries.get(from..until).unwrap_or_default().iter().map(|(write, _)| *write)
        });
        // They are numbered in an order that respects what their authors had seen.
        let mut missing: Vec<WriteRef> = missing.collect();
        missing.sort_unstable();
        for write in missing {
            let of = truth.write(write);
            *count(&mut self.applied, of.lane) = of.lsn;
            self.trail.push_back(Trailing { batch, write, is_installed: true });
        }
    }

    /// Every batch up to this one is durable. Returns what became so, in order.
    pub(crate) fn harden(&mut self, batch: u64, truth: &Truth) -> Vec<Trailing> {
        let mut hardened = Vec::new();
        while let Some(trailing) = self.trail.front().copied().filter(|of| of.batch <= batch) {
            self.trail.pop_front();
            let of = truth.write(trailing.write);
            *count(&mut self.durable, of.lane) = of.lsn;
            truth.show(&mut self.shown, trailing.write);
            hardened.push(trailing);
        }
        hardened
    }

    /// What is not durable is lost. Returns it.
    pub(crate) fn lose_trail(&mut self) -> Vec<WriteRef> {
        self.applied = self.durable.clone();
        self.trail.drain(..).map(|trailing| trailing.write).collect()
    }
}

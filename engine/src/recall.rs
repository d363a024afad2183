//! Recall: what was forgotten here comes back when somebody turns out not to have seen it.
//!
//! Nobody can tell a replica that was restored from one that runs twice, or know of members that joined after the
//! copy was made. So an incarnation may be confirmed by all it knows while others, of whom it does not know, have
//! forgotten what it lacks. A change set of its is *late* there: it has operations that are judged by what their author
//! had seen, and that does not cover what is forgotten. Before it is staged, the rows that it could matter to are made
//! again from the log of record, as if nothing had been forgotten that its author lacked. Where entries of the log are
//! not kept any more, the lane is frozen instead.

use std::collections::BTreeMap;

use comity_crdts::{
    Context, Dot, Frontier, Hlc, Kind, LaneId, ObjectAddress, ResettableCounter, RwRow, SpaceId, Writer,
    canary,
};

use crate::beaten::{Addition, remember_again};
use crate::change::{Body, ChangeSet, LaneEntry, LaneTip, decode_stored};
use crate::changes::{entry, places};
use crate::engine::Engine;
use crate::extension::{Extensions, Meaning};
use crate::held::held_from;
use crate::keys;
use crate::op::Op;
use crate::rows::{Object, damaged};
use crate::site::Site;
use crate::space::{Lane, Space, encode};
use crate::status::Freeze;
use crate::store::{LogRead, Store, StoreError};
use crate::unstable::{Unstable, UnstableRow, note_unstable};
use crate::work::Work;

/// Rows of the apply log that are read in one go.
const ROWS_AT_ONCE: u64 = 1_024;
/// Bytes of a lane that are read in one go.
const BYTES_AT_ONCE: usize = 1024 * 1024;

/// Rows as the log of record makes them, by key.
type Rows = BTreeMap<Vec<u8>, Remade>;

/// What leaves something to be forgotten in which rows, and where these are.
type Noted = BTreeMap<((LaneId, u64), Vec<u8>), (ObjectAddress, Vec<String>)>;

/// A row of which something was forgotten.
#[derive(Clone, Debug)]
enum Remade {
    Element(RwRow),
    Flag(RwRow),
    Counter(ResettableCounter),
}

impl Engine {
    /// Gets ready for entries of a lane that are about to be staged: brings back what their authors cannot have
    /// seen and this replica has forgotten. O(entries of the space) when there is such a thing, which for each lane
    /// happens at most twice while this replica runs; O(lanes) for each entry otherwise.
    pub(crate) fn recall_for(
        &mut self,
        (id, lane_id): (SpaceId, LaneId),
        entries: &[(LaneEntry, LaneTip)],
        store: &mut dyn Store,
    ) -> Result<(), StoreError> {
        let extensions = self.extensions;
        let Some(space) = self.spaces.get_mut(&id) else { return Ok(()) };
        let kept = space.still_forgotten(&lane_id, entries);
        let additions_kept = space.additions_still_forgotten(&lane_id, entries);
        if kept.is_none() && (additions_kept.is_none() || space.kept.dropped > 0) {
            // A lane is not given up for what the journal may then lack.
            return Ok(());
        }
        if space.kept.dropped > 0 {
            let is_late = |(entry, _): &&(LaneEntry, LaneTip)| {
                judged_by(entry).is_some_and(|seen| !sees(seen, &lane_id, &space.forgotten))
            };
            let lsn = entries.iter().find(is_late).map_or(0, |(_, after)| after.lsn);
            return self.freeze(id, lane_id, Freeze::Late { lsn }, store);
        }
        let mut work = Work::over(&*store);
        let log = Log { store: &*store, space: &id, applied: space.progress.applied, extensions };
        let mut unstable = Frontier::new();
        if let Some(kept) = &kept {
            unstable = log.remake(&mut work, (&space.forgotten, kept))?;
            work.put(keys::forgotten(&id), encode(kept));
        }
        if let Some(kept) = &additions_kept {
            log.remake_additions(&mut work, (&space.additions_forgotten, kept))?;
            work.put(keys::additions_forgotten(&id), encode(kept));
        }
        let batch = work.into_batch();
        self.committed = store.commit(batch)?;
        space.forgotten = kept.unwrap_or_else(|| std::mem::take(&mut space.forgotten));
        space.additions_forgotten =
            additions_kept.map_or_else(|| std::mem::take(&mut space.additions_forgotten), Box::new);
        space.unstable.merge(&unstable);
        if let Some(lane) = space.lanes.get_mut(&lane_id) {
            lane.was_late = true;
        }
        self.dirty.insert(id);
        self.request_sync();
        Ok(())
    }
}

impl Space {
    /// Up to where things may stay forgotten when entries of a lane are to be applied; `None` when they may as they
    /// are. What is forgotten once the lane is known has been announced in it, so an honest owner is late once. One
    /// that takes back what it had seen is taken the second time to have seen nothing but what it announced, so that
    /// the log is not searched for each of its change sets.
    pub(crate) fn still_forgotten(
        &self,
        lane_id: &LaneId,
        entries: &[(LaneEntry, LaneTip)],
    ) -> Option<Frontier> {
        self.still(&self.forgotten, lane_id, entries)
    }

    /// The same of additions that a removal might beat.
    fn additions_still_forgotten(
        &self,
        lane_id: &LaneId,
        entries: &[(LaneEntry, LaneTip)],
    ) -> Option<Frontier> {
        self.still(&self.additions_forgotten, lane_id, entries)
    }

    fn still(
        &self,
        forgotten: &Frontier,
        lane_id: &LaneId,
        entries: &[(LaneEntry, LaneTip)],
    ) -> Option<Frontier> {
        let mut kept = forgotten.clone();
        if kept.is_empty() || canary!(CutOfOne) || canary!(UnconfirmedRemoves) {
            return None;
        }
        for (entry, _) in entries {
            if let Some(seen) = judged_by(entry).filter(|seen| !sees(seen, lane_id, &kept)) {
                kept = meet(&kept, seen, lane_id);
            }
        }
        if kept == *forgotten {
            return None;
        }
        match self.lanes.get(lane_id).map(Box::as_ref) {
            Some(Lane { was_late: true, announced_staged, .. }) => {
                Some(meet(&kept, announced_staged, lane_id))
            }
            _ => Some(kept),
        }
    }
}

/// What the author had seen, where an operation of the entry is judged by that.
fn judged_by(entry: &LaneEntry) -> Option<&Frontier> {
    let Body::Change(change) = &entry.body else { return None };
    let mut ops = change.groups.iter().flat_map(|group| &group.ops);
    ops.any(Op::needs_confirmation).then_some(&change.context)
}

/// Whether the owner of a lane has seen everything within a frontier; its own lane it has.
fn sees(seen: &Frontier, own: &LaneId, all: &Frontier) -> bool {
    all.iter().all(|(lane, lsn)| lane == *own || seen.at(&lane) >= lsn)
}

/// What is within a frontier and was seen by the owner of a lane.
fn meet(all: &Frontier, seen: &Frontier, own: &LaneId) -> Frontier {
    all.iter().map(|(lane, lsn)| (lane, if lane == *own { lsn } else { lsn.min(seen.at(&lane)) })).collect()
}

/// The log of a space, and what is known of later versions' operations in it.
struct Log<'a> {
    store: &'a dyn Store,
    space: &'a SpaceId,
    /// How many entries were applied.
    applied: u64,
    extensions: Extensions,
}

impl Log<'_> {
    /// Makes the rows again of which something was forgotten between `kept` and `forgotten`, and notes what is to be
    /// forgotten of them later. Returns what put that there.
    fn remake(
        &self,
        work: &mut Work<'_>,
        (forgotten, kept): (&Frontier, &Frontier),
    ) -> Result<Frontier, StoreError> {
        let space = self.space;
        let mut rows = Rows::new();
        for (lane, until) in forgotten.ahead_of(kept) {
            self.targets(lane, (kept.at(&lane), until), &mut rows)?;
        }
        let mut noted = Noted::new();
        if !rows.is_empty() {
            self.replay(&mut rows, &mut noted)?;
        }
        let mut unstable = Frontier::new();
        for (row, remade) in &mut rows {
            remade.compact(kept);
            remade.put(work, row);
        }
        for (((lane, lsn), row), (address, path)) in noted {
            if kept.at(&lane) < lsn
                && let Some(remade) = rows.get(&row)
            {
                let what = remade.what();
                let noted = UnstableRow { row: &row, what, address: &address, path: &path };
                note_unstable(work, space, (lane, lsn), &noted);
                noted.keep_holders(work, space)?;
                unstable.advance(lane, lsn);
            }
        }
        Ok(unstable)
    }

    /// The rows in which entries of a lane, after one and up to another, left what can be forgotten.
    fn targets(&self, lane: LaneId, range: (u64, u64), rows: &mut Rows) -> Result<(), StoreError> {
        self.each_entry(lane, range, |change| {
            self.each_op(change, |_, address, op| {
                let target = Remade::target(self.space, address, op).filter(|_| is_forgotten(op));
                if let Some((row, remade)) = target {
                    rows.entry(row).or_insert(remade);
                }
            });
        })
    }

    /// Shows the change sets of a lane after one entry and up to another.
    fn each_entry(
        &self,
        lane: LaneId,
        (after, until): (u64, u64),
        mut visit: impl FnMut(&ChangeSet),
    ) -> Result<(), StoreError> {
        let (store, space) = (self.store, self.space);
        let mut next = after + 1;
        while next <= until {
            let entries = store.lane_entries(space, &lane, next, BYTES_AT_ONCE)?;
            let Some((last, _)) = entries.last() else { return Err(gone(&lane, next)) };
            let last = *last;
            for (_, bytes) in entries.iter().take_while(|(lsn, _)| *lsn <= until) {
                let (_, entry) =
                    decode_stored(space, &lane, bytes).map_err(|error| damaged("lane entry", &error))?;
                if let Body::Change(change) = entry.body {
                    visit(&change);
                }
            }
            next = last + 1;
        }
        Ok(())
    }

    /// Applies every entry there is to some rows. `noted` gets the operations on the rows that leave something to be
    /// forgotten.
    fn replay(&self, rows: &mut Rows, noted: &mut Noted) -> Result<(), StoreError> {
        self.each_applied(|x, _, address, op| {
            let Some((row, _)) = Remade::target(self.space, address, op) else { return };
            let Some(remade) = rows.get_mut(&row) else { return };
            remade.apply(x, op);
            if is_forgotten(op) {
                let path = within(op).0.to_vec();
                noted.insert(((x.lane, x.lsn), row), (address.clone(), path));
            }
        })
    }

    /// Remembers additions again that were forgotten between `kept` and `forgotten`, as if they had not been.
    fn remake_additions(
        &self,
        work: &mut Work<'_>,
        (forgotten, kept): (&Frontier, &Frontier),
    ) -> Result<(), StoreError> {
        let mut rows: BTreeMap<Vec<u8>, (RwRow, Vec<Addition>)> = BTreeMap::new();
        for (lane, until) in forgotten.ahead_of(kept) {
            self.each_entry(lane, (kept.at(&lane), until), |change| {
                self.each_op(change, |_, address, op| {
                    if let Some(row) = adds_to(self.space, address, op) {
                        rows.entry(row).or_default();
                    }
                });
            })?;
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.each_applied(|x, at, address, op| {
            let Some((row, _)) = Remade::target(self.space, address, op) else { return };
            let Some((row, additions)) = rows.get_mut(&row) else { return };
            match op {
                Op::DwFlagEnable | Op::RwSetAdd { .. } => {
                    row.add(x);
                    additions.retain(|addition| !x.sees(&addition.place));
                    if row.is_member() {
                        additions.push(Addition { place: x.place(), at });
                    }
                }
                _ => {
                    row.remove(x);
                    additions.clear();
                }
            }
        })?;
        for (row, (_, mut additions)) in rows {
            additions.retain(|addition| !addition.place.is_within(kept));
            remember_again(work, self.space, &row, &additions);
        }
        Ok(())
    }

    /// Shows every operation of every entry that was applied, in the order of applying, but for what is held and was not
    /// carried out.
    fn each_applied(
        &self,
        mut visit: impl FnMut(&Context<'_>, Hlc, &ObjectAddress, &Op),
    ) -> Result<(), StoreError> {
        let (read, space): (&dyn LogRead, _) = (self.store, self.space);
        let mut held: BTreeMap<ObjectAddress, u64> = BTreeMap::new();
        let mut first = 1;
        while first <= self.applied {
            let last = self.applied.min(first + ROWS_AT_ONCE - 1);
            for (number, (lane, lsn)) in places(read, space, first, last)? {
                let (_, entry) = entry(read, space, (lane, lsn))?.ok_or_else(|| gone(&lane, lsn))?;
                let Body::Change(change) = entry.body else { continue };
                for group in &change.groups {
                    if !held.contains_key(&group.address) {
                        let from = held_from(read, space, &group.address)?.unwrap_or(u64::MAX);
                        held.insert(group.address.clone(), from);
                    }
                }
                self.each_op(&change, |dot, address, op| {
                    if held.get(address).is_none_or(|from| number < *from) {
                        visit(
                            &Context { dot, frontier: &change.context, lane, lsn },
                            change.hlc,
                            address,
                            op,
                        );
                    }
                });
            }
            first = last + 1;
        }
        Ok(())
    }

    fn each_op(&self, change: &ChangeSet, visit: impl FnMut(Dot, &ObjectAddress, &Op)) {
        each_op(self.extensions, change, visit);
    }
}

/// The operations of a change set that are known, with their dots and the objects they are on.
pub(crate) fn each_op(
    extensions: Extensions,
    change: &ChangeSet,
    mut visit: impl FnMut(Dot, &ObjectAddress, &Op),
) {
    for group in &change.groups {
        for (index, op) in group.ops.iter().enumerate() {
            let dot = Dot { origin: change.origin, seq: change.seq, index: index as u16 };
            let made = (change.hlc, &change.context);
            match op {
                Op::Extension { .. } => {
                    if let Meaning::Does(op) = extensions.meaning(made, &group.address, (dot, op)) {
                        visit(dot, &group.address, &op);
                    }
                }
                op => visit(dot, &group.address, op),
            }
        }
    }
}

/// Whether an operation leaves something that can be forgotten once it is stable.
fn is_forgotten(op: &Op) -> bool {
    matches!(within(op).1, Op::DwFlagDisable | Op::RwSetRemove { .. } | Op::CounterReset { .. })
}

/// The row to which an operation adds something where removing wins.
pub(crate) fn adds_to(space: &SpaceId, address: &ObjectAddress, op: &Op) -> Option<Vec<u8>> {
    let is_addition = matches!(op, Op::DwFlagEnable | Op::RwSetAdd { .. });
    is_addition.then(|| Remade::target(space, address, op)).flatten().map(|(row, _)| row)
}

/// Where in its object an operation is, and what it does there.
fn within(op: &Op) -> (&[String], &Op) {
    match op {
        Op::Nested { path, op } => (path, op),
        op => (&[], op),
    }
}

fn gone(lane: &LaneId, lsn: u64) -> StoreError {
    damaged("log of record", &format!("entry {lsn} of lane {lane} is applied and not kept"))
}

impl Remade {
    /// The row that an operation is on, before any, if something of such rows is ever forgotten.
    fn target(space: &SpaceId, address: &ObjectAddress, op: &Op) -> Option<(Vec<u8>, Self)> {
        let (path, op) = within(op);
        let site = Site::top(space, address).at_path(path, op.kind());
        if let Op::RwSetAdd { element } | Op::RwSetRemove { element } = op {
            let row = keys::element(&site.id, &element.to_bytes());
            return Some((row, Self::Element(RwRow::new())));
        }
        match op.kind() {
            Kind::DwFlag => Some((site.row, Self::Flag(RwRow::new()))),
            Kind::Counter => Some((site.row, Self::Counter(ResettableCounter::new()))),
            _ => None,
        }
    }

    fn apply(&mut self, x: &Context<'_>, op: &Op) {
        match (self, within(op).1) {
            (Self::Flag(row), Op::DwFlagEnable) | (Self::Element(row), Op::RwSetAdd { .. }) => row.add(x),
            (Self::Flag(row), Op::DwFlagDisable) | (Self::Element(row), Op::RwSetRemove { .. }) => {
                row.remove(x)
            }
            (Self::Counter(counter), Op::CounterAdd(delta)) => counter.add(x.dot, *delta),
            (Self::Counter(counter), Op::CounterReset { columns }) => counter.reset(x, columns),
            (remade, op) => unreachable!("{op:?} is on the row of {remade:?}"),
        }
    }

    fn compact(&mut self, cut: &Frontier) {
        match self {
            Self::Element(row) | Self::Flag(row) => row.compact(cut),
            Self::Counter(counter) => counter.compact(cut),
        }
    }

    fn what(&self) -> Unstable {
        match self {
            Self::Element(_) => Unstable::Element,
            Self::Flag(_) => Unstable::Flag,
            Self::Counter(_) => Unstable::Counter,
        }
    }

    /// Puts the row in the place of what was left of it. What readers see stays, so nothing is counted anew.
    fn put(&self, work: &mut Work<'_>, row: &[u8]) {
        let object = match self {
            Self::Element(element) | Self::Flag(element) if element.is_empty() => None,
            Self::Element(element) | Self::Flag(element) => {
                let mut out = Writer::new();
                element.encode(&mut out);
                Some(out.finish())
            }
            Self::Counter(counter) if counter.is_empty() => None,
            Self::Counter(counter) => Some(Object::Counter(counter.clone()).to_bytes()),
        };
        match object {
            Some(bytes) => work.put(row.to_vec(), bytes),
            None => work.delete(row.to_vec()),
        }
    }
}

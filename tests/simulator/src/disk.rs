//! The disk of a replica: what is written and not synced is lost in a crash, or is not. It can be copied,
//! put back, fill up, fail and rot.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use comity_crdts::{Frontier, LaneId, SpaceId};
use comity_engine::{Batch, LaneSpan, LogRead, Position, Row, StateRead, Store, StoreError};
use comity_store::MemoryStore;

use crate::random::{Dice, mix};
use crate::sectors::Sectors;

/// A lane entry that was written.
#[derive(Clone, Debug)]
pub(crate) struct Appended {
    /// The batch it is in, counted over the life of the data.
    pub(crate) batch: u64,
    pub(crate) space: SpaceId,
    pub(crate) lane: LaneId,
    pub(crate) lsn: u64,
    /// A checksum of its stored form.
    pub(crate) checksum: u64,
    /// Whether it is no change set but an announcement.
    pub(crate) silent: bool,
}

/// A batch that moves the lanes of a space to where a snapshot has them.
#[derive(Clone, Debug)]
pub(crate) struct Flip {
    /// Counted over the life of the data.
    pub(crate) batch: u64,
    pub(crate) space: SpaceId,
    pub(crate) frontier: Frontier,
}

/// What was written, apart from rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) entries: Vec<Appended>,
    pub(crate) flips: Vec<Flip>,
    /// Entries that were let go of because of their age or size.
    pub(crate) dropped: Vec<LaneSpan>,
}

/// What of a batch is not rows.
fn history(number: u64, batch: &Batch) -> History {
    let flip = comity_engine::wire::flipped(&batch.facts);
    let is_kept = |prefix: u8| batch.facts.iter().any(|(key, _)| key.first() == Some(&prefix));
    History {
        entries: appended(number, batch).collect(),
        flips: flip.map(|(space, frontier)| Flip { batch: number, space, frontier }).into_iter().collect(),
        // An installation lets go of entries too, without saying what is kept, or with its mark.
        dropped: if is_kept(0x26) && !is_kept(0x51) { batch.dropped.clone() } else { Vec::new() },
    }
}

/// A view of any store.
pub(crate) struct View(pub(crate) Box<dyn LogRead>);

impl StateRead for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.0.scan(from, until, limit)
    }
}

impl LogRead for View {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.lane_entry(space, lane, lsn)
    }
}

/// A copy of what was durable at some moment.
#[derive(Clone, Debug)]
pub(crate) struct Backup(Vec<Arc<Batch>>);

#[derive(Debug)]
enum Data {
    Memory(MemoryStore),
    Sectors(Box<Sectors>),
}

/// A store, and its history where copies of it may be made.
#[derive(Debug)]
pub(crate) struct Disk {
    data: Data,
    /// Every batch; empty when no history is kept.
    batches: Vec<Arc<Batch>>,
    keeps_history: bool,
    /// Batches that were there when the store was last opened.
    base: u64,
    /// Batches committed since.
    committed: u64,
    written: History,
    /// Where the last entry of each batch is that is not synced.
    unsynced: VecDeque<(u64, SpaceId, LaneId, u64)>,
}

fn appended(number: u64, batch: &Batch) -> impl Iterator<Item = Appended> + '_ {
    batch.entries.iter().map(move |entry| Appended {
        batch: number,
        space: entry.space,
        lane: entry.lane,
        lsn: entry.lsn,
        checksum: mix(0, &entry.bytes),
        // The flags come after the chain hash; the first tells announcements from change sets.
        silent: entry.bytes.get(32).is_some_and(|flags| flags & 1 != 0),
    })
}

impl Disk {
    /// A disk in memory.
    pub(crate) fn new(keeps_history: bool) -> Self {
        Self::over(Data::Memory(MemoryStore::new()), keeps_history)
    }

    /// The real store on sectors. Copies of it cannot be made.
    pub(crate) fn of_sectors() -> Result<Self, String> {
        let sectors = Sectors::open(Default::default()).map_err(|error| error.to_string())?;
        Ok(Self::over(Data::Sectors(Box::new(sectors)), false))
    }

    fn over(data: Data, keeps_history: bool) -> Self {
        let (batches, written, unsynced) = (Vec::new(), History::default(), VecDeque::new());
        Self { data, batches, keeps_history, base: 0, committed: 0, written, unsynced }
    }

    /// The last batch that was written.
    pub(crate) fn committed(&self) -> u64 {
        self.base + self.committed
    }

    /// The last batch that a crash would not lose.
    pub(crate) fn synced(&self) -> u64 {
        self.base
            + match &self.data {
                Data::Memory(memory) => memory.synced().0,
                Data::Sectors(sectors) => sectors.synced.0,
            }
    }

    /// What was written since this was last asked.
    pub(crate) fn take_written(&mut self) -> History {
        mem::take(&mut self.written)
    }

    /// Ends a sync that began when `batch` was the last one; with `full`, the disk has no room.
    pub(crate) fn sync_through(&mut self, batch: u64, full: bool) -> Result<Position, StoreError> {
        let position = match &mut self.data {
            Data::Memory(_) if full => return Err(StoreError::NoSpace),
            Data::Memory(memory) => memory.sync_through(Position(batch.saturating_sub(self.base))),
            Data::Sectors(sectors) => sectors.sync(full)?,
        };
        let synced = self.synced();
        while self.unsynced.front().is_some_and(|(batch, ..)| *batch <= synced) {
            self.unsynced.pop_front();
        }
        Ok(position)
    }

    /// Cuts the power and opens the store again. Of what is not synced the disk may have got a part.
    ///
    /// # Errors
    /// Why the store does not open, or what it reports to be lost.
    pub(crate) fn crash(&mut self, dice: &mut Dice) -> Result<(), String> {
        let kept = match &mut self.data {
            Data::Memory(memory) => {
                let pending = self.base + self.committed - (self.base + memory.synced().0);
                let kept = memory.synced().0 + if dice.percent(50) { 0 } else { dice.below(pending + 1) };
                memory.sync_through(Position(kept));
                memory.crash();
                self.base + kept
            }
            Data::Sectors(sectors) => {
                let synced = self.base + sectors.synced.0;
                **sectors = Sectors::open(sectors.cut(dice)).map_err(|error| error.to_string())?;
                if sectors.damaged {
                    return Err("the store reports damage after a power cut".to_owned());
                }
                survivors(sectors, &self.unsynced).unwrap_or(synced).max(synced)
            }
        };
        self.reopened(kept);
        Ok(())
    }

    fn reopened(&mut self, kept: u64) {
        (self.base, self.committed) = (kept, 0);
        if self.keeps_history {
            self.batches.truncate(kept as usize);
        }
        self.written = History::default();
        self.unsynced.clear();
    }

    /// As [`Disk::crash`], and durable bytes of the log have rotted meanwhile. Returns whether that lost
    /// anything, and whether the store says so.
    ///
    /// # Errors
    /// Why the store does not open.
    pub(crate) fn rot(&mut self, dice: &mut Dice) -> Result<(bool, bool), String> {
        let Data::Sectors(sectors) = &mut self.data else {
            return self.crash(dice).map(|()| (false, false));
        };
        let (image, flipped) = sectors.rot(dice);
        **sectors = Sectors::open(image).map_err(|error| error.to_string())?;
        let damaged = sectors.damaged;
        let kept = self.committed();
        self.reopened(kept);
        Ok((flipped > 0, damaged))
    }

    /// A row has another value than was written, durably.
    pub(crate) fn spoil(&mut self, row: Row) {
        let state = vec![(row.0, Some(row.1))];
        let committed = self.commit(Batch { state, ..Batch::default() });
        committed.expect("nothing was told to fail, and no process runs on it");
        let synced = self.sync_through(self.committed(), false);
        synced.expect("nothing was told to fail, and no process runs on it");
    }

    /// How often the store gave its directory another identity.
    pub(crate) fn renewals(&self) -> u64 {
        match &self.data {
            Data::Memory(_) => 0,
            Data::Sectors(sectors) => sectors.renewals(),
        }
    }

    /// A copy of what is durable; of sectors there is none.
    pub(crate) fn backup(&self) -> Option<Backup> {
        let synced = usize::try_from(self.synced()).ok()?;
        self.keeps_history.then(|| Backup(self.batches[..synced].to_vec()))
    }

    /// A disk with the content of a copy, and the entries that are on it.
    pub(crate) fn restored(Backup(batches): &Backup) -> (Self, History) {
        let mut disk = Self::new(true);
        for batch in batches {
            let committed = disk.commit(Batch::clone(batch));
            committed.expect("a store in memory fails only when told to");
        }
        let (written, count) = (disk.take_written(), disk.committed());
        if let Data::Memory(memory) = &mut disk.data {
            memory.sync();
            memory.crash();
        }
        disk.reopened(count);
        (disk, written)
    }

    /// The state as readers see it.
    pub(crate) fn view(&self) -> Box<dyn LogRead> {
        match &self.data {
            Data::Memory(memory) => Box::new(memory.view()),
            Data::Sectors(sectors) => match sectors.view() {
                Ok(view) => view,
                Err(error) => Box::new(Unreadable(error)),
            },
        }
    }

    /// The next commit fails, where commits can.
    pub(crate) fn fail_next_commit(&mut self, error: StoreError) {
        if let Data::Memory(memory) = &mut self.data {
            memory.fail_next_commit(error);
        }
    }

    /// The sync under way fails.
    pub(crate) fn fail_sync(&mut self) -> StoreError {
        match &mut self.data {
            Data::Memory(memory) => {
                // Nothing works until the store is opened again.
                memory.poison();
                StoreError::Failed { detail: "the disk said no".to_owned() }
            }
            Data::Sectors(sectors) => sectors.sync_failing(),
        }
    }

    fn store(&self) -> &dyn Store {
        match &self.data {
            Data::Memory(memory) => memory,
            Data::Sectors(sectors) => &sectors.store,
        }
    }
}

/// The last batch that was not synced and is there all the same.
fn survivors(sectors: &Sectors, unsynced: &VecDeque<(u64, SpaceId, LaneId, u64)>) -> Option<u64> {
    let is_there = |(_, space, lane, lsn): &&(u64, SpaceId, LaneId, u64)| {
        matches!(sectors.store.lane_entry(space, lane, *lsn), Ok(Some(_)))
    };
    unsynced.iter().take_while(is_there).last().map(|(batch, ..)| *batch)
}

/// Readers of a store that failed.
struct Unreadable(StoreError);

impl StateRead for Unreadable {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Err(self.0.clone())
    }

    fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Row>, StoreError> {
        Err(self.0.clone())
    }
}

impl LogRead for Unreadable {
    fn lane_entry(&self, _: &SpaceId, _: &LaneId, _: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Err(self.0.clone())
    }
}

impl StateRead for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store().get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store().scan(from, until, limit)
    }
}

impl LogRead for Disk {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.store().lane_entry(space, lane, lsn)
    }
}

impl Store for Disk {
    fn commit(&mut self, batch: Batch) -> Result<Position, StoreError> {
        let number = self.committed() + 1;
        let mut written = history(number, &batch);
        let kept = self.keeps_history.then(|| Arc::new(batch.clone()));
        let position = match &mut self.data {
            Data::Memory(memory) => memory.commit(batch)?,
            Data::Sectors(sectors) => sectors.store.commit(batch)?,
        };
        self.committed += 1;
        self.batches.extend(kept);
        self.unsynced.extend(written.entries.last().map(|last| (number, last.space, last.lane, last.lsn)));
        self.written.entries.append(&mut written.entries);
        self.written.flips.append(&mut written.flips);
        self.written.dropped.append(&mut written.dropped);
        Ok(position)
    }

    fn lane_entries(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.store().lane_entries(space, lane, from, bytes_max)
    }
}

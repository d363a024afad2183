//! The store on disk: the core's handle, and opening it.

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::{Batch, LogRead, Position, Row, StateRead, Store, StoreError};

use crate::data_file::DataFile;
use crate::directory::{self, DATA_FILE, DataDir, DirectoryLock, LOG_DIR, RealDir};
use crate::durable::Durable;
use crate::error::OpenError;
use crate::format;
use crate::generation::{Generation, Generations};
use crate::health::Health;
use crate::instance::{self, InstanceToken};
use crate::log::{Directory, LogDir};
use crate::merge::{Merged, Sourced, rows, run};
use crate::overlay::{Overlay, View};
use crate::recovery::{Damage, recover};
use crate::snapshot::{Base, Published, Reader};
use crate::syncer::{AHEAD_BYTES_MAX, Copying, Limits, Room, RoomProbe, Syncer};

/// How a store behaves. None of it is written to disk.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Memory for batches that are not synced yet; beyond it `commit` refuses until a sync completes. What was synced last
    /// takes as much again until the database has it.
    pub overlay_bytes_max: usize,
    /// Memory for pages of the data file. On a disk that fills up within a sync, so much more and four
    /// times [`overlay_bytes_max`](Self::overlay_bytes_max) may wait for space.
    pub cache_bytes: usize,
    /// How long a snapshot may be read; a year at most.
    pub view_age_max: Duration,
    /// Space on the disk that a sync leaves free beyond its own estimate; with less, it answers
    /// [`StoreError::NoSpace`] instead of trying.
    pub headroom_bytes: u64,
    /// The length of a file of the log. A larger group gets a file of its own.
    pub log_file_bytes: u64,
    /// How long replaying the log may take when a store that was not closed is opened, about. A checkpoint
    /// is made when it would take longer.
    pub replay_time_max: Duration,
    /// Bytes of rows between two checkpoints, at most.
    pub checkpoint_bytes_max: u64,
    /// Rows that one step of compacting copies; it also ends after half a MiB.
    pub compact_step_rows: usize,
}

/// How much larger a group may become in the database: pages half full, copies of unchanged rows.
const GROUP_GROWTH: usize = 4;

impl StoreOptions {
    /// What may wait for space at most: a group and those that the database was behind, and the pages that it has not
    /// written before.
    fn backlog_bytes_max(&self) -> usize {
        let group = self.overlay_bytes_max.saturating_add(AHEAD_BYTES_MAX as usize);
        group.saturating_mul(GROUP_GROWTH).saturating_add(self.cache_bytes)
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            overlay_bytes_max: 64 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            view_age_max: Duration::from_secs(30),
            headroom_bytes: 4 * 1024 * 1024,
            log_file_bytes: 16 * 1024 * 1024,
            replay_time_max: Duration::from_millis(300),
            checkpoint_bytes_max: 64 * 1024 * 1024,
            compact_step_rows: 4_096,
        }
    }
}

/// An open store: one handle for each of its users. The directory stays locked until `store` and `syncer`
/// are both dropped; readers then fail.
#[derive(Debug)]
pub struct Opened {
    /// The core's handle.
    pub store: EmbeddedStore,
    /// The storage thread's handle.
    pub syncer: Syncer,
    /// Opens snapshots for readers.
    pub reader: Reader,
    /// Differs from the last time when the directory was copied or restored.
    pub instance: InstanceToken,
    /// Whether the store was made by this call.
    pub created: bool,
    /// What was lost: durable groups that can no longer be read. `None` after every crash and power cut
    /// of a disk that keeps its promises. Reported again by the next opening if this one makes no
    /// checkpoint.
    pub damage: Option<Damage>,
}

/// What the core's and the storage thread's handles share.
pub(crate) struct Shared {
    pub(crate) overlay: Overlay,
    published: Arc<Published>,
    health: Arc<Health>,
    // Closed before the directory is unlocked: fields drop in this order. Locked by the storage thread only.
    generations: Mutex<Generations>,
    _lock: Option<DirectoryLock>,
}

impl Shared {
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    pub(crate) fn generations(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.health.close();
    }
}

/// The core's handle on the store: sees every committed batch. `commit` never touches the disk; reads do
/// when what they want is neither recent nor cached.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, and makes the directory (for the owner only) and the store where they are
    /// missing. Blocks on the disk; a store that was not closed opens as fast as one that was.
    ///
    /// # Errors
    /// [`OpenError`]; an existing store is unchanged.
    #[expect(clippy::needless_pass_by_value, reason = "options are made for one store")]
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Opened, OpenError> {
        directory::create(dir)?;
        let lock = directory::lock(dir)?;
        let path = dir.join(DATA_FILE);
        let (file, created) = directory::data_file(dir)?;
        let data_file = DataFile::new(file).map_err(|error| OpenError::database(&path, error.into()))?;
        let database = format::open(&path, data_file.clone(), options.cache_bytes)?;
        // A damaged directory gets another marker, so the token is computed last.
        instance::token(dir)?;
        let log_dir = dir.join(LOG_DIR);
        directory::create(&log_dir)?;
        let (room_dir, room_path) = (dir.to_owned(), path.clone());
        let room = Box::new(move || {
            let free = fs4::available_space(&room_dir).ok()?;
            Some(Room { free, used: room_path.metadata().ok()?.len() })
        });
        let log = Box::new(Directory::new(log_dir));
        let data_dir = Box::new(RealDir(dir.to_owned()));
        let generation = Generation::new(database, data_file);
        let parts = Parts { generation, dir: data_dir, log, lock: Some(lock), room };
        let (store, syncer, reader, damage) = parts.assemble(&options, || instance::renew(dir))?;
        Ok(Opened { store, syncer, reader, instance: instance::token(dir)?, created, damage })
    }

    fn view(&self) -> Result<View, StoreError> {
        self.shared.health.check()?;
        Ok(self.shared.overlay.view())
    }
}

/// What a store is made of.
pub(crate) struct Parts {
    pub(crate) generation: Generation,
    pub(crate) dir: Box<dyn DataDir>,
    pub(crate) log: Box<dyn LogDir>,
    pub(crate) lock: Option<DirectoryLock>,
    pub(crate) room: RoomProbe,
}

impl Parts {
    /// The handles, once the database is brought up to the log.
    pub(crate) fn assemble(
        self,
        options: &StoreOptions,
        renew: impl FnOnce() -> Result<(), OpenError>,
    ) -> Result<(EmbeddedStore, Syncer, Reader, Option<Damage>), OpenError> {
        let Self { generation, dir, log, lock, room } = self;
        let path = log.path().to_owned();
        dir.remove_copy().map_err(|error| OpenError::io("removing an unfinished copy in", &path, error))?;
        let recovered = recover(&generation.database, log, options.log_file_bytes, renew)?;
        // From here on a full disk is waited out.
        generation.file.allow_backlog(options.backlog_bytes_max());
        let health = Arc::new(Health::default());
        let base = Base::open(&generation, &health).map_err(|error| OpenError::database(&path, error))?;
        let durable = Arc::new(Durable::new(Arc::new(base)));
        let published = Published::new(Arc::clone(&durable), options.view_age_max, Arc::clone(&health));
        let published = Arc::new(published);
        let shared = Arc::new(Shared {
            overlay: Overlay::new(durable, options.overlay_bytes_max),
            published: Arc::clone(&published),
            health,
            generations: Mutex::new(Generations::new(generation)),
            _lock: lock,
        });
        let limits = Limits {
            headroom_bytes: options.headroom_bytes,
            replay_ns_max: u64::try_from(options.replay_time_max.as_nanos()).unwrap_or(u64::MAX),
            dirty_bytes_max: options.checkpoint_bytes_max,
        };
        let copying = Copying {
            dir,
            cache_bytes: options.cache_bytes,
            step_rows: options.compact_step_rows.max(1) as u64,
            backlog_bytes_max: options.backlog_bytes_max(),
        };
        let syncer = Syncer::new(Arc::clone(&shared), recovered.log, room, limits, copying);
        Ok((EmbeddedStore { shared }, syncer, Reader::new(published), recovered.damage))
    }
}

impl StateRead for EmbeddedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.health.check()?;
        self.shared.overlay.get(key).or_else(|durable| durable.get(key))
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let view = self.view()?;
        if from >= until {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(until));
        let durable = view.durable.scan(from, until)?;
        let flushing = view.flushing.iter().flat_map(|layer| layer.scan(bounds));
        rows(stacked(view.active.scan(bounds), flushing, durable), limit)
    }
}

impl LogRead for EmbeddedStore {
    fn lane_entry(&self, space: &SpaceId, lane: &LaneId, lsn: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let view = self.view()?;
        let recent = view.active.entry(space, lane, lsn);
        match recent.or_else(|| view.flushing.as_ref()?.entry(space, lane, lsn)) {
            Some(entry) => Ok(entry),
            None => view.durable.entry(space, lane, lsn),
        }
    }
}

impl Store for EmbeddedStore {
    fn commit(&mut self, batch: Batch) -> Result<Position, StoreError> {
        self.shared.health.check()?;
        self.shared.overlay.commit(batch)
    }

    fn lane_entries(
        &self,
        space: &SpaceId,
        lane: &LaneId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let view = self.view()?;
        let durable = view.durable.lane(space, lane, from)?;
        let flushing = view.flushing.iter().flat_map(|layer| layer.lane(space, lane, from));
        run(stacked(view.active.lane(space, lane, from), flushing, durable), from, bytes_max)
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

/// The three sources of a read as one, the newest first.
fn stacked<K: Ord>(
    active: impl Iterator<Item = Sourced<K>>,
    flushing: impl Iterator<Item = Sourced<K>>,
    durable: impl Iterator<Item = Sourced<K>>,
) -> impl Iterator<Item = Sourced<K>> {
    Merged::new(active, Merged::new(flushing, durable))
}

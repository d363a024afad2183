//! One simulated process: the core, its disk, its clocks, and what is under way for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use comity_crdts::ReplicaId;
use comity_engine::{Engine, SnapshotSource};

use crate::builds::Build;
use crate::disk::{Backup, Disk, View};
use crate::plan::WallClock;
use crate::promises::Before;
use crate::truth::{Counts, Held, WriteRef};
use crate::world::Happening;

/// The wall clock when the world begins.
const WALL_MS: i64 = 1_700_000_000_000;

/// What a request was for.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// A client's write.
    Write { write: Option<WriteRef>, event: usize },
    /// A client's token; the event goes on when what it stands for is reached.
    Token { event: usize, seen: Counts },
    /// A read that has to show what others have, and had when it began.
    Fresh { event: usize, before: Before },
    /// A writer that waits for others to follow.
    Room { event: usize },
    /// A space is being founded.
    Space,
    /// Somebody is to be let in.
    Invitation { enrolment: usize },
    /// Nothing depends on the answer.
    Nothing,
}

/// A value that a transaction removed together with others.
#[derive(Clone, Debug)]
pub(crate) struct SetAside {
    pub(crate) space: usize,
    pub(crate) write: WriteRef,
    pub(crate) values: Vec<i64>,
}

/// One process.
pub(crate) struct Node {
    /// `None` while it is down.
    pub(crate) engine: Option<Engine>,
    pub(crate) disk: Disk,
    pub(crate) replica: ReplicaId,
    pub(crate) key: [u8; 32],
    /// What tells the data directory from its copies.
    pub(crate) instance: [u8; 32],
    /// How often it was started without counting what ended it.
    pub(crate) starts: usize,
    /// What it runs, or ran last.
    pub(crate) build: Build,
    /// How often it was started; what was under way for an earlier start is void.
    pub(crate) boot: u32,
    /// How often its core was called.
    pub(crate) calls: u64,
    pub(crate) clock: WallClock,
    /// How far the wall clock was moved since.
    pub(crate) stepped_ms: i64,
    pub(crate) paused_until: u64,
    /// What came due while it stood still, with its place in the queue.
    pub(crate) deferred: Vec<(u64, Happening)>,
    pub(crate) full_until: u64,
    pub(crate) fail_sync: bool,
    pub(crate) wake: Option<u64>,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    pub(crate) requests: u64,
    /// What it holds of each space.
    pub(crate) held: Vec<Held>,
    /// What must be announced next.
    pub(crate) announcements: VecDeque<(usize, WriteRef)>,
    /// Views that it keeps for who takes over its state.
    pub(crate) snapshots: SnapshotSource<View>,
    /// When it is done with what it was last asked for them.
    pub(crate) snapshot_at: u64,
    pub(crate) backup: Option<Backup>,
    pub(crate) set_aside: Vec<SetAside>,
    /// Whether it reported that a lane is frozen, or that data was lost.
    pub(crate) reported: bool,
}

impl Node {
    /// A process that was never started.
    pub(crate) fn new(
        key: [u8; 32],
        instance: [u8; 32],
        clock: WallClock,
        disk: Disk,
        spaces: usize,
    ) -> Self {
        Self {
            engine: None,
            disk,
            replica: ReplicaId([0; 32]),
            key,
            instance,
            starts: 0,
            build: Build { knows: false, ..Build::NEWEST },
            boot: 0,
            calls: 0,
            clock,
            stepped_ms: 0,
            paused_until: 0,
            deferred: Vec::new(),
            full_until: 0,
            fail_sync: false,
            wake: None,
            waiting: BTreeMap::new(),
            requests: 0,
            held: (0..spaces).map(|_| Held::default()).collect(),
            announcements: VecDeque::new(),
            snapshots: SnapshotSource::default(),
            snapshot_at: 0,
            backup: None,
            set_aside: Vec::new(),
            reported: false,
        }
    }

    fn drifted(&self, at_us: u64) -> i64 {
        let at = at_us as i64;
        at + (i128::from(at) * i128::from(self.clock.drift_ppm) / 1_000_000) as i64
    }

    /// The clock that never goes back.
    pub(crate) fn monotonic(&self, at_us: u64) -> Duration {
        Duration::from_micros(self.drifted(at_us).unsigned_abs() + 1_000_000)
    }

    /// When the monotonic clock shows `due`, at the latest.
    pub(crate) fn when(&self, due: Duration) -> u64 {
        let own = (due.as_micros() as u64).saturating_sub(1_000_000);
        let rate = 1_000_000 + self.clock.drift_ppm;
        (u128::from(own) * 1_000_000 / rate.unsigned_abs() as u128) as u64 + 2
    }

    /// What the wall clock shows.
    pub(crate) fn wall_ms(&self, at_us: u64) -> u64 {
        let off = self.clock.offset_ms.saturating_add(self.stepped_ms);
        (WALL_MS + self.drifted(at_us) / 1_000).saturating_add(off).max(0) as u64
    }

    pub(crate) fn is_up(&self) -> bool {
        self.engine.is_some()
    }
}

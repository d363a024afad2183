//! Two replicas with real stores and sockets, and a path between them.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use comity::{
    BootstrapLimits, Congestion, ConnectionStats, Did, OpenOptions, Replica, Retention, Space, Ticket,
    Transact, Value, Watch,
};
use comity_path::{Conditions, Path};
use tempfile::TempDir;
use tokio::time::MissedTickBehavior;

use crate::Failure;

/// Registers in one change set of the large space.
const REGISTERS: usize = 64;
/// Bytes of each, which nothing makes shorter.
const VALUE_BYTES: usize = 1_024;
/// Writes that are on their way to the disk at once.
const SUBMITTED_MAX: usize = 256;
/// Time between two live writes.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn options(congestion: Congestion) -> OpenOptions {
    // What is measured is the way of the log.
    let bootstrap = BootstrapLimits { entries_min: u64::MAX, ..BootstrapLimits::USUAL };
    let mut options = OpenOptions::default().retention(Retention::OFF).bootstrap(bootstrap);
    options.transport.congestion = congestion;
    options
}

/// A replica that has what others are to catch up on.
pub(super) struct Source {
    replica: Replica,
    pub(super) addr: SocketAddr,
    pub(super) live: Space,
    _directory: TempDir,
}

impl Source {
    pub(super) async fn open(congestion: Congestion) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let replica = Replica::open_with(directory.path(), options(congestion)).await?;
        let addr = replica.listen("127.0.0.1:0".parse()?).await?;
        let live = replica.create_space("live").await?;
        Ok(Self { replica, addr, live, _directory: directory })
    }

    /// A space with so many change sets of one value each that nothing makes shorter.
    pub(super) async fn single(&self, changes: u64) -> Result<Space, Failure> {
        let mut draws = 1_u64;
        self.filled("single", changes, |space, key| {
            let value = Value::Bytes(noise(&mut draws, VALUE_BYTES));
            space.transact(move |tx| tx.register("single", &key.to_string()).write(value))
        })
        .await
    }

    /// A space with so many bytes of values that nothing makes shorter.
    pub(super) async fn large(&self, bytes: u64) -> Result<Space, Failure> {
        let space = self.replica.create_space("large").await?;
        let mut draws = 1_u64;
        for first in (0..bytes.div_ceil(VALUE_BYTES as u64)).step_by(REGISTERS) {
            let values: Vec<Vec<u8>> = (0..REGISTERS).map(|_| noise(&mut draws, VALUE_BYTES)).collect();
            let written = space.transact(move |tx| {
                for (key, value) in (first..).zip(values) {
                    tx.register("large", &key.to_string()).write(Value::Bytes(value))?;
                }
                Ok(())
            });
            written.await?;
        }
        Ok(space)
    }

    /// A space with so many change sets of one addition each.
    pub(super) async fn small(&self, changes: u64) -> Result<Space, Failure> {
        let add = |space: &Space, number: u64| space.counter("small", &(number % 100).to_string()).add(1);
        self.filled("small", changes, add).await
    }

    /// A space with so many change sets, some of them on their way to the disk at once.
    async fn filled(
        &self,
        name: &str,
        changes: u64,
        mut write: impl FnMut(&Space, u64) -> Transact<()>,
    ) -> Result<Space, Failure> {
        let space = self.replica.create_space(name).await?;
        let mut pending = std::collections::VecDeque::new();
        for number in 0..changes {
            pending.push_back(write(&space, number).submit().await?);
            if pending.len() == SUBMITTED_MAX
                && let Some(oldest) = pending.pop_front()
            {
                oldest.receipt().await?;
            }
        }
        for written in pending {
            written.receipt().await?;
        }
        Ok(space)
    }

    pub(super) async fn shutdown(self) {
        self.replica.shutdown().await;
    }
}

/// Another replica, at the far end of a path.
pub(super) struct Follower {
    replica: Replica,
    path: Path,
    live: Space,
    watch: Watch,
    _directory: TempDir,
}

impl Follower {
    /// One that has the small live space, and is connected.
    pub(super) async fn join(
        source: &Source,
        conditions: Conditions,
        congestion: Congestion,
    ) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let replica = Replica::open_with(directory.path(), options(congestion)).await?;
        let path = Path::to(source.addr, conditions, 1)?;
        let live = replica.connect(&over(&path, &source.live.invite().await?)).await?;
        live.at_within(&source.live.token().await?, PATIENCE).await?;
        let watch = live.watch();
        Ok(Self { replica, path, live, watch, _directory: directory })
    }

    /// Takes part in a space of the source's, and returns when all of it is durable here.
    pub(super) async fn catch_up(&self, space: &Space) -> Result<Duration, Failure> {
        let (ticket, token) = (over(&self.path, &space.invite().await?), space.token().await?);
        let started = Instant::now();
        let joined = self.replica.connect(&ticket).await?;
        joined.at_within(&token, PATIENCE).await?;
        Ok(started.elapsed())
    }

    /// How long each of `count` live writes of the source takes until a watcher here has it.
    pub(super) async fn idle(&mut self, source: &Source, count: u32) -> Result<Vec<Duration>, Failure> {
        let left = AtomicU32::new(count);
        let goes_on = || left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        self.latencies(source, goes_on).await
    }

    /// As [`Follower::idle`], for as long as it takes to catch up on a space.
    pub(super) async fn busy(&mut self, source: &Source, space: &Space) -> Result<Vec<Duration>, Failure> {
        let (ticket, token) = (over(&self.path, &space.invite().await?), space.token().await?);
        let (replica, is_over) = (self.replica.clone(), AtomicBool::new(false));
        let catching_up = async {
            let joined = replica.connect(&ticket).await?;
            joined.at_within(&token, PATIENCE).await?;
            is_over.store(true, Relaxed);
            Ok::<_, Failure>(())
        };
        let measuring = self.latencies(source, || !is_over.load(Relaxed));
        let (caught_up, measured) = tokio::join!(catching_up, measuring);
        caught_up?;
        measured
    }

    async fn latencies(
        &mut self,
        source: &Source,
        goes_on: impl Fn() -> bool,
    ) -> Result<Vec<Duration>, Failure> {
        // What was written before is not to be taken for what follows.
        self.live.at_within(&source.live.token().await?, PATIENCE).await?;
        let token = self.live.token().await?;
        self.watch.skip_to(&token)?;
        let (sent, mut written) = tokio::sync::mpsc::unbounded_channel();
        let counter = source.live.counter("live", "all");
        let writing = async move {
            let mut ticks = tokio::time::interval(WRITE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // What a write adds is its number, by which its event is known.
            let mut number = 0;
            while goes_on() {
                ticks.tick().await;
                number += 1;
                sent.send((number, Instant::now()))?;
                counter.add(number).await?;
            }
            Ok::<_, Failure>(())
        };
        let watch = &mut self.watch;
        let watching = async {
            let mut latencies = Vec::new();
            while let Some((number, written)) = written.recv().await {
                loop {
                    let event = tokio::time::timeout(PATIENCE, watch.next()).await??;
                    if event.changes.iter().any(|change| change.did.contains(&Did::Added(number))) {
                        break;
                    }
                }
                latencies.push(written.elapsed());
            }
            Ok::<_, Failure>(latencies)
        };
        let (wrote, latencies) = tokio::join!(writing, watching);
        wrote?;
        latencies
    }

    /// What went over the connection.
    pub(super) async fn traffic(&self) -> Result<ConnectionStats, Failure> {
        let traffic = self.replica.traffic().await?;
        Ok(traffic.first().map(|(_, stats)| *stats).ok_or("there is no connection")?)
    }

    /// Its syncs so far, and how long they took altogether.
    pub(super) fn syncs(&self) -> (u64, Duration) {
        let syncs = self.replica.meters().syncs;
        (syncs.counts.iter().sum(), Duration::from_micros(syncs.sum_us))
    }

    pub(super) async fn shutdown(self) {
        self.replica.shutdown().await;
    }
}

pub(super) fn over(path: &Path, ticket: &Ticket) -> Ticket {
    Ticket { addresses: vec![path.near()], ..ticket.clone() }
}

/// Bytes that nothing makes shorter (SplitMix64; Steele, Lea, Flood, 2014).
fn noise(draws: &mut u64, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 8);
    while value.len() < bytes {
        *draws = draws.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *draws;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    value.truncate(bytes);
    value
}

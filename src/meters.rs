//! What operators watch: how long syncs and the core's steps take, and what waits for the core.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The upper bounds of the classes of [`Histogram`], microseconds; one more class has no bound.
pub const METER_BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

const CLASSES: usize = METER_BOUNDS_US.len() + 1;

/// How long something took, each time that it was done since the replica was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// How often it took no longer than each of [`METER_BOUNDS_US`] and longer than the one before; then how often it
    /// took longer than all.
    pub counts: [u64; CLASSES],
    /// All together, microseconds.
    pub sum_us: u64,
}

/// What a replica was busy with since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Meters {
    /// Syncs of the log: what an acknowledgement waits for.
    pub syncs: Histogram,
    /// Frames of peers: decoding, checking and applying them.
    pub frames: Histogram,
    /// Transactions and questions of this replica's own clients.
    pub jobs: Histogram,
    /// What waits for the core now.
    pub waiting: usize,
    /// And at most; then whoever has something for it waits for room.
    pub waiting_max: usize,
}

/// A histogram that is being made. Its figures may be of slightly different moments.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    counts: [AtomicU64; CLASSES],
    sum_us: AtomicU64,
}

impl Meter {
    /// Does something, and notes how long it took.
    pub(crate) fn time<R>(&self, what: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let done = what();
        self.note(started.elapsed());
        done
    }

    fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = METER_BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Histogram {
        let counts = std::array::from_fn(|class| self.counts[class].load(Ordering::Relaxed));
        Histogram { counts, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// What the threads of a replica measure.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) syncs: Meter,
    pub(crate) frames: Meter,
    pub(crate) jobs: Meter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_class_whose_bound_it_does_not_exceed() {
        let meter = Meter::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            meter.note(Duration::from_micros(us));
        }
        let read = meter.read();
        assert_eq!((read.counts[0], read.counts[1], read.counts[15], read.counts[16]), (2, 1, 1, 1));
        assert_eq!(read.sum_us, 20_000_102);
    }
}

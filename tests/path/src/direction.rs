//! One direction of a path: what becomes of each datagram. No socket and no clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Conditions;

/// Datagrams that leave within this time of each other leave together.
const TOGETHER: Duration = Duration::from_micros(500);

/// Datagrams under way in one direction, at most; more are lost.
const UNDER_WAY_BYTES_MAX: usize = 256 << 20;

/// Datagrams of one length, of which the last may be shorter, that are delivered together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// Where it goes.
    pub(crate) route: usize,
    pub(crate) bytes: Vec<u8>,
    /// Length of each datagram in it.
    pub(crate) stride: usize,
    due: Duration,
}

impl Parcel {
    pub(crate) fn datagrams(&self) -> u64 {
        self.bytes.len().div_ceil(self.stride.max(1)) as u64
    }
}

/// What was done with the datagrams of one burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) lost: u64,
    pub(crate) overflowed: u64,
    pub(crate) cut: u64,
}

/// What is under way in one direction, in order.
#[derive(Debug)]
pub(crate) struct Direction {
    draws: u64,
    /// When the last datagram has passed the place where the rate is the limit.
    busy_until: Duration,
    under_way: VecDeque<Parcel>,
    under_way_bytes: usize,
}

impl Direction {
    pub(crate) fn new(seed: u64) -> Self {
        Self { draws: seed, busy_until: Duration::ZERO, under_way: VecDeque::new(), under_way_bytes: 0 }
    }

    /// Takes in datagrams of `stride` bytes each that came together.
    pub(crate) fn admit(
        &mut self,
        now: Duration,
        conditions: &Conditions,
        (route, bytes, stride): (usize, &[u8], usize),
    ) -> Fates {
        let mut fates = Fates::default();
        let mut parcel: Option<Parcel> = None;
        for datagram in bytes.chunks(stride.max(1)) {
            if conditions.is_cut {
                fates.cut += 1;
                continue;
            }
            if self.draw_ppm() < conditions.loss_ppm {
                fates.lost += 1;
                continue;
            }
            let Some(due) = self.due(now, conditions, datagram.len()) else {
                fates.overflowed += 1;
                continue;
            };
            match &mut parcel {
                Some(open) if due <= open.due + TOGETHER => open.bytes.extend_from_slice(datagram),
                _ => {
                    parcel.take().into_iter().for_each(|full| self.push(full));
                    parcel = Some(Parcel { route, bytes: datagram.to_vec(), stride, due });
                }
            }
        }
        parcel.into_iter().for_each(|last| self.push(last));
        fates
    }

    /// The next parcel that is due, if any.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Parcel> {
        self.under_way.front().filter(|parcel| parcel.due <= now)?;
        let parcel = self.under_way.pop_front()?;
        self.under_way_bytes -= parcel.bytes.len();
        Some(parcel)
    }

    /// Puts back a parcel that could not be sent yet.
    pub(crate) fn put_back(&mut self, parcel: Parcel) {
        self.under_way_bytes += parcel.bytes.len();
        self.under_way.push_front(parcel);
    }

    /// When the next parcel is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.under_way.front().map(|parcel| parcel.due)
    }

    fn push(&mut self, mut parcel: Parcel) {
        // A path that became shorter does not change the order.
        parcel.due = parcel.due.max(self.under_way.back().map_or(Duration::ZERO, |last| last.due));
        self.under_way_bytes += parcel.bytes.len();
        self.under_way.push_back(parcel);
    }

    /// When a datagram that comes in now is at the other end; `None` when there is no room for it.
    fn due(&mut self, now: Duration, conditions: &Conditions, bytes: usize) -> Option<Duration> {
        if self.under_way_bytes + bytes > UNDER_WAY_BYTES_MAX {
            return None;
        }
        let Some(rate) = conditions.rate.filter(|rate| *rate > 0) else {
            return Some(now + conditions.delay);
        };
        let takes =
            |bytes: u64| Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(rate)) as u64);
        let waits = self.busy_until.saturating_sub(now);
        if waits > takes(conditions.queue_bytes) {
            return None;
        }
        self.busy_until = now + waits + takes(bytes as u64);
        Some(self.busy_until + conditions.delay)
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014), below a million.
    fn draw_ppm(&mut self) -> u32 {
        self.draws = self.draws.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.draws;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % 1_000_000) as u32
    }
}

//! Randomness that stays put: every decision is drawn from its own key, so that leaving one event out of a
//! run does not reshuffle the others.

/// What a decision is about; part of its key.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Domain {
    /// Which faults a run has, and how many of everything.
    Menu = 1,
    /// What clients do.
    Workload,
    /// When faults happen.
    Fault,
    /// The fresh bits of one call of the core.
    Fresh,
    /// How long a frame is under way.
    Latency,
    /// How long a sync takes, and what a crash leaves of it.
    Disk,
    /// When a connection is tried again.
    Dial,
    /// What a hostile peer does to a frame.
    Tamper,
    /// Which replicas are healed first.
    Core,
}

/// A stream of random numbers (SplitMix64: Steele, Lea and Flood, *Fast Splittable Pseudorandom Number
/// Generators*, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The stream of one decision.
    pub(crate) fn keyed(seed: u64, domain: Domain, entity: u64, index: u64) -> Self {
        let mut dice = Self(seed);
        for part in [domain as u64, entity, index] {
            dice.0 = dice.roll() ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        dice
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.roll() % end }
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// From `low` to `high`, each order of magnitude as likely as any other.
    pub(crate) fn log_between(&mut self, low: u64, high: u64) -> u64 {
        let (low_bits, high_bits) = (low.max(1).ilog2(), high.max(1).ilog2());
        let bits = self.between(u64::from(low_bits), u64::from(high_bits));
        ((1 << bits) + self.below(1 << bits)).clamp(low, high)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// Small numbers more often than large ones, as keys are in use.
    pub(crate) fn skewed(&mut self, end: u64) -> u64 {
        let (a, b) = (self.below(end), self.below(end));
        a.min(b)
    }
}

/// A quick checksum that goes on from `state`.
pub(crate) fn mix(state: u64, bytes: &[u8]) -> u64 {
    let mut state = state ^ (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^= state >> 32;
    }
    state
}

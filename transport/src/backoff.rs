//! Pauses between dials: exponential with full jitter, so that replicas restarted together spread out.
//!
//! See M. Brooker, "Exponential Backoff And Jitter", 2015.

use std::time::Duration;

/// Shortest pause.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest pause.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A sequence of pauses between failed dials. Deterministic for its seed; reads no clock.
#[derive(Clone, Debug)]
pub struct Backoff {
    random: u64,
    ceiling: Duration,
}

impl Backoff {
    /// A fresh sequence. Give every peer pair a different seed, or the jitter is in vain.
    pub fn new(seed: u64) -> Backoff {
        Backoff { random: seed, ceiling: BACKOFF_MIN }
    }

    /// The pause before the next dial: uniform between [`BACKOFF_MIN`] and a ceiling that doubles with every
    /// call, up to [`BACKOFF_MAX`].
    #[expect(clippy::should_implement_trait, reason = "an endless sequence has no use for an Option")]
    pub fn next(&mut self) -> Duration {
        self.ceiling = (self.ceiling * 2).min(BACKOFF_MAX);
        let span_us = (self.ceiling - BACKOFF_MIN).as_micros();
        let fraction = u128::from(self.draw());
        // Multiply-shift maps 64 random bits onto 0..=span without a division or a visible bias.
        let offset_us = (fraction * (span_us + 1)) >> 64;
        BACKOFF_MIN + Duration::from_micros(offset_us as u64)
    }

    /// Starts over from the shortest pauses, after a connection has proved useful. The random sequence goes on.
    pub fn reset(&mut self) {
        self.ceiling = BACKOFF_MIN;
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_within_their_bounds_and_the_ceiling_doubles() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let mut ceiling = BACKOFF_MIN;
            for _ in 0..40 {
                ceiling = (ceiling * 2).min(BACKOFF_MAX);
                let pause = backoff.next();
                assert!(pause >= BACKOFF_MIN && pause <= ceiling, "seed {seed}: {pause:?} over {ceiling:?}");
            }
            assert_eq!(ceiling, BACKOFF_MAX);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses_and_another_seed_others() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..10).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn jitter_fills_the_whole_range() {
        let mut low = 0;
        let mut high = 0;
        for seed in 0..1000 {
            let mut backoff = Backoff::new(seed);
            let last = (0..12).map(|_| backoff.next()).last().expect("twelve pauses");
            low += usize::from(last < BACKOFF_MAX / 4);
            high += usize::from(last > BACKOFF_MAX * 3 / 4);
        }
        assert!((150..350).contains(&low), "{low} of 1000 in the lowest quarter");
        assert!((150..350).contains(&high), "{high} of 1000 in the highest quarter");
    }

    #[test]
    fn reset_returns_to_the_short_pauses() {
        let mut backoff = Backoff::new(9);
        for _ in 0..20 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= BACKOFF_MIN * 2);
    }
}

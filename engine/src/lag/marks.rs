//! What is remembered of a lane's entries so that lag has bytes and an age: a few of them, the newest ones all, older
//! ones ever more sparsely.

use std::collections::VecDeque;
use std::time::Duration;

use super::ENTRY_BYTES_GUESS;

/// Marks of one lane, 24 bytes each.
const MARKS_MAX: usize = 128;
/// What peers said of one lane, 24 bytes each.
const TOLD_MAX: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: u64,
    at_ms: u64,
    /// Of the entries since the lane was read back, up to this one, in stored form.
    bytes: u64,
}

/// Some entries of a lane that are applied: the one it was read back with, and some since.
#[derive(Clone, Debug)]
pub(crate) struct Marks(VecDeque<Mark>);

impl Marks {
    /// Nothing is known but where the lane stands.
    pub(crate) fn from(lsn: u64, at_ms: u64) -> Self {
        Self(VecDeque::from([Mark { lsn, at_ms, bytes: 0 }]))
    }

    /// The next entry was applied. O(1), amortized: of the older half every second mark is left out now and then.
    pub(crate) fn note(&mut self, lsn: u64, at_ms: u64, bytes: usize) {
        if self.0.len() >= MARKS_MAX {
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place > MARKS_MAX / 2 || place % 2 == 1
            });
        }
        let before = self.last().bytes;
        self.0.push_back(Mark { lsn, at_ms, bytes: before + bytes as u64 });
    }

    fn first(&self) -> Mark {
        self.0[0]
    }

    fn last(&self) -> Mark {
        self.0[self.0.len() - 1]
    }

    /// The stamp of an entry; of the nearest older one that is remembered otherwise, or else of the first.
    pub(crate) fn stamp_ms(&self, lsn: u64) -> u64 {
        let later = self.0.partition_point(|mark| mark.lsn <= lsn);
        self.0[later.saturating_sub(1)].at_ms
    }

    /// The mean size of what is remembered.
    pub(crate) fn mean_bytes(&self) -> u64 {
        let (first, last) = (self.first(), self.last());
        match last.lsn - first.lsn {
            0 => ENTRY_BYTES_GUESS,
            count => last.bytes / count,
        }
    }

    /// The bytes of the entries after `from`, up to `until`, and whether they are known.
    pub(crate) fn bytes_between(&self, from: u64, until: u64) -> (u64, bool) {
        let first = self.first().lsn;
        let ((start, starts), (end, ends)) = (self.bytes_through(from), self.bytes_through(until));
        let before = first.saturating_sub(from).min(until - from);
        (end.saturating_sub(start) + before * self.mean_bytes(), starts && ends && before == 0)
    }

    /// The bytes up to an entry, from the first mark on; between two marks in proportion.
    fn bytes_through(&self, lsn: u64) -> (u64, bool) {
        let later = self.0.partition_point(|mark| mark.lsn <= lsn);
        let Some(before) = later.checked_sub(1).map(|place| self.0[place]) else { return (0, false) };
        match self.0.get(later) {
            Some(after) if before.lsn < lsn => {
                let (entries, of) = (lsn - before.lsn, after.lsn - before.lsn);
                (before.bytes + (after.bytes - before.bytes) * entries / of, false)
            }
            _ => (before.bytes, before.lsn == lsn),
        }
    }
}

/// What peers said they have of a lane, beyond what is durable here, with when that was said first.
#[derive(Debug, Default)]
pub(crate) struct Told(VecDeque<(u64, Duration)>);

impl Told {
    /// Somebody has the lane up to an entry. O(1), amortized.
    pub(crate) fn note(&mut self, now: Duration, lsn: u64, durable: u64) {
        while self.0.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            self.0.pop_front();
        }
        let is_full = self.0.len() >= TOLD_MAX;
        match self.0.back_mut() {
            Some((last, _)) if *last >= lsn => {}
            // As if it had been said with the one before: rather older than younger.
            Some((last, _)) if is_full => *last = lsn,
            Some(_) | None => self.0.push_back((lsn, now)),
        }
    }

    /// Since when it is known that there is more than is durable here.
    pub(crate) fn since(&self, durable: u64) -> Option<Duration> {
        self.0.iter().find(|(lsn, _)| *lsn > durable).map(|(_, since)| *since)
    }

    pub(crate) fn is_ahead_of(&self, durable: u64) -> bool {
        self.0.back().is_some_and(|(lsn, _)| *lsn > durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_entries_are_known_one_by_one_and_old_ones_about() {
        let mut marks = Marks::from(10, 1_000);
        for lsn in 11..=5_000u64 {
            marks.note(lsn, 1_000 + lsn, 100);
        }
        assert!(marks.0.len() <= MARKS_MAX);
        assert_eq!(marks.bytes_between(4_990, 5_000), (1_000, true));
        assert_eq!((marks.stamp_ms(5_000), marks.stamp_ms(4_991)), (6_000, 5_991));
        let (bytes, _) = marks.bytes_between(1_234, 5_000);
        assert_eq!(bytes, 376_600, "entries of equal size are estimated as what they are");
        for lsn in (11..5_000).step_by(97) {
            assert!(marks.stamp_ms(lsn) <= 1_000 + lsn, "an age is never understated");
        }
        assert_eq!(marks.bytes_between(5, 10), (500, false), "what came before has the mean size");
        assert_eq!(marks.bytes_between(5, 12), (700, false));
        assert_eq!(marks.stamp_ms(3), 1_000);
    }

    #[test]
    fn what_was_said_is_as_old_as_the_first_word_of_it() {
        let at = Duration::from_secs;
        let mut told = Told::default();
        told.note(at(1), 5, 3);
        told.note(at(2), 4, 3);
        told.note(at(3), 9, 3);
        assert_eq!((told.since(3), told.since(5), told.since(9)), (Some(at(1)), Some(at(3)), None));
        for more in 0..1_000 {
            told.note(at(4 + more), 10 + more, 5);
        }
        assert!(told.0.len() <= TOLD_MAX);
        assert_eq!(told.since(5), Some(at(3)));
        assert!(told.is_ahead_of(1_008) && !told.is_ahead_of(1_009));
    }
}

//! Changes of a file that wait to be made: what they are, in which order, and how the file looks with them.
//!
//! Writes between two syncs may reach a disk in any order, so only the last one of each place is kept. A sync
//! and a change of the length keep their place among them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Changes of a file that wait, in their order.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// The oldest first.
    steps: VecDeque<Step>,
    bytes: usize,
}

/// Writes to places apart from each other, and what has to come after all of them.
#[derive(Debug, Default)]
struct Step {
    writes: BTreeMap<u64, Arc<[u8]>>,
    then: Option<Barrier>,
}

/// What keeps its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barrier {
    Sync,
    SetLen(u64),
}

/// The change to be made next.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write(u64, Arc<[u8]>),
    Sync,
    SetLen(u64),
}

impl Step {
    /// The writes that share bytes with a range, the last one first.
    fn overlapping(&self, offset: u64, length: usize) -> impl Iterator<Item = (u64, &Arc<[u8]>)> {
        let before_end = self.writes.range(..offset.saturating_add(length as u64)).rev();
        before_end.map(|(at, data)| (*at, data)).take_while(move |(at, data)| at + data.len() as u64 > offset)
    }

    /// Whether a write may join: it takes the place of another one or lies apart from all.
    fn takes(&self, offset: u64, length: usize) -> bool {
        self.then.is_none()
            && self.overlapping(offset, length).all(|(at, data)| (at, data.len()) == (offset, length))
    }
}

impl Backlog {
    /// How many bytes of writes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a write.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if !self.steps.back().is_some_and(|step| step.takes(offset, data.len())) {
            self.steps.push_back(Step::default());
        }
        let step = self.steps.back_mut().expect("there is one to write into");
        let replaced = step.writes.insert(offset, data.into());
        self.bytes += data.len();
        self.bytes -= replaced.map_or(0, |data| data.len());
    }

    /// Adds a sync of what comes before it.
    pub(crate) fn sync(&mut self) {
        self.close(Barrier::Sync);
    }

    /// Adds a change of the length.
    pub(crate) fn set_len(&mut self, length: u64) {
        self.close(Barrier::SetLen(length));
    }

    fn close(&mut self, barrier: Barrier) {
        match self.steps.back_mut() {
            Some(step) if step.then.is_none() => step.then = Some(barrier),
            _ => self.steps.push_back(Step { writes: BTreeMap::new(), then: Some(barrier) }),
        }
    }

    /// The length that the file will have, where it changes.
    pub(crate) fn length(&self) -> Option<u64> {
        self.steps.iter().rev().find_map(|step| match step.then {
            Some(Barrier::SetLen(length)) => Some(length),
            Some(Barrier::Sync) | None => None,
        })
    }

    /// Changes what the file holds at `offset` to what it will hold. O(log writes) for each sync that waits.
    pub(crate) fn overlay(&self, offset: u64, out: &mut [u8]) {
        for step in &self.steps {
            for (at, data) in step.overlapping(offset, out.len()) {
                let (skipped, start) = (offset.saturating_sub(at), at.saturating_sub(offset));
                let (data, out) = (&data[place(skipped)..], &mut out[place(start)..]);
                let length = data.len().min(out.len());
                out[..length].copy_from_slice(&data[..length]);
            }
            if let Some(Barrier::SetLen(length)) = step.then {
                let kept = length.saturating_sub(offset).min(out.len() as u64);
                out[place(kept)..].fill(0);
            }
        }
    }

    /// The change to be made next; `None` when nothing waits.
    pub(crate) fn next(&self) -> Option<Change> {
        // One without a write or a barrier is never left at the front.
        let step = self.steps.front()?;
        match (step.writes.first_key_value(), step.then) {
            (Some((offset, data)), _) => Some(Change::Write(*offset, Arc::clone(data))),
            (None, Some(Barrier::Sync)) => Some(Change::Sync),
            (None, Some(Barrier::SetLen(length))) => Some(Change::SetLen(length)),
            (None, None) => None,
        }
    }

    /// Takes away the change that [`Backlog::next`] gave, once it is made. One that was replaced meanwhile stays.
    pub(crate) fn made(&mut self, change: &Change) {
        let Some(step) = self.steps.front_mut() else { return };
        match change {
            Change::Write(offset, made) => {
                if step.writes.get(offset).is_some_and(|data| Arc::ptr_eq(data, made)) {
                    step.writes.remove(offset);
                    self.bytes -= made.len();
                }
            }
            Change::Sync | Change::SetLen(_) => step.then = None,
        }
        if step.writes.is_empty() && step.then.is_none() {
            self.steps.pop_front();
        }
    }
}

/// A distance within a buffer.
fn place(distance: u64) -> usize {
    usize::try_from(distance).expect("it is no longer than what is in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Makes a change to a file in memory.
    fn make(file: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(offset, data) => {
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                file.resize(file.len().max(end), 0);
                file[start..end].copy_from_slice(data);
            }
            Change::SetLen(length) => file.resize(*length as usize, 0),
            Change::Sync => {}
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            8 => (0u64..24, prop::collection::vec(any::<u8>(), 1..8))
                .prop_map(|(offset, data)| Change::Write(offset, data.into())),
            1 => Just(Change::Sync),
            1 => (0u64..32).prop_map(Change::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn what_waits_looks_and_ends_as_if_it_had_been_made_at_once(
            start in prop::collection::vec(any::<u8>(), 0..32),
            changes in prop::collection::vec((change(), 0usize..3), 0..24),
        ) {
            let (mut file, mut expected, mut backlog) = (start.clone(), start, Backlog::default());
            for (change, makes) in changes {
                make(&mut expected, &change);
                match &change {
                    Change::Write(offset, data) => backlog.write(*offset, data),
                    Change::Sync => backlog.sync(),
                    Change::SetLen(length) => backlog.set_len(*length),
                }
                for _ in 0..makes {
                    let Some(next) = backlog.next() else { break };
                    make(&mut file, &next);
                    backlog.made(&next);
                }
                let mut seen = file.clone();
                seen.resize(40, 0);
                for offset in [0, 3, 17] {
                    backlog.overlay(offset as u64, &mut seen[offset..]);
                }
                let mut padded = expected.clone();
                padded.resize(40, 0);
                prop_assert_eq!(&seen, &padded);
                let held: usize = backlog.steps.iter().flat_map(|step| step.writes.values()).map(|data| data.len()).sum();
                prop_assert_eq!(backlog.bytes(), held);
            }
            while let Some(next) = backlog.next() {
                make(&mut file, &next);
                backlog.made(&next);
            }
            file.resize(40, 0);
            expected.resize(40, 0);
            prop_assert_eq!(file, expected);
            prop_assert!(backlog.steps.is_empty());
        }
    }

    #[test]
    fn a_sync_waits_for_the_writes_before_it_and_holds_up_those_after_it() {
        let mut backlog = Backlog::default();
        backlog.write(0, b"old");
        backlog.sync();
        backlog.write(0, b"new");
        let mut order = Vec::new();
        while let Some(change) = backlog.next() {
            backlog.made(&change);
            order.push(match change {
                Change::Write(_, data) => String::from_utf8(data.to_vec()).unwrap(),
                Change::Sync => "sync".to_owned(),
                Change::SetLen(_) => "length".to_owned(),
            });
        }
        assert_eq!(order, ["old", "sync", "new"]);
    }

    #[test]
    fn a_write_that_was_replaced_while_it_was_made_is_made_again() {
        let mut backlog = Backlog::default();
        backlog.write(0, b"old");
        let change = backlog.next().unwrap();
        backlog.write(0, b"new");
        backlog.made(&change);
        assert!(matches!(backlog.next(), Some(Change::Write(0, data)) if *data == *b"new"));
    }
}

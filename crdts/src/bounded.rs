//! Counters that never go below 0.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::codec::{DecodeError, Reader, Writer};
use crate::id::OriginId;
use crate::limits::BOUNDED_BITS_MAX;

/// A counter that stays at 0 or above without asking anybody, because whoever takes from it holds the right
/// to. An increment creates rights for its author, a decrement uses the author's up, a transfer passes some on.
/// (The bounded counter of Balegas et al., *Extending Eventually Consistent Cloud Databases for Enforcing
/// Numeric Invariants*, 2015.)
///
/// The promise holds where each origin's operations were checked against all of that origin's earlier ones.
/// Applying never fails and never looks at rights: what a dishonest author overdraws is negative rights of its
/// own. What is kept is the rights that each origin holds now: operations arrive exactly once and only add up, so no
/// account of what was passed on to whom is needed, and nothing is left once all rights are used up.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedCounter {
    /// What each may take or pass on. Never 0.
    rights: BTreeMap<OriginId, i128>,
}

/// Why an operation on a bounded counter cannot be written. The caller's fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoundedError {
    /// The author holds too few rights. If the value is enough, others hold the rest and can pass it on.
    #[error("{needed} rights are needed and {rights} are held here; the counter is at {value}")]
    Insufficient {
        /// What was to be taken or passed on.
        needed: u64,
        /// What its author holds.
        rights: i128,
        /// The value of the counter.
        value: i128,
    },
    /// The counter would be at 2^[`BOUNDED_BITS_MAX`] or more.
    #[error("adding {added} to {value} leaves the range of a bounded counter, which is below 2^{bits_max}")]
    Range {
        /// What was to be added.
        added: u64,
        /// The value of the counter.
        value: i128,
        /// The limit, [`BOUNDED_BITS_MAX`].
        bits_max: u32,
    },
}

impl BoundedCounter {
    /// A counter at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an increment by `by`, who holds the new rights.
    pub fn increment(&mut self, by: OriginId, amount: u64) {
        self.change(by, i128::from(amount));
    }

    /// Applies a decrement by `by`.
    pub fn decrement(&mut self, by: OriginId, amount: u64) {
        self.change(by, -i128::from(amount));
    }

    /// Applies a transfer of rights by `from`. A transfer to oneself moves nothing.
    pub fn transfer(&mut self, from: OriginId, to: OriginId, amount: u64) {
        self.change(from, -i128::from(amount));
        self.change(to, i128::from(amount));
    }

    /// Wraps, because saturation would not commute; honest authors would have to make 2^63 operations to see it.
    fn change(&mut self, origin: OriginId, by: i128) {
        let rights = self.rights(&origin).wrapping_add(by);
        if rights == 0 {
            self.rights.remove(&origin);
        } else {
            self.rights.insert(origin, rights);
        }
    }

    /// The value: everything created less everything used up, which is the rights that all hold. O(holders).
    pub fn value(&self) -> i128 {
        self.rights.values().fold(0, |value: i128, rights| value.wrapping_add(*rights))
    }

    /// What `origin` may take or pass on: never below 0 if it is honest. O(log holders).
    pub fn rights(&self, origin: &OriginId) -> i128 {
        self.rights.get(origin).copied().unwrap_or(0)
    }

    /// Everybody who holds rights, with how many; most rights first, ties ascending by origin. This is the
    /// order in which to ask for some. O(holders · log holders).
    pub fn holders(&self) -> impl Iterator<Item = (OriginId, i128)> + use<> {
        let held = self.rights.iter().map(|(origin, rights)| (*origin, *rights));
        let mut holders: Vec<_> = held.filter(|(_, rights)| *rights > 0).collect();
        holders.sort_unstable_by_key(|(origin, rights)| (Reverse(*rights), *origin));
        holders.into_iter()
    }

    /// Whether nobody holds any rights, so that the counter is at 0 and can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.rights.is_empty()
    }

    /// Checks, before writing an increment, that the value stays below 2^[`BOUNDED_BITS_MAX`].
    ///
    /// # Errors
    /// [`BoundedError::Range`].
    pub fn check_increment(&self, amount: u64) -> Result<(), BoundedError> {
        let value = self.value();
        let sum = value.checked_add(i128::from(amount));
        if sum.is_some_and(|sum| sum < 1 << BOUNDED_BITS_MAX) {
            Ok(())
        } else {
            Err(BoundedError::Range { added: amount, value, bits_max: BOUNDED_BITS_MAX })
        }
    }

    /// Checks, before writing a decrement, that its author holds the rights.
    ///
    /// # Errors
    /// [`BoundedError::Insufficient`].
    pub fn check_decrement(&self, by: OriginId, amount: u64) -> Result<(), BoundedError> {
        self.check_rights(by, amount)
    }

    /// Checks, before writing a transfer, that its author holds the rights, also if it would pass them to
    /// itself.
    ///
    /// # Errors
    /// [`BoundedError::Insufficient`].
    pub fn check_transfer(&self, from: OriginId, _to: OriginId, amount: u64) -> Result<(), BoundedError> {
        self.check_rights(from, amount)
    }

    fn check_rights(&self, origin: OriginId, needed: u64) -> Result<(), BoundedError> {
        let rights = self.rights(&origin);
        if rights >= i128::from(needed) {
            Ok(())
        } else {
            Err(BoundedError::Insufficient { needed, rights, value: self.value() })
        }
    }

    /// Appends the canonical encoding: the number of holders, then each with its origin and its rights as a zigzag
    /// varint, ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.rights.len() as u64);
        for (origin, rights) in &self.rights {
            out.bytes(&origin.0);
            out.varint_wide_signed(*rights);
        }
    }

    /// Reads what [`BoundedCounter::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a counter.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut rights = BTreeMap::new();
        for _ in 0..reader.count(usize::MAX, "holders")? {
            let origin = OriginId(reader.array("holder")?);
            let held = reader.varint_wide_signed("rights")?;
            if held == 0 || rights.last_key_value().is_some_and(|(last, _)| *last >= origin) {
                return Err(DecodeError::NotCanonical { what: "holders" });
            }
            rights.insert(origin, held);
        }
        Ok(Self { rights })
    }
}

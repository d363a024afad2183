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
/// own. Its size is that of the pairs of origins that ever passed rights on, and of the origins that ever
/// made or used any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedCounter {
    /// What the first passed on to the second; what it created, where the two are the same. Never 0.
    grants: BTreeMap<(OriginId, OriginId), u128>,
    /// What each used up. Never 0.
    used: BTreeMap<OriginId, u128>,
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
        add(&mut self.grants, (by, by), amount);
    }

    /// Applies a decrement by `by`.
    pub fn decrement(&mut self, by: OriginId, amount: u64) {
        add(&mut self.used, by, amount);
    }

    /// Applies a transfer of rights by `from`. A transfer to oneself moves nothing.
    pub fn transfer(&mut self, from: OriginId, to: OriginId, amount: u64) {
        if from != to {
            add(&mut self.grants, (from, to), amount);
        }
    }

    /// The value: everything created less everything used up. O(origins + transfers).
    pub fn value(&self) -> i128 {
        let created = self.grants.iter().filter(|((from, to), _)| from == to).map(|(_, amount)| *amount);
        let used = self.used.values().copied();
        total(created).wrapping_sub(total(used))
    }

    /// What `origin` may take or pass on: never below 0 if it is honest. O(transfers).
    pub fn rights(&self, origin: &OriginId) -> i128 {
        let mut rights = self.used.get(origin).map_or(0, |used| (*used as i128).wrapping_neg());
        for ((from, to), amount) in &self.grants {
            if to == origin {
                rights = rights.wrapping_add(*amount as i128);
            } else if from == origin {
                rights = rights.wrapping_sub(*amount as i128);
            }
        }
        rights
    }

    /// Everybody who holds rights, with how many; most rights first, ties ascending by origin. This is the
    /// order in which to ask for some. O((origins + transfers) · log origins).
    pub fn holders(&self) -> impl Iterator<Item = (OriginId, i128)> + use<> {
        let mut rights: BTreeMap<OriginId, i128> = BTreeMap::new();
        let mut change = |origin: &OriginId, amount: i128| {
            let held = rights.entry(*origin).or_default();
            *held = held.wrapping_add(amount);
        };
        for ((from, to), amount) in &self.grants {
            change(to, *amount as i128);
            if from != to {
                change(from, (*amount as i128).wrapping_neg());
            }
        }
        self.used.iter().for_each(|(origin, amount)| change(origin, (*amount as i128).wrapping_neg()));
        let mut holders: Vec<_> = rights.into_iter().filter(|(_, rights)| *rights > 0).collect();
        holders.sort_unstable_by_key(|(origin, rights)| (Reverse(*rights), *origin));
        holders.into_iter()
    }

    /// Whether nothing was ever applied.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.used.is_empty()
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

    /// Appends the canonical encoding: the number of grants, then each with its two origins and its amount as
    /// a varint, ascending; the number of origins that used any up, then each with its amount, ascending.
    pub fn encode(&self, out: &mut Writer) {
        out.varint(self.grants.len() as u64);
        for ((from, to), amount) in &self.grants {
            out.bytes(&from.0);
            out.bytes(&to.0);
            out.varint_wide(*amount);
        }
        out.varint(self.used.len() as u64);
        for (origin, amount) in &self.used {
            out.bytes(&origin.0);
            out.varint_wide(*amount);
        }
    }

    /// Reads what [`BoundedCounter::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not the canonical encoding of a counter.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let grants = decode_amounts(reader, |reader| Ok((decode_origin(reader)?, decode_origin(reader)?)))?;
        let used = decode_amounts(reader, decode_origin)?;
        Ok(Self { grants, used })
    }
}

/// Wraps, because saturation would not commute; honest authors would have to make 2^64 operations to see it.
fn add<K: Ord + Copy>(amounts: &mut BTreeMap<K, u128>, key: K, amount: u64) {
    let sum = amounts.get(&key).map_or(0, |sum| *sum).wrapping_add(u128::from(amount));
    if sum == 0 {
        amounts.remove(&key);
    } else {
        amounts.insert(key, sum);
    }
}

fn total(amounts: impl Iterator<Item = u128>) -> i128 {
    amounts.fold(0, u128::wrapping_add) as i128
}

fn decode_origin(reader: &mut Reader<'_>) -> Result<OriginId, DecodeError> {
    Ok(OriginId(reader.array("origin")?))
}

fn decode_amounts<K: Ord>(
    reader: &mut Reader<'_>,
    mut key: impl FnMut(&mut Reader<'_>) -> Result<K, DecodeError>,
) -> Result<BTreeMap<K, u128>, DecodeError> {
    let mut amounts = BTreeMap::new();
    for _ in 0..reader.count(usize::MAX, "amounts")? {
        let key = key(reader)?;
        let amount = reader.varint_wide("amount")?;
        if amount == 0 || amounts.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(DecodeError::NotCanonical { what: "amounts" });
        }
        amounts.insert(key, amount);
    }
    Ok(amounts)
}

//! Dots: the identity of one operation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::OriginId;

/// The identity of one operation on an object: the change set it came in, and its place among that
/// change set's operations on the same object. (Almeida et al., *Scalable and Accurate Causality Tracking
/// for Eventually Consistent Stores*, 2014.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who authored the change set.
    pub origin: OriginId,
    /// The change set's number at its origin, from 1.
    pub seq: u64,
    /// The operation's index among the change set's operations on the same object, from 0.
    pub index: u16,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}.{}", self.origin, self.seq, self.index)
    }
}

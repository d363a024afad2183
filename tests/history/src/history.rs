//! What clients did and saw.

use std::fmt;

/// What clients did: each session's operations in the order in which it did them.
///
/// A session carries causality: whatever replica serves it, an operation happens after everything that the
/// session's earlier operations saw or did. An operation that got no answer at all and wrote nothing is no
/// operation: leave it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The sessions; the position of a session is its number.
    pub sessions: Vec<Vec<Operation>>,
}

/// One thing that a session did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Wrote a value.
    Write {
        /// What it wrote to.
        key: u32,
        /// What it wrote; nobody else ever writes this value, to any key.
        value: u64,
        /// The values of `key` that the replica showed at that moment, which this write replaces.
        replaced: Vec<u64>,
        /// What the session heard.
        outcome: Outcome,
    },
    /// Saw exactly these values of `key` as siblings.
    Read {
        /// What it read.
        key: u32,
        /// All that it saw, in any order; none: never written.
        values: Vec<u64>,
    },
}

/// What a session heard of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The write happened, and the session's next operations come after it.
    Acknowledged,
    /// The reply never came: the write may or may not have happened, and may happen after the session's next
    /// operations. If it happened, it replaced exactly what the operation says.
    Unknown,
    /// As [`Outcome::Unknown`], and what it replaced was in the reply that never came: if the write happened,
    /// it replaced whatever the replica showed. The operation lists what is known to have been replaced
    /// before or by it, mostly nothing.
    Unstated,
}

/// Where an operation stands in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The session's number, from 0.
    pub session: usize,
    /// The operation's position in its session, from 0.
    pub index: usize,
}

impl Operation {
    /// The key that the operation is about.
    pub fn key(&self) -> u32 {
        match self {
            Self::Write { key, .. } | Self::Read { key, .. } => *key,
        }
    }

    /// The values that the replica showed: what a read returned, or what a write replaced.
    pub fn seen(&self) -> &[u64] {
        match self {
            Self::Write { replaced, .. } => replaced,
            Self::Read { values, .. } => values,
        }
    }

    /// Whether the session came after its own operation: any but a write without a reply.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            Self::Write { outcome, .. } => *outcome == Outcome::Acknowledged,
            Self::Read { .. } => true,
        }
    }

    /// Whether what the operation saw is not known in full.
    pub(crate) fn is_unstated(&self) -> bool {
        matches!(self, Self::Write { outcome: Outcome::Unstated, .. })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} operation {}", self.session, self.index)
    }
}

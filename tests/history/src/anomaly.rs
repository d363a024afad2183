//! Why a history is not causally consistent.

use std::fmt;

use crate::history::Place;

/// The shape of a violation; the first four are the bad patterns of Bouajjani et al., the others what they
/// become when a read returns several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pattern {
    /// Operations that each happened before the next, and the last before the first.
    CyclicCO,
    /// A value was seen that nobody wrote to this key.
    ThinAirRead,
    /// Nothing was seen of a key with a write in the causal past.
    WriteCOInitRead,
    /// A value was seen, and not the one that replaced it and is in the causal past.
    WriteCORead,
    /// Two values were seen, one of which had replaced the other.
    DominatedRead,
    /// A value in the causal past was not seen, although none of the seen values had replaced it.
    OmittedWrite,
    /// A value was seen twice at once, although it was written once.
    RepeatedValue,
    /// Two operations wrote the same value: whoever recorded the history broke its rules.
    WrittenTwice,
}

/// A violation of causal consistency, with what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its shape.
    pub pattern: Pattern,
    /// The operation that shows it.
    pub at: Place,
    /// The key that this operation is about.
    pub key: u32,
    /// What this operation saw.
    pub seen: Vec<u64>,
    /// The values concerned: the one of which there is too much or too little; for
    /// [`Pattern::WriteCORead`] and [`Pattern::DominatedRead`] the old one, then the one that replaced it.
    /// Empty for [`Pattern::CyclicCO`].
    pub values: Vec<u64>,
    /// Operations of which each happened before the next; runs within one session are shortened to their
    /// ends. From the write of the first of `values` up to `at`; for [`Pattern::CyclicCO`] round the cycle
    /// from `at` to `at`. The writes of the value for [`Pattern::ThinAirRead`] (to another key, or none) and
    /// [`Pattern::WrittenTwice`].
    pub witnesses: Vec<Place>,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CyclicCO => "CyclicCO",
            Self::ThinAirRead => "ThinAirRead",
            Self::WriteCOInitRead => "WriteCOInitRead",
            Self::WriteCORead => "WriteCORead",
            Self::DominatedRead => "DominatedRead",
            Self::OmittedWrite => "OmittedWrite",
            Self::RepeatedValue => "RepeatedValue",
            Self::WrittenTwice => "WrittenTwice",
        })
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, at, key, seen, values, .. } = self;
        let first = values.first().copied().unwrap_or_default();
        let last = values.last().copied().unwrap_or_default();
        write!(f, "{pattern}: {at} ")?;
        match pattern {
            Pattern::CyclicCO => write!(f, "happened before itself")?,
            Pattern::ThinAirRead => write!(f, "saw {first} in key {key}, which nobody wrote there")?,
            Pattern::WriteCOInitRead => {
                write!(f, "saw no value of key {key}, although {first} is in its causal past")?;
            }
            Pattern::WriteCORead => write!(
                f,
                "saw {seen:?} in key {key}, although {last}, which replaced {first}, is in its causal past"
            )?,
            Pattern::DominatedRead => {
                write!(f, "saw {seen:?} in key {key}, although {last} had replaced {first}")?;
            }
            Pattern::OmittedWrite => write!(
                f,
                "saw {seen:?} in key {key}, although {first} is in its causal past and none of these replaced it"
            )?,
            Pattern::RepeatedValue => write!(f, "saw {first} twice at once in key {key}")?,
            Pattern::WrittenTwice => {
                write!(
                    f,
                    "wrote {first} to key {key}, which another operation wrote: not a history to judge"
                )?;
            }
        }
        for (position, place) in self.witnesses.iter().enumerate() {
            write!(f, "{}{place}", if position == 0 { " (" } else { " -> " })?;
        }
        f.write_str(if self.witnesses.is_empty() { "" } else { ")" })
    }
}

impl std::error::Error for Anomaly {}

//! What a core knows of the operations and kinds that this version of the format leaves to later ones.
//!
//! Whoever does not know one keeps it, passes it on, and holds what it does: see `held`. So what it says must mean the same
//! whenever it is carried out, and to everybody who knows it: it names origins in full, and what is not well said does
//! nothing, because who held it has passed it on already and cannot refuse its lane any more.

use std::collections::BTreeSet;

use comity_crdts::{Dot, ExtensionTag, Frontier, Hlc, Kind, ObjectAddress};

use crate::op::Op;

#[cfg(feature = "future-operations")]
mod future;
#[cfg(not(feature = "future-operations"))]
mod none;

#[cfg(feature = "future-operations")]
use future as later;
#[cfg(not(feature = "future-operations"))]
use none as later;

#[cfg(feature = "future-operations")]
pub(crate) use future::{FUTURE_KIND, touch, wrapped};
pub(crate) use later::stored_as;

/// Which operations and kinds of later versions a core carries out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Those of a version that does not exist.
    is_future: bool,
}

/// When the change set of an operation was made, and what its author had seen.
pub(crate) type Made<'a> = (Hlc, &'a Frontier);

/// What an operation does, as far as that is known.
pub(crate) enum Meaning {
    /// It is none that is known.
    Unknown,
    /// Nothing: it is not well said.
    Nothing,
    /// The same as this one.
    Does(Op),
}

impl Extensions {
    /// None: what this version of the format has.
    pub const NONE: Self = Self { is_future: false };
    /// Those of a version that does not exist, for tests of replicas that do not know them.
    #[cfg(feature = "future-operations")]
    pub const FUTURE: Self = Self { is_future: true };

    /// Whether nothing is known.
    pub(crate) fn are_none(self) -> bool {
        self == Self::NONE
    }

    /// The numbers of the operations and kinds that are known.
    pub(crate) fn tags(self) -> (BTreeSet<ExtensionTag>, BTreeSet<ExtensionTag>) {
        let all = || (ExtensionTag::MIN..=u8::MAX).filter_map(ExtensionTag::new);
        let is_known = |tag: &ExtensionTag| self.is_future && later::is_known(*tag);
        let operations = all().filter(is_known).collect();
        (operations, all().filter(|tag| self.knows_kind(Kind::Extension(*tag))).collect())
    }

    /// Whether objects of a kind can be made anything of.
    pub(crate) fn knows_kind(self, kind: Kind) -> bool {
        match kind {
            Kind::Extension(_) => self.is_future && stored_as(kind) != kind,
            _ => true,
        }
    }

    /// Whether an operation on an object of a kind can be carried out.
    pub(crate) fn knows(self, kind: Kind, op: &Op) -> bool {
        let is_known = match op {
            Op::Extension { tag, .. } => self.is_future && later::is_known(*tag),
            _ => true,
        };
        is_known && self.knows_kind(kind)
    }

    /// What an operation does.
    pub(crate) fn meaning(self, made: Made<'_>, address: &ObjectAddress, (dot, op): (Dot, &Op)) -> Meaning {
        match op {
            Op::Extension { .. } if !self.knows(address.kind(), op) => Meaning::Unknown,
            Op::Extension { body, .. } => later::meaning(made, address, (dot, body)),
            op => Meaning::Does(op.clone()),
        }
    }
}

//! The messages by which two replicas find the spaces in which they stand differently. `docs/wire.md` has the tables.

use comity_crdts::SpaceId;
use serde::{Deserialize, Serialize};

use super::tree::{Digest, FAN_OUT};

/// What the sender shares with the receiver, in few bytes. Sent once, after `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// How many spaces are in the digest.
    pub spaces: u32,
    /// The digest over them; `None` when the sender opens every space that it shares at once.
    pub root: Option<[u8; 16]>,
}

/// Some nodes of the sender's tree over what it shares with the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branches {
    /// How many levels below the root they are.
    pub depth: u8,
    /// The nodes, in order.
    pub nodes: Vec<Branch>,
}

/// One node, by the digests of its children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its number among the nodes at its depth: the first bits of the ids under it, four for each level.
    pub number: u32,
    /// Which children have something under them, the first in the lowest bit.
    pub present: u16,
    /// The digests of those.
    pub digests: Vec<[u8; 16]>,
}

impl Branch {
    /// Of the digests of all children, zeros where there is nothing.
    pub(crate) fn of(number: u32, children: &[Digest; FAN_OUT]) -> Self {
        let is_present = |child: &usize| children[*child] != Digest::default();
        let present = (0..FAN_OUT).filter(is_present).fold(0, |bits, child| bits | 1 << child);
        let digests = children.iter().filter(|digest| **digest != Digest::default()).copied().collect();
        Self { number, present, digests }
    }

    /// The digests of all children; `None` when there are not as many digests as are said to be present.
    pub(crate) fn children(&self) -> Option<[Digest; FAN_OUT]> {
        if self.present.count_ones() as usize != self.digests.len() {
            return None;
        }
        let mut children = [Digest::default(); FAN_OUT];
        let present = (0..FAN_OUT).filter(|child| self.present >> child & 1 == 1);
        present.zip(&self.digests).for_each(|(child, digest)| children[child] = *digest);
        Some(children)
    }
}

/// All that the sender shares with the receiver of some ranges of ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    /// There are more ranges to come.
    pub more: bool,
    /// The ranges.
    pub ranges: Vec<Leaf>,
}

/// One range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The first id of it.
    pub from: SpaceId,
    /// The last.
    pub until: SpaceId,
    /// Every space in it that the sender shares, in order, with what it has come to.
    pub spaces: Vec<(SpaceId, [u8; 16])>,
}

impl Leaf {
    /// Whether the spaces are in order and within the range.
    pub(crate) fn is_sound(&self) -> bool {
        let in_order = self.spaces.is_sorted_by(|(one, _), (next, _)| one < next);
        let first_fits = self.spaces.first().is_none_or(|(space, _)| self.from <= *space);
        in_order && first_fits && self.spaces.last().is_none_or(|(space, _)| *space <= self.until)
    }
}

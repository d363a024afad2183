//! A digest over many spaces that is kept while they change: a tree over the bits of their ids, sixteen ways at each
//! node (after Merkle, and Meyer's range-based reconciliation). Two trees that hold the same have the same root, and
//! where the roots differ, comparing nodes downwards finds the spaces that do.

use std::collections::BTreeMap;

use comity_crdts::SpaceId;

use crate::hash::hash;

/// What a space, or a range of spaces, has come to. Sixteen bytes: nobody who may write in some of the spaces finds two
/// states with the same one.
pub(crate) type Digest = [u8; 16];

/// Children of a node.
pub(crate) const FAN_OUT: usize = 16;

/// All ids that start with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    /// How many levels below the root.
    depth: u8,
    /// The first of them, the rest zeros.
    bits: u128,
}

impl Prefix {
    pub(crate) const ROOT: Self = Self { depth: 0, bits: 0 };

    /// The node at some depth under which an id is.
    fn of(space: &SpaceId, depth: u8) -> Self {
        let bits = u128::from_be_bytes(space.0);
        Self { depth, bits: if depth == 0 { 0 } else { bits & (u128::MAX << Self::rest(depth)) } }
    }

    /// The node that is the `number`-th of those at some depth, if there are so many.
    pub(crate) fn numbered(depth: u8, number: u32) -> Option<Self> {
        let is_one = depth <= 8 && u64::from(number) < 1 << (4 * u32::from(depth));
        let bits = if depth == 0 { 0 } else { u128::from(number) << Self::rest(depth.max(1)) };
        is_one.then_some(Self { depth, bits })
    }

    /// Its number among the nodes at its depth, of which there must be few.
    pub(crate) fn number(&self) -> u32 {
        if self.depth == 0 { 0 } else { (self.bits >> Self::rest(self.depth)) as u32 }
    }

    /// Bits below a node.
    fn rest(depth: u8) -> u32 {
        128 - 4 * u32::from(depth)
    }

    pub(crate) fn child(&self, number: usize) -> Self {
        let depth = self.depth + 1;
        Self { depth, bits: self.bits | (number as u128) << Self::rest(depth) }
    }

    /// The first id under it and the last.
    pub(crate) fn bounds(&self) -> (SpaceId, SpaceId) {
        let rest = if self.depth == 0 { u128::MAX } else { !(u128::MAX << Self::rest(self.depth)) };
        (SpaceId(self.bits.to_be_bytes()), SpaceId((self.bits | rest).to_be_bytes()))
    }
}

/// The tree over some spaces. Some 60 bytes for each.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    spaces: BTreeMap<SpaceId, Digest>,
    /// Digests of nodes with more than one space that did not change since they were computed.
    nodes: BTreeMap<Prefix, Digest>,
    /// No such node is further below the root.
    depth: u8,
}

impl Tree {
    pub(crate) fn len(&self) -> usize {
        self.spaces.len()
    }

    pub(crate) fn contains(&self, space: &SpaceId) -> bool {
        self.spaces.contains_key(space)
    }

    /// The spaces from one id to another, both included, with their digests.
    pub(crate) fn range(
        &self,
        (from, until): (SpaceId, SpaceId),
    ) -> impl Iterator<Item = (SpaceId, Digest)> + '_ {
        let spaces = (from <= until).then(|| self.spaces.range(from..=until));
        spaces.into_iter().flatten().map(|(space, digest)| (*space, *digest))
    }

    /// Takes a space in, or out. O(log n); each node above it has to be computed again.
    pub(crate) fn set(&mut self, space: SpaceId, digest: Option<Digest>) {
        let before = match digest {
            Some(digest) => self.spaces.insert(space, digest),
            None => self.spaces.remove(&space),
        };
        if before == digest {
            return;
        }
        for depth in 0..=self.depth {
            self.nodes.remove(&Prefix::of(&space, depth));
        }
    }

    /// The digest of all spaces.
    pub(crate) fn root(&mut self) -> Digest {
        self.node(Prefix::ROOT)
    }

    /// The digests of a node's children; zeros where there is no space.
    pub(crate) fn children(&mut self, of: Prefix) -> [Digest; FAN_OUT] {
        std::array::from_fn(|number| self.node(of.child(number)))
    }

    fn node(&mut self, at: Prefix) -> Digest {
        if let Some(known) = self.nodes.get(&at) {
            return *known;
        }
        let mut spaces = self.range(at.bounds());
        let (Some((space, digest)), more) = (spaces.next(), spaces.next().is_some()) else {
            return Digest::default();
        };
        drop(spaces);
        if !more {
            return hash("comity 2026 shared space\0", &[&space.0, &digest]).half();
        }
        let children = self.children(at);
        let digest = hash("comity 2026 shared spaces\0", &[children.as_flattened()]).half();
        self.nodes.insert(at, digest);
        self.depth = self.depth.max(at.depth);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> SpaceId {
        SpaceId(hash("test\0", &[&number.to_be_bytes()]).half())
    }

    fn tree(numbers: impl IntoIterator<Item = u64>) -> Tree {
        let mut tree = Tree::default();
        numbers.into_iter().for_each(|number| tree.set(id(number), Some([number as u8; 16])));
        tree
    }

    #[test]
    fn a_root_is_a_function_of_what_is_in_the_tree_whatever_came_before() {
        let expected = tree(0..500).root();
        assert_eq!(tree((0..500).rev()).root(), expected, "in another order");
        let mut changed = tree(0..700);
        for number in 0..700 {
            changed.set(id(number), Some([9; 16]));
            if number % 7 == 0 {
                changed.root();
            }
        }
        for number in (0..700).rev() {
            changed.set(id(number), (number < 500).then_some([number as u8; 16]));
            if number % 11 == 0 {
                changed.root();
            }
        }
        assert_eq!(changed.root(), expected, "with roots computed in between");
        assert!(changed.nodes.len() < 500, "fewer inner nodes than spaces");
    }

    #[test]
    fn one_space_that_differs_shows_at_every_node_above_it_and_nowhere_else() {
        let (mut one, mut other) = (tree(0..1_000), tree(0..1_000));
        other.set(id(17), Some([0xff; 16]));
        assert_ne!(one.root(), other.root());
        let mut at = Prefix::ROOT;
        while one.range(at.bounds()).count() > 1 {
            let (ours, theirs) = (one.children(at), other.children(at));
            let differing: Vec<usize> = (0..FAN_OUT).filter(|child| ours[*child] != theirs[*child]).collect();
            assert_eq!(differing.len(), 1);
            at = at.child(differing[0]);
        }
        assert_eq!(one.range(at.bounds()).next(), Some((id(17), [17; 16])));
    }

    #[test]
    fn ids_that_agree_in_all_bits_but_the_last_are_told_apart() {
        let (low, high) = (SpaceId([7; 16]), SpaceId(std::array::from_fn(|at| if at == 15 { 8 } else { 7 })));
        let mut tree = Tree::default();
        tree.set(low, Some([1; 16]));
        let alone = tree.root();
        tree.set(high, Some([1; 16]));
        assert_ne!(tree.root(), alone);
        tree.set(high, None);
        assert_eq!(tree.root(), alone);
        tree.set(low, None);
        assert_eq!(tree.root(), Digest::default(), "nothing is zeros");
    }

    #[test]
    fn nodes_are_named_by_their_numbers() {
        let node = Prefix::of(&SpaceId([0xab; 16]), 3);
        assert_eq!(node.number(), 0xaba);
        assert_eq!(Prefix::numbered(3, 0xaba), Some(node));
        assert_eq!(Prefix::numbered(3, 0x1000), None);
        assert_eq!(Prefix::numbered(0, 0), Some(Prefix::ROOT));
        assert_eq!(Prefix::numbered(0, 1), None);
        assert_eq!(Prefix::numbered(9, 0), None);
        assert_eq!(Prefix::ROOT.bounds(), (SpaceId([0; 16]), SpaceId([0xff; 16])));
    }
}
